"""Finds the same connection, and the same packet, at two vantage points. Pure functions."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

from rsttrace.compare.survey import FlowPackets, FlowSummary, Sighting
from rsttrace.model import Endpoint, Point
from rsttrace.tcp import RST, distance

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
class FlowMatch:
    """A connection at A and at B; ``None``: seen at one point only, or not to be told.

    `flip`: its way 0 at A is its way 1 at B. `how` and `sure` as in `ComparedFlow`.
    """

    a: FlowSummary | None
    b: FlowSummary | None
    flip: bool
    how: str
    sure: str
    text: str

    def at(self, point: Point) -> FlowSummary | None:
        """The connection as a point saw it."""
        return self.a if point is Point.A else self.b

    def flips(self, point: Point) -> bool:
        """Whether a point counts the ways the other way round than A."""
        return self.flip and point is Point.B

    @property
    def resets(self) -> int:
        """How many RSTs both points saw, all in all."""
        return sum(flow.resets for flow in (self.a, self.b) if flow is not None)


_KNOWN = {
    "addresses": 3,
    "initial-sequence-numbers": 2,
    "sequence-numbers": 1,
}


def match_flows(ours: Sequence[FlowSummary], theirs: Sequence[FlowSummary]) -> list[FlowMatch]:
    """The connections of A (`ours`) with the same ones at B (`theirs`), and those left over.

    By addresses and ports, unless the initial sequence numbers differ; else, as behind NAT, by both
    initial sequence numbers, by one of them and a port, or by the numbers of packets with data.
    """
    index = _Index(theirs)
    found: list[FlowMatch] = []
    for flow in ours:
        found.append(
            _by_addresses(flow, index)
            or _by_initial_numbers(flow, index)
            or _by_runs(flow, index)
            or FlowMatch(flow, None, False, "one-sided", "unknown", "seen at A only")
        )
    claims: dict[int, list[int]] = defaultdict(list)
    for number, match in enumerate(found):
        if match.b is not None:
            claims[id(match.b)].append(number)
    for numbers in claims.values():
        best = max(_KNOWN[found[number].how] for number in numbers)
        winners = [number for number in numbers if _KNOWN[found[number].how] == best]
        for number in numbers:
            if len(winners) > 1 or number not in winners:
                text = f"{len(numbers)} connections at A look like one at B"
                found[number] = FlowMatch(
                    found[number].a, None, False, "ambiguous", "unknown", text
                )
    taken = {id(match.b) for match in found if match.b is not None}
    found += [
        FlowMatch(None, flow, False, "one-sided", "unknown", "seen at B only")
        for flow in theirs
        if id(flow) not in taken
    ]
    return found


class _Index:
    """B's connections by what they can be found by."""

    def __init__(self, flows: Iterable[FlowSummary]) -> None:
        self.tuples: dict[bytes, list[tuple[FlowSummary, bool]]] = defaultdict(list)
        self.both: dict[tuple[int, int], list[tuple[FlowSummary, bool]]] = defaultdict(list)
        self.one: dict[int, list[tuple[FlowSummary, int]]] = defaultdict(list)
        self.runs: dict[int, list[tuple[FlowSummary, int]]] = defaultdict(list)
        for flow in flows:
            self.tuples[flow.address_key].append((flow, False))
            if flow.reverse_key != flow.address_key:
                self.tuples[flow.reverse_key].append((flow, True))
            first, second = flow.isn
            if first is not None and second is not None:
                self.both[first, second].append((flow, False))
                self.both[second, first].append((flow, True))
            for way, number in enumerate(flow.isn):
                if number is not None:
                    self.one[number].append((flow, way))
            for value, way in flow.sketch:
                self.runs[value].append((flow, way))


def _agreement(a: FlowSummary, b: FlowSummary, flip: bool) -> int | None:
    """How many initial sequence numbers are equal; ``None`` if one differs."""
    equal = 0
    for way in (0, 1):
        mine, other = a.isn[way], b.isn[way ^ flip]
        if mine is not None and other is not None:
            if mine != other:
                return None
            equal += 1
    return equal


def _overlap(a: FlowSummary, b: FlowSummary, flip: bool) -> int:
    return len({(value, way) for value, way in a.sketch} & {(v, w ^ flip) for v, w in b.sketch})


def _by_addresses(flow: FlowSummary, index: _Index) -> FlowMatch | None:
    candidates = index.tuples.get(flow.address_key, ())
    if not candidates:
        return None
    rated = []
    for other, flip in candidates:
        agreed = _agreement(flow, other, flip)
        if agreed is not None:
            rated.append(((agreed, _overlap(flow, other, flip)), other, flip))
    if not rated:
        text = (
            "the same addresses and ports at both points, but other initial sequence numbers: a "
            "proxy in between, or a firewall that renumbers"
        )
        return FlowMatch(flow, None, False, "renumbered", "unknown", text)
    best = max(rate for rate, _, _ in rated)
    winners = [(other, flip) for rate, other, flip in rated if rate == best]
    if len(winners) > 1:
        text = f"{len(winners)} connections at B have these addresses and ports"
        return FlowMatch(flow, None, False, "ambiguous", "unknown", text)
    (other, flip), certain = winners[0], best != (0, 0)
    numbers = ", and the same sequence numbers" if certain else ""
    text = f"the same addresses and ports at both points{numbers}"
    return FlowMatch(flow, other, flip, "addresses", "sure" if certain else "possible", text)


def _by_initial_numbers(flow: FlowSummary, index: _Index) -> FlowMatch | None:
    first, second = flow.isn
    how = "initial-sequence-numbers"
    candidates: list[tuple[FlowSummary, bool]]
    if first is not None and second is not None:
        candidates, sure = list(index.both.get((first, second), ())), "sure"
        text = "other addresses (NAT), the same initial sequence numbers both ways"
        if candidates:
            return _one_of(flow, candidates, how, sure, text)
    way = 0 if first is not None else 1
    number = flow.isn[way]
    if number is None:
        return None
    ports = {end.port for end in flow.ends}
    candidates = [
        (other, way != their_way)
        for other, their_way in index.one.get(number, ())
        if _agreement(flow, other, way != their_way) and ports & {e.port for e in other.ends}
    ]
    text = "other addresses (NAT), the same initial sequence number and a port"
    return _one_of(flow, candidates, how, "likely", text) if candidates else None


def _by_runs(flow: FlowSummary, index: _Index) -> FlowMatch | None:
    counts: dict[tuple[int, bool], int] = defaultdict(int)
    flows: dict[int, FlowSummary] = {}
    for value, way in flow.sketch:
        for other, their_way in index.runs.get(value, ()):
            flows[id(other)] = other
            counts[id(other), way != their_way] += 1
    candidates = [
        (flows[key], flip)
        for (key, flip), count in counts.items()
        if count >= RUNS and _agreement(flow, flows[key], flip) is not None
    ]
    text = "other addresses (NAT), the same sequence and acknowledgment numbers"
    return _one_of(flow, candidates, "sequence-numbers", "likely", text) if candidates else None


def _one_of(
    flow: FlowSummary, candidates: list[tuple[FlowSummary, bool]], how: str, sure: str, text: str
) -> FlowMatch:
    if len({id(other) for other, _ in candidates}) > 1:
        more = f"{len(candidates)} connections at B could be it: {text}"
        return FlowMatch(flow, None, False, "ambiguous", "unknown", more)
    other, flip = candidates[0]
    return FlowMatch(flow, other, flip, how, sure, text)


class PacketMatch(NamedTuple):
    """One packet at both points. `exact`: no other packet could be meant."""

    a: Sighting
    b: Sighting
    exact: bool

    @property
    def way(self) -> int:
        """Its way."""
        return self.a.way

    def at(self, point: Point) -> Sighting:
        """The packet as a point saw it."""
        return self.a if point is Point.A else self.b


@dataclass
class JoinedFlow:
    """A connection's packets at both points, resets apart; all ways are as A counts them.

    `packets` is what each point's capture holds of it. `only` were seen at one point only; `split`
    at both, cut up in another way (by network cards). `ids_kept` says for each way whether IP IDs
    are the same at both points. `toward` is the way that leads to each point; empty: that cannot be
    told.
    """

    match: FlowMatch
    packets: dict[Point, FlowPackets | None]
    matches: list[PacketMatch] = field(default_factory=list)
    only: dict[Point, list[Sighting]] = field(default_factory=dict)
    split: dict[Point, list[Sighting]] = field(default_factory=dict)
    resets: dict[Point, list[Sighting]] = field(default_factory=dict)
    ids_kept: list[bool] = field(default_factory=lambda: [False, False])
    toward: dict[Point, int] = field(default_factory=dict)

    def of_way(self, way: int) -> list[PacketMatch]:
        """The packets of a way that both points saw."""
        return [match for match in self.matches if match.way == way]

    def deltas(self, way: int) -> list[int]:
        """TTL at A minus TTL at B of each packet in a way that both points saw."""
        return [match.a.ttl - match.b.ttl for match in self.of_way(way)]

    def ttls(self, point: Point, way: int) -> list[int]:
        """The TTLs at a point of the packets in a way that both points saw."""
        return [match.at(point).ttl for match in self.of_way(way)]

    def seen(self, point: Point) -> list[Sighting]:
        """A point's packets, each once, resets apart, in the order of its capture."""
        both = (match.at(point) for match in self.matches)
        sightings = [*both, *self.split[point], *self.only[point]]
        return sorted(sightings, key=lambda sighting: sighting.frame)

    def sender(self, point: Point, way: int) -> Endpoint:
        """Who sends in a way, as a point sees it; the point must have seen the connection."""
        flow = self.match.at(point)
        assert flow is not None
        return flow.ends[way ^ self.match.flips(point)]


def join(match: FlowMatch, packets: dict[Point, FlowPackets | None]) -> JoinedFlow:
    """Match the packets of one connection."""
    made = JoinedFlow(match, packets)
    left: dict[Point, list[Sighting]] = {}
    for point, kept in packets.items():
        flip = match.flips(point)
        sightings = [_turned(item, flip) for item in kept.sightings] if kept else []
        made.resets[point] = [item for item in sightings if item.flags & RST]
        left[point] = _unique(item for item in sightings if not item.flags & RST)
    left = _match_packets(made, left, _whole)
    for packet in made.matches:
        if packet.a.ip_id and packet.b.ip_id:
            made.ids_kept[packet.way] = True
    left = _match_packets(made, left, lambda sighting: _numbers(made, sighting))
    made.matches.sort(key=lambda packet: packet.a.frame)
    for point in Point:
        made.split[point], made.only[point] = _covered(left[point], left[point.other])
    way = _way_to_b(made)
    if way is not None:
        made.toward = {Point.A: 1 - way, Point.B: way}
    return made


def _turned(sighting: Sighting, flip: bool) -> Sighting:
    return sighting._replace(way=1 - sighting.way) if flip else sighting


_Key = tuple[Optional[int], ...]


def _whole(sighting: Sighting) -> _Key:
    flags = sighting.flags & ~PSH
    return (
        *(sighting.way, sighting.seq, sighting.ack, flags, sighting.payload_len),
        *(sighting.ip_id, sighting.digest),
    )


def _numbers(made: JoinedFlow, sighting: Sighting) -> _Key:
    """Without what boxes rewrite: options (MSS), and IP IDs unless this path keeps them."""
    flags = sighting.flags & ~PSH
    ip_id = sighting.ip_id if made.ids_kept[sighting.way] else None
    return (sighting.way, sighting.seq, sighting.ack, flags, sighting.payload_len, ip_id)


def _unique(sightings: Iterable[Sighting]) -> list[Sighting]:
    """Without packets that were captured twice."""
    last: dict[_Key, int] = {}
    kept = []
    for sighting in sightings:
        key = (*_whole(sighting), sighting.window)
        earlier_ns = last.get(key)
        if earlier_ns is None or sighting.time_ns - earlier_ns > DUPLICATE_NS:
            kept.append(sighting)
            last[key] = sighting.time_ns
    return kept


def _match_packets(
    made: JoinedFlow,
    sightings: dict[Point, list[Sighting]],
    key_of: Callable[[Sighting], _Key],
) -> dict[Point, list[Sighting]]:
    """Match packets with equal keys, in their order; returns what is left at each point."""
    groups: dict[_Key, dict[Point, list[Sighting]]] = defaultdict(
        lambda: {point: [] for point in Point}
    )
    for point, items in sightings.items():
        for sighting in items:
            groups[key_of(sighting)][point].append(sighting)
    left: dict[Point, list[Sighting]] = {point: [] for point in Point}
    for group in groups.values():
        a, b = group[Point.A], group[Point.B]
        exact = len(a) == len(b) == 1
        made.matches += [PacketMatch(one, other, exact) for one, other in zip(a, b)]
        common = min(len(a), len(b))
        for point in Point:
            left[point] += group[point][common:]
    for items in left.values():
        items.sort(key=lambda sighting: sighting.frame)
    return left


def _covered(
    these: list[Sighting], others: list[Sighting]
) -> tuple[list[Sighting], list[Sighting]]:
    """(those whose bytes the other point has in other pieces, those it has not)."""
    spans: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    first = next((item.seq for item in (*these, *others) if item.payload_len), 0)
    bases = [
        next((s.seq for s in (*these, *others) if s.payload_len and s.way == way), first)
        for way in (0, 1)
    ]
    for sighting in others:
        if sighting.payload_len:
            start = distance(bases[sighting.way], sighting.seq)
            spans[sighting.way].append((start, start + sighting.payload_len))
    merged = [_merged(found) for found in spans]
    inside: list[Sighting] = []
    outside: list[Sighting] = []
    for sighting in these:
        start = distance(bases[sighting.way], sighting.seq)
        end = start + sighting.payload_len
        has = sighting.payload_len and any(
            low <= start and end <= high for low, high in merged[sighting.way]
        )
        (inside if has else outside).append(sighting)
    return inside, outside


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    made: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(made[-1][1], end))
        else:
            made.append((start, end))
    return made


def _way_to_b(made: JoinedFlow) -> int | None:
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
    exact = [match for match in made.matches if match.exact]
    times = [
        [match.b.time_ns - match.a.time_ns for match in exact if match.way == way] for way in (0, 1)
    ]
    if min(len(found) for found in times) >= ORIENTED:
        if min(times[0]) > max(times[1]):
            return 0
        if min(times[1]) > max(times[0]):
            return 1
    return None
