from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
import scapy.layers.inet as scapy_inet
import scapy.layers.inet6 as scapy_inet6
import scapy.layers.l2 as scapy_l2

from rsttrace.capture.layers import (
    INBOUND,
    OUTBOUND,
    Dissector,
    Segment,
    checksum_left_to_card,
    ip_checksum_ok,
    tcp_checksum_ok,
)
from rsttrace.tcp import sum16
from tests.unit import captures as c

IP, UDP, TCP = scapy_inet.IP, scapy_inet.UDP, scapy_inet.TCP
IPv6 = scapy_inet6.IPv6
Ether, GRE = scapy_l2.Ether, scapy_l2.GRE

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


def find(link: int, data: bytes, wire: int | None = None) -> Segment | None:
    return Dissector().segment(link, data, len(data) if wire is None else wire)


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


SIX = {
    *("ethernet-6", "vlan-3", "raw-6", "ipv6", "sll-6", "sll2-6", "loop-6", "6in4", "6in6", "ah"),
    *("null-6-mac", "null-6-freebsd", "hop-by-hop", "first-fragment-6", "gre-key", "vxlan-linux"),
    *("teredo", "teredo-authenticated", "teredo-origin", "teredo-clients"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_the_innermost_segment_is_found(name: str) -> None:
    found = find(*FRAMES[name])
    assert found is not None
    six = found.version == 6
    assert six == (name in SIX)
    assert (found.ttl, found.flags, found.window, found.payload_len) == (57, 0x18, 501, 5)
    assert (found.seq, found.ack) == (0x01020304, 0x05060708)
    assert (found.ip_id, found.df) == ((0, False) if six else (0x1234, True))
    assert found.key[32 if six else 8 :][:4] == struct.pack(">HH", 51234, 443)
    assert found.reverse_key[32 if six else 8 :][:4] == struct.pack(">HH", 443, 51234)
    if found.mac >= 0:
        assert found.source_mac == c.GATEWAY
    assert (found.mac >= 0) == (FRAMES[name][0] in (1, 113, 276))


@pytest.mark.parametrize("name", FRAMES)
def test_a_cut_frame_gives_what_was_captured(name: str) -> None:
    """Cut anywhere: from TCP's flags on, the segment; the window only where it is there."""
    link, data = FRAMES[name]
    whole = find(link, data)
    assert whole is not None
    for size in range(len(data)):
        dissector = Dissector()
        found = dissector.segment(link, data[:size], len(data))
        if size < whole.l4 + 14:
            assert found is None
            continue
        assert found is not None
        assert (found.key, found.flags, found.seq) == (whole.key, whole.flags, whole.seq)
        assert found.payload_len == whole.payload_len
        assert found.window == (501 if size >= whole.l4 + 16 else None)
        assert tcp_checksum_ok(found) is None
    assert Dissector().segment(link, b"", len(data)) is None


@pytest.mark.parametrize("name", FRAMES)
def test_damaged_frames_are_no_error(name: str) -> None:
    chance = random.Random(name)
    link, data = FRAMES[name]
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(chance.randrange(1, 6)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        found = find(link, bytes(changed[: chance.randrange(len(changed) + 1)]), len(data))
        if found is not None:
            tcp_checksum_ok(found)
            ip_checksum_ok(found)
            assert found.reverse_key != b""
            assert 0 <= found.payload_len <= 0x20000


def test_what_is_no_tcp() -> None:
    frames = [
        ether(IP(**OUTER) / UDP(dport=53) / (b"x" * 60)),
        ether(scapy_l2.ARP()),
        ether(IP(**OUTER) / scapy_inet.ICMP(type=3) / INNER),  # quoted, not sent
        ether(IP(**OUTER) / GRE(version=1) / INNER),  # PPTP
        ether(IP(**OUTER) / UDP(dport=50001) / bytes(INNER6)),  # no Teredo address: by chance
        ether(IPv6(**OUTER6, nh=59)),
    ]
    dissector = Dissector()
    for frame in frames:
        assert dissector.segment(1, bytes(frame), len(frame)) is None
    assert (dissector.cut, dict(dissector.links)) == (0, {})


def test_what_could_not_be_read_is_counted() -> None:
    dissector = Dissector()
    later = IP(src=c.US, dst=c.PEER, frag=5) / (b"x" * 40)
    later6 = IPv6(src=c.US6) / scapy_inet6.IPv6ExtHdrFragment(offset=5, nh=6) / (b"x" * 40)
    for packet in (later, later6):
        assert dissector.segment(101, bytes(packet), len(packet)) is None
    assert dissector.segment(105, b"x" * 100, 100) is None  # 802.11
    assert dissector.segment(1, bytes(ether(INNER))[:40], 200) is None
    assert (dissector.cut, dict(dissector.links)) == (1, {105: 1})


def test_first_fragment_of_ipv4() -> None:
    first = IP(src=c.US, dst=c.PEER, flags="MF") / INNER[TCP]
    found = find(101, bytes(first))
    assert found is not None
    assert found.fragment
    assert tcp_checksum_ok(found) is None  # it covers what came in other fragments


def test_vxlan_networks_are_told_apart() -> None:
    keys = set()
    for network in (7, 8):
        frame = ether(IP(**OUTER) / UDP(dport=4789) / vxlan(network, ether(INNER)))
        found = find(1, bytes(frame))
        assert found is not None
        keys |= {found.key, found.reverse_key}
        assert found.source == bytes([10, 0, 0, 5])
        assert found.destination == bytes([198, 51, 100, 7])
    assert len(keys) == 4


@pytest.mark.parametrize("make", [sll, sll2])
def test_cooked_captures_say_which_way(make: Callable[..., bytes]) -> None:
    link = 113 if make is sll else 276
    ways = []
    for kind in range(5):
        found = find(link, make(0x0800, bytes(INNER), kind))
        assert found is not None
        ways.append(found.direction)
        assert found.interface == (7 if link == 276 else 0)
    assert ways == [INBOUND, 0, 0, 0, OUTBOUND]


def test_offloaded_buffers_without_a_length() -> None:
    """Windows and BIG TCP leave the IP length 0: the frame's own counts."""
    data = bytearray(bytes(INNER) + b"y" * 3000)
    data[2:4] = b"\0\0"
    found = find(101, bytes(data[:80]), len(data))
    assert found is not None
    assert found.payload_len == 3005
    data6 = bytearray(bytes(INNER6) + b"y" * 3000)
    data6[4:6] = b"\0\0"
    found = find(101, bytes(data6[:80]), len(data6))
    assert found is not None
    assert found.payload_len == 3005


def test_ethernet_padding_is_no_payload() -> None:
    packet = IP(src=c.US, dst=c.PEER) / TCP(flags="R")
    found = find(1, bytes(ether(packet)) + b"\0" * 6)
    assert found is not None
    assert found.payload_len == 0
    assert tcp_checksum_ok(found) is True


@pytest.mark.parametrize("change", [{"dataofs": 4}, {"dataofs": 15}])
def test_a_malformed_rst_is_none(change: dict[str, int]) -> None:
    """Every stack drops it unread."""
    packet = IP(src=c.US, dst=c.PEER) / TCP(flags="R", **change)
    assert find(101, bytes(packet)) is None


# ---- checksums ----


@pytest.mark.parametrize("packet", [INNER, INNER6, INNER.copy() / b"!"], ids=["4", "6", "odd"])
def test_checksums(packet: Any) -> None:
    data = bytearray(bytes(packet))
    right = find(101, bytes(data))
    assert right is not None
    assert tcp_checksum_ok(right) is True
    assert ip_checksum_ok(right) is (None if right.version == 6 else True)
    data[right.l4 + 16] ^= 0x40
    wrong = find(101, bytes(data))
    assert wrong is not None
    assert tcp_checksum_ok(wrong) is False
    if right.version == 4:
        data[10] ^= 1
        wrong = find(101, bytes(data))
        assert wrong is not None
        assert ip_checksum_ok(wrong) is False


@pytest.mark.parametrize("packet", [INNER, INNER6], ids=["4", "6"])
def test_a_checksum_left_to_the_card_is_not_wrong(packet: Any) -> None:
    data = bytearray(bytes(packet))
    found = find(101, bytes(data))
    assert found is not None
    assert not checksum_left_to_card(found)
    pseudo = found.source + found.destination + struct.pack(">HH", 6, len(data) - found.l4)
    data[found.l4 + 16 : found.l4 + 18] = struct.pack(">H", sum16(pseudo))
    found = find(101, bytes(data))
    assert found is not None
    assert checksum_left_to_card(found)
    assert tcp_checksum_ok(found) is None
    for at in ((10, 12) if found.version == 4 else (), (found.l4 + 16, found.l4 + 18)):
        if at:
            data[slice(*at)] = b"\0\0"
    found = find(101, bytes(data))
    assert found is not None
    assert (tcp_checksum_ok(found), ip_checksum_ok(found)) == (None, None)
