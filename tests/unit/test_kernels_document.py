"""docs/kernels.md is what a run of the guests said, and nothing else."""

from __future__ import annotations

import copy
import json

from tests.kernels import document
from tests.kernels.kernels import GUESTS

FACTS = json.loads(document.FACTS.read_text())


def test_the_document_is_generated() -> None:
    assert document.render(FACTS) == document.DOCUMENT.read_text()


def test_it_has_every_kernel() -> None:
    assert list(FACTS) == [guest.name for guest in GUESTS]


def test_a_run_that_found_something_else_is_noticed() -> None:
    found = copy.deepcopy(FACTS)
    assert document.differences(found, FACTS) == []
    found["6.1"]["release"] = "6.1.0-999-cloud-amd64"  # a point release
    assert document.differences(found, FACTS) == []
    found["6.1"]["plans"]["kprobes"]["hooks"].pop()
    (difference,) = document.differences(found, FACTS)
    assert difference.startswith("6.1:")


def test_a_failed_test_proves_nothing() -> None:
    recorded = {
        "kprobes": [["sent-raw", "raw-socket"]],
        "knows": {},
        **{f"{plan}-plan": {"hooks": [], "unknown": []} for plan in document.PLANS},
    }
    test = {"outcome": "passed", "recorded": recorded}
    result = {"release": "1", "python": "3", "bcc": "0", "sessions": [{"tests": [test]}]}
    proven = document.guest_facts(result)["plans"]["kprobes"]["proven"]
    assert proven == [["sent-raw", "raw-socket"]]
    test["outcome"] = "failed"
    assert document.guest_facts(result) == {}
