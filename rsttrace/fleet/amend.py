"""A node's entry with what the other end's log says, as ``rsttrace compare`` amends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from rsttrace import jsonl
from rsttrace.fleet.report import Span
from rsttrace.fleet.store import Store, sql
from rsttrace.judge.verdict import PROOF_SCORE, other_end, reconsider
from rsttrace.model import Entry, Evidence, Fate, Kind, OtherEnd, Point
from rsttrace.render.json import authors_object, evidence_object

PAGE = 10_000


def amended(row: Mapping[str, Any]) -> tuple[Entry, jsonl.Object]:
    """A row of the view `judged` as an entry, and as the JSON object that it was, amended.

    Raises:
        WrongLine: what the store has is no entry.
    """
    found = jsonl.decode(row["json"])
    entry = jsonl.read_entry(found).entry
    evidence = _evidence(entry, row)
    verdict = entry.verdict if evidence is None else reconsider(entry.verdict, evidence)
    made = {
        **found,
        "origin": verdict.origin.value,
        "confidence": verdict.confidence,
        "score": verdict.score if evidence is not None else found.get("score"),
        "authors": authors_object(verdict),
        "evidence": [evidence_object(item) for item in verdict.evidence],
    }
    return replace(entry, verdict=verdict), made


def _evidence(entry: Entry, row: Mapping[str, Any]) -> Evidence | None:
    node = row["other_node"]
    if row["other_end"] == "left" and row["other_kind"] == Kind.SENT_RAW.value:
        text = f"a program on {node} wrote it through a raw socket, in the name of the connection"
        return Evidence("other-end", PROOF_SCORE, text, proof=True)
    fates = {"left": Fate.LEFT, "never-sent": Fate.NEVER_SENT}
    if row["other_end"] not in fates:
        return None
    entry.reset.other_end = OtherEnd(
        fates[row["other_end"]],
        Point.B,
        f"the log of {node}",
        at_sender=True,
        logged=True,
        why="its tracer watched all the time, and lost nothing",
    )
    return other_end(entry.reset)


def entries(
    store: Store, span: Span, *, verdict: str | None = None, most: int | None = None
) -> Iterator[tuple[Entry, jsonl.Object]]:
    """The entries of a span in order of time, at most so many; `verdict`: only these.

    Raises: see `Store.query`; `WrongLine`.
    """
    after: dict[str, Any] = {"at": 0, "node": "", "key": 0}
    left = most
    while left is None or left > 0:
        rows = store.query(
            sql("entries"),
            {
                **after,
                "from": span[0],
                "to": span[1],
                "verdict": verdict or "",
                "most": PAGE if left is None else min(PAGE, left),
            },
        )
        for row in rows:
            yield amended(row)
        if not rows:
            return
        after = {name: rows[-1][name] for name in ("at", "node", "key")}
        left = None if left is None else left - len(rows)
