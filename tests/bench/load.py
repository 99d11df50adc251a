"""What resets cost in the tracer: CPU by how many there are a second, and memory over time.

Run as root: ``python -m tests.bench.load``; also a part of ``make bench``. The resets are of
refused connections, each of which is told at both ends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rsttrace.demo.lab import Lab
from tests.bench.latency import SECONDS, cpu_s, refuse
from tests.bench.packets import bench_lab
from tests.bench.ways import Way, others, ours
from tests.lab.harness import out_rsts

RATES = (100, 300, 1_000, 3_000, 10_000)
MEMORY_TURNS = 15
MEMORY_RATE = 2_000


@dataclass
class Load:
    """Of one way: (resets a second, share of a CPU) for each rate."""

    name: str
    points: list[tuple[float, float]] = field(default_factory=list)


def resident_mb(pid: int) -> float:
    """Resident memory, from /proc/PID/status."""
    for row in Path(f"/proc/{pid}/status").read_text().splitlines():
        if row.startswith("VmRSS:"):
            return int(row.split()[1]) / 1024
    raise ValueError(f"process {pid} has no memory")


def loads(lab: Lab, ways: Sequence[Way]) -> list[Load]:
    """CPU that each way takes by rate; printed as it comes."""
    found = []
    print("CPU, by resets a second")
    for way in ways:
        load = Load(way.name)
        for rate in RATES:
            with way.watching(lab) as pid:
                refuse(lab, RATES[0])  # what only the first ones cost
                used, sent, began = cpu_s(pid), out_rsts(lab, "server"), time.monotonic()
                refuse(lab, rate)
                took_s = time.monotonic() - began
                spent, count = cpu_s(pid) - used, out_rsts(lab, "server") - sent
            load.points.append((count / took_s, spent / took_s))
        said = ", ".join(f"{100 * share:.0f} % at {rate:,.0f}" for rate, share in load.points)
        print(f"    {way.name}: {said}", flush=True)
        found.append(load)
    return found


def memory(lab: Lab, way: Way) -> list[tuple[float, float]]:
    """(seconds, MB resident) under steady resets, from its start on."""
    points = []
    with way.watching(lab) as pid:
        began = time.monotonic()
        for _ in range(MEMORY_TURNS):
            points.append((time.monotonic() - began, resident_mb(pid)))
            refuse(lab, MEMORY_RATE)
        points.append((time.monotonic() - began, resident_mb(pid)))
    first, last = points[0][1], points[-1][1]
    took_s = MEMORY_TURNS * SECONDS
    print(f"memory: {first:.0f} MB at the start, {last:.0f} MB after {took_s} s", flush=True)
    return points


def main() -> None:
    """Measure and print."""
    with bench_lab() as lab:
        loads(lab, [ours("rsttrace"), ours("rsttrace --no-aggregate", "--no-aggregate"), *others()])
        memory(lab, ours("rsttrace"))


if __name__ == "__main__":
    main()
