"""Who hands us packets: neighbours, interfaces and next hops of each network namespace.

What is asked when, and how long an answer is believed, is decided here; the answers come from
`rsttrace.enrich.tables` and `rsttrace.enrich.routes`, over one netlink socket per namespace.

An open socket keeps its namespace alive (``sk_net_refcnt``, net/core/sock.c), and with it the
interfaces of a container that is gone. So namespaces that no name and no process leads to any more
are closed within a second, provided that somebody looks: call `Neighbors.tidy` when idle.
"""

from __future__ import annotations

import os
import socket
import time
from collections import OrderedDict
from typing import Callable

from rsttrace.enrich import netlink
from rsttrace.enrich.lldp import Lldp
from rsttrace.enrich.netns import NetnsDirectory
from rsttrace.enrich.routes import Route, gateways, is_link_local, next_hop, packed
from rsttrace.enrich.tables import Tables, TooManyNeighbors
from rsttrace.enrich.vendor import is_virtual_router, vendor
from rsttrace.model import BridgePort, Neighbor, NextHop

_NUD_PERMANENT = 0x80  # include/uapi/linux/neighbour.h

_DEFAULT_PVID = 1
"""The VLAN of what comes untagged, on a bridge that filters VLANs (net/bridge/br_vlan.c)."""

_MAX_ANSWERS = 4096
_MAX_ROUTES = 1024
# Redirects and path MTU exceptions change the next hop without a notification.
_ROUTE_SECONDS = 5.0
_TIDY_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_LARGE_SECONDS = 60.0  # a table that was too large to be copied is not tried again for so long


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
        self._namespaces: OrderedDict[int, _Namespace] = OrderedDict()
        self._failed: dict[int, float] = {}
        self._large: dict[int, float] = {}
        self._tidied = clock()
        self._fresh: dict[int, _Namespace] | None = None

    def turn(self) -> None:
        """What is asked from here on to the next turn is of packets that came before this: what
        changes meanwhile in a namespace need not be known."""
        self._fresh = {}

    def __enter__(self) -> Neighbors:
        """Nothing is opened yet."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close all sockets."""
        self.close()

    def close(self) -> None:
        """Close all sockets. The object can be used again: it opens new ones."""
        while self._namespaces:
            self._namespaces.popitem()[1].close()

    def warm_up(self) -> None:
        """Do now what takes time once: dump our own namespace's tables, ask lldpd."""
        self.ifname(os.stat("/proc/self/ns/net").st_ino, 1)
        self._lldp.load()

    def ifname(self, netns: int, ifindex: int) -> str | None:
        """The interface's name now (IFLA_IFNAME), raw; ``None``: no such interface."""
        namespace = self._namespace(netns)
        return namespace.tables.links.name(ifindex) if namespace else None

    def neighbor(self, netns: int, ifindex: int, mac: str | None, peer_ip: str) -> Neighbor:
        """Who handed in a frame that came from `mac` on an interface, with `peer_ip` as its source.

        `ip` is the address that the neighbour table gives that MAC on this interface or on one
        above it (bridge, bond, VLAN): the gateway to the peer if it has it, else the peer, else
        the lowest of the peer's family, not link-local if possible. `is_gateway` is ``False`` only
        where another next hop's MAC is known. `bridge` is the port that the frame came in by, or
        behind which the bridge has learnt that MAC.
        """
        mac = mac.lower() if mac and mac.strip("0:-") else None
        namespace = self._namespace(netns)
        if namespace is None:
            return Neighbor(mac, vendor(mac) if mac else None, None, None, ifindex, None, netns)
        return namespace.neighbor(ifindex, mac, peer_ip)

    def next_hop(self, netns: int, peer_ip: str) -> NextHop | None:
        """Where this namespace sends packets for an address (RTM_GETROUTE for it alone).

        For a peer on the link or on this host itself the next hop is the peer. ``None``: no
        route, unreachable, blackhole, prohibited, broadcast or multicast, or no such namespace.
        """
        namespace = self._namespace(netns)
        route = namespace.route(peer_ip) if namespace else None
        return route.hop if route else None

    def owns(self, netns: int, ip: str) -> bool | None:
        """Whether an address is this namespace's own (RTN_LOCAL); ``None``: cannot be told."""
        hop = self.next_hop(netns, ip)
        return None if hop is None else hop.is_local

    def has_mac(self, netns: int, mac: str) -> bool | None:
        """Whether one of a namespace's interfaces has this MAC; ``None``: no such namespace."""
        namespace = self._namespace(netns)
        if namespace is None:
            return None
        return any(link.mac == mac.lower() for link in namespace.tables.links.values())

    def tidy(self) -> None:
        """Close the sockets of vanished namespaces; at most once a second, a stat() for each."""
        now = self._clock()
        if now - self._tidied < _TIDY_SECONDS:
            return
        self._tidied = now
        if self._fresh is not None:
            self._directory.turn()
        for netns in [netns for netns in self._namespaces if self._directory.path(netns) is None]:
            self._namespaces.pop(netns).close()

    def bridge_port(self, netns: int, ifindex: int, mac: str) -> BridgePort | None:
        """The port of the bridge that an interface is, or belongs to, behind which a MAC is.

        ``None``: no bridge, or it has not learnt this MAC, or the MAC is this node's own.
        """
        namespace = self._namespace(netns)
        return namespace.learnt_port(ifindex, mac.lower()) if namespace else None

    def _namespace(self, netns: int) -> _Namespace | None:
        """What is known of this namespace, with all pending notifications applied."""
        fresh = self._fresh
        if fresh is not None and netns in fresh and fresh[netns] is self._namespaces.get(netns):
            return fresh[netns]
        self.tidy()
        namespace = self._namespaces.get(netns)
        if namespace is None:
            namespace = self._open(netns)
        else:
            self._namespaces.move_to_end(netns)
            if not namespace.refresh():
                self._namespaces.pop(netns).close()
                return None
        if fresh is not None and namespace is not None:
            fresh[netns] = namespace
        return namespace

    def forget(self, netns: int) -> None:
        """Another namespace has this inode number now."""
        self._failed.pop(netns, None)
        self._large.pop(netns, None)
        namespace = self._namespaces.pop(netns, None)
        if namespace is not None:
            namespace.close()

    def _open(self, netns: int) -> _Namespace | None:
        now = self._clock()
        if now < self._failed.get(netns, now):
            return None
        path = self._directory.path(netns)
        if path is None:
            return None  # the directory limits how often it scans for this one
        try:
            namespace = self._made(netns, path)
        except (OSError, RuntimeError):  # RuntimeError: no thread could be started
            if len(self._failed) >= _MAX_ROUTES:
                self._failed.clear()
            self._failed[netns] = now + _RETRY_SECONDS
            return None
        self._failed.pop(netns, None)
        while len(self._namespaces) >= self._limit:
            self._namespaces.popitem(last=False)[1].close()
        self._namespaces[netns] = namespace
        return namespace

    def _made(self, netns: int, path: str) -> _Namespace:
        """Raises OSError, RuntimeError: it cannot be opened."""
        if self._large.get(netns, 0.0) <= self._clock():
            try:
                return _Namespace(netns, netlink.open_in(path, netns), self._clock, self._lldp)
            except TooManyNeighbors:
                if len(self._large) >= _MAX_ROUTES:
                    self._large.clear()
                self._large[netns] = self._clock() + _LARGE_SECONDS
        sock = netlink.open_in(path, netns)
        return _Namespace(netns, sock, self._clock, self._lldp, copies_neighbors=False)


class _Namespace:
    """Answers about one namespace: kept until something changes, or for `_ROUTE_SECONDS`."""

    def __init__(
        self,
        netns: int,
        sock: socket.socket,
        clock: Callable[[], float],
        lldp: Lldp,
        *,
        copies_neighbors: bool = True,
    ) -> None:
        self._netns = netns
        self._clock = clock
        self._lldp = lldp
        self._routes: dict[tuple[str, int | None], Route] = {}
        self._answers: dict[tuple[int, str | None, str], tuple[Neighbor, float]] = {}
        self._asked: set[str] = set()  # MACs that the answers say the bridge's port of
        self.tables = Tables(
            sock,
            clock,
            routing_changed=self._forget,
            forwarding_changed=self._forwarding_changed,
            copies_neighbors=copies_neighbors,
        )

    def close(self) -> None:
        self.tables.close()

    def refresh(self) -> bool:
        """Take in what has changed. ``False``: the socket is unusable."""
        return self.tables.refresh()

    def neighbor(self, ifindex: int, mac: str | None, peer: str) -> Neighbor:
        """As `Neighbors.neighbor`."""
        key = (ifindex, mac, peer)
        answer = self._answers.get(key)
        if answer is None or self._clock() >= answer[1]:
            if len(self._answers) >= _MAX_ANSWERS:
                self._forget_answers()
            answer = self._look_up(ifindex, mac, peer), self._clock() + _ROUTE_SECONDS
            self._answers[key] = answer
        return answer[0]

    def _look_up(self, ifindex: int, mac: str | None, peer: str) -> Neighbor:
        links = self.tables.links
        name = links.name(ifindex)
        port = links.entry_port(ifindex) or (self.learnt_port(ifindex, mac) if mac else None)
        plugged = {
            self._lldp.port(self._netns, cable)
            for cable in links.cables(port.ifindex if port else ifindex)
        } - {None}
        switch = plugged.pop() if len(plugged) == 1 else None
        if mac is None:
            return Neighbor(None, None, None, None, ifindex, name, self._netns, port, switch)
        # link-local peers are on the link that the frame came by, a VRF has routes of its own
        uppers = links.with_uppers(ifindex)
        oif = uppers[-1] if is_link_local(peer) else links.vrf_of(ifindex)
        route = self.route(peer, oif)
        return Neighbor(
            mac=mac,
            vendor=vendor(mac),
            ip=self._ip_of(uppers, mac, peer, route),
            is_gateway=self._is_gateway(mac, peer, route),
            ifindex=ifindex,
            ifname=name,
            netns=self._netns,
            bridge=port,
            switch=switch,
        )

    def learnt_port(self, ifindex: int, mac: str) -> BridgePort | None:
        """As `Neighbors.bridge_port`; the answer is asked anew when the bridge tells of the MAC."""
        links = self.tables.links
        found = links.bridge_of(ifindex)
        if found is None:
            return None
        bridge, tags = found
        if len(self._asked) >= _MAX_ANSWERS:
            self._forget_answers()
        self._asked.add(mac)
        # 0: a bridge that does not filter VLANs learns without them
        for tag in dict.fromkeys([*tags, 0, _DEFAULT_PVID]):
            try:
                reply = self.tables.netlink.ask_forwarding(bridge, mac, tag)
            except OSError:  # ENOENT: not learnt
                continue
            if reply is None:
                continue
            if reply["state"] & _NUD_PERMANENT:
                return None  # an address of this node's own
            index = reply["ifindex"]
            return BridgePort(links.name(bridge), bridge, links.name(index), index)
        return None

    def _ip_of(self, interfaces: list[int], mac: str, peer: str, route: Route | None) -> str | None:
        hop = route.hop if route else None
        if hop and hop.is_gateway and hop.ifindex in interfaces and hop.mac == mac:
            return hop.ip
        candidates = {ip for index in interfaces for ip in self.tables.ips(index, mac, peer)}
        if peer in candidates:
            return peer
        family = ":" in peer
        return min(
            candidates,
            key=lambda ip: ((":" in ip) != family, is_link_local(ip), packed(ip) or b""),
            default=None,
        )

    def _is_gateway(self, mac: str, peer: str, route: Route | None) -> bool | None:
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
            own = ((hop.ifindex, hop.ip),) if hop.ifindex is not None else ()
            route.gateways = gateways(self.tables, peer, route.oif) or own
        macs = {self.tables.mac(*gateway) for gateway in route.gateways}
        if mac in macs:
            return True
        if None in macs or hop.mac is None:
            return None
        # a redundant router answers ARP with the shared MAC and may forward with its own
        return None if any(is_virtual_router(known) for known in macs if known) else False

    def route(self, peer: str, oif: int | None = None) -> Route | None:
        """The cached or newly asked route to `peer`; ``None`` if `peer` is no address."""
        key = (peer, oif)
        route = self._routes.get(key)
        if route is not None and self._clock() < route.until:
            return route
        if packed(peer) is None:
            return None
        hop = next_hop(self.tables, peer, oif)
        if len(self._routes) >= _MAX_ROUTES:
            self._routes.clear()
        route = self._routes[key] = Route(hop, self._clock() + _ROUTE_SECONDS, oif)
        return route

    def _forwarding_changed(self, message: bytes) -> None:
        """A bridge learnt or forgot a MAC: ask again for it, if anybody had asked."""
        mac = netlink.forwarding_mac(message) if self._asked else None
        if mac in self._asked:
            self._asked.discard(mac)
            for key in [key for key in self._answers if key[1] == mac]:
                del self._answers[key]

    def _forget(self) -> None:
        self._routes.clear()
        self._forget_answers()

    def _forget_answers(self) -> None:
        self._answers.clear()
        self._asked.clear()
