"""Asking the node: what is asked, and how little of it in a storm."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from rsttrace import limits
from rsttrace.commands.noting import Noting, _Share
from rsttrace.commands.run import Options, Run
from rsttrace.commands.stop import Stop
from rsttrace.enrich.question import question_about, question_key
from rsttrace.judge.history import Case
from rsttrace.model import Cause, Endpoint, Frame, Kind, MadeHere, Reset
from tests.unit.builders import PEER, US, flow, rst, seen

OWN = os.stat("/proc/self/ns/net").st_ino
REFUSAL = Cause("no-listener", "no socket listens there")
LOST = Cause("no-socket", "no such connection here")


def refusal(port: int, ip: str = "127.0.0.2") -> Reset:
    """Our own namespace refused a SYN."""
    packet = replace(rst(flags="RA"), src=Endpoint(ip, port), dst=Endpoint(PEER, 40000))
    return flow(packet, kind=Kind.SENT_PASSIVE, cause=REFUSAL, netns=OWN)


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def run(said: list[str]) -> Run:
    return Run(Options(), Stop(), status=said.append)


def test_the_answer_is_put_on_the_reset_and_on_those_like_it(run: Run, listener: int) -> None:
    first, second, third = (Case(refusal(listener), 0) for _ in range(3))
    with Noting(lambda netns: None, None, whole_node=False) as noting:
        noting.ask(first)
        noting.ask(second)
        noting.finish(run)
        noting.ask(third)  # answered at once
    for case in (first, second, third):
        (note,) = case.reset.notes
        assert note.name == "listens-other-address"
        assert f"127.0.0.1:{listener}" in note.text
        assert note.values["listeners"][0]["pid"] in (None, os.getpid())


def test_a_late_answer_has_the_reset_judged_anew(run: Run, listener: int) -> None:
    case = run.history.add(refusal(listener), 0)
    assert case is not None
    with Noting(lambda netns: None, None, whole_node=False) as noting:
        noting.ask(case)
        assert [shown.verdict and shown.verdict.findings for shown in run.history.due(None)] == [()]
        noting.finish(run)
    (again,) = run.history.due(None)
    assert again is case
    assert again.verdict is not None
    assert again.verdict.findings == ("listens-other-address",)


def test_a_storm_asks_little(run: Run, listener: int) -> None:
    """Time stands still: no more is asked than at once may be."""
    del listener
    cases = [Case(refusal(listener_port, "192.0.2.9"), 0) for listener_port in range(1, 5001)]
    with Noting(lambda netns: None, None, whole_node=False, clock=lambda: 1.0) as noting:
        for case in cases:
            noting.ask(case)
        assert 0 < len(noting._waiting) <= limits.NOTE_QUESTIONS_AT_ONCE


def test_questions_take_a_share_of_a_cpu(run: Run, listener: int) -> None:
    """What has been taken is paid back in time; rules, which are listed rarely, are free."""
    now = [1.0]
    share = _Share(lambda: now[0])
    assert share.is_left(0.0)
    assert share.is_left(limits.NOTE_CPU_S / 2)
    assert not share.is_left(limits.NOTE_CPU_S)
    assert not share.is_left(limits.NOTE_CPU_S)  # asking costs nothing, and gives nothing
    now[0] += 0.1
    assert share.is_left(limits.NOTE_CPU_S)
    now[0] += 1000.0
    assert not share.is_left(3 * limits.NOTE_CPU_S)  # what was not taken is not kept
    with Noting(lambda netns: None, None, whole_node=False, clock=lambda: 1.0) as noting:
        rules, others = noting._workers
        others.cpu_s = rules.cpu_s = 2 * limits.NOTE_CPU_S
        noting.ask(Case(refusal(listener), 0))
        assert not noting._waiting
        noting.ask(Case(flow(kind=Kind.SENT_NETFILTER, netns=OWN), 0))
        assert len(noting._waiting) == 1


def test_one_question_keeps_few_resets(run: Run, listener: int) -> None:
    cases = [Case(refusal(listener), 0) for _ in range(100)]
    with Noting(lambda netns: None, None, whole_node=False, clock=lambda: 1.0) as noting:
        for case in cases:
            noting.ask(case)
        (waiting,) = noting._waiting.values()
        assert len(waiting) == limits.NOTE_WAITING


def test_a_namespace_that_is_gone_is_said_once_and_only_on_request(
    run: Run, said: list[str], listener: int
) -> None:
    gone = [Case(replace(refusal(port), netns=1), 0) for port in (listener, listener + 1)]
    for verbose, lines in ((False, 0), (True, 1)):
        with Noting(lambda netns: None, None, verbose=verbose) as noting:
            for case in gone:
                noting.ask(case)
                noting.finish(run)
        assert len(said) == lines
    assert "is gone" in said[0]
    assert all(case.reset.notes == () for case in gone)


def test_the_next_namespace_with_an_inode_number_is_asked_anew(run: Run, listener: int) -> None:
    """What another one listened on, or rejected, says nothing of it."""
    del run
    cases = [Case(replace(refusal(listener), netns_identity=number), 0) for number in (1, 1, 2)]
    made_there = made(Kind.SENT_NETFILTER)
    cases += [Case(flow(made_here=made_there), 0) for _ in range(2)]
    known = iter((3, 4))
    with Noting(lambda netns: next(known), None, clock=lambda: 1.0) as noting:
        for case in cases:
            noting.ask(case)
        assert [len(waiting) for waiting in noting._waiting.values()] == [2, 1, 1, 1]


def made(kind: Kind, source: str = PEER) -> MadeHere:
    return MadeHere(7, kind, hook="forward", source=source)


@pytest.mark.parametrize(
    ("reset", "what"),
    [
        (refusal(80), "listeners"),
        (flow(kind=Kind.SENT_PASSIVE, cause=LOST, netns=5), "escaped"),
        (flow(kind=Kind.SENT_PASSIVE, cause=LOST, netns=None), None),
        (flow(kind=Kind.SENT_PASSIVE, cause=Cause("time-wait", "over"), netns=5), None),
        (flow(kind=Kind.SENT_ACTIVE, netns=5), None),
        (flow(kind=Kind.SENT_RAW, netns=5), None),
        (flow(kind=Kind.SENT_NETFILTER, netns=5), "rules"),
        (flow(made_here=made(Kind.SENT_NETFILTER)), "rules"),
        (flow(made_here=made(Kind.SENT_NETFILTER, US)), None),  # NAT has changed it since
        (flow(made_here=made(Kind.SENT_PASSIVE)), "escaped"),
        (flow(made_here=made(Kind.SENT_ACTIVE)), None),
        (
            flow(
                rst(flags="RA"),
                made_here=made(Kind.SENT_PASSIVE),
                cause=Cause("connection-refused", "refused"),
            ),
            "listeners",
        ),
        (flow(), None),
    ],
)
def test_what_is_asked(reset: Reset, what: str | None) -> None:
    key = question_key(reset, lambda netns: 99)
    if what is None:
        assert key is None
        return
    question = question_about(reset, key)
    assert question.what == what
    assert (question.local, question.remote) == (reset.rst.src, reset.rst.dst)
    if reset.made_here is not None:
        assert (question.netns, question.identity) == (7, 99)
    if what == "rules":
        assert question.hook == (None if reset.made_here is None else "forward")


def test_a_question_has_the_numbers_of_what_was_answered() -> None:
    packet = rst(flags="R", seq=5000)
    trigger = seen(flags="SA", seq=77, ack=5000)
    given = flow(packet, kind=Kind.SENT_PASSIVE, cause=LOST, netns=5, trigger=trigger)
    question = question_about(given, question_key(given))
    assert (question.ack, question.seq, question.handshake) == (5000, 77, True)
    given = replace(given, trigger=seen(flags="SA", seq=77, ack=4999))
    question = question_about(given, question_key(given))
    assert (question.ack, question.seq, question.handshake) == (5000, None, False)


@pytest.mark.parametrize(
    ("hook", "ifindex", "loopback"),
    [("input", 1, True), ("forward", 2, False), ("output", 1, None), (None, 1, None)],
)
def test_loopback_is_told_where_it_says_how_the_packet_came(
    hook: str | None, ifindex: int, loopback: bool | None
) -> None:
    frame = Frame(5, ifindex, None, 64)
    given = flow(kind=Kind.SENT_NETFILTER, netns=5, hook=hook, frame=frame)
    assert question_about(given, question_key(given)).loopback is loopback
