from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from rsttrace.judge import findings
from rsttrace.judge.findings import FINDERS, Finder
from rsttrace.model import Cause, Endpoint, Half, Kind, NextHop, Reset, Scope
from tests.unit import builders as b
from tests.unit.builders import (
    MAC,
    OTHER_MAC,
    changed,
    flow,
    half,
    idle,
    our_half,
    rst,
    rst6,
    seen,
    steady,
)
from tests.unit.test_history import check
from tests.unit.test_verdict import random_reset

EVIDENCE_DOC = Path(__file__).parents[2] / "docs" / "evidence.md"

GATEWAY = NextHop("10.0.0.1", MAC, True, 2)
ON_LINK = NextHop(b.PEER, MAC, False, 2)
NO_SOCKET = rst(ip_id=0)
WINDOWS = steady(111)

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
        pytest.param(flow(rst(ip_id=0, ttl=44)), id="farther-than-the-peer"),
        pytest.param(
            flow(rst(ip_id=0, ttl=60), mac=OTHER_MAC, next_hop=GATEWAY), id="through-another-router"
        ),
        pytest.param(flow(rst(ip_id=9, ttl=100)), id="a-windows-host"),
        pytest.param(flow(rst6(ttl=44)), id="ipv6"),
    ],
    "split-identity": [
        pytest.param(flow(theirs=half(syn_ttl=39, ttl=231)), id="a-proxy-shook-hands"),
        pytest.param(flow(theirs=half(syn_ttl=47, ttl=238)), id="same-distance-other-stack"),
    ],
    "peer-of-several": [
        pytest.param(b.with_baseline(flow(rst(ttl=52)), peer_ttls=(47, 52)), id="another-s"),
        pytest.param(
            b.with_baseline(flow(rst(ttl=52), scope=Scope.PEER), peer_ttls=(47, 116)),
            id="without-a-flow-and-another-initial-ttl",
        ),
    ],
    "nat-state-lost": [
        pytest.param(flow(rst(ip_id=0, ttl=48)), id="a-hop-before-the-peer"),
        pytest.param(idle(flow(rst(ip_id=0, ttl=63))), id="near-us-after-a-long-silence"),
        pytest.param(flow(rst6(ttl=49)), id="ipv6"),
    ],
    "idle-timeout": [
        pytest.param(idle(flow(), 61), id="a-minute"),
        pytest.param(idle(flow(kind=Kind.SENT_PASSIVE), 350), id="we-have-forgotten-it"),
    ],
    "health-check": [
        pytest.param(check(1, b.TIME), id="syn-synack-rst"),
        pytest.param(check(1, b.TIME, kind=Kind.SENT_ACTIVE), id="we-check"),
        pytest.param(check(1, b.TIME, period_s=2.04), id="again-and-again"),
    ],
    "connection-refused": [
        pytest.param(flow(cause=Cause("connection-refused", "refused")), id="refused"),
    ],
}

NOT_FOUND: dict[str, list[Any]] = {
    "duplicate-address": [
        pytest.param(flow(NO_SOCKET), id="from-where-the-peer-is"),
        pytest.param(flow(rst(ip_id=0, ttl=63)), id="nearer-on-the-way: a firewall"),
        pytest.param(flow(rst(ip_id=0, ttl=45)), id="two-hops: a reroute"),
        pytest.param(flow(rst(ip_id=9, ttl=44)), id="no-host's-shape"),
        pytest.param(flow(rst(ip_id=0, ttl=44), theirs=half(ttl_min=44)), id="a-ttl-that-varies"),
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
        pytest.param(flow(theirs=half(ttl=45)), id="a-reroute"),
        pytest.param(flow(theirs=half(syn_ttl=None)), id="no-handshake"),
        pytest.param(flow(theirs=half(ttl=None)), id="nothing-else"),
        pytest.param(flow(theirs=half(syn_ttl=39, ttl=231), scope=Scope.PEER), id="no-flow"),
        pytest.param(flow(theirs=half(syn_ttl=39, ttl=231), kind=Kind.SENT_PASSIVE), id="ours"),
    ],
    "peer-of-several": [
        pytest.param(b.with_baseline(flow(rst(ttl=47)), peer_ttls=(47, 52)), id="as-this-flow"),
        pytest.param(b.with_baseline(flow(rst(ttl=53)), peer_ttls=(47, 52)), id="as-none"),
        pytest.param(
            b.with_baseline(flow(rst(ttl=52), kind=Kind.SENT_RAW), peer_ttls=(47, 52)), id="ours"
        ),
    ],
    "nat-state-lost": [
        pytest.param(flow(rst(ip_id=0, ttl=63)), id="far-before-the-peer-and-not-idle"),
        pytest.param(idle(flow(rst(ip_id=0, ttl=63)), 59), id="a-short-silence"),
        pytest.param(flow(rst(ip_id=0, ttl=46)), id="behind-the-peer"),
        pytest.param(flow(rst(ip_id=0, ttl=47)), id="the-peer-itself"),
        pytest.param(flow(rst(ip_id=0, flags="RA", seq=0, ttl=48)), id="a-syn-was-answered"),
        pytest.param(flow(rst(ip_id=7, ttl=48)), id="another-shape"),
        pytest.param(flow(rst(ip_id=0, ttl=48), theirs=half(ttl_max=50)), id="several-paths"),
        pytest.param(flow(rst(ip_id=0, ttl=48), ours=None), id="nothing-of-ours-to-answer"),
        pytest.param(
            flow(
                rst(ip_id=0, ttl=48),
                ours=our_half(recent=(seen(time_ns=b.TIME - 3_000_000_001),)),
            ),
            id="too-late-to-be-an-answer",
        ),
        pytest.param(flow(rst(ip_id=0, ttl=48), kind=Kind.SENT_PASSIVE), id="ours"),
    ],
    "idle-timeout": [
        pytest.param(flow(), id="busy"),
        pytest.param(idle(flow(), 59), id="not-quite-a-minute"),
        pytest.param(idle(flow(kind=Kind.SENT_ACTIVE)), id="we-closed-it"),
        pytest.param(flow(theirs=None, ours=None), id="nothing-known"),
    ],
    "health-check": [
        pytest.param(flow(), id="a-long-connection"),
        pytest.param(check(1, b.TIME, theirs=None), id="no-client-seen"),
        pytest.param(check(1, b.TIME, ours=None), id="no-server-seen"),
        pytest.param(
            check(1, b.TIME, ours=our_half(packets=1, recent=(seen(flags="A", payload_len=0),))),
            id="no-syn-ack",
        ),
        pytest.param(check(1, b.TIME, theirs=half(packets=1)), id="no-syn"),
        pytest.param(check(1, b.TIME, scope=Scope.PEER), id="no-flow"),
    ],
    "connection-refused": [pytest.param(flow(), id="established")],
}


def finder_of(name: str) -> Finder:
    """The one that gives this name."""
    return next(f for f in FINDERS if f.__name__.replace("_", "-") == name)


@pytest.mark.parametrize(
    ("name", "given"),
    [pytest.param(n, *p.values, id=f"{n}: {p.id}") for n, cases in FOUND.items() for p in cases],
)
def test_found(name: str, given: Reset) -> None:
    found = finder_of(name)(given)
    assert found is not None
    assert found.rule == name
    assert found.weight == 0
    assert not found.proof
    assert found.text
    assert "None" not in found.text
    assert found in findings.findings(given)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        pytest.param(n, *p.values, id=f"{n}: {p.id}")
        for n, cases in NOT_FOUND.items()
        for p in cases
    ],
)
def test_not_found(name: str, given: Reset) -> None:
    assert finder_of(name)(given) is None


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
    found = findings.health_check(check(1, b.TIME, period_s=2.04))
    assert found is not None
    assert "every 2.0 s" in found.text
    assert found.values == {"period_s": 2.04}
    once = findings.health_check(check(1, b.TIME))
    assert once is not None
    assert "every" not in once.text
    assert once.values == {"period_s": None}


def test_one_hop_is_singular() -> None:
    one, two = (findings.nat_state_lost(flow(rst(ip_id=0, ttl=ttl))) for ttl in (48, 49))
    assert one is not None
    assert two is not None
    assert "1 hop before" in one.text
    assert "2 hops before" in two.text


def test_an_unusual_port_is_named() -> None:
    refused = flow(rst(src=Endpoint(b.PEER, 81)), cause=Cause("connection-refused", "refused"))
    found = findings.connection_refused(refused)
    assert found is not None
    assert found.values == {"port": 81}


def test_any_reset_can_be_read() -> None:
    draw = random.Random(4)
    names = set()
    for _ in range(4000):
        for found in findings.findings(random_reset(draw)):
            names.add(found.rule)
            assert found.text
            assert "None" not in found.text
            assert not found.weight
    assert names >= {"split-identity", "peer-of-several"}


def test_the_documentation_knows_every_finding() -> None:
    section = EVIDENCE_DOC.read_text(encoding="utf-8").partition("\n## Findings\n")[2]
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", section.partition("\n## ")[0], re.MULTILINE)
    assert [name for name, _ in rows] == list(FOUND)
