"""The labelled captures, where a folder of them is named."""

from __future__ import annotations

import pytest

from tests.accuracy import captures
from tests.accuracy.table import by_label, failures, table


def test_captures_pass_the_bars() -> None:
    folder = captures.given()
    if folder is None:
        pytest.skip(f"no labelled captures: {captures.VARIABLE} names no folder")
    outcomes = captures.judge(folder)
    assert outcomes
    assert failures(outcomes) == [], table(outcomes, "label", by_label)
