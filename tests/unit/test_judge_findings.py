from __future__ import annotations

import dataclasses
import random
import re
from pathlib import Path
from typing import Any

import pytest

from rsttrace.judge import findings
from rsttrace.judge.authors import WORDS
from rsttrace.judge.findings import FINDERS, Decided
from rsttrace.judge.verdict import judge
from rsttrace.model import (
    Author,
    Cause,
    Endpoint,
    Evidence,
    Fate,
    Half,
    Kind,
    MadeHere,
    Origin,
    OtherEnd,
    Point,
    Process,
    Race,
    Reset,
    Scope,
    Share,
    Upstream,
)
from tests.unit import builders as b
from tests.unit.builders import (
    GATEWAY,
    LINUX_SYN,
    MAC,
    MS,
    ON_LINK,
    OTHER_MAC,
    changed,
    closed,
    flow,
    half,
    idle,
    lone_syn,
    our_half,
    rst,
    rst6,
    seen,
    steady,
)
from tests.unit.test_judge_history import check
from tests.unit.test_judge_verdict import random_reset

EVIDENCE_DOC = Path(__file__).parents[2] / "docs" / "evidence.md"


def silent(given: Reset, ago_ns: int = 2_000_000_000) -> Reset:
    """A copy whose peer said its last word so long ago."""
    theirs = given.baseline.theirs
    assert theirs is not None
    last = b.TIME - ago_ns
    changed_half = dataclasses.replace(theirs, last_ns=last, recent=(seen(time_ns=last),))
    return b.with_baseline(given, theirs=changed_half)


def shaken(ttl: int = 47, **values: Any) -> Reset:
    """A SYN, our SYN-ACK, and the ordinary answer of a host that knows nothing of it."""
    syn_ack = seen(flags="SA", ttl=64, seq=4999, ack=1000, payload_len=0, time_ns=b.TIME - MS)
    ours = our_half(packets=1, recent=(syn_ack,))
    return flow(rst(ttl=ttl, ip_id=0), theirs=lone_syn(**values), ours=ours)


SYN = seen(flags="S", seq=1, ack=0, payload_len=0, time_ns=b.TIME - 2 * MS)
NEW_SYN = seen(flags="S", seq=77, ack=0, payload_len=0, time_ns=b.TIME - 200 * MS)
REUSED = half(new_syn=NEW_SYN)
RACES = (Race("peer", 60 * b.SECOND, 60 * b.SECOND + 5_000_000),) * 2
NGINX = Process(70, "nginx", 33)
FAILED = Upstream(Endpoint("10.0.0.9", 8080), b.TIME - MS, refused=True)
PROVED = MadeHere(7, Kind.SENT_NETFILTER, hook="forward")
SPLIT = half(syn_ttl=39, ttl=231, ttls=b.counted((231, 11), (39, 1)))


def compared(escaped: str, **changes: Any) -> Reset:
    """A reset that the other end sent, too; `escaped` is what is said of a packet before it."""
    other = OtherEnd(Fate.LEFT, Point.B, "b.pcap", 9, at_sender=True, escaped=escaped)
    return flow(other_end=other, **changes)


FOUND: dict[str, list[Any]] = {
    "duplicate-address": [
        pytest.param(
            flow(rst(ip_id=0, ttl=64), theirs=steady(64), mac=OTHER_MAC, next_hop=ON_LINK),
            id="two-macs-on-our-link",
        ),
        pytest.param(
            flow(rst(ip_id=0, ttl=64), theirs=None, mac=OTHER_MAC, next_hop=ON_LINK),
            id="the-neighbour-table-knows-another",
        ),
        pytest.param(flow(rst(ip_id=0, ttl=42)), id="farther-than-the-peer"),
        pytest.param(closed(flow(rst(ip_id=0, ttl=42))), id="after-its-FIN: worth a question"),
        pytest.param(silent(flow(rst(ip_id=9, ttl=100))), id="a-windows-host"),
        pytest.param(flow(rst6(ttl=42)), id="ipv6"),
    ],
    "split-identity": [
        pytest.param(flow(theirs=SPLIT), id="a-proxy-shook-hands"),
        pytest.param(
            flow(theirs=half(syn_ttl=47, ttl=238, ttls=b.counted((238, 11), (47, 1)))),
            id="same-distance-other-stack",
        ),
    ],
    "port-reuse": [
        pytest.param(flow(theirs=REUSED), id="a-new-SYN-0.2-s-before"),
        pytest.param(
            flow(theirs=half(new_syn=dataclasses.replace(NEW_SYN, ttl=40))), id="from-farther-away"
        ),
    ],
    "keepalive-race": [
        pytest.param(flow(rst(ip_id=0), races=RACES), id="the-peer-closes-first"),
        pytest.param(flow(kind=Kind.SENT_PASSIVE, races=RACES), id="and-we-answer"),
    ],
    "upstream-failed": [
        pytest.param(flow(kind=Kind.SENT_ACTIVE, process=NGINX, upstream=FAILED), id="refused"),
        pytest.param(
            flow(
                kind=Kind.SENT_ACTIVE,
                process=NGINX,
                upstream=dataclasses.replace(FAILED, refused=False),
            ),
            id="reset",
        ),
    ],
    "peer-of-several": [
        pytest.param(b.with_baseline(flow(rst(ttl=52)), peer_ttls=(47, 52)), id="another-s"),
        pytest.param(
            b.with_baseline(flow(rst(ttl=116), scope=Scope.PEER), peer_ttls=(47, 116)),
            id="without-a-flow-and-another-initial-ttl",
        ),
    ],
    "nat-state-lost": [
        pytest.param(idle(flow(rst(ip_id=0, ttl=48))), id="a-hop-before-the-peer"),
        pytest.param(idle(flow(rst(ip_id=0, ttl=63))), id="near-us-after-a-long-silence"),
        pytest.param(idle(flow(rst6(ttl=49))), id="ipv6"),
    ],
    "idle-timeout": [
        pytest.param(idle(flow(), 61), id="a-minute"),
        pytest.param(idle(flow(kind=Kind.SENT_PASSIVE), 350), id="we-have-forgotten-it"),
    ],
    "port-scan": [
        pytest.param(shaken(syn_options="mss 1460"), id="a-scanner"),
        pytest.param(shaken(63, syn_options=""), id="without-options-and-with-an-odd-TTL"),
    ],
    "spoofed-syn": [
        pytest.param(shaken(63), id="the-owner-is-nearer"),
        pytest.param(shaken(40), id="the-owner-is-farther"),
    ],
    "health-check": [
        pytest.param(check(1, b.TIME), id="syn-synack-rst"),
        pytest.param(check(1, b.TIME, period_s=2.04), id="again-and-again"),
    ],
    "escaped-nat": [
        pytest.param(compared("its answer came from elsewhere"), id="received"),
        pytest.param(compared("its answer came from elsewhere", kind=Kind.SENT_PASSIVE), id="sent"),
    ],
    "connection-refused": [
        pytest.param(flow(cause=Cause("connection-refused", "refused")), id="refused"),
    ],
}

NOT_FOUND: dict[str, list[Any]] = {
    "duplicate-address": [
        pytest.param(flow(rst(ip_id=0)), id="from-where-the-peer-is"),
        pytest.param(flow(rst(ip_id=0, ttl=63)), id="nearer-on-the-way: a firewall"),
        pytest.param(
            flow(rst(ip_id=0, ttl=60), mac=OTHER_MAC, next_hop=GATEWAY),
            id="nearer, from another router: a router's MAC is not the peer's",
        ),
        pytest.param(flow(rst(ip_id=0, ttl=45)), id="two-hops: a reroute"),
        pytest.param(closed(flow(rst(ip_id=0, ttl=44))), id="after its FIN: its host, rerouted"),
        pytest.param(flow(rst(ip_id=0, ttl=44), made_here=PROVED), id="we-know-who-made-it"),
        pytest.param(flow(rst(ip_id=9, ttl=44)), id="no-host's-shape"),
        pytest.param(
            flow(rst(ip_id=0, ttl=44), theirs=half(ttls=b.counted((47, 8), (45, 4)))),
            id="a-ttl-that-varies",
        ),
        pytest.param(flow(rst(ip_id=0, ttl=44), scope=Scope.PEER), id="no-flow"),
        pytest.param(
            flow(rst(ip_id=0, ttl=64), theirs=steady(64), mac=MAC, next_hop=ON_LINK), id="its-mac"
        ),
        pytest.param(
            flow(rst(ip_id=0, ttl=63), theirs=steady(64), mac=OTHER_MAC, next_hop=ON_LINK),
            id="a-router-made-it",
        ),
        pytest.param(flow(rst(ip_id=0, ttl=44), kind=Kind.SENT_PASSIVE), id="ours"),
    ],
    "split-identity": [
        pytest.param(flow(), id="one-distance"),
        pytest.param(flow(theirs=half(ttls=b.counted((45, 11), (47, 1)), ttl=45)), id="a-reroute"),
        pytest.param(
            flow(theirs=half(syn_ttl=39, ttls=b.counted((39, 11), (231, 2)))), id="two-injected"
        ),
        pytest.param(flow(theirs=dataclasses.replace(SPLIT, new_syn=NEW_SYN)), id="port-reuse"),
        pytest.param(
            flow(theirs=dataclasses.replace(SPLIT, syn_options="mss 1460")),
            id="a-program-wrote-the-SYN",
        ),
        pytest.param(flow(theirs=SPLIT, made_here=PROVED), id="we-know-who-made-it"),
        pytest.param(flow(theirs=half(syn_ttl=None)), id="no-handshake"),
        pytest.param(flow(theirs=half(ttl=None)), id="nothing-else"),
        pytest.param(flow(theirs=SPLIT, scope=Scope.PEER), id="no-flow"),
        pytest.param(flow(theirs=SPLIT, kind=Kind.SENT_PASSIVE), id="ours"),
    ],
    "port-reuse": [
        pytest.param(flow(), id="no-new-SYN"),
        pytest.param(
            flow(theirs=half(new_syn=dataclasses.replace(NEW_SYN, time_ns=b.TIME - 5001 * MS))),
            id="long-before",
        ),
        pytest.param(
            flow(theirs=half(new_syn=dataclasses.replace(NEW_SYN, time_ns=b.TIME + MS))),
            id="afterwards",
        ),
        pytest.param(flow(rst(ttl=63, ip_id=13052), theirs=REUSED), id="forged"),
        pytest.param(flow(theirs=REUSED, kind=Kind.SENT_PASSIVE), id="ours"),
    ],
    "keepalive-race": [
        pytest.param(flow(rst(ip_id=0)), id="no-silence-that-recurs"),
        pytest.param(flow(rst(ttl=63, ip_id=13052), races=RACES), id="forged"),
    ],
    "upstream-failed": [
        pytest.param(flow(kind=Kind.SENT_ACTIVE, process=NGINX), id="nothing-had-failed"),
    ],
    "peer-of-several": [
        pytest.param(b.with_baseline(flow(rst(ttl=47)), peer_ttls=(47, 52)), id="as-this-flow"),
        pytest.param(b.with_baseline(flow(rst(ttl=53)), peer_ttls=(47, 52)), id="as-none"),
        pytest.param(
            b.with_baseline(flow(rst(ttl=52), scope=Scope.PEER), peer_ttls=(47, 116)),
            id="as-far-as-one, with another initial TTL: a third stack",
        ),
        pytest.param(
            b.with_baseline(flow(rst(ttl=52), made_here=PROVED), peer_ttls=(47, 52)),
            id="we-know-who-made-it",
        ),
        pytest.param(
            b.with_baseline(flow(rst(ttl=52), kind=Kind.SENT_RAW), peer_ttls=(47, 52)), id="ours"
        ),
    ],
    "nat-state-lost": [
        pytest.param(flow(rst(ip_id=0, ttl=63)), id="far-before-the-peer-and-not-idle"),
        pytest.param(flow(rst(ip_id=0, ttl=48)), id="alive-a-moment-ago: nothing forgets so soon"),
        pytest.param(
            idle(flow(rst(ip_id=0, ttl=48), made_here=PROVED)), id="beside a proof that we made it"
        ),
        pytest.param(idle(flow(rst(ip_id=0, ttl=63)), 59), id="a-short-silence"),
        pytest.param(idle(flow(rst(ip_id=0, ttl=46))), id="behind-the-peer"),
        pytest.param(idle(flow(rst(ip_id=0, ttl=47))), id="the-peer-itself"),
        pytest.param(idle(flow(rst(ip_id=0, flags="RA", seq=0, ttl=48))), id="a-syn-was-answered"),
        pytest.param(idle(flow(rst(ip_id=7, ttl=48))), id="another-shape"),
        pytest.param(
            idle(flow(rst(ip_id=0, ttl=48), theirs=half(ttls=b.counted((47, 8), (50, 4))))),
            id="several-paths",
        ),
        pytest.param(flow(rst(ip_id=0, ttl=48), ours=None), id="nothing-of-ours-to-answer"),
        pytest.param(
            flow(
                rst(ip_id=0, ttl=48),
                ours=our_half(recent=(seen(time_ns=b.TIME - 3_000_000_001),)),
            ),
            id="too-late-to-be-an-answer",
        ),
        pytest.param(idle(flow(rst(ip_id=0, ttl=48), kind=Kind.SENT_PASSIVE)), id="ours"),
    ],
    "idle-timeout": [
        pytest.param(flow(), id="busy"),
        pytest.param(idle(flow(), 59), id="not-quite-a-minute"),
        pytest.param(idle(flow(kind=Kind.SENT_ACTIVE)), id="we-closed-it"),
        pytest.param(flow(theirs=None, ours=None), id="nothing-known"),
    ],
    "port-scan": [
        pytest.param(shaken(), id="a-stack's-SYN"),
        pytest.param(shaken(syn_options=LINUX_SYN), id="a-linux-SYN"),
        pytest.param(flow(theirs=half(syn_options="mss 1460")), id="a-long-connection"),
        pytest.param(changed(shaken(syn_options="mss 1460"), kind=Kind.SENT_PASSIVE), id="we-scan"),
    ],
    "spoofed-syn": [
        pytest.param(shaken(), id="from-where-the-SYN-came"),
        pytest.param(shaken(63, syn_options="mss 1460"), id="a-scanner"),
        pytest.param(shaken(63, confirmed=True), id="it-had-answered-us"),
        pytest.param(changed(shaken(63), made_here=PROVED), id="we-know-who-made-it"),
    ],
    "health-check": [
        pytest.param(flow(), id="a-long-connection"),
        pytest.param(check(1, b.TIME, kind=Kind.SENT_ACTIVE), id="our-own-reset"),
        pytest.param(
            check(1, b.TIME, theirs=half(packets=2, syns=2, recent=(SYN, SYN))), id="a-SYN-repeated"
        ),
        pytest.param(shaken(63), id="not-from-where-the-SYN-came"),
        pytest.param(shaken(syn_options="mss 1460"), id="a-scan"),
        pytest.param(
            check(1, b.TIME, mac=MAC, next_hop=GATEWAY, theirs=lone_syn(64)),
            id="the-gateway-itself-answered: forged",
        ),
        pytest.param(check(1, b.TIME, theirs=None), id="no-client-seen"),
        pytest.param(check(1, b.TIME, ours=None), id="no-server-seen"),
        pytest.param(
            check(1, b.TIME, ours=our_half(packets=1, recent=(seen(flags="A", payload_len=0),))),
            id="no-syn-ack",
        ),
        pytest.param(check(1, b.TIME, theirs=half(packets=1)), id="no-syn"),
        pytest.param(check(1, b.TIME, scope=Scope.PEER), id="no-flow"),
    ],
    "escaped-nat": [
        pytest.param(compared(""), id="as-it-ought-to-be"),
        pytest.param(flow(), id="one-end-only"),
    ],
    "connection-refused": [pytest.param(flow(), id="established")],
}


def said(name: str, given: Reset) -> Evidence | None:
    """What a finder says beside the verdict that this reset gets."""
    verdict = judge(given)
    proved = any(evidence.proof for evidence in verdict.evidence)
    finder = next(f for f in FINDERS if f.__name__.replace("_", "-") == name)
    return finder(given, Decided(verdict.origin, verdict.authors, proved))


@pytest.mark.parametrize(
    ("name", "given"),
    [pytest.param(n, *p.values, id=f"{n}: {p.id}") for n, cases in FOUND.items() for p in cases],
)
def test_found(name: str, given: Reset) -> None:
    found = said(name, given)
    assert found is not None
    assert found.rule == name
    assert found.weight == 0
    assert not found.proof
    assert found.text
    assert "None" not in found.text
    verdict = judge(given)
    assert found in verdict.evidence
    assert name in verdict.findings


@pytest.mark.parametrize(
    ("name", "given"),
    [
        pytest.param(n, *p.values, id=f"{n}: {p.id}")
        for n, cases in NOT_FOUND.items()
        for p in cases
    ],
)
def test_not_found(name: str, given: Reset) -> None:
    assert said(name, given) is None


def test_every_finding_has_cases_both_ways() -> None:
    names = [finder.__name__.replace("_", "-") for finder in FINDERS]
    assert list(FOUND) == list(NOT_FOUND) == names
    assert all(finder.__doc__ for finder in FINDERS)


def checked(client: Half, took_ms: int = 2) -> bool:
    given = check(1, b.TIME)
    assert given.baseline.ours is not None
    return findings.looks_like_check(
        changed(
            b.with_baseline(given, theirs=client), time_ns=client.first_ns + took_ms * 1_000_000
        )
    )


def test_what_a_checking_client_may_send() -> None:
    syn, ack = (
        seen(flags="S", ack=0, payload_len=0),
        seen(flags="A", payload_len=0),
    )
    client = {"first_ns": b.TIME - 10**9}
    assert checked(half(packets=1, recent=(syn,), **client))
    assert checked(half(packets=2, recent=(ack, syn), **client))
    assert checked(half(packets=1, recent=(seen(flags="SEW", payload_len=0),), **client))  # ECN
    assert not checked(half(packets=3, recent=(ack, ack, syn), **client))
    assert not checked(half(packets=2, recent=(seen(payload_len=1), syn), **client))
    assert not checked(half(packets=2, recent=(seen(flags="FA", payload_len=0), syn), **client))
    assert checked(half(packets=1, recent=(syn,), **client), 5000)
    assert not checked(half(packets=1, recent=(syn,), **client), 5001)


def test_the_period_is_told() -> None:
    found = said("health-check", check(1, b.TIME, period_s=2.04))
    assert found is not None
    assert "every 2.0 s" in found.text
    assert found.values == {"period_s": 2.04}
    once = said("health-check", check(1, b.TIME))
    assert once is not None
    assert "every" not in once.text
    assert once.values == {"period_s": None}


def test_one_hop_is_singular() -> None:
    one, two = (said("nat-state-lost", idle(flow(rst(ip_id=0, ttl=ttl)))) for ttl in (48, 49))
    assert one is not None
    assert two is not None
    assert "1 hop before" in one.text
    assert "2 hops before" in two.text


def test_an_unusual_port_is_named() -> None:
    refused = flow(rst(src=Endpoint(b.PEER, 81)), cause=Cause("connection-refused", "refused"))
    found = said("connection-refused", refused)
    assert found is not None
    assert found.values == {"port": 81}


def test_any_reset_can_be_read() -> None:
    draw = random.Random(4)
    names = set()
    for _ in range(4000):
        given = random_reset(draw)
        verdict = judge(given)
        for found in findings.findings(given, verdict.origin, verdict.authors):
            names.add(found.rule)
            assert found.text
            assert "None" not in found.text
            assert not found.weight
    assert names >= {"split-identity", "peer-of-several"}


@pytest.mark.parametrize(
    ("name", "author"),
    [("duplicate-address", Author.SECOND_HOST), ("nat-state-lost", Author.BALANCER)],
)
def test_none_is_shown_that_the_verdict_excludes(name: str, author: Author) -> None:
    given = FOUND[name][0].values[0]
    other = Author.REJECT
    for share, shown in ((0.6, True), (0.07, False)):
        authors = (
            Share(author, share, WORDS[author]),
            Share(other, 1 - share, WORDS[other]),
        )
        found = findings.findings(given, Origin.FORGED, authors)
        assert (name in {evidence.rule for evidence in found}) == shown
    assert findings.findings(given, Origin.FORGED, authors[:1], proved=True) == tuple(
        evidence
        for evidence in findings.findings(given, Origin.FORGED, ())
        if evidence.rule in ("idle-timeout",)
    )


def test_the_documentation_knows_every_finding() -> None:
    section = EVIDENCE_DOC.read_text(encoding="utf-8").partition("\n## Findings\n")[2]
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", section.partition("\n## ")[0], re.MULTILINE)
    assert [name for name, _ in rows] == list(FOUND)
