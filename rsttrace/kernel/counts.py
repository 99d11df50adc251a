"""Reading counters that the kernel side keeps for each CPU."""

from __future__ import annotations

import functools
import struct
from typing import NamedTuple

from rsttrace.kernel.lookup import Lookup, lookup


class Counts(NamedTuple):
    """What became of the resets of a kind, as the kernel side counts them: each is one of these.

    `sent` were put into the ring buffer, `filtered` not asked for, `lost` found no room,
    `aggregated` were counted, for there were enough like them (bpf/storm.c).
    """

    sent: int
    filtered: int
    lost: int
    aggregated: int


def lookup_per_cpu(descriptor: int, index: int, lookup: Lookup = lookup) -> int:
    """The sum over all CPUs of one u64 of a per-CPU array map.

    Raises:
        OSError: the kernel refuses the lookup.
    """
    values = lookup(descriptor, struct.pack("=I", index), value_size())
    return sum(struct.unpack(f"={len(values) // 8}Q", values))


def value_size() -> int:
    """Bytes of a u64 for each CPU."""
    return 8 * possible_cpus()


@functools.cache
def possible_cpus() -> int:
    """How many CPUs the kernel may ever have: the width of a per-CPU map's value.

    That is settled when it boots.
    """
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        last = file.read().strip().split(",")[-1]
    return int(last.split("-")[-1]) + 1
