"""``rsttrace compare``: two vantage points of the same connections, then the entries of both."""

from __future__ import annotations

import contextlib
import heapq
import ipaddress
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple, TextIO

from rsttrace.capture.sides import Network
from rsttrace.capture.source import CaptureSource
from rsttrace.commands.filters import Filter, filter_of
from rsttrace.commands.moments import until_of
from rsttrace.commands.options import shown
from rsttrace.commands.read import HOLD_S, ProgressBar, no_bar, tell
from rsttrace.commands.run import Options, Run
from rsttrace.commands.stop import stop_on_signals
from rsttrace.commands.writer import Stuck
from rsttrace.compare.files import Log, Until, compare_files, is_log, load_log
from rsttrace.compare.logs import PointResets, ResetSighting, compare_logs
from rsttrace.compare.result import Result
from rsttrace.compare.survey import Progress, survey
from rsttrace.enrich.captured import enrich_captured
from rsttrace.errors import UsageError
from rsttrace.judge.verdict import other_end, reconsider
from rsttrace.model import NO_TIME, Entry, Fate, LatePacket, OtherEnd, Point, Reset
from rsttrace.render.compare import comparison_lines, comparison_object
from rsttrace.render.json import authors_object, evidence_object

MOST_RESETS = 50_000
"""Resets of a capture that are compared with a log."""

NOT_COMPARED = "it was not compared: too many resets in its connection"


def run_command(names: Sequence[str], options: Mapping[str, Any], bar: ProgressBar) -> int:
    """The command, from its options; the exit code.

    Raises: see `compare`.
    """
    wanted = filter_of(options)
    return compare(
        names,
        shown(options, inputs=names, hold_s=HOLD_S),
        wanted,
        flows=options["flows"],
        until=until_of(options),
        bar=bar,
    )


def compare(
    names: Sequence[str],
    options: Options,
    wanted: Filter,
    *,
    flows: int = 65536,
    until: Mapping[Point, Until] = MappingProxyType({}),
    out: TextIO | None = None,
    status: Callable[[str], None] | None = None,
    bar: ProgressBar = no_bar,
) -> int:
    """Compare A and B (`names`), then show the entries of both with what the other one says.

    Args:
        names: two paths: captures, or JSON lines of rsttrace.
        options: what to show.
        wanted: which resets to show.
        flows: how many connections to remember of each capture.
        until: until when each point was watched, where the user says so.
        out: where the comparison and the entries go; stdout by default.
        status: takes lines about the run; stderr by default.
        bar: makes a progress bar for a file whose size is known.

    Returns:
        The exit code: 0, or 1 if a file could not be read at all, or an output not be written.

    Raises:
        CaptureError: a file cannot be opened, or is neither a capture nor a log.
        UsageError: both are the same file, or one is standard input.
        BrokenPipeError: nobody reads any more.
    """
    _check(names)
    files = dict(zip(Point, names))
    failed = 0
    with (
        stop_on_signals() as stop,
        Run(
            options,
            stop,
            out=out,
            status=status,
            wanted=wanted,
            title=f"TCP resets in {names[0]} and {names[1]}",
        ) as run,
        contextlib.suppress(Stuck),
    ):
        found, logs = _compare(files, flows, until, run.ended, bar)
        if run.stopped:
            return 0
        if options.output != "text":
            run.writer.object(comparison_object(found.comparison, utc=options.utc))
        else:
            run.writer.lines([*comparison_lines(found.comparison, plain=run.writer.plain), ""])
        if run.reporting is not None:
            run.reporting.report.comparison = comparison_lines(found.comparison)
        entries = _Entries(files, logs, found, run)
        failed = entries.show(bar)
        run.summarize(entries.looked_at - run.shown)
    return 1 if failed or run.failed else 0


def _check(names: Sequence[str]) -> None:
    if "-" in names:
        raise UsageError(
            "compare reads each capture several times, which standard input cannot give",
            hint="write it to a file first",
        )
    with contextlib.suppress(OSError, ValueError):
        if os.path.samefile(*names):
            raise UsageError("A and B are the same file", hint="give the files of both ends")


def _compare(
    files: dict[Point, str],
    flows: int,
    until: Mapping[Point, Until],
    ended: Callable[[], bool],
    bar: ProgressBar,
) -> tuple[Result, dict[Point, Log]]:
    """What the two files say together, and those of them that are logs.

    Raises:
        CaptureError: a file cannot be opened, or is neither a capture nor a log.
    """
    logs = {point: load_log(file) for point, file in files.items() if is_log(file)}
    if logs:
        told = {
            point: _logged_resets(logs[point]) if point in logs else _captured_resets(file, ended)
            for point, file in files.items()
        }
        for point, end in until.items():
            last_ns = told[point].last_ns
            told[point].until_ns = None if last_ns is None else end(last_ns)
        return compare_logs(told), logs
    with contextlib.ExitStack() as bars:

        def progress(file: str) -> Progress:
            bars.close()
            return bars.enter_context(bar(os.path.getsize(file), file))

        result = compare_files(files, flows=flows, until=until, progress=progress, ended=ended)
        return result, logs


def _logged_resets(log: Log) -> PointResets:
    sightings = []
    for number, line in enumerate(log.lines):
        reset = line.entry.reset
        sightings.append(
            ResetSighting(
                number,
                reset.time_ns,
                reset.kind,
                reset.local,
                reset.remote,
                reset.rst,
                line.peer_ttl,
                line.entry.verdict.hops_peer,
            )
        )
    return PointResets(
        log.file,
        True,
        sightings,
        lost=log.lost,
        kept=not log.dropped,
        runs=log.runs,
        whole=log.whole,
        problem=log.problem,
    )


def _captured_resets(file: str, ended: Callable[[], bool]) -> PointResets:
    watched = survey(file, 1, ended=ended)
    span = watched.span()
    found = PointResets(
        file, False, [], lost=watched.dropped(), runs=() if span is None else (span,)
    )
    with CaptureSource(file, ended=ended) as source:
        for item in source.resets():
            if isinstance(item, Reset):
                if len(found.sightings) >= MOST_RESETS:
                    found.kept = False
                    break
                found.sightings.append(_captured_reset(item))
        found.problem, found.packets = source.problem, source.packets
    return found


def _captured_reset(reset: Reset) -> ResetSighting:
    theirs = reset.baseline.theirs
    return ResetSighting(
        reset.file_frame or 0,
        reset.time_ns,
        reset.kind,
        reset.local,
        reset.remote,
        reset.rst,
        theirs.ttl if theirs is not None else None,
    )


class _Event(NamedTuple):
    """What is taken in when A's clock shows `at_ns`: of a capture, or a log's judged entry."""

    at_ns: int
    item: Reset | LatePacket | int | tuple[Entry, dict[str, Any]]


class _Entries:
    """The entries of both files, with what the other point says of them."""

    def __init__(
        self, files: dict[Point, str], logs: dict[Point, Log], found: Result, run: Run
    ) -> None:
        self._files = files
        self._logs = logs
        self._found = found
        self._run = run
        self.looked_at = 0

    def show(self, bar: ProgressBar) -> int:
        """Show the entries of both; returns how many files could not be read.

        In order of time by A's clock; where the clocks could not be compared, first those of A.
        Both are read side by side, so nothing but one event of each is kept for that.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        with contextlib.ExitStack() as stack:
            captures = {}
            for point, file in self._files.items():
                if point not in self._logs:
                    near = _networks(self._found.near[point])
                    source = CaptureSource(file, local=near, ended=self._run.ended)
                    captures[point] = stack.enter_context(source)
            size = sum(source.size or 0 for source in captures.values())
            label = " and ".join(os.path.basename(file) for file in self._files.values())
            progress = stack.enter_context(bar(size, label))
            streams = [
                self._judged(point, self._logs[point])
                if point in self._logs
                else self._captured(point, captures[point], progress)
                for point in self._files
            ]
            if self._found.timing is not None:
                streams = [heapq.merge(*streams, key=lambda event: event.at_ns)]
            for stream in streams:
                if not self._show(stream):
                    break
            say = self._run.say
            return sum(tell(self._files[point], source, say) for point, source in captures.items())

    def _show(self, events: Iterable[_Event]) -> bool:
        """Show what is due as the events come, then the rest; false: no more is to be shown."""
        run = self._run
        for event in events:
            if run.stopped:
                return False
            if isinstance(event.item, (Reset, LatePacket)):
                run.history.add(event.item, event.at_ns)
            self.looked_at += isinstance(event.item, (Reset, tuple))
            run.show(event.at_ns)
            if isinstance(event.item, tuple) and not run.full:
                run.show_judged(*event.item)
            if run.full:
                return False
        run.show(None)
        return not run.full

    # ---- what the files give ----

    def _captured(
        self, point: Point, source: CaptureSource, progress: Progress | None
    ) -> Iterator[_Event]:
        """What a capture gives. Between two of these packets pass until an entry is due."""
        latest = NO_TIME
        for item in source.items(progress):
            time_ns = item if isinstance(item, int) else item.time_ns
            latest = max(latest, self._by_a(point, time_ns))
            if isinstance(item, Reset):
                enrich_captured(item)
                item.other_end = self._say(point, item.file_frame)
            yield _Event(latest, item)
            due_ns = self._run.history.next_due_ns()
            source.wake_ns = None if due_ns is None else due_ns + time_ns - latest

    def _judged(self, point: Point, log: Log) -> Iterator[_Event]:
        """The entries of a log with what the other end says: as entries, and as JSON objects.

        They come as late as a capture's of the same time, which have to wait.
        """
        latest = NO_TIME
        hold_ns = round(self._run.options.hold_s * 1e9)
        for number, line in enumerate(log.lines):
            reset = line.entry.reset
            reset.other_end = self._say(point, number)
            verdict = line.entry.verdict
            found = other_end(reset)
            if found is not None:
                said = reset.other_end
                verdict = reconsider(verdict, found, firewall=said is not None and said.firewall)
            entry = replace(line.entry, verdict=verdict)
            made = {
                **line.object,
                "origin": verdict.origin,
                "confidence": verdict.confidence,
                "score": line.object.get("score")
                if verdict is line.entry.verdict
                else verdict.score,
                "summary": verdict.summary or line.object.get("summary"),
                "authors": authors_object(verdict),
                "evidence": [evidence_object(item) for item in verdict.evidence],
            }
            latest = max(latest, self._by_a(point, reset.time_ns) + hold_ns)
            yield _Event(latest, (entry, made))

    def _by_a(self, point: Point, time_ns: int) -> int:
        """A time of a point's clock by A's clock."""
        timing = self._found.timing
        return time_ns if timing is None or time_ns == NO_TIME else timing.by_a(point, time_ns)

    def _say(self, point: Point, number: int | None) -> OtherEnd:
        known = self._found.resets.get((point, number)) if number is not None else None
        if known is not None:
            return known
        other = point.other
        return OtherEnd(Fate.UNKNOWN, other, self._files[other], why=NOT_COMPARED)


def _networks(addresses: frozenset[str]) -> list[Network]:
    return [ipaddress.ip_network(address) for address in addresses]
