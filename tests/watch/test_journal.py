"""Entries in a real journald: found by their fields, whole, and never in the trace's way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from rsttrace.render.journal import FIELDS, MESSAGE_ID
from tests.lab.conftest import routed_lab
from tests.lab.harness import TRACE, Json, Tracer, skip_without
from tests.watch.journald import DAEMON, Journald
from tests.watch.test_prometheus import play

CLIENT = "client"


@pytest.fixture
def journald() -> Iterator[Journald]:
    skip_without(DAEMON, "journalctl", "nsenter")
    with Journald() as journald:
        yield journald


@contextmanager
def traced(lab: Lab, journald: Journald) -> Iterator[Tracer]:
    """A tracer that writes to this journal, of the lab's client."""
    command = [*journald.through, *TRACE, "--journal"]
    # journald adds what it knows of a process that root names
    tracer = Tracer("--netns", str(lab.inode(CLIENT)), "--keep-root", program=command)
    try:
        yield tracer
    finally:
        tracer.stop()


def test_entries_are_found_by_their_fields() -> None:
    skip_without(DAEMON, "journalctl", "nsenter")
    with routed_lab("rstjournal") as lab, Journald() as journald:  # which sees the lab's names
        with traced(lab, journald) as tracer:
            play(lab)
            tracer.wait_for(
                lambda: {"forged", "peer"} <= {e["origin"] for e in tracer.entries}, "both"
            )
        assert tracer.process.returncode == 0
        found = journald.read("-t", "rsttrace")
        forged = journald.read("RSTTRACE_ORIGIN=forged")
        peers = journald.read("RSTTRACE_ORIGIN=peer")
    assert "missing in the journal" not in tracer.status
    assert [json.loads(one["RSTTRACE_JSON"]) for one in found] == tracer.entries
    assert [json.loads(one["RSTTRACE_JSON"]) for one in forged] == [
        entry for entry in tracer.entries if entry["origin"] == "forged"
    ]
    assert forged
    for one in forged:
        entry = json.loads(one["RSTTRACE_JSON"])
        assert (one["PRIORITY"], one["MESSAGE_ID"]) == ("4", MESSAGE_ID)
        assert "FORGED" in one["MESSAGE"]
        assert one["RSTTRACE_REMOTE_IP"] == entry["remote"]["ip"]
        assert one["RSTTRACE_REMOTE_PORT"] == str(entry["remote"]["port"])
        assert one["RSTTRACE_CAUSE"] == entry["cause"]["name"]
        assert {name for name in one if name.startswith("RSTTRACE_")} <= set(FIELDS)
    assert {one["PRIORITY"] for one in peers} == {"6"}
    # What journald knows of the process whose connection it was.
    owned = [one for one in found if "RSTTRACE_PID" in one]
    assert {one["OBJECT_PID"] for one in owned} == {str(os.getpid())}
    assert {one["OBJECT_EXE"] for one in owned} == {str(Path(sys.executable).resolve())}


def test_without_a_journald_it_says_so_before_anything_is_loaded(journald: Journald) -> None:
    journald.stop()
    done = subprocess.run(
        [*journald.through, *TRACE, "--journal"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    what, hint = done.stderr.splitlines()
    assert what.startswith("rsttrace: the journal cannot be reached at /run/systemd/journal/socket")
    assert "systemctl status systemd-journald" in hint


SENDER = """
import sys
from rsttrace.watch.journal import Journal
with Journal() as journal:
    for line in sys.stdin:
        number, _, size = line.partition(" ")
        fields = [("RSTTRACE_ID", number), ("RSTTRACE_FINDING", "a"), ("RSTTRACE_FINDING", "b\\nPRIORITY=0")]
        journal.send([("MESSAGE", "x" * int(size)), ("PRIORITY", "6"), *fields])
        print(journal.lost, journal.reason, flush=True)
"""  # noqa: E501


class Sender:
    """A process that sends entries of a given size, one at a time, and says how many are lost."""

    def __init__(self, journald: Journald) -> None:
        self.process = subprocess.Popen(
            [*journald.through, sys.executable, "-c", SENDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, number: int, size: int = 10) -> tuple[int, str]:
        """How many entries were lost up to this one, and why the last of them."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{number} {size}\n")
        self.process.stdin.flush()
        lost, _, reason = self.process.stdout.readline().strip().partition(" ")
        return int(lost), reason


@pytest.fixture
def sender(journald: Journald) -> Iterator[Sender]:
    made = Sender(journald)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


def by_number(journald: Journald) -> dict[str, Json]:
    return {one["RSTTRACE_ID"]: one for one in journald.read("RSTTRACE_FINDING=a")}


def test_a_value_is_one_value_whatever_is_in_it(journald: Journald, sender: Sender) -> None:
    assert sender.send(1) == (0, "")
    (one,) = by_number(journald).values()
    assert one["PRIORITY"] == "6"
    assert one["RSTTRACE_FINDING"] == ["a", "b\nPRIORITY=0"]


def test_a_large_entry_arrives_whole(journald: Journald, sender: Sender) -> None:
    """Larger than a datagram may be: it goes in a memfd."""
    size = 2_000_000
    assert sender.send(1, size) == (0, "")
    assert by_number(journald)["1"]["MESSAGE"] == "x" * size


def test_a_journald_that_is_started_anew_gets_what_comes_then(
    journald: Journald, sender: Sender
) -> None:
    assert sender.send(1) == (0, "")
    assert set(by_number(journald)) == {"1"}
    journald.stop()
    lost, reason = sender.send(2)
    assert lost == 1
    assert "refused" in reason
    journald.start()
    assert sender.send(3)[0] == 1
    assert set(by_number(journald)) == {"1", "3"}


def test_a_journald_that_hangs_holds_nobody_up(journald: Journald, sender: Sender) -> None:
    journald.process.send_signal(signal.SIGSTOP)
    sent = 0
    while True:
        sent += 1
        lost, reason = sender.send(sent, 50_000)
        if lost:
            break
    assert reason
    for _ in range(20):
        sent += 1
        lost, _ = sender.send(sent, 50_000)
    assert lost > 1
    journald.process.send_signal(signal.SIGCONT)
    assert len(by_number(journald)) == sent - lost
    assert sender.send(0)[0] == lost
