"""The questions that only many nodes together can answer.

First, in `settle`, each received reset is joined with its sender's own entry; then the questions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from rsttrace import jsonl
from rsttrace.fleet.boxes import boxes
from rsttrace.fleet.store import Store, sql
from rsttrace.judge.verdict import LOG_WEIGHT, decide
from rsttrace.model import Kind

WINDOW_S = 600
"""Clocks of one fleet are not farther apart, in seconds."""

MARGIN_S = 2
"""So much longer than the moment itself a tracer must have watched: no RST is underway so long."""

STEP = timedelta(hours=6)
"""Resets are joined span by span: no longer ones,"""

STEP_ENTRIES = 4_000_000
"""and none with more entries, where that can be, so that memory does not depend on their number."""

_BIN = timedelta(minutes=10)

LISTED = 20

BINS = 100
"""So many bins has the picture of when."""

OTHER_ENDS = (
    "node", "run", "key", "time", "fate", "other_node", "other_run", "other_key", "other_kind",
    "translated", "delta_s", "origin", "confidence", "revision",
)  # fmt: skip

Span = tuple[datetime, datetime]


@dataclass
class Answers:
    """What a report says; each list holds rows by the names of their columns.

    `before` counts the entries of the span before, which `changes` compares with: 0, and there is
    nothing to compare with. `bin_s` is how long a row of `timeline` lasts, `took_s` how long each
    question took, in seconds.
    """

    span: Span
    totals: dict[str, Any]
    boxes: list[dict[str, Any]] = field(default_factory=list)
    boxes_left: int = 0
    causes: list[dict[str, Any]] = field(default_factory=list)
    idle: list[dict[str, Any]] = field(default_factory=list)
    overflows: list[dict[str, Any]] = field(default_factory=list)
    unnatted: list[dict[str, Any]] = field(default_factory=list)
    before: int = 0
    bin_s: int = 1
    timeline: list[dict[str, Any]] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    clocks: list[dict[str, Any]] = field(default_factory=list)
    shared: list[dict[str, Any]] = field(default_factory=list)
    took_s: dict[str, float] = field(default_factory=dict)

    def object(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "schema": jsonl.SCHEMA,
            "fleet": {
                "from": self.span[0].isoformat(),
                "to": self.span[1].isoformat(),
                "totals": self.totals,
                "boxes": self.boxes,
                "boxes_left_out": self.boxes_left,
                "causes": self.causes,
                "closes_idle": self.idle,
                "overflows": self.overflows,
                "answers_un_nated": self.unnatted,
                "before": self.before,
                "changes": self.changes,
                "clocks": self.clocks,
                "shared_addresses": self.shared,
            },
        }


def whole_span(store: Store) -> Span | None:
    """From the first entry to the last; ``None``: there is none."""
    found = store.query("SELECT min(time) AS first, max(time) AS last, count() AS n FROM entries")
    if not found or not found[0]["n"]:
        return None
    return _aware(found[0]["first"]), _aware(found[0]["last"]) + timedelta(milliseconds=1)


def settle(store: Store, span: Span) -> None:
    """Ask each received reset's other end, and keep what that says.

    A RST that the sender's own tracer saw leave is the sender's: that is proof. That it has not
    seen one, though it watched all the time, is strong evidence, and no proof (a log may miss a
    packet). Everything else stays as it was judged.
    """
    for part in _steps(store, span):
        values = {**_values(part), "raw": Kind.SENT_RAW.value}
        # Measured for each span anew: clocks are set in between.
        store.command(sql("clocks"), {**values, "revision": time.time_ns()})
        store.command(
            sql("by_sender").replace("{matched}", sql("matched").strip()),
            {**values, "revision": time.time_ns()},
        )
        rows = []
        for found in store.query(sql("never_sent"), values):
            origin, confidence = _without_sender(
                found["origin"], found["score"], found["confidence"]
            )
            rows.append(
                (
                    found["node"], found["run"], found["key"], found["time_ns"], "never-sent",
                    found["other_node"], found["other_run"], 0, "", 0, 0.0, origin, confidence,
                    time.time_ns(),
                )
            )  # fmt: skip
        store.insert("other_ends", OTHER_ENDS, rows)


def _without_sender(
    origin: str, score: float, confidence: float | None
) -> tuple[str, float | None]:
    """What follows from there being none."""
    if confidence == 1.0:  # proved on the node itself
        return origin, confidence
    found, sure = decide(score + LOG_WEIGHT)
    return found.value, sure


def answer(store: Store, span: Span, clock: Callable[[], float] = time.monotonic) -> Answers:
    """Ask every question of a span of time."""
    values = _values(span)
    took: dict[str, float] = {}

    def ask(name: str) -> list[dict[str, Any]]:
        began = clock()
        found = store.query(sql(name), values)
        took[name] = round(clock() - began, 3)
        return found

    def plain(name: str) -> list[dict[str, Any]]:
        return [_plain(row) for row in ask(name)]

    totals = ask("totals")[0]
    shown = totals["last"] - totals["first"]
    values["bin"] = max(1, int(shown.total_seconds() / BINS))
    before = store.query(
        "SELECT count() AS n FROM entries"
        " WHERE time >= {before:DateTime64(9)} AND time < {from:DateTime64(9)}",
        values,
    )[0]["n"]
    found = boxes(ask("boxes"), ask("sides"))
    return Answers(
        span=span,
        totals=_plain(totals),
        boxes=[_plain(row) for row in found[:LISTED]],
        boxes_left=max(0, len(found) - LISTED),
        causes=plain("causes"),
        idle=plain("idle"),
        overflows=plain("overflows"),
        unnatted=plain("unnatted"),
        before=before,
        changes=plain("changes") if before else [],
        bin_s=values["bin"],
        timeline=plain("timeline"),
        clocks=plain("clocks_apart"),
        shared=plain("shared_addresses"),
        took_s=took,
    )


def _values(span: Span) -> dict[str, Any]:
    return {
        "from": span[0],
        "to": span[1],
        "before": span[0] - (span[1] - span[0]),
        "window": WINDOW_S,
        "margin": MARGIN_S,
        "most": LISTED,
    }


def _steps(store: Store, span: Span) -> Iterator[Span]:
    """A span in parts that are short, and have not too many entries. Empty ones are left out."""
    found = store.query(
        "SELECT toStartOfInterval(time, INTERVAL {bin:UInt32} SECOND) AS at, count() AS n"
        " FROM entries WHERE time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}"
        " GROUP BY at ORDER BY at",
        {**_values(span), "bin": int(_BIN.total_seconds())},
    )
    start, end, held = span[0], span[0], 0
    for row in found:
        at = max(span[0], _aware(row["at"]))
        if held and (held + row["n"] > STEP_ENTRIES or at - start >= STEP):
            yield start, end
            held = 0
        if not held:
            start = at
        end = min(span[1], _aware(row["at"]) + _BIN)
        held += row["n"]
    if held:
        yield start, end


def _aware(found: datetime) -> datetime:
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _aware(value).isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }
