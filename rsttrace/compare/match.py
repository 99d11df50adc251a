"""Finds the same connection at two vantage points. Pure functions."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from rsttrace.compare.survey import FlowSummary
from rsttrace.model import Point
from rsttrace.tcp import distance

RUNS = 2
"""So many equal (seq, ack) pairs, 64 bits each, make two connections the same one."""

MOST_ALIKE = 64
"""An initial sequence number, or a timestamp, that more connections have tells nothing."""


class Stray(NamedTuple):
    """Packets at a point that seem to belong to a connection there, but have the addresses that it
    has at the other point. `flip`: their way 0 is the connection's way 1, as A counts them. Those
    from `first_frame` up to `end_frame` (``None``: all after) may be this connection's."""

    point: Point
    flow: FlowSummary
    flip: bool
    first_frame: int
    end_frame: int | None

    def has(self, frame: int) -> bool:
        """Whether a frame is in its part."""
        return self.first_frame <= frame and (self.end_frame is None or frame < self.end_frame)


@dataclass(frozen=True)
class FlowMatch:
    """A connection at A and at B; ``None``: seen at one point only, or not to be told.

    `flip`: its way 0 at A is its way 1 at B. `how` and `sure` as in `ComparedFlow`. `shift` is by
    how much sequence numbers of each way (as A counts them) are greater at B.
    """

    a: FlowSummary | None
    b: FlowSummary | None
    flip: bool
    how: str
    sure: str
    text: str
    shift: tuple[int, int] = (0, 0)
    strays: tuple[Stray, ...] = ()

    def at(self, point: Point) -> FlowSummary | None:
        """The connection as a point saw it."""
        return self.a if point is Point.A else self.b

    def flips(self, point: Point) -> bool:
        """Whether a point counts the ways the other way round than A."""
        return self.flip and point is Point.B

    @property
    def resets(self) -> int:
        """How many RSTs both points saw, all in all."""
        flows = (self.a, self.b, *(stray.flow for stray in self.strays))
        return sum(flow.resets for flow in flows if flow is not None)


class _Rate(NamedTuple):
    """How much says that two connections are one; what comes first counts most.

    `opened`: the SYN that opened it is at both points. `numbers`: 2 for each way whose initial
    sequence number is the same, 1 for each whose SYN is the same but for its number. `shared`: data
    with the same numbers; `same`: the same addresses and ports; `overlap`: how much such data.
    """

    opened: bool
    numbers: int
    shared: bool
    same: bool
    overlap: int


class _Candidate(NamedTuple):
    """A connection at B that one at A may be."""

    rate: _Rate
    flow: FlowSummary
    flip: bool
    how: str
    sure: str
    text: str
    shift: tuple[int, int]


def one_sided(flow: FlowSummary, point: Point) -> FlowMatch:
    """A connection that the other point has not."""
    a, b = (flow, None) if point is Point.A else (None, flow)
    return FlowMatch(a, b, False, "one-sided", "unknown", f"seen at {point} only")


def match_flows(ours: Sequence[FlowSummary], theirs: Sequence[FlowSummary]) -> list[FlowMatch]:
    """The connections of A (`ours`) with the same ones at B (`theirs`), and those left over.

    What says most decides: the SYN first, then sequence numbers, then addresses and ports. Packets
    without a SYN that have a connection's addresses of the other point are its `strays`.
    """
    index = _Index(theirs)
    found = [_unmatched(flow, index) for flow in ours]
    candidates = [
        (number, made)
        for number, flow in enumerate(ours)
        for other, flip in index.near(flow)
        if (made := _candidate(flow, other, flip)) is not None
    ]
    _assign(found, candidates)
    taken = {id(match.b) for match in found if match.b is not None}
    found += [one_sided(flow, Point.B) for flow in theirs if id(flow) not in taken]
    return _with_strays(found)


def _unmatched(flow: FlowSummary, index: _Index) -> FlowMatch:
    """What is said of a connection at A that no candidate is found for."""
    if any(_is_same(flow, other) for other, _ in index.near(flow)):
        text = (
            "the same addresses and ports at both points, but other initial sequence numbers, and "
            "no timestamp or IP ID that tells one SYN: a proxy in between, or a firewall that "
            "renumbers"
        )
        return FlowMatch(flow, None, False, "renumbered", "unknown", text)
    return one_sided(flow, Point.A)


def _assign(found: list[FlowMatch], candidates: Sequence[tuple[int, _Candidate]]) -> None:
    """Give each connection of A (its number in `found`) the one of B that fits best, the best pairs
    first. Where several fit equally well, none is given."""
    settled: set[int] = set()
    taken: set[int] = set()
    for _, group in itertools.groupby(
        sorted(candidates, key=lambda item: item[1].rate, reverse=True),
        key=lambda item: item[1].rate,
    ):
        ours: dict[int, dict[int, _Candidate]] = defaultdict(dict)
        theirs: dict[int, set[int]] = defaultdict(set)
        for number, made in group:
            if number in settled:
                continue
            if id(made.flow) in taken:
                _refuse(found, number, f"another connection at A fits better: {made.text}")
            else:
                ours[number].setdefault(id(made.flow), made)
                theirs[id(made.flow)].add(number)
        for number, fitting in ours.items():
            settled.add(number)
            key, won = next(iter(fitting.items()))
            if len(fitting) > 1:
                _refuse(found, number, f"{len(fitting)} connections at B could be it: {won.text}")
            elif len(theirs[key]) > 1:
                _refuse(found, number, f"{len(theirs[key])} connections at A look like one at B")
            else:
                found[number] = FlowMatch(
                    found[number].a, won.flow, won.flip, won.how, won.sure, won.text, won.shift
                )
        taken.update(theirs)


def _refuse(found: list[FlowMatch], number: int, text: str) -> None:
    found[number] = FlowMatch(found[number].a, None, False, "ambiguous", "unknown", text)


class _Index:
    """B's connections by what they can be found by."""

    def __init__(self, flows: Iterable[FlowSummary]) -> None:
        self.tuples: dict[bytes, list[tuple[FlowSummary, bool]]] = defaultdict(list)
        self.numbers: dict[int, list[tuple[FlowSummary, int]]] = defaultdict(list)
        self.stamps: dict[int, list[tuple[FlowSummary, int]]] = defaultdict(list)
        self.runs: dict[int, list[tuple[FlowSummary, int]]] = defaultdict(list)
        for flow in flows:
            self.tuples[flow.address_key].append((flow, False))
            if flow.reverse_key != flow.address_key:
                self.tuples[flow.reverse_key].append((flow, True))
            for way in (0, 1):
                for syn in flow.syns[way]:
                    self.numbers[syn.seq].append((flow, way))
                    if syn.tsval is not None:
                        self.stamps[syn.tsval].append((flow, way))
            for value, way in flow.sketch:
                self.runs[value].append((flow, way))

    def near(self, flow: FlowSummary) -> list[tuple[FlowSummary, bool]]:
        """Every connection that it may be, each with whether the ways are the other way round."""
        found = {(id(other), flip): other for other, flip in self.tuples.get(flow.address_key, ())}
        for way in (0, 1):
            for syn in flow.syns[way]:
                stamped = self.stamps.get(syn.tsval, ()) if syn.tsval is not None else ()
                for alike in (self.numbers.get(syn.seq, ()), stamped):
                    if len(alike) <= MOST_ALIKE:
                        for other, their_way in alike:
                            found[id(other), way != their_way] = other
        counts: dict[tuple[int, bool], int] = defaultdict(int)
        for value, way in flow.sketch:
            for other, their_way in self.runs.get(value, ()):
                key = (id(other), way != their_way)
                counts[key] += 1
                if counts[key] >= RUNS:
                    found[key] = other
        return [(other, flip) for (_, flip), other in found.items()]


def _candidate(a: FlowSummary, b: FlowSummary, flip: bool) -> _Candidate | None:
    """What says that b is a; ``None``: nothing does, or something says that it is not."""
    shift, equal, alike, stamped, opened = [0, 0], 0, 0, 0, False
    for way in (0, 1):
        mine, theirs = a.syns[way], b.syns[way ^ flip]
        if not mine or not theirs:
            continue
        pairs = [(one, other) for one in mine for other in theirs]
        common = [(one, other) for one, other in pairs if one.seq == other.seq]
        twins = [(one, other) for one, other in pairs if one.is_same(other)]
        if common:
            equal += 1
        elif twins:
            alike += 1
            shift[way] = distance(twins[0][0].seq, twins[0][1].seq)
        else:
            return None
        stamped += any(one.tsval is not None for one, _ in twins)
        opened |= way == a.opener
    same = _same_ways(a, b, flip)
    overlap = len({(value, way) for value, way in a.sketch} & {(v, w ^ flip) for v, w in b.sketch})
    said = _how(same, equal, alike, overlap, stamped, bool(_ports(a) & _ports(b)))
    if said is None:
        return None
    rate = _Rate(opened, 2 * equal + alike, bool(overlap), same, overlap)
    return _Candidate(rate, b, flip, *said, (shift[0], shift[1]))


def _how(
    same: bool, equal: int, alike: int, overlap: int, stamped: int, port: bool
) -> tuple[str, str, str] | None:
    """How a connection was found, how sure that is, and in words; ``None``: it was not."""
    if alike:
        where = "the same addresses and ports" if same else "other addresses (NAT)"
        if not same and stamped < 2:
            return None
        text = f"{where}, the same SYN but for its sequence number: a firewall renumbers in between"
        return "shifted-numbers", "likely", text
    if same:
        certain = bool(equal or overlap)
        numbers = ", and the same sequence numbers" if certain else ""
        text = f"the same addresses and ports at both points{numbers}"
        return "addresses", "sure" if certain else "possible", text
    if equal == 2:
        text = "other addresses (NAT), the same initial sequence numbers both ways"
        return "initial-sequence-numbers", "sure", text
    if equal and (port or stamped):
        what = "a port" if port else "timestamp"
        text = f"other addresses (NAT), the same initial sequence number and {what}"
        return "initial-sequence-numbers", "likely", text
    if overlap >= RUNS:
        text = "other addresses (NAT), the same sequence and acknowledgment numbers"
        return "sequence-numbers", "likely", text
    return None


def _same_ways(a: FlowSummary, b: FlowSummary, flip: bool) -> bool:
    """Whether both have the same addresses and ports, in the ways that `flip` says."""
    return a.address_key == (b.reverse_key if flip else b.address_key)


def _is_same(a: FlowSummary, b: FlowSummary) -> bool:
    """Whether both have the same addresses and ports."""
    return _same_ways(a, b, False) or _same_ways(a, b, True)


def _ports(flow: FlowSummary) -> set[int]:
    return {end.port for end in flow.ends}


# ---- strays ----


def _with_strays(found: list[FlowMatch]) -> list[FlowMatch]:
    """Packets that may have escaped NAT are put to the connection that they may belong to."""
    index = _StrayIndex(found)
    strays: dict[int, list[Stray]] = defaultdict(list)
    left = []
    for match in found:
        point = Point.A if match.a is not None else Point.B
        flow = match.at(point)
        homes = []
        if flow is not None and match.at(point.other) is None and not _opens(flow):
            homes = index.homes(point, flow)
        if flow is None or not homes:
            left.append(match)
        for home, stray in homes:
            strays[id(home)].append(stray)
    return [
        replace(match, strays=tuple(strays[id(match)])) if id(match) in strays else match
        for match in left
    ]


def _opens(flow: FlowSummary) -> bool:
    """Whether it begins with a SYN of its own, or may: then it is no stray."""
    return flow.opener is not None and bool(flow.syns[flow.opener])


class _StrayIndex:
    """Connections that NAT changes, by the addresses that they have at the other point, and by the
    numbers of their data."""

    def __init__(self, found: Iterable[FlowMatch]) -> None:
        self._keys: dict[tuple[Point, bytes], list[tuple[FlowMatch, bool]]] = defaultdict(list)
        self._runs: dict[tuple[Point, int], list[tuple[FlowMatch, int]]] = defaultdict(list)
        for match in found:
            if match.a is None or match.b is None or _is_same(match.a, match.b):
                continue
            for point in Point:
                far = match.at(point.other)
                assert far is not None
                flip = match.flips(point.other)
                self._keys[point, far.address_key].append((match, flip))
                self._keys[point, far.reverse_key].append((match, not flip))
                for value, way in far.sketch:
                    self._runs[point, value].append((match, way ^ flip))

    def homes(self, point: Point, flow: FlowSummary) -> list[tuple[FlowMatch, Stray]]:
        """The connections that these packets may belong to, and which packets to each: by the other
        point's addresses; else by the numbers of data, and an end that is the same. Several, where
        ports were used again: each up to the next one's beginning."""
        homes = list(self._keys.get((point, flow.address_key), ()))
        if not homes:
            for value, way in flow.sketch:
                for match, their_way in self._runs.get((point, value), ()):
                    here = match.at(point)
                    if here is not None and set(here.ends) & set(flow.ends):
                        homes.append((match, way != their_way))
        found = {}
        for match, flip in homes:
            here = match.at(point)
            if here is not None and here.first_frame <= flow.last_frame:
                found[id(match)] = here.first_frame, match, flip
        rows = sorted(found.values(), key=lambda row: row[0])[-MOST_ALIKE:]
        starts = [0, *(first for first, _, _ in rows[1:])]
        ends = [*starts[1:], None]
        return [
            (match, Stray(point, flow, flip, start, end))
            for (_, match, flip), start, end in zip(rows, starts, ends)
        ]
