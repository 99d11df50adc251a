"""How long after a reset its JSON line is there: median and the slowest of a hundred. Needs root.

Run as ``python -m tests.bench.latency``; also a part of ``make bench``. Refused connections, so
many a second, each shown at once (``--hold 0``) and one by one. A line's time is when it is read
from the tracer's pipe; a reset's is its entry's ``time``, which is the kernel's.
"""

from __future__ import annotations

import calendar
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

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
def reading(lab: Lab) -> Iterator[list[tuple[float, str]]]:
    """A tracer's lines, each with when it came (seconds since the epoch)."""
    lines: list[tuple[float, str]] = []
    command = [sys.executable, "-m", "rsttrace", "-o", "json", "--utc", "--hold", "0"]
    command += ["--no-aggregate", "--netns", lab.name("server")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as tracer:
        assert tracer.stdout is not None
        assert tracer.stderr is not None
        out = tracer.stdout
        assert "tracing resets" in tracer.stderr.readline()

        def read() -> None:
            lines.extend((time.time(), line) for line in out)

        reader = threading.Thread(target=read)
        reader.start()
        yield lines
        tracer.terminate()
        reader.join()


def when(line: str) -> float:
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
            with reading(lab) as lines:
                count = refuse(lab, rate)
            late = sorted(came - when(line) for came, line in lines)
            print(f"{rate:,} resets a second, to their JSON lines ({len(late)} of {count})")
            ninety_nine = late[len(late) * 99 // 100]
            print(
                f"    median {statistics.median(late) * 1e3:.1f} ms, "
                f"99 of 100 within {ninety_nine * 1e3:.1f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
