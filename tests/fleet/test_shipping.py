"""What Fluent Bit and Vector put into the store.

Neither is in Debian: their files are read here, and what their documentation says they send is
inserted as they would.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("chdb", reason="needs rsttrace[fleet]: `make fleet` installs it")

from rsttrace.fleet import load as loading
from rsttrace.fleet.load import Loader, load_incoming
from rsttrace.fleet.store import Store
from rsttrace.render.journal import MESSAGE_ID
from tests.fleet import nodes as made
from tests.fleet.nodes import Node

FILES = Path(__file__).parents[2] / "docs" / "fleet"
FLUENT_BIT, VECTOR = FILES / "fluent-bit.yaml", FILES / "vector.yaml"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"chdb:{tmp_path / 'store'}") as opened:
        yield opened


def parsed(path: Path) -> Any:
    return pytest.importorskip("yaml", reason="needs PyYAML: rsttrace[fleet,packages]").safe_load(
        path.read_text(encoding="utf-8")
    )


def statement() -> str:
    """The INSERT that Fluent Bit's output asks for."""
    found = re.search(r"uri: (\S+)", FLUENT_BIT.read_text(encoding="utf-8"))
    assert found is not None
    uri = str(found[1])
    query = parse_qs(urlsplit(uri).query)
    assert query["input_format_skip_unknown_fields"] == ["1"]
    return query["query"][0]


def ship(store: Store, *lines: str) -> None:
    """As ``format: json_lines`` is, with a key that was not asked for."""
    body = "\n".join(json.dumps({"log": line, "extra": 1}) for line in lines)
    words = statement().replace(" FORMAT", " SETTINGS input_format_skip_unknown_fields = 1 FORMAT")
    store.command(f"{words}\n{body}")


def count(store: Store) -> int:
    return int(store.query("SELECT count() AS n FROM resets")[0]["n"])


def test_what_was_shipped_becomes_entries_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "BATCH", 7)
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    for number in range(40):
        made.forged(a, b, number)
    lines = a.lines()
    store.query("SELECT 1")  # the tables are there
    ship(store, *lines[:20], lines[3])
    load_incoming(Loader(store), store)
    assert count(store) == 20
    ship(store, "no line of ours", *lines[20:])
    loader = Loader(store)
    load_incoming(loader, store)
    load_incoming(Loader(store), store)
    assert count(store) == 40
    assert loader.loaded.skipped == 1
    (run,) = store.query("SELECT whole FROM watched")
    assert run["whole"]


def test_both_ask_for_our_entries_of_the_journal_and_for_one_table() -> None:
    fluent_bit, vector = parsed(FLUENT_BIT), parsed(VECTOR)
    files, journal = fluent_bit["pipeline"]["inputs"]
    assert journal["systemd_filter"] == f"MESSAGE_ID={MESSAGE_ID}"
    assert files["key"] == "log"
    assert statement() == "INSERT INTO incoming FORMAT JSONEachRow"
    assert vector["sources"]["rsttrace_journal"]["include_matches"] == {"MESSAGE_ID": [MESSAGE_ID]}
    sink = vector["sinks"]["rsttrace_clickhouse"]
    assert (sink["table"], sink["format"]) == ("incoming", "json_each_row")
    # nothing is lost while the store is away, and the disk does not fill up
    assert {each["storage.type"] for each in (files, journal)} == {"filesystem"}
    assert sink["buffer"]["type"] == "disk"
