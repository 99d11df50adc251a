from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import pytest

from rsttrace.model import (
    Baseline,
    BridgePort,
    Cause,
    Container,
    Endpoint,
    Entry,
    Evidence,
    Kind,
    MadeHere,
    NextHop,
    Origin,
    Pod,
    Process,
    Seen,
    Sighting,
    Socket,
    SwitchPort,
)
from rsttrace.render.authors import makers_text, table_lines
from rsttrace.render.picture import picture_lines
from rsttrace.render.text import entry_lines
from rsttrace.render.words import verdict_text
from tests.unit.test_render_samples import (
    COUNTED,
    FORGED,
    FORGED_HERE,
    FORGED_UNKNOWN,
    FOUND,
    GATEWAY,
    GOLDEN,
    IP_ID,
    LOCAL_ACTIVE,
    LOCAL_PASSIVE6,
    NODE,
    OURS,
    PEER,
    PEER_UNMATCHED,
    POD,
    RST,
    SAMPLES,
    SHAPE,
    THEIRS,
    TIME,
    UNSURE,
    check_golden,
    time_zone,
    with_reset,
    with_verdict,
)

ANSI = re.compile(r"\x1b\[[0-9;]*m")
HOSTILE = "\x1b[2J\nFORGED\u202e\u200b\ud800\x9b"


@pytest.fixture(autouse=True)
def _shanghai() -> Iterator[None]:
    with time_zone("CST-8"):
        yield


@pytest.mark.parametrize(
    ("name", "options"),
    [("plain", {}), ("verbose", {"verbose": True}), ("explain", {"explain": True, "utc": True})],
)
def test_golden(name: str, options: dict[str, bool]) -> None:
    lines = []
    for sample, entry in SAMPLES.items():
        lines += [f"# {sample}", *entry_lines(entry, own_netns=NODE, **options)]
    check_golden(GOLDEN / f"render_{name}.txt", "\n".join(lines) + "\n")


def test_where_to_walk_to() -> None:
    """In full with -v; a reset that came in once by this node's interface says it once."""
    facts = [
        "    00:d0:f8:22:33:44: behind port eth0 of this node's bridge br0",
        "    00:d0:f8:22:33:44: eth0 is plugged into sw3.example (00:d0:f8:aa:bb:cc), port Gi1/0/7"
        " (rack 4), says LLDP",
    ]
    entry = with_reset(FORGED, neighbor=FOUND, ingress=FOUND)
    lines = entry_lines(entry, verbose=True)
    assert [line for line in lines if "LLDP" in line or "br0" in line] == facts
    assert not any("LLDP" in line or "br0" in line for line in entry_lines(entry))


def test_the_look_of_the_design() -> None:
    bare = with_verdict(with_reset(FORGED, pod=Pod("shop", "web-0")), evidence=(IP_ID,))
    assert entry_lines(bare, own_netns=POD) == [
        "2019-11-24T17:30:03.412 IN  FORGED 99%     10.9.8.7:3306 > 10.0.0.5:51234"
        "  by a box that turns our own packet around 78 %, 1 hop away"
        "  [mysql[4711], pod shop/web-0]",
        "    by a box that turns our own packet around 78 %, a device that injects packets of its"
        " own 21 %, 1 hop away (the server is 17 hops away), handed to us by"
        " 00:d0:f8:22:33:44 (Ruijie Networks) = 192.168.1.1, our gateway, on eth0",
        "    + IP ID 13052 repeats our own packet sent 0.4 ms earlier; the server's last was 23403",
        "    → --locate names the hop; ask whoever runs it for an IPS or firewall policy",
    ]
    assert entry_lines(PEER, own_netns=NODE) == [
        "2019-11-24T17:30:03.412 IN  PEER 97%       10.9.8.7:3306 > 10.0.0.5:51234"
        "  peer closed with unread data"
    ]


def test_columns_are_the_same_whatever_the_verdict() -> None:
    """In characters, and in words: time, direction, verdict, percent, from, ">", to."""
    lines = [entry_lines(entry)[0] for entry in SAMPLES.values()]
    assert len({line.split(" > ")[0].rindex(" ") for line in lines}) == 1
    words = [line.split() for line in lines]
    assert {row[1] for row in words} == {"IN", "OUT", "FWD"}
    assert {row[2] for row in words} == {origin.name for origin in Origin}
    assert all(row[3] == "-" or row[3].endswith("%") for row in words)
    assert {row[5] for row in words} == {">"}
    assert all(":" in row[4] and ":" in row[6] for row in words)


def test_the_first_line_names_the_maker() -> None:
    near = with_verdict(with_reset(FORGED, neighbor=GATEWAY), hops_rst=0)
    gateway = GATEWAY.ip
    assert f"  by {gateway}, our own gateway: a box that turns" in entry_lines(near)[0]
    bare = with_verdict(with_reset(FORGED, neighbor=None), hops_rst=None, authors=())
    assert "  by a device, somewhere on the path" in entry_lines(bare)[0]


@pytest.mark.parametrize(
    ("origin", "confidence", "expected"),
    [
        (Origin.FORGED, 1.0, "FORGED 100%"),
        (Origin.FORGED, 0.9999, "FORGED 99%"),
        (Origin.FORGED, 0.906, "FORGED 91%"),
        (Origin.PEER, 0.97, "PEER 97%"),
        (Origin.PEER, None, "PEER"),
        (Origin.LOCAL, 1.0, "LOCAL"),
        (Origin.INCONCLUSIVE, None, "INCONCLUSIVE"),
        (Origin.INCONCLUSIVE, 0.6, "INCONCLUSIVE"),
    ],
)
def test_certainty_is_not_rounded_up(
    origin: Origin, confidence: float | None, expected: str
) -> None:
    entry = with_verdict(FORGED, origin=origin, confidence=confidence)
    assert verdict_text(entry.verdict) == expected


@pytest.mark.parametrize("options", [{}, {"explain": True, "verbose": True}])
@pytest.mark.parametrize("sample", SAMPLES)
def test_colour_changes_nothing_else(sample: str, options: dict[str, bool]) -> None:
    plain = entry_lines(SAMPLES[sample], **options)
    colored = entry_lines(SAMPLES[sample], color=True, **options)
    assert not any("\x1b" in line for line in plain)
    assert [ANSI.sub("", line) for line in colored] == plain


@pytest.mark.parametrize(
    ("origin", "code"),
    [
        (Origin.FORGED, "31"),
        (Origin.PEER, "32"),
        (Origin.LOCAL, "36"),
        (Origin.INCONCLUSIVE, "33"),
    ],
)
def test_colours(origin: Origin, code: str) -> None:
    entry = with_verdict(PEER, origin=origin)
    label = verdict_text(entry.verdict)
    assert f"\x1b[{code}m{label}\x1b[0m" in entry_lines(entry, color=True)[0]


def test_namespace_is_named_only_if_foreign() -> None:
    assert "netns" not in entry_lines(PEER, own_netns=NODE)[0]
    assert f"  [netns:{NODE}]" in entry_lines(PEER, own_netns=POD)[0]
    assert "  [netns blue]" in entry_lines(with_reset(PEER, netns_name="blue"), own_netns=POD)[0]
    assert "netns" not in entry_lines(with_reset(PEER, netns=None), own_netns=NODE)[0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"process": Process(7, "nginx", 33)}, "nginx[7], uid 33"),
        ({"process": Process(7, None, None)}, "pid 7"),
        ({"process": Process(None, "nginx", None)}, "nginx"),
        ({"process": Process(None, None, 0)}, "uid 0"),
        ({"socket": Socket(1, None, None, None, None, 1000, None)}, "uid 1000"),
        (
            {"pod": Pod("shop", "web-0"), "container": Container("0123456789abcdef")},
            "pod shop/web-0",
        ),
        ({"pod": Pod(None, None, "0f0e"), "process": Process(None, None, 5)}, "pod 0f0e"),
        (
            {"pod": Pod(None, None), "container": Container("0123456789abcdef")},
            "container 0123456789ab",
        ),
        ({"container": Container("0123456789abcdef", "web")}, "container web"),
        ({"file": "/a/b.pcap", "file_frame": 3}, "b.pcap, frame 3"),
    ],
)
def test_who(changes: dict[str, object], expected: str) -> None:
    line = entry_lines(with_reset(PEER, **changes), own_netns=NODE)[0]
    assert line.split("  ")[-2:] == ["peer closed with unread data", f"[{expected}]"]


def test_the_sentence_is_the_verdicts_else_the_causes() -> None:
    said = with_verdict(LOCAL_ACTIVE, summary="closed by timeout")
    assert "  closed by timeout  [" in entry_lines(said)[0]
    assert "  closed with unread data  [" in entry_lines(LOCAL_ACTIVE)[0]
    unsaid = with_verdict(PEER, summary="")
    assert "  the connection was reset  [" in entry_lines(unsaid)[0]


@pytest.mark.parametrize("origin", [Origin.PEER, Origin.FORGED, Origin.INCONCLUSIVE])
@pytest.mark.parametrize("kind", [Kind.RECEIVED_REJECTED, Kind.RECEIVED_UNMATCHED])
def test_a_reset_that_killed_nothing_says_so(kind: Kind, origin: Origin) -> None:
    entry = with_verdict(with_reset(PEER_UNMATCHED, kind=kind), origin=origin)
    assert entry_lines(entry)[0].count("no socket here: nothing was reset") == 1


@pytest.mark.parametrize("before", ["", "the peer has no such connection; "])
def test_the_same_sentence_is_not_said_twice(before: str) -> None:
    said = f"{before}no socket here: nothing was reset"
    entry = with_verdict(PEER_UNMATCHED, summary=said)
    assert entry_lines(entry)[0].count("nothing was reset") == 1


def test_evidence_is_shown_where_it_is_needed() -> None:
    assert len(entry_lines(PEER)) == 1
    assert len(entry_lines(with_verdict(LOCAL_ACTIVE, evidence=(SHAPE,)))) == 1
    for entry in (FORGED, UNSURE):
        assert any(line.startswith("    + TTL 63") for line in entry_lines(entry))
    for entry in (PEER, with_verdict(LOCAL_ACTIVE, evidence=(SHAPE,))):
        assert f"    - {SHAPE.text}" in entry_lines(entry, verbose=True)
        assert any("plain-answer" in line for line in entry_lines(entry, explain=True))


def explained(entry: Entry) -> list[str]:
    """What --explain says below the drawing, without the table and the advice."""
    lines = entry_lines(entry, explain=True)
    last = next(n for n, line in enumerate(lines) if "the verdict is " in line)
    return [line.strip() for line in lines[: last + 1]]


def test_explain_lists_every_observation_and_what_they_say_together() -> None:
    lines = explained(FORGED)[2 + len(picture_lines(FORGED, width=76)) :]
    assert [line.split()[:2] for line in lines] == [
        ["+4.2", "ip-id-ours"],
        ["+2.5", "ttl-nearer"],
        ["-0.6", "plain-answer"],
        ["0.0", "link"],
        ["+6.1", "together"],
    ]
    assert lines[-1].endswith(
        "probability that it is not the peer's: 99.8%; the verdict is FORGED 99%"
    )


@pytest.mark.parametrize(("score", "is_said"), [(-3.4, False), (-5.2, True)])
def test_a_confidence_below_what_the_score_says_is_explained(score: float, is_said: bool) -> None:
    lines = explained(with_verdict(PEER, score=score, confidence=0.97))
    assert lines[-1].strip().endswith("the verdict is PEER 97%")
    assert ("a perfect copy is never excluded" in lines[-1]) == is_said


def test_explain_ends_with_the_table_and_the_advice() -> None:
    *_, advice = lines = entry_lines(FORGED, explain=True)
    assert [line.strip() for line in lines][-1 - len(table_lines(FORGED.verdict)) : -1] == (
        table_lines(FORGED.verdict)
    )
    assert advice.strip() == f"→ {FORGED.verdict.advice}"
    assert entry_lines(FORGED, explain=True, plain=True)[-1].strip().startswith("-> ")


def test_the_advice_is_said_of_every_verdict_unless_it_is_quiet() -> None:
    for entry in (FORGED, UNSURE, PEER, FORGED_HERE):
        advised = with_verdict(entry, advice="look")
        assert entry_lines(advised)[-1].strip() == "→ look"
        assert entry_lines(advised, quiet=True) == entry_lines(with_verdict(entry, advice=None))


def test_an_open_verdict_names_who_is_left() -> None:
    (line,) = (line for line in entry_lines(UNSURE) if "left: " in line)
    assert f"  left: {makers_text(UNSURE.verdict)}" in line
    assert not any("left: " in line for line in entry_lines(FORGED))


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0.0, "50.0%"),
        (1.0, "73.1%"),
        (-1.0, "26.9%"),
        (7.5, "99.9%"),
        (8.0, "over 99.9%"),
        (-8.0, "under 0.1%"),
        (1e308, "over 99.9%"),
        (float("-inf"), "under 0.1%"),
    ],
)
def test_the_score_as_a_probability(score: float, expected: str) -> None:
    last = explained(with_verdict(UNSURE, score=score))[-1]
    assert f"not the peer's: {expected};" in last


def test_a_proof_needs_no_sum() -> None:
    lines = explained(FORGED_HERE)
    assert any(line.startswith("proof  made-here ") for line in lines)
    assert lines[-1].endswith("not used: a proof decides alone; the verdict is FORGED 100%")


def test_evidence_that_was_not_listed_as_considered_is_not_lost() -> None:
    entry = with_verdict(FORGED, considered=())
    assert sum("ip-id-ours" in line for line in explained(entry)) == 1


@pytest.mark.parametrize(
    ("hops_rst", "hops_peer", "expected"),
    [
        (1, 17, "by a device, 1 hop away (the server is 17 hops away)"),
        (3, 0, "by a device, 3 hops away (the server is on our own link)"),
        (0, 1, "by a device, our own gateway itself (the server is 1 hop away)"),
        (3, None, "by a device, 3 hops away"),
        (None, 4, "by a device, somewhere on the path (the server is 4 hops away)"),
    ],
)
def test_distance(hops_rst: int | None, hops_peer: int | None, expected: str) -> None:
    entry = with_verdict(FORGED, hops_rst=hops_rst, hops_peer=hops_peer, authors=())
    assert entry_lines(entry)[1].partition(", handed")[0].strip() == expected


def _flags(flags: str) -> Seen:
    return dataclasses.replace(THEIRS.recent[0], flags=flags)


def _state(state: str) -> Socket:
    return Socket(None, state, None, None, None, None, None)


_LATER = dataclasses.replace(OURS, syn_ns=TIME)
_NO_SYN = dataclasses.replace(THEIRS, syn_ns=None)


@pytest.mark.parametrize(
    ("baseline", "socket", "expected"),
    [
        (Baseline(theirs=THEIRS, ours=OURS), None, "the server"),
        (Baseline(theirs=THEIRS, ours=_LATER), None, "the client"),
        (Baseline(theirs=THEIRS, ours=None), None, "the peer"),
        (Baseline(theirs=_NO_SYN, ours=OURS), None, "the peer"),
        (Baseline(), None, "the peer"),
        (Baseline(), _state("SYN_SENT"), "the server"),
        (Baseline(), _state("SYN_RECV"), "the client"),
        (Baseline(), _state("ESTABLISHED"), "the peer"),
        (
            Baseline(theirs=dataclasses.replace(_NO_SYN, recent=(_flags("A"), _flags("SA")))),
            None,
            "the server",
        ),
        (Baseline(theirs=dataclasses.replace(_NO_SYN, recent=(_flags("S"),))), None, "the client"),
    ],
)
def test_server_or_client_only_where_the_handshake_tells(
    baseline: Baseline, socket: Socket | None, expected: str
) -> None:
    entry = with_reset(FORGED, baseline=baseline, socket=socket)
    assert f"({expected} is 17 hops away)" in entry_lines(entry)[1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "by 00:d0:f8:22:33:44 (Ruijie Networks) = 192.168.1.1, our gateway, on eth0"),
        ({"vendor": None}, "by 00:d0:f8:22:33:44 = 192.168.1.1, our gateway, on eth0"),
        (
            {"is_gateway": False, "ip": "10.9.8.7"},
            "by 00:d0:f8:22:33:44 (Ruijie Networks) = 10.9.8.7, the server's own address, on eth0",
        ),
        (
            {"is_gateway": False, "ip": "192.168.1.9"},
            "by 00:d0:f8:22:33:44 (Ruijie Networks) = 192.168.1.9,"
            " not our gateway 192.168.1.1, on eth0",
        ),
        (
            {"is_gateway": None, "ip": None},
            "by 00:d0:f8:22:33:44 (Ruijie Networks), on eth0",
        ),
        ({"mac": None}, "by 192.168.1.1, our gateway, on eth0"),
        ({"mac": None, "ip": None, "ifname": "tun0"}, "on tun0"),
        ({"mac": None, "ip": None, "ifname": None}, "on interface 2"),
    ],
)
def test_neighbor(changes: dict[str, object], expected: str) -> None:
    neighbor = dataclasses.replace(GATEWAY, **changes)  # type: ignore[arg-type]
    line = entry_lines(with_reset(FORGED, neighbor=neighbor))[1]
    assert line.partition(", handed to us ")[2] == expected


def test_a_neighbor_that_is_no_gateway_without_a_gateway_to_compare() -> None:
    neighbor = dataclasses.replace(GATEWAY, is_gateway=False, ip="192.168.1.9")
    for hop in (
        None,
        NextHop("192.168.1.1", None, False, 2),
        NextHop("192.168.1.9", None, True, 2),
    ):
        entry = with_reset(FORGED, neighbor=neighbor, next_hop=hop)
        assert entry_lines(entry)[1].endswith("192.168.1.9, not our gateway, on eth0")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (
            MadeHere(NODE, Kind.SENT_NETFILTER, 5, "x", "forward", "blue"),
            "forged by this node's own firewall (netns blue, hook forward, x[5])",
        ),
        (
            MadeHere(NODE, Kind.SENT_RAW, 99, "tcpkill"),
            f"forged by a process of this node through a raw socket (tcpkill[99], netns:{NODE})",
        ),
        (
            MadeHere(NODE, Kind.SENT_RAW, 99),
            f"forged by a process of this node through a raw socket (pid 99, netns:{NODE})",
        ),
        (
            MadeHere(NODE, Kind.SENT_PASSIVE, netns_name="blue"),
            "forged by this node itself, the TCP stack of netns blue",
        ),
        (
            MadeHere(NODE, Kind.SENT_ACTIVE, 0, "swapper/0"),
            f"forged by this node itself, the TCP stack of netns:{NODE}",
        ),
    ],
)
def test_made_here_is_shown_first(made: MadeHere, expected: str) -> None:
    entry = with_reset(FORGED, made_here=made)
    lines = entry_lines(entry)
    assert lines[1] == f"    {expected}"
    assert "by a device" not in lines[2]  # it has been named
    honest = with_verdict(entry, origin=Origin.PEER)
    assert entry_lines(honest, verbose=True)[1] == f"    {expected.replace('forged', 'sent')}"


def test_ingress_is_shown_where_it_is_another_place() -> None:
    line = "    handed to this node by 00:d0:f8:22:33:44 (Ruijie Networks) = 192.168.1.1,"
    assert any(found.startswith(line) for found in entry_lines(FORGED_HERE))
    same = with_reset(FORGED_HERE, ingress=FORGED_HERE.reset.neighbor)
    assert not any("this node by" in found for found in entry_lines(same))


def test_findings_and_amendments_are_always_shown() -> None:
    said = Evidence("split-identity", 0.0, "a proxy answers\x1b[2J for the peer", {"ttl": 231})
    evidence = (*PEER.verdict.evidence, said)
    entry = dataclasses.replace(
        with_verdict(PEER, findings=("split-identity",), evidence=evidence), amends=3
    )
    expected = [
        "    amends #3: this verdict replaces the one given before",
        "    ! split-identity: a proxy answers\\x1b[2J for the peer",
    ]
    assert entry_lines(entry)[1:] == expected
    explained = entry_lines(entry, explain=True)
    assert [line for line in explained if "split-identity" in line] == expected[1:]


def test_a_refused_connection_is_said_once() -> None:
    said = Evidence("connection-refused", 0.0, "the answer to a SYN: nothing listens there")
    entry = with_verdict(PEER, findings=("connection-refused",), evidence=(said,))
    assert not any("! connection-refused" in line for line in entry_lines(entry))
    forged = with_verdict(FORGED, findings=("connection-refused",), evidence=(said,))
    assert any("! connection-refused" in line for line in entry_lines(forged))


def test_seen() -> None:
    assert "  (3 seen)" in entry_lines(FORGED_UNKNOWN)[0]
    assert "seen" not in entry_lines(FORGED)[0]


@pytest.mark.parametrize(
    ("alike", "ends"),
    [
        ("peer", "10.9.8.7:3306 > 10.0.0.5:*"),
        ("service", "*:3306 > 10.0.0.5:*"),
        ("netns", "* > *"),
        ("kind", "* > *"),
    ],
)
def test_counted(alike: str, ends: str) -> None:
    """What those that were counted have in common, how many, and how long it took."""
    told = COUNTED.reset.counted
    assert told is not None
    reset = dataclasses.replace(COUNTED.reset, counted=dataclasses.replace(told, alike=alike))
    (line,) = entry_lines(dataclasses.replace(COUNTED, reset=reset))
    assert ends in line
    assert "INCONCLUSIVE" in line
    assert "  x 3,000 in 4 s: " in line
    assert "only counted" in line


def test_ipv6_endpoints_have_brackets() -> None:
    line = entry_lines(LOCAL_PASSIVE6)[0]
    assert " [2001:db8::5]:8080 > [2001:db8:1::7]:40112  " in line


def test_ipv6_has_no_ip_id() -> None:
    trigger = dataclasses.replace(THEIRS.recent[0], ip_id=None, df=None)
    entry = with_reset(LOCAL_PASSIVE6, trigger=trigger)
    text = "\n".join(entry_lines(entry, verbose=True))
    assert "their packet 20 ms earlier" in text
    assert not re.search(r"\bid \d|\bDF\b", text)


def _hostile() -> Entry:
    """An entry with hostile text wherever text comes from outside."""
    reset = dataclasses.replace(
        FORGED.reset,
        cause=Cause(HOSTILE, HOSTILE, HOSTILE),
        kind=Kind.RECEIVED_REJECTED,
        local=Endpoint(HOSTILE, 1),
        remote=Endpoint(HOSTILE, 2),
        rst=dataclasses.replace(RST, options=HOSTILE, flags=HOSTILE),
        file=f"/captures/{HOSTILE}",
        netns_name=HOSTILE,
        neighbor=dataclasses.replace(
            GATEWAY,
            mac=HOSTILE,
            vendor=HOSTILE,
            ip=HOSTILE,
            ifname=HOSTILE,
            bridge=BridgePort(HOSTILE, 4, HOSTILE, 2),
            switch=SwitchPort(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE),
        ),
        ingress=dataclasses.replace(GATEWAY, ifname=HOSTILE, ifindex=9),
        made_here=MadeHere(NODE, Kind.SENT_RAW, 1, HOSTILE, HOSTILE, HOSTILE),
        process=Process(1, HOSTILE, 0),
        container=Container(HOSTILE, HOSTILE),
        pod=Pod(HOSTILE, HOSTILE, HOSTILE),
        socket=dataclasses.replace(_state(HOSTILE), uid=1),
        baseline=Baseline(theirs=dataclasses.replace(THEIRS, mac=HOSTILE)),
        trigger=dataclasses.replace(THEIRS.recent[0], flags=HOSTILE),
    )
    verdict = dataclasses.replace(
        FORGED.verdict,
        evidence=(Evidence(HOSTILE, 1.0, HOSTILE),),
        considered=(Evidence(HOSTILE, 1.0, HOSTILE),),
        findings=(HOSTILE,),
        device_name=HOSTILE,
        device_fingerprint=HOSTILE,
        summary=HOSTILE,
    )
    return Entry(1, reset, verdict)


@pytest.mark.parametrize("origin", Origin)
@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("pod", [False, True])
def test_hostile_strings_stay_text(origin: Origin, explain: bool, pod: bool) -> None:
    entry = with_verdict(_hostile(), origin=origin)
    if not pod:
        entry = with_reset(entry, pod=None)
    lines = entry_lines(entry, explain=explain, verbose=True, plain=True)
    harmless = "\\x1b[2J\\x0aFORGED\\u{202e}\\u{200b}\\u{d800}\\x9b"
    assert sum(line.count(harmless) for line in lines) >= 15
    for line in lines:
        assert line.isascii()
        assert line.isprintable()


def test_no_trailing_blanks() -> None:
    for entry in SAMPLES.values():
        for line in entry_lines(entry, explain=True, verbose=True):
            assert line == line.rstrip()


def test_the_other_frames_of_a_reset_are_named() -> None:
    """Whichever of them is looked at in Wireshark, its entry is found; of many, the first ones."""
    seen = [Sighting(frame, TIME, None, None, 64, None) for frame in (7, 8, 9, 11, 12, 13)]
    for count, words in ((2, "frame 8, also 7"), (6, "frame 8, also 7, 9, 11 and 2 more")):
        told = with_reset(PEER, file="x.pcap", file_frame=8, sightings=tuple(seen[:count]))
        assert entry_lines(told, own_netns=NODE)[0].endswith(f"[x.pcap, {words}]")
