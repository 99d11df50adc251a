"""CLOCK_MONOTONIC as the kernel side tells it: bpf_ktime_get_ns() knows no time namespace."""

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
