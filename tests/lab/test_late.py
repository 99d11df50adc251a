"""What comes after a RST, and RSTs that are not alone: real sockets, a forger on the router."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import scapy.layers.inet as scapy_inet
import scapy.layers.inet6 as scapy_inet6

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    DEADLINE_S,
    ETH_P_IP,
    ETH_P_IPV6,
    Fence,
    Json,
    Tracer,
    expect_reset,
    linger_zero,
    mac_of,
    pair,
    poll_until,
    send_ip,
    server_address,
)

FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21  # tcp(7), include/uapi/linux/tcp.h
RECV_QUEUE = 1


@pytest.fixture(scope="module")
def mark() -> Iterator[Fence]:
    """Marks a place in any tracer's output."""
    with Lab("rstmark") as lab:
        yield Fence(lab)


@contextmanager
def running(*options: str) -> Iterator[Tracer]:
    # Without what only the node knows: it would prove at once who the forger is.
    tracer = Tracer("--viewpoint", "netns", *options)
    try:
        yield tracer
    finally:
        tracer.stop()


@pytest.fixture(scope="module")
def hasty() -> Iterator[Tracer]:
    """Shows every reset at once."""
    with running("--hold", "0") as tracer:
        yield tracer


@pytest.fixture(scope="module")
def patient() -> Iterator[Tracer]:
    """Waits for late evidence."""
    with running("--hold", "2") as tracer:
        yield tracer


def settle(tracer: Tracer, mark: Fence) -> None:
    """Wait until all is shown, amendments too: they come behind what is due at the same time."""
    mark.cross(tracer)
    mark.cross(tracer)


def next_expected(lab: Lab, role: str, sock: socket.socket) -> int:
    """rcv_nxt, as a box that sees both directions knows it (TCP_REPAIR)."""
    with lab.inside(role):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, RECV_QUEUE)
        number = sock.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xFFFFFFFF
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, -1)
    return number


def ip(family: int, source: str, target: str, ttl: int, ip_id: int = 0, df: bool = True) -> Any:
    """An IP header of scapy's; the last two for IPv4 only."""
    if family == socket.AF_INET6:
        return scapy_inet6.IPv6(src=source, dst=target, hlim=ttl)
    return scapy_inet.IP(src=source, dst=target, ttl=ttl, id=ip_id, flags="DF" if df else 0)


def resets(
    client: socket.socket, *numbers: int, ttl: int = 63, ip_id: int = 0, df: bool = True
) -> list[Any]:
    """RSTs to a client in its server's name, with these sequence numbers and IP IDs that differ.

    As given, each is what a Linux server without the socket would send, from where the server is.
    """
    (server, port, *_), (own, own_port, *_) = client.getpeername(), client.getsockname()
    return [
        ip(client.family, server, own, ttl, ip_id * (index + 1) & 0xFFFF, df)
        / scapy_inet.TCP(sport=port, dport=own_port, flags="R", seq=number & 0xFFFFFFFF, window=0)
        for index, number in enumerate(numbers)
    ]


def forge(lab: Lab, client: socket.socket, seq: int) -> None:
    """The router resets the client in the server's name, and nothing in the packet betrays it."""
    send_ip(lab, "router", resets(client, seq)[0])


def received(tracer: Tracer, netns: int) -> list[Json]:
    """The entries on resets that a namespace received, so far."""
    return [e for e in tracer.told(netns) if e["direction"] == "received"]


def wait_received(tracer: Tracer, netns: int, count: int) -> list[Json]:
    """Wait for so many of them."""
    tracer.wait_for(lambda: len(received(tracer, netns)) >= count, f"{count} resets of {netns}")
    return received(tracer, netns)


def rules_of(entry: Json) -> dict[str, float]:
    return {item["rule"]: item["weight"] for item in entry["evidence"]}


@contextmanager
def unresolved(lab: Lab) -> Iterator[None]:
    """The server does not know the router's MAC: what it sends waits until this block ends."""
    lab.nft(
        "router",
        "table arp hold {\nchain i { type filter hook input priority 0\n"
        "arp operation request drop\n}\n}\n"
        "table ip6 hold {\nchain i { type filter hook input priority 0\n"
        "icmpv6 type nd-neighbor-solicit drop\n}\n}\n",
    )
    lab.ip("server", "neigh flush dev eth0")
    try:
        yield
    finally:
        mac = mac_of(lab, "router", "sv0")
        for gateway in ("10.71.2.254", "fd71:2::fe"):
            lab.ip("server", f"neigh replace {gateway} lladdr {mac} dev eth0")


@contextmanager
def asked(
    lab: Lab, tracer: Tracer, mark: Fence, family: int
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """(client, server) of a connection that has carried a request; told before: forgotten."""
    settle(tracer, mark)
    tracer.forget()
    with pair(lab, "client", "server", family=family) as (client, accepted):
        client.send(b"request")
        assert accepted.recv(100) == b"request"
        yield client, accepted


# ---- the peer goes on ----


@FAMILIES
def test_the_peer_goes_on_and_the_verdict_is_amended(
    routed: Lab, hasty: Tracer, mark: Fence, family: int
) -> None:
    """Nothing in the forged packet betrays it; the server's answer to the same request does."""
    netns = routed.inode("client")
    with asked(routed, hasty, mark, family) as (client, accepted):
        forge(routed, client, next_expected(routed, "client", client))
        expect_reset(client)
        first = wait_received(hasty, netns, 1)[0]
        accepted.send(b"response")
        amended = wait_received(hasty, netns, 2)[1]
        expect_reset(accepted)  # the client's stack knows no such connection any more
        secondary = wait_received(hasty, routed.inode("server"), 1)[0]
        settle(hasty, mark)
    assert (first["kind"], first["amends"]) == ("received-accepted", None)
    assert first["origin"] in ("peer", "inconclusive")
    assert (amended["origin"], amended["amends"]) == ("forged", first["id"])
    assert amended["id"] > first["id"]
    assert rules_of(amended)["went-on"] > 0
    assert amended["rst"] == first["rst"]
    # A moment ago the client was alive: why its host has no such socket, the server cannot know.
    assert secondary["origin"] in ("peer", "inconclusive")
    assert len(received(hasty, netns)) == 2  # one amendment, not one for each packet


@FAMILIES
def test_held_it_is_one_entry(routed: Lab, patient: Tracer, mark: Fence, family: int) -> None:
    netns = routed.inode("client")
    with asked(routed, patient, mark, family) as (client, accepted):
        forge(routed, client, next_expected(routed, "client", client))
        expect_reset(client)
        accepted.send(b"response")
        expect_reset(accepted)
        settle(patient, mark)
    entries = received(patient, netns)
    assert [(e["origin"], e["amends"]) for e in entries] == [("forged", None)]
    assert "went-on" in rules_of(entries[0])


@FAMILIES
def test_a_filter_shows_what_becomes_forged_as_a_first_entry(
    routed: Lab, mark: Fence, family: int
) -> None:
    with (
        running("--hold", "0", "--origin", "forged", "--origin", "local") as tracer,
        pair(routed, "client", "server", family=family) as (client, accepted),
    ):
        client.send(b"request")
        assert accepted.recv(100) == b"request"
        netns = routed.inode("client")
        forge(routed, client, next_expected(routed, "client", client))
        expect_reset(client)
        # A reset that is sent, and shown, after the hidden one was judged.
        with routed.inside("server"), socket.socket() as refused:
            assert refused.connect_ex(("127.0.0.1", 9)) != 0
        tracer.collect(routed.inode("server"), 1)
        assert tracer.of(netns) == []
        accepted.send(b"response")
        tracer.wait_for(
            lambda: any(e["origin"] == "forged" for e in tracer.of(netns)), "the forged reset"
        )
        found = next(e for e in tracer.of(netns) if e["origin"] == "forged")
    assert found["amends"] is None
    assert found["rst"]["flags"] == "R"


@FAMILIES
def test_a_syn_that_was_refused_and_accepted(
    routed: Lab, hasty: Tracer, mark: Fence, family: int
) -> None:
    """A forged refusal is faster than the server's SYN-ACK."""
    settle(hasty, mark)
    hasty.forget()
    netns, address = routed.inode("client"), server_address("server", family)
    protocol = ETH_P_IP if family == socket.AF_INET else ETH_P_IPV6
    with routed.inside("server"):
        listener = socket.create_server((address, 7000), family=family)
    with routed.inside("router"):
        watch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(protocol))
        watch.bind(("cl0", protocol))
        watch.settimeout(DEADLINE_S)
    with routed.inside("client"):
        client = socket.socket(family)
    with listener, watch, client:
        client.setblocking(False)
        with unresolved(routed):
            client.connect_ex((address, 7000))
            syn = None
            while syn is None:
                data = watch.recv(2000)
                packet = scapy_inet.IP(data) if protocol == ETH_P_IP else scapy_inet6.IPv6(data)
                if scapy_inet.TCP in packet and packet[scapy_inet.TCP].flags == "S":
                    syn = packet
            sent = syn[scapy_inet.TCP]
            header = ip(family, syn.dst, syn.src, 63)
            refusal = scapy_inet.TCP(
                sport=sent.dport, dport=sent.sport, flags="RA", seq=0, ack=sent.seq + 1, window=0
            )
            send_ip(routed, "router", header / refusal)
            first = wait_received(hasty, netns, 1)[0]
            poll_until(
                lambda: client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0, "the refusal"
            )
        hasty.wait_for(
            lambda: any(e["amends"] == first["id"] for e in hasty.told(netns)), "the amendment"
        )
        amended = next(e for e in hasty.told(netns) if e["amends"] == first["id"])
        settle(hasty, mark)
    assert first["origin"] in ("peer", "inconclusive")
    assert "connection-refused" in first["findings"]
    assert amended["origin"] == "forged"
    assert rules_of(amended)["accepted"] > 0
    honest = received(hasty, routed.inode("server"))
    assert "forged" not in {e["origin"] for e in honest}  # the client's answer to the SYN-ACK


# ---- several ----


@FAMILIES
def test_three_resets_as_tcpkill_sends_them(
    routed: Lab, patient: Tracer, mark: Fence, family: int
) -> None:
    """At our ack number and one and two windows beyond; from a box of its own initial TTL."""
    netns = routed.inode("client")
    with asked(routed, patient, mark, family) as (client, _):
        seq = next_expected(routed, "client", client)
        numbers = (seq, seq + 501, seq + 2 * 501)
        for packet in resets(client, *numbers, ttl=64, ip_id=31011, df=False):
            send_ip(routed, "router", packet)
        expect_reset(client)
        settle(patient, mark)
        got = received(patient, netns)
    assert len(got) == 3
    assert [e["amends"] for e in got] == [None] * 3
    by_step = {(e["rst"]["seq"] - seq) % 2**32 // 501: e for e in got}
    for step in (0, 1, 2):  # the first answers our ack, but is made like the others
        assert rules_of(by_step[step])["moves-on"] > 0
        assert by_step[step]["origin"] == "forged"


@FAMILIES
def test_closed_with_data_unread_while_more_comes(
    routed: Lab, patient: Tracer, mark: Fence, family: int
) -> None:
    """Two honest resets: the socket's own, and the answer to data that came after it."""
    settle(patient, mark)
    patient.forget()
    netns = routed.inode("client")
    with pair(routed, "client", "server", family=family) as (client, accepted):
        for _ in range(3):
            client.send(b"request")
            assert accepted.recv(100) == b"request"
            accepted.send(b"response")
            assert client.recv(100) == b"response"
        client.send(b"never read")
        poll_until(lambda: accepted.recv(100, socket.MSG_PEEK) == b"never read", "the data")
        with unresolved(routed):
            accepted.send(b"on its way")  # in flight when the socket goes
            accepted.close()
            client.send(b"more")
            client.send(b"and more")
        expect_reset(client)
        wait_received(patient, netns, 2)
        settle(patient, mark)
    got = received(patient, netns)
    assert {e["rst"]["flags"] for e in got} == {"R", "RA"}
    assert {e["origin"] for e in got} == {"peer"}
    assert not [e for e in got if {"moves-on", "live-twice", "went-on"} & rules_of(e).keys()]


@FAMILIES
def test_a_half_open_connection_is_reset_and_begins_anew(
    routed: Lab, hasty: Tracer, mark: Fence, family: int
) -> None:
    """The client forgot the connection and opens it again from the same port: RST, SYN, data."""
    settle(hasty, mark)
    hasty.forget()
    address = server_address("server", family)
    with routed.inside("server"):
        listener = socket.create_server((address, 7000), family=family)
    with listener:
        with routed.inside("client"):
            old = socket.create_connection((address, 7000), DEADLINE_S)
        stale, _ = listener.accept()
        port = old.getsockname()[1]
        old.send(b"old")
        assert stale.recv(100) == b"old"
        with routed.inside("client"):
            old.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            old.close()  # in silence
            new = socket.socket(family)
            new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            new.settimeout(DEADLINE_S)
            new.bind(("", port))
            new.connect((address, 7000))
        stale.settimeout(DEADLINE_S)
        listener.settimeout(DEADLINE_S)
        fresh, _ = listener.accept()
        with new, fresh, stale:
            expect_reset(stale)
            for _ in range(5):
                new.send(b"new")
                assert fresh.recv(100) == b"new"
            settle(hasty, mark)
    got = received(hasty, routed.inode("server"))
    assert [e["kind"] for e in got] == ["received-accepted"]
    assert got[0]["origin"] in ("peer", "inconclusive")
    assert not {"went-on", "went-on-perhaps"} & rules_of(got[0]).keys()


# ---- health checks ----


@FAMILIES
def test_a_health_check_has_its_period(routed: Lab, hasty: Tracer, family: int) -> None:
    hasty.forget()
    address, netns = server_address("server", family), routed.inode("server")
    with routed.inside("server"):
        listener = socket.create_server((address, 7000), family=family, backlog=64)

    def checks() -> list[Json]:
        return [
            item
            for e in received(hasty, netns)
            for item in e["evidence"]
            if item["rule"] == "health-check"
        ]

    interval_s, begun, metronome = 0.5, time.monotonic(), threading.Event()
    with listener:
        for number in range(1, 41):
            with routed.inside("client"), socket.create_connection((address, 7000)) as client:
                linger_zero(client)
            hasty.wait_for(lambda: len(checks()) >= number, f"check {number}")  # noqa: B023
            if checks()[-1]["values"]["period_s"] is not None:
                break
            metronome.wait(max(0.0, begun + number * interval_s - time.monotonic()))
    found = checks()
    assert [item["values"]["period_s"] for item in found[:2]] == [None, None]
    assert found[-1]["values"]["period_s"] is not None
    assert "every" in found[-1]["text"]
    assert all(e["origin"] == "peer" for e in received(hasty, netns))
