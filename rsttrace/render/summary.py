"""Counts a run's entries, for the last lines (or the last JSON object) of a run."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from rsttrace import model
from rsttrace.jsonl import SCHEMA
from rsttrace.render.common import Common, Features, features
from rsttrace.render.escape import safe
from rsttrace.render.times import duration, iso_time
from rsttrace.render.top import Top

REMEMBERED = 4096
"""How many entries a tally can still revise: an amendment comes soon after what it amends."""

_Counted = tuple[model.Kind, model.Origin, str, Features]


class Tally:
    """What a run has shown, by kind, origin and cause, and what it has not.

    An entry that amends an earlier one is not a reset of its own: its verdict takes the place of
    the earlier one. `clock` gives seconds and starts now, `now_ns` the time of day; a `clock` of
    ``None`` (reading a capture, where the time it takes means nothing) leaves start, end and
    duration unknown.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] | None = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
        remembered: int = REMEMBERED,
    ) -> None:
        """Start the clock, with no entries."""
        self._clock = clock
        self._started = clock() if clock else 0.0
        self._now_ns = now_ns
        self._started_ns = now_ns() if clock else None
        self._remembered = remembered
        self._recent: OrderedDict[int, _Counted] = OrderedDict()
        self._forgotten = 0  # the highest id no longer in _recent
        self._kinds: Counter[model.Kind] = Counter()
        self._origins: Counter[model.Origin] = Counter()
        self._causes: Counter[str] = Counter()
        self._common = Common()
        self._top = Top()
        self._shown = 0
        self._amended = 0
        self._amended_late = 0
        self._first_ns: int | None = None
        self._last_ns: int | None = None
        self._not_shown: dict[str, int | None] = dict.fromkeys(
            ("filtered", "aggregated", "lost", "blocked")
        )

    def add(self, entry: model.Entry) -> None:
        """Count an entry that was shown."""
        reset = entry.reset
        forged = entry.verdict.origin is model.Origin.FORGED
        counted = (
            reset.kind,
            entry.verdict.origin,
            entry.cause.name,
            features(entry) if forged else {},
        )
        if forged:
            self._common.add_payload(reset.sent_data)
        key = entry.id if entry.amends is None else entry.amends
        if entry.amends is not None:
            if key in self._recent:
                self._count(self._recent[key], -1)
                self._count(counted, +1)
                self._recent[key] = counted
                self._amended += 1
                return
            if key <= self._forgotten:
                self._amended_late += 1
                return
            # The first verdict was never shown (a filter): this one is the reset's first.
        self._shown += 1
        self._top.add(reset)
        self._count(counted, +1)
        if self._first_ns is None or reset.time_ns < self._first_ns:
            self._first_ns = reset.time_ns
        if self._last_ns is None or reset.time_ns > self._last_ns:
            self._last_ns = reset.time_ns
        self._recent[key] = counted
        if len(self._recent) > self._remembered:
            self._forgotten = max(self._forgotten, self._recent.popitem(last=False)[0])

    def not_shown(self, filtered: int, aggregated: int, lost: int, blocked: int = 0) -> None:
        """Set (not add) the counts of resets that were not shown.

        `filtered` did not match what was asked for; `aggregated` were counted in the kernel
        without detail, in a storm; `lost` found no room on their way to us; `blocked` are times a
        probe was kept from running, each of which may have been a reset.
        """
        self._not_shown = {
            "filtered": filtered,
            "aggregated": aggregated,
            "lost": lost,
            "blocked": blocked,
        }

    def missing(self) -> dict[str, int]:
        """How many resets were not shown, by the reason, without reasons that did not occur."""
        return {name: count for name, count in self._not_shown.items() if count}

    def object(self) -> dict[str, Any]:
        """The summary as ``{"schema": 1, "totals": {…}}``; unknown is ``None``."""
        return {
            "schema": SCHEMA,
            "totals": {
                "shown": self._shown,
                "kinds": {kind.value: self._kinds[kind] for kind in model.Kind},
                "origins": {origin.value: self._origins[origin] for origin in model.Origin},
                "causes": dict(_by_count(self._causes)),
                "top": {
                    table: [{"name": name, "count": count} for name, count in found]
                    for table, found in self._top.tables().items()
                },
                "forged": self._common.object(),
                "amended": self._amended,
                "amended_late": self._amended_late,
                "not_shown": dict(self._not_shown),
                "started": iso_time(self._started_ns) if self._started_ns is not None else None,
                "ended": iso_time(self._now_ns()) if self._started_ns is not None else None,
                "duration_s": self._duration_s(),
                "first": iso_time(self._first_ns) if self._first_ns is not None else None,
                "last": iso_time(self._last_ns) if self._last_ns is not None else None,
            },
        }

    def text_lines(self) -> list[str]:
        """The summary for people."""
        seconds = self._duration_s()
        took = f" in {duration(round(seconds * 1e9))}" if seconds is not None else ""
        lines = [f"{self._shown} {'reset' if self._shown == 1 else 'resets'} shown{took}"]
        for title, counts in (
            ("kind", {kind.value: count for kind, count in self._kinds.items()}),
            ("origin", {origin.value: count for origin, count in self._origins.items()}),
            ("cause", self._causes),
        ):
            if self._shown:
                lines.append(f"  by {title}: {_listed(counts)}")
        lines += [f"  {line}" for line in self._top.text_lines()]
        in_common = self._common.text_line()
        if in_common:
            lines.append(f"  {in_common}")
        if self._amended:
            lines.append(f"  verdicts revised: {self._amended}")
        if self._amended_late:
            lines.append(f"  verdicts revised too late for the counts above: {self._amended_late}")
        missing = self.missing()
        if missing:
            lines.append(f"  not shown: {_listed(missing, sort=False)}")
        if self._not_shown["lost"] or self._not_shown["blocked"]:
            lines.append("  this run did not see everything")
        return lines

    def _count(self, counted: _Counted, step: int) -> None:
        kind, origin, cause, found = counted
        if origin is model.Origin.FORGED:
            self._common.add(found, step)
        self._kinds[kind] += step
        self._origins[origin] += step
        self._causes[cause] += step
        if not self._causes[cause]:
            del self._causes[cause]

    def _duration_s(self) -> float | None:
        return round(self._clock() - self._started, 3) if self._clock else None


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _listed(counts: Mapping[str, int], *, sort: bool = True) -> str:
    """``3 peer, 1 forged``: the most first, without those that did not occur."""
    items = _by_count(counts) if sort else list(counts.items())
    return ", ".join(f"{count} {safe(name)}" for name, count in items if count)
