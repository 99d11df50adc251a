"""What else is known about a reset, beside who made it: named readings, each with its sentence.

A finding never changes the verdict, and none is shown that the verdict, or a proof, excludes. Each
gives Evidence with weight 0, whose `rule` is the finding's name in the JSON. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from rsttrace.judge import facts, why
from rsttrace.judge.facts import age_text, apart, flow_half, is_bare, plural, starts_at
from rsttrace.model import Author, Evidence, Half, Kind, Origin, Reset, Share, hops
from rsttrace.model.record import record
from rsttrace.tcp import without_ecn

CHECK_NS = 5_000_000_000
"""A health check (or a scan) is over within this time."""

CHECK_PACKETS = 2
"""What a checking client sends before its RST: the SYN, and the handshake's last ACK."""

ESCAPED = "escaped-nat"
"""The note that a packet of ours was not translated on its way to whom it was for."""

LEFT = 0.2
"""An author this likely is one of those that the verdict leaves."""

SECOND_LEFT = 0.08
"""A second host is rarer, and worth a word earlier: one question to the link settles it."""


@record
class Decided:
    """The verdict, as far as findings look at it."""

    origin: Origin
    authors: tuple[Share, ...]
    proved: bool

    def likely(self, author: Author, least: float = LEFT) -> bool:
        """Whether an author is one of those left."""
        for share in self.authors:
            if share.author is author:
                return share.probability >= least
        return False


Finder = Callable[[Reset, Decided], Optional[Evidence]]


def _found(name: str, text: str, **values: object) -> Evidence:
    return Evidence(name, 0.0, text, values)


def _honest_shape(reset: Reset) -> bool:
    """Shaped as a whole host's stack would: Linux without a socket, or Windows."""
    rst = reset.rst
    windows = bool(rst.df) and not rst.window and starts_at(rst.ttl) == 128 and bool(rst.ip_id)
    return is_bare(rst) or (windows and not rst.options)


def _settled(half: Half) -> bool:
    return len(facts.counts_of(half)) == 1


def duplicate_address(reset: Reset, decided: Decided) -> Evidence | None:
    """An honest stack's reset from somewhere else than the peer: a second host with its address.

    From another MAC on our own link; else from farther away than the peer. A firewall on the path
    is nearer than the peer, and a router's MAC is not the peer's.
    """
    if reset.kind.direction == "sent" or not _honest_shape(reset) or decided.proved:
        return None
    if why.reused(reset) is not None:  # that is who takes the ports again
        return None
    if not decided.likely(Author.SECOND_HOST, SECOND_LEFT):
        return None
    half, hop = flow_half(reset), reset.next_hop
    mac = reset.frame.mac if reset.frame else None
    known_mac = half.mac if half is not None and not facts.is_lone_syn(half) else None
    source = reset.rst.src.ip
    if hop is not None and not hop.is_gateway and hop.ip == source:
        known_mac = known_mac or hop.mac
        direct = half is None or half.ttl is None or not hops(half.ttl)
        if mac and known_mac and mac != known_mac and not hops(reset.rst.ttl) and direct:
            text = f"{source} is on our own link with two MACs: {known_mac} and {mac}"
            return _found("duplicate-address", text, macs=[known_mac, mac])
        return None
    known = facts.reference(reset)
    if half is None or known is None or known.steady in ("varied", *facts.NOT_THE_FLOWS):
        return None
    farther = apart(reset.rst.ttl, known.ttl)[0]
    # A reroute does that too, but where the other end says that it was not the peer.
    disproved = decided.origin is Origin.FORGED and reset.other_end is not None
    if not _settled(half) or farther <= (0 if disproved else facts.NEAR_HOPS):
        return None
    mine, peer = hops(reset.rst.ttl), hops(known.ttl)
    text = (
        f"a host's ordinary reset from {mine} hops away, farther than {source} ({peer}): a second "
        "host seems to have this address"
    )
    values = {"hops": mine, "peer_hops": peer, "mac": mac, "peer_mac": known_mac}
    return _found("duplicate-address", text, **values)


def split_identity(reset: Reset, decided: Decided) -> Evidence | None:
    """The handshake and the rest come from different distances: a proxy answers for the peer."""
    half = flow_half(reset)
    if reset.kind.direction == "sent" or half is None or decided.proved:
        return None
    if half.syn_ttl is None or half.new_syn is not None or facts.is_raw_syn(half):
        return None
    counts = [count for count in facts.counts_of(half) if count.packets >= facts.FEW_PACKETS]
    often = [count for count in counts if count.ttl != half.syn_ttl]
    if not often or len(often) < len(counts):  # who answered the handshake sent data as well
        return None
    later = max(often, key=lambda count: count.packets).ttl
    farther, alike = apart(later, half.syn_ttl)
    if alike and abs(farther) <= facts.NEAR_HOPS:
        return None
    text = (
        f"the handshake came with TTL {half.syn_ttl}, the peer's other packets with {later}: a SYN "
        "proxy or load balancer answers for the peer"
    )
    return _found("split-identity", text, syn_ttl=half.syn_ttl, ttl=later, rst=reset.rst.ttl)


def peer_of_several(reset: Reset, decided: Decided) -> Evidence | None:
    """The RST comes from where other handshakes of this address came from."""
    known = facts.reference(reset)
    if reset.kind.direction == "sent" or known is None or decided.proved:
        return None
    same = [ttl for ttl in known.handshakes if apart(reset.rst.ttl, ttl) == (0, True)]
    if apart(reset.rst.ttl, known.ttl)[0] == 0 or not same:
        return None
    ttls = sorted({*known.handshakes, known.ttl})
    text = (
        f"handshakes of {reset.rst.src.ip} come with TTL {', '.join(map(str, ttls))}: several "
        "hosts or paths are behind it"
    )
    return _found("peer-of-several", text, ttls=ttls)


def nat_state_lost(reset: Reset, decided: Decided) -> Evidence | None:
    """The answer of a host without such a connection, from before the peer, to our packet."""
    known, half = facts.reference(reset), flow_half(reset)
    if reset.kind.direction == "sent" or known is None or half is None or decided.proved:
        return None
    if not is_bare(reset.rst) or reset.rst.flags != "R" or not facts.is_provoked(reset):
        return None
    if not decided.likely(Author.BALANCER) or known.steady in ("varied", *facts.NOT_THE_FLOWS):
        return None
    nearer = -apart(reset.rst.ttl, known.ttl)[0]
    idle = facts.idle_ns(reset) or 0
    if not (1 <= nearer <= facts.NEAR_HOPS or (nearer > facts.NEAR_HOPS and idle >= facts.IDLE_NS)):
        return None
    text = (
        f"the answer of a host that knows no such connection, {plural(nearer, 'hop')} before the "
        "peer: a NAT box that lost its state does this (or a firewall's REJECT)"
    )
    return _found("nat-state-lost", text, nearer=nearer, idle_s=idle / 1e9)


def keepalive_race(reset: Reset, decided: Decided) -> Evidence | None:
    """One end closes connections after the same silence, and the other uses them after that."""
    races = reset.races
    if not races or decided.origin is Origin.FORGED:
        return None
    closes = min(race.idle_ns for race in races), max(race.idle_ns for race in races)
    uses = min(race.used_ns for race in races), max(race.used_ns for race in races)
    peers = races[0].by == "peer"
    service = reset.remote if peers else reset.local
    text = (
        f"{service.ip} port {service.port} closes connections after {_span(closes)} idle "
        f"({len(races)} of them), and {'this end' if peers else 'its clients'} used them again "
        f"after {_span(uses)}: {'its' if peers else 'their'} keep-alive is longer than that timeout"
    )
    values = {
        "closed_by": races[0].by,
        "closes_s": [ns / 1e9 for ns in closes],
        "uses_s": [ns / 1e9 for ns in uses],
        "times": len(races),
    }
    return _found("keepalive-race", text, **values)


def _span(ends: tuple[int, int]) -> str:
    """``60 s``, or ``60 to 61.5 s``."""
    low, high = (why.idle_text(ns) for ns in ends)
    return low if low == high else f"{low[:-2]} to {high}"


def idle_timeout(reset: Reset, decided: Decided) -> Evidence | None:
    """The connection had been silent for long: something on the path, or an end, gave it up."""
    if reset.kind.direction == "sent" and reset.kind is not Kind.SENT_PASSIVE:
        return None
    idle = facts.not_outlived_ns(reset)
    if idle is None or why.met_an_earlier_connection(reset) or why.stalled_ns(reset) is not None:
        return None
    text = f"the connection had been idle for {age_text(idle)}: an idle timeout looks like this"
    return _found("idle-timeout", text, idle_s=idle / 1e9)


def _handshake_only(reset: Reset) -> tuple[Half, Half] | None:
    """The client's and our direction where a client did nothing but shake hands, within seconds."""
    client, server = flow_half(reset), reset.baseline.ours
    if reset.kind.direction != "received" or client is None or server is None:
        return None
    if client.packets > CHECK_PACKETS or server.packets > CHECK_PACKETS:
        return None
    if client.syns > 1 or server.syns > 1 or reset.siblings:
        return None
    opened = accepted = False
    for seen in client.recent:
        if seen.payload_len or "F" in seen.flags:
            return None
        opened = opened or without_ecn(seen.flags) == "S"
    for seen in server.recent:
        if seen.payload_len or "F" in seen.flags:
            return None
        accepted = accepted or ("S" in seen.flags and "A" in seen.flags)
    if not opened or not accepted:
        return None
    return (client, server) if reset.time_ns - client.first_ns <= CHECK_NS else None


def looks_like_check(reset: Reset) -> bool:
    """SYN, SYN-ACK (and ACK), RST by a client that sent and asked for nothing, all within seconds.

    By its own stack: what says that it never sent that SYN is no check, nor is a raw SYN (a scan).
    """
    both = _handshake_only(reset)
    if both is None or facts.is_raw_syn(both[0]):
        return False
    client = both[0]
    away = client.syn_ttl is not None and apart(reset.rst.ttl, client.syn_ttl) == (0, True)
    own = client.confirmed or client.packets == CHECK_PACKETS or "A" in reset.rst.flags
    # Its number: it has sent nothing else, seen or not.
    return away and client.end in (None, reset.rst.seq) and (own or is_bare(reset.rst))


def health_check(reset: Reset, decided: Decided) -> Evidence | None:
    """A client that connects and resets at once, without a byte: a health check, or a scan."""
    if not looks_like_check(reset) or decided.origin is Origin.FORGED:
        return None
    if any(note.name == ESCAPED for note in reset.notes):  # that client waits for an answer
        return None
    client = flow_half(reset)
    took = age_text(max(0, reset.time_ns - client.first_ns)) if client else "seconds"
    often = f", every {reset.period_s:.1f} s" if reset.period_s is not None else ""
    text = (
        f"the client connected and reset within {took} without sending a byte{often}: a load "
        "balancer's health check, or a port scan"
    )
    return _found("health-check", text, period_s=reset.period_s)


def port_scan(reset: Reset, decided: Decided) -> Evidence | None:
    """A SYN that a program wrote itself, and its kernel's answer to our SYN-ACK."""
    both = _handshake_only(reset)
    if both is None or not facts.is_raw_syn(both[0]) or decided.origin is Origin.FORGED:
        return None
    client = both[0]
    options = client.syn_options or "none"
    text = (
        f"the SYN was written by a program (options: {options}, TTL {client.syn_ttl}), and its "
        "kernel, which knows nothing of it, reset our SYN-ACK: a port scan, or a raw health check"
    )
    return _found("port-scan", text, syn_ttl=client.syn_ttl, syn_options=client.syn_options)


def spoofed_syn(reset: Reset, decided: Decided) -> Evidence | None:
    """The answer to our SYN-ACK comes from elsewhere than the SYN: nobody there sent that."""
    both = _handshake_only(reset)
    if both is None or decided.origin is Origin.FORGED or decided.proved:
        return None
    client = both[0]
    if not facts.is_lone_syn(client) or client.syn_ttl is None or facts.is_raw_syn(client):
        return None
    if reset.rst.flags != "R" or apart(reset.rst.ttl, client.syn_ttl)[0] == 0:
        return None
    text = (
        f"the SYN came with TTL {client.syn_ttl}, and the reset of our SYN-ACK with "
        f"{reset.rst.ttl}: the owner of this address may never have sent that SYN (a spoofed one)"
    )
    return _found("spoofed-syn", text, syn_ttl=client.syn_ttl, ttl=reset.rst.ttl)


def port_reuse(reset: Reset, decided: Decided) -> Evidence | None:
    """A new SYN on the ports of a connection came shortly before, or found an older one there."""
    half, new = flow_half(reset), why.reused(reset)
    if decided.origin is Origin.FORGED:
        return None
    if new is not None and half is not None and half.syn_ttl is not None:
        farther, where = why.reused_where(reset, new)
        when = "while the connection lived"
        if new is not half.new_syn:
            waits = reset.socket is not None and reset.socket.minisocket
            left = (
                "TIME_WAIT" if waits else "an earlier connection on them (TIME_WAIT, or a live one)"
            )
            when = f"while this end still had {left}"
        text = (
            f"a new SYN on these ports came {age_text(reset.time_ns - new.time_ns)} before{where}: "
            f"the ports were used again {when}"
        )
        return _found("port-reuse", text, syn_ttl=new.ttl, farther=farther)
    if why.met_an_earlier_connection(reset):
        text = "our SYN was answered by an ACK of an earlier connection on these ports"
        return _found("port-reuse", text)
    return None


def upstream_failed(reset: Reset, decided: Decided) -> Evidence | None:
    """The process had lost another connection just before: a proxy that passes its end on."""
    found, process = reset.upstream, reset.process
    if found is None or process is None:
        return None
    what = "was refused" if found.refused else "was reset"
    text = (
        f"a connection of {process.comm}[{process.pid}] to {found.remote} {what} "
        f"{age_text(reset.time_ns - found.time_ns)} before: it may have passed that on, as a proxy "
        "does"
    )
    age_ms = (reset.time_ns - found.time_ns) / 1e6
    return _found(
        "upstream-failed", text, remote=str(found.remote), refused=found.refused, age_ms=age_ms
    )


def escaped_nat(reset: Reset, decided: Decided) -> Evidence | None:
    """The other end of a comparison saw what this answers leave with other addresses."""
    other = reset.other_end
    if other is None or not other.escaped:
        return None
    text = f"a packet escaped NAT, and this answers it: {other.escaped}"
    return _found("escaped-nat", text, point=str(other.point), frame=other.frame)


def connection_refused(reset: Reset, decided: Decided) -> Evidence | None:
    """A RST in answer to our SYN."""
    if reset.cause.name != "connection-refused":
        return None
    text = "the answer to a SYN: nothing listens there, or a firewall refuses"
    return _found("connection-refused", text, port=reset.rst.src.port)


FINDERS: tuple[Finder, ...] = (
    duplicate_address,
    split_identity,
    port_reuse,
    keepalive_race,
    upstream_failed,
    peer_of_several,
    nat_state_lost,
    idle_timeout,
    port_scan,
    spoofed_syn,
    health_check,
    escaped_nat,
    connection_refused,
)
"""Every finding, the most useful first."""


def findings(
    reset: Reset, origin: Origin, authors: tuple[Share, ...], *, proved: bool = False
) -> tuple[Evidence, ...]:
    """All that is found beside this verdict."""
    decided = Decided(origin, authors, proved)
    noted = {note.name: _found(note.name, note.text, **note.values) for note in reset.notes}
    found = [*noted.values()]
    for finder in FINDERS:
        each = finder(reset, decided)
        if each is not None and each.rule not in noted:
            found.append(each)
    return tuple(found)
