"""The switch and port that an interface is plugged into, from this machine's own lldpd, if it runs.

lldpd(8) listens to what switches announce (LLDP, IEEE 802.1AB; CDP and others); lldpcli(8) asks it.
It is asked once, for two seconds at most. All of the answer is a stranger's text.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from rsttrace import programs
from rsttrace.enrich import reach
from rsttrace.model import SwitchPort

COMMAND = "lldpcli"
TIMEOUT_S = 2.0
MAX_ANSWER = 4 << 20
"""Bytes of an answer that are read; one neighbour takes about 2,000."""

MAX_TEXT = 512
"""A TLV holds 511 bytes (IEEE 802.1AB §8.2)."""


class _Process:
    """What this process was told for good: the namespace that it is in, and the answer."""

    told: tuple[int, str] | None = None


def ask_now() -> None:
    """Ask for the rest of this process's life: it is about to give away the rights to."""
    netns = _inode("self")
    if netns is not None and _Process.told is None:
        _Process.told = netns, _answer(netns)


class Lldp:
    """What lldpd says of this namespace's interfaces. No look-up raises."""

    def __init__(self) -> None:
        self._ports: dict[str, list[SwitchPort]] | None = None
        self._answer: str | None = None
        self._netns: int | None = None

    def load(self) -> None:
        """Ask lldpd now, if that has not been done and it runs in our own network namespace."""
        if self._answer is not None:
            return
        self._netns = _inode("self")
        if reach.helper() is not None:
            ask_now()
        told = _Process.told
        if told is not None and told[0] == self._netns:
            self._answer = told[1]
        else:
            self._answer = "" if self._netns is None else _answer(self._netns)

    def port(self, netns: int, ifname: str) -> SwitchPort | None:
        """Where an interface is plugged in; ``None``: unknown, or several devices answer there."""
        self.load()
        if netns != self._netns or not self._answer:
            return None
        if self._ports is None:
            self._ports = read_neighbors(self._answer)
        found = self._ports.get(ifname, [])
        return found[0] if len(found) == 1 else None


def read_neighbors(text: str | bytes) -> dict[str, list[SwitchPort]]:
    """The neighbours in an answer of ``lldpcli -f json0 show neighbors``, by our interface's name.

    The format json0 always has lists where json has them for several only, and does not use a
    stranger's name as a key (lldpcli(8)). What makes no sense is left out.
    """
    found: dict[str, list[SwitchPort]] = {}
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return found
    for lldp in _items({"lldp": answer.get("lldp")} if isinstance(answer, dict) else {}, "lldp"):
        for interface in _items(lldp, "interface"):
            name = interface.get("name")
            chassis = next(_items(interface, "chassis"), {})
            port = next(_items(interface, "port"), {})
            made = SwitchPort(
                ifname=name if isinstance(name, str) else "",
                name=_value(chassis, "name"),
                id=_value(chassis, "id"),
                port=_value(port, "id"),
                port_text=_value(port, "descr"),
            )
            if made.ifname and (made.name or made.id):
                found.setdefault(made.ifname, []).append(made)
    return found


def _items(holder: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    items = holder.get(key)
    if isinstance(items, list):
        yield from (item for item in items if isinstance(item, dict))


def _value(holder: dict[str, Any], key: str) -> str | None:
    """The first value of ``"key": [{"type": …, "value": …}]``."""
    for item in _items(holder, key):
        value = item.get("value")
        if isinstance(value, str) and value:
            return value[:MAX_TEXT]
    return None


def _answer(netns: int) -> str:
    """What the lldpd of our own namespace says; empty if there is none.

    It names interfaces of its own namespace, wherever its socket can be reached from.
    """
    command = programs.look(COMMAND, as_owner=True)  # Debian's is lldpd's user's
    if command.path is None or netns not in _daemons():
        return ""
    return _ask(command.path, command.owner)


def _ask(path: str, owner: int) -> str:
    try:
        command = [path, "-f", "json0", "show", "neighbors"]
        done = programs.run(command, timeout=TIMEOUT_S, owner=owner)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 and len(done.stdout) <= MAX_ANSWER else ""


def _daemons() -> set[int]:
    """The network namespaces in which an lldpd runs."""
    found = set()
    with contextlib.suppress(OSError):
        for pid in os.listdir("/proc"):
            if not pid.isdigit():
                continue
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/comm", "rb") as file:
                    if file.read().strip() != b"lldpd":
                        continue
                inode = _inode(pid)
                if inode is not None:
                    found.add(inode)
    return found


def _inode(pid: str) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None
