"""``rsttrace read`` as a user runs it, and what its last words are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from rsttrace.errors import RsttraceError
from tests.lab.harness import Json

ROOT = Path(__file__).parents[2]


def read_capture(path: Path, record: Path | None = None) -> list[Json]:
    """What ``rsttrace read`` says of a capture.

    Every kind is asked for: which end is ours is the reader's guess, and a label does not say.
    With `record`, what its judge is given is written there.

    Raises:
        RsttraceError: the command failed.
    """
    program = ["rsttrace"] if record is None else ["tests.accuracy.recorder", str(record)]
    command = [*program, "read", "-o", "json", "--explain", "--kind", "all", str(path)]
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode:
        raise RsttraceError(f"rsttrace read failed on {path.name}: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def settled(entries: Iterable[Json]) -> list[tuple[Json, Json | None]]:
    """(last word, first word if that was another) for each reset; an entry may be amended."""
    first: dict[int, Json] = {}
    last: dict[int, Json] = {}
    for entry in entries:
        number = entry["amends"] if entry["amends"] is not None else entry["id"]
        first.setdefault(number, entry)
        last[number] = entry
    return [(last[n], first[n] if first[n] is not last[n] else None) for n in first]
