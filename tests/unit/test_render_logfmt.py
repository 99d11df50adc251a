"""``-o logfmt``: keys and values that any reader of logfmt splits in the same way."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from rsttrace.model import Process
from rsttrace.render.json import entry_object
from rsttrace.render.logfmt import logfmt_line, object_logfmt
from tests.unit import captures as c
from tests.unit.command import run
from tests.unit.test_render_samples import FORGED, PEER, SAMPLES, with_reset

PAIR = re.compile(r'([^\s="]+)=("(?:[^"\\]|\\.)*"|[^\s="]*)(?: |$)')
HOSTILE = '\x1b[2J\nx" y=\u202e\ud800\x7f\\'


def parsed(line: str) -> dict[str, str]:
    """As a reader of logfmt takes it apart; nothing may be left over."""
    found, at = {}, 0
    while at < len(line):
        match = PAIR.match(line, at)
        assert match is not None, line[at:]
        name, value = match.groups()
        assert name not in found
        found[name] = json.loads(value) if value.startswith('"') else value
        at = match.end()
    return found


@pytest.mark.parametrize("sample", SAMPLES)
def test_what_an_entry_says(sample: str) -> None:
    entry = SAMPLES[sample]
    line = logfmt_line(entry, utc=True)
    assert line.isascii()
    assert line.isprintable()
    found, made = parsed(line), entry_object(entry, utc=True)
    for name in ("time", "id", "kind", "direction", "origin", "seen"):
        assert found[name] == str(made[name])
    assert found["cause"] == made["cause"]["name"]
    received = made["direction"] == "received"
    source, target = ("remote", "local") if received else ("local", "remote")
    assert (found["src"], found["sport"]) == tuple(map(str, made[source].values()))
    assert (found["dst"], found["dport"]) == tuple(map(str, made[target].values()))
    assert found.get("hops") == (None if made["hops"]["rst"] is None else str(made["hops"]["rst"]))
    assert ("comm" in found) == bool(made["process"] and made["process"]["comm"])


def test_hostile_names_stay_values() -> None:
    entry = with_reset(PEER, process=Process(7, HOSTILE, 0), netns_name=HOSTILE)
    found = parsed(logfmt_line(entry))
    assert found["comm"] == HOSTILE.replace("\ud800", "?")
    assert found["pid"] == "7"
    parsed(object_logfmt({"a b": HOSTILE, 'c"=': 1, "d": {"\n": [HOSTILE, {"e": None}]}}))


def test_objects_are_flat() -> None:
    made: dict[str, Any] = {"a": {"b": 1, "c": [1, 2], "d": [{"e": True}, {"e": None}], "f": []}}
    assert object_logfmt(made, {"id": "x"}) == "a.b=1 a.c=1,2 a.d.0.e=true run.id=x"


def test_a_run_in_logfmt() -> None:
    done = run("read", "-o", "logfmt", "--summary", "-", stdin=c.pcap(c.incident()))
    entry, totals = map(parsed, done.stdout.decode().splitlines())
    assert entry["origin"] == "forged"
    assert entry["text"].startswith("by a ")
    assert totals["totals.origins.forged"] == "1"
    assert entry["run.id"] == totals["run.id"]


def test_unknown_is_left_out() -> None:
    found = parsed(logfmt_line(with_reset(FORGED, process=None, pod=None, container=None)))
    assert not {"pid", "comm", "pod", "container", "file", "amends"} & found.keys()
