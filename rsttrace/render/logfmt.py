"""Entries as ``key=value`` on one line (logfmt), for grep, awk and those who want keys.

A value is bare, or in double quotes with the escapes of JSON; unknown is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from rsttrace import model
from rsttrace.render import neighbors
from rsttrace.render.json import About
from rsttrace.render.text import answer_text
from rsttrace.render.times import iso_time

_BARE = re.compile(r"[!#-<>-\[\]-~]+", re.ASCII)  # printable, no blank, no '"', '=' or backslash


def logfmt_line(entry: model.Entry, *, utc: bool = False, run: About | None = None) -> str:
    """An entry: what its first line of text has, each with its name in the JSON."""
    reset, verdict = entry.reset, entry.verdict
    received = reset.kind.direction == "received"
    source, target = (reset.remote, reset.local) if received else (reset.local, reset.remote)
    neighbor = neighbors.neighbor(reset)
    process, counted = reset.process, reset.counted
    values = {
        "time": iso_time(reset.time_ns, utc=utc),
        "id": entry.id,
        "amends": entry.amends,
        "kind": reset.kind.value,
        "direction": reset.kind.direction,
        "origin": verdict.origin.value,
        "confidence": verdict.confidence,
        "src": source.ip,
        "sport": source.port,
        "dst": target.ip,
        "dport": target.port,
        "text": answer_text(entry),
        "author": verdict.authors[0].author.value if verdict.authors else None,
        "cause": entry.cause.name,
        "hops": verdict.hops_rst,
        "peer_hops": verdict.hops_peer,
        "device": verdict.device_name,
        "neighbor": neighbor.mac if neighbor else None,
        "neighbor_ip": neighbor.ip if neighbor else None,
        "findings": ",".join(verdict.findings) or None,
        "pid": process.pid if process else None,
        "comm": process.comm if process else None,
        "uid": process.uid if process else None,
        "listener": (process.listener or None) if process else None,
        "unit": reset.unit,
        "container": reset.container.name or reset.container.id if reset.container else None,
        "pod": reset.pod.name or reset.pod.uid if reset.pod else None,
        "pod_namespace": reset.pod.namespace if reset.pod else None,
        "netns": reset.netns,
        "netns_name": reset.netns_name,
        "file": reset.file,
        "frame": reset.file_frame,
        "seen": reset.seen,
        "alike": counted.alike if counted else None,
        **{f"run.{name}": value for name, value in (run or {}).items()},
    }
    return _line(values.items())


def object_logfmt(made: dict[str, Any], run: About | None = None) -> str:
    """Any object of ours: a value inside has its way there as its key (``totals.kinds.sent-raw``).

    Lists of objects are numbered from 0, other lists are joined by commas.
    """
    about = {} if run is None or "run" in made else {"run": run}
    return _line(_flat({**made, **about}))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, (list, tuple)):
        if any(isinstance(item, (dict, list, tuple)) for item in value):
            for number, item in enumerate(value):
                yield from _flat(item, f"{path}.{number}")
        elif value:
            yield path, ",".join(str(item) for item in value)
    else:
        yield path, value


def _line(values: Any) -> str:
    return " ".join(f"{_key(name)}={_value(value)}" for name, value in values if value is not None)


def _key(name: str) -> str:
    return "".join(each if _BARE.fullmatch(each) else "_" for each in name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    if _BARE.fullmatch(text):
        return text
    return json.dumps(text.encode("utf-8", "replace").decode()).replace("\x7f", "\\u007f")
