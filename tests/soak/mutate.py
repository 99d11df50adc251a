"""Resets as no stack writes them: any flags, options, lengths, checksums, headers around them."""

from __future__ import annotations

import random
import socket
import struct
from dataclasses import dataclass, field

RST = 0x04
TCP, HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 6, 0, 43, 44, 60
IPV4, IPV6, VLAN, QINQ = 0x0800, 0x86DD, 0x8100, 0x88A8


@dataclass(frozen=True)
class Ends:
    """Where a packet comes from and goes to; `seq` is what the receiver expects next, if known."""

    source: str
    target: str
    sport: int
    dport: int
    seq: int | None = None
    ack: int = 0


@dataclass
class Mutated:
    """A RST as it is put on the wire.

    Attributes:
        frames: what is sent, one after the other.
        header: its TCP header without the checksum, in hex.
        arrives: whether the receiver's TCP gets it (``None``: nobody promises).
        sum_ok: whether the TCP checksum is right.
        how: what was done to it.
    """

    frames: list[bytes]
    header: str
    arrives: bool | None = True
    sum_ok: bool = True
    how: list[str] = field(default_factory=list)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def options(chance: random.Random) -> bytes:
    """TCP options: none, usual ones, or anything; padded to four bytes."""
    usual = (
        b"",
        b"\2\4\5\xb4",
        b"\1\1\x08\x0a" + chance.randbytes(8),
        b"\2\4\5\xb4\4\2\x08\x0a" + chance.randbytes(8) + b"\1\3\3\7",
        b"\1\1\5\x0a" + chance.randbytes(8),
    )
    strange = (b"\x08\0\0\0", b"\2\xff\0\0", b"\0" + chance.randbytes(7), b"\x13\x12" + bytes(18))
    if chance.random() < 0.7:
        return chance.choice(usual)
    if chance.random() < 0.5:
        return chance.choice(strange)
    return chance.randbytes(4 * chance.randrange(1, 11))


class Mutator:
    """Makes them, from one seed the same ones.

    Args:
        seed: of the chance.
        source: MAC that they come from.
        target: MAC that they go to.
    """

    def __init__(self, seed: int, source: bytes, target: bytes) -> None:
        self._chance = random.Random(seed)
        self._macs = target + source

    def make(self, ends: Ends) -> Mutated:
        """One of them."""
        made, segment = self._segment(ends)
        v6 = ":" in ends.source
        packets = self._ipv6(made, ends, segment) if v6 else self._ipv4(made, ends, segment)
        protocol = IPV6 if v6 else IPV4
        made.frames = [self._frame(made, protocol, packet) for packet in packets]
        return made

    def _one_in(self, count: int) -> bool:
        return self._chance.randrange(count) == 0

    def _segment(self, ends: Ends) -> tuple[Mutated, bytes]:
        chance = self._chance
        known, payload = options(chance), b""
        if self._one_in(4):
            payload = chance.randbytes(chance.randrange(1, 400))
        seq = chance.getrandbits(32)
        if ends.seq is not None and not self._one_in(3):
            seq = (ends.seq + chance.choice((0, 0, 1, -1, 1000, 1 << 20))) % 2**32
        flags = RST | chance.choice((0, 0x10, 0x10, chance.getrandbits(8)))
        reserved = chance.getrandbits(4) if self._one_in(5) else 0
        words = 5 + len(known) // 4
        how: list[str] = []
        arrives: bool | None = True
        if self._one_in(20):
            words = chance.choice((0, 1, 4, 15))
            how.append(f"offset {words}")
            arrives = 5 <= words <= (20 + len(known) + len(payload)) // 4
        ack = ends.ack if ends.seq is not None else chance.getrandbits(32)
        head = struct.pack(
            "!HHIIBBHHH", ends.sport, ends.dport, seq, ack, words << 4 | reserved, flags,
            chance.getrandbits(16), 0, chance.getrandbits(16) if self._one_in(3) else 0,
        )  # fmt: skip
        whole = head + known + payload
        kind = socket.AF_INET6 if ":" in ends.source else socket.AF_INET
        pseudo = b"".join(socket.inet_pton(kind, ip) for ip in (ends.source, ends.target))
        pseudo += struct.pack("!II", len(whole), TCP)
        value, right = checksum(pseudo + whole), True
        if self._one_in(5):
            value, right = value ^ chance.randrange(1, 0xFFFF), False
            how.append("checksum")
        whole = whole[:16] + struct.pack("!H", value) + whole[18:]
        size = max(20, 4 * words)
        header = (whole[:16] + whole[18:size]).hex()
        return Mutated([], header, arrives, right, how), whole

    def _cut(self, made: Mutated, segment: bytes) -> bytes:
        """Perhaps less of it than there should be."""
        if self._one_in(25):
            made.how.append("cut")
            made.arrives = False
            return segment[: self._chance.randrange(20)]
        return segment

    def _ipv4(self, made: Mutated, ends: Ends, segment: bytes) -> list[bytes]:
        chance = self._chance
        segment = self._cut(made, segment)
        extra = b""
        if self._one_in(6):
            made.how.append("IP options")
            extra = chance.choice((b"\1\1\1\0", b"\x94\4\0\0", b"\7\7\4\0\0\0\0\0", b"\1" * 40))
        if self._one_in(30):
            made.how.append("source route")  # net.ipv4.conf.*.accept_source_route, or nonsense
            extra, made.arrives = (
                chance.choice((b"\x83\7\4\x0a\x00\x00\x01\0", b"\xff\1\0\0")),
                None,
            )
        length = 20 + len(extra) + len(segment)
        told = length
        if self._one_in(30):
            told = length + chance.choice((-8, -length + 10, 100))
            made.how.append(f"length {told - length}")
            made.arrives = made.arrives and None
        df = chance.choice((0, 0x4000))
        pieces = [(0, 0, segment)]
        if told == length and self._one_in(12) and len(segment) > 8:
            made.how.append("fragments")
            size, df = chance.choice((8, 16, 24)), 0
            pieces = [
                (at, 0x2000 if at + size < len(segment) else 0, segment[at : at + size])
                for at in range(0, len(segment), size)
            ]
            chance.shuffle(pieces)
        number, hops, tos = chance.getrandbits(16), chance.randrange(1, 256), chance.getrandbits(8)
        packets = []
        wrong = self._one_in(40)
        if wrong:
            made.how.append("IP checksum")
            made.arrives = False
        for at, more, data in pieces:
            size = told if len(pieces) == 1 else 20 + len(extra) + len(data)
            head = struct.pack(
                "!BBHHHBBH", 0x45 + len(extra) // 4, tos, size & 0xFFFF, number,
                df | more | at // 8, hops, TCP, 0,
            )  # fmt: skip
            head += socket.inet_aton(ends.source) + socket.inet_aton(ends.target) + extra
            value = checksum(head) ^ (0x1234 if wrong else 0)
            packets.append(head[:10] + struct.pack("!H", value) + head[12:] + data)
        return packets

    def _ipv6(self, made: Mutated, ends: Ends, segment: bytes) -> list[bytes]:
        chance = self._chance
        segment = self._cut(made, segment)
        first, chain = TCP, b""
        for _ in range(chance.choice((0, 0, 0, 1, 2, 3))):
            made.how.append("destination options")
            words = chance.choice((0, 0, 0, 1, 2))
            if words:  # padding of more than 7 bytes is not taken (ip6_parse_tlv())
                made.arrives = made.arrives and None
            body = bytes([first, words, 1, 4 + 8 * words]) + bytes(4 + 8 * words)
            first, chain = DESTINATION, body + chain
        if self._one_in(8):
            made.how.append("hop by hop")
            first, chain = HOP_BY_HOP, bytes([first, 0, 1, 4, 0, 0, 0, 0]) + chain
        elif self._one_in(20):
            made.how.append("routing header")
            made.arrives = None  # type 0 is not taken (RFC 5095)
            first, chain = ROUTING, bytes([first, 2, 0, chance.randrange(2)]) + bytes(20) + chain
        payload = chain + segment
        pieces = [payload]
        if self._one_in(12) and first != HOP_BY_HOP:
            made.how.append("fragments")
            size, number = chance.choice((16, 24, 64, 2000)), chance.getrandbits(32)
            heads = range(0, len(payload), size)
            pieces = [
                struct.pack("!BBHI", first, 0, at | (at + size < len(payload)), number)
                + payload[at : at + size]
                for at in heads
            ]
            chance.shuffle(pieces)
            # A chain of headers that is not whole in the first fragment is dropped (RFC 7112);
            # which kernels do that differs.
            made.arrives = made.arrives and (size >= len(payload) or None)
            first = FRAGMENT
        packets = []
        for data in pieces:
            head = struct.pack(
                "!IHBB", 6 << 28 | chance.getrandbits(28), len(data), first,
                chance.randrange(1, 256),
            )  # fmt: skip
            addresses = (socket.inet_pton(socket.AF_INET6, ip) for ip in (ends.source, ends.target))
            packets.append(head + b"".join(addresses) + data)
        return packets

    def _frame(self, made: Mutated, protocol: int, packet: bytes) -> bytes:
        chance, tags = self._chance, b""
        if self._one_in(25) and "fragments" not in made.how:
            vid = chance.choice((0, 0, 5))
            made.how.append(f"VLAN {vid}")
            if vid:
                made.arrives = False
            tags = struct.pack("!HH", chance.choice((VLAN, VLAN, QINQ)), vid)
            if tags[:2] == struct.pack("!H", QINQ):
                made.arrives = made.arrives and None
        return self._macs + tags + struct.pack("!H", protocol) + packet
