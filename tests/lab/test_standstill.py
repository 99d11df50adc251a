"""The tracer, or who reads it, stands still under load: all is told or counted, then it goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scapy.utils import PcapNgReader

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    ADDRESSES,
    DEADLINE_S,
    START_S,
    TRACE,
    Json,
    Tracer,
    out_rsts,
    poll_until,
    refuse,
    tracing,
)
from tests.lab.test_storm import STORM, books, flood, syns

AFTER = range(7100, 7111)
"""Ports to which connections are refused once it goes on: each is told by itself."""

LOST = re.compile(r"^warning: ([\d,]+) resets are lost", re.MULTILINE)


def lost_so_far(status: str) -> int:
    """What was said to be lost, meanwhile."""
    return sum(int(number.replace(",", "")) for number in LOST.findall(status))


def refuse_after(lab: Lab) -> None:
    """Refused connections, each to a port of its own."""
    for port in AFTER:
        refuse(lab, ADDRESSES["server"][0], port)


def told_after(entries: list[Json]) -> Counter[int]:
    """How often each of them was told by itself."""
    return Counter(
        entry["local"]["port"]
        for entry in entries
        if "kind" in entry and entry["local"]["port"] in AFTER and entry["counted"] is None
    )


@contextmanager
def stopped(process: subprocess.Popen[str]) -> Iterator[None]:
    """A process that stands still meanwhile, as in a suspended machine."""
    process.send_signal(signal.SIGSTOP)
    try:
        poll_until(
            lambda: (
                Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
            ),
            "it to stand still",
        )
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("aggregate", [True, False], ids=["aggregate", "one-by-one"])
def test_a_tracer_that_stood_still_has_told_or_counted_all(routed: Lab, aggregate: bool) -> None:
    """More came than the ring holds. What comes afterwards is told whole, and at once."""
    netns = routed.inode("server")
    how = ["--rate", "10"] if aggregate else ["--no-aggregate"]
    tracer = Tracer("--netns", str(netns), "--kind", "sent", "--summary", *how)
    before = out_rsts(routed, "server")
    refuse(routed, ADDRESSES["server"][0])
    tracer.collect(netns, 1)
    with stopped(tracer.process):
        flood(routed, syns(101), STORM)
        poll_until(lambda: out_rsts(routed, "server") - before == STORM + 1, "all resets")
    tracer.wait_for(
        lambda: (
            sum(entry["seen"] for entry in tracer.entries) + lost_so_far(tracer.status) == STORM + 1
        ),
        "word of all of them",
        5 * DEADLINE_S,
    )
    refuse_after(routed)
    tracer.wait_for(lambda: len(told_after(tracer.entries)) == len(AFTER), "what came after")
    assert tracer.stop() == 0
    *entries, last = tracer.entries
    sent = out_rsts(routed, "server") - before
    assert sent == STORM + 1 + len(AFTER)
    whole, shown, counted, filtered, lost = books(tracer.status)
    assert whole - filtered == sent  # what the other end received is filtered
    assert sum(entry["seen"] for entry in entries) + lost == sent
    assert shown == sum(entry["counted"] is None for entry in entries)
    assert last["totals"]["not_shown"]["lost"] == lost
    assert counted > 0 if aggregate else lost > 0
    assert lost_so_far(tracer.status) == lost
    assert told_after(entries) == dict.fromkeys(AFTER, 1)
    told = [entry["time"] for entry in entries if entry["counted"] is None]
    assert told == sorted(told)


def test_a_reader_that_reads_again_has_lost_only_what_was_said(routed: Lab) -> None:
    """It does not read until the pipe, the tracer's memory and the ring are full."""
    netns = str(routed.inode("server"))
    options = ("-o", "json", "--netns", netns, "--kind", "sent", "--no-aggregate", "--summary")
    with tracing(*options) as process:
        assert process.stdout is not None
        status: list[str] = []
        heard = threading.Thread(target=lambda: status.extend(process.stderr or ()), daemon=True)
        heard.start()
        before = out_rsts(routed, "server")
        while not lost_so_far("".join(status)):
            flood(routed, syns(101), STORM)
        flooded = out_rsts(routed, "server") - before
        entries: list[Json] = []

        def go_on() -> None:
            # Pipe, memory and ring are empty again once all but the newest have come. What is lost
            # may be said when nothing more is to be read.
            try:
                poll_until(
                    lambda: len(entries) + lost_so_far("".join(status)) >= flooded - 64,
                    "word of nearly all",
                    5 * DEADLINE_S,
                )
            finally:
                refuse_after(routed)

        threading.Thread(target=go_on, daemon=True).start()
        for line in process.stdout:
            entries.append(json.loads(line))
            if len(told_after(entries[-64:])) == len(AFTER):
                break
        process.terminate()
        entries += [json.loads(line) for line in process.stdout]
        assert process.wait(DEADLINE_S) == 0
        heard.join(DEADLINE_S)
    said = "".join(status)
    sent = out_rsts(routed, "server") - before
    whole, shown, counted, filtered, lost = books(said)
    *entries, last = entries
    assert (whole - filtered, counted) == (sent, 0)
    assert shown == len(entries)
    assert lost == last["totals"]["not_shown"]["lost"] == lost_so_far(said) > 0
    assert told_after(entries) == dict.fromkeys(AFTER, 1)


def test_of_five_tracers_each_tells_all_and_none_disturbs_another(routed: Lab) -> None:
    """They start at once, one is killed and one ends meanwhile: the others go on."""
    netns = routed.inode("server")
    options = ("--netns", str(netns), "--kind", "sent")
    tracers = [Tracer(*options, wait=False) for _ in range(5)]
    try:
        for tracer in tracers:
            tracer.wait_for(lambda t=tracer: "tracing" in t.status, "all to start", 5 * START_S)  # type: ignore[misc]
        before = out_rsts(routed, "server")
        refuse_after(routed)
        for tracer in tracers:
            tracer.collect(netns, len(AFTER))
        tracers[0].stop(signal.SIGKILL)
        assert tracers[1].stop() == 0
        refuse_after(routed)
        for tracer in tracers[2:]:
            tracer.collect(netns, 2 * len(AFTER))
            assert tracer.stop() == 0
        sent = out_rsts(routed, "server") - before
        assert sent == 2 * len(AFTER)
        for number, tracer in enumerate(tracers):
            assert set(told_after(tracer.entries).values()) == {1 if number < 2 else 2}
            if number:
                shown = sent if number > 1 else len(AFTER)
                whole, told, _, filtered, _ = books(tracer.status)
                assert (whole - filtered, told) == (shown, shown)
    finally:
        for tracer in tracers:
            tracer.stop(signal.SIGKILL)


@contextmanager
def small_disk(at: Path, size: str = "16k") -> Iterator[Path]:
    """A disk of so many bytes."""
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "rsttrace", at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


MANY = 40


def test_json_on_a_full_disk(routed: Lab, tmp_path: Path) -> None:
    """Alone it ends the run; packets that are written elsewhere go on. One sentence says so.

    That the disk is full is noticed where lines are written together.
    """
    netns = ("--netns", routed.name("client"), "--kind", "received")
    with small_disk(tmp_path / "disk") as disk:
        for packets in (None, tmp_path / "packets"):
            writes = ["-w", str(packets)] if packets is not None else []
            command = [*TRACE, "-o", "json", *netns, *writes]
            with (
                open(disk / "lines", "w", encoding="utf-8") as lines,
                subprocess.Popen(command, stdout=lines, stderr=subprocess.PIPE, text=True) as run,
            ):
                assert run.stderr is not None
                try:
                    assert "tracing resets" in run.stderr.readline()
                    for _ in range(MANY):
                        refuse(routed, ADDRESSES["server"][0])
                    said = run.stderr.readline()
                    assert "No space left on device" in said
                    if packets is not None:
                        poll_until(lambda p=packets: written(p) >= MANY, "packets")  # type: ignore[misc]
                        run.terminate()
                    said += run.stderr.read()
                    assert run.wait(DEADLINE_S) == 1
                finally:
                    run.kill()
            assert "Traceback" not in said
            assert said.count("No space left on device") == 1


def written(path: Path) -> int:
    """How many resets are in a pcapng file so far."""
    if not path.exists():
        return 0
    with PcapNgReader(str(path)) as packets:
        return sum("R" in packet.sprintf("%TCP.flags%") for packet in packets)


def test_a_report_on_a_full_disk_leaves_what_was_there(routed: Lab, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8k") as disk:
        page = disk / "page.html"
        page.write_text("the last run's")
        tracer = Tracer("--netns", routed.name("client"), "--report", str(page))
        refuse(routed, ADDRESSES["server"][0])
        tracer.collect(routed.inode("client"), 1)
        assert tracer.stop() == 1
        assert page.read_text() == "the last run's"
        assert [path.name for path in disk.iterdir()] == ["page.html"]
    (said,) = [line for line in tracer.status.splitlines() if line.startswith("warning")]
    assert "No space left on device" in said


def test_packets_into_a_closed_pipe_end_it_quietly(routed: Lab) -> None:
    """As in ``rsttrace -w - | head -c 1000``."""
    with tracing("-w", "-", "--netns", routed.name("client")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 0
        assert "Traceback" not in process.stderr.read()
