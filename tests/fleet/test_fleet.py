"""Many nodes' logs in ClickHouse (chDB): what senders say, which boxes forge, nothing twice."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("chdb", reason="needs rsttrace[fleet]: `make fleet` installs it")

from rsttrace.errors import RsttraceError, UsageError
from rsttrace.fleet import load as loading
from rsttrace.fleet import report as reporting
from rsttrace.fleet.amend import entries
from rsttrace.fleet.load import Loader, Spool, load_file, load_stream
from rsttrace.fleet.report import answer, settle, whole_span
from rsttrace.fleet.store import Store, StoreAway, shown
from rsttrace.fleet.text import text_lines
from rsttrace.model import Endpoint, Origin
from tests.fleet import nodes as made
from tests.fleet.nodes import Node
from tests.lab.harness import poll_until


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"chdb:{tmp_path / 'store'}") as opened:
        yield opened


def load(store: Store, tmp_path: Path, *nodes: Node) -> Loader:
    loader = Loader(store)
    for node in nodes:
        path = tmp_path / f"{node.name}.jsonl"
        path.write_text(made.text([node]))
        load_file(loader, store, str(path))
    return loader


def judged(store: Store, node: str) -> dict[int, dict[str, Any]]:
    span = whole_span(store)
    assert span is not None
    settle(store, span)
    rows = store.query(
        "SELECT key, verdict, sure, other_end, other_node, delta_s FROM judged"
        " WHERE node = {node:String} ORDER BY key",
        {"node": node},
    )
    return {row["key"]: row for row in rows}


# ---- the other end ----


def test_what_the_sender_saw_leave_is_its_own_whatever_it_looked_like(
    store: Store, tmp_path: Path
) -> None:
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2", ahead_ns=3 * made.S)
    for number, origin in enumerate((Origin.PEER, Origin.INCONCLUSIVE, Origin.FORGED)):
        made.honest(a, b, number, origin)
    load(store, tmp_path, a, b)
    found = judged(store, "a")
    assert [row["verdict"] for row in found.values()] == ["peer"] * 3
    assert {row["other_end"] for row in found.values()} == {"left"}
    assert {row["sure"] for row in found.values()} == {1.0}
    assert found[1]["delta_s"] == pytest.approx(-2.98)


def test_what_a_watching_sender_never_sent_is_forged(store: Store, tmp_path: Path) -> None:
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2", ahead_ns=-2 * made.S)
    made.honest(a, b, 1)
    made.forged(a, b, 10)
    made.forged(a, b, 11, Origin.INCONCLUSIVE)
    load(store, tmp_path, a, b)
    found = judged(store, "a")
    assert found[1]["verdict"] == "peer"
    assert found[2]["verdict"] == found[3]["verdict"] == "forged"
    assert found[2]["other_end"] == found[3]["other_end"] == "never-sent"


@pytest.mark.parametrize("why", ["lost", "filtered", "cut off", "not there", "shared"])
def test_who_did_not_watch_everything_says_nothing(why: str, store: Store, tmp_path: Path) -> None:
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    made.forged(a, b, 10, Origin.INCONCLUSIVE)
    made.honest(a, b, 1)
    if why == "lost":
        b.lost = 1
    elif why == "filtered":
        b.filtered = 1
    elif why == "cut off":
        b.ends = False
    others = [] if why == "not there" else [b]
    if why == "shared":  # two nodes have that address: whose is it?
        others.append(Node("c", "10.0.0.2"))
        made.sends(others[1], Endpoint("10.9.9.9", 5), 81, 5, made.START_NS)
    load(store, tmp_path, a, *others)
    found = judged(store, "a")
    assert found[1]["verdict"] == "inconclusive"
    assert found[1]["other_end"] == ""


def test_nat_is_seen_through_by_the_numbers(store: Store, tmp_path: Path) -> None:
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    time_ns, seq = made.START_NS, 3_000_000_000
    made.sends(b, Endpoint("192.0.2.9", 61_000), 80, seq, time_ns)  # it sees the NAT's address
    made.receives(a, Endpoint("10.0.0.2", 80), 40_000, seq, time_ns, Origin.INCONCLUSIVE)
    load(store, tmp_path, a, b)
    assert judged(store, "a")[1]["verdict"] == "peer"


@pytest.mark.parametrize("terminates", [False, True], ids=["forwards", "terminates"])
def test_a_gateway_is_asked_only_for_connections_that_end_there(
    terminates: bool, store: Store, tmp_path: Path
) -> None:
    """RSTs of the hosts that it hides come in its name: it has forwarded them, and sent none."""
    a, gateway = Node("a", "10.0.0.1"), Node("gateway", "10.0.0.2")
    made.sends(gateway, Endpoint("10.9.9.9", 5), 22, 5, made.START_NS)  # its address is known
    time_ns, seq = made.START_NS + 60 * made.S, 3_000_000_000
    made.receives(a, Endpoint("10.0.0.2", 61_000), 80, seq, time_ns, Origin.INCONCLUSIVE)
    if terminates:  # it was reset on the same connection: so it is one of its own
        made.receives(gateway, Endpoint("10.0.0.1", 80), 61_000, 99_999, time_ns, Origin.FORGED)
    load(store, tmp_path, a, gateway)
    found = judged(store, "a")[1]
    assert found["verdict"] == ("forged" if terminates else "inconclusive")


def test_what_was_only_counted_is_no_packet_of_its_own(store: Store, tmp_path: Path) -> None:
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    made.honest(a, b, 1)
    storm = made.forged(a, b, 10, Origin.INCONCLUSIVE)
    storm["seen"] = 5000
    load(store, tmp_path, a, b)
    assert judged(store, "a")[2]["other_end"] == ""
    span = whole_span(store)
    assert span is not None
    assert answer(store, span).totals["resets"] == 5002


def test_small_numbers_are_no_proof_through_nat(store: Store, tmp_path: Path) -> None:
    """Many RSTs have seq 0: only addresses and ports tell those apart."""
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2", filtered=1)
    made.sends(b, Endpoint("192.0.2.9", 61_000), 80, 0, made.START_NS)
    made.receives(a, Endpoint("10.0.0.2", 80), 40_000, 0, made.START_NS, Origin.INCONCLUSIVE)
    load(store, tmp_path, a, b)
    assert judged(store, "a")[1]["verdict"] == "inconclusive"


def test_the_report_names_the_box_and_accuses_no_honest_node(store: Store, tmp_path: Path) -> None:
    fleet = [Node(f"n{i}", f"10.0.0.{i + 1}", ahead_ns=(i - 2) * made.S) for i in range(5)]
    number = 0
    for a in fleet:
        for b in fleet:
            if a is not b:
                number += 1
                made.honest(a, b, number, Origin.INCONCLUSIVE if number % 3 else Origin.FORGED)
    for number, a in enumerate(fleet[1:]):
        made.forged(a, fleet[0], 100 + number)
    load(store, tmp_path, *fleet)
    span = whole_span(store)
    assert span is not None
    settle(store, span)
    found = answer(store, span)
    assert found.totals["forged"] == 4
    assert found.totals["sent_by_the_peer"] == 20
    (box,) = found.boxes
    assert (box["nodes"], box["resets"], box["never_sent"]) == (4, 4, 4)
    (side,) = box["sides"]
    assert side["mac"] == "00:d0:f8:22:33:44"
    text = "\n".join(text_lines(found))
    assert "1 hop away, handed over by 00:d0:f8:22:33:44 (Ruijie Networks) = 10.1.0.1" in text
    ahead = {row["node"]: row["ahead_s"] for row in found.clocks}
    assert ahead["n4"] == pytest.approx(2.5, abs=0.1)  # the others are at -2, -1, 0 and 1 s
    assert set(ahead) == {"n0", "n1", "n3", "n4"}


def report(store: Store) -> reporting.Answers:
    span = whole_span(store)
    assert span is not None
    settle(store, span)
    return answer(store, span)


def test_who_closes_idle_connections_first(store: Store, tmp_path: Path) -> None:
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    for number, idle_s in enumerate((60.0, 60.1, 61.0)):
        entry = made.honest(a, b, number)
        entry["cause"] |= {"closed_by": "peer", "idle_s": idle_s}
    made.honest(a, b, 9)  # closed by nobody before
    load(store, tmp_path, a, b)
    found = report(store)
    (row,) = found.idle
    assert (row["closer"], row["port"], row["typical_s"]) == ("::ffff:10.0.0.2", 80, 60.1)
    assert (row["resets"], row["used_by"]) == (3, 1)
    assert "10.0.0.2 port 80 after 60.1 s idle (60.0 to 61.0 s), 3 times" in "\n".join(
        text_lines(found)
    )


def test_whose_accept_queue_overflows(store: Store, tmp_path: Path) -> None:
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    for number, node in enumerate((a, a, b)):
        peer = Endpoint(f"10.9.0.{number}", 5000)
        made.sends(node, peer, 8080, 77_000 + number, made.START_NS)
        node.entries[-1]["cause"] |= {"name": "listen-overflow", "text": "the queue is full"}
    made.sends(a, Endpoint("10.9.9.9", 1), 8080, 5, made.START_NS)
    load(store, tmp_path, a, b)
    (row,) = report(store).overflows
    assert (row["port"], row["resets"], row["clients"]) == (8080, 3, 3)
    assert row["some_nodes"] == ["a", "b"]


def test_what_is_new_is_told_against_the_time_before(store: Store, tmp_path: Path) -> None:
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    for number, days in enumerate((0, 7)):
        made.honest(a, b, number, days=days)
    for number in (5, 6):
        made.forged(a, b, number, days=7)
    load(store, tmp_path, a, b)
    whole = whole_span(store)
    assert whole is not None
    settle(store, whole)
    week = (whole[0] + timedelta(days=6.5), whole[0] + timedelta(days=13.5))
    found = answer(store, week)
    (row,) = found.changes
    assert (row["verdict"], row["before"], row["now"]) == ("forged", 0, 2)
    (box,) = found.boxes
    assert box["before"] == 0
    assert "new" in text_lines(found)[4]
    # of a store that has nothing of the time before nothing is said to be new
    found = answer(store, whole)
    assert (found.before, found.changes) == (0, [])
    assert "nothing to compare with" in text_lines(found)[-1]


def test_entries_are_amended_as_compare_does(store: Store, tmp_path: Path) -> None:
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    made.honest(a, b, 1, Origin.FORGED)
    made.forged(a, b, 10, Origin.INCONCLUSIVE)
    made.honest(a, b, 20, Origin.PEER)
    b.entries[-1]["kind"] = "sent-raw"
    load(store, tmp_path, a, b)
    span = whole_span(store)
    assert span is not None
    settle(store, span)
    found = [line for _, line in entries(store, span) if line["direction"] == "received"]
    assert [line["origin"] for line in found] == ["peer", "forged", "forged"]
    first, second, third = (line["evidence"][0] for line in found)
    assert (first["rule"], first["proof"]) == ("other-end", True)
    assert (second["rule"], second["proof"]) == ("other-end-log", False)
    assert third["text"].startswith("a program on b wrote it through a raw socket")
    stored = {
        row["key"]: row["verdict"]
        for row in store.query("SELECT key, verdict FROM judged WHERE node = 'a'")
    }
    assert stored == {line["id"]: line["origin"] for line in found}
    assert len(list(entries(store, span, verdict="forged", most=1))) == 1


# ---- loading ----


def count(store: Store) -> int:
    return int(store.query("SELECT count() AS n FROM resets")[0]["n"])


def test_what_is_loaded_twice_counts_once_and_amendments_replace(
    store: Store, tmp_path: Path
) -> None:
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    first = made.forged(a, b, 1, Origin.INCONCLUSIVE)
    later = {**made.forged(a, b, 1, Origin.FORGED), "id": 2, "amends": first["id"]}
    a.entries[1] = later
    load(store, tmp_path, a)
    load(store, tmp_path, a)
    copied = tmp_path / "copied.jsonl.gz"
    copied.write_bytes(gzip.compress(made.text([a]).encode()))
    load_file(Loader(store), store, str(copied))
    assert count(store) == 1
    assert store.query("SELECT origin FROM resets") == [{"origin": "forged"}]


def test_a_file_that_grows_is_loaded_from_where_it_was(store: Store, tmp_path: Path) -> None:
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    for number in range(10):
        made.forged(a, b, number)
    lines = a.lines()
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines[:4]) + "\n" + lines[4][:50])  # somebody is writing
    load_file(Loader(store), store, str(path))
    assert count(store) == 4
    path.write_text("\n".join(lines) + "\n")
    loader = Loader(store)
    load_file(loader, store, str(path))
    assert count(store) == 10
    assert loader.loaded.already == 4
    assert loader.loaded.entries == 6


def test_zstd_is_read_and_strange_lines_are_counted(store: Store, tmp_path: Path) -> None:
    zstd = pytest.importorskip("backports.zstd")
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    made.forged(a, b, 1)
    path = tmp_path / "a.zst"
    path.write_bytes(zstd.compress(("no json\n" + made.text([a])).encode()))
    loader = Loader(store)
    load_file(loader, store, str(path))
    assert count(store) == 1
    assert loader.loaded.skipped == 1
    assert "lines are none of rsttrace's" in loader.loaded.line()


class Away:
    """A store that is away for a while."""

    def __init__(self, store: Store, times: int) -> None:
        self._store, self._times = store, times

    def insert(self, *arguments: Any) -> None:
        if self._times:
            self._times -= 1
            raise StoreAway("the store is away")
        self._store.insert(*arguments)

    def query(self, *arguments: Any) -> Any:
        if self._times:
            self._times -= 1
            raise StoreAway("the store is away")
        return self._store.query(*arguments)


def test_while_the_store_is_away_what_comes_waits_on_the_disk(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "BATCH", 10)
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    for number in range(95):
        made.forged(a, b, number)
    away: Any = Away(store, 4)
    spool = Spool(tmp_path / "spool")
    load_stream(Loader(away), io.StringIO(made.text([a])), spool)
    assert count(store) == 95
    assert spool.files() == []


def test_a_full_spool_makes_the_writer_wait(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "BATCH", 10)
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    for number in range(40):
        made.forged(a, b, number)
    away: Any = Away(store, 6)
    slept: list[float] = []
    spool = Spool(tmp_path / "spool", most=1)
    load_stream(Loader(away), io.StringIO(made.text([a])), spool, sleep=slept.append)
    assert slept
    assert count(store) == 40


def test_what_still_waits_at_the_end_is_said_and_loaded_by_the_next(
    store: Store, tmp_path: Path
) -> None:
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    made.forged(a, b, 1)
    away: Any = Away(store, 1)
    with pytest.raises(RsttraceError, match="1 batches wait in the spool"):
        load_stream(Loader(away), io.StringIO(made.text([a])), Spool(tmp_path / "spool"))
    load_stream(Loader(store), io.StringIO(""), Spool(tmp_path / "spool"))  # < /dev/null
    assert count(store) == 1


def test_killed_at_any_moment_nothing_is_lost_and_nothing_twice(tmp_path: Path) -> None:
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    for number in range(3_000):
        made.forged(a, b, number % 20_000)
    path, where = tmp_path / "a.jsonl", tmp_path / "store"
    path.write_text(made.text([a]))
    code = (
        "import sys; from rsttrace.fleet import load; load.BATCH = 100;"
        " from rsttrace.commands import fleet;"
        " sys.exit(fleet.load(sys.argv[1], [sys.argv[2]], node=None, spool='unused'))"
    )
    command = [sys.executable, "-c", code, f"chdb:{where}", str(path)]
    for delay_s in (1.2, 1.6, 2.0, 2.6):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                process.wait(delay_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
    subprocess.run(command, check=True, capture_output=True)
    with Store(f"chdb:{where}") as store:
        assert count(store) == 3_000


def pipe_load(store: str, spool: Path) -> subprocess.Popen[bytes]:
    """A load of its standard input."""
    return subprocess.Popen(
        [sys.executable, "-m", "rsttrace", "fleet", "load", "-", "--spool", str(spool)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "RSTTRACE_STORE": store},
    )


def kept(spool: Path, size: int) -> bool:
    """Whether a journal has so many bytes."""
    return any(path.stat().st_size >= size for path in spool.glob("*.journal"))


def test_a_load_of_a_pipe_that_is_killed_has_lost_nothing_of_what_it_read(tmp_path: Path) -> None:
    """Batches are large, so that all of it was in memory: the next load finds it in the spool."""
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    for number in range(300):
        made.forged(a, b, number)
    lines = [f"{line}\n".encode() for line in a.lines()]
    where, spool = f"chdb:{tmp_path / 'store'}", tmp_path / "spool"
    for part in (lines[:100], lines[100:200]):
        data = b"".join(part)
        with pipe_load(where, spool) as process:
            assert process.stdin is not None
            process.stdin.write(data[:-20])  # the last line is not whole
            process.stdin.flush()
            poll_until(partial(kept, spool, len(data) - 20), "all of it on the disk")
            process.kill()
    with pipe_load(where, spool) as process:
        process.communicate(b"".join([lines[99], *lines[199:]]))
    assert process.returncode == 0
    with Store(where) as store:
        assert count(store) == 300
    assert list(spool.iterdir()) == []


def test_a_server_that_is_away_from_the_start_on_loses_nothing(tmp_path: Path) -> None:
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    for number in range(10):
        made.forged(a, b, number)
    spool = tmp_path / "spool"
    with pipe_load("clickhouse://127.0.0.1:1/db", spool) as process:
        _, said = process.communicate(made.text([a]).encode())
    assert process.returncode != 0
    assert b"1 batches wait in the spool" in said
    where = f"chdb:{tmp_path / 'store'}"
    with pipe_load(where, spool) as process:
        process.communicate(b"")
    assert process.returncode == 0
    with Store(where) as store:
        assert count(store) == 10


def test_a_spool_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RsttraceError, match="cannot be used"):
        Spool(tmp_path / "file" / "spool")


# ---- the command line ----


def test_from_the_command_line(tmp_path: Path) -> None:
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    made.honest(a, b, 1)
    made.forged(a, b, 2)
    path = tmp_path / "all.jsonl"
    path.write_text(made.text([a, b]))

    def run(*words: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", "rsttrace", "fleet", *words],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "RSTTRACE_STORE": f"chdb:{tmp_path / 'store'}"},
        )
        return ran.stdout + ran.stderr

    assert "3 entries of 2 runs loaded" in run("load", str(path))
    assert "3 resets of 2 nodes" in run("report", "--report", str(tmp_path / "fleet.html"))
    assert "<title>TCP resets of 2 nodes</title>" in (tmp_path / "fleet.html").read_text()
    assert (
        json.loads(run("report", "-o", "json", "--since", "7d"))["fleet"]["totals"]["forged"] == 1
    )
    (line,) = run("entries", "-o", "json", "--origin", "peer").splitlines()
    assert json.loads(line)["evidence"][0]["rule"] == "other-end"
    assert "PEER 100%" in run("entries", "-c", "2")
    rows = run("sql", "SELECT verdict, count() AS n FROM judged GROUP BY verdict ORDER BY verdict")
    assert [json.loads(row)["verdict"] for row in rows.splitlines()] == ["forged", "local", "peer"]


def test_a_store_that_another_process_uses_is_said(tmp_path: Path) -> None:
    where = f"chdb:{tmp_path / 'store'}"
    with Store(where) as store:
        store.query("SELECT 1")
        ran = subprocess.run(
            [sys.executable, "-m", "rsttrace", "fleet", "sql", "SELECT 1", "--store", where],
            check=False,
            capture_output=True,
            text=True,
        )
    assert ran.returncode != 0
    assert "is another process using it?" in ran.stderr


@pytest.mark.parametrize("url", ["nowhere", "chdb:", "clickhouse://", "http://a"])
def test_what_names_no_store_is_said(url: str) -> None:
    with pytest.raises(UsageError, match="names no store"):
        Store(url)


def test_a_server_that_is_not_there_is_said_without_its_password() -> None:
    began = time.monotonic()
    with (
        Store("clickhouse://me:secret@127.0.0.1:1/db") as store,
        pytest.raises(StoreAway) as told,
    ):
        store.query("SELECT 1")
    assert "does not answer" in str(told.value)
    assert "secret" not in str(told.value)
    assert shown("clickhouse://me:secret@h/db") == "clickhouse://me:...@h/db"
    assert time.monotonic() - began < 120
