from __future__ import annotations

import copy
import dataclasses
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from rsttrace.judge import verdict
from rsttrace.judge.verdict import FORGED_AT, PEER_AT, judge, probability
from rsttrace.model import (
    Baseline,
    Cause,
    Endpoint,
    Evidence,
    Frame,
    Half,
    Kind,
    MadeHere,
    NextHop,
    Origin,
    Other,
    Packet,
    Reset,
    Scope,
    Seen,
)
from tests.unit import builders as b
from tests.unit.builders import (
    MAC,
    OTHER_MAC,
    THIRD_MAC,
    changed,
    flow,
    half,
    our_half,
    reset,
    rst,
    rst6,
    seen,
    steady,
)

GATEWAY = NextHop("10.0.0.1", MAC, True, 2)
BACKUP = NextHop("10.0.0.2", OTHER_MAC, True, 2)
ON_LINK = NextHop(b.PEER, MAC, False, 2)
STAMPS = "nop,nop,TS val 1 ecr 2"


def rules_that_accuse(given: Reset) -> set[str]:
    return {found.rule for found in judge(given).evidence if found.weight > 0}


# ---- honest resets (what each stack really sends) ----

LINUX_BEHIND_17 = steady(47, timestamps=True)
WINDOWS_BEHIND_17 = steady(111)
REFUSED = seen(flags="S", seq=4999, ack=0, ip_id=13051, ttl=64, payload_len=0)

GENUINE: dict[str, tuple[Packet, Half]] = {
    "Linux, no socket": (rst(ip_id=0), LINUX_BEHIND_17),
    "Linux, answer without ACK": (rst(ip_id=0, flags="RA", seq=0, ack=5000), LINUX_BEHIND_17),
    "Linux, ack field filled": (rst(ip_id=0, ack=5117), LINUX_BEHIND_17),
    "old Linux, a counter": (rst(ip_id=777), LINUX_BEHIND_17),
    "Linux, live": (
        rst(flags="RA", ip_id=23404, window=509, options=STAMPS, length=52),
        LINUX_BEHIND_17,
    ),
    "Linux, live, some packets later": (
        rst(flags="RA", ip_id=23410, window=509, options=STAMPS, length=52),
        LINUX_BEHIND_17,
    ),
    "Linux, live, no timestamps agreed": (rst(flags="RA", ip_id=23404, window=508), steady(47)),
    "Linux, live, another window": (rst(flags="RA", ip_id=23404, window=123), steady(47)),
    "Windows": (rst(ttl=111, ip_id=23404, ack=5000), WINDOWS_BEHIND_17),
    "Windows, live": (rst(ttl=111, flags="RA", ip_id=23404, ack=5000), WINDOWS_BEHIND_17),
    "Windows, many connections": (rst(ttl=111, ip_id=24000), WINDOWS_BEHIND_17),
    "IPv6, no socket": (rst6(), steady(47, timestamps=True, df_always=False)),
    "IPv6, refused": (rst6(flags="RA", seq=0, ack=5000), steady(47, df_always=False)),
    "IPv6, live": (
        rst6(flags="RA", window=509, options=STAMPS),
        steady(47, timestamps=True, df_always=False),
    ),
    "no DF anywhere": (rst(df=False, ip_id=50000), steady(47, df_always=False)),
}


@pytest.mark.parametrize("name", GENUINE)
def test_honest_shapes_are_the_peers(name: str) -> None:
    packet, theirs = GENUINE[name]
    given = flow(packet, theirs=theirs, mac=MAC, next_hop=GATEWAY)
    found = judge(given)
    assert rules_that_accuse(given) == set()
    assert found.origin is Origin.PEER
    assert found.confidence is not None
    assert found.confidence >= 0.9


def with_rst(**values: Any) -> Callable[[Reset], Reset]:
    def change(given: Reset) -> Reset:
        return changed(given, rst=dataclasses.replace(given.rst, **values))

    return change


def with_mac(mac: str, next_hop: NextHop) -> Callable[[Reset], Reset]:
    def change(given: Reset) -> Reset:
        return changed(given, frame=Frame(1, 2, mac, given.rst.ttl), next_hop=next_hop)

    return change


def our_window(given: Reset) -> Reset:
    return with_rst(window=501)(given)


def hop(delta: int) -> Callable[[Reset], Reset]:
    def change(given: Reset) -> Reset:
        return with_rst(ttl=given.rst.ttl + delta)(given)

    return change


def no_df(given: Reset) -> Reset:
    return given if given.rst.df is None else with_rst(df=False)(given)


def poisoned(given: Reset) -> Reset:
    """No handshake seen, and the data that was came from somebody else, four hops away."""
    theirs = given.baseline.theirs
    assert theirs is not None
    injected = dataclasses.replace(
        theirs, syn_ttl=None, syn_window=None, syn_ns=None, ttl=60, ttl_min=60, ttl_max=60
    )
    return changed(given, baseline=Baseline(Scope.FLOW, injected, given.baseline.ours))


CLUES: dict[str, Callable[[Reset], Reset]] = {
    "rerouted, one hop more": hop(-1),
    "rerouted, two hops less": hop(2),
    "another gateway": with_mac(OTHER_MAC, BACKUP),
    "an unknown gateway": with_mac(THIRD_MAC, BACKUP),
    "our window": our_window,
    "DF cleared on the way": no_df,
    "an AccECN bit": with_rst(reserved=1),
    "reserved bits": with_rst(reserved=4),
    "a payload": with_rst(payload_len=9),
    "only data seen, from elsewhere": poisoned,
}


@pytest.mark.parametrize("clue", CLUES)
@pytest.mark.parametrize("name", GENUINE)
def test_one_weak_clue_accuses_nobody(name: str, clue: str) -> None:
    packet, theirs = GENUINE[name]
    given = CLUES[clue](flow(packet, theirs=theirs, mac=MAC, next_hop=GATEWAY))
    assert judge(given).origin is not Origin.FORGED


@pytest.mark.parametrize("name", GENUINE)
def test_honest_shapes_without_a_baseline_are_left_open(name: str) -> None:
    packet, _ = GENUINE[name]
    found = judge(reset(packet, mac=MAC, next_hop=GATEWAY))
    assert found.origin is Origin.INCONCLUSIVE
    assert found.confidence is None


@pytest.mark.parametrize("name", GENUINE)
def test_honest_shapes_against_the_peers_last_handshake(name: str) -> None:
    packet, theirs = GENUINE[name]
    given = reset(packet, theirs=theirs, scope=Scope.PEER, mac=MAC, next_hop=GATEWAY)
    assert rules_that_accuse(given) == set()
    assert judge(given).origin in (Origin.PEER, Origin.INCONCLUSIVE)


def test_window_id_and_timestamps_that_are_missing_do_not_accuse() -> None:
    """What others take for forgery: window 0, IP ID 0, no timestamps, seq 0, an ack unasked for."""
    for flags, seq in (("R", 1000), ("RA", 0)):
        packet = rst(ip_id=0, window=0, flags=flags, seq=seq, ack=5000)
        for theirs in (LINUX_BEHIND_17, steady(47), None):
            given = reset(packet, theirs=theirs, ours=our_half())
            assert rules_that_accuse(given) == set()


# ---- forged resets ----

INCIDENT = rst(ttl=63, ip_id=13052)


def test_the_classic_incident() -> None:
    found = judge(flow(INCIDENT))
    assert found.origin is Origin.FORGED
    assert found.confidence is not None
    assert found.confidence >= 0.95
    assert [evidence.rule for evidence in found.evidence][:2] == ["ip-id-ours", "hop-distance"]
    assert (found.hops_rst, found.hops_peer) == (1, 17)


def test_the_incident_behind_the_same_gateway() -> None:
    found = judge(flow(INCIDENT, mac=MAC, next_hop=GATEWAY))
    assert found.origin is Origin.FORGED


def test_the_incident_by_its_hops_alone_and_by_its_ip_id_alone() -> None:
    assert judge(flow(rst(ttl=63))).origin is Origin.FORGED
    assert (
        judge(flow(rst(ip_id=13052), theirs=half(ttl=None, syn_ttl=None))).origin is Origin.FORGED
    )


FORGERS: dict[str, Packet] = {
    "mirrors our ID and window": rst(ttl=57, ip_id=13052, window=501),
    "mirrors our ID + 1": rst(ttl=57, ip_id=13053),
    "tcpkill": rst(ttl=60, ip_id=31000, df=False),
    "tcpkill, random ID 0": rst(ttl=60, ip_id=0, df=False),
    "Suricata": rst(ttl=62, ip_id=0, df=False, window=501, flags="RA", seq=1000, ack=5117),
    "Suricata, random ID": rst(ttl=62, ip_id=777, df=False, window=501, flags="RA"),
    "GFW": rst(ttl=100, ip_id=4660, df=False, flags="RA"),
    "Sandvine": rst(ttl=60, ip_id=0x3412, df=False, window=32120, flags="RA"),
    "nft REJECT": rst(ttl=63, ip_id=0),
    "nft REJECT of a SYN-ACK": rst(ttl=63, ip_id=0, flags="RA", seq=0, ack=5117),
    "DPVS": rst(ttl=62, ip_id=0),
    "an IPv6 firewall": rst6(ttl=63),
    "IPv6, our window": rst6(ttl=63, window=501, flags="RA"),
}


@pytest.mark.parametrize("name", FORGERS)
def test_forgers_at_another_distance(name: str) -> None:
    packet = FORGERS[name]
    found = judge(flow(packet, theirs=half(timestamps=True, df_always=packet.family == 4)))
    assert found.origin is Origin.FORGED
    assert found.confidence is not None
    assert found.confidence >= 0.95


@pytest.mark.parametrize("name", FORGERS)
def test_the_same_without_a_baseline_is_not_decided(name: str) -> None:
    found = judge(reset(FORGERS[name]))
    assert found.origin is Origin.INCONCLUSIVE
    assert found.confidence is None
    assert found.hops_peer is None


@pytest.mark.parametrize("name", [name for name in FORGERS if "nft" in name or name == "DPVS"])
def test_another_handshake_of_the_peer_is_not_enough(name: str) -> None:
    found = judge(reset(FORGERS[name], theirs=half(packets=1), scope=Scope.PEER))
    assert found.origin is Origin.INCONCLUSIVE
    assert found.score > 0


def test_an_id_of_ours_with_the_peers_last_handshake_is_enough() -> None:
    found = judge(flow(INCIDENT, theirs=half(packets=1), scope=Scope.PEER))
    assert found.origin is Origin.FORGED


@pytest.mark.parametrize(
    "packet",
    [
        rst(ip_id=23404, df=False, window=509, payload_len=100, flags="R"),
        rst(ip_id=23404, window=509, payload_len=100, flags="RA"),
        rst(ip_id=23404, window=509, flags="RA", reserved=4),
    ],
)
def test_an_in_place_swap_is_not_called_honest(packet: Packet) -> None:
    """The replaced packet's own ID, TTL and window: what else it left behind speaks against it."""
    assert judge(flow(packet, theirs=LINUX_BEHIND_17)).origin is not Origin.PEER


def test_an_arp_spoofer_on_the_link() -> None:
    """tcpkill beside us, in front of a peer on our link: no hops tell, the MAC does."""
    known = steady(64, recent=(seen(ttl=64),))
    packet = rst(ttl=64, ip_id=31000, df=False, window=501)
    found = judge(flow(packet, theirs=known, mac=OTHER_MAC, next_hop=ON_LINK))
    assert found.origin is not Origin.PEER
    assert rules_that_accuse(flow(packet, theirs=known, mac=OTHER_MAC)) >= {"mac", "df-lost"}


# ---- traps: what must not be called forged ----


@pytest.mark.parametrize("packets", [2, 3, 40])
def test_split_identity_is_not_forged(packets: int) -> None:
    """A SYN proxy or load balancer answers the handshake (39), the server does the rest (231)."""
    theirs = half(
        packets=packets, syn_ttl=39, ttl=231, ttl_min=39, ttl_max=231, recent=(seen(ttl=231),)
    )
    for packet in (
        rst(ttl=231, ip_id=0),
        rst(ttl=231, ip_id=23404, flags="RA", window=509),
        rst(ttl=231),
    ):
        assert judge(flow(packet, theirs=theirs)).origin is not Origin.FORGED


def test_split_identity_far_apart_is_not_forged() -> None:
    theirs = half(syn_ttl=60, ttl=47, ttl_min=47, ttl_max=60)
    assert judge(flow(rst(ttl=47, ip_id=0), theirs=theirs)).origin is not Origin.FORGED


def test_split_identity_before_any_data_is_not_forged() -> None:
    theirs = half(packets=1, syn_ttl=60, ttl=60, ttl_min=60, ttl_max=60, recent=(seen(ttl=60),))
    assert judge(flow(rst(ttl=47, ip_id=0), theirs=theirs)).origin is not Origin.FORGED


@pytest.mark.parametrize("delta", [-2, -1, 1, 2])
@pytest.mark.parametrize("packets", [1, 3, 1000])
def test_a_reroute_is_not_forged(delta: int, packets: int) -> None:
    for packet in (rst(ttl=47 + delta, ip_id=0), rst(ttl=47 + delta)):
        assert judge(flow(packet, theirs=half(packets=packets))).origin is not Origin.FORGED


def test_another_stack_at_the_same_distance_is_not_forged() -> None:
    """A NAT box or load balancer that lost its state beside the server."""
    for ttl in (15, 111, 238):
        assert judge(flow(rst(ttl=ttl, ip_id=0))).origin is not Origin.FORGED


def test_a_gateway_failover_is_not_forged() -> None:
    found = judge(flow(rst(ip_id=0), mac=OTHER_MAC, next_hop=BACKUP))
    assert found.origin is not Origin.FORGED


def test_a_peer_that_mirrors_our_ids_is_not_forged() -> None:
    """Peers that echo our IP IDs in everything they send: the RST does it too."""
    theirs = half(recent=(seen(ip_id=13051), seen(ip_id=13050)))
    assert judge(flow(rst(ip_id=13052), theirs=theirs)).origin is not Origin.FORGED


def test_our_own_segmentation_offload_repeats_no_id_by_chance() -> None:
    ours = our_half(recent=(seen(ip_id=13000, segments=44, ttl=64),))
    assert judge(flow(rst(ttl=63, ip_id=13043), ours=ours)).origin is Origin.FORGED
    assert judge(flow(rst(ip_id=13045), ours=ours)).origin is Origin.PEER


def test_loopback_without_macs() -> None:
    theirs = steady(64, mac=None, recent=(seen(ttl=64),))
    for mac in (None, "00:00:00:00:00:00"):
        given = flow(rst(ttl=64, ip_id=0), theirs=theirs, mac=mac)
        assert judge(given).origin is Origin.PEER
        assert rules_that_accuse(given) == set()


def test_no_frame_at_all() -> None:
    assert judge(changed(flow(rst(ip_id=0)), frame=None)).origin is Origin.PEER


# ---- proofs ----


@pytest.mark.parametrize(
    ("kind", "origin"),
    [
        (Kind.SENT_NETFILTER, Origin.FORGED),
        (Kind.SENT_RAW, Origin.FORGED),
        (Kind.SENT_PASSIVE, Origin.PEER),
        (Kind.SENT_ACTIVE, Origin.PEER),
    ],
)
@pytest.mark.parametrize("packet", [rst(ip_id=0), INCIDENT])
def test_what_this_node_made_is_proof(kind: Kind, origin: Origin, packet: Packet) -> None:
    found = judge(flow(packet, made_here=MadeHere(7, kind, 42, "someone")))
    assert found.origin is origin
    assert found.confidence == 1.0
    assert found.evidence[0].rule == "made-here"
    assert found.evidence[0].proof
    assert len(found.evidence) > 1  # the rest is still told


@pytest.mark.parametrize("kind", Kind)
def test_kinds(kind: Kind) -> None:
    found = judge(flow(INCIDENT, kind=kind))
    if kind.direction == "sent":
        assert (found.origin, found.confidence, found.score) == (Origin.LOCAL, 1.0, 0.0)
        assert (found.hops_rst, found.hops_peer) == (None, None)
    else:
        assert found.origin is Origin.FORGED


# ---- thresholds, sums ----


def test_thresholds() -> None:
    assert probability(FORGED_AT) == pytest.approx(0.95)
    assert probability(PEER_AT) == pytest.approx(0.10)
    assert probability(0) == 0.5
    assert (probability(100), probability(-100)) == (0.999, 0.001)


@pytest.mark.parametrize(
    ("score", "origin", "confidence"),
    [
        (2.94, Origin.INCONCLUSIVE, None),
        (2.95, Origin.FORGED, 0.95),
        (9.0, Origin.FORGED, 0.999),
        (-2.19, Origin.INCONCLUSIVE, None),
        (-2.2, Origin.PEER, 0.9),
        (-9.0, Origin.PEER, 0.999),
        (0.0, Origin.INCONCLUSIVE, None),
    ],
)
def test_scores_become_origins(
    score: float, origin: Origin, confidence: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_of_it(_: Reset) -> Evidence:
        return Evidence("made-up", score / 2, "half of it")

    monkeypatch.setattr(verdict, "RULES", (half_of_it, lambda _: None, half_of_it))
    found = judge(flow())
    assert (found.origin, found.confidence, found.score) == (origin, confidence, score)


def test_proof_comes_first_then_the_heaviest() -> None:
    found = judge(
        flow(
            rst(ttl=63, ip_id=13052, window=501, df=False),
            made_here=MadeHere(1, Kind.SENT_RAW),
            mac=OTHER_MAC,
            next_hop=BACKUP,
        )
    )
    assert found.evidence[0].proof
    weights = [abs(evidence.weight) for evidence in found.evidence[1:]]
    assert weights == sorted(weights, reverse=True)
    assert len(weights) == 4  # the MAC and the hop distance: one change of path explains both


def test_considered_holds_what_said_nothing_too() -> None:
    found = judge(flow())
    assert {evidence.rule for evidence in found.considered} > {e.rule for e in found.evidence}
    assert all(evidence.weight or evidence.proof for evidence in found.evidence)


# ---- summaries ----


@pytest.mark.parametrize(
    ("given", "summary"),
    [
        (flow(rst(ip_id=0)), "the peer has no such connection"),
        (
            flow(rst(ip_id=0, seq=5)),
            "the peer has no such connection (it answers none of our last packets)",
        ),
        (
            flow(rst(ip_id=0, flags="RA", seq=0, ack=5000), trigger=REFUSED),
            "the peer refused: no socket listens there",
        ),
        (
            flow(rst(flags="RA", ip_id=23404)),
            "the peer aborted a live connection (closed with unread data, SO_LINGER 0, or killed)",
        ),
        (flow(rst()), "the peer reset it"),
        (
            flow(rst(), made_here=MadeHere(1, Kind.SENT_ACTIVE)),
            "the peer closed or aborted its live socket",
        ),
        (flow(INCIDENT), "ended an established connection"),
        (
            reset(cause=Cause("connection-refused", "the connection was refused")),
            "connection refused",
        ),
        (
            flow(
                rst(ip_id=0),
                kind=Kind.RECEIVED_UNMATCHED,
                cause=Cause("no-socket", "no socket for it here"),
            ),
            "the peer has no such connection; no socket for it here",
        ),
        (flow(kind=Kind.SENT_ACTIVE, cause=Cause("linger", "closed")), "closed"),
    ],
)
def test_summary(given: Reset, summary: str) -> None:
    assert judge(given).summary == summary


# ---- properties ----


def random_seen(draw: random.Random) -> Seen:
    return seen(
        time_ns=b.TIME + draw.randrange(-(10**10), 10**9),
        ttl=draw.randrange(256),
        ip_id=draw.choice((0, 1, 13052, 65535, draw.randrange(65536))),
        df=draw.random() < 0.5,
        flags=draw.choice(("S", "SA", "A", "PA", "FA", "")),
        seq=draw.randrange(2**32),
        ack=draw.randrange(2**32),
        window=draw.choice((0, 501, 65535)),
        payload_len=draw.choice((0, 1, 1448, 65000)),
        segments=draw.choice((1, 1, 2, 44)),
    )


def random_half(draw: random.Random) -> Half | None:
    if draw.random() < 0.2:
        return None
    ttls = sorted(draw.randrange(256) for _ in range(2))
    syn = draw.random() < 0.6
    return half(
        packets=draw.choice((1, 2, 3, 100)),
        ttl=draw.choice((None, *ttls)),
        ttl_min=ttls[0],
        ttl_max=ttls[1],
        syn_ttl=draw.choice(ttls) if syn else None,
        syn_window=draw.choice((0, 501)) if syn else None,
        syn_ns=b.TIME - draw.randrange(10**9) if syn else None,
        end=draw.choice((None, 1000, 1100, draw.randrange(2**32))),
        df_always=draw.random() < 0.5,
        timestamps=draw.random() < 0.5,
        mac=draw.choice((None, MAC, OTHER_MAC)),
        ifindex=draw.choice((None, 2)),
        recent=tuple(random_seen(draw) for _ in range(draw.randrange(5))),
    )


def random_packet(draw: random.Random) -> Packet:
    v4 = draw.random() < 0.7
    make = rst if v4 else rst6
    values: dict[str, Any] = {
        "ttl": draw.randrange(256),
        "flags": draw.choice(("R", "RA", "RPA", "SR")),
        "seq": draw.choice((0, 1000, draw.randrange(2**32))),
        "ack": draw.choice((0, draw.randrange(2**32))),
        "window": draw.choice((0, 501, 65535)),
        "payload_len": draw.choice((0, 0, 1, 1400)),
        "reserved": draw.randrange(16),
        "options": draw.choice(("", STAMPS, "malformed")),
    }
    if v4:
        values["ip_id"] = draw.choice((0, 1, 13052, 65535, draw.randrange(65536)))
        values["df"] = draw.random() < 0.5
    return make(**values)


def random_later(draw: random.Random) -> tuple[Seen, ...]:
    packets = [random_seen(draw) for _ in range(draw.randrange(4))]
    return tuple(
        dataclasses.replace(
            packet,
            flags=draw.choice((packet.flags, "R", "RA")),
            seq=draw.choice((packet.seq, 1000, 1001, 2000)),
            ack=draw.choice((packet.ack, 5117)),
        )
        for packet in packets
    )


def random_reset(draw: random.Random) -> Reset:
    made = None
    if draw.random() < 0.1:
        kind = draw.choice([kind for kind in Kind if kind.direction == "sent"])
        made = MadeHere(1, kind, *draw.choice(((None, None), (42, "x\x1b[2J"))))
    found = reset(
        random_packet(draw),
        theirs=random_half(draw),
        ours=random_half(draw),
        scope=draw.choice(list(Scope)),
        kind=draw.choice(list(Kind)),
        mac=draw.choice((None, MAC, OTHER_MAC, "00:00:00:00:00:00")),
        next_hop=draw.choice((None, GATEWAY, BACKUP, ON_LINK, NextHop("10.0.0.1", None, True, 2))),
        made_here=made,
        trigger=draw.choice((None, random_seen(draw))),
        earlier=random_later(draw),
        later=random_later(draw),
        our_acks=frozenset(draw.choice((1000, draw.randrange(2**32))) for _ in range(3)),
        others=(Other("192.0.2.1", b.TIME, draw.randrange(65536), draw.randrange(256)),),
        period_s=draw.choice((None, 2.0)),
        socket=draw.choice((None, b.measured(0), b.measured(15_000))),
    )
    ttls = tuple(draw.randrange(1, 256) for _ in range(draw.randrange(3)))
    found = b.with_baseline(found, peer_ttls=ttls)
    if draw.random() < 0.1:
        found.frame = None
    return found


def test_anything_can_be_judged() -> None:
    draw = random.Random(20191124)
    origins = set()
    for _ in range(4000):
        given = random_reset(draw)
        before = copy.deepcopy(given)
        found = judge(given)
        assert given == before  # judging changes nothing
        assert found == judge(copy.deepcopy(given))  # and depends on nothing else
        origins.add(found.origin)
        proofs = [evidence for evidence in found.evidence if evidence.proof]
        if not proofs:
            assert found.score == pytest.approx(sum(e.weight for e in found.evidence), abs=0.006)
        assert math.isfinite(found.score)
        for evidence in found.evidence:
            if evidence not in found.considered:  # a finding: said beside, never counted
                assert evidence.rule in found.findings
                assert evidence.weight == 0
                assert not evidence.proof
        assert len(set(found.findings)) == len(found.findings)
        if found.origin is Origin.INCONCLUSIVE:
            assert found.confidence is None
        else:
            assert found.confidence is not None
            assert 0.9 <= found.confidence <= 1.0
        if found.origin is Origin.FORGED:
            assert found.confidence is not None
            assert found.confidence >= 0.95
            assert any(evidence.weight > 0 for evidence in found.evidence)
        assert (found.origin is Origin.LOCAL) == (given.kind.direction == "sent")
        assert found.summary
        for evidence in found.considered:
            assert "None" not in evidence.text
            assert evidence.text
    assert origins == set(Origin)


def test_names_and_places_are_no_evidence() -> None:
    """Nothing that only enrichment knows about this end may sway the verdict."""
    given = flow(INCIDENT)
    other = changed(given, netns=1, netns_name="x", local=Endpoint("192.0.2.1", 1), seen=5)
    assert judge(other) == judge(given)


# ---- honest cases whose clues have one cause ----


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(
            flow(rst(ttl=46, ip_id=0), mac=OTHER_MAC, next_hop=BACKUP),
            id="rerouted-through-the-second-router",
        ),
        pytest.param(
            flow(rst(ttl=46, window=501, ip_id=9)),
            id="two-linux-ends-with-near-windows-and-a-reroute",
        ),
        pytest.param(
            flow(rst(ttl=42, df=False), theirs=half(packets=1)),
            id="syn-proxy-answered-then-a-reset-without-df",
        ),
        pytest.param(
            flow(rst(ttl=42, ip_id=0), theirs=half(packets=1), mac=OTHER_MAC, next_hop=BACKUP),
            id="syn-proxy-on-another-router",
        ),
        pytest.param(
            flow(rst(ttl=61, ip_id=0), theirs=steady(37)), id="the-program-set-its-own-ttl"
        ),
        pytest.param(
            flow(rst(ttl=50, ip_id=0), theirs=half(ttl_min=44, ttl_max=52)), id="two-paths"
        ),
    ],
)
def test_one_honest_cause_does_not_accuse_twice(given: Reset) -> None:
    assert judge(given).origin is not Origin.FORGED


# ---- what is told beside the verdict ----


def test_findings_are_said_and_not_counted() -> None:
    given = changed(
        flow(rst(flags="RA", seq=0, ack=5000)), cause=Cause("connection-refused", "refused")
    )
    found = judge(given)
    bare = judge(changed(given, cause=Cause("connection-reset", "ended a connection")))
    assert found.findings == ("connection-refused",)
    assert found.evidence[-1].rule == "connection-refused"
    assert found.score == bare.score
    assert found.evidence[:-1] == bare.evidence


def test_the_peer_goes_on_after_a_perfect_forgery() -> None:
    """Nothing in the packet betrays it; what the peer sends next does."""
    perfect = flow(rst(ip_id=0))
    assert judge(perfect).origin is Origin.PEER
    after = judge(b.among(perfect, later=(b.LATER,)))
    assert after.origin is Origin.FORGED
    assert {"goes-on", "hop-distance"} <= {found.rule for found in after.evidence}  # both sides


STRAY = dataclasses.replace(b.OUR_DATA, time_ns=b.TIME - 200_000_000, ip_id=13050)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(
            b.among(
                flow(rst(ip_id=0), ours=our_half(recent=(b.OUR_DATA, STRAY))), later=(b.LATER,)
            ),
            id="connection-tracking-let-a-stray-escape",
        ),
        pytest.param(
            b.among(
                flow(rst(ip_id=0), theirs=LINUX_BEHIND_17),
                later=(seen(seq=1000, ack=5000, payload_len=1448),),
            ),
            id="the-answer-overtook-paced-data",
        ),
        pytest.param(
            b.among(
                flow(rst(flags="RA", seq=1500, ip_id=23404)),
                later=(b.earlier_rst(ip_id=0, time_ns=b.TIME + 1),),
            ),
            id="closed-with-data-unread",
        ),
    ],
)
def test_honest_resets_that_are_not_alone(given: Reset) -> None:
    assert judge(given).origin is not Origin.FORGED
