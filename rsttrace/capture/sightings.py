"""One reset for each RST, however often the capture shows it: at several places, or doubled.

A RST is the same one if all its numbers are, and it was seen within `COPY_NS` at a place where this
one was not yet. A stack may send the very same RST again at once (one for each segment that it
answers), so at one place a second one is a second reset, unless the capture doubles the packets of
this connection (a switch that mirrors both directions of a port).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from rsttrace.capture.flows import Direction
from rsttrace.capture.layers import Segment
from rsttrace.limits import COPY_NS
from rsttrace.model import LatePacket, Reset, Sighting

WAITING = 4096
"""So many resets wait at most for more sightings, and are compared with what comes."""

MOST = 32
"""Sightings of one RST that are kept."""


class _Mark(NamedTuple):
    """Where a RST was seen: interface, virtual network, direction mark; MACs and TTL."""

    interface: int
    tag: bytes
    way: int
    macs: bytes
    ttl: int

    def is_elsewhere(self, other: _Mark) -> bool:
        """Whether it is surely another place: no sender could be at both."""
        return self[:3] != other[:3]

    def is_behind(self, other: _Mark) -> bool:
        """Whether whom the other one was sent to has passed it on: a router."""
        return len(self.macs) == 12 and self.macs[6:] == other.macs[:6] and self.ttl < other.ttl


class Seen:
    """A RST that may be seen again. `direction` is its sender's, at the place it is judged at."""

    __slots__ = ("direction", "marks", "reset", "time_ns")

    def __init__(self, reset: Reset, segment: Segment, direction: Direction | None) -> None:
        self.reset = reset
        self.direction = direction
        self.time_ns = segment.time_ns
        self.marks = [_mark(segment)]

    def is_again(self, segment: Segment, direction: Direction | None) -> bool:
        """Whether a RST with the same numbers is this one, seen once more."""
        if abs(segment.time_ns - self.time_ns) > COPY_NS or len(self.marks) >= MOST:
            return False
        mark = _mark(segment)
        if mark in self.marks:
            return self.marks.count(mark) == 1 and _is_doubled(direction)
        several = direction is not None and direction.places is not None
        return all(
            mark.is_elsewhere(known)
            or (several and known.macs != mark.macs)
            or mark.is_behind(known)
            for known in self.marks
        )

    def add(self, sighting: Sighting, segment: Segment, judged: Reset | None) -> None:
        """Once more. `judged`: the reset as it is there, if it can be judged there.

        Who is nearest to the receiver sees the lowest TTL, and sees it last.
        """
        mark = _mark(segment)
        seen = (*self.reset.sightings, sighting)
        if judged is not None and mark not in self.marks and segment.ttl <= self.reset.rst.ttl:
            self.reset = judged
        self.marks.append(mark)
        self.reset.sightings = seen


class Sightings:
    """Resets that wait for more sightings, and what came after them, in order.

    `holds`: the capture is a file, so there is no hurry. A pipe's resets are given at once, unless
    their connection is known to be seen at several places.
    """

    def __init__(self, holds: bool) -> None:
        self._holds = holds
        self.queue: deque[Seen | tuple[LatePacket, Direction | None]] = deque()
        self._recent: OrderedDict[tuple[object, ...], list[Seen]] = OrderedDict()
        self._kept = 0

    def again(self, segment: Segment, direction: Direction | None) -> Seen | None:
        """The RST that this one is, if it was seen before."""
        for seen in self._recent.get(_numbers(segment), ()):
            if seen.is_again(segment, direction):
                return seen
        return None

    def add(self, seen: Seen, segment: Segment) -> Iterator[Reset]:
        """A RST that was not seen before; given at once if there is nothing to wait for."""
        key = _numbers(segment)
        kept = self._recent.pop(key, [])
        self._recent[key] = [*(one for one in kept if not _is_over(one, segment.time_ns)), seen]
        self._kept += len(self._recent[key]) - len(kept)
        while self._kept > WAITING:
            self._kept -= len(self._recent.popitem(last=False)[1])
        several = seen.direction is not None and seen.direction.places is not None
        if self._holds or several or self.queue:
            self.queue.append(seen)
        else:
            yield _given(seen)

    def after(self, late: LatePacket, direction: Direction | None) -> Iterator[LatePacket]:
        """A packet that came after a reset; `direction`: whose, at its place."""
        if self.queue:
            self.queue.append((late, direction))
        elif direction is None or direction.judged:
            yield late

    def is_due(self, now_ns: int) -> bool:
        """Whether something need not wait longer."""
        queue = self.queue
        if not queue:
            return False
        first = queue[0]
        if len(queue) > WAITING or not isinstance(first, Seen):
            return True
        return abs(now_ns - first.time_ns) > COPY_NS  # _is_over(), in place

    def due(self, now_ns: int | None) -> Iterator[Reset | LatePacket]:
        """What need not wait longer (None: all)."""
        queue = self.queue
        while queue:
            first = queue[0]
            if isinstance(first, Seen):
                wait = now_ns is not None and not _is_over(first, now_ns)
                if wait and len(queue) <= WAITING:
                    return
                queue.popleft()
                yield _given(first)
            else:
                queue.popleft()
                late, direction = first
                if direction is None or direction.judged:
                    yield late


def _given(seen: Seen) -> Reset:
    """From now on this connection's late packets count at the place where it is judged."""
    direction = seen.direction
    if direction is not None and direction.places is not None:
        for place in direction.places:
            place.judged = place is direction
    return seen.reset


def _is_over(seen: Seen, now_ns: int) -> bool:
    return abs(now_ns - seen.time_ns) > COPY_NS


def _is_doubled(direction: Direction | None) -> bool:
    """Whether the capture shows this connection's packets twice at this place."""
    if direction is None or direction.other is None:
        return False
    packets = direction.packets + direction.other.packets
    # Half of them, if all are; but bare acknowledgments without an IP ID cannot be told.
    return 4 * (direction.doubled + direction.other.doubled) >= packets > 0


def _numbers(segment: Segment) -> tuple[object, ...]:
    """What a RST keeps on its way. Its checksum may be filled in later, by a card."""
    ends = segment.key[: 12 if segment.version == 4 else 36]
    return (
        ends,
        segment.seq,
        segment.ack,
        segment.flags,
        segment.ip_id,
        segment.window,
        segment.payload_len,
        segment.offset,
    )


def _mark(segment: Segment) -> _Mark:
    at = segment.mac
    # In Ethernet the destination comes before the source.
    macs = b"" if at < 0 else segment.data[at - 6 if at >= 6 else at : at + 6]
    return _Mark(segment.interface, segment.tag, segment.direction, macs, segment.ttl)


def once_more(reset: Reset, again: Reset) -> Reset:
    """A reset as another interface shows it, where nothing else tells the two places apart.

    What became of it was settled when it was first seen.
    """
    return replace(again, kind=reset.kind, cause=reset.cause, trigger=reset.trigger)
