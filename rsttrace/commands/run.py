"""What all runs share: what a source gives is judged, shown and counted, until the end."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TextIO

from rsttrace.commands.about import about_run
from rsttrace.commands.recording import STDOUT, Recording, Rotation, check_stdout
from rsttrace.commands.repeats import Repeats
from rsttrace.commands.stop import Stop
from rsttrace.commands.whose import EVERYBODY, Whose
from rsttrace.commands.writer import Form, Stuck, Writer
from rsttrace.judge.fingerprints import Fingerprints
from rsttrace.judge.history import Case, History
from rsttrace.judge.verdict import counted, judge, unread
from rsttrace.model import NO_TIME, Entry, Origin, Reset, Verdict
from rsttrace.privileges.account import Account
from rsttrace.render.json import entry_line, object_line
from rsttrace.render.logfmt import logfmt_line, object_logfmt
from rsttrace.render.summary import Tally
from rsttrace.render.text import entry_lines, repeats_line
from rsttrace.render.times import duration

if TYPE_CHECKING:
    from rsttrace.commands.reporting import Reporting

COLLECT_EACH = 20_000
"""So many new objects, less those that are gone, before cycles of objects are looked for."""


@dataclass(frozen=True)
class Options:
    """What a run shows and how; see the command line's help. `ports` are those that the kernel
    could not be told. `secrets`: there may be data of connections in it. `account`: whom to become.
    """

    output: str = "text"
    duration_s: float | None = None
    count: int | None = None
    ifaces: tuple[str, ...] = ()
    ports: frozenset[int] = frozenset()
    whose: Whose = EVERYBODY
    origins: tuple[Origin, ...] = ()
    summary: bool = False
    explain: bool = False
    quiet: bool = False
    verbose: bool = False
    viewpoint_netns: bool = False
    color: bool = False
    utc: bool = False
    each: bool = False
    hold_s: float = 0.1
    write: str | None = None
    rotation: Rotation | None = None
    inputs: tuple[str, ...] = ()
    secrets: bool = False
    report: str | None = None
    fingerprints: Fingerprints | None = None
    locate: bool = False
    probe_arp: bool = False
    probe: bool = False
    metrics: str | None = None
    journal: bool = False
    otlp: str | None = None
    account: Account | None = None


class Run:
    """Turns resets into entries: judges, numbers and filters them, writes and counts them.

    A context manager: entering looks whether the pcapng file that `Options.write` names, if any,
    can be written, and is none of `Options.inputs`.

    Args:
        options: what to show.
        stop: whether a signal wants the run to end.
        out: where entries go; stdout by default.
        status: takes lines about the run; stderr by default.
        live: whether the run's own duration means something, as it does not for captures.
        wanted: which resets to show.
        entry_hook: called with each entry shown.
        judged_hook: called with each reset that is wanted and its verdict, whichever it is, before
            it is shown.
        unwanted_hook: called for each reset that was judged and is not to be shown.
        counted_hook: called with each entry shown of resets that were only counted.
        title: what the run looks at, for the report.

    Attributes:
        history: where resets and late packets go in.
        shown: how many resets were shown; entries that amend one are not counted, nor are those
            that were only counted themselves.
        filtered: how many were looked at and not wanted.
        before: called before each entry is written, if set.
        writer: writes what is shown beside the entries.
        reporting: the page of ``--report``, if one is wanted.
    """

    def __init__(
        self,
        options: Options,
        stop: Stop,
        *,
        out: TextIO | None = None,
        status: Callable[[str], None] | None = None,
        live: bool = False,
        wanted: Callable[[Reset], bool] = lambda reset: True,
        entry_hook: Callable[[Entry], None] | None = None,
        judged_hook: Callable[[Reset, Verdict], None] | None = None,
        unwanted_hook: Callable[[], None] | None = None,
        counted_hook: Callable[[Entry], None] | None = None,
        title: str = "TCP resets",
    ) -> None:
        """Starts the clock of `Options.duration_s`."""
        self.options = options
        self._status = status or to_stderr
        lines_to = sys.stderr if options.write == STDOUT else sys.stdout
        about = about_run() if options.output != "text" else None
        self.writer = Writer(out or lines_to, self.ended, about, machine_form(options.output))
        self.shown = self.filtered = 0
        self.before: Callable[[], None] | None = None
        self.history = History(
            hold_ns=round(options.hold_s * 1e9),
            decide=lambda reset: judge(reset, options.fingerprints, explain=options.explain),
        )
        self._stop = stop
        self._ends = None if options.duration_s is None else time.monotonic() + options.duration_s
        self._tally = Tally() if live else Tally(clock=None)
        self._wanted = wanted
        self._entry_hook = entry_hook
        self._judged_hook = judged_hook
        self._unwanted_hook = unwanted_hook
        self._counted_hook = counted_hook
        self._own_netns = os.stat("/proc/self/ns/net").st_ino
        self._file: Recording | None = None
        self._mute = False
        grouped = not (options.each or options.explain or options.verbose)
        self._repeats = Repeats() if options.output == "text" and grouped else None
        self._written = 0
        self._title = title
        self.reporting: Reporting | None = None
        self._report_failed = False

    def say(self, text: str) -> None:
        """A line about the run: for whoever watches, and for the report."""
        self._status(text)
        if self.reporting is not None:
            self.reporting.report.note(text)

    def __enter__(self) -> Run:
        options = self.options
        check_stdout(options.inputs)
        collect_seldom()
        if options.report is not None:
            from rsttrace.commands.reporting import Reporting

            self.reporting = Reporting(
                options.report,
                self._title,
                utc=options.utc,
                now_ns=time.time_ns(),
                inputs=options.inputs,
            )
        if options.write is not None:
            self._file = Recording(
                options.write,
                self.say,
                inputs=options.inputs,
                full=options.rotation,
                ended=self.ended,
                private=options.secrets,
            )
            self._file.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.__exit__(*exc_info)
        if self.reporting is not None:
            self._report_failed = not self.reporting.write(
                self._tally.missing(), time.time_ns(), self._status
            )

    @property
    def failed(self) -> bool:
        """Whether something could not be written; it was said."""
        recording = self._file is not None and self._file.failed
        return self._mute or recording or self._report_failed

    def date_was_set(self, by_ns: int) -> None:
        """Somebody has set the date meanwhile, by so many nanoseconds (back: negative).

        Raises: see `show`.
        """
        self._tell_repeats(None)
        self.history.date_was_set(by_ns)
        way = "back" if by_ns < 0 else "forward"
        self.say(
            f"warning: the date was set {way} by {duration(abs(by_ns))}: "
            "times are by the new one from here on"
        )

    def look_after_readers(self) -> None:
        """Notice that nobody reads the output any more, though there is nothing to write.

        Raises:
            BrokenPipeError: the reading end of a pipe is closed.
        """
        if self._file is not None and self._file.abandoned():
            raise BrokenPipeError
        if not self._mute and self.writer.abandoned():
            raise BrokenPipeError

    @property
    def stopped(self) -> bool:
        """Whether a signal wants it to end, or the terminal that took its lines is gone."""
        return self._stop.requested or self.writer.gone

    def ended(self) -> bool:
        """Whether a signal wants it to end, or its duration is over."""
        return self.stopped or (self._ends is not None and time.monotonic() >= self._ends)

    def left_s(self, most_s: float) -> float:
        """Seconds until its duration is over, and at most so many."""
        return most_s if self._ends is None else min(most_s, self._ends - time.monotonic())

    @property
    def full(self) -> bool:
        """Whether no more is to be shown (``--count``)."""
        return self.options.count is not None and self.shown >= self.options.count

    def show(self, now_ns: int | None) -> bool:
        """Show what is due (None: everything); true when no more is to be shown.

        Raises:
            BrokenPipeError: nobody reads any more.
            Stuck: nobody reads, and the run is to end.
        """
        with self.writer.together(self._mute_after):
            for case in self.history.due(now_ns):
                self._show_case(case)
                if self.full:
                    return True
            self._tell_repeats(NO_TIME)
        return False

    def amend(self) -> None:
        """Show what is judged anew; also beyond ``--count``, if it has been shown already.

        Raises: see `show`.
        """
        with self.writer.together(self._mute_after):
            for case in self.history.due(0):  # nothing was due then: none that waits
                if case.entry is not None or not self.full:
                    self._show_case(case)

    def _show_case(self, case: Case) -> None:
        """Show what was judged, if it is wanted."""
        reset, verdict, amends = case.reset, case.verdict, case.entry
        assert verdict is not None
        if self._judged_hook is not None and self._wanted(reset):
            self._judged_hook(reset, verdict)
        # What has been shown is amended, whatever it has become.
        if amends is None and not self._is_wanted(reset, verdict.origin):
            self.filtered += not case.unwanted
            case.unwanted = True
            if self._unwanted_hook is not None:
                self._unwanted_hook()
            return
        if self.before is not None:
            self.before()
        entry = Entry(self._number(), reset, verdict, amends)
        self._write(entry)
        if amends is None:
            case.entry = entry.id
            self.shown += 1
            self.filtered -= case.unwanted  # what came later has changed that
        self._count(entry)
        if self._file is not None:
            self._file.add(entry)
        if self.reporting is not None:
            self.reporting.add(entry)
        if self._entry_hook is not None:
            self._entry_hook(entry)

    def show_counted(self, reset: Reset) -> None:
        """Show resets that were only counted (`Reset.counted`): they are not judged.

        Raises: see `show`.
        """
        verdict = counted(reset)
        if not self._is_wanted(reset, verdict.origin):
            return
        entry = Entry(self._number(), reset, verdict)
        self._write(entry)
        if self._counted_hook is not None:
            self._counted_hook(entry)

    def show_unread(self, reset: Reset) -> None:
        """Show a reset whose headers nobody could read (`Reset.unread`): it is not judged.

        Raises: see `show`.
        """
        verdict = unread(reset)
        if not self._is_wanted(reset, verdict.origin):
            self.filtered += 1
        elif not self.full:
            if self.before is not None:
                self.before()
            entry = Entry(self._number(), reset, verdict)
            self._write(entry)
            self.shown += 1
            self._count(entry)
            if self.reporting is not None:
                self.reporting.add(entry)
            if self._entry_hook is not None:
                self._entry_hook(entry)

    def show_judged(
        self, entry: Entry, made: dict[str, Any], amends: int | None = None
    ) -> int | None:
        """Show an entry that another run has judged; `made` is it as a JSON object.

        `amends` is the number here of the first entry on its reset, if that was shown. Returns its
        own; ``None``: it is not wanted.

        Raises: see `show`.
        """
        if amends is None and not self._is_wanted(entry.reset, entry.verdict.origin):
            return None
        entry = replace(entry, id=self._number(), amends=amends)
        if self.options.output == "json":
            self.writer.object({**made, "id": entry.id, "amends": amends})
        else:
            self._write(entry)
        if entry.reset.counted is not None:
            return None  # nothing was judged
        self._count(entry)
        if self._file is not None and entry.reset.rst.raw:
            self._file.add(entry)
        if self.reporting is not None:
            self.reporting.add(entry)
        if amends is None:
            self.shown += 1
        return entry.id

    def summarize(self, filtered: int, *, aggregated: int = 0, lost: int = 0) -> None:
        """End with counts (``--summary``): of what was shown, and of so many that were not.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        self._tally.not_shown(filtered=filtered, aggregated=aggregated, lost=lost)
        with contextlib.suppress(Stuck):
            self._tell_repeats(None)
        if not self.options.summary:
            return
        if self._mute:
            return
        with contextlib.suppress(Stuck):
            if self.options.output != "text":
                self.writer.object(self._tally.object())
            else:
                self.writer.lines(self._tally.text_lines())

    def _is_wanted(self, reset: Reset, origin: Origin) -> bool:
        origins = self.options.origins
        return (not origins or origin in origins) and self._wanted(reset)

    def _count(self, entry: Entry) -> None:
        """Have it in the counts at the end, if these are wanted."""
        if self.options.summary:
            self._tally.add(entry)

    def _number(self) -> int:
        self._written += 1
        return self._written

    def _write(self, entry: Entry) -> None:
        if self._mute:
            return
        try:
            self._write_lines(entry)
        except OSError as error:
            self._mute_after(error)

    def _mute_after(self, error: OSError) -> None:
        """Write no more lines once that has failed, if packets are still written (``-w``).

        Raises:
            OSError: they are not, or nobody reads any more.
        """
        if isinstance(error, BrokenPipeError) or self._file is None or self._file.failed:
            raise error
        # A full disk: the packets may be on another one.
        self._mute = True
        self.say(
            f"warning: cannot write to standard output: {error.strerror or error}; "
            "no more lines are written there"
        )

    def _write_lines(self, entry: Entry) -> None:
        options = self.options
        if options.output == "logfmt":
            self.writer.lines([logfmt_line(entry, utc=options.utc, run=self.writer.about)])
            return
        if options.output == "json":
            about = self.writer.about
            line = entry_line(entry, explain=options.explain, utc=options.utc, run=about)
            self.writer.lines([line])
            return
        if self._repeats is not None and entry.reset.counted is None:
            wanted = self._repeats.take(entry)
            self._tell_repeats(entry.reset.time_ns)
            if not wanted:
                return
        self.writer.lines(
            entry_lines(
                entry,
                explain=options.explain,
                quiet=options.quiet,
                color=options.color,
                verbose=options.verbose,
                utc=options.utc,
                own_netns=self._own_netns,
                plain=self.writer.plain,
            )
        )

    def _tell_repeats(self, now_ns: int | None) -> None:
        """Say how many were alike, as far as that is due (None: all; `NO_TIME`: by the clock)."""
        if self._repeats is None or self._mute:
            return
        options = self.options
        for repeat in self._repeats.due(now_ns):
            line = repeats_line(
                repeat.entry,
                repeat.count,
                repeat.first_ns,
                repeat.last_ns,
                color=options.color,
                utc=options.utc,
                own_netns=self._own_netns,
            )
            self.writer.lines([line])


def collect_seldom() -> None:
    """Have cycles of objects looked for less often than by default.

    What is imported lives on, and of what a run makes hardly anything is in a cycle, but much of it
    is kept for a while: so the default (each 700 objects) looks at the same ones again and again,
    a tenth of the time.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_EACH, *gc.get_threshold()[1:])


def machine_form(output: str) -> Form:
    """How ``-o`` writes objects that are for programs."""
    return object_logfmt if output == "logfmt" else object_line


def to_stderr(text: str) -> None:
    """Write status: to standard error, at once. Where that is gone, the run goes on without."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
