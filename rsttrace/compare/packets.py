"""Two captures of the same connections: what left one point and what arrived at the other. Pure.

Below, `P` is the point that saw a RST come in, `O` the other one. A RST that P received must have
passed O, if the connection's packets do. If O's capture shows them and not the RST, it was made in
between: proof. Where O may have missed it, nothing is said.
"""

from __future__ import annotations

import bisect
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from rsttrace.capture.flows import RST
from rsttrace.compare.clocks import Tick, Timing, measure
from rsttrace.compare.match import PSH, Joined
from rsttrace.compare.position import Reading, place
from rsttrace.compare.survey import Record, Sight, Survey
from rsttrace.model import (
    ComparedFlow,
    ComparedReset,
    Comparison,
    Endpoint,
    Fate,
    OtherEnd,
    Point,
    Position,
    Way,
    hops,
)

SLACK_NS = 20_000
"""Time stamps of one packet may differ by so much from when it passed."""

LATE_NS = 60_000_000_000
"""No RST is on its way for longer (RFC 9293 §3.4.1: twice that is the longest life)."""

TTL_SLACK = 2
"""The hops between the points may change by so much for one packet (a reroute)."""

FEWEST = 4
"""Packets seen at both points, from which on it can be said that a capture misses none."""

MISSED = 0.05
"""A capture that lacks more than this share of what passed proves nothing by what it lacks."""

TWIN_NS = 3_000_000_000
"""Resets to both ends within this time were made together."""

SWAP_NS = 1_000_000_000
"""How much longer than usual a packet may have taken that became a RST on its way."""


@dataclass
class Found:
    """One RST at a point: `sight` with ways as A counts them, and what is said of it."""

    joined: Joined
    point: str
    sight: Sight
    received: bool | None
    other: OtherEnd
    trigger: Sight | None = None
    delay_ns: int | None = None
    position: Position | None = None


@dataclass
class Result:
    """`comparison` for the reader; `resets` by point and frame, to be added to the entries.

    `timing` puts B's times on A's clock; ``None`` where the clocks cannot be compared.
    """

    comparison: Comparison
    resets: dict[tuple[str, int], OtherEnd] = field(default_factory=dict)
    near_a: frozenset[str] = frozenset()
    near_b: frozenset[str] = frozenset()
    timing: Timing | None = None


def compare(
    surveys: Sequence[Survey],
    joined: Sequence[Joined],
    matched: Counter[str],
    notes: Iterable[str] = (),
) -> Result:
    """Compare two captures. `joined` are the connections whose packets were gathered."""
    timing = measure(_ticks(joined))
    bench = _Bench(surveys, joined, timing)
    by_flow = {id(each): bench.resets(each) for each in joined}
    for items in by_flow.values():
        _place_all(bench, items)
    found = [item for items in by_flow.values() for item in items]
    ab, ba = bench.way("A", found), bench.way("B", found)
    positions = _by_place(item.position for item in found if item.position is not None)
    near = bench.near()
    points = [
        Point(
            name=name,
            file=survey.name,
            logged=False,
            packets=survey.packets,
            flows=len(survey.briefs) + survey.forgotten,
            resets=sum(brief.resets for brief in survey.briefs),
            first_ns=survey.first_ns,
            last_ns=survey.last_ns,
            problem=survey.problem,
            address=next(iter(addresses)) if len(addresses) == 1 else None,
        )
        for name, survey, addresses in zip("AB", surveys, near)
    ]
    comparison = Comparison(
        a=points[0],
        b=points[1],
        matched=dict(matched),
        clocks=timing.clocks if timing else None,
        ab=ab,
        ba=ba,
        flows=tuple(
            _flow(each, by_flow[id(each)]) for each in joined if each.resets_a or each.resets_b
        ),
        positions=positions,
        notes=(*notes, *bench.notes()),
    )
    return Result(
        comparison,
        {(item.point, item.sight.frame): item.other for item in found},
        near[0],
        near[1],
        timing,
    )


def _ticks(joined: Iterable[Joined]) -> Iterable[Tick]:
    for each in joined:
        if each.toward_b is not None:
            for pair in each.pairs:
                if pair.exact:
                    difference = pair.b.time_ns - pair.a.time_ns
                    yield Tick(pair.a.time_ns, difference, pair.a.way == each.toward_b)


class _Bench:
    """What all the connections together say, and the judgement of each RST by it."""

    def __init__(
        self, surveys: Sequence[Survey], joined: Sequence[Joined], timing: Timing | None
    ) -> None:
        self._surveys = surveys
        self._joined = joined
        self._timing = timing
        self._pairs = sum(len(each.pairs) for each in joined)
        self._sends: Counter[tuple[str, Endpoint]] = Counter()
        self._deltas: dict[tuple[int, int], frozenset[int]] = {}
        self._phantoms: dict[tuple[int, str], list[Sight]] = {}
        for each in joined:
            if each.toward_b is None:
                continue
            for pair in each.pairs:
                point = "A" if pair.a.way == each.toward_b else "B"
                self._sends[point, _source(each, point, pair.a.way)] += 1
        # What arrived from the usual distance and had not left, by the point that it arrived at.
        self._missed = {
            point: sum(
                not self._strange(each, sight, point)
                for each in joined
                for sight in self.phantoms(each, point)
            )
            for point in "AB"
        }

    # ---- times ----

    def _bounds(self, sight: Sight, point: str) -> tuple[int | None, int | None]:
        """Bounds of what B's clock is ahead, at the time of a packet at a point."""
        if self._timing is None:
            return None, None
        return self._timing.bounds(self._a_ns(sight, point))

    def _a_ns(self, sight: Sight, point: str) -> int:
        """When a packet was seen at a point, by A's clock."""
        if point == "A" or self._timing is None:
            return sight.time_ns
        return self._timing.to_a(sight.time_ns)

    def _departure(self, sight: Sight, point: str) -> tuple[int, int] | None:
        """When a packet that came in at P passed O, by O's clock: (earliest, latest).

        The latest is exact: it took no less than the fastest packet of its direction.
        """
        lower, upper = self._bounds(sight, point)
        if self._timing is None:
            return None
        if point == "A":
            if lower is None:
                return None
            latest, slowest = sight.time_ns + lower, self._timing.slowest[1]
        else:
            if upper is None:
                return None
            latest, slowest = sight.time_ns - upper, self._timing.slowest[0]
        return latest - slowest, latest

    def _arrival(self, sight: Sight, point: str) -> tuple[int, int] | None:
        """When a packet that left P passes O, by O's clock, if it arrives: (earliest, latest)."""
        lower, upper = self._bounds(sight, point)
        if self._timing is None:
            return None
        if point == "A":
            if upper is None:
                return None
            return sight.time_ns + upper, sight.time_ns + upper + self._timing.slowest[0]
        if lower is None:
            return None
        return sight.time_ns - lower, sight.time_ns - lower + self._timing.slowest[1]

    def _feasible(self, a: Sight, b: Sight, to_b: bool) -> bool:
        """Whether b may be a, on its way: it does not arrive before it left."""
        lower, upper = self._bounds(a, "A")
        difference = b.time_ns - a.time_ns
        if to_b:
            early = lower is not None and difference < lower - SLACK_NS
            late = upper is not None and difference > upper + LATE_NS
        else:
            early = upper is not None and difference > upper + SLACK_NS
            late = lower is not None and difference < lower - LATE_NS
        return not early and not late

    # ---- what the captures hold ----

    def _gap(self, each: Joined, point: str, span: tuple[int, int] | None) -> str:
        """Why point O's capture may lack what passed in `span` of its clock; empty: it does not."""
        survey, record = self._of(each, point)
        if record is None:
            return f"{point}'s capture shows nothing of this connection"
        if span is None:
            return "too few packets were seen at both points to compare the clocks"
        if survey.first_ns is None or survey.last_ns is None or span[0] < survey.first_ns:
            return f"{point}'s capture begins only after that moment"
        if span[1] > survey.last_ns:
            return f"{point}'s capture ends before that moment"
        if not record.covers(*span):
            return f"too many packets of this connection at {point}: those were not kept"
        return ""

    def _of(self, each: Joined, point: str) -> tuple[Survey, Record | None]:
        return (self._surveys[0], each.a) if point == "A" else (self._surveys[1], each.b)

    def phantoms(self, each: Joined, point: str) -> list[Sight]:
        """Packets that came in at P while O watched, that O never saw: resets apart."""
        if each.toward_b is None:
            return []
        known = self._phantoms.get((id(each), point))
        if known is None:
            way, sights = self._incoming(each, point), each.only_a if point == "A" else each.only_b
            known = self._phantoms[id(each), point] = [
                sight
                for sight in sights
                if sight.way == way
                and not self._gap(each, _other(point), self._departure(sight, point))
            ]
        return known

    def _incoming(self, each: Joined, point: str) -> int:
        assert each.toward_b is not None
        return 1 - each.toward_b if point == "A" else each.toward_b

    def _unwatched(self, each: Joined, sight: Sight, point: str) -> str:
        """Why O may have missed a RST that came in at P; empty: it cannot have."""
        watcher, way = _other(point), self._incoming(each, point)
        if gap := self._gap(each, watcher, self._departure(sight, point)):
            return gap
        if self._timing is not None and not self._timing.steady_at(self._a_ns(sight, point)):
            return "a clock was set while the captures ran: moments cannot be compared"
        record = self._of(each, watcher)[1]
        assert record is not None
        flip = each.match.flip and watcher == "B"
        sent = any(s.way ^ flip == way and not s.flags & RST for s in record.sights)
        known = self._sends[watcher, _source(each, watcher, way)]
        if not sent and not (known and any(pair.a.way != way for pair in each.pairs)):
            return f"{watcher}'s capture shows no packet of that direction"
        if self._pairs < FEWEST:
            return "too few packets were seen at both points"
        mine = [s for s in self.phantoms(each, point) if not self._strange(each, s, point)]
        pairs = sum(pair.a.way == way for pair in each.pairs)
        if len(mine) > MISSED * pairs or self._missed[point] > MISSED * self._pairs:
            return f"{watcher}'s capture lacks other packets too that arrived at {point}"
        return ""

    def _strange(self, each: Joined, sight: Sight, point: str) -> bool:
        """Whether a packet comes from another distance than those that O saw leave: injected."""
        way = self._incoming(each, point)
        usual = [(p.a if point == "A" else p.b).ttl for p in each.pairs if p.a.way == way]
        return bool(usual) and all(abs(hops(sight.ttl) - hops(t)) > TTL_SLACK for t in usual)

    # ---- resets ----

    def resets(self, each: Joined) -> list[Found]:
        """Every RST of a connection at either point."""
        if each.toward_b is None or each.a is None or each.b is None:
            why = each.match.text
            if each.a is not None and each.b is not None:
                why = "it cannot be told which point is nearer to which end"
            return [
                Found(each, point, sight, None, self._say(Fate.UNKNOWN, point, why=why))
                for point, sights in (("A", each.resets_a), ("B", each.resets_b))
                for sight in sights
            ]
        partners, altered = self._partners(each)
        found = []
        for point, sights in (("A", each.resets_a), ("B", each.resets_b)):
            for sight in sights:
                received = sight.way == self._incoming(each, point)
                partner = partners.get((point, sight.frame))
                item = Found(each, point, sight, received, self._say(Fate.UNKNOWN, point))
                if received:
                    self._received(item, partner, partners, (point, sight.frame) in altered)
                else:
                    self._sent(item, partner)
                found.append(item)
        return found

    def _say(self, fate: Fate, point: str, **more: object) -> OtherEnd:
        survey = self._surveys["BA".index(point)]
        return OtherEnd(fate, _other(point), survey.name, **more)  # type: ignore[arg-type]

    def _received(
        self,
        item: Found,
        partner: Sight | None,
        partners: dict[tuple[str, int], Sight],
        altered: bool,
    ) -> None:
        each, point, sight = item.joined, item.point, item.sight
        watcher = _other(point)
        self._find_trigger(item)
        arrived = self._trigger_arrived(item)
        if partner is not None:
            own = not altered and self._at_sender(each, partner, watcher)
            where = "the sending host itself" if own else f"{watcher}"
            why = f"seen leaving {where}" + (", with other numbers" if altered else "")
            item.other = self._say(
                Fate.LEFT,
                point,
                frame=partner.frame,
                at_sender=own,
                why=why,
                trigger_arrived=arrived,
            )
            return
        if self._lookalike(each, sight, point, partners):
            why = f"{watcher} sent another one just like it: they cannot be told apart"
            item.other = self._say(Fate.UNKNOWN, point, why=why, trigger_arrived=arrived)
            return
        if self._altered(each, sight, point, partners):
            why = f"{watcher} sent a RST then too, with other numbers: it may be that one, altered"
            item.other = self._say(Fate.UNKNOWN, point, why=why, trigger_arrived=arrived)
            return
        swapped, sure = self._swapped(each, sight, point)
        why = "" if swapped is not None and sure else self._unwatched(each, sight, point)
        if why:
            item.other = self._say(Fate.UNKNOWN, point, why=why, trigger_arrived=arrived)
            return
        pairs = sum(pair.a.way == sight.way for pair in each.pairs)
        why = (
            f"{watcher} shows {pairs} of this connection's packets that arrived at {point}, "
            "and not this one"
        )
        item.other = self._say(
            Fate.NEVER_SENT,
            point,
            why=why,
            trigger_arrived=arrived,
            swapped_frame=swapped.frame if swapped is not None else None,
            swapped_sure=sure,
        )

    def _sent(self, item: Found, partner: Sight | None) -> None:
        each, point, sight = item.joined, item.point, item.sight
        if partner is not None:
            item.other = self._say(Fate.ARRIVED, point, frame=partner.frame)
            return
        gap = self._gap(each, _other(point), self._arrival(sight, point))
        fate = Fate.UNKNOWN if gap else Fate.NEVER_ARRIVED
        item.other = self._say(fate, point, why=gap)

    def _partners(self, each: Joined) -> tuple[dict[tuple[str, int], Sight], set[tuple[str, int]]]:
        """The same RST at the other point, by point and frame; which ones were altered."""
        assert each.toward_b is not None
        rated = []
        for a in each.resets_a:
            for b in each.resets_b:
                if a.way == b.way and (rate := self._rate(each, a, b)) is not None:
                    rated.append((rate, a.frame, b.frame, a, b))
        partners: dict[tuple[str, int], Sight] = {}
        altered: set[tuple[str, int]] = set()
        for rate, _, _, a, b in sorted(rated, key=lambda row: row[:3]):
            if ("A", a.frame) in partners or ("B", b.frame) in partners:
                continue
            partners["A", a.frame], partners["B", b.frame] = b, a
            if rate[0]:
                altered |= {("A", a.frame), ("B", b.frame)}
        return partners, altered

    def _rate(
        self, each: Joined, a: Sight, b: Sight, *, anyhow: bool = False
    ) -> tuple[int, int, int] | None:
        """How badly b fits as a at the other point; ``None``: it is not the same packet.

        `anyhow`: even if it must have come another way than the connection's other packets. RSTs
        may: those of Linux without a socket have another IPv6 flow label (RFC 6438).
        """
        assert each.toward_b is not None
        to_b = a.way == each.toward_b
        if a.seq != b.seq or (a.flags ^ b.flags) & ~PSH or not self._feasible(a, b, to_b):
            return None
        deltas = self._deltas.get((id(each), a.way))
        if deltas is None:
            deltas = self._deltas[id(each), a.way] = frozenset(each.deltas(a.way))
        off = min((abs(a.ttl - b.ttl - delta) for delta in deltas), default=0)
        same = (a.ack, a.payload_len, a.ip_id) == (b.ack, b.payload_len, b.ip_id)
        if off > TTL_SLACK and not anyhow and not (same and a.ip_id > 1):
            return None
        sender = a if to_b else b
        if not same and a.ip_id != b.ip_id and each.ids_kept[a.way] and sender.ip_id > 1:
            return None  # the path keeps IP IDs: another packet
        lower, upper = self._bounds(a, "A")
        usual = upper if to_b else lower
        late = abs(b.time_ns - a.time_ns - usual) if usual is not None else 0
        return (0 if same else 1, off, late)

    def _lookalike(
        self,
        each: Joined,
        sight: Sight,
        point: str,
        partners: dict[tuple[str, int], Sight],
    ) -> bool:
        """Whether O sent another one that this may be: one too few to tell them apart."""
        watcher = _other(point)
        for other in each.resets_b if point == "A" else each.resets_a:
            if other.way == sight.way:
                a, b = (sight, other) if point == "A" else (other, sight)
                missing = (watcher, other.frame) not in partners
                if self._rate(each, a, b, anyhow=missing) is not None:
                    return True
        return False

    def _altered(
        self,
        each: Joined,
        sight: Sight,
        point: str,
        partners: dict[tuple[str, int], Sight],
    ) -> bool:
        """Whether O sent a RST at that time that did not arrive as it was, and fits by its TTL."""
        watcher, span = _other(point), self._departure(sight, point)
        if span is None:
            return False
        deltas = each.deltas(sight.way)
        for other in each.resets_b if point == "A" else each.resets_a:
            if other.way != sight.way or (watcher, other.frame) in partners:
                continue
            delta = sight.ttl - other.ttl if point == "A" else other.ttl - sight.ttl
            if min((abs(delta - usual) for usual in deltas), default=0) > TTL_SLACK:
                continue
            if span[0] - SWAP_NS <= other.time_ns <= span[1] + SLACK_NS:
                return True
        return False

    def _at_sender(self, each: Joined, sight: Sight, point: str) -> bool:
        """Whether this point is the sending host: no router passed, and the usual MAC."""
        record = self._of(each, point)[1]
        if record is None or hops(sight.ttl):
            return False
        flip = each.match.flip and point == "B"
        usual = [s for s in record.sights if s.way ^ flip == sight.way and not s.flags & RST]
        if any(hops(other.ttl) for other in usual):
            return False
        macs = {other.mac for other in usual if other.mac}
        return not macs or not sight.mac or sight.mac in macs

    def _find_trigger(self, item: Found) -> None:
        """What left P last before the RST, and how long before that it may have been provoked."""
        each, point, sight = item.joined, item.point, item.sight
        own = self._own(each, point)
        before = [s for s in own if s.way != sight.way and s.frame < sight.frame]
        if not before:
            return
        item.trigger = before[-1]
        rtt = self.round_trip()
        if rtt:
            recent = [s for s in before if 0 <= sight.time_ns - s.time_ns <= rtt]
            if recent:
                item.delay_ns = sight.time_ns - recent[0].time_ns

    def _own(self, each: Joined, point: str) -> list[Sight]:
        """A point's packets of a connection, each once, resets apart."""
        if point == "A":
            sights = [*(p.a for p in each.pairs), *each.split_a, *each.only_a]
        else:
            sights = [*(p.b for p in each.pairs), *each.split_b, *each.only_b]
        return sorted(sights, key=lambda sight: sight.frame)

    def _trigger_arrived(self, item: Found) -> bool | None:
        trigger, each, point = item.trigger, item.joined, item.point
        if trigger is None:
            return None
        missing = each.only_a if point == "A" else each.only_b
        if trigger not in missing:
            return True
        return None if self._gap(each, _other(point), self._arrival(trigger, point)) else False

    def _swapped(self, each: Joined, sight: Sight, point: str) -> tuple[Sight | None, bool]:
        """The packet that left O and became this one on its way: by IP ID, else by position."""
        watcher = _other(point)
        span = self._departure(sight, point)
        if span is None:
            return None, False
        gone = [
            other
            for other in (each.only_b if watcher == "B" else each.only_a)
            if other.way == sight.way and span[0] - SWAP_NS <= other.time_ns <= span[1] + SLACK_NS
        ]
        for other in gone:
            if sight.ip_id > 1 and other.ip_id == sight.ip_id:
                return other, True
        if sight.ip_id <= 0 or not each.ids_kept[sight.way]:
            for other in gone:
                if other.seq == sight.seq and other.payload_len:
                    return other, False
        return None, False

    # ---- sums ----

    def moment(self, item: Found) -> int:
        """When a RST came in, by A's clock."""
        return self._a_ns(item.sight, item.point)

    def round_trip(self) -> int | None:
        """The least round trip between the points, in nanoseconds."""
        return None if self._timing is None else self._timing.round_trip()

    def hops(self, point: str) -> int | None:
        """Routers from a point to the other: the median over all packets seen at both."""
        deltas = []
        for each in self._joined:
            if each.toward_b is not None:
                way = each.toward_b if point == "A" else 1 - each.toward_b
                sign = 1 if point == "A" else -1
                deltas += [sign * delta for delta in each.deltas(way)]
        if not deltas:
            return None
        middle = round(statistics.median(deltas))
        return middle if middle >= 0 else None

    def way(self, point: str, found: Sequence[Found]) -> Way | None:
        """The packets that left a point for the other."""
        if self._timing is None:
            return None
        arrived = lost = injected = swapped = 0
        for each in self._joined:
            if each.toward_b is None:
                continue
            way = each.toward_b if point == "A" else 1 - each.toward_b
            split = each.split_a if point == "A" else each.split_b
            gone = each.only_a if point == "A" else each.only_b
            arrived += sum(p.a.way == way for p in each.pairs) + sum(s.way == way for s in split)
            lost += sum(
                s.way == way and not self._gap(each, _other(point), self._arrival(s, point))
                for s in gone
            )
            strangers = self.phantoms(each, _other(point))
            injected += len(strangers)
            ids = {s.ip_id for s in gone if s.way == way and s.ip_id > 1}
            swapped += sum(s.ip_id in ids for s in strangers)
        swapped += sum(
            item.other.swapped_frame is not None and item.other.swapped_sure
            for item in found
            if item.point != point and item.received
        )
        return Way(arrived + lost, arrived, lost, injected, swapped, self.hops(point))

    def near(self) -> tuple[frozenset[str], frozenset[str]]:
        """The addresses behind A and those behind B, each as it sees them; not those of both."""
        sides: list[Counter[str]] = [Counter(), Counter()]
        far: list[set[str]] = [set(), set()]
        for each in self._joined:
            if each.toward_b is None or each.a is None or each.b is None:
                continue
            for number, point in enumerate("AB"):
                way = self._incoming(each, point)
                sides[number][_source(each, point, 1 - way).ip] += 1
                far[number].add(_source(each, point, way).ip)
        a, b = (
            frozenset() if found.keys() & away else frozenset(found)
            for found, away in zip(sides, far)
        )
        return a, b

    def notes(self) -> list[str]:
        """What could not be known, in sentences."""
        lines = []
        for survey, point in zip(self._surveys, "AB"):
            if survey.forgotten:
                lines.append(f"{survey.forgotten} connections at {point} found no room (--flows)")
        if self._timing is None and self._joined:
            lines.append("no packet was seen at both points: nothing can be compared")
        elif self._timing is not None:
            clocks = self._timing.clocks
            if not clocks.steady:
                lines.append("packets contradict each other in time: a clock was set in between")
            if not (clocks.from_a and clocks.from_b):
                came = "A to B" if clocks.from_a else "B to A"
                lines.append(
                    f"packets from {came} only were seen at both points: the clocks' difference "
                    "is known as a bound only"
                )
        return lines


def _other(point: str) -> str:
    return "B" if point == "A" else "A"


def _source(each: Joined, point: str, way: int) -> Endpoint:
    """The source of a way (as A counts them) as a point sees it."""
    record = each.a if point == "A" else each.b
    assert record is not None
    flip = each.match.flip and point == "B"
    return record.brief.ends[way ^ flip]


def _place_all(bench: _Bench, found: Sequence[Found]) -> None:
    """Positions for the forged resets of one connection."""
    forged = [item for item in found if item.other.fate is Fate.NEVER_SENT]
    times: dict[str, list[int]] = {"A": [], "B": []}
    twins: dict[str, list[Found]] = {"A": [], "B": []}
    for item in sorted(forged, key=bench.moment):
        times[item.point].append(bench.moment(item))
        twins[item.point].append(item)
    for item in forged:
        each, way, there = item.joined, item.sight.way, _other(item.point)
        at = bisect.bisect(times[there], bench.moment(item))
        near = twins[there][max(0, at - 1) : at + 1]
        twin = min(
            near, key=lambda other: abs(bench.moment(other) - bench.moment(item)), default=None
        )
        if twin is not None and abs(bench.moment(twin) - bench.moment(item)) > TWIN_NS:
            twin = None
        item.position = place(
            Reading(
                point=item.point,
                ttl=item.sight.ttl,
                twin_ttl=twin.sight.ttl if twin is not None else None,
                usual=_usual(each, item.point, way),
                usual_twin=_usual(each, _other(item.point), 1 - way),
                total=_between(each, item.point, bench),
                total_twin=_between(each, _other(item.point), bench),
                swapped=item.other.swapped_frame is not None and item.other.swapped_sure,
                delay_ns=item.delay_ns,
                rtt_ns=bench.round_trip(),
                word="TTL" if item.sight.ip_id >= 0 else "hop limit",
            )
        )
        item.other = replace(item.other, where=item.position.text)


def _by_place(found: Iterable[Position]) -> tuple[tuple[Position, int], ...]:
    """Each place with how many resets were made there, the most frequent first."""
    counts: Counter[tuple[object, ...]] = Counter()
    known: dict[tuple[object, ...], Position] = {}
    for position in found:
        key = (
            *(position.from_a, position.from_b, position.total),
            *(position.kind, position.sure),
        )
        counts[key] += 1
        if key not in known or known[key].within is None:
            known[key] = position
    return tuple((known[key], count) for key, count in counts.most_common())


def _usual(each: Joined, point: str, way: int) -> int | None:
    """The TTL that the real sender's packets arrive with."""
    found = [(p.a if point == "A" else p.b).ttl for p in each.pairs if p.a.way == way]
    return statistics.mode(found) if found else None


def _between(each: Joined, point: str, bench: _Bench) -> int | None:
    """Routers from O to P."""
    assert each.toward_b is not None
    way = 1 - each.toward_b if point == "A" else each.toward_b
    deltas = each.deltas(way)
    if not deltas:
        return bench.hops(_other(point))
    return abs(statistics.mode(deltas))


def _flow(each: Joined, found: Sequence[Found]) -> ComparedFlow:
    match = each.match
    ends: list[tuple[Endpoint, Endpoint] | None] = []
    for brief in (match.a, match.b):
        if brief is None:
            ends.append(None)
            continue
        first = brief.opener or 0
        ends.append((brief.ends[first], brief.ends[1 - first]))
    a, b = ends
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
                frame=item.sight.frame,
                received=item.received,
                src=_source(each, item.point, item.sight.way),
                dst=_source(each, item.point, 1 - item.sight.way),
                other=item.other,
                position=item.position,
            )
            for item in found
        ),
    )
