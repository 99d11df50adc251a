"""What was seen being made, or never sent: it decides alone."""

from __future__ import annotations

import pytest

from rsttrace.judge import proofs
from rsttrace.model import Author, Fate, Kind, MadeHere, Note, Origin, OtherEnd, Point
from tests.unit.builders import flow


@pytest.mark.parametrize("kind", Kind)
def test_what_left_this_namespace_is_local(kind: Kind) -> None:
    found = proofs.proof(flow(kind=kind, made_here=MadeHere(1, Kind.SENT_RAW)))
    assert found is not None
    wanted = "sent-hook" if kind.direction == "sent" else "made-here"
    assert found.rule == wanted
    assert (found.origin is Origin.LOCAL) == (kind.direction == "sent")


@pytest.mark.parametrize(
    ("made", "origin", "author", "words"),
    [
        (
            MadeHere(7, Kind.SENT_NETFILTER, hook="forward", netns_name="gw"),
            Origin.FORGED,
            Author.REJECT,
            "own firewall made it (netns gw, forward hook)",
        ),
        (
            MadeHere(7, Kind.SENT_NETFILTER),
            Origin.FORGED,
            Author.REJECT,
            "own firewall made it (netns 7)",
        ),
        (
            MadeHere(7, Kind.SENT_NETFILTER, hook="output", owns_source=True),
            Origin.PEER,
            Author.PEER_FIREWALL,
            "the peer's own firewall, on this node, made it (netns 7, output hook)",
        ),
        (
            MadeHere(7, Kind.SENT_RAW, 42, "hping3"),
            Origin.FORGED,
            Author.INJECTOR,
            "raw socket (hping3[42], netns 7)",
        ),
        (
            MadeHere(7, Kind.SENT_RAW),
            Origin.FORGED,
            Author.INJECTOR,
            "raw socket (unknown, netns 7)",
        ),
        (
            MadeHere(7, Kind.SENT_RAW, owns_source=True),
            Origin.FORGED,
            Author.PEER_RAW,
            "raw socket (unknown, netns 7)",
        ),
        (
            MadeHere(7, Kind.SENT_PASSIVE),
            Origin.PEER,
            Author.PEER_HOST,
            "own TCP stack sent it (netns 7)",
        ),
        (
            MadeHere(7, Kind.SENT_ACTIVE, 9, "nginx"),
            Origin.PEER,
            Author.PEER_SOCKET,
            "TCP stack sent it (netns 7, nginx[9])",
        ),
        (
            MadeHere(7, Kind.SENT_ACTIVE, owns_source=False),
            Origin.FORGED,
            Author.BALANCER,
            "in the peer's name, as a proxy does (netns 7)",
        ),
    ],
)
def test_made_here(made: MadeHere, origin: Origin, author: Author, words: str) -> None:
    found = proofs.made_here(flow(made_here=made))
    assert found is not None
    assert (found.origin, found.author) == (origin, author)
    assert words in found.text
    assert author.is_peer == (origin is Origin.PEER)


def test_whoever_answers_for_a_connection_of_another_host_is_not_the_peer() -> None:
    """Also where it owns the address: that is a note of the node's own."""
    made = MadeHere(7, Kind.SENT_PASSIVE, netns_name="lb", owns_source=True)
    found = proofs.made_here(flow(made_here=made, notes=(Note("answered-here", "another"),)))
    assert found is not None
    assert (found.origin, found.author) == (Origin.FORGED, Author.BALANCER)
    assert "netns lb" in found.text
    found = proofs.made_here(flow(made_here=made, notes=(Note("listens-now", "unrelated"),)))
    assert found is not None
    assert found.origin is Origin.PEER


def test_nothing_made_here() -> None:
    assert proofs.made_here(flow()) is None
    assert proofs.proof(flow()) is None


@pytest.mark.parametrize(
    ("other", "origin", "author", "words"),
    [
        (
            OtherEnd(Fate.NEVER_SENT, Point.B, "x/b.pcap", why="it lacks it"),
            Origin.FORGED,
            None,
            "never left B (b.pcap): it lacks it",
        ),
        (
            OtherEnd(Fate.NEVER_SENT, Point.B, "b.pcap", why="it lacks it", trigger_arrived=False),
            Origin.FORGED,
            None,
            "our packet before it never arrived there",
        ),
        (
            OtherEnd(Fate.NEVER_SENT, Point.B, "b.pcap", swapped_frame=9, swapped_sure=True),
            Origin.FORGED,
            Author.SWAP,
            "frame 9 left there, with the same IP ID, and never arrived",
        ),
        (
            OtherEnd(Fate.LEFT, Point.B, "b.pcap", 7, at_sender=True),
            Origin.PEER,
            None,
            "B (b.pcap), frame 7",
        ),
        (
            OtherEnd(Fate.LEFT, Point.B, "b.jsonl", at_sender=True, logged=True, firewall=True),
            Origin.PEER,
            Author.PEER_FIREWALL,
            "the peer's own firewall made it: so says B (b.jsonl)",
        ),
    ],
)
def test_the_other_end_proves(
    other: OtherEnd, origin: Origin, author: Author | None, words: str
) -> None:
    found = proofs.other_end(flow(other_end=other))
    assert found is not None
    assert (found.origin, found.author) == (origin, author)
    assert words in found.text


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            OtherEnd(Fate.LEFT, Point.B, "b.pcap", 7),
            "passed B (b.pcap), frame 7: made there or beyond",
        ),
        (
            OtherEnd(Fate.LEFT, Point.B, "b.jsonl", logged=True, firewall=True),
            "a firewall made it: so says B (b.jsonl), which is not as far away as the peer",
        ),
        (OtherEnd(Fate.UNKNOWN, Point.B, "b.pcap", why="too few packets"), "cannot tell: too few"),
        (OtherEnd(Fate.ARRIVED, Point.B, "b.pcap", 7), "arrived at B (b.pcap), frame 7"),
        (OtherEnd(Fate.NEVER_ARRIVED, Point.B, "b.pcap"), "never arrived at B (b.pcap)"),
    ],
)
@pytest.mark.parametrize("kind", [Kind.RECEIVED_ACCEPTED, Kind.SENT_ACTIVE])
def test_the_other_end_may_prove_nothing(other: OtherEnd, words: str, kind: Kind) -> None:
    given = flow(kind=kind, other_end=other)
    assert proofs.other_end(given) is None
    said = proofs.other_end_words(given)
    assert said is not None
    assert words in said[0]
    assert said[1]["fate"] == other.fate.value


def test_a_log_that_lacks_it_is_no_proof() -> None:
    other = OtherEnd(Fate.NEVER_SENT, Point.B, "b.jsonl", logged=True, why="not there")
    assert proofs.other_end(flow(other_end=other)) is None


def test_a_log_of_the_sender_that_has_it_is_a_proof() -> None:
    """What is in a log was seen; only what is not in it may have been left out."""
    other = OtherEnd(Fate.LEFT, Point.B, "b.jsonl", at_sender=True, logged=True)
    found = proofs.other_end(flow(other_end=other))
    assert found is not None
    assert found.origin is Origin.PEER


def test_no_other_end_says_nothing() -> None:
    assert proofs.other_end(flow()) is None
    assert proofs.other_end_words(flow()) is None


def test_this_node_s_own_proof_comes_first() -> None:
    other = OtherEnd(Fate.LEFT, Point.B, "b.pcap", 7, at_sender=True)
    found = proofs.proof(flow(made_here=MadeHere(7, Kind.SENT_RAW), other_end=other))
    assert found is not None
    assert found.rule == "made-here"
