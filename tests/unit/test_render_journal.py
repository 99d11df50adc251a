"""The fields of a journal entry, by the rules of systemd.journal-fields(7)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rsttrace.model import Container, Entry, Origin, Pod, Process, Reset, Verdict
from rsttrace.render.journal import FIELDS, PRIORITIES, journal_fields
from rsttrace.render.json import entry_line
from tests.unit import builders

MAN_PAGE = Path(__file__).parents[2] / "docs" / "rsttrace.8.md"


def verdict(origin: Origin, **values: Any) -> Verdict:
    return Verdict(origin, 0.9, 2.0, **values)


def fields(reset: Reset, given: Verdict, **values: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in journal_fields(
        Entry(17, reset, given, **values), "the first line", same_pids=True
    ):
        found.setdefault(name, []).append(value)
    return found


def test_what_is_known_has_a_field() -> None:
    reset = builders.reset(
        process=Process(4711, "nginx", 33),
        container=Container("0123abcd", "web"),
        pod=Pod("shop", "web-0", None),
    )
    found = fields(reset, verdict(Origin.FORGED, findings=("idle-timeout", "port-reuse")), amends=9)
    assert found["MESSAGE"] == ["the first line"]
    assert found["PRIORITY"] == ["4"]
    assert found["RSTTRACE_ID"] == ["17"]
    assert found["RSTTRACE_AMENDS"] == ["9"]
    assert found["RSTTRACE_ORIGIN"] == ["forged"]
    assert found["RSTTRACE_REMOTE_IP"] == [builders.PEER]
    assert found["RSTTRACE_REMOTE_PORT"] == [str(builders.PEER_PORT)]
    assert found["RSTTRACE_PID"] == found["OBJECT_PID"] == ["4711"]
    assert found["RSTTRACE_COMM"] == ["nginx"]
    assert found["RSTTRACE_POD_NAMESPACE"] == ["shop"]
    assert found["RSTTRACE_FINDING"] == ["idle-timeout", "port-reuse"]


def test_a_process_id_of_another_namespace_is_not_journalds() -> None:
    reset = builders.reset(process=Process(4711, "nginx", 33))
    found = dict(journal_fields(Entry(1, reset, verdict(Origin.PEER)), ""))
    assert found["RSTTRACE_PID"] == "4711"
    assert "OBJECT_PID" not in found


def test_what_is_unknown_has_none() -> None:
    found = fields(builders.reset(), verdict(Origin.LOCAL))
    for name in ("AMENDS", "PID", "COMM", "POD", "CONTAINER_ID", "FINDING", "AUTHOR", "DEVICE"):
        assert f"RSTTRACE_{name}" not in found
    assert "OBJECT_PID" not in found
    assert not {"None", "null", ""} & {value for values in found.values() for value in values}


def test_the_whole_entry_is_there() -> None:
    entry = Entry(1, builders.reset(), verdict(Origin.PEER))
    assert dict(journal_fields(entry, ""))["RSTTRACE_JSON"] == entry_line(entry)
    run = {"id": "0123abcd", "host": "node-7"}
    found = dict(journal_fields(entry, "", run=run))
    assert found["RSTTRACE_JSON"] == entry_line(entry, run=run)
    assert found["RSTTRACE_RUN"] == "0123abcd"


def test_every_origin_has_a_priority() -> None:
    assert PRIORITIES.keys() == set(Origin)
    for origin in Origin:
        assert fields(builders.reset(), verdict(origin))["PRIORITY"] == [str(PRIORITIES[origin])]


def test_names_are_such_as_journald_takes() -> None:
    """Capitals, digits and underscores, no underscore first, at most 64 (sd_journal_sendv(3))."""
    assert len(FIELDS) == len(set(FIELDS)) > 30
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name) for name in FIELDS)


def test_what_no_text_may_hold_does_not_come_through() -> None:
    """A process may have any bytes as its name, of which Python makes lone surrogates."""
    reset = builders.reset(process=Process(1, "a\udcff\nPRIORITY=0", 0))
    found = fields(reset, verdict(Origin.PEER))
    assert found["RSTTRACE_COMM"] == ["a\ufffd\nPRIORITY=0"]
    assert found["PRIORITY"] == ["6"]
    json.loads(found["RSTTRACE_JSON"][0].encode())


def test_the_man_page_names_only_fields_that_there_are() -> None:
    text = MAN_PAGE.read_text(encoding="utf-8").partition("\n`--journal`\n")[2]
    named = set(re.findall(r"\bRSTTRACE_[A-Z_]*[A-Z]\b", text.partition("\n\n")[0]))
    assert {"RSTTRACE_ORIGIN", "RSTTRACE_JSON"} <= named
    assert named <= set(FIELDS)
