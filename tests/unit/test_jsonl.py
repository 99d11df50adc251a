"""Our own JSON lines, read back: what comes through, and what is refused with which words."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import pytest

from rsttrace import jsonl
from rsttrace.model import NO_TIME, Sighting
from rsttrace.render.json import entry_object
from tests.unit.test_render_samples import FORGED, SAMPLES, with_reset

ENTRY: dict[str, Any] = entry_object(FORGED)


def changed(**members: Any) -> dict[str, Any]:
    return {**copy.deepcopy(ENTRY), **members}


def inside(name: str, **members: Any) -> dict[str, Any]:
    """The entry with members of an inner object changed."""
    return changed(**{name: {**ENTRY[name], **members}})


@pytest.mark.parametrize("sample", SAMPLES)
def test_what_the_judge_said_comes_back(sample: str) -> None:
    entry = SAMPLES[sample]
    line = jsonl.read_entry(jsonl.decode(json.dumps(entry_object(entry))))
    again, reset = line.entry, line.entry.reset
    assert (again.id, again.amends) == (entry.id, entry.amends)
    assert (reset.seen, reset.counted) == (entry.reset.seen, entry.reset.counted)
    assert (reset.kind, reset.time_ns) == (entry.reset.kind, entry.reset.time_ns)
    assert (reset.local, reset.remote) == (entry.reset.local, entry.reset.remote)
    received = reset.kind.direction == "received"
    ends = (reset.remote, reset.local) if received else (reset.local, reset.remote)
    assert (reset.rst.src, reset.rst.dst) == ends
    assert again.verdict.origin is entry.verdict.origin
    assert (again.verdict.hops_rst, again.verdict.hops_peer) == (
        entry.verdict.hops_rst,
        entry.verdict.hops_peer,
    )
    assert [item.rule for item in again.verdict.evidence] == [
        item.rule for item in entry.verdict.evidence
    ]
    theirs = entry.reset.baseline.theirs
    assert line.peer_ttl == (theirs.ttl if theirs is not None else None)
    sent = entry.reset.sent_data
    assert line.sent == (sent.payload if sent is not None else None)


def test_the_places_where_a_capture_shows_it_come_back() -> None:
    places = (
        Sighting(39, FORGED.reset.time_ns - 5000, 3, "eth1", 63, "02:00:00:00:00:01"),
        Sighting(40, FORGED.reset.time_ns, None, None, 62, None),
    )
    entry = with_reset(FORGED, file="any.pcap", file_frame=40, sightings=places)
    again = jsonl.read_entry(jsonl.decode(json.dumps(entry_object(entry)))).entry.reset
    assert (again.file_frame, again.sightings) == (40, places)
    live = jsonl.read_entry(jsonl.decode(json.dumps(entry_object(FORGED)))).entry.reset
    assert live.sightings == ()


def test_unknown_stays_unknown() -> None:
    line = jsonl.read_entry(inside("rst", window=None, ip_id=None) | {"time": None})
    assert line.entry.reset.time_ns == NO_TIME
    assert (line.entry.reset.rst.window, line.entry.reset.rst.ip_id) == (None, None)


def test_members_that_an_earlier_version_did_not_write_are_unknown() -> None:
    found = changed()
    for name in ("sent_data", "baseline", "actor", "made_here", "next_hop", "summary", "sightings"):
        del found[name]
    line = jsonl.read_entry(found)
    assert (line.sent, line.peer_ttl) == (None, None)
    assert (line.entry.reset.actor, line.entry.reset.next_hop) == (None, None)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another schema": (changed(schema=2), "no object with schema 1"),
    "no schema": ({"id": 1}, "no object with schema 1"),
    "no id": ({"schema": 1}, "id is missing, or not what it should be"),
    "a kind of tomorrow": (changed(kind="received-tomorrow"), "kind is missing"),
    "an origin of tomorrow": (changed(origin="aliens"), "origin is missing"),
    "a number as text": (inside("rst", ttl="63"), "rst.ttl is missing"),
    "a truth as a number": (inside("rst", ttl=True), "rst.ttl is missing"),
    "a TTL of 256": (inside("rst", ttl=256), "rst.ttl is missing"),
    "raw that is no hex": (inside("rst", raw="4"), "rst.raw is missing"),
    "raw without end": (inside("rst", raw="00" * 201), "rst.raw is missing"),
    "an address that is none": (inside("remote", ip="x; rm -rf"), "remote.ip is missing"),
    "a port of 70000": (inside("remote", port=70_000), "remote.port is missing"),
    "a time without offset": (changed(time="2019-11-24T17:30:03.412345678"), "time is missing"),
    "a day that is none": (changed(time="2019-02-30T17:30:03.412345678+08:00"), "time is missing"),
    "a list as neighbor": (changed(neighbor=[1]), "neighbor is missing"),
    "text as baseline": (changed(baseline="flow"), "baseline is missing"),
    "a TTL of -1": (inside("baseline", ttl=-1), "baseline.ttl is missing"),
    "data that is no hex": (changed(sent_data={"payload": "xy"}), "sent_data.payload is missing"),
    "data without bytes": (changed(sent_data={}), "sent_data.payload is missing"),
    "evidence of numbers": (changed(evidence=[1]), "evidence is not a list of objects"),
    "sightings of numbers": (changed(sightings=[1]), "sightings is not a list of objects"),
    "a place without TTL": (changed(sightings=[{"frame": 1}]), "sightings[].ttl is missing"),
    "findings of numbers": (changed(findings=[1]), "findings is not a list of names"),
    "made by no kind": (changed(made_here={"netns": 1}), "made_here.kind is missing"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_entry(wrong: str) -> None:
    found, words = WRONG[wrong]
    with pytest.raises(jsonl.WrongLine) as error:
        jsonl.read_entry(found)
    assert words in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "text", ["", "{", "hello", "[" * 100_000, '{"id":NaN}', '{"id":' + "9" * 10_000 + "}"]
)
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(jsonl.NotJson, match="no JSON") as error:
        jsonl.decode(text)
    assert error.value.detail.isprintable()


@pytest.mark.parametrize("text", ["1", "null", "[]", '"schema"'])
def test_what_is_json_and_no_object(text: str) -> None:
    with pytest.raises(jsonl.WrongLine, match="no object") as error:
        jsonl.decode(text)
    assert not isinstance(error.value, jsonl.NotJson)


def test_a_line_without_end_is_not_read_to_its_end() -> None:
    file = io.StringIO("1" * (3 * jsonl.LONGEST_LINE))
    first = next(jsonl.texts(file))
    assert file.tell() == jsonl.LONGEST_LINE + 1
    with pytest.raises(jsonl.NotJson) as error:
        jsonl.decode(first)
    assert error.value.detail == "the line is too long"


@pytest.mark.parametrize(
    ("not_shown", "lost", "filtered"),
    [
        ({"filtered": 3, "aggregated": 0, "lost": 0}, 0, 3),
        ({"aggregated": 1}, 1, None),
        ({"lost": 1, "blocked": 2, "filtered": 0}, 3, 0),
    ],
)
def test_whether_a_run_saw_everything(
    not_shown: dict[str, int], lost: int, filtered: int | None
) -> None:
    found = {"schema": 1, "summary": {"not_shown": not_shown}}
    assert jsonl.read_summary(found) == (lost, filtered, None, None)


def test_when_a_run_watched() -> None:
    times = {
        "started": "2019-11-24T17:30:03.000000001+08:00",
        "ended": "2019-11-24T09:30:04.000000000+00:00",
    }
    found = jsonl.read_summary({"schema": 1, "summary": {"not_shown": {}, **times}})
    assert found is not None
    assert (found.started_ns, found.ended_ns) == (1574587803000000001, 1574587804000000000)
    with pytest.raises(jsonl.WrongLine):
        jsonl.read_summary({"schema": 1, "summary": {"not_shown": {}, "started": "yesterday"}})
    with pytest.raises(jsonl.WrongLine):
        jsonl.read_summary({"schema": 1, "summary": {"not_shown": {"lost": "many"}}})


def test_other_lines_are_no_summary() -> None:
    assert jsonl.read_summary({"schema": 1, "comparison": {}}) is None
    with pytest.raises(jsonl.WrongLine, match="schema 1"):
        jsonl.read_summary({"summary": {"not_shown": {}}})
