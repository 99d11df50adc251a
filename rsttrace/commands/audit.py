"""Holds what was counted against the kernel's own counters, for the end of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from rsttrace.kernel.counts import Counts
from rsttrace.model import Kind

BY_TCP = (Kind.SENT_PASSIVE, Kind.SENT_ACTIVE)
"""What TcpOutRsts counts: RSTs of the kernel's TCP, not of its firewall, nor of programs."""

TRIES = 3
"""Looks at most, for one at a quiet moment."""


class _Look(NamedTuple):
    """The kernel's counters, by namespace, and ours just before and just after they were read."""

    before: int
    kernel: dict[int, int] | None
    after: int

    @property
    def still(self) -> bool:
        """Whether nothing was sent meanwhile."""
        return self.before == self.after


class Audit:
    """TcpOutRsts of all namespaces against what the probes saw leave.

    Both only grow, and are looked at while the probes are attached; so between two looks the one
    must have grown by as much as the other, give or take what happened during a look, and what was
    under way then on some CPU: the probes see a packet leave a moment before it is counted.

    Args:
        kernel: reads the kernel's counters by namespace; ``None``: it cannot.
        ours: reads the probes' counts.
    """

    def __init__(
        self,
        kernel: Callable[[], dict[int, int] | None],
        ours: Callable[[], Mapping[Kind, Counts]],
    ) -> None:
        """Takes the first look."""
        self._kernel = kernel
        self._ours = ours
        self._first = self._look()
        self._last: _Look | None = None

    def end(self) -> None:
        """Take the second look, before the probes are detached."""
        self._last = self._look()

    def line(self) -> str | None:
        """What came of it; ``None``: there is nothing to compare."""
        first, last = self._first, self._last
        if last is None or first.kernel is None or last.kernel is None:
            return None
        gone = first.kernel.keys() - last.kernel.keys()
        if gone:
            return (
                f"audit: TcpOutRsts is not compared: {_namespaces(len(gone))} ended meanwhile,"
                " and the counter with it"
            )
        grown = sum(count - first.kernel.get(inode, 0) for inode, count in last.kernel.items())
        least, most = last.before - first.after, last.after - first.before
        under_way = 0 if first.still and last.still else os.cpu_count() or 1
        whole = (
            f"audit: TcpOutRsts of {_namespaces(len(last.kernel))}:"
            f" {grown:,} sent by this host's TCP"
        )
        if grown > most + under_way:
            return (
                f"{whole}, {grown - most:,} more than were seen to leave: dropped before that (by a"
                " rule, or for want of a route or neighbour), or not seen"
            )
        if grown < least - under_way:
            return (
                f"{whole}, {least - grown:,} fewer than were seen to leave: namespaces that came"
                " and went meanwhile took theirs along, or one was not read"
            )
        return f"{whole}, and as many were seen to leave"

    def _look(self) -> _Look:
        """A look at a moment at which nothing is sent, if there is one: that one is exact."""
        for _ in range(TRIES):
            look = _Look(self._sent(), self._kernel(), self._sent())
            if look.still:
                break
        return look

    def _sent(self) -> int:
        counts = self._ours()
        return sum(sum(counts[kind]) for kind in BY_TCP)


def _namespaces(count: int) -> str:
    return "1 network namespace" if count == 1 else f"{count:,} network namespaces"
