"""Frames that hold one and the same TCP segment, each in another link layer, tag or tunnel.

Written with scapy's layers, so that no encoder of ours can share a mistake with the reader. Where
scapy has none the bytes are written out.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import scapy.layers.inet as scapy_inet
import scapy.layers.inet6 as scapy_inet6
import scapy.layers.l2 as scapy_l2
from scapy.contrib.erspan import ERSPAN_II, ERSPAN_III, ERSPAN_PlatformSpecific
from scapy.contrib.etherip import EtherIP
from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header
from scapy.contrib.macsec import MACsec
from scapy.contrib.mpls import MPLS
from scapy.contrib.nsh import NSH
from scapy.contrib.tzsp import TZSP, TZSPTagEnd, TZSPTagPadding
from scapy.layers.dot11 import Dot11, Dot11QoS, PrismHeader, RadioTap
from scapy.layers.l2tp import L2TP
from scapy.layers.ppi import PPI
from scapy.layers.ppp import HDLC, PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from tests.unit import captures as c

IP, UDP, TCP = scapy_inet.IP, scapy_inet.UDP, scapy_inet.TCP
IPv6 = scapy_inet6.IPv6
Ether, GRE = scapy_l2.Ether, scapy_l2.GRE
Dot1Q, LLC, SNAP = scapy_l2.Dot1Q, scapy_l2.LLC, scapy_l2.SNAP

OUTER = {"src": "192.0.2.1", "dst": "192.0.2.2"}
OUTER6 = {"src": "2001:db8:f::1", "dst": "2001:db8:f::2"}

INNER = (
    IP(src=c.US, dst=c.PEER, ttl=57, id=0x1234, flags="DF")
    / TCP(sport=51234, dport=443, flags="PA", seq=0x01020304, ack=0x05060708, window=501)
    / b"hello"
)
INNER6 = (
    IPv6(src=c.US6, dst=c.PEER6, hlim=57)
    / TCP(sport=51234, dport=443, flags="PA", seq=0x01020304, ack=0x05060708, window=501)
    / b"hello"
)


def vxlan(network: int, frame: Any) -> bytes:
    """RFC 7348 §5."""
    return struct.pack(">BxxxI", 0x08, network << 8) + bytes(frame)


def sll(protocol: int, data: bytes, kind: int = 0) -> bytes:
    return struct.pack(">HHH8sH", kind, 1, 6, bytes.fromhex("00d0f8223344"), protocol) + data


def sll2(protocol: int, data: bytes, kind: int = 0) -> bytes:
    mac = bytes.fromhex("00d0f8223344")
    return struct.pack(">HHIHBB8s", protocol, 0, 7, 1, kind, 6, mac) + data


def ether(packet: Any) -> Any:
    return Ether(src=c.GATEWAY, dst=c.OUR_MAC) / packet


def teredo(packet: Any, port: int = 3544, head: bytes = b"") -> Any:
    return IP(**OUTER) / UDP(sport=40000, dport=port) / (head + bytes(packet))


TEREDO6 = IPv6(src="2001:0:4136:e378::1", dst=c.PEER6, hlim=57) / INNER6[TCP]
AUTHENTICATED = struct.pack(">BBBB8sB", 0, 1, 0, 0, b"n" * 8, 0)
ORIGIN = b"\0\0" + b"o" * 6


def _stack(layer: Any, count: int) -> Any:
    made = layer()
    for _ in range(count - 1):
        made /= layer()
    return made


def _udp(port: int) -> Any:
    return UDP(sport=40000, dport=port)


def _pptp(**fields: Any) -> Any:
    present = {"acknum_present": 1} if fields else {}
    return scapy_l2.GRE_PPTP(seqnum_present=1, sequence_number=3, call_id=4, **present, **fields)


def _gtp(**fields: Any) -> Any:
    return GTP_U_Header(teid=5, gtp_type=255, **fields)


_TZSP_TAGS = TZSPTagPadding() / TZSPTagEnd()


FRAMES: dict[str, tuple[int, bytes]] = {
    "ethernet": (1, bytes(ether(INNER))),
    "ethernet-6": (1, bytes(ether(INNER6))),
    "vlan": (1, bytes(ether(scapy_l2.Dot1Q(vlan=7) / INNER))),
    "qinq": (1, bytes(ether(scapy_l2.Dot1AD(vlan=7) / scapy_l2.Dot1Q(vlan=8) / INNER))),
    "vlan-3": (
        1,
        bytes(ether(scapy_l2.Dot1Q() / scapy_l2.Dot1Q() / scapy_l2.Dot1Q() / INNER6)),
    ),
    "raw": (101, bytes(INNER)),
    "raw-6": (101, bytes(INNER6)),
    "raw-12": (12, bytes(INNER)),
    "raw-14": (14, bytes(INNER)),
    "ipv4": (228, bytes(INNER)),
    "ipv6": (229, bytes(INNER6)),
    "sll": (113, sll(0x0800, bytes(INNER))),
    "sll-6": (113, sll(0x86DD, bytes(INNER6))),
    "sll-vlan": (113, sll(0x8100, b"\0\x07\x08\0" + bytes(INNER))),
    "sll2": (276, sll2(0x0800, bytes(INNER))),
    "sll2-6": (276, sll2(0x86DD, bytes(INNER6))),
    "null-le": (0, struct.pack("<I", 2) + bytes(INNER)),
    "null-be": (0, struct.pack(">I", 2) + bytes(INNER)),
    "null-6-mac": (0, struct.pack("<I", 30) + bytes(INNER6)),
    "null-6-freebsd": (0, struct.pack("<I", 28) + bytes(INNER6)),
    "loop": (108, struct.pack(">I", 2) + bytes(INNER)),
    "loop-6": (108, struct.pack(">I", 24) + bytes(INNER6)),
    "ip-options": (
        101,
        bytes(
            IP(src=c.US, dst=c.PEER, ttl=57, id=0x1234, flags="DF", options=[b"\x94\x04\0\0"])
            / INNER[TCP]
        ),
    ),
    "hop-by-hop": (
        101,
        bytes(
            IPv6(src=c.US6, dst=c.PEER6, hlim=57)
            / scapy_inet6.IPv6ExtHdrHopByHop()
            / scapy_inet6.IPv6ExtHdrDestOpt()
            / scapy_inet6.IPv6ExtHdrRouting()
            / INNER6[TCP]
        ),
    ),
    "ah": (
        101,
        bytes(
            IPv6(src=c.US6, dst=c.PEER6, hlim=57, nh=51)
            / (struct.pack(">BBHIIQI", 6, 5, 0, 1, 1, 0, 0) + b"\0" * 4 + bytes(INNER6[TCP]))
        ),
    ),
    "first-fragment-6": (
        101,
        bytes(
            IPv6(src=c.US6, dst=c.PEER6, hlim=57)
            / scapy_inet6.IPv6ExtHdrFragment(offset=0, m=1)
            / INNER6[TCP]
        ),
    ),
    "ipip": (1, bytes(ether(IP(**OUTER, ttl=9) / INNER))),
    "6in4": (1, bytes(ether(IP(**OUTER, ttl=9, proto=41) / INNER6))),
    "4in6": (1, bytes(ether(IPv6(**OUTER6, nh=4) / INNER))),
    "6in6": (1, bytes(ether(IPv6(**OUTER6, nh=41) / INNER6))),
    "gre": (1, bytes(ether(IP(**OUTER) / GRE() / INNER))),
    "gre-key": (
        1,
        bytes(ether(IP(**OUTER) / GRE(key_present=1, key=9, seqnum_present=1) / INNER6)),
    ),
    "gre-checksum": (1, bytes(ether(IP(**OUTER) / GRE(chksum_present=1) / INNER))),
    "gre-ethernet": (
        1,
        bytes(ether(IP(**OUTER) / GRE(proto=0x6558) / Ether(src=c.GATEWAY) / INNER)),
    ),
    "gre-6": (1, bytes(ether(IPv6(**OUTER6, nh=47) / GRE() / INNER))),
    "vxlan": (1, bytes(ether(IP(**OUTER) / UDP(dport=4789) / vxlan(7, ether(INNER))))),
    "vxlan-linux": (1, bytes(ether(IPv6(**OUTER6) / UDP(dport=8472) / vxlan(7, ether(INNER6))))),
    "teredo": (1, bytes(ether(teredo(INNER6)))),
    "teredo-authenticated": (1, bytes(ether(teredo(INNER6, head=AUTHENTICATED)))),
    "teredo-origin": (1, bytes(ether(teredo(INNER6, head=AUTHENTICATED + ORIGIN)))),
    "teredo-clients": (1, bytes(ether(teredo(TEREDO6, port=50001)))),
    "twice": (1, bytes(ether(IP(**OUTER) / IP(**OUTER) / INNER))),
}


def tagged(number: int, inner: Any, kind: int = 0x0800) -> Any:
    """Ethernet with another VLAN EtherType than scapy's layers have."""
    tag = Dot1Q(vlan=7, type=kind) / inner
    return Ether(src=c.GATEWAY, dst=c.OUR_MAC, type=number) / tag


def typed(number: int, data: bytes) -> bytes:
    """An Ethernet frame of a type that scapy does not know."""
    return bytes(Ether(src=c.GATEWAY, dst=c.OUR_MAC, type=number) / Raw(data))


def metadata(data: bytes, kind: int = 0x0800) -> bytes:
    """Cisco metadata: version, length, options, security group tag."""
    return typed(0x8909, struct.pack(">BBHHH", 1, 1, 1, 2, kind) + data)


def snapped(inner: Any, **fields: Any) -> Any:
    """LLC and SNAP, with what scapy gives an EtherType."""
    return LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(**fields) / inner


TO_DS, FROM_DS, ORDER, PROTECTED = 1, 2, 0x80, 0x40


def length() -> Any:
    """An 802.3 header: a length in place of the EtherType."""
    return scapy_l2.Dot3(src=c.GATEWAY, dst=c.OUR_MAC)


def wifi(inner: Any, flags: int = FROM_DS, **fields: Any) -> Any:
    """A data frame of 802.11 whose sender is the gateway."""
    macs = dict.fromkeys(("addr1", "addr2", "addr3", "addr4"), c.OUR_MAC)
    macs[("addr2", "addr2", "addr3", "addr4")[flags & 3]] = c.GATEWAY
    return Dot11(type=2, FCfield=flags, **macs, **fields) / inner


def amsdu(count: int) -> Any:
    """An A-MSDU (IEEE 802.11 §9.3.2.2): subframes of two MACs, a length, LLC; padded to four."""
    body = bytes(snapped(INNER))
    sub = bytes.fromhex((c.OUR_MAC + c.GATEWAY).replace(":", "")) + struct.pack(">H", len(body))
    sub += body
    whole = (sub + b"\0" * (-len(sub) % 4)) * count
    return wifi(Dot11QoS(A_MSDU_Present=1) / Raw(whole), subtype=8)


def attribute(order: str, kind: int, value: bytes) -> bytes:
    """A netlink attribute."""
    size = struct.pack(order + "HH", len(value) + 4, kind)
    return size + value + b"\0" * (-len(value) % 4)


def nflog(inner: Any, order: str = "<", hook: int = 1, family: int = 2) -> bytes:
    """linux/netfilter/nfnetlink_log.h: the packet's hook, MAC, interface, prefix; the packet."""
    mac = struct.pack(">HH", 6, 0) + bytes.fromhex(c.GATEWAY.replace(":", "")) + b"\0\0"
    kind = 0x0800 if family == 2 else 0x86DD
    return (
        struct.pack(">BBH", family, 0, 5)
        + attribute(order, 1, struct.pack(">HBx", kind, hook))
        + attribute(order, 10, b"prefix\0")
        + attribute(order, 4, struct.pack(">I", 7))
        + attribute(order, 8, mac)
        + attribute(order, 9, bytes(inner))
    )


def pktap(data: bytes, link: int, flags: int = 1) -> bytes:
    """bsd/net/pktap.h: length, what follows, its link type, name, flags; 108 bytes here."""
    head = struct.pack("<III24sI", 108, 1, link, b"en0", flags)
    return head + b"\0" * (108 - len(head)) + data


def pflog(data: bytes, way: int = 1) -> bytes:
    """OpenBSD's pfloghdr: 61 bytes, padded to 64."""
    return struct.pack("BB58xB3x", 61, 2, way) + data


MACSEC = MACsec(SC=1, SCI=b"1" * 8, E=0, C=0, PN=1, type=0x0800)
AH4 = struct.pack(">BBHIIQI", 6, 5, 0, 1, 1, 0, 0) + b"\0" * 4

FRAMES.update(
    {
        "vlan-9100": (1, bytes(tagged(0x9100, INNER))),
        "vlan-9200": (1, bytes(tagged(0x9200, INNER6, 0x86DD))),
        "qinq-9100": (1, bytes(tagged(0x9100, Dot1Q(vlan=8) / INNER, 0x8100))),
        "vlan-12": (1, bytes(ether(_stack(Dot1Q, 12) / INNER))),
        "pppoe": (1, bytes(ether(PPPoE(sessionid=7) / PPP() / INNER))),
        "pppoe-6": (1, bytes(ether(Dot1Q(vlan=7) / PPPoE(sessionid=7) / PPP() / INNER6))),
        "mpls": (1, bytes(ether(MPLS(label=100, s=1) / INNER))),
        "mpls-6": (1, bytes(ether(MPLS(label=9, s=0) / MPLS(label=8, s=0) / MPLS(s=1) / INNER6))),
        "mpls-pppoe": (1, bytes(ether(PPPoE() / PPP(proto=0x281) / MPLS(label=100, s=1) / INNER))),
        "pseudowire": (1, bytes(ether(MPLS(label=100, s=1) / Raw(b"\0" * 4) / ether(INNER)))),
        "pseudowire-bare": (1, bytes(ether(MPLS(label=100, s=1) / ether(INNER6)))),
        "pseudowire-vlan": (
            1,
            bytes(
                ether(MPLS(s=1) / Ether(dst="40:00:00:00:00:01", src=c.GATEWAY) / Dot1Q() / INNER)
            ),
        ),
        "mpls-multicast-type": (1, typed(0x8848, bytes(MPLS(label=100, s=1) / INNER))),
        "cisco-metadata": (1, metadata(bytes(INNER))),
        "cisco-metadata-6": (1, metadata(bytes(INNER6), 0x86DD)),
        "vn-tag": (1, typed(0x8926, struct.pack(">IH", 5, 0x0800) + bytes(INNER))),
        "r-tag": (1, typed(0xF1C1, struct.pack(">IH", 5, 0x86DD) + bytes(INNER6))),
        "e-tag": (1, typed(0x893F, struct.pack(">HIH", 0, 5, 0x0800) + bytes(INNER))),
        "backbone": (
            1,
            bytes(ether(scapy_l2.Dot1AD(vlan=7) / scapy_l2.Dot1AH(isid=5) / ether(INNER))),
        ),
        "snap": (1, bytes(length() / snapped(INNER))),
        "snap-6": (
            1,
            bytes(length() / snapped(INNER6, OUI=0xF8)),
        ),
        "llc-ip": (
            1,
            bytes(length() / LLC(dsap=6, ssap=6, ctrl=3) / INNER),
        ),
        "macsec-plain": (
            1,
            bytes(ether(MACSEC / INNER)),
        ),
        "nsh": (1, bytes(ether(NSH(mdtype=1) / INNER))),
        "gre-teb-6": (1, bytes(ether(IPv6(**OUTER6, nh=47) / GRE(proto=0x6558) / ether(INNER6)))),
        "gre-mpls": (1, bytes(ether(IP(**OUTER) / GRE(proto=0x8847) / MPLS(s=1) / INNER))),
        "pptp": (1, bytes(ether(IP(**OUTER) / _pptp(ack_number=9) / PPP() / INNER))),
        "pptp-6": (1, bytes(ether(IP(**OUTER) / _pptp() / PPP() / INNER6))),
        "erspan-1": (1, bytes(ether(IP(**OUTER) / GRE(proto=0x88BE) / ether(INNER)))),
        "erspan-2": (
            1,
            bytes(
                ether(
                    IP(**OUTER) / GRE(proto=0x88BE, seqnum_present=1) / ERSPAN_II() / ether(INNER6)
                )
            ),
        ),
        "erspan-3": (
            1,
            bytes(
                ether(
                    IPv6(**OUTER6, nh=47)
                    / GRE(proto=0x22EB, seqnum_present=1)
                    / ERSPAN_III(o=0)
                    / ether(Dot1Q(vlan=9) / INNER)
                )
            ),
        ),
        "erspan-3-platform": (
            1,
            bytes(
                ether(
                    IP(**OUTER)
                    / GRE(proto=0x22EB, seqnum_present=1)
                    / ERSPAN_III(o=1)
                    / ERSPAN_PlatformSpecific()
                    / ether(INNER6)
                )
            ),
        ),
        "etherip": (1, bytes(ether(IP(**OUTER, proto=97) / EtherIP() / ether(INNER)))),
        "mpls-in-ip": (1, bytes(ether(IP(**OUTER, proto=137) / MPLS(s=1) / INNER))),
        "srv6-ethernet": (1, bytes(ether(IPv6(**OUTER6, nh=143) / ether(INNER)))),
        "vxlan-scapy": (1, bytes(ether(IP(**OUTER) / UDP() / VXLAN(vni=7) / ether(INNER)))),
        "vxlan-gpe": (
            1,
            bytes(ether(IP(**OUTER) / _udp(4790) / VXLAN(flags=0x0C, NextProtocol=2) / INNER6)),
        ),
        "geneve": (1, bytes(ether(IP(**OUTER) / _udp(6081) / GENEVE(vni=7) / ether(INNER)))),
        "geneve-options": (
            1,
            bytes(
                ether(
                    IPv6(**OUTER6)
                    / _udp(6081)
                    / GENEVE(vni=7, optionlen=2, options=b"\1\2\x80\1wxyz")
                    / ether(INNER6)
                )
            ),
        ),
        "geneve-ip": (1, bytes(ether(IP(**OUTER) / _udp(6081) / GENEVE(proto=0x0800) / INNER))),
        "gtp": (1, bytes(ether(IP(**OUTER) / _udp(2152) / GTP_U_Header(teid=5) / INNER))),
        "gtp-sequence": (1, bytes(ether(IP(**OUTER) / _udp(2152) / _gtp(S=1, seq=9) / INNER6))),
        "gtp-extension": (
            1,
            bytes(
                ether(IP(**OUTER) / _udp(2152) / _gtp(E=1, next_ex=0x85) / Raw(b"\1\0\5\0") / INNER)
            ),
        ),
        "l2tp": (
            1,
            bytes(
                ether(IP(**OUTER) / _udp(1701) / L2TP(hdr=0, tunnel_id=1) / HDLC() / PPP() / INNER)
            ),
        ),
        "l2tp-all": (
            1,
            bytes(
                ether(
                    IP(**OUTER)
                    / _udp(1701)
                    / L2TP(hdr="length+sequence+offset", ns=1, nr=2, offset=0)
                    / PPP()
                    / INNER6
                )
            ),
        ),
        "tzsp": (1, bytes(ether(IP(**OUTER) / _udp(37008) / TZSP() / _TZSP_TAGS / ether(INNER)))),
        "mpls-in-udp": (1, bytes(ether(IP(**OUTER) / _udp(6635) / MPLS(s=1) / INNER6))),
        "ppp": (9, bytes(HDLC() / PPP() / INNER)),
        "ppp-short": (9, b"\x57" + bytes(INNER6)),
        "ppp-hdlc": (50, bytes(PPP() / INNER)),
        "ppp-in": (204, b"\0" + bytes(HDLC() / PPP() / INNER)),
        "pppd": (166, b"\1\3" + bytes(PPP() / INNER6)),
        "pppoe-link": (51, bytes(PPPoE(sessionid=7) / PPP() / INNER)),
        "cisco-hdlc": (104, b"\x0f\0\x08\0" + bytes(INNER)),
        "rfc1483": (100, bytes(snapped(INNER6))),
        "fddi": (10, b"\x50" + bytes(ether(INNER))[:12] + bytes(snapped(INNER))),
        "enc": (109, struct.pack("<III", 2, 7, 0) + bytes(INNER)),
        "pflog": (117, pflog(bytes(INNER6))),
        "firewire": (138, b"d" * 8 + b"s" * 8 + b"\x86\xdd" + bytes(INNER6)),
        "netanalyzer": (240, b"\0\0\0\0" + bytes(ether(INNER))),
        "nflog": (239, nflog(INNER)),
        "nflog-6-be": (239, nflog(INNER6, ">", family=10)),
        "wifi": (105, bytes(wifi(snapped(INNER)))),
        "wifi-to-ap": (105, bytes(wifi(snapped(INNER6), TO_DS))),
        "wifi-ad-hoc": (105, bytes(wifi(snapped(INNER), 0))),
        "wifi-four": (105, bytes(wifi(snapped(INNER), TO_DS | FROM_DS))),
        "wifi-qos": (105, bytes(wifi(Dot11QoS() / snapped(INNER6), subtype=8))),
        "wifi-qos-ht": (
            105,
            bytes(wifi(Dot11QoS() / Raw(b"\0" * 4) / snapped(INNER), FROM_DS | ORDER, subtype=8)),
        ),
        "wifi-four-qos": (
            105,
            bytes(wifi(Dot11QoS() / snapped(INNER), TO_DS | FROM_DS, subtype=8)),
        ),
        "wifi-amsdu": (105, bytes(amsdu(1))),
        "wifi-vlan": (105, bytes(wifi(snapped(Dot1Q(vlan=7) / INNER)))),
        "radiotap": (127, bytes(RadioTap() / wifi(snapped(INNER)))),
        "radiotap-fields": (
            127,
            bytes(
                RadioTap(present="TSFT+Flags+Rate", mac_timestamp=1, Flags="FCS", Rate=2)
                / wifi(snapped(INNER6))
            )
            + b"\0\0\0\0",
        ),
        "radiotap-padded": (
            127,
            bytes(RadioTap(present="Flags", Flags="pad"))
            + bytes(wifi(Dot11QoS() / Raw(b"\0\0") / snapped(INNER), subtype=8)),
        ),
        "prism": (119, bytes(PrismHeader() / wifi(snapped(INNER)))),
        "avs": (
            163,
            struct.pack(">II", 0x80211001, 64) + b"\0" * 56 + bytes(wifi(snapped(INNER6))),
        ),
        "ppi-wifi": (192, bytes(PPI(dlt=105, len=8)) + bytes(wifi(snapped(INNER)))),
        "ppi-ethernet": (192, bytes(PPI(dlt=1, len=8)) + bytes(ether(INNER6))),
        "pktap": (258, pktap(bytes(ether(INNER)), 1)),
        "pktap-6": (258, pktap(bytes(ether(INNER6)), 1, 2)),
        "sll-pppoe": (113, sll(0x8864, bytes(PPPoE() / PPP() / INNER))),
        "sll2-mpls": (276, sll2(0x8847, bytes(MPLS(s=1) / INNER))),
        "sll-snap": (113, sll(4, bytes(snapped(INNER)))),
        "ah-4": (
            101,
            bytes(
                IP(src=c.US, dst=c.PEER, ttl=57, id=0x1234, flags="DF", proto=51)
                / (AH4 + bytes(INNER[TCP]))
            ),
        ),
    }
)


SIX = {name for name, (_, data) in FRAMES.items() if bytes(INNER6)[8:40] in data}
SIX |= {"hop-by-hop", "ah", "first-fragment-6", "teredo-clients"}
"""Those whose innermost packet is IPv6."""

LINKS_WITH_MAC = {1, 10, 105, 113, 119, 127, 163, 192, 239, 240, 276, 258}
"""Link types whose frames here tell who handed the packet over."""

# ---- any of them in any other ----

Wrapper = Callable[[bytes, random.Random], bytes]


def _outer(chance: random.Random) -> Any:
    return IP(**OUTER, ttl=9) if chance.randrange(2) else IPv6(**OUTER6, hlim=9)


def _in_ip(protocol: int, chance: random.Random, inner: Any) -> bytes:
    if chance.randrange(2):
        return bytes(IP(**OUTER, ttl=9, proto=protocol) / inner)
    return bytes(IPv6(**OUTER6, hlim=9, nh=protocol) / inner)


def _kind(packet: bytes) -> int:
    return 0x0800 if packet[0] >> 4 == 4 else 0x86DD


def _tags(packet: bytes, chance: random.Random) -> bytes:
    """An Ethernet frame: up to four tags of any kind before the packet."""
    kind, made = _kind(packet), packet
    for _ in range(chance.randrange(5)):
        number = chance.choice((0x8100, 0x88A8, 0x9100, 0x9200, 0x8909, 0x8926, 0x893F, 0xF1C1))
        size = {0x8909: 6, 0x893F: 6, 0x8926: 4, 0xF1C1: 4}.get(number, 2)
        made = chance.randbytes(size) + struct.pack(">H", kind) + made
        kind = number
    return typed(kind, made)


def _ppp(packet: bytes) -> Any:
    return PPP(proto=0x21 if _kind(packet) == 0x0800 else 0x57) / Raw(packet)


FRAME_OF: dict[str, Wrapper] = {
    "tags": _tags,
    "pppoe": lambda p, r: bytes(ether(PPPoE(sessionid=7) / _ppp(p))),
    "mpls": lambda p, r: bytes(ether(MPLS(s=0, label=r.randrange(1 << 20)) / MPLS(s=1) / Raw(p))),
    "snap": lambda p, r: bytes(length() / snapped(Raw(p), code=_kind(p))),
    "nsh": lambda p, r: bytes(
        ether(NSH(mdtype=1, nextproto=1 if _kind(p) == 0x0800 else 2) / Raw(p))
    ),
}
"""An Ethernet frame around an IP packet."""

PACKET_OF_FRAME: dict[str, Wrapper] = {
    "vxlan": lambda f, r: bytes(_outer(r) / _udp(4789) / VXLAN(vni=r.randrange(99)) / Raw(f)),
    "geneve": lambda f, r: bytes(
        _outer(r) / _udp(6081) / GENEVE(vni=r.randrange(99), proto=0x6558) / Raw(f)
    ),
    "teb": lambda f, r: _in_ip(47, r, GRE(proto=0x6558, key_present=r.randrange(2)) / Raw(f)),
    "erspan-1": lambda f, r: _in_ip(47, r, GRE(proto=0x88BE) / Raw(f)),
    "erspan-2": lambda f, r: _in_ip(
        47, r, GRE(proto=0x88BE, seqnum_present=1) / ERSPAN_II() / Raw(f)
    ),
    "erspan-3": lambda f, r: _in_ip(
        47, r, GRE(proto=0x22EB, seqnum_present=1) / ERSPAN_III(o=0) / Raw(f)
    ),
    "etherip": lambda f, r: _in_ip(97, r, EtherIP() / Raw(f)),
    "pseudowire": lambda f, r: _in_ip(137, r, MPLS(s=1) / Raw(b"\0" * 4) / Raw(f)),
}
"""An IP packet around an Ethernet frame."""

PACKET_OF_PACKET: dict[str, Wrapper] = {
    "ipip": lambda p, r: _in_ip(4 if _kind(p) == 0x0800 else 41, r, Raw(p)),
    "gre": lambda p, r: _in_ip(47, r, GRE(proto=_kind(p), chksum_present=r.randrange(2)) / Raw(p)),
    "gtp": lambda p, r: bytes(_outer(r) / _udp(2152) / _gtp() / Raw(p)),
    "l2tp": lambda p, r: bytes(_outer(r) / _udp(1701) / L2TP(hdr=0, tunnel_id=1) / _ppp(p)),
    "pptp": lambda p, r: _in_ip(47, r, _pptp() / _ppp(p)),
    "mpls-udp": lambda p, r: bytes(_outer(r) / _udp(6635) / MPLS(s=1) / Raw(p)),
}
"""An IP packet around an IP packet."""

LINK_OF: dict[int, Wrapper] = {
    1: _tags,
    101: lambda p, r: p,
    113: lambda p, r: sll(_kind(p), p),
    276: lambda p, r: sll2(_kind(p), p),
    105: lambda p, r: bytes(wifi(Dot11QoS() / snapped(Raw(p), code=_kind(p)), subtype=8)),
    127: lambda p, r: bytes(RadioTap() / wifi(snapped(Raw(p), code=_kind(p)))),
    239: lambda p, r: nflog(Raw(p), r.choice("<>")),
    9: lambda p, r: bytes(HDLC() / _ppp(p)),
}
"""A captured frame of a link type around an IP packet."""


def combined(chance: random.Random, most: int) -> tuple[int, bytes, list[str]]:
    """INNER or INNER6 in up to `most` tunnels, at random; the link type, the frame, how."""
    packet = bytes(chance.choice((INNER, INNER6)))
    how = []
    for _ in range(chance.randrange(most + 1)):
        name = chance.choice((*PACKET_OF_FRAME, *PACKET_OF_PACKET))
        how.append(name)
        if name in PACKET_OF_PACKET:
            packet = PACKET_OF_PACKET[name](packet, chance)
            continue
        frame = chance.choice(list(FRAME_OF))
        how.append(frame)
        packet = PACKET_OF_FRAME[name](FRAME_OF[frame](packet, chance), chance)
    link = chance.choice(list(LINK_OF))
    return link, LINK_OF[link](packet, chance), how[::-1]
