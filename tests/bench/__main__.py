"""What tracing costs, all of it, and docs/performance.md of it. Run as root: ``make bench``."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rsttrace.demo.lab import Lab
from rsttrace.kernel.cache import VARIABLE
from tests.bench import captures, document, judging, latency, load, packets, stages
from tests.bench.packets import SERVER, bench_lab
from tests.bench.ways import others, ours
from tests.lab.harness import bpf_programs, out_rsts
from tests.lab.programs import PACKETS, loaded

ROUNDS = 5


class Silent:
    """A tracer whose output goes nowhere."""

    def __init__(self, options: list[str], cache: str | None = None) -> None:
        """Starts it; `cache` is where compiled programs are kept (as usual; empty: nowhere)."""
        began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rsttrace", "-o", "json", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=None if cache is None else {**os.environ, VARIABLE: cache},
        )
        assert self.process.stderr is not None
        assert "tracing resets" in self.process.stderr.readline()
        self.start_s = time.monotonic() - began

    def memory_kb(self) -> dict[str, int]:
        """Resident memory, from /proc/PID/status."""
        rows = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        fields = dict(row.split(":", 1) for row in rows)
        return {name: int(fields[name].split()[0]) for name in ("VmRSS", "RssAnon", "RssFile")}

    def cpu_s(self) -> float:
        """CPU seconds used so far (proc(5): utime and stime)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> str:
        """End it; returns what it said."""
        self.process.terminate()
        assert self.process.stderr is not None
        said = self.process.stderr.read()
        self.process.wait()
        self.process.stderr.close()
        return said


def storm(lab: Lab) -> int:
    """Refused connections as fast as one process can; returns how many."""
    turns = 10_007
    before = out_rsts(lab, "server")
    with lab.inside("client"):
        for _ in range(turns):
            with socket.socket() as sock:
                sock.connect_ex((SERVER, 9))
    return out_rsts(lab, "server") - before


def starts() -> None:
    """How long a start takes that compiles, and one that finds what an earlier one compiled."""
    spent: dict[str, list[float]] = {"compiled": [], "kept from an earlier start": []}
    with tempfile.TemporaryDirectory() as folder:
        Silent([], folder).stop()
        for _ in range(ROUNDS):
            for seconds, cache in zip(spent.values(), ("", folder)):
                tracer = Silent([], cache)
                seconds.append(tracer.start_s)
                tracer.stop()
    base = statistics.median(spent["compiled"])
    print("start, to `tracing resets`")
    for name, seconds in spent.items():
        median = statistics.median(seconds)
        print(f"    {median / base:5.2f} x  {name}: {median:.2f} s", flush=True)


def measure_storm(lab: Lab, options: list[str]) -> None:
    """What a storm costs in the tracer, and what it says became of every reset."""
    tracer = Silent(["--netns", lab.name("server"), *options])
    first = tracer.memory_kb()
    used = tracer.cpu_s()
    began = time.monotonic()
    count = storm(lab)
    took_s = time.monotonic() - began
    meanwhile = tracer.cpu_s() - used
    time_limit = time.monotonic() + 30
    last = -1.0
    while tracer.cpu_s() != last and time.monotonic() < time_limit:
        last = tracer.cpu_s()
        threading.Event().wait(0.3)
    print(f"storm {' '.join(options)}: {count} resets in {took_s:.2f} s, to JSON")
    print(f"    {100 * meanwhile / took_s:.0f} % of a CPU meanwhile")
    print(f"    {(tracer.cpu_s() - used) / count * 1e6:.0f} µs of CPU each in the tracer")
    print(f"    start to `tracing resets`: {tracer.start_s:.2f} s")
    print(f"    memory at start: {first}, after the storm: {tracer.memory_kb()} (kB)")
    print(f"    {tracer.stop().strip().splitlines()[-1]}")


def said(measure: Callable[[], object]) -> str:
    """Measure; what it printed, which is printed then."""
    with contextlib.redirect_stdout(io.StringIO()) as kept:
        measure()
    print(kept.getvalue(), flush=True)
    return kept.getvalue()


def storms() -> None:
    """What storms cost in the tracer."""
    with bench_lab() as lab:
        for options in ([], ["--no-aggregate"]):
            measure_storm(lab, options)
        child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(f"    largest child (the compiler, which exits): {child // 1024} MB")


def main() -> None:
    """Measure, print, and write docs/performance.md."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no tracer of ours goes on
    if any(loaded(number).name in PACKETS for number in bpf_programs()):
        sys.exit("another tracer is running: end it, or it is measured, too")
    about = document.machine()
    with bench_lab() as lab:
        watching = [ours("rsttrace"), ours("rsttrace --no-baseline", "--no-baseline"), *others()]
        costs = packets.measure(lab, watching, packets.ROUNDS)
        all_told = ours("rsttrace --no-aggregate", "--no-aggregate")
        loads = load.loads(lab, [watching[0], all_told, *others()])
        memory = load.memory(lab, watching[0])
    printed = {
        "start": said(starts),
        "storms": said(storms),
        "from a reset to its line": said(latency.main),
        "a reset in Python": said(stages.main),
        "many resets of one peer": said(judging.main),
        "captures": said(captures.main),
    }
    document.write(document.facts(about, costs, loads, memory, printed))
    print(f"written: {document.DOCUMENT}")


if __name__ == "__main__":
    main()
