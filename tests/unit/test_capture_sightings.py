"""Captures that show a packet several times: on `any`, of taps around a router, of mirrors."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from rsttrace.capture.source import CaptureSource
from rsttrace.judge.history import History
from rsttrace.judge.verdict import judge
from rsttrace.model import Entry, Origin, Reset, Verdict
from rsttrace.render.json import entry_object
from rsttrace.render.text import entry_lines
from tests.unit import captures as c
from tests.unit.captures import Talk, write
from tests.unit.test_read import run

CLIENT_SIDE, SERVER_SIDE = 2, 3
"""The router's interfaces: the capture is made there."""

MACS = {
    "client": "02:00:00:00:00:05",
    CLIENT_SIDE: "02:00:00:00:02:01",
    SERVER_SIDE: "02:00:00:00:03:01",
    "server": "00:d0:f8:22:33:44",
}

Shown = tuple[int, int, bytes]
"""A frame: the interface, SLL's packet type (0 in, 4 out), and an Ethernet frame."""


def passed(frame: bytes, by: str = "") -> list[Shown]:
    """A frame of Talk as a router shows it: where it came in and, with a smaller TTL, went out.

    Talk's TTLs are those before the router. `by`: another MAC handed it over.
    """
    packet = Ether(frame)[IP if frame[12:14] == b"\x08\0" else IPv6]
    ours = packet.src in (c.US, c.US6)
    into, out = (CLIENT_SIDE, SERVER_SIDE) if ours else (SERVER_SIDE, CLIENT_SIDE)
    sender, receiver = ("client", "server") if ours else ("server", "client")
    came = Ether(src=by or MACS[sender], dst=MACS[into]) / packet
    later = packet.copy()
    if isinstance(later, IP):
        later.ttl -= 1
        del later.chksum
    else:
        later.hlim -= 1
    left = Ether(src=MACS[out], dst=MACS[receiver]) / later
    return [(into, 0, bytes(came)), (out, 4, bytes(left))]


def crossed(frames: Iterable[bytes]) -> list[Shown]:
    return [shown for frame in frames for shown in passed(frame)]


def on_any(shown: Iterable[Shown], step_ns: int = 2_000) -> bytes:
    """A capture on all interfaces, by tcpdump: Linux cooked 2."""
    packets = [
        frame[12:14]
        + struct.pack(">HIHBB", 0, interface, 1, kind, 6)
        + frame[6:12]
        + b"\0\0"
        + frame[14:]
        for interface, kind, frame in shown
    ]
    return c.pcap(packets, link=c.SLL2, nano=True, step_ns=step_ns)


def on_any_1(shown: Iterable[Shown]) -> bytes:
    """The same by an older one: no interface's index."""
    packets = [
        struct.pack(">HHH", kind, 1, 6) + frame[6:12] + b"\0\0" + frame[12:]
        for _, kind, frame in shown
    ]
    return c.pcap(packets, link=c.SLL, nano=True, step_ns=2_000)


def by_taps(shown: Iterable[Shown]) -> bytes:
    """Taps on both sides, in one pcapng with an interface each."""
    made = c.section() + c.interface() + c.interface()
    for number, (interface, _, frame) in enumerate(shown):
        made += c.enhanced(frame, number=interface - 2, ticks=c.START_NS // 1000 + number * 2)
    return made


def merged(shown: Iterable[Shown]) -> bytes:
    """The same, merged into a pcap: only the MACs and the TTL tell the places apart."""
    return c.pcap([frame for _, _, frame in shown], nano=True, step_ns=2_000)


WAYS = {"any": on_any, "any-sll1": on_any_1, "taps": by_taps, "merged": merged}


def resets(path: Path, data: bytes, **options: Any) -> list[Reset]:
    with CaptureSource(write(path / "capture", data), **options) as source:
        found = list(source.resets())
        assert source.problem is None
    return found


def verdicts(path: Path, data: bytes) -> list[tuple[Reset, Verdict]]:
    """As `rsttrace read` judges them, with what came before and after."""
    history = History(hold_ns=60 * c.SECOND)
    with CaptureSource(write(path / "capture", data)) as source:
        for item in source.items():
            if not isinstance(item, int):
                history.add(item, item.time_ns)
    return [(case.reset, case.verdict) for case in history.due(None) if case.verdict is not None]


def exchange(talk: Talk, count: int = 3) -> list[bytes]:
    frames = talk.handshake()
    for _ in range(count):
        frames += [talk.frame(0, "PA", b"question"), talk.frame(1, "PA", b"answer")]
    return [*frames, talk.frame(0, "A")]


def hop_limit(family: int, value: int) -> dict[str, int]:
    return {"ttl" if family == 4 else "hlim": value}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("way", WAYS)
def test_a_reset_that_passes_a_router_is_one_entry(way: str, family: int, tmp_path: Path) -> None:
    talk = Talk(family=family, hops=5)
    frames = exchange(talk)
    frames.append(talk.reset("RA", window=500, **({"id": 9004} if family == 4 else {})))
    ((found, verdict),) = verdicts(tmp_path, WAYS[way](crossed(frames)))
    last = 2 * len(frames)
    assert [seen.frame for seen in found.sightings] == [last - 1, last]
    assert [seen.ttl for seen in found.sightings] == [59, 58]
    assert [seen.mac for seen in found.sightings] == [MACS["server"], MACS[CLIENT_SIDE]]
    # judged at the receiver's side, against what was seen there
    assert (found.file_frame, found.rst.ttl, found.kind.value) == (last, 58, "received-accepted")
    assert verdict.origin is Origin.PEER
    half = found.baseline.theirs
    assert half is not None
    assert (half.syn_ttl, half.ttl_min, half.ttl_max, half.packets) == (58, 58, 58, 4)
    assert half.mac == MACS[CLIENT_SIDE]
    ours = found.baseline.ours
    assert ours is not None
    if way != "any-sll1":  # which side our packets belong to, that format does not tell
        assert (ours.ttl_min, ours.ttl_max) == (64, 64)
    indices = {"any": [3, 2], "taps": [1, 0]}.get(way, [None, None])
    assert [seen.interface for seen in found.sightings] == indices


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("way", WAYS)
def test_a_forger_opens_no_place_of_his_own(way: str, family: int, tmp_path: Path) -> None:
    """His data and his RST have his own MAC and TTL: they do not fit, wherever they are seen."""
    talk = Talk(family=family, hops=9)
    shown = crossed(exchange(talk, 8))
    kept = list(talk.numbers), list(talk.ids)
    forged = [
        talk.frame(1, "PA", b"blocked", **hop_limit(family, 64)),
        talk.reset("RA", window=4096, **hop_limit(family, 64)),
    ]
    talk.numbers, talk.ids = kept
    for frame in forged:
        shown += passed(frame, by="02:00:00:00:66:66")
    shown += crossed([talk.frame(0, "PA", b"still here"), talk.frame(1, "PA", b"me too")])
    ((found, verdict),) = verdicts(tmp_path, WAYS[way](shown))
    half = found.baseline.theirs
    assert half is not None
    assert (half.syn_ttl, half.ttl_min, half.ttl_max) == (54, 54, 54)
    alone = merged(one for one in shown if one[0] == CLIENT_SIDE)
    ((_, expected),) = verdicts(tmp_path, alone)
    print(way, family, verdict.origin, expected.origin, verdict.score, expected.score)
    assert (found.rst.ttl, verdict.origin) == (63, expected.origin)


def test_equal_resets_of_one_burst_are_as_many_entries(tmp_path: Path) -> None:
    """A host answers each late segment with the very same RST; at two places each is seen twice."""
    talk = Talk(hops=5)
    one, two = (passed(talk.reset("R")) for _ in range(2))
    shown = crossed(exchange(talk))
    for order in ([*one, *two], [one[0], two[0], one[1], two[1]]):
        found = resets(tmp_path, on_any([*shown, *order]))
        assert [len(reset.sightings) for reset in found] == [2, 2]
        assert [reset.rst.ttl for reset in found] == [58, 58]
        frames = [seen.frame for reset in found for seen in reset.sightings]
        assert sorted(frames) == list(range(len(shown) + 1, len(shown) + 5))
    alone = c.pcap([*talk.handshake(), *[talk.reset("R")] * 3], nano=True, step_ns=2_000)
    assert [len(reset.sightings) for reset in resets(tmp_path, alone)] == [1, 1, 1]


@pytest.mark.parametrize("family", [4, 6])
def test_doubled_packets_are_one_sighting_more(family: int, tmp_path: Path) -> None:
    """A port whose both directions are mirrored; two equal RSTs are still two."""
    talk = Talk(family=family)
    frames = [*exchange(talk), talk.reset("R")]
    doubled = [frame for frame in [*frames, frames[-1]] for _ in range(2)]
    found = resets(tmp_path, c.pcap(doubled, nano=True, step_ns=2_000))
    assert [[seen.frame for seen in reset.sightings] for reset in found] == [
        [len(doubled) - 3, len(doubled) - 2],
        [len(doubled) - 1, len(doubled)],
    ]
    assert found[0].file_frame == len(doubled) - 3
    assert [reset.kind.value for reset in found] == ["received-accepted", "received-unmatched"]


def test_without_the_connection_interfaces_and_routers_tell(tmp_path: Path) -> None:
    """A capture of RSTs alone, which many make."""
    rst = passed(Talk(hops=5).reset())
    for data, count in (
        (on_any(rst), 2),
        (on_any_1(rst), 2),
        (by_taps(rst), 2),
        (c.pcap([rst[0][2], rst[0][2]]), 1),  # twice at one place: two
    ):
        found = resets(tmp_path, data)
        assert len(found) == (1 if count == 2 else 2)
        assert [len(reset.sightings) for reset in found] == [count] * len(found)


@pytest.mark.parametrize("family", [4, 6])
def test_a_switch_that_routes_hands_on_what_it_was_sent(family: int, tmp_path: Path) -> None:
    """Of RSTs alone in one pcap: the second one's sender is whom the first one was sent to."""
    (_, _, first), (_, _, second) = passed(Talk(hops=5, family=family).reset())
    same_mac = second[:6] + first[:6] + second[12:]
    assert len(resets(tmp_path, merged([(0, 0, first), (0, 0, same_mac)]))) == 1
    assert len(resets(tmp_path, merged([(0, 0, first), (0, 0, second)]))) == 2


def test_long_after_it_is_another(tmp_path: Path) -> None:
    rst = passed(Talk(hops=5).reset())
    assert len(resets(tmp_path, on_any(rst, step_ns=c.SECOND))) == 2


@pytest.mark.parametrize("family", [4, 6])
def test_a_tap_with_an_interface_for_each_direction_is_one_place(
    family: int, tmp_path: Path
) -> None:
    talk = Talk(family=family)
    made = c.section() + c.interface() + c.interface()
    frames = [*exchange(talk), talk.reset()]
    for number, frame in enumerate(frames):
        side = int(frame[6:12] != bytes.fromhex(c.OUR_MAC.replace(":", "")))
        made += c.enhanced(frame, number=side, ticks=c.START_NS // 1000 + number * 1000)
    (found,) = resets(tmp_path, made)
    assert (found.kind.value, len(found.sightings)) == ("received-accepted", 1)
    half, ours = found.baseline.theirs, found.baseline.ours
    assert half is not None
    assert ours is not None
    assert (half.packets, ours.packets) == (4, 6)


def test_other_addresses_are_another_connection(tmp_path: Path) -> None:
    """NAT between two taps: what is beyond it is told by compare, not here."""
    talk = Talk(hops=5)
    frames = [*exchange(talk), talk.reset()]
    shown = []
    for into, out in (passed(frame) for frame in frames):
        packet = Ether(out[2])
        for name in ("src", "dst"):
            if getattr(packet[IP], name) == c.US:
                setattr(packet[IP], name, "203.0.113.9")
        del packet[IP].chksum
        shown += [into, (out[0], out[1], bytes(packet))]
    found = resets(tmp_path, on_any(shown))
    assert [len(reset.sightings) for reset in found] == [1, 1]
    assert {reset.local.ip for reset in found} == {c.US, "203.0.113.9"}


def in_vxlan(frame: bytes, network: int) -> bytes:
    outer = Ether() / IP(src="192.0.2.1", dst="192.0.2.2", ttl=64) / UDP(sport=4000, dport=4789)
    return bytes(outer / VXLAN(vni=network) / Ether(frame))


def test_inside_and_outside_of_a_tunnel(tmp_path: Path) -> None:
    """A node of an overlay: the same packet on the pod's interface, and in VXLAN on the wire."""
    talk = Talk(hops=5)
    frames = [*exchange(talk), talk.reset("RA", window=500)]
    shown = []
    for frame in frames:
        (into, _, came), (out, kind, left) = passed(frame)
        wired = frame[6:12] != bytes.fromhex(c.OUR_MAC.replace(":", ""))
        shown += [
            (into, 0, in_vxlan(came, 7) if wired else came),
            (out, kind, left if wired else in_vxlan(left, 7)),
        ]
    (found,) = resets(tmp_path, on_any(shown))
    assert len(found.sightings) == 2
    half = found.baseline.theirs
    assert half is not None
    assert (half.ttl_min, half.ttl_max) == (58, 58)


def test_each_direction_in_a_network_of_its_own(tmp_path: Path) -> None:
    talk = Talk()
    frames = [*exchange(talk), talk.reset()]
    ours = bytes.fromhex(c.OUR_MAC.replace(":", ""))
    (found,) = resets(tmp_path, c.pcap([in_vxlan(f, 7 + (f[6:12] == ours)) for f in frames]))
    assert (found.kind.value, found.cause.name) == ("received-accepted", "connection-reset")


def test_tenants_with_the_same_addresses_stay_apart(tmp_path: Path) -> None:
    one, other = Talk(), Talk(hops=3)
    other.numbers = [77_000_000, 99_000_000]
    pairs = zip([*exchange(one), one.reset()], [*exchange(other), other.reset()])
    frames = [in_vxlan(frame, 7 + n) for pair in pairs for n, frame in enumerate(pair)]
    found = resets(tmp_path, c.pcap(frames))
    halves = [reset.baseline.theirs for reset in found]
    assert [(half.ttl_min, half.ttl_max) for half in halves if half] == [(47, 47), (61, 61)]
    assert [len(reset.sightings) for reset in found] == [1, 1]


@pytest.mark.parametrize("way", WAYS)
def test_later_packets_count_where_it_was_judged(way: str, tmp_path: Path) -> None:
    """The peer goes on after its RST; and another handshake of it: each is told once."""
    talk, again = Talk(hops=5), Talk(hops=5, port=50001)
    frames = [*exchange(talk), talk.reset("RA"), talk.frame(1, "PA", b"and on"), *exchange(again)]
    with CaptureSource(write(tmp_path / "x", WAYS[way](crossed(frames)))) as source:
        items = [item for item in source.items() if not isinstance(item, int)]
    assert [type(item).__name__ for item in items][:2] == ["Reset", "LatePacket"]
    late = [item.packet.ttl for item in items if not isinstance(item, Reset)]
    assert set(late) == {58}


def test_times_may_go_backwards(tmp_path: Path) -> None:
    """Two taps' clocks, or a capture in several threads: the order is the file's."""
    talk = Talk(hops=5)
    shown = crossed([*exchange(talk), talk.reset("RA", window=500, id=9004)])
    made = c.section() + c.interface() + c.interface()
    for number, (interface, _, frame) in enumerate(shown):
        ticks = c.START_NS // 1000 + number * 50 - (interface == CLIENT_SIDE) * 900
        made += c.enhanced(frame, number=interface - 2, ticks=ticks)
    (found,) = resets(tmp_path, made)
    first, last = found.sightings
    assert last.time_ns < first.time_ns
    assert found.time_ns == last.time_ns
    assert judge(found).origin is not Origin.FORGED
    lines = entry_lines(Entry(1, found, judge(found)), verbose=True)
    assert any("judged here" in line for line in lines)


def test_what_a_user_sees(tmp_path: Path) -> None:
    talk = Talk(hops=5)
    name = write(tmp_path / "x", by_taps(crossed([*exchange(talk), talk.reset("RA")])))
    for option in ("-v", "--explain"):
        _, out, _ = run(option, name)
        assert "    seen 2 times:\n      frame 21, on interface 1, TTL 59, from 00:d0" in out
        assert "frame 22, on interface 0, TTL 58, from 02:00:00:00:02:01, 0.002 ms later" in out
    plain = run(name)[1]
    assert "times:" not in plain
    assert "frame 22, also 21]" in plain  # whichever of them is looked at in Wireshark
    (found,) = resets(tmp_path, by_taps(crossed([*exchange(Talk(hops=5)), talk.reset("RA")])))
    made = entry_object(Entry(1, found, judge(found)))
    assert [seen["frame"] for seen in made["sightings"]] == [21, 22]
    assert made["frame"] == 22


def test_a_pipe_is_not_kept_waiting_for_more(tmp_path: Path) -> None:
    """Its entry is there at once; what is seen of it later is no entry of its own."""
    rst = on_any(passed(Talk(hops=5).reset()))
    status, out, _ = run("-o", "json", "-", stdin=rst)
    assert (status, len(out.splitlines())) == (0, 1)
    talk = Talk(hops=5)
    known = on_any(crossed([*exchange(talk), talk.reset("RA"), *exchange(Talk(port=3))]))
    status, out, _ = run("-o", "json", "-", stdin=known)
    assert (status, len(out.splitlines())) == (0, 1)
    assert '"frame":22,' in out  # of a connection seen at two places, the second is waited for
