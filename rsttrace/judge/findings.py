"""What else is known about a reset, beside who made it: named readings, each with its sentence.

A finding never changes the verdict. Like the rules these are pure functions of a Reset; each gives
Evidence with weight 0, whose `rule` is the finding's name in the JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from rsttrace.judge.rules import (
    IDLE_NS,
    NEAR_HOPS,
    age_text,
    idle_ns,
    is_no_socket_shape,
    is_provoked,
    reference_ttl,
)
from rsttrace.model import Evidence, Half, Kind, Reset, Scope, hops, initial_ttl

Finder = Callable[[Reset], Optional[Evidence]]

CHECK_NS = 5_000_000_000
"""A health check (or a scan) is over within this time."""

CHECK_PACKETS = 2
"""What a checking client sends before its RST: the SYN, perhaps the handshake's last ACK."""


def _honest_shape(reset: Reset) -> bool:
    """Shaped as a whole host's stack would: Linux without a socket, or Windows."""
    rst = reset.rst
    windows = bool(rst.df) and not rst.window and initial_ttl(rst.ttl) == 128 and bool(rst.ip_id)
    return is_no_socket_shape(rst) or (windows and not rst.options)


def _settled(half: Half) -> bool:
    return half.ttl is not None and half.ttl_min == half.ttl_max


def duplicate_address(reset: Reset) -> Evidence | None:
    """An honest stack's reset from somewhere else than the peer: a second host with its address.

    From another MAC on our own link; else from farther away than the peer, or through another
    router than the peer's packets. A firewall on the path is nearer than the peer, and on it.
    """
    if reset.kind.direction == "sent" or not _honest_shape(reset):
        return None
    theirs, hop = reset.baseline.theirs, reset.next_hop
    mac = reset.frame.mac if reset.frame else None
    known_mac = theirs.mac if theirs else None
    if hop is not None and not hop.is_gateway and hop.ip == reset.rst.src.ip:
        known_mac = known_mac or hop.mac
        if mac and known_mac and mac != known_mac and not hops(reset.rst.ttl):
            text = f"{reset.rst.src.ip} is on our own link with two MACs: {known_mac} and {mac}"
            return Evidence("duplicate-address", 0.0, text, {"macs": [known_mac, mac]})
        return None
    reference = reference_ttl(reset)
    if theirs is None or reference is None or reset.baseline.scope is not Scope.FLOW:
        return None
    if not _settled(theirs):
        return None
    mine, peer = hops(reset.rst.ttl), hops(reference)
    values = {"hops": mine, "peer_hops": peer, "mac": mac, "peer_mac": known_mac}
    if mine > peer + NEAR_HOPS:
        text = (
            f"a host's ordinary reset from {mine} hops away, farther than {reset.rst.src.ip} "
            f"({peer}): a second host seems to have this address"
        )
        return Evidence("duplicate-address", 0.0, text, values)
    if abs(mine - peer) > NEAR_HOPS and mac and known_mac and mac != known_mac:
        text = (
            f"a host's ordinary reset through another router ({mac}, {mine} hops) than the packets "
            f"of {reset.rst.src.ip} ({known_mac}, {peer} hops): a second host seems to have this "
            "address"
        )
        return Evidence("duplicate-address", 0.0, text, values)
    return None


def split_identity(reset: Reset) -> Evidence | None:
    """The handshake and the rest come from different distances: a proxy answers for the peer."""
    theirs = reset.baseline.theirs
    if reset.kind.direction == "sent" or reset.baseline.scope is not Scope.FLOW or theirs is None:
        return None
    if theirs.syn_ttl is None or theirs.ttl is None:
        return None
    shaken, later = hops(theirs.syn_ttl), hops(theirs.ttl)
    if abs(shaken - later) <= NEAR_HOPS and initial_ttl(theirs.syn_ttl) == initial_ttl(theirs.ttl):
        return None
    text = (
        f"the handshake came with TTL {theirs.syn_ttl}, the peer's other packets with "
        f"{theirs.ttl}: a SYN proxy or load balancer answers for the peer (or packets are injected)"
    )
    return Evidence(
        "split-identity",
        0.0,
        text,
        {"syn_ttl": theirs.syn_ttl, "ttl": theirs.ttl, "rst": reset.rst.ttl},
    )


def peer_of_several(reset: Reset) -> Evidence | None:
    """The RST comes from where other handshakes of this address came from."""
    reference = reference_ttl(reset)
    if reset.kind.direction == "sent" or reference is None:
        return None
    mine = hops(reset.rst.ttl)
    known = reset.baseline.peer_ttls
    if mine == hops(reference) or mine not in {hops(ttl) for ttl in known}:
        return None
    text = (
        f"handshakes of {reset.rst.src.ip} come with TTL "
        f"{', '.join(str(ttl) for ttl in sorted(set(known)))}: several hosts or paths are behind it"
    )
    return Evidence("peer-of-several", 0.0, text, {"ttls": list(known)})


def nat_state_lost(reset: Reset) -> Evidence | None:
    """The answer of a host without such a connection, from just before the peer, to our packet."""
    theirs, reference = reset.baseline.theirs, reference_ttl(reset)
    if reset.kind.direction == "sent" or theirs is None or reference is None:
        return None
    if reset.baseline.scope is not Scope.FLOW or not is_no_socket_shape(reset.rst):
        return None
    if not _settled(theirs):
        return None  # the TTL varies: several paths
    if "A" in reset.rst.flags or not is_provoked(reset):
        return None
    nearer = hops(reference) - hops(reset.rst.ttl)
    idle = idle_ns(reset) or 0
    if not (1 <= nearer <= NEAR_HOPS or (nearer > NEAR_HOPS and idle >= IDLE_NS)):
        return None
    text = (
        f"the answer of a host that knows no such connection, {nearer} "
        f"{'hop' if nearer == 1 else 'hops'} before the peer: a NAT box that lost its state does "
        "this (or a firewall's REJECT)"
    )
    return Evidence("nat-state-lost", 0.0, text, {"nearer": nearer, "idle_s": idle / 1e9})


def idle_timeout(reset: Reset) -> Evidence | None:
    """The connection had been silent for long: something on the path, or an end, gave it up."""
    if reset.kind.direction == "sent" and reset.kind is not Kind.SENT_PASSIVE:
        return None
    idle = idle_ns(reset)
    if idle is None or idle < IDLE_NS:
        return None
    text = f"the connection had been idle for {age_text(idle)}: an idle timeout looks like this"
    return Evidence("idle-timeout", 0.0, text, {"idle_s": idle / 1e9})


def looks_like_check(reset: Reset) -> bool:
    """SYN, SYN-ACK, RST by a client that sent and asked for nothing, all within seconds."""
    if reset.baseline.scope is not Scope.FLOW:
        return False
    client, server = reset.baseline.theirs, reset.baseline.ours
    if client is None or server is None or not 1 <= client.packets <= CHECK_PACKETS:
        return False
    if not 1 <= server.packets <= CHECK_PACKETS:
        return False
    if not any(seen.flags.replace("E", "").replace("W", "") == "S" for seen in client.recent):
        return False
    if not any({"S", "A"} <= set(seen.flags) for seen in server.recent):
        return False
    if any(seen.payload_len or "F" in seen.flags for seen in (*client.recent, *server.recent)):
        return False
    return reset.time_ns - client.first_ns <= CHECK_NS


def health_check(reset: Reset) -> Evidence | None:
    """A client that connects and resets at once, without a byte: a health check, or a scan."""
    if not looks_like_check(reset):
        return None
    client = reset.baseline.theirs
    took = age_text(max(0, reset.time_ns - client.first_ns)) if client else "seconds"
    often = f", every {reset.period_s:.1f} s" if reset.period_s is not None else ""
    text = (
        f"the client connected and reset within {took} without sending a byte{often}: a load "
        "balancer's health check, or a port scan"
    )
    return Evidence("health-check", 0.0, text, {"period_s": reset.period_s})


def connection_refused(reset: Reset) -> Evidence | None:
    """A RST in answer to our SYN."""
    if reset.cause.name != "connection-refused":
        return None
    return Evidence(
        "connection-refused",
        0.0,
        "the answer to a SYN: nothing listens there, or a firewall refuses",
        {"port": reset.rst.src.port},
    )


FINDERS: tuple[Finder, ...] = (
    duplicate_address,
    split_identity,
    peer_of_several,
    nat_state_lost,
    idle_timeout,
    health_check,
    connection_refused,
)
"""Every finding, the most useful first."""


def findings(reset: Reset) -> tuple[Evidence, ...]:
    """All that is found."""
    return tuple(found for finder in FINDERS if (found := finder(reset)) is not None)
