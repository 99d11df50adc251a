"""The labelled captures, as ``rsttrace read`` judges them.

The folder is no part of this project: without it, this half is skipped. Its ``labels.csv`` has, for
each reset, the file, the frame (as Wireshark counts), the label, how sure it is, and where the
capture comes from.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

from rsttrace.errors import RsttraceError
from tests.accuracy.case import Outcome
from tests.accuracy.run import settled
from tests.lab.harness import Json

ROOT = Path(__file__).parents[2]
DEFAULT = ROOT.parent / "shared" / "pcaps"
LABELS = "labels.csv"


def present(folder: Path) -> bool:
    """Whether the labelled captures are there."""
    return (folder / LABELS).is_file()


def read(path: Path) -> dict[int, tuple[Json, Json | None]]:
    """By frame: what ``rsttrace read`` says at last, and at first where it was amended.

    Every kind is asked for: which end is ours is the reader's guess, and a label does not say.

    Raises:
        RsttraceError: the command failed.
    """
    command = [sys.executable, "-m", "rsttrace", "read", "-o", "json", "--kind", "all", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RsttraceError(f"rsttrace read failed on {path.name}: {done.stderr.strip()}")
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    return {last["frame"]: (last, first) for last, first in settled(entries)}


def judge(folder: Path) -> list[Outcome]:
    """Every labelled reset, with what was said of it.

    Raises:
        RsttraceError: a capture cannot be read.
    """
    with (folder / LABELS).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    said = {name: read(folder / name) for name in sorted({row["file"] for row in rows})}
    outcomes = []
    for row in rows:
        entry, first = said[row["file"]].get(int(row["packet"]), (None, None))
        outcomes.append(
            Outcome(
                case=f"{row['file']} frame {row['packet']} ({row['flow']})",
                source=row["source"].split("/")[0],
                role="receiver" if entry is None else entry["direction"],
                label=row["label"],
                trust=row["confidence"],
                entry=entry,
                first=first,
            )
        )
    return outcomes
