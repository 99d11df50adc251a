"""CLOCK_MONOTONIC as the kernel side tells it: bpf_ktime_get_ns() knows no time namespace.

And what the date is by it, though somebody may set that meanwhile.
"""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

OFFSETS = Path("/proc/self/timens_offsets")
"""time_namespaces(7), 5.6: what is added to this process's clocks."""


@lru_cache(maxsize=1)
def offset_ns() -> int:
    """How far this process's CLOCK_MONOTONIC is ahead of the machine's, in nanoseconds.

    0 where the kernel has no time namespaces.
    """
    try:
        text = OFFSETS.read_text(encoding="ascii")
    except OSError:
        return 0
    for line in text.splitlines():
        name, *numbers = line.split()
        if name in ("monotonic", "1") and len(numbers) == 2:
            seconds, nanoseconds = map(int, numbers)
            return seconds * 10**9 + nanoseconds
    return 0


def monotonic_ns() -> int:
    """The machine's CLOCK_MONOTONIC now, in nanoseconds: what events are stamped with."""
    return time.monotonic_ns() - offset_ns()


STEP_NS = 10_000_000
"""By so much the two clocks may seem to be apart for other reasons than that the date was set.

Else their distance stays the same to the nanosecond: NTP's slewing changes the rate of both
(wall_to_monotonic, kernel/time/timekeeping.c). It changes with settimeofday(2), with a step of
NTP's, with a leap second, and while the machine is suspended.
"""

_TRIES = 5


class Date:
    """What CLOCK_REALTIME is ahead of CLOCK_MONOTONIC, as of the last look (`offset_ns`)."""

    def __init__(self) -> None:
        """Looks."""
        self.offset_ns, _ = _apart()

    def was_set(self) -> int:
        """By how much the date was set since the last look (in nanoseconds; back: negative)."""
        offset_ns, error_ns = _apart()
        by_ns = offset_ns - self.offset_ns
        if abs(by_ns) <= STEP_NS + error_ns:
            return 0
        self.offset_ns = offset_ns
        return by_ns


def _apart() -> tuple[int, int]:
    """The distance of the two clocks now, and by how much that may be wrong."""
    looks = []
    for _ in range(_TRIES):
        before_ns = monotonic_ns()
        wall_ns = time.time_ns()
        took_ns = monotonic_ns() - before_ns
        looks.append((took_ns, wall_ns - before_ns))
    took_ns, offset_ns = min(looks)
    return offset_ns - took_ns // 2, took_ns
