from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsttrace.judge import rules, verdict
from rsttrace.judge.rules import RULES, WEIGHTS, Rule
from rsttrace.model import (
    Cause,
    Evidence,
    Fate,
    Half,
    Kind,
    MadeHere,
    NextHop,
    Other,
    OtherEnd,
    Packet,
    Point,
    Reset,
    Scope,
)
from tests.unit import builders as b
from tests.unit.builders import (
    MAC,
    OTHER_MAC,
    THIRD_MAC,
    flow,
    half,
    our_half,
    reset,
    rst,
    rst6,
    seen,
    steady,
)

EVIDENCE_DOC = Path(__file__).parents[2] / "docs" / "evidence.md"

GATEWAY = NextHop("10.0.0.1", MAC, True, 2)
BACKUP = NextHop("10.0.0.2", OTHER_MAC, True, 2)
UNRESOLVED = NextHop("10.0.0.1", None, True, 2)
ON_LINK = NextHop(b.PEER, MAC, False, 2)
SPLIT = half(syn_ttl=39, ttl=231, ttl_min=39, ttl_max=231)
STAMPED = half(timestamps=True)
LINUX_SYN = "mss 1460,sackOK,TS val 1 ecr 2,nop,wscale 7"
FREEBSD_SYN = "mss 1460,nop,wscale 6,sackOK,TS val 1 ecr 2"
MACOS_SYN = "mss 1460,nop,wscale 6,nop,nop,TS val 1 ecr 2,sackOK,eol"
COUNTING = half(recent=(seen(ip_id=501), seen(ip_id=500), seen(ip_id=0, flags="SA")))


def answered_with_ttl(ttl: int) -> Reset:
    """A RST that acknowledges our packet, which left with this TTL; the peer is 17 hops away."""
    ours = our_half()
    sent = dataclasses.replace(ours.recent[0], ttl=ttl, payload_len=38)
    ack = (sent.seq + sent.payload_len) & 0xFFFFFFFF
    return flow(rst(flags="RA", ack=ack), ours=dataclasses.replace(ours, recent=(sent,)))


# Every weight, and a reset that earns it.
EARNED: dict[str, tuple[Rule, Reset]] = {
    "hops-differ": (rules.hop_distance, flow(rst(ttl=63))),
    "hops-differ-syn": (
        rules.hop_distance,
        flow(rst(ttl=63), theirs=half(packets=1)),
    ),
    "hops-differ-syn-only": (
        rules.hop_distance,
        flow(rst(ttl=42), theirs=half(packets=1)),
    ),
    "hops-differ-data": (
        rules.hop_distance,
        flow(rst(ttl=63), theirs=half(syn_ttl=None, syn_window=None, syn_ns=None)),
    ),
    "alien-df": (rules.alien_shape, flow(rst(df=False), theirs=COUNTING)),
    "alien-shape": (rules.alien_shape, flow(rst(window=63), theirs=COUNTING)),
    "alien-many": (rules.alien_shape, flow(rst(df=False, window=63), theirs=COUNTING)),
    "hops-differ-nat": (rules.hop_distance, flow(rst(ttl=50, ip_id=0))),
    "hops-differ-behind": (rules.hop_distance, flow(rst(ttl=42, ip_id=0))),
    "moves-alike": (
        rules.several_resets,
        b.among(
            flow(rst(seq=1000), theirs=half(last_ns=b.TIME - 3_000_000)),
            later=(
                b.earlier_rst(seq=1500, time_ns=b.TIME + 1),
                b.earlier_rst(seq=2500, time_ns=b.TIME + 2),
            ),
        ),
    ),
    "hops-differ-odd": (
        rules.hop_distance,
        flow(rst(ttl=63, ip_id=0), theirs=steady(37)),
    ),
    "hops-differ-peer": (rules.hop_distance, flow(rst(ttl=63), scope=Scope.PEER, ours=None)),
    "hops-near-steady": (rules.hop_distance, flow(rst(ttl=46))),
    "hops-near": (rules.hop_distance, flow(rst(ttl=45), theirs=half(ttl_max=48))),
    "hops-split": (rules.hop_distance, flow(rst(ttl=231), theirs=SPLIT)),
    "hops-differ-varied": (
        rules.hop_distance,
        flow(rst(ttl=35), theirs=half(ttl_min=43, ttl_max=47)),
    ),
    "hops-initial": (rules.hop_distance, flow(rst(ttl=128 - 17))),
    "hops-agree": (rules.hop_distance, flow(rst(ttl=47))),
    "hops-agree-peer": (rules.hop_distance, flow(rst(ttl=47), scope=Scope.PEER, ours=None)),
    "ip-id-ours": (rules.ip_id_ours, flow(rst(ip_id=13052))),
    "window-ours": (
        rules.window_ours,
        flow(rst(window=501), theirs=half(recent=(seen(window=2053),))),
    ),
    "window-ours-weak": (rules.window_ours, reset(rst(window=501), ours=our_half())),
    "payload": (rules.payload, flow(rst(payload_len=12))),
    "reserved": (rules.reserved_bits, flow(rst(reserved=0b0100))),
    "mac-stranger": (rules.source_mac, flow(mac=OTHER_MAC, next_hop=GATEWAY)),
    "mac-next-hop": (
        rules.source_mac,
        flow(mac=OTHER_MAC, next_hop=BACKUP),
    ),
    "mac-unexpected": (rules.source_mac, reset(mac=OTHER_MAC, next_hop=GATEWAY)),
    "shape-no-socket": (rules.shape, flow(rst(ip_id=0))),
    "shape-live": (rules.shape, flow(rst(ip_id=23404, flags="RA", window=509))),
    "shape-windows": (rules.shape, flow(rst(ip_id=23404, ttl=111), theirs=steady(111))),
    "shape-continues": (rules.shape, flow(rst(ip_id=23404))),
    "timestamps-missing": (rules.timestamps_missing, flow(rst(ip_id=23404), theirs=STAMPED)),
    "id-zero-no-df": (rules.id_zero_no_df, flow(rst(ip_id=0, df=False))),
    "df-lost": (rules.df_lost, flow(rst(df=False))),
    "df-lost-syn": (rules.df_lost, flow(rst(df=False), theirs=half(packets=1))),
    "out-of-reach": (rules.reach, answered_with_ttl(13)),
    "out-of-reach-near": (rules.reach, answered_with_ttl(17)),
    "goes-on-repeated": (
        rules.goes_on,
        b.changed(
            b.among(flow(), later=(dataclasses.replace(b.LATER, flags="SA", seq=1000),)),
            our_acks=frozenset({1001}),
        ),
    ),
    "hops-several": (
        rules.hop_distance,
        b.with_baseline(flow(rst(ttl=63)), peer_ttls=(47, 63)),
    ),
    "hops-differ-idle": (rules.hop_distance, b.idle(flow(rst(ttl=63, ip_id=0)))),
    "too-soon": (rules.timing, b.changed(flow(), socket=b.measured(14_000))),
    "too-soon-handshake": (
        rules.timing,
        flow(
            theirs=half(packets=1, syn_ns=b.TIME - 5_000_000),
            ours=our_half(packets=2, syn_ns=b.TIME - 20_000_000),
        ),
    ),
    "behind-data": (rules.sequence, flow(rst(flags="RA", seq=950), theirs=half(end=1000))),
    "moves-on": (
        rules.several_resets,
        b.among(flow(rst(seq=2500)), earlier=(b.earlier_rst(seq=1800), b.earlier_rst(seq=1000))),
    ),
    "live-twice": (
        rules.several_resets,
        b.among(
            flow(rst(flags="RA", ip_id=60000), theirs=b.LINUX_HALF),
            earlier=(b.earlier_rst(flags="RA", ip_id=31000),),
        ),
    ),
    "id-shared": (
        rules.id_shared,
        b.changed(flow(), others=(Other("192.0.2.1", b.TIME - 10**6, 39997, 47),)),
    ),
    "goes-on": (rules.goes_on, b.among(flow(), later=(b.LATER,))),
    "goes-on-perhaps": (
        rules.goes_on,
        b.among(flow(), later=(seen(seq=1000, ack=5000, time_ns=b.TIME + 1),)),
    ),
    "bad-checksum": (rules.checksum, flow(cause=Cause("bad-checksum", "dropped"))),
    "other-end-log": (
        rules.other_end,
        flow(
            other_end=OtherEnd(
                Fate.NEVER_SENT, Point.B, "far/b.jsonl", logged=True, why="not there"
            )
        ),
    ),
    "on-link-self": (rules.on_link, flow(rst(ttl=64), mac=MAC, next_hop=ON_LINK)),
    "on-link-routed": (rules.on_link, flow(rst(ttl=63), mac=MAC, next_hop=ON_LINK)),
}


def weights_of(rule: Rule, given: Reset, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the weights that a rule takes."""
    taken: list[str] = []
    real = rules._found

    def spy(name: str, weight: str, text: str, **values: object) -> Evidence:
        taken.append(weight)
        return real(name, weight, text, **values)

    monkeypatch.setattr(rules, "_found", spy)
    rule(given)
    return taken


# ---- the table of weights ----


def test_there_is_a_case_for_every_weight() -> None:
    assert EARNED.keys() == WEIGHTS.keys()


@pytest.mark.parametrize("weight", EARNED)
def test_each_weight_is_earned(weight: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, given = EARNED[weight]
    assert weights_of(rule, given, monkeypatch) == [weight]
    found = rule(given)
    assert found is not None
    assert found.weight == WEIGHTS[weight]
    assert not found.proof
    assert found.text
    assert found.values
    assert "None" not in found.text


def _second_arguments(tree: ast.AST) -> set[str]:
    """The weight names that the code hands to _found(), through names and conditions too."""
    names: set[str] = set()

    def strings(node: ast.expr, function: ast.FunctionDef) -> None:
        if isinstance(node, ast.Constant):
            names.add(str(node.value))
        elif isinstance(node, ast.IfExp):
            strings(node.body, function)
            strings(node.orelse, function)
        elif isinstance(node, ast.Name):
            values = [
                inner.value
                for inner in ast.walk(function)
                if isinstance(inner, ast.Assign)
                and any(isinstance(t, ast.Name) and t.id == node.id for t in inner.targets)
            ]
            assert values, f"{function.name}: where does {node.id} come from?"
            for value in values:
                strings(value, function)
        else:
            raise AssertionError(f"{function.name}: a weight's name that no test can read")

    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or function.name == "_found":
            continue
        for call in ast.walk(function):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Name)
                and call.func.id == "_found"
            ):
                strings(call.args[1], function)
    return names


def test_no_weight_is_unused_and_none_is_missing() -> None:
    assert _second_arguments(ast.parse(inspect.getsource(rules))) == WEIGHTS.keys()


def test_only_strong_clues_accuse_alone() -> None:
    accuse = {name for name, weight in WEIGHTS.items() if weight >= verdict.FORGED_AT}
    assert accuse == {
        *("hops-differ", "hops-differ-syn", "ip-id-ours", "goes-on"),
        *("alien-df", "alien-many"),
    }


# ---- where rules must stay silent ----


def without_frame(given: Reset) -> Reset:
    return b.changed(given, frame=None)


SILENT: list[tuple[str, Rule, Reset]] = [
    ("no baseline", rules.hop_distance, reset(rst(ttl=3))),
    ("a half without a TTL", rules.hop_distance, reset(theirs=half(ttl=None, syn_ttl=None))),
    ("ID 0", rules.ip_id_ours, flow(rst(ip_id=0))),
    (
        "ID 1 after ours was 0",
        rules.ip_id_ours,
        flow(rst(ip_id=1), ours=our_half(recent=(seen(ip_id=0),))),
    ),
    ("another ID", rules.ip_id_ours, flow(rst(ip_id=13050))),
    ("ID two after ours", rules.ip_id_ours, flow(rst(ip_id=13054))),
    ("nothing of ours", rules.ip_id_ours, flow(rst(ip_id=13052), ours=None)),
    ("nothing of ours kept", rules.ip_id_ours, flow(rst(ip_id=13052), ours=our_half(recent=()))),
    (
        "the peer's own counter reaches ours",
        rules.ip_id_ours,
        flow(rst(ip_id=13052), theirs=half(recent=(seen(ip_id=13051),))),
    ),
    ("window 0", rules.window_ours, flow(rst(window=0))),
    (
        "window 0, and ours is 0 too",
        rules.window_ours,
        flow(rst(window=0), ours=our_half(recent=(seen(window=0),))),
    ),
    ("another window", rules.window_ours, flow(rst(window=502))),
    (
        "the peer has our window",
        rules.window_ours,
        flow(rst(window=501), theirs=half(recent=(seen(window=501),))),
    ),
    (
        "the peer's SYN had our window",
        rules.window_ours,
        flow(rst(window=501), theirs=half(syn_window=501)),
    ),
    ("nothing of ours", rules.window_ours, flow(rst(window=501), ours=None)),
    ("no payload", rules.payload, flow(rst())),
    ("AccECN's bit", rules.reserved_bits, flow(rst(reserved=0b0001))),
    ("the flow's MAC", rules.source_mac, flow(mac=MAC, next_hop=GATEWAY)),
    ("the flow's MAC, not the next hop's", rules.source_mac, flow(mac=MAC, next_hop=BACKUP)),
    ("no Ethernet", rules.source_mac, flow(mac=None, next_hop=GATEWAY)),
    ("loopback", rules.source_mac, flow(mac="00:00:00:00:00:00", next_hop=GATEWAY)),
    ("no frame", rules.source_mac, without_frame(flow(mac=OTHER_MAC))),
    ("nothing known", rules.source_mac, reset(mac=OTHER_MAC)),
    ("no flow, the next hop's MAC", rules.source_mac, reset(mac=MAC, next_hop=GATEWAY)),
    ("next hop not resolved", rules.source_mac, reset(mac=MAC, next_hop=UNRESOLVED)),
    ("no flow", rules.shape, reset(rst(ip_id=23404, flags="RA"))),
    ("no shape", rules.shape, flow(rst())),
    ("no packet of ours asked for it", rules.shape, flow(rst(ip_id=0, seq=1001))),
    ("DF changed in a live shape", rules.shape, flow(rst(ip_id=23404, flags="RA", df=False))),
    (
        "timestamps changed in a live shape",
        rules.shape,
        flow(rst(ip_id=23404, flags="RA"), theirs=STAMPED),
    ),
    ("a handshake is no flow", rules.shape, flow(rst(ip_id=23404, flags="RA"), scope=Scope.PEER)),
    ("not negotiated", rules.timestamps_missing, flow(rst(ip_id=23404))),
    ("Linux without a socket", rules.timestamps_missing, flow(rst(ip_id=0), theirs=STAMPED)),
    ("another ID", rules.timestamps_missing, flow(rst(), theirs=STAMPED)),
    (
        "there they are",
        rules.timestamps_missing,
        flow(rst(ip_id=23404, options="nop,nop,TS val 1 ecr 2"), theirs=STAMPED),
    ),
    (
        "Windows",
        rules.timestamps_missing,
        flow(rst(ip_id=23404, ttl=111), theirs=steady(111, timestamps=True)),
    ),
    (
        "IPv6, and which stack the peer has is unknown",
        rules.timestamps_missing,
        flow(rst6(flags="RA"), theirs=STAMPED),
    ),
    (
        "IPv6 without a socket",
        rules.timestamps_missing,
        flow(rst6(), theirs=half(timestamps=True, syn_options=LINUX_SYN)),
    ),
    (
        "IPv6, a BSD's live socket",
        rules.timestamps_missing,
        flow(rst6(flags="RA"), theirs=half(timestamps=True, syn_options=FREEBSD_SYN)),
    ),
    (
        "a BSD puts none into resets",
        rules.timestamps_missing,
        flow(rst(ip_id=23404), theirs=half(timestamps=True, syn_options=FREEBSD_SYN)),
    ),
    (
        "a handshake is no flow",
        rules.timestamps_missing,
        flow(rst(ip_id=23404), theirs=STAMPED, scope=Scope.PEER),
    ),
    ("ID 0 with DF", rules.id_zero_no_df, flow(rst(ip_id=0))),
    ("ID without DF", rules.id_zero_no_df, flow(rst(df=False))),
    ("DF", rules.df_lost, flow(rst(df=True))),
    ("not always DF", rules.df_lost, flow(rst(df=False), theirs=half(df_always=False))),
    ("no baseline", rules.df_lost, reset(rst(df=False))),
    ("behind a router", rules.on_link, flow(rst(ttl=64), mac=MAC, next_hop=GATEWAY)),
    ("no route", rules.on_link, flow(rst(ttl=64), mac=MAC)),
    ("no frame", rules.on_link, without_frame(flow(rst(ttl=64), next_hop=ON_LINK))),
    ("another neighbour's MAC", rules.on_link, flow(rst(ttl=64), mac=OTHER_MAC, next_hop=ON_LINK)),
]


@pytest.mark.parametrize(
    ("rule", "given"),
    [case[1:] for case in SILENT],
    ids=[f"{rule.__name__}: {why}" for why, rule, _ in SILENT],
)
def test_silent(rule: Rule, given: Reset) -> None:
    found = rule(given)
    assert found is not None  # looked at, and said so
    assert found.weight == 0
    assert not found.proof
    assert found.text
    assert "None" not in found.text


@pytest.mark.parametrize("rule", [rules.ip_id_ours, rules.id_zero_no_df, rules.df_lost])
def test_rules_on_ipv4_fields_do_not_apply_to_ipv6(rule: Rule) -> None:
    ours = our_half(recent=(seen(ip_id=0),))
    assert rule(flow(rst6(), theirs=half(recent=(seen(ip_id=0),)), ours=ours)) is None


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.direction == "sent"])
def test_what_we_sent_is_looked_at_by_one_rule_only(kind: Kind) -> None:
    made = MadeHere(1, Kind.SENT_RAW)
    given = flow(
        rst(ttl=3, ip_id=13052, window=501, payload_len=5, reserved=14, df=False),
        kind=kind,
        mac=OTHER_MAC,
        next_hop=ON_LINK,
        made_here=made,
    )
    found = [evidence for rule in RULES if (evidence := rule(given))]
    assert [evidence.rule for evidence in found] == ["sent-hook"]
    assert found[0].proof


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.direction != "sent"])
def test_no_sent_hook_for_the_others(kind: Kind) -> None:
    assert rules.sent_hook(flow(kind=kind)) is None


# ---- single rules, closer ----


@pytest.mark.parametrize(
    ("ttl", "hops"), [(47, 17), (63, 1), (64, 0), (111, 17), (255, 0), (32, 0), (1, 31), (0, 32)]
)
def test_hop_distances_are_in_the_values(ttl: int, hops: int) -> None:
    found = rules.hop_distance(flow(rst(ttl=ttl)))
    assert found is not None
    assert (found.values["hops"], found.values["peer_hops"]) == (hops, 17)
    assert (found.values["ttl"], found.values["peer_ttl"]) == (ttl, 47)


def test_the_handshake_is_the_reference_not_injected_data(monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned = half(ttl=63, ttl_max=63, recent=(seen(ttl=63),))  # two forged data packets came
    given = flow(rst(ttl=47), theirs=poisoned)
    assert weights_of(rules.hop_distance, given, monkeypatch) == ["hops-agree"]
    given = flow(rst(ttl=63), theirs=poisoned)
    assert weights_of(rules.hop_distance, given, monkeypatch) == ["hops-split"]


@pytest.mark.parametrize(
    ("ttl", "weight"),
    [
        (44, "hops-differ"),
        (45, "hops-near-steady"),
        (46, "hops-near-steady"),
        (48, "hops-near-steady"),
        (49, "hops-near-steady"),
        (50, "hops-differ"),
        (112, "hops-near-steady"),
        (238, "hops-agree"),
    ],
)
def test_two_hops_are_a_reroute_three_are_not(
    ttl: int, weight: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = "hops-initial" if ttl == 238 else weight  # 255 - 17: another stack's start
    assert weights_of(rules.hop_distance, flow(rst(ttl=ttl)), monkeypatch) == [expected]


@pytest.mark.parametrize(
    ("packets", "weight"), [(1, "hops-near"), (2, "hops-near"), (3, "hops-near-steady")]
)
def test_a_steady_ttl_takes_three_packets(
    packets: int, weight: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = flow(rst(ttl=46), theirs=half(packets=packets))
    assert weights_of(rules.hop_distance, given, monkeypatch) == [weight]


def test_ipv6_says_hop_limit() -> None:
    found = rules.hop_distance(flow(rst6(ttl=63)))
    assert found is not None
    assert "hop limit" in found.text
    assert "TTL" not in found.text


@pytest.mark.parametrize(
    ("first", "segments", "ip_id", "speaks"),
    [
        (13052, 1, 13052, True),
        (13052, 1, 13053, True),  # + 1: the maker counts on
        (13052, 1, 13054, False),
        (13052, 44, 13052 + 43, True),  # the last wire packet of an offloaded buffer
        (13052, 44, 13052 + 44, True),
        (13052, 44, 13052 + 45, False),
        (13052, 44, 13051, False),
        (65530, 10, 3, True),  # wraps
        (65530, 10, 1, False),
        (65530, 10, 0, False),
    ],
)
def test_offloaded_buffers_cover_a_range_of_ids(
    first: int, segments: int, ip_id: int, speaks: bool
) -> None:
    ours = our_half(recent=(seen(ip_id=first, segments=segments, ttl=64),))
    found = rules.ip_id_ours(flow(rst(ip_id=ip_id), ours=ours))
    assert found is not None
    assert bool(found.weight) == speaks


def test_an_older_packet_of_ours_counts_too() -> None:
    recent = tuple(seen(ip_id=100 * number, ttl=64) for number in (9, 8, 7, 6))
    found = rules.ip_id_ours(flow(rst(ip_id=600), ours=our_half(recent=recent)))
    assert found is not None
    assert found.weight
    assert found.values == {"ip_id": 600, "our_ip_id": 600, "peer_ip_id": 23403}


@pytest.mark.parametrize(("ip_id", "word"), [(13052, "repeats"), (13053, "follows")])
def test_ip_id_says_when_our_packet_was_sent(ip_id: int, word: str) -> None:
    found = rules.ip_id_ours(flow(rst(ip_id=ip_id)))
    assert found is not None
    assert f"{word} our own packet sent 400 µs earlier" in found.text
    assert "23403" in found.text


@pytest.mark.parametrize(
    ("segments", "ip_id", "goes_on"),
    [(1, 23404, True), (1, 23405, False), (1, 23403, False), (3, 23406, True), (3, 23407, False)],
)
def test_the_peers_counter_goes_on(segments: int, ip_id: int, goes_on: bool) -> None:
    theirs = half(recent=(seen(segments=segments),))
    found = rules.shape(flow(rst(ip_id=ip_id), theirs=theirs))
    assert found is not None
    assert (found.weight == WEIGHTS["shape-continues"]) == goes_on


@pytest.mark.parametrize(
    ("packet", "is_one"),
    [
        (rst(ip_id=0), True),
        (rst(ip_id=0, flags="RA", seq=0, ack=7), True),
        (rst(ip_id=0, flags="RA", seq=1000), False),
        (rst(ip_id=0, ack=99), True),  # an ack without the flag means nothing
        (rst(ip_id=0, df=False), False),
        (rst(ip_id=5), False),
        (rst(ip_id=0, window=1), False),
        (rst(ip_id=0, payload_len=1), False),
        (rst(ip_id=0, options="nop,nop,TS val 1 ecr 2"), False),
        (rst6(), True),
        (rst6(flags="RA", seq=0), True),
        (rst6(flags="RA", seq=1000), False),
        (rst6(window=1), False),
    ],
)
def test_no_socket_shape(packet: Any, is_one: bool) -> None:
    assert rules.is_no_socket_shape(packet) == is_one


@pytest.mark.parametrize(
    ("packet", "answer"),
    [
        (rst(seq=1000), True),  # our data's ack
        (rst(seq=900), True),  # our older packet's
        (rst(seq=1001), False),
        (rst(flags="RA", seq=0, ack=5117), True),  # our data's end
        (rst(flags="RA", seq=0, ack=5118), False),
        (rst(flags="RA", seq=0, ack=5000), True),  # our older, empty packet's end
    ],
)
def test_a_no_socket_reset_answers_a_packet_of_ours(packet: Any, answer: bool) -> None:
    assert rules.answers_ours(packet, our_half()) == answer


def test_answers_to_syn_and_fin_count_one_and_wrap() -> None:
    syn = our_half(recent=(seen(flags="S", seq=0xFFFFFFFF, ack=0, payload_len=0),))
    assert rules.answers_ours(rst(flags="RA", seq=0, ack=0), syn) is True
    fin = our_half(recent=(seen(flags="FA", seq=10, ack=0, payload_len=5),))
    assert rules.answers_ours(rst(flags="RA", seq=0, ack=16), fin) is True
    assert rules.answers_ours(rst(), None) is None
    assert rules.answers_ours(rst(), our_half(recent=())) is None


@pytest.mark.parametrize(
    ("made", "weight", "words"),
    [
        (
            MadeHere(7, Kind.SENT_NETFILTER, hook="forward", netns_name="gw"),
            20.0,
            "own firewall made it (netns gw, forward hook)",
        ),
        (MadeHere(7, Kind.SENT_NETFILTER), 20.0, "own firewall made it (netns 7)"),
        (MadeHere(7, Kind.SENT_RAW, 42, "hping3"), 20.0, "raw socket (hping3[42], netns 7)"),
        (MadeHere(7, Kind.SENT_RAW), 20.0, "raw socket (unknown, netns 7)"),
        (MadeHere(7, Kind.SENT_PASSIVE), -20.0, "own TCP stack sent it (netns 7)"),
        (MadeHere(7, Kind.SENT_ACTIVE, 9, "nginx"), -20.0, "TCP stack sent it (netns 7, nginx[9])"),
    ],
)
def test_made_here(made: MadeHere, weight: float, words: str) -> None:
    found = rules.made_here(flow(made_here=made))
    assert found is not None
    assert found.proof
    assert found.weight == weight
    assert words in found.text


@pytest.mark.parametrize(
    ("other", "weight", "words"),
    [
        (
            OtherEnd(Fate.NEVER_SENT, Point.B, "x/b.pcap", why="it lacks it"),
            20.0,
            "never left B (b.pcap)",
        ),
        (OtherEnd(Fate.LEFT, Point.B, "b.pcap", 7, at_sender=True), -20.0, "B (b.pcap), frame 7"),
    ],
)
def test_the_other_end_proves(other: OtherEnd, weight: float, words: str) -> None:
    found = rules.other_end(flow(other_end=other))
    assert found is not None
    assert (found.proof, found.weight) == (True, weight)
    assert words in found.text


@pytest.mark.parametrize(
    "other",
    [
        OtherEnd(Fate.LEFT, Point.B, "b.pcap", 7),  # it passed there: who made it is not said
        OtherEnd(Fate.UNKNOWN, Point.B, "b.pcap", why="too few packets"),
        OtherEnd(Fate.ARRIVED, Point.B, "b.pcap", 7),
        OtherEnd(Fate.NEVER_ARRIVED, Point.B, "b.pcap"),
    ],
)
@pytest.mark.parametrize("kind", [Kind.RECEIVED_ACCEPTED, Kind.SENT_ACTIVE])
def test_the_other_end_may_prove_nothing(other: OtherEnd, kind: Kind) -> None:
    found = rules.other_end(flow(kind=kind, other_end=other))
    if found is not None:
        assert (found.proof, found.weight) == (False, 0.0)
    assert rules.other_end(flow()) is None


def test_nothing_made_here() -> None:
    assert rules.made_here(flow()) is None


@pytest.mark.parametrize(
    ("ns", "text"), [(0, "0 µs"), (400_000, "400 µs"), (2_500_000, "2.5 ms"), (3 * 10**9, "3.0 s")]
)
def test_age(ns: int, text: str) -> None:
    assert rules.age_text(ns) == text


def test_a_clock_that_jumped_back_gives_no_negative_age() -> None:
    late = our_half(recent=(seen(ip_id=13052, time_ns=b.TIME + 10**9),))
    found = rules.ip_id_ours(flow(rst(ip_id=13052), ours=late))
    assert found is not None
    assert "sent 0 µs earlier" in found.text


def test_a_macs_stranger_is_named() -> None:
    found = rules.source_mac(flow(mac=THIRD_MAC, next_hop=GATEWAY))
    assert found is not None
    assert found.values == {"mac": THIRD_MAC, "flow_mac": MAC, "next_hop_mac": MAC}
    assert THIRD_MAC in found.text


# ---- the documentation ----


def rule_names() -> dict[str, Callable[..., object]]:
    """The name that each rule gives its evidence."""
    names: dict[str, Callable[..., object]] = {}
    cases = [
        flow(made_here=MadeHere(1, Kind.SENT_RAW)),
        flow(kind=Kind.SENT_RAW),
        *(given for _, given in EARNED.values()),
    ]
    for rule in RULES:
        found = {evidence.rule for given in cases if (evidence := rule(given))}
        assert len(found) == 1, f"{rule.__name__} has not exactly one name: {found}"
        names[found.pop()] = rule
    return names


def test_rules_have_names_of_their_own_and_say_what_they_look_at() -> None:
    names = rule_names()
    assert len(names) == len(RULES)
    assert all(rule.__doc__ for rule in names.values())


def test_every_rule_is_documented_under_its_name() -> None:
    headings = re.findall(
        r"^### `([\w-]+)`", EVIDENCE_DOC.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert headings == list(rule_names())


def test_every_rules_section_says_why_when_and_from_where() -> None:
    for section in re.split(r"^### ", EVIDENCE_DOC.read_text(encoding="utf-8"), flags=re.MULTILINE)[
        1:
    ]:
        for question in ("Looks at", "Why it works", "Wrong when", "Source"):
            assert f"**{question}.**" in section, section.splitlines()[0]


def test_the_documented_weights_are_the_weights() -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \| ([+-]\d+\.\d+) \|",
        EVIDENCE_DOC.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == len(WEIGHTS)
    assert {name: float(weight) for name, weight in rows} == WEIGHTS


def test_the_documented_thresholds_are_the_thresholds() -> None:
    text = EVIDENCE_DOC.read_text(encoding="utf-8")
    assert f"**+{verdict.FORGED_AT:.2f}**" in text
    assert f"**{verdict.PEER_AT:.2f}**" in text.replace("−", "-")


# ---- alien-shape ----

LINUX = half(recent=(seen(ip_id=502), seen(ip_id=501), seen(ip_id=499)))


@pytest.mark.parametrize(
    ("packet", "theirs", "fires"),
    [
        pytest.param(rst(ip_id=0), LINUX, False, id="no-socket"),
        pytest.param(rst(ip_id=31000), LINUX, False, id="no-socket-of-an-old-kernel"),
        pytest.param(rst(ip_id=503, flags="RA", window=9), LINUX, False, id="live"),
        pytest.param(rst(ip_id=600, flags="RA", window=9), LINUX, False, id="live-after-loss"),
        pytest.param(rst(ip_id=502, flags="RA", window=9), LINUX, True, id="same-id-again"),
        pytest.param(rst(ip_id=9000, flags="RA", window=9), LINUX, True, id="live-but-foreign-id"),
        pytest.param(rst(ip_id=9000, df=False), LINUX, True, id="tcpkill"),
        pytest.param(
            rst(ip_id=9000, df=False),
            half(recent=(seen(ip_id=7), seen(ip_id=40000))),
            False,
            id="a-peer-with-random-ids",
        ),
        pytest.param(
            rst(ip_id=9000, df=False),
            half(recent=LINUX.recent, df_always=False),
            False,
            id="a-peer-without-df",
        ),
        pytest.param(
            rst(ip_id=9000, df=False, ttl=111),
            half(recent=LINUX.recent, ttl=111, ttl_min=111, ttl_max=111, syn_ttl=111),
            False,
            id="a-windows-peer",
        ),
        pytest.param(
            rst(ip_id=9000, df=False), half(packets=1), False, id="one-packet-is-not-enough"
        ),
        pytest.param(
            rst(ip_id=9000, df=False),
            half(recent=LINUX.recent, syn_options=LINUX_SYN),
            True,
            id="a-linux-syn",
        ),
        pytest.param(
            rst(ip_id=9000, df=False),
            half(recent=LINUX.recent, syn_options=FREEBSD_SYN),
            False,
            id="another-stack's-syn",
        ),
        pytest.param(
            rst6(window=9), half(df_always=False, syn_options=LINUX_SYN), True, id="ipv6-window"
        ),
        pytest.param(rst6(window=9), half(df_always=False), False, id="ipv6-unknown-syn"),
        pytest.param(
            rst6(window=9), half(df_always=False, syn_options=MACOS_SYN), False, id="ipv6-mac"
        ),
        pytest.param(
            rst6(flags="RA", window=9),
            half(df_always=False, syn_options=LINUX_SYN),
            False,
            id="ipv6-live",
        ),
        pytest.param(rst6(), half(df_always=False, syn_options=LINUX_SYN), False, id="ipv6-honest"),
    ],
)
def test_alien_shape(packet: Packet, theirs: Half, fires: bool) -> None:
    found = rules.alien_shape(flow(packet, theirs=theirs))
    assert found is not None
    assert (found.weight > 0) == fires


def test_ipv6_live_socket_without_the_agreed_timestamps() -> None:
    given = flow(rst6(flags="RA"), theirs=half(timestamps=True, syn_options=LINUX_SYN))
    found = rules.timestamps_missing(given)
    assert found is not None
    assert found.weight == rules.WEIGHTS["timestamps-missing"]
    stamped = rst6(flags="RA", options="nop,nop,TS val 1 ecr 2")
    found = rules.timestamps_missing(dataclasses.replace(given, rst=stamped))
    assert found is not None
    assert found.weight == 0


# ---- hops, idle flows, several hosts ----


@pytest.mark.parametrize(
    ("given", "weight"),
    [
        pytest.param(
            b.with_baseline(flow(rst(ttl=63)), peer_ttls=(47, 45, 48)), "hops-differ", id="no-other"
        ),
        pytest.param(
            b.with_baseline(flow(rst(ttl=63), scope=Scope.PEER, ours=None), peer_ttls=(47, 127)),
            "hops-several",
            id="another-initial-ttl-of-the-same-distance",
        ),
        pytest.param(b.idle(flow(rst(ttl=63, ip_id=0)), 59), "hops-differ", id="idle-but-short"),
        pytest.param(b.idle(flow(rst(ttl=63, ip_id=9))), "hops-differ", id="not-that-shape"),
        pytest.param(
            b.idle(flow(rst(ttl=33, ip_id=0))), "hops-differ-behind", id="farther-than-the-peer"
        ),
        pytest.param(flow(rst(ttl=31, ip_id=0)), "hops-differ", id="too-far-behind-the-peer"),
        pytest.param(flow(rst(ttl=51, ip_id=0)), "hops-differ-odd", id="its-own-ttl-may-be-60"),
        pytest.param(flow(rst(ttl=52, ip_id=0)), "hops-differ", id="too-near-for-a-nat-box"),
        pytest.param(flow(rst(ttl=50, ip_id=9)), "hops-differ", id="no-nat-box-has-that-shape"),
    ],
)
def test_what_excuses_another_distance(
    given: Reset, weight: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert weights_of(rules.hop_distance, given, monkeypatch) == [weight]


SECOND = 10**9


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        pytest.param((-300,), (), 300, id="their-last-word-then-the-reset"),
        pytest.param((-300,), (-1,), 299, id="we-break-the-silence"),
        pytest.param((-300,), (-1, -2, -3), 297, id="we-say-it-three-times"),
        pytest.param((-1, -300), (-2,), 1, id="they-still-talked"),
        pytest.param((-400, -100), (-300,), 100, id="an-older-silence-does-not-count"),
        pytest.param((), (-1, -90), 89, id="nothing-of-theirs"),
        pytest.param((5,), (-70,), 70, id="a-clock-that-jumped"),
    ],
)
def test_idle(theirs: tuple[int, ...], ours: tuple[int, ...], expected: int) -> None:
    def at(seconds: tuple[int, ...]) -> tuple[Any, ...]:
        return tuple(seen(time_ns=b.TIME + s * SECOND) for s in seconds)

    found = rules.idle_ns(flow(theirs=half(recent=at(theirs)), ours=our_half(recent=at(ours))))
    assert found == expected * SECOND


def test_idle_is_unknown_without_packets() -> None:
    assert rules.idle_ns(flow(theirs=half(recent=()), ours=None)) is None
    assert rules.idle_ns(flow(scope=Scope.PEER)) is None


# ---- timing ----

MS = 1_000_000


def shaken(ours: Half, theirs: Half, rtt_ms: int = 15) -> Reset:
    """A flow with a handshake of a known round trip."""
    begun = b.TIME - 5 * SECOND
    return flow(
        theirs=dataclasses.replace(theirs, syn_ns=begun + rtt_ms * MS),
        ours=dataclasses.replace(ours, syn_ns=begun),
    )


def sent(ago_ms: float, **values: Any) -> Any:
    """A packet of ours, so many ms before the RST."""
    return seen(**{"time_ns": b.TIME - round(ago_ms * MS), "ttl": 64, "ack": 1000, **values})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            b.changed(shaken(our_half(), half()), socket=b.measured(40_000)),
            (15 * MS, True),
            id="a-handshake-shorter-than-the-socket-s",
        ),
        pytest.param(b.changed(flow(), socket=b.measured(9_000)), (9 * MS, True), id="socket"),
        pytest.param(
            b.changed(flow(theirs=half(packets=2)), socket=b.measured(9_000)),
            (9 * MS, False),
            id="socket-that-knows-the-handshake-only",
        ),
        pytest.param(
            b.changed(flow(scope=Scope.NONE), socket=b.measured(9_000)),
            (9 * MS, False),
            id="socket-without-a-flow",
        ),
        pytest.param(shaken(our_half(), half()), (15 * MS, False), id="handshake-only"),
        pytest.param(
            shaken(our_half(recent=(sent(12, seq=100),)), half(recent=(sent(5, ack=200),))),
            (7 * MS, True),
            id="data-was-acknowledged-sooner",
        ),
        pytest.param(
            flow(
                ours=our_half(recent=(sent(12, seq=100),), syn_ns=None),
                theirs=half(recent=(sent(5, ack=200),)),
            ),
            None,
            id="acknowledgments-may-wait-resets-do-not",
        ),
        pytest.param(shaken(our_half(), half(), -1), None, id="we-are-the-server"),
    ],
)
def test_least_round_trip(given: Reset, expected: tuple[int, bool] | None) -> None:
    assert rules.least_rtt_ns(given) == expected


RETRANSMITTED = (sent(0.4, seq=5000, payload_len=117), sent(3, seq=5117, payload_len=0, flags="A"))


@pytest.mark.parametrize(
    ("packet", "ours", "rtt_us", "weight"),
    [
        pytest.param(rst(), our_half(), 15_000, "too-soon", id="0.4-of-15-ms"),
        pytest.param(rst(), our_half(), 801 * 2, None, id="too-short-a-trip-to-tell"),
        pytest.param(
            rst(),
            our_half(recent=(sent(7.4),), packets=1),
            15_000,
            "too-soon",
            id="just-under-half",
        ),
        pytest.param(rst(), our_half(recent=(sent(7.5),), packets=1), 15_000, None, id="half"),
        pytest.param(rst(seq=900), our_half(), 15_000, None, id="answers-an-older-one"),
        pytest.param(rst(seq=7), our_half(), 15_000, None, id="answers-nothing"),
        pytest.param(
            rst(flags="RA", ack=5117), our_half(), 15_000, "too-soon", id="acknowledges-our-data"
        ),
        pytest.param(rst(flags="RA", ack=5000), our_half(), 15_000, None, id="acks-nothing-new"),
        pytest.param(
            rst(flags="RA", ack=5117),
            our_half(recent=RETRANSMITTED),
            15_000,
            None,
            id="a-retransmission-whose-first-is-forgotten",
        ),
        pytest.param(
            rst(flags="RA", ack=5117),
            our_half(recent=RETRANSMITTED, packets=2),
            15_000,
            "too-soon",
            id="all-packets-are-known",
        ),
        pytest.param(
            rst(),
            our_half(recent=tuple(sent(n / 10, payload_len=0, flags="A") for n in (1, 2, 3, 4))),
            15_000,
            None,
            id="many-acks-with-that-number",
        ),
        pytest.param(
            rst(),
            our_half(recent=(sent(-1),), packets=1),
            15_000,
            None,
            id="a-clock-that-jumped-back",
        ),
        pytest.param(rst(), our_half(recent=()), 15_000, None, id="nothing-of-ours"),
        pytest.param(rst6(), our_half(), 15_000, "too-soon", id="ipv6"),
    ],
)
def test_timing(
    packet: Packet,
    ours: Half,
    rtt_us: int,
    weight: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = dataclasses.replace(ours, syn_ns=None)
    given = b.changed(flow(packet, ours=ours), socket=b.measured(rtt_us))
    assert weights_of(rules.timing, given, monkeypatch) == ([weight] if weight else [])


# ---- sequence numbers ----

WRAPPED = 2**32 - 100


@pytest.mark.parametrize(
    ("packet", "theirs", "fires"),
    [
        pytest.param(rst(flags="RA", seq=1000), half(end=1000), False, id="next"),
        pytest.param(rst(flags="RA", seq=1500), half(end=1000), False, id="unseen-data"),
        pytest.param(rst(flags="RA", seq=999), half(end=1000), True, id="one-behind"),
        pytest.param(rst(flags="RA", seq=WRAPPED), half(end=50), False, id="asked-for-long-ago"),
        pytest.param(rst(flags="RA", seq=950), half(end=None), False, id="end-unknown"),
        pytest.param(rst(flags="RA", seq=900), half(end=1000), False, id="what-our-ack-asked-for"),
        pytest.param(rst(flags="RA", seq=100), half(end=1000), False, id="an-older-ack-asked"),
        pytest.param(rst(ip_id=0, seq=950), half(end=1000), False, id="no-socket"),
        pytest.param(rst(flags="RA", seq=0), half(end=1000), False, id="seq-0"),
        pytest.param(
            rst(flags="RA", seq=950),
            half(end=(950 + rules.NEAR_SEQUENCE + 1)),
            False,
            id="of-another-connection",
        ),
        pytest.param(rst6(flags="RA", seq=950), half(end=1000), True, id="ipv6"),
    ],
)
def test_sequence(packet: Packet, theirs: Half, fires: bool) -> None:
    found = rules.sequence(flow(packet, theirs=theirs))
    assert found is not None
    assert bool(found.weight) == fires


def test_sequence_numbers_wrap() -> None:
    ours = our_half(recent=(sent(1, ack=10),), packets=1)
    found = rules.sequence(flow(rst(flags="RA", seq=WRAPPED), theirs=half(end=50), ours=ours))
    assert found is not None
    assert found.values == {"behind": 150, "seq": WRAPPED}


# ---- several resets ----

RA1, RA2 = (
    b.earlier_rst(flags="RA", ip_id=31000, time_ns=b.TIME - 2 * MS),
    b.earlier_rst(flags="RA", ip_id=45000),
)


@pytest.mark.parametrize(
    ("given", "weight"),
    [
        pytest.param(
            b.among(
                flow(rst(seq=1000), theirs=half(last_ns=b.TIME - 3 * MS)),
                later=(
                    b.earlier_rst(seq=1500, time_ns=b.TIME + 1),
                    b.earlier_rst(seq=2500, time_ns=b.TIME + 2),
                ),
            ),
            "moves-alike",
            id="this-one-answers-our-ack-and-is-made-like-the-others",
        ),
        pytest.param(
            b.among(
                flow(rst(seq=1000, ttl=44), theirs=half(last_ns=b.TIME - 3 * MS)),
                later=(
                    b.earlier_rst(seq=1500, time_ns=b.TIME + 1),
                    b.earlier_rst(seq=2500, time_ns=b.TIME + 2),
                ),
            ),
            None,
            id="this-one-answers-our-ack-and-is-not-made-like-the-others",
        ),
        pytest.param(
            b.among(flow(rst(seq=1500)), later=(b.earlier_rst(seq=2500, time_ns=b.TIME + 2),)),
            "moves-on",
            id="two-that-answer-nothing",
        ),
        pytest.param(
            b.among(flow(rst(seq=1500)), later=(b.earlier_rst(seq=1000, time_ns=b.TIME + 2),)),
            None,
            id="closed-with-data-unread-then-an-answer",
        ),
        pytest.param(
            b.among(flow(rst(seq=1500, flags="RA")), earlier=(b.earlier_rst(seq=900),)),
            None,
            id="the-answer-overtook-the-live-one",
        ),
        pytest.param(
            b.among(
                flow(rst(seq=800, ip_id=0)),
                earlier=(b.earlier_rst(seq=700, ip_id=0), b.earlier_rst(seq=600, ip_id=0)),
            ),
            None,
            id="answers-to-acks-that-we-no-longer-know",
        ),
        pytest.param(
            b.among(flow(rst(seq=2500)), earlier=(b.earlier_rst(seq=1000 + 2**30),)),
            None,
            id="one-of-another-connection",
        ),
        pytest.param(
            b.among(
                flow(rst(seq=2500), theirs=half(last_ns=b.TIME - 1)),
                earlier=(b.earlier_rst(seq=1500),),
            ),
            None,
            id="the-peer-sent-data-in-between",
        ),
        pytest.param(
            b.among(
                flow(rst(seq=1500)),
                later=(b.LATER, b.earlier_rst(seq=2500, time_ns=b.TIME + 20 * MS)),
            ),
            None,
            id="the-peer-went-on-in-between",
        ),
        pytest.param(
            b.among(flow(rst(seq=1500)), earlier=(b.earlier_rst(seq=1500, ip_id=40000),)),
            None,
            id="one-packet-captured-twice",
        ),
        pytest.param(
            b.among(flow(rst(seq=2500), ours=None), earlier=(b.earlier_rst(seq=1500),)),
            None,
            id="nothing-of-ours-known",
        ),
        pytest.param(
            b.among(flow(rst(flags="RA", ip_id=60000), theirs=b.LINUX_HALF), earlier=(RA2, RA1)),
            "live-twice",
            id="three-with-random-ids",
        ),
        pytest.param(
            b.among(flow(rst(flags="RA", ip_id=503), theirs=b.LINUX_HALF), earlier=(RA2, RA1)),
            None,
            id="the-genuine-one-after-two-forged",
        ),
        pytest.param(
            b.among(flow(rst(flags="RA", ip_id=60000)), earlier=(RA2, RA1)),
            None,
            id="a-peer-that-may-answer-with-random-ids",
        ),
        pytest.param(
            b.among(flow(rst(flags="RA", ip_id=45001), theirs=b.LINUX_HALF), earlier=(RA2,)),
            None,
            id="one-counter",
        ),
        pytest.param(
            b.among(flow(rst(ip_id=60000), theirs=b.LINUX_HALF), earlier=(RA2, RA1)),
            None,
            id="this-one-is-no-live-one",
        ),
        pytest.param(
            b.among(
                flow(rst6(flags="RA", seq=2500)),
                earlier=(b.earlier_rst(flags="RA", ip_id=0, seq=1500),),
            ),
            "moves-on",
            id="ipv6-moves-on",
        ),
    ],
)
def test_several_resets(given: Reset, weight: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights_of(rules.several_resets, given, monkeypatch) == ([weight] if weight else [])


def test_numbers_that_move_on_across_the_wrap() -> None:
    ours = our_half(recent=(sent(1, ack=WRAPPED),))
    given = b.among(flow(rst(seq=400), ours=ours), earlier=(b.earlier_rst(seq=WRAPPED + 50),))
    found = rules.several_resets(given)
    assert found is not None
    assert found.values["steps"] == [450]


# ---- what came later ----

REFUSED_SYN = sent(0.4, flags="S", seq=5000, ack=0, payload_len=0)
SYN_ACK = seen(flags="SA", seq=70, ack=5001, payload_len=0, time_ns=b.TIME + MS)
NO_HANDSHAKE = half(packets=0, syn_ns=None, syn_ttl=None, recent=())


def refused(packet: Packet, **values: Any) -> Reset:
    """The answer to our SYN, from a peer that has said nothing else."""
    given = {"ours": our_half(recent=(REFUSED_SYN,), packets=1), "scope": Scope.NONE, **values}
    return b.among(flow(packet, **given), later=(SYN_ACK,))


REFUSAL = rst(flags="RA", seq=0, ack=5001, ip_id=0)


@pytest.mark.parametrize(
    ("given", "weight"),
    [
        pytest.param(refused(REFUSAL, theirs=None), "goes-on", id="accepts-what-was-refused"),
        pytest.param(
            refused(rst(flags="RA", seq=9, ack=5001), theirs=half()), "goes-on", id="scope-peer"
        ),
        pytest.param(
            refused(rst(flags="R", seq=8888), theirs=None), None, id="syn-received-resets-a-stray"
        ),
        pytest.param(refused(rst(flags="RA", seq=0, ack=777), theirs=None), None, id="another-syn"),
        pytest.param(
            refused(REFUSAL, theirs=half(), scope=Scope.FLOW), None, id="a-syn-ack-repeated"
        ),
        pytest.param(b.among(flow(), later=(b.earlier_rst(seq=2000),)), None, id="another-rst"),
        pytest.param(
            b.among(flow(), later=(seen(seq=900, payload_len=100, ack=5117),)),
            None,
            id="overtaken-data",
        ),
        pytest.param(
            b.among(flow(), later=(seen(seq=1000, payload_len=0, flags="A", ack=5117),)),
            None,
            id="a-pure-ack",
        ),
        pytest.param(
            b.among(flow(), later=(seen(seq=999, payload_len=1, ack=5117),)),
            None,
            id="a-keepalive-with-a-byte",
        ),
        pytest.param(
            b.among(flow(), later=(seen(seq=1000, payload_len=0, flags="FA", ack=5117),)),
            "goes-on",
            id="a-fin",
        ),
        pytest.param(
            b.among(flow(rst(seq=0)), later=(b.LATER,)), None, id="a-rst-without-a-number"
        ),
        pytest.param(
            b.among(flow(rst(seq=1000 - rules.NEAR_SEQUENCE)), later=(b.LATER,)),
            None,
            id="of-an-earlier-connection",
        ),
        pytest.param(
            b.among(flow(), later=(seen(seq=1000, ack=5116),)),
            "goes-on-perhaps",
            id="our-packet-not-all-acknowledged",
        ),
        pytest.param(
            b.among(
                flow(ours=our_half(recent=(sent(1, payload_len=0, flags="A", seq=5000),))),
                later=(b.LATER,),
            ),
            "goes-on-perhaps",
            id="the-answer-to-a-pure-ack",
        ),
        pytest.param(
            b.among(
                flow(ours=our_half(recent=(b.OUR_DATA, sent(300, seq=5000, payload_len=117)))),
                later=(b.LATER,),
            ),
            "goes-on-perhaps",
            id="the-answer-to-a-stray-retransmission",
        ),
        pytest.param(
            b.among(
                flow(ours=our_half(recent=(b.OUR_DATA, sent(3, seq=5117, payload_len=0)))),
                later=(b.LATER,),
            ),
            "goes-on-perhaps",
            id="a-retransmission-whose-first-is-forgotten",
        ),
        pytest.param(
            b.among(flow(rst(seq=950)), later=(b.LATER,)),
            "goes-on-perhaps",
            id="the-answer-to-an-older-packet",
        ),
        pytest.param(
            b.among(flow(ours=None), later=(b.LATER,)), "goes-on-perhaps", id="nothing-of-ours"
        ),
        pytest.param(
            b.among(flow(rst(seq=1010)), later=(b.LATER,)), "goes-on", id="asked-for-by-nobody"
        ),
        pytest.param(
            b.among(
                flow(rst(flags="RA", options="nop,nop,TS val 1 ecr 2")), later=(seen(seq=1000),)
            ),
            "goes-on",
            id="a-live-socket-s-own",
        ),
        pytest.param(
            b.among(flow(), later=(seen(seq=1000, ack=5000), b.LATER)),
            "goes-on",
            id="the-second-proves-it",
        ),
        pytest.param(b.among(flow(rst6()), later=(b.LATER,)), "goes-on", id="ipv6"),
    ],
)
def test_goes_on(given: Reset, weight: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = weights_of(rules.goes_on, given, monkeypatch)
    assert taken[-1:] == ([weight] if weight else [])


def test_the_wrap_does_not_hide_that_it_goes_on() -> None:
    ours = our_half(recent=(sent(1, ack=WRAPPED),))
    later = seen(seq=WRAPPED, payload_len=300, ack=1000)
    found = rules.goes_on(b.among(flow(rst(seq=WRAPPED), ours=ours), later=(later,)))
    assert found is not None
    assert found.weight == WEIGHTS["goes-on"]


# ---- one counter ----


@pytest.mark.parametrize(
    ("ip_id", "other", "theirs", "fires"),
    [
        (40000, Other("192.0.2.1", b.TIME, 40008, 47), half(), True),
        (40000, Other("192.0.2.1", b.TIME, 40009, 47), half(), False),
        (3, Other("192.0.2.1", b.TIME, 65531, 47), half(), True),
        (40000, Other("192.0.2.1", b.TIME, 40001, 46), half(), False),
        (40000, Other("192.0.2.1", b.TIME, 40001, 111), half(), True),
        (0, Other("192.0.2.1", b.TIME, 1, 47), half(), False),
        (1, Other("192.0.2.1", b.TIME, 2, 47), half(), False),
        # One honest host with several addresses and one counter for all its peers.
        (40000, Other("192.0.2.1", b.TIME, 40001, 47), half(recent=(seen(ip_id=36000),)), False),
        (40000, Other("192.0.2.1", b.TIME, 40001, 47), half(recent=(seen(ip_id=35000),)), True),
    ],
)
def test_one_counter(ip_id: int, other: Other, theirs: Half, fires: bool) -> None:
    found = rules.id_shared(b.changed(flow(rst(ip_id=ip_id), theirs=theirs), others=(other,)))
    assert found is not None
    assert bool(found.weight) == fires


def test_one_counter_needs_ip_ids() -> None:
    assert rules.id_shared(flow(rst6())) is None
