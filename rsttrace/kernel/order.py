"""Puts raw events in order of time, across reads of the ring buffer."""

from __future__ import annotations

import heapq
import itertools
import struct
from collections.abc import Iterable

HELD_NS = 2_000_000
"""How long an event is held, from its time on, for others that were before it (nanoseconds).

A CPU takes an event's time when it first sees the packet, and puts the event into the ring when it
knows what became of it; another CPU's event may come in between. So does one whose cause follows
its packet. What takes longer than this (a RST that waits until its socket's lock is free, a CPU
that stands still meanwhile) comes when it comes.
"""

TIME = struct.Struct("<Q")
"""rst_event.ts, its first member: CLOCK_MONOTONIC in nanoseconds."""


class InOrder:
    """Raw events that wait for their turn."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, bytes]] = []
        self._numbers = itertools.count()  # of two with one time, the one read first
        self._newest_ns = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._heap)

    def add(self, records: Iterable[bytes]) -> None:
        """Take in what was read."""
        for record in records:
            (time_ns,) = TIME.unpack_from(record)
            self._newest_ns = max(self._newest_ns, time_ns)
            heapq.heappush(self._heap, (time_ns, next(self._numbers), record))

    def due_ns(self) -> int | None:
        """When it is the first one's turn if nothing else comes (CLOCK_MONOTONIC)."""
        return self._heap[0][0] + HELD_NS if self._heap else None

    def take(self, limit: int, read_ns: int | None) -> list[bytes]:
        """Those whose turn it is, in order of time, at most so many.

        Args:
            limit: how many at most.
            read_ns: all that was in the ring at this time has been added (CLOCK_MONOTONIC; 0: it
                is not known until when). None: no more will come, and nothing is held.
        """
        taken: list[bytes] = []
        # What is still in the ring was put there after the newest that was read from it.
        until_ns = None if read_ns is None else max(read_ns, self._newest_ns) - HELD_NS
        while self._heap and len(taken) < limit:
            if until_ns is not None and self._heap[0][0] > until_ns:
                break
            taken.append(heapq.heappop(self._heap)[2])
        return taken
