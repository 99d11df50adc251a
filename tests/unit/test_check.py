"""What `rsttrace check` makes of the resets it saw: status, line, exit code."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from rsttrace.commands.books import Books
from rsttrace.commands.check import (
    EXIT_CODES,
    MOST,
    Outcome,
    Seen,
    Status,
    Threshold,
    line,
    outcome,
    threshold,
    words,
)
from rsttrace.commands.spans import duration_s
from rsttrace.errors import UsageError
from rsttrace.model import Entry
from rsttrace.render.schema import schema_text
from tests.unit.command import run
from tests.unit.test_render_samples import COUNTED, FORGED, FORGED_HERE, PEER, with_verdict

CAUSES_DOC = Path(__file__).parents[2] / "docs" / "causes.md"
PERFDATA = re.compile(
    r"'[^'=]+'=\d+;(\d+(\.\d+)?)?;\d+(\.\d+)?;0 resets=\d+;;;0 rate=\d+\.\d{3};;;0", re.ASCII
)
FORGERY = ("forged",)


def seen(*entries: Entry, seconds: float = 30.0, lost: int = 0) -> Seen:
    found = Seen(books=Books(len(entries), 0, 0, lost), seconds=seconds)
    for entry in entries:
        found.add(entry)
    return found


def numbered(entry: Entry, count: int, begin: int = 1) -> list[Entry]:
    return [replace(entry, id=number, amends=None) for number in range(begin, begin + count)]


def test_nothing_is_ok() -> None:
    made = outcome(seen(*numbered(PEER, 12)), FORGERY, Threshold(1), None)
    assert (made.status, made.matched, made.resets) == (Status.OK, 0, 12)
    assert line(made, "plain", FORGERY) == "OK: 0 of 12 resets forged in 30 s"


def test_the_worst_is_named_with_its_cause() -> None:
    entries = [*numbered(FORGED, 3), *numbered(FORGED_HERE, 1, 4), *numbered(PEER, 5, 5)]
    made = outcome(seen(*entries), FORGERY, Threshold(1), None)
    assert (made.status, made.matched, made.resets) == (Status.CRITICAL, 4, 9)
    assert made.worst is not None
    assert made.worst[2] == 3
    text = line(made, "plain", FORGERY)
    assert text.startswith("CRITICAL: 4 forged in 30 s: 3 by a box that turns our own packet")
    assert len(text) <= MOST


def test_the_last_verdict_counts() -> None:
    first = replace(FORGED, id=1, amends=None)
    better = with_verdict(replace(PEER, id=2, amends=1))
    assert outcome(seen(first, better), FORGERY, Threshold(1), None).matched == 0
    assert (
        outcome(
            seen(replace(better, id=1, amends=None), replace(first, id=2, amends=1)),
            FORGERY,
            Threshold(1),
            None,
        ).matched
        == 1
    )


@pytest.mark.parametrize(
    ("critical", "warning", "count", "seconds", "expected"),
    [
        ("3", None, 2, 30, Status.OK),
        ("3", None, 3, 30, Status.CRITICAL),
        ("3", "2", 2, 30, Status.WARNING),
        ("6/min", None, 2, 30, Status.OK),
        ("6/min", None, 3, 30, Status.CRITICAL),
        ("1/s", "1/min", 29, 30, Status.WARNING),
        ("1/s", "1/min", 30, 30, Status.CRITICAL),
        ("60/h", None, 1, 60, Status.CRITICAL),
    ],
)
def test_thresholds_by_count_and_rate(
    critical: str, warning: str | None, count: int, seconds: float, expected: Status
) -> None:
    found = seen(*numbered(FORGED, count), seconds=seconds)
    limits = threshold("--critical", critical), warning and threshold("--warning", warning)
    assert outcome(found, FORGERY, limits[0], limits[1] or None).status is expected


def test_nothing_is_in_order_where_resets_were_lost() -> None:
    made = outcome(seen(*numbered(PEER, 2), lost=7), FORGERY, Threshold(1), None)
    assert made.status is Status.UNKNOWN
    assert "7 resets were lost" in line(made, "plain", FORGERY)
    made = outcome(seen(*numbered(FORGED, 1), lost=7), FORGERY, Threshold(1), None)
    assert made.status is Status.CRITICAL


def test_what_was_only_counted_is_no_forgery() -> None:
    assert outcome(seen(COUNTED), FORGERY, Threshold(1), None).matched == 0
    assert outcome(seen(COUNTED), ("any",), Threshold(1), None).matched == 3000
    assert outcome(seen(COUNTED), (COUNTED.reset.kind.value,), Threshold(1), None).matched == 3000


@pytest.mark.parametrize("style", EXIT_CODES)
@pytest.mark.parametrize("status", Status)
def test_the_line_of_each_style(style: str, status: Status) -> None:
    text = "7,123 forged in 30 s: 99 by \x1b[2J a box | with ünicode and a very long name, 99"
    made = Outcome(status, 7123, 9000, 30.0, text, ("by a box", "no-socket", 99), "reject")
    written = line(made, style, FORGERY)
    assert written.isascii()
    assert written.isprintable()
    if style == "json":
        found = json.loads(written)
        jsonschema.Draft202012Validator(json.loads(schema_text())).validate(found)
        assert found["check"]["status"] == status.value
        return
    first, _, perfdata = written.partition(" | ") if style == "nagios" else (written, "", "")
    assert len(first) <= MOST
    assert status.name in first
    if style == "nagios":
        assert "|" not in first
        assert PERFDATA.fullmatch(perfdata)


def test_exit_codes() -> None:
    assert [EXIT_CODES["npd"][status] for status in Status] == [0, 0, 1, 2]
    assert [EXIT_CODES["nagios"][status] for status in Status] == [0, 1, 2, 3]


@pytest.mark.parametrize("text", ["", "0", "1.5", "1/d", "-1", "1/", "many"])
def test_no_threshold(text: str) -> None:
    with pytest.raises(UsageError, match="neither a count nor a rate"):
        threshold("--critical", text)


def test_durations() -> None:
    assert [duration_s(text) for text in ("30", "30s", "0.5s", "2min", "1h")] == [
        30,
        30,
        0.5,
        120,
        3600,
    ]
    for text in ("", "0", "0s", "soon", "-1s", "1d"):
        with pytest.raises(UsageError, match="--duration"):
            duration_s(text)


def test_every_cause_that_has_advice_can_be_asked_for() -> None:
    documented = set(re.findall(r"`([a-z0-9-]+)`", CAUSES_DOC.read_text(encoding="utf-8")))
    known = words()
    assert {"forged", "reject", "listen-overflow", "duplicate-address", "sent", "any"} <= set(known)
    assert len(documented & set(known)) > 20


@pytest.mark.parametrize(
    ("arguments", "status", "words_"),
    [
        (["--fail-on", "forgd"], 2, "forgd"),
        (["--fail-on", ","], 2, "--fail-on"),
        (["--style", "npd", "--critical", "no"], 2, "--critical"),
        (["--style", "nagios", "--critical", "no"], 3, "--critical"),
        (["--style", "nagios", "--no-such"], 3, "--no-such"),
        (["--style", "plain", "--no-such"], 2, "--no-such"),
        (["--style", "nagios", "--port", "0"], 3, "--port"),
        (["--style", "json", "--netns", "no-such"], 2, "no-such"),
    ],
)
def test_what_cannot_be_asked_is_unknown(arguments: list[str], status: int, words_: str) -> None:
    done = run("check", *arguments)
    assert done.returncode == status
    assert words_ in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    if "no-such" not in words_ or "json" in arguments:
        (told,) = done.stdout.decode().splitlines()
        assert "unknown" in told.lower()
