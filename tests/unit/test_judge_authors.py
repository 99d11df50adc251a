"""The table of numbers: whole, sane, and moved the right way by every number in it."""

from __future__ import annotations

import itertools
import math

import pytest

from rsttrace.judge.authors import (
    AUTHORS,
    FORGED_FROM,
    GROUPS,
    NAMES,
    PEER_FROM,
    PRIOR_OF,
    PRIORS,
    ROWS,
    STORIES,
    TABLE,
    WORDS,
    Model,
    by_author,
    factors,
    peer_share,
)
from rsttrace.model import Author

PEERS = [name for name, author, _ in STORIES if author.is_peer]
OTHERS = [name for name, author, _ in STORIES if not author.is_peer]


def test_every_author_has_a_story_and_words() -> None:
    assert set(AUTHORS) == set(Author) == set(WORDS)
    assert len(set(WORDS.values())) == len(WORDS)
    assert len(set(NAMES)) == len(STORIES)


def test_who_is_the_peer() -> None:
    """Its stack, its host and its firewall; a program that wrote it by hand is not."""
    assert {author for author in Author if author.is_peer} == {
        Author.PEER_SOCKET,
        Author.PEER_HOST,
        Author.PEER_FIREWALL,
    }


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_whole(name: str) -> None:
    row = ROWS[name]
    assert row.name == name
    assert len(row.likelihoods) == len(STORIES)
    assert all(0 < value <= 1 for value in row.likelihoods)
    assert row.why
    assert row.group in GROUPS


def test_priors_are_known_and_add_up() -> None:
    assert all(prior > 0 for prior in PRIORS)
    assert sum(PRIOR_OF.values()) == pytest.approx(1)
    assert list(PRIOR_OF.values()) == sorted(PRIOR_OF.values(), reverse=True)


def test_without_an_observation_the_prior_is_left() -> None:
    assert by_author(TABLE.weigh(())) == pytest.approx(dict(PRIOR_OF))
    share = peer_share(TABLE.weigh(()))
    assert 1 - FORGED_FROM < share < PEER_FROM


def test_no_prior_is_so_small_that_three_good_observations_cannot_overcome_it() -> None:
    for story, author, prior in STORIES:
        if author.is_peer:
            continue
        at = NAMES.index(story)
        most = {
            group: max(
                row.likelihoods[at] / max(row.likelihoods[NAMES.index(name)] for name in PEERS)
                for row in ROWS.values()
                if row.group == group
            )
            for group in GROUPS
            if group != "other-end"
        }
        strongest = sorted(most.values(), reverse=True)[:3]
        assert prior / max(PRIORS) * math.prod(strongest) > 1, story


@pytest.mark.parametrize("name", ROWS)
def test_shares_add_up_to_one_after_every_row(name: str) -> None:
    assert sum(TABLE.weigh((name,))) == pytest.approx(1)
    assert sum(by_author(TABLE.weigh((name,))).values()) == pytest.approx(1)


def test_shares_add_up_to_one_after_the_strangest_reset() -> None:
    everything = tuple(ROWS)
    shares = TABLE.weigh(everything)
    assert sum(shares) == pytest.approx(1)
    assert all(math.isfinite(share) for share in shares)


@pytest.mark.parametrize("name", ROWS)
def test_the_order_of_observations_does_not_matter(name: str) -> None:
    one, two = TABLE.weigh((name, "alive")), TABLE.weigh(("alive", name))
    assert one == pytest.approx(two)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("story", NAMES)
def test_a_number_moves_its_own_author_up(name: str, story: str) -> None:
    at = NAMES.index(story)
    rows = {known: row.likelihoods for known, row in ROWS.items()}
    values = list(rows[name])
    values[at] /= 2
    rows[name] = tuple(values)
    before, after = TABLE.weigh((name,)), Model(rows=rows).weigh((name,))
    assert after[at] < before[at]
    for other, (was, now) in enumerate(zip(before, after)):
        assert other == at or now > was


@pytest.mark.parametrize("story", NAMES)
def test_a_prior_moves_its_own_author_up(story: str) -> None:
    at = NAMES.index(story)
    priors = tuple(prior * (2 if n == at else 1) for n, prior in enumerate(PRIORS))
    for names in ((), ("bare",), ("ttl-nearer", "alive")):
        assert Model(priors).weigh(names)[at] > TABLE.weigh(names)[at]


def test_a_model_of_other_numbers_leaves_the_table_alone() -> None:
    before = TABLE.weigh(("bare",))
    Model(tuple(1.0 for _ in PRIORS), {"bare": tuple(1.0 for _ in STORIES)})
    assert TABLE.weigh(("bare",)) == before


@pytest.mark.parametrize("name", ROWS)
def test_factors_are_the_table_s_numbers(name: str) -> None:
    """Of an author with two stories a mean, that lies between both."""
    found = factors(name)
    assert set(found) == set(Author)
    for author in Author:
        of = [ROWS[name].likelihoods[n] for n, who in enumerate(AUTHORS) if who is author]
        assert min(of) - 1e-12 <= found[author] <= max(of) + 1e-12


# ---- what the numbers must say, whatever they are ----


def odds(name: str, *stories: str) -> float:
    """The largest likelihood of some stories by the largest of the peer's own."""
    row = ROWS[name].likelihoods
    peer = max(row[NAMES.index(story)] for story in ("socket", "host"))
    return max(row[NAMES.index(story)] for story in stories) / peer


@pytest.mark.parametrize(
    "name",
    [
        *("ttl-nearer", "ttl-near-many", "ttl-near-few", "ttl-undiminished", "ttl-counting"),
        *("ttl-too-far", "ip-id-ours", "window-ours", "too-soon", "beyond-reach", "moves-on"),
        *("alien", "alien-many", "timestamps-wrong", "went-on", "reset-again", "payload"),
        *("reserved-bits", "mac-stranger", "other-end-log"),
    ],
)
def test_what_speaks_against_the_peer(name: str) -> None:
    assert odds(name, *OTHERS) > 3


@pytest.mark.parametrize("name", ["live", "live-by-clock", "windows", "peer-closed", "peer-reset"])
def test_what_speaks_for_the_peer(name: str) -> None:
    assert odds(name, *OTHERS) < 1


def test_what_the_peer_cannot_have_made_outweighs_its_distance() -> None:
    """An equal TTL says no more than that the maker copies TTLs, or stands beside the peer."""
    for name in ("alien", "alien-many", "timestamps-wrong"):
        assert peer_share(TABLE.weigh(("ttl-same", name, "alive"))) < 1 - FORGED_FROM


def test_more_packets_make_a_steadier_distance() -> None:
    for rows in (
        ("ttl-near-one", "ttl-near-few", "ttl-near-many"),
        ("ttl-behind-peer", "ttl-behind-one", "ttl-behind-few", "ttl-behind-many"),
        ("ttl-farther-peer", "ttl-farther-one", "ttl-farther-few", "ttl-farther"),
    ):
        shares = [ROWS[name].likelihoods[NAMES.index("socket")] for name in rows]
        assert shares == sorted(shares, reverse=True), rows


def test_farther_steps_are_rarer_for_the_peer() -> None:
    peer = [
        TABLE.weigh((name,))[NAMES.index("socket")]
        for name in ("ttl-same", "ttl-near-many", "ttl-nearer")
    ]
    assert peer == sorted(peer, reverse=True)


def test_farther_steps_from_another_connection_are_rarer_for_the_peer() -> None:
    names = ("ttl-next-peer", "ttl-near-peer", "ttl-nearer-peer")
    shares = [peer_share(TABLE.weigh((name, "bare"))) for name in names]
    assert shares == sorted(shares, reverse=True)


def test_what_is_nearer_is_no_host_behind_and_what_is_farther_no_firewall_before() -> None:
    for name in ("ttl-behind-many", "ttl-farther", "ttl-too-far"):
        assert odds(name, "reject") <= 2, name
        assert (
            by_author(TABLE.weigh((name, "bare")))[Author.SECOND_HOST]
            > (by_author(TABLE.weigh((name, "bare")))[Author.REJECT])
        )


@pytest.mark.parametrize(
    ("names", "author"),
    [
        (("ttl-same", "live", "alive"), Author.PEER_SOCKET),
        (("ttl-same", "bare", "peer-closed"), Author.PEER_HOST),
        (("ttl-same", "bare", "refused"), Author.PEER_HOST),
        (("ttl-near-many", "bare", "alive"), Author.REJECT),
        (("ttl-near-many", "bare", "idle"), Author.BALANCER),
        (("ttl-same", "alien-many", "alive"), Author.INJECTOR),
        (("ttl-nearer", "generic", "ip-id-ours", "alive"), Author.MIRROR),
        (("ttl-same", "live", "alive", "payload"), Author.SWAP),
        (("ttl-same", "live", "alive", "reset-again"), Author.SWAP),
    ],
)
def test_the_likeliest_author_of_a_plain_case(names: tuple[str, ...], author: Author) -> None:
    assert next(iter(by_author(TABLE.weigh(names)))) is author


def test_a_second_mac_with_a_host_s_own_answer_leaves_a_second_host() -> None:
    """The incident of the duplicate address: the finding of that name needs it among those left."""
    shares = by_author(TABLE.weigh(("ttl-same", "bare", "alive", "mac-stranger")))
    assert Author.SECOND_HOST in list(shares)[:2]
    assert shares[Author.SECOND_HOST] > 0.2


def test_every_pair_of_a_group_is_told_apart() -> None:
    """Two names with the same numbers would be one observation."""
    for one, other in itertools.combinations(ROWS.values(), 2):
        if one.group == other.group:
            assert one.likelihoods != other.likelihoods, (one.name, other.name)
