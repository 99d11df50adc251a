"""Killed at any moment, by kill -9: of what it was there is nothing left."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from rsttrace.kernel import cache
from tests.lab.harness import START_S, TRACE, poll_until
from tests.lab.residue import residue

MOMENTS = 101

VICTIMS = ("tracer", "child", "both")
"""Who is killed: by hand, by the OOM killer, with the whole cgroup."""

PROGRAMS = ("compiled", "written", "kept")
"""Compiled and kept nowhere, compiled and then kept, kept from an earlier start."""


class Victim:
    """A tracer with all its outputs (in `files`) and its cache in `kept`."""

    def __init__(self, program: str, kept: Path, files: Path) -> None:
        if program == "written":
            shutil.rmtree(kept, ignore_errors=True)
        env = {**os.environ, cache.VARIABLE: "" if program == "compiled" else str(kept)}
        outputs = ["-o", "json", "-w", str(files / "out"), "--report", str(files / "page")]
        self.process = subprocess.Popen(
            [*TRACE, *outputs, "--kind", "all"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )

    def child(self) -> int | None:
        """The loading child's pid; None before it is there, and afterwards."""
        pid = self.process.pid
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for found in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                if b"rsttrace.kernel.child" in Path(f"/proc/{found}/cmdline").read_bytes():
                    return int(found)
        return None

    def kill(self, who: str) -> bool:
        """Kill; whether the child was among the dead."""
        child = self.child() if who != "tracer" else None
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        if who != "child" or child is None:
            self.process.kill()
        return child is not None

    def end(self) -> tuple[int, str]:
        """Its exit code and what it said, once it has ended."""
        _, status = self.process.communicate(timeout=START_S)
        return self.process.returncode, status


def start_s(program: str, kept: Path, files: Path) -> float:
    """How long it takes to start, in seconds."""
    began = time.monotonic()
    victim = Victim(program, kept, files)
    assert victim.process.stderr is not None
    assert "tracing resets" in victim.process.stderr.readline()
    took = time.monotonic() - began
    victim.kill("tracer")
    victim.end()
    return took


@pytest.mark.parametrize(
    "moments",
    [3, pytest.param(MOMENTS, marks=pytest.mark.slow)],  # the latter takes minutes
)
def test_whoever_is_killed_at_whatever_moment_nothing_is_left(moments: int, tmp_path: Path) -> None:
    """The tracer, its loading child, or both: while they start, and while they trace.

    A child that died is one clear error of the tracer.
    """
    chance = random.Random(moments)
    files, kept = tmp_path / "files", tmp_path / "kept"
    files.mkdir()
    starting = 0
    with Lab("rstkilled") as lab:
        lab.add("host")
        takes = {program: start_s(program, kept, files) for program in PROGRAMS}
        before = residue()
        for number in range(moments):
            program, who = PROGRAMS[number % 3], VICTIMS[(number + number // 3 + 1) % 3]
            victim = Victim(program, kept, files)
            dies = time.monotonic() + chance.uniform(0, 1.5 * takes[program])
            while time.monotonic() < dies:  # a moment, not a synchronisation
                with lab.inside("host"), socket.socket() as sock:
                    sock.connect_ex(("127.0.0.1", 7999))
            child_died = victim.kill(who)
            starting += child_died
            code, status = victim.end()
            case = f"{who} ({program}) killed at moment {number}"
            assert "Traceback" not in status, case
            if who == "child" and child_died:
                assert code == 1, (case, status)
            poll_until(
                lambda: residue() <= before,
                f"nothing to be left: {case}",
            )
            assert [path.name for path in kept.glob(".*")] == [], case
            assert {path.name for path in files.iterdir()} <= {"out"}, case
    assert starting or moments < MOMENTS  # of a few moments none may be while it starts
