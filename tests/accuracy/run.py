"""Plays cases under a running rsttrace and holds its verdicts against the truth."""

from __future__ import annotations

import contextlib
import itertools
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

from rsttrace.demo.lab import Lab
from tests.accuracy.case import Case, Outcome
from tests.accuracy.reading import read_capture, settled
from tests.accuracy.sniff import RST, Honest, Sighting, Wire, parse
from tests.accuracy.stage import Play, Stage
from tests.lab.harness import TRACE, Fence, Json, Tracer, missing

AT_ONCE = 12
"""How many cases that wait are played at the same time."""


DRAWN_TWIN = "copier at w2 of mid, requests"
"""A host whose socket a forgery has ended answers as one that copies its TTL would."""


@dataclass
class Played:
    """A case that was played: where its resets were seen, by which ends, and what went wrong.

    `roles`: the watched ends, by the inodes of their namespaces. `dumps`: the names of the captures
    (`Dumps`) in which its packets are, by role. For the rest see `Case`.
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
    dumps: dict[str, str] = field(default_factory=dict)


@dataclass
class Dumps:
    """What rsttrace says of the captures that were taken while cases were played, by their names.

    With `record`, a folder, what its judge is given is written there, one file for each.
    """

    record: Path | None = None
    said: dict[str, list[Json]] = field(default_factory=dict)

    def take(self, stage: Stage) -> dict[str, str]:
        """Ends a stage's captures and reads them; returns their names by role."""
        names = {}
        for role, dump in stage.dumps.items():
            dump.stop()
            names[role] = f"{stage.prefix}-{role}"
            target = None if self.record is None else self.record / names[role]
            self.said[names[role]] = read_capture(dump.path, target)
        return names


@dataclass
class Result:
    """What came of a run: the outcomes, the cases that broke, those that could not be played."""

    played: list[Played] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    dumped: list[Outcome] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def of(self, case: str) -> list[Outcome]:
        """A case's outcomes."""
        return [outcome for outcome in self.outcomes if outcome.case == case]


def play_all(
    cases: Sequence[Case],
    tell: bool = False,
    record: Path | None = None,
    dumps: Dumps | None = None,
) -> Result:
    """Play cases, stage by stage, under one tracer that takes each namespace for a machine.

    With `tell`, names each on stderr as it is played. With `record`, what the tracer's judge is
    given is written there. With `dumps`, the captures that stages take are read, too.
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
        tracer = Tracer("--viewpoint", "netns", "--explain", program=program)
        try:
            fence = Fence(lab)
            fence.cross(tracer)
            next_number = 1
            ready.sort(key=lambda case: case.stage.__name__)
            for kind, group in itertools.groupby(ready, key=lambda case: case.stage):
                with kind(next_number, dump=dumps is not None) as stage:
                    these = list(group)
                    played += _play_group(stage, these, tell)
                    next_number += len(these)
                    fence.cross(tracer)
                    taken = {} if dumps is None else dumps.take(stage)
                    for one in played[-len(these) :]:
                        one.dumps = taken
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
    if dumps is not None:
        result.dumped = outcomes_of_dumps(played, dumps.said)
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


Said = tuple[Json, Optional[Json]]
Key = tuple[str, Wire, int]
"""A RST at an end: the role, its headers, its TTL."""


def outcomes_of(played: Iterable[Played], entries: Iterable[Json]) -> list[Outcome]:
    """Each RST that arrived at a watched end in these cases, with what was said of it."""
    by_port = _by_port(e for e in entries if "kind" in e)
    made = []
    for one in played:
        told: dict[Key, list[Said]] = {}
        for last, first in by_port.get(one.play.port, ()):
            if last["netns"] in one.roles:
                role = one.roles[last["netns"]]
                told.setdefault((role, *_wire(last)), []).append((last, first))
        made += _outcomes(one, one.arrived, told)
    return made


def outcomes_of_dumps(
    played: Iterable[Played], said: Mapping[str, Iterable[Json]]
) -> list[Outcome]:
    """The same for captures: of an end, what arrived there; of a router, what passed it.

    A router's capture is asked of honest resets alone: how sure it is who made the others was said
    for the ends. What a host made itself is no question to a capture.
    """
    by_port = {name: _by_port(entries) for name, entries in said.items()}
    made: list[Outcome] = []
    for one in played:
        if one.source.startswith("own"):
            continue
        for role, name in one.dumps.items():
            told: dict[Key, list[Said]] = {}
            router = role not in one.roles.values()
            for last, first in by_port[name].get(one.play.port, ()):
                wire, ttl = _wire(last)
                told.setdefault((role, wire, 0 if router else ttl), []).append((last, first))
            arrived = [
                found._replace(role=role, ttl=0 if router else found.ttl)
                for found in one.arrived
                if found.role == role or (router and (role, found.wire, 0) in told)
            ]
            if not router or one.honest:
                made += _named(_outcomes(one, arrived, told), "tcpdump on any")
    return made


def _named(outcomes: Iterable[Outcome], where: str) -> list[Outcome]:
    return [replace(outcome, role=f"{outcome.role}, {where}") for outcome in outcomes]


def _by_port(entries: Iterable[Json]) -> dict[int, list[Said]]:
    by_port: dict[int, list[Said]] = {}
    for last, first in settled(entries):
        if last["direction"] != "sent":
            for end in ("local", "remote"):
                by_port.setdefault(last[end]["port"], []).append((last, first))
    return by_port


def _wire(entry: Json) -> tuple[Wire, int]:
    found = parse(bytes.fromhex(entry["rst"]["raw"]))
    assert found is not None, entry
    return found


def _trust(one: Played, role: str) -> tuple[str, str | None]:
    """How sure it is who made a reset that was seen at a role, and its twin.

    A router of an honest case sees what its one victim sees.
    """
    play = one.play
    if role not in play.trust and one.honest and len(play.trust) == 1:
        (role,) = play.trust
    return play.trust.get(role, "honest" if one.honest else "proven"), play.twins.get(role)


def _outcomes(
    one: Played, arrived: Iterable[Sighting], told: Mapping[Key, list[Said]]
) -> list[Outcome]:
    honest = Honest(one.left, one.play.hops)
    outcomes = []
    for role, _, wire, ttl in arrived:
        genuine = one.honest or honest.take(wire, ttl)
        trust, twin = _trust(one, role)
        if genuine and not one.honest:  # what a forgery drew from its victims
            bare = wire.flags == RST and wire.window == 0
            trust, twin = ("undecidable", DRAWN_TWIN) if bare else ("honest", None)
        label = one.play.labels.get(role, "genuine" if genuine else one.label)
        queue = told.get((role, wire, ttl), [])
        entry, first = queue.pop(0) if queue else (None, None)
        source = one.source if one.honest or not genuine else "linux, drawn by a forger"
        twin = twin if trust == "undecidable" else None
        outcomes.append(Outcome(one.name, source, role, label, trust, entry, first, twin))
    return outcomes
