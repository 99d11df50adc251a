"""What became of each RST of a connection, as two captures tell: sent, forged, lost. Pure.

A RST that a point received must have passed the other one, the watcher, if the connection's packets
do. If the watcher's capture shows them and not the RST, it was made in between: proof. Where the
watcher may have missed it, nothing is said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rsttrace.compare.clocks import SLACK_NS
from rsttrace.compare.coverage import TTL_SLACK, Coverage
from rsttrace.compare.join import PSH, JoinedFlow
from rsttrace.compare.survey import Sighting
from rsttrace.model import Fate, OtherEnd, Point, Position, hops
from rsttrace.tcp import RST

SWAP_NS = 1_000_000_000
"""How much longer than usual a packet may have taken that became a RST on its way."""


@dataclass
class JudgedReset:
    """One RST at a point: `sighting` with ways as A counts them, and what is said of it.

    `received`: it came from the other point; ``None``: that cannot be told. `delay_ns` is how long
    before it the first packet left that may have provoked it.
    """

    flow: JoinedFlow
    point: Point
    sighting: Sighting
    received: bool | None
    other: OtherEnd
    delay_ns: int | None = None
    position: Position | None = None


def judge_resets(flow: JoinedFlow, coverage: Coverage) -> list[JudgedReset]:
    """Every RST of a connection, at either point."""
    if flow.toward:
        resets = _Resets(flow, coverage)
        return [resets.judge(point, item) for point in Point for item in flow.resets[point]]
    why = flow.match.text
    if all(flow.packets.values()):
        why = "it cannot be told which point is nearer to which end"
    found = []
    for point in Point:
        other = OtherEnd(Fate.UNKNOWN, point.other, coverage.surveys[point.other].file, why=why)
        found += [JudgedReset(flow, point, item, None, other) for item in flow.resets[point]]
    return found


class _Resets:
    """The resets of one connection, each matched with the same one at the other point.

    `_partners` has that one by point and frame; `_altered` are the points and frames of those that
    came with other numbers than they left with.
    """

    def __init__(self, flow: JoinedFlow, coverage: Coverage) -> None:
        self._flow = flow
        self._coverage = coverage
        self._deltas = [frozenset(flow.deltas(way)) for way in (0, 1)]
        self._partners: dict[tuple[Point, int], Sighting] = {}
        self._altered: set[tuple[Point, int]] = set()
        self._match()

    def judge(self, point: Point, sighting: Sighting) -> JudgedReset:
        """What the other point says of a RST."""
        if sighting.way != self._flow.toward[point]:
            return JudgedReset(self._flow, point, sighting, False, self._sent(point, sighting))
        other = (
            self._left(point, sighting)
            or self._unclear(point, sighting)
            or self._never_sent(point, sighting)
        )
        earlier = [
            item
            for item in self._flow.seen(point)
            if item.way != sighting.way and item.frame < sighting.frame
        ]
        if earlier:
            other = replace(other, trigger_arrived=self._arrived(point, earlier[-1]))
        delay_ns = self._delay_ns(sighting, earlier)
        return JudgedReset(self._flow, point, sighting, True, other, delay_ns)

    def _say(self, fate: Fate, point: Point, why: str = "") -> OtherEnd:
        return OtherEnd(fate, point.other, self._coverage.surveys[point.other].file, why=why)

    # ---- the same RST at the other point ----

    def _match(self) -> None:
        """Match the resets of both points, those that fit best first."""
        rated = []
        for a in self._flow.resets[Point.A]:
            for b in self._flow.resets[Point.B]:
                if a.way == b.way and (rate := self._rate(a, b)) is not None:
                    rated.append((rate, a.frame, b.frame, a, b))
        for rate, _, _, a, b in sorted(rated, key=lambda row: row[:3]):
            ours, theirs = (Point.A, a.frame), (Point.B, b.frame)
            if ours in self._partners or theirs in self._partners:
                continue
            self._partners[ours], self._partners[theirs] = b, a
            if rate[0]:
                self._altered |= {ours, theirs}

    def _rate(
        self, a: Sighting, b: Sighting, *, anyhow: bool = False
    ) -> tuple[int, int, int] | None:
        """How badly b fits as a at the other point; ``None``: it is not the same packet.

        `anyhow`: even if it must have come another way than the connection's other packets. RSTs
        may: those of Linux without a socket have another IPv6 flow label (RFC 6438).
        """
        timing, to_b = self._coverage.timing, a.way == self._flow.toward[Point.B]
        if a.seq != b.seq or (a.flags ^ b.flags) & ~PSH:
            return None
        if timing is not None and not timing.feasible(a.time_ns, b.time_ns, to_b=to_b):
            return None
        off = min((abs(a.ttl - b.ttl - delta) for delta in self._deltas[a.way]), default=0)
        same = (a.ack, a.payload_len, a.ip_id) == (b.ack, b.payload_len, b.ip_id)
        if off > TTL_SLACK and not anyhow and not (same and a.telling_id is not None):
            return None
        sender = a if to_b else b
        kept = self._flow.ids_kept[a.way] and sender.telling_id is not None
        if not same and a.ip_id != b.ip_id and kept:
            return None  # the path keeps IP IDs: another packet
        lower, upper = (None, None) if timing is None else timing.bounds(a.time_ns)
        usual = upper if to_b else lower
        late = abs(b.time_ns - a.time_ns - usual) if usual is not None else 0
        return (0 if same else 1, off, late)

    # ---- a RST that a point sent ----

    def _sent(self, point: Point, sighting: Sighting) -> OtherEnd:
        partner = self._partners.get((point, sighting.frame))
        if partner is not None:
            return replace(self._say(Fate.ARRIVED, point), frame=partner.frame)
        why = self._coverage.unwatched(self._flow, sighting, point)
        why = why or self._coverage.elsewhere(self._flow, sighting, point)
        return self._say(Fate.UNKNOWN if why else Fate.NEVER_ARRIVED, point, why)

    # ---- a RST that a point received ----

    def _left(self, point: Point, sighting: Sighting) -> OtherEnd | None:
        """That it was seen leaving, if it was."""
        partner = self._partners.get((point, sighting.frame))
        if partner is None:
            return None
        altered = (point, sighting.frame) in self._altered
        own = not altered and self._at_sender(partner, point.other)
        where = "the sending host itself" if own else f"{point.other}"
        why = f"seen leaving {where}" + (", with other numbers" if altered else "")
        return replace(self._say(Fate.LEFT, point, why), frame=partner.frame, at_sender=own)

    def _unclear(self, point: Point, sighting: Sighting) -> OtherEnd | None:
        """That another one of the watcher's may be it, if so."""
        watcher = point.other
        if self._has_lookalike(point, sighting):
            why = f"{watcher} sent another one just like it: they cannot be told apart"
            return self._say(Fate.UNKNOWN, point, why)
        if self._may_be_altered(point, sighting):
            why = f"{watcher} sent a RST then too, with other numbers: it may be that one, altered"
            return self._say(Fate.UNKNOWN, point, why)
        return None

    def _never_sent(self, point: Point, sighting: Sighting) -> OtherEnd:
        """That it was never sent, unless the watcher may have missed it."""
        if elsewhere := self._coverage.elsewhere(self._flow, sighting, point):
            return self._say(Fate.UNKNOWN, point, elsewhere)
        swapped, sure = self._swapped(point, sighting)
        if swapped is None or not sure:
            why = self._coverage.unwatched(self._flow, sighting, point)
            if why:
                return self._say(Fate.UNKNOWN, point, why)
        why = (
            f"{point.other} shows {len(self._flow.of_way(sighting.way))} of this connection's "
            f"packets that arrived at {point}, and not this one"
        )
        return replace(
            self._say(Fate.NEVER_SENT, point, why),
            swapped_frame=swapped.frame if swapped is not None else None,
            swapped_sure=sure,
        )

    def _has_lookalike(self, point: Point, sighting: Sighting) -> bool:
        """Whether the watcher sent another one that this may be: one too few to tell them apart."""
        watcher = point.other
        for other in self._flow.resets[watcher]:
            if other.way == sighting.way:
                a, b = (sighting, other) if point is Point.A else (other, sighting)
                missing = (watcher, other.frame) not in self._partners
                if self._rate(a, b, anyhow=missing) is not None:
                    return True
        return False

    def _may_be_altered(self, point: Point, sighting: Sighting) -> bool:
        """Whether the watcher sent a RST then that did not arrive as it was, and its TTL fits."""
        watcher, span = point.other, self._coverage.departure(point, sighting)
        if span is None:
            return False
        for other in self._flow.resets[watcher]:
            if other.way != sighting.way or (watcher, other.frame) in self._partners:
                continue
            a, b = (sighting, other) if point is Point.A else (other, sighting)
            off = (abs(a.ttl - b.ttl - usual) for usual in self._deltas[sighting.way])
            if min(off, default=0) <= TTL_SLACK and _within(other, span):
                return True
        return False

    def _at_sender(self, sighting: Sighting, point: Point) -> bool:
        """Whether this point is the sending host: no router passed, and the usual MAC."""
        kept = self._flow.packets[point]
        if kept is None or hops(sighting.ttl):
            return False
        flip = self._flow.match.flips(point)
        usual = [
            item
            for item in kept.sightings
            if item.way ^ flip == sighting.way and not item.flags & RST
        ]
        if any(hops(item.ttl) for item in usual):
            return False
        macs = {item.mac for item in usual if item.mac is not None}
        return not macs or sighting.mac is None or sighting.mac in macs

    def _delay_ns(self, sighting: Sighting, earlier: list[Sighting]) -> int | None:
        """How long before the RST the earliest packet left that it may be the answer to."""
        timing = self._coverage.timing
        round_trip = None if timing is None else timing.round_trip()
        if not round_trip:
            return None
        ages = [sighting.time_ns - item.time_ns for item in earlier]
        return next((age for age in ages if 0 <= age <= round_trip), None)

    def _arrived(self, point: Point, trigger: Sighting) -> bool | None:
        """Whether the last packet that left before a RST came to the other point."""
        if trigger not in self._flow.only[point]:
            return True
        arrival = self._coverage.arrival(point, trigger)
        return None if self._coverage.gap(self._flow, point.other, arrival) else False

    def _swapped(self, point: Point, sighting: Sighting) -> tuple[Sighting | None, bool]:
        """The packet that left the watcher and became this one on its way: by its IP ID (sure),
        else by its sequence number."""
        span = self._coverage.departure(point, sighting)
        if span is None:
            return None, False
        gone = [
            other
            for other in self._flow.only[point.other]
            if other.way == sighting.way and _within(other, span)
        ]
        for other in gone:
            if sighting.telling_id is not None and other.ip_id == sighting.ip_id:
                return other, True
        if not sighting.ip_id or not self._flow.ids_kept[sighting.way]:
            for other in gone:
                if other.seq == sighting.seq and other.payload_len:
                    return other, False
        return None, False


def _within(sighting: Sighting, span: tuple[int, int]) -> bool:
    """Whether a packet left in a span of time, or so much before that it was held on its way."""
    return span[0] - SWAP_NS <= sighting.time_ns <= span[1] + SLACK_NS
