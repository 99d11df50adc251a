"""Where between two vantage points a device sits that forges: from TTLs, and from times. Pure.

Counting, as `rsttrace locate` does: a packet that router k (counted from a point) makes arrives
there over k - 1 routers. With resets at both ends, x routers from A and y from B, and n routers
between the points, the device is a router of the path if x + y = n - 1, and on the link between two
of them (a bridge, a tap) if x + y = n.
"""

from __future__ import annotations

from typing import NamedTuple

from rsttrace.model import Point, Position, hops, initial_ttl

SHORTEST_RTT_NS = 2_000_000
"""Shorter round trips say nothing: an IPS takes 0.3 to 5 ms to act."""


class ForgedReset(NamedTuple):
    """What is known of a forged RST that came in at `point`.

    `twin_ttl`: of the RST that came in at the other point in this end's name. `usual`,
    `usual_twin`: the TTLs that the real sender's packets arrive with. `total`: routers from the
    other point to this one, `total_twin` back. `swapped`: it replaced a packet, keeping its IP ID.
    `delay_ns`: since the earliest packet that may have provoked it. `rtt_ns`: the least round trip
    between the points. `word`: what the TTL is called.
    """

    point: Point
    ttl: int
    twin_ttl: int | None
    usual: int | None
    usual_twin: int | None
    total: int | None
    total_twin: int | None
    swapped: bool
    delay_ns: int | None
    rtt_ns: int | None
    word: str = "TTL"


class _Distance(NamedTuple):
    """Routers to the point that received the RST and to the other one, and how that is known."""

    near: int | None
    far: int | None
    kind: str
    sure: str
    text: str


def position_of(forged: ForgedReset) -> Position:
    """The position that the TTLs say, and what time says about it."""
    here = forged.point
    notes: list[str] = []
    within = _within(forged, notes)
    near, far, kind, sure, text = _by_ttl(forged, notes)
    if near is None and within is not None:
        share = f"{within:.0%}"
        text = f"{text}; by time within the first {share} of the way from {here}"
        sure = "possible"
    total = forged.total if forged.total is not None else forged.total_twin
    from_a, from_b = (near, far) if here is Point.A else (far, near)
    return Position(
        from_a=from_a,
        from_b=from_b,
        total=total,
        sure=sure,
        text=text,
        notes=tuple(notes),
        within=within,
        within_of=here if within is not None else None,
        kind=kind,
    )


def _both_distances(here: Point, near: int, far: int) -> str:
    from_a, from_b = (near, far) if here is Point.A else (far, near)
    return f"{_hops_text(from_a)} from A, {from_b} from B"


def _hops_text(count: int) -> str:
    """``1 hop``, ``2 hops``."""
    return f"{count} hop" if count == 1 else f"{count} hops"


def _within(forged: ForgedReset, notes: list[str]) -> float | None:
    """How far from P it can be at most, as a share of the way: the way there and back takes time.

    Only where the round trip is long against the time that devices and computers take to act.
    """
    delay, rtt = forged.delay_ns, forged.rtt_ns
    if delay is None or rtt is None or rtt < SHORTEST_RTT_NS or delay >= rtt:
        return None
    share = round(delay / rtt, 3)
    notes.append(
        f"came {delay / 1e6:.2f} ms after what it answers left {forged.point}; the least round "
        f"trip between the points is {rtt / 1e6:.2f} ms"
    )
    return share


def _by_ttl(forged: ForgedReset, notes: list[str]) -> _Distance:
    """What the TTLs say; `notes` are added to."""
    here, there, total = forged.point, forged.point.other, forged.total
    word, mine = forged.word, hops(forged.ttl)
    twin = hops(forged.twin_ttl) if forged.twin_ttl is not None else None
    if total is None:
        text = f"{_hops_text(mine)} from {here} by its {word}; how far {there} is was not seen"
        return _Distance(mine, None, "router", "possible", text)
    if forged.ttl == forged.usual:
        if forged.swapped:
            text = f"between {here} and {there}; a packet swapped in place keeps its {word}"
            notes.append(f"a capture at a point between {here} and {there} halves the way")
            return _Distance(None, None, "swap", "unknown", text)
        if twin is None or forged.twin_ttl == forged.usual_twin:
            return _as_sender(forged, notes)
    if twin is None:
        return _one_end(forged, mine, total, notes)
    copier = _copier(mine, twin, total)
    if copier is None:
        return _both_ends(forged, mine, twin, total, notes)
    whose, far = (there, forged.twin_ttl) if copier[0] == mine // 2 else (here, forged.ttl)
    notes.append(
        f"it copies the {word} of what it answers: at {whose} its RST arrives with {far}, as "
        "the other end's own packets do (or one more), so half of the hops at the other end "
        "are the way"
    )
    return _Distance(*copier, "copier", "likely", _both_distances(here, *copier))


def _as_sender(forged: ForgedReset, notes: list[str]) -> _Distance:
    """Its TTL is that of the end in whose name it came."""
    here, there, word = forged.point, forged.point.other, forged.word
    where = f"its {word} is that of {there}'s own packets"
    if forged.twin_ttl is not None:
        where = f"at both ends its {word} is that of the other end"
    notes.append(f"a copied or chosen {word} does not tell the distance")
    notes.append(f"a capture at a point between {here} and {there} halves the way")
    return _Distance(None, None, "unknown", "unknown", f"between {here} and {there}; {where}")


def _one_end(forged: ForgedReset, mine: int, total: int, notes: list[str]) -> _Distance:
    """A RST at one end only: over `mine` routers, where the path has `total`."""
    here, there, word = forged.point, forged.point.other, forged.word
    if mine > total:
        text = (
            f"{_hops_text(mine)} from {here}, farther than {there} ({total}): not on the way "
            "between them"
        )
        notes.append("another host with that address would answer so, or its initial TTL is odd")
        return _Distance(mine, None, "elsewhere", "likely", text)
    far = max(0, total - 1 - mine)
    text = f"{_hops_text(mine)} from {here}, about {far} from {there}"
    if forged.usual is not None and initial_ttl(forged.ttl) != initial_ttl(forged.usual):
        notes.append(f"its initial {word} is another than {there}'s: {initial_ttl(forged.ttl)}")
    if mine:
        notes.append(
            f"if it copies the {word} of what it answers, it is {_hops_text(mine // 2)} from {here}"
        )
    return _Distance(mine, far, "router", "likely", text)


def _copier(mine: int, twin: int, total: int) -> tuple[int, int] | None:
    """Hops to P and to O of a device that copies the TTL of the packet that provokes it.

    A packet from P comes to it over x routers; with the TTL that it has there, the RST to P is back
    after as many again (2x, or 2x + 1 if the device itself counts as well), and the one to O looks
    like P's own packets (or like one router less). Together more routers than the path has.
    """
    if mine + twin <= total:
        return None
    for near, far, flip in ((mine, twin, False), (twin, mine, True)):
        if near and (far == total or (far == total - 1 and near % 2 == 0)):
            rest = max(0, total - near // 2 - 1)
            return (rest, near // 2) if flip else (near // 2, rest)
    return None


def _both_ends(
    forged: ForgedReset, mine: int, twin: int, total: int, notes: list[str]
) -> _Distance:
    """A RST at each end: over `mine` routers here and `twin` there, where the path has `total`."""
    here = forged.point
    text = _both_distances(here, mine, twin)
    of_a, of_b = (mine, twin) if here is Point.A else (twin, mine)
    counts = {total, forged.total_twin if forged.total_twin is not None else total}
    if mine + twin + 1 in counts:
        notes.append(f"both add up: {of_a} + {of_b}, and itself, of {total} between them")
        return _Distance(mine, twin, "router", "likely", text)
    if mine + twin in counts:
        notes.append(f"both add up to the {total} between them: on a link (a bridge, a tap)")
        return _Distance(mine, twin, "link", "likely", text)
    if abs(mine + twin - total) <= 2:
        notes.append(f"{of_a} + {of_b} is nearly the {total} between them")
        return _Distance(mine, twin, "router", "possible", text)
    notes.append(
        f"{of_a} and {of_b} do not add up to the {total} hops between them: it is off the path, or "
        f"its initial {forged.word} is odd"
    )
    return _Distance(mine, twin, "unknown", "possible", text)
