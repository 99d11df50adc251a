"""Captures with one trap each (tests/cases), read as a user reads them."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from scapy.utils import RawPcapReader

from rsttrace.render.schema import schema_text

CASES = Path(__file__).parents[1] / "cases"
VALIDATOR = jsonschema.Draft202012Validator(json.loads(schema_text()))
DEADLINE_S = 60

Entry = dict[str, Any]
Check = Callable[[Entry], bool]


def run(name: str) -> tuple[list[Entry], str]:
    """Every entry, and what was said on stderr."""
    (path,) = CASES.glob(f"{name}.pcap*")
    command = [sys.executable, "-m", "rsttrace", "read", "-o", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for entry in found:
        VALIDATOR.validate(entry)
    return found, done.stderr


@cache
def read(name: str) -> dict[int, Entry]:
    """The last word on each frame that is a reset."""
    return {entry["frame"]: entry for entry in run(name)[0]}


@cache
def compare(name: str, *options: str) -> tuple[Entry, list[Entry]]:
    """What both ends of a pair say: the comparison, and the entries."""
    ends = [str(CASES / f"{name}-{end}.pcap") for end in ("client", "server")]
    command = [sys.executable, "-m", "rsttrace", "compare", "-o", "json", *options, *ends]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    head, *entries = [json.loads(line) for line in done.stdout.splitlines()]
    for line in (head, *entries):
        VALIDATOR.validate(line)
    return head["comparison"], entries


def words(entry: Entry) -> str:
    """All that is said of a reset."""
    device = entry["device"]["name"] or ""
    texts = [item["text"] for item in entry["evidence"]]
    told = (entry["summary"], entry["cause"]["text"], entry["advice"], device, *texts)
    return " ".join(text or "" for text in told)


def origin(*wanted: str) -> Check:
    return lambda entry: entry["origin"] in wanted


def found(name: str) -> Check:
    return lambda entry: name in entry["findings"]


def not_found(name: str) -> Check:
    return lambda entry: name not in entry["findings"]


def says(pattern: str) -> Check:
    return lambda entry: re.search(pattern, words(entry)) is not None


def never_says(pattern: str) -> Check:
    return lambda entry: re.search(pattern, words(entry)) is None


def hops(rst: int | None) -> Check:
    return lambda entry: entry["hops"]["rst"] == rst


def cause(name: str) -> Check:
    return lambda entry: entry["cause"]["name"] == name


def closed(by: str) -> Check:
    return lambda entry: entry["cause"]["closed_by"] == by and entry["cause"]["idle_s"] == 60


def device(name: str, reason: str) -> Check:
    return lambda entry: (
        name in (entry["device"]["name"] or "") and reason in (entry["device"]["reason"] or "")
    )


def sightings(*frames: int) -> Check:
    return lambda entry: tuple(seen["frame"] for seen in entry["sightings"]) == frames


def apart(most: int) -> Check:
    return lambda entry: abs(entry["hops"]["rst"] - entry["hops"]["peer"]) <= most


NOT_ACCUSED = origin("peer", "inconclusive", "local")
FORGED, PEER = origin("forged"), origin("peer")

EACH: list[tuple[str, int | None, tuple[Check, ...]]] = [
    ("ts-values-v4", 9, (FORGED,)),
    ("ts-values-v6", 9, (FORGED,)),
    ("nmap-syn-scan-lan", None, (NOT_ACCUSED, found("port-scan"))),
    ("nmap-syn-scan-remote", None, (NOT_ACCUSED, found("port-scan"))),
    ("synflood-backscatter-bothways", None, (NOT_ACCUSED, not_found("duplicate-address"))),
    ("synflood-backscatter-oneway", None, (NOT_ACCUSED, not_found("duplicate-address"))),
    ("syn-retransmitted-rtt", None, (NOT_ACCUSED,)),
    ("syn-retransmitted-wrong-accusation", None, (NOT_ACCUSED,)),
    ("syn-retransmitted-wrong-accusation-control", None, (NOT_ACCUSED,)),
    ("fin-ack-is-no-rtt-sample-one-hop-off", None, (NOT_ACCUSED,)),
    ("fin-ack-is-no-rtt-sample-windows", None, (NOT_ACCUSED,)),
    ("ttl-boundary-33-32-bsd", None, (NOT_ACCUSED, apart(1))),
    ("ttl-boundary-32-33-bsd", None, (NOT_ACCUSED, apart(1))),
    ("ttl-control-40-39-bsd", None, (NOT_ACCUSED, apart(1))),
    ("ttl-32-linux-says-0-hops", 6, (PEER, hops(32))),
    ("data-injected-after-genuine-rst2", None, (PEER,)),
    ("after-the-reset", None, (PEER,)),
    ("before-the-reset", None, (PEER,)),
    ("pair-after-no-socket", 5, (FORGED,)),
    ("pair-after-no-socket", 6, (FORGED,)),
    ("all-checksums-wrong-anonymised", None, (PEER, never_says("hand-made"))),
    ("any-honest", 40, (PEER, not_found("peer-of-several"), sightings(39, 40))),
    ("any-honest", 44, (PEER, not_found("peer-of-several"), sightings(43, 44))),
    ("ethertype-pppoe", 7, (cause("connection-reset"),)),
    ("ethertype-mpls", 7, (cause("connection-reset"),)),
    ("ethertype-cisco-cmd", 7, (cause("connection-reset"),)),
    ("ethertype-cisco-cmd-one-direction", 7, (cause("connection-reset"),)),
    ("counting-ttl", 6, (FORGED, hops(None))),
    ("counting-ttl", 9, (origin("local"), not_found("health-check"))),
    ("pf-reset", 7, (FORGED, lambda entry: "pf" in (entry["device"]["name"] or ""))),
    ("port-reuse", 9, (NOT_ACCUSED, found("port-reuse"))),
    ("reason-in-payload", 6, (PEER, says("BIG-IP"), device("BIG-IP", "HTTP header count"))),
    ("code-in-window", 6, (PEER, says("no cipher in common"), device("NetScaler", "9811"))),
    ("keepalive-race", 9, (PEER, says(r"FIN 10\.2 ms before, after 60 s idle"), closed("peer"))),
    ("keepalive-race", 9, (not_found("keepalive-race"), says("keep-alive shorter"))),
    ("keepalive-pool", 9, (PEER, found("keepalive-race"), closed("peer"))),
    ("keepalive-pool", 18, (PEER, found("keepalive-race"), says("after 60 s idle"))),
    ("data-after-close", 9, (cause("data-after-close"), closed("local"))),
    ("port-reuse-client", 9, (cause("ports-reused"), found("port-reuse"))),
    ("port-reuse-time-wait", 13, (PEER, found("port-reuse"), says("a new SYN came"))),
    ("port-reuse-time-wait", 13, (cause("connection-reset"), says("ended an earlier connection"))),
    ("port-reuse-time-wait-client", 13, (cause("ports-reused"), found("port-reuse"))),
    ("port-reuse", 9, (PEER, says("from 4 hops farther"), not_found("duplicate-address"))),
    ("filter-syn-fin-rst-cancel", None, (PEER, says("had closed"))),
    ("filter-client-closed-nots", None, (PEER, says("had closed"), never_says("refused"))),
    ("capture-gaps-then-closed", None, (PEER, says("had closed"))),
    ("capture-gap-before-live-nots", None, (NOT_ACCUSED,)),
    ("capture-clock-stepped", None, (PEER, says("stood still"))),
    ("laptop-resumed-ts-behind", None, (PEER, says("stood still"))),
    ("vm-paused-20s-ts-behind", None, (PEER, says("stood still"))),
    ("ssh-port-2222-tos10-restart", None, (NOT_ACCUSED, never_says(r"\bpf\b"))),
    ("lowdelay-live-window0", None, (PEER, never_says(r"\bpf\b"))),
    ("bgp-ttl1-frr-restarted", None, (NOT_ACCUSED,)),
    ("push-delayed-ack-windows", None, (PEER, never_says("of the way"))),
    ("push-delayed-ack-ios-window0", None, (PEER, never_says("of the way"))),
    ("windows-answers-each-retransmission", None, (PEER,)),
    ("tcpkill-in-our-name-on-lan", None, (FORGED, says("not our packets|another MAC|from MAC"))),
    ("mimic-mac-RA-random-id", None, (origin("forged", "inconclusive"), says("packets have 0"))),
    ("haproxy-check", None, (PEER, found("health-check"), never_says("spoofed"))),
    ("win-fin-then-data-ra", None, (PEER, says("had closed"), never_says("killed"))),
    ("peer-keepalive-gives-up", None, (PEER, says("gave up"), never_says("killed"))),
    ("keepalives-75s-then-gone", None, (NOT_ACCUSED, not_found("idle-timeout"))),
    ("reroute-8-hops-farther", None, (PEER, not_found("split-identity"))),
    ("esp32-lwip-connects-aborts", None, (PEER, not_found("port-scan"))),
    ("long-way-two-answers", None, (NOT_ACCUSED, never_says("came again"))),
    ("long-way-windows", None, (PEER,)),
    ("same-answer-unprovoked", None, (FORGED, says("came again"))),
    ("filter-no-acks", None, (PEER,)),
    ("filter-syn-fin-rst-upload", None, (PEER, never_says("expected sequence number"))),
    ("filter-syn-fin-rst-upload", 3, (cause("connection-reset"),)),
    ("answer-after-their-reset", 19, (origin("local"), cause("ended-by-reset"))),
    ("answer-after-their-reset", 17, (FORGED,)),
    ("repeated-syn-ack", None, (PEER, not_found("health-check"))),
    ("ttl-200-program", None, (PEER, never_says("cannot pass"))),
    ("ways-by-packet", None, (PEER, never_says("counted"))),
    ("window-closed", None, (PEER, says(r"window 0\) for 149.4 s"), not_found("idle-timeout"))),
    ("queue-answers", None, (NOT_ACCUSED,)),
    ("queue-answers-windows", None, (PEER,)),
    ("clock-injected-ahead", None, (PEER,)),
    ("escaped-windows", None, (NOT_ACCUSED,)),
    ("handshake-blind", None, (origin("forged", "inconclusive"), says("no packet of ours asked"))),
    ("doubled-alien", None, (FORGED,)),
    ("mirror-in-a-buffer", None, (FORGED, says("our own packet"))),
    ("keepalives-after", None, (FORGED, says("keepalive"))),
    ("many-makes", 44, (PEER,)),
    ("many-makes", 56, (PEER,)),
    ("survived-then-closed", 48, (cause("data-after-close"),)),
    ("second-connection", 28, (cause("ended-by-reset"), never_says("12.*s before"))),
    ("retransmission-overtaken", None, (PEER,)),
    ("signed-answer", None, (NOT_ACCUSED, says("host without such a socket"))),
    ("moving-numbers", None, (FORGED,)),
    ("ours-reordered-ts", None, (PEER, never_says("none that we sent"))),
    ("old-bsd-midflow", None, (PEER,)),
    ("random-ids-live", None, (PEER,)),
    ("random-ids-closed", None, (PEER, says("had closed"))),
    ("one-direction-windows", None, (PEER,)),
    ("seq-adjusted-ack", None, (NOT_ACCUSED,)),
    ("acknowledged-after", 17, (origin("forged", "inconclusive"), says("acknowledged 40 bytes"))),
    ("acknowledges-never-sent", None, (says("5,?000 bytes that the capture does not have"),)),
    ("upload-aborted-60-in-flight", None, (PEER,)),
]
"""A file, a frame (None: all of them), and what is right there."""


@pytest.mark.parametrize(
    ("name", "frame", "checks"),
    EACH,
    ids=[name if frame is None else f"{name}-{frame}" for name, frame, _ in EACH],
)
def test_what_is_right(name: str, frame: int | None, checks: tuple[Check, ...]) -> None:
    entries = read(name)
    looked_at = list(entries.values()) if frame is None else [entries[frame]]
    assert looked_at
    for entry in looked_at:
        said = (entry["frame"], entry["origin"], entry["findings"], entry["hops"], words(entry))
        assert all(check(entry) for check in checks), said


def test_a_retransmitted_syn_says_what_its_control_says() -> None:
    one, control = (
        [entry["origin"] for entry in read(f"syn-retransmitted-wrong-accusation{end}").values()]
        for end in ("", "-control")
    )
    assert one == control


def test_across_the_boundary_is_as_its_control() -> None:
    one, control = (
        next(iter(read(name).values()))
        for name in ("ttl-boundary-33-32-bsd", "ttl-control-40-39-bsd")
    )
    assert one["origin"] == control["origin"]
    assert one["score"] == pytest.approx(control["score"], abs=0.2)


def told(head: Entry) -> dict[tuple[str, int], str]:
    """What becomes of each reset, by point and frame."""
    return {
        (reset["point"], reset["frame"]): reset["fate"]
        for flow in head["flows"]
        for reset in flow["resets"]
    }


def test_a_packet_that_escaped_nat() -> None:
    head, entries = compare("escaped-nat")
    assert {how: count for how, count in head["matched"].items() if count} == {
        "initial-sequence-numbers": 1,
        "escaped": 1,
    }
    (flow,) = head["flows"]
    (finding,) = flow["findings"]
    assert (finding["name"], finding["frame"], finding["reset_frame"]) == ("escaped-nat", 8, 9)
    assert (
        "its answer came from 10.100.2.2:8080 instead of 10.96.0.10:80: it was not translated back"
        in finding["text"]
    )
    assert told(head) == {
        ("A", 9): "arrived",
        ("B", 9): "left",
        ("B", 11): "arrived",
        ("A", 11): "left",
    }
    assert {entry["frame"] for entry in entries if "escaped-nat" in entry["findings"]} == {9}


@pytest.mark.parametrize(
    ("options", "fate"),
    [
        ((), "unknown"),
        (("--until-b", "2026-11-28T22:50:31Z"), "never-sent"),
        (("--until-b", "end of day"), "never-sent"),
        (("--until-b", "2026-11-28T22:50:30.11Z"), "unknown"),
    ],
)
def test_a_node_in_between_answered(options: tuple[str, ...], fate: str) -> None:
    head, entries = compare("node-answers", *options)
    assert told(head) == {("A", 14): fate}
    (entry,) = entries
    assert entry["origin"] == "forged"
    assert (entry["confidence"] == 1.0) == (fate == "never-sent")


PAIRS = ("escaped-nat", "node-answers")


SAID = {
    "pcapng-trailing-isb": "",  # it is whole: statistics end it
    "pcapng-no-packets": "tests/cases/pcapng-no-packets.pcapng: no packets\n",
}
"""Files without a reset, and what is said of them."""


@pytest.mark.parametrize("name", SAID)
def test_what_is_said(name: str) -> None:
    found, said = run(name)
    assert found == []
    assert SAID[name] in said
    assert "broken" not in said


def test_a_forwarded_reset_is_one_entry() -> None:
    assert list(read("any-honest")) == [40, 44]


@pytest.mark.parametrize("name", sorted({name for name, _, _ in EACH}))
def test_a_frame_is_found_by_its_number(name: str) -> None:
    """As another reader of captures counts, which knows nothing of ours."""
    (path,) = CASES.glob(f"{name}.pcap*")
    with RawPcapReader(str(path)) as reader:
        packets = [bytes(data) for data, _ in reader]
    for frame, entry in read(name).items():
        assert bytes.fromhex(entry["rst"]["raw"]) in packets[frame - 1]
        assert frame in [seen["frame"] for seen in entry["sightings"]]
        ports = struct.pack(">HH", entry["remote"]["port"], entry["local"]["port"])
        for seen in entry["sightings"]:
            data = packets[seen["frame"] - 1]
            assert ports in data or ports[2:] + ports[:2] in data


def test_every_file_is_looked_at_and_described() -> None:
    files = {path.stem for path in CASES.glob("*.pcap*")}
    pairs = {f"{name}-{end}" for name in PAIRS for end in ("client", "server")}
    assert files == {name for name, _, _ in EACH} | pairs | set(SAID)
    rows = (CASES / "README.md").read_text(encoding="utf-8")
    described = {name for name in files if f"`{name}`" in rows}
    described |= {file for file in pairs if f"`{file.rpartition('-')[0]}`" in rows}
    assert files - described == {"syn-retransmitted-wrong-accusation-control"}  # its `-control`
