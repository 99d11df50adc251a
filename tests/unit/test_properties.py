"""Whatever strangers say, every output stays what it is: lines, JSON, pages, packets, labels.

Texts and numbers by hypothesis (tests/unit/strangers.py), the same in each run.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
import socket
import tempfile
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pcapng
from hypothesis import assume, given
from hypothesis import strategies as st
from logging_journald import JournaldTransport
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from selectolax.lexbor import LexborHTMLParser

from rsttrace import jsonl
from rsttrace.model import Cause, Entry
from rsttrace.render.escape import safe
from rsttrace.render.journal import FIELDS, journal_fields
from rsttrace.render.json import entry_line, entry_object
from rsttrace.render.logfmt import logfmt_line
from rsttrace.render.pcapng import Frames, headline
from rsttrace.render.report import Report
from rsttrace.render.schema import schema_text
from rsttrace.render.text import entry_lines
from rsttrace.watch.journal import Journal
from rsttrace.watch.metrics import Metrics
from tests.unit.strangers import PLAIN, PROPERTY, TEXT, entries
from tests.unit.test_render_logfmt import parsed
from tests.unit.test_render_pcapng import SEEN, V4, reset_of
from tests.unit.test_render_samples import SAMPLES

SCHEMA = json.loads(schema_text())
VALIDATOR = jsonschema.Draft202012Validator(
    {"$defs": SCHEMA["$defs"], "$ref": "#/$defs/entry"}  # alone: of one of many it says too little
)
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Mn", "Me"}
RIGHT_TO_LEFT = {"R", "AL", "AN", "RLE", "RLO", "LRO", "LRE", "PDF", "RLI", "LRI", "FSI", "PDI"}
SEVEN = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(?:Z|[+-]\d\d:\d\d)? (?:IN|OUT|FWD) +\S+ +\S+ +\S+ > \S+"
)
COLOR = re.compile(r"\x1b\[[0-9;]*m")


def assert_harmless(line: str) -> None:
    """One line that a terminal draws as it stands, from left to right."""
    for char in line:
        assert unicodedata.category(char) not in HIDDEN, repr(char)
        assert unicodedata.bidirectional(char) not in RIGHT_TO_LEFT, repr(char)
    assert len(line.splitlines()) <= 1


@PROPERTY
@given(entries(), st.booleans(), st.booleans(), st.booleans())
def test_text_is_lines_that_a_terminal_draws(
    entry: Entry, explain: bool, verbose: bool, plain: bool
) -> None:
    lines = entry_lines(entry, explain=explain, verbose=verbose, plain=plain, utc=True)
    for line in lines:
        assert_harmless(line)
    assert SEVEN.match(lines[0]), lines[0]
    assert all(line.startswith("    ") for line in lines[1:]), "no line passes for another entry"
    colored = entry_lines(
        entry, explain=explain, verbose=verbose, plain=plain, utc=True, color=True
    )
    assert [COLOR.sub("", line) for line in colored] == lines


@PROPERTY
@given(TEXT, st.integers(3, 200))
def test_safe_text_is_safe_and_short(text: str, limit: int) -> None:
    made = safe(text, limit)
    assert_harmless(made)
    assert len(made) <= limit
    if len(made) < limit and not made.endswith("..."):
        assert safe(text, 10 * limit + 100) == made, "nothing was left out in silence"


@PROPERTY
@given(entries(), st.booleans())
def test_json_is_one_line_of_the_schema_that_says_what_came(entry: Entry, explain: bool) -> None:
    line = entry_line(entry, explain=explain)
    assert line.isascii()
    assert line.isprintable()
    made = json.loads(line)
    assert made == entry_object(entry, explain=explain)
    VALIDATOR.validate(made)
    json.dumps(made, ensure_ascii=False).encode("utf-8")  # no lone surrogate is left
    reset, verdict = entry.reset, entry.verdict
    whose = reset.process
    for found, given_ in (
        (made["file"], reset.file),
        (made["unit"], reset.unit),
        (made["netns_name"], reset.netns_name),
        (made["advice"], verdict.advice),
        (made["device"]["reason"], verdict.device_reason),
        (made["process"] and made["process"]["comm"], whose and whose.comm),
        *zip((e["text"] for e in made["evidence"]), (e.text for e in verdict.evidence)),
    ):
        assert found == (given_ and "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c
                                            for c in given_))  # fmt: skip
    assert (made["rst"] is None) is reset.unread
    for name in ("seq", "ack", "window", "ttl", "length") if made["rst"] else ():
        assert made["rst"][name] == getattr(reset.rst, name)


@PROPERTY
@given(entries())
def test_what_we_wrote_we_read(entry: Entry) -> None:
    """And what was read is written again as the same, as far as the reader keeps it."""
    first = entry_object(entry)
    line = entry_line(entry)
    assume(len(line) <= jsonl.LONGEST_LINE)  # no name of this world is that long
    read = jsonl.read_entry(jsonl.decode(line))
    again = entry_object(read.entry)
    assert read.object == first
    kept = ("id", "amends", "time", "kind", "direction", "origin", "confidence", "cause", "local",
            "remote", "family", "advice", "hops", "findings", "netns", "netns_name", "file",
            "frame", "process", "container", "pod", "unit", "seen")  # fmt: skip
    assert {name: again[name] for name in kept} == {name: first[name] for name in kept}
    assert_harmless(entry_lines(read.entry)[0])


@PROPERTY
@given(st.dictionaries(st.sampled_from(sorted(entry_object(SAMPLES["forged"]))), PLAIN))
def test_a_line_of_anybody_is_refused_with_a_word(members: dict[str, Any]) -> None:
    base = entry_object(SAMPLES["forged"])
    text = json.dumps({**base, **members}, default=lambda value: value.hex())
    try:
        read = jsonl.read_entry(jsonl.decode(text))
    except jsonl.WrongLine as error:
        assert_harmless(safe(str(error)))
        return
    for line in entry_lines(read.entry, verbose=True, explain=True):
        assert_harmless(line)


@PROPERTY
@given(entries())
def test_logfmt_is_one_line_of_pairs(entry: Entry) -> None:
    line = logfmt_line(entry, utc=True)
    assert_harmless(line)
    found = parsed(line)
    assert found["id"] == str(entry.id)
    assert found["origin"] == entry.verdict.origin.value


# ---- the page ----


def page(*shown: Entry, title: str = "x") -> str:
    report = Report(title, utc=True)
    for entry in shown:
        report.add(entry)
    return report.html([("made by", title)], {"lost": 3, "filtered": 0})


def shape(html: str) -> tuple[set[tuple[str, str]], list[str]]:
    """Each element with each of its attributes; and the texts of what a browser runs or applies."""
    pairs, active = set(), []
    root = LexborHTMLParser(html).root
    assert root is not None
    for node in root.traverse():
        pairs |= {(node.tag or "", name) for name in node.attributes} | {(node.tag or "", "")}
        if node.tag in ("script", "style"):
            active.append(node.text())
        for name, value in node.attributes.items():
            if name in ("href", "src", "action", "xlink:href"):
                assert value == "data:," or (value or "").startswith("#"), value
    return pairs, active


@cache
def benign() -> tuple[set[tuple[str, str]], list[str]]:
    """Of a page with everything that the template has, of texts that are only words."""
    pairs: set[tuple[str, str]] = set()
    active: list[str] = []
    for entry in SAMPLES.values():
        full = dataclasses.replace(entry, reset=dataclasses.replace(entry.reset, payload=b"x"))
        more, active = shape(page(entry, full))
        pairs |= more
    more, active = shape(page(*SAMPLES.values()))
    return pairs | more, active


@PROPERTY
@given(st.lists(entries(), min_size=1, max_size=2), TEXT)
def test_the_page_has_no_element_that_the_template_has_not(shown: list[Entry], title: str) -> None:
    pairs, active = shape(page(*shown, title=title))
    assert pairs - benign()[0] == set()
    assert active == benign()[1], "neither script nor style has anything of theirs in it"


# ---- packets ----


@PROPERTY
@given(st.lists(entries(), min_size=1, max_size=2))
def test_comments_are_read_as_they_were_written(shown: list[Entry]) -> None:
    """By a reader that is not scapy, whose writer wrote them."""
    real = [
        dataclasses.replace(
            entry,
            reset=dataclasses.replace(
                entry.reset,
                rst=dataclasses.replace(entry.reset.rst, raw=reset_of(V4, 20, SEEN).rst.raw),
                sent_data=None,
                trigger=None,
            ),
        )
        for entry in shown
    ]
    frames = Frames()
    file = io.BytesIO(frames.head + b"".join(f.block for e in real for f in frames.of(e)))
    packets = [
        block for block in pcapng.FileScanner(file)
        if isinstance(block, pcapng.blocks.EnhancedPacket)
    ]  # fmt: skip
    assert len(packets) == len(real)
    for entry, packet in zip(real, packets):
        comment = packet.options["opt_comment"]
        whole = "\n".join([headline(entry), *entry_lines(entry, verbose=True)])
        assert whole.startswith(comment)
        assert comment == whole or len(comment.encode()) > 0xFFFF - 4
        assert headline(entry) == comment.split("\n")[0]
        for line in comment.split("\n"):
            assert_harmless(line)
        assert packet.packet_data == bytes.fromhex(entry.reset.rst.raw)


# ---- who watches ----


@PROPERTY
@given(st.lists(st.tuples(entries(), TEXT, TEXT), min_size=1, max_size=3))
def test_labels_are_what_was_counted(shown: list[tuple[Entry, str, str]]) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    causes: dict[str, int] = {}
    for number, (entry, cause, finding) in enumerate(shown):
        reset = dataclasses.replace(entry.reset, cause=Cause(cause, "", None))
        verdict = dataclasses.replace(entry.verdict, cause=None, findings=(finding,))
        metrics.add(Entry(number + 1, reset, verdict))
        name = cause.encode("utf-8", "replace").decode()
        causes[name] = causes.get(name, 0) + 1
    text = generate_latest(registry).decode("utf-8")  # type: ignore[no-untyped-call]
    found: dict[str, int] = {}
    for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            if sample.name == "rsttrace_causes_total":
                name = sample.labels["cause"]
                found[name] = found.get(name, 0) + int(sample.value)
    assert found == causes


def fields_of(data: bytes) -> Iterator[tuple[str, bytes]]:
    """A message of journald, as systemd documents its native protocol."""
    at = 0
    while at < len(data):
        line = data[at : data.index(b"\n", at)]
        at += len(line) + 1
        if b"=" in line:
            name, _, value = line.partition(b"=")
        else:
            name, length = line, int.from_bytes(data[at : at + 8], "little")
            value = data[at + 8 : at + 8 + length]
            at += 8 + length + 1
            assert data[at - 1 : at] == b"\n"
        yield name.decode("ascii"), value


@PROPERTY
@given(entries())
def test_journald_gets_the_fields_that_were_meant(entry: Entry) -> None:
    message = entry_lines(entry)[0]
    given_ = journal_fields(entry, message, same_pids=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(path))
            listener.settimeout(20)
            journal = Journal()
            journal._transport = JournaldTransport(path)
            journal.send(given_)
            assert journal.lost == 0
            found = [*fields_of(received(listener))]
            journal._close()
    assert found == [(name, value.encode("utf-8")) for name, value in given_]
    assert {name for name, _ in found} <= {*FIELDS}
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name) for name, _ in found)


def received(listener: socket.socket) -> bytes:
    """A datagram, or the memfd that came in its place (a large entry)."""
    data, descriptors, _, _ = socket.recv_fds(listener, 1 << 20, 1)
    if not descriptors:
        return data
    with open(descriptors[0], "rb") as file:
        file.seek(0)
        return file.read()
