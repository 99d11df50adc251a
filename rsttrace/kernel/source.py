"""The live source: loads, reads the ring buffer, yields resets."""

from __future__ import annotations

import contextlib
import mmap
import select
import struct
import time
from collections import deque
from types import TracebackType

from rsttrace.kernel import config, loader
from rsttrace.kernel.counts import lookup_per_cpu
from rsttrace.kernel.decode import Context, decode
from rsttrace.kernel.followups import WITHIN_S, FollowUps
from rsttrace.kernel.layout import event_size
from rsttrace.kernel.protocol import Report, Request
from rsttrace.model import Kind, LatePacket, Reset

PAGE = mmap.PAGESIZE
BUSY, DISCARD = 1 << 31, 1 << 30  # BPF_RINGBUF_BUSY_BIT, _DISCARD_BIT (include/uapi/linux/bpf.h)

CHUNK = 64
"""How many events are decoded before the ring is emptied again."""

BACKLOG = 25_000
"""How many raw events may wait in our memory (45 MB); more stay in the ring, then are lost there
and counted."""

TIME = struct.Struct("<Q")
"""rst_event.ts, its first member."""


class RingBuffer:
    """Reads a BPF ring buffer through its memory map (kernel/bpf/ringbuf.c).

    The consumer position is one page we may write; the producer position and the data, mapped
    twice in a row so that no record ever wraps, are read-only.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._size = size
        self._consumer = mmap.mmap(
            descriptor, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0
        )
        self._producer = mmap.mmap(
            descriptor, PAGE + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=PAGE
        )
        self._data = memoryview(self._producer)[PAGE:]
        self._poll = select.epoll()
        self._poll.register(descriptor, select.EPOLLIN)

    def wait(self, seconds: float) -> None:
        """Wait for a record, at most so long. A signal ends the wait early."""
        with contextlib.suppress(InterruptedError):
            self._poll.poll(seconds)

    def read(self, limit: int) -> list[bytes]:
        """What there is now, at most so many. Stops at a record that a CPU is still writing."""
        records: list[bytes] = []
        (position,) = struct.unpack_from("<Q", self._consumer, 0)
        (end,) = struct.unpack_from("<Q", self._producer, 0)
        while position < end and len(records) < limit:
            at = position % self._size
            (header,) = struct.unpack_from("<I", self._data, at)
            if header & BUSY:
                break
            length = header & ~(BUSY | DISCARD)
            if not header & DISCARD:
                records.append(bytes(self._data[at + 8 : at + 8 + length]))
            position += (length + 8 + 7) & ~7
        struct.pack_into("<Q", self._consumer, 0, position)
        return records

    def close(self) -> None:
        """Unmap it."""
        self._poll.close()
        self._data.release()
        self._producer.close()
        self._consumer.close()


class LiveSource:
    """Resets from the running kernel.

    Use as a context manager: entering loads and arms everything, leaving removes it.

    Raises (on entering):
        RsttraceError: nothing can be traced; the message says why.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._stack = contextlib.ExitStack()
        self._final: dict[Kind, tuple[int, int, int]] | None = None
        self._final_late = 0
        self._backlog: deque[bytes] = deque()
        self._detached = False

    def __enter__(self) -> LiveSource:
        with contextlib.ExitStack() as stack:
            self._follow_ups = FollowUps()
            self._loaded = loader.load(self._request)
            stack.callback(self._loaded.close)
            self._ring = RingBuffer(self._loaded.ring, config.RING_PAGES * 4096)
            stack.callback(self._ring.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._final_late = self.late_lost()
        self._final = self.counts()
        self._stack.close()

    @property
    def report(self) -> Report:
        """What is attached and what is not."""
        return self._loaded.report

    @property
    def log(self) -> str:
        """What the compiler and the verifier printed."""
        return self._loaded.log

    def wait(self, seconds: float) -> list[Reset | LatePacket]:
        """Some resets as they come, after waiting at most so long for the first.

        In order of time, with what came after them from the same end; empty when nothing came.
        """
        if not self._backlog:
            self._ring.wait(min(seconds, WITHIN_S) if self._follow_ups else seconds)
        return self.drain()

    def attach_late(self) -> list[str]:
        """Hook into functions whose module has been loaded meanwhile; returns their names.

        Call it now and then: cheap, and it costs nothing when no hook waits.
        """
        return [hook.target for hook in self._loaded.attach_late()]

    def drain(self) -> list[Reset | LatePacket]:
        """The next resets, in order of time; empty when there is no more now.

        At most `CHUNK` at once: decoding is slow beside the kernel, and the ring must be emptied
        meanwhile.
        """
        room = max(0, BACKLOG - len(self._backlog) - len(self._follow_ups))
        read = self._ring.read(room)
        records = self._follow_ups.join(read, time.monotonic())
        if self._detached and len(read) < room:
            records += self._follow_ups.rest()
        records.sort(key=TIME.unpack_from)  # an event whose cause follows its packet comes late
        self._backlog.extend(records)
        if not self._backlog:
            return []
        context = Context(
            clock_offset_ns=time.clock_gettime_ns(time.CLOCK_REALTIME)
            - time.clock_gettime_ns(time.CLOCK_MONOTONIC),
            enums=self.report.enums,
        )
        size = event_size()
        chunk = [self._backlog.popleft() for _ in range(min(CHUNK, len(self._backlog)))]
        return [decode(record[:size].ljust(size, b"\0"), context) for record in chunk]

    def detach(self) -> None:
        """Stop the probes; what they have already told can still be drained."""
        self._loaded.detach()
        self._detached = True

    def counts(self) -> dict[Kind, tuple[int, int, int]]:
        """Exact counts kept in the kernel: kind -> (shown, filtered, lost).

        Also valid after closing.
        """
        if self._final is not None:
            return self._final
        rows = {}
        for kind, number in config.KIND_NUMBERS.items():
            cells = [
                lookup_per_cpu(self._loaded.counts, number * config.COUNT_KINDS + column)
                for column in range(config.COUNT_KINDS)
            ]
            rows[kind] = (cells[0], cells[1], cells[2])
        return rows

    def late_lost(self) -> int:
        """How many packets that came after a RST could not be told (the ring was full).

        Also valid after closing.
        """
        if self._final is not None:
            return self._final_late
        at = config.LATE * config.COUNT_KINDS + config.COUNT_LOST
        return lookup_per_cpu(self._loaded.counts, at)
