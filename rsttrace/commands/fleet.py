"""``rsttrace fleet``: load, report, sql."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import rsttrace
from rsttrace.commands.moments import time_ns
from rsttrace.commands.wholefile import WholeFile
from rsttrace.errors import CaptureError, RsttraceError, UsageError
from rsttrace.fleet import amend
from rsttrace.fleet import load as loading
from rsttrace.fleet import report as reporting
from rsttrace.fleet.page import html
from rsttrace.fleet.store import Store, shown
from rsttrace.fleet.text import text_lines
from rsttrace.render.escape import safe
from rsttrace.render.json import object_line
from rsttrace.render.text import entry_lines


def load(
    store_url: str, files: Sequence[str], *, node: str | None, spool: str, incoming: bool = False
) -> int:
    """Load JSON lines; the exit code: 1 if a file could not be read.

    `incoming`: also those that shippers have put into the store.

    Raises:
        RsttraceError: the store cannot be used.
    """
    failed = 0
    with Store(store_url) as store:
        loader = loading.Loader(store, node)
        if incoming:
            loading.load_incoming(loader, store)
        for name in files:
            try:
                if name == loading.STDIN:
                    loading.load_stream(loader, sys.stdin, loading.Spool(Path(spool)))
                else:
                    loading.load_file(loader, store, name)
            except CaptureError as error:
                print(f"rsttrace: {error}", file=sys.stderr)
                failed += 1
    print(loader.loaded.line(), file=sys.stderr)
    return 1 if failed else 0


def report(
    store_url: str, output: str, *, since: str, until: str | None, page: str | None = None
) -> int:
    """Answer what only many nodes together can; `page`: a file for the same as HTML.

    Raises:
        UsageError: a time is none.
        RsttraceError: the store cannot be used.
    """
    file = None if page is None else WholeFile(page)
    with Store(store_url) as store:
        span = _span(store, since, until)
        reporting.settle(store, span)
        found = reporting.answer(store, span)
    if file is not None:
        file.write(html(found, _about(store_url, found)))
    if output == "json":
        print(object_line(found.object()))
    else:
        print("\n".join(text_lines(found)))
    return 0


def entries(
    store_url: str,
    output: str,
    *,
    since: str,
    until: str | None,
    verdict: str | None,
    count: int | None,
) -> int:
    """Entries as their nodes wrote them, with what the other ends say.

    Raises:
        UsageError: a time is none.
        RsttraceError: the store cannot be used.
    """
    with Store(store_url) as store:
        span = _span(store, since, until)
        reporting.settle(store, span)
        for entry, made in amend.entries(store, span, verdict=verdict, most=count):
            if output == "json":
                print(object_line(made))
            else:
                host = safe(str((made.get("run") or {}).get("host") or "?"))
                print("\n".join([f"{host}:", *entry_lines(entry, utc=True)]))
    return 0


def _span(store: Store, since: str, until: str | None) -> reporting.Span:
    """The span that a user has named.

    Raises:
        UsageError: a time is none.
        RsttraceError: the store has nothing.
    """
    whole = reporting.whole_span(store)
    if whole is None:
        raise RsttraceError(
            "the store has no entries", hint="load some: rsttrace fleet load FILE..."
        )
    end = _moment(until, whole[1]) if until else whole[1]
    span = (whole[0] if since == "all" else _moment(since, end), end)
    if span[0] >= span[1]:
        raise UsageError("--since is not before --until")
    return span


def _about(store_url: str, found: reporting.Answers) -> list[tuple[str, str]]:
    start, end = (moment.isoformat(timespec="seconds") for moment in found.span)
    took = ", ".join(f"{name} {seconds} s" for name, seconds in found.took_s.items())
    return [
        ("made by", f"rsttrace {rsttrace.__version__}"),
        ("store", shown(store_url)),
        ("from", start),
        ("to", end),
        ("questions took", took),
    ]


_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def _moment(text: str, newest: datetime) -> datetime:
    """A time in ISO 8601, or ``7d``: so long before the newest entry."""
    if text[-1:] in _UNITS and text[:-1].isdigit():
        return newest - timedelta(seconds=int(text[:-1]) * _UNITS[text[-1]])
    try:
        return datetime.fromtimestamp(time_ns(text) / 1e9, timezone.utc)
    except ValueError as error:
        raise UsageError(
            f"{text!a}: {error}", hint="write 7d, 12h, all, or a time: 2026-11-28T22:50:31+01:00"
        ) from None


def ask(store_url: str, text: str) -> int:
    """One's own question: rows as JSON lines.

    Raises:
        RsttraceError: the store refuses.
    """
    with Store(store_url) as store:
        for row in store.query(text):
            print(_row_line(row))
    return 0


def _row_line(row: dict[str, Any]) -> str:
    return json.dumps({name: _plain(value) for name, value in row.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, (int, float, bool, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return safe(str(value), 100_000)
