"""From a line of JSON to rows of the store. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rsttrace import jsonl
from rsttrace.model import NO_TIME, Entry

ENTRY = (
    "node", "run", "key", "revision", "time", "direction", "kind", "origin", "confidence", "score",
    "cause", "summary", "closed_by", "idle_s", "local_ip", "local_port", "remote_ip", "remote_port",
    "flags", "seq", "ack", "ttl", "ip_id", "hops_rst", "hops_peer", "author", "device", "mac",
    "vendor", "neighbor", "made_here", "findings", "owner", "trigger", "trigger_seq",
    "trigger_ip_id", "seen", "json",
)  # fmt: skip
"""The columns of `entries`, in the order of `entry_row`."""

RUN = (
    "node", "run", "boot", "version", "first", "last", "started", "ended", "lost", "filtered",
    "revision",
)  # fmt: skip
"""The columns of `runs`, in the order of `Run.row`."""

UNKNOWN_RUN = ""
"""Of lines that an older version wrote, which does not name its runs."""

_REPLICA = re.compile(r"-[0-9a-f]{6,10}-[a-z0-9]{5}$|-[a-z0-9]{5}$|-\d+$")
"""What Kubernetes appends to the names of a Deployment's, a DaemonSet's, a StatefulSet's pods."""


@dataclass
class Run:
    """What the lines of one run say of it, as far as they have been read. Times in nanoseconds."""

    node: str
    run: str
    boot: str
    version: str
    first_ns: int
    last_ns: int
    started_ns: int | None = None
    ended_ns: int | None = None
    lost: int = 0
    filtered: int | None = None

    def saw(self, time_ns: int) -> None:
        """An entry of this time."""
        if time_ns != NO_TIME:
            self.first_ns = min(self.first_ns, time_ns)
            self.last_ns = max(self.last_ns, time_ns)

    def ends(self, summary: jsonl.RunSummary) -> None:
        """What its last line says."""
        self.started_ns, self.ended_ns = summary.started_ns, summary.ended_ns
        self.lost, self.filtered = summary.lost, summary.filtered
        for time_ns in (summary.started_ns, summary.ended_ns):
            if time_ns is not None:
                self.saw(time_ns)

    def follows(self, earlier: Run) -> None:
        """What another load knew of it: a later part of a run must not forget an earlier one."""
        self.first_ns = min(self.first_ns, earlier.first_ns)
        self.last_ns = max(self.last_ns, earlier.last_ns)
        if self.ended_ns is None and self.started_ns is None:
            self.started_ns, self.ended_ns = earlier.started_ns, earlier.ended_ns
            self.lost, self.filtered = earlier.lost, earlier.filtered

    def row(self, revision: int) -> tuple[Any, ...]:
        """Its row in the table `runs`."""
        return (
            self.node,
            self.run,
            self.boot,
            self.version,
            self.first_ns,
            self.last_ns,
            self.started_ns,
            self.ended_ns,
            self.lost,
            self.filtered,
            revision,
        )


def run_of(found: jsonl.Object, node: str | None = None) -> tuple[str, str, str, str]:
    """(node, run, boot, version) of a line; `node` where the user says whose it is.

    Raises:
        WrongLine: the line does not say whose it is, and nobody else does.
    """
    about = found.get("run")
    about = about if isinstance(about, dict) else {}
    named = [about.get(name) for name in ("host", "id", "boot", "version")]
    host, run, boot, version = (text if isinstance(text, str) else "" for text in named)
    if not (node or host):
        raise jsonl.WrongLine("a line that does not say which host wrote it: give --node")
    return node or host, run or UNKNOWN_RUN, boot, version


def entry_row(found: jsonl.Object, text: str, node: str, run: str) -> tuple[tuple[Any, ...], Entry]:
    """An entry's row in the table `entries`, and the entry. `text` is the line itself.

    Raises:
        WrongLine: it is none of ours.
    """
    entry = jsonl.read_entry(found).entry
    reset, verdict = entry.reset, entry.verdict
    neighbor = reset.neighbor
    best = verdict.authors[0].author.value if verdict.authors else ""
    trigger = found.get("trigger")
    trigger = trigger if isinstance(trigger, dict) else {}
    row = (
        node,
        run,
        entry.id if entry.amends is None else entry.amends,
        0 if entry.amends is None else entry.id,
        0 if reset.time_ns == NO_TIME else reset.time_ns,
        reset.kind.direction,
        reset.kind.value,
        verdict.origin.value,
        verdict.confidence,
        verdict.score,
        entry.cause.name,
        verdict.summary or entry.cause.text,
        entry.cause.closed_by or "",
        entry.cause.idle_s,
        reset.local.ip,
        reset.local.port,
        reset.remote.ip,
        reset.remote.port,
        "" if reset.unread else reset.rst.flags,
        reset.rst.seq,
        reset.rst.ack,
        reset.rst.ttl,
        reset.rst.ip_id,
        verdict.hops_rst,
        verdict.hops_peer,
        best,
        verdict.device_name or "",
        (neighbor.mac or "") if neighbor else "",
        (neighbor.vendor or "") if neighbor else "",
        (neighbor.ip or "") if neighbor else "",
        int(reset.made_here is not None),
        list(verdict.findings),
        owner(entry),
        _trigger(trigger),
        _number(trigger, "seq", 32) or 0,
        _number(trigger, "ip_id", 16),
        reset.seen,
        text,
    )
    return row, entry


def owner(entry: Entry) -> str:
    """The service that a reset's socket belongs to: a pod's controller, a container, a program."""
    reset = entry.reset
    pod, container, process = reset.pod, reset.container, reset.process
    if pod is not None and pod.name:
        return f"{pod.namespace or '?'}/{_REPLICA.sub('', pod.name)}"
    if container is not None:
        return f"container {container.name or container.id[:12]}"
    return process.comm if process is not None and process.comm else ""


def _trigger(trigger: dict[str, Any]) -> str:
    """What provoked it, roughly: the flags of the packet that it answers, and if it had data."""
    flags = trigger.get("flags")
    if not isinstance(flags, str):
        return ""
    return f"{flags}, data" if trigger.get("payload_len") else flags


def _number(trigger: dict[str, Any], name: str, bits: int) -> int | None:
    value = trigger.get(name)
    return value if isinstance(value, int) and 0 <= value < 1 << bits else None
