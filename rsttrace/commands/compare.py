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

from rsttrace import jsonl
from rsttrace.capture.sides import Network
from rsttrace.capture.source import CaptureSource
from rsttrace.commands.read import Filter, ProgressBar, no_bar, tell
from rsttrace.commands.run import (
    Options,
    Presenter,
    Stop,
    Stuck,
    Writer,
    stop_on_signals,
    to_stderr,
)
from rsttrace.compare.clocks import Timing
from rsttrace.compare.files import compare_files
from rsttrace.compare.logs import Side, Word, compare_logs
from rsttrace.compare.survey import Progress
from rsttrace.enrich.captured import enrich_captured
from rsttrace.errors import CaptureError, UsageError
from rsttrace.judge.rules import other_end
from rsttrace.judge.verdict import reconsider
from rsttrace.model import NO_TIME, Comparison, Entry, Fate, LatePacket, OtherEnd, Reset
from rsttrace.render import json as render_json
from rsttrace.render.compare import comparison_lines, comparison_object
from rsttrace.render.escape import ascii_only
from rsttrace.render.summary import Tally

MOST_WORDS = 50_000
"""Resets of a capture that are compared with a log."""

NOT_COMPARED = "it was not compared: too many resets in its connection"

Known = dict[tuple[str, int], OtherEnd]


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
    with stop_on_signals() as stop, contextlib.ExitStack() as stack:

        def ended() -> bool:
            return stop.requested

        writer = Writer(options, stream, ended)
        tally = Tally(clock=None)
        run = _Run(names, options, wanted, flows, stop, bar)
        presenter = stack.enter_context(Presenter(options, writer, tally, wanted=wanted))
        with contextlib.suppress(Stuck):
            found = run.compare()
            if stop.requested:
                return 0
            writer.lines(_head(found, options, stream))
            failed = run.entries(presenter, writer, tally, say)
            if options.summary:
                tally.not_shown(filtered=run.looked_at - run.shown, aggregated=0, lost=0)
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


class _Event(NamedTuple):
    """What is taken in when A's clock shows `at_ns`: of a capture, or a log's judged entry."""

    at_ns: int
    item: Reset | LatePacket | int | tuple[Entry, dict[str, Any]]


class _Run:
    """One comparison: the two files, and what is known of their resets."""

    def __init__(
        self,
        names: Sequence[str],
        options: Options,
        wanted: Filter,
        flows: int,
        stop: Stop,
        bar: ProgressBar,
    ) -> None:
        self._names = names
        self._options = options
        self._wanted = wanted
        self._flows = flows
        self._stop = stop
        self._bar = bar
        self._known: Known = {}
        self._timing: Timing | None = None
        self._local: list[Sequence[Network]] = [(), ()]
        self._logs: list[jsonl.Log | None] = [None, None]
        self.looked_at = 0
        self.shown = 0

    def _ended(self) -> bool:
        return self._stop.requested

    def compare(self) -> Comparison:
        """Compare, and remember what was found for the entries.

        Raises:
            CaptureError: a file cannot be opened, or is neither a capture nor a log.
        """
        self._logs = [jsonl.load(name) if jsonl.is_log(name) else None for name in self._names]
        if any(log is not None for log in self._logs):
            found = compare_logs([self._side(number) for number in (0, 1)])
            self._known, self._timing = found.resets, found.timing
            return found.comparison
        with contextlib.ExitStack() as bars:

            def progress(name: str) -> Progress:
                bars.close()
                size = os.path.getsize(name)
                return bars.enter_context(self._bar(size, name))

            result = compare_files(
                self._names, flows=self._flows, progress=progress, ended=self._ended
            )
        self._known, self._timing = result.resets, result.timing
        self._local = [_networks(result.near_a), _networks(result.near_b)]
        return result.comparison

    def _side(self, number: int) -> Side:
        log, name = self._logs[number], self._names[number]
        if log is not None:
            return Side(
                name=name,
                logged=True,
                words=[_word(at, line) for at, line in enumerate(log.lines)],
                complete=log.complete and not log.dropped,
                problem=log.problem,
            )
        words: list[Word] = []
        complete = True
        with CaptureSource(name, ended=self._ended) as source:
            if source.size is None:
                raise CaptureError(
                    f"{name!a} is a pipe: compare reads each capture several times",
                    hint="write it to a file first",
                )
            for item in source.resets():
                if isinstance(item, Reset):
                    if len(words) >= MOST_WORDS:
                        complete = False
                        break
                    words.append(_captured(item))
            return Side(name, False, words, complete, source.problem, source.packets)

    def entries(
        self, presenter: Presenter, writer: Writer, tally: Tally, say: Callable[[str], None]
    ) -> int:
        """Show the entries of both; returns how many files could not be read.

        In order of time by A's clock; where the clocks could not be compared, first those of A.
        Both are read side by side, so nothing but one event of each is kept for that.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        with contextlib.ExitStack() as stack:
            captures: dict[str, CaptureSource] = {}
            for point, name, log, local in zip("AB", self._names, self._logs, self._local):
                if log is None:
                    source = CaptureSource(name, local=local, ended=self._ended)
                    captures[point] = stack.enter_context(source)
            size = sum(source.size or 0 for source in captures.values())
            label = " and ".join(os.path.basename(name) for name in self._names)
            progress = stack.enter_context(self._bar(size, label))
            streams = [
                self._captured(point, captures[point], presenter, progress)
                if log is None
                else self._judged(point, log)
                for point, log in zip("AB", self._logs)
            ]
            merged = [heapq.merge(*streams, key=lambda event: event.at_ns)]
            for stream in streams if self._timing is None else merged:
                if not self._show(stream, presenter, writer, tally):
                    break
            failed = sum(
                tell(name, captures[point], say)
                for point, name in zip("AB", self._names)
                if point in captures
            )
        self.shown += presenter.shown
        return failed

    def _show(
        self, events: Iterable[_Event], presenter: Presenter, writer: Writer, tally: Tally
    ) -> bool:
        """Show what is due as the events come, then the rest; false: no more is to be shown."""
        for event in events:
            if self._stop.requested:
                return False
            if isinstance(event.item, (Reset, LatePacket)):
                presenter.history.add(event.item, event.at_ns)
            self.looked_at += isinstance(event.item, (Reset, tuple))
            presenter.show(event.at_ns)
            if isinstance(event.item, tuple) and not self._full(presenter):
                self._show_logged(*event.item, presenter, writer, tally)
            if self._full(presenter):
                return False
        presenter.show(None)
        return not self._full(presenter)

    def _reference_ns(self, point: str, time_ns: int) -> int:
        """A time of a point's clock by A's clock."""
        if point == "A" or self._timing is None or time_ns == NO_TIME:
            return time_ns
        return self._timing.to_a(time_ns)

    def _captured(
        self,
        point: str,
        source: CaptureSource,
        presenter: Presenter,
        progress: Progress | None,
    ) -> Iterator[_Event]:
        """What a capture gives. Between two of these packets pass until an entry is due."""
        latest = NO_TIME
        for item in source.items(progress):
            time_ns = item if isinstance(item, int) else item.time_ns
            latest = max(latest, self._reference_ns(point, time_ns))
            if isinstance(item, Reset):
                enrich_captured(item)
                item.other_end = self._say(point, item.file_frame)
            yield _Event(latest, item)
            due_ns = presenter.history.next_due_ns()
            source.wake_ns = None if due_ns is None else due_ns + time_ns - latest

    def _full(self, presenter: Presenter) -> bool:
        count = self._options.count
        return count is not None and presenter.shown + self.shown >= count

    def _say(self, point: str, number: int | None) -> OtherEnd:
        known = self._known.get((point, number)) if number is not None else None
        if known is not None:
            return known
        other = 1 - "AB".index(point)
        return OtherEnd(Fate.UNKNOWN, "AB"[other], self._names[other], why=NOT_COMPARED)

    def _show_logged(
        self,
        entry: Entry,
        found: dict[str, Any],
        presenter: Presenter,
        writer: Writer,
        tally: Tally,
    ) -> None:
        origins = self._options.origins
        if (origins and entry.verdict.origin not in origins) or not self._wanted(entry.reset):
            return
        shown = replace(entry, id=presenter.number(), amends=None)
        if self._options.output == "json":
            found.update({"id": shown.id, "amends": None})
            writer.lines([render_json.object_line(found)])
        else:
            writer.entry(shown)
        tally.add(shown)
        self.shown += 1

    def _judged(self, point: str, log: jsonl.Log) -> Iterator[_Event]:
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
            changed = {
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
            latest = max(latest, self._reference_ns(point, reset.time_ns) + hold_ns)
            yield _Event(latest, (entry, changed))


def _networks(addresses: Sequence[str] | frozenset[str]) -> list[Network]:
    return [ipaddress.ip_network(address) for address in addresses]


def _word(number: int, line: jsonl.Line) -> Word:
    reset, verdict = line.entry.reset, line.entry.verdict
    baseline = line.object.get("baseline")
    ttl = baseline.get("ttl") if isinstance(baseline, dict) else None
    usual = ttl if isinstance(ttl, int) and 0 <= ttl <= 255 else None
    return Word(
        number,
        reset.time_ns,
        reset.kind,
        reset.local,
        reset.remote,
        reset.rst,
        usual,
        verdict.hops_peer,
    )


def _captured(reset: Reset) -> Word:
    theirs = reset.baseline.theirs
    return Word(
        reset.file_frame or 0,
        reset.time_ns,
        reset.kind,
        reset.local,
        reset.remote,
        reset.rst,
        theirs.ttl if theirs is not None else None,
    )
