"""The run loop of reading captures: source -> enrich -> judge -> render."""

from __future__ import annotations

import contextlib
import ipaddress
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Optional, Protocol, TextIO

from rsttrace.capture.sides import Network
from rsttrace.capture.source import CaptureSource
from rsttrace.commands.run import (
    Options,
    Presenter,
    Stop,
    Stuck,
    Writer,
    stop_on_signals,
    to_stderr,
)
from rsttrace.enrich.captured import enrich_captured
from rsttrace.errors import CaptureError
from rsttrace.limits import FLOWS
from rsttrace.model import Endpoint, Kind, Reset
from rsttrace.render import json as render_json
from rsttrace.render.escape import safe
from rsttrace.render.summary import Tally


class Progress(Protocol):
    """A progress bar: called with bytes read since the last call."""

    def __call__(self, count: int, /) -> None:
        """So many more bytes were read."""

    def clear(self) -> None:
        """An entry is about to be written, perhaps on the same terminal: make room."""


ProgressBar = Callable[[int, str], contextlib.AbstractContextManager[Optional[Progress]]]
"""Given a file's size in bytes and its name: a bar, which is told of bytes read; or ``None``."""

NAME = 253


@dataclass(frozen=True)
class Filter:
    """Which resets to show. `nets` is addresses of 16 bytes in hex with prefix lengths of 128."""

    kinds: tuple[Kind, ...] = tuple(Kind)
    nets: tuple[tuple[str, int], ...] = ()
    ports: tuple[int, ...] = ()

    def __call__(self, reset: Reset) -> bool:
        """Whether a reset is wanted."""
        ends = (reset.local, reset.remote)
        if reset.kind not in self.kinds:
            return False
        if self.ports and not any(end.port in self.ports for end in ends):
            return False
        return not self.nets or any(self._inside(end) for end in ends)

    def _inside(self, end: Endpoint) -> bool:
        found = ipaddress.ip_address(end.ip)
        mapped = int(found) | (0xFFFF << 32 if found.version == 4 else 0)
        return any(
            mapped >> (128 - prefix) == int(network, 16) >> (128 - prefix)
            for network, prefix in self.nets
        )


@contextlib.contextmanager
def no_bar(size: int, name: str) -> Iterator[Progress | None]:
    """No progress bar."""
    yield None


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
        The exit code: 0, or 1 if a file could not be read at all.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    say = status or to_stderr
    failed = looked_at = 0
    tally = Tally(clock=None)
    with stop_on_signals() as stop, contextlib.ExitStack() as stack:

        def ended() -> bool:
            return stop.requested

        writer = Writer(options, out or sys.stdout, ended)
        presenter = stack.enter_context(Presenter(options, writer, tally, wanted=wanted))

        def counted() -> bool:
            return options.count is not None and presenter.shown >= options.count

        with contextlib.suppress(Stuck):
            for name in files:
                if stop.requested or counted():
                    break
                try:
                    with CaptureSource(name, local=local, flows=flows, ended=ended) as source:
                        with bar(source.size or 0, name) as progress:
                            presenter.before = None if progress is None else progress.clear
                            looked_at += pump(source, presenter, stop, progress)
                        presenter.before = None
                        if not counted():
                            presenter.show(None)
                        failed += tell(name, source, say)
                except CaptureError as error:
                    say(f"rsttrace: {error}")
                    failed += 1
    tally.not_shown(filtered=looked_at - presenter.shown, aggregated=0, lost=0)
    if options.summary:
        with contextlib.suppress(Stuck):
            if options.output == "json":
                writer.lines([render_json.object_line(tally.object())])
            else:
                writer.lines(tally.text_lines())
    return 1 if failed else 0


def pump(
    source: CaptureSource,
    presenter: Presenter,
    stop: Stop,
    progress: Progress | None,
) -> int:
    """Read a capture to its end (or until no more is to be shown); returns how many resets it had.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    history, looked_at = presenter.history, 0
    for item in source.items(progress):
        now_ns = item if isinstance(item, int) else item.time_ns
        if isinstance(item, Reset):
            looked_at += 1
            enrich_captured(item)
        if not isinstance(item, int):
            history.add(item, now_ns)
        if presenter.show(now_ns) or stop.requested:
            break
        source.wake_ns = history.next_due_ns()
    return looked_at


def tell(name: str, source: CaptureSource, say: Callable[[str], None]) -> int:
    """Say how the reading went; returns 1 if nothing at all could be read."""
    label = safe(name, NAME)
    for note in source.notes():
        say(f"{label}: {note}")
    if source.problem is None:
        return 0
    if not source.packets:
        say(f"rsttrace: {label}: {source.problem}; nothing could be read")
        return 1
    count = "1 packet" if source.packets == 1 else f"{source.packets} packets"
    say(f"warning: {label}: {source.problem}; {count} could be read")
    return 0
