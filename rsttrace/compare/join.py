"""Finds the same packet of one connection at two vantage points. Pure functions."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

from rsttrace.compare.match import FlowMatch, Stray
from rsttrace.compare.survey import FlowPackets, Sighting
from rsttrace.model import Endpoint, Point
from rsttrace.tcp import ACK, RST, distance

PSH = 8
"""Segmentation and reassembly by network cards move it: it is not compared."""

DUPLICATE_NS = 10_000_000
"""The same packet again within this time was captured twice, not sent twice: the least
retransmission timeout in use is 200 ms (TCP_RTO_MIN, include/net/tcp.h)."""

DOUBLED = 0.8
"""A capture that has this share of a connection's packets twice has its resets twice too."""

ORIENTED = 3
"""Packets each way from which times tell which point is nearer to which end."""


_Key = tuple[Optional[int], ...]


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

    `packets` is what each point's capture holds of it, `strays` which of these packets, by frame,
    have other addresses and are the connection's all the same. `only` were seen at one point only;
    `split` at both, cut up in another way (by network cards). `resets` has each RST once, `again`
    the frames in which a mirror port showed one again, by its first frame. `ids_kept` says for each
    way whether IP IDs are the same at both points. `toward` is the way that leads to each point;
    empty: that cannot be told.
    """

    match: FlowMatch
    packets: dict[Point, FlowPackets | None]
    matches: list[PacketMatch] = field(default_factory=list)
    only: dict[Point, list[Sighting]] = field(default_factory=dict)
    split: dict[Point, list[Sighting]] = field(default_factory=dict)
    resets: dict[Point, list[Sighting]] = field(default_factory=dict)
    ids_kept: list[bool] = field(default_factory=lambda: [False, False])
    toward: dict[Point, int] = field(default_factory=dict)
    strays: dict[tuple[Point, int], Stray] = field(default_factory=dict)
    again: dict[tuple[Point, int], list[int]] = field(default_factory=dict)

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

    def source(self, point: Point, sighting: Sighting) -> Endpoint:
        """A packet's own source, as the point saw it."""
        return self._end(point, sighting, sighting.way)

    def destination(self, point: Point, sighting: Sighting) -> Endpoint:
        """A packet's own destination, as the point saw it."""
        return self._end(point, sighting, 1 - sighting.way)

    def _end(self, point: Point, sighting: Sighting, way: int) -> Endpoint:
        stray = self.strays.get((point, sighting.frame))
        return self.sender(point, way) if stray is None else stray.flow.ends[way ^ stray.flip]


def join(
    match: FlowMatch,
    packets: dict[Point, FlowPackets | None],
    strays: Iterable[tuple[Stray, FlowPackets]] = (),
) -> JoinedFlow:
    """Match the packets of one connection; `strays` are what may be packets of it, too."""
    made = JoinedFlow(match, packets)
    seen = {point: _sightings(match, point, kept) for point, kept in packets.items()}
    _take_strays(made, seen, strays)
    left: dict[Point, list[Sighting]] = {}
    for point, sightings in seen.items():
        resets = [item for item in sightings if item.flags & RST]
        others = [item for item in sightings if not item.flags & RST]
        left[point] = _unique(others)
        doubled = len(others) - len(left[point]) >= DOUBLED * len(left[point]) > 0
        made.resets[point] = _unique(resets) if doubled else resets
        if doubled:
            _note_again(made, point, resets)
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


def _sightings(match: FlowMatch, point: Point, kept: FlowPackets | None) -> list[Sighting]:
    """A point's packets with ways and sequence numbers as at A."""
    shift = match.shift if point is Point.B else (0, 0)
    flip = match.flips(point)
    return [_turned(item, flip, shift) for item in kept.sightings] if kept else []


def _turned(sighting: Sighting, flip: bool, shift: tuple[int, int] = (0, 0)) -> Sighting:
    way = sighting.way ^ flip
    if not any(shift):
        return sighting._replace(way=way) if flip else sighting
    ack = sighting.ack - shift[1 - way] if sighting.flags & ACK else sighting.ack
    seq = (sighting.seq - shift[way]) & 0xFFFFFFFF
    return sighting._replace(way=way, seq=seq, ack=ack & 0xFFFFFFFF)


def _take_strays(
    made: JoinedFlow,
    seen: Mapping[Point, list[Sighting]],
    strays: Iterable[tuple[Stray, FlowPackets]],
) -> None:
    """Add to `seen` the packets with other addresses that are the connection's: one of them at
    least is at the other point, with the same numbers, and the connection's own addresses."""
    for stray, kept in strays:
        point = stray.point
        found = [_turned(item, stray.flip) for item in kept.sightings if stray.has(item.frame)]
        known = {_bare(item) for item in seen[point.other]} - {_bare(item) for item in seen[point]}
        if any(_bare(item) in known for item in found):
            seen[point].extend(found)
            seen[point].sort(key=lambda item: item.frame)
            made.strays.update({(point, item.frame): stray for item in found})


def _bare(sighting: Sighting) -> _Key:
    """What no box rewrites that translates addresses."""
    flags = sighting.flags & ~PSH
    return (sighting.way, sighting.seq, sighting.ack, flags, sighting.payload_len)


def _note_again(made: JoinedFlow, point: Point, resets: Iterable[Sighting]) -> None:
    """Keep which frames show a RST that was shown before."""
    firsts = {item.frame for item in made.resets[point]}
    newest: dict[_Key, int] = {}
    for item in resets:
        key = _whole(item)
        if item.frame in firsts:
            newest[key] = item.frame
        else:
            made.again.setdefault((point, newest[key]), []).append(item.frame)


def _whole(sighting: Sighting) -> _Key:
    flags = sighting.flags & ~PSH
    return (
        *(sighting.way, sighting.seq, sighting.ack, flags, sighting.payload_len),
        *(sighting.ip_id, sighting.digest),
    )


def _numbers(made: JoinedFlow, sighting: Sighting) -> _Key:
    """Without what boxes rewrite: options (MSS), and IP IDs unless this path keeps them."""
    ip_id = sighting.ip_id if made.ids_kept[sighting.way] else None
    return (*_bare(sighting), ip_id)


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
