"""The tables for a cluster.

No server of today is in a package registry. What the engine alone can say of them is asked
of chDB, which is the same engine; what needs several servers is not tested.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("chdb", reason="needs rsttrace[fleet]: `make fleet` installs it")

from rsttrace.fleet.load import Loader, load_file
from rsttrace.fleet.store import Store, sql, statements
from rsttrace.model import Origin
from tests.fleet import nodes as made
from tests.fleet.nodes import Node

CLUSTER = statements(sql("cluster"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"chdb:{tmp_path / 'store'}") as opened:
        yield opened


@pytest.mark.parametrize("number", range(len(CLUSTER)))
def test_the_engine_reads_each_statement(number: int, store: Store) -> None:
    assert store.query(f"EXPLAIN AST {CLUSTER[number]}")


def test_every_table_has_its_distributed_one() -> None:
    tables = re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)\n", sql("schema"))
    distributed = re.findall(r"Distributed\(CLUSTER, rsttrace_local, (\w+),", sql("cluster"))
    assert sorted(distributed) == sorted(tables)


def test_counts_for_each_minute(store: Store, tmp_path: Path) -> None:
    """On one server: the same statements without what only a cluster has."""
    store.query("SELECT 1")
    for statement in CLUSTER:
        if "minutes" not in statement:
            continue
        alone = re.sub(r" ON CLUSTER CLUSTER|rsttrace_local\.", "", statement)
        store.command(re.sub(r"ReplicatedAgg(\w+)\([^)]*\)", r"Agg\1()", alone))
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    for number in range(90):  # one each second
        made.forged(a, b, number, Origin.FORGED if number % 3 else Origin.INCONCLUSIVE)
    path, again = tmp_path / "a.jsonl", tmp_path / "again.jsonl"
    for each in (path, again):
        each.write_text(made.text([a]))
        load_file(Loader(store), store, str(each))
    rows = store.query(
        "SELECT minute, origin, uniqExactMerge(resets) AS n FROM minutes GROUP BY ALL ORDER BY ALL"
    )
    assert [(row["origin"], row["n"]) for row in rows] == [
        ("forged", 40),
        ("inconclusive", 20),
        ("forged", 20),
        ("inconclusive", 10),
    ]
