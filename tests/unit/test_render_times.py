from __future__ import annotations

import pytest

from rsttrace.render.times import clock_time, duration, iso_time
from tests.unit.test_render_samples import TIME, time_zone

JULY = 1_562_000_000_000_000_001


@pytest.mark.parametrize(
    ("zone", "time_ns", "iso", "clock"),
    [
        ("CST-8", TIME, "2019-11-24T17:30:03.412345678+08:00", "17:30:03.412"),
        ("UTC0", TIME, "2019-11-24T09:30:03.412345678+00:00", "09:30:03.412"),
        ("IST-5:30", TIME, "2019-11-24T15:00:03.412345678+05:30", "15:00:03.412"),
        (
            "EST5EDT,M3.2.0,M11.1.0",
            TIME,
            "2019-11-24T04:30:03.412345678-05:00",
            "04:30:03.412",
        ),
        (
            "EST5EDT,M3.2.0,M11.1.0",
            JULY,
            "2019-07-01T12:53:20.000000001-04:00",
            "12:53:20.000",
        ),
        ("CST-8", 0, "1970-01-01T08:00:00.000000000+08:00", "08:00:00.000"),
        ("CST-8", 999_999_999, "1970-01-01T08:00:00.999999999+08:00", "08:00:00.999"),
        ("CST-8", -1, "1970-01-01T07:59:59.999999999+08:00", "07:59:59.999"),
        ("LMT-8:05:43", TIME, "2019-11-24T09:30:03.412345678+00:00", "09:30:03.412"),
    ],
)
def test_local_time(zone: str, time_ns: int, iso: str, clock: str) -> None:
    with time_zone(zone):
        assert iso_time(time_ns) == iso
        assert clock_time(time_ns) == clock


def test_utc_whatever_the_zone() -> None:
    with time_zone("CST-8"):
        assert iso_time(TIME, utc=True) == "2019-11-24T09:30:03.412345678+00:00"
        assert clock_time(TIME, utc=True) == "09:30:03.412Z"


@pytest.mark.parametrize("time_ns", [2**64 * 10**9, -(2**64) * 10**9, 253402300800 * 10**9])
def test_times_beyond_the_calendar(time_ns: int) -> None:
    with time_zone("CST-8"):
        assert iso_time(time_ns) is None
        assert clock_time(time_ns) == "??:??:??.???"
        assert clock_time(time_ns, utc=True) == "??:??:??.???Z"


@pytest.mark.parametrize(
    ("ns", "expected"),
    [
        (400_000, "0.4 ms"),
        (1_234, "0.001 ms"),
        (15_000_000, "15 ms"),
        (14_260_000, "14.3 ms"),
        (150_400_000, "150 ms"),
        (999_400_000, "999 ms"),
        (2_500_000_000, "2.5 s"),
        (3_600_000_000_000, "3600 s"),
        (0, "0 ms"),
        (-400_000, "-0.4 ms"),
    ],
)
def test_durations(ns: int, expected: str) -> None:
    assert duration(ns) == expected
