"""A pytest plugin for guests: one JSON line for each test, in the file RSTTRACE_KERNELS_REPORT.

Written at once, so that a guest that dies has told what it could.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from typing import Any

import pytest

REPORT = os.environ["RSTTRACE_KERNELS_REPORT"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Tell each test's end, and what it recorded (`record_property`)."""
    report = yield
    if report.when == "call" or report.outcome != "passed":
        line = {
            "test": item.nodeid,
            "when": report.when,
            "outcome": report.outcome,
            "seconds": round(report.duration, 1),
            "recorded": dict(report.user_properties),
            "why": "" if report.passed else str(report.longrepr)[-6000:],
        }
        with open(REPORT, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if not report.passed:  # now, not at the end: the guest may die before
            item.config.get_terminal_writer().line(f"\n{line['why']}")
    return report
