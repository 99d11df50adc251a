"""A real fleet: the report names the box, places it, and accuses no honest node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("chdb", reason="needs rsttrace[fleet]: `make fleet` installs it")
from tests.fleet import lab as fleet
from tests.lab.harness import mac_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root: `sudo make fleet`")

Rows = list[dict[str, Any]]


class Fleet(NamedTuple):
    """What was played, and how its logs are asked."""

    store: str
    logs: list[Path]
    forged: int
    macs: dict[str, str]

    def run(self, *words: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", "rsttrace", "fleet", *words],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "RSTTRACE_STORE": self.store},
        )
        return ran.stdout

    def ask(self, question: str) -> Rows:
        return [json.loads(line) for line in self.run("sql", question).splitlines()]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Played once, loaded, and reported once, so that every other end has been asked."""
    folder = tmp_path_factory.mktemp("fleet")
    with fleet.recorded(folder) as (lab, logs, forged):
        macs = {site: mac_of(lab, f"r{site}", "br0") for site in fleet.SITES}
    made = Fleet(f"chdb:{folder / 'store'}", logs, forged, macs)
    made.run("load", *map(str, logs))
    made.run("report")
    return made


@pytest.fixture(scope="module")
def report(played: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(played.run("report", "-o", "json"))["fleet"]
    return found


BY_THE_BOX = f"({fleet.FORGED}, {fleet.COPIED})"
ITS = f"(local_port IN {BY_THE_BOX} OR remote_port IN {BY_THE_BOX})"


def test_no_honest_node_is_accused(played: Fleet) -> None:
    accused = played.ask(
        f"SELECT * EXCEPT (json) FROM judged WHERE verdict = 'forged' AND NOT {ITS}"
    )
    assert accused == []


def test_every_forgery_is_found_at_both_ends(played: Fleet) -> None:
    found = played.ask(
        "SELECT verdict, count() AS n FROM judged"
        f" WHERE direction = 'received' AND {ITS} GROUP BY ALL"
    )
    outside = sum(host == fleet.OUTSIDE for host in fleet.HOSTS) * 2 * 4  # as client of a1 .. a4
    assert found == [{"verdict": "forged", "n": 2 * played.forged - outside}]


def test_the_sender_proves_what_looked_strange(played: Fleet) -> None:
    """Its program sets a TTL, its kernel's own answer has another: alone, nobody could tell."""
    strange = f"direction = 'received' AND remote_port = {fleet.STRANGE}"
    watched = f"remote_ip != toIPv6('::ffff:{fleet.address(fleet.OUTSIDE)}')"
    alone = played.ask(f"SELECT DISTINCT origin FROM judged WHERE {strange}")
    assert alone != [{"origin": "peer"}]
    together = played.ask(
        "SELECT verdict, other_end, count() AS n FROM judged"
        f" WHERE {strange} AND {watched} GROUP BY ALL"
    )
    ((verdict, other_end, count),) = (tuple(row.values()) for row in together)
    assert (verdict, other_end) == ("peer", "left")
    assert count > 50


def test_nat_is_seen_through_and_a_gateway_is_not_taken_for_whom_it_hides(played: Fleet) -> None:
    gateway = (
        f"remote_ip = toIPv6('::ffff:{fleet.GATEWAY_IP}') AND remote_port != {fleet.HONEST + 1}"
    )
    found = played.ask(
        f"SELECT other_end, other_node, count() AS n FROM judged"
        f" WHERE direction = 'received' AND {gateway} AND NOT {ITS} GROUP BY ALL ORDER BY ALL"
    )
    # of c1 .. c3 their own logs have each one; c4 has no log, and its gateway is not asked for it
    assert {row["other_node"] for row in found} == {"", "c1", "c2", "c3"}
    assert {row["other_end"] for row in found} == {"", "left"}


def test_the_box_is_named_and_placed(played: Fleet, report: dict[str, Any]) -> None:
    box = report["boxes"][0]
    assert fleet.FORGED in box["ports"]
    assert box["nodes"] == len(fleet.NODES) - 1  # all but the gateway
    # a1 - ra - box - core - rb - b1
    assert (box["place"]["router"], box["place"]["of"]) == (2, 4)
    assert box["place"]["from"][0] == "a"
    assert box["place"]["to"][0] in "bc"
    seen = {(side["mac"], side["hops"]) for side in box["sides"]}
    assert seen == {(played.macs["a"], 1), (played.macs["b"], 2), (played.macs["c"], 2)}
    assert box["never_sent"] > 0
    # what takes over the TTLs of others cannot be placed, and is not
    assert all(other["place"] is None for other in report["boxes"][1:])
    assert all(fleet.COPIED in other["ports"] for other in report["boxes"][1:])


def test_who_answers_un_nated_is_named(report: dict[str, Any]) -> None:
    (row,) = report["answers_un_nated"]
    assert row["answers"] == f"::ffff:{fleet.address('b1')}"
    assert (row["port"], row["its_node"]) == (fleet.UNTRANSLATED, "b1")
    assert row["some_nodes"] == ["a1", "a2", "b2"]


def test_clocks_are_found_as_they_were_set(played: Fleet) -> None:
    pairs = played.ask("SELECT node, other_node, ahead_s FROM clocks FINAL")
    assert len(pairs) > 50
    for row in pairs:
        true_s = fleet.AHEAD_S[row["node"]] - fleet.AHEAD_S[row["other_node"]]
        assert row["ahead_s"] == pytest.approx(true_s, abs=1)
