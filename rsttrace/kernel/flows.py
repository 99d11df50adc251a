"""Asking the kernel side what it has learned of one connection (two maps in bpf/maps.c)."""

from __future__ import annotations

import struct
from ctypes import sizeof
from typing import Optional

from rsttrace.errors import KernelError
from rsttrace.kernel.clock import monotonic_ns
from rsttrace.kernel.decode import Context, half
from rsttrace.kernel.image import made_like
from rsttrace.kernel.layout import structures
from rsttrace.kernel.lookup import Lookup, lookup
from rsttrace.model import Endpoint, Half
from rsttrace.tcp import packed_address

Halves = tuple[Optional[Half], Optional[Half]]

_MASK = 0xFFFF_FFFF
_KEY = struct.Struct("=Q16s16sHHI")  # struct rst_flow_key, bpf/event.h


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
    return _KEY.pack(identity, low, upper, low_port, high_port, 0), high


def sum_of(key: bytes, seed: int) -> int:
    """sum_of() of bpf/flow.h: it says on which shelf a flow's place is, and how that is marked."""
    words: tuple[int, ...] = struct.unpack("=12I", key)
    a = b = c = (0xDEADBEEF + len(key) + seed) & _MASK
    c = (c + (seed >> 32)) & _MASK
    for at in (0, 3, 6):
        a, b, c = (a + words[at]) & _MASK, (b + words[at + 1]) & _MASK, (c + words[at + 2]) & _MASK
        for bits in (4, 6, 8, 16, 19, 4):
            a, c = (a - c & _MASK) ^ _rotated(c, bits), (c + b) & _MASK
            a, b, c = b, c, a
    a, b, c = (a + words[9]) & _MASK, (b + words[10]) & _MASK, (c + words[11]) & _MASK
    for bits in (14, 11, 25, 16, 4, 14, 24):
        a, b, c = b, ((c ^ b) - _rotated(b, bits)) & _MASK, a
    return a << 32 | b


def _rotated(number: int, bits: int) -> int:
    return (number << bits | number >> (32 - bits)) & _MASK


class Flows:
    """Where the kernel side keeps what it learns of flows.

    Attributes:
        maps: the maps that are looked up: descriptor, and size of a value in bytes.

    Args:
        flows: descriptor of the map of flows.
        shelves: descriptor of the map that says where in it a flow is.
    """

    def __init__(self, flows: int, shelves: int) -> None:
        known = structures()
        self.maps = [(flows, sizeof(known.rst_flow)), (shelves, sizeof(known.rst_shelf))]
        self._settled: tuple[int, int] | None = None

    def settle(self) -> tuple[int, int]:
        """Find out what does not change: how many shelves there are, and the seed of the sums.

        Does so once; to be called before rights are given away.

        Raises:
            OSError: the kernel refuses to tell.
            KernelError: the number of bpf(2) is not known on this machine.
        """
        if self._settled is None:
            shelves = made_like(self.maps[1][0]).entries - 1  # behind the last one is the seed
            self._settled = shelves, self._shelf(shelves, lookup)[0]
        return self._settled

    def learned(
        self,
        identity: int,
        local: Endpoint,
        remote: Endpoint,
        clock_offset_ns: int,
        lookup: Lookup = lookup,
    ) -> Halves:
        """What both directions of a connection looked like: from the local end, and to it.

        ``None`` where nothing was learned: not seen, forgotten, or a run without a baseline. Times
        are CLOCK_REALTIME.

        Args:
            identity: the namespace's, as in `Reset.netns_identity`.
            local: the end in that namespace.
            remote: the other end, as that namespace's interfaces see it.
            clock_offset_ns: as in `rsttrace.kernel.decode.Context`.
            lookup: looks up in the maps.
        """
        key, high = flow_key(identity, local, remote)
        (flows, size), _ = self.maps
        try:
            shelves, seed = self.settle()
            total = sum_of(key, seed)
            places = self._shelf((total & _MASK) * shelves >> 32, lookup)
            place = next((one for one in places if one >> 32 == total >> 32), 0) & _MASK
            if not place:
                return None, None
            value = lookup(flows, struct.pack("=I", place - 1), size)
        except (OSError, KernelError):  # the run has just ended
            return None, None
        flow = structures().rst_flow.from_buffer_copy(value)
        if bytes(flow.key) != key:
            return None, None
        now = monotonic_ns()
        context = Context(clock_offset_ns, {})
        family = 6 if ":" in local.ip else 4
        low, upper = (half(raw, family, context, now) for raw in flow.half)
        return (upper, low) if high else (low, upper)

    def _shelf(self, number: int, lookup: Lookup) -> tuple[int, ...]:
        _, (shelves, size) = self.maps
        return struct.unpack(f"={size // 8}Q", lookup(shelves, struct.pack("=I", number), size))
