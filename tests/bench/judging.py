"""What a verdict costs: CPU time for each reset, shown as it is or explained. No root needed.

Run as ``python -m tests.bench.judging``; also a part of ``make bench``. The resets are those of the
unit tests for each observation: a mix of everything that the judge knows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from rsttrace.judge import fingerprints
from rsttrace.judge.verdict import judge
from rsttrace.model import Reset
from tests.unit.test_judge_observe import CASES

ROUNDS, TURNS = 5, 20


def main() -> None:
    """Measure and print."""
    resets = [
        reset
        for rows in CASES.values()
        for _, reset, name in rows
        if name is not None and reset.kind.direction == "received"
    ]
    known = fingerprints.load(())
    plans: dict[str, Callable[[Reset], object]] = {
        "no fingerprints": lambda reset: judge(reset, explain=False),
        "with fingerprints, as a run judges": lambda reset: judge(reset, known, explain=False),
        "with fingerprints, explained": lambda reset: judge(reset, known),
    }
    spent: dict[str, list[float]] = {name: [] for name in plans}
    for _ in range(ROUNDS):
        for name, work in plans.items():
            began = time.process_time()
            for _ in range(TURNS):
                for reset in resets:
                    work(reset)
            spent[name].append((time.process_time() - began) / TURNS / len(resets))
    base = statistics.median(spent["no fingerprints"])
    print(f"judging {len(resets)} resets")
    for name, seconds in spent.items():
        median = statistics.median(seconds)
        print(f"    {median / base:5.2f} x  {name}: {median * 1e6:.0f} µs a reset", flush=True)


if __name__ == "__main__":
    main()
