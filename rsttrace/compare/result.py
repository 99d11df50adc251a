"""What a comparison gives to its caller, whatever the two files are."""

from __future__ import annotations

from dataclasses import dataclass, field

from rsttrace.compare.clocks import Timing
from rsttrace.model import Comparison, OtherEnd, Point


@dataclass
class Result:
    """`comparison` is for the reader.

    `resets` says of each RST what the other point tells: by the point that saw it, and the number
    that this one counts it by (a capture's frame, the place in a log). `timing` puts B's times on
    A's clock; ``None`` where the clocks cannot be compared. `near` are the addresses behind each
    point, empty where a log does not tell.
    """

    comparison: Comparison
    resets: dict[tuple[Point, int], OtherEnd]
    timing: Timing | None
    near: dict[Point, frozenset[str]] = field(
        default_factory=lambda: {point: frozenset() for point in Point}
    )
