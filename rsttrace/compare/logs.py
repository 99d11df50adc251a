"""Compares two points of which at least one is a log of rsttrace: by the resets alone. Pure.

A log has resets and no other packets. So it can say that a RST was sent there; that one was not
sent, it can make likely only; of lost packets it knows nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from rsttrace.compare.clocks import Tick, Timing, measure
from rsttrace.compare.position import ForgedReset, position_of
from rsttrace.compare.result import Result
from rsttrace.model import (
    NO_TIME,
    ComparedFlow,
    ComparedReset,
    Comparison,
    Endpoint,
    Fate,
    Kind,
    OtherEnd,
    Packet,
    Point,
    PointFile,
    Position,
)

Others = dict[tuple[Point, int], OtherEnd]
"""What the other point says of each RST, by its point and number."""


@dataclass(frozen=True)
class ResetSighting:
    """One RST as a point tells of it. `number` is what the point counts it by: entry or frame."""

    number: int
    time_ns: int
    kind: Kind
    local: Endpoint
    remote: Endpoint
    rst: Packet
    usual_ttl: int | None = None
    hops_peer: int | None = None

    @property
    def ports(self) -> frozenset[int]:
        """Its connection's ports."""
        return frozenset((self.rst.src.port, self.rst.dst.port))


class ResetMatch(NamedTuple):
    """One RST at both points."""

    a: ResetSighting
    b: ResetSighting


@dataclass
class PointResets:
    """All resets that a point tells of: a log's, or (`logged` is false) those of a capture.

    `lost` counts packets (a log's: resets) that the point itself says are missing, ``None`` where
    it does not tell; `kept` is false where some found no room. `runs` are the times from when until
    when it was watching, where it tells; `whole`: then nothing was filtered. `until_ns` is the time
    until which it went on, as the user says. `packets` counts a capture's TCP packets.
    """

    file: str
    logged: bool
    sightings: list[ResetSighting]
    lost: int | None = None
    kept: bool = True
    runs: Sequence[tuple[int, int]] = ()
    whole: bool = False
    until_ns: int | None = None
    problem: str | None = None
    packets: int | None = None

    @cached_property
    def watched(self) -> tuple[tuple[int, int], ...]:
        """From when until when it was surely watching."""
        first, last = self.first_ns, self.last_ns
        spans = list(self.runs)
        if not spans and first is not None and last is not None:
            spans = [(first, last)]
        if spans and self.until_ns is not None:
            start, end = max(spans, key=lambda span: span[1])
            spans[spans.index((start, end))] = (start, max(end, self.until_ns))
        return tuple(spans)

    @cached_property
    def addresses(self) -> frozenset[str]:
        """Its own addresses, as far as its resets show them."""
        return frozenset(item.local.ip for item in self.sightings)

    @cached_property
    def first_ns(self) -> int | None:
        """The time of the first one."""
        return min(self._times(), default=None)

    @cached_property
    def last_ns(self) -> int | None:
        """The time of the last one."""
        return max(self._times(), default=None)

    @cached_property
    def sends(self) -> bool:
        """Whether it tells of any RST that was sent there."""
        return any(item.kind.direction == "sent" for item in self.sightings)

    @cached_property
    def ports(self) -> frozenset[frozenset[int]]:
        """The ports of the connections that it tells of."""
        return frozenset(item.ports for item in self.sightings)

    def _times(self) -> list[int]:
        return [item.time_ns for item in self.sightings if item.time_ns != NO_TIME]


def compare_logs(points: Mapping[Point, PointResets]) -> Result:
    """Compare two points by their resets."""
    matches = _match(points[Point.A].sightings, points[Point.B].sightings)
    timing = measure(
        Tick(a.time_ns, b.time_ns - a.time_ns, a.kind.direction == "sent")
        for a, b in matches
        if NO_TIME not in (a.time_ns, b.time_ns)
    )
    matched: dict[tuple[Point, int], ResetSighting] = {}
    for a, b in matches:
        matched[Point.A, a.number], matched[Point.B, b.number] = b, a
    others: Others = {}
    for point, resets in points.items():
        for item in resets.sightings:
            same = matched.get((point, item.number))
            others[point, item.number] = _judge(point, item, same, points[point.other], timing)
    positions = _positions(points, others)
    for key, position in positions.items():
        others[key] = replace(others[key], where=position.text)
    notes = [
        "resets only were compared: a log has no other packets, so nothing is known of lost and "
        "swapped ones, and that a RST was not sent is likely at best"
    ]
    if timing is None:
        notes.append("no RST was seen at both ends: the clocks cannot be compared")
    comparison = Comparison(
        a=_file(Point.A, points[Point.A]),
        b=_file(Point.B, points[Point.B]),
        matched={},
        clocks=timing.clocks if timing else None,
        ab=None,
        ba=None,
        flows=_flows(points, others, positions),
        positions=tuple(Counter(positions.values()).most_common()),
        notes=tuple(notes),
    )
    return Result(comparison, others, timing)


def _file(point: Point, resets: PointResets) -> PointFile:
    return PointFile(
        point=point,
        file=resets.file,
        logged=resets.logged,
        packets=resets.packets,
        flows=None,
        resets=len(resets.sightings),
        first_ns=resets.first_ns,
        last_ns=resets.last_ns,
        problem=resets.problem,
        from_ns=min((start for start, _ in resets.watched), default=None),
        until_ns=max((end for _, end in resets.watched), default=None),
        dropped=resets.lost,
    )


def _key(sighting: ResetSighting) -> tuple[object, ...]:
    rst = sighting.rst
    return rst.seq, rst.ack, rst.flags, rst.payload_len, rst.ip_id


def _match(ours: Sequence[ResetSighting], theirs: Sequence[ResetSighting]) -> list[ResetMatch]:
    """The same RST, sent at one end and received at the other: by its own fields and a port."""
    waiting: dict[tuple[object, ...], list[ResetSighting]] = defaultdict(list)
    for sighting in sorted(theirs, key=lambda item: item.time_ns):
        waiting[_key(sighting)].append(sighting)
    matches = []
    for sighting in sorted(ours, key=lambda item: item.time_ns):
        candidates = (
            other
            for other in waiting.get(_key(sighting), ())
            if {sighting.kind.direction, other.kind.direction} == {"sent", "received"}
            and _same_ends(sighting, other)
        )
        other = next(candidates, None)
        if other is not None:
            waiting[_key(sighting)].remove(other)
            matches.append(ResetMatch(sighting, other))
    return matches


def _same_ends(one: ResetSighting, other: ResetSighting) -> bool:
    """Both ports the same, or (NAT) one of them with an address."""
    mine = (one.rst.src, one.rst.dst)
    others = (other.rst.src, other.rst.dst)
    ports = [a.port == b.port for a, b in zip(mine, others)]
    return all(ports) or any(a == b for a, b in zip(mine, others))


def _judge(
    point: Point,
    sighting: ResetSighting,
    same: ResetSighting | None,
    theirs: PointResets,
    timing: Timing | None,
) -> OtherEnd:
    """What the other point says of a RST: by its own resets, and the `same` one if it has it."""
    received = sighting.kind.direction == "received"
    silent = OtherEnd(Fate.UNKNOWN, point.other, theirs.file, logged=theirs.logged)
    if same is not None:
        frame = None if theirs.logged else same.number
        if not received:
            return replace(silent, fate=Fate.ARRIVED, frame=frame)
        firewall = theirs.logged and same.kind is Kind.SENT_NETFILTER
        own = theirs.logged and same.kind is not Kind.SENT_RAW
        if firewall:  # it writes in the peer's name, wherever it stands
            own = sighting.hops_peer == same.rst.ttl - sighting.rst.ttl
        why = "the other end says that it sent it"
        return replace(
            silent, fate=Fate.LEFT, why=why, frame=frame, at_sender=own, firewall=firewall
        )
    if not received:
        return replace(silent, why=f"{point.other} does not tell of it, which proves nothing")
    fate, why = _absent(point, sighting, theirs, timing)
    return replace(silent, fate=fate, why=why)


def _absent(
    point: Point, sighting: ResetSighting, theirs: PointResets, timing: Timing | None
) -> tuple[Fate, str]:
    """What it means that the other end does not tell of a RST that came in here."""
    there = point.other
    if timing is None:
        return Fate.UNKNOWN, "no RST was seen at both ends: the clocks cannot be compared"
    if sighting.time_ns == NO_TIME:
        return Fate.UNKNOWN, "it has no time"
    lower, upper = timing.clocks.lower, timing.clocks.upper
    if point is Point.A:
        ahead = lower if lower is not None else upper
    else:
        ahead = upper if upper is not None else lower
    assert ahead is not None
    moment = sighting.time_ns + (ahead if point is Point.A else -ahead)
    if not any(start <= moment <= end for start, end in theirs.watched):
        return Fate.UNKNOWN, f"{there} was not watching at that moment, as far as it tells"
    if theirs.lost or not theirs.kept:
        return Fate.UNKNOWN, f"{there} says that it has not everything: this may be missing"
    known = sighting.ports in theirs.ports
    if theirs.whole:
        if not known and sighting.rst.src.ip not in theirs.addresses:
            ip = sighting.rst.src.ip
            return Fate.UNKNOWN, f"{there} tells of no RST of {ip}: that may be another host"
        why = f"{there} was watching, without a filter, and lost nothing: it tells of no such RST"
        return Fate.NEVER_SENT, why
    if not theirs.sends:
        return Fate.UNKNOWN, f"{there} tells of no RST that it sent: it may be filtered"
    if not known:
        return Fate.UNKNOWN, f"{there} tells of no RST of this connection: it may be filtered"
    return (
        Fate.NEVER_SENT,
        f"{there} was watching, and tells of RSTs of this connection, and not of this one",
    )


def _positions(
    points: Mapping[Point, PointResets], others: Others
) -> dict[tuple[Point, int], Position]:
    """From the TTLs of resets that never left, and how far the ends say that they are apart."""
    found = {}
    for point, resets in points.items():
        twins = {
            (item.rst.src.port, item.rst.dst.port): item
            for item in points[point.other].sightings
            if others[point.other, item.number].fate is Fate.NEVER_SENT
        }
        for item in resets.sightings:
            if others[point, item.number].fate is not Fate.NEVER_SENT:
                continue
            twin = twins.get((item.rst.dst.port, item.rst.src.port))
            found[point, item.number] = position_of(
                ForgedReset(
                    point=point,
                    ttl=item.rst.ttl,
                    twin_ttl=twin.rst.ttl if twin is not None else None,
                    usual=item.usual_ttl,
                    usual_twin=twin.usual_ttl if twin is not None else None,
                    total=item.hops_peer,
                    total_twin=twin.hops_peer if twin is not None else None,
                    swapped=False,
                    delay_ns=None,
                    rtt_ns=None,
                    word="TTL" if item.rst.family == 4 else "hop limit",
                )
            )
    return found


def _flows(
    points: Mapping[Point, PointResets],
    others: Others,
    positions: Mapping[tuple[Point, int], Position],
) -> tuple[ComparedFlow, ...]:
    """The connections, by their addresses and ports."""
    rows: dict[frozenset[Endpoint], list[ComparedReset]] = {}
    ends: dict[frozenset[Endpoint], dict[Point, tuple[Endpoint, Endpoint]]] = {}
    for point, resets in points.items():
        for item in resets.sightings:
            key = frozenset((item.local, item.remote))
            near, far = item.local, item.remote
            ends.setdefault(key, {})[point] = (near, far) if point is Point.A else (far, near)
            rows.setdefault(key, []).append(
                ComparedReset(
                    point=point,
                    frame=None if resets.logged else item.number,
                    received=item.kind.direction == "received",
                    src=item.rst.src,
                    dst=item.rst.dst,
                    other=others[point, item.number],
                    position=positions.get((point, item.number)),
                )
            )
    made = []
    for key, compared in rows.items():
        both = len(ends[key]) == 2
        text = "the same addresses and ports at both points" if both else "seen at one point only"
        made.append(
            ComparedFlow(
                a=ends[key].get(Point.A),
                b=ends[key].get(Point.B),
                how="addresses" if both else "one-sided",
                sure="possible" if both else "unknown",
                text=text,
                resets=tuple(compared),
            )
        )
    return tuple(made)
