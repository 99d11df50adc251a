"""What listens near an address and port where nothing does: on another address, port, namespace."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rsttrace.enrich import sockdiag
from rsttrace.enrich.owner import Owners
from rsttrace.enrich.question import Question, end_text
from rsttrace.enrich.sockdiag import InetSocket
from rsttrace.enrich.spaces import Spaces, cookie
from rsttrace.errors import RsttraceError
from rsttrace.limits import LISTENERS_S, NODE_NAMESPACES
from rsttrace.model import Endpoint, Note

NAMED = 4
"""Listeners that a note names."""

FEW = 8
"""A namespace with more listening ports is no single service's: they are not listed."""

NEAR_NAMESPACES = 3
"""Where the port is listened on in more namespaces, it is everybody's: they are not listed."""

_KEPT = 256
"""Listeners of a namespace that are remembered."""


@dataclass(frozen=True)
class Listener:
    """A listening socket, and who holds it; `age_s` is for how long its process has run."""

    socket: InetSocket
    pid: int | None
    comm: str | None
    age_s: float | None


@dataclass(frozen=True)
class _List:
    """What listened in the namespace with a cookie, from `began_ns`; believed until `ends`."""

    cookie: int | None
    ends: float
    began_ns: int
    sockets: tuple[InetSocket, ...]


def takes(one: InetSocket, asked: Endpoint) -> bool:
    """Whether a listener takes connections to an address and port, for all that can be told."""
    if one.local.port != asked.port or one.ifindex is not None:
        return False
    ip = one.local.ip
    if ip == "::":
        return ":" in asked.ip or not one.v6only
    return ip == asked.ip or (ip == "0.0.0.0" and ":" not in asked.ip)


class Listeners:
    """Answers what listens nearby.

    The list of the namespace in question is younger than the reset; those of others are believed
    for a moment.
    """

    def __init__(
        self, spaces: Spaces, owners: Owners, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._spaces = spaces
        self._owners = owners
        self._clock = clock
        self._lists: OrderedDict[int, _List] = OrderedDict()
        self._seen: OrderedDict[object, dict[Endpoint, tuple[InetSocket, int]]] = OrderedDict()

    def notes(self, question: Question) -> tuple[Note, ...]:
        """What listens near the reset's own address and port.

        Raises:
            RsttraceError: the namespace is gone, or cannot be entered.
            OSError: the kernel refuses.
        """
        netns, asked = question.netns, question.local
        earlier = dict(self._seen.get(question.identity, {}))
        here = self._list(netns, question.identity, question.time_ns)
        same = [one for one in here if one.local.port == asked.port]
        notes = [self._gone(question, earlier, here)]
        if any(takes(one, asked) for one in same):
            notes.append(self._now(question, [one for one in same if takes(one, asked)]))
        elif same:
            notes.append(self._other_address(question, same))
        else:
            notes.append(self._elsewhere(question) or self._other_port(question, here))
        return tuple(note for note in notes if note is not None)

    def _list(
        self, netns: int, identity: int | None, after_ns: int | None = None
    ) -> tuple[InetSocket, ...]:
        """What listens in a namespace, as listed after a time or else lately."""
        known = self._lists.get(netns)

        def look() -> tuple[int | None, tuple[InetSocket, ...] | None]:
            which = cookie()
            if known is not None and which is not None and which == known.cookie:
                fresh = (
                    self._clock() < known.ends if after_ns is None else known.began_ns > after_ns
                )
                if fresh:
                    return which, None
            return which, sockdiag.sockets(sockdiag.LISTENING).sockets

        now = time.time_ns()
        which, found = self._spaces.enter(netns, identity, look)
        if found is None:
            assert known is not None
            return known.sockets
        self._lists[netns] = _List(which, self._clock() + LISTENERS_S, now, found)
        self._lists.move_to_end(netns)
        while len(self._lists) > NODE_NAMESPACES:
            self._lists.popitem(last=False)
        if identity is not None:  # an inode number may be another namespace's next time
            self._seen[identity] = {one.local: (one, now) for one in found[:_KEPT]}
            self._seen.move_to_end(identity)
            while len(self._seen) > NODE_NAMESPACES:
                self._seen.popitem(last=False)
        return found

    def _gone(
        self,
        question: Question,
        earlier: dict[Endpoint, tuple[InetSocket, int]],
        here: tuple[InetSocket, ...],
    ) -> Note | None:
        """A listener that was there when this namespace was looked at last."""
        if any(takes(one, question.local) for one in here):
            return None
        known = next((item for item in earlier.values() if takes(item[0], question.local)), None)
        if known is None or known[1] > question.time_ns:
            return None
        one = self._listener(known[0], question.netns)
        ago_s = round((question.time_ns - known[1]) / 1e9, 1)
        where = self._spaces.label(question.netns)
        text = (
            f"a listener on {end_text(known[0].local)} was there {ago_s:g} s before ({where})"
            f"{_by(one)}, and is gone"
        )
        return Note("listener-gone", text, self._values(question, [one]))

    def _now(self, question: Question, found: list[InetSocket]) -> Note:
        listeners = [self._listener(one, question.netns) for one in found[:NAMED]]
        where = self._spaces.label(question.netns)
        text = f"there is a listener by now ({where}): {_named(listeners)}"
        return Note("listens-now", text, self._values(question, listeners))

    def _other_address(self, question: Question, found: list[InetSocket]) -> Note:
        """The port is listened on here, but not for the address that was asked."""
        listeners = [self._listener(one, question.netns) for one in found[:NAMED]]
        alone = all(ipaddress.ip_address(one.local.ip).is_loopback for one in found)
        local_only = alone and not ipaddress.ip_address(question.local.ip).is_loopback
        where = self._spaces.label(question.netns)
        port = question.local.port
        text = f"port {port} is listened on in {where}, but only on {_named(listeners)}"
        family = 6 if ":" in question.local.ip else 4
        if local_only:
            text += ": it can be reached from there alone"
        elif all(one.family != family for one in found):
            text += f": there is no listener for IPv{family}"
        name = "listens-local-only" if local_only else "listens-other-address"
        return Note(name, text, self._values(question, listeners))

    def _elsewhere(self, question: Question) -> Note | None:
        """Other namespaces of this node where the port is listened on."""
        found: dict[int, InetSocket] = {}
        for netns in self._spaces.others(question.netns):
            with contextlib.suppress(OSError, RsttraceError):
                for one in self._list(netns, None):
                    if one.local.port == question.local.port:
                        found.setdefault(netns, one)
            if len(found) > NEAR_NAMESPACES:
                return None
        if not found:
            return None
        listeners = [(netns, self._listener(one, netns)) for netns, one in found.items()]
        named = "; ".join(
            f"{self._spaces.label(netns)}: {_named([one])}" for netns, one in listeners
        )
        text = f"port {question.local.port} is listened on elsewhere on this node: {named}"
        values = self._values(question, [one for _, one in listeners])
        for item, (netns, _) in zip(values["listeners"], listeners):
            item.update(netns=netns, netns_name=self._spaces.name(netns))
        return Note("listens-elsewhere", text, values)

    def _other_port(self, question: Question, here: tuple[InetSocket, ...]) -> Note | None:
        """The few ports that are listened on here at all."""
        ports = {one.local.port: one for one in reversed(here)}
        if not 0 < len(ports) <= FEW:
            return None
        found = sorted(ports.values(), key=lambda one: one.local.port)
        listeners = [self._listener(one, question.netns) for one in found[:NAMED]]
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        where = self._spaces.label(question.netns)
        text = f"what listens in {where}: {_named(listeners)}{more}"
        return Note("listens-other-port", text, self._values(question, listeners))

    def _listener(self, one: InetSocket, netns: int) -> Listener:
        process = self._owners.process(one.inode, netns) if one.inode is not None else None
        if process is None:
            return Listener(one, None, None, None)
        return Listener(one, *process, self._owners.age_s(process[0]))

    def _values(self, question: Question, listeners: list[Listener]) -> dict[str, Any]:
        return {
            "asked": end_text(question.local),
            "netns": question.netns,
            "netns_name": self._spaces.name(question.netns),
            "listeners": [
                {
                    "address": end_text(one.socket.local),
                    "v6only": one.socket.v6only if one.socket.family == 6 else None,
                    "pid": one.pid,
                    "comm": one.comm,
                    "running_s": one.age_s,
                }
                for one in listeners
            ],
        }


def _named(listeners: list[Listener]) -> str:
    return ", ".join(f"{_where(one.socket)}{_by(one)}" for one in listeners)


def _by(one: Listener) -> str:
    if one.comm is None:
        return ""
    age = "" if one.age_s is None else f", running for {_duration(one.age_s)}"
    return f" (by {one.comm}[{one.pid}]{age})"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:g} s"


def _where(one: InetSocket) -> str:
    device = "" if one.ifindex is None else f" on interface {one.ifindex}"
    return end_text(one.local) + device
