"""Which end of a connection is the capturing side's, and how that is known."""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Union

from rsttrace.capture.flows import Direction
from rsttrace.capture.layers import Segment, checksum_left_to_card
from rsttrace.capture.links import INBOUND, OUTBOUND
from rsttrace.model import INITIAL_TTLS, hops

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

ADDRESSES = 8192
"""Addresses that are remembered; the least recently used are forgotten."""

PEERS_COUNTED = 16
COMMON_PEERS = 3
"""An address with so many peers, where the peer at hand has no other, is the common end."""

WELL_KNOWN = 3
"""So many packets tell what a host of ours sends."""

TOLD = 3
"""So many addresses are named when the inferred side is told."""

GIVEN = "given"
MARKED = "the capture marks its packets as outgoing"
CHECKSUM = "its checksums were left to the network card"
TTL = "its packets have passed no router, its peers' have"
COMMON = "it is the common end of most connections"


def _is_another_hosts(rst: Segment, theirs: Direction) -> bool:
    """Whether a RST in our name comes from another MAC than our packets, and is made otherwise.

    A host of our own link may make it. A MAC alone may be another interface's of ours.
    """
    if theirs.packets < WELL_KNOWN or theirs.places is not None or theirs.mac is None:
        return False
    if rst.mac < 0 or rst.data[rst.mac : rst.mac + 6] == theirs.mac:
        return False
    other_ttl = not theirs.ttl_min <= rst.ttl <= theirs.ttl_max
    return other_ttl or (rst.version == 4 and theirs.df_always and not rst.df)


class _Address:
    """What speaks for an address being the capturing host's own."""

    __slots__ = ("far", "inbound", "near", "outbound", "partial", "peers")

    def __init__(self) -> None:
        self.outbound = self.inbound = self.partial = self.near = self.far = 0
        self.peers: set[bytes] = set()

    def marked(self) -> bool | None:
        """What the capture's own marks say; ``None`` if nothing, or both (forwarded packets)."""
        if self.outbound and not self.inbound:
            return True
        if self.inbound and not self.outbound:
            return False
        return None


class Sides:
    """Learns from the packets that begin a flow, and from handshakes.

    `networks` (``--local``), where given, decide alone.
    """

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = tuple(networks)
        self._addresses: OrderedDict[bytes, _Address] = OrderedDict()
        self._told: Counter[tuple[bytes, str]] = Counter()
        self.unknown = 0

    def learn(self, segment: Segment) -> None:
        """Take a packet in that begins a flow, or that is a SYN."""
        if self._networks:
            return
        source, destination = segment.source, segment.destination
        mine, other = self._address(source), self._address(destination)
        if segment.direction == OUTBOUND:
            mine.outbound += 1
        elif segment.direction == INBOUND:
            mine.inbound += 1
        if checksum_left_to_card(segment):
            mine.partial += 1
        if segment.ttl in INITIAL_TTLS:
            mine.near += 1
        else:
            mine.far += 1
        for address, peer in ((mine, destination), (other, source)):
            if len(address.peers) < PEERS_COUNTED:
                address.peers.add(peer)

    def is_sent(self, segment: Segment, theirs: Direction | None, again: bool = False) -> bool:
        """Whether this RST was sent by our side: from our address, and not from farther away.

        A RST that comes in, or that has passed routers that our side's packets have not, was
        received, whatever its source address says. `again`: it has been counted.
        """
        how = self._which(segment)
        if how is not None and not again:
            self._tell(how)
        if how is None or how[0] != segment.source:
            if how is None and not again:
                self.unknown += 1
            return False
        if segment.direction:
            return segment.direction == OUTBOUND
        distance = hops(segment.ttl)
        if theirs is not None and _is_another_hosts(segment, theirs):
            return False
        if distance == 0:
            return True
        if theirs is None or not theirs.packets:
            return how[1] == GIVEN
        return distance in {hops(theirs.ttl_min), hops(theirs.ttl_max), hops(theirs.ttl)}

    def told(self) -> list[str]:
        """How the side was found, in sentences."""
        lines = []
        inferred: OrderedDict[str, list[bytes]] = OrderedDict()
        for (address, how), _ in self._told.most_common():
            if how != GIVEN:
                inferred.setdefault(how, []).append(address)
        for how, found in inferred.items():
            names = ", ".join(str(ipaddress.ip_address(item)) for item in found[:TOLD])
            more = f" and {len(found) - TOLD} more" if len(found) > TOLD else ""
            lines.append(f"our side is taken to be {names}{more}: {how}")
        if self.unknown:
            resets = "1 reset is" if self.unknown == 1 else f"{self.unknown} resets are"
            why = "neither end is in --local" if self._networks else "our side cannot be told there"
            lines.append(f"{resets} judged as received, as its receiver sees it: {why}")
        return lines

    def _which(self, rst: Segment) -> tuple[bytes, str] | None:
        """Which end of a RST is ours, and how that is known."""
        source, destination = rst.source, rst.destination
        if self._networks:
            ours = [self._given(address) for address in (source, destination)]
            if ours[0] == ours[1]:
                return None
            return (source if ours[0] else destination), GIVEN
        a, b = self._addresses.get(source), self._addresses.get(destination)
        if a is None or b is None:
            return None
        both = ((a, b, source), (b, a, destination))
        for mine, other, address in both if a.outbound or b.outbound else ():
            if mine.marked() is True and other.marked() is not True:
                return address, MARKED
        for mine, other, address in both if a.partial or b.partial else ():
            # Between namespaces of one host such packets also arrive: then they passed a router.
            if mine.partial and not other.partial and mine.near > 9 * mine.far:
                return address, CHECKSUM
        for mine, other, address in both:
            if mine.near > 9 * mine.far and other.far > other.near:
                return address, TTL
        # Nothing else came from there (a refused SYN): then the RST's own TTL counts.
        if not (a.near or a.far) and b.far > b.near and hops(rst.ttl) == 0:
            return source, TTL
        for mine, other, address in both:
            alone = len(other.peers) == 1
            if mine.near > 9 * mine.far and alone and len(mine.peers) >= COMMON_PEERS:
                return address, COMMON
        return None

    def _tell(self, how: tuple[bytes, str]) -> None:
        if how in self._told or len(self._told) < ADDRESSES:
            self._told[how] += 1

    def _given(self, raw: bytes) -> bool:
        address = ipaddress.ip_address(raw)
        return any(address in network for network in self._networks)

    def _address(self, raw: bytes) -> _Address:
        found = self._addresses.get(raw)
        if found is None:
            found = self._addresses[raw] = _Address()
            if len(self._addresses) > ADDRESSES:
                self._addresses.popitem(last=False)
        else:
            self._addresses.move_to_end(raw)
        return found
