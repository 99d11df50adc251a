"""What the observations rest on: distances, stacks, round trips, what answers what."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from rsttrace.judge import facts
from rsttrace.model import Half, Packet, Peer, Probed, Reset, Scope, Seen
from tests.unit import builders as b
from tests.unit.builders import (
    FREEBSD_SYN,
    LINUX_SYN,
    MS,
    SECOND,
    WINDOWS_SYN,
    changed,
    flow,
    half,
    handshake,
    lone_syn,
    our_half,
    reset,
    rst,
    rst6,
    seen,
    steady,
)


def sent(ago_ms: float, **values: Any) -> Seen:
    """A packet of ours, so many ms before the RST."""
    return seen(**{"time_ns": b.TIME - round(ago_ms * MS), "ttl": 64, "ack": 1000, **values})


# ---- words ----


@pytest.mark.parametrize(
    ("ns", "text"), [(0, "0 µs"), (400_000, "400 µs"), (2_500_000, "2.5 ms"), (3 * 10**9, "3.0 s")]
)
def test_age(ns: int, text: str) -> None:
    assert facts.age_text(ns) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 hops"), (1, "1 hop"), (2, "2 hops")])
def test_plural(count: int, text: str) -> None:
    assert facts.plural(count, "hop") == text


def test_a_fact_is_derived_once_for_each_judging() -> None:
    given = flow()
    assert facts.reference(given) is facts.reference(given)
    moved = changed(given)  # another reset: nothing of the first is remembered
    assert facts.reference(moved) is not facts.reference(given)


# ---- distance ----


@pytest.mark.parametrize(
    ("ttl", "reference", "wanted"),
    [
        pytest.param(47, 47, (0, True), id="same"),
        pytest.param(48, 47, (-1, True), id="nearer"),
        pytest.param(44, 47, (3, True), id="farther"),
        pytest.param(111, 47, (0, False), id="another-initial-ttl-as-far"),
        pytest.param(33, 32, (-1, True), id="across-the-boundary-at-32"),
        pytest.param(31, 34, (3, True), id="across-it-the-other-way"),
        pytest.param(66, 60, (-6, True), id="across-64: one program's TTL"),
        pytest.param(200, 47, (38, False), id="another-stack-elsewhere"),
    ],
)
def test_how_far_apart(ttl: int, reference: int, wanted: tuple[int, bool]) -> None:
    assert facts.apart(ttl, reference) == wanted


@pytest.mark.parametrize(
    ("ttl", "reference", "name", "wanted"),
    [
        (47, None, None, 64),
        (30, None, None, 32),
        (30, None, "Linux", 64),  # 34 routers away, and its SYN says who it is
        (30, 35, None, 64),
        (100, None, "Linux", 128),  # no Linux starts there
        (64, None, "Linux", 64),
        (120, None, "Windows", 128),
    ],
)
def test_initial_ttl_known_better(
    ttl: int, reference: int | None, name: str | None, wanted: int
) -> None:
    assert facts.starts_at(ttl, reference, name) == wanted


def steadiness(given: Reset) -> tuple[int, str] | None:
    found = facts.reference(given)
    return None if found is None else (found.ttl, found.steady)


INJECTED = half(ttl=63, ttl_max=63, ttls=b.counted((47, 10), (63, 2)), recent=(seen(ttl=63),))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param(flow(), (47, "many"), id="many"),
        pytest.param(flow(theirs=half(packets=8)), (47, "many"), id="eight"),
        pytest.param(flow(theirs=half(packets=7)), (47, "few"), id="seven"),
        pytest.param(flow(theirs=half(packets=3)), (47, "few"), id="three"),
        pytest.param(flow(theirs=half(packets=2)), (47, "one"), id="two"),
        pytest.param(flow(theirs=handshake()), (47, "one"), id="handshake"),
        pytest.param(flow(theirs=INJECTED), (47, "many"), id="two-injected-change-nothing"),
        pytest.param(
            flow(theirs=half(ttls=b.counted((47, 8), (43, 3)))), (47, "varied"), id="two-paths"
        ),
        pytest.param(
            flow(theirs=half(ttls=b.counted((47, 8), (43, 1), (50, 1)))),
            (47, "varied"),
            id="three-ttls",
        ),
        pytest.param(
            flow(theirs=half(syn_ttl=None, ttls=b.counted((52, 9), (47, 1)))),
            (52, "many"),
            id="no-handshake: what came most often",
        ),
        pytest.param(
            flow(theirs=half(syn_ttl=60, syn_options="mss 1460", ttls=b.counted((47, 9), (60, 1)))),
            (47, "many"),
            id="a-program-wrote-the-SYN: its kernel's packets count",
        ),
        pytest.param(flow(theirs=lone_syn()), (47, "lone"), id="a-SYN-that-nobody-confirmed"),
        pytest.param(
            flow(theirs=lone_syn(confirmed=True)), (47, "one"), id="a-SYN-that-was-confirmed"
        ),
        pytest.param(
            b.with_baseline(flow(theirs=lone_syn(60)), peer_ttls=(47, 52)),
            (47, "peer"),
            id="a-lone-SYN-from-elsewhere-than-the-peer",
        ),
        pytest.param(
            b.with_baseline(flow(theirs=lone_syn(52)), peer_ttls=(47, 52)),
            (52, "lone"),
            id="a-lone-SYN-from-where-the-peer-was",
        ),
        pytest.param(flow(scope=Scope.PEER), (47, "peer"), id="another-connection"),
        pytest.param(reset(), None, id="nothing"),
        pytest.param(flow(theirs=half(ttl=None, syn_ttl=None)), None, id="no-ttl"),
        pytest.param(
            reset(probed=Probed("echo", 50, None, b.TIME, "an echo")), (50, "asked"), id="asked"
        ),
        pytest.param(
            flow(probed=Probed("echo", 50, None, b.TIME, "an echo")),
            (47, "many"),
            id="asked, but this connection's own packets say more",
        ),
    ],
)
def test_what_stands_for_the_peer(given: Reset, wanted: tuple[int, str] | None) -> None:
    assert steadiness(given) == wanted


@pytest.mark.parametrize(
    ("theirs", "is_one"),
    [
        pytest.param(lone_syn(), True, id="one-SYN"),
        pytest.param(lone_syn(packets=3, syns=3), True, id="sent-three-times"),
        pytest.param(lone_syn(confirmed=True), False, id="it-acknowledged-ours"),
        pytest.param(handshake(), False, id="a-SYN-ACK-answers-us"),
        pytest.param(half(), False, id="a-connection"),
        pytest.param(lone_syn(syn_ttl=None), False, id="no-SYN"),
    ],
)
def test_a_lone_syn(theirs: Half, is_one: bool) -> None:
    assert facts.is_lone_syn(theirs) == is_one


@pytest.mark.parametrize(
    ("options", "is_one"),
    [("", True), ("mss 1460", True), (LINUX_SYN, False), (None, False), ("mss 1460,cut", False)],
)
def test_a_program_s_syn_has_no_stack_s_options(options: str | None, is_one: bool) -> None:
    assert facts.is_raw_syn(lone_syn(syn_options=options)) == is_one


def test_a_syn_ack_may_have_few_options() -> None:
    """It offers only what our SYN did."""
    assert not facts.is_raw_syn(handshake(syn_options="mss 1460"))


# ---- stack and shape ----


@pytest.mark.parametrize(
    ("packet", "is_one"),
    [
        (rst(ip_id=0), True),
        (rst(ip_id=0, flags="RA", seq=0, ack=7), True),
        (rst(ip_id=0, flags="RA", seq=1000), False),
        (rst(ip_id=0, ack=99), False),  # no Linux fills it in (tcp_v4_send_reset, nf_send_reset)
        (rst(ip_id=0, ack=99, ttl=111), True),  # Windows does
        (rst(ip_id=0, df=False), False),
        (rst(ip_id=5), False),
        (rst(ip_id=0, window=1), False),
        (rst(ip_id=0, payload_len=1), True),  # what it carries is another question
        (rst(ip_id=0, reserved=4), True),
        (rst(ip_id=0, options="nop,nop,TS val 1 ecr 2"), False),
        (rst6(), True),
        (rst6(flags="RA", seq=0), True),
        (rst6(flags="RA", seq=1000), False),
        (rst6(window=1), False),
    ],
)
def test_the_shape_without_a_socket(packet: Packet, is_one: bool) -> None:
    assert facts.is_bare(packet) == is_one


LINUX = half(recent=(seen(ip_id=502), seen(ip_id=501), seen(ip_id=499)))


@pytest.mark.parametrize(
    ("theirs", "is_one"),
    [
        pytest.param(LINUX, True, id="counting"),
        pytest.param(
            half(recent=(seen(ip_id=9), seen(ip_id=0, flags="SA"))), True, id="a-SYN-ACK-with-ID-0"
        ),
        pytest.param(half(recent=(seen(ip_id=7), seen(ip_id=40000))), False, id="random-ids"),
        pytest.param(dataclasses.replace(LINUX, df_always=False), False, id="without-df"),
        pytest.param(dataclasses.replace(LINUX, ttl=111, syn_ttl=111), False, id="windows-ttl"),
        pytest.param(dataclasses.replace(LINUX, packets=1), False, id="one-packet"),
        pytest.param(
            dataclasses.replace(LINUX, syn_options=FREEBSD_SYN), False, id="another-stack's-SYN"
        ),
    ],
)
def test_who_looks_like_linux(theirs: Half, is_one: bool) -> None:
    assert facts.looks_like_linux(theirs) == is_one


@pytest.mark.parametrize(
    ("given", "name"),
    [
        pytest.param(flow(theirs=half(syn_options=LINUX_SYN)), "Linux", id="linux"),
        pytest.param(flow(theirs=steady(111, syn_options=WINDOWS_SYN)), "Windows", id="windows"),
        pytest.param(flow(), None, id="no-SYN-seen"),
        pytest.param(flow(theirs=lone_syn(syn_options="mss 1460")), None, id="a-program's-SYN"),
        pytest.param(
            b.with_baseline(
                reset(), peer=Peer((47,), 47, LINUX_SYN, 65160, True, None, b.TIME - SECOND)
            ),
            "Linux",
            id="from-another-connection",
        ),
    ],
)
def test_the_peer_s_stack(given: Reset, name: str | None) -> None:
    assert facts.stack_name(given) == name


@pytest.mark.parametrize(
    ("theirs", "ours", "agreed"),
    [
        pytest.param(half(timestamps=True), our_half(), True, id="its-packets-have-them"),
        pytest.param(half(), our_half(), False, id="they-have-not"),
        pytest.param(
            dataclasses.replace(half(), timestamps=True),
            our_half(),
            False,
            id="its-SYN-had-them: something takes them off",
        ),
        pytest.param(
            handshake(syn_options=LINUX_SYN),
            our_half(syn_options=LINUX_SYN, recent=()),
            True,
            id="both-offered",
        ),
        pytest.param(
            handshake(syn_options=LINUX_SYN),
            our_half(syn_options="mss 1460", recent=()),
            False,
            id="one-offered",
        ),
        pytest.param(handshake(syn_options=LINUX_SYN), None, False, id="ours-unknown"),
    ],
)
def test_timestamps_were_agreed(theirs: Half, ours: Half | None, agreed: bool) -> None:
    assert facts.are_stamps_agreed(flow(theirs=theirs, ours=ours)) == agreed


@pytest.mark.parametrize(
    ("segments", "ip_id", "goes_on"),
    [(1, 23404, True), (1, 23405, False), (1, 23403, False), (3, 23406, True), (3, 23407, False)],
)
def test_the_peer_s_counter_goes_on(segments: int, ip_id: int, goes_on: bool) -> None:
    assert facts.continues(ip_id, half(recent=(seen(segments=segments),))) == goes_on


def test_a_syn_ack_s_id_is_no_counter() -> None:
    """Linux sends its SYN-ACK with IP ID 0."""
    assert not facts.continues(1, handshake())


# ---- numbers ----


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
def test_a_no_socket_reset_answers_a_packet_of_ours(packet: Packet, answer: bool) -> None:
    assert facts.answers_ours(packet, our_half()) == answer


def test_answers_to_syn_and_fin_count_one_and_wrap() -> None:
    syn = our_half(recent=(seen(flags="S", seq=0xFFFFFFFF, ack=0, payload_len=0),))
    assert facts.answers_ours(rst(flags="RA", seq=0, ack=0), syn) is True
    fin = our_half(recent=(seen(flags="FA", seq=10, ack=0, payload_len=5),))
    assert facts.answers_ours(rst(flags="RA", seq=0, ack=16), fin) is True
    assert facts.answers_ours(rst(), None) is None
    assert facts.answers_ours(rst(), our_half(recent=())) is None


@pytest.mark.parametrize(
    ("seq", "acks", "wanted"),
    [
        (1001, {1000}, True),
        (1000, {1000}, False),
        (999, {1000}, False),
        (1500, {1000, 2000}, False),
        (50, {2**32 - 100}, True),
        (1000 + facts.NEAR_SEQUENCE + 1, {1000}, False),
        (1001, set(), False),
        (0, {2**32 - 100}, False),
    ],
)
def test_what_answers_nothing(seq: int, acks: set[int], wanted: bool) -> None:
    assert facts.answers_nothing(seq, acks) == wanted


def test_the_first_of_two_is_no_retransmission() -> None:
    ours = our_half(recent=(sent(1, seq=5000), sent(2, seq=5100, flags="A", payload_len=0)))
    newest, older = ours.recent
    assert facts.was_sent_before(newest, ours)
    assert not facts.was_sent_before(older, ours)


# ---- time ----


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
    def at(seconds: tuple[int, ...]) -> tuple[Seen, ...]:
        return tuple(seen(time_ns=b.TIME + s * SECOND) for s in seconds)

    found = facts.idle_ns(flow(theirs=half(recent=at(theirs)), ours=our_half(recent=at(ours))))
    assert found == expected * SECOND


def test_idle_is_unknown_without_packets() -> None:
    assert facts.idle_ns(flow(theirs=half(recent=()), ours=None)) is None
    assert facts.idle_ns(flow(scope=Scope.PEER)) is None


@pytest.mark.parametrize(("ago_ms", "wanted"), [(0.4, True), (3000, True), (3001, False)])
def test_provoked(ago_ms: float, wanted: bool) -> None:
    assert facts.is_provoked(flow(ours=our_half(recent=(sent(ago_ms),)))) is wanted


def test_provoked_is_unknown_without_packets_of_ours() -> None:
    assert facts.is_provoked(flow(ours=None)) is None


def shaken(ours: Half, theirs: Half, rtt_ms: int = 15) -> Reset:
    """A flow with a handshake of a known round trip."""
    begun = b.TIME - 5 * SECOND
    return flow(
        theirs=dataclasses.replace(theirs, syn_ns=begun + rtt_ms * MS),
        ours=dataclasses.replace(ours, syn_ns=begun),
    )


def acknowledged(flags: str = "PA", again: bool = False, syns: int = 1, **values: Any) -> Reset:
    """A handshake of 15 ms, and a packet of ours that was acknowledged after 7 ms."""
    first = (sent(400, seq=150, ack=900, payload_len=50),) if again else ()
    ours = our_half(recent=(sent(12, seq=100, flags=flags), *first))
    end = 200 + ("F" in flags)
    return shaken(ours, half(recent=(bare_ack(end, **values),), syns=syns))


def bare_ack(number: int, **values: Any) -> Seen:
    """An acknowledgment of the peer's, 5 ms ago."""
    return sent(5, **{"ack": number, "flags": "A", "payload_len": 0, **values})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            changed(shaken(our_half(), half()), socket=b.measured(40_000)),
            (15 * MS, 12),
            id="a-handshake-shorter-than-the-socket-s",
        ),
        pytest.param(changed(flow(), socket=b.measured(9_000)), (9 * MS, 12), id="socket"),
        pytest.param(
            changed(flow(theirs=half(packets=2)), socket=b.measured(9_000)),
            (9 * MS, 2),
            id="socket-that-knows-the-handshake-only",
        ),
        pytest.param(
            changed(flow(scope=Scope.NONE), socket=b.measured(9_000)),
            (9 * MS, 1),
            id="socket-without-a-flow",
        ),
        pytest.param(shaken(our_half(), half()), (15 * MS, 1), id="handshake-only"),
        pytest.param(acknowledged(), (7 * MS, 2), id="data-was-acknowledged-sooner"),
        pytest.param(
            acknowledged(payload_len=300),
            (15 * MS, 1),
            id="an-answer-takes-its-program-time",
        ),
        pytest.param(
            changed(
                flow(
                    theirs=half(syn_ns=None, recent=(sent(5, ack=200),)), ours=our_half(syn_ns=None)
                ),
                socket=b.measured(9_000),
            ),
            (9 * MS, 1),
            id="a-socket-that-has-forgotten-its-handshake-knows-answers-alone",
        ),
        pytest.param(
            changed(
                flow(theirs=half(syn_ns=None, recent=(bare_ack(200),)), ours=our_half(syn_ns=None)),
                socket=b.measured(9_000),
            ),
            (9 * MS, 12),
            id="a-socket-that-has-had-a-bare-acknowledgment",
        ),
        pytest.param(acknowledged("FA"), (15 * MS, 1), id="a-program-closes-when-it-likes"),
        pytest.param(
            acknowledged(again=True), (15 * MS, 1), id="what-was-sent-twice-measures-nothing"
        ),
        pytest.param(
            shaken(
                our_half(recent=(sent(3, seq=150, payload_len=0, flags="A"), sent(12, seq=100))),
                half(recent=(bare_ack(200),)),
            ),
            (7 * MS, 2),
            id="an-ACK-without-data-is-nothing-sent-twice",
        ),
        pytest.param(
            shaken(our_half(syns=2), half()), None, id="our-SYN-was-sent-twice (Karn's rule)"
        ),
        pytest.param(shaken(our_half(), half(syns=2)), None, id="their-SYN-ACK-came-twice"),
        pytest.param(acknowledged(syns=2), None, id="an-acknowledgment-may-be-delayed"),
        pytest.param(
            flow(
                ours=our_half(recent=(sent(300, seq=100),), syn_ns=None),
                theirs=half(recent=(bare_ack(200),), syn_ns=None),
            ),
            (95 * MS, 1),
            id="of-one-that-took-longer-the-delay-is-taken-off",
        ),
        pytest.param(shaken(our_half(), half(), -1), None, id="we-are-the-server"),
        pytest.param(
            shaken(our_half(), half(confirmed_ns=b.TIME - 4900 * MS), -1),
            (100 * MS, 1),
            id="we-are-the-server-and-have-their-ACK",
        ),
    ],
)
def test_least_round_trip(given: Reset, expected: tuple[int, int] | None) -> None:
    assert facts.least_rtt_ns(given) == expected


@pytest.mark.parametrize(
    ("clock", "least", "most"),
    [
        pytest.param(((1000, 0), (3000, 2 * SECOND)), 951.4, 1101.1, id="1-ms-a-tick"),
        pytest.param(((2**32 - 500, 0), (500, SECOND)), 907.3, 1102.2, id="across-the-wrap"),
        pytest.param(((0, 0), (10**6, SECOND)), 909089.1, 1100002.2, id="1-us-a-tick"),
        pytest.param(((1000, 0), (1050, 50 * MS)), 320.0, 1144.0, id="50-ms-bound-it-less"),
        pytest.param(((1000, 0), (1000, SECOND)), 0.0, 1100.0, id="it-stood-still"),
        pytest.param(((1000, 0), (1001, MS // 2)), 0.0, 7.0, id="too-short"),
        pytest.param(((1000, 0), (900, SECOND)), 0.0, 1100.0, id="it-went-back"),
        pytest.param(((1000, 0),), 0.0, 7.0, id="one-packet"),
        pytest.param((), 0.0, 7.0, id="none"),
    ],
)
def test_clock_rates(clock: tuple[tuple[int, int], ...], least: float, most: float) -> None:
    """Unknown is the widest: from a clock that stands to the fastest that is given (7)."""
    assert facts.clock_rates(half(clock=clock), 7.0) == pytest.approx((least, most), abs=0.1)
