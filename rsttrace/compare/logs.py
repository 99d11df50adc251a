"""Compares two points of which at least one is a log of rsttrace: by the resets alone. Pure.

A log has resets and no other packets. So it can say that a RST was sent there; that one was not
sent, it can make likely only; of lost packets it knows nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rsttrace.compare.clocks import Tick, Timing, measure
from rsttrace.compare.position import Reading, place
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
    Position,
)


@dataclass(frozen=True)
class Word:
    """A RST as a point tells of it. `number` is what the point counts it by: entry or frame."""

    number: int
    time_ns: int
    kind: Kind
    local: Endpoint
    remote: Endpoint
    rst: Packet
    usual_ttl: int | None = None
    hops_peer: int | None = None


@dataclass
class Side:
    """What a point tells. `complete`: it says itself that nothing is missing, or nothing at all."""

    name: str
    logged: bool
    words: list[Word]
    complete: bool = True
    problem: str | None = None
    packets: int | None = None
    flows: int | None = None


@dataclass
class LogResult:
    """`comparison` for the reader; `resets` by point and number, to be added to the entries.

    `timing` puts B's times on A's clock; ``None`` where the clocks cannot be compared.
    """

    comparison: Comparison
    resets: dict[tuple[str, int], OtherEnd] = field(default_factory=dict)
    timing: Timing | None = None


def compare_logs(sides: Sequence[Side]) -> LogResult:
    """Compare two points by their resets."""
    pairs = _pair(sides[0].words, sides[1].words)
    ticks = [
        Tick(a.time_ns, b.time_ns - a.time_ns, a.kind.direction == "sent")
        for a, b in pairs
        if NO_TIME not in (a.time_ns, b.time_ns)
    ]
    timing = measure(ticks)
    partners: dict[tuple[str, int], Word] = {}
    for a, b in pairs:
        partners["A", a.number], partners["B", b.number] = b, a
    judged: dict[tuple[str, int], OtherEnd] = {}
    for point, side, other in (("A", sides[0], sides[1]), ("B", sides[1], sides[0])):
        told = _Told(other)
        for word in side.words:
            partner = partners.get((point, word.number))
            judged[point, word.number] = _judge(point, word, partner, told, timing)
    positions = _positions(sides, judged)
    for key, position in positions.items():
        judged[key] = replace(judged[key], where=position.text)
    shown = Counter(positions.values())
    points = [
        Point(
            name=name,
            file=side.name,
            logged=side.logged,
            packets=side.packets,
            flows=side.flows,
            resets=len(side.words),
            first_ns=min(_times(side), default=None),
            last_ns=max(_times(side), default=None),
            problem=side.problem,
        )
        for name, side in zip("AB", sides)
    ]
    notes = [
        "resets only were compared: a log has no other packets, so nothing is known of lost and "
        "swapped ones, and that a RST was not sent is likely at best"
    ]
    if timing is None:
        notes.append("no RST was seen at both ends: the clocks cannot be compared")
    return LogResult(
        Comparison(
            a=points[0],
            b=points[1],
            matched={},
            clocks=timing.clocks if timing else None,
            ab=None,
            ba=None,
            flows=_flows(sides, judged, positions),
            positions=tuple(shown.most_common()),
            notes=tuple(notes),
        ),
        judged,
        timing,
    )


def _times(side: Side) -> list[int]:
    return [word.time_ns for word in side.words if word.time_ns != NO_TIME]


def _key(word: Word) -> tuple[object, ...]:
    rst = word.rst
    return rst.seq, rst.ack, rst.flags, rst.payload_len, rst.ip_id


def _pair(ours: Sequence[Word], theirs: Sequence[Word]) -> list[tuple[Word, Word]]:
    """The same RST, sent at one end and received at the other: by its own fields and a port."""
    waiting: dict[tuple[object, ...], list[Word]] = defaultdict(list)
    for word in sorted(theirs, key=lambda word: word.time_ns):
        waiting[_key(word)].append(word)
    pairs = []
    for word in sorted(ours, key=lambda word: word.time_ns):
        candidates = (
            other
            for other in waiting.get(_key(word), ())
            if {word.kind.direction, other.kind.direction} == {"sent", "received"}
            and _same_ends(word, other)
        )
        other = next(candidates, None)
        if other is not None:
            waiting[_key(word)].remove(other)
            pairs.append((word, other))
    return pairs


def _same_ends(one: Word, other: Word) -> bool:
    """Both ports the same, or (NAT) one of them with an address."""
    mine = (one.rst.src, one.rst.dst)
    others = (other.rst.src, other.rst.dst)
    ports = [a.port == b.port for a, b in zip(mine, others)]
    return all(ports) or any(a == b for a, b in zip(mine, others))


class _Told:
    """What a side tells, all in all."""

    def __init__(self, side: Side) -> None:
        times = _times(side)
        self.side = side
        self.first, self.last = min(times, default=None), max(times, default=None)
        self.sends = any(word.kind.direction == "sent" for word in side.words)
        self.ports = {_ports(word) for word in side.words}


def _ports(word: Word) -> frozenset[int]:
    return frozenset((word.rst.src.port, word.rst.dst.port))


def _judge(
    point: str, word: Word, partner: Word | None, told: _Told, timing: Timing | None
) -> OtherEnd:
    other = told.side
    there = "B" if point == "A" else "A"

    def say(fate: Fate, why: str = "", **more: object) -> OtherEnd:
        return OtherEnd(
            fate,
            there,
            other.name,
            why=why,
            logged=other.logged,
            **more,  # type: ignore[arg-type]
        )

    received = word.kind.direction == "received"
    frame = partner.number if partner is not None and not other.logged else None
    if partner is not None:
        if not received:
            return say(Fate.ARRIVED, frame=frame)
        own = other.logged and partner.kind is not Kind.SENT_RAW
        return say(Fate.LEFT, "the other end says that it sent it", frame=frame, at_sender=own)
    if not received:
        return say(Fate.UNKNOWN, f"{there} does not tell of it, which proves nothing")
    return say(*_absent(point, word, there, told, timing))


def _absent(
    point: str, word: Word, there: str, told: _Told, timing: Timing | None
) -> tuple[Fate, str]:
    """What it means that the other end does not tell of a RST that came in here."""
    if timing is None:
        return Fate.UNKNOWN, "no RST was seen at both ends: the clocks cannot be compared"
    if word.time_ns == NO_TIME:
        return Fate.UNKNOWN, "it has no time"
    lower, upper = timing.clocks.lower, timing.clocks.upper
    if point == "A":
        ahead = lower if lower is not None else upper
    else:
        ahead = upper if upper is not None else lower
    assert ahead is not None
    moment = word.time_ns + ahead if point == "A" else word.time_ns - ahead
    if told.first is None or told.last is None or not told.first <= moment <= told.last:
        return Fate.UNKNOWN, f"{there} tells of nothing before, or nothing after that moment"
    if not told.side.complete:
        return Fate.UNKNOWN, f"{there}'s summary says that resets are missing"
    if not told.sends:
        return Fate.UNKNOWN, f"{there} tells of no RST that it sent: it may be filtered"
    if _ports(word) not in told.ports:
        return Fate.UNKNOWN, f"{there} tells of no RST of this connection: it may be filtered"
    return (
        Fate.NEVER_SENT,
        f"{there} tells of RSTs before and after, and of this connection, and not of this one",
    )


def _positions(
    sides: Sequence[Side], judged: dict[tuple[str, int], OtherEnd]
) -> dict[tuple[str, int], Position]:
    """From the TTLs of resets that never left, and how far the ends say that they are apart."""
    found = {}
    for point, side, other in (("A", sides[0], sides[1]), ("B", sides[1], sides[0])):
        there = "B" if point == "A" else "A"
        twins = {
            (one.rst.src.port, one.rst.dst.port): one
            for one in other.words
            if judged[there, one.number].fate is Fate.NEVER_SENT
        }
        for word in side.words:
            if judged[point, word.number].fate is not Fate.NEVER_SENT:
                continue
            twin = twins.get((word.rst.dst.port, word.rst.src.port))
            found[point, word.number] = place(
                Reading(
                    point=point,
                    ttl=word.rst.ttl,
                    twin_ttl=twin.rst.ttl if twin is not None else None,
                    usual=word.usual_ttl,
                    usual_twin=twin.usual_ttl if twin is not None else None,
                    total=word.hops_peer,
                    total_twin=twin.hops_peer if twin is not None else None,
                    swapped=False,
                    delay_ns=None,
                    rtt_ns=None,
                    word="TTL" if word.rst.family == 4 else "hop limit",
                )
            )
    return found


def _flows(
    sides: Sequence[Side],
    judged: dict[tuple[str, int], OtherEnd],
    positions: dict[tuple[str, int], Position],
) -> tuple[ComparedFlow, ...]:
    """The connections, by their addresses and ports."""
    rows: dict[frozenset[Endpoint], list[ComparedReset]] = {}
    ends: dict[frozenset[Endpoint], dict[str, tuple[Endpoint, Endpoint]]] = {}
    for point, side in zip("AB", sides):
        for word in side.words:
            key = frozenset((word.local, word.remote))
            near, far = word.local, word.remote
            ends.setdefault(key, {})[point] = (near, far) if point == "A" else (far, near)
            rows.setdefault(key, []).append(
                ComparedReset(
                    point=point,
                    frame=None if side.logged else word.number,
                    received=word.kind.direction == "received",
                    src=word.rst.src,
                    dst=word.rst.dst,
                    other=judged[point, word.number],
                    position=positions.get((point, word.number)),
                )
            )
    made = []
    for key, resets in rows.items():
        both = len(ends[key]) == 2
        text = "the same addresses and ports at both points" if both else "seen at one point only"
        made.append(
            ComparedFlow(
                a=ends[key].get("A"),
                b=ends[key].get("B"),
                how="addresses" if both else "one-sided",
                sure="possible" if both else "unknown",
                text=text,
                resets=tuple(resets),
            )
        )
    return tuple(made)
