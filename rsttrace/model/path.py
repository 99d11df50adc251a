"""The way to a peer: devices on it, who has an address, where a reset was made."""

from __future__ import annotations

from dataclasses import dataclass

from rsttrace.model.reset import BridgePort, Endpoint, Neighbor, NextHop
from rsttrace.model.ttl import hops


@dataclass(frozen=True)
class ProbeAnswer:
    """What came back to one TTL-limited probe.

    `kind` is ``exceeded`` (ICMP time exceeded: a router's), ``unreachable`` (ICMP destination
    unreachable from somebody else than the peer; `detail` says what), or the peer's ``syn-ack``,
    ``rst``, ``echo`` or ``unreachable-port``. `method` is what was sent: ``tcp``, ``udp``,
    ``icmp``. `ttl` is the answer's own TTL (hop limit) as it arrived. Probes of one `flow` have
    the same addresses and ports, so that what balances per flow sends them one way.
    """

    kind: str
    ip: str
    ttl: int | None
    rtt_ns: int
    flow: int
    method: str
    detail: str | None = None


@dataclass(frozen=True)
class Hop:
    """One router on the path, or the peer: what answered probes with the TTL `number`.

    `sent` counts the TCP probes (the other methods are only asked where those get no answer).
    `names` are from reverse DNS: whoever owns the address chose them.
    """

    number: int
    sent: int
    answers: tuple[ProbeAnswer, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def ips(self) -> tuple[str, ...]:
        """The addresses that answered, the most frequent first."""
        seen = [answer.ip for answer in self.answers]
        return tuple(sorted(dict.fromkeys(seen), key=lambda ip: -seen.count(ip)))

    @property
    def back(self) -> tuple[int, ...]:
        """How many routers the answers passed on their way to us, as their TTLs imply."""
        return tuple(sorted({hops(a.ttl) for a in self.answers if a.ttl is not None}))

    @property
    def rtt_ns(self) -> int | None:
        """The least round-trip time."""
        return min((answer.rtt_ns for answer in self.answers), default=None)


@dataclass(frozen=True)
class Path:
    """The devices between this host and a peer, as TTL-limited probes found them.

    `hops` are routers, nearest first, also those that never answered. `distance` is the least TTL
    with which a probe reached the peer (one more than the routers between), ``None`` if none was
    seen to; `peer_hop` holds its answers. `refused`: who sends probes back, in its own name.
    `echo_hops` is how many routers the peer's ICMP echo reply passed, as its TTL implies.
    `neighbor` is who has the address of the `next_hop`. `flows` is how many different source ports
    were used, `packets` how many probes were sent; `stopped`: the user ended it early.
    """

    source: str
    peer: Endpoint
    hops: tuple[Hop, ...]
    distance: int | None
    peer_hop: Hop | None
    refused: ProbeAnswer | None
    next_hop: NextHop | None
    neighbor: Neighbor | None
    flows: int
    packets: int
    duration_ns: int
    stopped: bool = False
    echo_hops: int | None = None

    @property
    def peer_back(self) -> tuple[int, ...]:
        """How many routers the peer's answers passed, as their TTLs imply."""
        return self.peer_hop.back if self.peer_hop else ()

    def hop(self, number: int) -> Hop | None:
        """The router with this number."""
        return self.hops[number - 1] if 1 <= number <= len(self.hops) else None


@dataclass(frozen=True)
class Holder:
    """A MAC that answers for an address: how often, and where it is to be found."""

    mac: str
    vendor: str | None
    answers: int
    bridge: BridgePort | None = None


@dataclass(frozen=True)
class AddressHolders:
    """Who says to have an address of our own link, when asked.

    `method` is ``arp`` (RFC 826) or ``nd`` (neighbour solicitation, RFC 4861 §7.2), `sent` how many
    questions were sent, `holders` who answered, the quickest first. `seen` are the MACs that
    packets with this address as their source had come from before.
    """

    ip: str
    method: str
    netns: int
    ifindex: int
    ifname: str | None
    sent: int
    holders: tuple[Holder, ...]
    duration_ns: int
    seen: tuple[str, ...] = ()

    @property
    def confirmed(self) -> bool:
        """Whether more than one has it."""
        return len(self.holders) > 1


@dataclass(frozen=True)
class Attempt:
    """One connection of a replay: bytes sent with a TTL, and what came back.

    `reset_ttl` is the TTL of the first RST that came (``None``: none did), `delay_ns` how long
    after the bytes. `exceeded` is the router that said that their TTL was exceeded. `reply`: the
    peer acknowledged or answered, so the bytes reached it.
    """

    ttl: int
    reset_ttl: int | None = None
    delay_ns: int | None = None
    exceeded: str | None = None
    reply: bool = False


@dataclass(frozen=True)
class Placement:
    """Where on a path a forged reset was made.

    `hop` is the number of the router that did, or that stands behind the link where it was done;
    ``None`` if that cannot be said. `sure` is ``proved`` (a replay), ``likely``, ``possible`` or
    ``unknown``. `text` says it in a sentence, `notes` what speaks for it or against it.
    """

    hop: int | None
    sure: str
    text: str
    notes: tuple[str, ...] = ()
    rst_hops: int | None = None
