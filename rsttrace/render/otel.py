"""An entry as attributes of an OpenTelemetry log record.

Names are those of the semantic conventions where they have one (network, process, container, k8s),
else ours, with ``rsttrace.`` before them.
"""

from __future__ import annotations

from typing import Any, Union

from rsttrace import model
from rsttrace.render.json import About, entry_object, object_line

Value = Union[str, int, float, list[str]]

SEVERITIES = {
    model.Origin.FORGED: (13, "WARN"),
    model.Origin.INCONCLUSIVE: (10, "INFO2"),
    model.Origin.PEER: (9, "INFO"),
    model.Origin.LOCAL: (9, "INFO"),
}
"""SeverityNumber and its name (OpenTelemetry's data model of logs)."""

OURS = "rsttrace."
"""What the names begin with that no convention has."""

EVENT_NAME = OURS + "reset"

_PATHS = {
    "network.local.address": ("local", "ip"),
    "network.local.port": ("local", "port"),
    "network.peer.address": ("remote", "ip"),
    "network.peer.port": ("remote", "port"),
    "network.interface.name": ("neighbor", "ifname"),
    "process.pid": ("process", "pid"),
    "process.executable.name": ("process", "comm"),
    "container.id": ("container", "id"),
    "container.name": ("container", "name"),
    "k8s.pod.name": ("pod", "name"),
    "k8s.pod.uid": ("pod", "uid"),
    "k8s.namespace.name": ("pod", "namespace"),
    OURS + "unit": ("unit",),
    OURS + "id": ("id",),
    OURS + "amends": ("amends",),
    OURS + "kind": ("kind",),
    OURS + "direction": ("direction",),
    OURS + "origin": ("origin",),
    OURS + "confidence": ("confidence",),
    OURS + "cause": ("cause", "name"),
    OURS + "summary": ("summary",),
    OURS + "advice": ("advice",),
    OURS + "device": ("device", "name"),
    OURS + "hops.rst": ("hops", "rst"),
    OURS + "hops.peer": ("hops", "peer"),
    OURS + "neighbor.mac": ("neighbor", "mac"),
    OURS + "neighbor.ip": ("neighbor", "ip"),
    OURS + "netns": ("netns",),
    OURS + "netns_name": ("netns_name",),
}
"""Where each attribute stands in the JSON of an entry; what is unknown there has none."""


def attributes(entry: model.Entry, run: About | None = None) -> dict[str, Value]:
    """The attributes; ``rsttrace.json`` is the whole entry with its `run`, as ``-o json`` is."""
    made = entry_object(entry)
    found: dict[str, Value] = {
        "network.transport": "tcp",
        "network.type": f"ipv{entry.reset.family}",
    }
    for name, path in _PATHS.items():
        value: Any = made
        for step in path:
            value = None if value is None else value[step]
        if value is not None:
            found[name] = value
    if run is not None and run["id"] is not None:
        found[OURS + "run"] = run["id"]
    if made["authors"]:
        found[OURS + "author"] = made["authors"][0]["author"]
    if made["findings"]:
        found[OURS + "findings"] = list(made["findings"])
    found[OURS + "json"] = object_line(made, run)
    return found
