"""``rsttrace top``: the screen, or its plain lines where there is no terminal to draw on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rsttrace import files
from rsttrace.commands.recording import Recording
from rsttrace.commands.stop import stop_on_signals
from rsttrace.errors import DependencyError, UsageError
from rsttrace.model import Entry, Origin
from rsttrace.render.json import entry_line
from rsttrace.top.board import Board, Table, who_and_why
from rsttrace.top.feed import Feed

MISSING = "the screen of `rsttrace top` needs Textual"
PLAIN_S = 0.2


def run_command(
    file: str | None, options: Sequence[str], *, plain: bool, every_s: float, utc: bool
) -> int:
    """The command; returns the exit code.

    Args:
        file: a capture or JSON lines; ``None``: this node's kernel.
        options: passed on to the tracer.
        plain: no screen, but lines.
        every_s: of plain lines, how many seconds lie between two.
        utc: whether times are in UTC.

    Raises:
        DependencyError: Textual is not installed.
        RsttraceError: the file cannot be read, or nothing can be traced.
    """
    reserved = {"-o", "--output", "-w", "--write", "--summary", "--report"}
    taken = [option for option in options if option.partition("=")[0] in reserved]
    if taken:
        raise UsageError(f"top does not take {taken[0]}: it shows, and saves with w and p")
    if not plain and not (sys.stdout.isatty() and sys.stdin.isatty()):
        plain = True
    what = os.uname().nodename if file is None else os.path.basename(file)
    more = ["--utc"] if utc else []
    with Feed(file, [*options, *more]) as feed:
        if plain:
            _lines(feed, every_s)
        else:
            try:
                from rsttrace.top.app import Top
            except ImportError as error:
                raise DependencyError(
                    f"{MISSING}: {error}",
                    hint="use --plain; or pip install '.[top]' in a clone (docs/install.md)",
                ) from None
            inputs = [] if file is None else [file]
            savers = {
                "json": save_json,
                "pcapng": lambda path, entries: save_pcapng(path, entries, inputs),
            }
            Top(feed, what, savers, utc=utc).run()
        if feed.failed > 0:
            print("\n".join(feed.all_said()), file=sys.stderr)
        return max(0, feed.failed)


def save_json(path: Path, entries: Sequence[Entry]) -> str:
    """Write entries as JSON lines to a new file, for us alone; never over one that is there.

    Raises:
        OSError: it cannot be written.
    """
    with open(files.new(str(path)), "w", encoding="ascii") as file:
        file.writelines(f"{entry_line(entry)}\n" for entry in entries)
    return f"{len(entries)} resets saved to {path}"


def save_pcapng(path: Path, entries: Sequence[Entry], inputs: Sequence[str]) -> str:
    """Write entries' packets to a new pcapng file, for us alone; never over one that is there.

    Raises:
        OSError: there is such a file.
        RsttraceError: it cannot be written.
    """
    if os.path.lexists(path):
        raise FileExistsError(f"there is such a file already: {path}")
    said: list[str] = []
    with Recording(str(path), said.append, inputs=inputs, private=True) as recording:
        for entry in entries:
            recording.add(entry)
    return said[-1] if said else f"{len(entries)} resets saved to {path}"


def _lines(feed: Feed, every_s: float) -> None:
    """One line for what came since the last one: for screen readers, logs and pipes."""
    board, counted, due = Board(), 0, time.monotonic() + every_s
    told: list[Entry] = []
    with stop_on_signals() as stop:
        while not stop.requested:
            ended = feed.ended
            for entry in feed.take():
                board.add(entry, time.monotonic())
                told.append(entry)
            now = time.monotonic()
            if (now >= due or ended) and (told or feed.left_out > counted):
                print(_line(told, feed.left_out - counted), flush=True)
                told, counted = [], feed.left_out
            if now >= due:
                due = now + every_s
            if ended:
                break
            time.sleep(min(PLAIN_S, max(0.0, due - now)))
    for table in Table:
        for name, count in board.top(table, 3):
            print(f"{table.value}: {count} {name}", flush=True)


def _line(entries: Sequence[Entry], left_out: int) -> str:
    counts = dict.fromkeys(Origin, 0)
    for entry in entries:
        counts[entry.verdict.origin] += 1
    words = [f"{count} {origin.value}" for origin, count in counts.items() if count]
    if left_out:
        words.append(f"{left_out} left out")
    worst = next((e for e in reversed(entries) if e.verdict.origin is Origin.FORGED), None)
    last = worst or (entries[-1] if entries else None)
    text = f"{len(entries)} {'reset' if len(entries) == 1 else 'resets'}: {', '.join(words)}"
    if last is None:
        return text
    ends = f"{last.reset.local} and {last.reset.remote}"
    return f"{text}; last {last.verdict.origin.value}, between {ends}: {who_and_why(last)}"
