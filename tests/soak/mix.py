"""What is sent in a soak: resets of each kind between a client and a server, through a router."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Iterable

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    V4,
    V6,
    expect_reset,
    forward,
    linger_zero,
    pair,
    refuse,
    send_ip,
    server_address,
)

REJECTED, FORBIDDEN, MARK = 7901, 7902, 7999
"""Ports to which the router rejects a SYN, and data; and of the last reset."""

Kind = Callable[[Lab, int], None]


def prepare(lab: Lab) -> None:
    """The router's rules."""
    lab.nft(
        "router",
        forward(
            f"tcp dport {REJECTED} tcp flags & syn != 0 reject with tcp reset\n"
            f"tcp dport {FORBIDDEN} tcp flags & psh != 0 reject with tcp reset"
        ),
    )


def refused(lab: Lab, family: int) -> None:
    """Nothing listens there."""
    refuse(lab, server_address("server", family), 7900)


def rejected(lab: Lab, family: int) -> None:
    """The router rejects the SYN."""
    refuse(lab, server_address("server", family), REJECTED)


def forbidden(lab: Lab, family: int) -> None:
    """The router rejects data of a connection, in the server's name; the server knows nothing."""
    with pair(lab, "client", "server", port=FORBIDDEN, family=family) as (client, accepted):
        client.send(b"USE db")
        expect_reset(client)
        linger_zero(accepted)


def aborted(lab: Lab, family: int) -> None:
    """The server closes with SO_LINGER 0."""
    with pair(lab, "client", "server", family=family) as (client, accepted):
        linger_zero(accepted)
        accepted.close()
        expect_reset(client)


def unread(lab: Lab, family: int) -> None:
    """The server closes with data that it has not read."""
    with pair(lab, "client", "server", family=family) as (client, accepted):
        client.send(b"x" * 100)
        accepted.recv(1)
        accepted.close()
        expect_reset(client)


def too_late(lab: Lab, family: int) -> None:
    """The client sends after the server has closed."""
    with pair(lab, "client", "server", family=family) as (client, accepted):
        accepted.close()
        assert client.recv(1) == b""
        client.send(b"x")
        with contextlib.suppress(ConnectionError):
            client.recv(1)


def blind(lab: Lab, family: int) -> None:
    """The router forges a reset in the server's name, and knows neither number: it is dropped."""
    with pair(lab, "client", "server", family=family) as (client, accepted):
        (here, port), (there, dport) = client.getsockname()[:2], client.getpeername()[:2]
        network = IP if family == V4 else IPv6
        forged = TCP(sport=dport, dport=port, flags="R", seq=random.getrandbits(32))
        send_ip(lab, "router", network(src=there, dst=here) / forged)
        accepted.send(b"still there")
        assert client.recv(100) == b"still there"
        linger_zero(client)


KINDS: tuple[Kind, ...] = (refused, rejected, forbidden, aborted, unread, too_late, blind)
FAMILIES = (V4, V6)


def play(lab: Lab, chance: random.Random) -> None:
    """One of them."""
    with contextlib.suppress(socket.timeout):
        chance.choice(KINDS)(lab, chance.choice(FAMILIES))


def mark(lab: Lab) -> None:
    """The last reset: what comes before it in a dump is all there was."""
    refuse(lab, server_address("server", V4), MARK)


def is_marked(seen: Iterable[str]) -> bool:
    """Whether the last one is among these TCP headers."""
    return any(header.startswith(f"{MARK:04x}") for header in seen)
