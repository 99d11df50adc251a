"""The accuracy table, and the bars that it must pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from tests.accuracy.case import TRUST, Outcome

# found, missed: those of others called forged, or the peer's. cleared: honest ones called peer.
COLUMNS = ("found", "missed", "false accusation", "cleared", "inconclusive", "untold")


def column(outcome: Outcome) -> str:
    """Where an outcome counts. An accusation that was taken back later counts as one."""
    if outcome.accused:
        return "false accusation"
    if outcome.verdict in ("inconclusive", "untold"):
        return outcome.verdict
    if outcome.verdict == "forged":
        return "found"
    return "missed" if outcome.label in ("forged", "box") else "cleared"


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


MUST = {"proven": 1.0, "decidable": 0.97, "late": 0.95, "high": 0.95, "medium-high": 0.95}
"""What share of the forged resets of each trust must be found."""

CLEARED = 0.95
"""What share of the genuine resets of a flow that was seen must be called the peer's (in a capture,
which end is ours is the reader's guess: or this host's own)."""


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """The bars that were not passed, in words."""
    found = []
    accused = [outcome for outcome in outcomes if outcome.accused]
    if accused:
        found.append(f"{len(accused)} honest resets were called forged; not one may be")
    boxes = [
        o for o in outcomes if o.label == "box" and o.verdict == "peer" and o.trust != "undecidable"
    ]
    if boxes:
        found.append(f"{len(boxes)} resets of boxes were called the peer's; not one may be")
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
    known = [o for o in outcomes if o.label == "genuine" and o.trust in SURE and _flow_seen(o)]
    cleared = sum(column(outcome) == "cleared" for outcome in known)
    if cleared < CLEARED * len(known):
        found.append(
            f"of {len(known)} genuine resets of flows that were seen, {cleared} were called the "
            f"peer's: {cleared / len(known):.1%} where {CLEARED:.0%} must be"
        )
    return found


SURE = ("honest", "high")


def _flow_seen(outcome: Outcome) -> bool:
    return outcome.entry is not None and outcome.entry["baseline"]["scope"] == "flow"


def same_to_the_host(outcomes: Iterable[Outcome]) -> str:
    """The undecidable resets with the cases that look the same: what was said of each.

    One line for each pair of cases, without their versions.
    """
    counts: dict[tuple[str, str], Counter[str]] = {}
    for outcome in outcomes:
        if outcome.trust == "undecidable":
            key = (f"{outcome.label}: {_plain(outcome.case)}", outcome.twin or "")
            counts.setdefault(key, Counter())[outcome.verdict] += 1
    return "\n".join(
        f"{name}, as {twin}: " + ", ".join(f"{n} {verdict}" for verdict, n in count.most_common())
        for (name, twin), count in sorted(counts.items())
    )


TRUE_OF = {
    "duplicate-address": ("second host", "neighbour", "scapy: frame", "hping3"),
    "health-check": ("HAProxy health check",),
    "nat-state-lost": ("NAT state lost", "balancer"),
    "split-identity": ("SYNPROXY", "HAProxy"),
}
"""Findings that say what happened, and the sources of which each may be true."""


def false_findings(outcomes: Iterable[Outcome]) -> list[str]:
    """What was found and did not happen, in words: one line for each finding and source."""
    counts: Counter[tuple[str, str]] = Counter()
    for outcome in outcomes:
        found = () if outcome.entry is None else outcome.entry.get("findings", ())
        for finding in found:
            if outcome.source not in TRUE_OF.get(finding, (outcome.source,)):
                counts[finding, f"{outcome.source} ({outcome.label})"] += 1
    return [f"{finding} at {source}: {n}" for (finding, source), n in sorted(counts.items())]


def without_twin(outcomes: Iterable[Outcome], names: Iterable[str]) -> list[str]:
    """Undecidable resets whose twin is no case (`names`: of all of them), in words."""
    known = {_plain(name) for name in names}
    return sorted(
        {
            f"{_plain(o.case)}, at {o.role}: undecidable, and no case is called {o.twin!r}"
            for o in outcomes
            if o.trust == "undecidable" and o.twin not in known
        }
    )


def _plain(name: str) -> str:
    return name.removesuffix(" v4").removesuffix(" v6")
