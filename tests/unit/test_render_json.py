from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rsttrace.commands.about import about_run
from rsttrace.judge.placement import place, place_replay
from rsttrace.model import (
    AcceptQueue,
    AddressHolders,
    BridgePort,
    Clocks,
    ComparedFlow,
    ComparedReset,
    Comparison,
    Container,
    Endpoint,
    Escape,
    Evidence,
    Fate,
    Holder,
    Kind,
    Origin,
    OtherEnd,
    Point,
    PointFile,
    Position,
    ProbeAnswer,
    Process,
    SentData,
    Sighting,
    Timers,
    Traffic,
)
from rsttrace.render.compare import comparison_object
from rsttrace.render.holders import holders_object
from rsttrace.render.json import entry_line, entry_object, object_line
from rsttrace.render.path import path_object
from rsttrace.render.schema import schema_text
from rsttrace.render.summary import Tally
from tests.docs import replaced
from tests.unit.path_samples import attempts, hop, path
from tests.unit.schema_fields import field_table, fields
from tests.unit.test_render_samples import (
    COUNTED,
    DATA,
    FORGED,
    FORGED_HERE,
    FORGED_UNKNOWN,
    FOUND,
    GOLDEN,
    LOCAL_ACTIVE,
    LOCAL_PASSIVE6,
    NODE,
    PEER,
    PEER_UNMATCHED,
    SAMPLES,
    TIME,
    UNSURE,
    check_golden,
    time_zone,
    with_reset,
    with_verdict,
)

DOCS = Path(__file__).parents[2] / "docs" / "json.md"
SCHEMA: dict[str, Any] = json.loads(schema_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture(autouse=True)
def _shanghai() -> Iterator[None]:
    with time_zone("CST-8"):
        yield


# One router answers, one does not; a replay proves what the TTL says.
_SHORT = path(hop(1, "192.168.1.1"), hop(2))
_TRIES = attempts(1, 64, 0, tries=2)
CHECKED = AddressHolders(
    ip="192.168.1.7",
    method="arp",
    netns=NODE,
    ifindex=4,
    ifname="br0",
    sent=3,
    holders=(
        Holder("00:d0:f8:22:33:44", "Ruijie Networks", 3, BridgePort("br0", 4, "eth0", 2)),
        Holder("52:54:00:12:34:56", "locally administered (random or virtual)", 3, None),
    ),
    duration_ns=1_251_000_000,
    seen=("00:d0:f8:22:33:44", "52:54:00:12:34:56"),
)
PATH = path_object(
    dataclasses.replace(_SHORT, refused=ProbeAnswer("unreachable", "192.168.1.1", 64, 1, 0, "tcp")),
    place(_SHORT, 0, peer_hops=2),
    replayed=place_replay(_SHORT, _TRIES),
    attempts=_TRIES,
    entry=17,
    netns=4026532281,
)


def _differences(value: Any, other: Any) -> set[str]:
    return {key for key in value if value[key] != other[key]}


def test_golden() -> None:
    made = {name: entry_object(entry, explain=True) for name, entry in SAMPLES.items()}
    check_golden(GOLDEN / "render_entries.json", json.dumps(made, indent=2) + "\n")


@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("sample", SAMPLES)
def test_every_entry_fits_the_schema(sample: str, explain: bool) -> None:
    made = entry_object(SAMPLES[sample], explain=explain)
    VALIDATOR.validate(made)
    assert json.loads(entry_line(SAMPLES[sample], explain=explain)) == made
    assert ("considered" in made) == explain


def test_the_contract() -> None:
    """The names and the order that the design promises."""
    made = entry_object(FORGED)
    assert list(made) == [
        *("schema", "id", "amends", "time", "kind", "direction", "origin", "confidence", "score"),
        *("summary", "cause", "local", "remote", "family", "rst", "trigger", "sent_data"),
        *(
            "baseline",
            "authors",
            "advice",
            "evidence",
            "hops",
            "findings",
            "device",
            "neighbor",
            "next_hop",
            "ingress",
        ),
        *("made_here", "netns", "netns_name", "file", "frame", "sightings", "socket"),
        "process",
        "actor",
        "unit",
        *("container", "pod", "seen", "counted"),
    ]
    assert made["time"] == "2019-11-24T17:30:03.412345678+08:00"
    assert made["local"] == {"ip": "10.0.0.5", "port": 51234}
    assert made["baseline"] == {
        "scope": "flow",
        "packets": 12,
        "ttl": 47,
        "syn_ttl": 47,
        "syn_options": "mss 1460,sackOK,TS val 1 ecr 2,nop,wscale 7",
        "stack": "Linux",
        "ip_id_last": 23403,
        "ours_ip_id": [13052, 13051],
        "mac": "00:d0:f8:22:33:44",
    }
    assert made["hops"] == {"rst": 1, "peer": 17}


def test_utc() -> None:
    made = entry_object(FORGED, utc=True)
    assert made["time"] == "2019-11-24T09:30:03.412345678+00:00"
    assert _differences(made, entry_object(FORGED)) == {"time"}


def test_unknown_is_null() -> None:
    made = entry_object(LOCAL_ACTIVE)
    for key in ("amends", "trigger", "neighbor", "next_hop", "ingress", "made_here", "file", "pod"):
        assert made[key] is None
    ended = {"exit_signal": None, "exit_status": None}
    process = {"pid": None, "comm": None, "uid": 1000, **ended, "listener": False}
    assert made["process"] == process
    for key in ("cookie", "timers", "accept_queue"):
        assert made["socket"][key] is None
    assert made["socket"]["local"] == {"ip": "10.0.0.5", "port": 51234}
    assert made["baseline"] == {
        "scope": "none",
        "packets": None,
        "ttl": None,
        "syn_ttl": None,
        "syn_options": None,
        "stack": None,
        "ip_id_last": None,
        "ours_ip_id": [],
        "mac": None,
    }
    assert made["summary"] is None
    assert entry_object(UNSURE)["confidence"] is None


def test_ipv6_has_no_ip_id() -> None:
    made = entry_object(with_reset(LOCAL_PASSIVE6, trigger=DATA))
    VALIDATOR.validate(made)
    for packet in (made["rst"], made["trigger"]):
        assert packet["ip_id"] is None
        assert packet["df"] is None
    assert made["baseline"]["ip_id_last"] is None
    assert made["baseline"]["ours_ip_id"] == []
    assert made["baseline"]["ttl"] == 47


def test_a_remembered_trigger_has_an_age_and_no_headers() -> None:
    trigger = entry_object(FORGED)["trigger"]
    assert trigger["age_ms"] == 0.4
    assert trigger["payload_len"] == 117
    assert {name for name, value in trigger.items() if value is None} == {
        "tos",
        "length",
        "options",
        "raw",
        "reserved",
    }
    earlier = with_reset(FORGED, trigger=dataclasses.replace(DATA, time_ns=TIME - 1))
    assert entry_object(earlier)["trigger"]["age_ms"] == 1e-06


def test_a_whole_trigger_has_headers_and_no_age() -> None:
    trigger = entry_object(FORGED_UNKNOWN)["trigger"]
    assert {name for name, value in trigger.items() if value is None} == {"age_ms"}
    assert trigger["options"] == "mss 1460"


def test_a_bare_frame_tells_what_it_can() -> None:
    made = entry_object(UNSURE)
    assert made["ingress"] == {
        "mac": "00:d0:f8:22:33:44",
        "vendor": None,
        "ip": None,
        "is_gateway": None,
        "ifindex": 2,
        "ifname": None,
        "netns": NODE,
        "bridge": None,
        "switch": None,
        "ttl": 64,
    }
    capture = entry_object(PEER_UNMATCHED)["neighbor"]
    assert capture["mac"] == "00:d0:f8:22:33:44"
    assert capture["ifindex"] is None
    assert capture["netns"] is None
    assert "ttl" not in capture


def test_made_here() -> None:
    assert entry_object(FORGED_HERE)["made_here"] == {
        "netns": NODE,
        "netns_name": "host",
        "kind": "sent-netfilter",
        "pid": 0,
        "comm": "swapper/0",
        "hook": "forward",
    }


def test_a_line_is_one_line_of_printable_ascii() -> None:
    comm = '\x1b[2J\n"\\\x7f\x00\x9b\u202e\ud800é\U0001f600'
    entry = with_reset(FORGED, process=Process(1, comm, 0), netns_name=comm, file=comm)
    entry = with_verdict(entry, evidence=(Evidence("r", 1.0, comm, {comm: comm}),))
    line = entry_line(entry)
    assert line.isascii()
    assert line.isprintable()
    assert "\\u007f" in line
    made = json.loads(line)
    assert made["process"]["comm"] == comm.replace("\ud800", "\ufffd")
    line.encode("utf-8")
    json.dumps(made, ensure_ascii=False).encode("utf-8")  # no lone surrogate is left
    VALIDATOR.validate(made)


def test_a_line_is_compact() -> None:
    line = entry_line(with_verdict(FORGED, evidence=()))
    assert line.startswith('{"schema":1,"id":17,"amends":null,"time":"2019-11-24T17:30:03.')
    assert line == json.dumps(json.loads(line), separators=(",", ":"))


def test_values_of_any_type_are_written() -> None:
    values: dict[str, Any] = {
        "tuple": (1, 2),
        "set": {3},
        "bytes": b"\x01\xff",
        "enum": Origin.PEER,
        "endpoint": Endpoint("10.0.0.1", 2),
        "nan": math.nan,
        "path": Path("/a"),
        "float": 0.5,
        "flag": True,
        "nested": {"list": [math.inf, None]},
    }
    entry = with_verdict(FORGED, evidence=(Evidence("r", math.inf, "", values, proof=True),))
    made = json.loads(entry_line(entry))
    VALIDATOR.validate(made)
    assert made["evidence"][0] == {
        "rule": "r",
        "weight": None,
        "text": "",
        "values": {
            "tuple": [1, 2],
            "set": [3],
            "bytes": "01ff",
            "enum": "peer",
            "endpoint": {"ip": "10.0.0.1", "port": 2},
            "nan": None,
            "path": "/a",
            "float": 0.5,
            "flag": True,
            "nested": {"list": [None, None]},
        },
        "proof": True,
        "group": None,
    }


def test_a_time_beyond_the_calendar_is_unknown() -> None:
    made = entry_object(with_reset(FORGED, time_ns=2**64 * 10**9))
    assert made["time"] is None
    VALIDATOR.validate(made)


# The schema


def _set(*path: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(made: dict[str, Any]) -> None:
        node: Any = made
        for step in path[:-1]:
            node = node[step]
        node[path[-1]] = to

    return change


def _delete(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(made: dict[str, Any]) -> None:
        node: Any = made
        for step in path[:-1]:
            node = node[step]
        del node[path[-1]]

    return change


WRONG = {
    "another version": _set("schema", to=2),
    "an unknown field": _set("extra", to=1),
    "an unknown field of a packet": _set("rst", "extra", to=1),
    "an unknown field of a socket": _set("socket", "extra", to=1),
    "a missing field": _delete("seen"),
    "a missing field inside": _delete("neighbor", "vendor"),
    "no id": _set("id", to=None),
    "id 0": _set("id", to=0),
    "amends 0": _set("amends", to=0),
    "a time without nanoseconds": _set("time", to="2019-11-24T17:30:03.412+08:00"),
    "a time without offset": _set("time", to="2019-11-24T17:30:03.412345678Z"),
    "an unknown kind": _set("kind", to="received"),
    "an unknown origin": _set("origin", to="hostile"),
    "an unknown scope": _set("baseline", "scope", to="host"),
    "a direction against its kind": _set("direction", to="sent"),
    "a percentage": _set("confidence", to=99),
    "certainty of nothing": _set("origin", to="inconclusive"),
    "a port as text": _set("local", "port", to="3306"),
    "a port too large": _set("local", "port", to=65536),
    "no address": _set("remote", "ip", to=None),
    "a TTL too large": _set("rst", "ttl", to=256),
    "a sequence number too large": _set("rst", "seq", to=2**32),
    "a negative window": _set("rst", "window", to=-1),
    "IPv4 without IP ID": _set("rst", "ip_id", to=None),
    "IPv6 with IP ID": _set("family", to=6),
    "family 5": _set("family", to=5),
    "flags as a number": _set("rst", "flags", to=4),
    "other letters for flags": _set("rst", "flags", to="R."),
    "bytes that are not hexadecimal": _set("rst", "raw", to="45 00"),
    "an empty raw": _set("rst", "raw", to=""),
    "a number of rounds": _set("hops", "rst", to=1.5),
    "a MAC in capitals": _set("neighbor", "mac", to="00:D0:F8:22:33:44"),
    "an interface 0": _set("neighbor", "ifindex", to=0),
    "made here by receiving": _set("made_here", "kind", to="received-accepted"),
    "evidence without weight": _delete("evidence", 0, "weight"),
    "evidence that is text": _set("evidence", 0, to="TTL"),
    "a rule with blanks": _set("evidence", 0, "rule", to="IP ID"),
    "an unknown field of evidence": _set("evidence", 0, "extra", to=1),
    "a finding with blanks": _set("findings", to=["two words"]),
    "seen 0 times": _set("seen", to=0),
    "a boolean as number": _set("seen", to=True),
    "frame 0": _set("frame", to=0),
    "a summary besides": _set("summary", to={"shown": 1}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_schema_rejects(wrong: str) -> None:
    entry = with_reset(FORGED, made_here=FORGED_HERE.reset.made_here)
    made = entry_object(entry)
    VALIDATOR.validate(made)
    WRONG[wrong](made)
    assert not VALIDATOR.is_valid(made)


WRONG_SUMMARY = {
    "an unknown kind": _set("totals", "kinds", "received", to=1),
    "a missing origin": _delete("totals", "origins", "peer"),
    "a negative count": _set("totals", "shown", to=-1),
    "a cause that never was": _set("totals", "causes", "none", to=0),
    "an unknown field": _set("totals", "extra", to=1),
    "an unknown field beside it": _set("id", to=1),
    "lost as text": _set("totals", "not_shown", "lost", to="2"),
    "time running backwards": _set("totals", "duration_s", to=-1),
}


@pytest.mark.parametrize("wrong", WRONG_SUMMARY)
def test_the_schema_rejects_summaries(wrong: str) -> None:
    made = Tally().object()
    VALIDATOR.validate(made)
    WRONG_SUMMARY[wrong](made)
    assert not VALIDATOR.is_valid(made)


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "properties" in node and "type" in node:
            yield node
        for item in node.values():
            yield from _objects(item)
    elif isinstance(node, list):
        for item in node:
            yield from _objects(item)


def test_the_schema_is_valid_and_strict() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for node in _objects(SCHEMA):
        assert node["additionalProperties"] is False
        assert set(node["properties"]) - set(node["required"]) <= {"considered", "run"}


def test_the_schema_has_the_words_of_the_model() -> None:
    entry = SCHEMA["$defs"]["entry"]["properties"]
    summary = SCHEMA["$defs"]["summary"]["properties"]["totals"]["properties"]
    assert entry["kind"]["enum"] == list(summary["kinds"]["properties"])
    assert entry["kind"]["enum"] == [kind.value for kind in Kind]
    assert entry["origin"]["enum"] == list(summary["origins"]["properties"])
    assert entry["origin"]["enum"] == [origin.value for origin in Origin]


@pytest.mark.parametrize("kind", ["entry", "path", "address", "summary", "doctor", "check"])
def test_every_field_is_described_and_so_is_its_null(kind: str) -> None:
    for field in fields(kind):
        assert field.description.endswith((".", "…")), field
        assert "|" not in field.description, field
        assert ("null:" in field.description) == ("null" in field.types), field


def test_the_schema_knows_every_field_that_is_written() -> None:
    """In the same order, so that the documentation reads like the output."""

    def paths(node: Any, prefix: str = "") -> Iterator[str]:
        for name, value in node.items():
            yield prefix + name
            if isinstance(value, dict) and name != "values":
                yield from paths(value, f"{prefix}{name}.")
            if isinstance(value, list) and value and isinstance(value[0], dict):
                yield from paths(value[0], f"{prefix}{name}[].")

    socket = LOCAL_ACTIVE.reset.socket
    assert socket is not None
    entry = with_reset(
        FORGED,
        made_here=FORGED_HERE.reset.made_here,
        neighbor=FOUND,
        ingress=FOUND,
        actor=Process(12, "ss", 0),
        socket=dataclasses.replace(
            socket,
            timers=Timers(90_500, 3, 0, None, 60_000, 10_000, 3),
            accept_queue=AcceptQueue(129, 128, aborts=True),
        ),
        sent_data=SentData(FORGED.reset.time_ns - 1, FORGED.reset.rst, b"GET /"),
        file="x.pcap",
        sightings=(Sighting(1, FORGED.reset.time_ns, 0, "eth0", 63, None),),
        counted=COUNTED.reset.counted,
    )
    made = json.loads(entry_line(entry, explain=True, run=about_run()))
    assert list(paths(made)) == [field.path for field in fields("entry")]
    theirs = entry.reset.baseline.theirs
    assert theirs is not None
    data = dataclasses.replace(theirs.recent[0], payload_len=7)
    half = dataclasses.replace(theirs, recent=(data,))
    entry.reset.baseline = dataclasses.replace(entry.reset.baseline, theirs=half, ours=half)
    idle = Evidence("idle-timeout", 0.0, "idle", {"idle_s": 350.0})
    verdict = dataclasses.replace(entry.verdict, device_fingerprint="x", evidence=(idle,))
    tally = Tally()
    for number in (1, 2):
        tally.add(dataclasses.replace(entry, id=number, verdict=verdict))
    boxed = dataclasses.replace(entry.reset, pod=None, container=Container("0123456789abcdef"))
    tally.add(dataclasses.replace(entry, id=3, reset=boxed, verdict=verdict))
    totals = json.loads(object_line(tally.object(), about_run()))
    written = [path for path in paths(totals) if "causes." not in path]
    assert written == [field.path for field in fields("summary")]
    found = path_object(dataclasses.replace(_SHORT, neighbor=FOUND), entry=17)
    whole = {**PATH, "path": {**PATH["path"], "next_hop": found["path"]["next_hop"]}}
    for kind, other in (("path", whole), ("address", holders_object(CHECKED))):
        line = json.loads(object_line(other, about_run()))
        assert list(paths(line)) == [field.path for field in fields(kind)]


# The documentation


FORGED_POSITION = Position(
    from_a=1,
    from_b=15,
    total=17,
    sure="likely",
    text="1 hop from A, 15 from B",
    notes=("both add up: 1 + 15, and itself, of 17 between them",),
)
CLIENT_END, SERVER_END = Endpoint("10.0.0.5", 51234), Endpoint("10.9.8.7", 3306)
ESCAPED = Endpoint("10.0.0.5", 51240)
COMPARISON = Comparison(
    a=PointFile(
        Point.A,
        "client.pcap",
        False,
        *(1200, 32, 1),
        *(TIME, TIME + 60_000_000_000),
        address="10.0.0.5",
        from_ns=TIME,
        until_ns=TIME + 60_000_000_000,
    ),
    b=PointFile(
        Point.B,
        "server.pcapng",
        False,
        *(8000, 900, 1),
        *(TIME, TIME + 90_000_000_000),
        address="10.9.8.7",
        from_ns=TIME - 1_000_000_000,
        until_ns=TIME + 120_000_000_000,
        dropped=0,
    ),
    matched={"addresses": 30, "initial-sequence-numbers": 1, "escaped": 1, "one-sided": 869},
    clocks=Clocks(3_000_012_000, 2_992_512_000, 3_007_512_000, 0.0, True, 610, 588),
    ab=Traffic(612, 611, 1, 0, 0, 17),
    ba=Traffic(588, 588, 0, 0, 0, 17),
    flows=(
        ComparedFlow(
            a=(CLIENT_END, SERVER_END),
            b=(CLIENT_END, SERVER_END),
            how="addresses",
            sure="sure",
            text="the same addresses and ports at both points, and the same sequence numbers",
            resets=(
                ComparedReset(
                    point=Point.A,
                    frame=88,
                    received=True,
                    src=SERVER_END,
                    dst=CLIENT_END,
                    other=OtherEnd(
                        Fate.NEVER_SENT,
                        Point.B,
                        "server.pcapng",
                        why="B shows 42 of this connection's packets that arrived at A, and not "
                        "this one",
                        trigger_arrived=False,
                        where=FORGED_POSITION.text,
                    ),
                    position=FORGED_POSITION,
                ),
            ),
        ),
        ComparedFlow(
            a=(ESCAPED, Endpoint("10.96.0.10", 80)),
            b=(ESCAPED, Endpoint("10.244.1.192", 8080)),
            how="initial-sequence-numbers",
            sure="sure",
            text="other addresses (NAT), the same initial sequence numbers both ways",
            escapes=(
                Escape(
                    *(Point.A, 1, 930, 4711),
                    *(Endpoint("10.244.1.192", 8080), ESCAPED),
                    *(Endpoint("10.96.0.10", 80), ESCAPED),
                    reset_frame=931,
                    text="its answer came from 10.244.1.192:8080 instead of 10.96.0.10:80: it was "
                    "not translated back",
                ),
            ),
        ),
    ),
    positions=((FORGED_POSITION, 1),),
    notes=(),
)


def _documentation() -> str:
    """docs/json.md with its generated parts made anew, between their markers."""
    now_ns = iter([TIME - 2_000_000_000, TIME + 10_300_000_000]).__next__
    tally = Tally(clock=iter([0.0, 12.3]).__next__, now_ns=now_ns)
    for entry in (FORGED, PEER):
        tally.add(entry)
    tally.not_shown(filtered=3, aggregated=0, lost=0)
    parts = {
        "fields": field_table("entry"),
        "path example": _block(PATH),
        "path fields": field_table("path"),
        "address example": _block(holders_object(CHECKED, entry=17)),
        "address fields": field_table("address"),
        "summary example": _block(tally.object()),
        "summary fields": field_table("summary"),
        "comparison example": _block(comparison_object(COMPARISON)),
        "comparison fields": field_table("comparison"),
        "doctor fields": field_table("doctor"),
        "check fields": field_table("check"),
    }
    text = DOCS.read_text(encoding="utf-8")
    for name, part in parts.items():
        text = replaced(text, name, part)
    return text


def _block(made: dict[str, Any]) -> str:
    return f"```json\n{json.dumps(made, indent=2)}\n```"


def test_the_documentation_is_up_to_date() -> None:
    check_golden(DOCS, _documentation())


def test_the_examples_of_the_documentation_fit_the_schema() -> None:
    blocks = DOCS.read_text(encoding="utf-8").split("```json\n")[1:]
    examples = [json.loads(block.partition("```")[0]) for block in blocks]
    names = ("id", "path", "address", "comparison", "totals")
    kinds = [next(name for name in names if name in found) for found in examples]
    assert kinds == ["id", "path", "address", "totals", "comparison"]
    for example in examples:
        VALIDATOR.validate(example)
        broken = copy.deepcopy(example)
        broken["schema"] = 0
        assert not VALIDATOR.is_valid(broken)


def test_a_name_has_one_type_in_all_lines() -> None:
    """Log stores make a column of each name, of one type. Null is of any."""
    types: dict[str, set[str]] = {}
    for kind in ("entry", "summary", "path", "address", "comparison", "doctor", "check"):
        for field in fields(kind):
            found = {"number" if name == "integer" else name for name in field.types}
            types.setdefault(field.path, set()).update(found - {"null"})
    types["schema"] = {"number"}  # its types are its value
    assert {path: found for path, found in types.items() if len(found) != 1} == {}


def test_another_run_is_not_overwritten() -> None:
    made = {"schema": 1, "run": {"id": "first"}}
    assert json.loads(object_line(made, about_run()))["run"] == {"id": "first"}
    assert about_run()["id"] != about_run()["id"]
