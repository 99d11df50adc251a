"""Finds the TCP segment inside a captured frame: link layer, IP, tunnels. No copies, no objects.

Everything here takes bytes that anybody may have written: each read is checked against what was
captured, and what makes no sense is no segment. Numbers in comments are IANA's (protocol numbers,
EtherTypes) and tcpdump.org's (link-layer header types).
"""

from __future__ import annotations

import struct
from collections import Counter

from rsttrace.tcp import sum16

INBOUND, OUTBOUND = 1, 2
"""Which way a packet went at the capturing host, where the capture says so."""

VLAN_TYPES = (0x8100, 0x88A8, 0x9100, 0x9200)
"""802.1Q, 802.1ad (QinQ), and what was in use before 802.1ad."""

IPV4, IPV6 = 0x0800, 0x86DD
TRANSPARENT_ETHERNET = 0x6558  # RFC 1701: an Ethernet frame inside GRE

AF_INET6 = (10, 24, 28, 30)
"""AF_INET6 of Linux, NetBSD/OpenBSD, FreeBSD, macOS: in the BSD loopback header."""

VXLAN_PORTS = (4789, 8472)
"""RFC 7348, and what Linux used before it (still its default)."""

TEREDO_PORT = 3544  # RFC 4380

MAX_TUNNELS = 4
"""Tunnels inside tunnels that are followed."""

_HHH = struct.Struct(">HHH").unpack_from
_TCP = struct.Struct(">IIBB").unpack_from
_H = struct.Struct(">H").unpack_from


class Segment:
    """One TCP segment, in host byte order; `window` is ``None`` where the capture cut it off.

    `key` says which flow and which direction: addresses and ports as they are in the packet, and
    `tag`, which tells VXLAN networks apart. `l3` and `l4` are where its headers begin in `data`,
    `end` is where the captured part of the IP packet ends, `length` the IP packet's own length.
    `mac` is where the source MAC begins, -1: none.
    """

    __slots__ = (
        "ack",
        "data",
        "df",
        "direction",
        "end",
        "flags",
        "fragment",
        "interface",
        "ip_id",
        "key",
        "l3",
        "l4",
        "length",
        "mac",
        "offset",
        "payload_len",
        "seq",
        "tag",
        "time_ns",
        "timestamps",
        "ttl",
        "version",
        "window",
    )

    key: bytes
    tag: bytes
    data: bytes
    version: int
    l3: int
    l4: int
    end: int
    length: int
    mac: int
    time_ns: int
    direction: int
    interface: int
    ttl: int
    ip_id: int
    df: bool
    fragment: bool
    seq: int
    ack: int
    offset: int
    flags: int
    window: int | None
    payload_len: int
    timestamps: bool

    @property
    def source(self) -> bytes:
        """The source address: 4 or 16 bytes."""
        return self.key[:4] if self.version == 4 else self.key[:16]

    @property
    def destination(self) -> bytes:
        """The destination address: 4 or 16 bytes."""
        return self.key[4:8] if self.version == 4 else self.key[16:32]

    @property
    def reverse_key(self) -> bytes:
        """The other direction's `key`."""
        key = self.key
        if self.version == 4:
            return key[4:8] + key[:4] + key[10:12] + key[8:10] + self.tag
        return key[16:32] + key[:16] + key[34:36] + key[32:34] + self.tag

    @property
    def source_mac(self) -> str | None:
        """The frame's source MAC."""
        return None if self.mac < 0 else self.data[self.mac : self.mac + 6].hex(":")


class Dissector:
    """Takes frames apart and counts what it could not use.

    `cut` counts packets that were cut off before TCP's flags, `links` those of link types that are
    not understood (by LINKTYPE_ number).
    """

    def __init__(self) -> None:
        self.cut = 0
        self.links: Counter[int] = Counter()

    def segment(
        self, link: int, data: bytes, wire_length: int, direction: int = 0
    ) -> Segment | None:
        """The (innermost) TCP segment of a frame; ``None`` if there is none.

        `link` is the LINKTYPE_ number, `wire_length` the frame's length before it was cut,
        `direction` what the file says of it (`INBOUND`, `OUTBOUND`, 0).
        """
        if link == 1:  # Ethernet
            return self._ethernet(data, 0, wire_length, direction, b"", 0)
        interface = 0
        if link == 113:  # Linux cooked: packet type, ARPHRD_, address length, address, protocol
            if len(data) < 16:
                self.cut += 1
                return None
            kind, _, length = _HHH(data)
            mac = 6 if length == 6 else -1
            protocol, at = _H(data, 14)[0], 16
        elif link == 276:  # Linux cooked 2: protocol, 0, ifindex, ARPHRD_, packet type, …
            if len(data) < 20:
                self.cut += 1
                return None
            protocol, kind, at = _H(data)[0], data[10], 20
            mac = 12 if data[11] == 6 else -1
            interface = int.from_bytes(data[4:8], "big")
        elif link in (12, 14, 101, 228, 229):  # raw IP, as BSDs number it too; IPv4; IPv6
            return self._ip(data, 0, wire_length, -1, direction, b"", 0)
        elif link in (0, 108):  # BSD loopback: the address family, in the capturing host's order
            if len(data) < 5:
                self.cut += 1
                return None
            family = min(int.from_bytes(data[:4], order) for order in ("little", "big"))
            if family != 2 and family not in AF_INET6:
                return None
            return self._ip(data, 4, wire_length, -1, direction, b"", 0)
        else:
            self.links[link] += 1
            return None
        # sll_pkttype: 0 to us, 4 sent by us (packet(7)); 1-3 broadcast, multicast, other hosts'
        direction = direction or (INBOUND if kind == 0 else OUTBOUND if kind == 4 else 0)
        found = self._type(data, at, protocol, wire_length, mac, direction, b"", 0)
        if found is not None:
            found.interface = interface
        return found

    def _ethernet(
        self, data: bytes, at: int, wire_length: int, direction: int, tag: bytes, depth: int
    ) -> Segment | None:
        if len(data) < at + 14:
            self.cut += 1
            return None
        protocol = data[at + 12] << 8 | data[at + 13]
        if protocol in (IPV4, IPV6):
            return self._ip(data, at + 14, wire_length, at + 6, direction, tag, depth)
        return self._type(data, at + 14, protocol, wire_length, at + 6, direction, tag, depth)

    def _type(
        self,
        data: bytes,
        at: int,
        protocol: int,
        wire_length: int,
        mac: int,
        direction: int,
        tag: bytes,
        depth: int,
    ) -> Segment | None:
        """What follows an EtherType: VLAN tags, then IP."""
        while protocol in VLAN_TYPES:
            if len(data) < at + 4:
                self.cut += 1
                return None
            protocol = data[at + 2] << 8 | data[at + 3]
            at += 4
        if protocol not in (IPV4, IPV6):
            return None
        return self._ip(data, at, wire_length, mac, direction, tag, depth)

    def _ip(
        self,
        data: bytes,
        at: int,
        wire_length: int,
        mac: int,
        direction: int,
        tag: bytes,
        depth: int,
    ) -> Segment | None:
        captured = len(data)
        if captured < at + 20:
            self.cut += 1
            return None
        first = data[at]
        fragment = False
        if first >> 4 == 4:
            header = (first & 15) * 4
            if header < 20:
                return None
            length, ip_id, bits = _HHH(data, at + 2)
            if bits & 0x1FFF:  # a later fragment
                return None
            fragment = bits & 0x2000 != 0
            protocol = data[at + 9]
            if not length:  # a buffer that the card will cut up: as long as what was captured of it
                length = wire_length - at
            df = bits & 0x4000 != 0
            ttl = data[at + 8]
        elif first >> 4 == 6:
            if captured < at + 40:
                self.cut += 1
                return None
            length = (data[at + 4] << 8 | data[at + 5]) + 40
            if length == 40:  # a jumbogram (RFC 2675) or a large offloaded buffer
                length = wire_length - at
            ttl, ip_id, df = data[at + 7], 0, False
            found = self._ipv6_headers(data, at)
            if found is None:
                return None
            protocol, header, fragment = found
        else:
            return None
        l4 = at + header
        end = min(captured, at + length)
        if protocol != 6:
            if depth >= MAX_TUNNELS:
                return None
            return self._tunnel(data, l4, protocol, wire_length, mac, direction, tag, depth + 1)
        if end < l4 + 14:
            if captured < at + length:
                self.cut += 1
            return None
        made = Segment()
        if first >> 4 == 4:
            made.version = 4
            made.key = data[at + 12 : at + 20] + data[l4 : l4 + 4] + tag
        else:
            made.version = 6
            made.key = data[at + 8 : at + 40] + data[l4 : l4 + 4] + tag
        made.tag = tag
        made.data = data
        made.l3 = at
        made.l4 = l4
        made.end = end
        made.length = length
        made.mac = mac
        made.direction = direction
        made.interface = 0
        made.ttl = ttl
        made.ip_id = ip_id
        made.df = df
        made.fragment = fragment
        made.seq, made.ack, offset, made.flags = _TCP(data, l4 + 4)
        offset >>= 4
        made.offset = offset
        made.window = data[l4 + 14] << 8 | data[l4 + 15] if end >= l4 + 16 else None
        payload = length - header - offset * 4
        made.payload_len = payload if payload > 0 else 0
        # NOP NOP TS: how every stack in use lays it out (RFC 7323 appendix A), as bpf/packet.h
        made.timestamps = offset >= 8 and data[l4 + 20 : l4 + 24] == b"\x01\x01\x08\x0a"
        if made.flags & 4 and (offset < 5 or length < header + offset * 4):
            return None  # a malformed RST: every stack drops it unread, as bpf/packet.h
        return made

    def _ipv6_headers(self, data: bytes, at: int) -> tuple[int, int, bool] | None:
        """What follows an IPv6 header and its extensions, their length, and if it is cut up.

        ``None``: the packet was cut off before, or is a later fragment.
        """
        protocol, header, fragment = data[at + 6], 40, False
        # hop-by-hop, routing, fragment, destination options, AH (RFC 8200 §4, RFC 4302 §2.2)
        while protocol in (0, 43, 44, 51, 60):
            here = at + header
            if len(data) < here + 8:
                self.cut += 1
                return None
            if protocol == 44:
                bits = data[here + 2] << 8 | data[here + 3]
                if bits & 0xFFF8:
                    return None
                fragment = fragment or bits & 1 != 0
                header += 8
            elif protocol == 51:
                header += (data[here + 1] + 2) * 4
            else:
                header += (data[here + 1] + 1) * 8
            protocol = data[here]
        return protocol, header, fragment

    def _tunnel(
        self,
        data: bytes,
        at: int,
        protocol: int,
        wire_length: int,
        mac: int,
        direction: int,
        tag: bytes,
        depth: int,
    ) -> Segment | None:
        """What a packet that is not TCP carries: the (inner) TTL, IP ID and addresses count."""
        captured = len(data)
        if protocol in (4, 41):  # IPv4 (RFC 2003) and IPv6 (RFC 4213) inside
            return self._ip(data, at, wire_length, mac, direction, tag, depth)
        if protocol == 47:  # GRE (RFC 2784, RFC 2890); version 1 is PPTP's
            if captured < at + 4:
                self.cut += 1
                return None
            flags, inner = data[at] << 8 | data[at + 1], data[at + 2] << 8 | data[at + 3]
            if flags & 0x4007:  # source routing, or another version
                return None
            at += 4 + 4 * sum(flags & bit != 0 for bit in (0x8000, 0x2000, 0x1000))
            if inner == TRANSPARENT_ETHERNET:
                return self._ethernet(data, at, wire_length, direction, tag, depth)
            return self._type(data, at, inner, wire_length, mac, direction, tag, depth)
        if protocol != 17 or captured < at + 16:
            return None
        ports = _HHH(data, at)
        at += 8
        if ports[1] in VXLAN_PORTS and data[at] & 0x08:
            network = b"V" + data[at + 4 : at + 7]
            return self._ethernet(data, at + 8, wire_length, direction, network, depth)
        return self._teredo(data, at, ports, wire_length, mac, direction, tag, depth)

    def _teredo(
        self,
        data: bytes,
        at: int,
        ports: tuple[int, ...],
        wire_length: int,
        mac: int,
        direction: int,
        tag: bytes,
        depth: int,
    ) -> Segment | None:
        """IPv6 in UDP (RFC 4380 §5.1.1): from or to a Teredo server, or between two clients."""
        captured = len(data)
        known = TEREDO_PORT in ports[:2]
        if known and data[at : at + 2] == b"\0\1" and captured > at + 4:  # authentication
            at += 13 + data[at + 2] + data[at + 3]
        if known and data[at : at + 2] == b"\0\0":  # origin indication
            at += 8
        if captured < at + 40 or data[at] >> 4 != 6:
            return None
        teredo = b"\x20\x01\0\0"  # 2001::/32
        if not known and teredo not in (data[at + 8 : at + 12], data[at + 24 : at + 28]):
            return None
        return self._ip(data, at, wire_length, mac, direction, tag, depth)


def _pseudo_header(segment: Segment) -> bytes:
    """RFC 9293 §3.1 and RFC 8200 §8.1, for what is captured of TCP."""
    length = segment.length - (segment.l4 - segment.l3)
    addresses = segment.source + segment.destination
    return addresses + struct.pack(">IHH", length & 0xFFFFFFFF, 0, 6)


def checksum_left_to_card(segment: Segment) -> bool:
    """Whether the TCP checksum is the pseudo header's sum only: the card is to add the rest.

    So does Linux (CHECKSUM_PARTIAL, include/linux/skbuff.h): it was captured where it was sent.
    """
    field = segment.data[segment.l4 + 16 : segment.l4 + 18]
    if segment.end < segment.l4 + 18:
        return False
    return int.from_bytes(field, "big") == sum16(_pseudo_header(segment))


def ip_checksum_ok(segment: Segment) -> bool | None:
    """Whether the IPv4 header's checksum is right; ``None`` for IPv6, or where the card sets it."""
    if segment.version == 6:
        return None
    header = segment.data[segment.l3 : segment.l3 + (segment.data[segment.l3] & 15) * 4]
    if header[10:12] == b"\0\0":
        return None
    return sum16(header) == 0xFFFF


def tcp_checksum_ok(segment: Segment) -> bool | None:
    """Whether the TCP checksum is right; ``None`` where that cannot be told."""
    whole = segment.end - segment.l3 == segment.length and not segment.fragment
    if not whole or segment.end < segment.l4 + 18:
        return None
    tcp, pseudo = segment.data[segment.l4 : segment.end], _pseudo_header(segment)
    field = tcp[16] << 8 | tcp[17]
    # Some leave 0 to the card (by chance, one in 65,536), others what checksum_left_to_card() says.
    if not field or field == sum16(pseudo):
        return None
    return sum16(pseudo + tcp) == 0xFFFF
