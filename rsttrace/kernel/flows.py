"""Asking the kernel side what it has learned of one connection (two maps in bpf/maps.c)."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable
from typing import Optional

from rsttrace.errors import KernelError
from rsttrace.kernel.clock import monotonic_ns
from rsttrace.kernel.decode import Context, half
from rsttrace.kernel.layout import structures
from rsttrace.kernel.lookup import Lookup, lookup
from rsttrace.model import Endpoint, Half
from rsttrace.tcp import packed_address

Halves = tuple[Optional[Half], Optional[Half]]

_KEY = struct.Struct("=QHH16s16sI")  # struct flow_key, bpf/flow.h


def value_size() -> int:
    """Bytes of what is learned of a flow (struct flow)."""
    return 2 * ctypes.sizeof(structures().rst_half)


def flow_key(identity: int, local: Endpoint, remote: Endpoint) -> tuple[bytes, bool]:
    """The map's key of a connection, and whether the local end is its high one.

    `identity` is the namespace's, as in `Reset.netns_identity`. The smaller end comes first: by its
    address as two numbers of this machine, then by its port (source_is_low(), bpf/flow.h).
    """
    ends = [
        (struct.unpack("=QQ", packed), end.port, packed)
        for end in (local, remote)
        for packed in (packed_address(end.ip),)
    ]
    high = ends[0][:2] > ends[1][:2]
    if high:
        ends.reverse()
    (_, low_port, low), (_, high_port, upper) = ends
    return _KEY.pack(identity, low_port, high_port, low, upper, 0), high


def learned(
    descriptors: Iterable[int],
    identity: int,
    local: Endpoint,
    remote: Endpoint,
    clock_offset_ns: int,
    lookup: Lookup = lookup,
) -> Halves:
    """What both directions of a connection looked like: from the local end, and to it.

    ``None`` where nothing was learned: not seen, forgotten, or a run without a baseline. Times are
    CLOCK_REALTIME.

    Args:
        descriptors: of the maps, in which it is looked for one after the other.
        identity: the namespace's, as in `Reset.netns_identity`.
        local: the end in that namespace.
        remote: the other end, as that namespace's interfaces see it.
        clock_offset_ns: as in `rsttrace.kernel.decode.Context`.
    """
    key, high = flow_key(identity, local, remote)
    for descriptor in descriptors:
        try:
            value = lookup(descriptor, key, value_size())
        except (OSError, KernelError):  # ENOENT; or the run has just ended
            continue
        break
    else:
        return None, None
    halves = (structures().rst_half * 2).from_buffer_copy(value)  # struct flow
    now = monotonic_ns()
    context = Context(clock_offset_ns, {})
    family = 6 if ":" in local.ip else 4
    low, upper = (half(raw, family, context, now) for raw in halves)
    return (upper, low) if high else (low, upper)
