"""What ``rsttrace top`` counts and lists, and the feed that brings it."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest

from rsttrace.errors import CaptureError, UsageError
from rsttrace.model import Endpoint, Entry, Origin, Process
from rsttrace.render.json import entry_line
from rsttrace.top import board as module
from rsttrace.top import feed as feeding
from rsttrace.top.board import Board, Table
from rsttrace.top.feed import Feed
from tests.unit import test_render_samples as samples

CASES = Path(__file__).parents[1] / "cases"


def numbered(entry: Entry, number: int, port: int | None = None) -> Entry:
    entry = dataclasses.replace(entry, id=number, amends=None)
    return entry if port is None else samples.with_reset(entry, local=Endpoint("10.0.0.5", port))


def test_the_newest_is_on_top_and_rates_are_of_the_last_seconds() -> None:
    board = Board(utc=True)
    for number in range(1, 31):
        board.add(numbered(samples.FORGED, number), number)
    board.add(numbered(samples.PEER, 31), 30.5)
    assert [row.key for row in board.rows()][:2] == [31, 30]
    rates = board.rates(30.9)
    assert rates[Origin.FORGED] == 1.0
    assert rates[Origin.PEER] == 0.1
    by_cause = {name: rate for name, rate in rates.items() if isinstance(name, str)}
    assert sum(by_cause.values()) == pytest.approx(sum(rates[origin] for origin in Origin))
    assert set(by_cause) <= {name for name, _ in board.top(Table.CAUSES)}
    assert board.rates(50)[Origin.FORGED] == 0


def test_words_filter_what_is_listed_whatever_their_case() -> None:
    board = Board()
    board.add(numbered(samples.FORGED, 1, 1111), 0)
    board.add(numbered(samples.PEER, 2, 2222), 0)
    assert [row.key for row in board.rows("forged 10.9.8.7")] == [1]
    assert [row.key for row in board.rows("PEER :2222")] == [2]
    assert board.rows("forged 2222") == []


def test_rows_are_sorted_by_a_column() -> None:
    board = Board()
    for number, port in ((1, 3000), (2, 1000), (3, 2000)):
        board.add(numbered(samples.FORGED, number, port), 0)
    assert [row.key for row in board.rows(by="local")] == [2, 3, 1]


def test_an_amended_entry_counts_as_what_it_has_become() -> None:
    board = Board()
    board.add(numbered(samples.UNSURE, 1), 0)
    board.add(dataclasses.replace(samples.FORGED, id=2, amends=1), 1)
    board.add(dataclasses.replace(samples.FORGED, id=3, amends=99), 1)  # forgotten long ago
    assert board.shown == 1
    assert board.origins[Origin.FORGED] == 1
    assert board.origins[Origin.INCONCLUSIVE] == 0
    (row,) = board.rows()
    assert (row.key, row.origin) == (1, Origin.FORGED)
    assert [count for _, count in board.top(Table.AUTHORS)] == [1]


def test_tables_name_who_and_what_is_most_frequent() -> None:
    board = Board()
    for number in range(1, 4):
        board.add(numbered(samples.FORGED, number), 0)
    board.add(numbered(samples.PEER, 4), 0)
    assert board.top(Table.PEERS)[0] == ("10.9.8.7", 4)
    assert "00:d0:f8:22:33:44 Ruijie Networks = 192.168.1.1" in dict(board.top(Table.DEVICES))
    assert board.top(Table.AUTHORS)[0][1] == 3


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 10)
    monkeypatch.setattr(module, "NAMES", 10)
    board = Board()
    for number in range(1, 101):
        remote = Endpoint(f"10.9.8.{number}", 1)
        board.add(samples.with_reset(numbered(samples.PEER, number), remote=remote), number)
    assert len(board.rows()) == 10
    assert board.shown == 100
    assert len(board.top(Table.PEERS, 100)) <= 10
    assert board.entry(1) is None


def test_hostile_names_are_spelled_out() -> None:
    process = Process(7, "\x1b[31m\u202e", 0)
    board = Board()
    board.add(samples.with_reset(numbered(samples.PEER, 1), process=process), 0)
    shown = [name for table in Table for name, _ in board.top(table)]
    shown += [cell for row in board.rows() for cell in row.cells()]
    assert not any("\x1b" in text or "\u202e" in text for text in shown)
    assert any("\\x1b" in text for text in shown)


# ---- the feed ----


def all_of(feed: Feed) -> list[Entry]:
    ends = time.monotonic() + 60
    found: list[Entry] = []
    while time.monotonic() < ends:
        ended = feed.ended
        found += feed.take()
        if ended:
            return found + feed.take()
    raise AssertionError("the feed does not end")


def test_json_lines_are_read_and_what_is_none_of_ours_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [entry_line(numbered(samples.FORGED, 1)), "no json", '{"schema":1,"id":"x"}']
    path.write_text("\n".join([*lines, json.dumps({"schema": 1, "summary": {}})]) + "\n")
    with Feed(str(path)) as feed:
        (entry,) = all_of(feed)
        assert entry.verdict.origin is Origin.FORGED
        assert feed.not_understood == 2


def test_a_capture_is_read_by_rsttrace_itself() -> None:
    with Feed(str(CASES / "pf-reset.pcap"), ["--utc"]) as feed:
        (entry,) = all_of(feed)
        assert entry.verdict.origin is Origin.FORGED
        assert feed.failed == 0


def test_what_fails_is_said(tmp_path: Path) -> None:
    wrong = tmp_path / "a.pcap"
    wrong.write_bytes(b"nothing of the kind")
    with Feed(str(wrong)) as feed:
        assert all_of(feed) == []
        assert feed.failed == 1
        assert "a.pcap" in feed.said()
    with pytest.raises(CaptureError, match="cannot open"):
        Feed(str(tmp_path / "missing"))


def test_a_screen_that_is_too_slow_loses_the_oldest_and_says_how_many(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(feeding, "WAITING", 5)
    path = tmp_path / "log.jsonl"
    path.write_text(
        "".join(entry_line(numbered(samples.FORGED, number)) + "\n" for number in range(1, 21))
    )
    feed = Feed(str(path))
    feed.live = True
    with feed:
        feed._threads[0].join(60)
        found = feed.take()
    assert [entry.id for entry in found] == [16, 17, 18, 19, 20]
    assert feed.left_out == 15


@pytest.mark.parametrize("option", ["-o", "--write=x", "--report"])
def test_what_the_screen_does_itself_is_not_passed_on(option: str) -> None:
    from rsttrace.commands.top import run_command

    with pytest.raises(UsageError, match="top does not take"):
        run_command("x", [option], plain=True, every_s=1, utc=False)
