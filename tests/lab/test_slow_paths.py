"""Slow and reordering paths: what the times say of who sent a RST."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator

import pytest

from rsttrace.demo import forger
from rsttrace.demo.lab import Lab
from rsttrace.judge.verdict import judge
from rsttrace.kernel.protocol import Request
from rsttrace.kernel.source import LiveSource
from rsttrace.model import Kind, Origin, Reset, Seen
from tests.lab.harness import (
    ADDRESSES,
    DEADLINE_S,
    PLAN,
    expect_reset,
    forward,
    linger_zero,
    need,
    out_rsts,
    pair,
    refuse,
)

# What the numbers are like (two runs on 6.12 under emulation, kprobe plan, each case three times or
# more; netem delays by half the round trip each way). In ms before the RST came: our last packet,
# our last data; then TCP's minimum round trip.
#
#                                      last packet   last data      min_rtt
#   honest answer to data, 15 ms       16.4 .. 17.8  the same       15.8 .. 16.5
#                         100 ms      102.3 .. 103.1 the same      101.4 .. 101.9
#   honest, of its own accord, 15 ms    8.4 .. 30.0  24.7 .. 30.0   15.9 .. 17.0
#                             100 ms    8.6 .. 51.7  153  .. 155   101.2 .. 101.9
#   REJECT one hop away, 15 ms          0.3 .. 3.5   the same       16.1 .. 16.6
#                       100 ms          0.3 .. 0.7   the same      101.3 .. 102.0
#   forging program there, 15 ms        1.3 .. 6.3   the same       16.0 .. 17.0
#                         100 ms        1.3 .. 4.6   the same      101.4 .. 102.4
#   honest answer that overtook, 15 ms  9.7 .. 11.1  the same       16.6 .. 17.0
#                               100 ms 52.8          the same      102.0
#   honest, others overtook, 15 ms      0.0 .. 7.5   16.7 .. 25.9    8.3 .. 9.3
#                           100 ms      0.0 .. 103   102  .. 106    50.9 .. 55.2
#
# So the time since our last data tells them apart at both delays, where the RST acknowledges that
# data (0.4 of min_rtt and less against 0.5 and more); the time since our last packet does not. An
# honest RST that overtakes on a symmetric path comes as early as half of min_rtt, never earlier: on
# an asymmetric one it could.


@pytest.fixture(scope="module")
def source() -> Iterator[LiveSource]:
    """Resets with everything that the kernel side tells, times included."""
    with Lab("rstnetem") as lab:
        need("netem", lab, "tc qdisc add dev p0 root netem delay 1ms")
    with LiveSource(Request(tuple(kind.value for kind in Kind), plan=PLAN)) as live:
        yield live


def collect(source: LiveSource, lab: Lab, count: int, *kinds: Kind) -> list[Reset]:
    """So many resets of these kinds that the client received (without `kinds`: of any), judged as
    if the client were a machine of its own."""
    netns = lab.inode("client")
    found: list[Reset] = []
    ends = time.monotonic() + DEADLINE_S
    while len(found) < count:
        assert time.monotonic() < ends, f"only {len(found)} of {count} resets"
        found += [
            reset
            for reset in source.wait(0.1)
            if isinstance(reset, Reset)
            and reset.netns == netns
            and reset.kind.direction == "received"
            and (not kinds or reset.kind in kinds)
        ]
    for reset in found:
        reset.made_here = reset.ingress_frame = None
    return found


def slow(source: LiveSource, lab: Lab, delay_ms: int, *, reorder: bool = False) -> None:
    """A round trip of at least `delay_ms` between router and server, half of it each way. With
    `reorder` every third packet to the client overtakes those that wait."""
    half = ["delay", f"{delay_ms / 2}ms", "limit", "10000"]
    back = [*half, "reorder", "100%", "gap", "3"] if reorder else half
    while source.wait(0):  # of the tests before
        pass
    for role, interface, how in (("router", "sv0", half), ("server", "eth0", back)):
        lab.exec(role, ["tc", "qdisc", "add", "dev", interface, "root", "netem", *how])


DELAYS = pytest.mark.parametrize("delay_ms", [15, 100])


def our_last_data(reset: Reset) -> Seen | None:
    """Our newest packet with payload, if it is among the last few."""
    ours = reset.baseline.ours
    assert ours is not None
    return next((seen for seen in ours.recent if seen.payload_len), None)


def answers_our_data(reset: Reset) -> bool:
    """Whether the RST acknowledges all data that we sent: its maker has seen it."""
    data = our_last_data(reset)
    return data is not None and reset.rst.ack == (data.seq + data.payload_len) & 0xFFFFFFFF


def figures(reset: Reset, what: str) -> dict[str, float]:
    """The times that a timing rule has to go by, in ms: how long before the RST came we sent our
    last packet and our last data, how long the handshake took, TCP's own measurements."""
    ours, theirs, sock = reset.baseline.ours, reset.baseline.theirs, reset.socket
    data = our_last_data(reset)
    assert ours is not None
    assert theirs is not None
    assert sock is not None
    assert ours.syn_ns is not None
    assert theirs.syn_ns is not None
    assert isinstance(reset.trigger, Seen)
    found = {
        "trigger": (reset.time_ns - reset.trigger.time_ns) / 1e6,
        "handshake": (theirs.syn_ns - ours.syn_ns) / 1e6,
        "min_rtt": (sock.min_rtt_us or 0) / 1e3,
        "srtt": (sock.srtt_us or 0) / 1e3,
    }
    if data is not None:
        found["data"] = (reset.time_ns - data.time_ns) / 1e6
    print(what, {name: round(value, 2) for name, value in found.items()}, judge(reset).origin.value)
    assert found["trigger"] >= 0, "what provoked a RST was sent before it came"
    return found


@DELAYS
def test_slow_path_honest_answer(delay_ms: int, routed: Lab, source: LiveSource) -> None:
    """A server that closes with our data unread: its RST acknowledges the data, so it cannot be
    here before the path has been gone both ways; neither can the SYN-ACK."""
    slow(source, routed, delay_ms)
    for _ in range(3):
        with pair(routed, "client", "server") as (client, accepted):
            for _ in range(3):
                client.send(b"x" * 10)
                accepted.sendall(accepted.recv(10))
                assert client.recv(10)
            client.send(b"x" * 10)
            assert accepted.recv(1)
            accepted.close()
            expect_reset(client)
    for reset in collect(source, routed, 3, Kind.RECEIVED_ACCEPTED):
        assert reset.cause.name == "connection-reset"
        assert answers_our_data(reset)
        times = figures(reset, f"honest answer, {delay_ms} ms")
        assert times["data"] >= delay_ms
        assert times["handshake"] >= delay_ms
        assert times["min_rtt"] >= delay_ms
        assert times["srtt"] >= times["min_rtt"]
        assert judge(reset).origin is Origin.PEER


@DELAYS
def test_slow_path_refusal(delay_ms: int, routed: Lab, source: LiveSource) -> None:
    slow(source, routed, delay_ms)
    for _ in range(3):
        refuse(routed, ADDRESSES["server"][0])
    for reset in collect(source, routed, 3):
        assert (reset.kind, reset.cause.name) == (Kind.RECEIVED_ACCEPTED, "connection-refused")
        assert isinstance(reset.trigger, Seen)
        assert reset.trigger.flags.startswith("S")
        assert reset.time_ns - reset.trigger.time_ns >= delay_ms * 1e6
        assert judge(reset).origin is not Origin.FORGED


@DELAYS
def test_slow_path_honest_reset_of_its_own_accord(
    delay_ms: int, routed: Lab, source: LiveSource
) -> None:
    """A trap for any timing rule: the server aborts right after its own data, and the RST comes at
    any time after our last ACK. The age of our last packet says nothing then; only that of what the
    RST acknowledges does."""
    slow(source, routed, delay_ms)
    for _ in range(3):
        with pair(routed, "client", "server") as (client, accepted):
            for _ in range(3):
                client.send(b"x" * 10)
                accepted.sendall(accepted.recv(10))
                assert client.recv(10)
            accepted.send(b"y" * 10)
            linger_zero(accepted)
            accepted.close()
            expect_reset(client)
    for reset in collect(source, routed, 3, Kind.RECEIVED_ACCEPTED):
        assert reset.cause.name == "connection-reset"
        assert answers_our_data(reset)
        times = figures(reset, f"honest of its own accord, {delay_ms} ms")
        assert times["data"] >= delay_ms
        assert judge(reset).origin is Origin.PEER


@DELAYS
@pytest.mark.parametrize("forged_by", ["reject", "copier"])
def test_slow_path_forger_one_hop_away(
    forged_by: str, delay_ms: int, routed: Lab, source: LiveSource
) -> None:
    """The router answers in the server's name, and the data never gets to the server."""
    slow(source, routed, delay_ms)
    keyword = "@th,256,64 0x474554202f757365"  # "GET /use", behind a header with timestamps
    routed.nft(
        "router",
        forward(
            f"tcp dport 7000 {keyword} reject with tcp reset"
            if forged_by == "reject"
            else f"tcp dport 7000 {keyword} drop"
        ),
    )
    if forged_by == "copier":
        routed.spawn("router", [sys.executable, forger.__file__, "GET /use"], ready="forging")
    for _ in range(3):
        with pair(routed, "client", "server") as (client, accepted):
            for _ in range(3):
                client.send(b"x" * 10)
                accepted.sendall(accepted.recv(10))
                assert client.recv(10)
            client.send(b"GET /use")
            expect_reset(client)
    for reset in collect(source, routed, 3, Kind.RECEIVED_ACCEPTED):
        times = figures(reset, f"forged ({forged_by}), {delay_ms} ms")
        assert times["handshake"] >= delay_ms
        assert times["min_rtt"] >= delay_ms
        data = our_last_data(reset)
        assert data is not None
        assert data.payload_len == len(b"GET /use")
        verdict = judge(reset)
        assert verdict.origin is Origin.FORGED
        # One hop nearer than the server is not enough to accuse a REJECT: its time is.
        timing = [found for found in verdict.evidence if found.group == "timing"]
        if not timing:  # the copier is a program: an emulated one may take half a short round trip
            assert forged_by == "copier"
            assert times["data"] > times["min_rtt"] * 0.4
        else:
            assert timing[0].rule.startswith("too-soon")
            assert timing[0].weight > 0


@DELAYS
def test_reordering_path(delay_ms: int, routed: Lab, source: LiveSource) -> None:
    """Every third packet overtakes. A RST that does comes half a round trip early, out of order,
    and is at first only challenged: never an accusation."""
    slow(source, routed, delay_ms, reorder=True)
    sent = out_rsts(routed, "server")
    for segments in range(7):
        with pair(routed, "client", "server") as (client, accepted):
            client.send(b"x" * 10)
            assert accepted.recv(10)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(segments):
                accepted.send(b"y" * 10)
            linger_zero(accepted)
            accepted.close()
            expect_reset(client)
    found = collect(source, routed, out_rsts(routed, "server") - sent)
    assert sum(reset.kind is Kind.RECEIVED_ACCEPTED for reset in found) == 7
    for reset in found:
        if reset.socket is not None and reset.socket.min_rtt_us and reset.baseline.ours:
            what = f"reordered {reset.kind.value} {reset.rst.flags}, {delay_ms} ms"
            times = figures(reset, what)
            assert times.get("data", delay_ms) >= delay_ms / 2
            assert times["handshake"] >= delay_ms / 2
            assert times["min_rtt"] >= delay_ms / 2 - 1  # 1 ms: TCP's timestamps count so
        assert judge(reset).origin is not Origin.FORGED
