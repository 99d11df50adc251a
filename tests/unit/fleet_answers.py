"""A fleet report's answers, with hostile texts wherever a text may come from outside."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from rsttrace.fleet.report import Answers

EVIL = "<img src=x onerror=console.log('caught')>\x1b[31m\u202e"
"""A tag, a terminal's escape, and a character that turns the text around."""

FROM = datetime(2026, 9, 21, tzinfo=timezone.utc)
TO = datetime(2026, 9, 28, tzinfo=timezone.utc)


def side(hops: int | None, mac: str) -> dict[str, Any]:
    return {
        "hops": hops, "mac": mac, "vendor": EVIL, "neighbor": EVIL, "resets": 1_200, "nodes": 7,
        "some_nodes": [EVIL, "a1"], "ip_ids": ["from a counter of its own"],
    }  # fmt: skip


def box(**values: Any) -> dict[str, Any]:
    return {
        "resets": 2_400, "before": 0, "never_sent": 30, "first": "2026-09-22T10:00:00+00:00",
        "last": "2026-09-27T10:00:00+00:00", "authors": ["injector"], "devices": [EVIL],
        "nodes": 7, "some_nodes": [EVIL], "peers": 40, "prefixes": ["10.1.2.0/24"],
        "triggers": [EVIL], "ports": [443],
        "place": {"router": 2, "of": 4, "from": EVIL, "to": "b1", "connections": 16},
        "sides": [side(1, "00:d0:f8:22:33:44"), side(None, "")], **values,
    }  # fmt: skip


def answers(**values: Any) -> Answers:
    """Something of every kind."""
    counted = {"resets": 3, "nodes": 2, "owner": EVIL}
    found: dict[str, Any] = {
        "span": (FROM, TO),
        "totals": {
            "resets": 12_000, "nodes": 9, "forged": 2_410, "inconclusive": 5, "peer": 6_000,
            "local": 3_585, "received": 8_415, "sent_by_the_peer": 5_990, "never_sent": 30,
            "amended": 12, "first": "2026-09-21T00:00:05+00:00",
            "last": "2026-09-27T23:59:00+00:00",
        },
        "boxes": [box(), box(place=None, resets=10, before=3)],
        "boxes_left": 2,
        "causes": [
            {
                **counted, "cause": "linger", "direction": "sent", "example": EVIL, "peers": 4,
                "idle_s": 60.0, "closed_by": "local", "findings": [],
            }
        ],
        "idle": [
            {
                **counted, "closer": "::ffff:10.0.0.2", "port": 80, "typical_s": 60.0,
                "least_s": 59.9, "most_s": 61.0, "used_by": 2,
            }
        ],
        "overflows": [
            {**counted, "port": 8080, "some_nodes": [EVIL], "clients": 3, "example": EVIL}
        ],
        "unnatted": [
            {
                **counted, "answers": "::ffff:10.0.0.3", "port": 80, "its_node": EVIL,
                "some_nodes": ["a1"],
            }
        ],
        "before": 900,
        "bin_s": 6_000,
        "timeline": [
            {
                "at": f"2026-09-{day}T00:00:00+00:00", "forged": 300, "inconclusive": 1,
                "peer": 700, "local": 400,
            }
            for day in range(21, 28)
        ],
        "changes": [
            {
                "verdict": "forged", "cause": EVIL, "author": "injector", "owner": EVIL,
                "now": 2_400, "before": 0,
            }
        ],
        "clocks": [{"node": EVIL, "ahead_s": -3.2, "others": 8, "resets": 120}],
        "shared": [{"ip": "::ffff:10.0.0.9", "nodes": 2}],
        "took_s": {"totals": 0.1},
    }  # fmt: skip
    return Answers(**{**found, **values})
