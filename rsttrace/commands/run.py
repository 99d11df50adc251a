"""What the run loops (tracing, reading, comparing) share: options, signals, and the way out.

A Presenter judges what a source gives and a Writer puts the entries on standard output.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TextIO

from rsttrace.judge.fingerprints import Fingerprints
from rsttrace.judge.history import History
from rsttrace.judge.verdict import judge
from rsttrace.model import Entry, Origin, Reset
from rsttrace.render import json as render_json
from rsttrace.render.escape import ascii_only
from rsttrace.render.pcapng import PcapngWriter
from rsttrace.render.summary import Tally
from rsttrace.render.text import entry_lines

POLL_S = 0.2
"""How often the loop looks at the clock and at the signals when no reset comes."""

GRACE_S = 2.0
"""How long the end of a run may take: a reader that does not read, a storm's backlog."""


@dataclass(frozen=True)
class Options:
    """What a run shows and how; see the command line's help."""

    output: str = "text"
    duration_s: float | None = None
    count: int | None = None
    ifaces: tuple[str, ...] = ()
    origins: tuple[Origin, ...] = ()
    summary: bool = False
    explain: bool = False
    verbose: bool = False
    viewpoint_netns: bool = False
    color: bool = False
    utc: bool = False
    hold_s: float = 0.1
    write: str | None = None
    fingerprints: Fingerprints | None = None
    locate: bool = False
    probe_arp: bool = False


class Stop:
    """Set by SIGINT or SIGTERM: end cleanly. A second one kills as usual."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.requested = True
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turn SIGINT and SIGTERM into a request to stop while inside."""
    stop = Stop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


class Stuck(Exception):
    """The reader of our output does not read, and we are to end."""


class Writer:
    """Writes entries to stdout, each flushed at once; notices a reader that went away.

    `ended` says whether the run is to end: then a reader that does not read is given
    `GRACE_S` more. Raises `Stuck` after that.
    """

    def __init__(
        self, options: Options, stream: TextIO, ended: Callable[[], bool] = lambda: False
    ) -> None:
        self._options = options
        self._stream = stream
        self._ended = ended
        self._grace: float | None = None
        self._own_netns = os.stat("/proc/self/ns/net").st_ino
        self._plain = ascii_only(stream)
        self._poll: select.poll | None = None
        with contextlib.suppress(OSError, ValueError):
            self._descriptor = stream.fileno()
            self._poll = select.poll()
            self._poll.register(self._descriptor, 0)  # POLLERR and POLLHUP are always reported

    def entry(self, entry: Entry) -> None:
        """Write one entry.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        options = self._options
        if options.output == "json":
            lines = [render_json.entry_line(entry, explain=options.explain, utc=options.utc)]
        else:
            lines = entry_lines(
                entry,
                explain=options.explain,
                color=options.color,
                verbose=options.verbose,
                utc=options.utc,
                own_netns=self._own_netns,
                plain=self._plain,
            )
        self.lines(lines)

    def lines(self, lines: list[str]) -> None:
        """Write lines and flush.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        text = "".join(f"{line}\n" for line in lines)
        if self._poll is None:
            self._stream.write(text)
            self._stream.flush()
            return
        data = memoryview(text.encode(self._stream.encoding or "utf-8", "backslashreplace"))
        ready = select.poll()
        ready.register(self._descriptor, select.POLLOUT)
        while data:
            if not ready.poll(POLL_S * 1000):
                self._wait_for_reader()
                continue
            # A pipe that is ready takes PIPE_BUF bytes without blocking (pipe(7)).
            data = data[os.write(self._descriptor, data[: select.PIPE_BUF]) :]

    def _wait_for_reader(self) -> None:
        if not self._ended():
            return
        self._grace = self._grace or time.monotonic() + GRACE_S
        if time.monotonic() > self._grace:
            raise Stuck

    def abandoned(self) -> bool:
        """Whether the reading end of our pipe is closed."""
        if self._poll is None:
            return False
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in self._poll.poll(0))


class Presenter:
    """Turns judged resets into entries: numbers them, filters them, writes and counts them.

    A context manager: entering opens the pcapng file that `Options.write` names, if any.

    Attributes:
        history: where resets and late packets go in.
        shown: how many resets were shown; entries that amend one are not counted.
        before: called before each entry is written, if set.
    """

    def __init__(
        self,
        options: Options,
        writer: Writer,
        tally: Tally,
        *,
        wanted: Callable[[Reset], bool] = lambda reset: True,
        entry_hook: Callable[[Entry], None] | None = None,
    ) -> None:
        self._options = options
        self._writer = writer
        self._tally = tally
        self._wanted = wanted
        self._entry_hook = entry_hook
        self._file: PcapngWriter | None = None
        self._written = 0
        self.shown = 0
        self.before: Callable[[], None] | None = None
        self.history = History(
            hold_ns=round(options.hold_s * 1e9),
            decide=lambda reset: judge(reset, options.fingerprints),
        )

    def __enter__(self) -> Presenter:
        if self._options.write is not None:
            self._file = PcapngWriter(self._options.write)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.__exit__(None, None, None)

    def number(self) -> int:
        """The next entry's id, for an entry that is not of the history."""
        self._written += 1
        return self._written

    def show(self, now_ns: int | None) -> bool:
        """Show what is due (None: everything); true when no more is to be shown (`--count`).

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        options = self._options
        for case in self.history.due(now_ns):
            reset, verdict, amends = case.reset, case.verdict, case.entry
            assert verdict is not None
            # What has been shown is amended, whatever it has become.
            if amends is None and (
                (options.origins and verdict.origin not in options.origins)
                or not self._wanted(reset)
            ):
                continue
            if self.before is not None:
                self.before()
            entry = Entry(self.number(), reset, verdict, amends)
            if amends is None:
                case.entry = entry.id
                self.shown += 1
            self._writer.entry(entry)
            self._tally.add(entry)
            if self._file is not None:
                self._file.add(entry)
            if self._entry_hook is not None:
                self._entry_hook(entry)
            if options.count is not None and self.shown >= options.count:
                return True
        return False


def to_stderr(text: str) -> None:
    """Write status: to standard error, at once."""
    print(text, file=sys.stderr, flush=True)
