"""A line says the same, whichever encoder made it: orjson, or the standard library's."""

from __future__ import annotations

import enum
import json
import math
from typing import Any

import pytest

from rsttrace.render import json as rendered


class Number(enum.IntEnum):
    """A number that is more than a number."""

    ONE = 1


OBJECTS: dict[str, dict[str, Any]] = {
    "plain": {"a": 1, "b": None, "c": [True, 1.5, "text"], "d": {"e": ()}},
    "floats": {"a": 1e-7, "b": 1e22, "c": -0.0, "d": 0.1 + 0.2},
    "no numbers": {"a": math.nan, "b": [math.inf], "c": {"d": -math.inf}},
    "large": {"a": 2**64, "b": -(2**70), "c": 2**53 + 1},
    "bytes": {"a": b"\x00\xff", "b": bytearray(b"x"), "c": {"d": (b"y",)}},
    "enums": {"a": Number.ONE, "b": [Number.ONE]},
    "sets": {"a": {2, 1}, "b": frozenset("x")},
    "keys": {"a": {1: "one", None: "none"}},
    "surrogates": {"a": "\ud800", "b": "\udcff\U0001f600"},
    "controls": {"a": "\x00\x1b[31m\x7f\x85\u2028\u202e", "\x7f": "\n"},
    "words": {"a": "Zürich", "b": "日本", "c": "12 µs before", "µ": "\U0001f600 and \ud83d\ude00"},
    "edges": {"a": "\x7f\x80", "b": "\uffff\U00010000\U0010ffff", "c": '"µ"'},
    "quotes": {"a": '"\\/', "b": "</script>"},
}


@pytest.mark.parametrize("name", OBJECTS)
def test_both_encoders_say_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of printable ASCII, and what a reader finds in it is the same."""
    assert rendered._AS_WE_DO
    fast = rendered.object_line(OBJECTS[name])
    monkeypatch.setattr(rendered, "orjson", None)
    thorough = rendered.object_line(OBJECTS[name])
    assert json.loads(fast) == json.loads(thorough)
    if not {name} & {"floats", "large"}:  # 1e-07 is 1e-7 to orjson
        assert fast == thorough
    for line in (fast, thorough):
        assert line.isascii()
        assert line.isprintable()


def test_the_fast_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what nearly every line is: the slow one is not asked."""
    monkeypatch.setattr(rendered, "_thorough", lambda made: pytest.fail(f"asked for {made}"))
    for name in ("plain", "floats", "no numbers", "bytes", "sets", "quotes", "edges"):
        rendered.object_line(OBJECTS[name])
    rendered.object_line({"text": "the peer was alive 12 µs before"})
