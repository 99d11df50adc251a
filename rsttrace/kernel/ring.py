"""Reading a BPF ring buffer through its memory map (kernel/bpf/ringbuf.c)."""

from __future__ import annotations

import mmap
import select
import threading

PAGE = mmap.PAGESIZE
BUSY, DISCARD = 1 << 31, 1 << 30  # BPF_RINGBUF_BUSY_BIT, _DISCARD_BIT (include/uapi/linux/bpf.h)
HEADER = 8  # BPF_RINGBUF_HDR_SZ

WINDOW = 1 << 20
"""So many bytes of the data are mapped at a time: every page that is counts as resident memory."""

LONGEST = 1 << 16
"""No record is longer, with its header."""


class RingBuffer:
    """The consumer's side of a ring buffer map.

    The consumer's position is one page we may write; the producers' position and the data are
    read-only. In the map the data come twice in a row, so that no record ever wraps. Of them we see
    a `WINDOW` at a time, and what a record that begins there may need behind it.

    Other CPUs write while we read. Two things make that safe:

    - A position or a record's header is never seen half written. Each is read or written as one
      item of a memoryview of its own width, where it is aligned: CPython copies the item with one
      ``memcpy`` of that constant size, which compilers turn into one load or store, and an aligned
      one is atomic (Intel SDM vol. 3A, "Guaranteed Atomic Operations"; Arm ARM, "Single-copy
      atomicity"). ``struct`` with ``<`` is free to go byte by byte (and does where the machine's
      own byte order is another one).
    - What a position or a header promises is there when we look. The kernel marks a record busy,
      then moves the position, and writes the record, then takes the mark away, each with release
      semantics (__bpf_ringbuf_reserve(), bpf_ringbuf_commit()); `_fence` is our part.

    Args:
        descriptor: the map's, or a file of the same layout.
        size: of the data in bytes, as the map was made.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._size = size
        self._own = mmap.mmap(
            descriptor, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0
        )
        self._theirs = mmap.mmap(descriptor, PAGE, mmap.MAP_SHARED, mmap.PROT_READ, offset=PAGE)
        self._consumed = memoryview(self._own).cast("Q")
        self._produced = memoryview(self._theirs).cast("Q")
        self._descriptor = descriptor
        self._start = 0
        self._map()
        self._lock = threading.Lock()
        self._lock.acquire()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def _fence(self) -> None:
        """No read or write of ours moves from one side of this to the other.

        x86 does not move reads before reads, nor writes before reads. Arm may, where no more than
        an ``if`` stands between them; but it keeps what comes before a release before what comes
        after a later acquire (Arm ARM, "Barrier-ordered-before"). A lock that is given back and
        taken again is both: in CPython an atomic operation of the C library (sem_post(3),
        sem_trywait(3)) or of its own (from 3.13 on).
        """
        self._lock.release()
        self._lock.acquire()

    def wait(self, seconds: float) -> None:
        """Wait for a record, at most so long."""
        self._poll.poll(seconds * 1000)

    def read(self, limit: int) -> tuple[list[bytes], bool]:
        """What there is now, at most so many; and whether that was all.

        Stops at a record that a CPU is still writing.
        """
        position, end = self._consumed[0], self._produced[0]
        if position == end:
            return [], True
        self._fence()
        records: list[bytes] = []
        busy = False
        while position < end and len(records) < limit and not busy:
            self._see(position % self._size)
            start = self._start
            places: list[tuple[int, int]] = []
            while position < end and len(records) + len(places) < limit:
                at = position % self._size - start
                if not 0 <= at < WINDOW:
                    break
                header = self._headers[at // 4]
                if header & BUSY:
                    busy = True
                    break
                length = header & ~(BUSY | DISCARD)
                if not header & DISCARD:
                    places.append((at + HEADER, length))
                position += (length + HEADER + 7) & ~7
            self._fence()
            records += [bytes(self._data[at : at + length]) for at, length in places]
        self._fence()
        self._consumed[0] = position
        return records, position == end

    def _see(self, at: int) -> None:
        """Have the window in which this place of the data lies."""
        start = at - at % WINDOW
        if start != self._start:
            self._unmap()
            self._start = start
            self._map()

    def _map(self) -> None:
        length = min(WINDOW + LONGEST, 2 * self._size - self._start)
        self._window = mmap.mmap(
            self._descriptor,
            length,
            mmap.MAP_SHARED,
            mmap.PROT_READ,
            offset=2 * PAGE + self._start,
        )
        self._data = memoryview(self._window)
        self._headers = self._data.cast("I")

    def _unmap(self) -> None:
        self._headers.release()
        self._data.release()
        self._window.close()

    def close(self) -> None:
        """Unmap it."""
        self._unmap()
        self._consumed.release()
        self._produced.release()
        self._theirs.close()
        self._own.close()
