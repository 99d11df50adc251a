"""The switch and port that an interface is plugged into, from this machine's own lldpd, if it runs.

lldpd(8) listens to what switches announce (LLDP, IEEE 802.1AB; CDP and others); lldpcli(8) asks it.
It is asked once, for two seconds at most. All of the answer is a stranger's text.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from rsttrace.model import SwitchPort

COMMAND = "lldpcli"
TIMEOUT_S = 2.0
MAX_ANSWER = 4 << 20
"""Bytes of an answer that are read; one neighbour takes about 2,000."""

MAX_TEXT = 512
"""A TLV holds 511 bytes (IEEE 802.1AB §8.2)."""


class Lldp:
    """What lldpd says of this namespace's interfaces. No look-up raises."""

    def __init__(self) -> None:
        self._ports: dict[str, list[SwitchPort]] | None = None
        self._netns: int | None = None

    def load(self) -> None:
        """Ask lldpd now, if that has not been done and it runs in our own network namespace."""
        if self._ports is not None:
            return
        self._ports = {}
        command = shutil.which(COMMAND)
        if command is None:
            return
        self._netns = _inode("self")
        # lldpd names interfaces of its own namespace, wherever its socket can be reached from
        if self._netns is None or self._netns not in _daemons():
            return
        self._ports = read_neighbors(_ask(command))

    def port(self, netns: int, ifname: str) -> SwitchPort | None:
        """Where an interface is plugged in; ``None``: unknown, or several devices answer there."""
        self.load()
        if self._ports is None or netns != self._netns:
            return None
        found = self._ports.get(ifname, [])
        return found[0] if len(found) == 1 else None


def read_neighbors(text: bytes) -> dict[str, list[SwitchPort]]:
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


def _ask(command: str) -> bytes:
    try:
        done = subprocess.run(
            [command, "-f", "json0", "show", "neighbors"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout if done.returncode == 0 and len(done.stdout) <= MAX_ANSWER else b""


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
