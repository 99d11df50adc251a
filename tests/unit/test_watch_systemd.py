"""What systemd is told, on a socket like its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsttrace.watch.systemd import STATUS_S, Notifier


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def messages(sock: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(sock.recv(4096).decode())
        except BlockingIOError:
            return found


def told(sock: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": sock.getsockname(), **more}


def test_a_whole_life(heard: socket.socket) -> None:
    notifier = Notifier(told(heard))
    notifier.ready()
    notifier.alive("0 resets")
    notifier.alive("0 resets")
    notifier.stopping()
    assert messages(heard) == [
        "READY=1",
        "STATUS=0 resets",
        "STOPPING=1\nSTATUS=showing what is left",
    ]


def test_the_watchdog_hears_twice_as_often_as_it_wants(heard: socket.socket) -> None:
    clock = Clock()
    given = told(heard, WATCHDOG_USEC="10000000", WATCHDOG_PID=str(os.getpid()))
    notifier = Notifier(given, clock)
    moments = []
    for _ in range(100):
        notifier.alive("")
        if messages(heard):
            moments.append(clock.now)
        clock.now += 0.25
    assert moments == [100, 105, 110, 115, 120]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "soon"},
    ],
)
def test_no_watchdog_of_ours(given: dict[str, str], heard: socket.socket) -> None:
    Notifier(told(heard, **given)).alive("")
    assert messages(heard) == []


def test_a_status_that_changes_at_each_turn_is_not_sent_at_each(heard: socket.socket) -> None:
    clock = Clock()
    notifier = Notifier(told(heard), clock)
    for number in range(20):
        notifier.alive(f"{number} resets")
        clock.now += STATUS_S / 8
    assert messages(heard) == ["STATUS=0 resets", "STATUS=8 resets", "STATUS=16 resets"]


def test_an_abstract_name() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")  # the kernel chooses an abstract name (unix(7), autobind)
        sock.setblocking(False)
        name = sock.getsockname()
        Notifier({"NOTIFY_SOCKET": "@" + name[1:].decode()}).ready()
        assert messages(sock) == ["READY=1"]


def test_without_systemd_nothing_happens() -> None:
    notifier = Notifier({})
    notifier.ready()
    notifier.alive("x")
    notifier.stopping()


def test_a_systemd_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    notifier.ready()
    notifier.alive("x")
