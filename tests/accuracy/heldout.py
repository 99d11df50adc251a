"""Do the verdicts rest on having seen the very source that they judge?

Each source in turn is held out: of the others' resets, labelled, it is counted how often a finding
(a rule with a certain weight) is there in forged and in genuine ones, and a weight that is larger
than these counts bear out is lowered to what they do; one of which they say nothing, or the
contrary, to 0. Then the held-out source is judged again. Weights are never raised: this asks
whether they were fitted too closely, not whether better ones could be.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rsttrace.judge.verdict import decide
from tests.accuracy.case import Outcome

Finding = tuple[str, float]  # the rule, and the weight that it gave

LABELS = ("forged", "genuine")
LEAST_RESETS = 5  # of the others, that a finding must be in before they say anything of it


@dataclass
class Counts:
    """In how many resets of each label a finding is, and how many there are."""

    all: Counter[str] = field(default_factory=Counter)
    found: dict[Finding, Counter[str]] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Count a reset."""
        self.all[outcome.label] += 1
        for finding in findings(outcome):
            self.found.setdefault(finding, Counter())[outcome.label] += 1

    def log_odds(self, finding: Finding) -> float | None:
        """ln(share among forged / share among genuine), half a reset added to each count.

        None: too few resets have it.
        """
        seen = self.found.get(finding, Counter())
        if sum(seen.values()) < LEAST_RESETS:
            return None
        forged, genuine = ((seen[label] + 0.5) / (self.all[label] + 1) for label in LABELS)
        return math.log(forged / genuine)


def findings(outcome: Outcome) -> list[Finding]:
    """What spoke, proofs left out."""
    evidence = outcome.entry["evidence"] if outcome.entry else ()
    return [(e["rule"], e["weight"]) for e in evidence if e["weight"] and not e["proof"]]


def lowered(weight: float, log_odds: float | None) -> float:
    """The weight as far as counts bear it out."""
    if log_odds is None or log_odds * weight <= 0:
        return 0.0
    return math.copysign(min(abs(weight), abs(log_odds)), weight)


def group(outcome: Outcome) -> str:
    """What is held out together: a capture file (its case begins with the name), or a program."""
    name, frame, _ = outcome.case.partition(" frame ")
    return name if frame else outcome.source


@dataclass
class HeldOut:
    """What became of the resets of one source."""

    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)


def held_out(outcomes: Iterable[Outcome]) -> tuple[dict[str, HeldOut], dict[Finding, set[str]]]:
    """By source, label and verdict before and after; and which findings rest on which source.

    Resets that a proof decides, or of which the label does not say who made them, are left out.
    """
    usable = [
        outcome
        for outcome in outcomes
        if outcome.label in LABELS
        and outcome.entry
        and not any(e["proof"] for e in outcome.entry["evidence"])
    ]
    results: dict[str, HeldOut] = {}
    resting: dict[Finding, set[str]] = {}
    for name in sorted({group(outcome) for outcome in usable}):
        counts, result = Counts(), HeldOut()
        for outcome in usable:
            if group(outcome) != name:
                counts.add(outcome)
        for outcome in usable:
            if group(outcome) != name:
                continue
            score = 0.0
            for finding in findings(outcome):
                weight = lowered(finding[1], counts.log_odds(finding))
                score += weight
                if abs(weight) < abs(finding[1]) / 2:
                    resting.setdefault(finding, set()).add(name)
            result.before[f"{outcome.label} {outcome.verdict}"] += 1
            result.after[f"{outcome.label} {decide(score)[0].value}"] += 1
        results[name] = result
    return results, resting


COLUMNS: Mapping[str, Callable[[Counter[str]], int]] = {
    "found": lambda counts: counts["forged forged"],
    "missed": lambda counts: counts["forged peer"],
    "accused": lambda counts: counts["genuine forged"],
    "cleared": lambda counts: counts["genuine peer"],
}


def report(outcomes: Sequence[Outcome]) -> tuple[str, list[str]]:
    """The table, "with it -> held out" in each cell, what rests on single sources, and bars that
    were not passed."""
    results, resting = held_out(outcomes)
    total = HeldOut()
    for result in results.values():
        total.before.update(result.before)
        total.after.update(result.after)
    accused = COLUMNS["accused"](total.after)
    failed = [f"{accused} honest resets are called forged without their source"] if accused else []
    width = max(len(name) for name in (*results, "held out"))
    lines = [f"{'held out':{width}}  " + "  ".join(f"{name:>12}" for name in COLUMNS)]
    for name, result in (*results.items(), ("all", total)):
        cells = (f"{f(result.before)} -> {f(result.after)}" for f in COLUMNS.values())
        lines.append(f"{name:{width}}  " + "  ".join(f"{cell:>12}" for cell in cells))
    if resting:
        lines += ["", "held out, of these findings less than half the weight is borne out:"]
        lines += [
            f"  {weight:+.1f} {rule}: {', '.join(sorted(names))}"
            for (rule, weight), names in sorted(resting.items())
        ]
    return "\n".join(lines), failed
