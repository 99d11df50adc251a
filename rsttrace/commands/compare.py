"""The run loop of comparing two vantage points: both sources -> compare -> judge -> render."""

from __future__ import annotations

import contextlib
import heapq
import ipaddress
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TextIO

from rsttrace.capture.sides import Network
from rsttrace.capture.source import CaptureSource
from rsttrace.commands.read import Filter, ProgressBar, no_bar, tell
from rsttrace.commands.run import (
    Options,
    Presenter,
    Stuck,
    Writer,
    stop_on_signals,
    to_stderr,
)
from rsttrace.compare.files import Log, compare_files, is_log, load_log
from rsttrace.compare.logs import PointResets, ResetSighting, compare_logs
from rsttrace.compare.result import Result
from rsttrace.compare.survey import Progress, no_pipe
from rsttrace.enrich.captured import enrich_captured
from rsttrace.errors import UsageError
from rsttrace.judge.verdict import other_end, reconsider
from rsttrace.model import NO_TIME, Comparison, Entry, Fate, LatePacket, OtherEnd, Point, Reset
from rsttrace.render import json as render_json
from rsttrace.render.compare import comparison_lines, comparison_object
from rsttrace.render.escape import ascii_only
from rsttrace.render.summary import Tally

MOST_RESETS = 50_000
"""Resets of a capture that are compared with a log."""

NOT_COMPARED = "it was not compared: too many resets in its connection"


def compare(
    names: Sequence[str],
    options: Options,
    wanted: Filter,
    *,
    flows: int = 65536,
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
        out: where the comparison and the entries go; stdout by default.
        status: takes lines about the run; stderr by default.
        bar: makes a progress bar for a file whose size is known.

    Returns:
        The exit code: 0, or 1 if a file could not be read at all.

    Raises:
        CaptureError: a file cannot be opened, or is neither a capture nor a log.
        UsageError: both are the same file, or one is standard input.
        BrokenPipeError: nobody reads any more.
    """
    say = status or to_stderr
    stream = out or sys.stdout
    _check(names)
    files = dict(zip(Point, names))
    with stop_on_signals() as stop, contextlib.ExitStack() as stack:

        def ended() -> bool:
            return stop.requested

        writer = Writer(options, stream, ended)
        tally = Tally(clock=None)
        presenter = stack.enter_context(Presenter(options, writer, tally, wanted=wanted))
        with contextlib.suppress(Stuck):
            found, logs = _compare(files, flows, ended, bar)
            if stop.requested:
                return 0
            writer.lines(_head(found.comparison, options, stream))
            shows = _Entries(files, logs, found, options, wanted, presenter, writer, tally, ended)
            failed = shows.show(say, bar)
            if options.summary:
                tally.not_shown(filtered=shows.looked_at - shows.shown, aggregated=0, lost=0)
                if options.output == "json":
                    writer.lines([render_json.object_line(tally.object())])
                else:
                    writer.lines(tally.text_lines())
            return 1 if failed else 0
    return 0


def _check(names: Sequence[str]) -> None:
    if "-" in names:
        raise UsageError(
            "compare reads each capture several times, which standard input cannot give",
            hint="write it to a file first",
        )
    with contextlib.suppress(OSError, ValueError):
        if os.path.samefile(*names):
            raise UsageError("A and B are the same file", hint="give the files of both ends")


def _head(found: Comparison, options: Options, stream: TextIO) -> list[str]:
    if options.output == "json":
        return [render_json.object_line(comparison_object(found, utc=options.utc))]
    return [*comparison_lines(found, plain=ascii_only(stream)), ""]


def _compare(
    files: dict[Point, str], flows: int, ended: Callable[[], bool], bar: ProgressBar
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
        return compare_logs(told), logs
    with contextlib.ExitStack() as bars:

        def progress(file: str) -> Progress:
            bars.close()
            return bars.enter_context(bar(os.path.getsize(file), file))

        return compare_files(files, flows=flows, progress=progress, ended=ended), logs


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
    complete = log.complete and not log.dropped
    return PointResets(log.file, True, sightings, complete, log.problem)


def _captured_resets(file: str, ended: Callable[[], bool]) -> PointResets:
    sightings: list[ResetSighting] = []
    complete = True
    with CaptureSource(file, ended=ended) as source:
        if source.size is None:
            raise no_pipe(file)
        for item in source.resets():
            if isinstance(item, Reset):
                if len(sightings) >= MOST_RESETS:
                    complete = False
                    break
                sightings.append(_captured_reset(item))
        return PointResets(file, False, sightings, complete, source.problem, source.packets)


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
        self,
        files: dict[Point, str],
        logs: dict[Point, Log],
        found: Result,
        options: Options,
        wanted: Filter,
        presenter: Presenter,
        writer: Writer,
        tally: Tally,
        ended: Callable[[], bool],
    ) -> None:
        self._files = files
        self._logs = logs
        self._found = found
        self._options = options
        self._wanted = wanted
        self._presenter = presenter
        self._writer = writer
        self._tally = tally
        self._ended = ended
        self.looked_at = 0
        self._logged_shown = 0

    @property
    def shown(self) -> int:
        """How many entries were shown."""
        return self._presenter.shown + self._logged_shown

    def show(self, say: Callable[[str], None], bar: ProgressBar) -> int:
        """Show the entries of both; returns how many files could not be read.

        In order of time by A's clock; where the clocks could not be compared, first those of A.
        Both are read side by side, so nothing but one event of each is kept for that.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        with contextlib.ExitStack() as stack:
            captures = {
                point: stack.enter_context(
                    CaptureSource(file, local=_networks(self._found.near[point]), ended=self._ended)
                )
                for point, file in self._files.items()
                if point not in self._logs
            }
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
            return sum(tell(self._files[point], source, say) for point, source in captures.items())

    def _show(self, events: Iterable[_Event]) -> bool:
        """Show what is due as the events come, then the rest; false: no more is to be shown."""
        presenter = self._presenter
        for event in events:
            if self._ended():
                return False
            if isinstance(event.item, (Reset, LatePacket)):
                presenter.history.add(event.item, event.at_ns)
            self.looked_at += isinstance(event.item, (Reset, tuple))
            presenter.show(event.at_ns)
            if isinstance(event.item, tuple) and not self._full():
                self._show_logged(*event.item)
            if self._full():
                return False
        presenter.show(None)
        return not self._full()

    def _full(self) -> bool:
        count = self._options.count
        return count is not None and self.shown >= count

    def _show_logged(self, entry: Entry, found: dict[str, Any]) -> None:
        origins = self._options.origins
        if (origins and entry.verdict.origin not in origins) or not self._wanted(entry.reset):
            return
        shown = replace(entry, id=self._presenter.number(), amends=None)
        if self._options.output == "json":
            found.update({"id": shown.id, "amends": None})
            self._writer.lines([render_json.object_line(found)])
        else:
            self._writer.entry(shown)
        self._tally.add(shown)
        self._logged_shown += 1

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
            due_ns = self._presenter.history.next_due_ns()
            source.wake_ns = None if due_ns is None else due_ns + time_ns - latest

    def _judged(self, point: Point, log: Log) -> Iterator[_Event]:
        """The entries of a log with what the other end says: as entries, and as JSON objects.

        They come as late as a capture's of the same time, which have to wait.
        """
        latest = NO_TIME
        hold_ns = round(self._options.hold_s * 1e9)
        for number, line in enumerate(log.lines):
            reset = line.entry.reset
            reset.other_end = self._say(point, number)
            verdict = line.entry.verdict
            found = other_end(reset)
            if found is not None:
                verdict = reconsider(verdict, found)
            entry = replace(line.entry, verdict=verdict)
            made = {
                **line.object,
                "origin": verdict.origin,
                "confidence": verdict.confidence,
                "score": line.object.get("score")
                if verdict is line.entry.verdict
                else verdict.score,
                "evidence": [
                    {
                        "rule": item.rule,
                        "weight": item.weight,
                        "text": item.text,
                        "values": item.values,
                        "proof": item.proof,
                    }
                    for item in verdict.evidence
                ],
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
