"""Counts over time in a bounded number of bins, as a drawing in SVG needs them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rsttrace.model import NO_TIME, Origin
from rsttrace.render.times import clock_time

BINS = 120
"""A timeline has so many bins at most."""

_NARROWEST_NS = 1_000_000


@dataclass
class Timeline:
    """How many resets of each origin came when.

    Bins are `width_ns` wide (nanoseconds) and start at multiples of it; when a reset would need
    more than `BINS` of them, each two become one. So memory is bounded, however long a run takes.
    """

    width_ns: int = _NARROWEST_NS
    bins: dict[int, Counter[Origin]] = field(default_factory=dict)
    first_ns: int | None = None
    last_ns: int | None = None

    def add(self, time_ns: int, origin: Origin, count: int = 1) -> None:
        """Count resets at a time (CLOCK_REALTIME); those without a time are left out."""
        if time_ns == NO_TIME:
            return
        self.first_ns = time_ns if self.first_ns is None else min(self.first_ns, time_ns)
        self.last_ns = time_ns if self.last_ns is None else max(self.last_ns, time_ns)
        while self.last_ns // self.width_ns - self.first_ns // self.width_ns >= BINS:
            self._widen()
        self.bins.setdefault(time_ns // self.width_ns, Counter())[origin] += count

    def _widen(self) -> None:
        self.width_ns *= 2
        merged: dict[int, Counter[Origin]] = {}
        for number, counts in self.bins.items():
            merged.setdefault(number // 2, Counter()).update(counts)
        self.bins = merged


@dataclass(frozen=True)
class Bar:
    """A rectangle of the drawing, in its own units; `title` is what it stands for, in words."""

    x: float
    y: float
    width: float
    height: float
    origin: str
    title: str


@dataclass(frozen=True)
class Drawn:
    """A timeline as rectangles. `most` is the highest bin's count, `width_ns` a bin's width."""

    bars: tuple[Bar, ...]
    most: int
    width: float
    height: float
    width_ns: int


ORDER = (Origin.FORGED, Origin.INCONCLUSIVE, Origin.PEER, Origin.LOCAL)
"""What stands at the bottom of a bin first."""

_NARROW = 4.0
"""No bar is narrower: a single reset has to be seen."""

_LOW = 3.0
"""No bar is lower."""


def draw(
    timeline: Timeline, *, utc: bool = False, width: float = 960.0, height: float = 120.0
) -> Drawn | None:
    """The timeline as bars, the forged ones at the bottom; ``None``: nothing had a time."""
    if timeline.first_ns is None or timeline.last_ns is None or not timeline.bins:
        return None
    first = timeline.first_ns // timeline.width_ns
    last = timeline.last_ns // timeline.width_ns
    step = width / (last - first + 1)
    most = max(sum(counts.values()) for counts in timeline.bins.values())
    bars: list[Bar] = []
    for number, counts in sorted(timeline.bins.items()):
        foot = height
        since = clock_time(number * timeline.width_ns, utc=utc)
        for origin in ORDER:
            count = counts[origin]
            if not count:
                continue
            tall = max(_LOW, count / most * (height - _LOW * len(ORDER)))
            foot -= tall
            broad = min(max(step * 0.8, _NARROW), width)
            x = min((number - first) * step, width - broad)
            bars.append(
                Bar(
                    round(x, 1),
                    round(foot, 1),
                    round(broad, 1),
                    round(tall, 1),
                    origin.value,
                    f"{count} {origin.value}, from {since}",
                )
            )
    return Drawn(tuple(bars), most, width, height, timeline.width_ns)
