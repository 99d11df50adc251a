"""What became of every reset that a run could have told of: nothing is missing without a word."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rsttrace.kernel.counts import Counts

EVERY_S = 1.0
"""How often losses are said, and lines of counts are made."""


@dataclass(frozen=True)
class Books:
    """Resets by what became of them.

    `filtered` were not asked for, `aggregated` were counted in place of being told, `lost` are all
    others: the ring buffer had no room for them, or the run ended before they were looked at.
    """

    shown: int
    aggregated: int
    filtered: int
    lost: int

    @property
    def line(self) -> str:
        """All of it, for the end of a run."""
        whole = self.shown + self.aggregated + self.filtered + self.lost
        return (
            f"resets: {whole:,} = {self.shown:,} shown + {self.aggregated:,} only counted"
            f" + {self.filtered:,} filtered + {self.lost:,} lost"
        )


def balance(counts: Iterable[Counts], *, shown: int, filtered: int, full: bool) -> Books:
    """The books of a run that has ended.

    Args:
        counts: the kernel side's, of all kinds; they no longer change.
        shown: how many were shown.
        filtered: how many were looked at and not wanted.
        full: whether it ended because as many were shown as were asked for: then nobody asked for
            the rest. Else what was not looked at is lost.
    """
    sent, filtered_there, lost, aggregated = (sum(column) for column in zip(*counts))
    left = max(0, sent - shown - filtered)  # the counts may be older than what was shown
    return Books(
        shown=shown,
        aggregated=aggregated,
        filtered=filtered_there + filtered + (left if full else 0),
        lost=lost + (0 if full else left),
    )


class Losses:
    """Says that resets are lost while that happens, at most once a second."""

    def __init__(
        self,
        counts: Callable[[], Iterable[Counts]],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`counts` reads the kernel side's counts now."""
        self._counts = counts
        self._say = say
        self._clock = clock
        self._next = clock() + EVERY_S
        self._told = 0

    def tell(self) -> None:
        """Say what was lost since the last time, if anything was."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + EVERY_S
        lost = sum(row.lost for row in self._counts())
        if lost > self._told:
            self._say(
                f"warning: {lost - self._told:,} resets are lost, {lost:,} so far: they come faster"
                " than they can be looked at, or the output is read too slowly"
            )
        self._told = lost
