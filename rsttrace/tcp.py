"""IP and TCP headers in words, and sequence numbers: bytes in, `rsttrace.model` out.

Pure; shared by both sources.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from functools import lru_cache

from rsttrace.limits import OPTIONS_READ
from rsttrace.model import Endpoint, Half, Packet, Seen, TtlCount

FLAG_LETTERS = "FSRPAUEW"

OPTION_NAMES = {2: "mss", 3: "wscale", 4: "sackOK", 5: "sack", 8: "TS", 30: "mptcp", 34: "tfo"}
"""TCP option kinds (IANA, TCP parameters)."""

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
"""TCP flags (RFC 9293 §3.1)."""

# ---- sequence numbers: modulo 2^32, so that there is no order of all of them (RFC 9293 §3.4) ----


def distance(first: int, second: int) -> int:
    """How far `second` lies after `first`; negative: before. From -2^31 to 2^31 - 1."""
    return ((second - first + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def before(a: int, b: int) -> bool:
    """Whether sequence number `a` is older than `b`."""
    return (a - b) & 0xFFFFFFFF > 0x7FFFFFFF


def latest(a: int | None, b: int) -> int:
    """The newer one of two sequence numbers."""
    return b if a is None or (b - a) & 0xFFFFFFFF < 0x80000000 else a


def within(number: int, low: int, high: int) -> bool:
    """Whether low <= number <= high."""
    return not before(number, low) and not before(high, number)


def advance(number: int, length: int) -> int:
    """The sequence number `length` after another one."""
    return (number + length) & 0xFFFFFFFF


def sequence_length(flags: int | str, payload_len: int) -> int:
    """How many sequence numbers a segment takes: its data, SYN and FIN (RFC 9293 §3.4)."""
    if isinstance(flags, str):
        return payload_len + ("S" in flags) + ("F" in flags)
    return payload_len + (flags >> 1 & 1) + (flags & 1)


def segment_end(segment: Seen | Packet) -> int:
    """The sequence number after everything that a segment takes."""
    return advance(segment.seq, sequence_length(segment.flags, segment.payload_len))


def answers(rst: Packet, seen: Seen) -> bool:
    """Whether a RST has the numbers of an answer to a segment (RFC 9293 §3.5.2).

    Its seq is the segment's ack, or its ack the number after the segment.
    """
    return rst.seq == seen.ack or ("A" in rst.flags and rst.ack == segment_end(seen))


# ---- headers ----


_LETTERS = tuple(
    "".join(letter for letter in "SFRPAUEW" if flags >> FLAG_LETTERS.index(letter) & 1)
    for flags in range(256)
)


def flag_letters(flags: int) -> str:
    """TCP flags as letters, tcpdump's order and letters (``RA`` is RST with ACK)."""
    return _LETTERS[flags & 0xFF]


def without_ecn(letters: str) -> str:
    """Letters of `flag_letters` without those that only tell of congestion: ECE and CWR.

    Every SYN of a host that offers ECN has both (RFC 3168 §6.1.1), any later packet may have one.
    """
    return letters.rstrip("EW")


def flag_bits(letters: str) -> int:
    """Letters of `flag_letters` as TCP flags (RFC 9293 §3.1)."""
    return sum(1 << FLAG_LETTERS.index(letter) for letter in set(letters))


def sum16(data: bytes) -> int:
    """The ones' complement sum of 16-bit words (RFC 1071), folded to 16 bits.

    Folding keeps the remainder modulo 2^16 - 1, and so does reading all words as one number.
    """
    number = int.from_bytes(data + b"\0" if len(data) & 1 else data, "big")
    return number % 0xFFFF or (0xFFFF if number else 0)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): what belongs into a checksum field that is 0 in `data`."""
    return ~sum16(data) & 0xFFFF


MAPPED = b"\0" * 10 + b"\xff\xff"
"""How an IPv4 address begins where there is room for an IPv6 one (RFC 4291 §2.5.5.2)."""


def address(raw: bytes) -> str:
    """16 bytes (or an IPv4 address's 4) in network order as text; v4-mapped ones as IPv4."""
    if len(raw) == 4:
        return socket.inet_ntoa(raw)
    if raw[:12] == MAPPED:
        return socket.inet_ntoa(raw[12:])
    return str(ipaddress.IPv6Address(raw))


def packed_address(ip: str) -> bytes:
    """An address as `address` reads it: 16 bytes in network order, IPv4 as ``::ffff:a.b.c.d``.

    Raises:
        ValueError: it is none.
    """
    found = ipaddress.ip_address(ip)
    return found.packed if found.version == 6 else MAPPED + found.packed


LINUX_SYN = b"\2\4", b"\4\2\x08\x0a", b"\1\3\3"
SYN_VALUES = struct.Struct(">H4xII3xB")
"""The options of a SYN as Linux has them (tcp_options_write()), and what is in them."""


def options_text(raw: bytes, length: int | None = None) -> str:
    """TCP options in tcpdump's words: ``nop,nop,TS val 1 ecr 2``.

    `length`: how many bytes there were; of a capture that cut them, the words end in ``cut``.
    """
    if length is not None and len(raw) < length:
        known = options_text(raw).replace("malformed", "").rstrip(",")
        return f"{known},cut" if known else "cut"
    if raw[:4] == b"\1\1\x08\x0a" and len(raw) == 12:  # what nearly every segment has
        return "nop,nop,TS val {} ecr {}".format(*struct.unpack(">II", raw[4:]))
    if len(raw) == 20 and (raw[:2], raw[4:8], raw[16:19]) == LINUX_SYN:
        values = SYN_VALUES.unpack_from(raw, 2)
        return "mss {},sackOK,TS val {} ecr {},nop,wscale {}".format(*values)
    return _words(raw) if raw else ""


@lru_cache(maxsize=256)
def _words(raw: bytes) -> str:
    """As `options_text`, one by one. Who sends no timestamps has the same ones in each SYN."""
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


MPTCP = OPTION_NAMES[30]
MPTCP_REASONS = (
    "MPTCP reset it without telling why",
    "it fits no MPTCP connection (an unknown token, or another MPTCP error)",
    "MPTCP lacked resources for it",
    "MPTCP does not allow it here",
    "MPTCP had too much data outstanding on it",
    "MPTCP found it too slow",
    "MPTCP's options were tampered with on the way",
)
"""Why a subflow was reset, by the code in MP_TCPRST (RFC 8684 §3.6, §7.3)."""

FASTCLOSE = "closed at once with MPTCP (data unread, or SO_LINGER 0)"
"""Why MP_FASTCLOSE is sent (mptcp_do_fastclose())."""

TRANSIENT = "; the cause is transient: it may be tried again"
"""MP_TCPRST's flag T."""


def subflow_reset(options: str) -> tuple[int, bool] | None:
    """A RST's MP_TCPRST (RFC 8684 §3.6): its reason code, and whether that is transient (T).

    `options` are in the words of `options_text`: ``mptcp 8106`` is subtype, flags, code.
    """
    for word in options.split(",") if MPTCP in options else ():
        name, _, data = word.partition(" ")
        if name == MPTCP and len(data) == 4 and data[0] == "8":
            return int(data[2:], 16), bool(int(data[1], 16) & 1)
    return None


def subflow_words(code: int | None, transient: bool | None) -> str:
    """A code of MP_TCPRST in words; one that is not known says nothing."""
    known = code is not None and code < len(MPTCP_REASONS)
    return MPTCP_REASONS[code if code is not None and known else 0] + TRANSIENT * bool(transient)


def is_fastclose(options: str) -> bool:
    """Whether a RST closes a whole MPTCP connection (MP_FASTCLOSE, RFC 8684 §3.5)."""
    return MPTCP in options and any(word.startswith(f"{MPTCP} 7") for word in options.split(","))


def said(options: str) -> str:
    """What a received RST's options say of why it was sent, to stand behind a sentence; or empty.

    Anybody can write them: these are the RST's words, no more.
    """
    if MPTCP not in options:
        return ""
    if is_fastclose(options):
        return "; it says that the other end closed at once with MPTCP (MP_FASTCLOSE)"
    found = subflow_reset(options)
    return f"; it says: {subflow_words(*found)}" if found else ""


def timestamps_at(options: bytes) -> int:
    """Where in raw TCP options the TSval begins (RFC 7323 §3.2); -1: there are no timestamps."""
    at = 0
    for _ in range(OPTIONS_READ):
        if at + 10 > len(options) or options[at] == 0:
            return -1
        if options[at] == 1:
            at += 1
            continue
        if options[at] == 8:
            return at + 2 if options[at + 1] == 10 else -1
        if options[at + 1] < 2:
            return -1
        at += options[at + 1]
    return -1


def seen_packet(packet: Packet, time_ns: int, mac: str | None = None) -> Seen:
    """What is kept of a RST, or of a packet that came after one. `mac`: its source MAC."""
    tsval = tsecr = None
    for word in packet.options.split(","):
        if word.startswith("TS val "):
            tsval, tsecr = (int(number) for number in word.split()[2::2])
    return Seen(
        time_ns=time_ns,
        ttl=packet.ttl,
        ip_id=packet.ip_id,
        df=packet.df,
        flags=packet.flags,
        seq=packet.seq,
        ack=packet.ack,
        window=packet.window,
        payload_len=packet.payload_len,
        tsval=tsval,
        tsecr=tsecr,
        options=packet.options,
        mac=mac,
        checksum_ok=packet.tcp_checksum_ok,
        tos=packet.tos,
    )


def handshake_half(syn: Seen, options: str | None, mac: str | None, ifindex: int | None) -> Half:
    """One direction of which only a confirmed SYN or SYN-ACK is looked at."""
    return Half(
        packets=1,
        ttl=syn.ttl,
        ttl_min=syn.ttl,
        ttl_max=syn.ttl,
        syn_ttl=syn.ttl,
        syn_window=syn.window,
        df_always=bool(syn.df),
        timestamps=syn.tsval is not None,
        mac=mac,
        ifindex=ifindex,
        first_ns=syn.time_ns,
        last_ns=syn.time_ns,
        syn_ns=syn.time_ns,
        recent=(syn,),
        end=segment_end(syn),
        syn_options=options,
        ttls=(TtlCount(syn.ttl, 1, syn.time_ns, syn.time_ns),),
        syns=1,
        confirmed=True,
        clock=((syn.tsval, syn.time_ns),) if syn.tsval is not None else (),
        acked=syn.ack if "A" in syn.flags else None,
    )


def handshake_packet(
    syn: Seen, options: str, options_len: int, src: Endpoint, dst: Endpoint
) -> Packet:
    """A SYN or SYN-ACK from what a flow keeps of it: no `raw`, no word on its checksums.

    `options` are its TCP options in words, `options_len` their length in bytes. `length` is without
    IP options and extension headers, which are not kept.
    """
    ip = 40 if syn.ip_id is None else 20
    return Packet(
        src=src,
        dst=dst,
        ttl=syn.ttl,
        ip_id=syn.ip_id,
        df=syn.df,
        tos=syn.tos or 0,
        flags=syn.flags,
        seq=syn.seq,
        ack=syn.ack,
        window=syn.window,
        length=ip + 20 + options_len + syn.payload_len,
        payload_len=syn.payload_len,
        options=options,
    )


def packet(
    l3: bytes,
    l4: bytes,
    payload_len: int,
    *,
    length: int | None = None,
    ip_checksum_ok: bool | None = None,
    tcp_checksum_ok: bool | None = None,
) -> Packet:
    """Parse IP and TCP headers (RFC 791, RFC 8200, RFC 9293 §3.1); trailing bytes are cut.

    `l3` holds at least the fixed IP header and `l4` 14 bytes of TCP's: up to the flags. What a
    capture cut off behind them is unknown: the window is ``None``, the options end in ``cut``.
    `length`: the IP packet's, where its header does not tell it.
    """
    sport, dport, seq, ack, offset, flags = _TCP(l4)
    tcp_length = max(20, min((offset >> 4) * 4, 60))
    tcp = l4[:tcp_length]
    ip_id: int | None = None
    df: bool | None = None
    if l3[0] >> 4 == 4:
        tos, told, ip_id, fragment, ttl = _IPV4(l3)
        df = bool(fragment & 0x4000)
        header = l3[: (l3[0] & 15) * 4]
        source, destination = l3[12:16], l3[16:20]
    else:
        ttl, tos = l3[7], int.from_bytes(l3[:2], "big") >> 4 & 0xFF
        told = int.from_bytes(l3[4:6], "big") + 40
        header = l3[:40]
        source, destination = l3[8:24], l3[24:40]
    return Packet(
        Endpoint(address(source), sport),
        Endpoint(address(destination), dport),
        ttl,
        ip_id,
        df,
        tos,
        flag_letters(flags),
        seq,
        ack,
        int.from_bytes(tcp[14:16], "big") if len(tcp) >= 16 else None,
        told if length is None else length,
        payload_len,
        reserved=offset & 15,
        options=options_text(tcp[20:], tcp_length - 20) if tcp_length > 20 else "",
        raw=(header + tcp).hex(),
        ip_checksum_ok=ip_checksum_ok,
        tcp_checksum_ok=tcp_checksum_ok,
    )


_IPV4 = struct.Struct(">xBHHHB").unpack_from
_TCP = struct.Struct(">HHIIBB").unpack_from
