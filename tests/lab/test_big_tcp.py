"""Buffers of more than 64 kB, whose IP header does not tell their length (BIG TCP)."""

from __future__ import annotations

import os
import socket
import struct
import threading

import pytest

from rsttrace.demo.lab import Lab
from rsttrace.judge.verdict import judge
from rsttrace.kernel.protocol import Request
from rsttrace.kernel.source import LiveSource
from rsttrace.model import Kind, Origin, Reset
from tests.lab.harness import DEADLINE_S, FAMILIES, PLAN, V4, linger_zero, poll_until

SIZES = (41, 58, 63, 64)
"""IFLA_GSO_MAX_SIZE, _GRO_, and the same of IPv4 (include/uapi/linux/if_link.h)."""

LARGEST = 200_000
RTM_NEWLINK = 16
PORT = 7000
TOTAL = 6_000_007
ADDRESSES = ("10.73.0.2", "fd73::2")


def allow(lab: Lab, role: str, interface: str) -> None:
    """``ip link set dev … gso_max_size …``, which Debian 12's ip does not know all of."""
    sizes = b"".join(struct.pack("=HHI", 8, size, LARGEST) for size in SIZES)
    with lab.inside(role), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        body = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(interface), 0, 0) + sizes
        netlink.send(struct.pack("=IHHII", 16 + len(body), RTM_NEWLINK, 5, 1, 0) + body)
        (error,) = struct.unpack_from("=i", netlink.recv(4096), 16)
    assert not error, os.strerror(-error)


def knows_such(family: int) -> bool:
    """Whether this kernel makes such buffers."""
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    return release >= ((6, 3) if family == V4 else (5, 19))


@FAMILIES
def test_what_a_long_buffer_holds_is_counted(family: int) -> None:
    """So a RST behind it has the number that comes next, at both ends."""
    if not knows_such(family):
        pytest.skip(f"Linux {os.uname().release} makes no such buffers")
    kinds = (Kind.SENT_ACTIVE.value, Kind.RECEIVED_ACCEPTED.value)
    with Lab("rstbig") as lab:
        lab.add("client", "server")
        lab.link("client", "eth0", "server", "eth0")
        lab.addresses("client", "eth0", "10.73.0.1/24", "fd73::1/64")
        lab.addresses("server", "eth0", "10.73.0.2/24", "fd73::2/64")
        for role in ("client", "server"):
            allow(lab, role, "eth0")
        namespaces = (lab.inode("client"), lab.inode("server"))
        with LiveSource(Request(kinds, plan=PLAN, netns=namespaces)) as source:
            send_and_reset(lab, family)
            found: dict[str, Reset] = {}

            def told() -> bool:
                for reset in source.wait(0.1):
                    if isinstance(reset, Reset):
                        found[reset.kind.value] = reset
                return set(found) == set(kinds)

            poll_until(told, "both ends' resets")
    received, sent = found[Kind.RECEIVED_ACCEPTED.value], found[Kind.SENT_ACTIVE.value]
    for half in (received.baseline.theirs, sent.baseline.theirs):
        assert half is not None
        longest = max(seen.payload_len for seen in half.recent)
        assert longest > 65536, f"{longest} bytes at most"
        assert half.end == received.rst.seq
    received.made_here = received.ingress_frame = None
    assert judge(received).origin is Origin.PEER


def send_and_reset(lab: Lab, family: int) -> None:
    """As much as fills long buffers, and then a reset of the end that sent it."""
    with lab.inside("server"):
        listener = socket.create_server((ADDRESSES[family != V4], PORT), family=family)
    with listener:
        with lab.inside("client"):
            client = socket.create_connection(listener.getsockname()[:2], DEADLINE_S)
        server, _ = listener.accept()
    with client, server:
        server.settimeout(DEADLINE_S)
        sending = threading.Thread(target=server.sendall, args=(b"x" * TOTAL,))
        sending.start()
        left = TOTAL
        while left:
            left -= len(client.recv(left))
        sending.join()
        linger_zero(server)
        server.close()
