"""Logs of nodes whose truth is known: what each sent, what a box forged between them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable
from typing import Any

from rsttrace.model import Endpoint, Entry, Kind, Neighbor, Origin
from rsttrace.render.json import entry_object
from rsttrace.render.times import iso_time
from tests.unit import test_render_samples as samples

S = 1_000_000_000
DAY = 86_400 * S
START_NS = (time.time_ns() // DAY - 30) * DAY + 43_200 * S
"""Noon, a month ago: no fixed day, because the store forgets what is 180 days old."""
BOX = Neighbor("00:d0:f8:22:33:44", "Ruijie Networks", "10.1.0.1", True, 2, "eth0", None)


@dataclasses.dataclass
class Node:
    """A node with one run of its tracer; `ahead_ns` is how far its clock is ahead."""

    name: str
    ip: str
    ahead_ns: int = 0
    lost: int = 0
    filtered: int = 0
    ends: bool = True
    entries: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def _about(self) -> dict[str, Any]:
        return {"id": f"run-{self.name}", "host": self.name, "boot": "b", "version": "0"}

    def add(self, entry: Entry, time_ns: int) -> dict[str, Any]:
        reset = dataclasses.replace(entry.reset, time_ns=time_ns + self.ahead_ns)
        entry = dataclasses.replace(entry, id=len(self.entries) + 1, reset=reset)
        made: dict[str, Any] = json.loads(json.dumps(entry_object(entry)))
        made["run"] = self._about()
        self.entries.append(made)
        return made

    def lines(self) -> list[str]:
        totals = {
            "shown": len(self.entries),
            "not_shown": {"filtered": self.filtered, "aggregated": 0, "lost": self.lost},
            "started": iso_time(START_NS - 600 * S + self.ahead_ns, utc=True),
            "ended": iso_time(START_NS + 7200 * S + self.ahead_ns, utc=True),
        }
        end = [{"schema": 1, "summary": totals, "run": self._about()}] if self.ends else []
        return [json.dumps(made) for made in (*self.entries, *end)]


def rst(src: Endpoint, dst: Endpoint, seq: int, **values: Any) -> Any:
    return dataclasses.replace(samples.RST, src=src, dst=dst, seq=seq, **values)


def sends(node: Node, peer: Endpoint, port: int, seq: int, time_ns: int, **values: Any) -> None:
    """The node resets a connection."""
    here = Endpoint(node.ip, port)
    reset = dataclasses.replace(
        samples.LOCAL_ACTIVE.reset, local=here, remote=peer, rst=rst(here, peer, seq), **values
    )
    node.add(dataclasses.replace(samples.LOCAL_ACTIVE, reset=reset, amends=None), time_ns)


def receives(
    node: Node, peer: Endpoint, port: int, seq: int, time_ns: int, origin: Origin
) -> dict[str, Any]:
    """The node is reset in the peer's name; `origin` is what it makes of it by itself."""
    here = Endpoint(node.ip, port)
    sample = {
        Origin.FORGED: samples.FORGED,
        Origin.PEER: samples.PEER,
        Origin.INCONCLUSIVE: samples.UNSURE,
    }[origin]
    reset = dataclasses.replace(
        samples.FORGED.reset,
        kind=Kind.RECEIVED_ACCEPTED,
        local=here,
        remote=peer,
        rst=rst(peer, here, seq),
        neighbor=BOX,
        made_here=None,
    )
    return node.add(dataclasses.replace(sample, reset=reset, amends=None), time_ns)


def honest(
    a: Node, b: Node, number: int, origin: Origin = Origin.PEER, days: int = 0
) -> dict[str, Any]:
    """b resets its connection to a, and a hears it 20 ms later."""
    time_ns = START_NS + days * DAY + number * S
    port, seq = 30_000 + number, 70_000 + number * 1000
    sends(b, Endpoint(a.ip, port), 80, seq, time_ns)
    return receives(a, Endpoint(b.ip, 80), port, seq, time_ns + 20_000_000, origin)


def forged(
    a: Node, b: Node, number: int, origin: Origin = Origin.FORGED, days: int = 0
) -> dict[str, Any]:
    """A box resets a's connection in b's name."""
    port, seq = 40_000 + number, 90_000_000 + number * 1000
    time_ns = START_NS + days * DAY + number * S
    return receives(a, Endpoint(b.ip, 80), port, seq, time_ns, origin)


def text(nodes: Iterable[Node]) -> str:
    return "".join(f"{line}\n" for node in nodes for line in node.lines())
