"""What is observed of a reset, group by group: each row is an incident, a trap, or its twin."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional

import pytest

from rsttrace.judge import observe as module
from rsttrace.judge.authors import GROUPS, ROWS
from rsttrace.judge.facts import NEAR_SEQUENCE
from rsttrace.judge.observe import OBSERVERS, OVERTAKEN_NS, Observation, distances, observe
from rsttrace.model import (
    Cause,
    Endpoint,
    Fate,
    Half,
    Kind,
    MadeHere,
    NextHop,
    Other,
    OtherEnd,
    Peer,
    Point,
    Reset,
    Scope,
    Seen,
)
from tests.unit import builders as b
from tests.unit.builders import (
    BACKUP,
    FREEBSD_SYN,
    GATEWAY,
    LINUX_SYN,
    MAC,
    MS,
    ON_LINK,
    OTHER_MAC,
    SECOND,
    THIRD_MAC,
    WINDOWS_SYN,
    changed,
    closed,
    flow,
    half,
    handshake,
    idle,
    lone_syn,
    our_half,
    reset,
    rst,
    rst6,
    seen,
    steady,
)
from tests.unit.test_judge_asked import ASKED

NEW_SYN = seen(flags="S", time_ns=b.TIME - 30 * MS, seq=70_001_000, ttl=43, payload_len=0)
UNRESOLVED = NextHop("10.0.0.1", None, True, 2)
MACOS_SYN = "mss 1460,nop,wscale 6,nop,nop,TS val 1 ecr 2,sackOK,eol"
COUNTING = half(recent=(seen(ip_id=501), seen(ip_id=500), seen(ip_id=0, flags="SA")))
LINUX = half(recent=(seen(ip_id=502), seen(ip_id=501), seen(ip_id=499)))
LINUX6 = half(df_always=False, syn_options=LINUX_SYN)
SYN_SEEN = dataclasses.replace(LINUX, syn_options=LINUX_SYN)
RENUMBERED = half(
    recent=(seen(ip_id=40_502), seen(ip_id=7_501), seen(ip_id=61_499)), syn_options=LINUX_SYN
)
STAMPED = half(timestamps=True, recent=LINUX.recent)
TAKEN_OFF = dataclasses.replace(half(syn_options=LINUX_SYN), timestamps=True)
WINDOWS = steady(111, syn_options=WINDOWS_SYN)
STAMPS = "nop,nop,TS val 1 ecr 2"


def zeros(options: str | None) -> Half:
    """The peer's direction, with IP ID 0 in all packets."""
    return half(recent=(seen(ip_id=0), seen(ip_id=0), seen(ip_id=0)), syn_options=options)


def counted(ip_id: int, seconds: float = 0.05, ttl: int = 240, flags: str = "RA") -> Reset:
    """The RST of a peer whose IP IDs count on by one with each packet."""
    times = [b.TIME - round(seconds * b.SECOND) - back for back in range(3)]
    recent = tuple(seen(ttl=ttl, ip_id=900 - at, time_ns=ns) for at, ns in enumerate(times))
    options = WINDOWS_SYN if ttl == 111 else "mss 536"
    theirs = steady(ttl, recent=recent, syn_options=options, confirmed=True)
    return flow(rst(flags=flags, ip_id=ip_id, ttl=ttl), theirs=theirs)


Rows = list[tuple[str, Reset, Optional[str]]]


def sent(ago_ms: float, **values: Any) -> Seen:
    """A packet of ours, so many ms before the RST."""
    return seen(**{"time_ns": b.TIME - round(ago_ms * MS), "ttl": 64, "ack": 1000, **values})


def peer_of(*ttls: int, **values: Any) -> Peer:
    """The newest confirmed handshakes of the peer's address."""
    given: dict[str, Any] = {"syn_ttl": ttls[0], "syn_options": None, "syn_window": 65160}
    return Peer(
        ttls=ttls, **{**given, "df": True, "mac": MAC, "time_ns": b.TIME - SECOND, **values}
    )


def several(given: Reset, *ttls: int) -> Reset:
    """A copy whose peer's address shook hands with these TTLs."""
    return b.with_baseline(given, peer=peer_of(*ttls), peer_ttls=ttls)


# ---- distance ----

SEVERAL = half(ttls=b.counted((47, 8), (43, 4)), ttl_min=43)
SPLIT = half(syn_ttl=39, ttl=231, ttl_min=39, ttl_max=231, ttls=b.counted((231, 11), (39, 1)))
INJECTED = half(ttl=63, ttl_max=63, ttls=b.counted((47, 10), (63, 2)), recent=(seen(ttl=63),))
COUNTED = tuple(b.earlier_rst(ttl=ttl) for ttl in (30, 29, 28))
WAYS = half(syn_ttl=30, ttl=31, ttls=b.counted((28, 4), (29, 4), (30, 4), (31, 4)))

DISTANCE: Rows = [
    ("as its packets", flow(), "ttl-same"),
    ("as its packets, IPv6", flow(rst6()), "ttl-same"),
    ("as another connection's handshake", flow(scope=Scope.PEER, ours=None), "ttl-same"),
    ("injected data is not the reference, the handshake is", flow(theirs=INJECTED), "ttl-same"),
    ("as two packets that were injected", flow(rst(ttl=63), theirs=INJECTED), "ttl-as-data"),
    (
        "a proxy shook hands, and this is the server",
        flow(rst(ttl=231), theirs=SPLIT),
        "ttl-of-several",
    ),
    (
        "a proxy shook hands, and the server has said one thing",
        flow(rst(ttl=231), theirs=dataclasses.replace(SPLIT, ttls=b.counted((39, 1), (231, 1)))),
        "ttl-as-data",
    ),
    ("two paths, and the second one", flow(rst(ttl=43), theirs=SEVERAL), "ttl-of-several"),
    ("two paths, and none of them", flow(rst(ttl=35), theirs=SEVERAL), "ttl-varies"),
    ("two paths, and between them", flow(rst(ttl=45), theirs=SEVERAL), "ttl-varies"),
    (
        "nothing but handshakes, and one of them",
        several(flow(rst(ttl=63), scope=Scope.PEER, ours=None), 47, 63),
        "ttl-of-several",
    ),
    (
        "another handshake of this address, from nearer",
        several(flow(rst(ttl=63)), 47, 63),
        "ttl-other-handshake-near",
    ),
    (
        "another handshake of this address, from farther",
        several(flow(rst(ttl=35)), 47, 35),
        "ttl-other-handshake",
    ),
    ("no handshake of this address", several(flow(rst(ttl=63)), 47, 45, 48), "ttl-nearer"),
    ("another stack at the same distance", flow(rst(ttl=128 - 17)), "ttl-other-initial"),
    ("a third stack at the same distance", flow(rst(ttl=255 - 17)), "ttl-other-initial"),
    ("a second stack a hop nearer", flow(rst(ttl=128 - 16)), "ttl-other-start"),
    ("1 hop nearer", flow(rst(ttl=48)), "ttl-near-many"),
    ("3 hops nearer", flow(rst(ttl=50)), "ttl-near-many"),
    ("4 hops nearer", flow(rst(ttl=51)), "ttl-nearer"),
    ("1 hop farther", flow(rst(ttl=46)), "ttl-behind-many"),
    ("3 hops farther", flow(rst(ttl=44)), "ttl-behind-many"),
    ("4 hops farther", flow(rst(ttl=43)), "ttl-farther"),
    ("IPv6, 1 hop farther", flow(rst6(ttl=46)), "ttl-behind-many"),
    ("1 hop nearer than 8", flow(rst(ttl=48), theirs=half(packets=8)), "ttl-near-many"),
    ("1 hop nearer than 7", flow(rst(ttl=48), theirs=half(packets=7)), "ttl-near-few"),
    ("1 hop nearer than 3", flow(rst(ttl=48), theirs=half(packets=3)), "ttl-near-few"),
    ("1 hop nearer than 2", flow(rst(ttl=48), theirs=half(packets=2)), "ttl-near-one"),
    ("1 hop nearer than the handshake", flow(rst(ttl=48), theirs=handshake()), "ttl-near-one"),
    ("1 hop nearer than many, long ago", idle(flow(rst(ttl=48))), "ttl-near-few"),
    (
        "1 hop nearer than few, long ago",
        idle(flow(rst(ttl=48), theirs=half(packets=3))),
        "ttl-near-one",
    ),
    ("1 hop farther than 3", flow(rst(ttl=46), theirs=half(packets=3)), "ttl-behind-few"),
    ("1 hop farther than the handshake", flow(rst(ttl=46), theirs=handshake()), "ttl-behind-one"),
    ("1 hop nearer than another connection", flow(rst(ttl=48), scope=Scope.PEER), "ttl-next-peer"),
    ("2 hops nearer than another connection", flow(rst(ttl=49), scope=Scope.PEER), "ttl-near-peer"),
    ("3 hops nearer than another connection", flow(rst(ttl=50), scope=Scope.PEER), "ttl-near-peer"),
    (
        "1 hop farther than another connection",
        flow(rst(ttl=46), scope=Scope.PEER),
        "ttl-behind-peer",
    ),
    ("the incident: 16 hops nearer", flow(rst(ttl=63)), "ttl-nearer"),
    (
        "16 hops nearer than data, no handshake seen",
        flow(rst(ttl=63), theirs=half(syn_ttl=None, syn_window=None, syn_ns=None)),
        "ttl-nearer",
    ),
    ("16 hops nearer than the handshake", flow(rst(ttl=63), theirs=handshake()), "ttl-nearer-one"),
    (
        "16 hops nearer than another connection",
        flow(rst(ttl=63), scope=Scope.PEER),
        "ttl-nearer-peer",
    ),
    ("5 hops farther than many", flow(rst(ttl=42)), "ttl-farther"),
    ("5 hops farther than few", flow(rst(ttl=42), theirs=half(packets=3)), "ttl-farther-few"),
    ("5 hops farther than the handshake", flow(rst(ttl=42), theirs=handshake()), "ttl-farther-one"),
    (
        "5 hops farther than another connection",
        flow(rst(ttl=42), scope=Scope.PEER),
        "ttl-farther-peer",
    ),
    ("8 hops farther", flow(rst(ttl=39)), "ttl-farther"),
    ("9 hops farther", flow(rst(ttl=38)), "ttl-too-far"),
    ("another stack, nearer", flow(rst(ttl=120)), "ttl-other-start"),
    ("another stack, farther", flow(rst(ttl=106)), "ttl-other-start-behind"),
    ("9 hops farther than the handshake", flow(rst(ttl=38), theirs=handshake()), "ttl-too-far-one"),
    (
        "15 hops farther than the handshake",
        flow(rst(ttl=45), theirs=handshake(60)),
        "ttl-too-far-one",
    ),
    (
        "16 hops farther than the handshake",
        flow(rst(ttl=44), theirs=handshake(60)),
        "ttl-beyond-one",
    ),
    ("its program may have set 60", closed(flow(rst(ttl=51, ip_id=0))), "ttl-program-perhaps"),
    ("its program set 40", closed(flow(rst(ttl=61, ip_id=0), theirs=steady(37))), "ttl-program"),
    ("no program sets 59", closed(flow(rst(ttl=52, ip_id=0))), "ttl-nearer"),
    ("a program's TTL, but its socket lives", flow(rst(ttl=51, ip_id=0)), "ttl-nearer"),
    ("a program's TTL, but not its host's answer", closed(flow(rst(ttl=51))), "ttl-nearer"),
    (
        "elsewhere than a lone SYN with a stack's options",
        flow(rst(ttl=63, flags="RA"), theirs=lone_syn(syn_options=LINUX_SYN)),
        "ttl-lone-whole",
    ),
    (
        "elsewhere than a SYN that nobody confirmed",
        flow(rst(ttl=63, flags="RA"), theirs=lone_syn()),
        "ttl-lone",
    ),
    ("elsewhere than a SYN that it says it never sent", flow(rst(ttl=63), theirs=lone_syn()), None),
    ("from where a SYN came that it says it never sent", flow(theirs=lone_syn()), "ttl-same"),
    (
        "a SYN was confirmed, by its sender's ACK",
        flow(rst(ttl=63), theirs=lone_syn(confirmed=True)),
        "ttl-nearer-one",
    ),
    (
        "a lone SYN against confirmed handshakes: those are the reference",
        several(flow(rst(ttl=47), theirs=lone_syn(60)), 47),
        "ttl-same",
    ),
    (
        "the gateway itself, though the peer is routed",
        flow(rst(ttl=64), mac=MAC, next_hop=GATEWAY),
        "ttl-undiminished",
    ),
    (
        "the gateway itself, at first contact",
        reset(rst(ttl=255), mac=MAC, next_hop=GATEWAY),
        "ttl-undiminished",
    ),
    (
        "no route known, but the peer's packets came over that MAC through routers",
        flow(rst(ttl=64), mac=MAC),
        "ttl-undiminished",
    ),
    (
        "a gateway that takes nothing off",
        flow(rst(ttl=64), theirs=steady(64), mac=MAC, next_hop=GATEWAY),
        "ttl-same",
    ),
    (
        "a gateway that takes nothing off, known from others",
        flow(rst(ttl=64), mac=MAC, next_hop=GATEWAY, gateway_keeps_ttl=True),
        "ttl-nearer",
    ),
    (
        "undiminished, but not from the gateway",
        reset(rst(ttl=64), mac=OTHER_MAC, next_hop=GATEWAY),
        None,
    ),
    (
        "through routers, though our route says on-link",
        reset(rst(ttl=63), next_hop=ON_LINK),
        "ttl-routed",
    ),
    (
        "a peer behind NAT on our link: all of its packets passed that router",
        flow(rst(ttl=63), theirs=steady(63), mac=MAC, next_hop=ON_LINK),
        "ttl-same",
    ),
    (
        "as a new SYN on these ports",
        flow(rst(ttl=43, ip_id=0), theirs=half(new_syn=NEW_SYN)),
        "ttl-new-syn",
    ),
    (
        "as a new SYN, but no answer of its stack",
        flow(rst(ttl=43), theirs=half(new_syn=NEW_SYN)),
        "ttl-farther",
    ),
    (
        "TTLs that count, as the peer's own packets have them: several ways",
        b.among(flow(rst(ttl=31), theirs=WAYS), earlier=COUNTED),
        "ttl-of-several",
    ),
    ("TTLs that count", b.among(flow(rst(ttl=31)), earlier=COUNTED), "ttl-counting"),
    ("two TTLs do not count", b.among(flow(rst(ttl=31)), earlier=COUNTED[:1]), "ttl-other-start"),
    ("no baseline", reset(rst(ttl=3)), None),
    ("a half without a TTL", reset(theirs=half(ttl=None, syn_ttl=None)), None),
    ("first contact behind a router", reset(rst(ttl=63), mac=MAC, next_hop=GATEWAY), None),
]

# ---- make ----


def clocked(options: str, rate: int = 1000, **values: Any) -> Reset:
    """A RST with timestamps; the peer's clock (`rate` ticks a second) was at 50000 20 ms ago."""
    theirs = half(
        timestamps=True,
        clock=((50000 - 8 * rate, b.TIME - 8020 * MS), (50000, b.TIME - 20 * MS)),
        recent=(seen(ip_id=values.pop("last_id", 23403), tsval=50000, tsecr=7000),),
    )
    ours = our_half(clock=((1000, b.TIME - 9 * SECOND), (7010, b.TIME - MS)))
    packet = rst(**{"flags": "RA", "ip_id": 0x5B6C, "window": 509, **values}, options=options)
    return flow(packet, theirs=theirs, ours=ours)


def delayed(given: Reset, seconds: int) -> Reset:
    """The same RST, so much later."""
    return dataclasses.replace(given, time_ns=given.time_ns + seconds * SECOND)


def once_clocked(options: str) -> Reset:
    """The same, where the peer has sent one packet."""
    given = clocked(options)
    theirs = given.baseline.theirs
    assert theirs is not None
    one = dataclasses.replace(theirs, clock=theirs.clock[-1:])
    return dataclasses.replace(given, baseline=dataclasses.replace(given.baseline, theirs=one))


MAKE: Rows = [
    ("no socket", flow(rst(ip_id=0)), "bare"),
    (
        "no socket, signed (TCP MD5)",
        flow(rst(ip_id=0, options="nop,nop,option-19 00112233445566778899aabbccddeeff")),
        "bare",
    ),
    ("no socket, but an option", flow(rst(ip_id=0, options="nop,nop,sackOK")), "generic"),
    ("no socket, and no flow to compare", reset(rst(ip_id=0)), "bare"),
    ("no socket, an answer without ACK", flow(rst(ip_id=0, flags="RA", seq=0, ack=7)), "bare"),
    ("no socket, a Linux peer", flow(rst(ip_id=0), theirs=LINUX), "bare"),
    ("IPv6, no socket, a Linux peer", flow(rst6(), theirs=LINUX6), "bare"),
    (
        "its answers to acks that we no longer know",
        flow(rst(ip_id=0, seq=800), theirs=LINUX),
        "bare",
    ),
    (
        "of a Windows peer",
        flow(rst(ip_id=0), theirs=half(syn_options=WINDOWS_SYN, syn_ttl=111)),
        "bare-not-its-stack",
    ),
    (
        "IPv6, no socket, an unknown peer",
        flow(rst6(), theirs=half(df_always=False)),
        "bare-any-stack",
    ),
    (
        "IPv6, no socket, a Mac",
        flow(rst6(), theirs=half(df_always=False, syn_options=MACOS_SYN)),
        "bare-any-stack",
    ),
    (
        "beyond what we acknowledged, an unknown peer",
        flow(rst(ip_id=0, seq=1001)),
        "bare-any-stack",
    ),
    (
        "beyond what we acknowledged, a Linux peer",
        flow(rst(ip_id=0, seq=1001), theirs=LINUX),
        "bare-unasked",
    ),
    (
        "RA, ID 0 where the peer's are",
        flow(rst(flags="RA", ip_id=0), theirs=zeros(FREEBSD_SYN)),
        "live-plain",
    ),
    (
        "RA, an ID where all of the peer's are 0",
        flow(rst(flags="RA", ip_id=61111), theirs=zeros(FREEBSD_SYN)),
        "id-stranger",
    ),
    (
        "R, an ID where all of the peer's are 0",
        flow(rst(ip_id=61111), theirs=zeros(None)),
        "id-stranger",
    ),
    (
        "R, an ID where the peer's last two are 0",
        flow(rst(ip_id=61111), theirs=half(recent=(seen(ip_id=0), seen(ip_id=0)))),
        "plain-answer",
    ),
    ("live, an ID far off the counter", counted(61111), "id-stranger"),
    ("live, an ID on the counter of a busy host", counted(3000), "plain-answer"),
    ("live, far off the counter, a while later", counted(61111, seconds=60), "plain-answer"),
    ("R, far off the counter of sockets", counted(61111, flags="R"), "plain-answer"),
    ("R, far off Windows's one counter", counted(61111, flags="R", ttl=111), "id-stranger"),
    ("of an old kernel, with a counter", flow(rst(ip_id=31000), theirs=LINUX), "plain-answer"),
    (
        "a peer that never sets DF",
        flow(rst(df=False), theirs=half(df_always=False)),
        "plain-answer",
    ),
    (
        "BSD: ID 0 without DF is its habit",
        flow(rst(ip_id=0, df=False), theirs=half(df_always=False)),
        "plain-answer",
    ),
    ("a plain R", flow(), "plain-answer"),
    ("live", flow(rst(ip_id=23404, flags="RA", window=509)), "live"),
    ("live, a Linux peer", flow(rst(ip_id=503, flags="RA", window=9), theirs=LINUX), "live"),
    ("live, another window", flow(rst(ip_id=23404, flags="RA", window=123)), "live"),
    (
        "live, with the agreed timestamps",
        flow(rst(ip_id=23404, flags="RA", options=STAMPS), theirs=half(timestamps=True)),
        "live",
    ),
    (
        "live, a Linux peer, some of its packets were lost",
        flow(rst(ip_id=600, flags="RA", window=9), theirs=LINUX),
        "continues",
    ),
    ("live, and its timestamps go on", clocked("nop,nop,TS val 50021 ecr 7005"), "live"),
    (
        "ID unknown, but its timestamps go on",
        clocked("nop,nop,TS val 50021 ecr 7005", ip_id=9, last_id=0),
        "live-by-clock",
    ),
    (
        "its next number and its window, and its IDs tell nothing",
        flow(rst(flags="RA", ip_id=7, window=509), theirs=half(end=1000, recent=(seen(ip_id=0),))),
        "live-window",
    ),
    ("IPv6, live", flow(rst6(flags="RA"), theirs=half(df_always=False)), "live-plain"),
    ("IPv6, live, a Linux peer", flow(rst6(flags="RA", window=9), theirs=LINUX6), "live-plain"),
    (
        "IPv6, live, a BSD puts no timestamps into resets",
        flow(rst6(flags="RA"), theirs=half(timestamps=True, syn_options=FREEBSD_SYN)),
        "live-plain",
    ),
    ("Windows", flow(rst(ip_id=23404, ttl=111), theirs=steady(111)), "windows"),
    (
        "Windows, live",
        flow(rst(ip_id=23404, ttl=111, flags="RA", ack=5000), theirs=WINDOWS),
        "windows",
    ),
    (
        "Windows, and timestamps were agreed",
        flow(rst(ip_id=23404, ttl=111), theirs=steady(111, timestamps=True)),
        "windows",
    ),
    ("the counter goes on, a plain R", flow(rst(ip_id=23404)), "continues"),
    (
        "the counter goes on by 3 packets of one buffer",
        flow(rst(ip_id=23406), theirs=half(recent=(seen(segments=3),))),
        "continues",
    ),
    (
        "the counter goes on by 4: one packet was not seen",
        flow(rst(ip_id=23407), theirs=half(recent=(seen(segments=3),))),
        "continues",
    ),
    ("the same ID again", flow(rst(ip_id=23403)), "plain-answer"),
    ("DF changed in a live shape", flow(rst(ip_id=23404, flags="RA", df=False)), "continues"),
    (
        "timestamps missing in a live shape, unknown stack",
        flow(rst(ip_id=23404, flags="RA"), theirs=half(timestamps=True)),
        "continues",
    ),
    (
        "timestamps missing, and the ID goes on as a Linux socket's",
        flow(
            rst(ip_id=503, flags="RA", window=9),
            theirs=dataclasses.replace(STAMPED, syn_options=LINUX_SYN),
        ),
        "timestamps-missing",
    ),
    (
        "IPv6, timestamps missing, a Linux peer",
        flow(rst6(flags="RA"), theirs=half(timestamps=True, syn_options=LINUX_SYN)),
        "alien",
    ),
    (
        "IPv6, with its timestamps",
        flow(rst6(flags="RA", options=STAMPS), theirs=half(timestamps=True, syn_options=LINUX_SYN)),
        "live-plain",
    ),
    (
        "Linux without a socket has no timestamps",
        flow(rst(ip_id=0), theirs=STAMPED),
        "bare",
    ),
    (
        "timestamps in its SYN, but something on the way takes them off",
        flow(rst(ip_id=23404, flags="RA"), theirs=TAKEN_OFF),
        "live",
    ),
    ("a TSval of another clock", clocked("nop,nop,TS val 999999 ecr 7005"), "timestamps-wrong"),
    # The packet before it had waited for 9.9 s: then both came at once.
    ("after a stall", clocked("nop,nop,TS val 59920 ecr 7005"), "live"),
    ("too far ahead for one", clocked("nop,nop,TS val 64000 ecr 7005"), "timestamps-wrong"),
    ("a stall before it", delayed(clocked("nop,nop,TS val 50030 ecr 7005"), 5), "live"),
    (
        "no stall is so long",
        delayed(clocked("nop,nop,TS val 50030 ecr 7005"), 15),
        "timestamps-wrong",
    ),
    (
        "copied from the last",
        delayed(clocked("nop,nop,TS val 50000 ecr 7005"), 5),
        "timestamps-wrong",
    ),
    ("a TSval that went back", clocked("nop,nop,TS val 40000 ecr 7005"), "timestamps-wrong"),
    ("a TSecr that we never sent", clocked("nop,nop,TS val 50021 ecr 9000"), "timestamps-wrong"),
    (
        "a TSval of a clock with 1 µs a tick",
        clocked("nop,nop,TS val 70500 ecr 7005", rate=1_000_000),
        "live",
    ),
    (
        "its clock is known by one packet alone, and has 1 µs a tick",
        once_clocked("nop,nop,TS val 70500 ecr 7005"),
        "live",
    ),
    (
        "its clock is known by one packet alone, another's value",
        once_clocked("nop,nop,TS val 99999999 ecr 7005"),
        "timestamps-wrong",
    ),
    ("live, a foreign ID", flow(rst(ip_id=9000, flags="RA", window=9), theirs=SYN_SEEN), "alien"),
    (
        "live, a foreign ID, the peer's SYN not seen: perhaps an old BSD",
        flow(rst(ip_id=9000, flags="RA", window=9), theirs=LINUX),
        "id-stranger",
    ),
    (
        "live, a foreign ID, where all are random: a box renumbers them",
        flow(rst(ip_id=9000, flags="RA", window=9), theirs=RENUMBERED),
        "generic",
    ),
    ("R, an ID, where all are random", flow(rst(ip_id=9000), theirs=RENUMBERED), "plain-answer"),
    (
        "live, the same ID again",
        flow(rst(ip_id=502, flags="RA", window=9), theirs=SYN_SEEN),
        "alien",
    ),
    ("tcpkill: no DF", flow(rst(ip_id=9000, df=False), theirs=LINUX), "alien"),
    (
        "no DF, a Linux SYN",
        flow(rst(df=False), theirs=dataclasses.replace(LINUX, syn_options=LINUX_SYN)),
        "alien",
    ),
    ("no ACK, but a window", flow(rst(window=63), theirs=COUNTING), "alien"),
    ("IPv6, no ACK, but a window", flow(rst6(window=9), theirs=LINUX6), "alien"),
    ("the same ID as 300 packets on: no counter", flow(rst(ip_id=23703)), "plain-answer"),
    ("no DF, and a window", flow(rst(df=False, window=63), theirs=COUNTING), "alien-many"),
    ("no ACK, but an ack number", flow(rst(ack=99, ip_id=0), theirs=LINUX), "ack-unflagged"),
    (
        "no ACK, but an ack number and a window",
        flow(rst(ack=99, ip_id=0, window=9), theirs=LINUX),
        "alien-many",
    ),
    (
        "IPv6, a window, stack unknown",
        flow(rst6(window=9), theirs=half(df_always=False)),
        "generic",
    ),
    (
        "IPv6, a window, a Mac",
        flow(rst6(window=9), theirs=half(df_always=False, syn_options=MACOS_SYN)),
        "generic",
    ),
    (
        "Windows never sends a window",
        flow(rst(ttl=111, ip_id=7, window=9), theirs=WINDOWS),
        "alien",
    ),
    ("pf", flow(rst(ip_id=7, tos=0x10)), "pf"),
    ("pf, but Linux has none", flow(rst(ip_id=0, tos=0x10), theirs=LINUX), "pf-not-its-stack"),
    (
        "an SSH session's TOS",
        flow(rst(ip_id=0, tos=0x10, src=Endpoint(b.PEER, 22)), theirs=LINUX),
        "bare",
    ),
    ("ID 0 without DF", flow(rst(ip_id=0, df=False)), "zero-no-df"),
    (
        "no DF, a peer with random IDs",
        flow(rst(ip_id=9000, df=False), theirs=half(recent=(seen(ip_id=7), seen(ip_id=40000)))),
        "df-lost",
    ),
    (
        "no DF, another stack's SYN",
        flow(rst(df=False), theirs=dataclasses.replace(LINUX, syn_options=FREEBSD_SYN)),
        "df-lost",
    ),
    (
        "no DF, a Windows peer that no SYN tells",
        flow(
            rst(ip_id=9000, df=False, ttl=111),
            theirs=dataclasses.replace(LINUX, ttl=111, ttl_min=111, ttl_max=111, syn_ttl=111),
        ),
        "df-lost",
    ),
    ("no DF, after a handshake alone", flow(rst(df=False), theirs=handshake()), "df-lost-one"),
    ("no DF, no baseline", reset(rst(df=False)), "generic"),
    (
        "a handshake of another connection is no flow",
        flow(rst(ip_id=23404, flags="RA"), scope=Scope.PEER),
        "generic",
    ),
    ("nothing known", reset(rst(ip_id=23404, flags="RA")), "generic"),
]

# ---- copied ----


def near(first: int, segments: int, ip_id: int) -> Reset:
    """A RST with this ID, after a buffer of ours that stood for so many packets."""
    ours = our_half(recent=(seen(ip_id=first, segments=segments, ttl=64),))
    return flow(rst(ip_id=ip_id), ours=ours)


def windows_of(mine: int, theirs: int, packet: int, **values: Any) -> Reset:
    """A RST with a window, where both ends' last ones are known."""
    return flow(
        rst(window=packet),
        ours=our_half(recent=(dataclasses.replace(b.OUR_DATA, window=mine),)),
        theirs=half(recent=(seen(window=theirs),), **values),
    )


COPIED: Rows = [
    ("our ID", flow(rst(ip_id=13052)), "ip-id-ours"),
    ("our ID + 1", flow(rst(ip_id=13053)), "ip-id-ours"),
    ("our ID + 2", flow(rst(ip_id=13054)), None),
    ("our older packet's ID", flow(rst(ip_id=13051)), "ip-id-ours"),
    ("an ID before ours", flow(rst(ip_id=13050)), None),
    ("the last packet of an offloaded buffer", near(13052, 44, 13052 + 43), "ip-id-ours"),
    ("the one after an offloaded buffer", near(13052, 44, 13052 + 44), "ip-id-ours"),
    ("in the middle of a long offloaded buffer: by chance", near(13052, 90, 13052 + 20), None),
    ("in the middle of an offloaded buffer", near(13052, 44, 13052 + 20), "ip-id-ours"),
    ("beyond an offloaded buffer", near(13052, 44, 13052 + 45), None),
    ("before an offloaded buffer", near(13052, 44, 13051), None),
    ("an offloaded buffer's IDs wrap", near(65530, 10, 3), "ip-id-ours"),
    ("ID 1 is nobody's", near(65530, 10, 1), None),
    ("ID 0 is nobody's", near(65530, 10, 0), None),
    ("ID 1 after ours was 0", flow(rst(ip_id=1), ours=our_half(recent=(seen(ip_id=0),))), None),
    ("nothing of ours", flow(rst(ip_id=13052), ours=None), None),
    ("nothing of ours kept", flow(rst(ip_id=13052), ours=our_half(recent=())), None),
    (
        "the peer's own counter reaches ours",
        flow(rst(ip_id=13052), theirs=half(recent=(seen(ip_id=13051),))),
        None,
    ),
    (
        "a peer whose ordinary packets repeat our IDs",
        flow(rst(ip_id=13052), theirs=half(recent=(seen(ip_id=13052), seen(ip_id=13051)))),
        None,
    ),
    ("IPv6 has no ID", flow(rst6(), ours=our_half(recent=(seen(ip_id=0),))), None),
    ("our window", windows_of(501, 2053, 501), "window-ours"),
    (
        "our ID and our window",
        changed(windows_of(501, 2053, 501), rst=rst(ip_id=13052, window=501)),
        "ip-id-and-window-ours",
    ),
    (
        "our ID, and a window that both have",
        changed(windows_of(501, 501, 501), rst=rst(ip_id=13052, window=501)),
        "ip-id-ours",
    ),
    ("our window, and the peer's is near", windows_of(501, 509, 501), "window-ours-near"),
    (
        "our window, and the peer's is unknown",
        reset(rst(window=501), ours=our_half()),
        "window-ours-near",
    ),
    ("our window, and the peer's", windows_of(501, 501, 501), None),
    ("our window, and the peer's SYN's", windows_of(501, 2053, 501, syn_window=501), None),
    (
        "the window of our SYN, which is not scaled",
        flow(rst(window=501), ours=our_half(recent=(sent(1, flags="S", window=501),))),
        None,
    ),
    ("another window", windows_of(501, 2053, 502), None),
    ("window 0", flow(rst(window=0)), None),
    ("window 0, and ours is 0 too", windows_of(0, 2053, 0), None),
    ("a window, and nothing of ours", flow(rst(window=501), ours=None), None),
]

# ---- history ----

OUR_SYN = sent(0.4, flags="S", seq=4999, ack=0, payload_len=0)
OUR_SYN_ACK = sent(0.4, flags="SA", seq=4999, ack=1000, payload_len=0)
REFUSAL = rst(flags="RA", seq=0, ack=5000, ip_id=0)
REFUSED = Cause("connection-refused", "the connection was refused")
SENT_AGAIN = (sent(100, seq=5000), sent(300, seq=5000), sent(600, seq=5100, ack=900))


def silent_for(seconds: float, **values: Any) -> Reset:
    """A flow whose peer sent its last packet so long ago, and we little later."""
    last = b.TIME - round(seconds * SECOND)
    return flow(
        theirs=half(last_ns=last, recent=(seen(time_ns=last),)),
        **{"ours": our_half(recent=(sent(1),)), **values},
    )


def after_rst(first: Seen, **values: Any) -> Reset:
    """A RST of the peer's host after another one."""
    return b.among(flow(rst(ip_id=0), theirs=LINUX, **values), earlier=(first,))


HISTORY: Rows = [
    (
        "refused",
        reset(REFUSAL, cause=REFUSED, ours=our_half(packets=1, recent=(OUR_SYN,))),
        "refused",
    ),
    (
        "refused, seen on its way",
        reset(REFUSAL, trigger=OUR_SYN, ours=our_half(packets=1, recent=(OUR_SYN,))),
        "refused",
    ),
    ("nothing seen before", reset(rst(ip_id=0)), None),
    (
        "right after its SYN-ACK",
        flow(theirs=handshake(), ours=our_half(packets=2, recent=(sent(1, payload_len=0),))),
        "handshake",
    ),
    (
        "right after its ACK of our SYN-ACK",
        flow(
            theirs=half(
                packets=2,
                syns=1,
                confirmed=True,
                recent=(seen(flags="A", payload_len=0), seen(flags="S", ack=0, payload_len=0)),
            ),
            ours=our_half(packets=1, recent=(OUR_SYN_ACK,)),
        ),
        "shaken",
    ),
    (
        "it never sent that SYN",
        flow(theirs=lone_syn(), ours=our_half(packets=1, recent=(OUR_SYN_ACK,))),
        "denied",
    ),
    (
        "a scanner's kernel",
        flow(
            theirs=lone_syn(syn_options="mss 1460"), ours=our_half(packets=1, recent=(OUR_SYN_ACK,))
        ),
        "denied",
    ),
    ("its FIN came before", closed(flow()), "peer-closed"),
    (
        "its FIN is among its last packets",
        flow(theirs=half(recent=(seen(flags="FA"),))),
        "peer-closed",
    ),
    (
        "its live socket's RST came before",
        after_rst(b.earlier_rst(flags="RA", ip_id=503, window=9)),
        "peer-reset",
    ),
    (
        "its live socket's RST came just after: the answer may have overtaken it",
        after_rst(
            b.earlier_rst(flags="RA", ip_id=503, window=9, time_ns=b.TIME + OVERTAKEN_NS // 2)
        ),
        "peer-reset-later",
    ),
    (
        "a RST came before that the peer cannot have made",
        after_rst(b.earlier_rst(ttl=63, ip_id=9000, df=False)),
        "alive",
    ),
    (
        "we had closed",
        flow(ours=our_half(recent=(sent(1, flags="FA"), sent(2)))),
        "we-closed",
    ),
    (
        "the ports were used again",
        flow(rst(ttl=43, ip_id=0), theirs=half(new_syn=NEW_SYN)),
        "ports-reused",
    ),
    ("a new SYN came, from elsewhere", flow(rst(ip_id=0), theirs=half(new_syn=NEW_SYN)), "alive"),
    (
        "a new SYN in the name of the server that we connected to",
        flow(
            rst(ttl=43, ip_id=0),
            theirs=half(new_syn=NEW_SYN),
            ours=our_half(syn_ns=b.TIME - 9 * SECOND),
        ),
        "alive",
    ),
    (
        "a new SYN, but no answer of a host without a socket",
        flow(theirs=half(new_syn=NEW_SYN)),
        "alive",
    ),
    ("we had reset it", flow(we_reset_ns=b.TIME - 5_000_000), "we-reset"),
    ("alive 20 ms ago", flow(), "alive"),
    ("alive a second ago", silent_for(1.0), "alive"),
    ("silent for two seconds", silent_for(2.0), "quiet"),
    ("idle for five minutes", idle(flow()), "idle"),
    ("idle for a minute", idle(flow(), 61), "idle"),
    ("silent for 59 s", idle(flow(), 59), "quiet"),
    ("we sent it again and again", silent_for(2.0, ours=our_half(recent=SENT_AGAIN)), "unanswered"),
    ("a clock that jumped back", flow(theirs=half(last_ns=b.TIME + SECOND)), "alive"),
]

# ---- timing ----


def timed(
    packet: Any = None, ours: Half | None = None, rtt_us: int = 15_000, **values: Any
) -> Reset:
    """A flow whose socket knows its least round trip."""
    ours = dataclasses.replace(ours or our_half(), syn_ns=None)
    return flow(packet or rst(), ours=ours, socket=b.measured(rtt_us), **values)


RETRANSMITTED = (sent(0.4, seq=5000, payload_len=117), sent(3, seq=5117, payload_len=0, flags="A"))
SHAKEN: dict[str, Any] = {
    "theirs": half(packets=1, syn_ns=b.TIME - 5 * MS),
    "ours": our_half(packets=2, syn_ns=b.TIME - 20 * MS),
}

TIMING: Rows = [
    ("0.4 of 15 ms", timed(), "too-soon"),
    ("IPv6", timed(rst6()), "too-soon"),
    ("0.4 of 1.6 ms: too short a trip to tell", timed(rtt_us=1602), None),
    ("just under half", timed(ours=our_half(recent=(sent(7.4),), packets=1)), "too-soon"),
    ("half", timed(ours=our_half(recent=(sent(7.5),), packets=1)), None),
    ("answers an older one", timed(rst(seq=900)), None),
    ("answers nothing", timed(rst(seq=7)), None),
    ("acknowledges our data", timed(rst(flags="RA", ack=5117)), "too-soon"),
    ("acknowledges nothing new", timed(rst(flags="RA", ack=5000)), None),
    (
        "a retransmission whose first is forgotten",
        timed(rst(flags="RA", ack=5117), our_half(recent=RETRANSMITTED)),
        None,
    ),
    (
        "a retransmission, and all packets are known",
        timed(rst(flags="RA", ack=5117), our_half(recent=RETRANSMITTED, packets=2)),
        "too-soon",
    ),
    (
        "many acks with that number",
        timed(
            ours=our_half(recent=tuple(sent(n / 10, payload_len=0, flags="A") for n in range(1, 5)))
        ),
        None,
    ),
    ("a clock that jumped back", timed(ours=our_half(recent=(sent(-1),), packets=1)), None),
    ("nothing of ours", timed(ours=our_half(recent=())), None),
    ("of the handshake alone", flow(**SHAKEN), "too-soon-perhaps"),
    (
        "a SYN was sent twice (Karn's rule)",
        flow(**{**SHAKEN, "ours": our_half(packets=2, syns=2, syn_ns=b.TIME - 20 * MS)}),
        None,
    ),
    (
        "the socket's, which rests on the handshake alone",
        timed(theirs=half(packets=2)),
        "too-soon-perhaps",
    ),
]

# ---- numbers ----


def answered_with_ttl(ttl: int, theirs: Half | None = None) -> Reset:
    """A RST that acknowledges our packet, which left with this TTL; the peer is 17 hops away."""
    packet = dataclasses.replace(b.OUR_DATA, ttl=ttl, payload_len=38)
    ack = (packet.seq + packet.payload_len) & 0xFFFFFFFF
    return flow(rst(flags="RA", ack=ack), ours=our_half(recent=(packet,)), theirs=theirs or half())


WRAPPED = 2**32 - 100
COPY = b.earlier_rst(ip_id=40000)
QUIET = half(last_ns=b.TIME - 3 * MS)
TWO_BEYOND = (
    b.earlier_rst(seq=1500, time_ns=b.TIME + 1),
    b.earlier_rst(seq=2500, time_ns=b.TIME + 2),
)

INJECTED_END = dataclasses.replace(INJECTED, ttls=b.counted((47, 10), (48, 2)), end=1000)


NEXT: dict[str, Any] = {"flags": "RA", "seq": 1000, "ack": 5117}


def elsewhere(packet: Any = None, **values: Any) -> Reset:
    """A RST+ACK with the peer's next numbers, by default from a hop nearer than its packets."""
    return flow(packet or rst(ttl=48, **NEXT), **{"theirs": half(end=1000), **values})


def reaching(acked: int) -> Reset:
    """A peer whose program has a TTL of 200, so that it seems 70 routers away, answers our data."""
    theirs = dataclasses.replace(steady(185, recent=(seen(ttl=185),)), end=1000, acked=acked)
    newer = sent(1, ttl=64, seq=5117, payload_len=40)
    ours = our_half(recent=(newer, b.OUR_DATA), end=5157)
    return flow(rst(flags="RA", seq=1000, ack=5157, ttl=185, ip_id=503), theirs=theirs, ours=ours)


def acknowledging(number: int, acked: int = 5117) -> Reset:
    """A live socket's RST with this ack number, of a peer that had acknowledged so much."""
    theirs, ours = half(end=1000, acked=acked), our_half(end=5117)
    return flow(rst(flags="RA", seq=1000, ack=number, ip_id=503), theirs=theirs, ours=ours)


NUMBERS: Rows = [
    ("acknowledges what died before the peer", answered_with_ttl(13), "beyond-reach"),
    (
        "which would have died, if the way there is a little longer than back",
        answered_with_ttl(17),
        None,
    ),
    ("which reached the peer", answered_with_ttl(64), None),
    ("the peer's distance is unknown", answered_with_ttl(13, lone_syn()), None),
    ("its next number", flow(rst(flags="RA", seq=1000), theirs=half(end=1000)), None),
    ("its next numbers, from a hop nearer", elsewhere(), "next-number"),
    ("its next numbers, from a hop farther, IPv6", elsewhere(rst6(ttl=46, **NEXT)), "next-number"),
    ("its next numbers, from where it always was", elsewhere(rst(ttl=47, **NEXT)), None),
    ("its next numbers, from one of its ways", elsewhere(theirs=INJECTED_END), None),
    (
        "a number beyond its next one, from a hop nearer",
        elsewhere(rst(**{**NEXT, "ttl": 48, "seq": 1010})),
        None,
    ),
    ("acknowledges what we never sent", elsewhere(rst(**{**NEXT, "ttl": 48, "ack": 5118})), None),
    (
        "acknowledges less than it had before",
        elsewhere(
            rst(**{**NEXT, "ttl": 48, "ack": 5000}), theirs=half(end=1000, recent=(seen(ack=5117),))
        ),
        None,
    ),
    ("no ACK: the number of the packet it answers", elsewhere(rst(ttl=48, seq=1000)), None),
    (
        "refuses our SYN, which a SYN proxy had answered",
        elsewhere(
            rst(**{**NEXT, "ttl": 48, "ip_id": 0, "ack": 5000}),
            theirs=dataclasses.replace(handshake(), end=1000),
            ours=our_half(packets=1, recent=(OUR_SYN,)),
        ),
        None,
    ),
    ("nothing of ours known, from elsewhere", elsewhere(ours=None), None),
    (
        "after data that we have not seen",
        flow(rst(flags="RA", seq=1500), theirs=half(end=1000)),
        None,
    ),
    (
        "no way too long for what the peer has acknowledged already",
        reaching(acked=5117),
        None,
    ),
    ("too long a way, as far as is known", reaching(acked=5000), "beyond-reach"),
    ("acknowledges less than before", acknowledging(5050), "strange-ack"),
    ("acknowledges what we never sent", acknowledging(6000), "strange-ack"),
    (
        "acknowledges what the capture does not have",
        changed(acknowledging(6000), file="a.pcap"),
        "strange-ack-perhaps",
    ),
    ("acknowledges an older packet of ours", acknowledging(5000), None),
    ("acknowledges one that we know no more", acknowledging(4000), None),
    ("acknowledges all", acknowledging(5117), None),
    (
        "acknowledges what was not captured, as the peer had done",
        changed(acknowledging(6000, acked=6000), file="a.pcap"),
        None,
    ),
    (
        "numbers far from the connection's: a sweep",
        b.among(
            flow(rst(ip_id=0, seq=1 << 26)),
            earlier=tuple(b.earlier_rst(ip_id=0, seq=n << 27) for n in (1, 2, 3)),
        ),
        "sweep",
    ),
    (
        "the number that was asked for, in a sweep",
        b.among(
            flow(rst(ip_id=0)),
            earlier=tuple(b.earlier_rst(ip_id=0, seq=n << 27) for n in (1, 2, 3, 4)),
        ),
        None,
    ),
    (
        "numbers far from the connection's: an earlier one's",
        b.among(flow(rst(ip_id=0, seq=1 << 26)), earlier=(b.earlier_rst(ip_id=0, seq=1 << 27),)),
        None,
    ),
    ("one byte behind", flow(rst(flags="RA", seq=999), theirs=half(end=1000)), "behind-data"),
    ("IPv6, behind", flow(rst6(flags="RA", seq=950), theirs=half(end=1000)), "behind-data"),
    (
        "behind, across the wrap",
        flow(
            rst(flags="RA", seq=WRAPPED),
            theirs=half(end=50),
            ours=our_half(recent=(sent(1, ack=10),), packets=1),
        ),
        "behind-data",
    ),
    ("asked for long ago", flow(rst(flags="RA", seq=WRAPPED), theirs=half(end=50)), None),
    ("its end is unknown", flow(rst(flags="RA", seq=950), theirs=half(end=None)), None),
    ("what our ack asked for", flow(rst(flags="RA", seq=900), theirs=half(end=1000)), None),
    ("an older ack asked", flow(rst(flags="RA", seq=100), theirs=half(end=1000)), None),
    ("no socket", flow(rst(ip_id=0, seq=950), theirs=half(end=1000)), None),
    ("seq 0", flow(rst(flags="RA", seq=0), theirs=half(end=1000)), None),
    (
        "of another connection",
        flow(rst(flags="RA", seq=950), theirs=half(end=950 + NEAR_SEQUENCE + 1)),
        None,
    ),
    (
        "beyond, after two others",
        b.among(flow(rst(seq=2500)), earlier=(b.earlier_rst(seq=1800), b.earlier_rst(seq=1000))),
        "moves-on",
    ),
    (
        "answers our ack, and is made like two beyond",
        b.among(flow(theirs=QUIET), later=TWO_BEYOND),
        "moves-on",
    ),
    (
        "answers our ack, and came from elsewhere than two beyond",
        b.among(flow(rst(ttl=44), theirs=QUIET), later=TWO_BEYOND),
        None,
    ),
    ("two that answer nothing", b.among(flow(rst(seq=1500)), later=TWO_BEYOND[1:]), "moves-on"),
    (
        "IPv6, two that answer nothing",
        b.among(flow(rst6(flags="RA", seq=2500)), earlier=(b.earlier_rst(flags="RA", seq=1500),)),
        "moves-on",
    ),
    (
        "closed with data unread, then an answer",
        b.among(
            flow(rst(seq=1500, flags="RA")), later=(b.earlier_rst(seq=1000, time_ns=b.TIME + 2),)
        ),
        None,
    ),
    (
        "the answer overtook the live one",
        b.among(flow(rst(seq=1500, flags="RA")), earlier=(b.earlier_rst(seq=900),)),
        None,
    ),
    (
        "answers to acks that we no longer know",
        b.among(
            flow(rst(seq=800, ip_id=0)),
            earlier=(b.earlier_rst(seq=700, ip_id=0), b.earlier_rst(seq=600, ip_id=0)),
        ),
        None,
    ),
    (
        "one of another connection",
        b.among(flow(rst(seq=2500)), earlier=(b.earlier_rst(seq=1000 + 2**30),)),
        None,
    ),
    (
        "the peer sent data in between",
        b.among(
            flow(rst(seq=2500), theirs=half(last_ns=b.TIME - 1)),
            earlier=(b.earlier_rst(seq=1500),),
        ),
        None,
    ),
    (
        "the peer went on in between",
        b.among(
            flow(rst(seq=1500)),
            later=(b.LATER, b.earlier_rst(seq=2500, time_ns=b.TIME + 20 * MS)),
        ),
        None,
    ),
    (
        "one packet captured twice",
        b.among(flow(rst(seq=1500)), earlier=(b.earlier_rst(seq=1500, ip_id=40000),)),
        None,
    ),
    (
        "nothing of ours known",
        b.among(flow(rst(seq=2500), ours=None), earlier=(b.earlier_rst(seq=1500),)),
        None,
    ),
    (
        "the very same RST three times, where other packets came once",
        b.among(flow(), earlier=(COPY, COPY)),
        "tripled",
    ),
    ("the very same RST twice", b.among(flow(), earlier=(COPY,)), None),
    (
        "three copies, and other packets came twice, too",
        b.among(flow(theirs=half(recent=(seen(), seen()))), earlier=(COPY, COPY)),
        None,
    ),
    (
        "three answers without a socket, to three packets of ours",
        b.among(
            flow(rst(ip_id=0)),
            earlier=(b.earlier_rst(ip_id=0), b.earlier_rst(ip_id=0)),
        ),
        None,
    ),
    (
        "across the wrap",
        b.among(
            flow(rst(seq=400), ours=our_half(recent=(sent(1, ack=WRAPPED),))),
            earlier=(b.earlier_rst(seq=WRAPPED + 50),),
        ),
        "moves-on",
    ),
]

# ---- link ----

ON_OUR_LINK: dict[str, Any] = {"theirs": steady(64), "next_hop": ON_LINK}

LINK: Rows = [
    ("the flow's MAC", flow(mac=MAC, next_hop=GATEWAY), None),
    ("the flow's MAC, not the next hop's", flow(mac=MAC, next_hop=BACKUP), None),
    ("the peer's own MAC", flow(rst(ttl=64), mac=MAC, **ON_OUR_LINK), "mac-own"),
    ("our other gateway", flow(mac=OTHER_MAC, next_hop=BACKUP), "mac-other-gateway"),
    ("a stranger", flow(mac=OTHER_MAC, next_hop=GATEWAY), "mac-stranger"),
    ("a second MAC on our link", flow(rst(ttl=64), mac=OTHER_MAC, **ON_OUR_LINK), "mac-another"),
    (
        "a second MAC on our link, the route unknown",
        flow(rst(ttl=64), mac=OTHER_MAC, theirs=steady(64)),
        "mac-another",
    ),
    (
        "another path: its distance says that already",
        flow(rst(ttl=46), mac=OTHER_MAC, next_hop=BACKUP),
        None,
    ),
    (
        "not our next hop, nothing to compare",
        reset(mac=OTHER_MAC, next_hop=GATEWAY),
        "mac-unexpected",
    ),
    ("our next hop, nothing to compare", reset(mac=MAC, next_hop=GATEWAY), None),
    ("our next hop is not resolved", reset(mac=MAC, next_hop=UNRESOLVED), None),
    (
        "a lone SYN's MAC is nobody's",
        flow(theirs=lone_syn(mac=OTHER_MAC), mac=THIRD_MAC),
        None,
    ),
    ("nothing known", reset(mac=OTHER_MAC), None),
    ("no Ethernet", flow(mac=None, next_hop=GATEWAY), None),
    ("loopback", flow(mac="00:00:00:00:00:00", next_hop=GATEWAY), None),
    ("no frame", changed(flow(mac=OTHER_MAC), frame=None), None),
]

# ---- aftermath ----

SYN_ACK = seen(flags="SA", seq=70, ack=5001, payload_len=0, time_ns=b.TIME + MS)
SYN_SENT = sent(0.4, flags="S", seq=5000, ack=0, payload_len=0)


def refused(packet: Any, **values: Any) -> Reset:
    """The answer to our SYN, from a peer that then answers it with a SYN-ACK."""
    given = {"ours": our_half(recent=(SYN_SENT,), packets=1), "cause": REFUSED, **values}
    return b.among(reset(packet, **given), later=(SYN_ACK,))


def later(*packets: Seen, **values: Any) -> Reset:
    """A RST, and what came in the peer's name after it."""
    packet = values.pop("packet", None)
    return b.among(flow(packet, **values), later=packets)


def provoked_again(given: Reset) -> Reset:
    """A copy in which a packet of ours left just before each later RST."""
    siblings = tuple(
        b.with_baseline(other, ours=our_half(last_ns=other.time_ns - MS))
        for other in given.siblings
    )
    return changed(given, siblings=siblings)


def with_halves(given: Reset, theirs: Half, ours: Half | None) -> Reset:
    """A copy in which every RST has these two halves for a baseline."""
    siblings = tuple(
        b.with_baseline(other, scope=Scope.FLOW, theirs=theirs, ours=ours)
        for other in given.siblings
    )
    return changed(b.with_baseline(given, theirs=theirs, ours=ours), siblings=siblings)


def shaken_in(round_trip_ns: int, given: Reset) -> Reset:
    """A copy whose handshake took so long."""
    ours = our_half(syns=1, end=5117)
    assert ours.syn_ns is not None
    theirs = half(syns=1, syn_ns=ours.syn_ns + round_trip_ns, acked=5117)
    return with_halves(given, theirs, ours)


def under_way(given: Reset, count: int | None) -> Reset:
    """A copy in which so many packets of ours were not acknowledged; None: that is not known."""
    acked = None if count is None else 5117 - 500 * count
    return with_halves(given, half(acked=acked), our_half(end=5117))


def one_direction(given: Reset) -> Reset:
    """A copy of which only what came in was captured."""
    return with_halves(given, half(), None)


def acked(*packets: Seen) -> dict[str, Any]:
    """Our direction, as a value of flow()."""
    return {"ours": our_half(recent=packets)}


def living(after_ns: int = 300 * MS, **values: Any) -> Reset:
    """A live socket's RST, and a packet of that socket after it: data that it had sent before."""
    packet = rst(flags="RA", seq=1000, ack=5050, ip_id=503)
    data = {"seq": 700, "ack": 5050, "flags": "PA", "payload_len": 0}
    theirs = half(end=1000, recent=(seen(**{**data, "payload_len": 300, "ip_id": 502}),))
    after = seen(**{**data, "time_ns": b.TIME + after_ns, **values})
    return later(after, packet=packet, theirs=theirs, ours=our_half(end=5117))


LIVE = rst(flags="RA", ip_id=503, window=9)
SAME_AGAIN = b.earlier_rst(flags="RA", ip_id=504, window=9, time_ns=b.TIME + 210 * MS)
ANSWER_AGAIN = b.earlier_rst(ip_id=0, time_ns=b.TIME + 1210 * MS)
ANSWER_SOON = b.earlier_rst(ip_id=0, time_ns=b.TIME + 320 * MS)
RA1, RA2 = (
    b.earlier_rst(flags="RA", ip_id=31000, time_ns=b.TIME - 2 * MS),
    b.earlier_rst(flags="RA", ip_id=45000),
)
PERFECT = flow(rst(ip_id=0), theirs=LINUX)

AFTERMATH: Rows = [
    ("data that acknowledges our last", later(b.LATER), "went-on"),
    ("IPv6", later(dataclasses.replace(b.LATER, ip_id=None, df=None), packet=rst6()), "went-on"),
    (
        "a FIN",
        later(seen(seq=1000, payload_len=0, flags="FA", ack=5117, time_ns=b.TIME + 1)),
        "went-on",
    ),
    ("a number that nobody asked for", later(b.LATER, packet=rst(seq=1010)), "went-on"),
    (
        "after a live socket's own",
        later(seen(seq=1000), packet=rst(flags="RA", options=STAMPS)),
        "went-on",
    ),
    ("acknowledges more than the RST did", living(flags="A", seq=1000, ack=5117), "went-on"),
    ("acknowledges as much as the RST did", living(flags="A", seq=1000, ack=5050), None),
    ("acknowledges what we never sent", living(flags="A", seq=1000, ack=9117), None),
    ("repeats data", living(ip_id=510, payload_len=300), "went-on"),
    ("a late copy of data", living(ip_id=502, payload_len=300), None),
    ("repeats data, without an IP ID", living(ip_id=0, payload_len=300), "went-on-perhaps"),
    ("repeated data that the RST overtook", living(ip_id=500, payload_len=300), None),
    ("asks whether we are there", living(ip_id=510, seq=999, flags="A"), "went-on"),
    ("repeats data too soon", living(2 * MS, ip_id=510, payload_len=300), None),
    ("other data", living(ip_id=510, payload_len=300, seq=400), None),
    ("the second proves it", later(seen(seq=1000, ack=5000), b.LATER), "went-on"),
    (
        "across the wrap",
        later(
            seen(seq=WRAPPED, payload_len=300, ack=1000),
            packet=rst(seq=WRAPPED),
            **acked(sent(1, ack=WRAPPED)),
        ),
        "went-on",
    ),
    ("accepts what was refused", refused(rst(flags="RA", seq=0, ack=5001, ip_id=0)), "accepted"),
    (
        "accepts what was refused, and other handshakes are known",
        refused(rst(flags="RA", seq=9, ack=5001), theirs=half(), scope=Scope.PEER),
        "accepted",
    ),
    (
        "accepts what was refused, but our SYN was sent twice",
        refused(
            rst(flags="RA", seq=0, ack=5001, ip_id=0),
            ours=our_half(recent=(SYN_SENT,), packets=2, syns=2),
        ),
        "went-on",
    ),
    (
        "the socket that is not there resets it itself",
        later(
            b.earlier_rst(flags="RA", ip_id=503, window=9, time_ns=b.TIME + 2 * OVERTAKEN_NS),
            packet=rst(ip_id=0),
            theirs=LINUX,
        ),
        "went-on",
    ),
    (
        "the answer overtook the RST of the socket that had just gone",
        later(
            b.earlier_rst(flags="RA", ip_id=503, window=9, time_ns=b.TIME + OVERTAKEN_NS // 2),
            packet=rst(ip_id=0),
            theirs=LINUX,
        ),
        None,
    ),
    (
        "our packet not all acknowledged",
        later(seen(seq=1000, ack=5116, time_ns=b.TIME + 1)),
        "went-on-perhaps",
    ),
    (
        "data that was under way",
        later(seen(seq=1000, ack=5000, time_ns=b.TIME + 1)),
        "went-on-perhaps",
    ),
    (
        "the answer to a pure ACK",
        later(b.LATER, **acked(sent(1, payload_len=0, flags="A", seq=5000))),
        "went-on-perhaps",
    ),
    (
        "the answer to a stray retransmission (connection tracking let it escape NAT)",
        later(b.LATER, **acked(b.OUR_DATA, sent(300, seq=5000, payload_len=117))),
        "went-on-perhaps",
    ),
    (
        "a retransmission whose first is forgotten",
        later(b.LATER, **acked(b.OUR_DATA, sent(3, seq=5117, payload_len=0))),
        "went-on-perhaps",
    ),
    ("the answer to an older packet", later(b.LATER, packet=rst(seq=950)), "went-on-perhaps"),
    ("nothing of ours known", later(b.LATER, ours=None), "went-on-perhaps"),
    (
        "its SYN-ACK once more",
        changed(later(dataclasses.replace(SYN_ACK, seq=1000)), our_acks=frozenset({1001})),
        "asked-again",
    ),
    ("a RST of another SYN", refused(rst(flags="RA", seq=0, ack=777)), None),
    ("a host in SYN-RECEIVED resets a stray", refused(rst(flags="R", seq=8888)), None),
    (
        "a SYN-ACK repeated, which we had before the RST",
        refused(rst(flags="RA", seq=0, ack=5001, ip_id=0), theirs=half()),
        None,
    ),
    ("another RST", later(b.earlier_rst(seq=2000)), None),
    ("data that was overtaken", later(seen(seq=900, payload_len=100, ack=5117)), None),
    ("a pure ACK", later(seen(seq=1000, payload_len=0, flags="A", ack=5117)), None),
    ("a keep-alive with a byte", later(seen(seq=999, payload_len=1, ack=5117)), None),
    ("a RST without a number", later(b.LATER, packet=rst(seq=0)), None),
    ("of an earlier connection", later(b.LATER, packet=rst(seq=1000 - NEAR_SEQUENCE)), None),
    ("data from elsewhere: injected", later(dataclasses.replace(b.LATER, ttl=60)), None),
    ("data from another MAC: injected", later(dataclasses.replace(b.LATER, mac=OTHER_MAC)), None),
    ("data with a wrong checksum", later(dataclasses.replace(b.LATER, checksum_ok=False)), None),
    (
        "data without the agreed timestamps",
        later(dataclasses.replace(b.LATER, options="", tsval=None), theirs=half(timestamps=True)),
        None,
    ),
    (
        "a live socket's RST again, as a retransmission",
        later(SAME_AGAIN, packet=LIVE, theirs=LINUX),
        "reset-again",
    ),
    (
        "a live socket's RST twice at once: a copy",
        later(dataclasses.replace(SAME_AGAIN, time_ns=b.TIME + MS), packet=LIVE, theirs=LINUX),
        None,
    ),
    (
        "the no-socket answer again, and we sent nothing in between",
        under_way(later(ANSWER_AGAIN, packet=rst(ip_id=0)), 0),
        "reset-again",
    ),
    (
        "the no-socket answer twice, and one packet of ours was under way",
        under_way(later(ANSWER_AGAIN, packet=rst(ip_id=0)), 1),
        "reset-again",
    ),
    (
        "the no-socket answer twice, and two were, perhaps in a queue",
        under_way(later(ANSWER_AGAIN, packet=rst(ip_id=0)), 2),
        None,
    ),
    (
        "the no-socket answer twice, and what was under way is not known",
        under_way(later(ANSWER_AGAIN, packet=rst(ip_id=0)), None),
        None,
    ),
    (
        "the no-socket answer again, while packets of ours were perhaps on a long way",
        later(ANSWER_SOON, packet=rst(ip_id=0)),
        None,
    ),
    (
        "the no-socket answer again, the way being known as a short one",
        shaken_in(20 * MS, later(ANSWER_SOON, packet=rst(ip_id=0))),
        "reset-again",
    ),
    (
        "the no-socket answer again, the way being known as a long one",
        shaken_in(200 * MS, later(ANSWER_SOON, packet=rst(ip_id=0))),
        None,
    ),
    (
        "a live RST again, of a peer that may be Windows, of which one direction was captured",
        one_direction(later(SAME_AGAIN, packet=LIVE)),
        None,
    ),
    (
        "the no-socket answer again: one for each of our packets",
        provoked_again(later(ANSWER_AGAIN, packet=rst(ip_id=0))),
        None,
    ),
    (
        "the no-socket answer at once again: a copy",
        later(b.earlier_rst(ip_id=0, time_ns=b.TIME + MS), packet=rst(ip_id=0)),
        None,
    ),
    (
        "three live ones with random IDs",
        b.among(flow(rst(flags="RA", ip_id=60000), theirs=LINUX), earlier=(RA2, RA1)),
        "live-twice",
    ),
    (
        "the genuine one after two forged",
        b.among(flow(LIVE, theirs=LINUX), earlier=(RA2, RA1)),
        None,
    ),
    (
        "a peer that may answer with random IDs",
        b.among(flow(rst(flags="RA", ip_id=60000)), earlier=(RA2, RA1)),
        None,
    ),
    (
        "one counter",
        b.among(flow(rst(flags="RA", ip_id=45001), theirs=LINUX), earlier=(RA2,)),
        None,
    ),
    (
        "this one is no live one",
        b.among(flow(rst(ip_id=60000), theirs=LINUX), earlier=(RA2, RA1)),
        None,
    ),
]

# ---- content, shared, other end ----


def other(ip_id: int, ttl: int = 47) -> tuple[Other, ...]:
    """A RST of another address."""
    return (Other("192.0.2.1", b.TIME - MS, ip_id, ttl),)


CONTENT: Rows = [
    (
        "application bytes",
        flow(rst(payload_len=12), payload=b"\x16\x03\x01\0\0\0\0\0\0\0\0\0"),
        "payload",
    ),
    ("bytes that were not kept", flow(rst(payload_len=12)), "payload-unseen"),
    (
        "an HTTP answer",
        flow(rst(payload_len=15), payload=b"HTTP/1.1 200 OK"),
        "payload",
    ),
    (
        "a reason in words",
        flow(rst(payload_len=26), payload=b"Connection reset by policy"),
        "reason-text",
    ),
    (
        "a data packet with text, turned into a RST",
        flow(
            rst(flags="RA", ip_id=503, payload_len=26),
            theirs=LINUX,
            payload=b"just the application says.",
        ),
        "payload",
    ),
    ("reserved bits", flow(rst(reserved=0b0100)), "reserved-bits"),
    ("AccECN's bit", flow(rst(reserved=0b0001)), None),
    ("a wrong checksum", flow(cause=Cause("bad-checksum", "dropped")), "bad-checksum"),
    ("a wrong checksum in a capture", flow(rst(tcp_checksum_ok=False)), "bad-checksum"),
    (
        "wrong checksums everywhere: offloaded, or anonymised",
        flow(rst(tcp_checksum_ok=False), theirs=half(checksums_wrong=True)),
        None,
    ),
    ("nothing", flow(), None),
]

SHARED: Rows = [
    ("8 apart", flow(others=other(40008)), "ip-id-shared"),
    ("9 apart", flow(others=other(40009)), None),
    ("across the wrap", flow(rst(ip_id=3), others=other(65531)), "ip-id-shared"),
    ("from another distance", flow(others=other(40001, 46)), None),
    ("from the same distance, another initial TTL", flow(others=other(40001, 111)), "ip-id-shared"),
    ("ID 0", flow(rst(ip_id=0), others=other(1)), None),
    ("ID 1", flow(rst(ip_id=1), others=other(2)), None),
    (
        "one honest host with several addresses and one counter for all its peers",
        flow(theirs=half(recent=(seen(ip_id=36000),)), others=other(40001)),
        None,
    ),
    (
        "a counter too far from the peer's own",
        flow(theirs=half(recent=(seen(ip_id=35000),)), others=other(40001)),
        "ip-id-shared",
    ),
    ("IPv6 has no ID", flow(rst6(), others=other(40000)), None),
]


def at_other_end(fate: Fate, **values: Any) -> Reset:
    """A reset of which another vantage point says something."""
    return flow(other_end=OtherEnd(fate, Point.B, "far/b.jsonl", why="not there", **values))


OTHER_END: Rows = [
    ("its log lacks it", at_other_end(Fate.NEVER_SENT, logged=True), "other-end-log"),
    ("its capture lacks it: that is a proof", at_other_end(Fate.NEVER_SENT), None),
    ("its log has it", at_other_end(Fate.LEFT, logged=True), None),
    ("nobody looked", flow(), None),
]

CASES: dict[str, Rows] = {
    "distance": DISTANCE,
    "asked": list(ASKED),
    "make": MAKE,
    "copied": COPIED,
    "history": HISTORY,
    "timing": TIMING,
    "numbers": NUMBERS,
    "link": LINK,
    "aftermath": AFTERMATH,
    "content": CONTENT,
    "shared": SHARED,
    "other-end": OTHER_END,
}


def of(group: str, given: Reset) -> Observation | None:
    """What a group says of a reset."""
    return next((seen for seen in observe(given) if seen.group == group), None)


@pytest.mark.parametrize(
    ("group", "given", "name"),
    [
        pytest.param(group, given, name, id=f"{group}: {why}")
        for group, rows in CASES.items()
        for why, given, name in rows
    ],
)
def test_observed(group: str, given: Reset, name: str | None) -> None:
    found = of(group, given)
    assert (found.name if found is not None else None) == name
    if found is not None:
        assert found.text
        assert "None" not in found.text
    if name is not None:
        assert ROWS[name].group == group


def test_every_row_of_the_table_is_observed() -> None:
    seen_names = {
        found.name
        for rows in CASES.values()
        for _, given, _ in rows
        for found in observe(given)
        if found.name is not None
    }
    assert seen_names == set(ROWS)


def test_every_group_has_cases_both_ways() -> None:
    assert tuple(CASES) == GROUPS
    for group, rows in CASES.items():
        names = {name for _, _, name in rows}
        assert names >= {name for name, row in ROWS.items() if row.group == group}
        assert None in names or group == "make"  # a packet always has a shape


def test_a_group_speaks_once() -> None:
    for rows in CASES.values():
        for _, given, _ in rows:
            groups = [found.group for found in observe(given)]
            assert len(groups) == len(set(groups))


def test_observers_say_what_they_look_at() -> None:
    assert len(OBSERVERS) == len(GROUPS)
    assert all(look.__doc__ for look in OBSERVERS)


# ---- single ones, closer ----


@pytest.mark.parametrize(
    ("ttl", "hops"), [(47, 17), (63, 1), (64, 0), (111, 17), (255, 0), (32, 0), (1, 31), (0, 32)]
)
def test_hop_distances_are_in_the_values(ttl: int, hops: int) -> None:
    found = of("distance", flow(rst(ttl=ttl)))
    assert found is not None
    assert (found.values["hops"], found.values["peer_hops"]) == (hops, 17)
    assert (found.values["ttl"], found.values["peer_ttl"]) == (ttl, 47)


def test_ttls_that_count_are_no_distances() -> None:
    given = b.among(flow(rst(ttl=31)), earlier=COUNTED)
    assert distances(given) == (None, 17)
    found = of("distance", given)
    assert found is not None
    assert found.values["ttls"] == [28, 29, 30, 31]


def test_ipv6_says_hop_limit() -> None:
    found = of("distance", flow(rst6(ttl=63)))
    assert found is not None
    assert "hop limit" in found.text
    assert "TTL" not in found.text


@pytest.mark.parametrize(("ip_id", "word"), [(13052, "repeats"), (13053, "follows")])
def test_ip_id_says_when_our_packet_was_sent(ip_id: int, word: str) -> None:
    found = of("copied", flow(rst(ip_id=ip_id)))
    assert found is not None
    assert f"{word} our own packet sent 400 µs earlier" in found.text
    assert "23403" in found.text


def test_an_older_packet_of_ours_counts_too() -> None:
    recent = tuple(seen(ip_id=100 * number, ttl=64) for number in (9, 8, 7, 6))
    found = of("copied", flow(rst(ip_id=600), ours=our_half(recent=recent)))
    assert found is not None
    assert found.values == {"ip_id": 600, "our_ip_id": 600, "peer_ip_id": 23403}


def test_a_clock_that_jumped_back_gives_no_negative_age() -> None:
    late = our_half(recent=(seen(ip_id=13052, time_ns=b.TIME + SECOND),))
    found = of("copied", flow(rst(ip_id=13052), ours=late))
    assert found is not None
    assert "sent 0 µs earlier" in found.text


def test_a_stranger_s_mac_is_named() -> None:
    found = of("link", flow(mac=THIRD_MAC, next_hop=GATEWAY))
    assert found is not None
    assert found.values == {"mac": THIRD_MAC, "flow_mac": MAC, "next_hop_mac": MAC}
    assert THIRD_MAC in found.text


def test_numbers_that_move_on_across_the_wrap() -> None:
    given = next(given for why, given, _ in NUMBERS if why == "across the wrap")
    found = of("numbers", given)
    assert found is not None
    assert found.values["steps"] == [450]


def test_numbers_behind_across_the_wrap() -> None:
    given = next(given for why, given, _ in NUMBERS if why == "behind, across the wrap")
    found = of("numbers", given)
    assert found is not None
    assert found.values == {"behind": 150, "seq": WRAPPED}


@pytest.mark.parametrize("field", [{"reserved": 0b0100}, {"payload_len": 12}])
def test_what_content_says_the_shape_does_not_say_again(field: dict[str, Any]) -> None:
    """One cause counts once: a reserved bit is no other stack's shape as well."""
    for packet in (rst(ip_id=0), rst(), rst(flags="RA", ip_id=503, window=9)):
        clean, odd = (
            of("make", flow(p, theirs=LINUX))
            for p in (packet, dataclasses.replace(packet, **field))
        )
        assert clean is not None
        assert odd is not None
        assert odd.name == clean.name


# ---- those of one maker ----


def test_what_one_of_its_kind_shows_holds_for_all() -> None:
    """Our IP ID in the second RST: both have one maker."""
    given = b.among(
        flow(rst(ttl=63, ip_id=30000)),
        later=(b.earlier_rst(ttl=63, ip_id=13052, time_ns=b.TIME + 1),),
    )
    found = of("copied", given)
    assert found is not None
    assert found.name == "ip-id-ours"
    assert "made like it" in found.text


@pytest.mark.parametrize(
    "other_one",
    [
        pytest.param({"ttl": 63, "ip_id": 13052, "flags": "RA"}, id="another-shape"),
        pytest.param({"ttl": 55, "ip_id": 13052}, id="from-elsewhere"),
    ],
)
def test_an_honest_one_does_not_answer_for_another_s(other_one: dict[str, Any]) -> None:
    given = b.among(flow(), later=(b.earlier_rst(time_ns=b.TIME + 1, **other_one),))
    found = of("copied", given)
    assert found is not None
    assert found.name is None


def test_the_first_of_several_tells_what_the_connection_was_doing() -> None:
    first = closed(flow(rst(ip_id=0), theirs=LINUX))
    again = changed(first, time_ns=b.TIME + 300 * MS, siblings=(first,))
    found = of("history", again)
    assert found is not None
    assert found.name == "peer-closed"


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.direction != "sent"])
def test_every_kind_that_was_not_sent_is_looked_at_alike(kind: Kind) -> None:
    made = MadeHere(1, Kind.SENT_RAW)
    assert observe(flow(kind=kind, made_here=made)) == observe(flow())


def test_looking_changes_nothing() -> None:
    for rows in CASES.values():
        for _, given, _ in rows:
            assert observe(given) == observe(dataclasses.replace(given))
    assert module.REPEAT_NS < module.TOGETHER_NS
