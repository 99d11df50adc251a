"""An entry as fields of a journal entry, for journald (systemd.journal-fields(7))."""

from __future__ import annotations

from typing import Any

from rsttrace import model
from rsttrace.render.json import About, entry_object, object_line

MESSAGE_ID = "d2b6c1f1a3f54f7e9d0a6f0b8c5e4a17"
"""Says that a journal entry is one of ours: an arbitrary number that never changes (sd-id128)."""

PRIORITIES = {
    model.Origin.FORGED: 4,
    model.Origin.INCONCLUSIVE: 5,
    model.Origin.PEER: 6,
    model.Origin.LOCAL: 6,
}
"""syslog(3): warning, notice, informational."""

_PATHS = {
    "RSTTRACE_ID": ("id",),
    "RSTTRACE_AMENDS": ("amends",),
    "RSTTRACE_TIME": ("time",),
    "RSTTRACE_KIND": ("kind",),
    "RSTTRACE_DIRECTION": ("direction",),
    "RSTTRACE_ORIGIN": ("origin",),
    "RSTTRACE_CONFIDENCE": ("confidence",),
    "RSTTRACE_CAUSE": ("cause", "name"),
    "RSTTRACE_SUMMARY": ("summary",),
    "RSTTRACE_ADVICE": ("advice",),
    "RSTTRACE_DEVICE": ("device", "name"),
    "RSTTRACE_LOCAL_IP": ("local", "ip"),
    "RSTTRACE_LOCAL_PORT": ("local", "port"),
    "RSTTRACE_REMOTE_IP": ("remote", "ip"),
    "RSTTRACE_REMOTE_PORT": ("remote", "port"),
    "RSTTRACE_HOPS_RST": ("hops", "rst"),
    "RSTTRACE_HOPS_PEER": ("hops", "peer"),
    "RSTTRACE_NEIGHBOR_MAC": ("neighbor", "mac"),
    "RSTTRACE_NEIGHBOR_IP": ("neighbor", "ip"),
    "RSTTRACE_IFNAME": ("neighbor", "ifname"),
    "RSTTRACE_NETNS": ("netns",),
    "RSTTRACE_NETNS_NAME": ("netns_name",),
    "RSTTRACE_PID": ("process", "pid"),
    "RSTTRACE_COMM": ("process", "comm"),
    "RSTTRACE_UID": ("process", "uid"),
    "RSTTRACE_UNIT": ("unit",),
    "RSTTRACE_CONTAINER_ID": ("container", "id"),
    "RSTTRACE_CONTAINER_NAME": ("container", "name"),
    "RSTTRACE_POD": ("pod", "name"),
    "RSTTRACE_POD_NAMESPACE": ("pod", "namespace"),
}
"""Where each field stands in the JSON of an entry; what is unknown there has no field."""

FIELDS = (
    *("MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER", "OBJECT_PID"),
    *_PATHS,
    *("RSTTRACE_RUN", "RSTTRACE_AUTHOR", "RSTTRACE_FINDING", "RSTTRACE_JSON"),
)
"""Every field that there may be."""


def journal_fields(
    entry: model.Entry, message: str, *, run: About | None = None, same_pids: bool = False
) -> list[tuple[str, str]]:
    """The fields and their values, which are valid UTF-8; a finding each has a field of its own.

    `message` is the line for people. ``RSTTRACE_JSON`` is the whole entry, as ``-o json`` has it,
    with the `run`. ``OBJECT_PID``, sent by root, makes journald add what it knows of that process
    (systemd.journal-fields(7)): ``journalctl -u`` of its unit shows the entry. It is given where
    the kernel's process ids are also journald's (`same_pids`).
    """
    made = entry_object(entry)
    fields = [
        ("MESSAGE", message),
        ("MESSAGE_ID", MESSAGE_ID),
        ("PRIORITY", str(PRIORITIES[entry.verdict.origin])),
        ("SYSLOG_IDENTIFIER", "rsttrace"),
    ]
    for name, path in _PATHS.items():
        value = _at(made, path)
        if value is not None:
            fields.append((name, str(value)))
    if same_pids and entry.reset.process is not None:
        fields.append(("OBJECT_PID", str(entry.reset.process.pid)))
    if run is not None and run["id"] is not None:
        fields.append(("RSTTRACE_RUN", run["id"]))
    fields += [("RSTTRACE_AUTHOR", share["author"]) for share in made["authors"][:1]]
    fields += [("RSTTRACE_FINDING", finding) for finding in made["findings"]]
    fields.append(("RSTTRACE_JSON", object_line(made, run)))
    return fields


def _at(made: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if made is None:
            return None
        made = made[name]
    return made
