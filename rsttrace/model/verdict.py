"""Who made a reset, how sure, and why: what the judge says and the renderers write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from rsttrace.model.record import record
from rsttrace.model.reset import Cause, Reset
from rsttrace.model.word import Word


class Origin(Word):
    """Who made the RST. ``forged`` says nothing about intent."""

    LOCAL = "local"
    PEER = "peer"
    FORGED = "forged"
    INCONCLUSIVE = "inconclusive"


class Author(Word):
    """Who may have made a RST: finer than Origin. The value is the word used in the JSON.

    The first three are the peer's host itself; all others answered in its name. `PEER_RAW` is a
    program on the peer's host that wrote the packet through a raw socket: not the peer's TCP.
    """

    PEER_SOCKET = "peer-socket"
    PEER_HOST = "peer-host"
    PEER_FIREWALL = "peer-firewall"
    PEER_RAW = "peer-raw"
    BALANCER = "balancer"
    REJECT = "reject"
    SECOND_HOST = "second-host"
    INJECTOR = "injector"
    MIRROR = "mirror"
    SWAP = "swap"

    @property
    def is_peer(self) -> bool:
        """Whether a RST by this author is the peer's own."""
        return self in (Author.PEER_SOCKET, Author.PEER_HOST, Author.PEER_FIREWALL)


@record
class Share:
    """One author and the probability (0 to 1) that it made the RST. `text` says who that is.

    `prior` is what it would be if nothing were known of the reset: how often resets are its.
    """

    author: Author
    probability: float
    text: str
    prior: float | None = None


@record
class Evidence:
    """One observation, and what it says.

    `weight` is how much it moves the verdict: the log-odds (natural logarithm) of "not the peer"
    with it, less those without it; negative speaks for the peer. 0: looked at, says nothing. Since
    the authors are compared as whole stories, the weights do not add up to the verdict's `score`.
    `proof` decides alone. `values` are the numbers compared. `group` is the group of observations
    of which a reset has at most one, `factors` how probable each author makes it (0 to 1).
    """

    rule: str
    weight: float
    text: str
    values: dict[str, Any] = field(default_factory=dict)
    proof: bool = False
    group: str = ""
    factors: Mapping[Author, float] | None = None


@record
class Verdict:
    """Who made a reset, how sure, and why.

    `confidence` is the probability given to `origin` (``None`` when inconclusive); `score` the
    log-odds of "not the peer". `authors` are all of them, the likeliest first; the one that a proof
    names; none for what this host sent. `considered` holds every observation that was looked at,
    `evidence` those that spoke. `hops_rst` and `hops_peer` are router hops implied by the TTLs;
    ``None`` where a TTL is none that a distance can be read from. `advice` says what to look at
    next. `cause` is the reset's own, told better by the connection's history; ``None``: there is
    nothing to add. `device_reason` is what the maker wrote into the RST about its reason.
    """

    origin: Origin
    confidence: float | None
    score: float
    evidence: tuple[Evidence, ...] = ()
    considered: tuple[Evidence, ...] = ()
    hops_rst: int | None = None
    hops_peer: int | None = None
    findings: tuple[str, ...] = ()
    device_name: str | None = None
    device_fingerprint: str | None = None
    summary: str = ""
    authors: tuple[Share, ...] = ()
    advice: str | None = None
    cause: Cause | None = None
    device_reason: str | None = None


@record
class Entry:
    """One line of output: a reset with its verdict. `id` counts a run's entries from 1."""

    id: int
    reset: Reset
    verdict: Verdict
    amends: int | None = None

    @property
    def cause(self) -> Cause:
        """Why it was sent, or what it did, as well as it is known."""
        return self.verdict.cause or self.reset.cause
