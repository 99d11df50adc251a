"""What two captures must have seen of each other's packets, and what they lack. Pure.

Below, `point` saw a packet come in, and the other point is the watcher: if it watched the whole
time, a packet that it did not see never passed it.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from rsttrace.compare.clocks import Timing
from rsttrace.compare.join import JoinedFlow
from rsttrace.compare.survey import FlowSummary, Mark, Sighting, Survey
from rsttrace.model import Endpoint, Point, hops
from rsttrace.tcp import ACK, RST, SYN, advance, before, latest

TTL_SLACK = 2
"""The hops between the points may change by so much for one packet (a reroute)."""

FEWEST = 4
"""Packets seen at both points, from which on it can be said that a capture misses none."""

MISSED = 0.05
"""A capture that lacks more than this share of what passed proves nothing by what it lacks."""


class Coverage:
    """What the compared connections say of the two captures, all together."""

    def __init__(
        self,
        surveys: Mapping[Point, Survey],
        flows: Sequence[JoinedFlow],
        timing: Timing | None,
    ) -> None:
        self.surveys = surveys
        self.timing = timing
        self._matches = sum(len(flow.matches) for flow in flows)
        self._sent: Counter[tuple[Point, Endpoint]] = Counter()
        self._talks: dict[Point, set[Endpoint]] = {point: set() for point in Point}
        for flow in flows:
            for item in flow.matches:
                if not item.a.flags & SYN:
                    for point in Point:
                        self._talks[point].add(flow.sender(point, item.way))
        self._resets: dict[Point, dict[tuple[int, int], list[FlowSummary]]] = {}
        for point, survey in surveys.items():
            found = self._resets[point] = defaultdict(list)
            for summary in survey.flows:
                for mark in summary.marks:
                    found[_numbers(mark)].append(summary)
        self._phantoms: dict[tuple[int, Point], list[Sighting]] = {}
        for flow in flows:
            for point, way in flow.toward.items():
                sender = flow.sender(point.other, way)
                self._sent[point.other, sender] += len(flow.of_way(way))
        self._missed = {
            point: sum(
                len(self._lacking(flow, point)) + self._holes(flow, point.other) for flow in flows
            )
            for point in Point
        }

    def departure(self, point: Point, sighting: Sighting) -> tuple[int, int] | None:
        """When a packet that came in at a point left the other: see `Timing.departure`."""
        return None if self.timing is None else self.timing.departure(point, sighting.time_ns)

    def arrival(self, point: Point, sighting: Sighting) -> tuple[int, int] | None:
        """When a packet that left a point comes to the other: see `Timing.arrival`."""
        return None if self.timing is None else self.timing.arrival(point, sighting.time_ns)

    def gap(self, flow: JoinedFlow, point: Point, span: tuple[int, int] | None) -> str:
        """Why a point's capture may lack what passed in `span` of its clock; empty: it does not."""
        survey, kept = self.surveys[point], flow.packets[point]
        if kept is None:
            return f"{point}'s capture shows nothing of this connection"
        if span is None:
            return "too few packets were seen at both points to compare the clocks"
        watched = survey.span(kept.flow)
        if watched is None or span[0] < watched[0]:
            return f"{point}'s capture begins only after that moment"
        if span[1] > watched[1]:
            return f"{point}'s capture ends before that moment, as far as it tells"
        if dropped := survey.dropped(kept.flow):
            lost = "1 packet was" if dropped == 1 else f"{dropped} packets were"
            return f"{lost} lost while {point} captured, as its file says: it may be one of them"
        if not kept.covers(*span):
            return f"too many packets of this connection at {point}: those were not kept"
        return ""

    def lost(self, flow: JoinedFlow, point: Point) -> list[Sighting]:
        """Packets that left a point and never arrived while the other one watched: resets apart."""
        way = flow.toward[point.other]
        return [
            sighting
            for sighting in flow.only[point]
            if sighting.way == way
            and not self.gap(flow, point.other, self.arrival(point, sighting))
        ]

    def phantoms(self, flow: JoinedFlow, point: Point) -> list[Sighting]:
        """Packets that came in at a point and that the watcher never saw: resets apart."""
        if not flow.toward:
            return []
        known = self._phantoms.get((id(flow), point))
        if known is None:
            way = flow.toward[point]
            known = self._phantoms[id(flow), point] = [
                sighting
                for sighting in flow.only[point]
                if sighting.way == way
                and not self.gap(flow, point.other, self.departure(point, sighting))
            ]
        return known

    def unwatched(self, flow: JoinedFlow, sighting: Sighting, point: Point) -> str:
        """Why the watcher may have missed a RST that was seen at `point`, coming in or leaving;
        empty: it cannot have."""
        watcher, way = point.other, sighting.way
        came = way == flow.toward[point]
        span = (self.departure if came else self.arrival)(point, sighting)
        if gap := self.gap(flow, watcher, span):
            return gap
        if self.timing is not None and not self.timing.steady_at(
            self.timing.by_a(point, sighting.time_ns)
        ):
            return "a clock was set while the captures ran: moments cannot be compared"
        if not self._shows(flow, watcher, way):
            return f"{watcher}'s capture shows no packet of that direction"
        if not self._shows_more_than_syns(flow, watcher):
            return f"{watcher}'s capture shows SYNs only: it may have been filtered"
        if self._matches < FEWEST:
            return "too few packets were seen at both points"
        if self._holes(flow, watcher):
            return f"{watcher}'s capture lacks data that its end acknowledged: it lost packets"
        missed_here = len(self._lacking(flow, point))
        here = len(flow.of_way(flow.toward[point]))
        if missed_here > MISSED * here or self._missed[point] > MISSED * self._matches:
            return f"{watcher}'s capture lacks other packets too that arrived at {point}"
        return ""

    def elsewhere(self, flow: JoinedFlow, sighting: Sighting, point: Point) -> str:
        """Where the watcher shows a RST with the numbers of one that came in at `point`, if it does
        so in packets that it takes for another connection; empty: nowhere."""
        own = flow.match.at(point.other)
        way = sighting.way
        shift = flow.match.shift if point is Point.A else (0, 0)
        number = Mark(way, advance(sighting.seq, shift[way]), sighting.ack)
        for other in self._resets[point.other].get(_numbers(number), ()):
            if other is not own and not any(s.flow is other for s in flow.strays.values()):
                ends = f"{other.ends[0]} and {other.ends[1]}"
                return f"{point.other} shows a RST with its numbers between {ends}: it may be that"
        return ""

    def _shows(self, flow: JoinedFlow, watcher: Point, way: int) -> bool:
        """Whether a capture shows packets of this direction: of this connection, or of others of
        the same sender while it shows this connection's other direction."""
        kept, flip = flow.packets[watcher], flow.match.flips(watcher)
        if kept is not None and any(
            item.way ^ flip == way and not item.flags & RST for item in kept.sightings
        ):
            return True
        return bool(self._sent[watcher, flow.sender(watcher, way)] and flow.of_way(1 - way))

    def _shows_more_than_syns(self, flow: JoinedFlow, watcher: Point) -> bool:
        """Whether a capture shows packets after the handshake: of this connection, or of the same
        sender's others. One that was filtered for SYNs has no resets either."""
        senders = {flow.sender(watcher, way) for way in (0, 1)}
        return any(sender in self._talks[watcher] for sender in senders)

    def _lacking(self, flow: JoinedFlow, point: Point) -> list[Sighting]:
        """What came from the usual distance and the watcher lacks: it was not injected."""
        return [item for item in self.phantoms(flow, point) if not _strange(flow, item, point)]

    def _holes(self, flow: JoinedFlow, watcher: Point) -> int:
        """How many packets with data passed the watcher, whose capture lacks them: the end behind
        it has acknowledged their last byte."""
        if not flow.toward:
            return 0
        way = flow.toward[watcher]
        acks = [item.ack for item in flow.seen(watcher) if item.way != way and item.flags & ACK]
        if not acks:
            return 0
        newest = functools.reduce(latest, acks)
        return sum(
            not before(newest, item.end)
            for item in flow.only[watcher.other]
            if item.way == way
            and item.payload_len
            and not self.gap(flow, watcher, self.arrival(watcher.other, item))
        )


def _numbers(mark: Mark) -> tuple[int, int]:
    """What tells one RST from others: without a socket it answers a SYN with the number 0."""
    return (mark.seq, 0) if mark.seq else (0, mark.ack)


def _strange(flow: JoinedFlow, sighting: Sighting, point: Point) -> bool:
    """Whether a packet comes from another distance than those that were seen to leave."""
    usual = flow.ttls(point, flow.toward[point])
    return bool(usual) and all(abs(hops(sighting.ttl) - hops(ttl)) > TTL_SLACK for ttl in usual)
