"""The faster cases of the live lab, in ``make test``; ``make accuracy`` plays them all."""

from __future__ import annotations

import pytest

from tests.accuracy.case import Case, Outcome
from tests.accuracy.cases import all_cases
from tests.accuracy.run import Result, play_all
from tests.accuracy.table import MUST, by_label, failures, table, without_twin
from tests.lab.harness import skip_without

CASES = [case for case in all_cases() if case.fast]
FORGED = [case for case in CASES if not case.honest]


@pytest.fixture(scope="session")
def result() -> Result:
    """All cases are played under one tracer, which is ended before anything is judged: its last
    word on a reset may come late."""
    return play_all(CASES)


def told(outcome: Outcome) -> str:
    """What was said, for a failure's message."""
    entry = outcome.entry or {}
    evidence = [f"{e['weight']:+.1f} {e['text']}" for e in entry.get("evidence", ())]
    return f"at the {outcome.role}: {outcome.verdict} {entry.get('score')} {evidence}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_honest_reset_is_called_forged(case: Case, result: Result) -> None:
    skip_without(*case.programs)
    assert case.name not in result.broken, result.broken[case.name]
    outcomes = result.of(case.name)
    assert outcomes, "no reset arrived"
    assert not [told(outcome) for outcome in outcomes if outcome.accused]
    assert not [outcome for outcome in outcomes if outcome.entry is None], "nothing was said of it"


@pytest.mark.parametrize("case", FORGED, ids=lambda case: case.name)
def test_each_forger_was_at_work(case: Case, result: Result) -> None:
    """The case is what it says: such a reset arrived (else the bars below prove nothing)."""
    skip_without(*case.programs)
    assert [outcome for outcome in result.of(case.name) if outcome.label == case.label]


@pytest.mark.parametrize("trust", ["proven", "decidable", "late"])
def test_forged_resets_are_found(trust: str, result: Result) -> None:
    outcomes = [o for o in result.outcomes if o.trust == trust and o.label == "forged"]
    hits = sum(outcome.found for outcome in outcomes)
    missed = "\n".join(f"{o.case} {told(o)}" for o in outcomes if not o.found)
    print(table(result.outcomes, "label", by_label))
    assert outcomes
    assert hits >= MUST[trust] * len(outcomes), f"{hits} of {len(outcomes)}:\n{missed}"
    assert not [line for line in failures(outcomes) if trust in line]


def test_undecidable_ones_have_an_honest_twin(result: Result) -> None:
    assert without_twin(result.outcomes, (case.name for case in all_cases())) == []


def test_no_box_is_taken_for_the_peer(result: Result) -> None:
    boxes = [o for o in result.outcomes if o.label == "box" and o.trust != "undecidable"]
    assert boxes
    assert not [told(outcome) for outcome in boxes if outcome.verdict == "peer"]
