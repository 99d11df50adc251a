"""The live source: loads, reads the ring buffer, yields resets."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from rsttrace.kernel import config, loader
from rsttrace.kernel import counts as counters
from rsttrace.kernel.clock import Date, monotonic_ns
from rsttrace.kernel.counts import Counts, lookup_per_cpu
from rsttrace.kernel.decode import Context, decode
from rsttrace.kernel.flows import Flows, Halves
from rsttrace.kernel.followups import WITHIN_S, FollowUps
from rsttrace.kernel.layout import event_size
from rsttrace.kernel.lookup import Lookup, lookup
from rsttrace.kernel.memory import give_back
from rsttrace.kernel.order import HELD_NS, InOrder
from rsttrace.kernel.protocol import Report, Request
from rsttrace.kernel.ring import RingBuffer
from rsttrace.kernel.storm import LINES, Buckets, Count, Rooms
from rsttrace.model import Baseline, Cause, Counted, Endpoint, Kind, LatePacket, Reset

CHUNK = 64
"""How many events are decoded before the ring is emptied again."""

BACKLOG = 25_000
"""How many raw events may wait in our memory (45 MB); more stay in the ring, then are lost there
and counted."""

MANY = 2_000
"""So many waiting events leave much memory free when they are gone (4 MB)."""

GATHERED_NS = 3_000_000
"""While resets come thick, the first of a batch waits so much longer for the others (nanoseconds):
what a turn costs is then shared by more of them."""

ANY_CAUSE = Cause("unknown", "for several reasons", None)
"""Of resets that were counted and have only their kind in common."""


class LiveSource:
    """Resets from the running kernel.

    Use as a context manager: entering loads and arms everything, leaving removes it. `meanwhile` is
    called while that is under way, in a process of its own; `loading` is that, if it has begun.

    Attributes:
        blind: the kernel's counts cannot be read any more; see `rely_on`.

    Raises (on entering):
        RsttraceError: nothing can be traced; the message says why.
    """

    def __init__(
        self,
        request: Request,
        meanwhile: Callable[[], None] | None = None,
        loading: loader.Loading | None = None,
    ) -> None:
        self._request = request
        self._meanwhile = meanwhile
        self._loading = loading
        self._stack = contextlib.ExitStack()
        self._final: dict[Kind, Counts] | None = None
        self._final_late = 0
        self._order = InOrder()
        self._date = Date()
        self._detached = False
        self._gathers_ns = 0
        self._most = 0
        self._lookup: Lookup = lookup
        self._known: dict[Kind, Counts] = {}
        self.blind = False

    def __enter__(self) -> LiveSource:
        with contextlib.ExitStack() as stack:
            self._follow_ups = FollowUps()
            if self._loading is None:
                self._loaded = loader.load(self._request, self._meanwhile)
            else:
                self._loaded = self._loading.loaded(self._meanwhile)
            stack.callback(self._loaded.close)
            self._ring = RingBuffer(self._loaded.ring, config.RING_PAGES * 4096)
            stack.callback(self._ring.close)
            self._flows = Flows(*self._loaded.flows)
            self._rooms = Rooms(self._loaded.rooms)
            stack.callback(self._rooms.close)
            self._buckets = Buckets(self._loaded.buckets)
            stack.callback(self._buckets.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._final_late = self.late_lost()
            self._final = self.counts()
        except OSError:
            if error is None:  # else that one is to be told
                raise
        finally:
            self._stack.close()

    @property
    def report(self) -> Report:
        """What is attached and what is not."""
        return self._loaded.report

    @property
    def log(self) -> str:
        """What the compiler and the verifier printed."""
        return self._loaded.log

    def maps(self) -> list[tuple[int, int]]:
        """The maps that are looked up: descriptor, and size of a value in bytes.

        To be asked for while there are rights.

        Raises:
            OSError: the kernel refuses to tell of them.
        """
        self._flows.settle()
        self.counts()  # known at least of now, should nobody be there to look up later
        return [(self._loaded.counts, counters.value_size()), *self._flows.maps]

    def waiting(self) -> dict[str, int]:
        """What waits for its module: the descriptor of the program, for each target."""
        return dict(self._loaded.waiting)

    def rely_on(self, lookup: Lookup, attach: Callable[[int, str], int]) -> None:
        """From now on have somebody else look up, and attach what waits, for want of rights.

        Each is called as what it stands for: `rsttrace.kernel.lookup.lookup`,
        `rsttrace.kernel.kprobe.attach`.
        """
        self._lookup, self._loaded.attach = lookup, attach

    def wait(self, seconds: float) -> list[Reset | LatePacket]:
        """Some resets as they come, after waiting at most so long for the first, and for its turn.

        In order of time, with what came after them from the same end; empty when nothing came.
        The turn comes `order.HELD_NS` after the event: one that took longer into the ring buffer
        may come after a younger one. Where several came together, the next ones are gathered.
        """
        if not self._order:
            self._ring.wait(min(seconds, WITHIN_S) if self._follow_ups else seconds)
        if self._gathers_ns:
            first_ns = self._order.due_ns() or monotonic_ns() + HELD_NS
            sleep_until(first_ns + self._gathers_ns)
        found = self.drain()
        while not found and (due_ns := self._order.due_ns()) is not None:
            sleep_until(due_ns)
            found = self.drain()
        self._gathers_ns = GATHERED_NS if len(found) > 1 else 0
        return found

    def attach_late(self) -> list[str]:
        """Hook into functions whose module has been loaded meanwhile; returns their names.

        Call it now and then: cheap, and it costs nothing when no hook waits.
        """
        return [hook.target for hook in self._loaded.attach_late()]

    def date_was_set(self) -> int:
        """By how much somebody has set the date (nanoseconds; back: negative); 0: nobody has.

        Resets have times by the new date from here on: ask before each `wait`, and move what is
        remembered (`rsttrace.model.shift`).
        """
        return self._date.was_set()

    def drain(self) -> list[Reset | LatePacket]:
        """The next resets whose turn it is, in order of time; after `detach`, empty at the end.

        At most `CHUNK` at once: decoding is slow beside the kernel, and the ring must be emptied
        meanwhile.
        """
        now_ns = monotonic_ns()
        room = max(0, BACKLOG - len(self._order) - len(self._follow_ups))
        records, all_of_it = self._ring.read(room)
        self._rooms.release(records)
        self._order.add(self._follow_ups.join(records, now_ns / 1e9))
        if self._detached and len(records) < room:
            self._order.add(self._follow_ups.rest())
        read_ns = None if self._detached else now_ns if all_of_it else 0
        self._most = max(self._most, len(self._order))
        chunk = self._order.take(CHUNK, read_ns)
        if self._most > MANY and not self._order:
            give_back()
            self._most = 0
        if not chunk:
            return []
        context = self._context()
        for record in chunk:
            self._buckets.sample(record)
        return [_decoded(record, context) for record in chunk]

    def counted(self, *, all_of_them: bool = False) -> list[Reset]:
        """Resets that were counted since the last call: one `Reset` for all that are alike.

        At most `storm.LINES`; what is not given comes with the next call, unless `all_of_them` are
        asked for. Call it once a second. What holds for one of them only is left out.
        """
        context = self._context()
        return [
            _together(_decoded(count.record, context), count, context)
            for count in self._buckets.counts(None if all_of_them else LINES)
        ]

    def _context(self) -> Context:
        return Context(
            clock_offset_ns=self._date.offset_ns,
            enums=self.report.enums,
        )

    def learned(self, identity: int, local: Endpoint, remote: Endpoint) -> Halves:
        """What both directions of a connection looked like so far; see `Flows.learned`."""
        offset_ns = self._date.offset_ns
        return self._flows.learned(identity, local, remote, offset_ns, self._lookup)

    def detach(self) -> None:
        """Stop the probes; what they have already told can still be drained."""
        self._loaded.detach()
        self._detached = True

    def counts(self) -> dict[Kind, Counts]:
        """Exact counts kept in the kernel, by kind.

        Also valid after closing. Who may not read them any more (`blind`) gets the last ones.
        """
        if self._final is not None:
            return self._final
        try:
            self._known = self._read_counts()
        except OSError:
            if not self._known:
                raise
            self.blind = True
        return self._known

    def _read_counts(self) -> dict[Kind, Counts]:
        rows = {}
        for kind, number in config.KIND_NUMBERS.items():
            cells = [
                lookup_per_cpu(
                    self._loaded.counts, number * config.COUNT_KINDS + column, self._lookup
                )
                for column in range(config.COUNT_KINDS)
            ]
            rows[kind] = Counts(*cells)
        return rows

    def late_lost(self) -> int:
        """How many packets that came after a RST could not be told (the ring was full).

        Also valid after closing.
        """
        if self._final is not None:
            return self._final_late
        at = config.LATE * config.COUNT_KINDS + config.COUNT_LOST
        try:
            return lookup_per_cpu(self._loaded.counts, at, self._lookup)
        except OSError:
            if not self._known:
                raise
            self.blind = True
            return 0


def sleep_until(time_ns: int) -> None:
    """Sleep until then (CLOCK_MONOTONIC)."""
    time.sleep(max(0, time_ns - monotonic_ns()) / 1e9)


def _decoded(record: bytes, context: Context) -> Reset | LatePacket:
    size = event_size()
    return decode(record[:size].ljust(size, b"\0"), context)


def _together(sample: Reset | LatePacket, count: Count, context: Context) -> Reset:
    """Resets that were counted, of which `sample` is one that was told."""
    assert isinstance(sample, Reset)
    offset_ns = context.clock_offset_ns
    same_cause = count.alike in ("peer", "service")
    return replace(
        sample,
        time_ns=count.last_ns + offset_ns,
        cause=sample.cause if same_cause else ANY_CAUSE,
        netns=None if count.alike == "kind" else sample.netns,
        netns_identity=None if count.alike == "kind" else sample.netns_identity,
        seen=count.resets,
        counted=Counted(count.first_ns + offset_ns, count.last_ns + offset_ns, count.alike),
        trigger=None,
        baseline=Baseline(),
        socket=None,
        made_here=None,
        process=None,
        actor=None,
        sent_data=None,
        payload=None,
    )
