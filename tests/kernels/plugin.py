"""A pytest plugin for guests: the same lab tests under a given plan, with a guest's patience.

Reads RSTTRACE_KERNELS_PLAN, RSTTRACE_KERNELS_START (seconds that loading may take) and
RSTTRACE_KERNELS_REPORT (a file that gets one JSON line for each test).
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from typing import Any

import pytest

from tests.lab import harness

PLAN = os.environ["RSTTRACE_KERNELS_PLAN"]
START_S = float(os.environ["RSTTRACE_KERNELS_START"])
REPORT = os.environ["RSTTRACE_KERNELS_REPORT"]


def pytest_configure() -> None:
    """Every tracer that the tests start gets the plan."""
    original = harness.Tracer.__init__

    def start(self: harness.Tracer, *options: str, wait: bool = True) -> None:
        patience, harness.DEADLINE_S = harness.DEADLINE_S, START_S
        try:
            original(self, "--plan", PLAN, *options, wait=wait)
        finally:
            harness.DEADLINE_S = patience

    harness.Tracer.__init__ = start  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Tell each test's end, and what its row proves."""
    report = yield
    if report.when == "call" or report.outcome != "passed":
        row = getattr(item, "callspec", None) and item.callspec.params.get("row")  # type: ignore[attr-defined]
        seen = [*row.server, *row.client, *row.router] if row else []
        line = {
            "test": item.nodeid,
            "when": report.when,
            "outcome": report.outcome,
            "seconds": round(report.duration, 1),
            "proves": sorted({(one.kind, one.cause) for one in seen}),
            "why": "" if report.passed else str(report.longrepr)[-6000:],
        }
        with open(REPORT, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if not report.passed:  # now, not at the end: the guest may die before
            item.config.get_terminal_writer().line(f"\n{line['why']}")
    return report
