"""Groups what repeats in the text: after the first few, those alike are one line with a count."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from rsttrace.model import NO_TIME, Entry

SHOWN = 5
"""So many alike are shown one by one."""

QUIET_NS = 10 * 1_000_000_000
"""After so long without one the next is shown again; and a line comes no later than this."""

GROUPS = 1000


@dataclass(frozen=True)
class Repeat:
    """So many entries like this one (the last of them) that were not shown one by one."""

    entry: Entry
    count: int
    first_ns: int
    last_ns: int


@dataclass
class _Group:
    last_ns: int
    shown: int = 0
    held: list[Entry] = field(default_factory=list)  # the first and the last
    count: int = 0
    since_s: float = 0.0


class Repeats:
    """Says which entries are shown one by one, and what is told of the others.

    Alike are entries of one direction, verdict, cause, process, namespace, peer and service port.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._groups: OrderedDict[Hashable, _Group] = OrderedDict()
        self._holding: OrderedDict[Hashable, _Group] = OrderedDict()  # the first that held first
        self._due: list[Repeat] = []

    def take(self, entry: Entry) -> bool:
        """Whether to show an entry; else it is counted."""
        now_ns, key = entry.reset.time_ns, _key(entry)
        group = self._groups.get(key)
        if group is not None and _apart(now_ns, group.last_ns):
            self._tell(key, group)
            group = None
        if group is None:
            group = self._groups[key] = _Group(now_ns)
            if len(self._groups) > GROUPS:
                self._tell(*self._groups.popitem(last=False))
        self._groups.move_to_end(key)
        group.last_ns = now_ns
        if group.shown < SHOWN:
            group.shown += 1
            return True
        if not group.count:
            group.held, group.since_s = [entry, entry], self._clock()
            self._holding[key] = group
        group.held[1] = entry
        group.count += 1
        return False

    def due(self, now_ns: int | None = None) -> list[Repeat]:
        """What is to be told, by the clock and by the time of the last reset; None: everything."""
        while self._holding:
            key, group = next(iter(self._holding.items()))
            waited = (self._clock() - group.since_s) * 1e9 >= QUIET_NS
            first_ns = group.held[0].reset.time_ns
            if now_ns is not None and not waited and not _apart(now_ns, first_ns):
                break
            self._tell(key, group)
        told, self._due = self._due, []
        return told

    def _tell(self, key: Hashable, group: _Group) -> None:
        if self._holding.pop(key, None) is not None:
            first, last = group.held
            self._due.append(Repeat(last, group.count, first.reset.time_ns, last.reset.time_ns))
            group.held, group.count = [], 0


def _apart(now_ns: int, then_ns: int) -> bool:
    """Whether a time is so much later; files may have none."""
    return NO_TIME not in (now_ns, then_ns) and now_ns - then_ns >= QUIET_NS


def _key(entry: Entry) -> Hashable:
    reset, process = entry.reset, entry.reset.process
    return (
        reset.kind,
        entry.verdict.origin,
        entry.cause.name,
        entry.amends is None,
        entry.verdict.findings,
        reset.remote.ip,
        min(reset.local.port, reset.remote.port),
        process.comm if process else None,
        reset.netns,
        reset.file,
    )
