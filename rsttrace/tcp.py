"""IP and TCP headers in words: bytes in, `rsttrace.model` out. Pure; shared by both sources."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

from rsttrace.model import Endpoint, Packet

FLAG_LETTERS = "FSRPAUEW"

OPTION_NAMES = {2: "mss", 3: "wscale", 4: "sackOK", 5: "sack", 8: "TS", 30: "mptcp", 34: "tfo"}
"""TCP option kinds (IANA, TCP parameters)."""


def flag_letters(flags: int) -> str:
    """TCP flags as letters, tcpdump's order and letters (``RA`` is RST with ACK)."""
    order = "SFRPAUEW"
    return "".join(letter for letter in order if flags >> FLAG_LETTERS.index(letter) & 1)


def flag_bits(letters: str) -> int:
    """Letters of `flag_letters` as TCP flags (RFC 9293 §3.1)."""
    return sum(1 << FLAG_LETTERS.index(letter) for letter in set(letters))


def before(a: int, b: int) -> bool:
    """Whether sequence number `a` is older than `b`, modulo 2**32 (RFC 9293 §3.4)."""
    return (a - b) & 0xFFFFFFFF > 0x7FFFFFFF


def distance(a: int, b: int) -> int:
    """How far sequence number `b` lies after `a` (RFC 9293 §3.4); negative: before it."""
    return (b - a + 0x80000000) % 0x100000000 - 0x80000000


def sum16(data: bytes) -> int:
    """The ones' complement sum of 16-bit words (RFC 1071), folded to 16 bits."""
    if len(data) & 1:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): what belongs into a checksum field that is 0 in `data`."""
    return ~sum16(data) & 0xFFFF


def address(raw: bytes) -> str:
    """16 bytes in network order as text; v4-mapped ones as IPv4."""
    if raw[:12] == b"\0" * 10 + b"\xff\xff":
        return "{}.{}.{}.{}".format(*raw[12:])
    return str(ipaddress.IPv6Address(raw))


def options_text(raw: bytes, length: int | None = None) -> str:
    """TCP options in tcpdump's words: ``nop,nop,TS val 1 ecr 2``.

    `length`: how many bytes there were; of a capture that cut them, the words end in ``cut``.
    """
    if length is not None and len(raw) < length:
        known = options_text(raw).replace("malformed", "").rstrip(",")
        return f"{known},cut" if known else "cut"
    words = []
    position = 0
    while position < len(raw):
        kind = raw[position]
        if kind == 0:
            words.append("eol")
            break
        if kind == 1:
            words.append("nop")
            position += 1
            continue
        length = raw[position + 1] if position + 1 < len(raw) else 0
        if length < 2 or position + length > len(raw):
            words.append("malformed")
            break
        data = raw[position + 2 : position + length]
        name = OPTION_NAMES.get(kind, f"option-{kind}")
        if kind == 8 and length == 10:
            words.append("TS val {} ecr {}".format(*struct.unpack(">II", data)))
        elif kind in (2, 3):
            words.append(f"{name} {int.from_bytes(data, 'big')}")
        else:
            words.append(name if not data else f"{name} {data.hex()}")
        position += length
    return ",".join(words)


def packet(l3: bytes, l4: bytes, payload_len: int) -> Packet:
    """Parse IP and TCP headers (RFC 791, RFC 8200, RFC 9293 §3.1); trailing bytes are cut.

    `l3` holds at least the fixed IP header and `l4` 14 bytes of TCP's: up to the flags. What a
    capture cut off behind them is unknown: the window is ``None``, the options end in ``cut``.
    """
    sport, dport, seq, ack, offset, flags = struct.unpack_from(">HHIIBB", l4)
    tcp_length = max(20, min((offset >> 4) * 4, 60))
    tcp = l4[:tcp_length]
    options = options_text(tcp[20:], tcp_length - 20)
    common: dict[str, Any] = {
        "flags": flag_letters(flags),
        "seq": seq,
        "ack": ack,
        "window": int.from_bytes(tcp[14:16], "big") if len(tcp) >= 16 else None,
        "payload_len": payload_len,
        "reserved": offset & 15,
        "options": options,
    }
    if l3[0] >> 4 == 4:
        length, ip_id, fragment = struct.unpack_from(">HHH", l3, 2)
        return Packet(
            src=Endpoint(address(b"\0" * 10 + b"\xff\xff" + l3[12:16]), sport),
            dst=Endpoint(address(b"\0" * 10 + b"\xff\xff" + l3[16:20]), dport),
            ttl=l3[8],
            ip_id=ip_id,
            df=bool(fragment & 0x4000),
            tos=l3[1],
            length=length,
            raw=(l3[: (l3[0] & 15) * 4] + tcp).hex(),
            **common,
        )
    return Packet(
        src=Endpoint(address(l3[8:24]), sport),
        dst=Endpoint(address(l3[24:40]), dport),
        ttl=l3[7],
        ip_id=None,
        df=None,
        tos=int.from_bytes(l3[:2], "big") >> 4 & 0xFF,
        length=int.from_bytes(l3[4:6], "big") + 40,
        raw=(l3[:40] + tcp).hex(),
        **common,
    )
