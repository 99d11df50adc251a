"""The judge of the judge: matching, labels, bars. No root, no kernel."""

from __future__ import annotations

import math
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rsttrace.errors import RsttraceError
from rsttrace.judge.authors import PRIOR_OF, ROWS, TABLE, by_author, peer_share
from rsttrace.judge.verdict import decide, judge, logit
from rsttrace.model import Origin
from tests.accuracy import captures, record, robust
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
    own_side = [outcome("genuine", "honest", "local")] * 19  # which end is ours is a guess
    assert failures([*own_side, outcome("genuine", "honest", "inconclusive")]) == []
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


# ---- robust ----


def judged(label: str, *names: str, origin: str | None = None) -> Outcome:
    """A reset of which this was observed, with the verdict that follows from it."""
    score = logit(1 - peer_share(TABLE.weigh(names)))
    said, confidence = decide(score)
    considered = [{"rule": name, "weight": 1.0, "proof": False} for name in names]
    entry: Json = {
        "origin": origin or said.value,
        "confidence": confidence,
        "score": score,
        "considered": considered,
        "evidence": considered,
    }
    return Outcome("a case", "a box", "client", label, "proven", entry)


FORGED_ONE = judged("forged", "ttl-nearer", "bare", "alive")
HONEST_ONE = judged("genuine", "ttl-same", "live", "peer-closed")


def test_nothing_observed_is_the_prior_and_inconclusive() -> None:
    nothing = robust.Seen("genuine", "honest", ())
    assert nothing.origin(TABLE) == "inconclusive"
    assert by_author(TABLE.weigh(nothing.names)) == pytest.approx(dict(PRIOR_OF))


def test_what_was_seen_is_what_the_verdict_rests_on() -> None:
    proof: Json = {
        "origin": "forged",
        "considered": [{"rule": "made-here", "weight": 20.0, "proof": True}],
    }
    words: Json = {
        "origin": "peer",
        "considered": [{"rule": n, "weight": 0.0, "proof": False} for n in ("live", "other-end")],
    }
    outcomes = [
        FORGED_ONE,
        outcome(origin="local"),
        outcome(origin=None),
        replace(FORGED_ONE, entry=proof),  # nothing was weighed
        replace(HONEST_ONE, entry=words),  # what is in no row of the table weighs nothing
    ]
    assert robust.seen_of(outcomes) == [
        robust.Seen("forged", "proven", ("ttl-nearer", "bare", "alive")),
        robust.Seen("genuine", "proven", ("live",)),
    ]


def test_a_group_can_be_left_out() -> None:
    (seen,) = robust.seen_of([FORGED_ONE])
    assert seen.origin(TABLE) == "forged"
    assert seen.origin(TABLE, "distance") == "inconclusive"
    assert seen.origin(TABLE, "link") == "forged"


def test_moved_numbers_stay_probabilities_within_their_factor() -> None:
    table = robust.moved(7)
    assert math.exp(table.rows["bare"][0]) != ROWS["bare"].likelihoods[0]
    for name, row in ROWS.items():
        for log, value in zip(table.rows[name], row.likelihoods):
            assert 1 / robust.FACTOR - 1e-9 <= math.exp(log) / value <= robust.FACTOR + 1e-9
            assert log < 0


def test_draws_are_the_same_each_time() -> None:
    seen = robust.seen_of([FORGED_ONE, HONEST_ONE])
    assert robust.robustness(seen) == robust.robustness(seen)


def test_what_is_plain_holds_whatever_the_numbers() -> None:
    text, failed = robust.robustness(robust.seen_of([FORGED_ONE, HONEST_ONE] * 10))
    assert failed == []
    assert "of 10 honest resets accused: median 0, most 0" in text
    assert "median 100.0%" in text
    assert len(re.findall(r"^  [\w-]+ +10 +0 +0$", text, re.M)) >= 5


def test_an_acquittal_that_rests_on_one_group_fails() -> None:
    """Our IP ID speaks against both: of the first its shape clears it, of the other that we had
    reset the connection ourselves."""
    one = judged("genuine", "ttl-same", "live", "alive", "ip-id-ours")
    _, failed = robust.robustness(robust.seen_of([one]))
    assert [line for line in failed if "without the group 'make'" in line]
    other = judged("genuine", "ttl-same", "plain-answer", "we-reset", "behind-data", "ip-id-ours")
    _, failed = robust.robustness(robust.seen_of([other]))
    assert [line for line in failed if "without the group 'history'" in line]


def test_verdicts_that_few_draws_turn_fail() -> None:
    """A copy of a live socket is the likelier, the rarer devices are that make one."""
    text, failed = robust.robustness(
        robust.seen_of([judged("genuine", "ttl-same", "live", "alive")])
    )
    assert "median 100.0%, least 0.0%" in text
    assert any("keep only 0.0%" in line for line in failed)


def test_a_verdict_on_the_edge_fails() -> None:
    edge = judged("genuine", "ttl-near-many", "generic", "alive")
    assert robust.seen_of([edge])[0].origin(TABLE) == "forged"
    _, failed = robust.robustness(robust.seen_of([edge]))
    assert any("usual draw" in line for line in failed)
    assert any("worst draw" in line for line in failed)


def test_calibration_counts_what_was_right() -> None:
    wrong = judged("genuine", "ttl-nearer", "bare", "alive")
    proved = replace(FORGED_ONE, entry={**(FORGED_ONE.entry or {}), "evidence": [{"proof": True}]})
    text = robust.calibration([FORGED_ONE, FORGED_ONE, wrong, HONEST_ONE, proved])
    (line,) = (line for line in text.splitlines() if line.startswith("99.5%"))
    assert line.split()[-2:] == ["3", "66.7%"]
    assert "Brier score" in text


def test_the_brier_score_is_that_of_forecasts() -> None:
    """Brier (1950): the mean squared error; 0 perfect, 0.25 for a coin."""
    coin = replace(HONEST_ONE, entry={**(HONEST_ONE.entry or {}), "score": 0.0})
    assert "Brier score 0.2500 of 1" in robust.calibration([coin])


def test_nothing_judged_has_no_calibration() -> None:
    text = robust.calibration([outcome(origin=None)])
    assert "Brier" not in text
    assert text.count("-\n") + text.endswith("-") == len(robust.BANDS)


def test_the_report_has_both() -> None:
    text, failed = robust.report([FORGED_ONE, HONEST_ONE])
    assert failed == []
    assert "Brier score" in text
    assert "draws" in text


# ---- recordings ----


def test_a_recording_is_judged_as_the_run_was(tmp_path: Path) -> None:
    capture, records = tmp_path / "incident.pcap", tmp_path / "records"
    write(capture, pcap(incident()))
    said = read_capture(capture, records)
    assert [entry["origin"] for entry in said] == ["forged"]
    assert all(entry.pop("run") for entry in said)  # which the recording does not keep
    label = captures.Label(str(capture), said[0]["frame"], "1", "a box", "forged", "high")
    kept = record.Recording(labels=[label], read={str(capture): record.unpack(records)})
    path = tmp_path / "recording"
    kept.save(path)
    for _ in range(2):  # judging it leaves it as it was
        for again in (record.load(path), kept):
            entries = [outcome.entry or {} for outcome in again.captured()]
            assert all(entry["considered"] for entry in entries)  # for robust.py
            assert entries == said


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
