"""How long after a reset its JSON line is there: median and the slowest of a hundred. Needs root.

Run as ``python -m tests.bench.latency``; also a part of ``make bench``. Refused connections, so
many a second, each shown at once (``--hold 0``) and one by one. A line's time is when it is read
from the tracer's pipe; a reset's is its entry's ``time``, which is the kernel's.
"""

from __future__ import annotations

import calendar
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rsttrace.demo.lab import Lab

SERVER = "10.73.0.2"
RATES = (200, 2_000)
"""Resets a second."""

SECONDS = 4


def refuse(lab: Lab, rate: int) -> int:
    """Connect to a closed port at this rate; returns how often."""
    count = rate * SECONDS
    began = time.monotonic()
    with lab.inside("client"):
        for number in range(count):
            ahead = began + number / rate - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
            with socket.socket() as sock:
                sock.connect_ex((SERVER, 9))
    return count


@contextmanager
def reading(lab: Lab) -> Iterator[list[tuple[float, bytes]]]:
    """What a tracer writes, piece by piece, each with when it came (seconds since the epoch)."""
    pieces: list[tuple[float, bytes]] = []
    command = [sys.executable, "-m", "rsttrace", "-o", "json", "--utc", "--hold", "0"]
    command += ["--no-aggregate", "--netns", lab.name("server")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tracer:
        assert tracer.stdout is not None
        assert tracer.stderr is not None
        out = tracer.stdout.fileno()
        assert b"tracing resets" in tracer.stderr.readline()

        def read() -> None:
            while piece := os.read(out, 1 << 20):
                pieces.append((time.time(), piece))

        reader = threading.Thread(target=read)
        reader.start()
        yield pieces
        wait_for_quiet(pieces)
        usage = cpu_s(tracer.pid)
        tracer.terminate()
        reader.join()
        each = usage / sum(piece.count(b"\n") for _, piece in pieces) * 1e6
        print(f"{each:.0f} µs of CPU for each reset in the tracer, its start included")


def wait_for_quiet(pieces: list[tuple[float, bytes]]) -> None:
    """Until nothing more comes."""
    count = -1
    while count != len(pieces):
        count = len(pieces)
        time.sleep(0.5)


def delays(pieces: list[tuple[float, bytes]]) -> list[float]:
    """Of each line, how long after its reset it was there, in seconds."""
    found, rest = [], b""
    for came, piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        found += [came - when(line) for line in lines]
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds used so far (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def when(line: bytes) -> float:
    """When the reset came, in seconds since the epoch."""
    text = json.loads(line)["time"]
    whole = time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")
    return calendar.timegm(whole) + int(text[20:29]) / 1e9


def main() -> None:
    """Measure and print."""
    with Lab("rstlate") as lab:
        lab.add("client", "server")
        lab.link("client", "eth0", "server", "eth0")
        lab.addresses("client", "eth0", "10.73.0.1/24")
        lab.addresses("server", "eth0", f"{SERVER}/24")
        for rate in RATES:
            with reading(lab) as pieces:
                count = refuse(lab, rate)
            late = sorted(delays(pieces))
            print(f"{rate:,} resets a second, to their JSON lines ({len(late)} of {count})")
            ninety_nine = late[len(late) * 99 // 100]
            print(
                f"    median {statistics.median(late) * 1e3:.1f} ms, "
                f"99 of 100 within {ninety_nine * 1e3:.1f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
