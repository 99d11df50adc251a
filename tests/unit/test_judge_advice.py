"""What to look at next: one line for what a verdict leaves open, or names."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from rsttrace.judge import advice
from rsttrace.judge.authors import WORDS
from rsttrace.judge.verdict import judge
from rsttrace.model import Author, Kind, Origin, Reset, Share
from tests.unit.builders import closed, flow, half, reset, rst


def shares(*authors: tuple[Author, float]) -> tuple[Share, ...]:
    return tuple(Share(author, share, WORDS[author]) for author, share in authors)


def said(origin: Origin, authors: Iterable[tuple[Author, float]]) -> str | None:
    return advice.advice(flow(), origin, shares(*authors), ())


@pytest.mark.parametrize("author", [author for author in Author if not author.is_peer])
def test_every_other_author_has_a_next_step(author: Author) -> None:
    assert said(Origin.FORGED, [(author, 0.9), (Author.PEER_HOST, 0.1)]) == advice.NAMED[author]


@pytest.mark.parametrize("origin", [Origin.PEER, Origin.LOCAL])
def test_nothing_is_to_be_looked_for_where_nobody_else_made_it(origin: Origin) -> None:
    assert said(origin, [(Author.PEER_SOCKET, 0.9)]) is None


def test_what_this_host_sent_has_no_authors() -> None:
    assert judge(flow(kind=Kind.SENT_ACTIVE)).advice is None


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


@pytest.mark.parametrize("text", [*advice.NAMED.values(), *(t for _, t in advice.UNDECIDED)])
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


def test_an_honest_one_has_none() -> None:
    assert judge(closed(flow(rst(ip_id=0), theirs=half()))).advice is None
