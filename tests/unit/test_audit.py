"""What the end of a run says of the kernel's own counters."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from rsttrace.commands.audit import Audit
from rsttrace.kernel.counts import Counts
from rsttrace.model import Kind

BUSY = os.cpu_count() or 1


def audit(looks: list[dict[int, int] | None], ours: Iterator[int]) -> Audit:
    """An audit of which both looks are taken; `ours` counts in turn what was seen to leave."""
    kernel = iter(looks)

    def counts() -> dict[Kind, Counts]:
        sent = next(ours)
        # told, filtered, lost and only counted: each is one that left; others' kinds are not TCP's
        mine = Counts(sent // 4, sent // 4, sent // 4, sent - sent // 4 * 3)
        other = Counts(99 * sent, 0, 0, 0)
        return {**dict.fromkeys(Kind, other), Kind.SENT_ACTIVE: mine, Kind.SENT_PASSIVE: mine}

    made = Audit(lambda: next(kernel), counts)
    made.end()
    return made


def still(first: int, last: int) -> Iterator[int]:
    """Nothing is sent while the counters are read."""
    yield from (first, first, last, last)


def test_as_many_as_the_kernel_counted() -> None:
    line = audit([{1: 5, 2: 7}, {1: 15, 2: 17}], still(0, 10)).line()
    assert line == (
        "audit: TcpOutRsts of 2 network namespaces: 20 sent by this host's TCP, and as many were"
        " seen to leave"
    )


@pytest.mark.parametrize(
    ("grown", "says"),
    [
        (21, "21 sent by this host's TCP, 1 more than were seen to leave: dropped before"),
        (1_019, "1,019 sent by this host's TCP, 999 more than"),
        (19, "19 sent by this host's TCP, 1 fewer than were seen to leave"),
    ],
)
def test_where_nothing_moved_one_is_told(grown: int, says: str) -> None:
    line = audit([{1: 5}, {1: 5 + grown}], still(0, 10)).line()
    assert line is not None
    assert says in line


def test_what_was_sent_during_a_look_may_be_in_it_or_not() -> None:
    """Each of three tries sees some leave: these, and those under way on a CPU, prove nothing."""

    def moving() -> Iterator[int]:
        yield from (0, 1, 1, 2, 2, 3)  # the last try counts: 2 to 3, of each of two kinds
        yield from (10, 11, 11, 12, 12, 13)

    looks = [{1: 0}] * 3
    for grown, says in (
        (22 + BUSY, "as many"),
        (23 + BUSY, f"{1 + BUSY} more"),
        (18 - BUSY, "as many"),
        (17 - BUSY, f"{1 + BUSY} fewer"),
    ):
        line = audit([*looks, *[{1: grown}] * 3], moving()).line()
        assert line is not None
        assert says in line


def test_a_namespace_that_came_meanwhile_counts_from_nothing() -> None:
    line = audit([{1: 5}, {1: 5, 3: 4}], still(0, 2)).line()
    assert line is not None
    assert "of 2 network namespaces: 4 sent" in line


def test_a_counter_that_went_with_its_namespace_proves_nothing() -> None:
    line = audit([{1: 5, 2: 1, 3: 1}, {1: 9}], still(0, 2)).line()
    assert line is not None
    assert "not compared: 2 network namespaces ended meanwhile" in line


@pytest.mark.parametrize("looks", [[None, {1: 1}], [{1: 1}, None]])
def test_what_cannot_be_read_is_not_compared(looks: list[dict[int, int] | None]) -> None:
    assert audit(looks, still(0, 2)).line() is None
