"""The link layer of a frame: what comes before the first EtherType or IP header.

The numbers are LINKTYPE_ values (https://www.tcpdump.org/linktypes.html, which also describes the
headers where nothing else is cited).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from rsttrace.capture.tunnels import ETHERNET, IPV4, LLC, PPP, Unreadable

INBOUND, OUTBOUND = 1, 2
"""Which way a packet went at the capturing host, where the capture says so."""

ETHERNET_LINK = 1

AF_INET6 = (10, 24, 28, 30)
"""AF_INET6 of Linux, NetBSD/OpenBSD, FreeBSD, macOS: in the BSD loopback header."""

NESTED = 2
"""Link types inside link types (PPI, PKTAP) that are followed."""

Start = tuple[int, int, int, int, int, str]
"""The first layer and where it begins (as in tunnels), where the source MAC begins (-1: none), the
direction (0: unknown), the interface's index (0: unknown), and what else the frame holds that is
not read: a kind as in Unread, or nothing."""

_H = struct.Struct(">H").unpack_from
_HHH = struct.Struct(">HHH").unpack_from


def start(link: int, data: bytes, at: int = 0, depth: int = 0) -> Start:
    """Take the link-layer header off that begins at `at`.

    Raises:
        IndexError, struct.error: it was cut off.
        Unreadable: what is behind it, or the link type itself, cannot be read.
    """
    if link in _WRAPPED and depth < NESTED:
        return _WRAPPED[link](data, at, depth)
    found = _LINKS.get(link)
    if found is None:
        raise Unreadable(f"of link type {link}")
    return found(data, at)


def _cooked(data: bytes, at: int) -> Start:
    """Linux cooked: packet type, ARPHRD_, address length, address, protocol."""
    kind, _, length = _HHH(data, at)
    return _H(data, at + 14)[0], at + 16, at + 6 if length == 6 else -1, _way(kind), 0, ""


def _cooked2(data: bytes, at: int) -> Start:
    """Linux cooked 2: protocol, 0, ifindex, ARPHRD_, packet type, address length, address."""
    protocol, kind, length = _H(data, at)[0], data[at + 10], data[at + 11]
    if len(data) < at + 20:
        raise IndexError
    interface = int.from_bytes(data[at + 4 : at + 8], "big")
    return protocol, at + 20, at + 12 if length == 6 else -1, _way(kind), interface, ""


def _way(kind: int) -> int:
    """Of sll_pkttype (packet(7)): 0 to us, 4 sent by us; 1-3 broadcast, multicast, others'."""
    return INBOUND if kind == 0 else OUTBOUND if kind == 4 else 0


def _raw(data: bytes, at: int) -> Start:
    return IPV4, at, -1, 0, 0, ""  # the first four bits tell IPv6


def _loopback(data: bytes, at: int) -> Start:
    """BSD loopback: the address family, in the capturing host's order."""
    return _family(data, at), at + 4, -1, 0, 0, ""


def _enc(data: bytes, at: int) -> Start:
    """OpenBSD's enc(4): address family, SPI, flags; then the packet, decrypted."""
    return _family(data, at), at + 12, -1, 0, 0, ""


def _family(data: bytes, at: int) -> int:
    if len(data) < at + 5:
        raise IndexError
    family = min(int.from_bytes(data[at : at + 4], order) for order in ("little", "big"))
    return IPV4 if family == 2 or family in AF_INET6 else -1


def _pflog(data: bytes, at: int) -> Start:
    """OpenBSD's pflog(4): length of the header without padding, …, direction at byte 60."""
    length, way = data[at], data[at + 60]
    direction = way if way in (INBOUND, OUTBOUND) else 0  # PF_IN, PF_OUT
    return IPV4, at + (length + 3 & ~3), -1, direction, 0, ""


def _hdlc(data: bytes, at: int) -> Start:
    """Cisco HDLC: address, control, an EtherType."""
    return _H(data, at + 2)[0], at + 4, -1, 0, 0, ""


def _ppp_pppd(data: bytes, at: int) -> Start:
    """PPP whose address byte is the direction: 0 in, 1 out."""
    return PPP, at + 2, -1, OUTBOUND if data[at] else INBOUND, 0, ""


def _ppp_with_direction(data: bytes, at: int) -> Start:
    """PPP behind a byte with the direction: 0 received, else sent."""
    return PPP, at + 1, -1, OUTBOUND if data[at] else INBOUND, 0, ""


def _firewire(data: bytes, at: int) -> Start:
    """Apple IP over IEEE 1394: two addresses of 8 bytes, an EtherType."""
    return _H(data, at + 16)[0], at + 18, -1, 0, 0, ""


# ---- netfilter's log ----


def _nflog(data: bytes, at: int) -> Start:
    """NFLOG: family, version 0, group; then attributes in the capturing host's byte order.

    Attributes (linux/netfilter/nfnetlink_log.h): length with its own 4 bytes, type, value, padded
    to 4: 1 packet header (protocol, hook), 4 and 5 the interfaces, 8 the source MAC, 9 the packet.
    """
    if data[at + 1]:
        raise Unreadable(f"of NFLOG version {data[at + 1]}")
    at += 4
    order = "<" if struct.unpack_from("<HH", data, at)[1] < 0x100 else ">"
    pair = struct.Struct(order + "HH").unpack_from
    mac, interface, direction = -1, 0, 0
    while True:
        length, kind = pair(data, at)
        if length < 4:
            raise Unreadable("of NFLOG with a damaged header")
        if kind == 9:
            return IPV4, at + 4, mac, direction, interface, ""
        if kind == 1:  # NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT
            direction = {1: INBOUND, 3: OUTBOUND}.get(data[at + 6], 0)
        elif kind in (4, 5):
            interface = int.from_bytes(data[at + 4 : at + 8], "big")
        elif kind == 8 and _H(data, at + 4)[0] == 6:
            mac = at + 8
        at += length + 3 & ~3


# ---- 802.11 ----


def _wifi(data: bytes, at: int, pad: int = 0) -> Start:
    """IEEE 802.11 §9.2 and §9.3.2: a data frame, its first A-MSDU subframe if it has several.

    `pad`: the body is aligned to 4 bytes (radiotap's data pad flag).
    """
    control, flags = data[at], data[at + 1]
    if control & 0x0F != 0x08 or control & 0x40:  # management, control; a frame without data
        return -1, at, -1, 0, 0, ""
    if flags & 0x40:
        raise Unreadable("encrypted by 802.11")
    if data[at + 22] & 0x0F:
        raise Unreadable("that are later fragments (802.11)")
    to_ds, from_ds = flags & 1, flags & 2
    begin, length = at, 24
    mac = at + (24 if to_ds and from_ds else 16 if from_ds else 10)
    if to_ds and from_ds:
        length += 6
    several = False
    if control & 0x80:  # QoS
        several = data[at + length] & 0x80 != 0
        length += 2
        if flags & 0x80:  # HT control
            length += 4
    at += length + (-length % 4 if pad else 0)
    if not several:
        return LLC, at, mac, 0, 0, ""
    size = 14 + _H(data, at + 12)[0]
    more = "behind the first one of an A-MSDU (802.11)"
    following = at + (size + 3 & ~3) + 14 <= len(data) and begin < at
    return LLC, at + 14, at + 6, 0, 0, more if following else ""


def _radiotap(data: bytes, at: int) -> Start:
    """radiotap.org: version 0, length, which fields are present, the fields.

    Only the flags field matters: 0x20 the body is padded, 0x40 the frame's checksum is wrong.
    """
    length, present = struct.unpack_from("<HI", data, at + 2)
    fields, word = at + 8, present
    while word & 1 << 31:  # more words of such bits
        word = struct.unpack_from("<I", data, fields)[0]
        fields += 4
    flags = 0
    if present & 2:
        if present & 1:  # before it: TSFT, 8 bytes, aligned to 8 from the header's beginning
            fields += -(fields - at) % 8 + 8
        flags = data[fields]
    if flags & 0x40:
        raise Unreadable("with a wrong checksum (802.11)")
    return _wifi(data, at + length, flags & 0x20)


def _prism(data: bytes, at: int) -> Start:
    """Prism and AVS: a code, then the header's length, in one or the other byte order."""
    length = min(int.from_bytes(data[at + 4 : at + 8], order) for order in ("little", "big"))
    if not 8 <= length <= 4096:
        raise Unreadable("of 802.11 with an unknown header")
    return _wifi(data, at + length)


# ---- headers before another link type ----


def _ppi(data: bytes, at: int, depth: int) -> Start:
    """PPI: version, flags, length, the link type of what follows."""
    length, link = struct.unpack_from("<HI", data, at + 2)
    return start(link, data, at + length, depth + 1)


def _pktap(data: bytes, at: int, depth: int) -> Start:
    """Apple's PKTAP (bsd/net/pktap.h): length, what follows, its link type, name, flags (1 in)."""
    length, follows, link = struct.unpack_from("<III", data, at)
    flags = struct.unpack_from("<I", data, at + 36)[0]
    if not follows:
        return -1, at, -1, 0, 0, ""
    layer, begin, mac, direction, interface, more = start(link, data, at + length, depth + 1)
    return layer, begin, mac, flags & 3 if flags & 3 != 3 else direction, interface, more


_WRAPPED: dict[int, Callable[[bytes, int, int], Start]] = {192: _ppi, 258: _pktap}

_LINKS: dict[int, Callable[[bytes, int], Start]] = {
    0: _loopback,
    ETHERNET_LINK: lambda data, at: (ETHERNET, at, -1, 0, 0, ""),
    9: lambda data, at: (PPP, at, -1, 0, 0, ""),
    10: lambda data, at: (LLC, at + 13, at + 7, 0, 0, ""),  # FDDI
    50: lambda data, at: (PPP, at, -1, 0, 0, ""),
    51: lambda data, at: (0x8864, at, -1, 0, 0, ""),
    100: lambda data, at: (LLC, at, -1, 0, 0, ""),  # RFC 1483
    104: _hdlc,
    105: _wifi,
    108: _loopback,
    109: _enc,
    113: _cooked,
    117: _pflog,
    119: _prism,
    127: _radiotap,
    138: _firewire,
    163: _prism,
    166: _ppp_pppd,
    204: _ppp_with_direction,
    239: _nflog,
    240: lambda data, at: (ETHERNET, at + 4, -1, 0, 0, ""),  # netANALYZER
    276: _cooked2,
    **dict.fromkeys((12, 14, 101, 228, 229), _raw),  # raw IP, as BSDs number it too; IPv4; IPv6
}
