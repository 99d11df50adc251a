"""MPTCP (RFC 8684): its ways to end a connection, and peers that do not speak it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest
import scapy.layers.inet as scapy_inet

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    ADDRESSES,
    DEADLINE_S,
    FAMILIES,
    PASSED,
    RESET,
    SENT_LINGER,
    V4,
    Fence,
    Tracer,
    cause,
    expect_reset,
    linger_zero,
    send_ip,
    server_address,
    wire,
)

IPPROTO_MPTCP = 262  # include/uapi/linux/in.h; Python names it from 3.10 on


@contextlib.contextmanager
def mptcp_pair(
    lab: Lab, family: int, protocol: int = IPPROTO_MPTCP
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection whose listener speaks MPTCP, and whose client speaks `protocol`."""
    try:
        with lab.inside("server"):
            listener = socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP)
    except OSError as error:
        pytest.skip(f"this kernel has no MPTCP: {error.strerror}")
    with lab.inside("client"):
        client = socket.socket(family, socket.SOCK_STREAM, protocol)
    with listener, client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((server_address("server", family), 7200))
        listener.listen()
        listener.settimeout(DEADLINE_S)
        client.settimeout(DEADLINE_S)
        client.connect((server_address("server", family), 7200))
        accepted, _ = listener.accept()
        accepted.settimeout(DEADLINE_S)
        with accepted:
            yield client, accepted


@FAMILIES
@pytest.mark.parametrize("how", ["linger", "unread"])
@pytest.mark.parametrize("end", ["client", "server"])
def test_mptcp_close(
    end: str,
    how: str,
    family: int,
    routed: Lab,
    tracer: Tracer,
    machines: Tracer,
    fence: Fence,
) -> None:
    """MPTCP resets its subflow with MP_FASTCLOSE from inside close(): by its own process, which is
    nobody who killed somebody else's socket."""
    with mptcp_pair(routed, family) as (client, accepted):
        client.send(b"x" * 10)
        accepted.send(b"y" * 10)
        for sock in (client, accepted):
            assert len(sock.recv(5 if how == "unread" else 10)) >= 5
        for each in (tracer, machines):
            fence.cross(each)
            each.forget()
        closing, other = (client, accepted) if end == "client" else (accepted, client)
        if how == "linger":
            linger_zero(closing)
        closing.close()
        expect_reset(other)
        receiver = routed.inode("server" if end == "client" else "client")
        (received,) = tracer.collect(receiver, 1)
        (alone,) = machines.collect(receiver, 1)
    fence.cross(tracer)
    (sent,) = tracer.of(routed.inode(end))
    if "mptcp 7" not in sent["rst"]["options"]:
        pytest.skip("this kernel's MPTCP does not close with MP_FASTCLOSE (RFC 8684 section 3.5)")
    assert cause(sent) == ("sent-active", "mptcp-fastclose", "local", "ESTABLISHED")
    assert sent["actor"] is None
    assert sent["process"]["pid"] == os.getpid()
    assert cause(received) == cause(alone) == RESET
    assert received["actor"] is None
    assert wire(sent) == wire(received)
    assert [cause(entry) for entry in tracer.of(routed.inode("router"))] == [PASSED]


@FAMILIES
def test_mptcp_listener_and_plain_tcp(
    family: int, routed: Lab, tracer: Tracer, fence: Fence
) -> None:
    """A peer without MPTCP: an ordinary connection with ordinary causes."""
    fence.cross(tracer)
    tracer.forget()
    with mptcp_pair(routed, family, socket.IPPROTO_TCP) as (client, accepted):
        linger_zero(client)
        client.close()
        expect_reset(accepted)
        (received,) = tracer.collect(routed.inode("server"), 1)
    fence.cross(tracer)
    assert cause(received) == RESET
    (sent,) = tracer.of(routed.inode("client"))
    assert cause(sent) == SENT_LINGER


def test_mptcp_join_of_an_unknown_connection(routed: Lab, tracer: Tracer, fence: Fence) -> None:
    """A SYN that wants to join a connection nobody has (RFC 8684 section 3.2): not "only a
    listener there"."""
    with mptcp_pair(routed, V4):
        fence.cross(tracer)
        tracer.forget()
        source, target = ADDRESSES["client"][0], ADDRESSES["server"][0]
        join = bytes.fromhex("1001deadbeef01020304")  # subtype 1, address id 1, token, nonce
        syn = scapy_inet.TCP(sport=7201, dport=7200, flags="S", seq=100, options=[(30, join)])
        send_ip(routed, "client", scapy_inet.IP(src=source, dst=target) / syn)
        (received,) = tracer.collect(routed.inode("client"), 1)
        fence.cross(tracer)
    (sent,) = tracer.of(routed.inode("server"))
    assert sent["rst"]["options"].startswith("mptcp 8")
    assert cause(sent) == ("sent-passive", "mptcp-reset", "local", "LISTEN")
    assert sent["cause"]["kernel_reason"] in (None, "MPTCP_RST_EMPTCP")
    assert sent["trigger"]["flags"] == "S"
    assert cause(received) == ("received-unmatched", "no-socket", "peer", None)
