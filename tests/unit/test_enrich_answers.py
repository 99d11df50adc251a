"""What answers to probes say about a path, without a network."""

from __future__ import annotations

from rsttrace.enrich.answers import Answers, Probe
from rsttrace.model import FULL_TTL, ProbeAnswer

OURS, PEER = "10.0.0.5", "10.9.8.7"
ROUNDS = 2


def probe(ttl: int, kind: str = "", ip: str = "", flow: int = 0, method: str = "tcp") -> Probe:
    """A probe and its answer, which has come over as many routers as the TTL says."""
    answer = ProbeAnswer(kind, ip, 64 - ttl + 1, 1_000_000, flow, method) if kind else None
    return Probe(method, ttl, flow, 0, 0.0, answer)


def whole(kind: str = "", ip: str = "", method: str = "tcp") -> Probe:
    made = probe(FULL_TTL, kind, ip, ROUNDS, method)
    if made.answer is not None:
        made.answer = ProbeAnswer(kind, ip, 61, 1_000_000, ROUNDS, method)
    return made


def answers(*probes: Probe) -> Answers:
    return Answers(probes, OURS, ROUNDS)


def test_routers_and_the_peer_behind_them() -> None:
    found = answers(
        whole("syn-ack", PEER),
        *(probe(ttl, "exceeded", f"10.0.{ttl}.1", flow) for ttl in (1, 3) for flow in range(2)),
        *(probe(2, flow=flow) for flow in range(2)),
        *(probe(ttl, "syn-ack", PEER, flow) for ttl in (4, 5) for flow in range(2)),
    )
    assert found.distance() == 4
    assert [(hop.number, hop.sent, hop.ips) for hop in found.routers()] == [
        (1, 2, ("10.0.1.1",)),
        (2, 2, ()),
        (3, 2, ("10.0.3.1",)),
    ]
    peer = found.peer()
    assert peer is not None
    assert (peer.number, peer.sent, len(peer.answers)) == (4, 2, 2)
    assert found.refusal() is None


def test_a_peer_that_only_a_whole_ttl_reached() -> None:
    found = answers(whole("syn-ack", PEER), probe(1, "exceeded", "10.0.1.1"), probe(2))
    assert found.distance() is None
    assert [hop.number for hop in found.routers()] == [1]
    peer = found.peer()
    assert peer is not None
    assert (peer.number, peer.answers[0].ip) == (0, PEER)


def test_nobody_answers() -> None:
    found = answers(whole(), probe(1), probe(2))
    assert (found.distance(), found.refusal(), found.end()) == (None, None, None)
    assert (found.routers(), found.peer(), found.echo_hops()) == ((), None, None)


def test_who_refuses_stands_once_in_the_list() -> None:
    """It says so before it looks at the TTL (then it has no number yet), or after."""
    first = probe(1, "exceeded", "10.0.1.1")
    after = answers(first, probe(2, "exceeded", "10.0.2.1"), probe(3, "unreachable", "10.0.2.1"))
    before = answers(first, probe(2, "unreachable", "10.0.2.1"))
    for found in (after, before):
        refusal = found.refusal()
        assert refusal is not None
        assert refusal[1].ip == "10.0.2.1"
        assert found.end() == 3
        assert [hop.number for hop in found.routers()] == [1, 2]


def test_this_host_is_no_hop() -> None:
    own = probe(2, "unreachable", OURS)
    alone = answers(own)
    refusal = alone.refusal()
    assert refusal is not None
    assert refusal[1].ip == OURS
    assert (alone.end(), alone.routers()) == (1, ())
    heard = answers(own, probe(1, "exceeded", "10.0.1.1"))
    assert heard.refusal() is None
    assert [hop.ips for hop in heard.routers()] == [("10.0.1.1",)]


def test_the_echo_of_a_whole_ttl_tells_the_way_back() -> None:
    found = answers(whole("rst", PEER), whole("echo", PEER, "icmp"))
    assert found.echo_hops() == 3
    near = probe(2, "echo", PEER, method="icmp")
    assert answers(near).echo_hops() is None
    assert answers(near).distance() == 2
