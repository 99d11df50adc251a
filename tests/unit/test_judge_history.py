from __future__ import annotations

import copy
import dataclasses
import gc
import random
import weakref
from typing import Any

import pytest

from rsttrace.judge import history as history_module
from rsttrace.judge.history import (
    CHECKS,
    GATEWAYS,
    NEIGHBOURHOODS,
    PASSED_ON_NS,
    SIBLING_NS,
    SIBLINGS,
    STRANGERS,
    Case,
    History,
)
from rsttrace.judge.verdict import judge
from rsttrace.model import (
    Cause,
    Endpoint,
    Kind,
    LatePacket,
    NextHop,
    Origin,
    Packet,
    Process,
    Reset,
    Scope,
    Upstream,
    Verdict,
)
from tests.unit import builders as b
from tests.unit.builders import MS, SECOND, flow, half, our_half, reset, rst, seen

NETNS = 77


def tuple_of(number: int) -> dict[str, Any]:
    """The ends of the flow with this number."""
    return {"src": Endpoint(b.PEER, b.PEER_PORT), "dst": Endpoint(b.US, 10000 + number)}


def one(number: int = 0, time_ns: int = b.TIME, **values: Any) -> Reset:
    """A RST of the flow with this number; its fields among `values` go to the packet."""
    fields = {name for name in values if name in Packet.__dataclass_fields__}
    packet = rst(**tuple_of(number), **{name: values.pop(name) for name in fields})
    return flow(packet, **{"netns_identity": NETNS, "time_ns": time_ns, **values})


def late(number: int = 0, after_ns: int = 10 * MS, **values: Any) -> LatePacket:
    """What the peer of that flow goes on to send: data that acknowledges our last."""
    given = {"flags": "PA", "seq": 1000, "ack": 5117, "payload_len": 100, **values}
    packet = rst(**tuple_of(number), **given)
    return LatePacket(b.TIME + after_ns, packet, NETNS)


def told(history: History, now_ns: int | None = None) -> list[Case]:
    """What is to be shown, as the run loop shows it."""
    cases = []
    for case in history.due(now_ns):
        cases.append(case)
        if case.entry is None:
            case.entry = len(cases)
    return cases


def origin(case: Case) -> Origin:
    assert case.verdict is not None
    return case.verdict.origin


# ---- holding ----


def test_a_case_waits_as_long_as_it_is_held() -> None:
    history = History(hold_ns=100)
    history.add(one(), 1000)
    assert history.next_due_ns() == 1100
    assert told(history, 1099) == []
    assert len(told(history, 1100)) == 1
    assert history.next_due_ns() is None
    assert told(history, 5000) == []


def test_without_holding_it_is_due_at_once() -> None:
    history = History()
    history.add(one(), 1000)
    assert len(told(history, 1000)) == 1


def test_the_end_of_a_run_waits_for_nothing() -> None:
    history = History(hold_ns=60 * SECOND)
    history.add(one(1), 0)
    history.add(one(2), 0)
    assert [case.reset.local.port for case in told(history)] == [10001, 10002]


def test_what_comes_while_it_waits_is_in_its_first_verdict() -> None:
    history = History(hold_ns=100)
    history.add(one(ip_id=0), 0)
    history.add(late(), 50)
    cases = told(history, 100)
    assert [origin(case) for case in cases] == [Origin.FORGED]
    assert told(history, 200) == []  # nothing to amend


def test_too_many_that_wait_are_judged_early() -> None:
    history = History(hold_ns=60 * SECOND, size=10)
    for number in range(25):
        history.add(one(number), 0)
        told(history, 0)
    assert len(told(history)) == 10  # the other 15 could not wait


# ---- amending ----


def test_it_is_amended_once_for_one_change() -> None:
    history = History()
    history.add(one(ip_id=23404, flags="RA"), 0)
    first = told(history, 0)
    assert [origin(case) for case in first] == [Origin.PEER]
    shown_as = first[0].entry
    history.add(late(), 0)
    again = told(history, 0)
    assert again == first  # the same case
    assert origin(again[0]) is Origin.FORGED
    assert again[0].entry == shown_as
    history.add(late(after_ns=20 * MS, seq=1100), 0)  # more of the same
    assert told(history, 0) == []


def test_what_came_while_it_waited_does_not_hide_what_comes_later() -> None:
    history = History(hold_ns=100)
    history.add(one(ip_id=0), 0)
    history.add(late(after_ns=MS, ack=5000), 10)  # perhaps overtaken: changes nothing yet
    assert told(history, 50) == []
    assert [origin(case) for case in told(history, 100)] == [Origin.INCONCLUSIVE]
    history.add(late(after_ns=2 * MS), 110)
    assert [origin(case) for case in told(history, 110)] == [Origin.FORGED]


def test_nothing_is_amended_that_does_not_change() -> None:
    history = History()
    history.add(one(), 0)
    told(history, 0)
    history.add(late(seq=500), 0)  # before the RST: overtaken
    history.add(late(number=1), 0)  # of another flow
    assert told(history, 0) == []


def test_late_packets_of_other_places_do_not_count() -> None:
    history = History()
    history.add(one(), 0)
    told(history, 0)
    history.add(dataclasses.replace(late(), netns_identity=NETNS + 1), 0)
    history.add(dataclasses.replace(late(), netns_identity=None, file="x.pcap"), 0)
    history.add(late(after_ns=SIBLING_NS + 1), 0)
    history.add(late(after_ns=-SECOND), 0)
    assert told(history, 0) == []


def test_clocks_that_differ_a_little_lose_nothing() -> None:
    history = History()
    history.add(one(), 0)
    told(history, 0)
    history.add(late(after_ns=-1000), 0)
    assert len(told(history, 0)) == 1


def test_what_was_not_shown_is_no_amendment_later() -> None:
    """The run loop leaves `entry` unset where a filter hid the first verdict."""
    history = History()
    history.add(one(ip_id=0), 0)
    hidden = list(history.due(0))
    assert hidden[0].entry is None
    history.add(late(), 0)
    shown = list(history.due(0))
    assert [case.entry for case in shown] == [None]
    assert origin(shown[0]) is Origin.FORGED


def test_small_changes_add_up() -> None:
    """Each too small to tell alone: compared with what was told, not with what was thought."""
    confidence = iter((0.950, 0.960, 0.968, 0.972, 0.980, 0.995))

    def decide(_: Reset) -> Verdict:
        return Verdict(Origin.FORGED, next(confidence), 3.0)

    history = History(decide=decide)
    history.add(one(), 0)
    told(history, 0)
    amended = []
    for step in range(5):
        history.add(late(after_ns=step), 0)
        amended += [case.verdict.confidence for case in told(history, 0) if case.verdict]
    assert amended == [0.972, 0.995]


def test_a_new_finding_is_worth_an_amendment() -> None:
    verdicts = iter(
        (Verdict(Origin.PEER, 0.99, -5), Verdict(Origin.PEER, 0.99, -5, findings=("x",)))
    )
    history = History(decide=lambda _: next(verdicts))
    history.add(one(), 0)
    told(history, 0)
    history.add(late(), 0)
    assert len(told(history, 0)) == 1


# ---- several of one connection ----


def three(times: tuple[int, ...] = (0, MS, 2 * MS)) -> list[Reset]:
    """As tcpkill sends them: at our ack number, and one and two windows on."""
    return [
        one(seq=1000 + 500 * n, ip_id=30000 + 7000 * n, df=False, time_ns=b.TIME + at)
        for n, at in enumerate(times)
    ]


def test_resets_of_one_connection_know_each_other() -> None:
    history = History()
    for found in three():
        history.add(found, 0)
    first, second, third = (case.reset for case in told(history, 0))
    assert [seen.seq for seen in third.earlier] == [1500, 1000]  # the newest first
    assert [seen.seq for seen in first.later] == [1500, 2000]  # in order
    assert [seen.seq for seen in second.earlier + second.later] == [1000, 2000]
    assert first.our_acks == second.our_acks == third.our_acks == {900, 1000}


def test_the_second_changes_what_is_thought_of_the_first() -> None:
    history = History()
    first, second, third = (
        dataclasses.replace(
            found,
            baseline=b.with_baseline(
                found, ours=our_half(), theirs=half(last_ns=b.TIME - SECOND, df_always=False)
            ).baseline,
        )
        for found in three()
    )
    verdicts = []
    for found in (first, second, third):
        history.add(found, 0)
        verdicts += [
            (case.reset.rst.seq, {e.rule for e in case.verdict.evidence})
            for case in told(history, 0)
            if case.verdict
        ]
    # Alone it answers our ack, as an honest one would; two of which one lies beyond have one maker.
    assert "moves-on" not in verdicts[0][1]
    assert any(seq == 1000 and "moves-on" in rules for seq, rules in verdicts[1:])
    for found in (first, second, third):
        assert "moves-on" in {e.rule for e in judge(found).evidence}


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"time_ns": b.TIME + SIBLING_NS + 1}, id="a-minute-later"),
        pytest.param({"theirs": half(syn_ns=b.TIME)}, id="another-handshake"),
        pytest.param({"ours": our_half(syn_ns=b.TIME)}, id="another-syn-of-ours"),
        pytest.param({"netns_identity": NETNS + 1}, id="another-namespace"),
        pytest.param({"kind": Kind.SENT_ACTIVE}, id="one-that-was-sent"),
        pytest.param({"src": Endpoint(b.PEER, 1)}, id="another-port"),
    ],
)
def test_other_connections_are_no_siblings(values: dict[str, Any]) -> None:
    values = dict(values)
    packet = rst(**{**tuple_of(0), **({"src": values.pop("src")} if "src" in values else {})})
    other = flow(packet, **{"netns_identity": NETNS, "time_ns": b.TIME, **values})
    history = History()
    history.add(one(), 0)
    history.add(other, 0)
    for case in told(history, 0):
        assert not case.reset.earlier
        assert not case.reset.later


def test_numbers_of_a_syn_are_no_acknowledgments() -> None:
    syn = seen(flags="S", ack=0)
    history = History()
    history.add(one(ours=our_half(recent=(b.OUR_DATA, syn))), 0)
    assert told(history, 0)[0].reset.our_acks == {1000}


def test_resets_of_one_connection_are_judged_together() -> None:
    """Our IP ID in the second of two that are made alike: the first is the mirror's too."""
    history = History()
    history.add(one(ttl=46, ip_id=30000), 0)
    assert [origin(case) for case in told(history, 0)] != [Origin.FORGED]
    history.add(one(ttl=46, ip_id=13052, window=0, time_ns=b.TIME + MS), 0)
    cases = told(history, 0)
    assert len(cases) == 2
    for case in cases:
        assert case.verdict is not None
        assert "ip-id-ours" in {e.rule for e in case.verdict.evidence}
    first, second = sorted((case.reset for case in cases), key=lambda found: found.time_ns)
    assert first.siblings == (second,)
    assert second.siblings == (first,)


def test_an_honest_second_answer_is_its_own() -> None:
    """After a forged first: another shape, and the forged one does not close the connection."""
    theirs = half(recent=tuple(seen(ip_id=i) for i in (502, 501, 499)))
    history = History()
    history.add(one(ttl=63, ip_id=30000, df=False, theirs=theirs), 0)
    history.add(one(flags="RA", ip_id=503, time_ns=b.TIME + MS, theirs=theirs), 0)
    assert [origin(case) for case in told(history, 0)] == [Origin.FORGED, Origin.PEER]


# ---- the peer's other handshakes, the gateways ----


def met(number: int, ttl: int, after_ns: int = SECOND, **values: Any) -> LatePacket:
    """The confirmed SYN-ACK of a later connection of the peer's address."""
    ends = {"src": Endpoint(b.PEER, 80), "dst": Endpoint(b.US, 20000 + number)}
    packet = rst(**ends, flags="SA", ttl=ttl, options="mss 1460", window=65160, **values)
    return LatePacket(b.TIME + after_ns, packet, NETNS, mac=b.MAC, handshake=True)


def test_a_later_handshake_of_the_peer_tells_its_distance() -> None:
    history = History()
    history.add(one(theirs=None, ours=None, ip_id=0, ttl=63), 0)
    assert [origin(case) for case in told(history, 0)] == [Origin.INCONCLUSIVE]
    history.add(met(1, 47), 0)
    (case,) = told(history, 0) or history._peers[(NETNS, b.PEER)]
    peer = case.reset.baseline.peer
    assert peer is not None
    assert (peer.ttls, peer.syn_ttl, peer.syn_options, peer.mac) == ((47,), 47, "mss 1460", b.MAC)
    assert judge(case.reset).score > 0
    history.add(met(2, 47), 0)  # no other TTL: nothing new
    history.add(met(3, 63), 0)
    assert case.reset.baseline.peer is not None
    assert case.reset.baseline.peer.ttls == (47, 63)


def test_handshakes_of_others_tell_nothing() -> None:
    history = History()
    history.add(one(theirs=None, ours=None, ip_id=0, ttl=63), 0)
    told(history, 0)
    history.add(dataclasses.replace(met(1, 47), netns_identity=NETNS + 1), 0)
    history.add(dataclasses.replace(met(1, 47), handshake=False), 0)
    (case,) = history._peers[(NETNS, b.PEER)]
    assert case.reset.baseline.peer is None
    assert told(history, 0) == []


def test_a_gateway_that_takes_nothing_off_is_remembered() -> None:
    """A confirmed handshake came over it with a full TTL: some clouds' routers do that."""
    gateway = NextHop("10.0.0.1", b.MAC, True, 2)
    ends: dict[str, Any] = {"mac": b.MAC, "next_hop": gateway}
    near = half(ttl=64, ttl_min=64, ttl_max=64, syn_ttl=64, confirmed=True)
    history = History()
    history.add(one(1, ttl=64, theirs=None, ours=None, **ends), 0)
    history.add(one(2, ttl=64, theirs=near, **ends), 0)
    history.add(one(3, ttl=64, theirs=None, ours=None, **ends), 0)
    history.add(one(4, ttl=64, netns_identity=NETNS + 1, theirs=None, ours=None, **ends), 0)
    keeps = [case.reset.gateway_keeps_ttl for case in told(history, 0)]
    assert keeps == [False, True, True, False]


def test_gateways_are_bounded() -> None:
    history = History()
    near = half(ttl=64, syn_ttl=64, confirmed=True)
    for number in range(GATEWAYS + 10):
        mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        hop = NextHop("10.0.0.1", mac, True, 2)
        theirs = dataclasses.replace(near, mac=mac)
        history.add(one(number % 50000, ttl=64, theirs=theirs, mac=mac, next_hop=hop), 0)
        told(history, 0)
    assert len(history._gateways) == GATEWAYS


# ---- one box, several addresses ----


def from_address(ip: str, ip_id: int, **values: Any) -> Reset:
    packet = rst(src=Endpoint(ip, 80), ip_id=ip_id)
    return reset(packet, **{"netns_identity": NETNS, **values})


def test_counters_of_other_addresses_are_kept() -> None:
    history = History()
    history.add(from_address("192.0.2.1", 65534), 0)
    history.add(from_address("192.0.2.1", 65535), 0)  # its own
    history.add(from_address("192.0.2.2", 500), 0)  # far from the others
    history.add(from_address("192.0.2.3", 3), 0)
    history.add(from_address("192.0.2.4", 4, netns_identity=NETNS + 1), 0)
    history.add(from_address("192.0.2.5", 5, time_ns=b.TIME + SIBLING_NS + 1), 0)
    history.add(from_address("192.0.2.6", 0), 0)
    others = {c.reset.rst.src.ip: [o.ip_id for o in c.reset.others] for c in told(history, 0)}
    assert others == {
        "192.0.2.1": [3],  # learned later
        "192.0.2.2": [],
        "192.0.2.3": [65534, 65535],
        "192.0.2.4": [],
        "192.0.2.5": [],
        "192.0.2.6": [],
    }


# ---- health checks ----


def check(number: int, time_ns: int, **values: Any) -> Reset:
    """SYN, SYN-ACK, RST: as a load balancer's health check, from a port of its own."""
    syn = seen(flags="S", seq=1, ack=0, payload_len=0, time_ns=time_ns - 2 * MS)
    syn_ack = seen(flags="SA", seq=9, ack=2, payload_len=0, time_ns=time_ns - MS)
    packet = rst(src=Endpoint(b.PEER, 30000 + number), dst=Endpoint(b.US, 80), ip_id=0, seq=2)
    return flow(
        packet,
        **{
            "theirs": half(packets=1, recent=(syn,), first_ns=time_ns - 2 * MS),
            "ours": our_half(packets=1, recent=(syn_ack,)),
            "netns_identity": NETNS,
            "time_ns": time_ns,
            **values,
        },
    )


def periods(steps: list[float]) -> list[float | None]:
    history, at, found = History(), b.TIME, []
    for number, step in enumerate([0.0, *steps]):
        at += round(step * SECOND)
        history.add(check(number, at), 0)
        found += [case.reset.period_s for case in told(history, 0)]
    return found


def test_a_period_is_told_from_the_third_on() -> None:
    assert CHECKS == 3
    assert periods([2.0, 2.0, 2.1]) == [None, None, 2.0, pytest.approx(2.0333, abs=0.001)]


def test_no_period_where_there_is_none() -> None:
    assert periods([2.0, 3.0, 1.0, 9.0]) == [None] * 5
    assert periods([0.0, 0.0, 0.0]) == [None] * 4


def test_a_change_of_period_is_followed() -> None:
    assert periods([2.0, 2.0, 5.0, 5.0, 5.0])[-1] == 5.0


def test_checks_of_different_services_are_kept_apart() -> None:
    history = History()
    for number in range(6):
        found = check(number, b.TIME + number * SECOND)
        port = 80 + number % 2
        found.rst = dataclasses.replace(found.rst, dst=Endpoint(b.US, port))
        history.add(found, 0)
    assert [c.reset.period_s for c in told(history, 0)] == [None] * 4 + [2.0, 2.0]


# ---- whatever comes ----


class Watched(Reset):
    """A reset of which can be told whether it still is: what has slots alone does not tell."""

    def __init__(self, made: Reset) -> None:
        given = (field.name for field in dataclasses.fields(made) if field.init)
        super().__init__(**{name: getattr(made, name) for name in given})


def test_what_is_forgotten_is_let_go_of_at_once() -> None:
    """Resets of one connection hold each other, and cycles are looked for seldom."""
    gc.collect()
    gc.disable()
    try:
        history, known = History(size=10), []
        for number in range(50):
            for again in range(3):
                item = Watched(one(number, b.TIME + again, ip_id=0))
                known.append(weakref.ref(item))
                history.add(item, 0)
                del item
            told(history, 0)
        told(history, 0)
        assert sum(item() is not None for item in known) <= 10 + 2 * SIBLINGS
    finally:
        gc.enable()


def test_of_what_was_told_no_more_is_kept_than_a_change_is_told_by() -> None:
    history = History()
    history.add(one(0), 0)
    (case,) = told(history, 0)
    assert case.verdict is not None
    before = case.verdict
    assert before.evidence
    assert told(history, 0) == []
    assert not case.verdict.evidence
    assert (case.verdict.origin, case.verdict.confidence) == (before.origin, before.confidence)
    history.add(late(0, after_ns=1000), 0)
    (again,) = told(history, 0)
    assert again is case
    assert case.verdict.evidence


def test_memory_is_bounded() -> None:
    history = History(size=50)
    for number in range(500):
        ours = our_half(recent=tuple(seen(ack=4 * number + n) for n in range(4)))
        history.add(one(number, ip_id=number + 2), 0)
        history.add(one(0, b.TIME + number, seq=number + 1, ours=ours), 0)  # a storm on one flow
        history.add(late(0, after_ns=number), 0)
        history.add(check(number, b.TIME + number * SECOND, netns_identity=number), 0)
        told(history, 0)
    cases = [case for found in history._flows.values() for case in found]
    assert len(cases) == history._remembered <= 50 + SIBLINGS
    assert max(len(found) for found in history._flows.values()) <= SIBLINGS
    for case in cases:
        assert len(case.reset.later) <= SIBLINGS
        assert len(case.reset.earlier) < SIBLINGS
        assert len(case.reset.siblings) <= SIBLINGS
        assert len(case.reset.our_acks) <= 4 * SIBLINGS
    assert len(history._strangers) <= NEIGHBOURHOODS
    assert all(len(strangers) <= STRANGERS for strangers in history._strangers.values())
    assert len(history._peers) <= 50
    assert all(len(known) <= SIBLINGS for known in history._peers.values())
    assert len(history._checks) <= 50
    assert not history._waiting
    assert not history._anew


def test_storms_on_many_flows_are_bounded_together() -> None:
    history = History(size=40)
    for number in range(30):
        for step in range(SIBLINGS):
            history.add(one(number, b.TIME + step, seq=step + 1), 0)
    assert sum(len(cases) for cases in history._flows.values()) == history._remembered <= 40
    assert len(history._flows) == 40 // SIBLINGS


def test_the_flow_that_was_quiet_longest_is_forgotten() -> None:
    history = History(size=3)
    for number in (1, 2, 3, 1, 4):
        history.add(one(number, b.TIME), 0)
    told(history, 0)
    history.add(late(2), 0)
    assert told(history, 0) == []
    history.add(late(4), 0)
    assert len(told(history, 0)) == 1


def random_items(draw: random.Random) -> list[Reset | LatePacket]:
    """Resets and later packets of a few flows, in order of time."""
    times = sorted(draw.randrange(3 * SECOND) for _ in range(30))
    items: list[Reset | LatePacket] = []
    for at in times:
        number = draw.randrange(4)
        if draw.random() < 0.4:
            items.append(
                late(
                    number,
                    at,
                    seq=draw.choice((500, 1000, 1500)),
                    ack=draw.choice((5000, 5117)),
                    flags=draw.choice(("PA", "FA", "SA")),
                )
            )
        else:
            items.append(
                one(
                    number,
                    b.TIME + at,
                    seq=draw.choice((0, 1000, 1500, 2500)),
                    flags=draw.choice(("R", "RA")),
                    ip_id=draw.choice((0, 23404, 30000, 30001)),
                    ttl=draw.choice((47, 63)),
                )
            )
    return items


def final(items: list[Reset | LatePacket], history: History, batches: list[int]) -> list[Verdict]:
    """Every reset's last verdict, when so many items come at a time."""
    known: dict[int, tuple[Case, Verdict | None]] = {}
    left = list(items)
    for size in [*batches, len(items)]:
        for item in left[:size]:
            history.add(item, 0)
        left = left[size:]
        for case in history.due(0):
            known[id(case)] = case, case.verdict
    for case in history.due(None):
        known[id(case)] = case, case.verdict
    cases = sorted(known.values(), key=lambda told: told[0].reset.time_ns)
    assert len(cases) == sum(isinstance(item, Reset) for item in items)
    verdicts = []
    for _, verdict in cases:
        assert verdict is not None
        verdicts.append(verdict)
    return verdicts


def test_what_is_told_in_the_end_does_not_depend_on_how_it_came() -> None:
    draw = random.Random(20191124)
    for _ in range(60):
        items = random_items(draw)
        batches = [draw.randrange(1, 5) for _ in range(30)]
        piece_by_piece = final(copy.deepcopy(items), History(), batches)
        at_once = final(copy.deepcopy(items), History(), [])
        held = final(copy.deepcopy(items), History(hold_ns=SECOND), batches)
        assert [v.origin for v in piece_by_piece] == [v.origin for v in at_once]
        assert held == at_once
        for one_by_one, whole in zip(piece_by_piece, at_once):
            difference = (one_by_one.confidence or 0.0) - (whole.confidence or 0.0)
            assert abs(difference) < history_module.MATERIAL
            assert one_by_one.findings == whole.findings


def test_it_changes_no_packet_and_no_baseline() -> None:
    draw = random.Random(7)
    history = History()
    for item in random_items(draw):
        before = copy.deepcopy(item)
        history.add(item, 0)
        told(history, 0)
        if isinstance(item, Reset) and isinstance(before, Reset):
            assert (item.rst, item.baseline, item.kind) == (
                before.rst,
                before.baseline,
                before.kind,
            )
        else:
            assert item == before


def test_sent_ones_are_judged_but_have_no_neighbours() -> None:
    history = History()
    for _ in range(3):
        history.add(one(kind=Kind.SENT_ACTIVE), 0)
    cases = told(history, 0)
    assert [origin(case) for case in cases] == [Origin.LOCAL] * 3
    assert not any(case.reset.earlier or case.reset.later for case in cases)


def test_without_a_baseline_it_still_works() -> None:
    history = History()
    history.add(one(theirs=None, ours=None, scope=Scope.NONE), 0)
    told(history, 0)
    history.add(late(), 0)
    assert told(history, 0) == []  # +2 of what may be chance: nobody is accused by that


# ---- keep-alive races, and our own resets before ----


def raced(number: int, idle_s: float, *, at_s: float = 0, used_ms: float = 1) -> Reset:
    """The peer closes the connection with this number after a silence, and our data comes later."""
    time_ns = b.TIME + round(at_s * SECOND)
    fin_ns = time_ns - 10 * MS
    fin = seen(time_ns=fin_ns, flags="FA", payload_len=0)
    used = dataclasses.replace(b.OUR_DATA, time_ns=fin_ns + round(used_ms * MS))
    last = seen(time_ns=fin_ns - round(idle_s * SECOND), flags="A", payload_len=0)
    return one(
        number,
        time_ns,
        ip_id=0,
        theirs=half(recent=(fin,), fin_ns=fin_ns),
        ours=our_half(recent=(used, last)),
        trigger=used,
    )


def test_a_silence_that_recurs_is_a_keepalive_race() -> None:
    history = History()
    history.add(raced(1, 60, used_ms=1), 0)
    (first,) = told(history)
    assert first.verdict is not None
    assert first.verdict.findings == ()
    history.add(raced(2, 61.5, at_s=100, used_ms=500), 0)
    second, amended = told(history)
    assert amended is first
    for case in (second, amended):
        assert case.verdict is not None
        assert case.verdict.findings[0] == "keepalive-race"
    assert second.verdict is not None
    text = next(e.text for e in second.verdict.evidence if e.rule == "keepalive-race")
    assert "closes connections after 60 to 61.5 s idle (2 of them)" in text
    assert "used them again after 60 to 62 s" in text
    history.add(raced(3, 60.2, at_s=200), 0)
    (third,) = told(history)
    assert third.verdict is not None
    assert "keepalive-race" in third.verdict.findings


@pytest.mark.parametrize(
    "second",
    [
        raced(2, 20, at_s=100),
        raced(1, 60, at_s=100),
        one(2, b.TIME + SECOND, ip_id=0),
        dataclasses.replace(raced(2, 60, at_s=1), remote=Endpoint(b.PEER, 81)),
        dataclasses.replace(raced(2, 60, at_s=1), netns_identity=NETNS + 1),
    ],
    ids=["another-silence", "the-same-connection", "no-close", "another-service", "elsewhere"],
)
def test_what_does_not_recur_is_none(second: Reset) -> None:
    history = History()
    history.add(raced(1, 60), 0)
    history.add(second, 0)
    for case in told(history):
        assert case.verdict is not None
        assert "keepalive-race" not in case.verdict.findings


def test_races_are_bounded() -> None:
    history = History(size=8)
    for port in range(1, 100):
        history.add(dataclasses.replace(raced(port, 60), remote=Endpoint(b.PEER, port)), 0)
        told(history, 0)
    assert len(history._races) == 8
    for number in range(100):
        history.add(raced(number, 60), 0)
        told(history, 0)
    assert max(len(cases) for cases in history._races.values()) == SIBLINGS


def answering(number: int, time_ns: int = b.TIME, kind: Kind = Kind.SENT_PASSIVE) -> Reset:
    """What this end sends in the connection with this number."""
    ends = tuple_of(number)
    packet = rst(src=ends["dst"], dst=ends["src"], ip_id=0)
    cause = Cause("no-socket", "no such connection here (answer to data)")
    data = seen(time_ns=time_ns - MS, payload_len=9)
    return flow(packet, kind=kind, cause=cause, trigger=data, netns_identity=NETNS, time_ns=time_ns)


def test_an_answer_after_our_own_reset_says_so() -> None:
    history = History()
    history.add(answering(1, b.TIME - 3 * MS, Kind.SENT_ACTIVE), 0)
    history.add(answering(1), 0)
    history.add(answering(2), 0)
    _, after, other = told(history)
    assert after.verdict is not None
    assert other.verdict is not None
    assert after.verdict.summary == "data for a connection that this end had reset 3.0 ms before"
    assert other.verdict.cause is None


def test_an_answer_after_another_answer_is_none_after_a_reset() -> None:
    history = History()
    history.add(answering(1, b.TIME - 3 * MS), 0)
    history.add(answering(1), 0)
    for case in told(history):
        assert case.verdict is not None
        assert case.verdict.cause is None


# ---- what a proxy passes on ----

EARLY, LATE = b.TIME - 2 * SECOND, b.TIME - SECOND
REFUSED = Cause("connection-refused", "the connection was refused")
ENDED = Cause("connection-reset", "ended an established connection")


def failed(cause: Cause = REFUSED, pid: int | None = 70, opened: bool = True) -> Reset:
    """A connection of a process is reset."""
    ours, theirs = (EARLY, LATE) if opened else (LATE, EARLY)
    return one(
        1,
        cause=cause,
        process=Process(pid, "haproxy", 0),
        theirs=half(syn_ns=theirs),
        ours=our_half(syn_ns=ours),
    )


def passed_on(after_ns: int = MS, pid: int | None = 70, accepted: bool = True) -> Reset:
    """A process resets a connection; `theirs` is the direction of whoever sent the RST: its own."""
    mine, peers = (LATE, EARLY) if accepted else (EARLY, LATE)
    return one(
        2,
        b.TIME + after_ns,
        kind=Kind.SENT_ACTIVE,
        local=Endpoint("10.0.0.5", 80),
        process=Process(pid, "haproxy", 0),
        theirs=half(syn_ns=mine),
        ours=our_half(syn_ns=peers),
    )


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        (failed(), passed_on(), True),
        (failed(ENDED), passed_on(), False),
        (failed(), passed_on(PASSED_ON_NS), True),
        (failed(), passed_on(PASSED_ON_NS + 1), None),
        (failed(), passed_on(-1), None),
        (failed(ENDED, opened=False), passed_on(), None),  # a client's
        (failed(), passed_on(accepted=False), None),
        (failed(pid=71), passed_on(), None),
        (failed(pid=None), passed_on(pid=None), None),
        # Connections to itself are nothing that it passes on.
        (failed(), dataclasses.replace(passed_on(), local=b.flow().remote), None),
    ],
)
def test_what_a_process_lost_just_before(before: Reset, after: Reset, refused: bool | None) -> None:
    history = History()
    for given in (before, after):
        history.add(copy.deepcopy(given), 0)
    last = told(history)[-1].reset
    expected = None if refused is None else Upstream(before.remote, b.TIME, refused)
    assert last.upstream == expected


def test_of_many_processes_the_last_are_remembered() -> None:
    history = History(size=3)
    for pid in range(1, 6):
        history.add(failed(pid=pid), 0)
    for pid in range(1, 6):
        history.add(passed_on(pid=pid), 0)
    known = [case.reset.upstream is not None for case in told(history)][-5:]
    assert known == [False, False, True, True, True]
