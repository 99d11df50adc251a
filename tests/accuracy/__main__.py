"""How accurate are the verdicts? ``make accuracy``; ``python -m tests.accuracy --help``.

Exit code 0 if all bars are passed, 1 if not.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from tests.accuracy import captures, forged, heldout, honest
from tests.accuracy.case import Case, Outcome
from tests.accuracy.run import play_all
from tests.accuracy.table import MUST, by_label, by_source, failures, table


def all_cases() -> list[Case]:
    """Every live case."""
    return [*forged.cases(), *honest.cases()]


def show(outcome: Outcome) -> str:
    """One wrong or missing verdict, in detail."""
    lines = [f"{outcome.case}: {outcome.label} ({outcome.trust}), at {outcome.role}"]
    for name, entry in (("first", outcome.first), ("entry", outcome.entry)):
        if entry is None:
            continue
        origin = "inconclusive" if entry["confidence"] is None else entry["confidence"]
        lines.append(
            f"    {name}: {entry['kind']} {entry['origin']} {origin} score {entry['score']}"
        )
        lines += [f"      {e['weight']:+.1f} {e['rule']}: {e['text']}" for e in entry["evidence"]]
    return "\n".join(lines)


def report(title: str, outcomes: Sequence[Outcome]) -> list[str]:
    """Print the tables and what went wrong; returns the bars that were not passed."""
    print(f"\n{title}\n")
    print(table(outcomes, "label", by_label))
    print()
    print(table(outcomes, "source", by_source))
    wrong = [
        outcome
        for outcome in outcomes
        if outcome.accused
        or outcome.entry is None
        or (outcome.label == "forged" and outcome.trust in MUST and not outcome.found)
    ]
    if wrong:
        print("\nnot as it should be:\n")
        print("\n".join(show(outcome) for outcome in wrong))
    return failures(outcomes)


@click.command()
@click.option("--live", is_flag=True, help="Only the live lab.")
@click.option("--captures", "captured", is_flag=True, help="Only the captures.")
@click.option(
    "--pcaps",
    type=click.Path(path_type=Path),
    default=captures.DEFAULT,
    help="Where the labelled captures are.",
    show_default=True,
)
@click.option(
    "--case", "pattern", default="", help="Only live cases whose name matches (regular expression)."
)
@click.option(
    "--json",
    "target",
    type=click.Path(path_type=Path),
    help="Write the outcomes, one JSON object per line.",
)
@click.option("-v", "--verbose", is_flag=True, help="Name each case as it is played.")
def main(
    live: bool, captured: bool, pcaps: Path, pattern: str, target: Path | None, verbose: bool
) -> None:
    """Hold the verdicts against the truth."""
    wrong: list[str] = []
    outcomes: list[Outcome] = []
    if live or not captured:
        result = play_all([case for case in all_cases() if re.search(pattern, case.name)], verbose)
        outcomes += result.outcomes
        wrong += report("live lab", result.outcomes)
        for name, why in result.skipped.items():
            print(f"skipped: {name}: {why}")
        for name, why in result.broken.items():
            print(f"broken: {name}:\n{why}")
            wrong.append(f"{name} could not be played")
    if captured or not live:
        if not captures.present(pcaps):
            print(
                f"\ncaptures: skipped: no {pcaps / captures.LABELS} (name the folder with --pcaps)"
            )
        else:
            found = captures.judge(pcaps)
            outcomes += found
            wrong += report("captures", found)
    if outcomes and not pattern:
        text, failed = heldout.report(outcomes)
        print(f"\neach source held out (tests/accuracy/heldout.py): with it -> without\n\n{text}")
        wrong += failed
    if target is not None:
        rows = (json.dumps(vars(outcome)) for outcome in outcomes)
        target.write_text("".join(f"{row}\n" for row in rows), encoding="ascii")
    print()
    for line in wrong:
        print(f"NOT PASSED: {line}")
    if not wrong:
        print("all bars passed")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
