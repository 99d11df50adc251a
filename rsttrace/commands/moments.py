"""Moments as the user writes them (``--until-a``, ``--until-b``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from rsttrace.compare.files import Until
from rsttrace.errors import UsageError
from rsttrace.model import Point

END_OF_DAY = "end of day"

HINT = (
    f"write it as 2026-11-28T22:50:31+01:00, 2026-11-28T21:50:31.25Z, or '{END_OF_DAY}': the day "
    "of the last packet there, in local time (with --utc in UTC)"
)

_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(?:(Z)|([+-])(\d\d):?(\d\d))",
    re.ASCII | re.IGNORECASE,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def until_of(options: Mapping[str, Any]) -> dict[Point, Until]:
    """Until when each point was watched, as the options say.

    Raises:
        UsageError: one is no such time.
    """
    found: dict[Point, Until] = {}
    for point in Point:
        name = f"until_{str(point).lower()}"
        text = options.get(name)
        if text is not None:
            found[point] = _until(f"--{name.replace('_', '-')}", text, utc=options["utc"])
    return found


def _until(option: str, text: str, *, utc: bool) -> Until:
    if " ".join(text.lower().replace("-", " ").split()) == END_OF_DAY:
        return lambda last_ns: _end_of_day(last_ns, utc=utc)
    try:
        moment_ns = time_ns(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!a}: {error}", hint=HINT) from None
    return lambda last_ns: moment_ns


def time_ns(text: str) -> int:
    """An ISO 8601 time with its zone (RFC 3339), in nanoseconds since the epoch. 24:00 is the
    day's end.

    Raises:
        ValueError: it is none; the message says why.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        bare = _TIME.fullmatch(f"{text.strip()}Z")
        raise ValueError("it has no time zone" if bare else "it is no time")
    day, hour, minute, second, fraction, _, sign, zone_hour, zone_minute = match.groups()
    try:
        begin = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=timezone.utc)
    except ValueError:
        raise ValueError("there is no such day") from None
    ends = int(hour) == 24 and not int(minute) and not int(second or 0) and not int(fraction or 0)
    if (int(hour) > 23 and not ends) or int(minute) > 59 or int(second or 0) > 60:
        raise ValueError("there is no such time of day")
    zone = timedelta(hours=int(zone_hour or 0), minutes=int(zone_minute or 0))
    since = begin - _EPOCH + timedelta(hours=int(hour), minutes=int(minute))
    since += zone if sign == "-" else -zone
    nanoseconds = int((fraction or "0").ljust(9, "0"))
    return (since // timedelta(seconds=1) + int(second or 0)) * 1_000_000_000 + nanoseconds


def _end_of_day(last_ns: int, *, utc: bool) -> int:
    """When the day ended that a time is in; that time itself where no calendar reaches."""
    try:
        moment = datetime.fromtimestamp(last_ns // 1_000_000_000, timezone.utc)
        day = moment if utc else moment.astimezone()
        begin = day.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        end = begin + timedelta(days=1)  # by the clock on the wall: a day may have 23 or 25 hours
        end = end.replace(tzinfo=timezone.utc) if utc else end.astimezone()
    except (OverflowError, ValueError, OSError):
        return last_ns
    return (end - _EPOCH) // timedelta(seconds=1) * 1_000_000_000
