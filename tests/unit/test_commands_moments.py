"""Moments as the user writes them."""

from __future__ import annotations

import pytest

from rsttrace.commands.moments import time_ns, until_of
from rsttrace.errors import UsageError
from rsttrace.model import Point
from tests.unit.test_render_samples import time_zone

SECOND = 1_000_000_000
MOMENT = 1_574_587_803 * SECOND  # 2019-11-24T09:30:03Z


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2019-11-24T09:30:03Z", MOMENT),
        ("2019-11-24t09:30:03z", MOMENT),
        (" 2019-11-24 09:30:03Z ", MOMENT),
        ("2019-11-24T17:30:03+08:00", MOMENT),
        ("2019-11-24T17:30:03+0800", MOMENT),
        ("2019-11-24T05:00:03-04:30", MOMENT),
        ("2019-11-24T09:30:03.25Z", MOMENT + SECOND // 4),
        ("2019-11-24T09:30:03,000000001Z", MOMENT + 1),
        ("2019-11-24T09:30Z", MOMENT - 3 * SECOND),
        ("2019-11-24T24:00Z", MOMENT - 3 * SECOND + 52_200 * SECOND),
        ("2016-12-31T23:59:60Z", 1_483_228_800 * SECOND),
    ],
)
def test_times(text: str, wanted: int) -> None:
    assert time_ns(text) == wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2019-11-24T09:30:03", "no time zone"),
        ("2019-11-24", "it is no time"),
        ("soon", "it is no time"),
        ("", "it is no time"),
        ("2019-11-24T09:30:03Z\nx", "it is no time"),
        ("2019-11-24T09:30:03.0000000001Z", "it is no time"),
        ("2019-13-24T09:30:03Z", "no such day"),
        ("2019-02-29T09:30:03Z", "no such day"),
        ("0000-01-01T00:00:00Z", "no such day"),
        ("2019-11-24T25:00:00Z", "no such time of day"),
        ("2019-11-24T24:00:01Z", "no such time of day"),
        ("2019-11-24T09:60:00Z", "no such time of day"),
        ("\u0661\u0662\u0663\u0664-11-24T09:30:03Z", "it is no time"),
    ],
)
def test_what_is_no_time_is_one_clear_error(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as error:
        until_of({"until_a": text, "until_b": None, "utc": False})
    first, *_ = str(error.value).splitlines()
    assert first.startswith("--until-a ")
    assert why in first
    assert error.value.hint is not None
    assert "2026-11-28T22:50:31+01:00" in error.value.hint


@pytest.mark.parametrize("text", ["end of day", "End-of-Day", " end  of day "])
@pytest.mark.parametrize(
    ("zone", "utc", "wanted"),
    [
        ("CST-8", False, MOMENT + (6 * 3600 + 29 * 60 + 57) * SECOND),  # 17:30:03 there
        ("CST-8", True, MOMENT + (14 * 3600 + 29 * 60 + 57) * SECOND),
        ("UTC0", False, MOMENT + (14 * 3600 + 29 * 60 + 57) * SECOND),
    ],
)
def test_the_end_of_the_day(text: str, zone: str, utc: bool, wanted: int) -> None:
    found = until_of({"until_a": None, "until_b": text, "utc": utc})
    with time_zone(zone):
        assert {point: until(MOMENT) for point, until in found.items()} == {Point.B: wanted}


def test_a_day_with_another_length() -> None:
    """Where clocks are put back at night, it has 25 hours."""
    (until,) = until_of({"until_a": "end of day", "until_b": None, "utc": False}).values()
    with time_zone("CET-1CEST,M3.5.0,M10.5.0/3"):
        assert until(1_572_130_800 * SECOND) == 1_572_217_200 * SECOND  # 27 October 2019


def test_a_time_that_no_calendar_reaches_is_its_own_end() -> None:
    (until,) = until_of({"until_a": "end of day", "until_b": None, "utc": True}).values()
    assert until(10**30) == 10**30
