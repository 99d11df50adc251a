"""The accuracy table, and the bars that it must pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from tests.accuracy.case import TRUST, Outcome

# found, missed: forged ones called forged, or the peer's. cleared: others called the peer's.
COLUMNS = ("found", "missed", "false accusation", "cleared", "inconclusive", "untold")


def column(outcome: Outcome) -> str:
    """Where an outcome counts. An accusation that was taken back later counts as one."""
    if outcome.accused:
        return "false accusation"
    if outcome.verdict in ("inconclusive", "untold"):
        return outcome.verdict
    if outcome.label != "forged":
        return "found" if outcome.verdict == "forged" else "cleared"
    return "found" if outcome.found else "missed"


def table(outcomes: Iterable[Outcome], title: str, row: Callable[[Outcome], str]) -> str:
    """A table with one line for each value of `row`."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        counts.setdefault(row(outcome), Counter())[column(outcome)] += 1
    width = max([len(title), *(len(name) for name in counts)])
    lines = [f"{title:{width}}  {'all':>5}  " + "  ".join(COLUMNS)]
    for name in sorted(counts):
        count = counts[name]
        cells = "  ".join(f"{count[c] or '-':>{len(c)}}" for c in COLUMNS)
        lines.append(f"{name:{width}}  {sum(count.values()):>5}  {cells}")
    return "\n".join(lines)


def by_label(outcome: Outcome) -> str:
    """Label and how sure it is."""
    if outcome.trust not in TRUST:
        return f"{outcome.label}, {outcome.trust}"
    return f"{outcome.label}, {TRUST.index(outcome.trust) + 1} {outcome.trust}"


def by_source(outcome: Outcome) -> str:
    """Who made it."""
    return f"{outcome.source}, {outcome.label}"


MUST = {"proven": 1.0, "decidable": 0.95, "late": 0.95, "high": 0.95, "medium-high": 0.95}
"""What share of the forged resets of each trust must be found."""


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """The bars that were not passed, in words."""
    found = []
    accused = [outcome for outcome in outcomes if outcome.accused]
    if accused:
        found.append(f"{len(accused)} honest resets were called forged; not one may be")
    untold = [outcome for outcome in outcomes if outcome.entry is None]
    if untold:
        found.append(f"nothing was said of {len(untold)} resets that arrived")
    for trust, share in MUST.items():
        these = [o for o in outcomes if o.label == "forged" and o.trust == trust]
        hits = sum(outcome.found for outcome in these)
        if these and hits < share * len(these):
            found.append(
                f"of {len(these)} forged resets ({trust}), {hits} were found: "
                f"{hits / len(these):.1%} where {share:.0%} must be"
            )
    return found
