from __future__ import annotations

import random
from typing import Any

import pytest
import scapy.layers.inet as scapy_inet

from rsttrace.capture.flows import Flows
from rsttrace.capture.layers import Dissector, Segment
from rsttrace.limits import PEERS, RECENT
from rsttrace.model import Half, Scope
from rsttrace.tcp import before
from tests.unit import captures as c
from tests.unit.captures import ETHERNET, RAW, SECOND, START_NS, Talk

IP, TCP = scapy_inet.IP, scapy_inet.TCP


def segment(data: bytes, time_ns: int = START_NS, link: int = ETHERNET) -> Segment:
    found = Dissector().segment(link, data, len(data))
    assert found is not None
    found.time_ns = time_ns
    return found


def learn(flows: Flows, packets: list[bytes], start_ns: int = START_NS) -> None:
    for number, data in enumerate(packets):
        flows.learn(segment(data, start_ns + number * 1_000_000))


def halves(flows: Flows, rst: bytes) -> tuple[Half, Half]:
    baseline = flows.baseline(segment(rst))
    assert baseline.scope is Scope.FLOW
    assert baseline.theirs is not None
    assert baseline.ours is not None
    return baseline.theirs, baseline.ours


def test_both_directions_of_a_flow() -> None:
    talk, flows = Talk(), Flows(16)
    learn(flows, talk.handshake())
    data = [talk.frame(1, "PA", b"x" * 10, window=7) for _ in range(6)]
    learn(flows, [*data, talk.frame(1, "A", flags_ip=0)], START_NS + SECOND)
    theirs, ours = halves(flows, talk.reset())
    assert (theirs.packets, theirs.ttl, theirs.ttl_min, theirs.ttl_max) == (8, 47, 47, 47)
    assert (theirs.syn_ttl, theirs.syn_window, theirs.syn_ns) == (47, 65160, START_NS + 1_000_000)
    assert theirs.syn_options == "mss 1460,nop,nop,sackOK,nop,wscale 7"
    assert (theirs.df_always, theirs.timestamps, theirs.mac) == (False, False, c.GATEWAY)
    assert (theirs.first_ns, theirs.last_ns) == (START_NS + 1_000_000, START_NS + 1_006_000_000)
    assert len(theirs.recent) == RECENT
    assert [seen.ip_id for seen in theirs.recent] == [9007, 9006, 9005, 9004]
    newest = theirs.recent[1]
    assert (newest.flags, newest.window, newest.payload_len, newest.ttl) == ("PA", 7, 10, 47)
    assert (newest.df, newest.segments, newest.time_ns) == (True, 1, START_NS + 1_005_000_000)
    assert (ours.packets, ours.syn_ttl, ours.df_always, ours.timestamps) == (2, 64, True, False)
    assert ours.mac == c.OUR_MAC


@pytest.mark.parametrize(
    ("before_syn", "gap_ns", "renewed"),
    [
        ([], SECOND, False),  # a SYN into a live flow
        ([], 600 * SECOND, False),  # however long it was quiet: our SYN-ACK will tell
        ([(0, "FA")], SECOND, True),
        ([(1, "FA")], SECOND, True),
    ],
)
def test_a_new_syn_begins_anew(
    before_syn: list[tuple[int, str]], gap_ns: int, renewed: bool
) -> None:
    talk, flows = Talk(), Flows(16)
    learn(flows, talk.handshake() + [talk.frame(side, flags) for side, flags in before_syn])
    again = Talk(hops=20)
    again.numbers[0] = 5
    learn(flows, [again.frame(0, "S", window=999)], START_NS + gap_ns)
    flow = flows.find(segment(talk.frame(0, "A")))
    assert flow is not None
    assert flow.other is not None
    assert (flow.packets == 1) == renewed
    assert (flow.other.packets == 0) == renewed
    assert flow.syn is not None
    assert (flow.syn.window == 999) == renewed


def test_a_retransmitted_syn_begins_nothing() -> None:
    talk, flows = Talk(), Flows(16)
    first = talk.handshake()
    learn(flows, first)
    learn(flows, [first[0]], START_NS + 100 * SECOND)
    theirs, ours = halves(flows, talk.reset())
    assert (theirs.packets, ours.packets) == (1, 3)


def test_another_flow_of_the_peer_is_the_fallback() -> None:
    talk, flows = Talk(), Flows(16)
    learn(flows, talk.handshake())
    other = Talk(port=50000)
    learn(flows, [other.frame(0, "S")])
    baseline = flows.baseline(segment(other.reset()))
    assert baseline.scope is Scope.PEER
    assert baseline.theirs is not None
    assert (baseline.theirs.packets, baseline.theirs.syn_ttl) == (1, 47)
    assert baseline.ours is not None  # our own SYN of this flow
    assert baseline.ours.packets == 1


def test_offloaded_buffers_count_as_what_they_were_on_the_wire() -> None:
    talk, flows = Talk(), Flows(16)
    learn(flows, talk.handshake())  # MSS 1460
    learn(flows, [talk.frame(1, "A", b"x" * 5840), talk.frame(1, "A", b"x" * 1460)])
    theirs, _ = halves(flows, talk.reset())
    assert [seen.segments for seen in theirs.recent] == [1, 4, 1]
    unknown = Talk(port=4)
    learn(flows, [unknown.frame(1, "A", b"x" * 2896)])
    found = flows.find(segment(unknown.reset()))
    assert found is not None
    half = found.half()
    assert half is not None
    assert half.recent[0].segments == 2


@pytest.mark.parametrize("family", [4, 6])
def test_memory_is_bounded(family: int) -> None:
    flows = Flows(64)
    talks = [Talk(port=port, family=family) for port in range(1024, 1024 + 500)]
    for talk in talks:
        learn(flows, talk.handshake())
    assert len(flows) == 64
    assert len(flows._directions) == 128
    assert flows.baseline(segment(talks[-1].reset())).scope is Scope.FLOW
    assert flows.baseline(segment(talks[0].reset())).scope is Scope.PEER
    assert flows.find(segment(talks[435].reset())) is None
    assert flows.find(segment(talks[436].reset())) is not None


def test_used_flows_stay() -> None:
    flows = Flows(16)
    talks = [Talk(port=port) for port in range(1024, 1064)]
    for talk in talks:
        learn(flows, [talk.frame(0, "S")])
        learn(flows, [talks[0].frame(1, "SA")])  # its other direction
    assert flows.find(segment(talks[0].reset())) is not None
    assert flows.find(segment(talks[1].reset())) is None


def test_peers_are_bounded() -> None:
    flows = Flows(16)
    for number in range(PEERS + 50):
        ip = IP(src="10.0.0.1", dst=f"10.1.{number >> 8}.{number & 255}")
        syn, back = ip / TCP(flags="S", seq=7), IP(src=ip.dst, dst=ip.src)
        flows.learn(segment(bytes(syn), link=RAW))
        answer = back / TCP(flags="SA", sport=80, dport=20, ack=8)
        flows.learn(segment(bytes(answer), link=RAW))
    assert len(flows._peers) == PEERS
    old: Any = IP(src="10.1.0.1", dst="10.0.0.1") / TCP(flags="R", sport=9)
    assert flows.baseline(segment(bytes(old), link=RAW)).scope is Scope.NONE
    new: Any = IP(src="10.1.1.0", dst="10.0.0.1") / TCP(flags="R", sport=9)
    assert flows.baseline(segment(bytes(new), link=RAW)).scope is Scope.PEER


def test_one_address_and_port_at_both_ends() -> None:
    packet: Any = IP(src="10.0.0.1", dst="10.0.0.1") / TCP(sport=7, dport=7, flags="S")
    flows = Flows(1)
    for port in (7, 8, 9):
        packet.sport = packet.dport = port
        flows.learn(segment(bytes(packet), link=RAW))
        packet[TCP].flags = "R"
        assert flows.baseline(segment(bytes(packet), link=RAW)).scope is Scope.FLOW
        packet[TCP].flags = "S"
    assert len(flows) == len(flows._directions) == 1


def test_sequence_numbers_are_compared_in_a_circle() -> None:
    assert before(0xFFFFFFF0, 5)
    assert not before(5, 0xFFFFFFF0)
    assert not before(5, 5)
    chance = random.Random(1)
    for _ in range(1000):
        a, step = chance.getrandbits(32), chance.randrange(1, 1 << 31)
        assert before(a, (a + step) & 0xFFFFFFFF)
        assert not before((a + step) & 0xFFFFFFFF, a)
