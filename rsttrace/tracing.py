"""The run loop of live tracing: source -> enrich -> judge -> render."""

from __future__ import annotations

import contextlib
import os
import platform
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TextIO

from rsttrace.enrich import Enricher
from rsttrace.errors import RsttraceError
from rsttrace.judge.docket import Docket
from rsttrace.judge.fingerprints import Fingerprints
from rsttrace.judge.verdict import judge
from rsttrace.kernel import hooks
from rsttrace.kernel.config import Report, Request
from rsttrace.kernel.source import LiveSource
from rsttrace.locating import Locator, located_lines
from rsttrace.model import Entry, LatePacket, Origin, Reset
from rsttrace.render import json as render_json
from rsttrace.render.pcapng import PcapngWriter
from rsttrace.render.summary import Tally
from rsttrace.render.text import entry_lines

POLL_S = 0.2
"""How often the loop looks at the clock and at the signals when no reset comes."""

GRACE_S = 2.0
"""How long the end of a run may take: a reader that does not read, a storm's backlog."""

LOCATE_S = 30.0
"""How long the end of a run waits for what ``--locate`` still looks for; a signal cuts it short."""

BLIND_SPOTS = {
    "kprobes": "resets inside IPsec, and packets sent past the queueing layer (AF_XDP, "
    "PACKET_QDISC_BYPASS)",
    "tracepoints": "which firewall chain of this host rejected; resets inside IPsec, and packets "
    "sent past the queueing layer (AF_XDP, PACKET_QDISC_BYPASS)",
}
"""What a plan cannot see even with every hook attached."""


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


def started_line(report: Report) -> str:
    """The line that says everything is armed."""
    return (
        f"tracing resets on Linux {platform.release()} (plan: {report.plan}; "
        f"hooks: {report.attached} of {len(report.hooks)})"
    )


def unseen_lines(report: Report) -> list[str]:
    """What this run cannot see: one line for each hook that is not on, one for the plan itself."""
    lines = [
        f"  not attached: {hook.target} ({hook.error}); unseen: {hook.unseen}"
        for hook in report.hooks
        if not hook.attached
    ]
    if report.missing_fields:
        lines.append(f"  unknown on this kernel: {', '.join(report.missing_fields)}")
    unknown = hooks.unknown(hooks.Plan(report.plan), report.knows)
    if unknown:
        lines.append(f"  unknown on this kernel with this plan: {'; '.join(unknown)}")
    lines.append(f"  unseen with this plan: {BLIND_SPOTS[report.plan]}")
    return lines


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
        docket: where resets and late packets go in.
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
        self.docket = Docket(
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
        """The next entry's id, for an entry that is not of the docket."""
        self._written += 1
        return self._written

    def show(self, now_ns: int | None) -> bool:
        """Show what is due (None: everything); true when no more is to be shown (`--count`).

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        options = self._options
        for case in self.docket.due(now_ns):
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


def trace(
    request: Request,
    options: Options,
    *,
    out: TextIO | None = None,
    status: Callable[[str], None] | None = None,
    entry_hook: Callable[[Entry], None] | None = None,
) -> None:
    """Trace until a signal, the duration, the count, or the reader ends it.

    Args:
        request: what to load, with the filters that the kernel applies.
        options: what to show.
        out: where entries go; stdout by default.
        status: takes lines about the run; stderr by default.
        entry_hook: called with each entry shown.

    Raises:
        RsttraceError: nothing can be traced.
        BrokenPipeError: nobody reads any more.
    """
    say = status or _to_stderr
    with (
        stop_on_signals() as stop,
        Enricher(viewpoint_netns=options.viewpoint_netns) as enricher,
        LiveSource(request) as source,
        Locator() as locator,
        contextlib.ExitStack() as stack,
    ):
        tally = Tally()
        ends = None if options.duration_s is None else time.monotonic() + options.duration_s

        def ended() -> bool:
            return stop.requested or (ends is not None and time.monotonic() >= ends)

        writer = Writer(options, out or sys.stdout, ended)

        def on_entry(entry: Entry) -> None:
            if options.locate:
                locator.ask(entry)
            if entry_hook is not None:
                entry_hook(entry)

        presenter = stack.enter_context(
            Presenter(
                options,
                writer,
                tally,
                wanted=lambda reset: on_iface(reset, options.ifaces, enricher),
                entry_hook=on_entry,
            )
        )
        docket = presenter.docket
        enricher.warm_up()
        say("\n".join([started_line(source.report), *unseen_lines(source.report)]))
        if options.verbose and source.log:
            say(source.log)

        def show(items: list[Reset | LatePacket], *, ending: bool = False) -> bool:
            """Take in a batch, show what is due; true when there is no more to do."""
            for item in items:
                if isinstance(item, Reset):
                    enricher.enrich(item)
                docket.add(item, time.monotonic_ns())
            return presenter.show(None if ending else time.monotonic_ns())

        def show_located(seconds: float = 0.0) -> None:
            for job, found in locator.results(seconds):
                if isinstance(found, RsttraceError):
                    say(f"warning: no path to {job.target.ip}: {found.what}")
                    continue
                stream = out or sys.stdout
                lines = located_lines(job, found, options.output, stream, indent="    ")
                if options.output == "text" and job.clue is not None:
                    lines.insert(0, f"    #{job.clue.entry}: where the forged reset was made")
                writer.lines(lines)

        done = False
        try:
            while not done and not ended():
                wait_s = POLL_S if ends is None else min(POLL_S, ends - time.monotonic())
                if (due_ns := docket.next_due_ns()) is not None:
                    wait_s = min(wait_s, (due_ns - time.monotonic_ns()) / 1e9)
                done = show(source.wait(max(0.0, wait_s)))
                enricher.tidy()
                show_located()
                for target in source.attach_late():
                    say(f"now attached: {target}")
                if writer.abandoned():
                    raise BrokenPipeError
            source.detach()
            grace = time.monotonic() + GRACE_S
            while not done and (rest := source.drain()):
                done = show(rest)
                if time.monotonic() > grace:
                    break
            if not done:
                show([], ending=True)
            until = time.monotonic() + LOCATE_S
            while locator.busy and not stop.requested and time.monotonic() < until:
                show_located(POLL_S)
            show_located()
        except Stuck:
            say("warning: nobody reads the output; ending without the rest")
        if locator.left_out:
            say(f"warning: {locator.left_out} forged resets were not located: too many at once")
        counts = source.counts().values()
    seen_by_kernel = sum(row[0] for row in counts)
    lost = sum(row[2] for row in counts)
    # Of those that the kernel told of, some were filtered here, some (--count, a backlog at the
    # end) never looked at.
    filtered = sum(row[1] for row in counts) + seen_by_kernel - presenter.shown
    tally.not_shown(filtered=filtered, aggregated=0, lost=lost)
    if late_lost := source.late_lost():
        say(
            f"warning: {late_lost} packets that came after a reset are lost: verdicts may lack them"
        )
    if lost:
        say(f"warning: {lost} resets are missing above: the ring buffer was full")
    if options.summary:
        with contextlib.suppress(Stuck):
            if options.output == "json":
                writer.lines([render_json.object_line(tally.object())])
            else:
                writer.lines(tally.text_lines())


def on_iface(reset: Reset, names: tuple[str, ...], enricher: Enricher) -> bool:
    """Whether the packet was seen on one of these interfaces (empty: any)."""
    if not names:
        return True
    seen = {found.ifname for found in (reset.neighbor, reset.ingress) if found is not None}
    for frame in (reset.frame, reset.ingress_frame):
        if frame is not None:
            seen.add(enricher.ifname(frame.netns, frame.ifindex))
    return any(name in seen for name in names)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
