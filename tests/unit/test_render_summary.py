from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator

import jsonschema
import pytest

from rsttrace.model import Cause, Entry, Kind, Origin
from rsttrace.render.json import object_line
from rsttrace.render.schema import schema_text
from rsttrace.render.summary import Tally
from tests.unit.test_render_samples import (
    FORGED,
    GOLDEN,
    LOCAL_ACTIVE,
    PEER,
    SAMPLES,
    TIME,
    check_golden,
    time_zone,
    with_reset,
    with_verdict,
)


@pytest.fixture(autouse=True)
def _shanghai() -> Iterator[None]:
    with time_zone("CST-8"):
        yield


def _numbered(entry: Entry, number: int, amends: int | None = None) -> Entry:
    return dataclasses.replace(entry, id=number, amends=amends)


def _tally(*entries: Entry, remembered: int = 4096) -> Tally:
    clock = itertools.chain([10.0], itertools.repeat(22.3456))
    now_ns = itertools.count(1_574_587_800_000_000_000, 12_345_600_000)
    tally = Tally(clock=clock.__next__, now_ns=now_ns.__next__, remembered=remembered)
    for entry in entries:
        tally.add(entry)
    return tally


def _origins(tally: Tally) -> dict[str, int]:
    found = tally.object()["totals"]["origins"]
    return {name: count for name, count in found.items() if count}


def test_golden() -> None:
    tally = _tally(*SAMPLES.values())
    tally.not_shown(filtered=5, aggregated=1000, lost=2, blocked=1)
    made = tally.object()
    jsonschema.Draft202012Validator(json.loads(schema_text())).validate(made)
    check_golden(
        GOLDEN / "render_summary.txt",
        "\n".join([*tally.text_lines(), json.dumps(made, indent=2)]) + "\n",
    )


def test_counts_add_up() -> None:
    summary = _tally(*SAMPLES.values()).object()["totals"]
    for counts in ("kinds", "origins", "causes"):
        assert sum(summary[counts].values()) == summary["shown"] == len(SAMPLES)
    assert set(summary["kinds"]) == {kind.value for kind in Kind}
    assert set(summary["origins"]) == {origin.value for origin in Origin}


def test_an_empty_run() -> None:
    tally = _tally()
    made = tally.object()
    jsonschema.Draft202012Validator(json.loads(schema_text())).validate(made)
    assert made["totals"]["shown"] == 0
    assert made["totals"]["first"] is None
    assert made["totals"]["not_shown"] == {
        "filtered": None,
        "aggregated": None,
        "lost": None,
        "blocked": None,
    }
    assert tally.text_lines() == ["0 resets shown in 12.3 s"]


def test_an_amendment_takes_the_place_of_the_first_verdict() -> None:
    tally = _tally(
        _numbered(PEER, 1),
        _numbered(LOCAL_ACTIVE, 2),
        _numbered(with_reset(FORGED, cause=Cause("other", "")), 3, amends=1),
    )
    summary = tally.object()["totals"]
    assert summary["shown"] == 2
    assert summary["amended"] == 1
    assert _origins(tally) == {"local": 1, "forged": 1}
    assert summary["causes"] == {"close-unread": 1, "other": 1}
    assert summary["kinds"]["received-accepted"] == 1


def test_an_amendment_of_an_amendment() -> None:
    tally = _tally(
        _numbered(PEER, 1),
        _numbered(FORGED, 2, amends=1),
        _numbered(with_verdict(FORGED, origin=Origin.INCONCLUSIVE), 3, amends=1),
    )
    assert _origins(tally) == {"inconclusive": 1}
    assert tally.object()["totals"]["amended"] == 2


def test_an_amendment_of_a_verdict_that_was_not_shown_is_a_reset_of_its_own() -> None:
    tally = _tally(
        _numbered(LOCAL_ACTIVE, 1),
        _numbered(FORGED, 3, amends=2),
        _numbered(PEER, 4, amends=2),
    )
    assert _origins(tally) == {"local": 1, "peer": 1}
    assert tally.object()["totals"]["shown"] == 2
    assert tally.object()["totals"]["amended"] == 1


def test_memory_is_bounded_and_what_is_forgotten_is_not_counted_twice() -> None:
    entries = [_numbered(PEER, number) for number in range(1, 101)]
    tally = _tally(*entries, remembered=10)
    assert len(tally._recent) == 10
    tally.add(_numbered(FORGED, 101, amends=5))
    tally.add(_numbered(FORGED, 102, amends=95))
    tally.add(_numbered(FORGED, 103, amends=90))
    assert _origins(tally) == {"peer": 99, "forged": 1}
    summary = tally.object()["totals"]
    assert (summary["shown"], summary["amended"], summary["amended_late"]) == (100, 1, 2)
    assert "  verdicts revised too late for the counts above: 2" in tally.text_lines()


def test_times_are_the_earliest_and_the_latest() -> None:
    times = [TIME, TIME - 10**9, TIME + 10**9, TIME]
    tally = _tally(*(_numbered(with_reset(PEER, time_ns=at), n) for n, at in enumerate(times, 1)))
    summary = tally.object()["totals"]
    assert summary["first"] == "2019-11-24T17:30:02.412345678+08:00"
    assert summary["last"] == "2019-11-24T17:30:04.412345678+08:00"


def test_the_epoch_is_a_time() -> None:
    tally = _tally(
        _numbered(with_reset(PEER, time_ns=0), 1), _numbered(with_reset(PEER, time_ns=5), 2)
    )
    assert tally.object()["totals"]["first"] == "1970-01-01T08:00:00.000000000+08:00"


def test_without_a_clock_the_duration_is_unknown() -> None:
    tally = Tally(clock=None)
    assert tally.object()["totals"]["duration_s"] is None
    assert tally.text_lines() == ["0 resets shown"]


def test_the_clock_runs_from_the_start() -> None:
    assert _tally().object()["totals"]["duration_s"] == 12.346
    assert 0 <= Tally().object()["totals"]["duration_s"] < 60


def test_what_is_missing_is_said() -> None:
    tally = _tally(_numbered(PEER, 1))
    tally.not_shown(filtered=0, aggregated=3, lost=0)
    assert tally.text_lines()[-1] == "  not shown: 3 aggregated"
    tally = _tally(_numbered(PEER, 1))
    tally.not_shown(filtered=1, aggregated=3, lost=2)
    assert tally.text_lines()[-2:] == [
        "  not shown: 1 filtered, 3 aggregated, 2 lost",
        "  this run did not see everything",
    ]


def test_hostile_cause_names_stay_text() -> None:
    tally = _tally(with_reset(PEER, cause=Cause("a\x1b\n\x7f\ud800", "")))
    assert all(line.isprintable() for line in tally.text_lines())
    line = object_line(tally.object())
    assert line.isascii()
    assert line.isprintable()
