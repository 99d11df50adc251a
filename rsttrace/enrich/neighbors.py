"""Link-layer neighbours, interfaces and next hops of each network namespace, from rtnetlink(7).

One netlink socket per namespace: its tables are dumped once and then kept fresh by the kernel's
notifications, which wait in the socket's buffer and are read before each answer. pyroute2 provides
the messages. Its ``IPRoute(netns=...)`` is not used: it forks a child to open the socket and keeps
an asyncio loop with three more files for each; a thread of a millisecond's life does the same here.

An open socket keeps its namespace alive (``sk_net_refcnt``, net/core/sock.c), and with it the
interfaces of a container that is gone. So namespaces that no name and no process leads to any more
are closed within a second, provided that somebody looks: call `Neighbors.tidy` when idle.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Callable

from rsttrace.enrich.lldp import Lldp
from rsttrace.enrich.netns import NetnsDirectory
from rsttrace.enrich.vendor import is_virtual_router, vendor
from rsttrace.model import BridgePort, Neighbor, NextHop

# include/uapi/linux/netlink.h, rtnetlink.h, if_link.h, neighbour.h
_NLM_F_REQUEST, _NLM_F_DUMP_INTR, _NLM_F_DUMP = 0x1, 0x10, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWNEIGH, _DELNEIGH, _GETNEIGH = 28, 29, 30
_ROUTING = frozenset({_NEWROUTE, _DELROUTE, 32, 33, 104, 105})  # and rules, next hop objects
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_RTM_F_FIB_MATCH = 0x2000
_RTEXT_FILTER_SKIP_STATS = 8
_NTF_PROXY = 0x08
_NUD_PERMANENT = 0x80
_NDA_LLADDR = 2
_AF_BRIDGE = 7
_NDMSG = 28  # struct nlmsghdr and struct ndmsg, behind which the attributes begin
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
# LINK, NEIGH, IPV4_ROUTE, IPV4_RULE, IPV6_ROUTE, IPV6_RULE as RTMGRP_* bits
_GROUPS = 0x1 | 0x4 | 0x40 | 0x80 | 0x400 | 0x40000
_RTNLGRP_NEXTHOP = 32
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_RECEIVE = 1 << 16  # netlink_dump() fills 32 KiB at most
_BUFFER = 1 << 20

_UPPER_KINDS = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec"})
"""Interfaces whose IFLA_LINK is the device below them (for veth it is the other end)."""

_BUNDLES = frozenset({"bond", "team"})

_DEFAULT_PVID = 1
"""The VLAN of what comes untagged, on a bridge that filters VLANs (net/bridge/br_vlan.c)."""

_MAX_ANSWERS = 4096
_MAX_ROUTES = 1024
# Redirects and path MTU exceptions change the next hop without a notification.
_ROUTE_SECONDS = 5.0
_RESYNC_SECONDS = 1.0
_TIDY_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_MAX_DRAIN = 4096


class Neighbors:
    """Who hands us packets, in every network namespace of the node.

    Holds at most `limit` namespaces' sockets (the least recently used is closed). No look-up
    raises: what cannot be found out is ``None``. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        directory: NetnsDirectory | None = None,
        *,
        limit: int = 256,
        clock: Callable[[], float] = time.monotonic,
        lldp: Lldp | None = None,
    ) -> None:
        """`directory` finds the namespaces, `lldp` the switches; `clock` is for tests.

        What is not given is made.
        """
        self._lldp = lldp or Lldp()
        self._directory = directory or NetnsDirectory()
        self._limit = limit
        self._clock = clock
        self._tables: OrderedDict[int, _Table] = OrderedDict()
        self._failed: dict[int, float] = {}
        self._tidied = clock()

    def __enter__(self) -> Neighbors:
        """Nothing is opened yet."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close all sockets."""
        self.close()

    def close(self) -> None:
        """Close all sockets. The object can be used again: it opens new ones."""
        while self._tables:
            self._tables.popitem()[1].close()

    @property
    def dumps(self) -> int:
        """How many times a namespace's tables were dumped (again), over those open now."""
        return sum(table.dumps for table in self._tables.values())

    def warm_up(self) -> None:
        """Do now what takes time once: dump our own namespace's tables, ask lldpd."""
        self.ifname(os.stat("/proc/self/ns/net").st_ino, 1)
        self._lldp.load()

    def ifname(self, netns: int, ifindex: int) -> str | None:
        """The interface's name now (IFLA_IFNAME), raw; ``None``: no such interface."""
        table = self._table(netns)
        link = table.links.get(ifindex) if table else None
        return link.name if link else None

    def neighbor(self, netns: int, ifindex: int, mac: str | None, peer_ip: str) -> Neighbor:
        """Who handed in a frame that came from `mac` on an interface, with `peer_ip` as its source.

        `ip` is the address that the neighbour table gives that MAC on this interface or on one
        above it (bridge, bond, VLAN): the gateway to the peer if it has it, else the peer, else
        the lowest of the peer's family, not link-local if possible. `is_gateway` is ``False`` only
        where another next hop's MAC is known. `bridge` is the port that the frame came in by, or
        behind which the bridge has learnt that MAC.
        """
        mac = mac.lower() if mac and mac.strip("0:-") else None
        table = self._table(netns)
        if table is None:
            return Neighbor(mac, vendor(mac) if mac else None, None, None, ifindex, None, netns)
        key = (ifindex, mac, peer_ip)
        answer = table.answers.get(key)
        if answer is None or table.clock() >= answer[1]:
            if len(table.answers) >= _MAX_ANSWERS:
                table.forget_answers()
            answer = self._ask(table, netns, ifindex, mac, peer_ip), table.clock() + _ROUTE_SECONDS
            table.answers[key] = answer
        return answer[0]

    def next_hop(self, netns: int, peer_ip: str) -> NextHop | None:
        """Where this namespace sends packets for an address (RTM_GETROUTE for it alone).

        For a peer on the link or on this host itself the next hop is the peer. ``None``: no
        route, unreachable, blackhole, prohibited, broadcast or multicast, or no such namespace.
        """
        table = self._table(netns)
        route = table.route(peer_ip) if table else None
        return route.hop if route else None

    def owns(self, netns: int, ip: str) -> bool | None:
        """Whether an address is this namespace's own (RTN_LOCAL); ``None``: cannot be told."""
        hop = self.next_hop(netns, ip)
        return None if hop is None else hop.is_local

    def tidy(self) -> None:
        """Close the sockets of vanished namespaces; at most once a second, a stat() for each."""
        now = self._clock()
        if now - self._tidied < _TIDY_SECONDS:
            return
        self._tidied = now
        for netns in [netns for netns in self._tables if self._directory.path(netns) is None]:
            self._tables.pop(netns).close()

    def bridge_port(self, netns: int, ifindex: int, mac: str) -> BridgePort | None:
        """The port of the bridge that an interface is, or belongs to, behind which a MAC is.

        ``None``: no bridge, or it has not learnt this MAC, or the MAC is this node's own.
        """
        table = self._table(netns)
        return table.learnt_port(ifindex, mac.lower()) if table else None

    def _ask(self, table: _Table, netns: int, ifindex: int, mac: str | None, peer: str) -> Neighbor:
        link = table.links.get(ifindex)
        name = link.name if link else None
        port = table.entry_port(ifindex) or (table.learnt_port(ifindex, mac) if mac else None)
        plugged = {
            self._lldp.port(netns, found)
            for found in table.cables(port.ifindex if port else ifindex)
        } - {None}
        switch = plugged.pop() if len(plugged) == 1 else None
        if mac is None:
            return Neighbor(None, None, None, None, ifindex, name, netns, port, switch)
        interfaces = table.with_uppers(ifindex)
        route = table.route(peer, table.route_interface(ifindex, peer))
        return Neighbor(
            mac=mac,
            vendor=vendor(mac),
            ip=table.ip_of(interfaces, mac, peer, route),
            is_gateway=table.is_gateway(mac, peer, route),
            ifindex=ifindex,
            ifname=name,
            netns=netns,
            bridge=port,
            switch=switch,
        )

    def _table(self, netns: int) -> _Table | None:
        """This namespace's table with all pending notifications applied."""
        self.tidy()
        table = self._tables.get(netns)
        if table is None:
            return self._open(netns)
        self._tables.move_to_end(netns)
        if table.refresh():
            return table
        self._tables.pop(netns).close()
        return None

    def forget(self, netns: int) -> None:
        """Another namespace has this inode number now."""
        self._failed.pop(netns, None)
        table = self._tables.pop(netns, None)
        if table is not None:
            table.close()

    def _open(self, netns: int) -> _Table | None:
        now = self._clock()
        if now < self._failed.get(netns, now):
            return None
        path = self._directory.path(netns)
        if path is None:
            return None  # the directory limits how often it scans for this one
        try:
            table = _Table(_socket_in(path, netns), self._clock)
        except (OSError, RuntimeError):  # RuntimeError: no thread could be started
            if len(self._failed) >= _MAX_ROUTES:
                self._failed.clear()
            self._failed[netns] = now + _RETRY_SECONDS
            return None
        self._failed.pop(netns, None)
        while len(self._tables) >= self._limit:
            self._tables.popitem(last=False)[1].close()
        self._tables[netns] = table
        return table


@dataclass(frozen=True)
class _Link:
    """An interface: its name, the bridge, bond or VRF above it, the device that it is built on.

    `vlan` is the tag of a VLAN interface.
    """

    name: str | None
    master: int | None
    lower: int | None
    kind: str | None
    vlan: int | None = None


@dataclass
class _Route:
    """A next hop and until when (monotonic seconds) to believe it; all gateways, once asked for."""

    hop: NextHop | None
    until: float
    oif: int | None
    gateways: tuple[tuple[int, str], ...] | None = None


class _Table:
    """What one namespace's kernel tables say, kept fresh through one netlink socket."""

    def __init__(self, sock: socket.socket, clock: Callable[[], float]) -> None:
        from pyroute2.netlink.exceptions import NetlinkDecodeError
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
        from pyroute2.netlink.rtnl.ndmsg import ndmsg
        from pyroute2.netlink.rtnl.rtmsg import rtmsg

        self._messages = {
            _NEWLINK: ifinfmsg,
            _DELLINK: ifinfmsg,
            _NEWNEIGH: ndmsg,
            _DELNEIGH: ndmsg,
            _NEWROUTE: rtmsg,
        }
        self._decode_errors: tuple[type[Exception], ...] = (
            NetlinkDecodeError,
            struct.error,
            ValueError,
            LookupError,
        )
        self._ifinfmsg, self._ndmsg, self._rtmsg = ifinfmsg, ndmsg, rtmsg
        self._socket = sock
        self.clock = clock
        self._sequence = 0
        self._stale = False
        self._synced = float("-inf")
        self.dumps = 0
        self.links: dict[int, _Link] = {}
        self._macs: dict[tuple[int, str], str] = {}
        self._ips: dict[tuple[int, str], set[str]] = {}
        self._routes: dict[tuple[str, int | None], _Route] = {}
        self._asked: set[str] = set()  # MACs that the answers say the bridge's port of
        self.answers: dict[tuple[int, str | None, str], tuple[Neighbor, float]] = {}
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            sock.bind((0, _GROUPS))
            with suppress(OSError):  # kernels before 5.3 have no next hop objects
                sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _RTNLGRP_NEXTHOP)
            self._port = sock.getsockname()[0]
            self._dump()
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def refresh(self) -> bool:
        """Apply the notifications that wait, without blocking. ``False``: the socket is unusable.

        After an overrun (ENOBUFS: the kernel dropped notifications, netlink(7)) the tables are
        dumped again, once a second at most: in a lasting storm they are up to a second old.
        """
        try:
            for _ in range(_MAX_DRAIN):
                data = self._receive()
                if data is None:
                    break
                for kind, _, _, message in self._split(data):
                    self._apply(kind, message)
            if self._stale and self.clock() - self._synced >= _RESYNC_SECONDS:
                self._dump()
        except OSError:
            return False
        return True

    def with_uppers(self, ifindex: int) -> list[int]:
        """The interface and those above it, nearest first: its bridge, bond, VLANs on it…"""
        found = [ifindex]
        for lower in found:
            link = self.links.get(lower)
            if link and link.master and link.master not in found:
                found.append(link.master)
            found.extend(
                index
                for index, upper in self.links.items()
                if upper.lower == lower and index not in found
            )
        return found

    def entry_port(self, ifindex: int) -> BridgePort | None:
        """The bridge port that an interface is, or is a part of (a bond's): frames enter by it."""
        seen = set()
        while ifindex not in seen:
            seen.add(ifindex)
            link = self.links.get(ifindex)
            master = self.links.get(link.master) if link and link.master else None
            if link is None or link.master is None or master is None:
                return None
            if master.kind == "bridge":
                return BridgePort(master.name, link.master, link.name, ifindex)
            ifindex = link.master
        return None

    def learnt_port(self, ifindex: int, mac: str) -> BridgePort | None:
        """Where the bridge that an interface is, or is a VLAN or port of, has learnt a MAC."""
        tags = []
        link = self.links.get(ifindex)
        for _ in self.links:
            if link is None or link.kind == "bridge" or not link.lower:
                break
            if link.vlan is not None:
                tags.append(link.vlan)
            ifindex, link = link.lower, self.links.get(link.lower)
        if link is not None and link.kind != "bridge":
            port = self.entry_port(ifindex)
            ifindex = port.bridge_ifindex if port else 0
            link = self.links.get(ifindex)
        if link is None:
            return None
        if len(self._asked) >= _MAX_ANSWERS:
            self.forget_answers()
        self._asked.add(mac)
        # 0: a bridge that does not filter VLANs learns without them
        return self._fdb_port(link, ifindex, mac, [*tags, 0, _DEFAULT_PVID])

    def _fdb_port(self, bridge: _Link, index: int, mac: str, tags: list[int]) -> BridgePort | None:
        """Ask for one entry of the forwarding table (rtnl_fdb_get, Linux 5.0): no dump."""
        for tag in dict.fromkeys(tags):
            request = self._ndmsg()
            request["family"] = _AF_BRIDGE
            request["attrs"] = [("NDA_LLADDR", mac), ("NDA_MASTER", index)]
            if tag:
                request["attrs"].append(("NDA_VLAN", tag))
            try:
                replies, _ = self._query(request, _GETNEIGH, 0)
            except OSError:  # ENOENT: not learnt
                continue
            for reply in replies:
                if reply["state"] & _NUD_PERMANENT:
                    return None  # an address of this node's own
                port = self.links.get(reply["ifindex"])
                name = port.name if port else None
                return BridgePort(bridge.name, index, name, reply["ifindex"])
        return None

    def cables(self, ifindex: int) -> list[str]:
        """The names of the interfaces below one that cables may be plugged into."""
        link = self.links.get(ifindex)
        for _ in self.links:
            if link is None or not link.lower:
                break
            ifindex, link = link.lower, self.links.get(link.lower)
        if link is None:
            return []
        parts = [link]
        if link.kind in _BUNDLES:
            parts = [part for part in self.links.values() if part.master == ifindex]
        return [part.name for part in parts if part.name is not None]

    def route_interface(self, ifindex: int, peer: str) -> int | None:
        """The interface to ask routes for: the link for link-local peers, a VRF's device for it."""
        if _is_link_local(peer):
            return self.with_uppers(ifindex)[-1]
        for index in self.with_uppers(ifindex):
            link = self.links.get(index)
            if link and link.kind == "vrf":
                return index
        return None

    def ip_of(self, interfaces: list[int], mac: str, peer: str, route: _Route | None) -> str | None:
        hop = route.hop if route else None
        if hop and hop.is_gateway and hop.ifindex in interfaces and hop.mac == mac:
            return hop.ip
        candidates = {ip for index in interfaces for ip in self._ips.get((index, mac), ())}
        if peer in candidates:
            return peer
        family = ":" in peer
        return min(
            candidates,
            key=lambda ip: ((":" in ip) != family, _is_link_local(ip), _packed(ip) or b""),
            default=None,
        )

    def is_gateway(self, mac: str, peer: str, route: _Route | None) -> bool | None:
        hop = route.hop if route else None
        if route is None or hop is None:
            return None
        if not hop.is_gateway:
            return False
        if hop.mac == mac:
            return True
        # With several equal routes the kernel chose one of them; the peer's packets may as well
        # come by another.
        if route.gateways is None:
            route.gateways = self._gateways(peer, route.oif) or ((hop.ifindex, hop.ip),)
        macs = {self._macs.get(gateway) for gateway in route.gateways}
        if mac in macs:
            return True
        if None in macs or hop.mac is None:
            return None
        # a redundant router answers ARP with the shared MAC and may forward with its own
        return None if any(is_virtual_router(known) for known in macs if known) else False

    def route(self, peer: str, oif: int | None = None) -> _Route | None:
        """The cached or newly asked route to `peer`; ``None`` if `peer` is no address."""
        key = (peer, oif)
        route = self._routes.get(key)
        if route is not None and self.clock() < route.until:
            return route
        packed = _packed(peer)
        if packed is None:
            return None
        try:
            hop = self._next_hop(peer, packed, oif)
        except OSError:
            hop = None
        if len(self._routes) >= _MAX_ROUTES:
            self._routes.clear()
        route = self._routes[key] = _Route(hop, self.clock() + _ROUTE_SECONDS, oif)
        return route

    def _next_hop(self, peer: str, packed: bytes, oif: int | None) -> NextHop | None:
        reply = self._get_route(peer, packed, oif, 0)
        if reply is None or reply["type"] not in (_RTN_UNICAST, _RTN_LOCAL):
            return None
        index = reply.get_attr("RTA_OIF")
        if index is None:
            return None
        if reply["type"] == _RTN_LOCAL:
            return NextHop(peer, None, False, index, is_local=True)
        gateway = _gateway(reply)
        # a route "via" the peer itself, as IPv6 reports for cached clones, is on the link
        ip = gateway or peer
        return NextHop(ip, self._macs.get((index, ip)), ip != peer, index)

    def _gateways(self, peer: str, oif: int | None) -> tuple[tuple[int, str], ...]:
        """All next hops of the matching route: RTM_F_FIB_MATCH, Linux 4.13; empty before that."""
        packed = _packed(peer)
        try:
            reply = self._get_route(peer, packed, oif, _RTM_F_FIB_MATCH) if packed else None
        except OSError:
            return ()
        if reply is None:
            return ()
        gateway = _gateway(reply)
        found = [(reply.get_attr("RTA_OIF"), gateway)] if gateway else []
        for part in reply.get_attr("RTA_MULTIPATH") or ():
            gateway = _gateway(part)
            if gateway:
                found.append((part["oif"], gateway))
        return tuple((index, ip) for index, ip in found if index is not None)

    def _get_route(self, peer: str, packed: bytes, oif: int | None, flags: int) -> Any:
        request = self._rtmsg()
        request["family"] = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        request["dst_len"] = len(packed) * 8
        request["flags"] = flags
        request["attrs"] = [("RTA_DST", peer)] + ([("RTA_OIF", oif)] if oif else [])
        replies, _ = self._query(request, _GETROUTE, 0)
        return replies[0] if replies else None

    def _dump(self) -> None:
        """Read both tables anew. Raises OSError when the kernel refuses."""
        for _ in range(3):
            self.dumps += 1
            self._stale = False
            self.links.clear()
            self._macs.clear()
            self._ips.clear()
            self._forget()
            links = self._ifinfmsg()
            links["attrs"] = [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
            _, whole = self._query(links, _GETLINK, _NLM_F_DUMP)
            if whole:
                _, whole = self._query(self._ndmsg(), _GETNEIGH, _NLM_F_DUMP)
            if whole and not self._stale:
                break
        else:
            self._stale = True  # tables that change faster than they can be read: try again later
        self._synced = self.clock()

    def _query(self, request: Any, kind: int, flags: int) -> tuple[list[Any], bool]:
        """Send a request; its replies (of a dump: none, they are applied), and if they are whole.

        rtnetlink answers within the sending system call (netlink_rcv_skb), or while the answer is
        read (netlink_dump): there is nothing to wait for. Raises OSError with the kernel's code.
        """
        self._sequence = self._sequence % 0x7FFFFFFF + 1
        request["header"]["type"] = kind
        request["header"]["flags"] = _NLM_F_REQUEST | flags
        request["header"]["sequence_number"] = self._sequence
        request.encode()
        self._socket.sendto(bytes(request.data), (0, 0))
        replies: list[Any] = []
        whole = True
        while True:
            data = self._receive()
            if data is None:
                # the reply itself did not fit any more: an overrun
                self._stale = True
                return replies, False
            for kind_, flags_, ours, message in self._split(data):
                if not ours:
                    self._apply(kind_, message)
                    continue
                whole = whole and not flags_ & _NLM_F_DUMP_INTR
                if kind_ in (_NLMSG_DONE, _NLMSG_ERROR):
                    code = struct.unpack_from("=i", message, 16)[0] if len(message) >= 20 else 0
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return replies, whole
                if flags:
                    self._apply(kind_, message)
                    continue
                decoded = self._decode(kind_, message)
                return ([decoded] if decoded is not None else []), whole

    def _receive(self) -> bytes | None:
        """The next datagram from the kernel; ``None`` if none waits."""
        while True:
            try:
                data, sender = self._socket.recvfrom(_RECEIVE)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._stale = True
                continue
            # root of a container may send to our port in its namespace: only the kernel counts
            if sender[0] == 0:
                return data

    def _split(self, data: bytes) -> list[tuple[int, int, bool, bytes]]:
        """The messages in a datagram: type, flags, whether it answers our request, and bytes."""
        found = []
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size or offset + length > len(data):
                break
            # a notification carries the port and number of the request that caused the change
            ours = port == self._port and sequence == self._sequence
            found.append((kind, flags, ours, data[offset : offset + length]))
            offset += (length + 3) & ~3
        return found

    def _decode(self, kind: int, message: bytes) -> Any:
        known = self._messages.get(kind)
        if known is None:
            return None
        decoded = known(message)
        try:
            decoded.decode()
        except self._decode_errors:
            return None
        return decoded

    def _apply(self, kind: int, message: bytes) -> None:
        """Take in one link, neighbour or route message, from a dump or a notification."""
        if kind in _ROUTING:
            self._forget()
            return
        if len(message) <= 16:
            return
        family = message[16]
        if kind in (_NEWLINK, _DELLINK):
            # bridges announce their ports with AF_BRIDGE, "deleted" when one leaves the bridge
            if family == socket.AF_UNSPEC:
                self._apply_link(kind, self._decode(kind, message))
        elif kind in (_NEWNEIGH, _DELNEIGH) and family in (socket.AF_INET, socket.AF_INET6):
            self._apply_neighbor(kind, self._decode(kind, message))
        elif kind in (_NEWNEIGH, _DELNEIGH) and family == _AF_BRIDGE:
            self._apply_fdb(message)

    def _apply_fdb(self, message: bytes) -> None:
        """A bridge learnt or forgot a MAC: ask again for it, if anybody had asked.

        A busy bridge tells of many, so only the MAC is looked for, without decoding the rest.
        """
        offset = _NDMSG
        while self._asked and offset + 4 <= len(message):
            length, kind = struct.unpack_from("=HH", message, offset)
            if length < 4:
                return
            if kind == _NDA_LLADDR:
                mac = message[offset + 4 : offset + length].hex(":")
                if mac in self._asked:
                    self._asked.discard(mac)
                    for key in [key for key in self.answers if key[1] == mac]:
                        del self.answers[key]
                return
            offset += (length + 3) & ~3

    def _apply_link(self, kind: int, message: Any) -> None:
        if message is None:
            return
        index = message["index"]
        if kind == _DELLINK:
            self.links.pop(index, None)
            for key in [key for key in self._macs if key[0] == index]:
                self._set(key, None)
        elif message.get_attr("IFLA_WIRELESS") is None:  # a partial message (wext-core.c)
            name = message.get_attr("IFLA_IFNAME")
            lower = message.get_attr("IFLA_LINK")
            type_ = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
            # a lower device in another namespace has an index of that namespace
            here = message.get_attr("IFLA_LINK_NETNSID") is None
            self.links[index] = _Link(
                # pyroute2 leaves a name that is no UTF-8 as bytes
                name=os.fsdecode(name) if name is not None else None,
                master=message.get_attr("IFLA_MASTER") or None,
                lower=lower if lower and here and type_ in _UPPER_KINDS else None,
                kind=type_ if isinstance(type_, str) else None,
                vlan=message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_VLAN_ID")
                if type_ == "vlan"
                else None,
            )
        # the kernel drops IPv4 routes of a link that goes down without a word about each
        self._forget()

    def _apply_neighbor(self, kind: int, message: Any) -> None:
        if message is None or message["flags"] & _NTF_PROXY:
            return
        ip = message.get_attr("NDA_DST")
        if not ip:
            return
        # without NUD_VALID there is no address in the message (neigh_fill_info)
        mac = message.get_attr("NDA_LLADDR") if kind == _NEWNEIGH else None
        if not isinstance(mac, str) or len(mac) != 17 or not mac.strip("0:"):
            mac = None
        self._set((message["ifindex"], ip), mac)

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
        self._forget()

    def _forget(self) -> None:
        self._routes.clear()
        self.forget_answers()

    def forget_answers(self) -> None:
        self.answers.clear()
        self._asked.clear()


def _gateway(route: Any) -> str | None:
    """The gateway of a route or of one leg of it: RTA_GATEWAY, or RTA_VIA (IPv4 over IPv6)."""
    gateway = route.get_attr("RTA_GATEWAY")
    if gateway is None:
        via = route.get_attr("RTA_VIA")
        gateway = via.get("addr") if isinstance(via, dict) else None
    return gateway if isinstance(gateway, str) else None


def _packed(ip: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
    except (OSError, ValueError):
        return None


def _is_link_local(ip: str) -> bool:
    """fe80::/10 (RFC 4291 §2.5.6) or 169.254.0.0/16 (RFC 3927)."""
    return ip.startswith("169.254.") or (
        ":" in ip and (_packed(ip) or b"\0\0")[0] == 0xFE and (_packed(ip) or b"\0\0")[1] >> 6 == 2
    )


def _socket_in(path: str, inode: int) -> socket.socket:
    """A routing netlink socket that lives in the namespace at `path`. Raises OSError.

    setns(2) moves only the calling thread, so a thread of its own enters, opens and ends.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_ino != inode:
            raise FileNotFoundError(errno.ENOENT, "the namespace has vanished", path)
        if os.stat("/proc/thread-self/ns/net").st_ino == inode:
            return _route_socket()
        results: list[socket.socket | Exception] = []
        thread = threading.Thread(target=_enter, args=(fd, results), name="rsttrace-setns")
        thread.start()
        thread.join()
    finally:
        os.close(fd)
    result = results[0] if results else OSError(errno.EIO, "setns thread failed", path)
    if isinstance(result, Exception):
        raise result
    return result


def _enter(fd: int, results: list[socket.socket | Exception]) -> None:
    import ctypes

    from pyroute2 import netns

    try:
        # with a descriptor pyroute2 neither forks nor creates; without libc it would run ldconfig
        netns.setns(fd, libc=ctypes.CDLL(None, use_errno=True))
        results.append(_route_socket())
    except OSError as error:
        results.append(error)


def _route_socket() -> socket.socket:
    return socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
