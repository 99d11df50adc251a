"""Builders of packets, raw kernel events and resets for the unit tests.

Everything has a plain default: a test names only what it is about.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import struct
from typing import Any

from rsttrace.kernel import config, layout
from rsttrace.kernel.config import NO_REASON
from rsttrace.kernel.decode import Context, decode
from rsttrace.model import (
    Baseline,
    Cause,
    Endpoint,
    Frame,
    Half,
    Kind,
    NextHop,
    Packet,
    Reset,
    Scope,
    Seen,
    Socket,
    TtlCount,
)

US, PEER = "10.0.0.5", "10.9.8.7"
US6, PEER6 = "2001:db8::5", "2001:db8:1::7"
US_PORT, PEER_PORT = 51234, 3306

TCP_FLAGS = {letter: 1 << bit for bit, letter in enumerate("FSRPAUEW")}
STATES = {
    "ESTABLISHED": 1,
    "SYN_SENT": 2,
    "SYN_RECV": 3,
    "FIN_WAIT2": 5,
    "TIME_WAIT": 6,
    "CLOSE": 7,
    "LISTEN": 10,
}
"""include/net/tcp_states.h, once more: a table is not checked against itself."""

TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")
"""nop, nop, TS val 1 ecr 2."""

# ---- bytes ----


def tcp_bytes(
    flags: str = "R",
    *,
    sport: int = PEER_PORT,
    dport: int = US_PORT,
    seq: int = 1000,
    ack: int = 0,
    window: int = 0,
    reserved: int = 0,
    options: bytes = b"",
) -> bytes:
    """A TCP header (RFC 9293 §3.1)."""
    offset = (5 + len(options) // 4) << 4 | reserved
    bits = sum(TCP_FLAGS[letter] for letter in flags)
    head = struct.pack(">HHIIBBHHH", sport, dport, seq, ack, offset, bits, window, 0, 0)
    return head + options


def ipv4_bytes(
    *,
    src: str = PEER,
    dst: str = US,
    ttl: int = 47,
    ip_id: int = 0,
    df: bool = True,
    tos: int = 0,
    length: int = 40,
    options: bytes = b"",
) -> bytes:
    """An IPv4 header (RFC 791)."""
    return (
        struct.pack(
            ">BBHHHBBH",
            0x45 + len(options) // 4,
            tos,
            length,
            ip_id,
            0x4000 if df else 0,
            ttl,
            6,
            0,
        )
        + ipaddress.ip_address(src).packed
        + ipaddress.ip_address(dst).packed
        + options
    )


def ipv6_bytes(
    *, src: str = PEER6, dst: str = US6, ttl: int = 47, tos: int = 0, payload: int = 20
) -> bytes:
    """An IPv6 header (RFC 8200)."""
    first = 6 << 28 | tos << 20 | 0x12345
    return (
        struct.pack(">IHBB", first, payload, 6, ttl)
        + ipaddress.ip_address(src).packed
        + ipaddress.ip_address(dst).packed
    )


def mapped(address: str) -> bytes:
    """An address as events carry it: 16 bytes, IPv4 as ::ffff:a.b.c.d."""
    found = ipaddress.ip_address(address)
    return found.packed if found.version == 6 else b"\0" * 10 + b"\xff\xff" + found.packed


# ---- events ----

ENUMS = {
    "sk_rst_reason": {1: "NO_SOCKET", 7: "TCP_STATE", 9: "TCP_ABORT_ON_CLOSE", 77: "BRAND_NEW"},
    "skb_drop_reason": {
        2: "NOT_SPECIFIED",
        3: "NO_SOCKET",
        5: "TCP_CSUM",
        21: "TCP_RESET",
        22: "TCP_FLAGS",
        30: "TCP_OVERWINDOW",
    },
}
"""Numbers of a made-up kernel: decoding must take the names from here alone."""

CONTEXT = Context(clock_offset_ns=1_000_000_000_000, enums=ENUMS)


def fill(target: Any, **values: Any) -> None:
    """Set members of a parsed structure; bytes fill arrays from their start."""
    for name, value in values.items():
        if isinstance(value, (bytes, bytearray)):
            array = getattr(target, name)
            array[:] = list(value[: len(array)].ljust(len(array), b"\0"))
        else:
            getattr(target, name)  # ctypes would silently take a name that does not exist
            setattr(target, name, value)


def headers(target: Any, l3: bytes, l4: bytes, payload_len: int = 0, trailing: bytes = b"") -> None:
    """Fill a ``struct rst_headers``, with bytes behind the headers as the kernel side leaves."""
    fill(target, l3=l3 + trailing, l4=l4 + trailing, payload_len=payload_len, present=1)


def event(kind: Kind = Kind.RECEIVED_ACCEPTED, **values: Any) -> Any:
    """A parsed ``struct rst_event`` to be filled further: a RST from the peer, nothing else."""
    found = layout.structures().rst_event()
    fill(
        found,
        **{
            "ts": 5_000_000_000,
            "skb": 0xFFFF888000000000,
            "netns": 4026531840,
            "reason": NO_REASON,
            "drop_reason": NO_REASON,
            "kind": config.KIND_NUMBERS[kind],
            **values,
        },
    )
    if kind.direction == "sent":
        l3 = ipv4_bytes(src=US, dst=PEER, ttl=64)
        headers(found.rst, l3, tcp_bytes(sport=US_PORT, dport=PEER_PORT))
    else:
        headers(found.rst, ipv4_bytes(), tcp_bytes())
    fill(found.here, netns=4026531840, ifindex=2, ttl=47)
    return found


def decoded(found: Any, context: Context = CONTEXT) -> Reset:
    """The event through its bytes, as from the ring buffer."""
    raw = bytes(found)
    assert len(raw) == layout.event_size()
    made = decode(raw, context)
    assert isinstance(made, Reset)
    return made


def socket(target: Any, **values: Any) -> None:
    """Fill a ``struct rst_socket``: an established, measured socket with a file."""
    given = {
        "address": 0xFFFF888000001000,
        "present": 1,
        "full": 1,
        "state": STATES["ESTABLISHED"],
        "state_now": STATES["ESTABLISHED"],
        "cookie": 4711,
        "inode": 99,
        "cgroup": 7,
        "uid": 1000,
        "srtt_us": 15000,
        "min_rtt_us": 14000,
        "rcv_nxt": 1000,
        "local": mapped(US),
        "remote": mapped(PEER),
        "lport": US_PORT,
        "rport": PEER_PORT,
    }
    fill(target, **{**given, **values})


# ---- resets ----

TIME = 1_574_587_803_412_345_678
MAC, OTHER_MAC, THIRD_MAC = "00:d0:f8:22:33:44", "02:00:00:00:00:99", "02:00:00:00:00:77"
MS, SECOND = 10**6, 10**9
GATEWAY = NextHop("10.0.0.1", MAC, True, 2)
BACKUP = NextHop("10.0.0.2", OTHER_MAC, True, 2)
ON_LINK = NextHop(PEER, MAC, False, 2)
LINUX_SYN = "mss 1460,sackOK,TS val 1 ecr 2,nop,wscale 7"
FREEBSD_SYN = "mss 1460,nop,wscale 6,sackOK,TS val 1 ecr 2"
WINDOWS_SYN = "mss 1460,nop,wscale 8,nop,nop,sackOK"


def seen(**values: Any) -> Seen:
    """An earlier packet of the peer: data with DF."""
    given: dict[str, Any] = {
        "time_ns": TIME - 20_000_000,
        "ttl": 47,
        "ip_id": 23403,
        "df": True,
        "flags": "PA",
        "seq": 900,
        "ack": 5000,
        "window": 509,
        "payload_len": 100,
    }
    return Seen(**{**given, **values})


def half(**values: Any) -> Half:
    """The peer's direction: twelve packets from 17 hops away; with `timestamps` all have them."""
    given: dict[str, Any] = {
        "packets": 12,
        "ttl": 47,
        "ttl_min": 47,
        "ttl_max": 47,
        "syn_ttl": 47,
        "syn_window": 65160,
        "df_always": True,
        "timestamps": False,
        "mac": MAC,
        "ifindex": 2,
        "first_ns": TIME - 9_000_000_000,
        "last_ns": TIME - 20_000_000,
        "syn_ns": TIME - 8_985_000_000,
        "recent": (seen(),),
    }
    made = Half(**{**given, **values})
    if not made.timestamps:
        return made
    stamped = (packet if packet.tsval is not None else stamp(packet) for packet in made.recent)
    return dataclasses.replace(made, recent=tuple(stamped))


def stamp(packet: Seen) -> Seen:
    """A copy with the timestamps that TIMESTAMPS are."""
    return dataclasses.replace(packet, tsval=1, tsecr=2)


OUR_DATA = seen(
    time_ns=TIME - 400_000,
    ttl=64,
    ip_id=13052,
    seq=5000,
    ack=1000,
    window=501,
    payload_len=117,
)
"""Our packet that provoked the reset: a RST that answers it has seq 1000."""


def our_half(**values: Any) -> Half:
    """Our direction."""
    older = seen(ttl=64, ip_id=13051, flags="A", seq=5000, ack=900, window=501, payload_len=0)
    given = {"ttl": 64, "ttl_min": 64, "ttl_max": 64, "syn_ttl": 64, "mac": None, "packets": 14}
    return half(**{**given, "syn_window": 64240, "recent": (OUR_DATA, older), **values})


def steady(ttl: int, **values: Any) -> Half:
    """The peer's direction, every packet with one TTL."""
    known = {"ttl": ttl, "ttl_min": ttl, "ttl_max": ttl, "syn_ttl": ttl}
    return half(**{**known, "recent": (seen(ttl=ttl),), **values})


def handshake(ttl: int = 47, **values: Any) -> Half:
    """The peer's direction, of which its SYN-ACK alone was seen."""
    syn_ack = seen(flags="SA", ttl=ttl, ip_id=0, seq=999, ack=5000, payload_len=0)
    return steady(ttl, **{"packets": 1, "syns": 1, "recent": (syn_ack,), **values})


def lone_syn(ttl: int = 47, **values: Any) -> Half:
    """The direction of a client of which one SYN came, which anybody can send in its name."""
    syn = seen(flags="S", ttl=ttl, seq=999, ack=0, payload_len=0, time_ns=TIME - 2_000_000)
    given = {"packets": 1, "syns": 1, "recent": (syn,), "syn_ns": syn.time_ns}
    return steady(ttl, **{**given, "first_ns": syn.time_ns, "last_ns": syn.time_ns, **values})


def counted(*ttls: tuple[int, int]) -> tuple[TtlCount, ...]:
    """TTLs and how many packets came with each."""
    first, last = TIME - 9_000_000_000, TIME - 20_000_000
    return tuple(TtlCount(ttl, packets, first, last) for ttl, packets in ttls)


def rst(**values: Any) -> Packet:
    """A RST as the peer's packets come: DF, an IP ID of no counter, from 17 hops away."""
    given: dict[str, Any] = {
        "src": Endpoint(PEER, PEER_PORT),
        "dst": Endpoint(US, US_PORT),
        "ttl": 47,
        "ip_id": 40000,
        "df": True,
        "tos": 0,
        "flags": "R",
        "seq": 1000,
        "ack": 0,
        "window": 0,
        "length": 40,
        "payload_len": 0,
    }
    return Packet(**{**given, **values})


def rst6(**values: Any) -> Packet:
    """The same over IPv6."""
    ends = {"src": Endpoint(PEER6, PEER_PORT), "dst": Endpoint(US6, US_PORT)}
    return rst(**{**ends, "ip_id": None, "df": None, "length": 60, **values})


def reset(
    packet: Packet | None = None,
    *,
    theirs: Half | None = None,
    ours: Half | None = None,
    scope: Scope | None = None,
    kind: Kind = Kind.RECEIVED_ACCEPTED,
    mac: str | None = None,
    next_hop: NextHop | None = None,
    **values: Any,
) -> Reset:
    """A reset as the judge gets it; `mac` is the RST frame's source."""
    packet = packet or rst()
    if scope is None:
        scope = Scope.FLOW if theirs is not None else Scope.NONE
    local, remote = packet.dst, packet.src
    if kind.direction != "received":
        local, remote = remote, local
    given: dict[str, Any] = {
        "time_ns": TIME,
        "kind": kind,
        "cause": Cause("connection-reset", "ended an established connection"),
        "local": local,
        "remote": remote,
        "rst": packet,
        "netns": 4026531840,
        "baseline": Baseline(scope, theirs, ours),
        "frame": Frame(4026531840, 2, mac, packet.ttl),
        "next_hop": next_hop,
    }
    return Reset(**{**given, **values})


def flow(packet: Packet | None = None, **values: Any) -> Reset:
    """A reset of a known flow: the peer 17 hops away, our last data 0.4 ms old."""
    return reset(packet, **{"theirs": half(), "ours": our_half(), **values})


LINUX_HALF = half(recent=(seen(ip_id=502), seen(ip_id=501), seen(ip_id=499)))
"""The direction of a peer that is plainly Linux: DF, and IP IDs that count up."""

LATER = seen(time_ns=TIME + 10_000_000, seq=1000, ack=5117)
"""What the peer sends next, after "its" RST: data that acknowledges our last."""


def earlier_rst(**values: Any) -> Seen:
    """Another RST of the peer, 1 ms before."""
    given = {"time_ns": TIME - 1_000_000, "flags": "R", "seq": 1000, "ack": 0, "payload_len": 0}
    return seen(**{**given, "window": 0, "ip_id": 40001, **values})


def measured(min_rtt_us: int) -> Socket:
    """Our socket, with the round trip that the kernel knows."""
    return Socket(4711, "ESTABLISHED", min_rtt_us, min_rtt_us, 99, 1000, 7)


def with_baseline(found: Reset, **values: Any) -> Reset:
    """A copy with another baseline."""
    return changed(found, baseline=dataclasses.replace(found.baseline, **values))


def idle(found: Reset, seconds: int = 300) -> Reset:
    """A copy whose flow said nothing for so long before our last packet."""
    ours, theirs = found.baseline.ours, found.baseline.theirs
    assert ours is not None
    assert theirs is not None
    long_ago = TIME - seconds * 10**9
    return with_baseline(
        found,
        theirs=dataclasses.replace(theirs, recent=(seen(time_ns=long_ago),), last_ns=long_ago),
        ours=dataclasses.replace(ours, recent=(OUR_DATA,)),
    )


def another(found: Reset, packet: Seen) -> Reset:
    """Another RST of the same connection, as the history keeps it beside `found`."""
    made = dataclasses.replace(
        found.rst,
        ttl=packet.ttl,
        ip_id=None if found.family == 6 else packet.ip_id,
        df=None if found.family == 6 else packet.df,
        flags=packet.flags,
        seq=packet.seq,
        ack=packet.ack,
        window=packet.window,
        payload_len=packet.payload_len,
        options=packet.options or "",
    )
    return changed(found, rst=made, time_ns=packet.time_ns, earlier=(), later=(), siblings=())


def closed(found: Reset, ago_ns: int = 10_000_000) -> Reset:
    """A copy whose peer had sent its FIN."""
    theirs = found.baseline.theirs
    assert theirs is not None
    return with_baseline(found, theirs=dataclasses.replace(theirs, fin_ns=TIME - ago_ns))


def among(found: Reset, earlier: tuple[Seen, ...] = (), later: tuple[Seen, ...] = ()) -> Reset:
    """A copy among other packets of the same end, as the history puts it."""
    ours = found.baseline.ours
    acks = frozenset(seen.ack for seen in (ours.recent if ours else ()) if "A" in seen.flags)
    resets = [packet for packet in (*reversed(earlier), *later) if "R" in packet.flags]
    alone = changed(found, our_acks=acks)
    siblings = tuple(another(alone, packet) for packet in resets)
    return changed(alone, earlier=earlier, later=later, siblings=siblings)


def changed(found: Reset, **values: Any) -> Reset:
    """A copy with other values."""
    return dataclasses.replace(found, **values)
