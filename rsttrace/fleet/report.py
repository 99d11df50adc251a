"""The questions that only many nodes together can answer, and their answers as text.

First, in `settle`, each received reset is joined with its sender's own entry; then the questions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from rsttrace import jsonl
from rsttrace.fleet.store import Store, sql
from rsttrace.judge.verdict import LOG_WEIGHT, decide
from rsttrace.model import Kind
from rsttrace.render.escape import safe

WINDOW_S = 600
"""Clocks of one fleet are not farther apart, in seconds."""

MARGIN_S = 5
"""So much longer than the moment itself a tracer must have watched."""

STEP = timedelta(hours=6)
"""Resets are joined span by span, so that memory depends on a span's number of them."""

LISTED = 20

OTHER_ENDS = (
    "node", "run", "key", "time", "fate", "other_node", "other_run", "other_key", "other_kind",
    "translated", "delta_s", "origin", "confidence", "revision",
)  # fmt: skip

Span = tuple[datetime, datetime]


@dataclass
class Answers:
    """What a report says; each list holds rows by the names of their columns."""

    span: Span
    totals: dict[str, Any]
    boxes: list[dict[str, Any]] = field(default_factory=list)
    causes: list[dict[str, Any]] = field(default_factory=list)
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
                "causes": self.causes,
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
    _measure_clocks(store, span)
    for start, end in _steps(span):
        values = _values((start, end))
        store.command(
            sql("by_sender").replace("{matched}", sql("matched").strip()),
            {**values, "raw": Kind.SENT_RAW.value, "revision": time.time_ns()},
        )
        rows = []
        for found in store.query(_with_score(sql("never_sent")), values):
            origin, confidence = _without_sender(
                found["origin"], found["score"], found["confidence"]
            )
            rows.append(
                (
                    found["node"], found["run"], found["key"], found["time"], "never-sent",
                    found["other_node"], found["other_run"], 0, "", 0, 0.0, origin, confidence,
                    time.time_ns(),
                )
            )  # fmt: skip
        store.insert("other_ends", OTHER_ENDS, rows)


def _with_score(text: str) -> str:
    """The same with what the verdict was."""
    return text.replace(
        "SELECT\n    received.node AS node,",
        "SELECT\n    any(received.origin) AS origin, any(received.score) AS score,"
        " any(received.confidence) AS confidence,\n    received.node AS node,",
    )


def _without_sender(
    origin: str, score: float, confidence: float | None
) -> tuple[str, float | None]:
    """What follows from there being none."""
    if confidence == 1.0:  # proved on the node itself
        return origin, confidence
    found, sure = decide(score + LOG_WEIGHT)
    return found.value, sure


def _measure_clocks(store: Store, span: Span) -> None:
    rows = []
    pairs = sql("clocks").strip()
    for found in store.query(sql("clocks_estimate").replace("{pairs}", pairs), _values(span)):
        rows.append(
            (
                found["node"], found["other_node"], found["ahead"], found["spread"],
                found["pairs"], time.time_ns(),
            )
        )  # fmt: skip
    store.insert("clocks", ("node", "other_node", "ahead_s", "spread_s", "pairs", "revision"), rows)


def answer(store: Store, span: Span, clock: Callable[[], float] = time.monotonic) -> Answers:
    """Ask every question of a span of time."""
    values = _values(span)
    took: dict[str, float] = {}

    def ask(name: str) -> list[dict[str, Any]]:
        began = clock()
        found = [_plain(row) for row in store.query(sql(name), values)]
        took[name] = round(clock() - began, 3)
        return found

    return Answers(
        span=span,
        totals=ask("totals")[0],
        boxes=ask("boxes"),
        causes=ask("causes"),
        changes=ask("changes"),
        clocks=[
            _plain(row)
            for row in store.query(
                "SELECT node, other_node, ahead_s, spread_s, pairs FROM clocks FINAL"
                " WHERE abs(ahead_s) > 0.5 ORDER BY abs(ahead_s) DESC LIMIT {most:UInt32}",
                values,
            )
        ],
        shared=ask("shared_addresses"),
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


def _steps(span: Span) -> Iterator[Span]:
    start, end = span
    while start < end:
        yield start, min(start + STEP, end)
        start += STEP


def _aware(found: datetime) -> datetime:
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _aware(value).isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }


# ---- as text ----


def text_lines(found: Answers) -> list[str]:
    """The answers for people; no line holds a newline."""
    totals = found.totals
    span = f"from {_short(totals['first'])} to {_short(totals['last'])}"
    lines = [
        f"{totals['resets']:,} resets of {totals['nodes']} nodes, {span}: "
        f"{totals['forged']:,} forged, {totals['inconclusive']:,} not decided, "
        f"{totals['peer']:,} the peers' own, {totals['local']:,} sent by the nodes themselves",
        f"  other ends: of {totals['received']:,} received {totals['sent_by_the_peer']:,} were "
        f"sent by the other end's own host, {totals['never_sent']:,} were not, though it was "
        f"watched; {totals['amended']:,} verdicts changed by that",
    ]
    lines += _section("boxes that forge", [_box(row) for row in found.boxes])
    lines += _section("honest causes", [_cause(row) for row in found.causes])
    lines += _section(
        "new, or much more or less than before", [_change(row) for row in found.changes]
    )
    lines += _section(
        "clocks that are apart",
        [
            f"{safe(row['node'])} is {row['ahead_s']:+.1f} s from {safe(row['other_node'])} "
            f"({row['pairs']} pairs)"
            for row in found.clocks
        ],
    )
    lines += _section(
        "addresses that several nodes have: nobody is accused by these",
        [f"{safe(row['ip'])}: {row['nodes']} nodes" for row in found.shared],
    )
    return lines


def _section(title: str, rows: list[str]) -> list[str]:
    return ["", title, *(f"  {row}" for row in rows)] if rows else []


def _short(text: str | None) -> str:
    return "?" if text is None else text[:19].replace("T", " ")


def _box(row: Mapping[str, Any]) -> str:
    where = "distance not known"
    if row["hops"] is not None:
        where = "on the link" if row["hops"] == 0 else f"{row['hops']} hops away"
    who = safe(row["device"] or row["author"] or "a device")
    handed = " ".join(
        filter(None, [safe(row["mac"]), f"({safe(row['vendor'])})" if row["vendor"] else ""])
    )
    neighbor = f" = {safe(row['neighbor'])}" if row["neighbor"] else ""
    by = f", handed over by {handed}{neighbor}" if handed else ""
    triggers = ", ".join(safe(each) for each in row["triggers"] if each)
    after = f"; after {triggers}" if triggers else ""
    said = f"; {row['never_sent']:,} surely not sent by the peer" if row["never_sent"] else ""
    return (
        f"{row['resets']:,} resets by {who}, {where}{by}: {row['nodes']} nodes "
        f"({', '.join(safe(node) for node in row['some_nodes'])}), {row['peers']} peers, since "
        f"{_short(row['first'])}{after}{said}"
    )


def _cause(row: Mapping[str, Any]) -> str:
    idle = f", after {row['idle_s']} s idle" if row["idle_s"] and row["idle_s"] > 0 else ""
    by = f" (closed by {safe(row['closed_by'])}{idle})" if row["closed_by"] else ""
    owner = safe(row["owner"]) or "unknown program"
    return (
        f"{row['resets']:,} {safe(row['direction'])} by {owner}, {safe(row['cause'])}{by}: "
        f"{row['nodes']} nodes, {row['peers']} peers; e.g. {safe(row['example'], 160)}"
    )


def _change(row: Mapping[str, Any]) -> str:
    author = f" by {safe(row['author'])}" if row["author"] else ""
    numbers = f"{row['before']:,} before, {row['now']:,} now"
    return f"{safe(row['verdict'])}{author}, {safe(row['cause'])}: {numbers}"
