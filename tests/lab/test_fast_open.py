"""TCP Fast Open (RFC 7413): data in the SYN, and sockets open before the handshake is done."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    ADDRESSES,
    DEADLINE_S,
    REFUSED,
    RESET,
    SENT_LINGER,
    SENT_REFUSAL,
    Fence,
    Tracer,
    cause,
    expect_reset,
    linger_zero,
)


@pytest.fixture
def fast_open(routed: Lab) -> Lab:
    """The routed lab, whose client has a cookie of the server (RFC 7413)."""
    for role in ("client", "server"):
        try:
            routed.sysctl(role, net__ipv4__tcp_fastopen=3)
        except OSError as error:
            pytest.skip(f"this kernel has no TCP Fast Open: {error}")
    with fast_pair(routed, b"", keep=True) as (client, accepted):
        assert client.fileno() > 0
        assert accepted.fileno() > 0
    return routed


@contextlib.contextmanager
def fast_pair(
    lab: Lab, data: bytes, keep: bool = False
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection whose SYN carries `data` (or, without, asks for the cookie)."""
    with lab.inside("server"):
        listener = socket.socket()
    with lab.inside("client"):
        client = socket.socket()
    with listener, client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
        listener.bind((ADDRESSES["server"][0], 7300))
        listener.listen()
        listener.settimeout(DEADLINE_S)
        assert client.sendto(data or b"?", socket.MSG_FASTOPEN, (ADDRESSES["server"][0], 7300))
        client.settimeout(DEADLINE_S)
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(DEADLINE_S)
            if keep:
                assert accepted.recv(1) == b"?"
            yield client, accepted


def test_fast_open_refused(fast_open: Lab, tracer: Tracer, fence: Fence) -> None:
    """A SYN with data that nobody listens for: the answer acknowledges all of it."""
    fence.cross(tracer)
    tracer.forget()
    for _ in range(5):
        with (
            fast_open.inside("client"),
            socket.socket() as sock,
            pytest.raises(ConnectionRefusedError),
        ):
            sock.sendto(b"x" * 10, socket.MSG_FASTOPEN, (ADDRESSES["server"][0], 7999))
    received = tracer.collect(fast_open.inode("client"), 5)
    fence.cross(tracer)
    sent = tracer.of(fast_open.inode("server"))
    assert list(map(cause, sent)) == [SENT_REFUSAL] * 5
    assert list(map(cause, received)) == [REFUSED] * 5
    for entry in sent:
        trigger = entry["trigger"]
        assert (trigger["flags"], trigger["payload_len"]) == ("S", 10)
        assert entry["rst"]["ack"] == (trigger["seq"] + 11) & 0xFFFFFFFF


@pytest.mark.parametrize("how", ["unread", "linger"])
def test_fast_open_server_resets_unfinished_handshake(
    how: str, fast_open: Lab, tracer: Tracer, machines: Tracer, fence: Fence
) -> None:
    """The server's program has the data and closes before the handshake's last ACK has come."""
    fast_open.nft("server", drop_bare_acks())
    for each in (tracer, machines):
        fence.cross(each)
        each.forget()
    with fast_pair(fast_open, b"x" * 10) as (client, accepted):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x03", "SYN_RECV"
        if how == "linger":
            assert len(accepted.recv(10)) == 10
            linger_zero(accepted)
        accepted.close()
        expect_reset(client)
        (received,) = tracer.collect(fast_open.inode("client"), 1)
        (alone,) = machines.collect(fast_open.inode("client"), 1)
    fence.cross(tracer)
    (sent,) = tracer.of(fast_open.inode("server"))
    name = "linger" if how == "linger" else "unread-data"
    assert cause(sent) == ("sent-active", name, "local", "SYN_RECV")
    assert sent["process"]["pid"] == os.getpid()
    assert cause(received) == cause(alone) == RESET
    assert received["process"]["pid"] == os.getpid()


def test_fast_open_client_resets_unfinished_handshake(
    fast_open: Lab, tracer: Tracer, fence: Fence
) -> None:
    """A full socket in SYN_RECV that a program has accepted already is reset."""
    fast_open.nft("server", drop_bare_acks())
    fence.cross(tracer)
    tracer.forget()
    with fast_pair(fast_open, b"x" * 10) as (client, accepted):
        assert len(accepted.recv(10)) == 10
        linger_zero(client)
        client.close()
        expect_reset(accepted)
        (received,) = tracer.collect(fast_open.inode("server"), 1)
    fence.cross(tracer)
    assert cause(received) == ("received-accepted", "reset-handshake", "peer", "SYN_RECV")
    (sent,) = tracer.of(fast_open.inode("client"))
    assert cause(sent) == SENT_LINGER


def drop_bare_acks() -> str:
    """A ruleset that keeps handshakes from ending."""
    return (
        "table inet t {\nchain i {\ntype filter hook input priority 0\n"
        "tcp flags & (syn | ack | rst) == ack drop\n}\n}\n"
    )
