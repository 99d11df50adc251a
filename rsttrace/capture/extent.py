"""How long an interface of a capture was watched, and whether packets were lost there.

A pcapng file tells by its Interface Statistics Blocks (draft-ietf-opsawg-pcapng §4.6), which
dumpcap and Wireshark write; a pcap file tells by its packets alone.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from rsttrace.model import NO_TIME

START_TIME, END_TIME, DROPPED, OS_DROPPED, RECEIVED, DELIVERED = 2, 3, 5, 7, 4, 8
"""isb_starttime, isb_endtime, isb_ifdrop, isb_osdrop, isb_ifrecv, isb_usrdeliv (§4.6)."""

DROP_COUNT = 4
"""epb_dropcount (§4.3)."""

SECOND = 1_000_000_000


@dataclass
class Extent:
    """One interface of a capture. Times are nanoseconds since the epoch, by the capture's clock.

    `packets` counts those in the file, `first_ns` and `last_ns` are the times of the first and last
    of them, whatever they carry; ``None`` before the first. The rest is what the file says of
    itself, ``None`` where it says nothing: from when until when it was watched, how many packets
    were lost (`dropped`), and how many were to be written (`written`).
    """

    packets: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    said_start_ns: int | None = None
    said_end_ns: int | None = None
    dropped: int | None = None
    written: int | None = None

    def add(self, time_ns: int) -> None:
        """Count a packet."""
        self.packets += 1
        if time_ns == NO_TIME:
            return
        if self.first_ns is None or time_ns < self.first_ns:
            self.first_ns = time_ns
        if self.last_ns is None or time_ns > self.last_ns:
            self.last_ns = time_ns

    @property
    def span(self) -> tuple[int, int] | None:
        """From when until when it was surely watched; ``None`` if nothing tells.

        What the file says of itself counts only while it fits its packets: tools that cut a capture
        or move its times may leave the statistics as they were.
        """
        first, last = self.first_ns, self.last_ns
        start, end = self.said_start_ns, self.said_end_ns
        whole = self.written is None or self.packets >= self.written
        if first is not None and last is not None:
            moved = (start is not None and start > first) or (end is not None and end < last)
            if moved or not whole:
                return first, last
        starts = [time_ns for time_ns in (first, start) if time_ns is not None]
        ends = [time_ns for time_ns in (last, end) if time_ns is not None]
        return (min(starts), max(ends)) if starts and ends else None

    def learn(self, block: bytes, options: Mapping[int, object], endian: str, clock: Clock) -> None:
        """Take in a statistics block: its body, and the options in it. A later one counts more."""
        time_ns = clock.time_ns(block[4:12], endian)
        start, end = (
            clock.time_ns(value, endian) if isinstance(value, bytes) else None
            for value in (options.get(START_TIME), options.get(END_TIME))
        )
        self.said_start_ns = start if start is not None else self.said_start_ns
        # The statistics were taken then: until then it was watched.
        self.said_end_ns = end or time_ns or self.said_end_ns
        received, delivered = (_count(options.get(name), endian) for name in (RECEIVED, DELIVERED))
        drops = [_count(options.get(name), endian) for name in (DROPPED, OS_DROPPED)]
        known = [count for count in drops if count is not None]
        if known:
            self.dropped = max(self.dropped or 0, sum(known))
        if delivered is not None:
            self.written = delivered
        elif received is not None:
            self.written = received - sum(known)

    def lost(self, options: Mapping[int, object], endian: str) -> None:
        """Take in the options of a packet (§4.3): how many were lost before it."""
        count = _count(options.get(DROP_COUNT), endian)
        if count is not None:
            self.dropped = (self.dropped or 0) + count


@dataclass(frozen=True)
class Clock:
    """An interface's unit of time: ticks a second (if_tsresol), and what is to be added
    (if_tsoffset, seconds)."""

    ticks: int = 1_000_000
    offset: int = 0

    def time_ns(self, raw: bytes, endian: str) -> int | None:
        """A time as two numbers of 32 bits, the high one first; ``None``: it is none."""
        if len(raw) != 8:
            return None
        high, low = struct.unpack(endian + "II", raw)
        return int((high << 32 | low) * SECOND // self.ticks + self.offset * SECOND) or None


def _count(value: object, endian: str) -> int | None:
    """A count of 64 bits; all ones are written for "not known" by some."""
    if not isinstance(value, bytes) or len(value) != 8:
        return None
    count: int = struct.unpack(endian + "Q", value)[0]
    return None if count == 0xFFFFFFFFFFFFFFFF else count
