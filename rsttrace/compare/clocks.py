"""The difference between two capture clocks, from the packets that both points saw. Pure.

No packet arrives before it left. So what B's clock is ahead of A's is at most the least difference
(time at B minus time at A) of packets on their way to B, and at least the greatest one of packets
on their way to A: the two bounds that NTP takes the middle of (RFC 5905 §8).
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rsttrace.model import Clocks, Point

SECOND = 1_000_000_000

DRIFT_SPAN_NS = 60 * SECOND
"""In a shorter capture a quartz's drift (some 20 ppm) is not worth telling from jitter, as long as
no packet contradicts."""

BINS = 16
"""Pieces of a capture in which the offset is measured, to see it change."""

STEP_NS, STEPS = 10 * SECOND, 2
"""Where one straight line does not fit the clocks, packets of this moment and so many steps before
and after are looked at: in a minute a quartz's drift changes by next to nothing."""

SLACK_NS = 20_000
"""Time stamps of one packet may differ by so much from when it passed."""

LATE_NS = 60 * SECOND
"""No RST is on its way for longer (RFC 9293 §3.4.1: twice that is the longest life)."""

PIECES, ROUNDS = 64, 80
"""The drift that contradicts no packet is looked for among the fastest packets of so many pieces of
the capture, halving what is left so often."""

MOST_PPM = 1000.0
"""More than this is no drift: a clock was set (NTP slews with 500 ppm at most, adjtimex(2))."""


class Tick(NamedTuple):
    """One packet at both points: its time at A, B's time minus A's, and whether it went to B."""

    a_ns: int
    difference_ns: int
    to_b: bool


class Timing:
    """What the packets say of the clocks.

    The drift is taken to be the same all along; what is left of it, as a quartz's temperature
    changes, is met by looking at packets from around the moment only. `slack_ns` is how much a
    packet may seem to arrive before it left: more where only a drift makes sense of a short
    capture.
    """

    def __init__(self, ticks: Sequence[Tick]) -> None:
        ticks = sorted(ticks)
        self._middle = (ticks[0].a_ns + ticks[-1].a_ns) // 2
        self._drift = _drift(ticks, self._middle)
        self.slack_ns = SLACK_NS
        if _contradiction(ticks, self._middle, self._drift) > 0:
            fitting = _corridor(ticks, self._middle)
            if fitting is not None:
                self._drift = fitting
                if ticks[-1].a_ns - ticks[0].a_ns < DRIFT_SPAN_NS:
                    self.slack_ns += _contradiction(ticks, self._middle, 0.0)
        self._near: dict[int, tuple[int | None, int | None]] = {}
        self._times: tuple[list[int], list[int]] = ([], [])
        self._differences: tuple[list[int], list[int]] = ([], [])
        for tick in ticks:
            self._times[tick.to_b].append(tick.a_ns)
            self._differences[tick.to_b].append(tick.difference_ns - self._moved(tick.a_ns))
        to_a, to_b = self._differences
        self._lower = max(to_a) if to_a else None
        self._upper = min(to_b) if to_b else None
        # How much longer than the fastest packet to a point the slowest one took.
        self._slowest = {
            Point.A: max(to_a) - min(to_a) if to_a else 0,
            Point.B: max(to_b) - min(to_b) if to_b else 0,
        }
        lower, upper = self._lower, self._upper
        if not self.steady_at(self._middle):
            lower, upper = self._around(self._middle)
        steady = all(self.steady_at(tick.a_ns) for tick in ticks)
        offset = None if lower is None or upper is None else (lower + upper) // 2
        drift = self._drift
        self.clocks = Clocks(offset, lower, upper, drift, steady, len(to_b), len(to_a))

    def bounds(self, a_ns: int) -> tuple[int | None, int | None]:
        """(lower, upper) of what B's clock is ahead, at this time of A's clock."""
        moved = self._moved(a_ns)
        lower, upper = self._around(a_ns)
        return (
            None if lower is None else lower + moved,
            None if upper is None else upper + moved,
        )

    def steady_at(self, a_ns: int) -> bool:
        """Whether the packets around a time of A's clock agree with each other."""
        lower, upper = self._around(a_ns)
        return lower is None or upper is None or lower <= upper

    def by_a(self, point: Point, time_ns: int) -> int:
        """Roughly what A's clock shows when a point's shows this: the best known offset off."""
        if point is Point.A:
            return time_ns
        known = [bound for bound in (self._lower, self._upper) if bound is not None]
        rough = time_ns - sum(known) // len(known)
        return rough - self._moved(rough)

    def departure(self, point: Point, time_ns: int) -> tuple[int, int] | None:
        """When a packet that came in at a point left the other, by its clock: (earliest, latest).

        The latest is exact: it took no less than the fastest packet of its direction. ``None``
        where no packet that way was seen at both points.
        """
        lower, upper = self.bounds(self.by_a(point, time_ns))
        ahead, sign = (lower, 1) if point is Point.A else (upper, -1)
        if ahead is None:
            return None
        latest = time_ns + sign * ahead
        return latest - self._slowest[point], latest

    def arrival(self, point: Point, time_ns: int) -> tuple[int, int] | None:
        """When a packet that left a point comes to the other, by its clock: (earliest, latest)."""
        lower, upper = self.bounds(self.by_a(point, time_ns))
        ahead, sign = (upper, 1) if point is Point.A else (lower, -1)
        if ahead is None:
            return None
        earliest = time_ns + sign * ahead
        return earliest, earliest + self._slowest[point.other]

    def feasible(self, a_ns: int, b_ns: int, *, to_b: bool) -> bool:
        """Whether a packet seen at A and one at B may be one: it does not arrive before it left."""
        lower, upper = self.bounds(a_ns)
        difference = b_ns - a_ns
        if to_b:
            early = lower is not None and difference < lower - self.slack_ns
            late = upper is not None and difference > upper + LATE_NS
        else:
            early = upper is not None and difference > upper + self.slack_ns
            late = lower is not None and difference < lower - LATE_NS
        return not early and not late

    def round_trip(self) -> int | None:
        """The least round trip between the points, in nanoseconds; ``None`` if not known."""
        lower, upper = self.clocks.lower, self.clocks.upper
        return None if lower is None or upper is None or upper < lower else upper - lower

    def _moved(self, a_ns: int) -> int:
        """How much B's clock has gained since the middle."""
        return round(self._drift * 1e-6 * (a_ns - self._middle))

    def _around(self, a_ns: int) -> tuple[int | None, int | None]:
        """The bounds, without the drift, from the packets around a time; else from all."""
        if self._lower is None or self._upper is None or self._lower <= self._upper:
            return self._lower, self._upper
        step = a_ns // STEP_NS
        found = self._near.get(step)
        if found is None:
            start, end = (step - STEPS) * STEP_NS, (step + 1 + STEPS) * STEP_NS
            near = []
            for times, differences in zip(self._times, self._differences):
                first, last = bisect.bisect_left(times, start), bisect.bisect_right(times, end)
                near.append(differences[first:last])
            found = self._near[step] = (
                max(near[0], default=self._lower),
                min(near[1], default=self._upper),
            )
        return found


def measure(ticks: Iterable[Tick]) -> Timing | None:
    """The clocks' difference from packets seen at both points; ``None`` if there is none."""
    found = list(ticks)
    return Timing(found) if found else None


def _drift(ticks: Sequence[Tick], middle: int) -> float:
    """How much B's clock gains, in ppm; 0 where that cannot be told from the round trip's half."""
    span = ticks[-1].a_ns - ticks[0].a_ns
    if span < DRIFT_SPAN_NS:
        return 0.0
    samples = []  # (time, offset, error)
    for number in range(BINS):
        start = ticks[0].a_ns + span * number // BINS
        end = ticks[0].a_ns + span * (number + 1) // BINS
        inside = [tick for tick in ticks if start <= tick.a_ns <= end]
        to_b = [tick for tick in inside if tick.to_b]
        to_a = [tick for tick in inside if not tick.to_b]
        if to_b and to_a:
            fast_b = min(to_b, key=lambda tick: tick.difference_ns)
            fast_a = max(to_a, key=lambda tick: tick.difference_ns)
            at = (fast_b.a_ns + fast_a.a_ns) / 2
            offset = (fast_b.difference_ns + fast_a.difference_ns) / 2
            error = abs(fast_b.difference_ns - fast_a.difference_ns) / 2
            samples.append((at - middle, offset, max(error, 1000.0)))
    if len(samples) < 3:
        return 0.0
    weights = [1 / error**2 for _, _, error in samples]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _, _) in zip(weights, samples)) / total
    mean_y = sum(w * y for w, (_, y, _) in zip(weights, samples)) / total
    spread = sum(w * (x - mean_x) ** 2 for w, (x, _, _) in zip(weights, samples))
    if not spread:
        return 0.0
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y, _) in zip(weights, samples)) / spread
    gained = abs(slope) * (samples[-1][0] - samples[0][0])
    if gained < sum(error for _, _, error in samples) / len(samples) / 4:
        return 0.0
    return slope * 1e6 if abs(slope) * 1e6 <= MOST_PPM else 0.0


def _contradiction(ticks: Sequence[Tick], middle: int, drift: float) -> int:
    """How much earlier than it left a packet seems to have arrived, at this drift; 0: none did."""
    to_a: list[int] = []
    to_b: list[int] = []
    for tick in ticks:
        moved = round(drift * 1e-6 * (tick.a_ns - middle))
        (to_b if tick.to_b else to_a).append(tick.difference_ns - moved)
    return max(0, max(to_a) - min(to_b)) if to_a and to_b else 0


def _corridor(ticks: Sequence[Tick], middle: int) -> float | None:
    """The drift, in ppm, that leaves the widest way between the packets to B and those to A, so
    that none arrives before it left; ``None`` if there is no such drift.

    The width is concave in the drift: the minimum of straight lines less the maximum of others.
    """
    span = ticks[-1].a_ns - ticks[0].a_ns
    fastest: dict[tuple[bool, int], Tick] = {}
    for tick in ticks:
        key = tick.to_b, (tick.a_ns - ticks[0].a_ns) * PIECES // (span + 1)
        known = fastest.get(key)
        if known is None or (tick.difference_ns < known.difference_ns) == tick.to_b:
            fastest[key] = tick
    few = sorted(fastest.values())

    def width(drift: float) -> float:
        to_b = [t.difference_ns - drift * 1e-6 * (t.a_ns - middle) for t in few if t.to_b]
        to_a = [t.difference_ns - drift * 1e-6 * (t.a_ns - middle) for t in few if not t.to_b]
        return min(to_b) - max(to_a)

    low, high = -MOST_PPM, MOST_PPM
    for _ in range(ROUNDS):
        third = (high - low) / 3
        if width(low + third) < width(high - third):
            low += third
        else:
            high -= third
    found = (low + high) / 2
    return found if not _contradiction(ticks, middle, found) else None
