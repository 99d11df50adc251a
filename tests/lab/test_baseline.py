"""What the kernel side learns of a peer, and what it does not, from real packets."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest
import scapy.layers.inet as scapy_inet

from rsttrace.demo.lab import Lab
from rsttrace.kernel.protocol import Request
from rsttrace.kernel.source import LiveSource
from rsttrace.model import Kind, LatePacket, Reset, Scope
from tests.lab.harness import (
    ADDRESSES,
    DEADLINE_S,
    PLAN,
    expect_reset,
    linger_zero,
    mac_of,
    pair,
    send_ip,
)

IP, TCP = scapy_inet.IP, scapy_inet.TCP
CLIENT, SERVER = ADDRESSES["client"][0], ADDRESSES["server"][0]


@pytest.fixture(scope="module")
def source() -> Iterator[LiveSource]:
    """Resets and late packets as they come."""
    with LiveSource(Request(tuple(kind.value for kind in Kind), plan=PLAN)) as live:
        yield live


def wait_for(
    source: LiveSource, wanted: Callable[[Reset | LatePacket], bool], what: str
) -> list[Reset | LatePacket]:
    """What came, up to the first that is wanted."""
    found: list[Reset | LatePacket] = []
    ends = time.monotonic() + DEADLINE_S
    while True:
        assert time.monotonic() < ends, f"no {what}: {found}"
        for item in source.wait(0.1):
            found.append(item)
            if wanted(item):
                return found


def received(source: LiveSource, lab: Lab, port: int) -> Reset:
    """The next reset that the client receives from the server's port."""
    netns = lab.inode("client")

    def wanted(item: Reset | LatePacket) -> bool:
        return (
            isinstance(item, Reset)
            and (item.netns, item.remote.port) == (netns, port)
            and item.kind.direction == "received"
        )

    reset = wait_for(source, wanted, "reset")[-1]
    assert isinstance(reset, Reset)
    return reset


def test_injected_packets_teach_nothing(routed: Lab, source: LiveSource) -> None:
    with pair(routed, "client", "server") as (client, accepted):
        accepted.sendall(b"hello")
        assert client.recv(5) == b"hello"
        ports = {"sport": 7000, "dport": client.getsockname()[1]}
        ip = IP(src=SERVER, dst=CLIENT, ttl=33, id=7)
        for packet in (
            ip / TCP(flags="PA", seq=1, ack=1, **ports) / b"evil",
            ip / TCP(flags="FA", seq=2, ack=2, **ports),
            ip / TCP(flags="S", seq=3, window=1024, options=[("MSS", 1400)], **ports),
        ):
            send_ip(routed, "router", packet)
        accepted.sendall(b"world")
        assert client.recv(5) == b"world"
        linger_zero(accepted)
        accepted.close()
        expect_reset(client)
    baseline = received(source, routed, 7000).baseline
    theirs, ours, peer = baseline.theirs, baseline.ours, baseline.peer
    assert baseline.scope is Scope.FLOW
    assert theirs is not None
    assert (theirs.ttl, theirs.ttl_min, theirs.ttl_max, theirs.fin_ns) == (63, 63, 63, None)
    assert (theirs.strange, theirs.confirmed, theirs.syns) == (3, True, 1)
    assert sorted((row.ttl, row.strange) for row in theirs.ttls) == [(33, 3), (63, 0)]
    assert theirs.new_syn is not None
    assert (theirs.new_syn.seq, theirs.new_syn.ttl) == (3, 33)
    assert theirs.new_syn.options == "mss 1400"
    assert all(seen.tsval for seen in theirs.recent)
    (first, _), (newest, _) = theirs.clock
    assert newest >= first
    assert ours is not None
    assert (ours.strange, ours.confirmed, ours.syns) == (0, True, 1)
    assert peer is not None
    assert (peer.syn_ttl, peer.ttls[0], peer.df) == (63, 63, True)
    assert peer.mac == mac_of(routed, "router", "cl0")
    assert peer.syn_options is not None
    assert peer.syn_options.startswith("mss 1460,sackOK,TS val ")


def test_a_packet_of_the_loopback_is_learned_once(routed: Lab, source: LiveSource) -> None:
    """It leaves by the device that it then comes in by."""
    with routed.inside("client"):
        listener = socket.create_server(("127.0.0.1", 7011))
        client = socket.create_connection(("127.0.0.1", 7011))
    accepted, _ = listener.accept()
    with listener, client:
        for _ in range(20):
            client.sendall(b"?")
            assert accepted.recv(1) == b"?"
            accepted.sendall(b"!")
            assert client.recv(1) == b"!"
        linger_zero(accepted)
        accepted.close()
        expect_reset(client)
    baseline = received(source, routed, 7011).baseline
    for half in (baseline.theirs, baseline.ours):
        assert half is not None
        assert 20 < half.packets < 30  # the handshake's, the data, perhaps an ACK or two


@pytest.mark.parametrize(
    ("text", "kept"),
    [(b"", None), (b"blocked", b"blocked"), (b"0123456789" * 9, b"0123456789" * 4)],
)
def test_a_rsts_own_payload_is_kept(
    text: bytes, kept: bytes | None, routed: Lab, source: LiveSource
) -> None:
    """As far as it lies in the event's bytes of the TCP header."""
    port = 5 + len(text)
    rst = IP(src=SERVER, dst=CLIENT) / TCP(flags="R", sport=port, dport=5, seq=1) / text
    send_ip(routed, "router", rst)
    reset = received(source, routed, port)
    assert (reset.payload, reset.rst.payload_len) == (kept, len(text))


def test_a_later_handshake_of_a_reset_peer_is_told(routed: Lab, source: LiveSource) -> None:
    with routed.inside("client"), socket.socket() as refused:
        assert refused.connect_ex((SERVER, 9)) != 0
    reset = received(source, routed, 9)

    def wanted(item: Reset | LatePacket) -> bool:
        return isinstance(item, LatePacket) and item.netns_identity == reset.netns_identity

    with pair(routed, "client", "server") as (client, _):
        port = client.getsockname()[1]
        late = wait_for(source, wanted, "handshake")[-1]
    assert isinstance(late, LatePacket)
    packet = late.packet
    assert late.handshake
    assert (packet.src.ip, packet.src.port, packet.dst.port) == (SERVER, 7000, port)
    assert (packet.flags, packet.ttl, late.mac) == ("SA", 63, mac_of(routed, "router", "cl0"))
    assert packet.options.startswith("mss 1460,sackOK,TS val ")
    assert (packet.length, packet.ip_id, packet.df) == (60, 0, True)
    assert late.time_ns > reset.time_ns
