"""What the screen shows: the last resets, rates, and who and what is most frequent. Pure.

Everything is bounded, and texts are safe for a terminal.
"""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from rsttrace.model import NO_TIME, Entry, Origin, Reset
from rsttrace.render import neighbors
from rsttrace.render.authors import makers_text
from rsttrace.render.escape import safe
from rsttrace.render.text import owner_text
from rsttrace.render.times import clock_time
from rsttrace.render.words import made_here_summary, maker_distance, process_text, verdict_text

MOST = 2_000
"""So many entries are kept, the newest ones."""

NAMES = 5_000
"""A table counts so many different names; those that came least are forgotten."""

WINDOW_S = 10
"""Seconds over which a rate is taken."""

_SENTENCE = 300


class Table(enum.Enum):
    """What is counted, by its name on the screen."""

    AUTHORS = "authors"
    PEERS = "peers"
    CAUSES = "causes"
    DEVICES = "devices"
    OWNERS = "owners"


@dataclass(frozen=True)
class Row:
    """An entry as a line of the table."""

    key: int
    time: str
    direction: str
    verdict: str
    origin: Origin
    local: str
    remote: str
    why: str

    def cells(self) -> tuple[str, ...]:
        """What is shown, in the order of `COLUMNS`."""
        return (self.time, self.direction, self.verdict, self.remote, self.why, self.local)

    def has(self, words: str) -> bool:
        """Whether every one of these words is in it, whatever the case."""
        text = " ".join(self.cells()).casefold()
        return all(word in text for word in words.casefold().split())


COLUMNS = ("time", "", "verdict", "remote", "who and why", "local")

SORTS = ("time", "verdict", "remote", "who and why", "local")
"""What the rows can be sorted by; the newest first by default."""


def who_and_why(entry: Entry) -> str:
    """The answer in one line: of a forged reset who made it, else why it came."""
    reset, verdict = entry.reset, entry.verdict
    if verdict.origin is Origin.FORGED:
        if reset.made_here is not None:
            return made_here_summary(reset.made_here)
        maker = makers_text(verdict) or "a device"
        where = maker_distance(reset, verdict)
        return f"{maker}, {where}" if where else maker
    return safe(verdict.summary or entry.cause.text, _SENTENCE)


def row(key: int, entry: Entry, *, utc: bool = False) -> Row:
    """An entry as a line; `key` stays the same when it is amended."""
    reset = entry.reset
    return Row(
        key,
        "" if reset.time_ns == NO_TIME else clock_time(reset.time_ns, utc=utc),
        {"received": "<-", "sent": "->"}.get(reset.kind.direction, "--"),
        verdict_text(entry.verdict),
        entry.verdict.origin,
        safe(str(reset.local)),
        safe(str(reset.remote)),
        who_and_why(entry),
    )


def cause_text(entry: Entry) -> str:
    """A cause as its table names it."""
    return safe(f"{entry.cause.name}: {entry.cause.text}", _SENTENCE)


def names(entry: Entry) -> Iterator[tuple[Table, str]]:
    """What an entry counts for, in each table."""
    reset, verdict = entry.reset, entry.verdict
    if verdict.origin is Origin.FORGED:
        yield Table.AUTHORS, who_and_why(entry)
    elif verdict.authors and verdict.origin is Origin.PEER:
        yield Table.AUTHORS, safe(verdict.authors[0].text, _SENTENCE)
    elif verdict.origin is Origin.LOCAL:
        yield Table.AUTHORS, "this host"
    else:
        yield Table.AUTHORS, "not decided"
    yield Table.PEERS, safe(reset.remote.ip)
    yield Table.CAUSES, cause_text(entry)
    found = neighbors.neighbor(reset)
    if found is not None and found.mac is not None and reset.kind.direction == "received":
        vendor = f" {safe(found.vendor)}" if found.vendor else ""
        ip = f" = {safe(found.ip)}" if found.ip else ""
        yield Table.DEVICES, f"{safe(found.mac)}{vendor}{ip}"
    owner = _owner(reset)
    if owner:
        yield Table.OWNERS, owner


def _owner(reset: Reset) -> str | None:
    process = reset.process
    comm = process_text(process.comm, None) if process and process.comm else None
    return " ".join(filter(None, [comm, owner_text(reset)])) or None


class Board:
    """Takes entries in, and answers what the screen asks."""

    def __init__(self, *, utc: bool = False) -> None:
        self._utc = utc
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._rows: dict[int, Row] = {}
        self._tables: dict[Table, Counter[str]] = {table: Counter() for table in Table}
        self._seconds: deque[tuple[int, Counter[Origin | str]]] = deque()
        self.origins: Counter[Origin] = Counter()
        self.shown = 0
        self.changes = 0

    def add(self, entry: Entry, now_s: float) -> None:
        """Take in an entry that came at `now_s` (seconds, of any steady clock)."""
        key = entry.id if entry.amends is None else entry.amends
        before = self._entries.get(key)
        if before is not None:
            self._count(before, -1)
        elif entry.amends is not None:
            return  # its reset is forgotten, or was counted: a second time would be wrong
        else:
            self.shown += 1
            self._rate(entry, now_s)
        self._entries[key] = entry
        self._rows[key] = row(key, entry, utc=self._utc)
        self._count(entry, +1)
        self.changes += 1
        while len(self._entries) > MOST:
            old, _ = self._entries.popitem(last=False)
            del self._rows[old]

    def _count(self, entry: Entry, step: int) -> None:
        self.origins[entry.verdict.origin] += step
        for table, name in names(entry):
            counter = self._tables[table]
            counter[name] += step
            if counter[name] <= 0:
                del counter[name]
            if len(counter) > NAMES:
                self._tables[table] = Counter(dict(counter.most_common(NAMES // 2)))

    def _rate(self, entry: Entry, now_s: float) -> None:
        second = int(now_s)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Counter()))
        counts = self._seconds[-1][1]
        counts[entry.verdict.origin] += entry.reset.seen
        counts[cause_text(entry)] += entry.reset.seen
        while self._seconds and self._seconds[0][0] <= second - WINDOW_S:
            self._seconds.popleft()

    def rates(self, now_s: float) -> dict[Origin | str, float]:
        """Resets a second of each origin and of each cause, over the last `WINDOW_S` seconds.

        A cause is named as in the table of causes.
        """
        total: Counter[Origin | str] = Counter()
        for second, counts in self._seconds:
            if second > int(now_s) - WINDOW_S:
                total.update(counts)
        return {**dict.fromkeys(Origin, 0.0), **{name: n / WINDOW_S for name, n in total.items()}}

    def rows(self, words: str = "", *, by: str = "time", most: int = 500) -> list[Row]:
        """The lines to show: those with all `words`, at most so many; the newest first."""
        found = [row for row in reversed(self._rows.values()) if not words or row.has(words)]
        if by != "time":
            found.sort(key=lambda row: row.cells()[COLUMNS.index(by)])
        return found[:most]

    def entry(self, key: int) -> Entry | None:
        """The entry of a line; ``None`` once it is forgotten."""
        return self._entries.get(key)

    def top(self, table: Table, most: int = 20) -> list[tuple[str, int]]:
        """The most frequent names of a table, with their counts."""
        counter = self._tables[table]
        return sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:most]
