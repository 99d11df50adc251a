"""What each program costs: nanoseconds a connection, and what the verifier had to look at for it.

Run as root: ``python -m tests.bench.programs``. No part of ``make bench``, which measures what the
traffic loses by all of them. Times are bpf_stats', as in `tests.bench.packets`.
"""

from __future__ import annotations

from collections import Counter

from tests.bench import packets
from tests.bench.packets import CONNECTIONS, RESETS, bench_lab, counted
from tests.bench.ways import ours
from tests.lab.programs import attached

WORKS = {
    f"{CONNECTIONS:,} connections": (packets.connections, CONNECTIONS),
    f"{RESETS:,} connections that are reset": (packets.resets, RESETS),
}


def spent(pid: int) -> tuple[Counter[str], Counter[str]]:
    """By program, the nanoseconds and the runs of all that are attached under that name."""
    time_ns: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    for one in attached(pid):
        time_ns[one.name] += one.time_ns
        runs[one.name] += one.runs
    return time_ns, runs


def main() -> None:
    """Measure and print."""
    with bench_lab() as lab:
        for name, (work, turns) in WORKS.items():
            with ours("this one").watching(lab) as pid, counted():
                time_ns, runs = spent(pid)
                work(lab)
                after_ns, after_runs = spent(pid)
                verified = Counter({one.name: 0 for one in attached(pid)})
                for one in attached(pid):
                    verified[one.name] += one.verified
            print(
                f"{name}: {sum((after_ns - time_ns).values()) / turns:,.0f} ns each in all programs"
            )
            for program, took in (after_ns - time_ns).most_common():
                count = after_runs[program] - runs[program]
                print(f"    {took / turns:7,.0f} ns  {program}: {took / count:,.0f} ns a run")
        print(f"the verifier has looked at {sum(verified.values()):,} instructions")
        for program, count in verified.most_common():
            print(f"    {count:9,}  {program}")


if __name__ == "__main__":
    main()
