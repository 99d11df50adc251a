from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsttrace.errors import ConfigError, RsttraceError, UsageError
from rsttrace.judge import fingerprints
from rsttrace.judge.fingerprints import BUILT_IN, FIELDS, Fingerprints, known_names, load, names
from rsttrace.judge.verdict import judge
from rsttrace.model import Endpoint, Kind, Origin, Reset, Scope, Seen
from tests.unit import builders as b
from tests.unit.builders import OUR_DATA, TIME, flow, half, our_half, reset, rst, rst6, seen, steady
from tests.unit.test_judge_verdict import GENUINE

DOC = Path(__file__).parents[2] / "docs" / "fingerprints.md"
NOWHERE = Path("/nonexistent/fingerprints.d")
KNOWN = load(directory=NOWHERE)

TTL = 63
"""One hop away; the peer is 17 away and its TTL starts at 64 too."""


def earlier(**values: Any) -> Seen:
    """A RST that came 0.1 ms before."""
    return seen(**{"time_ns": TIME - 100_000, "ttl": TTL, "flags": "R", "payload_len": 0, **values})


def silent(quiet_s: float) -> Reset:
    """A flow in which nothing was sent for so long before the RST came."""
    last = TIME - int(quiet_s * 1e9)
    ours = our_half(recent=(dataclasses.replace(OUR_DATA, time_ns=last),))
    return flow(theirs=half(recent=(seen(time_ns=last - 1_000_000),)), ours=ours)


def with_rst(given: Reset, **values: Any) -> Reset:
    return b.changed(given, rst=dataclasses.replace(given.rst, **values))


def idle(seconds: float) -> Reset:
    """We send after so long a silence, and the RST answers it."""
    last = seen(time_ns=OUR_DATA.time_ns - int(seconds * 1e9))
    return flow(theirs=half(recent=(last,)), ours=our_half(recent=(OUR_DATA,)))


# Resets as each device makes them: from its source, or as they were captured.
TCPKILL = rst(ttl=TTL, ip_id=31000, df=False)
SURICATA = rst(ttl=62, ip_id=777, df=False, window=501, flags="RA", ack=5117)

SAMPLES: dict[str, list[Reset]] = {
    "tcpkill": [
        flow(TCPKILL),
        # the second and the third of a group, as dsniff 2.4b1 sent them (window 63: +63, +126)
        flow(
            dataclasses.replace(TCPKILL, seq=1063, ip_id=30690),
            ours=our_half(recent=(dataclasses.replace(OUR_DATA, window=63),)),
            earlier=(earlier(seq=1000, ip_id=47764),),
        ),
        flow(
            dataclasses.replace(TCPKILL, seq=1189, ip_id=14374),
            ours=our_half(recent=(dataclasses.replace(OUR_DATA, window=63),)),
            earlier=(earlier(seq=1063, ip_id=30690), earlier(seq=1000, ip_id=47764)),
        ),
        # around the end of the sequence space, and of a peer that never sets DF
        flow(
            dataclasses.replace(TCPKILL, seq=100, ip_id=14374),
            theirs=steady(47, df_always=False),
            earlier=(earlier(seq=100 - 501 + (1 << 32), ip_id=30690),),
        ),
    ],
    "hping3": [
        flow(rst(ttl=TTL, ip_id=5876, df=False, window=512, ack=0x0F1C7919)),
        flow(rst(ttl=TTL, ip_id=24175, df=False, window=512, ack=73833221, flags="RA")),
    ],
    "libnids": [flow(rst(ttl=62, ip_id=12345, df=False, window=32000))],
    "suricata": [
        flow(SURICATA),
        flow(dataclasses.replace(SURICATA, ip_id=0)),  # written as a frame
        flow(  # to the receiver of the packet that it objects to
            rst(ttl=62, ip_id=777, df=False, window=509, flags="RA", seq=900, ack=5000)
        ),
        flow(  # answers a SYN
            rst(ttl=62, ip_id=777, df=False, window=64240, flags="RA", seq=0, ack=5000),
            theirs=None,
            ours=our_half(
                recent=(seen(flags="S", seq=4999, ack=0, window=64240, payload_len=0, ttl=64),)
            ),
        ),
        flow(rst6(ttl=62, window=501, flags="RA", ack=5117), theirs=half(df_always=False)),
    ],
    "snort": [
        flow(rst(ttl=47, ip_id=777, df=False, flags="RA", ack=5117)),
        flow(rst(ttl=200, ip_id=777, df=False, flags="RA", ack=5000, seq=900)),
    ],
    "netfilter-reject": [
        flow(rst(ttl=TTL, ip_id=0)),
        flow(rst(ttl=TTL, ip_id=0, flags="RA", seq=0, ack=5117)),
        flow(rst6(ttl=TTL), theirs=half(df_always=False)),
        flow(rst6(ttl=TTL, flags="RA", seq=0, ack=5117), theirs=half(df_always=False)),
    ],
    "pf-return": [
        flow(rst(ttl=TTL, ip_id=777, tos=0x10, flags="RA", ack=5117)),
        flow(rst(ttl=TTL, ip_id=777, tos=0x10)),
    ],
    "mirroring-firewall": [
        flow(rst(ttl=TTL, ip_id=13052)),
        flow(rst(ttl=TTL, ip_id=13053)),
        flow(rst(ttl=TTL, ip_id=13051, window=501)),
        flow(rst(ttl=TTL, ip_id=13053, ack=5117)),
        flow(rst(ttl=TTL, ip_id=13053, window=501, df=False, ack=5117)),
        flow(  # the middle one of an offloaded buffer
            rst(ttl=TTL, ip_id=13060),
            ours=our_half(recent=(dataclasses.replace(OUR_DATA, segments=20),)),
        ),
    ],
    "in-place-swap": [
        flow(rst(ip_id=23404, window=509, payload_len=100)),
        flow(rst(ip_id=23404, window=509, flags="RA"), theirs=half(timestamps=True)),
    ],
    "byte-swapped-counter": [
        flow(rst(ttl=237, ip_id=33614, df=False), earlier=(earlier(ip_id=33358, seq=999),)),
        flow(rst(ttl=237, ip_id=0x0042, df=False), earlier=(earlier(ip_id=0xFF42, seq=999),)),
    ],
    "dpvs": [
        with_rst(silent(90), ttl=62, ip_id=0),
        b.changed(silent(90), rst=rst6(ttl=62)),
    ],
    "aws-idle-350": [
        with_rst(idle(350.2), ttl=TTL, flags="RA", window=4),
        with_rst(idle(4000), ttl=TTL, flags="RA", window=4),
    ],
    "azure-idle-240": [with_rst(silent(240.5), ttl=TTL, flags="RA", window=4)],
    "slb-31415": [flow(rst(ttl=102, ip_id=31415)), flow(rst(ttl=90, ip_id=31415))],
    "gfw-2": [  # centrace_gfw_archive.org.pcap, frames 117, 129, 141, 152, 164, 176
        flow(
            rst(
                src=Endpoint("222.138.4.221", 443),
                dst=Endpoint("141.212.123.145", port),
                ttl=ttl,
                ip_id=ip_id,
                window=window,
                flags="RA",
                ack=5117,
            )
        )
        for port, ttl, ip_id, window in [
            (52360, 128, 47371, 1503),
            (52361, 166, 45780, 1541),
            (52362, 174, 46733, 1549),
            (52363, 183, 45935, 1558),
            (52364, 201, 45711, 1576),
            (52365, 221, 45859, 1596),
        ]
    ],
    "sandvine": [
        flow(rst(ttl=60, ip_id=0x3412, df=False, window=32120, flags="RA")),
        flow(rst(ttl=60, ip_id=0x3412, df=False, flags="RA")),
    ],
}
CASES = [(key, number) for key, samples in SAMPLES.items() for number in range(len(samples))]


def matched(given: Reset, known: Fingerprints = KNOWN) -> list[str]:
    return [match.fingerprint.key for match in known.match(given)]


# ---- the built-in ones ----


def test_there_are_samples_of_each() -> None:
    assert SAMPLES.keys() == KNOWN.by_key.keys()


@pytest.mark.parametrize(("key", "number"), CASES)
def test_each_matches_its_own_samples_best(key: str, number: int) -> None:
    matches = KNOWN.match(SAMPLES[key][number])
    assert matches
    assert matches[0].fingerprint.key == key
    assert matches[0].why
    # nothing is named by the order of the file
    assert all(match.specificity < matches[0].specificity for match in matches[1:])


@pytest.mark.parametrize("key", SAMPLES)
def test_each_pattern_is_needed(key: str) -> None:
    """Without it, a sample matches less well or not at all."""
    whole = KNOWN.by_key[key]
    for left_out in whole.patterns:
        rest = tuple(pattern for pattern in whole.patterns if pattern is not left_out)
        without = Fingerprints({key: dataclasses.replace(whole, patterns=rest)})
        alone = Fingerprints({key: whole})
        assert any(
            [match.specificity for match in without.match(sample)]
            != [match.specificity for match in alone.match(sample)]
            for sample in SAMPLES[key]
        ), left_out


@pytest.mark.parametrize("name", GENUINE)
def test_none_matches_an_honest_reset(name: str) -> None:
    packet, theirs = GENUINE[name]
    given = flow(packet, theirs=theirs)
    assert matched(given) == []
    assert matched(b.changed(given, earlier=(earlier(seq=999, ip_id=packet.ip_id or 0),))) == []
    assert matched(reset(packet)) == []  # nor without a baseline
    assert judge(given, KNOWN).device_name is None


def test_overlapping_ones_are_ordered_by_specificity() -> None:
    given = flow(rst(ttl=102, ip_id=31415), ours=our_half(recent=(seen(ip_id=31414, ttl=64),)))
    matches = KNOWN.match(given)
    assert [match.fingerprint.key for match in matches] == ["slb-31415", "mirroring-firewall"]
    assert matches[0].specificity > matches[1].specificity


BREAKERS: dict[str, list[Callable[[Reset], Reset]]] = {
    "tcpkill": [
        lambda r: with_rst(r, df=True),
        lambda r: with_rst(r, ttl=128),
        lambda r: with_rst(r, flags="RA"),
        lambda r: with_rst(r, ip_id=13052),
        lambda r: with_rst(r, ip_id=23404),
        lambda r: with_rst(r, window=1),
        lambda r: with_rst(r, options="nop"),
    ],
    "gfw-2": [
        lambda r: with_rst(r, ip_id=(r.rst.ip_id or 0) + 1),
        lambda r: with_rst(r, window=(r.rst.window or 0) + 1),
        lambda r: with_rst(r, window=0),
        lambda r: with_rst(r, dst=Endpoint("141.212.123.146", 1)),
        lambda r: with_rst(r, dst=Endpoint("not an address", 1)),
        lambda r: with_rst(r, dst=Endpoint(b.US6, 1)),
    ],
    "netfilter-reject": [
        lambda r: with_rst(r, ttl=47),
        lambda r: with_rst(r, seq=1001),
        lambda r: b.changed(r, time_ns=r.time_ns + 11_000_000_000),
    ],
    "byte-swapped-counter": [
        lambda r: b.changed(r, earlier=()),
        lambda r: with_rst(r, ip_id=((r.rst.ip_id or 0) + 256) & 0xFFFF),
    ],
    "dpvs": [lambda r: b.changed(r, time_ns=r.time_ns - 80_000_000_000)],
    "mirroring-firewall": [lambda r: with_rst(r, ip_id=0), lambda r: with_rst(r, ip_id=13099)],
}


@pytest.mark.parametrize(
    ("key", "number"),
    [(key, n) for key, breakers in BREAKERS.items() for n in range(len(breakers))],
)
def test_what_breaks_a_pattern(key: str, number: int) -> None:
    given = SAMPLES[key][0]
    assert key in matched(given)
    assert key not in matched(BREAKERS[key][number](given))


def test_nothing_is_random_where_nothing_is_known() -> None:
    assert matched(reset(TCPKILL)) == []


# ---- a name is no verdict ----


@pytest.mark.parametrize(("key", "number"), CASES)
def test_they_weigh_nothing(key: str, number: int) -> None:
    given = SAMPLES[key][number]
    before, after = judge(given), judge(given, KNOWN)
    assert (after.origin, after.score, after.confidence, after.evidence) == (
        before.origin,
        before.score,
        before.confidence,
        before.evidence,
    )
    named = after.score > 0 and after.origin in (Origin.FORGED, Origin.INCONCLUSIVE)
    assert after.device_fingerprint == (key if named else None)
    assert after.device_name == (KNOWN.by_key[key].device if named else None)


def explained(given: Reset) -> str:
    (line,) = [item for item in judge(given, KNOWN).considered if item.rule == "fingerprint"]
    assert line.weight == 0
    assert not line.proof
    return line.text


def test_forged_is_named_and_explained() -> None:
    given = SAMPLES["tcpkill"][0]
    assert judge(given, KNOWN).origin is Origin.FORGED
    assert judge(given, KNOWN).device_name == "tcpkill"
    assert explained(given) == (
        "like tcpkill: initial_ttl 64, ip_id random, df lost, tos 0, flags R, ack 0, window 0, "
        "options false, payload_len 0"
    )


def test_leaning_to_forged_is_named() -> None:
    """One hop nearer than another connection of the peer: ways of two may differ so."""
    sample = SAMPLES["netfilter-reject"][0]
    theirs = b.steady(sample.rst.ttl - 1)
    given = b.changed(sample, baseline=flow(theirs=theirs, scope=Scope.PEER).baseline)
    found = judge(given, KNOWN)
    assert found.origin is Origin.INCONCLUSIVE
    assert found.score > 0
    assert found.device_fingerprint == "netfilter-reject"


def test_the_peer_is_never_named_a_device() -> None:
    """It looks like DPVS, but all the rest says that the peer sent it."""
    given = with_rst(silent(90), ttl=47, ip_id=0)
    found = judge(given, KNOWN)
    assert found.origin is Origin.PEER
    assert (found.device_name, found.device_fingerprint) == (None, None)
    assert explained(given).startswith("not named, since nothing accuses; like dpvs: ")


def test_a_second_host_with_the_address_is_no_device() -> None:
    """Shaped as a REJECT is, but from behind the peer, where no firewall between us stands."""
    given = with_rst(SAMPLES["netfilter-reject"][0], ttl=36)
    found = judge(given, KNOWN)
    assert found.score > 0
    assert "duplicate-address" in found.findings
    assert (found.device_name, found.device_fingerprint) == (None, None)
    assert explained(given).startswith("not named, since a second host with this address answers")


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.direction == "sent"])
def test_what_we_sent_is_not_compared(kind: Kind) -> None:
    found = judge(b.changed(SAMPLES["tcpkill"][0], kind=kind), KNOWN)
    assert found.origin is Origin.LOCAL
    assert found.device_name is None
    assert all(item.rule != "fingerprint" for item in found.considered)


def test_without_fingerprints_there_is_no_line() -> None:
    assert all(item.rule != "fingerprint" for item in judge(SAMPLES["tcpkill"][0]).considered)
    assert explained(flow(rst(ttl=20))) == "like no device that we know"


# ---- names of formulas ----


def test_names_are_known_and_filled() -> None:
    given = flow(TCPKILL, earlier=(earlier(seq=5), earlier(seq=6)))
    found = names(given)
    assert found.keys() == known_names()
    assert {name: found[name] for name in ("seq1", "seq2", "seq3", "count")} == {
        "seq1": 5,
        "seq2": 6,
        "seq3": None,
        "count": 3,
    }
    assert (found["src"], found["src_le"]) == (0x0A090807, 0x0708090A)
    assert (found["dst"], found["dst_le"]) == (0x0A000005, 0x0500000A)
    assert (found["trigger_ip_id"], found["peer_ip_id"]) == (13052, 23403)
    assert (found["hops"], found["peer_hops"], found["df"]) == (1, 17, 0)


def test_names_of_ipv6() -> None:
    found = names(flow(rst6(), earlier=(earlier(ip_id=0),)))
    assert all(found[name] is None for name in found if "ip_id" in name)
    assert (found["df"], found["src_le"], found["dst_le"]) == (None, None, None)
    assert found["src"] == 0x20010DB8000100000000000000000007


# ---- files ----

MINE = """
[{key}]
device = "my box"
text = "It stands in the cellar."
source = "own captures"
[[{key}.match]]
{pattern}
"""


def mine(pattern: str = "ip_id = 7", key: str = "mine") -> str:
    return MINE.format(key=key, pattern=pattern)


def loaded(tmp_path: Path, text: str) -> Fingerprints:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return load([path], directory=NOWHERE)


def test_an_own_file_adds_and_replaces(tmp_path: Path) -> None:
    known = loaded(tmp_path, mine() + mine("ip_id = 8", "tcpkill"))
    assert known.by_key.keys() == {*KNOWN.by_key, "mine"}
    assert matched(flow(rst(ip_id=7)), known) == ["mine"]
    assert matched(flow(rst(ip_id=8)), known) == ["tcpkill"]
    assert matched(SAMPLES["tcpkill"][0], known) == []
    assert known.by_key["tcpkill"].file == tmp_path / "mine.toml"


def test_the_directory_comes_before_the_command_line(tmp_path: Path) -> None:
    directory = tmp_path / "fingerprints.d"
    directory.mkdir()
    (directory / "20.toml").write_text(mine("ip_id = 20") + mine("ip_id = 21", "other"))
    (directory / "10.toml").write_text(mine("ip_id = 10"))
    (directory / "10.toml.bak").write_text("broken")
    assert matched(flow(rst(ip_id=20)), load(directory=directory)) == ["mine"]
    last = tmp_path / "last.toml"
    last.write_text(mine("ip_id = 30"))
    known = load([last], directory=directory)
    assert matched(flow(rst(ip_id=20)), known) == []
    assert matched(flow(rst(ip_id=30)), known) == ["mine"]
    assert matched(flow(rst(ip_id=21)), known) == ["other"]


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("ttl = 50", {"ttl": 50}, {"ttl": 51}),
        ("ttl = [50, 51]", {"ttl": 51}, {"ttl": 52}),
        ("ttl = { min = 50 }", {"ttl": 50}, {"ttl": 49}),
        ("ttl = { max = 52 }", {"ttl": 52}, {"ttl": 53}),
        ("ttl = { min = 51, max = 51 }", {"ttl": 51}, {"ttl": 52}),
        ("ttl = 'peer'", {"ttl": 47}, {"ttl": 48}),
        ("initial_ttl = 128", {"ttl": 65}, {"ttl": 64}),
        ("hops = 'peer'", {"ttl": 111}, {"ttl": 112}),
        ("hops = 'other'", {"ttl": 112}, {"ttl": 111}),
        ("hops = 14", {"ttl": 50}, {"ttl": 51}),
        ("ip_id = 'ours'", {"ip_id": 13052}, {"ip_id": 13053}),
        ("ip_id = 'ours+5'", {"ip_id": 13057}, {"ip_id": 13058}),
        ("ip_id = 'peer'", {"ip_id": 23404}, {"ip_id": 23403}),
        ("ip_id = ['random', 0]", {"ip_id": 0}, {"ip_id": 13052}),
        ("ip_id = 'random'", {"ip_id": 40000}, {"ip_id": 0}),
        ("df = false", {"df": False}, {"df": True}),
        ("df = 'lost'", {"df": False}, {"df": True}),
        ("flags = 'AR'", {"flags": "RA"}, {"flags": "R"}),
        ("flags = ['RP', 'RFA']", {"flags": "FRA"}, {"flags": "RA"}),
        ("ack = 'answers'", {"ack": 5117}, {"ack": 5118}),
        ("ack = 'peer'", {"ack": 5000}, {"ack": 5001}),
        ("ack = 'nonzero'", {"ack": 1}, {"ack": 0}),
        ("seq = 'answers'", {"seq": 1000}, {"seq": 1001}),
        ("seq = 'peer'", {"seq": 900}, {"seq": 1000}),
        ("seq = 4294967295", {"seq": 4294967295}, {"seq": 0}),
        ("window = 'trigger'", {"window": 501}, {"window": 500}),
        ("window = 'ours'", {"window": 501}, {"window": 0}),
        ("window = 'peer'", {"window": 509}, {"window": 501}),
        ("reserved = { min = 1 }", {"reserved": 2}, {"reserved": 0}),
        ("payload_len = { min = 1 }", {"payload_len": 2}, {}),
        ("options = true", {"options": "mss 1460"}, {}),
        ("timestamps = true", {"options": "nop,nop,TS val 1 ecr 2"}, {"options": "mss 1460"}),
        ("tos = 0x10", {"tos": 16}, {"tos": 0}),
        ("formula = 'window == trigger_window + 1'", {"window": 502}, {"window": 501}),
        ("formula = ['window > 5', 'window < 7']", {"window": 6}, {"window": 7}),
    ],
)
def test_conditions(
    pattern: str, matching: dict[str, Any], other: dict[str, Any], tmp_path: Path
) -> None:
    known = loaded(tmp_path, mine(pattern))
    assert "mine" in matched(flow(rst(**matching)), known)
    assert "mine" not in matched(flow(rst(**other)), known)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("family = 6", flow(rst6()), flow()),
        ("ip_id = 0", flow(rst(ip_id=0)), flow(rst6())),
        ("df = true", flow(), flow(rst6())),
        ("count = 2", flow(earlier=(earlier(),)), flow()),
        ("timestamps = 'lost'", flow(theirs=half(timestamps=True)), flow()),
        ("quiet_s = { min = 0.0003, max = 0.0005 }", flow(), reset()),
        ("idle_s = { min = 59.9, max = 60.1 }", idle(60), idle(61)),
        (  # the peer sent last: the RST answers nothing
            "idle_s = { min = 0 }",
            idle(60),
            flow(theirs=half(recent=(seen(time_ns=TIME - 1000),))),
        ),
        ("hops = 'peer'", flow(), reset()),
        ("window = 'ours'", flow(rst(window=501)), reset(rst(window=501))),
        (
            "window = 'trigger'",
            reset(rst(window=5), trigger=seen(window=5)),
            flow(rst(window=501), trigger=seen(window=5)),
        ),
        ("ip_id = 'random'", flow(), flow(earlier=(earlier(ip_id=39999),))),
        ("ip_id = 'random'", flow(), flow(earlier=(earlier(ip_id=40000),))),
    ],
)
def test_conditions_on_the_flow(
    pattern: str, matching: Reset, other: Reset, tmp_path: Path
) -> None:
    known = loaded(tmp_path, mine(pattern))
    assert "mine" in matched(matching, known)
    assert "mine" not in matched(other, known)


def test_every_field_has_a_range_or_a_word_or_both() -> None:
    assert all(about.kind in (int, float, bool, str) and about.meaning for about in FIELDS.values())
    assert all(about.high > 0 for about in FIELDS.values() if about.kind in (int, float))


BAD: dict[str, tuple[str, list[str]]] = {
    "no TOML": ("[mine] x", ["not TOML", "line 1"]),
    "a key twice": (mine() + mine(), ["not TOML"]),
    "no table": ("mine = 5", ["['mine']", "an integer, not a table"]),
    "an array of tables": ("[[mine]]\ndevice = 'x'", ["an array, not a table"]),
    "a key with a space": (mine(key='"my box"'), ["['my box']", "small letters"]),
    "an empty key": (mine(key='""'), ["small letters"]),
    "an escape in a key": (mine(key='"a\\u001b[31m"'), ["small letters", "\\x1b"]),
    "an unknown key": ("[mine]\nname = 'x'", ["['mine']", "unknown key 'name'", "device"]),
    "no device": ("[mine]\ntext = 'x'", ["device is missing"]),
    "no source": ("[mine]\ndevice='x'\ntext='x'", ["source is missing"]),
    "device no string": ("[mine]\ndevice = 5", ["device is an integer, not a string"]),
    "device empty": ("[mine]\ndevice = ' '", ["device must have 1 to 100"]),
    "device long": (f"[mine]\ndevice = '{'x' * 101}'", ["device must have 1 to 100"]),
    "basis": (mine().replace("source =", "basis = 'rumour'\nsource ="), ["basis", "'rumour'"]),
    "basis no string": (mine().replace("source =", "basis = [1]\nsource ="), ["basis", "[1]"]),
    "no match": (mine().split("[[")[0], ["needs one or more [[mine.match]]"]),
    "match a table": (mine().replace("[[", "[").replace("]]", "]"), ["needs one or more"]),
    "match of numbers": (mine().split("[[")[0] + "match = [5]", ["match 1", "not a table"]),
    "match empty": (mine(""), ["match 1", "is empty"]),
    "second match empty": (mine() + "[[mine.match]]\n", ["match 2", "is empty"]),
    "an unknown field": (mine("ipid = 5"), ["match 1", "unknown key 'ipid'", "ip_id"]),
    "an unknown word": (mine("ip_id = 'theirs'"), ["ip_id", "'theirs'", '"random"', '"ours+N"']),
    "ours+0": (mine("ip_id = 'ours+0'"), ["'ours+0' is not one of"]),
    "ours+ elsewhere": (mine("window = 'ours+1'"), ["'ours+1' is not one of"]),
    "a number too large": (mine("ip_id = 65536"), ["ip_id", "65536", "between 0 and 65535"]),
    "a negative number": (mine("window = -1"), ["window", "-1 is not between"]),
    "a huge hexadecimal number": (mine(f"ttl = 0x{'f' * 5000}"), ["ttl", "is not between"]),
    "tables without end": (mine().replace("source", f"basis{'.a' * 3000} = 1\nsource"), []),
    "a huge number": (mine(f"ttl = {'9' * 5000}"), []),
    "a float": (mine("ttl = 64.0"), ["ttl", "64.0 is a float, not an integer"]),
    "not a number": (mine("quiet_s = nan"), ["quiet_s", "nan is not between"]),
    "infinity": (mine("quiet_s = inf"), ["quiet_s", "inf is not between"]),
    "a boolean for a number": (mine("ttl = true"), ["ttl", "a boolean, not an integer"]),
    "a number for a boolean": (mine("df = 1"), ["df", "an integer, not true or false"]),
    "a date": (mine("ttl = 2019-11-24"), ["ttl", "a date or time, not an integer"]),
    "an empty list": (mine("ttl = []"), ["ttl", "matches nothing"]),
    "a list in a list": (mine("ttl = [[64]]"), ["ttl", "an array, not an integer"]),
    "an empty range": (mine("ttl = {}"), ["ttl", "needs min, max or both"]),
    "a range the wrong way": (mine("ttl = {min=9, max=8}"), ["ttl", "min 9 is more than max 8"]),
    "a range of words": (mine("ttl = {min='peer'}"), ["ttl.min", "a string, not an integer"]),
    "a range with more": (mine("ttl = {least=9}"), ["ttl", "unknown key 'least'", "min, max"]),
    "a range of flags": (mine("flags = {min=9}"), ["flags", "not a string of flags"]),
    "a range of booleans": (mine("df = {min=0}"), ["df", "not true or false"]),
    "flags that are none": (mine("flags = 'RX'"), ["flags", "'RX' are no TCP flags"]),
    "flags twice": (mine("flags = 'RR'"), ["flags", "'RR'"]),
    "no RST": (mine("flags = 'PA'"), ["flags", "'PA'"]),
    "flags a number": (mine("flags = 4"), ["flags", "4 is an integer, not a string of flags"]),
    "a formula of a number": (mine("formula = 5"), ["formula", "5 is an integer, not a string"]),
    "a formula with a bad name": (mine("formula = 'ipid == 5'"), ["formula", "'ipid'", "ip_id"]),
    "a formula that calls": (mine("formula = 'exit() == 5'"), ["formula", "only integers"]),
    "an escape in a formula": (mine('formula = "\\u001b == 5"'), ["formula", "\\x1b"]),
    "a bidi mark in a word": (mine('ip_id = "\\u202e"'), ["ip_id", "\\u202e"]),
    "arrays without end": (mine(f"ttl = {'[' * 5000}"), []),
    "not UTF-8": ("\udcff", ["not UTF-8 (byte 0)"]),
    "a binary file": ("\0\1\2", ["not TOML"]),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("kind", [UsageError, ConfigError])
def test_bad_files(name: str, kind: type[RsttraceError], tmp_path: Path) -> None:
    """One error that names file, fingerprint and key, for --fingerprints and for /etc."""
    text, words = BAD[name]
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    paths, directory = ([path], NOWHERE) if kind is UsageError else ([], tmp_path)
    with pytest.raises(RsttraceError) as raised:
        load(paths, directory=directory)
    error = raised.value
    assert type(error) is kind
    assert error.exit_code == (2 if kind is UsageError else 1)
    assert error.hint
    assert str(path) in error.what
    for word in words:
        assert word in error.what
    assert error.what.isprintable()  # one line, and harmless
    assert len(error.what) < 1500


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    with pytest.raises(UsageError, match=r"missing\.toml.*No such file"):
        load([missing], directory=NOWHERE)
    with pytest.raises(UsageError, match="Is a directory"):
        load([tmp_path], directory=NOWHERE)
    with pytest.raises(UsageError, match="null byte"):
        load([Path("a\0b")], directory=NOWHERE)
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        load([Path("/dev/zero")], directory=NOWHERE)
    hostile = tmp_path / "\x1b[31m.toml"
    with pytest.raises(UsageError) as raised:
        load([hostile], directory=NOWHERE)
    assert raised.value.what.isprintable()


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    assert load(directory=plain) == KNOWN
    dangling = tmp_path / "d"
    dangling.mkdir()
    os.symlink("nowhere", dangling / "a.toml")
    with pytest.raises(ConfigError, match=r"a\.toml.*No such file"):
        load(directory=dangling)


def test_the_built_in_file_is_read_each_time() -> None:
    assert load(directory=NOWHERE) == KNOWN
    assert all(item.file == BUILT_IN for item in KNOWN.by_key.values())
    assert str(fingerprints.DIRECTORY) == "/etc/rsttrace/fingerprints.d"


# ---- the documentation ----


def test_the_documentation_lists_each() -> None:
    text = DOC.read_text(encoding="utf-8").split("## Built in")[1]
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", text, re.M)
    listed = {row[0]: row[1:] for row in rows}
    assert listed.keys() == KNOWN.by_key.keys()
    for key, (device, about, basis, source) in listed.items():
        known = KNOWN.by_key[key]
        assert (device, about, basis, source) == (
            known.device,
            known.text,
            known.basis,
            known.source,
        )


def test_the_documentation_lists_each_field_and_name() -> None:
    text = DOC.read_text(encoding="utf-8")
    for name, about in FIELDS.items():
        assert f"| `{name}` | {about.meaning} |" in text
        for word, what in about.words.items():
            assert f'`"{word}"`: {what.meaning}' in text
    section = text.split("## Formulas")[1].split("\n## ")[0]
    for name in known_names():
        stem = re.sub(r"[123]$", "", name)
        assert re.search(rf"`{stem}1?`", section), name


def test_the_worked_example_works(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.+?)```", DOC.read_text(encoding="utf-8"), re.S)
    known = loaded(tmp_path, example)
    added = known.by_key.keys() - KNOWN.by_key.keys()
    assert added == {"cellar-firewall"}
    given = flow(rst(ttl=251, ip_id=52483, flags="RA", window=501, ack=5117))
    assert matched(given, known) == ["cellar-firewall"]
    assert matched(with_rst(given, ip_id=52484), known) == []
