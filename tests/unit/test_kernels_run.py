"""What counts as a failure of a guest: everything that is not a finished run without one."""

from __future__ import annotations

import argparse
import re
from typing import Any

import pytest

from tests.kernels import run as runner
from tests.kernels.kernels import GUESTS, select
from tests.kernels.variants import VARIANTS, Variant

GUEST = select(["6.1"])[0]
REQUEST = {"sessions": [["both", "auto", ["tests/lab/test_plans.py"]]]}


def passed(name: str, **recorded: Any) -> dict[str, Any]:
    return {"test": name, "when": "call", "outcome": "passed", "recorded": recorded, "why": ""}


def finished(**changes: Any) -> dict[str, Any]:
    """The result of a run without a flaw."""
    recorded = {f"{plan}-plan": {"hooks": ["a"], "unknown": []} for plan in runner.PLANS}
    return {
        "release": "6.1.0-56-cloud-amd64",
        "finished": True,
        "sessions": [{"name": "both", "code": 0, "tests": [passed("t", **recorded)]}],
        **changes,
    }


def problems(
    result: dict[str, Any], failure: str | None = None, console: str = "T job ended with 0\n"
) -> list[str]:
    found = runner.Run(GUEST, result=result)
    runner.judge(found, failure, console, REQUEST)
    return found.problems


def test_a_run_without_a_flaw_passes() -> None:
    assert problems(finished()) == []


def test_a_hang_is_a_failure() -> None:
    assert problems(finished(), failure="no end after 7 minutes") == ["no end after 7 minutes"]


def test_a_guest_that_died_is_a_failure_with_its_last_words() -> None:
    for result in ({}, finished(finished=False)):
        found = problems(result, console="line one\n\nthe very \x1b[2Jlast\n")
        assert "the guest died" in found[0]
        assert found[1:3] == ["    line one", "    the very \\x1b[2Jlast"]


def test_tests_that_did_not_run_are_a_failure() -> None:
    assert problems(finished(sessions=[])) == ["not all tests were run"]


@pytest.mark.parametrize(
    ("session", "says"),
    [
        ({"code": 2, "tests": finished()["sessions"][0]["tests"]}, "pytest ended with 2"),
        ({"code": 0, "tests": []}, "no test passed"),
        ({"code": 0, "tests": [passed("t")]}, "the plan kprobes did not run"),
    ],
)
def test_sessions_that_prove_nothing_are_failures(session: dict[str, Any], says: str) -> None:
    found = problems(finished(sessions=[{"name": "both", **session}]))
    assert any(says in problem for problem in found), found


def test_a_failed_test_is_named_with_its_reason() -> None:
    result = finished()
    result["sessions"][0]["tests"].append(
        {
            "test": "tests/lab/test_plans.py::test_x",
            "when": "call",
            "outcome": "failed",
            "recorded": {},
            "why": "def test_x():\nE   AssertionError: 3 is not 5\n",
        }
    )
    found = problems(result)
    assert found == [
        "both: tests/lab/test_plans.py::test_x (call)",
        "    AssertionError: 3 is not 5",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "Kernel panic - not syncing: Attempted to kill init!",
        "BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "general protection fault, probably for non-canonical address",
        "WARNING: CPU: 1 PID: 7 at net/ipv4/tcp.c:1 tcp_reset+0x1/0x2",
    ],
)
def test_a_kernel_that_complains_is_a_failure(line: str) -> None:
    (problem,) = problems(finished(), console=f"[ 1.0] {line}\n")
    assert problem.startswith("its kernel complained")


def test_an_emulator_without_time_is_no_failure() -> None:
    assert problems(finished(), console="watchdog: BUG: soft lockup - CPU#0 stuck for 26s!") == []


def test_another_kernel_than_the_list_says_is_a_failure() -> None:
    (problem,) = problems(finished(release="6.99.0-1-cloud-amd64"))
    assert "change kernels.py" in problem


def test_only_the_emulators_own_oopses_are_tried_again() -> None:
    assert runner.EMULATOR.search("[ 3.1] RIP: 0010:___slab_alloc+0x1/0x2")
    assert not runner.EMULATOR.search("[ 3.1] RIP: 0010:tcp_reset+0x1/0x2")


def test_the_table_has_a_row_for_each_kernel_and_plan() -> None:
    ran = runner.Run(GUEST, result=finished(python="3.11.2", bcc="0.26.0"), retries=1)
    dead = runner.Run(GUESTS[0], problems=["the guest died"])
    header, *rows = runner.table([ran, dead])
    assert header.split()[:4] == ["kernel", "python", "bcc", "plan"]
    assert [row.split()[3] for row in rows] == ["kprobes", "tracepoints"] * 2
    assert [row.split()[-1] for row in rows] == ["ok", "ok", "FAILED", "FAILED"]
    assert rows[0].split()[header.split().index("retries")] == "1"


@pytest.mark.parametrize("path", runner.BOTH)
def test_what_every_guest_runs_exists(path: str) -> None:
    assert (runner.CHECKOUT / path).is_file()


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_what_a_variant_runs_exists(variant: Variant) -> None:
    path, *chosen = variant.tests
    tests = re.findall(r"^def (test_\w+)", (runner.CHECKOUT / path).read_text(), re.MULTILINE)
    assert chosen[:-1] == (["-k"] if chosen else [])
    assert [name for name in tests if not chosen or chosen[-1] in name] != []


def test_chosen_tests_run_under_each_plan() -> None:
    """Taken apart as a shell does: `make kernels T=…` hands them over in one word."""
    given = argparse.Namespace(plan=None, variant=None, full=False, tests='a.py -k "b or c"')
    wanted = ["a.py", "-k", "b or c"]
    assert runner.sessions(given) == [(plan, plan, wanted) for plan in runner.PLANS]
    given.plan = ["kprobes"]
    assert runner.sessions(given) == [("kprobes", "kprobes", wanted)]
