"""What a storm leaves: counts, rooms and books, over maps in a file: no kernel is needed."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator

import pytest

from rsttrace.commands.books import Books, Losses, balance
from rsttrace.kernel import config, layout
from rsttrace.kernel.counts import Counts
from rsttrace.kernel.storm import Buckets, Rooms
from rsttrace.model import Kind
from tests.unit import builders as b

BUCKET, OTHER = config.FIXED_BUCKETS + 5, config.FIXED_BUCKETS + 9
KEY = 0x1234567890ABCDEF


class Map:
    """A map's memory, written as the kernel does."""

    def __init__(self, row: type[ctypes.Structure], rows: int) -> None:
        size = -(-rows * ctypes.sizeof(row) // mmap.PAGESIZE) * mmap.PAGESIZE
        self.descriptor = os.memfd_create("map")
        os.ftruncate(self.descriptor, size)
        self._memory = mmap.mmap(self.descriptor, size)
        self.rows = (row * rows).from_buffer(self._memory)

    def close(self) -> None:
        del self.rows
        os.close(self.descriptor)


@pytest.fixture
def kernel() -> Iterator[Map]:
    made = Map(layout.structures().rst_bucket, config.FIXED_BUCKETS + config.BUCKETS)
    yield made
    made.close()


def event(index: int, key: int = KEY) -> bytes:
    found = b.event(Kind.RECEIVED_UNMATCHED)
    found.bucket, found.bucket_key = index, key
    return bytes(found)


def count(kernel: Map, index: int, number: int, ns: int, key: int = KEY) -> None:
    """As add_to() in bpf/storm.c."""
    row = kernel.rows[index]
    row.key, row.level = key, config.LEVELS.index("peer")
    if row.counted == row.told:
        row.first_ts = ns
    row.last_ts = ns
    row.counted += number


def test_each_reset_is_counted_once(kernel: Map) -> None:
    buckets = Buckets(kernel.descriptor)
    buckets.sample(event(BUCKET))
    assert buckets.counts() == []
    count(kernel, BUCKET, 3, 100)
    count(kernel, BUCKET, 4, 200)
    (found,) = buckets.counts()
    assert (found.resets, found.first_ns, found.last_ns, found.alike) == (7, 100, 200, "peer")
    assert found.record == event(BUCKET)
    assert buckets.counts() == []
    count(kernel, BUCKET, 2, 300)
    (found,) = buckets.counts()
    assert (found.resets, found.first_ns, found.last_ns) == (2, 300, 300)
    buckets.close()


def test_a_count_waits_for_an_event_of_its_own_bucket(kernel: Map) -> None:
    buckets = Buckets(kernel.descriptor)
    buckets.sample(event(BUCKET, key=7))  # whose bucket it was before
    count(kernel, BUCKET, 3, 100)
    assert buckets.counts() == []
    buckets.sample(event(BUCKET))
    assert [found.resets for found in buckets.counts()] == [3]
    buckets.close()


def test_lines_are_bounded_and_the_oldest_first(kernel: Map) -> None:
    buckets = Buckets(kernel.descriptor)
    for index, ns in ((BUCKET, 200), (OTHER, 100)):
        buckets.sample(event(index))
        count(kernel, index, 1, ns)
    assert [found.first_ns for found in buckets.counts(limit=1)] == [100]
    assert [found.first_ns for found in buckets.counts(limit=1)] == [200]
    buckets.close()


def test_the_secret_is_new_each_time(kernel: Map) -> None:
    secrets = set()
    for _ in range(3):
        Buckets(kernel.descriptor).close()
        secrets.add(kernel.rows[0].key)
    assert len(secrets) == 3
    assert 0 not in secrets


def test_what_was_read_is_room_again() -> None:
    kernel = Map(layout.structures().rst_room, config.ROOMS)
    rooms = Rooms(kernel.descriptor)
    record = event(0)
    rooms.release([record, record, b"a reason, which has none"])
    number = config.KIND_NUMBERS[Kind.RECEIVED_UNMATCHED]
    assert {n: row.read for n, row in enumerate(kernel.rows) if row.read} == {
        number: 2 * len(record),
        config.ROOMS - 1: 2 * len(record),
    }
    rooms.close()
    kernel.close()


COUNTS = (Counts(sent=10, filtered=3, lost=2, aggregated=100), Counts(5, 0, 0, 7))


def test_what_was_not_looked_at_is_lost() -> None:
    books = balance(COUNTS, shown=8, filtered=4, full=False)
    assert books == Books(shown=8, aggregated=107, filtered=7, lost=5)
    assert books.line == "resets: 127 = 8 shown + 107 only counted + 7 filtered + 5 lost"


def test_beyond_the_count_nobody_asked_for_more() -> None:
    assert balance(COUNTS, shown=8, filtered=4, full=True) == Books(8, 107, 10, 2)


def test_losses_are_said_once_a_second_at_most() -> None:
    now, lost, said = [0.0], [0], list[str]()
    losses = Losses(lambda: [Counts(9, 9, lost[0], 9)], said.append, lambda: now[0])
    for moment, number in ((0.5, 5), (1.1, 7), (1.9, 9), (2.2, 9), (3.3, 9)):
        now[0], lost[0] = moment, number
        losses.tell()
    assert [line.split(":")[1] for line in said] == [
        " 7 resets are lost, 7 so far",
        " 2 resets are lost, 9 so far",
    ]
