"""``rsttrace read``: captures one after another, each with a baseline of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional, Protocol, TextIO

from rsttrace.capture.sides import Network
from rsttrace.capture.source import CaptureSource
from rsttrace.commands.filters import Filter, check_repeats, filter_of, networks
from rsttrace.commands.options import shown
from rsttrace.commands.run import Options, Run
from rsttrace.commands.stop import stop_on_signals
from rsttrace.commands.writer import Stuck
from rsttrace.enrich.captured import enrich_captured
from rsttrace.errors import CaptureError, UsageError
from rsttrace.limits import FLOWS
from rsttrace.model import Reset
from rsttrace.render.escape import safe

HOLD_S = 60.0
"""A file's end is known: its verdicts can wait for it. Whoever watches a pipe cannot."""


class Progress(Protocol):
    """A progress bar: called with bytes read since the last call."""

    def __call__(self, count: int, /) -> None:
        """So many more bytes were read."""

    def clear(self) -> None:
        """An entry is about to be written, perhaps on the same terminal: make room."""


ProgressBar = Callable[[int, str], contextlib.AbstractContextManager[Optional[Progress]]]
"""Given a file's size in bytes and its name: a bar, which is told of bytes read; or ``None``."""

NAME = 253


@contextlib.contextmanager
def no_bar(size: int, name: str) -> Iterator[Progress | None]:
    """No progress bar."""
    yield None


def run_command(files: Sequence[str], options: Mapping[str, Any], bar: ProgressBar) -> int:
    """The command, from its options; the exit code.

    Raises:
        UsageError: an option is not what it should be.
        BrokenPipeError: nobody reads any more.
    """
    check_repeats(options, "local")
    wanted = filter_of(options)
    local = networks("--local", options["local"], "10.0.0.0/8, 10.0.0.5 or fd00::/8")
    if files.count("-") > 1:
        raise UsageError("standard input (-) can be read only once")
    hold_s = options["hold"]
    if hold_s is None:
        hold_s = 0.0 if "-" in files else HOLD_S
    return read(
        files,
        shown(options, inputs=files, hold_s=hold_s),
        wanted,
        local=local,
        flows=options["flows"],
        bar=bar,
    )


def read(
    files: Sequence[str],
    options: Options,
    wanted: Filter,
    *,
    local: Sequence[Network] = (),
    flows: int = FLOWS,
    out: TextIO | None = None,
    status: Callable[[str], None] | None = None,
    bar: ProgressBar = no_bar,
) -> int:
    """Read captures one after another, each with a baseline of its own.

    Args:
        files: paths; ``-`` is standard input.
        options: what to show.
        wanted: which resets to show.
        local: which networks are our side; none: inferred for each file.
        flows: how many flows to remember.
        out: where entries go; stdout by default.
        status: takes lines about the run; stderr by default.
        bar: makes a progress bar for a file whose size is known.

    Returns:
        The exit code: 0, or 1 if a file could not be read at all, or an output not be written.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    failed = looked_at = 0
    with (
        stop_on_signals() as stop,
        Run(
            options,
            stop,
            out=out,
            status=status,
            wanted=wanted,
            title=f"TCP resets in {', '.join(files)}",
        ) as run,
    ):
        with contextlib.suppress(Stuck):
            for name in files:
                if run.stopped or run.full:
                    break
                try:
                    with CaptureSource(name, local=local, flows=flows, ended=run.ended) as source:
                        with bar(source.size or 0, name) as progress:
                            run.before = None if progress is None else progress.clear
                            looked_at += _pump(source, run, progress)
                        run.before = None
                        if not run.full:
                            run.show(None)
                        failed += tell(name, source, run.say)
                except CaptureError as error:
                    run.say(f"rsttrace: {error}")
                    failed += 1
        run.summarize(looked_at - run.shown)
    return 1 if failed or run.failed else 0


def _pump(source: CaptureSource, run: Run, progress: Progress | None) -> int:
    """Read a capture to its end (or until no more is to be shown); returns how many resets it had.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    looked_at = 0
    for item in source.items(progress):
        now_ns = item if isinstance(item, int) else item.time_ns
        if isinstance(item, Reset):
            looked_at += 1
            enrich_captured(item)
        if not isinstance(item, int):
            run.history.add(item, now_ns)
        if run.show(now_ns) or run.stopped:
            break
        source.wake_ns = run.history.next_due_ns()
    return looked_at


def tell(name: str, source: CaptureSource, say: Callable[[str], None]) -> int:
    """Say how the reading went; returns 1 if nothing at all could be read."""
    label = safe(name, NAME)
    for note in source.notes():
        say(f"{label}: {note}")
    if source.problem is None:
        if not source.packets:
            say(f"{label}: no packets")
        return 0
    if not source.packets:
        say(f"rsttrace: {label}: {source.problem}; nothing could be read")
        return 1
    count = "1 packet" if source.packets == 1 else f"{source.packets} packets"
    say(f"warning: {label}: {source.problem}; {count} could be read")
    return 0
