"""The difference between two capture clocks, from the packets that both points saw. Pure.

No packet arrives before it left. So what B's clock is ahead of A's is at most the least difference
(time at B minus time at A) of packets on their way to B, and at least the greatest one of packets
on their way to A: the two bounds that NTP takes the middle of (RFC 5905 §8).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rsttrace.model import Clocks

SECOND = 1_000_000_000

DRIFT_SPAN_NS = 60 * SECOND
"""In a shorter capture a quartz's drift (some 20 ppm) is not worth telling from jitter."""

BINS = 16
"""Pieces of a capture in which the offset is measured, to see it change."""

MOST_PPM = 1000.0
"""More than this is no drift: a clock was set (NTP slews with 500 ppm at most, adjtimex(2))."""


class Tick(NamedTuple):
    """One packet at both points: its time at A, B's time minus A's, and whether it went to B."""

    a_ns: int
    difference_ns: int
    to_b: bool


@dataclass(frozen=True)
class Timing:
    """What the packets say of the clocks; `bounds` of the difference at a time of A's clock.

    `slowest` is, for each direction (to B, to A), how much longer than its fastest packet its
    slowest one took.
    """

    clocks: Clocks
    middle_ns: int
    slowest: tuple[int, int]

    def bounds(self, a_ns: int) -> tuple[int | None, int | None]:
        """(lower, upper) of what B's clock is ahead, at this time of A's clock."""
        moved = round(self.clocks.drift_ppm * 1e-6 * (a_ns - self.middle_ns))
        lower, upper = self.clocks.lower, self.clocks.upper
        return (
            None if lower is None else lower + moved,
            None if upper is None else upper + moved,
        )

    def to_a(self, b_ns: int) -> int:
        """Roughly what A's clock shows when B's shows this: the best known offset taken off."""
        known = self.clocks
        rough = known.offset
        if rough is None:
            rough = known.upper if known.lower is None else known.lower
        if rough is None:
            return b_ns
        return b_ns - rough - round(known.drift_ppm * 1e-6 * (b_ns - rough - self.middle_ns))


def measure(ticks: Iterable[Tick]) -> Timing | None:
    """The clocks' difference from packets seen at both points; ``None`` if there is none."""
    found = sorted(ticks)
    if not found:
        return None
    middle = (found[0].a_ns + found[-1].a_ns) // 2
    drift = _drift(found, middle)
    straight = [
        tick._replace(difference_ns=tick.difference_ns - round(drift * 1e-6 * (tick.a_ns - middle)))
        for tick in found
    ]
    to_b = [tick.difference_ns for tick in straight if tick.to_b]
    to_a = [tick.difference_ns for tick in straight if not tick.to_b]
    upper = min(to_b) if to_b else None
    lower = max(to_a) if to_a else None
    steady = lower is None or upper is None or lower <= upper
    offset = None if lower is None or upper is None else (lower + upper) // 2
    slowest = (max(to_b) - min(to_b) if to_b else 0, max(to_a) - min(to_a) if to_a else 0)
    clocks = Clocks(offset, lower, upper, drift, steady, len(to_b), len(to_a))
    return Timing(clocks, middle, slowest)


def _drift(ticks: Sequence[Tick], middle: int) -> float:
    """How much B's clock gains, in ppm; 0 where that cannot be told from the round trip's half."""
    span = ticks[-1].a_ns - ticks[0].a_ns
    if span < DRIFT_SPAN_NS:
        return 0.0
    points = []  # (time, offset, error)
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
            points.append((at - middle, offset, max(error, 1000.0)))
    if len(points) < 3:
        return 0.0
    weights = [1 / error**2 for _, _, error in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _, _) in zip(weights, points)) / total
    mean_y = sum(w * y for w, (_, y, _) in zip(weights, points)) / total
    spread = sum(w * (x - mean_x) ** 2 for w, (x, _, _) in zip(weights, points))
    if not spread:
        return 0.0
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y, _) in zip(weights, points)) / spread
    gained = abs(slope) * (points[-1][0] - points[0][0])
    if gained < sum(error for _, _, error in points) / len(points) / 4:
        return 0.0
    return slope * 1e6 if abs(slope) * 1e6 <= MOST_PPM else 0.0
