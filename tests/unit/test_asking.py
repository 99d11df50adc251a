from __future__ import annotations

from collections.abc import Iterator

import pytest

from rsttrace.commands.asker import OWN_KEPT, OWN_NS, Asker
from rsttrace.enrich.asking import answered, unanswered
from rsttrace.enrich.target import Target
from rsttrace.judge.verdict import judge
from rsttrace.model import Endpoint, Kind, Origin, ProbeAnswer, Reset, Verdict
from tests.unit.builders import PEER, PEER6, TIME, US, changed, reset, rst, rst6

V4, V6 = Target(PEER, 443, 4, (PEER, 0)), Target(PEER6, 0, 6, (PEER6, 0, 0, 0))
DOUBTFUL = Verdict(Origin.INCONCLUSIVE, None, 0.0)


def answers(method: str, *ttls: int) -> list[ProbeAnswer]:
    kind = "echo" if method == "icmp" else "syn-ack"
    return [ProbeAnswer(kind, PEER, ttl, 1000, flow, method) for flow, ttl in enumerate(ttls)]


@pytest.mark.parametrize(
    ("method", "target", "ttls", "ttl", "text"),
    [
        ("icmp", V4, (47,), 47, "an echo's reply came with TTL 47, 17 hops"),
        ("icmp", V6, (63,), 63, "an echo's reply came with hop limit 63, 1 hop"),
        ("icmp", V4, (47, 47, 47), 47, "the replies to 3 echoes came with TTL 47, 17 hops"),
        ("icmp", V4, (48, 47, 47), 47, "the replies to 3 echoes came with TTL 48, 47"),
        ("tcp", V4, (64,), 64, "the SYN-ACK to a SYN to port 443 came with TTL 64, 0 hops"),
        ("tcp", V4, (47, 47), 47, "the SYN-ACK to 2 SYNs to port 443 came with TTL 47, 17 hops"),
    ],
)
def test_what_answers_say(
    method: str, target: Target, ttls: tuple[int, ...], ttl: int, text: str
) -> None:
    found = answered(method, target, answers(method, *ttls))
    assert (found.ttl, found.ttls, found.text) == (ttl, ttls, text)
    assert found.method == ("echo" if method == "icmp" else "syn")
    assert (found.mac, found.macs) == (None, ())


def test_what_silence_says() -> None:
    assert unanswered(V6).text == "no answer to an echo"
    assert unanswered(V4).text == "no answer to an echo, nor to a SYN to port 443"
    assert (unanswered(V4).ttl, unanswered(V4).ttls) == (None, ())


@pytest.fixture
def asker() -> Iterator[Asker]:
    with Asker() as made:
        yield made


def between(ours: int, peer: int, **values: object) -> Reset:
    packet = rst(src=Endpoint(PEER, peer), dst=Endpoint(US, ours))
    return reset(packet, **values)  # type: ignore[arg-type]


def test_resets_of_a_question_are_known(asker: Asker) -> None:
    """What our kernel answers, what it answers to, and both as other namespaces see them."""
    asker.note([40001, 40002], PEER, 443, TIME)
    sent = between(40001, 443, kind=Kind.SENT_PASSIVE)
    sent = changed(sent, local=Endpoint(US, 40001), remote=Endpoint(PEER, 443))
    there = changed(sent, local=Endpoint(PEER, 443), remote=Endpoint(US, 40001))
    for mine in (between(40002, 443), sent, there):
        assert asker.is_own(mine)
    for other in (
        between(40003, 443),
        between(40001, 80),
        between(40001, 443, time_ns=TIME + OWN_NS + 1),
        reset(rst6(dst=Endpoint("2001:db8::5", 40001))),
    ):
        assert not asker.is_own(other)


def test_so_many_ports_are_remembered(asker: Asker) -> None:
    asker.note(list(range(1, OWN_KEPT + 2)), PEER, 443, TIME)
    assert not asker.is_own(between(1, 443))
    assert asker.is_own(between(2, 443))


def test_nobody_is_asked_without_the_right_to(asker: Asker) -> None:
    asker.refused = True
    assert judge(reset()).origin is Origin.INCONCLUSIVE
    assert not asker.ask(reset(), DOUBTFUL)
    assert not asker.busy


def test_answers_are_counted(asker: Asker) -> None:
    for found in (answered("icmp", V4, answers("icmp", 47)), unanswered(V4), unanswered(V6)):
        asker.count(found)
    assert (asker.answered, asker.unanswered) == (1, 2)
