"""Probes that die on the way, and the answers of those who let them die: packets as bytes.

Pure functions. Byte order is the network's in every packet. A probe carries a number of 32 bits
(TCP: its sequence number) or 16 (ICMP: its sequence number; UDP: its destination port) that the
answer quotes: a router sends back at least the first 8 bytes behind the IP header (RFC 792; RFC
4443 §2.4 (c): as much as fits), and a TCP peer acknowledges the number plus one (RFC 9293 §3.10.7).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from rsttrace.tcp import checksum

SYN, RST, ACK = 0x02, 0x04, 0x10
_MSS = struct.pack(">BBH", 2, 4, 1220)  # RFC 9293 §3.2; 1220 fits IPv6's least MTU of 1280

UNREACHABLE = {
    # RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1
    4: {
        0: "network unreachable",
        1: "host unreachable",
        2: "protocol unreachable",
        3: "port unreachable",
        9: "network prohibited",
        10: "host prohibited",
        13: "administratively prohibited",
    },
    # RFC 4443 §3.1
    6: {
        0: "no route",
        1: "administratively prohibited",
        3: "address unreachable",
        4: "port unreachable",
        5: "source address refused",
        6: "route refused",
    },
}


@dataclass(frozen=True)
class Quote:
    """An ICMP error: `kind` (``exceeded``, ``unreachable``) and which probe it quotes.

    `method` and `key` name the probe as it was sent: for ``tcp`` the source port and the sequence
    number, for ``udp`` the ports, for ``icmp`` identifier and sequence number. For an answer to an
    echo request, `kind` is ``echo``.
    """

    kind: str
    method: str
    key: tuple[int, int]
    detail: str | None = None


def transport_checksum(source: bytes, target: bytes, protocol: int, segment: bytes) -> int:
    """With the pseudo header of RFC 9293 §3.1 (IPv4) or RFC 8200 §8.1 (IPv6)."""
    if len(source) == 4:
        pseudo = source + target + struct.pack(">BBH", 0, protocol, len(segment))
    else:
        pseudo = source + target + struct.pack(">II", len(segment), protocol)
    return checksum(pseudo + segment)


def tcp_syn(source: bytes, target: bytes, ports: tuple[int, int], seq: int) -> bytes:
    """A SYN, as a TCP segment. `source` and `target` are packed addresses, for the checksum."""
    header = struct.pack(">HHIIBBHHH", *ports, seq, 0, 6 << 4, SYN, 64240, 0, 0) + _MSS
    total = transport_checksum(source, target, socket.IPPROTO_TCP, header)
    return header[:16] + struct.pack(">H", total) + header[18:]


def tcp_rst(source: bytes, target: bytes, ports: tuple[int, int], seq: int) -> bytes:
    """A RST without data, as a TCP segment. With `seq` the next one expected it is believed."""
    header = struct.pack(">HHIIBBHHH", *ports, seq, 0, 5 << 4, RST, 0, 0, 0)
    total = transport_checksum(source, target, socket.IPPROTO_TCP, header)
    return header[:16] + struct.pack(">H", total) + header[18:]


def udp_datagram(source: bytes, target: bytes, ports: tuple[int, int]) -> bytes:
    """A datagram of 8 zero bytes."""
    datagram = struct.pack(">HHHH", *ports, 16, 0) + bytes(8)
    # RFC 768: a checksum of zero is sent as all ones
    total = transport_checksum(source, target, socket.IPPROTO_UDP, datagram) or 0xFFFF
    return datagram[:6] + struct.pack(">H", total) + datagram[8:]


def echo_request(family: int, identifier: int, number: int) -> bytes:
    """An echo request; the kernel fills in ICMPv6's checksum (RFC 3542 §3.1)."""
    kind = 8 if family == 4 else 128
    message = struct.pack(">BBHHH", kind, 0, 0, identifier, number) + bytes(8)
    if family == 6:
        return message
    return message[:2] + struct.pack(">H", checksum(message)) + message[4:]


def read_icmp(family: int, message: bytes) -> Quote | None:
    """What an ICMP message says of a probe; ``None``: nothing of one, or it is malformed."""
    if len(message) < 8:
        return None
    kind, code = message[0], message[1]
    if kind == (0 if family == 4 else 129):
        identifier, number = struct.unpack_from(">HH", message, 4)
        return Quote("echo", "icmp", (identifier, number))
    if kind == (11 if family == 4 else 3):
        if code != 0:  # 1: fragment reassembly
            return None
        said, detail = "exceeded", None
    elif kind == (3 if family == 4 else 1):
        if family == 4 and code == 4:  # fragmentation needed: not an end
            return None
        said, detail = "unreachable", UNREACHABLE[family].get(code, f"unreachable, code {code}")
    else:
        return None
    found = _quoted(family, message[8:])
    return Quote(said, *found, detail) if found else None


def _quoted(family: int, packet: bytes) -> tuple[str, tuple[int, int]] | None:
    """The method and the key of a quoted probe (ours have no IPv6 extension headers)."""
    if family == 4:
        if len(packet) < 20 or packet[0] >> 4 != 4:
            return None
        start, protocol = (packet[0] & 15) * 4, packet[9]
    else:
        if len(packet) < 40 or packet[0] >> 4 != 6:
            return None
        start, protocol = 40, packet[6]
    first = packet[start : start + 8]
    if len(first) < 8:
        return None
    if protocol == socket.IPPROTO_TCP:
        port, _, seq = struct.unpack(">HHI", first)
        return "tcp", (port, seq)
    if protocol == socket.IPPROTO_UDP:
        return "udp", struct.unpack_from(">HH", first)
    if protocol == (socket.IPPROTO_ICMP if family == 4 else socket.IPPROTO_ICMPV6):
        if first[0] != (8 if family == 4 else 128):
            return None
        return "icmp", struct.unpack_from(">HH", first, 4)
    return None


ETH_P_ARP, ETH_P_IPV6 = 0x0806, 0x86DD
_SOLICITATION, _ADVERTISEMENT = 135, 136  # RFC 4861 §4.3, §4.4
_SOURCE_LINK_ADDRESS, _TARGET_LINK_ADDRESS = 1, 2  # RFC 4861 §4.6.1


def arp_request(mac: bytes, source: bytes, target: bytes) -> bytes:
    """The frame that asks everybody on the link who has an IPv4 address (RFC 826)."""
    header = b"\xff" * 6 + mac + struct.pack(">H", ETH_P_ARP)
    return header + struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + mac + source + bytes(6) + target


def read_arp(frame: bytes, target: bytes) -> str | None:
    """The MAC that an ARP reply gives for an address; ``None``: it is none, or for another one."""
    if len(frame) < 42:
        return None
    kind, hardware, protocol, sizes, operation = struct.unpack_from(">HHHHH", frame, 12)
    if (kind, hardware, protocol, sizes, operation) != (ETH_P_ARP, 1, 0x0800, 0x0604, 2):
        return None
    return frame[22:28].hex(":") if frame[28:32] == target else None


def neighbor_solicitation(mac: bytes, source: bytes, target: bytes) -> bytes:
    """The frame that asks who has an IPv6 address, to its solicited-node group (RFC 4861 §7.2.2).

    The group's addresses: RFC 4291 §2.7.1, and RFC 2464 §7 for its MAC.
    """
    group = bytes.fromhex("ff0200000000000000000001ff") + target[13:]
    message = struct.pack(">BBHI", _SOLICITATION, 0, 0, 0) + target
    message += bytes((_SOURCE_LINK_ADDRESS, 1)) + mac
    total = transport_checksum(source, group, socket.IPPROTO_ICMPV6, message)
    message = message[:2] + struct.pack(">H", total) + message[4:]
    header = struct.pack(">IHBB", 6 << 28, len(message), socket.IPPROTO_ICMPV6, 255)
    ethernet = b"\x33\x33" + group[12:] + mac + struct.pack(">H", ETH_P_IPV6)
    return ethernet + header + source + group + message


def read_advertisement(frame: bytes, target: bytes) -> str | None:
    """The MAC that a neighbour advertisement gives for an address.

    ``None``: it is none, or not valid (RFC 4861 §7.1.2), or for another address. One without the
    target's link-layer address speaks for its sender.
    """
    if len(frame) < 78 or struct.unpack_from(">H", frame, 12)[0] != ETH_P_IPV6:
        return None
    length, protocol, limit = struct.unpack_from(">HBB", frame, 18)
    message = frame[54 : 54 + length]
    if (protocol, limit) != (socket.IPPROTO_ICMPV6, 255) or len(message) < max(24, length):
        return None
    if message[:2] != bytes((_ADVERTISEMENT, 0)) or message[8:24] != target:
        return None
    if transport_checksum(frame[22:38], frame[38:54], protocol, message):
        return None
    options = message[24:]
    while len(options) >= 8:
        size = options[1] * 8
        if not 0 < size <= len(options):
            return None
        if options[0] == _TARGET_LINK_ADDRESS and size == 8:
            return options[2:8].hex(":")
        options = options[size:]
    return frame[6:12].hex(":")


def answer_filter(family: int) -> bytes:
    """A classic BPF program that passes ARP replies, or neighbour advertisements.

    For a packet socket with Ethernet headers: a busy link's other packets would fill its buffer.
    """
    load_half, load_byte, equal, ret = 0x28, 0x30, 0x15, 0x06  # include/uapi/linux/bpf_common.h
    if family == 4:
        program = [(load_half, 0, 0, 20), (equal, 0, 1, 2)]
    else:
        program = [(load_byte, 0, 0, 20), (equal, 0, 3, socket.IPPROTO_ICMPV6)]
        program += [(load_byte, 0, 0, 54), (equal, 0, 1, _ADVERTISEMENT)]
    program += [(ret, 0, 0, 0xFFFF), (ret, 0, 0, 0)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


@dataclass(frozen=True)
class Segment:
    """The header fields of a TCP segment."""

    source_port: int
    target_port: int
    seq: int
    ack: int
    flags: int
    payload_len: int


def read_tcp(segment: bytes) -> Segment | None:
    """A TCP segment's header; ``None``: malformed."""
    if len(segment) < 20:
        return None
    source, target, seq, ack, offset, flags = struct.unpack_from(">HHIIBB", segment)
    payload = len(segment) - (offset >> 4) * 4
    return Segment(source, target, seq, ack, flags, payload) if payload >= 0 else None


def split_ipv4(packet: bytes) -> tuple[int, bytes] | None:
    """TTL and payload of an IPv4 packet as a raw socket gives it (raw(7)); ``None``: malformed."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    return packet[8], packet[(packet[0] & 15) * 4 : struct.unpack_from(">H", packet, 2)[0]]


def port_filter(family: int, ports: list[int]) -> bytes:
    """A classic BPF program that passes TCP segments to these ports (as ``struct sock_filter``).

    A raw socket gets a copy of every TCP packet of its namespace: without this, a busy host's
    traffic would fill its buffer. An IPv4 raw socket's packets begin at the IP header
    (raw_v4_input), an IPv6 one's behind it (ipv6_raw_deliver).
    """
    # include/uapi/linux/bpf_common.h
    load_header_length, load_indexed, load, equal, ret = 0xB1, 0x48, 0x28, 0x15, 0x06
    if family == 4:
        program = [(load_header_length, 0, 0, 0), (load_indexed, 0, 0, 2)]
    else:
        program = [(load, 0, 0, 2)]
    count = len(ports)
    program += [(equal, count - index, 0, port) for index, port in enumerate(ports)]
    program += [(ret, 0, 0, 0), (ret, 0, 0, 0xFFFF)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
