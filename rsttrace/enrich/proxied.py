"""A namespace of this node that answers for a connection which another host had carried."""

from __future__ import annotations

from collections.abc import Callable

from rsttrace.model import Half, Kind, Note, Reset, Scope, hops, initial_ttl

HasMac = Callable[[int, str], "bool | None"]
"""Whether a namespace has an interface with this MAC; ``None``: not known."""


def answered_here(reset: Reset, has_mac: HasMac) -> Note | None:
    """That the namespace which sent a reset is not the host that had carried the connection.

    It owns the address, and its stack knows of no such connection: a virtual address whose service
    it passed on. The other packets came from farther away, or from a MAC that it does not have.
    """
    made, theirs = reset.made_here, reset.baseline.theirs
    if made is None or made.kind is not Kind.SENT_PASSIVE or made.owns_source is not True:
        return None
    if reset.baseline.scope is not Scope.FLOW or theirs is None or "A" in reset.rst.flags:
        return None
    elsewhere = _from(reset, theirs, made.netns, has_mac)
    if elsewhere is None:
        return None
    where = f"netns {made.netns_name or made.netns}"
    text = (
        f"{where}, which owns {made.source}, answered without such a connection; its other packets "
        f"came {elsewhere}: another host had carried it"
    )
    values = {
        "netns": made.netns,
        "netns_name": made.netns_name,
        "address": made.source,
        "hops": hops(reset.rst.ttl),
        "peer_hops": None if theirs.ttl is None else hops(theirs.ttl),
        "mac": reset.frame.mac if reset.frame is not None else None,
        "peer_mac": theirs.mac,
    }
    return Note("answered-here", text, values)


def _from(reset: Reset, theirs: Half, netns: int, has_mac: HasMac) -> str | None:
    """Where the connection's other packets came from, if that is elsewhere."""
    if theirs.ttl is None or not theirs.confirmed or theirs.ttl_min != theirs.ttl_max:
        return None
    ttl = reset.rst.ttl
    farther = ttl - theirs.ttl
    if initial_ttl(ttl) != initial_ttl(theirs.ttl):
        return None  # a program may set its socket's TTL
    if farther > 0:
        return f"from {farther} {'hop' if farther == 1 else 'hops'} farther away"
    mac = reset.frame.mac if reset.frame is not None else None
    # On our own link; behind a router all packets have its MAC.
    direct = farther == 0 and hops(ttl) == 0
    if not direct or mac is None or theirs.mac in (None, mac) or has_mac(netns, mac) is not True:
        return None
    assert theirs.mac is not None
    return f"from {theirs.mac}" if has_mac(netns, theirs.mac) is False else None
