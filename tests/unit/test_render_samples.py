"""The entries that the renderers are tested with: at least one of every kind and origin."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsttrace.judge.authors import WORDS
from rsttrace.judge.verdict import counted, unread
from rsttrace.model import (
    Author,
    Baseline,
    BridgePort,
    Cause,
    Container,
    Counted,
    Endpoint,
    Entry,
    Evidence,
    Frame,
    Half,
    Kind,
    MadeHere,
    Neighbor,
    NextHop,
    Origin,
    Packet,
    Pod,
    Process,
    Reset,
    Scope,
    Seen,
    Share,
    Socket,
    SwitchPort,
    Verdict,
)

GOLDEN = Path(__file__).parent / "golden"

NODE = 4026531840
POD = 4026532281
TIME = 1_574_587_803_412_345_678  # 2019-11-24 17:30:03.412345678 in Shanghai

LOCAL = Endpoint("10.0.0.5", 51234)
REMOTE = Endpoint("10.9.8.7", 3306)
LOCAL6 = Endpoint("2001:db8::5", 8080)
REMOTE6 = Endpoint("2001:db8:1::7", 40112)

RST = Packet(
    src=REMOTE,
    dst=LOCAL,
    ttl=63,
    ip_id=13052,
    df=True,
    tos=0,
    flags="R",
    seq=305419896,
    ack=0,
    window=0,
    length=40,
    payload_len=0,
    raw="4500002832fc40003f06",
)
RST6 = dataclasses.replace(
    RST, src=LOCAL6, dst=REMOTE6, ttl=64, ip_id=None, df=None, flags="RA", length=60, raw=""
)
DATA = Seen(
    time_ns=TIME - 400_000,
    ttl=64,
    ip_id=13052,
    df=True,
    flags="PA",
    seq=2271560481,
    ack=305419896,
    window=501,
    payload_len=117,
)
THEIRS = Half(
    packets=12,
    ttl=47,
    ttl_min=47,
    ttl_max=47,
    syn_ttl=47,
    syn_window=64240,
    syn_options="mss 1460,sackOK,TS val 1 ecr 2,nop,wscale 7",
    df_always=True,
    timestamps=True,
    mac="00:d0:f8:22:33:44",
    ifindex=2,
    first_ns=TIME - 9_000_000_000,
    last_ns=TIME - 20_000_000,
    syn_ns=TIME - 8_985_000_000,
    recent=(dataclasses.replace(DATA, time_ns=TIME - 20_000_000, ttl=47, ip_id=23403),),
)
OURS = dataclasses.replace(
    THEIRS,
    packets=14,
    ttl=64,
    syn_ttl=64,
    mac=None,
    syn_ns=TIME - 9_000_000_000,
    recent=(DATA, dataclasses.replace(DATA, time_ns=TIME - 60_000_000, ip_id=13051, flags="A")),
)
GATEWAY = Neighbor(
    mac="00:d0:f8:22:33:44",
    vendor="Ruijie Networks",
    ip="192.168.1.1",
    is_gateway=True,
    ifindex=2,
    ifname="eth0",
    netns=NODE,
)
FOUND = dataclasses.replace(
    GATEWAY,
    bridge=BridgePort("br0", 4, "eth0", 2),
    switch=SwitchPort("eth0", "sw3.example", "00:d0:f8:aa:bb:cc", "Gi1/0/7", "rack 4"),
)


def _factors(peer: float, others: float, **known: float) -> dict[Author, float]:
    """How probable each author makes an observation, most of them alike."""
    named = {Author[name]: value for name, value in known.items()}
    return {who: named.get(who, peer if who.is_peer else others) for who in Author}


IP_ID = Evidence(
    "ip-id-ours",
    4.2,
    "IP ID 13052 repeats our own packet sent 0.4 ms earlier; the server's last was 23403",
    {"rst": 13052, "ours": [13052, 13051], "theirs": 23403},
    group="copied",
    factors=_factors(0.0002, 0.0005, MIRROR=0.6),
)
TTL = Evidence(
    "ttl-nearer",
    2.5,
    "TTL 63 where the server's packets arrive with 47",
    {"rst": 63, "theirs": 47},
    group="distance",
    factors=_factors(0.0003, 0.15, MIRROR=0.6, SWAP=0.0003),
)
SHAPE = Evidence(
    "plain-answer",
    -0.6,
    "window 0, no options, and nothing in it that the server's packets have not",
    group="make",
    factors=_factors(0.2, 0.1),
)
WINDOW = Evidence("link", 0.0, "no link-layer address to compare", group="link")
SECOND_HOST = Evidence(
    "duplicate-address", 0.0, "10.9.8.7 is on our own link with two MACs", {"macs": ["a", "b"]}
)
MADE = Evidence("made-here", 0.0, "this node's firewall made it", proof=True)


def _shares(*known: tuple[Author, float]) -> tuple[Share, ...]:
    """All authors, the likeliest first; those that are not named share what is left."""
    named = dict(known)
    rest = (1 - sum(named.values())) / (len(Author) - len(named))
    found = [Share(who, named.get(who, rest), WORDS[who], 0.1) for who in Author]
    return tuple(sorted(found, key=lambda share: -share.probability))


_FORGED = Verdict(
    origin=Origin.FORGED,
    confidence=0.9978,
    score=6.1,
    evidence=(IP_ID, TTL, SHAPE),
    considered=(IP_ID, TTL, SHAPE, WINDOW),
    hops_rst=1,
    hops_peer=17,
    authors=_shares((Author.MIRROR, 0.78), (Author.INJECTOR, 0.21), (Author.REJECT, 0.005)),
    advice="--locate names the hop; ask whoever runs it for an IPS or firewall policy",
)
_PEER = Verdict(
    origin=Origin.PEER,
    confidence=0.97,
    score=-3.5,
    evidence=(SHAPE,),
    considered=(SHAPE, WINDOW),
    hops_rst=17,
    hops_peer=17,
    summary="peer closed with unread data",
    authors=_shares((Author.PEER_SOCKET, 0.95), (Author.INJECTOR, 0.02)),
)
_LOCAL = Verdict(origin=Origin.LOCAL, confidence=1.0, score=0.0)
_UNSURE = Verdict(
    origin=Origin.INCONCLUSIVE,
    confidence=None,
    score=0.7,
    evidence=(dataclasses.replace(TTL, weight=0.7, text="TTL 63, and no earlier packet"),),
    considered=(WINDOW,),
    hops_rst=1,
    authors=_shares((Author.REJECT, 0.5), (Author.PEER_HOST, 0.35), (Author.BALANCER, 0.11)),
    advice="the peer's distance tells them apart: --probe asks for it (an echo, or a SYN)",
)


def _reset(kind: Kind, cause: Cause, **more: Any) -> Reset:
    fields: dict[str, Any] = {
        "time_ns": TIME,
        "kind": kind,
        "cause": cause,
        "local": LOCAL,
        "remote": REMOTE,
        "rst": RST,
        "netns": NODE,
        **more,
    }
    return Reset(**fields)


FORGED = Entry(
    17,
    _reset(
        Kind.RECEIVED_ACCEPTED,
        Cause("reset-by-rst", "the connection was reset"),
        netns=POD,
        netns_name="web-0",
        trigger=DATA,
        baseline=Baseline(Scope.FLOW, THEIRS, OURS),
        socket=Socket(81, "ESTABLISHED", 15_000, 14_200, 70_123, 27, 9_001, 305_419_896),
        frame=Frame(NODE, 2, "00:d0:f8:22:33:44", 63),
        neighbor=GATEWAY,
        next_hop=NextHop("192.168.1.1", "00:d0:f8:22:33:44", True, 2),
        process=Process(4711, "mysql", 27),
        pod=Pod("shop", "web-0", "0f0e"),
        container=Container("4f1c2d3e5a6b7c8d9e0f", "web"),
    ),
    _FORGED,
)

FORGED_HERE = Entry(
    18,
    _reset(
        Kind.RECEIVED_ACCEPTED,
        Cause("reset-by-rst", "the connection was reset"),
        netns=POD,
        frame=Frame(POD, 3, "02:00:00:00:00:01", 63),
        neighbor=Neighbor(
            "02:00:00:00:00:01", "locally administered", "10.0.0.1", False, 3, "eth0", POD
        ),
        next_hop=NextHop("10.0.0.254", None, True, 3),
        ingress_frame=Frame(NODE, 2, "00:d0:f8:22:33:44", 64),
        ingress=GATEWAY,
        made_here=MadeHere(NODE, Kind.SENT_NETFILTER, 0, "swapper/0", "forward", "host"),
    ),
    dataclasses.replace(
        _FORGED,
        confidence=1.0,
        score=2.5,
        evidence=(MADE, TTL, SECOND_HOST),
        considered=(MADE, TTL),
        authors=(Share(Author.REJECT, 1.0, WORDS[Author.REJECT]),),
        findings=("duplicate-address", "new-finding"),
        device_name="netfilter REJECT",
        device_fingerprint="netfilter-reject",
    ),
)

FORGED_UNKNOWN = Entry(
    19,
    _reset(
        Kind.RECEIVED_REJECTED,
        Cause("challenge-ack", "out of window: answered with a challenge ACK", "TCP_RFC7323_X"),
        trigger=dataclasses.replace(RST, flags="PA", src=LOCAL, dst=REMOTE, options="mss 1460"),
        seen=3,
    ),
    dataclasses.replace(
        _FORGED, hops_rst=None, hops_peer=None, device_name="tcpkill", device_fingerprint="tcpkill"
    ),
    amends=12,
)

PEER = Entry(
    20,
    _reset(
        Kind.RECEIVED_ACCEPTED,
        Cause("reset-by-rst", "the connection was reset"),
        baseline=Baseline(Scope.PEER, THEIRS),
        neighbor=GATEWAY,
    ),
    _PEER,
)

PEER_UNMATCHED = Entry(
    21,
    _reset(
        Kind.RECEIVED_UNMATCHED,
        Cause("no-socket", "no socket here: nothing was reset"),
        file="/captures/office.pcap",
        file_frame=4242,
        netns=None,
        frame=Frame(None, None, "00:d0:f8:22:33:44", 63),
    ),
    _PEER,
)

LOCAL_PASSIVE6 = Entry(
    22,
    _reset(
        Kind.SENT_PASSIVE,
        Cause("no-socket", "no socket listens there (answer to SYN)", "SK_RST_REASON_NO_SOCKET"),
        local=LOCAL6,
        remote=REMOTE6,
        rst=RST6,
        trigger=dataclasses.replace(RST6, src=REMOTE6, dst=LOCAL6, flags="S", reserved=1),
        baseline=Baseline(Scope.FLOW, THEIRS, OURS),
    ),
    _LOCAL,
)

LOCAL_ACTIVE = Entry(
    23,
    _reset(
        Kind.SENT_ACTIVE,
        Cause("close-unread", "closed with unread data"),
        process=Process(None, None, 1000),
        socket=Socket(None, "CLOSE_WAIT", None, None, None, None, None, None, LOCAL, REMOTE),
    ),
    _LOCAL,
)

LOCAL_NETFILTER = Entry(
    24,
    _reset(
        Kind.SENT_NETFILTER,
        Cause("firewall", "the firewall rejected it"),
        container=Container("4f1c2d3e5a6b7c8d9e0f"),
    ),
    _LOCAL,
)

LOCAL_RAW = Entry(
    25,
    _reset(
        Kind.SENT_RAW,
        Cause("raw-socket", "a process wrote it through a raw socket"),
        process=Process(99, "tcpkill", 0),
    ),
    _LOCAL,
)

UNSURE = Entry(
    26,
    _reset(
        Kind.RECEIVED_ACCEPTED,
        Cause("reset-by-rst", "the connection was reset"),
        frame=Frame(NODE, 5, None, 63),
        ingress_frame=Frame(NODE, 2, "00:d0:f8:22:33:44", 64),
    ),
    _UNSURE,
)

FORWARDED = Entry(
    27,
    _reset(
        Kind.FORWARDED,
        Cause("forwarded", "passes through this node"),
        local=REMOTE,
        remote=LOCAL,
        neighbor=dataclasses.replace(GATEWAY, ip="10.9.8.7", is_gateway=False),
    ),
    dataclasses.replace(_FORGED, hops_rst=0),
)

COUNTED = Entry(
    31,
    _reset(
        Kind.RECEIVED_UNMATCHED,
        Cause("no-socket", "no socket here: nothing was reset"),
        seen=3000,
        counted=Counted(TIME - 4_000_000_000, TIME, "peer"),
    ),
    counted(_reset(Kind.RECEIVED_UNMATCHED, Cause("no-socket", "no socket here"))),
)

UNREAD = Entry(
    32,
    _reset(
        Kind.RECEIVED_ACCEPTED,
        Cause("reset-by-rst", "ended an established connection"),
        unread=True,
        rst=Packet(REMOTE, LOCAL, 0, 0, None, 0, "R", 0, 0, None, length=0, payload_len=0),
    ),
    unread(
        _reset(Kind.RECEIVED_ACCEPTED, Cause("reset-by-rst", "ended an established connection"))
    ),
)

SAMPLES = {
    name.lower().replace("_", "-"): entry
    for name, entry in list(globals().items())
    if isinstance(entry, Entry)
}


def with_reset(entry: Entry, **changes: Any) -> Entry:
    return dataclasses.replace(entry, reset=dataclasses.replace(entry.reset, **changes))


def with_verdict(entry: Entry, **changes: Any) -> Entry:
    return dataclasses.replace(entry, verdict=dataclasses.replace(entry.verdict, **changes))


@contextlib.contextmanager
def time_zone(zone: str) -> Iterator[None]:
    """Run in a time zone. POSIX strings (``CST-8``) need no time zone files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        yield
    time.tzset()


def check_golden(path: Path, made: str) -> None:
    """Compare with a golden file; with RSTTRACE_UPDATE_GOLDEN=1, write it (then read the diff)."""
    if os.environ.get("RSTTRACE_UPDATE_GOLDEN") == "1":
        path.write_text(made, encoding="utf-8")
    assert made == path.read_text(encoding="utf-8")


def test_samples_cover_every_kind_and_origin() -> None:
    assert {entry.reset.kind for entry in SAMPLES.values()} == set(Kind)
    assert {entry.verdict.origin for entry in SAMPLES.values()} == set(Origin)
    assert {entry.reset.family for entry in SAMPLES.values()} == {4, 6}
    assert {entry.reset.baseline.scope for entry in SAMPLES.values()} == set(Scope)
