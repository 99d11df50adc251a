"""What a connection's history tells about why it was reset."""

from __future__ import annotations

import dataclasses

import pytest

from rsttrace.judge import advice, facts, why
from rsttrace.judge.verdict import judge
from rsttrace.judge.why import Deed
from rsttrace.model import Cause, Half, Kind, MadeHere, Note, Origin, Process, Reset, Seen, Socket
from tests.unit.builders import (
    LINUX_SYN,
    MS,
    OUR_DATA,
    SECOND,
    TIME,
    WINDOWS_SYN,
    among,
    changed,
    closed,
    earlier_rst,
    flow,
    half,
    our_half,
    reset,
    rst,
    rst6,
    seen,
    steady,
    with_baseline,
)

BARE = rst(ip_id=0)
"""The answer of a Linux host without that socket, to OUR_DATA."""

REFUSED = Cause("connection-refused", "the connection was refused")
NO_SOCKET = Cause("no-socket", "no such connection here (answer to data)", "NO_SOCKET")
THEIR_DATA = seen(time_ns=TIME - 100_000, seq=1000, ack=5000, payload_len=19)
NEW_SYN = seen(flags="S", time_ns=TIME - 30 * MS, seq=70_001_000, ttl=43, payload_len=0)


REFUSAL = rst(flags="RA", seq=0, ip_id=0)
OUR_SYN_ACK = seen(flags="SA", payload_len=0, ack=BARE.seq)
PROBE = seen(flags="A", seq=1000, payload_len=0)


def tried(packet: Seen, times: int) -> Reset:
    """The peer sends the same packet every second, and then resets with its own number."""
    sent = [
        dataclasses.replace(packet, time_ns=TIME - (back + 1) * SECOND) for back in range(times)
    ]
    theirs = half(recent=tuple(sent), end=1001)
    return flow(
        rst(flags="RA", seq=1001, ip_id=23404),
        theirs=theirs,
        ours=our_half(
            recent=(dataclasses.replace(OUR_DATA, time_ns=TIME - 60 * SECOND),), last_ns=0
        ),
    )


def answered(fin_ago_ns: int, options: str) -> Reset:
    """The peer closes, our data follows, and a live socket's RST answers it."""
    fin = TIME - fin_ago_ns
    data = dataclasses.replace(OUR_DATA, time_ns=TIME - MS)
    return flow(
        rst(flags="RA", ip_id=23404, ack=(data.seq + data.payload_len) & 0xFFFFFFFF),
        theirs=half(
            recent=(seen(time_ns=fin, flags="FA", payload_len=0),),
            fin_ns=fin,
            syn_options=options,
            syn_ttl=111 if options == WINDOWS_SYN else 47,
        ),
        ours=our_half(recent=(data,)),
        trigger=data,
    )


def idle_before_fin(seconds: float, fin_ago_ns: int = 10 * MS) -> Reset:
    """The peer closes after a silence; our data crosses its FIN."""
    fin = TIME - fin_ago_ns
    last = seen(time_ns=fin - round(seconds * SECOND), flags="A", payload_len=0)
    data = dataclasses.replace(OUR_DATA, time_ns=fin + MS)
    return flow(
        BARE,
        theirs=half(recent=(seen(time_ns=fin, flags="FA", payload_len=0),), fin_ns=fin),
        ours=our_half(recent=(data, last)),
        trigger=data,
    )


def server(trigger: Seen = THEIR_DATA, cause: Cause = NO_SOCKET, **values: object) -> Reset:
    """This end's stack answers a packet of a connection that it no longer has."""
    given: dict[str, object] = {"trigger": trigger, "cause": cause, **values}
    return flow(rst(src=rst().dst, dst=rst().src), kind=Kind.SENT_PASSIVE, **given)


# ---- what the peer did ----


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(60, "after 60 s idle"), (2.5, "after 2.5 s idle"), (600.04, "after 600 s idle")],
)
def test_the_peer_closed_after_a_silence(seconds: float, words: str) -> None:
    found = judge(idle_before_fin(seconds))
    assert found.origin is Origin.PEER
    text = f"the peer had closed (FIN 10.0 ms before, {words}); our data came too late"
    assert found.summary == text
    assert found.cause is not None
    assert (found.cause.closed_by, found.cause.closed_ms) == ("peer", 10.0)
    assert found.cause.idle_s == pytest.approx(seconds, abs=0.001)
    assert found.cause.name == "connection-reset", "what the RST did stays what it did"


def test_a_short_pause_is_no_idle_time() -> None:
    found = judge(idle_before_fin(0.2))
    assert "idle" not in found.summary
    assert found.cause is not None
    assert found.cause.idle_s == 0.2


def test_idle_time_is_unknown_where_nothing_before_the_fin_is() -> None:
    fin = TIME - 5 * MS
    theirs = half(recent=(seen(time_ns=fin, flags="FA"),), fin_ns=fin)
    ours = our_half(recent=(dataclasses.replace(OUR_DATA, time_ns=TIME - MS),))
    found = judge(flow(BARE, theirs=theirs, ours=ours)).cause
    assert found is not None
    assert (found.closed_by, found.idle_s) == ("peer", None)


def test_the_first_fin_says_who_closed() -> None:
    both = with_baseline(
        closed(flow(BARE), 5 * MS), ours=dataclasses.replace(our_half(), fin_ns=TIME - 8 * MS)
    )
    found = judge(both)
    assert found.cause is not None
    assert (found.cause.closed_by, found.cause.closed_ms) == ("local", 8.0)
    assert (
        found.summary == "both ends had closed (ours: FIN 8.0 ms before); our packet came too late"
    )


def test_a_fin_that_came_later_closed_nothing() -> None:
    assert why.closed(closed(flow(BARE), -5 * MS)) is None
    assert judge(flow(BARE)).cause is None


@pytest.mark.parametrize(
    ("trigger", "what"),
    [
        (OUR_DATA, "our data"),
        (seen(flags="FA", payload_len=0), "our FIN"),
        (seen(flags="A", payload_len=0), "our ACK"),
        (None, "our packet"),
    ],
)
def test_what_came_too_late(trigger: Seen | None, what: str) -> None:
    did, text = why.deed(closed(flow(BARE, trigger=trigger)))
    assert did is Deed.CLOSED
    assert text == f"the peer had closed (FIN 10.0 ms before); {what} came too late"


def stalled(seconds: float, then: int = 0) -> Reset:
    """A live peer's reset, so long after this end had closed its window; `then` its last one."""
    windows = ((0.1, then), (seconds, 0), (seconds + 1, 509))
    recent = tuple(
        seen(flags="A", payload_len=0, window=window, time_ns=TIME - round(ago * SECOND))
        for ago, window in windows
    )
    return flow(rst(flags="RA", ip_id=23404), ours=our_half(recent=recent))


DEEDS = [
    (flow(BARE), Deed.NO_CONNECTION, "the peer has no such connection"),
    (flow(rst(ip_id=0, seq=5)), Deed.NO_CONNECTION, "answers none"),
    (flow(REFUSAL, trigger=seen(flags="S")), Deed.REFUSED, "no socket listens"),
    (flow(REFUSAL, trigger=seen(flags="SEW")), Deed.REFUSED, "no socket listens"),
    (flow(BARE, trigger=seen(flags="S")), Deed.NO_CONNECTION, "no such connection"),
    (flow(rst(flags="RA", ip_id=7), cause=REFUSED), Deed.REFUSED, "nothing listens there, or"),
    (flow(BARE, trigger=OUR_SYN_ACK), Deed.NO_HANDSHAKE, "no such handshake"),
    (
        flow(BARE, trigger=dataclasses.replace(OUR_SYN_ACK, flags="SAE")),
        Deed.NO_HANDSHAKE,
        "no such handshake",
    ),
    (
        flow(BARE, trigger=dataclasses.replace(OUR_SYN_ACK, ack=77)),
        Deed.NO_CONNECTION,
        "no such connection",
    ),
    (tried(THEIR_DATA, 3), Deed.GAVE_UP, "its data, sent again and again for 3.0 s or longer"),
    (tried(PROBE, 4), Deed.GAVE_UP, "its keepalive probes, sent again and again for 4.0 s"),
    (tried(THEIR_DATA, 2), Deed.ABORTED, "aborted a live connection"),
    (tried(dataclasses.replace(PROBE, seq=1001), 4), Deed.ABORTED, "aborted a live connection"),
    (answered(20 * MS, WINDOWS_SYN), Deed.CLOSED, "had closed (FIN 20.0 ms before); our data came"),
    (answered(20 * MS, LINUX_SYN), Deed.ABORTED, "aborted a live connection"),
    (flow(BARE, we_reset_ns=TIME - 2 * MS), Deed.WE_RESET, "2.0 ms before"),
    (among(flow(BARE), (earlier_rst(),)), Deed.RESET, "the peer had reset it 1.0 ms before"),
    (
        among(flow(BARE), (earlier_rst(ttl=201),)),
        Deed.RESET,
        "in its name, from elsewhere",
    ),
    (flow(BARE, theirs=half(new_syn=NEW_SYN)), Deed.REUSED, "a new SYN came 30.0 ms before"),
    (flow(rst(flags="RA", ip_id=23404)), Deed.ABORTED, "aborted a live connection"),
    (stalled(90), Deed.STALLED, "took nothing more (window 0) for 90.0 s or longer"),
    (stalled(0.5), Deed.ABORTED, "aborted a live connection"),
    (stalled(90, then=509), Deed.ABORTED, "aborted a live connection"),
    (flow(rst(window=9814)), Deed.SAID, "says why: a policy whose action is RESET"),
    (flow(rst()), Deed.UNKNOWN, "reset it"),
    (flow(BARE, made_here=MadeHere(1, Kind.SENT_ACTIVE)), Deed.ABORTED, "aborted its live"),
    (flow(BARE, made_here=MadeHere(1, Kind.SENT_NETFILTER)), Deed.FIREWALL, "own firewall"),
]


@pytest.mark.parametrize(("given", "did", "words"), DEEDS, ids=[row[1].value for row in DEEDS])
def test_what_an_honest_peer_did(given: Reset, did: Deed, words: str) -> None:
    found, text = why.deed(given)
    assert found is did
    assert words in text


def test_every_deed_is_tried() -> None:
    assert {did for _, did, _ in DEEDS} | {Deed.CLOSED, Deed.FORGOT} == set(Deed)


def test_a_peer_that_forgot_an_idle_connection() -> None:
    long_ago = TIME - 400 * SECOND
    given = flow(
        BARE,
        theirs=half(recent=(seen(time_ns=long_ago),), last_ns=long_ago),
        ours=our_half(recent=(OUR_DATA,)),
    )
    did, text = why.deed(given)
    assert did is Deed.FORGOT
    assert "after 400 s without a packet" in text


# ---- ports used again ----


@pytest.mark.parametrize(
    ("ttl", "where"),
    [(43, ", from 4 hops farther"), (48, ", from 1 hop nearer"), (47, "")],
)
def test_where_the_new_syn_came_from(ttl: int, where: str) -> None:
    new = dataclasses.replace(NEW_SYN, ttl=ttl)
    given = flow(rst(ip_id=0, ttl=ttl), theirs=steady(47, new_syn=new))
    found = judge(given)
    assert "port-reuse" in found.findings
    assert "duplicate-address" not in found.findings
    words = next(item.text for item in found.evidence if item.rule == "port-reuse")
    assert f"a new SYN on these ports came 30.0 ms before{where}:" in words
    assert "ports were used again" in found.summary


def test_the_summary_of_an_open_verdict_says_it_too() -> None:
    far = dataclasses.replace(NEW_SYN, ttl=40)
    found = judge(flow(rst(ip_id=0, ttl=47), theirs=steady(47, new_syn=far)))
    assert found.origin is Origin.INCONCLUSIVE
    assert "ports were used again" in found.summary


AN_ACK = seen(time_ns=TIME - 20 * MS, flags="A", payload_len=0, ack=9000)
LONE = half(
    recent=(dataclasses.replace(NEW_SYN, seq=1000),), packets=1, syns=1, confirmed=False, ttls=()
)


@pytest.mark.parametrize(
    ("opens", "answer", "is_reuse"),
    [
        (LONE, AN_ACK, True),
        (LONE, dataclasses.replace(AN_ACK, ack=1001), False),  # that is for this SYN
        (LONE, dataclasses.replace(AN_ACK, flags="SA"), False),
        (LONE, dataclasses.replace(AN_ACK, flags="PA", payload_len=5), False),
        (LONE, dataclasses.replace(AN_ACK, time_ns=TIME - 40 * MS), False),  # before the SYN
        (dataclasses.replace(LONE, confirmed=True), AN_ACK, False),
    ],
)
def test_a_syn_that_met_time_wait(opens: Half, answer: Seen, is_reuse: bool) -> None:
    """All before is forgotten with the connection: a SYN is left, and an ACK that is not for it."""
    ours = our_half(recent=(answer,), syn_ns=None)
    answers = rst(ip_id=0, seq=9000)
    given = flow(answers, theirs=opens, ours=ours, trigger=answer)
    assert (why.reused(given) is not None) == is_reuse
    assert ("port-reuse" in judge(given).findings) == is_reuse
    captured = server(answer, theirs=opens, ours=ours, file="x.pcap")
    assert why.met_an_earlier_connection(captured) == is_reuse


def test_what_port_reuse_asks_for_at_either_end() -> None:
    answers, ours = rst(ip_id=0, seq=9000), our_half(recent=(AN_ACK,), syn_ns=None)
    waits = Socket(4711, "TIME_WAIT", None, None, 99, None, None, minisocket=True)
    for socket, left in ((waits, "TIME_WAIT"), (None, "an earlier connection on them")):
        got = judge(flow(answers, theirs=LONE, ours=ours, trigger=AN_ACK, socket=socket))
        assert got.advice is not None
        assert "hosts that share" in got.advice
        (words,) = [item.text for item in got.evidence if item.rule == "port-reuse"]
        assert f"still had {left}" in words
    sent = judge(server(AN_ACK, theirs=LONE, ours=ours, file="x.pcap")).advice
    assert sent is not None
    assert "use more ports" in sent


def test_our_syn_meets_an_earlier_connection() -> None:
    ack = seen(flags="A", payload_len=0, ack=12345)
    connecting = Socket(4711, "SYN_SENT", None, None, 99, 1000, 7)
    given = server(
        ack, Cause("invalid-ack", "it acknowledged data that was never sent"), socket=connecting
    )
    found = judge(given)
    assert found.findings == ("port-reuse",)
    assert found.cause is not None
    assert found.cause.name == "ports-reused"
    assert "TIME_WAIT" in found.summary
    answered = server(seen(flags="SA", payload_len=0), socket=connecting)
    assert "port-reuse" not in judge(answered).findings
    alive = dataclasses.replace(connecting, state="ESTABLISHED")
    assert "port-reuse" not in judge(changed(given, socket=alive)).findings


# ---- what this end sent ----


def test_data_after_our_own_close() -> None:
    given = closed(server(), 10 * MS)  # `theirs` is the direction of whoever sent the RST: ours
    found = judge(given)
    assert found.cause is not None
    assert found.cause.name == "data-after-close"
    assert found.cause.kernel_reason == "NO_SOCKET"
    assert (found.cause.closed_by, found.cause.closed_ms) == ("local", 10.0)
    assert found.summary == "data arrived after the program had closed (FIN 10.0 ms before)"


@pytest.mark.parametrize(
    ("process", "words"),
    [
        (Process(7, "shop", 1, exit_signal=9), "its process was killed (SIGKILL)"),
        (Process(7, "shop", 1, exit_status=0), "its process exited (status 0)"),
    ],
)
def test_the_kernel_closed_for_a_process_that_had_ended(process: Process, words: str) -> None:
    found = judge(closed(server(process=process), 10 * MS))
    assert found.summary == f"data arrived after {words}: FIN 10.0 ms before"
    assert found.cause is not None
    assert found.cause.name == "data-after-close"
    assert found.advice in (advice.KILLED, advice.EXITED)
    late = Cause("data-after-close", "data arrived after the program had closed", None)
    unseen = judge(server(cause=late, process=process))  # the FIN was sent before the trace began
    assert unseen.summary == f"data arrived after {words}"


def test_an_ack_after_our_own_close_is_no_data() -> None:
    found = judge(closed(server(seen(flags="A", payload_len=0)))).cause
    assert found is not None
    assert found.name == "no-socket"
    assert "this end had closed it" in found.text


@pytest.mark.parametrize(
    "given",
    [
        server(),
        server(seen(flags="S", payload_len=0)),
        closed(server(cause=Cause("time-wait", "the connection is over (TIME_WAIT)"))),
        closed(changed(server(), kind=Kind.SENT_ACTIVE)),
    ],
    ids=["nobody-closed", "syn", "time-wait", "active"],
)
def test_what_a_close_does_not_explain_keeps_its_cause(given: Reset) -> None:
    found = judge(given)
    assert (found.cause or given.cause).name == given.cause.name
    assert found.summary == given.cause.text


@pytest.mark.parametrize(
    ("times", "acked", "gave_up"),
    [(3, 5000, True), (5, 5000, True), (2, 5000, False), (3, 5100, False), (3, None, False)],
)
def test_what_was_sent_again_and_again_was_given_up(
    times: int, acked: int | None, gave_up: bool
) -> None:
    data = seen(flags="PA", seq=5000, ack=1000, payload_len=100)
    mine = half(recent=(data,) * times, end=5100)
    found = judge(server(theirs=mine, ours=our_half(acked=acked)))
    assert (found.cause is not None and found.cause.name == "gave-up") == gave_up
    if gave_up:
        assert f"sent {times} times, was never acknowledged" in found.summary
        assert found.advice is not None
        assert "tcp_retries2" in found.advice


def test_the_peer_closed_first_is_no_close_of_ours() -> None:
    given = with_baseline(server(), ours=dataclasses.replace(our_half(), fin_ns=TIME - MS))
    found = judge(given).cause
    assert found is not None
    assert (found.name, found.closed_by) == ("no-socket", "peer")


def test_data_after_our_own_reset() -> None:
    found = judge(server(we_reset_ns=TIME - 3 * MS))
    assert found.cause is not None
    assert found.cause.name == "after-reset"
    assert found.summary == "data for a connection that this end had reset 3.0 ms before"


def test_data_after_a_reset_that_came_in() -> None:
    """Was "no such connection here": the answer to what the peer sends after a forged reset."""
    found = judge(server(ended_ns=TIME - 3 * MS))
    assert found.cause is not None
    assert found.cause.name == "ended-by-reset"
    assert "had ended here 3.0 ms before" in found.summary
    assert found.advice is not None
    assert "the RST that ended it" in found.advice


def test_a_closed_window_is_no_idle_timeout() -> None:
    probes = [seen(flags="A", payload_len=0, time_ns=TIME - ago * SECOND) for ago in (70, 80)]
    minutes = with_baseline(
        flow(rst(flags="RA", ip_id=23404)),
        theirs=half(recent=tuple(probes), last_ns=probes[0].time_ns),
        ours=our_half(recent=tuple(dataclasses.replace(one, window=0) for one in probes)),
    )
    assert facts.not_outlived_ns(minutes) is not None
    assert judge(minutes).findings == ()


# ---- the rest ----


def test_ipv6_is_told_the_same() -> None:
    found = judge(closed(flow(rst6())))
    assert "the peer had closed (FIN 10.0 ms before)" in found.summary


def test_a_forged_one_keeps_what_is_known_of_the_close() -> None:
    found = judge(closed(flow(rst(ip_id=13052, ttl=63))))
    assert found.origin is Origin.FORGED
    assert found.cause is not None
    assert found.cause.closed_by == "peer"
    assert "too late" not in found.summary


def test_what_the_node_knows_is_a_finding() -> None:
    note = Note("escaped-nat", "its answer came from elsewhere", {"port": 80})
    for given in (flow(BARE, notes=(note,)), reset(notes=(note,)), server(notes=(note,))):
        found = judge(given)
        assert found.findings[0] == "escaped-nat"
        item = next(item for item in found.evidence if item.rule == "escaped-nat")
        assert (item.text, dict(item.values), item.weight) == (note.text, note.values, 0.0)


# ---- keep-alive races ----


def test_a_race_is_data_after_an_idle_close() -> None:
    found = why.race(idle_before_fin(60))
    assert found is not None
    assert (found.by, found.idle_ns, found.used_ns) == ("peer", 60 * SECOND, 60 * SECOND + MS)


@pytest.mark.parametrize(
    "given",
    [
        idle_before_fin(0.5),
        flow(BARE, trigger=OUR_DATA),
        changed(idle_before_fin(60), trigger=seen(flags="A", payload_len=0)),
        changed(idle_before_fin(60), rst=rst(flags="RA", ip_id=23404)),
        changed(idle_before_fin(60), trigger=None),
    ],
    ids=["not-idle", "not-closed", "an-ack", "a-live-socket", "unknown"],
)
def test_what_is_no_race(given: Reset) -> None:
    assert why.race(given) is None


def test_a_peers_reset_says_why_by_its_mptcp_option() -> None:
    cause = Cause("connection-reset", "ended an established connection")
    for options, words in (("", ""), ("mptcp 8002", "; it says: MPTCP lacked resources for it")):
        given = flow(rst(flags="RA", ip_id=23404, window=509, options=options), cause=cause)
        found = judge(given)
        assert found.origin is Origin.PEER
        assert found.summary == f"{why.deed(given)[1]}{words}"


def test_that_a_reset_ended_time_wait_is_said() -> None:
    cause = Cause("time-wait-ended", "ended what was left of a closed connection (TIME_WAIT)")
    given = flow(rst(flags="RA", ip_id=23404, window=509), cause=cause)
    found = judge(given)
    assert found.origin is Origin.PEER
    assert found.summary == f"{why.deed(given)[1]}; {cause.text}"


def test_of_a_forwarded_one_neither_end_is_ours() -> None:
    given = closed(flow(BARE, kind=Kind.FORWARDED, we_reset_ns=TIME - MS))
    assert why.closed(given) is None
    assert why.deed(given) == (Deed.NO_CONNECTION, "the peer has no such connection")
