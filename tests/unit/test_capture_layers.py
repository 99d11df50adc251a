from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
import scapy.layers.inet as scapy_inet
import scapy.layers.inet6 as scapy_inet6
import scapy.layers.l2 as scapy_l2
from scapy.layers.dot11 import RadioTap

from rsttrace.capture.layers import (
    Dissector,
    Segment,
    checksum_left_to_card,
    ip_checksum_ok,
    tcp_checksum_ok,
)
from rsttrace.capture.links import INBOUND, OUTBOUND
from rsttrace.tcp import sum16
from tests.unit import captures as c
from tests.unit.frames import (
    FRAMES,
    GRE,
    INNER,
    INNER6,
    IP,
    LINKS_WITH_MAC,
    OUTER,
    OUTER6,
    PROTECTED,
    SIX,
    TCP,
    UDP,
    IPv6,
    amsdu,
    combined,
    ether,
    nflog,
    pktap,
    sll,
    sll2,
    snapped,
    typed,
    vxlan,
    wifi,
)


def find(link: int, data: bytes, wire: int | None = None) -> Segment | None:
    return Dissector().segment(link, data, len(data) if wire is None else wire)


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
    assert (found.mac >= 0) == (FRAMES[name][0] in LINKS_WITH_MAC)


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
        assert tcp_checksum_ok(found) is (True if size >= whole.end else None)  # only padding cut
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
        ether(IP(**OUTER) / scapy_l2.GRE_PPTP(acknum_present=1)),  # an acknowledgment alone
        ether(IP(**OUTER) / UDP(dport=50001) / bytes(INNER6)),  # no Teredo address: by chance
        ether(IPv6(**OUTER6, nh=59)),
    ]
    dissector = Dissector()
    for frame in frames:
        assert dissector.segment(1, bytes(frame), len(frame)) is None
    assert not dissector.unread


def test_what_could_not_be_read_is_counted() -> None:
    dissector = Dissector()
    later = IP(src=c.US, dst=c.PEER, frag=5, proto=6) / (b"x" * 40)
    later6 = IPv6(src=c.US6) / scapy_inet6.IPv6ExtHdrFragment(offset=5, nh=6) / (b"x" * 40)
    for packet in (later, later6):
        for link in (101, 228):
            assert dissector.segment(link, bytes(packet), len(packet)) is None
    assert dissector.segment(147, b"x" * 100, 100) is None
    assert dissector.segment(1, bytes(ether(INNER))[:40], 200) is None
    assert dissector.unread.told() == [
        "4 packets that are later fragments were not read",
        "1 packet cut off before the TCP flags was not read",
        "1 packet of link type 147 was not read",
    ]


ESP = IP(**OUTER, proto=50) / (b"\0\0\1\0" + b"x" * 60)
NOT_READ: dict[str, tuple[int, bytes]] = {
    "of EtherType 0x88e5 (MACsec)": (1, typed(0x88E5, b"\x2c" + b"x" * 60)),
    "of EtherType 0x9999 (Realtek's switch tag)": (1, typed(0x9999, b"x" * 60)),
    "of EtherType 0xabcd": (1, typed(0x8100, b"\0\1\xab\xcd" + b"x" * 60)),
    "of IP protocol 50 (ESP, encrypted)": (1, bytes(ether(ESP))),
    "of ESP in UDP (encrypted)": (
        1,
        bytes(ether(IP(**OUTER) / UDP(sport=4500, dport=9) / (b"\1" * 40))),
    ),
    "of GRE with source routing or of an unknown version": (
        1,
        bytes(ether(IP(**OUTER) / GRE(version=1) / INNER)),
    ),
    "of PPP protocol 0x00fd": (9, b"\xfd" + b"x" * 60),
    "of MPLS that holds neither IP nor Ethernet": (1, typed(0x8847, b"\0\0\1\1" + b"\x20" * 60)),
    "encrypted by 802.11": (105, bytes(wifi(snapped(INNER), PROTECTED | 2))),
    "that are later fragments (802.11)": (105, bytes(wifi(snapped(INNER), SC=3))),
    "with a wrong checksum (802.11)": (
        127,
        bytes(RadioTap(present="Flags", Flags="badFCS") / wifi(snapped(INNER))),
    ),
    "of 802.11 with an unknown header": (119, b"\xff" * 60),
    "of NFLOG version 7": (239, b"\2\7" + nflog(INNER)[2:]),
    "of NFLOG with a damaged header": (239, nflog(INNER)[:4] + b"\0" * 60),
    "of link type 147": (147, b"x" * 60),
    "of link type 192": (192, b"\0\0\x08\0\xc0\0\0\0" * 9),  # PPI in PPI in PPI
    "with more than 40 headers": (1, typed(0x8100, b"\0\1\x81\0" * 60)),
    "that are later fragments": (101, bytes(IP(**OUTER, frag=9, proto=6) / (b"x" * 60))),
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_what_may_hold_a_segment_and_is_not_read_is_said(kind: str) -> None:
    link, data = NOT_READ[kind]
    dissector = Dissector()
    for _ in range(1024):
        assert dissector.segment(link, data, len(data)) is None
    assert dissector.unread.told() == [f"1,024 packets {kind} were not read"]


def test_what_holds_no_segment_is_no_loss() -> None:
    dissector = Dissector()
    frames = [
        (1, typed(0x88CC, b"x" * 60)),  # LLDP
        (1, bytes(scapy_l2.Dot3() / scapy_l2.LLC() / scapy_l2.STP())),
        (1, typed(0x8863, b"\x11\x09" + b"x" * 60)),  # PPPoE discovery
        (1, typed(0x8864, b"\x11\0\0\1\0\6\xc0\x21" + b"x" * 60)),  # LCP
        (105, bytes(wifi(b"", subtype=4))),  # a null frame
        (105, b"\x80\0" + b"x" * 60),  # a beacon
        (0, b"\x07\0\0\0" + b"x" * 60),
        (258, pktap(b"x", 1)[:4] + b"\0" * 60),
        (101, bytes(IP(**OUTER, frag=9, proto=17) / (b"x" * 60))),
        (1, bytes(ether(IP(**OUTER) / UDP(sport=4500, dport=4500) / (b"\0" * 40)))),  # IKE
    ]
    for link, data in frames:
        assert dissector.segment(link, data, len(data)) is None
    assert dissector.unread.told() == []


def test_many_kinds_are_summed_up() -> None:
    dissector = Dissector()
    for number in range(300):
        for _ in range(2 if number < 6 else 1):
            data = typed(0xB000 + number, b"x" * 60)
            assert dissector.segment(1, data, len(data)) is None
    told = dissector.unread.told()
    assert told[0] == "2 packets of EtherType 0xb000 were not read"
    assert (len(told), told[-1]) == (7, "294 packets of 294 other kinds were not read")


def test_of_an_amsdu_the_first_is_read_and_the_rest_counted() -> None:
    dissector = Dissector()
    for count in (1, 3):
        data = bytes(amsdu(count))
        found = dissector.segment(105, data, len(data))
        assert found is not None
        assert found.ttl == 57
    assert dissector.unread.told() == [
        "1 packet behind the first one of an A-MSDU (802.11) was not read"
    ]


@pytest.mark.parametrize("seed", range(20))
def test_any_tunnel_in_any_other(seed: int) -> None:
    """What scapy wraps 100 times is unwrapped, and cut anywhere it is no error."""
    chance = random.Random(seed)
    for _ in range(100):
        link, data, how = combined(chance, 5)
        dissector = Dissector()
        found = dissector.segment(link, data, len(data))
        assert found is not None, (link, how, dissector.unread.told())
        assert (found.ttl, found.flags, found.payload_len) == (57, 0x18, 5), (link, how)
        assert found.key[-len(found.tag) - 4 :][:4] == struct.pack(">HH", 51234, 443)
        cut = chance.randrange(len(data))
        part = Dissector().segment(link, data[:cut], len(data))
        assert (part is not None) == (cut >= found.l4 + 14), (link, how, cut)


def test_the_mark_of_a_capture_says_which_way() -> None:
    ways = {
        (239, 1): (nflog(INNER, hook=1), INBOUND),
        (239, 2): (nflog(INNER, hook=2), 0),
        (239, 3): (nflog(INNER, hook=3), OUTBOUND),
        (258, 1): (pktap(bytes(ether(INNER)), 1, 1), INBOUND),
        (258, 2): (pktap(bytes(ether(INNER)), 1, 2), OUTBOUND),
        (166, 1): (FRAMES["pppd"][1], OUTBOUND),
        (204, 0): (FRAMES["ppp-in"][1], INBOUND),
        (117, 1): (FRAMES["pflog"][1], INBOUND),
    }
    for (link, _), (data, way) in ways.items():
        found = find(link, data)
        assert found is not None
        assert found.direction == way
        assert found.interface == (7 if link == 239 else 0)


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
