"""One namespace's interfaces and neighbour table, as its kernel has them.

They are dumped once and then kept fresh by the kernel's notifications, which wait in the socket's
buffer and are read before each answer. A neighbour table may be as large as its namespace's owner
likes: a large one is not copied, but asked for the one neighbour that is needed.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Callable

from rsttrace.enrich.links import BUILT_ON_ANOTHER, Link, Links
from rsttrace.enrich.netlink import (
    AF_BRIDGE,
    DELLINK,
    DELNEIGH,
    NEWLINK,
    NEWNEIGH,
    ROUTING,
    Netlink,
    neighbor,
)

_NTF_PROXY = 0x08  # include/uapi/linux/neighbour.h
_RESYNC_SECONDS = 1.0
_DUMPS = 3

MOST_NEIGHBORS = 2048
"""The largest neighbour table that is copied; the kernel drops learnt ones from half as many on
(gc_thresh3)."""


class TooManyNeighbors(Exception):
    """This namespace's neighbour table is too large to be copied."""


class Tables:
    """A copy of the tables behind one netlink socket.

    Attributes:
        links: the interfaces.
        netlink: to ask for what is not copied.
    """

    def __init__(
        self,
        sock: socket.socket,
        clock: Callable[[], float],
        *,
        routing_changed: Callable[[], None],
        forwarding_changed: Callable[[bytes], None],
        copies_neighbors: bool = True,
    ) -> None:
        """Takes over the socket. Without `copies_neighbors` each neighbour is asked for.

        Raises:
            OSError: the kernel refuses the socket, or to tell.
            TooManyNeighbors: more than are copied.

        `routing_changed` is called when a next hop may be another than before,
        `forwarding_changed` with each message about a bridge's forwarding table.
        """
        self._clock = clock
        self._routing_changed = routing_changed
        self._forwarding_changed = forwarding_changed
        self._stale = False
        self._synced = float("-inf")
        self._dumping = False
        self.links = Links()
        self._copies = copies_neighbors
        self._told = 0  # neighbours, by the dump that runs
        self._macs: dict[tuple[int, str], str] = {}
        self._ips: dict[tuple[int, str], set[str]] = {}
        self.netlink = Netlink(sock, self._apply, hears_neighbors=copies_neighbors)
        try:
            self._dump()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the socket."""
        self.netlink.close()

    def mac(self, ifindex: int, ip: str) -> str | None:
        """The MAC of an address on an interface, by the neighbour table."""
        if self._copies:
            return self._macs.get((ifindex, ip))
        try:
            found = self.netlink.ask_neighbor(ifindex, ip)
        except OSError:
            return None
        known = neighbor(found) if found is not None else None
        return known[3] if known is not None else None

    def ips(self, ifindex: int, mac: str, likely: str) -> set[str]:
        """The addresses that a MAC has on an interface, by the neighbour table.

        Where that is too large, only a `likely` one is looked for.
        """
        if self._copies:
            return self._ips.get((ifindex, mac), set())
        return {likely} if self.mac(ifindex, likely) == mac else set()

    def refresh(self) -> bool:
        """Apply the notifications that wait, without blocking. ``False``: begin anew.

        The socket is unusable, or there are too many neighbours by now.

        After an overrun the tables are dumped again, once a second at most: in a lasting storm
        they are up to a second old.
        """
        try:
            self.netlink.drain()
            stale = self._stale or self.netlink.overrun
            if stale and self._clock() - self._synced >= _RESYNC_SECONDS:
                self._dump()
        except (OSError, TooManyNeighbors):
            return False
        return True

    def _dump(self) -> None:
        """Read both tables anew. Raises OSError when the kernel refuses."""
        self._dumping = True
        for _ in range(_DUMPS):
            self._stale = self.netlink.overrun = False
            self.links.clear()
            self._macs.clear()
            self._told = 0
            self._ips.clear()
            self._routing_changed()
            whole = self.netlink.dump_links() and (
                not self._copies or self.netlink.dump_neighbors()
            )
            if whole and not self.netlink.overrun:
                break
        else:
            self._stale = True  # tables that change faster than they can be read: try again later
        self._dumping = False
        self._synced = self._clock()

    def _apply(self, kind: int, message: bytes) -> None:
        """Take in one link, neighbour or route message, from a dump or a notification."""
        if kind in ROUTING:
            self._routing_changed()
            return
        if len(message) <= 16:
            return
        family = message[16]
        if kind in (NEWLINK, DELLINK):
            # bridges announce their ports with AF_BRIDGE, "deleted" when one leaves the bridge
            if family == socket.AF_UNSPEC:
                self._apply_link(kind, self.netlink.decode(kind, message))
        elif kind in (NEWNEIGH, DELNEIGH) and family in (socket.AF_INET, socket.AF_INET6):
            self._apply_neighbor(kind, message)
        elif kind in (NEWNEIGH, DELNEIGH) and family == AF_BRIDGE:
            self._forwarding_changed(message)

    def _apply_link(self, kind: int, message: Any) -> None:
        if message is None:
            return
        index = message["index"]
        if kind == DELLINK:
            self.links.pop(index, None)
            for key in [key for key in self._macs if key[0] == index]:
                self._set(key, None)
        elif message.get_attr("IFLA_WIRELESS") is None:  # a partial message (wext-core.c)
            self.links[index] = _link(message)
        # the kernel drops IPv4 routes of a link that goes down without a word about each
        self._routing_changed()

    def _apply_neighbor(self, kind: int, message: bytes) -> None:
        self._told += 1
        if self._told > MOST_NEIGHBORS and (self._dumping or len(self._macs) > MOST_NEIGHBORS):
            raise TooManyNeighbors
        found = neighbor(message)
        if found is None or found[1] & _NTF_PROXY:
            return
        index, _, ip, mac = found
        # without NUD_VALID there is no address in the message (neigh_fill_info)
        self._set((index, ip), mac if kind == NEWNEIGH else None)

    def _set(self, key: tuple[int, str], mac: str | None) -> None:
        old = self._macs.get(key)
        if old == mac:  # most notifications only tell of a new state
            return
        index, ip = key
        if old is not None:
            del self._macs[key]
            ips = self._ips[index, old]
            ips.discard(ip)
            if not ips:
                del self._ips[index, old]
        if mac is not None:
            self._macs[key] = mac
            self._ips.setdefault((index, mac), set()).add(ip)
        self._routing_changed()


def _link(message: Any) -> Link:
    name = message.get_attr("IFLA_IFNAME")
    lower = message.get_attr("IFLA_LINK")
    kind = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
    # a lower device in another namespace has an index of that namespace
    here = message.get_attr("IFLA_LINK_NETNSID") is None
    return Link(
        # pyroute2 leaves a name that is no UTF-8 as bytes
        name=os.fsdecode(name) if name is not None else None,
        master=message.get_attr("IFLA_MASTER") or None,
        lower=lower if lower and here and kind in BUILT_ON_ANOTHER else None,
        kind=kind if isinstance(kind, str) else None,
        vlan=message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_VLAN_ID")
        if kind == "vlan"
        else None,
        mac=message.get_attr("IFLA_ADDRESS"),
    )
