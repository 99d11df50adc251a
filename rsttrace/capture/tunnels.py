"""What stands between a frame's beginning and the IP packet with the TCP segment: tags and tunnels.

A layer is a number: an EtherType, or one of the numbers above 0xFFFF that are given here to what
has no EtherType. `HEADERS` has, for each that is read, a function from the captured bytes and the
place of its header to the layer behind it and that one's place. It raises IndexError or
struct.error where the header was cut off, and Unreadable where what is behind it cannot be read.

The numbers are IANA's (EtherTypes, IP protocols, UDP ports) where nothing else is said.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from rsttrace.capture.unread import NO_TCP

Layer = tuple[int, int]
"""A layer, and where in the captured bytes it begins."""


class Unreadable(Exception):
    """What is behind a header may hold a TCP segment and is not read; `kind` as in Unread."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


IPV4, IPV6 = 0x0800, 0x86DD
ETHERNET = 0x6558
"""An Ethernet frame, as GRE and GENEVE number it (RFC 1701: Transparent Ethernet Bridging)."""

PPP = 0x880B  # RFC 2637 §4.1; its address and control bytes may be left out
MPLS = 0x8847
LLC = 0x10000
VXLAN, GENEVE, TEREDO, TEREDO_CLIENTS, VXLAN_GPE, GTP, L2TP, TZSP = range(0x10001, 0x10009)
NETWORKS = (VXLAN, VXLAN_GPE, GENEVE)
"""Layers with a virtual network's number."""

IP_PROTOCOL = 0x20000
"""Added to an IP protocol's number: the layer that it is."""

NOTHING = (-1, -1)
"""Behind this is no TCP segment."""

VLAN_TYPES = (0x8100, 0x88A8, 0x9100, 0x9200)
"""802.1Q, 802.1ad (QinQ), and what was in use before 802.1ad."""

VXLAN_PORTS = (4789, 8472)
"""RFC 7348, and what Linux used before it (still its default)."""

TEREDO_PORT = 3544  # RFC 4380

_H = struct.Struct(">H").unpack_from
_HH = struct.Struct(">HH").unpack_from
_I = struct.Struct(">I").unpack_from


def network(data: bytes, layer: int, at: int) -> bytes:
    """What tells a virtual network from others: kind and VNI (RFC 7348 §5, RFC 8926 §3.4)."""
    return (b"G" if layer == GENEVE else b"V") + data[at + 4 : at + 7]


# ---- what has an EtherType ----


def _vlan(data: bytes, at: int) -> Layer:
    """IEEE 802.1Q §9.6: two bytes of tag, then an EtherType or a length."""
    return _H(data, at + 2)[0], at + 4


def _tag4(data: bytes, at: int) -> Layer:
    """Four bytes of tag, then an EtherType: Cisco's VN-Tag, IEEE 802.1CB's R-TAG (§7.8)."""
    return _H(data, at + 4)[0], at + 6


def _tag6(data: bytes, at: int) -> Layer:
    """Six bytes, then an EtherType: IEEE 802.1BR's E-TAG (§7.5), Cisco metadata.

    Cisco metadata (CMD): version, length, options and security group tag, as Wireshark's
    packet-cisco-metadata has it.
    """
    return _H(data, at + 6)[0], at + 8


def _backbone(data: bytes, at: int) -> Layer:
    """IEEE 802.1ah §9.7: the I-TAG's four bytes, then the customer's frame."""
    return ETHERNET, at + 4


def _pppoe(data: bytes, at: int) -> Layer:
    """RFC 2516 §4: version, type, code 0 for a session's data, session, length."""
    return (PPP, at + 6) if data[at] == 0x11 and not data[at + 1] else NOTHING


def _ppp(data: bytes, at: int) -> Layer:
    """RFC 1661 §2 and §6.5: the protocol in two bytes, or in one, which is odd."""
    if data[at] == 0xFF and data[at + 1] == 0x03:  # RFC 1662 §3.1: address and control
        at += 2
    number = data[at]
    at += 1
    if not number & 1:
        number = number << 8 | data[at]
        at += 1
    if number in PPP_LAYERS:
        return PPP_LAYERS[number], at
    if number >= 0x4000:  # control protocols, and what rides on them
        return NOTHING
    raise Unreadable(f"of PPP protocol 0x{number:04x}")  # compressed, encrypted, in bundles


PPP_LAYERS = {0x21: IPV4, 0x57: IPV6, 0x281: MPLS}
"""RFC 1332 §3, RFC 5072 §2, RFC 3032 §4.3."""


def _mpls(data: bytes, at: int) -> Layer:
    """RFC 3032 §2.1: labels up to the one with the S bit; what follows has no type.

    IP tells itself by its first four bits; 0 is a pseudowire's control word (RFC 4385 §3), 1 its
    associated channel. Without one an Ethernet frame may begin with anything: its type tells it.
    """
    while not data[at + 2] & 1:
        at += 4
    at += 4
    first = data[at] >> 4
    if first in (4, 6):
        return (ETHERNET if _holds_ip(data, at) else IPV4 if first == 4 else IPV6), at
    for here in (at + 4, at) if first == 0 else (at,):
        if _is_frame(data, here):
            return ETHERNET, here
    if first == 1:
        return NOTHING
    raise Unreadable("of MPLS that holds neither IP nor Ethernet")


def _is_frame(data: bytes, at: int) -> bool:
    """Whether an Ethernet frame begins here: its type is known, or is a length with LLC behind."""
    layer = _H(data, at + 12)[0]
    if layer < 0x0600:
        return data[at + 14] == data[at + 15]  # both service access points, as nearly always
    return layer in HEADERS or layer in (IPV4, IPV6) or layer in NO_TCP


def _holds_ip(data: bytes, at: int) -> bool:
    """Whether an Ethernet frame with an IP packet begins here."""
    layer, at = _H(data, at + 12)[0], at + 14
    while layer in VLAN_TYPES:
        layer, at = _vlan(data, at)
    return (layer == IPV4 and data[at] == 0x45) or (layer == IPV6 and data[at] >> 4 == 6)


def _nsh(data: bytes, at: int) -> Layer:
    """RFC 8300 §2.2: the length in words of four bytes, what comes next at the fourth byte."""
    following = {1: IPV4, 2: IPV6, 3: ETHERNET, 5: MPLS}.get(data[at + 3])
    return NOTHING if following is None else (following, at + 4 * (data[at + 1] & 0x3F))


def _macsec(data: bytes, at: int) -> Layer:
    """IEEE 802.1AE §9.3: SecTAG. Only what is not encrypted (no E, no C bit) can be read."""
    flags = data[at]
    if flags & 0x0C:
        raise Unreadable("of EtherType 0x88e5 (MACsec)")
    at += 14 if flags & 0x20 else 6
    return _H(data, at)[0], at + 2


def _llc(data: bytes, at: int) -> Layer:
    """IEEE 802.2: SNAP with the EtherType (RFC 1042; 802.1H's tunnel), or IP's own SAP."""
    head = data[at : at + 6]
    if head[:3] == b"\x06\x06\x03":
        return IPV4, at + 3
    if head in (b"\xaa\xaa\x03\0\0\0", b"\xaa\xaa\x03\0\0\xf8"):
        return _H(data, at + 6)[0], at + 8
    if len(head) < 6 and head == b"\xaa\xaa\x03\0\0\0"[: len(head)]:
        raise IndexError
    return NOTHING


# ---- what has an IP protocol number ----


def _gre(data: bytes, at: int) -> Layer:
    """RFC 2784, RFC 2890; version 1 is PPTP's (RFC 2637 §4.1). ERSPAN: draft-foschiano-erspan."""
    flags, inner = _HH(data, at)
    at += 4 + 4 * sum(flags & bit != 0 for bit in (0x8000, 0x2000, 0x1000))
    version = flags & 7
    if version == 1 and inner == PPP:
        if not flags & 0x1000:  # an acknowledgment alone
            return NOTHING
        return PPP, at + (4 if flags & 0x80 else 0)
    if version or flags & 0x4000:  # another version, or source routing
        raise Unreadable("of GRE with source routing or of an unknown version")
    if inner == 0x88BE:  # type I has neither a sequence number nor a header of its own
        return ETHERNET, at + (8 if flags & 0x1000 else 0)
    return inner, at


def _erspan3(data: bytes, at: int) -> Layer:
    """draft-foschiano-erspan §4.3: 12 bytes, with the O bit 8 more; frame type 2 is bare IP."""
    kind, more = data[at + 10] >> 2 & 0x1F, data[at + 11] & 1
    at += 20 if more else 12
    return (ETHERNET if kind != 2 else IPV4), at


def _ethernet_in_ip(data: bytes, at: int) -> Layer:
    """RFC 3378 §2: version 3, then the frame."""
    return (ETHERNET, at + 2) if data[at] >> 4 == 3 else NOTHING


def _udp(data: bytes, at: int) -> Layer:
    """RFC 768; what it carries is told by its destination port."""
    source, port = _HH(data, at)
    at += 8
    layer = PORTS.get(port)
    if layer is not None:
        return layer, at
    if TEREDO_PORT in (source, port):
        return TEREDO, at
    if (
        4500 in (source, port) and len(data) >= at + 8
    ):  # RFC 3948 §2.2: ESP, but for IKE and "alive"
        if data[at : at + 4] != b"\0\0\0\0":
            raise Unreadable("of ESP in UDP (encrypted)")
        return NOTHING
    return TEREDO_CLIENTS, at


PORTS = {
    **dict.fromkeys(VXLAN_PORTS, VXLAN),
    4790: VXLAN_GPE,
    6081: GENEVE,
    2152: GTP,
    1701: L2TP,
    6635: MPLS,  # RFC 7510
    37008: TZSP,
}


def _vxlan(data: bytes, at: int) -> Layer:
    """RFC 7348 §5: flags, of which one must be set, and the network."""
    return (ETHERNET, at + 8) if data[at] & 0x08 else NOTHING


def _vxlan_gpe(data: bytes, at: int) -> Layer:
    """draft-ietf-nvo3-vxlan-gpe §3: with the P bit the fourth byte says what follows."""
    if not data[at] & 0x04:
        return _vxlan(data, at)
    following = {1: IPV4, 2: IPV6, 3: ETHERNET, 4: 0x894F}.get(data[at + 3])
    return NOTHING if following is None else (following, at + 8)


def _geneve(data: bytes, at: int) -> Layer:
    """RFC 8926 §3.4: version 0, the options' length in words of four bytes, an EtherType."""
    if data[at] >> 6:
        return NOTHING
    return _H(data, at + 2)[0], at + 8 + 4 * (data[at] & 0x3F)


def _gtp(data: bytes, at: int) -> Layer:
    """GTPv1-U, 3GPP TS 29.281 §5: a T-PDU (type 255), and a chain of extension headers."""
    flags = data[at]
    if flags >> 4 != 3 or data[at + 1] != 255:
        return NOTHING
    if not flags & 7:
        at += 8
    else:
        following = data[at + 11] if flags & 4 else 0
        at += 12
        while following:
            size = 4 * data[at]
            if not size:
                return NOTHING
            at += size
            following = data[at - 1]
    return (IPV4 if data[at] >> 4 == 4 else IPV6), at


def _l2tp(data: bytes, at: int) -> Layer:
    """RFC 2661 §3.1: version 2, a data message; length, sequence and offset are optional."""
    flags = _H(data, at)[0]
    if flags & 0x800F != 2:
        return NOTHING
    at += 6 + (2 if flags & 0x4000 else 0) + (4 if flags & 0x0800 else 0)
    if flags & 0x0200:
        at += 2 + _H(data, at)[0]
    return PPP, at


def _tzsp(data: bytes, at: int) -> Layer:
    """TaZmen Sniffer Protocol: version 1, type, protocol 1 (Ethernet), tagged fields up to 1."""
    if data[at] != 1 or _H(data, at + 2)[0] != 1:
        return NOTHING
    at += 4
    while data[at] != 1:
        at += 2 + data[at + 1] if data[at] else 1
    return ETHERNET, at + 1


def _teredo(data: bytes, at: int) -> Layer:
    """RFC 4380 §5.1.1: authentication and origin indication may come first."""
    if data[at] == 0 and data[at + 1] == 1:
        at += 13 + data[at + 2] + data[at + 3]
    if data[at] == 0 and data[at + 1] == 0:
        at += 8
    return (IPV6, at) if data[at] >> 4 == 6 else NOTHING


def _teredo_clients(data: bytes, at: int) -> Layer:
    """IPv6 in UDP between two Teredo clients: one address is Teredo's (2001::/32)."""
    if len(data) < at + 40 or data[at] >> 4 != 6:
        return NOTHING
    teredo = b"\x20\x01\0\0"
    if teredo not in (data[at + 8 : at + 12], data[at + 24 : at + 28]):
        return NOTHING
    return IPV6, at


HEADERS: dict[int, Callable[[bytes, int], Layer]] = {
    **dict.fromkeys(VLAN_TYPES, _vlan),
    0x8926: _tag4,
    0xF1C1: _tag4,
    0x893F: _tag6,
    0x8909: _tag6,
    0x88E7: _backbone,
    0x8864: _pppoe,
    PPP: _ppp,
    MPLS: _mpls,
    0x8848: _mpls,
    0x894F: _nsh,
    0x88E5: _macsec,
    0x22EB: _erspan3,
    LLC: _llc,
    IP_PROTOCOL + 47: _gre,
    IP_PROTOCOL + 97: _ethernet_in_ip,
    IP_PROTOCOL + 137: _mpls,
    IP_PROTOCOL + 17: _udp,
    VXLAN: _vxlan,
    VXLAN_GPE: _vxlan_gpe,
    GENEVE: _geneve,
    GTP: _gtp,
    L2TP: _l2tp,
    TZSP: _tzsp,
    TEREDO: _teredo,
    TEREDO_CLIENTS: _teredo_clients,
    IP_PROTOCOL + 4: lambda data, at: (IPV4, at),  # RFC 2003
    IP_PROTOCOL + 41: lambda data, at: (IPV6, at),  # RFC 4213
    IP_PROTOCOL + 143: lambda data, at: (ETHERNET, at),  # RFC 8986 §9.1
}
"""How each layer is read."""
