"""JSON lines as vantage points, what nobody meant as input, and what comes out on the terminal."""

from __future__ import annotations

import contextlib
import io
import json
import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rsttrace.commands.compare import compare
from rsttrace.commands.filters import Filter
from rsttrace.commands.read import read
from rsttrace.commands.run import Options
from rsttrace.compare.files import load_log
from rsttrace.errors import CaptureError, RsttraceError, UsageError
from rsttrace.model import Kind
from rsttrace.render.drawing import WIDTH
from rsttrace.render.json import entry_object
from rsttrace.render.schema import schema_text
from tests.unit.schema_fields import fields
from tests.unit.test_render_samples import SAMPLES
from tests.unit.twopoints import CLIENT, MS, SECOND, SERVER, Talk, World

VALIDATOR = jsonschema.Draft202012Validator(json.loads(schema_text()))
WANTED = Filter(kinds=tuple(Kind))
CASES = 150


def story(family: int = 4, nat: bool = False) -> World:
    """An honest reset, a forged one of both ends, a swapped answer, an honest reset again."""
    world = World(family=family, nat=nat)
    Talk(world, 50000, isn=(1, 2)).open().honest(SERVER)
    first = Talk(world, 50001, isn=(11, 12)).open()
    ip_id = first.ids[CLIENT]
    first.send(CLIENT, "PA", b"GET /x", lost=True)
    first.forge(CLIENT, hops=1, ip_id=ip_id)
    first.forge(SERVER, hops=4, ip_id=ip_id)
    first.wait()
    second = Talk(world, 50002, isn=(21, 22)).open()
    ip_id, seq = second.ids[SERVER], second.numbers[SERVER]
    second.send(SERVER, "PA", b"answer", lost=True)
    second.forge(CLIENT, "RA", hops=6, ip_id=ip_id, seq=seq, after_ns=world.delay_ns - MS)
    second.wait()
    Talk(world, 50003, isn=(31, 32)).open().honest(SERVER)
    Talk(world, 50004, isn=(41, 42)).open()
    return world


def compared(names: tuple[str, str], output: str = "json", **options: Any) -> list[str]:
    """The lines on standard output."""
    out = io.StringIO()
    compare(
        names,
        Options(output=output, hold_s=60.0, **options),
        WANTED,
        out=out,
        status=lambda text: None,
    )
    return out.getvalue().splitlines()


def without_run(lines: list[str]) -> list[dict[str, Any]]:
    """The lines without what tells one run from another."""
    found = [json.loads(line) for line in lines]
    for made in found:
        del made["run"]
    return found


def logged(name: str, target: Path) -> str:
    """A capture's entries as JSON lines."""
    out = io.StringIO()
    read(
        [name],
        Options(output="json", hold_s=60.0, summary=True),
        WANTED,
        out=out,
        status=lambda text: None,
    )
    target.write_text(out.getvalue())
    return str(target)


# ---- what comes out ----


@pytest.mark.parametrize("nat", [False, True])
@pytest.mark.parametrize("family", [4, 6])
def test_every_line_fits_the_schema(family: int, nat: bool, tmp_path: Path) -> None:
    captures = story(family, nat).write(tmp_path)
    logs = tuple(logged(name, tmp_path / f"{number}.jsonl") for number, name in enumerate(captures))
    for names in (captures, (logs[0], logs[1]), (captures[0], logs[1]), (logs[0], captures[1])):
        head, *entries = [json.loads(line) for line in compared(names, summary=True)]
        assert "comparison" in head
        assert [entry["id"] for entry in entries if "id" in entry] == list(range(1, len(entries)))
        for line in (head, *entries):
            VALIDATOR.validate(line)


def test_the_schema_knows_every_field_of_a_comparison(tmp_path: Path) -> None:
    """In the same order; of lists, the fullest item."""
    world = story(nat=True)
    talk = Talk(world, 50005, isn=(51, 52)).open()
    talk.send(CLIENT, "PA", b"escapes", escaped=True)
    talk.send(SERVER, "R", window=0, view=0)
    talk.wait()
    (head, *_) = [json.loads(line) for line in compared(world.write(tmp_path))]
    VALIDATOR.validate(head)
    written: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        for name, value in node.items():
            path = f"{prefix}{name}"
            if path not in written:
                written.append(path)
            if isinstance(value, dict):
                walk(value, f"{path}.")
            for item in value if isinstance(value, list) else ():
                if isinstance(item, dict):
                    walk(item, f"{path}[].")

    walk(head, "")
    assert sorted(written) == sorted(field.path for field in fields("comparison"))


def test_its_fields_are_described() -> None:
    for field in fields("comparison"):
        assert field.description.endswith("."), field
        assert "|" not in field.description, field
        assert ("null:" in field.description) == ("null" in field.types), field


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_the_text_fits_a_terminal(
    locale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import locale as module

    names = story().write(tmp_path)
    before = module.setlocale(module.LC_ALL)
    try:
        module.setlocale(module.LC_ALL, locale)
        stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        compare(names, Options(), WANTED, out=stream, status=lambda text: None)
        stream.seek(0)
        text = stream.read()
    finally:
        module.setlocale(module.LC_ALL, before)
    picture = [line for line in text.splitlines() if "the device:" in line]
    assert len(picture) == 2
    assert text.isascii() == (locale == "C")
    for line in text.splitlines():
        if " received " in line or " sent " in line:
            break
        assert len(line) <= WIDTH


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    captures = story().write(tmp_path)
    evil = tmp_path / "\x1b]0;evil\x07\u202e.pcap"
    evil.write_bytes(Path(captures[0]).read_bytes())
    for output in ("text", "json"):
        for line in compared((str(evil), captures[1]), output):
            assert line.isprintable()
            assert "\u202e" not in line


# ---- the order of the entries ----


def nanoseconds(entry: dict[str, Any]) -> int:
    """An entry's time in ns since the epoch; its text has nine decimal digits."""
    text = entry["time"]
    seconds = datetime.fromisoformat(text[:19] + text[29:]).timestamp()
    return int(seconds) * SECOND + int(text[20:29])


def ladder(count: int = 6, **world: Any) -> World:
    """Honest resets, each a minute after the other: seen leaving at B, then arriving at A."""
    made = World(**world)
    for number in range(count):
        Talk(made, 50100 + number, isn=(number * 100 + 1, number * 100 + 2)).open().honest(SERVER)
        made.now += 60 * SECOND
    return made


@pytest.mark.parametrize("kind", ["captures", "logs", "capture and log", "log and capture"])
@pytest.mark.parametrize("offset_ns", [-7 * SECOND, 0, 3600 * SECOND])
def test_entries_come_in_order_of_time(offset_ns: int, kind: str, tmp_path: Path) -> None:
    """By A's clock, with B's an hour away and 40 ppm faster: each leaves B before it comes to A."""
    a, b = ladder(offset_ns=offset_ns, ppm=40.0).write(tmp_path)
    logs = logged(a, tmp_path / "a.jsonl"), logged(b, tmp_path / "b.jsonl")
    names = {
        "captures": (a, b),
        "logs": logs,
        "capture and log": (a, logs[1]),
        "log and capture": (logs[0], b),
    }[kind]
    head, *entries = [json.loads(line) for line in compared(names)]
    assert head["comparison"]["clocks"] is not None
    assert [entry["id"] for entry in entries] == list(range(1, 13))
    ports = [
        entry["local"]["port"] if entry["file"] == a else entry["remote"]["port"]
        for entry in entries
    ]
    assert ports == [port for number in range(6) for port in (50100 + number,) * 2]
    for pair in zip(entries[::2], entries[1::2]):
        assert {entry["file"] for entry in pair} == {a, b}
    for name in (a, b):
        times = [nanoseconds(entry) for entry in entries if entry["file"] == name]
        assert times == sorted(times)
    if kind == "captures":
        assert [entry["file"] for entry in entries[:2]] == [b, a]


def test_without_clocks_those_of_a_come_first(tmp_path: Path) -> None:
    """Connections that only one point saw say nothing of the clocks."""
    first, second = ladder(), World()
    second.stamp = 7_000_000
    for number in range(3):
        Talk(second, 51000 + number, isn=(7, 8)).open().honest(SERVER)
    (tmp_path / "x").mkdir()
    a, _ = first.write(tmp_path)
    _, b = second.write(tmp_path / "x")
    head, *entries = [json.loads(line) for line in compared((a, b))]
    assert head["comparison"]["clocks"] is None
    assert [entry["file"] for entry in entries] == [a] * 6 + [b] * 3


@pytest.mark.parametrize("kind", ["captures", "logs"])
def test_count_counts_both(kind: str, tmp_path: Path) -> None:
    a, b = ladder().write(tmp_path)
    names = (a, b)
    if kind == "logs":
        names = logged(a, tmp_path / "a.jsonl"), logged(b, tmp_path / "b.jsonl")
    whole = compared(names)
    assert len(whole) == 13
    assert without_run(compared(names, count=5)) == without_run(whole[:6])


# ---- the words of logs ----


def test_logs_say_what_was_sent_and_doubt_what_was_not(tmp_path: Path) -> None:
    a, b = story().write(tmp_path)
    names = (logged(a, tmp_path / "a.jsonl"), logged(b, tmp_path / "b.jsonl"))
    head, *entries = [json.loads(line) for line in compared(names)]
    got = {
        entry["local"]["port"]: entry
        for entry in entries
        if entry["direction"] == "received" and entry["file"] == a
    }
    assert (got[50003]["origin"], got[50003]["confidence"]) == ("peer", 1.0)
    (said,) = [item for item in got[50001]["evidence"] if item["rule"] == "other-end-log"]
    assert said["weight"] > 0
    assert not said["proof"]
    assert got[50001]["origin"] == "forged"
    # Nothing of that connection in B's log: it may have been filtered.
    assert not [item for item in got[50002]["evidence"] if item["rule"].startswith("other-end")]
    assert head["comparison"]["ab"] is None
    assert any("log has no other packets" in note for note in head["comparison"]["notes"])


def test_a_log_that_lost_resets_accuses_nobody(tmp_path: Path) -> None:
    a, b = story().write(tmp_path)
    names = (logged(a, tmp_path / "a.jsonl"), logged(b, tmp_path / "b.jsonl"))
    lines = Path(names[1]).read_text().splitlines()
    summary = json.loads(lines[-1])
    summary["totals"]["not_shown"]["lost"] = 3
    Path(names[1]).write_text("\n".join([*lines[:-1], json.dumps(summary)]))
    head, *_ = [json.loads(line) for line in compared(names)]
    said = {
        reset["fate"]
        for flow in head["comparison"]["flows"]
        for reset in flow["resets"]
        if reset["point"] == "A"
    }
    assert "never-sent" not in said


DAY = {
    "started": "2019-11-24T00:00:00.000000000+00:00",
    "ended": "2019-11-25T00:00:00.000000000+00:00",
}
"""A run that watched all the while."""

EARLY = "2019-11-24T09:30:03.000000000+00:00"
"""Before the first of these resets."""


@pytest.mark.parametrize(
    ("run", "not_shown", "fate", "why"),
    [
        (DAY, {"filtered": 0}, "never-sent", "was watching, without a filter"),
        (DAY, {"filtered": 2}, "unknown", "may be filtered"),
        (DAY, {}, "unknown", "may be filtered"),
        (DAY, {"filtered": 0, "lost": 1}, "unknown", "not everything"),
        (DAY, {"filtered": 0, "blocked": 1}, "unknown", "not everything"),
        (
            {**DAY, "ended": "2019-11-24T09:30:03.000000000+00:00"},
            {"filtered": 0},
            "unknown",
            "was",
        ),
        ({"started": None, "ended": None}, {"filtered": 0}, "unknown", "may be filtered"),
    ],
)
def test_what_a_run_that_saw_everything_does_not_tell_was_not_sent(
    run: dict[str, str | None], not_shown: dict[str, int], fate: str, why: str, tmp_path: Path
) -> None:
    """A live tracer's last line says when it ran, and whether it left anything out."""
    a, b = story().write(tmp_path)
    names = (logged(a, tmp_path / "a.jsonl"), logged(b, tmp_path / "b.jsonl"))
    lines = Path(names[1]).read_text().splitlines()
    summary = json.loads(lines[-1])
    summary["totals"].update(run, not_shown=not_shown)
    Path(names[1]).write_text("\n".join([*lines[:-1], json.dumps(summary)]))
    head, *_ = [json.loads(line) for line in compared(names)]
    (reset,) = [
        reset
        for flow in head["comparison"]["flows"]
        for reset in flow["resets"]
        if reset["point"] == "A" and reset["dst"]["port"] == 50002
    ]
    assert reset["fate"] == fate, reset
    assert why in reset["why"]
    assert head["comparison"]["b"]["dropped"] == sum(
        not_shown.get(name, 0) for name in ("lost", "blocked")
    )


def test_two_runs_in_one_log_watched_in_turn(tmp_path: Path) -> None:
    """Between them nobody watched."""
    a, b = story().write(tmp_path)
    names = (logged(a, tmp_path / "a.jsonl"), logged(b, tmp_path / "b.jsonl"))
    lines = Path(names[1]).read_text().splitlines()
    summary = json.loads(lines[-1])
    made = []
    for started, ended in (("00:00:00", "09:00:00"), ("10:00:00", "11:00:00")):
        summary["totals"].update(
            started=f"2019-11-24T{started}.000000000+00:00",
            ended=f"2019-11-24T{ended}.000000000+00:00",
            not_shown={"filtered": 0},
        )
        made.append(json.dumps(summary))
    Path(names[1]).write_text("\n".join([made[0], *lines[:-1], made[1]]))
    head, *_ = [json.loads(line) for line in compared(names)]
    said = {
        reset["fate"]
        for flow in head["comparison"]["flows"]
        for reset in flow["resets"]
        if reset["point"] == "A"
    }
    assert "never-sent" not in said


def test_what_was_amended_counts_once(tmp_path: Path) -> None:
    first = entry_object(next(iter(SAMPLES.values())))
    second = {**first, "id": first["id"] + 1, "amends": first["id"], "origin": "peer"}
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")
    (line,) = load_log(str(path)).lines
    assert line.entry.verdict.origin.value == "peer"


def test_what_was_only_counted_is_no_reset_of_a_log(tmp_path: Path) -> None:
    """It stands for many, none of which can be matched; the summary has them as missing."""
    path = tmp_path / "log.jsonl"
    objects = [entry_object(SAMPLES[name]) for name in ("counted", "peer")]
    path.write_text("".join(json.dumps(made) + "\n" for made in objects))
    (line,) = load_log(str(path)).lines
    assert line.entry.verdict.origin.value == "peer"


def test_a_reset_without_headers_is_not_matched(tmp_path: Path) -> None:
    """What the other end has then proves nothing: this log may have it."""
    path = tmp_path / "log.jsonl"
    objects = [entry_object(SAMPLES[name]) for name in ("unread", "peer")]
    path.write_text("".join(json.dumps(made) + "\n" for made in objects))
    log = load_log(str(path))
    assert [line.entry.verdict.origin.value for line in log.lines] == ["peer"]
    assert log.dropped == 1


@pytest.mark.parametrize("sample", [name for name in SAMPLES if name not in ("counted", "unread")])
def test_what_is_written_can_be_read(sample: str, tmp_path: Path) -> None:
    """All that a log's first line of text shows comes through."""
    made = entry_object(SAMPLES[sample])
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(made))
    (line,) = load_log(str(path)).lines
    again = entry_object(line.entry)
    same = ("time", "kind", "origin", "confidence", "cause", "local", "remote", "family", "rst")
    more = (
        "authors",
        "advice",
        "evidence",
        "findings",
        "device",
        "hops",
        "process",
        "container",
        "pod",
        "netns",
    )
    names = [*same, *more, "file", "frame", "seen"]
    assert {name: again[name] for name in names} == {name: made[name] for name in names}


# ---- nobody's input ----


def test_neither_capture_nor_log(tmp_path: Path) -> None:
    a, _ = story().write(tmp_path)
    other = tmp_path / "other"
    for text, words in (
        ("{}", "neither a capture nor JSON lines"),
        ('{"schema": 2}', "neither a capture nor JSON lines"),
        ("hello", "no capture"),
        ("", "empty"),
    ):
        other.write_text(text)
        with pytest.raises(CaptureError, match=words):
            compared((a, str(other)))
    with pytest.raises(CaptureError, match="cannot open"):
        compared((a, str(tmp_path / "missing")))
    with pytest.raises(CaptureError, match="directory"):
        compared((a, str(tmp_path)))
    with pytest.raises(UsageError, match="same file"):
        compared((a, a))
    with pytest.raises(UsageError, match="standard input"):
        compared((a, "-"))


def changed(value: Any, chance: random.Random) -> Any:
    """The same JSON with one thing in it replaced by something else."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        if chance.random() < 0.1:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: changed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [*value[:at], changed(value[at], chance), *value[at + 1 :]]
    return chance.choice(
        [None, True, -1, 0, 2**70, 1.5, 1e300, "", "\x1b[2J\u202e\ud800", [], {}, ["x"], {"a": 1}]
    )


def test_logs_that_make_no_sense(tmp_path: Path) -> None:
    """Nothing but errors of ours comes out, and only lines that are safe to print."""
    a, b = story().write(tmp_path)
    good = logged(b, tmp_path / "b.jsonl")
    objects = [json.loads(line) for line in Path(good).read_text().splitlines()]
    objects += [entry_object(entry) for entry in SAMPLES.values()]
    chance = random.Random(5)
    path = tmp_path / "changed.jsonl"
    read = 0
    for number in range(CASES):
        rows = [objects[0], *(changed(chance.choice(objects), chance) for _ in range(4))]
        path.write_text("\n".join(json.dumps(row) for row in rows))
        with contextlib.suppress(RsttraceError):
            for line in compared((a, str(path)), ("text", "json")[number % 2], verbose=True):
                assert line.isprintable()
            read += 1
    assert read > CASES // 2


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema":1,"id":' + "9" * 10_000 + "}", "{" * 9])
def test_json_that_breaks_parsers(text: str, tmp_path: Path) -> None:
    a, b = story().write(tmp_path)
    good = Path(logged(b, tmp_path / "b.jsonl"))
    good.write_text(good.read_text().splitlines()[0] + "\n" + text + "\n")
    compared((a, str(good)))
    assert load_log(str(good)).problem is not None


def damage(data: bytes, chance: random.Random) -> bytes:
    """Bits flipped, bytes set, pieces taken out or doubled; cut, or not."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 2, 5, 20))):
        at = chance.randrange(len(made))
        what = chance.randrange(4)
        if what == 0:
            made[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            made[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif what == 2:
            del made[at : at + chance.randrange(1, 40)]
        else:
            made[at:at] = made[at : at + chance.randrange(1, 90)]
    if not chance.randrange(3):
        del made[chance.randrange(24, len(made)) :]
    return bytes(made)


def only_packets(data: bytes, chance: random.Random) -> bytes:
    """The file's structure stays whole: only what the packets say changes."""
    made, at = bytearray(data), 24
    while at < len(data):
        kept = int.from_bytes(data[at + 8 : at + 12], "little")
        for _ in range(chance.choice((0, 0, 1, 3))):
            made[at + 16 + chance.randrange(min(60, kept))] = chance.randrange(256)
        if not chance.randrange(8):  # its time
            made[at + chance.randrange(8)] = chance.randrange(256)
        at += 16 + kept
    return bytes(made)


@pytest.mark.parametrize("how", [damage, only_packets])
@pytest.mark.parametrize("family", [4, 6])
def test_damaged_captures(
    how: Callable[[bytes, random.Random], bytes], family: int, tmp_path: Path
) -> None:
    a, b = story(family).write(tmp_path)
    whole = [Path(name).read_bytes() for name in (a, b)]
    chance = random.Random(family)
    read = 0
    for number in range(CASES):
        for name, data in zip((a, b), whole):
            changed_data = how(data, chance) if chance.randrange(3) else data
            Path(name).write_bytes(changed_data)
        with contextlib.suppress(RsttraceError):
            for line in compared((a, b), ("text", "json")[number % 2], verbose=True):
                assert line.isprintable()
            read += 1
    assert read > CASES // 3
