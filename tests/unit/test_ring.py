from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsttrace.kernel.ring import PAGE, WINDOW, RingBuffer
from tests.unit.rings import FileRing


@pytest.fixture
def kernel() -> Iterator[FileRing]:
    ring = FileRing()
    yield ring
    ring.close()


@pytest.fixture
def ring(kernel: FileRing) -> Iterator[RingBuffer]:
    reader = RingBuffer(kernel.descriptor, kernel.size)
    yield reader
    reader.close()


def test_records_come_whole_and_once(kernel: FileRing, ring: RingBuffer) -> None:
    assert ring.read(9) == ([], True)
    for record in (b"one", b"twotwotwo", b""):
        kernel.write(record)
    assert ring.read(9) == ([b"one", b"twotwotwo", b""], True)
    assert ring.read(9) == ([], True)
    assert kernel.consumed == 16 + 24 + 8


def test_so_many_at_most(kernel: FileRing, ring: RingBuffer) -> None:
    for number in range(5):
        kernel.write(bytes([number]))
    assert ring.read(2) == ([b"\0", b"\1"], False)
    assert ring.read(0) == ([], False)
    assert ring.read(3) == ([b"\2", b"\3", b"\4"], True)


def test_a_record_that_is_being_written_is_waited_for(kernel: FileRing, ring: RingBuffer) -> None:
    kernel.write(b"done")
    busy = kernel.write(b"half", busy=True)
    kernel.write(b"behind it")
    assert ring.read(9) == ([b"done"], False)
    assert ring.read(9) == ([], False)
    kernel.commit(busy, 4)
    assert ring.read(9) == ([b"half", b"behind it"], True)


def test_a_record_that_was_given_up_is_passed_over(kernel: FileRing, ring: RingBuffer) -> None:
    kernel.write(b"no event after all", discard=True)
    kernel.write(b"event")
    assert ring.read(9) == ([b"event"], True)


def test_round_and_round(kernel: FileRing, ring: RingBuffer) -> None:
    """Records that begin before the end of the data and go on at its beginning."""
    for number in range(99):
        record = bytes([number]) * 1000  # four and a bit to a round
        kernel.write(record)
        assert ring.read(9) == ([record], True)
    assert kernel.consumed == 99 * 1008


def test_a_window_after_the_other() -> None:
    """Records that lie across the border between two windows, and across the end of the data."""
    kernel = FileRing(2 * WINDOW)
    ring = RingBuffer(kernel.descriptor, kernel.size)
    for turn in range(7):
        made = [bytes([turn, number]) * 5001 for number in range(150)]  # more than one window
        for record in made:
            kernel.write(record)
        assert ring.read(100) == (made[:100], False)
        assert ring.read(100) == (made[100:], True)
    ring.close()
    kernel.close()


def test_most_of_a_large_ring_is_not_mapped() -> None:
    kernel = FileRing(16 * WINDOW)
    before = mapped(kernel)
    ring = RingBuffer(kernel.descriptor, kernel.size)
    assert 0 < mapped(kernel) - before < 2 * WINDOW
    ring.close()
    assert mapped(kernel) == before
    kernel.close()


def mapped(kernel: FileRing) -> int:
    """Bytes of the ring's file that this process has mapped (proc(5): /proc/self/maps)."""
    inode = str(os.fstat(kernel.descriptor).st_ino)
    rows = [row.split() for row in Path("/proc/self/maps").read_text().splitlines()]
    spans = [row[0].split("-") for row in rows if row[4] == inode and "memfd:ring" in row[-2]]
    return sum(int(end, 16) - int(begin, 16) for begin, end in spans)


FLIP = """
import mmap, os, sys
page, low, high = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
produced = memoryview(mmap.mmap(int(sys.argv[1]), page, offset=page)).cast("Q")
print("up", flush=True)
while True:
    produced[0] = high
    produced[0] = low
"""


def test_a_position_is_never_seen_half_written(kernel: FileRing, ring: RingBuffer) -> None:
    """The producers' position goes from 0xfffffff8 to 0x100000000 and back, as fast as another
    process can; half of each would be 4 GB more, or nothing."""
    low, high = 0xFFFFFFF8, 0x100000000
    with subprocess.Popen(
        [sys.executable, "-c", FLIP, *map(str, (kernel.descriptor, PAGE, low, high))],
        pass_fds=[kernel.descriptor],
        stdout=subprocess.PIPE,
    ) as flipping:
        try:
            assert flipping.stdout is not None
            assert flipping.stdout.readline() == b"up\n"
            records = 0
            for _ in range(200_000):
                kernel.consumed = low
                found, _ = ring.read(9)
                assert len(found) <= 1
                records += len(found)
        finally:
            flipping.kill()
    assert 0 < records < 200_000  # both positions were seen
