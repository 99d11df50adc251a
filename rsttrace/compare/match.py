"""Finds the same connection, and the same packet, at two vantage points. Pure functions."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rsttrace.capture.flows import RST
from rsttrace.compare.survey import Brief, Record, Sight

PSH = 8
"""Segmentation and reassembly by network cards move it: it is not compared."""

DUPLICATE_NS = 10_000_000
"""The same packet again within this time was captured twice, not sent twice: the least
retransmission timeout in use is 200 ms (TCP_RTO_MIN, include/net/tcp.h)."""

RUNS = 2
"""So many equal (seq, ack) pairs, 64 bits each, make two connections the same one."""

ORIENTED = 3
"""Packets each way from which times tell which point is nearer to which end."""


@dataclass(frozen=True)
class Match:
    """A connection at A and at B. `flip`: its way 0 at A is its way 1 at B. `how`: ComparedFlow."""

    a: Brief | None
    b: Brief | None
    flip: bool
    how: str
    sure: str
    text: str


_KNOWN = {
    "addresses": 3,
    "initial-sequence-numbers": 2,
    "sequence-numbers": 1,
}


def match_flows(ours: Sequence[Brief], theirs: Sequence[Brief]) -> list[Match]:
    """The connections of A (`ours`) with the same ones at B (`theirs`), and those left over.

    By addresses and ports, unless the initial sequence numbers differ; else, as behind NAT, by both
    initial sequence numbers, by one of them and a port, or by the numbers of packets with data.
    """
    index = _Index(theirs)
    found: list[Match] = []
    for brief in ours:
        found.append(
            _by_addresses(brief, index)
            or _by_initial_numbers(brief, index)
            or _by_runs(brief, index)
            or Match(brief, None, False, "one-sided", "unknown", "seen at A only")
        )
    claims: dict[int, list[int]] = defaultdict(list)
    for at, match in enumerate(found):
        if match.b is not None:
            claims[id(match.b)].append(at)
    for positions in claims.values():
        best = max(_KNOWN[found[at].how] for at in positions)
        winners = [at for at in positions if _KNOWN[found[at].how] == best]
        for at in positions:
            if len(winners) > 1 or at not in winners:
                text = f"{len(positions)} connections at A look like one at B"
                found[at] = Match(found[at].a, None, False, "ambiguous", "unknown", text)
    taken = {id(match.b) for match in found if match.b is not None}
    found += [
        Match(None, brief, False, "one-sided", "unknown", "seen at B only")
        for brief in theirs
        if id(brief) not in taken
    ]
    return found


class _Index:
    """B's connections by what they can be found by."""

    def __init__(self, briefs: Iterable[Brief]) -> None:
        self.tuples: dict[bytes, list[tuple[Brief, bool]]] = defaultdict(list)
        self.both: dict[tuple[int, int], list[tuple[Brief, bool]]] = defaultdict(list)
        self.one: dict[int, list[tuple[Brief, int]]] = defaultdict(list)
        self.runs: dict[int, list[tuple[Brief, int]]] = defaultdict(list)
        for brief in briefs:
            self.tuples[brief.address_key].append((brief, False))
            if brief.reverse_key != brief.address_key:
                self.tuples[brief.reverse_key].append((brief, True))
            first, second = brief.isn
            if first is not None and second is not None:
                self.both[first, second].append((brief, False))
                self.both[second, first].append((brief, True))
            for way, number in enumerate(brief.isn):
                if number is not None:
                    self.one[number].append((brief, way))
            for value, way in brief.sketch:
                self.runs[value].append((brief, way))


def _agreement(a: Brief, b: Brief, flip: bool) -> int | None:
    """How many initial sequence numbers are equal; ``None`` if one differs."""
    equal = 0
    for way in (0, 1):
        mine, other = a.isn[way], b.isn[way ^ flip]
        if mine is not None and other is not None:
            if mine != other:
                return None
            equal += 1
    return equal


def _overlap(a: Brief, b: Brief, flip: bool) -> int:
    return len({(value, way) for value, way in a.sketch} & {(v, w ^ flip) for v, w in b.sketch})


def _by_addresses(brief: Brief, index: _Index) -> Match | None:
    candidates = index.tuples.get(brief.address_key, ())
    if not candidates:
        return None
    rated = []
    for other, flip in candidates:
        agreed = _agreement(brief, other, flip)
        if agreed is not None:
            rated.append(((agreed, _overlap(brief, other, flip)), other, flip))
    if not rated:
        text = (
            "the same addresses and ports at both points, but other initial sequence numbers: a "
            "proxy in between, or a firewall that renumbers"
        )
        return Match(brief, None, False, "renumbered", "unknown", text)
    best = max(rate for rate, _, _ in rated)
    winners = [(other, flip) for rate, other, flip in rated if rate == best]
    if len(winners) > 1:
        text = f"{len(winners)} connections at B have these addresses and ports"
        return Match(brief, None, False, "ambiguous", "unknown", text)
    (other, flip), certain = winners[0], best != (0, 0)
    numbers = ", and the same sequence numbers" if certain else ""
    text = f"the same addresses and ports at both points{numbers}"
    return Match(brief, other, flip, "addresses", "sure" if certain else "possible", text)


def _by_initial_numbers(brief: Brief, index: _Index) -> Match | None:
    first, second = brief.isn
    how = "initial-sequence-numbers"
    candidates: list[tuple[Brief, bool]]
    if first is not None and second is not None:
        candidates, sure = list(index.both.get((first, second), ())), "sure"
        text = "other addresses (NAT), the same initial sequence numbers both ways"
        if candidates:
            return _one_of(brief, candidates, how, sure, text)
    way = 0 if first is not None else 1
    number = brief.isn[way]
    if number is None:
        return None
    ports = {end.port for end in brief.ends}
    candidates = [
        (other, way != their_way)
        for other, their_way in index.one.get(number, ())
        if _agreement(brief, other, way != their_way) and ports & {e.port for e in other.ends}
    ]
    text = "other addresses (NAT), the same initial sequence number and a port"
    return _one_of(brief, candidates, how, "likely", text) if candidates else None


def _by_runs(brief: Brief, index: _Index) -> Match | None:
    counts: dict[tuple[int, bool], int] = defaultdict(int)
    briefs: dict[int, Brief] = {}
    for value, way in brief.sketch:
        for other, their_way in index.runs.get(value, ()):
            briefs[id(other)] = other
            counts[id(other), way != their_way] += 1
    candidates = [
        (briefs[key], flip)
        for (key, flip), count in counts.items()
        if count >= RUNS and _agreement(brief, briefs[key], flip) is not None
    ]
    text = "other addresses (NAT), the same sequence and acknowledgment numbers"
    return _one_of(brief, candidates, "sequence-numbers", "likely", text) if candidates else None


def _one_of(
    brief: Brief, candidates: list[tuple[Brief, bool]], how: str, sure: str, text: str
) -> Match:
    if len({id(other) for other, _ in candidates}) > 1:
        more = f"{len(candidates)} connections at B could be it: {text}"
        return Match(brief, None, False, "ambiguous", "unknown", more)
    other, flip = candidates[0]
    return Match(brief, other, flip, how, sure, text)


class Pair(NamedTuple):
    """One packet at both points. `exact`: no other packet could be meant."""

    a: Sight
    b: Sight
    exact: bool


@dataclass
class Joined:
    """A connection's packets at both points, resets apart, ways as A counts them.

    `only_a` and `only_b` were seen at one point only; `split` at both, cut up in another way (by
    network cards). `ids_kept` says for each way whether IP IDs are the same at both points.
    `toward_b` is the way from A to B; ``None``: that cannot be told.
    """

    match: Match
    a: Record | None
    b: Record | None
    pairs: list[Pair] = field(default_factory=list)
    only_a: list[Sight] = field(default_factory=list)
    only_b: list[Sight] = field(default_factory=list)
    split_a: list[Sight] = field(default_factory=list)
    split_b: list[Sight] = field(default_factory=list)
    resets_a: list[Sight] = field(default_factory=list)
    resets_b: list[Sight] = field(default_factory=list)
    ids_kept: list[bool | None] = field(default_factory=lambda: [None, None])
    toward_b: int | None = None

    def deltas(self, way: int) -> list[int]:
        """TTL at A minus TTL at B of each pair in a way."""
        return [pair.a.ttl - pair.b.ttl for pair in self.pairs if pair.a.way == way]


def join(match: Match, a: Record | None, b: Record | None) -> Joined:
    """Match the packets of one connection."""
    made = Joined(match, a, b)
    ours = _unique(a.sights) if a else []
    theirs = _unique([_turned(s, match.flip) for s in b.sights]) if b else []
    made.resets_a = [sight for sight in (a.sights if a else ()) if sight.flags & RST]
    made.resets_b = [_turned(s, match.flip) for s in (b.sights if b else ()) if s.flags & RST]
    ours = [sight for sight in ours if not sight.flags & RST]
    theirs = [sight for sight in theirs if not sight.flags & RST]
    ours, theirs = _zip(made, ours, theirs, _whole)
    for way in (0, 1):
        numbered = [p for p in made.pairs if p.a.way == way and p.a.ip_id > 0 and p.b.ip_id > 0]
        if numbered:
            made.ids_kept[way] = True
    ours, theirs = _zip(made, ours, theirs, lambda sight: _numbers(made, sight))
    made.pairs.sort(key=lambda pair: pair.a.frame)
    made.split_a, made.only_a = _covered(ours, theirs)
    made.split_b, made.only_b = _covered(theirs, ours)
    made.toward_b = _orientation(made)
    return made


def _turned(sight: Sight, flip: bool) -> Sight:
    return sight._replace(way=1 - sight.way) if flip else sight


def _whole(sight: Sight) -> tuple[int, ...]:
    flags = sight.flags & ~PSH
    return (
        *(sight.way, sight.seq, sight.ack, flags, sight.payload_len),
        *(sight.ip_id, sight.digest),
    )


def _numbers(made: Joined, sight: Sight) -> tuple[int, ...]:
    """Without what boxes rewrite: options (MSS), and IP IDs unless this path keeps them."""
    ip_id = sight.ip_id if made.ids_kept[sight.way] else 0
    return (sight.way, sight.seq, sight.ack, sight.flags & ~PSH, sight.payload_len, ip_id)


def _unique(sights: Iterable[Sight]) -> list[Sight]:
    """Without packets that were captured twice."""
    last: dict[tuple[int, ...], int] = {}
    kept = []
    for sight in sights:
        key = (*_whole(sight), sight.window)
        before = last.get(key)
        if before is None or sight.time_ns - before > DUPLICATE_NS or sight.flags & RST:
            kept.append(sight)
            last[key] = sight.time_ns
    return kept


def _zip(
    made: Joined,
    ours: list[Sight],
    theirs: list[Sight],
    key_of: Callable[[Sight], tuple[int, ...]],
) -> tuple[list[Sight], list[Sight]]:
    """Pair packets with equal keys, in their order; returns what is left of both."""
    groups: dict[tuple[int, ...], tuple[list[Sight], list[Sight]]] = defaultdict(lambda: ([], []))
    for side, sights in enumerate((ours, theirs)):
        for sight in sights:
            groups[key_of(sight)][side].append(sight)
    left: tuple[list[Sight], list[Sight]] = ([], [])
    for mine, others in groups.values():
        exact = len(mine) == len(others) == 1
        made.pairs += [Pair(one, other, exact) for one, other in zip(mine, others)]
        common = min(len(mine), len(others))
        left[0].extend(mine[common:])
        left[1].extend(others[common:])
    for sights in left:
        sights.sort(key=lambda sight: sight.frame)
    return left


def _covered(these: list[Sight], others: list[Sight]) -> tuple[list[Sight], list[Sight]]:
    """(those whose bytes the other point has in other pieces, those it has not)."""
    spans: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    first = next((sight.seq for sight in (*these, *others) if sight.payload_len), 0)
    bases = [
        next((s.seq for s in (*these, *others) if s.payload_len and s.way == way), first)
        for way in (0, 1)
    ]
    for sight in others:
        if sight.payload_len:
            start = _offset(sight.seq, bases[sight.way])
            spans[sight.way].append((start, start + sight.payload_len))
    merged = [_merged(found) for found in spans]
    inside: list[Sight] = []
    outside: list[Sight] = []
    for sight in these:
        start = _offset(sight.seq, bases[sight.way])
        end = start + sight.payload_len
        has = sight.payload_len and any(a <= start and end <= b for a, b in merged[sight.way])
        (inside if has else outside).append(sight)
    return inside, outside


def _offset(number: int, base: int) -> int:
    """A sequence number as a signed distance from another (RFC 9293 §3.4)."""
    return (number - base + 0x80000000) % 0x100000000 - 0x80000000


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    made: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(made[-1][1], end))
        else:
            made.append((start, end))
    return made


def _orientation(made: Joined) -> int | None:
    """Which way leads from A to B: TTLs fall on the way; else no packet arrives before it left."""
    signs = []
    for way in (0, 1):
        deltas = made.deltas(way)
        middle = statistics.median(deltas) if deltas else 0
        signs.append((middle > 0) - (middle < 0))
    if signs[0] != signs[1]:
        if signs[0]:
            return 0 if signs[0] > 0 else 1
        return 1 if signs[1] > 0 else 0
    exact = [pair for pair in made.pairs if pair.exact]
    times = [
        [pair.b.time_ns - pair.a.time_ns for pair in exact if pair.a.way == way] for way in (0, 1)
    ]
    if min(len(found) for found in times) >= ORIENTED:
        if min(times[0]) > max(times[1]):
            return 0
        if min(times[1]) > max(times[0]):
            return 1
    return None
