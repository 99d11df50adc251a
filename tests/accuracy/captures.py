"""The labelled captures, as ``rsttrace read`` judges them.

The folder is no part of this project; who has one names it (``--pcaps``, or the variable
``RSTTRACE_PCAPS``), else this half is skipped. Its ``labels.csv`` has, for each reset, the file,
the frame (as Wireshark counts), the label, how sure it is, and where the capture comes from.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rsttrace.errors import RsttraceError
from tests.accuracy.case import Outcome
from tests.accuracy.reading import read_capture, settled
from tests.lab.harness import Json

ROOT = Path(__file__).parents[2]
VARIABLE = "RSTTRACE_PCAPS"
LABELS = "labels.csv"


def given() -> Path | None:
    """The folder that the environment names, if any."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def check(folder: Path) -> None:
    """Whether it is a folder of labelled captures.

    Raises:
        RsttraceError: it is not.
    """
    if not (folder / LABELS).is_file():
        raise RsttraceError(
            f"{folder} is no folder of labelled captures: it has no {LABELS}",
            hint="name another one, or none",
        )


@dataclass(frozen=True)
class Label:
    """A line of the labels: a reset's file and frame, its flow, and what is known of it."""

    file: str
    frame: int
    flow: str
    source: str
    label: str
    trust: str


def labels(folder: Path) -> list[Label]:
    """All lines."""
    with (folder / LABELS).open(newline="", encoding="utf-8") as file:
        return [
            Label(
                row["file"],
                int(row["packet"]),
                row["flow"],
                row["source"].split("/")[0],
                row["label"],
                row["confidence"],
            )
            for row in csv.DictReader(file)
        ]


def outcomes(labelled: Sequence[Label], said: Mapping[str, Iterable[Json]]) -> list[Outcome]:
    """Every labelled reset, with what was said of it; `said`: the entries, by file."""
    by_frame = {
        name: {last["frame"]: (last, first) for last, first in settled(entries)}
        for name, entries in said.items()
    }
    made = []
    for row in labelled:
        entry, first = by_frame[row.file].get(row.frame, (None, None))
        made.append(
            Outcome(
                case=f"{row.file} frame {row.frame} ({row.flow})",
                source=row.source,
                role="receiver" if entry is None else entry["direction"],
                label=row.label,
                trust=row.trust,
                entry=entry,
                first=first,
            )
        )
    return made


def judge(folder: Path) -> list[Outcome]:
    """Every labelled reset, with what rsttrace says of it.

    Raises:
        RsttraceError: it is no such folder, or a capture cannot be read.
    """
    check(folder)
    found = labels(folder)
    return outcomes(
        found, {name: read_capture(folder / name) for name in sorted({x.file for x in found})}
    )
