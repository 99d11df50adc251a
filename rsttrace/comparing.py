"""The run loop of comparing two vantage points: both sources -> compare -> judge -> render."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TextIO

from rsttrace.capture import loglines
from rsttrace.capture.logs import Side, Word, compare_logs
from rsttrace.capture.pair import compare_files
from rsttrace.capture.sides import Network
from rsttrace.capture.source import CaptureSource
from rsttrace.capture.vantage import Progress
from rsttrace.errors import CaptureError, UsageError
from rsttrace.judge.rules import other_end
from rsttrace.judge.verdict import reconsider
from rsttrace.model import Comparison, Entry, Fate, OtherEnd, Reset
from rsttrace.presenting import (
    Options,
    Presenter,
    Stop,
    Stuck,
    Writer,
    stop_on_signals,
    to_stderr,
)
from rsttrace.reading import Filter, ProgressBar, no_bar, pump, tell
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
        self._local: list[Sequence[Network]] = [(), ()]
        self._logs: list[loglines.Log | None] = [None, None]
        self.looked_at = 0
        self.shown = 0

    def _ended(self) -> bool:
        return self._stop.requested

    def compare(self) -> Comparison:
        """Compare, and remember what was found for the entries.

        Raises:
            CaptureError: a file cannot be opened, or is neither a capture nor a log.
        """
        self._logs = [
            loglines.load(name) if loglines.is_log(name) else None for name in self._names
        ]
        if any(log is not None for log in self._logs):
            found = compare_logs([self._side(number) for number in (0, 1)])
            self._known = found.resets
            return found.comparison
        with contextlib.ExitStack() as bars:

            def progress(name: str) -> Progress:
                bars.close()
                size = os.path.getsize(name)
                return bars.enter_context(self._bar(size, name))

            result = compare_files(
                self._names, flows=self._flows, progress=progress, ended=self._ended
            )
        self._known = result.resets
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

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        failed = 0
        for number, (point, name) in enumerate(zip("AB", self._names)):
            if self._stop.requested or self._full(presenter):
                break
            log = self._logs[number]
            if log is not None:
                self._log_entries(point, log, presenter, writer, tally)
                continue
            local = self._local[number]
            with CaptureSource(name, local=local, ended=self._ended) as source:
                with self._bar(source.size or 0, name) as progress:

                    def amend(reset: Reset, point: str = point) -> None:
                        reset.other_end = self._say(point, reset.file_frame)

                    self.looked_at += pump(source, presenter, self._stop, progress, amend)
                if not self._full(presenter):
                    presenter.show(None)
                failed += tell(name, source, say)
        self.shown += presenter.shown
        return failed

    def _full(self, presenter: Presenter) -> bool:
        count = self._options.count
        return count is not None and presenter.shown + self.shown >= count

    def _say(self, point: str, number: int | None) -> OtherEnd:
        known = self._known.get((point, number)) if number is not None else None
        if known is not None:
            return known
        other = 1 - "AB".index(point)
        return OtherEnd(Fate.UNKNOWN, "AB"[other], self._names[other], why=NOT_COMPARED)

    def _log_entries(
        self,
        point: str,
        log: loglines.Log,
        presenter: Presenter,
        writer: Writer,
        tally: Tally,
    ) -> None:
        for entry, found in self._judged(point, log):
            self.looked_at += 1
            reset = entry.reset
            if self._options.origins and entry.verdict.origin not in self._options.origins:
                continue
            if not self._wanted(reset):
                continue
            shown = replace(entry, id=presenter.number(), amends=None)
            if self._options.output == "json":
                found.update({"id": shown.id, "amends": None})
                writer.lines([render_json.object_line(found)])
            else:
                writer.entry(shown)
            tally.add(shown)
            self.shown += 1
            if self._full(presenter):
                return

    def _judged(self, point: str, log: loglines.Log) -> Iterator[tuple[Entry, dict[str, Any]]]:
        """The entries of a log with what the other end says: as entries, and as JSON objects."""
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
            yield entry, changed


def _networks(addresses: Sequence[str] | frozenset[str]) -> list[Network]:
    return [ipaddress.ip_network(address) for address in addresses]


def _word(number: int, line: loglines.Line) -> Word:
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
