"""What to look at next: one line for what a verdict leaves open, or names. Pure."""

from __future__ import annotations

from rsttrace.model import Author, Origin, Reset, Share

UNDECIDED: tuple[tuple[frozenset[Author], str], ...] = (
    (
        frozenset({Author.PEER_HOST, Author.REJECT}),
        "the peer's distance tells them apart: --probe asks for it (an echo, or a SYN)",
    ),
    (
        frozenset({Author.PEER_HOST, Author.BALANCER}),
        "a box that owns the address answers for every port, the peer's host for its own; --probe "
        "asks for the peer's distance",
    ),
    (
        frozenset({Author.PEER_FIREWALL, Author.REJECT}),
        "look for reject rules at both ends, or capture at the peer and compare",
    ),
    (
        frozenset({Author.PEER_HOST, Author.SECOND_HOST}),
        "ask the link for a second MAC (--probe-arp), or capture at the peer and compare",
    ),
    (
        frozenset({Author.PEER_SOCKET, Author.SWAP}),
        "only the other end knows: capture there and compare",
    ),
    (
        frozenset({Author.PEER_SOCKET, Author.INJECTOR}),
        "only the other end knows: capture there and compare",
    ),
)
"""What tells two authors apart that a verdict leaves open; the likeliest pair counts."""

NAMED: dict[Author, str] = {
    Author.BALANCER: "look at the idle timeouts and the state table of the NAT box or load "
    "balancer in front of the peer",
    Author.REJECT: "look for a rule that rejects with tcp reset on the firewall at that distance "
    "(--locate names the hop)",
    Author.SECOND_HOST: "look for a second host with the peer's address (--probe-arp on our link)",
    Author.INJECTOR: "--locate names the hop; ask whoever runs it for an IPS or filter policy",
    Author.MIRROR: "--locate names the hop; ask whoever runs it for an IPS or firewall policy",
    Author.SWAP: "capture at the peer and compare: what left there was turned into this packet",
    Author.PEER_RAW: "look for a program with a raw socket on the peer's host (ss -wp)",
}
"""What to look at once the likeliest author is named."""

LEFT = 0.05
"""An author less likely than this is not one of those left."""

FALLBACK = "capture at the peer and compare (rsttrace compare)"


def advice(
    reset: Reset, origin: Origin, authors: tuple[Share, ...], found: tuple[str, ...]
) -> str | None:
    """The next step, in one line; None where there is nothing to be looked for."""
    if not authors or origin in (Origin.LOCAL, Origin.PEER):
        return None
    if origin is Origin.FORGED:
        return NAMED.get(authors[0].author)
    left = {share.author: share.probability for share in authors[:3] if share.probability >= LEFT}
    pairs = [
        (sum(left[who] for who in pair), text) for pair, text in UNDECIDED if pair <= set(left)
    ]
    return max(pairs, key=lambda pair: pair[0])[1] if pairs else FALLBACK
