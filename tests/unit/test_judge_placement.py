from __future__ import annotations

from dataclasses import replace

import pytest

from rsttrace.judge.placement import place, place_replay
from rsttrace.model import Attempt
from tests.unit.path_samples import DIVIDED, MAC, SILENT, STRAIGHT, attempts, hop, path


@pytest.mark.parametrize("rst_hops", range(5))
def test_on_a_straight_path(rst_hops: int) -> None:
    found = place(STRAIGHT, rst_hops, peer_hops=5)
    assert (found.hop, found.sure) == (rst_hops + 1, "likely")
    assert found.rst_hops == rst_hops


def test_the_sentence() -> None:
    assert place(STRAIGHT, 2).text == "hop 3, 10.20.0.1, between 10.20.0.5 and 10.30.0.1"
    assert place(STRAIGHT, 0).text == "hop 1, 10.0.0.1, between this host and 10.20.0.5"
    assert place(STRAIGHT, 4).text == "hop 5, 10.40.0.1, between 10.30.0.1 and 10.9.8.7"


def test_a_silent_hop_is_named_by_its_neighbours() -> None:
    found = place(SILENT, 2)
    assert (found.hop, found.sure) == (3, "likely")
    assert found.text == "hop 3, between 10.20.0.5 and 10.30.0.1"
    assert any("answers no probe" in note for note in found.notes)


def test_a_divided_hop_is_only_possible() -> None:
    found = place(DIVIDED, 2)
    assert (found.hop, found.sure) == (3, "possible")
    assert "10.20.0.1 or 10.21.0.1" in found.text
    behind = place(DIVIDED, 3)
    assert (behind.hop, behind.sure) == (4, "likely")
    assert any("divides before this hop" in note for note in behind.notes)


@pytest.mark.parametrize(
    ("rst_hops", "words"),
    [(5, "as the peer's own packets do"), (6, "more than from the peer itself"), (40, "more than")],
)
def test_what_cannot_be_on_the_path(rst_hops: int, words: str) -> None:
    found = place(STRAIGHT, rst_hops)
    assert (found.hop, found.sure) == (None, "unknown")
    assert words in found.text
    assert any("--replay" in note for note in found.notes)


def test_the_way_back_counts() -> None:
    """Behind hop 2 the way back is two routers longer: a reset over 4 is hop 3's, not hop 5's."""
    bent = path(
        hop(1, "10.0.0.1"),
        hop(2, "10.0.1.1"),
        hop(3, "10.0.2.1", back=4),
        hop(4, "10.0.3.1", back=5),
        back=6,
    )
    found = place(bent, 4, peer_hops=6)
    assert (found.hop, found.sure) == (3, "possible")
    assert any("not symmetric" in note for note in found.notes)
    assert place(bent, 1).hop == 2
    nowhere = place(bent, 2)
    assert (nowhere.hop, nowhere.sure) == (None, "unknown")
    assert "no router's answer does" in nowhere.text


def test_a_silent_hop_on_a_bent_path_is_not_guessed() -> None:
    bent = path(hop(1, "10.0.0.1"), hop(2), hop(3, "10.0.2.1", back=4), back=6)
    assert place(bent, 1).hop is None


def test_two_hops_as_far_away() -> None:
    double = path(hop(1, "10.0.0.1"), hop(2, "10.0.1.1"), hop(3, "10.0.2.1", back=1), back=3)
    found = place(double, 1)
    assert found.hop is None
    assert "hops 2 and 3" in found.text


def test_a_path_that_has_changed() -> None:
    found = place(STRAIGHT, 2, peer_hops=8)
    assert (found.hop, found.sure) == (3, "possible")
    assert any("over 8 routers then, over 5 now" in note for note in found.notes)


def test_somebody_nearer_answers() -> None:
    found = place(replace(STRAIGHT, echo_hops=9), 2)
    assert (found.hop, found.sure) == (3, "possible")
    assert any("TCP in its name" in note for note in found.notes)
    assert place(replace(STRAIGHT, echo_hops=5), 2).sure == "likely"


def test_a_path_that_ends_in_the_dark() -> None:
    dark = replace(STRAIGHT, hops=STRAIGHT.hops[:2], distance=None, peer_hop=None)
    assert place(dark, 1).hop == 2
    found = place(dark, 3)
    assert found.hop is None
    assert "known only up to hop 2" in found.text


def test_a_neighbour_that_is_not_the_gateway() -> None:
    found = place(STRAIGHT, 0, mac="52:54:00:00:00:01")
    assert found.hop is None
    assert found.sure == "likely"
    assert "on our own link: 52:54:00:00:00:01" in found.text
    assert place(STRAIGHT, 0, mac=MAC).hop == 1


def test_the_doubt_about_copied_ttls() -> None:
    """A copier N routers away looks as if it was 2 N away."""
    assert any("it is hop 2, 10.20.0.5" in note for note in place(STRAIGHT, 2).notes)
    assert not any("copies" in note for note in place(STRAIGHT, 0).notes)


# ---- replays ----


@pytest.mark.parametrize("number", range(1, 6))
def test_a_tap(number: int) -> None:
    found = place_replay(STRAIGHT, attempts(number, 64, number - 1))
    assert (found.hop, found.sure) == (number, "proved")


@pytest.mark.parametrize("number", range(1, 6))
@pytest.mark.parametrize("born", [64, 128, 255])
def test_one_that_acts_on_what_it_forwards(number: int, born: int) -> None:
    found = place_replay(STRAIGHT, attempts(number + 1, born, number - 1))
    assert (found.hop, found.sure) == (number, "proved")
    assert any("acts on what it forwards" in note for note in found.notes)


@pytest.mark.parametrize("number", range(1, 6))
def test_a_copier(number: int) -> None:
    """It sees the bytes from TTL `number` on; its resets arrive from 2 number - 1 on."""
    found = place_replay(STRAIGHT, attempts(2 * number - 1, None, number - 1))
    assert (found.hop, found.sure) == (number, "proved")
    assert any("copies the TTL" in note for note in found.notes)


def test_once_is_no_proof() -> None:
    once = attempts(3, 64, 2, tries=1)
    assert place_replay(STRAIGHT, once).sure == "likely"
    unsteady = [*attempts(3, 64, 2), Attempt(3)]
    assert place_replay(STRAIGHT, unsteady).sure == "likely"


def test_a_ttl_that_says_something_else() -> None:
    found = place_replay(STRAIGHT, attempts(3, 90, 2))
    assert (found.hop, found.sure) == (3, "likely")
    assert any("would be hop 2" in note for note in found.notes)
    varied = [*attempts(3, 90, 2), Attempt(64, 77, 1)]
    assert any("it varies" in note for note in place_replay(STRAIGHT, varied).notes)


def test_the_peer_itself() -> None:
    found = place_replay(STRAIGHT, attempts(6, 64, 5))
    assert (found.hop, found.sure) == (None, "unknown")
    assert "bytes that reach the peer" in found.text


def test_nothing_provoked() -> None:
    silent = [Attempt(ttl) for ttl in range(1, 7)]
    assert "the peer gave no sign" in place_replay(STRAIGHT, silent).text
    heard = [*silent, Attempt(64, reply=True)]
    assert "though they reached the peer" in place_replay(STRAIGHT, heard).text


def test_only_a_whole_ttl() -> None:
    only = [*(Attempt(ttl) for ttl in (1, 2, 3, 4, 5, 6)), Attempt(64, 50, 1), Attempt(54)]
    found = place_replay(STRAIGHT, only)
    assert (found.hop, found.sure) == (None, "unknown")
