"""What repeats is grouped in the text, and nothing is lost of it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from rsttrace.commands.repeats import GROUPS, QUIET_NS, SHOWN, Repeats
from rsttrace.model import NO_TIME, Endpoint, Entry
from tests.unit import captures as c
from tests.unit.captures import Talk
from tests.unit.command import run
from tests.unit.test_render_samples import FORGED, PEER

SECOND = 1_000_000_000


class Clock:
    """Seconds that stand still."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def at(entry: Entry, seconds: float, **changes: object) -> Entry:
    reset = replace(entry.reset, time_ns=round(seconds * SECOND), **changes)  # type: ignore[arg-type]
    return replace(entry, reset=reset)


def test_the_first_are_shown_the_others_counted() -> None:
    repeats = Repeats(Clock())
    assert [repeats.take(at(PEER, n)) for n in range(1, 9)] == [True] * SHOWN + [False] * 3
    assert repeats.due(9 * SECOND) == []
    (told,) = repeats.due()
    assert (told.count, told.first_ns, told.last_ns) == (3, 6 * SECOND, 8 * SECOND)
    assert repeats.due() == []


def test_what_comes_after_a_pause_is_shown_again() -> None:
    repeats = Repeats(Clock())
    for number in range(SHOWN + 2):
        repeats.take(at(PEER, number))
    after = SHOWN + 1 + QUIET_NS / SECOND
    assert repeats.take(at(PEER, after))
    (told,) = repeats.due(round(after * SECOND))
    assert told.count == 2


def test_a_line_comes_though_it_does_not_end() -> None:
    """By the time of the resets (a capture), and by the clock (nothing else comes)."""
    repeats, told = Repeats(Clock()), []
    for number in range(1000):
        repeats.take(at(PEER, number / 10))
        told += repeats.due(number * SECOND // 10)
    assert 8 <= len(told) <= 10
    clock = Clock()
    repeats = Repeats(clock)
    for _ in range(SHOWN + 1):
        repeats.take(at(PEER, 1))
    assert repeats.due(NO_TIME) == []
    clock.now += QUIET_NS / SECOND
    assert [found.count for found in repeats.due(NO_TIME)] == [1]


@pytest.mark.parametrize(
    "other",
    [
        at(PEER, 1, remote=Endpoint("192.0.2.1", 3306)),
        at(PEER, 1, remote=Endpoint(PEER.reset.remote.ip, 80)),
        at(PEER, 1, netns=7),
        at(FORGED, 1),
        replace(PEER, amends=1),
    ],
)
def test_what_differs_is_shown(other: Entry) -> None:
    repeats = Repeats(Clock())
    for _ in range(SHOWN + 5):
        repeats.take(at(PEER, 1))
    assert repeats.take(other)


def test_memory_is_bounded_and_every_one_is_told() -> None:
    repeats, shown, told = Repeats(Clock()), 0, 0
    for _ in range(SHOWN + 2):
        for number in range(GROUPS + 50):
            shown += repeats.take(at(PEER, 1, remote=Endpoint(f"192.0.2.{number}", 80)))
            told += sum(found.count for found in repeats.due(SECOND))
    told += sum(found.count for found in repeats.due())
    assert shown + told == (SHOWN + 2) * (GROUPS + 50)


def test_a_capture_with_a_hundred_alike() -> None:
    packets = []
    for port in range(50000, 50100):
        talk = Talk(port=port)
        packets += [*talk.handshake(), talk.reset(ttl=47)]
    capture = c.pcap(packets)
    done = run("read", "-q", "--summary", "-", stdin=capture)
    lines = done.stdout.decode().splitlines()
    assert [f":{50000 + n}  " in line for n, line in enumerate(lines[:SHOWN])] == [True] * SHOWN
    assert re.search(
        r" IN  PEER 9\d%       198.51.100.7:443 > 10.0.0.5:\*  x 95 in 376 ms: the peer has no",
        done.stdout.decode(),
    )
    assert lines[SHOWN + 1].startswith("100 resets shown")
    assert "  top peers: 198.51.100.7 (100)" in lines
    assert "  top ports: 443 (100)" in lines
    for option in ("--each", "-v", "--explain"):
        each = run("read", option, "-", stdin=capture).stdout.decode()
        assert each.count(" IN  PEER ") == 100
    json = run("read", "-o", "json", "-", stdin=capture).stdout
    assert len(json.splitlines()) == 100
