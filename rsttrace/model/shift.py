"""Moves a reset in time: somebody has set the date, and what is remembered must keep its distance.

What comes next has times by the new date.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from rsttrace.model.reset import Reset

DATES = frozenset(
    {
        "time_ns",
        "first_ns",
        "last_ns",
        "syn_ns",
        "fin_ns",
        "strange_ns",
        "we_reset_ns",
        "ended_ns",
        "confirmed_ns",
    }
)
"""Members that are CLOCK_REALTIME (nanoseconds). Others named ``…_ns`` are durations."""


def shift(resets: Iterable[Reset], by_ns: int) -> None:
    """Move each of these resets, and those beside them (`Reset.siblings`), once, in place."""
    waiting, done = list(resets), set()
    while waiting:
        reset = waiting.pop()
        if id(reset) in done:
            continue
        done.add(id(reset))
        waiting += reset.siblings
        for name, value in _moved(reset, by_ns).items():
            setattr(reset, name, value)
        reset.memo.clear()


def shifted(value: Any, by_ns: int) -> Any:
    """A value of the model moved in time; itself if it has no date."""
    if isinstance(value, tuple):
        return tuple(shifted(item, by_ns) for item in value)
    if not is_dataclass(value) or isinstance(value, (Reset, type)):
        return value
    changes = _moved(value, by_ns)
    return replace(value, **changes) if changes else value


def _moved(owner: Any, by_ns: int) -> dict[str, Any]:
    """The members that have a date, moved."""
    found = {}
    for member in fields(owner):
        name, value = member.name, getattr(owner, member.name)
        if name in DATES:
            moved = None if value is None else value + by_ns
        elif name == "clock":  # Half.clock: (TSval, time)
            moved = tuple((stamp, time_ns + by_ns) for stamp, time_ns in value)
        else:
            moved = shifted(value, by_ns)
        if moved is not value and moved != value:
            found[name] = moved
    return found
