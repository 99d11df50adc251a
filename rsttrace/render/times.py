"""Points in time as text: nanoseconds since the epoch in, local time (or UTC) out."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from functools import lru_cache

_NS = 1_000_000_000


def iso_time(time_ns: int, *, utc: bool = False) -> str | None:
    """ISO 8601 with nine decimal digits and offset: ``2019-11-24T17:30:03.412345678+08:00``.

    ``None`` where no calendar reaches: a capture file may carry any number as its time.
    """
    second, nanoseconds = divmod(time_ns, _NS)
    text = _iso_second(second, utc, (*time.tzname, time.timezone))
    return None if text is None else f"{text[:-6]}.{nanoseconds:09d}{text[-6:]}"


@lru_cache(maxsize=64)
def _iso_second(second: int, utc: bool, zone: tuple[str, str, int]) -> str | None:
    """A whole second; ends in the offset, ``+08:00``: six characters. `zone`: tzset(3) changes it.

    Resets come many to a second.
    """
    moment = _moment(second * _NS, utc)
    return None if moment is None else moment.isoformat()


def log_time(time_ns: int, *, utc: bool = False) -> str:
    """Date and time of day, cut to milliseconds: ``2019-11-24T17:30:03.412``, with ``Z`` if UTC."""
    moment = _moment(time_ns, utc)
    day = "????-??-??" if moment is None else f"{moment:%Y-%m-%d}"
    return f"{day}T{clock_time(time_ns, utc=utc)}"


def clock_time(time_ns: int, *, utc: bool = False) -> str:
    """The time of day, cut to milliseconds: ``17:30:03.412``, with ``Z`` if it is UTC."""
    moment = _moment(time_ns, utc)
    if moment is None:
        return "??:??:??.???" + ("Z" if utc else "")
    milliseconds = time_ns % _NS // 1_000_000
    return f"{moment:%H:%M:%S}.{milliseconds:03d}" + ("Z" if utc else "")


def duration(ns: int) -> str:
    """A span for people: ``0.4 ms``, ``15 ms``, ``2.5 s``."""
    value, unit = (ns / 1e6, "ms") if abs(ns) < _NS else (ns / 1e9, "s")
    decimals = 3 if abs(value) < 1 else 1 if abs(value) < 100 else 0
    text = f"{value:.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.') if decimals else text} {unit}"


def _moment(time_ns: int, utc: bool) -> datetime | None:
    try:
        moment = datetime.fromtimestamp(time_ns // _NS, timezone.utc)
        local = moment if utc else moment.astimezone()
    except (OverflowError, ValueError, OSError):
        return None
    # Before standard time, zones had offsets with seconds, which RFC 3339 cannot express.
    offset = local.utcoffset() or timedelta()
    return moment if offset % timedelta(minutes=1) else local
