"""How accurate are the verdicts? ``make accuracy``; ``python -m tests.accuracy --help``.

Exit code 0 if all bars are passed, 1 if not.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from rsttrace.errors import RsttraceError
from tests.accuracy import captures, record, robust
from tests.accuracy.case import Outcome
from tests.accuracy.cases import all_cases
from tests.accuracy.reading import read_capture
from tests.accuracy.run import Dumps, play_all
from tests.accuracy.table import (
    MUST,
    by_label,
    by_source,
    failures,
    false_findings,
    same_to_the_host,
    table,
    without_twin,
)


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


def report(title: str, outcomes: Sequence[Outcome], live: bool = True) -> list[str]:
    """Print the tables and what went wrong; returns the bars that were not passed.

    `live`: of the live lab, where all is known that happened.
    """
    print(f"\n{title}\n")
    print(table(outcomes, "label", by_label))
    print()
    print(table(outcomes, "source", by_source))
    if twins := same_to_the_host(outcomes):
        print(f"\nundecidable, as the host sees it, with the case that looks the same:\n\n{twins}")
    if live and (false := false_findings(outcomes)):
        print("\nfound, and did not happen:\n\n" + "\n".join(false))
    wrong = [
        outcome
        for outcome in outcomes
        if outcome.accused
        or outcome.entry is None
        or (outcome.label == "box" and outcome.verdict == "peer")
        or (outcome.label == "forged" and outcome.trust in MUST and not outcome.found)
    ]
    if wrong:
        print("\nnot as it should be:\n")
        print("\n".join(show(outcome) for outcome in wrong))
    return failures(outcomes)


class Halves(NamedTuple):
    """What is asked for: the live lab, the captures."""

    live: bool
    captured: bool


Found = tuple[list[Outcome], list[str]]
"""Outcomes, and the bars that were not passed."""


def played(pattern: str, verbose: bool, kept: record.Recording | None) -> Found:
    """The live lab; with `kept`, also records it there."""
    cases = [case for case in all_cases() if re.search(pattern, case.name)]
    if kept is None:
        result = play_all(cases, verbose, dumps=Dumps())
    else:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            result = play_all(cases, verbose, folder / "live", Dumps(folder))
            kept.take(result.played, folder)
    wrong = report("live lab", result.outcomes)
    wrong += without_twin(result.outcomes, (case.name for case in all_cases()))
    if result.dumped:
        wrong += report("live lab, captured by tcpdump on the way", result.dumped)
    for name, why in result.skipped.items():
        print(f"skipped: {name}: {why}")
    for name, why in result.broken.items():
        print(f"broken: {name}:\n{why}")
        wrong.append(f"{name} could not be played")
    return result.outcomes + result.dumped, wrong


def captures_read(folder: Path | None, kept: record.Recording | None) -> Found:
    """The labelled captures; with `kept`, also records them there.

    Raises:
        RsttraceError: a capture cannot be read.
    """
    if folder is None:
        print("\ncaptures: skipped: no folder is named (--pcaps)")
        return [], []
    if kept is None:
        found = captures.judge(folder)
    else:
        kept.labels = captures.labels(folder)
        for name in sorted({label.file for label in kept.labels}):
            with tempfile.NamedTemporaryFile() as file:
                read_capture(folder / name, Path(file.name))
                kept.read[name] = record.unpack(Path(file.name))
        found = kept.captured()
    return found, report("captures", found, live=False)


def judged_again(recording: record.Recording, halves: Halves, pattern: str) -> Found:
    """A recording, judged by today's judge."""
    outcomes: list[Outcome] = []
    wrong: list[str] = []
    if halves.live and recording.played:
        for title, found in (
            ("live lab", recording.live()),
            ("live lab, captured by tcpdump on the way", recording.dumped()),
        ):
            these = [one for one in found if re.search(pattern, one.case)]
            wrong += report(f"{title} (recorded)", these) if these else []
            outcomes += these
    if halves.captured and recording.labels:
        found = recording.captured()
        outcomes += found
        wrong += report("captures (recorded)", found, live=False)
    return outcomes, wrong


@click.command()
@click.option("--live", is_flag=True, help="Only the live lab.")
@click.option("--captures", "captured", is_flag=True, help="Only the captures.")
@click.option(
    "--pcaps",
    type=click.Path(path_type=Path),
    envvar=captures.VARIABLE,
    show_envvar=True,
    help="The folder of labelled captures; without one, they are skipped.",
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
@click.option(
    "--record",
    "target_record",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep what the judge was given in a file, for --replay.",
)
@click.option(
    "--replay",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Play and read nothing: judge again what --record kept. For files of your own only.",
)
@click.option("-v", "--verbose", is_flag=True, help="Name each case as it is played.")
def main(
    live: bool,
    captured: bool,
    pcaps: Path | None,
    pattern: str,
    target: Path | None,
    target_record: Path | None,
    replay: Path | None,
    verbose: bool,
) -> None:
    """Hold the verdicts against the truth."""
    wrong: list[str] = []
    outcomes: list[Outcome] = []
    halves = Halves(live or not captured, captured or not live)
    try:
        if replay is not None:
            outcomes, wrong = judged_again(record.load(replay), halves, pattern)
        else:
            if halves.captured and pcaps is not None:
                captures.check(pcaps)
            kept = None if target_record is None else record.Recording()
            if halves.live:
                outcomes, wrong = played(pattern, verbose, kept)
            if halves.captured:
                found, failed = captures_read(pcaps, kept)
                outcomes, wrong = outcomes + found, wrong + failed
            if kept is not None and target_record is not None:
                kept.save(target_record)
    except RsttraceError as error:
        raise click.ClickException(str(error)) from error
    if outcomes and not pattern:
        text, failed = robust.report(outcomes)
        print(f"\ncalibration and robustness (tests/accuracy/robust.py)\n\n{text}")
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
