"""Whose service a connection came to: the listener of its port, and who holds that.

A connection that nobody has accepted, or that was closed before one could look, has no process of
its own. Its listener's is the next best answer, and is said to be the listener's.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from rsttrace.enrich import sockdiag
from rsttrace.enrich.listeners import takes
from rsttrace.enrich.netns import NetnsDirectory
from rsttrace.enrich.owner import Owners
from rsttrace.enrich.sockdiag import InetSocket
from rsttrace.enrich.spaces import Spaces
from rsttrace.errors import RsttraceError
from rsttrace.limits import NODE_NAMESPACES, SERVICES_DUTY, SERVICES_EVERY_S
from rsttrace.model import Endpoint, Process

_MOST_ALIKE = 64
"""Listeners on the same address (SO_REUSEPORT) whose holders are compared."""


@dataclass(frozen=True)
class _List:
    """What listens in the namespace with an identity; looked at again not before `ready_at`."""

    identity: int | None
    ready_at: float
    sockets: tuple[InetSocket, ...]


class Services:
    """The listeners of each namespace, and who holds them. No look-up raises.

    A namespace's list is read again after `SERVICES_EVERY_S`, and takes at most a part in
    `SERVICES_DUTY` of the time: resets of a storm have the list that is there.
    """

    def __init__(
        self,
        directory: NetnsDirectory,
        owners: Owners,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` counts seconds: for tests."""
        self._spaces = Spaces(directory)
        self._owners = owners
        self._clock = clock
        self._lists: OrderedDict[int, _List] = OrderedDict()

    def process(self, netns: int, identity: int | None, asked: Endpoint) -> Process | None:
        """Who holds the listener that takes connections to an address and port; ``None``: nobody.

        `identity` is the namespace's own (`Reset.netns_identity`).
        """
        taking = [one for one in self._list(netns, identity) if takes(one, asked)]
        # a listener on the very address is asked before those on any (compute_score())
        found = [one for one in taking if one.local.ip == asked.ip] or taking
        holders = {
            self._owners.process(one.inode, netns) if one.inode else None
            for one in found[:_MOST_ALIKE]
        }
        names = {holder[1] for holder in holders if holder is not None}
        if not found or None in holders or len(names) != 1:
            return None
        pids = {holder[0] for holder in holders if holder is not None}
        # SO_REUSEPORT: which of a service's processes it would have been, nobody knows
        return Process(
            pids.pop() if len(pids) == 1 else None, names.pop(), found[0].uid, None, None, True
        )

    def _list(self, netns: int, identity: int | None) -> tuple[InetSocket, ...]:
        known, started = self._lists.get(netns), self._clock()
        if known is not None and known.identity == identity and started < known.ready_at:
            return known.sockets
        found: tuple[InetSocket, ...] = ()
        with contextlib.suppress(OSError, RsttraceError, RuntimeError):
            found = self._spaces.enter(
                netns, identity, lambda: sockdiag.sockets(sockdiag.LISTENING).sockets
            )
        now = self._clock()
        pause = max(SERVICES_EVERY_S, SERVICES_DUTY * (now - started))
        self._lists[netns] = _List(identity, now + pause, found)
        self._lists.move_to_end(netns)
        while len(self._lists) > NODE_NAMESPACES:
            self._lists.popitem(last=False)
        return found
