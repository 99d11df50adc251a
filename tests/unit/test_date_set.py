"""Somebody sets the date while a run goes on: no verdict is another, no time is off."""

from __future__ import annotations

import copy
import dataclasses
import random
import time
from typing import Any

import pytest

from rsttrace import model
from rsttrace.judge.history import History
from rsttrace.kernel.clock import STEP_NS, Date
from rsttrace.model import LatePacket, Reset
from rsttrace.model.shift import DATES, shift, shifted
from tests.unit import builders as b
from tests.unit.builders import MS, SECOND
from tests.unit.test_judge_history import (
    answering,
    check,
    failed,
    one,
    passed_on,
    raced,
    random_items,
    three,
)

HOUR_NS = 3600 * SECOND


def eventful() -> list[Reset | LatePacket]:
    """All that a history remembers: siblings, late packets, checks, races, our own resets."""
    items: list[Reset | LatePacket] = [
        *random_items(random.Random(11)),
        *three(),
        failed(),
        passed_on(),
        answering(5),
        one(5, b.TIME + 3 * MS),
        *(check(number, b.TIME + number * 2 * SECOND) for number in range(4)),
        *(raced(20 + number, 30) for number in range(3)),
    ]
    return sorted(items, key=lambda item: item.time_ns)


def played(
    items: list[Reset | LatePacket], at: int | None, by_ns: int, *, told_of: bool = True
) -> list[tuple[Any, ...]]:
    """The verdicts as they are told, one item after the other, with what else depends on times.

    Before number `at` the date is set; `told_of`: the history is told.
    """
    history, told, since_ns = History(), [], 0
    for number, given in enumerate(copy.deepcopy(items)):
        if number == at:
            since_ns = by_ns
            if told_of:
                history.date_was_set(by_ns)
        item = shifted(given, since_ns)
        if isinstance(item, Reset):
            shift([item], since_ns)
        history.add(item, 0)
        for case in history.due(0):
            reset = case.reset
            dates = [reset.we_reset_ns, reset.ended_ns, *(seen.time_ns for seen in reset.later)]
            ages = [None if date is None else date - reset.time_ns for date in dates]
            told.append((case.verdict, reset.period_s, reset.races, len(reset.others), ages))
    return told


@pytest.mark.parametrize("by_ns", [-HOUR_NS, HOUR_NS])
def test_no_verdict_is_another_because_the_date_was_set(by_ns: int) -> None:
    items = eventful()
    usual = played(items, None, 0)
    unaware = 0
    for at in range(0, len(items), 4):
        assert played(items, at, by_ns) == usual, at
        unaware += played(items, at, by_ns, told_of=False) != usual
    assert unaware, "else there is nothing to be told"


def test_every_date_of_a_reset_is_moved_and_no_duration() -> None:
    found = copy.deepcopy(eventful())
    resets = [item for item in found if isinstance(item, Reset)]
    shift(resets, 1)
    for moved, before in zip(resets, (item for item in eventful() if isinstance(item, Reset))):
        assert dates_of(moved) == [date + 1 for date in dates_of(before)]
        assert moved.races == before.races


def dates_of(value: Any) -> list[int]:
    """Every whole number in it that is a date: no year but those of the samples begins so."""
    if isinstance(value, int):
        return [value] if abs(value - b.TIME) < 10 * HOUR_NS else []
    if dataclasses.is_dataclass(value):
        names = (member.name for member in dataclasses.fields(value))
        return [date for name in names for date in dates_of(getattr(value, name))]
    return [date for item in value for date in dates_of(item)] if isinstance(value, tuple) else []


def test_every_member_that_is_a_date_is_known_as_one() -> None:
    """A new member of the model that is CLOCK_REALTIME must be moved, too."""
    durations = {"idle_ns", "used_ns"}
    names = {
        member.name
        for kind in vars(model).values()
        if dataclasses.is_dataclass(kind) and kind.__module__ == "rsttrace.model.reset"
        for member in dataclasses.fields(kind)
        if member.name.endswith("_ns")
    }
    assert names - durations == DATES


def test_the_clocks_are_apart_by_what_the_date_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    date = Date()
    before = date.offset_ns
    assert date.was_set() == 0
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - HOUR_NS)
    assert abs(date.was_set() + HOUR_NS) < STEP_NS
    assert date.was_set() == 0
    assert abs(date.offset_ns - before + HOUR_NS) < STEP_NS
    monkeypatch.undo()
    assert abs(date.was_set() - HOUR_NS) < STEP_NS
