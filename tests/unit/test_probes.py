"""The probes' bytes, with scapy as the second opinion."""

from __future__ import annotations

import random
import socket
import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    ICMPv6TimeExceeded,
    IPv6,
    in6_getnsma,
    in6_getnsmac,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet as ScapyPacket

from rsttrace.enrich import probes

V4 = "10.0.0.5", "10.9.8.7"
V6 = "2001:db8::5", "2001:db8:9::7"
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def ends(family: int) -> tuple[str, str]:
    return V4 if family == 4 else V6


def packed(family: int) -> tuple[bytes, bytes]:
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    source, target = ends(family)
    return socket.inet_pton(kind, source), socket.inet_pton(kind, target)


def layer(family: int) -> ScapyPacket:
    source, target = ends(family)
    return IP(src=source, dst=target, ttl=7) if family == 4 else IPv6(src=source, dst=target)


@FAMILIES
@pytest.mark.parametrize("seq", [0, 1, 0x12345678, 0xFFFFFFFF])
def test_syn(family: int, seq: int) -> None:
    made = probes.tcp_syn(*packed(family), (40000, 443), seq)
    tcp = TCP(sport=40000, dport=443, seq=seq, flags="S", window=64240, options=[("MSS", 1220)])
    assert made == bytes((layer(family) / tcp)[TCP])


@FAMILIES
def test_rst(family: int) -> None:
    made = probes.tcp_rst(*packed(family), (40000, 443), 0xFEDCBA98)
    tcp = TCP(sport=40000, dport=443, seq=0xFEDCBA98, flags="R", window=0)
    assert made == bytes((layer(family) / tcp)[TCP])


@FAMILIES
def test_udp(family: int) -> None:
    made = probes.udp_datagram(*packed(family), (40000, 33440))
    assert made == bytes((layer(family) / UDP(sport=40000, dport=33440) / bytes(8))[UDP])


def test_udp_checksum_of_zero_is_sent_as_ones() -> None:
    """RFC 768: zero on the wire means that there is none."""
    for port in range(65536):
        made = probes.udp_datagram(*packed(4), (port, 33440))
        assert made[6:8] != b"\0\0"
        if made[6:8] == b"\xff\xff":
            return
    raise AssertionError("no port gives that checksum")


def test_echo() -> None:
    made = probes.echo_request(4, 0x1234, 0x0305)
    assert made == bytes(ICMP(type=8, id=0x1234, seq=0x0305) / bytes(8))
    made = probes.echo_request(6, 0x1234, 0x0305)
    theirs = bytes(ICMPv6EchoRequest(id=0x1234, seq=0x0305, data=bytes(8), cksum=0))
    assert made == theirs


def probe(family: int, method: str) -> bytes:
    """A whole probe, as the network carries it."""
    if method == "tcp":
        inner: ScapyPacket = TCP(sport=40000, dport=443, seq=0xDEADBEEF, flags="S")
    elif method == "udp":
        inner = UDP(sport=40000, dport=33440)
    else:
        kind = ICMP if family == 4 else ICMPv6EchoRequest
        inner = kind(id=9, seq=0x0104)
    return bytes(layer(family) / inner)


KEYS = {"tcp": (40000, 0xDEADBEEF), "udp": (40000, 33440), "icmp": (9, 0x0104)}


@FAMILIES
@pytest.mark.parametrize("method", KEYS)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "least"])
def test_time_exceeded(family: int, method: str, whole: bool) -> None:
    quoted = probe(family, method)
    if not whole:  # RFC 792: the IP header and 8 bytes
        quoted = quoted[: 28 if family == 4 else 48]
    error = ICMP(type=11) if family == 4 else ICMPv6TimeExceeded()
    found = probes.read_icmp(family, bytes(error / quoted))
    assert found == probes.Quote("exceeded", method, KEYS[method])


def test_a_quote_with_ip_options() -> None:
    inner = IP(src=V4[0], dst=V4[1], options=[b"\x07\x07\x04\0\0\0\0\0"]) / TCP(
        sport=40000, dport=443, seq=0xDEADBEEF
    )
    found = probes.read_icmp(4, bytes(ICMP(type=11) / bytes(inner)))
    assert found == probes.Quote("exceeded", "tcp", KEYS["tcp"])


@pytest.mark.parametrize("code", range(16))
def test_unreachable(code: int) -> None:
    found = probes.read_icmp(4, bytes(ICMP(type=3, code=code) / probe(4, "tcp")))
    if code == 4:  # too big: the packet's fault, not the place's
        assert found is None
        return
    assert found is not None
    assert (found.kind, found.method, found.key) == ("unreachable", "tcp", KEYS["tcp"])
    assert found.detail == probes.UNREACHABLE[4].get(code, f"unreachable, code {code}")


def test_unreachable_ipv6() -> None:
    found = probes.read_icmp(6, bytes(ICMPv6DestUnreach(code=1) / probe(6, "tcp")))
    assert found is not None
    assert (found.kind, found.detail) == ("unreachable", "administratively prohibited")


def test_echo_replies() -> None:
    found = probes.read_icmp(4, bytes(ICMP(type=0, id=9, seq=0x0104)))
    assert found == probes.Quote("echo", "icmp", KEYS["icmp"])
    found = probes.read_icmp(6, bytes(ICMPv6EchoReply(id=9, seq=0x0104)))
    assert found == probes.Quote("echo", "icmp", KEYS["icmp"])


@FAMILIES
def test_others_are_not_ours(family: int) -> None:
    """Requests to us, reassembly time exceeded, quotes of other protocols, of the other family."""
    other = 10 - family
    exceeded = ICMP(type=11) if family == 4 else ICMPv6TimeExceeded()
    reassembly = ICMP(type=11, code=1) if family == 4 else ICMPv6TimeExceeded(code=1)
    gre = IP(proto=47, src=V4[0], dst=V4[1]) if family == 4 else IPv6(nh=47)
    for message in (
        probes.echo_request(family, 1, 2),
        bytes(reassembly / probe(family, "tcp")),
        bytes(exceeded / probe(other, "tcp")),
        bytes(exceeded / bytes(gre / bytes(20))),
    ):
        assert probes.read_icmp(family, message) is None


@FAMILIES
def test_nothing_malformed_is_believed_or_fatal(family: int) -> None:
    """Every cut, and random bytes in every place."""
    chance = random.Random(5)
    error = ICMP(type=11) if family == 4 else ICMPv6TimeExceeded()
    whole = bytes(error / probe(family, "tcp"))
    least = 8 + (28 if family == 4 else 48)
    for end in range(len(whole)):
        assert (probes.read_icmp(family, whole[:end]) is not None) == (end >= least)
    for _ in range(20_000):
        noise = bytearray(whole[: chance.randrange(len(whole) + 1)])
        for _ in range(chance.randrange(1, 6)):
            if noise:
                noise[chance.randrange(len(noise))] = chance.randrange(256)
        probes.read_icmp(family, bytes(noise))
        probes.read_tcp(bytes(noise))
        probes.split_ipv4(bytes(noise))


def test_segments() -> None:
    raw = bytes(TCP(sport=443, dport=40000, seq=5, ack=6, flags="SA", options=[("MSS", 1)]))
    found = probes.read_tcp(raw + b"xyz")
    assert found == probes.Segment(443, 40000, 5, 6, probes.SYN | probes.ACK, 3)
    assert probes.read_tcp(raw[:19]) is None
    assert probes.read_tcp(raw[:20]) is None  # its options are cut


def test_ipv4_is_split_behind_its_options() -> None:
    whole = IP(src=V4[0], dst=V4[1], ttl=47, options=[b"\x07\x07\x04\0\0\0\0\0"]) / b"abcd"
    assert probes.split_ipv4(bytes(whole) + b"padding") == (47, b"abcd")


def simulate(program: bytes, packet: bytes) -> int:
    """Runs the few classic BPF instructions that the filter uses (bpf(4) of the BSDs)."""
    accumulator = index = at = 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        if code == 0xB1:
            index = 4 * (packet[value] & 15)
        elif code in (0x48, 0x28):
            start = value + (index if code == 0x48 else 0)
            accumulator = struct.unpack_from(">H", packet, start)[0]
        elif code == 0x15:
            at += if_true if accumulator == value else if_false
        elif code == 0x06:
            return int(value)
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


@FAMILIES
def test_the_filter(family: int) -> None:
    ports = [1, 443, 65535, 40000]
    program = probes.port_filter(family, ports)
    for port in (0, 1, 2, 442, 443, 39999, 40000, 65535):
        segment = bytes(layer(family) / TCP(sport=7, dport=port))
        if family == 6:
            segment = segment[40:]
        assert bool(simulate(program, segment)) == (port in ports)
    assert simulate(probes.port_filter(family, []), segment) == 0


# Who has an address

OURS, HOLDER, SENDER = "52:54:00:00:00:05", "00:d0:f8:22:33:44", "00:d0:f8:aa:bb:cc"


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def test_arp_request() -> None:
    made = probes.arp_request(mac(OURS), *packed(4))
    ether = Ether(src=OURS, dst="ff:ff:ff:ff:ff:ff")
    assert made == bytes(ether / ARP(op=1, hwsrc=OURS, psrc=V4[0], hwdst="0:0:0:0:0:0", pdst=V4[1]))


def test_neighbor_solicitation() -> None:
    source, target = packed(6)
    made = probes.neighbor_solicitation(mac(OURS), source, target)
    group = in6_getnsma(target)
    expected = (
        Ether(src=OURS, dst=in6_getnsmac(group))
        / IPv6(src=V6[0], dst=socket.inet_ntop(socket.AF_INET6, group), hlim=255)
        / ICMPv6ND_NS(tgt=V6[1])
        / ICMPv6NDOptSrcLLAddr(lladdr=OURS)
    )
    assert made == bytes(expected)


def reply(**changes: object) -> bytes:
    fields = {"op": 2, "hwsrc": HOLDER, "psrc": V4[1], "hwdst": OURS, "pdst": V4[0], **changes}
    return bytes(Ether(src=SENDER, dst=OURS) / ARP(**fields))


def test_arp_reply() -> None:
    target = packed(4)[1]
    assert probes.read_arp(reply(), target) == HOLDER
    assert probes.read_arp(reply() + bytes(18), target) == HOLDER  # padded to 60 bytes
    for wrong in ({"op": 1}, {"psrc": V4[0]}, {"hwtype": 6}, {"ptype": 0x86DD}, {"hwlen": 8}):
        assert probes.read_arp(reply(**wrong), target) is None
    for size in range(42):
        assert probes.read_arp(reply()[:size], target) is None


def advertisement(*options: ScapyPacket, limit: int = 255, target: str = V6[1]) -> bytes:
    message: ScapyPacket = ICMPv6ND_NA(tgt=target, R=0, S=1)
    for option in options:
        message = message / option
    ends = IPv6(src=V6[1], dst=V6[0], hlim=limit)
    return bytes(Ether(src=SENDER, dst=OURS) / ends / message)


def test_neighbor_advertisement() -> None:
    target = packed(6)[1]
    full = advertisement(
        ICMPv6NDOptUnknown(type=14, data=bytes(6)), ICMPv6NDOptDstLLAddr(lladdr=HOLDER)
    )
    assert probes.read_advertisement(full, target) == HOLDER
    assert probes.read_advertisement(full + bytes(4), target) == HOLDER
    assert probes.read_advertisement(advertisement(), target) == SENDER
    assert probes.read_advertisement(advertisement(limit=254), target) is None
    assert probes.read_advertisement(advertisement(target=V6[0]), target) is None
    assert probes.read_advertisement(reply(), target) is None
    for size in range(len(full)):
        assert probes.read_advertisement(full[:size], target) is None
    for position in range(54, len(full)):
        broken = bytearray(full)
        broken[position] ^= 0x55
        assert probes.read_advertisement(bytes(broken), target) is None


def passes(program: bytes, frame: bytes) -> bool:
    """What the kernel does with a filter of these few instructions (net/core/filter.c)."""
    at, register = 0, 0
    while True:
        code, yes, no, value = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        if code in (0x28, 0x30):
            size = 2 if code == 0x28 else 1
            if value + size > len(frame):
                return False
            register = int.from_bytes(frame[value : value + size], "big")
        elif code == 0x15:
            at += yes if register == value else no
        else:
            assert code == 0x06
            return bool(value)


def test_only_answers_pass() -> None:
    """That the kernel reads the program the same way is seen in tests/lab/test_duplicate.py."""
    arp, nd = probes.answer_filter(4), probes.answer_filter(6)
    assert passes(arp, reply())
    assert not passes(arp, reply(op=1))
    assert passes(nd, advertisement())
    solicitation = probes.neighbor_solicitation(mac(OURS), *packed(6))
    tcp = bytes(Ether() / layer(6) / TCP())
    assert not passes(nd, solicitation)
    assert not passes(nd, tcp)
