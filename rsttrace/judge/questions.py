"""What to ask the peer of a reset, where one small question may settle who made it. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from rsttrace.judge import facts
from rsttrace.model import Author, NextHop, Origin, Reset, Verdict, hops

SURE_FROM = 4.59
"""A verdict whose log-odds are so large (99 %) is not asked about."""

NAMED_FROM = 0.9
"""An author that is so probable is known."""


@dataclass(frozen=True)
class Question:
    """Whom to ask and what.

    `ip` is the peer's address, `port` one on which it has answered (None: none is known), `ttl` the
    RST's: an answer with another one is worth a second look. With `on_link` the question is who on
    our own link has the address; `ifindex` is the interface of our route to it (None: unknown).
    """

    ip: str
    port: int | None
    ttl: int
    on_link: bool = False
    ifindex: int | None = None


def question(reset: Reset, verdict: Verdict) -> Question | None:
    """What to ask about a reset; None where there is nothing to be asked, or nobody.

    The peer's distance tells most authors apart. It does not where all are on our own link: there,
    and where a second host is likelier than anybody else who is not the peer, the link is asked who
    has the address.
    """
    if reset.kind.direction != "received" or reset.probed is not None:
        return None
    hop, ip = reset.next_hop, reset.rst.src.ip
    if reset.made_here is not None or reset.netns is None or _is_own(reset, hop, ip):
        return None
    ifindex = hop.ifindex if hop is not None else None
    direct = hop is not None and not hop.is_gateway and hop.ip == ip
    ethernet = reset.frame is not None and reset.frame.mac is not None
    others = [share.author for share in verdict.authors if not share.author.is_peer]
    second = bool(others) and others[0] is Author.SECOND_HOST
    on_link = direct and ethernet and (second or not hops(reset.rst.ttl))
    # Not the peer, but who? On our own link, one question names the second host.
    nobody = on_link and verdict.authors[:1] and verdict.authors[0].probability < NAMED_FROM
    if not (_is_open(verdict) or nobody):
        return None
    return Question(ip, _open_port(reset), reset.rst.ttl, on_link, ifindex)


def _is_open(verdict: Verdict) -> bool:
    if verdict.origin is Origin.INCONCLUSIVE:
        return True
    return verdict.origin in (Origin.PEER, Origin.FORGED) and abs(verdict.score) < SURE_FROM


def _is_own(reset: Reset, hop: NextHop | None, ip: str) -> bool:
    """Whether the peer's address is this namespace's own, or none that can be asked."""
    address = ipaddress.ip_address(ip)
    if address.is_loopback or address.is_multicast or address.is_unspecified:
        return True
    return ip == reset.rst.dst.ip or (hop is not None and hop.is_local)


def _open_port(reset: Reset) -> int | None:
    """The peer's port, where it has answered us on that: as the server of an open connection.

    Where the handshake was not seen, the lower port is taken for the server's: should it be shut,
    no answer of the peer's socket comes, and nothing is concluded.
    """
    half, ours = facts.flow_half(reset), reset.baseline.ours
    if half is None or facts.is_lone_syn(half):
        return None
    rst = reset.rst
    if half.syn_ns is not None and ours is not None and ours.syn_ns is not None:
        return rst.src.port if ours.syn_ns < half.syn_ns else None
    return rst.src.port if rst.src.port < rst.dst.port else None
