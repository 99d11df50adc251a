"""How much the verdicts lean on single numbers: calibration, and the table moved at random.

Calibration asks whether a verdict of 97 % is right 97 times of 100. Robustness moves every number
of rsttrace/judge/authors.py and every prior by a factor of its own between 1/3 and 3, and leaves
out each group of observations in turn; what was seen stays as it is.
"""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from rsttrace.judge.authors import GROUPS, PRIORS, ROWS, TABLE, Model, peer_share
from rsttrace.judge.verdict import decide, logit
from tests.accuracy.case import Outcome

DRAWS = 100
FACTOR = 3.0
SEED = 1

KEPT = 0.85
"""So large a share of the verdicts must stay as they are, in every draw."""

BANDS = ((0.90, 0.95), (0.95, 0.98), (0.98, 0.995), (0.995, 1.001))
"""Confidences that are held against how often they were right."""


@dataclass(frozen=True)
class Seen:
    """One judged reset: its truth, and the names of what was observed."""

    label: str
    trust: str
    names: tuple[str, ...]

    def origin(self, table: Model, without: str | None = None) -> str:
        """What a table says of it; `without` leaves out a group."""
        names = tuple(name for name in self.names if ROWS[name].group != without)
        return decide(logit(1 - peer_share(table.weigh(names))))[0].value


def seen_of(outcomes: Iterable[Outcome]) -> list[Seen]:
    """The resets that were weighed: not those that a proof decided, or that this host sent."""
    found = []
    for outcome in outcomes:
        entry = outcome.entry
        if entry is None or entry["origin"] == "local":
            continue
        considered = entry["considered"]  # what --explain adds
        if any(item["proof"] for item in considered):
            continue
        names = tuple(item["rule"] for item in considered if item["rule"] in ROWS)
        found.append(Seen(outcome.label, outcome.trust, names))
    return found


def moved(number: int, seed: int = SEED) -> Model:
    """The table with every number and prior moved at random: the draw of that number.

    Each row has a generator of its own, so that a new row leaves the others' draws as they are.
    """

    def factors(name: str) -> tuple[float, ...]:
        draw = random.Random(f"{seed} {number} {name}")
        most = math.log(FACTOR)
        return tuple(math.exp(draw.uniform(-most, most)) for _ in PRIORS)

    rows = {
        name: tuple(min(0.999, value * by) for value, by in zip(row.likelihoods, factors(name)))
        for name, row in ROWS.items()
    }
    return Model(tuple(map(operator.mul, PRIORS, factors("priors"))), rows)


def calibration(outcomes: Iterable[Outcome]) -> str:
    """How often verdicts of a confidence were right, and the Brier score."""
    rows = [
        (outcome.label == "genuine", outcome.entry)
        for outcome in outcomes
        if outcome.entry is not None and outcome.label in ("forged", "genuine", "box")
    ]
    judged = [(honest, e) for honest, e in rows if e["origin"] in ("peer", "forged")]
    judged = [(honest, e) for honest, e in judged if not any(i["proof"] for i in e["evidence"])]
    lines = ["verdicts between        all   right"]
    for low, high in BANDS:
        of = [(honest, e) for honest, e in judged if low <= e["confidence"] < high]
        right = sum(honest == (e["origin"] == "peer") for honest, e in of)
        share = f"{right / len(of):7.1%}" if of else "      -"
        lines.append(f"{low:.1%} and {min(high, 1.0):.1%}    {len(of):5}  {share}")
    scores = [
        (1 / (1 + math.exp(-e["score"])) - (not honest)) ** 2
        for honest, e in rows
        if e["origin"] != "local"
    ]
    if scores:
        lines.append(f"Brier score {sum(scores) / len(scores):.4f} of {len(scores)} (0: perfect)")
    return "\n".join(lines)


def robustness(seen: Sequence[Seen]) -> tuple[str, list[str]]:
    """The table moved at random, and without each group: what changes. Also the bars not passed."""
    honest = [one for one in seen if one.label == "genuine"]
    usual = [one.origin(TABLE) for one in seen]
    accused, kept = [], []
    for number in range(DRAWS):
        table = moved(number)
        accused.append(sum(one.origin(table) == "forged" for one in honest))
        kept.append(sum(one.origin(table) == was for one, was in zip(seen, usual)))
    lines = [
        f"{DRAWS} draws, every number and prior moved by 1/{FACTOR:.0f} to {FACTOR:.0f}:",
        f"  of {len(honest)} honest resets accused: median {median(accused):.0f}, "
        f"most {max(accused)}",
        f"  verdicts as before, of {len(seen)}: median {median(kept) / len(seen):.1%}, "
        f"least {min(kept) / len(seen):.1%}",
    ]
    failed = []
    if median(accused) > 0:
        failed.append(f"moved numbers accuse {median(accused):.0f} honest resets in a usual draw")
    if max(accused) > 0.01 * len(honest):
        failed.append(f"moved numbers accuse {max(accused)} honest resets in the worst draw")
    if min(kept) < KEPT * len(seen):
        failed.append(
            f"moved numbers keep only {min(kept) / len(seen):.1%} of the verdicts in the worst draw"
        )
    lines.append("without a group: found, missed, honest accused")
    for group in GROUPS:
        origins = [one.origin(TABLE, group) for one in seen]
        forged = [o for one, o in zip(seen, origins) if one.label == "forged"]
        wrong = sum(o == "forged" for one, o in zip(seen, origins) if one.label == "genuine")
        found, missed = forged.count("forged"), forged.count("peer")
        lines.append(f"  {group:10} {found:5} {missed:5} {wrong:5}")
        if wrong:
            failed.append(f"without the group {group!r}, {wrong} honest resets are accused")
    return "\n".join(lines), failed


def report(outcomes: Sequence[Outcome]) -> tuple[str, list[str]]:
    """Calibration and robustness in words, and the bars that were not passed."""
    text, failed = robustness(seen_of(outcomes))
    return f"{calibration(outcomes)}\n\n{text}", failed
