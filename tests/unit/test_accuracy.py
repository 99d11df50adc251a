"""The judge of the judge: matching, labels, bars. No root, no kernel."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from rsttrace.errors import RsttraceError
from rsttrace.judge.verdict import decide, judge
from rsttrace.model import Origin
from tests.accuracy import captures, heldout, record
from tests.accuracy.case import Outcome
from tests.accuracy.cases import all_cases
from tests.accuracy.reading import read_capture, settled
from tests.accuracy.sniff import Honest, Sighting, Wire, parse
from tests.accuracy.table import (
    by_label,
    column,
    failures,
    false_findings,
    same_to_the_host,
    table,
    without_twin,
)
from tests.lab.harness import Json
from tests.unit.builders import PEER, PEER6, US, US6, ipv4_bytes, ipv6_bytes, reset, tcp_bytes
from tests.unit.captures import incident, pcap, write

WIRE = Wire(PEER, US, (3306, 51234), 1000, 0, 4, 0, 7)


def outcome(
    label: str = "forged",
    trust: str = "proven",
    origin: str | None = "forged",
    first: str | None = None,
) -> Outcome:
    flow: Json = {"baseline": {"scope": "flow"}}
    entry: Json | None = None if origin is None else {"origin": origin, **flow}
    earlier: Json | None = None if first is None else {"origin": first}
    return Outcome("a case", "a box", "client", label, trust, entry, earlier)


def test_parse_reads_both_families() -> None:
    assert parse(ipv4_bytes(ip_id=7, ttl=47) + tcp_bytes()) == (WIRE, 47)
    wanted = WIRE._replace(source=PEER6, target=US6, ip_id=0)
    assert parse(ipv6_bytes(ttl=33) + tcp_bytes()) == (wanted, 33)


@pytest.mark.parametrize(
    "packet",
    [b"", b"\x45" * 10, ipv4_bytes() + tcp_bytes("A"), ipv4_bytes(), b"\x00" * 60],
    ids=["nothing", "short", "no RST", "no TCP header", "no IP"],
)
def test_parse_takes_nothing_else(packet: bytes) -> None:
    assert parse(packet) is None


def test_a_rst_that_left_the_peer_is_genuine_once_and_only_at_its_distance() -> None:
    honest = Honest([Sighting("server", True, WIRE, 64)], hops=5)
    assert not honest.take(WIRE, 60)
    assert not honest.take(WIRE._replace(seq=1), 59)
    assert honest.take(WIRE, 59)
    assert not honest.take(WIRE, 59)


def test_the_last_word_counts_and_the_first_is_kept() -> None:
    entries: list[Json] = [
        {"id": 1, "amends": None, "origin": "peer"},
        {"id": 2, "amends": None, "origin": "forged"},
        {"id": 3, "amends": 1, "origin": "forged"},
    ]
    assert settled(entries) == [(entries[2], entries[0]), (entries[1], None)]


@pytest.mark.parametrize(
    ("what", "wanted"),
    [
        (outcome(), "found"),
        (outcome(origin="peer"), "missed"),
        (outcome(origin="inconclusive"), "inconclusive"),
        (outcome(origin=None), "untold"),
        (outcome("genuine", "honest"), "false accusation"),
        (outcome("genuine", "honest", "peer"), "cleared"),
        (outcome("genuine", "honest", "peer", first="forged"), "false accusation"),
        (outcome("indistinguishable", "-", "peer"), "cleared"),
        (outcome("box", "decidable"), "found"),
        (outcome("box", "decidable", "peer"), "missed"),
    ],
)
def test_columns(what: Outcome, wanted: str) -> None:
    assert column(what) == wanted
    assert table([what], "label", by_label).splitlines()[1].count("1") >= 2


def test_bars() -> None:
    assert failures([outcome(), outcome("genuine", "honest", "peer")]) == []
    assert "called forged" in failures([outcome("genuine", "honest")])[0]
    assert "nothing was said" in failures([outcome("genuine", "honest", None)])[0]
    assert "100%" in failures([outcome()] * 99 + [outcome(origin="peer")])[0]
    decidable = [outcome(trust="decidable")] * 39 + [outcome(trust="decidable", origin="peer")]
    assert failures(decidable) == []
    assert "95.0%" in failures(decidable[20:])[0]
    assert "boxes" in failures([outcome("box", "decidable", "peer")])[0]
    assert failures([outcome("box", "decidable", "inconclusive")]) == []
    cleared = [outcome("genuine", "honest", "peer")] * 19
    assert failures([*cleared, outcome("genuine", "honest", "inconclusive")]) == []
    assert (
        "90.0%" in failures([*cleared[1:], *[outcome("genuine", "honest", "inconclusive")] * 2])[0]
    )
    assert failures([outcome(trust="undecidable", origin="inconclusive")]) == []


def test_cases_have_names_of_their_own() -> None:
    names = [case.name for case in all_cases()]
    assert len(names) == len(set(names))


def test_a_finding_must_have_happened() -> None:
    found = outcome("genuine", "honest", "peer")
    assert found.entry is not None
    found.entry["findings"] = ["health-check", "connection-refused"]
    assert false_findings([found]) == ["health-check at a box (genuine): 1"]
    assert false_findings([replace(found, source="HAProxy health check")]) == []


def test_an_undecidable_reset_has_a_twin() -> None:
    alone = outcome(trust="undecidable")
    paired = replace(alone, twin="another case")
    assert len(without_twin([alone, paired], ["a case v4"])) == 2
    assert without_twin([paired, outcome()], ["another case v6"]) == []
    assert "a case, as another case: 1 forged" in same_to_the_host([paired])


# ---- held out ----


def judged(source: str, label: str, **weights: float) -> Outcome:
    score = sum(weights.values())
    evidence = [{"rule": r, "weight": w, "proof": False} for r, w in weights.items()]
    entry: Json = {"origin": decide(score)[0].value, "evidence": evidence}
    return Outcome("a case", source, "client", label, "proven", entry)


@pytest.mark.parametrize(
    ("weight", "log_odds", "wanted"),
    [(4.0, 5.0, 4.0), (4.0, 2.5, 2.5), (4.0, -1.0, 0.0), (4.0, None, 0.0), (-2.0, -1.0, -1.0)],
)
def test_a_weight_is_only_ever_lowered(
    weight: float, log_odds: float | None, wanted: float
) -> None:
    assert heldout.lowered(weight, log_odds) == wanted


def test_log_odds_are_those_of_the_counts() -> None:
    counts = heldout.Counts()
    for _ in range(9):
        counts.add(judged("a", "forged", hops=4.0))
        counts.add(judged("b", "genuine", shape=-2.0))
    assert counts.log_odds(("hops", 4.0)) == pytest.approx(math.log((9.5 / 10) / (0.5 / 10)))
    assert counts.log_odds(("shape", -2.0)) == pytest.approx(-math.log(19))
    assert counts.log_odds(("hops", 1.0)) is None


def test_what_one_source_alone_bears_out_does_not_hold_without_it() -> None:
    """Three sources show `hops`, one alone `odd`; the fourth is honest."""
    outcomes = [
        *(judged(source, "forged", hops=4.0) for source in "abc" for _ in range(20)),
        *(judged("alone", "forged", odd=4.0) for _ in range(20)),
        *(judged("honest", "genuine", agree=-2.5) for _ in range(60)),
        *(judged("honest too", "genuine", agree=-2.5) for _ in range(60)),
    ]
    text, failed = heldout.report(outcomes)
    assert failed == []
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert rows["a"][1:4] == ["20", "->", "20"]
    assert rows["alone"][1:4] == ["20", "->", "0"]
    assert rows["honest too"][-3:] == ["60", "->", "60"]
    assert "+4.0 odd: alone" in text


def test_an_acquittal_that_rests_on_its_own_source_fails() -> None:
    outcomes = [
        *(judged(source, "forged", hops=4.0) for source in "ab" for _ in range(20)),
        *(judged("c", "genuine", agree=-2.5) for _ in range(60)),
        judged("tricky", "genuine", hops=4.0, excuse=-3.0),
    ]
    text, failed = heldout.report(outcomes)
    assert "-3.0 excuse: tricky" in text
    assert failed == ["1 honest resets are called forged without their source"]


# ---- recordings ----


def test_a_recording_is_judged_as_the_run_was(tmp_path: Path) -> None:
    capture, records = tmp_path / "incident.pcap", tmp_path / "records"
    write(capture, pcap(incident()))
    said = read_capture(capture, records)
    assert [entry["origin"] for entry in said] == ["forged"]
    label = captures.Label(str(capture), said[0]["frame"], "1", "a box", "forged", "high")
    kept = record.Recording(labels=[label], read={str(capture): record.unpack(records)})
    path = tmp_path / "recording"
    kept.save(path)
    for _ in range(2):  # judging it leaves it as it was
        assert [outcome.entry for outcome in record.load(path).captured()] == said
        assert [outcome.entry for outcome in kept.captured()] == said


def test_another_judge_is_asked_where_one_is_given(tmp_path: Path) -> None:
    capture, records = tmp_path / "incident.pcap", tmp_path / "records"
    write(capture, pcap(incident()))
    read_capture(capture, records)
    wanted = replace(judge(reset()), origin=Origin.PEER)
    said = record.entries(record.unpack(records), lambda found: wanted)
    assert [entry["origin"] for entry in said] == ["peer"]


@pytest.mark.parametrize("data", [None, b"", b"no pickle", pickle.dumps([])])
def test_what_is_no_recording_is_refused(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "recording"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(RsttraceError, match="recording"):
        record.load(path)
