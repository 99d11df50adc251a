"""The labelled captures, where they are."""

from __future__ import annotations

import pytest

from tests.accuracy import captures
from tests.accuracy.table import by_label, failures, table


def test_captures_pass_the_bars() -> None:
    if not captures.present(captures.DEFAULT):
        pytest.skip(f"no labelled captures in ../shared/pcaps ({captures.LABELS})")
    outcomes = captures.judge(captures.DEFAULT)
    assert outcomes
    assert failures(outcomes) == [], table(outcomes, "label", by_label)
