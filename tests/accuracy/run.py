"""Plays cases under a running rsttrace and holds its verdicts against the truth."""

from __future__ import annotations

import contextlib
import itertools
import sys
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from rsttrace.demo.lab import Lab
from tests.accuracy.case import Case, Outcome
from tests.accuracy.sniff import Honest, Sighting, Wire, parse
from tests.accuracy.stage import Play, Stage
from tests.lab.harness import TRACE, Fence, Json, Tracer, missing

AT_ONCE = 12
"""How many cases that wait are played at the same time."""


@dataclass
class Played:
    """A case that was played: where its resets were seen, by which ends, and what went wrong.

    `roles`: the watched ends, by the inodes of their namespaces. For the rest see `Case`.
    """

    name: str
    source: str
    honest: bool
    label: str
    play: Play
    roles: dict[int, str]
    arrived: list[Sighting] = field(default_factory=list)
    left: list[Sighting] = field(default_factory=list)
    error: str | None = None


@dataclass
class Result:
    """What came of a run: the outcomes, the cases that broke, those that could not be played."""

    played: list[Played] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def of(self, case: str) -> list[Outcome]:
        """A case's outcomes."""
        return [outcome for outcome in self.outcomes if outcome.case == case]


def play_all(cases: Sequence[Case], tell: bool = False, record: Path | None = None) -> Result:
    """Play cases, stage by stage, under one tracer that takes each namespace for a machine.

    With `tell`, names each on stderr as it is played. With `record`, what the tracer's judge is
    given is written there.
    """
    result = Result()
    ready = []
    for case in cases:
        if without := missing(case.programs):
            names = ", ".join(without)
            result.skipped[case.name] = f"{names}: not installed (`make accuracy` installs it)"
        else:
            ready.append(case)
    played: list[Played] = []
    with Lab("rstaccfence") as lab:
        program = TRACE if record is None else recorded(TRACE, record)
        tracer = Tracer("--viewpoint", "netns", program=program)
        try:
            fence = Fence(lab)
            fence.cross(tracer)
            next_number = 1
            ready.sort(key=lambda case: case.stage.__name__)
            for kind, group in itertools.groupby(ready, key=lambda case: case.stage):
                with kind(next_number) as stage:
                    these = list(group)
                    played += _play_group(stage, these, tell)
                    next_number += len(these)
                    fence.cross(tracer)
                    for one in played:
                        if not one.arrived:
                            one.arrived = stage.sniffer.seen(one.play.port, False)
                            one.left = stage.sniffer.seen(one.play.port, True)
        finally:
            tracer.stop()
    for one in played:
        if one.error is not None:
            result.broken[one.name] = one.error
    result.outcomes = outcomes_of(played, tracer.entries)
    result.played = played
    return result


def recorded(program: Sequence[str], target: Path) -> list[str]:
    """A command of rsttrace, as one that also writes down what its judge is given."""
    at = program.index("rsttrace")
    return [*program[:at], "tests.accuracy.recorder", str(target), *program[at + 1 :]]


def _play_group(stage: Stage, cases: Sequence[Case], tell: bool) -> list[Played]:
    """A stage's cases: those that wait at the same time, the others one after another."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = [pool.submit(_play, stage, case, tell) for case in cases if case.waits]
        done = [future.result() for future in waiting]
    return done + [_play(stage, case, tell) for case in cases if not case.waits]


def _play(stage: Stage, case: Case, tell: bool) -> Played:
    play = stage.begin(case.family)
    if tell:
        print(f"  {case.name}", file=sys.stderr, flush=True)
    error = None
    inodes = {stage.lab.inode(role): role for role, _ in stage.watched}
    try:
        case.play(stage)
    except Exception:
        error = traceback.format_exc()
    with contextlib.suppress(OSError):  # it may be another namespace by now
        inodes |= {stage.lab.inode(role): role for role, _ in stage.watched}
    return Played(case.name, case.source, case.honest, case.label, play, inodes, error=error)


def settled(entries: Iterable[Json]) -> list[tuple[Json, Json | None]]:
    """(last word, first word if that was another) for each reset; an entry may be amended."""
    first: dict[int, Json] = {}
    last: dict[int, Json] = {}
    for entry in entries:
        number = entry["amends"] if entry["amends"] is not None else entry["id"]
        first.setdefault(number, entry)
        last[number] = entry
    return [(last[n], first[n] if first[n] is not last[n] else None) for n in first]


Said = tuple[Json, Optional[Json]]


def outcomes_of(played: Iterable[Played], entries: Iterable[Json]) -> list[Outcome]:
    """Each RST that arrived at a watched end in these cases, with what was said of it."""
    by_port: dict[int, list[Said]] = {}
    for last, first in settled(e for e in entries if "summary" not in e or "kind" in e):
        if last["direction"] == "received":
            for end in ("local", "remote"):
                by_port.setdefault(last[end]["port"], []).append((last, first))
    return [outcome for one in played for outcome in _outcomes(one, by_port.get(one.play.port, ()))]


def _outcomes(one: Played, said: Iterable[Said]) -> list[Outcome]:
    told: dict[tuple[str, Wire, int], list[Said]] = {}
    for last, first in said:
        if last["netns"] not in one.roles:
            continue
        found = parse(bytes.fromhex(last["rst"]["raw"]))
        assert found is not None, last
        told.setdefault((one.roles[last["netns"]], *found), []).append((last, first))
    honest = Honest(one.left, one.play.hops)
    outcomes = []
    for role, _, wire, ttl in one.arrived:
        genuine = one.honest or honest.take(wire, ttl)
        told_trust = one.play.trust.get(role, "honest" if one.honest else "proven")
        trust = "honest" if genuine and not one.honest else told_trust
        label = one.play.labels.get(role, "genuine" if genuine else one.label)
        queue = told.get((role, wire, ttl), [])
        entry, first = queue.pop(0) if queue else (None, None)
        source = one.source if one.honest or not genuine else "linux, drawn by a forger"
        twin = one.play.twins.get(role) if trust == "undecidable" else None
        outcomes.append(Outcome(one.name, source, role, label, trust, entry, first, twin))
    return outcomes
