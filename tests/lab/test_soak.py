"""A short soak; `make soak` is the long one."""

from __future__ import annotations

import pytest

from tests.soak.mix import KINDS
from tests.soak.run import soak


@pytest.mark.parametrize(
    ("seconds", "rate"),
    [
        (15.0, 10.0),
        pytest.param(300.0, 3.0, marks=pytest.mark.slow),
    ],  # for guests: see the Makefile
    ids=["seconds", "minutes"],
)
def test_nothing_is_missing_double_or_invented(seconds: float, rate: float) -> None:
    result = soak(seconds, rate)
    print(result.text())
    assert result.problems() == []
    assert result.played > len(KINDS)
