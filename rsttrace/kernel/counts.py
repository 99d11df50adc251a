"""Reading counters that the kernel side keeps for each CPU."""

from __future__ import annotations

import ctypes
import struct
from typing import NamedTuple

from rsttrace.kernel import syscalls


class Counts(NamedTuple):
    """What became of the resets of a kind, as the kernel side counts them: each is one of these.

    `sent` were put into the ring buffer, `filtered` not asked for, `lost` found no room,
    `aggregated` were counted, for there were enough like them (bpf/storm.c).
    """

    sent: int
    filtered: int
    lost: int
    aggregated: int


def lookup_per_cpu(descriptor: int, index: int) -> int:
    """The sum over all CPUs of one u64 of a per-CPU array map.

    Raises:
        OSError: the kernel refuses the lookup.
    """
    key = ctypes.c_uint32(index)
    values = (ctypes.c_uint64 * possible_cpus())()
    # union bpf_attr, the BPF_MAP_*_ELEM member: map_fd, key, value, flags
    attributes = struct.pack(
        "=IxxxxQQQ", descriptor, ctypes.addressof(key), ctypes.addressof(values), 0
    )
    syscalls.bpf(syscalls.BPF_MAP_LOOKUP_ELEM, attributes)
    return sum(values)


def possible_cpus() -> int:
    """How many CPUs the kernel may ever have: the width of a per-CPU map's value."""
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        last = file.read().strip().split(",")[-1]
    return int(last.split("-")[-1]) + 1
