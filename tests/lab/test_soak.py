"""A short soak; `make soak` is the long one."""

from __future__ import annotations

from tests.soak.mix import KINDS
from tests.soak.run import soak


def test_nothing_is_missing_double_or_invented() -> None:
    result = soak(15.0, rate=10.0)
    assert result.problems() == []
    assert result.played > len(KINDS)
