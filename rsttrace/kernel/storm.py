"""What a storm leaves beside the events: counts of resets that are alike, and the ring's rooms.

Python's side of bpf/storm.c. Both maps are mapped into memory: to look at them costs no system
call, and what the kernel adds meanwhile is never lost, for each number has one writer.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass

from rsttrace.kernel import config, layout

LINES = 100
"""How many lines of counts a second, at most; the others' counts wait, the oldest first."""

WORD = 8


@dataclass(frozen=True)
class Count:
    """So many resets that a bucket has counted since its last line. Times: CLOCK_MONOTONIC.

    `record` is the event of one of them, which was told in detail.
    """

    resets: int
    first_ns: int
    last_ns: int
    alike: str
    record: bytes


class Rooms:
    """The map `rooms`: how many bytes of each kind are in the ring buffer."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, mmap.PAGESIZE)
        self._words = memoryview(self._map).cast("Q")
        event, room = layout.structures().rst_event, layout.structures().rst_room
        self._kind: int = event.kind.offset
        self._smallest: int = event.data.offset
        self._stride = ctypes.sizeof(room) // WORD
        self._read: int = room.read.offset // WORD

    def release(self, records: Iterable[bytes]) -> None:
        """These are no longer in the ring."""
        freed: dict[int, int] = {}
        for record in records:
            if len(record) >= self._smallest:  # a reason has no room of its own
                kind = record[self._kind]
                freed[kind] = freed.get(kind, 0) + len(record)
        for kind, size in freed.items():
            self._words[kind * self._stride + self._read] += size
        if freed:
            self._words[(config.ROOMS - 1) * self._stride + self._read] += sum(freed.values())

    def close(self) -> None:
        """Unmap it."""
        self._words.release()
        self._map.close()


class Buckets:
    """The map `buckets`, and of each bucket the newest event that was told.

    The kernel finds buckets by a hash of our secret and of what resets have in common: so nobody
    can choose addresses that share one.
    """

    def __init__(self, descriptor: int) -> None:
        found = layout.structures()
        of = found.rst_bucket
        self._rows = config.FIXED_BUCKETS + config.BUCKETS
        self._map = mmap.mmap(descriptor, self._rows * ctypes.sizeof(of))
        self._words = memoryview(self._map).cast("Q")
        self._stride = ctypes.sizeof(of) // WORD
        self._key, self._counted, self._told, self._first, self._last = (
            member.offset // WORD
            for member in (of.key, of.counted, of.told, of.first_ts, of.last_ts)
        )
        self._level: int = of.level.offset
        self._in_event = (found.rst_event.bucket.offset, found.rst_event.bucket_key.offset)
        self._samples: dict[int, tuple[int, bytes]] = {}
        self._until: dict[int, int] = {}  # last_ns of the line before
        self._words[self._key] = int.from_bytes(os.urandom(WORD), "little") | 1

    def sample(self, record: bytes) -> None:
        """Take note of an event that is told."""
        at, key_at = self._in_event
        index = int.from_bytes(record[at : at + 4], "little")
        if index:
            key = int.from_bytes(record[key_at : key_at + WORD], "little")
            self._samples[index] = key, record

    def counts(self, limit: int | None = LINES) -> list[Count]:
        """What was counted since the last call, of so many buckets at most; each is given once.

        A bucket none of whose events has been seen yet waits until one has.
        """
        told = self._words[self._told :: self._stride].tolist()
        counted = self._words[self._counted :: self._stride].tolist()
        if told == counted:
            return []
        ready = [
            index
            for index, (number, before) in enumerate(zip(counted, told))
            if number != before and self._has_sample(index)
        ]
        ready.sort(key=lambda index: self._word(index, self._first))
        return [self._take(index, counted[index], told[index]) for index in ready[:limit]]

    def close(self) -> None:
        """Unmap it."""
        self._words.release()
        self._map.close()

    def _word(self, index: int, member: int) -> int:
        return self._words[index * self._stride + member]

    def _has_sample(self, index: int) -> bool:
        sample = self._samples.get(index)
        return sample is not None and sample[0] == self._word(index, self._key)

    def _take(self, index: int, counted: int, told: int) -> Count:
        last = self._word(index, self._last)
        # What was counted while the line before was made left `first_ts` as it was.
        first = min(last, max(self._word(index, self._first), self._until.get(index, 0)))
        level = self._map[index * self._stride * WORD + self._level]
        found = Count(counted - told, first, last, config.LEVELS[level], self._samples[index][1])
        self._words[index * self._stride + self._told] = counted
        self._until[index] = last
        return found
