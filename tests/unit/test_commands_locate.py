from __future__ import annotations

import contextlib
import copy
import json
import random
from typing import Any

import pytest

from rsttrace.commands.clue import Clue, clue_from
from rsttrace.commands.locate import parse_peer
from rsttrace.commands.locator import Job, announcement
from rsttrace.enrich.replay import most_connections
from rsttrace.enrich.target import Limits, resolve
from rsttrace.errors import UsageError
from rsttrace.render.json import entry_object
from tests.unit.path_samples import STRAIGHT
from tests.unit.test_compare_lines import changed as changed_somewhere
from tests.unit.test_render_samples import FORGED, PEER, UNSURE

ENTRY: dict[str, Any] = entry_object(FORGED)


def lines(*entries: Any) -> list[str]:
    return [f"{json.dumps(entry)}\n" for entry in entries]


def test_the_last_forged_entry_counts() -> None:
    later = {**copy.deepcopy(ENTRY), "id": 99, "hops": {"rst": 4, "peer": None}}
    found = clue_from(lines(ENTRY, later, entry_object(PEER), {"summary": {}}), "it")
    assert found == ("10.9.8.7", 3306, Clue(4, None, "00:d0:f8:22:33:44", 99))
    assert clue_from(["\n", *lines(ENTRY)], "it")[2].rst_hops == 1


def test_what_was_sent_is_kept_for_a_replay() -> None:
    sent = {"payload": "00ff", "payload_len": 2}
    assert clue_from(lines(changed(sent_data=sent)), "it")[2].sent == b"\x00\xff"
    assert clue_from(lines(ENTRY), "it")[2].sent is None


def test_an_inconclusive_one_only_for_want_of_better() -> None:
    unsure = entry_object(UNSURE)
    unsure.update(direction="received", made_here=None, hops={"rst": 2, "peer": 3})
    assert clue_from(lines(ENTRY, unsure), "it")[2].certain
    assert not clue_from(lines(unsure), "it")[2].certain


def changed(**fields: Any) -> dict[str, Any]:
    return {**copy.deepcopy(ENTRY), **fields}


WRONG: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "holds no entry of a forged reset"),
    "only the peer's": (lines(entry_object(PEER)), "holds no entry of a forged reset"),
    "no JSON": (["{\n"], "line 1 is not JSON"),
    "text": (["17:30 received FORGED\n"], "line 1 is not JSON"),
    "too deep": (["[" * 100_000 + "\n"], "line 1 is not JSON"),
    "too long": (["1" * (2 << 20)], "the line is too long"),
    "sent": (
        lines(changed(kind="sent-passive", direction="sent")),
        "not received by this host",
    ),
    "made here": (
        lines(changed(made_here={"netns": 1, "kind": "sent-netfilter"})),
        "made by its own node",
    ),
    "no hops": (lines(changed(hops={"rst": None, "peer": 3})), "hops.rst is null"),
    "hops as text": (lines(changed(hops={"rst": "1", "peer": 3})), "not an entry"),
    "hops true": (lines(changed(hops={"rst": True, "peer": 3})), "not an entry"),
    "hops of 999": (lines(changed(hops={"rst": 999, "peer": 3})), "not an entry"),
    "no address": (lines(changed(remote={"ip": "x; rm -rf", "port": 1})), "not an entry"),
    "hostile address": (lines(changed(remote={"ip": "\x1b[2J", "port": 1})), "not an entry"),
    "a port of 70000": (lines(changed(remote={"ip": "10.0.0.1", "port": 70000})), "not an entry"),
    "a list as neighbour": (lines(changed(neighbor=[1])), "not an entry"),
    "no hex": (lines(changed(sent_data={"payload": "xy"})), "not an entry"),
    "nothing but the origin": (lines({"origin": "forged"}), "not an entry"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_clue(wrong: str) -> None:
    given, words = WRONG[wrong]
    with pytest.raises(UsageError) as error:
        clue_from(given, "it")
    assert words in str(error.value)
    assert str(error.value).replace("\n", " ").isprintable()


def test_which_line_it_is_and_what_is_wrong_with_it() -> None:
    wrong = changed(hops={"rst": "1", "peer": 3})
    with pytest.raises(UsageError, match=r"it, line 3 is not an entry .*: hops\.rst is missing"):
        clue_from(lines(ENTRY, {"another": "program's"}, wrong, entry_object(PEER)), "it")


def test_only_the_entry_that_counts_has_to_be_whole() -> None:
    """Lines of other programs and of other versions may stand beside it."""
    others = [changed(kind="received-tomorrow"), changed(origin="aliens"), {"schema": 9}, [1], 7]
    assert clue_from(lines(*others, ENTRY), "it")[2].entry == ENTRY["id"]


def test_nothing_but_a_usage_error_comes_of_nonsense() -> None:
    chance = random.Random(11)
    found = 0
    for _ in range(2000):
        entry = changed_somewhere(ENTRY, chance)
        with contextlib.suppress(UsageError):
            clue_from(lines(entry), "it")
            found += 1
    assert 200 < found < 1900


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.1", "10.0.0.1", 80),
        ("10.0.0.1:3306", "10.0.0.1", 3306),
        ("db.example:1", "db.example", 1),
        ("2001:db8::1", "2001:db8::1", 80),
        ("[2001:db8::1]", "2001:db8::1", 80),
        ("[2001:db8::1]:65535", "2001:db8::1", 65535),
        ("fe80::1%eth0", "fe80::1%eth0", 80),
    ],
)
def test_peers(text: str, host: str, port: int) -> None:
    assert parse_peer(text) == (host, port)


@pytest.mark.parametrize(
    "text", ["", ":80", "[]:80", "h:", "h:0", "h:65536", "h:http", "[::1]:", "[::1]80", "h:\u0661"]
)
def test_what_is_no_peer(text: str) -> None:
    with pytest.raises(UsageError):
        parse_peer(text)


def test_a_replay_is_announced_harmlessly() -> None:
    data = b"GET /\x1b[2J\xff" + b"x" * 99
    job = Job(resolve("10.9.8.7", 3306), Limits(), data=data)
    said = announcement(job, STRAIGHT)
    assert said.isprintable()
    assert f"sending {len(data)} bytes" in said
    assert f"at most {most_connections(6, Limits())} connections" in said
    assert "from TTL 6 on, the peer gets the bytes too" in said
