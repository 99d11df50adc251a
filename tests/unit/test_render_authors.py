"""Who may have made a reset, in words and as the table behind the verdict."""

from __future__ import annotations

import dataclasses
import re

import pytest

from rsttrace.judge.authors import PRIOR_OF, ROWS, WORDS
from rsttrace.judge.verdict import judge
from rsttrace.model import Author, Kind, MadeHere, Origin, Reset, Share, Verdict
from rsttrace.render import authors
from rsttrace.render.authors import COLUMNS, listed, makers_text, table_lines
from tests.unit.builders import closed, flow, reset, rst


def verdict(origin: Origin, *shares: tuple[Author, float]) -> Verdict:
    named = tuple(Share(author, share, WORDS[author]) for author, share in shares)
    return Verdict(origin, None, 0.0, authors=named)


# ---- in words ----


@pytest.mark.parametrize(
    ("given", "text"),
    [
        pytest.param(
            verdict(Origin.FORGED, (Author.REJECT, 0.62), (Author.BALANCER, 0.31)),
            f"{WORDS[Author.REJECT]} 62 %, {WORDS[Author.BALANCER]} 31 %",
            id="two-leading-ones",
        ),
        pytest.param(
            verdict(Origin.FORGED, (Author.MIRROR, 0.97), (Author.INJECTOR, 0.03)),
            WORDS[Author.MIRROR],
            id="one-that-is-sure: without a number",
        ),
        pytest.param(
            verdict(Origin.FORGED, (Author.MIRROR, 0.85), (Author.INJECTOR, 0.09)),
            f"{WORDS[Author.MIRROR]} 85 %",
            id="one-that-is-not-sure",
        ),
        pytest.param(
            verdict(Origin.FORGED, (Author.REJECT, 0.5), (Author.PEER_HOST, 0.3)),
            f"{WORDS[Author.REJECT]} 50 %",
            id="forged: the peer is not named",
        ),
        pytest.param(
            verdict(Origin.INCONCLUSIVE, (Author.REJECT, 0.5), (Author.PEER_HOST, 0.3)),
            f"{WORDS[Author.REJECT]} 50 %, {WORDS[Author.PEER_HOST]} 30 %",
            id="open: it is",
        ),
        pytest.param(
            verdict(
                Origin.INCONCLUSIVE,
                *((author, 0.25) for author in (Author.PEER_HOST, Author.REJECT)),
                *((author, 0.25) for author in (Author.MIRROR, Author.SWAP)),
            ),
            ", ".join(f"{WORDS[a]} 25 %" for a in (Author.PEER_HOST, Author.REJECT, Author.MIRROR)),
            id="three-at-most",
        ),
        pytest.param(verdict(Origin.LOCAL), "", id="what-we-sent"),
    ],
)
def test_makers(given: Verdict, text: str) -> None:
    assert makers_text(given) == text


def test_no_percentage_says_never_or_always() -> None:
    shares = ((Author.REJECT, 0.997), (Author.MIRROR, 0.003))
    sure = verdict(Origin.INCONCLUSIVE, *shares)
    assert "100 %" not in makers_text(sure)
    assert authors._percent(0.9999) == "99 %"
    assert authors._percent(0.00001) == "1 %"


def test_hostile_words_do_not_reach_the_terminal() -> None:
    """A verdict may have been read from a log that somebody else wrote."""
    evil = Share(Author.REJECT, 0.95, "x\x1b[2Jy\nz")
    found = makers_text(Verdict(Origin.FORGED, 0.95, 3.0, authors=(evil,)))
    assert "\x1b" not in found
    assert "\n" not in found


def test_the_json_lists_four_at_most_and_none_that_is_next_to_impossible() -> None:
    found = judge(reset(rst(ip_id=0)))
    shown = listed(found)
    assert 1 <= len(shown) <= authors.SHOWN
    assert [share.author for share in shown] == [s.author for s in found.authors[: len(shown)]]
    assert all(share.probability >= authors.LISTED_FROM for share in shown)
    assert listed(judge(flow(kind=Kind.SENT_RAW))) == []


# ---- the table ----


def cells(line: str) -> list[float]:
    return [float(cell) for cell in line.split()[-len(COLUMNS) :]]


def test_every_author_has_a_column() -> None:
    assert set(COLUMNS) == set(Author)
    assert len(set(COLUMNS.values())) == len(COLUMNS)


@pytest.mark.parametrize(
    "given",
    [
        flow(rst(ttl=63, ip_id=13052)),
        closed(flow(rst(ip_id=0))),
        reset(rst(ip_id=0)),
    ],
    ids=["forged", "peer", "open"],
)
def test_the_table_has_the_authors_across_and_the_observations_down(given: Reset) -> None:
    found = judge(given)
    head, before, *rows, after = table_lines(found)
    assert head.split()[-len(COLUMNS) :] == list(COLUMNS.values())
    assert before.startswith("before ")
    assert after.startswith("together ")
    names = [item.rule for item in found.considered if item.rule in ROWS]
    assert [row.split()[0] for row in rows] == names
    columns = list(COLUMNS)
    assert cells(before) == pytest.approx([100 * PRIOR_OF[a] for a in columns], abs=0.51)
    shares = {share.author: share.probability for share in found.authors}
    assert cells(after) == pytest.approx([100 * shares[a] for a in columns], abs=0.51)
    assert len({len(line) for line in (head, before, *rows, after)}) == 1


def test_the_columns_of_a_table_multiply_to_its_last_line() -> None:
    """What it says can be checked by hand, as far as it is rounded."""
    found = judge(closed(flow(rst(ip_id=0))))
    _, before, *rows, after = table_lines(found)
    product = [1.0] * len(COLUMNS)
    for line in (before, *rows):
        product = [old * value for old, value in zip(product, cells(line))]
    whole = sum(product)
    for value, share in zip(product, cells(after)):
        assert 100 * value / whole == pytest.approx(share, abs=3)


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100"), (0.5, "50"), (0.0995, "10"), (0.05, "5.0"), (0.001, "0.1"), (0.0003, ".03")],
)
def test_a_cell_has_as_many_digits_as_it_needs(share: float, text: str) -> None:
    assert authors._cell(share) == text


def test_what_is_next_to_nothing_is_written_as_0() -> None:
    assert authors._cell(0.00005) == "0"


@pytest.mark.parametrize(
    "given",
    [
        flow(kind=Kind.SENT_ACTIVE),
        flow(rst(ttl=63), made_here=MadeHere(7, Kind.SENT_NETFILTER)),
    ],
    ids=["what we sent", "a proof"],
)
def test_where_nothing_was_weighed_there_is_no_table(given: Reset) -> None:
    assert table_lines(judge(given)) == []


def test_a_name_from_a_log_is_made_safe() -> None:
    found = judge(flow(rst(ttl=63)))
    odd = dataclasses.replace(found.considered[0], rule="x\x1b[2J")
    lines = table_lines(dataclasses.replace(found, considered=(odd, *found.considered[1:])))
    assert not any(re.search(r"[\x00-\x1f]", line) for line in lines)
