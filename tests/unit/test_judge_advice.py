"""What to look at next: one line for what a verdict leaves open, or names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from inspect import getsource

import pytest

from rsttrace.enrich.inquiry import NOTES
from rsttrace.judge import advice, findings
from rsttrace.judge.authors import WORDS
from rsttrace.judge.verdict import judge
from rsttrace.judge.why import Deed
from rsttrace.kernel import causes
from rsttrace.model import (
    Author,
    Cause,
    Kind,
    MadeHere,
    NextHop,
    Note,
    Origin,
    Process,
    Reset,
    Share,
)
from tests import docs
from tests.unit.builders import GATEWAY, ON_LINK, PEER, TIME, closed, flow, reset, rst, seen

NAMES = re.compile(r'_found\(\s*"([a-z-]+)"')

LINES = [
    *advice.NAMED.values(),
    *(text for _, text in advice.UNDECIDED),
    *advice.DEEDS.values(),
    *advice.CAUSES.values(),
    *advice.FINDINGS.values(),
    *advice.OURS.values(),
    *advice.IGNORED.values(),
    advice.SHORT_WAY,
    advice.KILLED,
    advice.EXITED,
    *advice.MADE_HERE.values(),
]


def shares(*authors: tuple[Author, float]) -> tuple[Share, ...]:
    return tuple(Share(author, share, WORDS[author]) for author, share in authors)


def said(origin: Origin, authors: Iterable[tuple[Author, float]]) -> str | None:
    return advice.advice(flow(), origin, shares(*authors), (), "connection-reset")


@pytest.mark.parametrize("author", [author for author in Author if not author.is_peer])
def test_every_other_author_has_a_next_step(author: Author) -> None:
    assert said(Origin.FORGED, [(author, 0.9), (Author.PEER_HOST, 0.1)]) == advice.NAMED[author]


@pytest.mark.parametrize("did", list(Deed))
def test_every_deed_of_an_honest_peer_has_a_next_step(did: Deed) -> None:
    assert advice.DEEDS[did]


def test_every_cause_of_what_this_host_sends_has_a_next_step() -> None:
    named = {name for kind, name in docs.sentences() if kind.direction == "sent"}
    assert {
        name for table in (causes.PASSIVE, causes.ACTIVE) for name, _ in table.values()
    } <= named
    assert named - set(advice.CAUSES) == set()


def test_every_cause_of_an_ignored_reset_has_a_next_step() -> None:
    named = {name for kind, name in docs.sentences() if kind is Kind.RECEIVED_REJECTED}
    assert named - set(advice.IGNORED) == set()


@pytest.mark.parametrize("origin", [Origin.PEER, Origin.INCONCLUSIVE])
def test_what_an_honest_reset_was_ignored_for_comes_first(origin: Origin) -> None:
    """What it belonged to lives on: that, not what the peer did, is to be looked at."""
    given = flow(kind=Kind.RECEIVED_REJECTED, cause=Cause("rp-filter", "dropped"))
    left = shares((Author.PEER_HOST, 0.9), (Author.REJECT, 0.1))
    found = advice.advice(given, origin, left, (), "rp-filter")
    assert found == advice.IGNORED["rp-filter"].replace("{remote}", given.remote.ip)
    made = dataclasses.replace(given, made_here=MadeHere(1, Kind.SENT_PASSIVE))
    assert advice.advice(made, origin, left, (), "rp-filter") == found


def test_a_forged_reset_that_was_ignored_asks_for_its_author() -> None:
    given = flow(kind=Kind.RECEIVED_REJECTED, cause=Cause("out-of-window", "ignored"))
    left = shares((Author.INJECTOR, 0.9), (Author.PEER_HOST, 0.1))
    found = advice.advice(given, Origin.FORGED, left, (), "out-of-window")
    assert found == advice.NAMED[Author.INJECTOR]


def test_what_this_host_sent_has_the_advice_of_its_cause() -> None:
    given = flow(kind=Kind.SENT_ACTIVE, cause=Cause("unread-data", "closed with data unread"))
    assert judge(given).advice == advice.CAUSES["unread-data"]
    unknown = flow(kind=Kind.SENT_ACTIVE, cause=Cause("brand-new", "a reason of tomorrow"))
    assert judge(unknown).advice is None


def test_a_line_names_the_resets_own_ports() -> None:
    given = reset(kind=Kind.SENT_PASSIVE, cause=Cause("no-listener", "no socket listens there"))
    found = judge(given).advice
    assert found is not None
    assert f"sport = :{given.local.port}" in found
    assert "{" not in found


@pytest.mark.parametrize(("pair", "text"), advice.UNDECIDED)
def test_every_pair_that_is_left_has_its_question(pair: frozenset[Author], text: str) -> None:
    one, other = sorted(pair, key=lambda author: author.value)
    assert said(Origin.INCONCLUSIVE, [(one, 0.5), (other, 0.4), (Author.MIRROR, 0.1)]) == text


def test_an_author_that_is_hardly_left_is_not_asked_about() -> None:
    left = [(Author.PEER_HOST, 0.8), (Author.MIRROR, 0.17), (Author.REJECT, advice.LEFT - 0.01)]
    assert said(Origin.INCONCLUSIVE, left) == advice.FALLBACK
    left = [(Author.PEER_HOST, 0.8), (Author.MIRROR, 0.15), (Author.REJECT, advice.LEFT)]
    assert said(Origin.INCONCLUSIVE, left) == advice.UNDECIDED[0][1]


def test_a_pair_that_nothing_tells_apart_is_for_the_other_end() -> None:
    left = [(Author.MIRROR, 0.5), (Author.PEER_RAW, 0.5)]
    assert said(Origin.INCONCLUSIVE, left) == advice.FALLBACK


@pytest.mark.parametrize("text", LINES)
def test_each_is_one_line(text: str) -> None:
    assert "\n" not in text
    assert len(text) <= 130


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (reset(rst(ip_id=0)), "--probe"),  # refused from an unknown distance
        (flow(rst(ttl=63, ip_id=0)), "rejects"),
        (flow(rst(ttl=63, ip_id=13052)), "--locate"),
        (flow(rst(ip_id=0)), "reject rules"),  # its own firewall, or one beside it
        (flow(rst(flags="RA", ip_id=23404, payload_len=9)), "compare"),
    ],
)
def test_a_verdict_has_its_advice(given: Reset, word: str) -> None:
    found = judge(given)
    assert found.advice is not None
    assert word in found.advice


def test_every_finding_has_a_next_step() -> None:
    named = {name for finder in findings.FINDERS for name in NAMES.findall(getsource(finder))}
    assert {*named, *NOTES} == set(advice.FINDINGS)
    assert set(advice.FINDINGS) >= advice.DECISIVE
    assert set(advice.FINDINGS) >= set(advice.OURS)


def test_what_the_node_found_comes_first() -> None:
    note = Note("idle-timeout", "the socket had been idle")
    given = flow(notes=(note,))
    said = advice.advice(given, Origin.PEER, (), ("idle-timeout",), "connection-reset")
    assert said == advice.FINDINGS["idle-timeout"]


def test_a_finding_beside_does_not_hide_what_the_peer_did() -> None:
    given = closed(flow(rst(ip_id=0)))
    said = advice.advice(given, Origin.PEER, (), ("idle-timeout",), "connection-reset")
    assert said == advice.DEEDS[Deed.CLOSED]


def test_a_finding_has_its_advice_before_the_deeds() -> None:
    given = advice.advice(flow(), Origin.PEER, (), ("health-check",), "connection-reset")
    assert given == advice.FINDINGS["health-check"]


@pytest.mark.parametrize(
    ("hop", "line"),
    [
        (ON_LINK, advice.SHORT_WAY),
        (GATEWAY, advice.FINDINGS["escaped-nat"]),
        (dataclasses.replace(ON_LINK, ip="10.0.0.77"), advice.FINDINGS["escaped-nat"]),
        (None, advice.FINDINGS["escaped-nat"]),
    ],
)
def test_an_answer_on_our_own_link_went_past_the_nat_box(hop: NextHop | None, line: str) -> None:
    note = Note("escaped-nat", "its answer came from elsewhere", {})
    cause = Cause("no-socket", "no such connection here")
    for kind, whose in (
        (Kind.SENT_PASSIVE, Origin.LOCAL),
        (Kind.RECEIVED_ACCEPTED, Origin.PEER),
        (Kind.RECEIVED_UNMATCHED, Origin.INCONCLUSIVE),
    ):
        ends = (rst().dst, rst().src)[:: 1 if kind.direction == "sent" else -1]
        packet = rst(src=ends[0], dst=ends[1])
        given = flow(packet, kind=kind, cause=cause, notes=(note,), next_hop=hop)
        assert advice.advice(given, whose, (), (note.name,), cause.name) == line


@pytest.mark.parametrize(
    ("process", "line"),
    [
        (Process(7, "nginx", 0, exit_signal=9), advice.KILLED),
        (Process(7, "nginx", 0, exit_status=1), advice.EXITED),
        (Process(7, "nginx", 0), advice.CAUSES["unread-data"]),
        (None, advice.CAUSES["unread-data"]),
    ],
)
def test_a_program_that_has_ended_closed_nothing(process: Process | None, line: str) -> None:
    cause = Cause("unread-data", "with data unread")
    assert judge(flow(kind=Kind.SENT_ACTIVE, cause=cause, process=process)).advice == line


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (closed(flow(rst(ip_id=0))), advice.DEEDS[Deed.CLOSED]),
        (flow(rst(ip_id=0), we_reset_ns=TIME - 1), advice.DEEDS[Deed.WE_RESET]),
        (
            flow(rst(flags="RA", seq=0, ip_id=0), trigger=seen(flags="S")),
            advice.MADE_HERE[Kind.SENT_PASSIVE],
        ),
    ],
)
def test_what_history_explains_needs_no_look_into_the_other_namespace(
    given: Reset, line: str
) -> None:
    given.made_here = MadeHere(9, Kind.SENT_PASSIVE, source=PEER, owns_source=True)
    assert judge(given).advice == line.format(netns="netns:9")


def test_the_sender_of_a_forwarded_reset_is_its_remote_end() -> None:
    packet = rst(flags="RA", ip_id=23404)
    found = judge(flow(packet, kind=Kind.FORWARDED, cause=Cause("forwarded", "passed through")))
    assert found.advice is not None
    assert f"at {packet.src.ip}:{packet.src.port}" in found.advice
