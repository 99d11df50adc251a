"""Two captures of the same connections: what left one point and what arrived at the other. Pure."""

from __future__ import annotations

import bisect
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from rsttrace.compare.clocks import Tick, Timing, measure
from rsttrace.compare.coverage import Coverage
from rsttrace.compare.escapes import escape_words, escapes_of
from rsttrace.compare.fates import JudgedReset, judge_resets
from rsttrace.compare.join import JoinedFlow
from rsttrace.compare.position import ForgedReset, position_of
from rsttrace.compare.result import Result
from rsttrace.compare.survey import Survey
from rsttrace.model import (
    ComparedFlow,
    ComparedReset,
    Comparison,
    Endpoint,
    Escape,
    Fate,
    Point,
    PointFile,
    Position,
    Traffic,
)

TWIN_NS = 3_000_000_000
"""Resets to both ends within this time were made together."""


def compare(
    surveys: Mapping[Point, Survey],
    flows: Sequence[JoinedFlow],
    matched: Counter[str],
    notes: Iterable[str] = (),
) -> Result:
    """Compare two captures. `flows` are the connections whose packets were gathered."""
    timing = measure(_ticks(flows))
    coverage = Coverage(surveys, flows, timing)
    hops = {point: _hops(flows, point) for point in Point}
    judged = [judge_resets(flow, coverage) for flow in flows]
    escapes = [escapes_of(flow) for flow in flows]
    for flow, resets, escaped in zip(flows, judged, escapes):
        _add_positions(resets, timing, hops)
        _add_escapes(flow, resets, escaped)
    every = [item for resets in judged for item in resets]
    traffic = {
        point: None if timing is None else _traffic(point, flows, coverage, every, hops[point])
        for point in Point
    }
    near = _near(flows)
    comparison = Comparison(
        a=_file(Point.A, surveys[Point.A], near[Point.A]),
        b=_file(Point.B, surveys[Point.B], near[Point.B]),
        matched=dict(matched),
        clocks=timing.clocks if timing else None,
        ab=traffic[Point.A],
        ba=traffic[Point.B],
        flows=tuple(
            _flow(flow, resets, escaped)
            for flow, resets, escaped in zip(flows, judged, escapes)
            if resets or escaped
        ),
        positions=_counted(item.position for item in every if item.position is not None),
        notes=(*notes, *_notes(surveys, flows, timing)),
    )
    others = {
        (item.point, frame): item.other
        for item in every
        for frame in (
            item.sighting.frame,
            *item.flow.again.get((item.point, item.sighting.frame), ()),
        )
    }
    return Result(comparison, others, timing, near)


def _ticks(flows: Iterable[JoinedFlow]) -> Iterable[Tick]:
    for flow in flows:
        if flow.toward:
            for match in flow.matches:
                if match.exact:
                    difference = match.b.time_ns - match.a.time_ns
                    yield Tick(match.a.time_ns, difference, match.way == flow.toward[Point.B])


def _file(point: Point, survey: Survey, near: frozenset[str]) -> PointFile:
    watched = survey.span()
    return PointFile(
        point=point,
        file=survey.file,
        logged=False,
        packets=survey.packets,
        flows=len(survey.flows) + survey.forgotten,
        resets=sum(flow.resets for flow in survey.flows),
        first_ns=survey.first_ns,
        last_ns=survey.last_ns,
        problem=survey.problem,
        address=next(iter(near)) if len(near) == 1 else None,
        from_ns=watched[0] if watched else None,
        until_ns=watched[1] if watched else None,
        dropped=survey.dropped(),
    )


# ---- where forged resets were made ----


def _add_positions(
    resets: Sequence[JudgedReset], timing: Timing | None, hops: Mapping[Point, int | None]
) -> None:
    """Say where the forged resets of one connection were made."""

    def moment(item: JudgedReset) -> int:
        """When it came in, by A's clock."""
        time_ns = item.sighting.time_ns
        return time_ns if timing is None else timing.by_a(item.point, time_ns)

    forged: dict[Point, list[tuple[int, JudgedReset]]] = {point: [] for point in Point}
    for item in resets:
        if item.other.fate is Fate.NEVER_SENT:
            forged[item.point].append((moment(item), item))
    for items in forged.values():
        items.sort(key=lambda row: row[0])
    round_trip = None if timing is None else timing.round_trip()
    for point, items in forged.items():
        for at_ns, item in items:
            twin = _twin(at_ns, forged[point.other])
            item.position = position_of(_forged(item, twin, round_trip, hops))
            item.other = replace(item.other, where=item.position.text)


def _add_escapes(
    flow: JoinedFlow, resets: Sequence[JudgedReset], escapes: Sequence[Escape]
) -> None:
    """Say of which resets a packet that escaped NAT is the cause: at the point that saw it, and of
    the same RST at the other one."""
    words = escape_words(flow, escapes)
    for item in resets:
        partner = (item.point.other, item.other.frame or 0)
        said = words.get((item.point, item.sighting.frame)) or words.get(partner)
        if said:
            item.other = replace(item.other, escaped=said)


def _twin(at_ns: int, others: Sequence[tuple[int, JudgedReset]]) -> JudgedReset | None:
    """The forged RST at the other point that was made together with one that came in then."""
    after = bisect.bisect([time_ns for time_ns, _ in others], at_ns)
    near = others[max(0, after - 1) : after + 1]
    found = min(near, key=lambda row: abs(row[0] - at_ns), default=None)
    return None if found is None or abs(found[0] - at_ns) > TWIN_NS else found[1]


def _forged(
    item: JudgedReset,
    twin: JudgedReset | None,
    round_trip: int | None,
    hops: Mapping[Point, int | None],
) -> ForgedReset:
    flow, point, way = item.flow, item.point, item.sighting.way
    return ForgedReset(
        point=point,
        ttl=item.sighting.ttl,
        twin_ttl=twin.sighting.ttl if twin is not None else None,
        usual=_usual(flow, point, way),
        usual_twin=_usual(flow, point.other, 1 - way),
        total=_between(flow, point, hops),
        total_twin=_between(flow, point.other, hops),
        swapped=item.other.swapped_frame is not None and item.other.swapped_sure,
        delay_ns=item.delay_ns,
        rtt_ns=round_trip,
        word="hop limit" if item.sighting.ip_id is None else "TTL",
    )


def _usual(flow: JoinedFlow, point: Point, way: int) -> int | None:
    """The TTL that the real sender's packets arrive with."""
    found = flow.ttls(point, way)
    return statistics.mode(found) if found else None


def _between(flow: JoinedFlow, point: Point, hops: Mapping[Point, int | None]) -> int | None:
    """Routers from the other point to this one: on this connection's path, else on others'."""
    deltas = flow.deltas(flow.toward[point])
    return abs(statistics.mode(deltas)) if deltas else hops[point.other]


def _counted(positions: Iterable[Position]) -> tuple[tuple[Position, int], ...]:
    """Each position with how many resets were made there, the most frequent first."""
    counts: Counter[tuple[object, ...]] = Counter()
    known: dict[tuple[object, ...], Position] = {}
    for position in positions:
        key = (
            *(position.from_a, position.from_b, position.total),
            *(position.kind, position.sure),
        )
        counts[key] += 1
        if key not in known or known[key].within is None:
            known[key] = position
    return tuple((known[key], count) for key, count in counts.most_common())


# ---- sums ----


def _hops(flows: Iterable[JoinedFlow], point: Point) -> int | None:
    """Routers from a point to the other: the median over all packets seen at both."""
    sign = 1 if point is Point.A else -1
    deltas = [
        sign * delta
        for flow in flows
        if flow.toward
        for delta in flow.deltas(flow.toward[point.other])
    ]
    if not deltas:
        return None
    middle = round(statistics.median(deltas))
    return middle if middle >= 0 else None


def _traffic(
    point: Point,
    flows: Iterable[JoinedFlow],
    coverage: Coverage,
    judged: Iterable[JudgedReset],
    hops: int | None,
) -> Traffic:
    """The packets that left a point for the other."""
    arrived = lost = injected = swapped = 0
    for flow in flows:
        if not flow.toward:
            continue
        way = flow.toward[point.other]
        arrived += len(flow.of_way(way)) + sum(item.way == way for item in flow.split[point])
        lost += len(coverage.lost(flow, point))
        strangers = coverage.phantoms(flow, point.other)
        injected += len(strangers)
        gone = {item.telling_id for item in flow.only[point] if item.way == way} - {None}
        swapped += sum(item.ip_id in gone for item in strangers)
    swapped += sum(
        item.other.swapped_frame is not None and item.other.swapped_sure
        for item in judged
        if item.point is not point and item.received
    )
    return Traffic(arrived + lost, arrived, lost, injected, swapped, hops)


def _near(flows: Iterable[JoinedFlow]) -> dict[Point, frozenset[str]]:
    """The addresses behind A and those behind B, each as it sees them; not those of both."""
    near: dict[Point, set[str]] = {point: set() for point in Point}
    far: dict[Point, set[str]] = {point: set() for point in Point}
    for flow in flows:
        for point, way in flow.toward.items():
            near[point].add(flow.sender(point, 1 - way).ip)
            far[point].add(flow.sender(point, way).ip)
    return {
        point: frozenset() if near[point] & far[point] else frozenset(near[point])
        for point in Point
    }


def _notes(
    surveys: Mapping[Point, Survey], flows: Sequence[JoinedFlow], timing: Timing | None
) -> list[str]:
    """What could not be known, in sentences."""
    lines = [
        f"{survey.forgotten} connections at {point} found no room (--flows)"
        for point, survey in surveys.items()
        if survey.forgotten
    ]
    if timing is None:
        if flows:
            lines.append("no packet was seen at both points: nothing can be compared")
        return lines
    clocks = timing.clocks
    if not clocks.steady:
        lines.append("packets contradict each other in time: a clock was set in between")
    if not (clocks.from_a and clocks.from_b):
        came = "A to B" if clocks.from_a else "B to A"
        lines.append(
            f"packets from {came} only were seen at both points: the clocks' difference "
            "is known as a bound only"
        )
    return lines


# ---- connections ----


def _flow(
    flow: JoinedFlow, resets: Sequence[JudgedReset], escapes: Sequence[Escape]
) -> ComparedFlow:
    match = flow.match
    a, b = (_ends(flow, point) for point in Point)
    if a and b and match.a and match.b and match.a.opener is None and match.flip:
        b = (b[1], b[0])
    return ComparedFlow(
        a=a,
        b=b,
        how=match.how,
        sure=match.sure,
        text=match.text,
        resets=tuple(
            ComparedReset(
                point=item.point,
                frame=item.sighting.frame,
                received=item.received,
                src=flow.source(item.point, item.sighting),
                dst=flow.destination(item.point, item.sighting),
                other=item.other,
                position=item.position,
            )
            for item in resets
        ),
        escapes=tuple(escapes),
    )


def _ends(flow: JoinedFlow, point: Point) -> tuple[Endpoint, Endpoint] | None:
    """The ends as a point sees them, the one that opened the connection first."""
    seen = flow.match.at(point)
    if seen is None:
        return None
    first = seen.opener or 0
    return seen.ends[first], seen.ends[1 - first]
