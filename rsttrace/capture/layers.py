"""Finds the TCP segment inside a captured frame. No copies, and one object per segment.

Everything here takes bytes that anybody may have written: each read is checked against what was
captured, and what makes no sense is no segment.
"""

from __future__ import annotations

import struct

from rsttrace.capture.links import ETHERNET_LINK, start
from rsttrace.capture.tunnels import (
    ETHERNET,
    HEADERS,
    IP_PROTOCOL,
    IPV4,
    IPV6,
    LLC,
    NETWORKS,
    Layer,
    Unreadable,
    network,
)
from rsttrace.capture.unread import Unread
from rsttrace.tcp import sum16

IP_TYPES = frozenset((IPV4, IPV6))
MOST_LAYERS = 40
"""So many headers before a TCP segment are followed: tags, tunnels in tunnels."""

AH = 51  # RFC 4302

CUT = "cut off before the TCP flags"
FRAGMENT = "that are later fragments"
"""What was missed, as in Unread."""

USUAL_STAMPS = b"\x01\x01\x08\x0a"
"""NOP NOP TS: how every stack in use lays its timestamps out (RFC 7323 appendix A)."""

_HHH = struct.Struct(">HHH").unpack_from
_TCP = struct.Struct(">IIBB").unpack_from


class Segment:
    """One TCP segment, in host byte order; `window` is ``None`` where the capture cut it off.

    `key` says which flow and which direction: addresses and ports as they are in the packet, and
    `tag`, which tells virtual networks apart (VXLAN, GENEVE). `l3` and `l4` are where its headers
    begin in `data`, `end` is where the captured part of the IP packet ends, `length` the IP
    packet's own length. `mac` is where the source MAC begins, -1: none.
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
    def addresses(self) -> bytes:
        """The source address and the destination address, as they lie in the packet."""
        return self.key[:8] if self.version == 4 else self.key[:32]

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
    """Takes frames apart; `unread` counts those in which a TCP segment may have been missed."""

    def __init__(self) -> None:
        self.unread = Unread()

    def segment(
        self, link: int, data: bytes, wire_length: int, direction: int = 0
    ) -> Segment | None:
        """The (innermost) TCP segment of a frame; ``None`` if there is none.

        `link` is the LINKTYPE_ number, `wire_length` the frame's length before it was cut,
        `direction` what the file says of it (`INBOUND`, `OUTBOUND`, 0).
        """
        try:
            if link == ETHERNET_LINK and len(data) > 33:  # nearly always; below: in general
                layer, at = data[12] << 8 | data[13], 14
                if layer in IP_TYPES:
                    found = self._ip(data, 14, wire_length, 6, direction, b"")
                    if found is None or isinstance(found, Segment):
                        return found
                    layer, at = found
                return self._walk(data, layer, at, wire_length, 6, direction)
            layer, at, mac, way, interface, more = start(link, data)
            if more:
                self.unread.add(more)
            made = self._walk(data, layer, at, wire_length, mac, direction or way)
        except (IndexError, struct.error):  # a header is not all there
            self.unread.add(CUT)
            return None
        except Unreadable as error:
            self.unread.add(error.kind)
            return None
        if made is not None:
            made.interface = interface
        return made

    def _walk(
        self, data: bytes, layer: int, at: int, wire_length: int, mac: int, direction: int
    ) -> Segment | None:
        """Follow the headers, from the one at `at`, to the TCP segment."""
        tag = b""
        for _ in range(MOST_LAYERS):
            if layer in IP_TYPES:
                found = self._ip(data, at, wire_length, mac, direction, tag)
                if found is None or isinstance(found, Segment):
                    return found
                layer, at = found
                continue
            if layer == ETHERNET:
                mac, layer, at = at + 6, data[at + 12] << 8 | data[at + 13], at + 14
                continue
            if 0 <= layer < 0x0600:  # a length (IEEE 802.3 §3.2.6)
                layer = LLC
            header = HEADERS.get(layer)
            if header is None:
                self._say_unread(layer)
                return None
            if layer in NETWORKS:
                tag = network(data, layer, at)
            layer, at = header(data, at)
        raise Unreadable(f"with more than {MOST_LAYERS} headers")

    def _say_unread(self, layer: int) -> None:
        if layer >= IP_PROTOCOL:
            self.unread.ip_protocol(layer - IP_PROTOCOL)
        elif layer >= 0:
            self.unread.ethertype(layer)

    def _ip(
        self, data: bytes, at: int, wire_length: int, mac: int, direction: int, tag: bytes
    ) -> Segment | Layer | None:
        """The TCP segment of an IP packet, or the layer that it carries instead.

        Raises:
            IndexError: a header was cut off.
            Unreadable: a fragment without its header.
        """
        captured = len(data)
        if captured < at + 20:
            raise IndexError
        first = data[at]
        fragment = False
        if first >> 4 == 4:
            header = (first & 15) * 4
            if header < 20:
                return None
            length, ip_id, bits = _HHH(data, at + 2)
            protocol = data[at + 9]
            if bits & 0x1FFF:
                _later_fragment(protocol)
                return None
            fragment = bits & 0x2000 != 0
            if not length:  # a buffer that the card will cut up: as long as what was captured of it
                length = wire_length - at
            df = bits & 0x4000 != 0
            ttl = data[at + 8]
            if protocol == AH:
                if captured < at + header + 8:
                    raise IndexError
                protocol, header = data[at + header], header + (data[at + header + 1] + 2) * 4
        elif first >> 4 == 6:
            if captured < at + 40:
                raise IndexError
            length = (data[at + 4] << 8 | data[at + 5]) + 40
            if length == 40:  # a jumbogram (RFC 2675) or a large offloaded buffer
                length = wire_length - at
            ttl, ip_id, df = data[at + 7], 0, False
            found = _ipv6_headers(data, at)
            if found is None:
                return None
            protocol, header, fragment = found
        else:
            return None
        l4 = at + header
        if protocol != 6:
            return IP_PROTOCOL + protocol, l4
        end = min(captured, at + length)
        if end < l4 + 14:
            if captured < at + length:
                raise IndexError
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
        made.timestamps = offset >= 8 and data[l4 + 20 : l4 + 24] == USUAL_STAMPS
        if made.flags & 4 and (offset < 5 or length < header + offset * 4):
            return None  # a malformed RST: every stack drops it unread, as bpf/packet.h
        return made


def _ipv6_headers(data: bytes, at: int) -> tuple[int, int, bool] | None:
    """What follows an IPv6 header and its extensions, their length, and if it is cut up.

    ``None``: a later fragment of what is no loss.

    Raises: as Dissector._ip().
    """
    protocol, header, fragment = data[at + 6], 40, False
    # hop-by-hop, routing, fragment, destination options, AH (RFC 8200 §4, RFC 4302 §2.2)
    while protocol in (0, 43, 44, AH, 60):
        here = at + header
        if len(data) < here + 8:
            raise IndexError
        if protocol == 44:
            bits = data[here + 2] << 8 | data[here + 3]
            if bits & 0xFFF8:
                _later_fragment(data[here])
                return None
            fragment = fragment or bits & 1 != 0
            header += 8
        elif protocol == AH:
            header += (data[here + 1] + 2) * 4
        else:
            header += (data[here + 1] + 1) * 8
        protocol = data[here]
    return protocol, header, fragment


def _later_fragment(protocol: int) -> None:
    """A fragment without the TCP header is a loss if it may be part of a TCP segment.

    Raises:
        Unreadable: it is.
    """
    if protocol == 6 or (protocol != 17 and IP_PROTOCOL + protocol in HEADERS):
        raise Unreadable(FRAGMENT)


def _pseudo_sum(addresses: bytes, length: int) -> int:
    """The pseudo header's sum (RFC 9293 §3.1, RFC 8200 §8.1), as `sum16` has it: never 0.

    `addresses` are both, `length` is that of TCP's header and data.
    """
    length &= 0xFFFFFFFF
    return (int.from_bytes(addresses, "big") + (length >> 16) + (length & 0xFFFF) + 6) % 0xFFFF or (
        0xFFFF
    )


def checksum_left_to_card(segment: Segment) -> bool:
    """Whether the TCP checksum is the pseudo header's sum only: the card is to add the rest.

    So does Linux (CHECKSUM_PARTIAL, include/linux/skbuff.h): it was captured where it was sent.
    """
    field = segment.data[segment.l4 + 16 : segment.l4 + 18]
    if segment.end < segment.l4 + 18:
        return False
    length = segment.length - (segment.l4 - segment.l3)
    return int.from_bytes(field, "big") == _pseudo_sum(segment.addresses, length)


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
    return whole_sum_ok(segment.addresses, segment.data[segment.l4 : segment.end])


def whole_sum_ok(addresses: bytes, tcp: bytes) -> bool | None:
    """As `tcp_checksum_ok`, of all of a segment: its header and data, with both its addresses."""
    pseudo = _pseudo_sum(addresses, len(tcp))
    field = tcp[16] << 8 | tcp[17]
    # Some leave 0 to the card (by chance, one in 65,536), others what checksum_left_to_card() says.
    if not field or field == pseudo:
        return None
    return (pseudo + sum16(tcp)) % 0xFFFF == 0
