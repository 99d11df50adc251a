"""Why a connection was reset, by its history: real stacks, each end as a machine of its own."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import scapy.layers.inet as scapy_inet
import scapy.layers.inet6 as scapy_inet6

from rsttrace.demo.lab import Lab
from rsttrace.kernel import knowledge
from rsttrace.model import Kind
from tests.lab.harness import (
    DEADLINE_S,
    FAMILIES,
    Fence,
    Json,
    Tracer,
    expect_reset,
    knows,
    linger_zero,
    out_rsts,
    pair,
    poll_until,
    send_ip,
    server_address,
)
from tests.lab.test_causes import TCP_USER_TIMEOUT, in_time_wait
from tests.lab.test_kinds import CLIENT, SERVER, V4, chain, sequence, tcp_state

TCP = scapy_inet.TCP
PORT = 7000
KEEP_ALIVE_S = 1.2
"""The server's timeout: a connection that is silent for so long is closed."""

TCP_REPAIR = 19
"""tcp(7), include/uapi/linux/tcp.h: a socket in repair mode is closed without a word."""


@pytest.fixture(scope="module")
def crossing() -> Iterator[Fence]:
    """Marks a place in the output of `machines`."""
    with Lab("rstwhy") as lab:
        yield Fence(lab)


def settled(tracer: Tracer, fence: Fence) -> None:
    """Wait until all is shown, amendments too: they come behind what is due at the same time."""
    fence.cross(tracer)
    fence.cross(tracer)


def afresh(tracer: Tracer, fence: Fence) -> None:
    """Forget all that was before."""
    settled(tracer, fence)
    tracer.forget()


def said(tracer: Tracer, lab: Lab, role: str, kind: str) -> list[Json]:
    """The last entry on each reset of a kind in a namespace."""
    return [entry for entry in tracer.of(lab.inode(role)) if entry["kind"] == kind]


@contextmanager
def keep_alive_server(lab: Lab, family: int) -> Iterator[None]:
    """Answers requests, and closes connections that were silent for KEEP_ALIVE_S."""

    def serve(accepted: socket.socket) -> None:
        with accepted, contextlib.suppress(socket.timeout):
            accepted.settimeout(KEEP_ALIVE_S)
            while accepted.recv(4096):
                accepted.sendall(b"answer")

    with lab.inside(SERVER):
        listener = socket.create_server((server_address(SERVER, family), PORT), family=family)
    threads = []

    def accept() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:  # closed
                return
            threads.append(threading.Thread(target=serve, args=(accepted,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for thread in threads:
            thread.join()


def use_after_its_close(lab: Lab, family: int) -> None:
    """A request, silence, and another one just after the server has closed (CLOSE_WAIT)."""
    with lab.inside(CLIENT), socket.socket(family) as client:
        client.settimeout(DEADLINE_S)
        client.connect((server_address(SERVER, family), PORT))
        client.sendall(b"request")
        assert client.recv(64) == b"answer"
        poll_until(lambda: tcp_state(client) == 8, "the server's FIN")
        client.sendall(b"request")
        poll_until(lambda: tcp_state(client) == 7, "the reset")


MOST_USED = 8


def races(tracer: Tracer, lab: Lab) -> bool:
    """Whether the last resets of both ends are known as such."""
    ends = ((CLIENT, "received-accepted"), (SERVER, "sent-passive"))
    return all("keepalive-race" in said(tracer, lab, *end)[-1]["findings"] for end in ends)


@FAMILIES
def test_a_keepalive_race(family: int, routed: Lab, machines: Tracer, crossing: Fence) -> None:
    """Two connections of a pool that keeps them longer than the server does.

    Or more of them, on a machine so slow that its server closes now earlier, now later.
    """
    afresh(machines, crossing)
    used = 0
    with keep_alive_server(routed, family):
        while used < 2 or (used < MOST_USED and not races(machines, routed)):
            use_after_its_close(routed, family)
            used += 1
            settled(machines, crossing)
    received = said(machines, routed, CLIENT, "received-accepted")
    sent = said(machines, routed, SERVER, "sent-passive")
    assert len(received) == len(sent) == used
    for entry in received:
        assert entry["origin"] == "peer"
        assert "the peer had closed (FIN " in entry["summary"]
        assert "idle); our data came too late" in entry["summary"]
        assert entry["advice"] is not None
        assert "keep-alive" in entry["advice"]
    for entry in sent:
        assert entry["cause"]["name"] == "data-after-close"
    for entry, by in ((received[-1], "peer"), (sent[-1], "local")):
        cause = entry["cause"]
        assert cause["closed_by"] == by
        assert cause["closed_ms"] > 0
        assert KEEP_ALIVE_S <= cause["idle_s"] < KEEP_ALIVE_S + DEADLINE_S
        assert "keepalive-race" in entry["findings"]
        found = next(item for item in entry["evidence"] if item["rule"] == "keepalive-race")
        assert 2 <= found["values"]["times"] <= used
        assert found["values"]["uses_s"][0] >= found["values"]["closes_s"][0] >= KEEP_ALIVE_S


@FAMILIES
def test_a_connection_that_was_given_up(
    family: int, routed: Lab, machines: Tracer, crossing: Fence
) -> None:
    """Nothing of the client arrives, until its stack gives up (without a RST); then the server
    speaks."""
    afresh(machines, crossing)
    for gateway in ("10.71.1.254", "fd71:1::fe"):
        routed.ip(CLIENT, f"route change default via {gateway} rto_min 50ms")
    with pair(routed, CLIENT, SERVER, family=family) as (client, accepted):
        client.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 1500)
        chain(routed, SERVER, "input", f"tcp dport {PORT} tcp flags & rst == 0 drop")
        client.sendall(b"lost")
        poll_until(lambda: tcp_state(client) == 7, "the timeout")
        accepted.sendall(b"hello?")
        expect_reset(accepted)
        routed.nft(SERVER, "flush ruleset")
    settled(machines, crossing)
    (sent,) = said(machines, routed, CLIENT, "sent-passive")
    assert sent["cause"]["name"] == "gave-up"
    assert "was never acknowledged" in sent["summary"]


PROXY = """
import socket, sys
here, there = [(ip, int(port)) for ip, port in (end.rsplit(" ", 1) for end in sys.argv[1:])]
family = socket.AF_INET6 if ":" in here[0] else socket.AF_INET
listener = socket.create_server(here, family=family)
print("listening", flush=True)
while True:
    accepted, _ = listener.accept()
    accepted.recv(1, socket.MSG_PEEK)
    with socket.socket(family) as behind:
        behind.connect_ex(there)
        accepted.close()
"""


@FAMILIES
def test_a_proxy_whose_service_is_down(
    family: int, routed: Lab, machines: Tracer, crossing: Fence
) -> None:
    """It cannot do what it was asked for, and closes: the data it has not read make that a RST."""
    afresh(machines, crossing)
    gateway = "10.71.1.254" if family == V4 else "fd71:1::fe"
    ends = f"{gateway} {PORT}", f"{server_address(SERVER, family)} 7999"
    routed.spawn("router", [sys.executable, "-c", PROXY, *ends], ready="listening")
    with routed.inside(CLIENT), socket.socket(family) as client:
        client.settimeout(DEADLINE_S)
        client.connect((gateway, PORT))
        client.sendall(b"request")
        expect_reset(client)
    settled(machines, crossing)
    (sent,) = said(machines, routed, "router", "sent-active")
    assert sent["cause"]["name"] in ("unread-data", "linger")
    assert sent["findings"] == ["upstream-failed"]
    (found,) = [item for item in sent["evidence"] if item["rule"] == "upstream-failed"]
    assert found["values"]["refused"] is True
    assert server_address(SERVER, family) in found["values"]["remote"]
    assert "that other connection" in sent["advice"]


@FAMILIES
def test_data_after_our_own_reset(
    family: int, routed: Lab, machines: Tracer, crossing: Fence
) -> None:
    """What was on its way when the server reset: its stack answers that, too."""
    afresh(machines, crossing)
    with pair(routed, CLIENT, SERVER, family=family) as (client, accepted):
        ends = client.getsockname()[1]
        snd_nxt, rcv_nxt = sequence(routed, CLIENT, client)
        linger_zero(accepted)
        accepted.close()
        expect_reset(client)
    layer = scapy_inet.IP if family == V4 else scapy_inet6.IPv6
    source, target = server_address(CLIENT, family), server_address(SERVER, family)
    data = TCP(sport=ends, dport=PORT, flags="PA", seq=snd_nxt, ack=rcv_nxt) / b"data"
    send_ip(routed, CLIENT, layer(src=source, dst=target) / data)
    settled(machines, crossing)
    (answer,) = said(machines, routed, SERVER, "sent-passive")
    assert answer["cause"]["name"] == "after-reset"
    assert "data for a connection that this end had reset" in answer["summary"]


@FAMILIES
def test_ports_used_again_while_the_connection_lives(
    family: int, routed: Lab, machines: Tracer, crossing: Fence
) -> None:
    """A client that crashed, and takes the port again: challenge ACK, and the RST that follows."""
    afresh(machines, crossing)
    with pair(routed, CLIENT, SERVER, family=family) as (client, accepted):
        accepted.sendall(b"hello")
        assert client.recv(5) == b"hello"
        ends = client.getsockname()
        with routed.inside(CLIENT):
            client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            client.close()
            again = socket.socket(family)
        with again:
            again.settimeout(DEADLINE_S)
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(ends)
            again.connect((server_address(SERVER, family), PORT))
            expect_reset(accepted)
    settled(machines, crossing)
    (killed,) = said(machines, routed, SERVER, "received-accepted")
    assert killed["origin"] == "peer"
    assert "port-reuse" in killed["findings"]
    assert "these ports were used again: a new SYN came" in killed["summary"]
    (sent,) = said(machines, routed, CLIENT, "sent-passive")
    assert sent["socket"]["state"] == "SYN_SENT"
    assert sent["cause"]["name"] == "ports-reused"
    assert sent["findings"] == ["port-reuse"]


@FAMILIES
@pytest.mark.parametrize("kept", [False, True], ids=["ended", "kept"])
def test_ports_used_again_in_time_wait(
    kept: bool, family: int, routed: Lab, machines: Tracer, crossing: Fence
) -> None:
    """A SYN whose number is older than what was received: TIME_WAIT answers it with an ACK.

    Without timestamps, as after a connection that sent faster than numbers are given out (or of
    another host behind the same address); its own firewall makes the number older here.
    """
    afresh(machines, crossing)
    routed.sysctl(CLIENT, net__ipv4__tcp_timestamps=0)
    routed.sysctl(SERVER, net__ipv4__tcp_rfc1337=int(kept))
    with pair(routed, CLIENT, SERVER, family=family) as (client, accepted):
        ends = client.getsockname(), accepted.getsockname()
        number, _ = sequence(routed, CLIENT, client)
        accepted.close()
        assert client.recv(1) == b""
    mine = f"sport = :{PORT} and dport = :{ends[0][1]}"
    poll_until(lambda: in_time_wait(routed, SERVER, mine), "TIME_WAIT")
    older = (number - 100_000) & 0xFFFFFFFF
    chain(routed, CLIENT, "output", f"tcp flags & (syn | ack) == syn tcp sequence set {older}")
    with routed.inside(SERVER):
        listener = socket.create_server(ends[1][:2], family=family)
    with routed.inside(CLIENT):
        again = socket.socket(family)
    with listener, again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(ends[0])
        again.setblocking(False)
        before = out_rsts(routed, CLIENT)
        again.connect_ex(ends[1])
        poll_until(lambda: out_rsts(routed, CLIENT) > before, "the reset")
        routed.nft(CLIENT, "flush ruleset")
        poll_until(lambda: tcp_state(again) == 1, "the connection, at its next SYN")
    settled(machines, crossing)
    sent = said(machines, routed, CLIENT, "sent-passive")[0]
    assert sent["socket"]["state"] == "SYN_SENT"
    assert sent["cause"]["name"] == "ports-reused"
    assert sent["findings"] == ["port-reuse"]
    assert "ip_local_port_range" in sent["advice"]
    told = (
        knowledge.Told(Kind.RECEIVED_REJECTED, "time-wait", None)
        if kept
        else knowledge.Told(Kind.RECEIVED_ACCEPTED, "time-wait-ended", None)
    )
    left = knowledge.left(told, machines.plan, knows())
    assert left is not None
    got = said(machines, routed, SERVER, left.kind.value)[0]
    assert got["origin"] == "peer"
    assert got["cause"]["name"] == left.cause
    if left != told:
        return  # nothing that this kernel tells says that it was TIME_WAIT
    assert "these ports were used again: a new SYN came" in got["summary"]
    assert got["findings"] == ["port-reuse"]


@FAMILIES
def test_a_new_syn_from_farther_away(
    family: int, routed: Lab, machines: Tracer, crossing: Fence
) -> None:
    """Another host behind the same NAT takes the ports, 4 hops farther away."""
    afresh(machines, crossing)
    layer = scapy_inet.IP if family == V4 else scapy_inet6.IPv6
    hops = "ttl" if family == V4 else "hlim"
    source, target = server_address(CLIENT, family), server_address(SERVER, family)
    with pair(routed, CLIENT, SERVER, family=family) as (client, accepted):
        for _ in range(8):
            client.sendall(b"ping")
            assert accepted.recv(4) == b"ping"
            accepted.sendall(b"pong")
            assert client.recv(4) == b"pong"
        port = client.getsockname()[1]
        snd_nxt, _ = sequence(routed, CLIENT, client)
        for flags, seq in (("S", snd_nxt - 70_000_000), ("R", snd_nxt)):
            rest = {"id": 0, "flags": "DF"} if family == V4 else {}
            fields = {hops: 60, **rest}
            tcp = TCP(
                sport=port, dport=PORT, flags=flags, seq=seq & 0xFFFFFFFF, window=0, options=[]
            )
            if flags == "S":
                tcp.window, tcp.options = 64240, [("MSS", 1460), ("SAckOK", b""), ("WScale", 7)]
            send_ip(routed, CLIENT, layer(src=source, dst=target, **fields) / tcp)
        expect_reset(accepted)
    settled(machines, crossing)
    (killed,) = said(machines, routed, SERVER, "received-accepted")
    assert killed["origin"] != "forged"
    assert "port-reuse" in killed["findings"]
    assert "from 4 hops farther" in killed["summary"]
