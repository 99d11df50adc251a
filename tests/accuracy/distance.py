"""Resets that come from another distance than the peer's packets, and honest ones that do, too.

Ways of 2, 4 and 12 routers; firewalls, NAT boxes, second hosts and gateways at many places of them.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Callable, Iterator
from typing import Any

from tests.accuracy.case import Case
from tests.accuracy.forged import DROP_WORD, REJECT, by_distance
from tests.accuracy.honest import REFUSED_TWIN, End, client_lingers, closed, lingers, unread
from tests.accuracy.stage import TRAFFIC, V4, V6, Conn, Play, both_reset, vanish
from tests.accuracy.stages import WayStage
from tests.lab.harness import DEADLINE_S, provoke

PLACES = {"near": (1, 2), "mid": (1, 2, 3, 4), "far": (1, 2, 6, 10, 11, 12)}
"""Where on the way to each server a box is put."""


FARTHER_TWIN = "HAProxy transparent bypassed"
"""Behind a transparent proxy the host itself is farther away than what made the handshake."""


def nearer(play: Play, box: int, victim: str) -> int:
    """By how many hops a router is nearer to a victim than the victim's peer is."""
    return play.hops + 1 - box if victim == "client" else box


# ---- a firewall on the path ----


def reject(stage: WayStage, end: str, box: int, traffic: str) -> None:
    """An nftables firewall rejects what each end says in a connection that was busy."""
    play = stage.to(end)
    for victim in ("client", end):
        play.tell(victim, by_distance(nearer(play, box, victim)))
    with stage.busy(traffic) as conn, stage.rules(f"w{box}", REJECT.format(port=play.port)):
        provoke(conn.client, b"FORGE")
        provoke(conn.server, b"FORGE")
        stage.arrived("client", 1)
        stage.arrived(end, 1)


def iptables_reject(stage: WayStage, end: str, box: int) -> None:
    """The same by iptables, set while the connection is busy."""
    play = stage.to(end)
    tool = "ip6tables" if play.family == V6 else "iptables"
    rule = ["-p", "tcp", "--dport", str(play.port), "-j", "REJECT", "--reject-with", "tcp-reset"]
    play.tell("client", by_distance(nearer(play, box, "client")))
    with stage.busy("requests") as conn:
        stage.lab.exec(f"w{box}", [tool, "-w", "-A", "FORWARD", *rule])
        try:
            provoke(conn.client, b"a request")
            stage.arrived("client", 1)
        finally:
            stage.lab.exec(f"w{box}", [tool, "-w", "-D", "FORWARD", *rule])


REJECT_SYN = """
chain forward {{
    type filter hook forward priority 0;
    tcp dport {port} tcp flags & (syn | ack) == syn reject with tcp reset
}}
"""


def refused_by_firewall(stage: WayStage, end: str, box: int, known: str) -> None:
    """A firewall refuses a connection. `known`: whether the peer was met before, or is later.

    The gateway's own answer is told by its TTL, which no router has touched. Of others, nothing
    tells the distance where the peer was never met; one hop or two may be a new way to it.
    """
    play = stage.to(end)
    distance = nearer(play, box, "client")
    if box == 1:
        play.tell("client", "decidable")
    elif known == "never":
        play.tell("client", "undecidable", "refused")
    elif distance > 2:
        play.tell("client", "decidable" if known == "before" else "late")
    else:
        play.tell("client", "undecidable", "shorter way, then refused")
    with stage.rules(f"w{box}", REJECT_SYN.format(port=play.port)):
        if known == "before":
            other_port(stage)
        _refused(stage)
        if known == "later":
            other_port(stage)


def refused_by_host(stage: WayStage, end: str, known: str) -> None:
    """The host itself refuses it: the twin of the case above."""
    play = stage.to(end)
    if known == "never":
        play.tell("client", "undecidable", REFUSED_TWIN)
    if known == "before":
        other_port(stage)
    _refused(stage)
    if known == "later":
        other_port(stage)


def _refused(stage: WayStage) -> None:
    with stage.caller() as sock:
        assert sock.connect_ex((stage.play.server, stage.play.port)) != 0
    stage.arrived("client", 1)


def other_port(stage: WayStage) -> None:
    """A connection to the same server that works, on another port, ended by a FIN."""
    play = stage.play
    port, play.port = play.port, play.port - 10_000
    try:
        with stage.connection() as conn:
            conn.talk(1)
            conn.server.close()
            assert conn.client.recv(1) == b""
    finally:
        play.port = port


# ---- the gateway ----


def gateway(stage: WayStage, end: str, shape: str, traffic: str) -> None:
    """The client's gateway answers for a peer behind it; its initial TTL is another one."""
    play = stage.to(end)
    play.tell("client", "decidable")
    with (
        stage.rules("w1", DROP_WORD.format(port=play.port)),
        stage.busy(traffic) as conn,
    ):
        provoke(conn.client, f"FORGE w1 {shape} client drop\n".encode())
        stage.arrived("client", 1)


def gateways_own(stage: WayStage, known: str) -> None:
    """An address that the gateway itself has, as a router's outer one: nothing listens there.

    First contact: whether that is the peer or its gateway is a matter of words.
    """
    play = stage.to("near")
    play.hops, play.end = 0, "w1"
    stage.lab.addresses("w1", "lo", f"{play.server}/{128 if play.family == V6 else 32}")
    if known == "before":
        other_port(stage)
    else:
        play.word("client", "indistinguishable")
    _refused(stage)


# ---- boxes that own the address ----


def masqueraded(stage: WayStage, end: str, box: int, traffic: str) -> None:
    """A NAT box in front of the client lost this connection's state: it answers the server."""
    play = stage.to(end)
    chain = (
        "chain p { type nat hook postrouting priority 100; "
        f"tcp dport {play.port} masquerade to :40000-60000 fully-random; }}"
    )
    play.tell(end, by_distance(nearer(play, box, end)))
    with stage.rules(f"w{box}", chain), stage.busy(traffic) as conn:
        forget(stage, box)
        provoke(conn.server, b"an answer")
        stage.arrived(end, 1)


def published(stage: WayStage, end: str, box: int, traffic: str) -> None:
    """A NAT box with the server's public address lost state and rules: it answers the client."""
    play = stage.to(end)
    play.tell("client", by_distance(nearer(play, box, "client")))
    with own_address(stage, end, box, traffic) as client:
        provoke(client, b"a request")
        stage.arrived("client", 1)


@contextlib.contextmanager
def own_address(stage: WayStage, end: str, box: int, traffic: str) -> Iterator[socket.socket]:
    """A connection through a box that has the server's address, whose rules and state are gone."""
    play, real = stage.play, stage.real()
    kind, target = ("ip6", f"[{real}]") if play.family == V6 else ("ip", real)
    stage.lab.addresses(f"w{box}", "lo", f"{play.server}/{128 if play.family == V6 else 32}")
    with contextlib.ExitStack() as stack:
        with stage.rules(f"w{box}", dnat(play, kind, f"{target}:{play.port}")):
            with stage.listen_at(end, real) as listener:
                client = stack.enter_context(stage.dial())
                server = stack.enter_context(listener.accept()[0])
            server.settimeout(DEADLINE_S)
            TRAFFIC[traffic](Conn(client, server))
        forget(stage, box)
        yield client


def dnat(play: Play, kind: str, target: str) -> str:
    """A chain that forwards the case's port to another place."""
    return (
        "chain p { type nat hook prerouting priority -100; "
        f"{kind} daddr {play.server} tcp dport {play.port} dnat {kind} to {target}; }}"
    )


def forget(stage: WayStage, box: int) -> None:
    """The box loses the state of this case's connections, as a restart or a full table does."""
    port = str(stage.play.port)
    family = "ipv6" if stage.play.family == V6 else "ipv4"
    command = ["conntrack", "-D", "-f", family, "-p", "tcp", "--orig-port-dst", port]
    stage.lab.exec(f"w{box}", command)


def other_backend(stage: WayStage, traffic: str) -> None:
    """A balancer forgets a connection and gives it to another backend, as far away as the first.

    Nothing on the wire tells that from the first one's host without its socket.
    """
    play = stage.to("mid")
    play.tell("client", "undecidable", f"socket vanished, mid, {traffic}")
    real, v6 = stage.real(), play.family == V6
    kind = "ip6" if v6 else "ip"
    other = "[fd80:44::2]" if v6 else "10.80.44.2"
    with contextlib.ExitStack() as stack:
        with stage.rules("w4", dnat(play, kind, f"[{real}]" if v6 else real)):
            with stage.listen_at("mid", real) as listener:
                client = stack.enter_context(stage.dial())
                server = stack.enter_context(listener.accept()[0])
            server.settimeout(DEADLINE_S)
            TRAFFIC[traffic](Conn(client, server))
        forget(stage, 4)
        with stage.rules("w4", dnat(play, kind, other)):
            provoke(client, b"a request")
            stage.arrived("client", 1)


# ---- the same address twice ----


def second_host(stage: WayStage, end: str, beside: int, traffic: str, goes_on: bool) -> None:
    """A route moves to another host with the same address, which knows nothing of the connection.

    `goes_on`: the route moves back, and the real peer says what it has to say.
    """
    play = stage.to(end)
    distance = play.hops - beside
    if distance > 2:
        play.tell("client", "proven")
    elif distance > 0:
        play.tell("client", "decidable")
    elif distance:
        play.tell("client", "undecidable", FARTHER_TWIN)
    elif goes_on:
        play.tell("client", "undecidable", "own firewall goes on")
    else:
        play.tell("client", "undecidable", f"socket vanished, {end}, {traffic}")
    with stage.busy(traffic) as conn:
        stage.divert(beside)
        provoke(conn.client, b"a request")
        stage.arrived("client", 1)
        if goes_on:
            stage.undivert(beside)
            provoke(conn.server, b"the answer to an earlier one")


def second_client(stage: WayStage, end: str, beside: int, traffic: str) -> None:
    """The same with the client's address; the server is reset."""
    play = stage.to(end)
    distance = beside - 1
    if distance:
        play.tell(end, by_distance(distance))
    else:
        play.tell(end, "undecidable", f"client's socket vanished, {end}, {traffic}")
    with stage.busy(traffic) as conn:
        stage.divert_back(beside)
        provoke(conn.server, b"an answer")
        stage.arrived(end, 1)


# ---- honest hosts that lost a socket ----


def vanished(stage: WayStage, end: str, traffic: str | None, client: bool) -> None:
    """A socket is gone without a word, as where a container is checkpointed or moved (TCP_REPAIR).

    The host answers at once, from its own distance: as a forger does that copies the TTL. `client`:
    it is the client's.
    """
    play = stage.to(end)
    victim = end if client else "client"
    twin = "copier at r3" if client else f"copier at w2 of {end}, {traffic}"
    play.tell(victim, "undecidable", twin if traffic else "copier at r1, first request")
    with stage.busy(traffic) as conn:
        gone, other = (conn.client, conn.server) if client else (conn.server, conn.client)
        vanish(gone)
        provoke(other, b"still there?")
        stage.arrived(victim, 1)


def copier(stage: WayStage, end: str, box: int, traffic: str, goes_on: bool) -> None:
    """The twin of `vanished`: a box copies the TTL and the shape of a host without a socket."""
    play = stage.to(end)
    twin = "own firewall goes on" if goes_on else f"socket vanished, {end}, {traffic}"
    play.tell("client", "undecidable", twin)
    drop = (
        contextlib.nullcontext()
        if goes_on
        else stage.rules(f"w{box}", DROP_WORD.format(port=play.port))
    )
    request = f"FORGE w{box} copier client {'pass' if goes_on else 'drop'}\n".encode()
    with drop, stage.busy(traffic) as conn:
        provoke(conn.client, request)
        stage.arrived("client", 1)
        if goes_on:
            assert conn.server.recv(len(request)) == request
            provoke(conn.server, b"the answer")


def one_off(stage: WayStage, end: str, box: int, shape: str, traffic: str) -> None:
    """A box whose resets come from one hop less or more than the peer's packets."""
    play = stage.to(end)
    for victim in ("client", end):
        if shape == "nearer":
            play.tell(victim, "decidable")
        else:
            play.tell(victim, "undecidable", FARTHER_TWIN)
    with stage.rules(f"w{box}", DROP_WORD.format(port=play.port)), stage.busy(traffic) as conn:
        conn.client.sendall(f"FORGE w{box} {shape} both drop\n".encode())
        both_reset(conn)
        for victim in ("client", end):
            stage.arrived(victim, 1)


def deferred(stage: WayStage, end: str) -> None:
    """The listener is gone before the first request comes (TCP_DEFER_ACCEPT: no socket till then).

    The server answered the handshake, did not close, and answers the first data as without socket.
    """
    stage.to(end).tell("client", "undecidable", "copier at r1, first request")
    with stage.dial_deferred() as client:
        provoke(client, b"the first request")
        stage.arrived("client", 1)


# ---- honest ends on long and short ways ----


def ends(stage: WayStage, end: str, traffic: str, how: End) -> None:
    """The server resets a connection that was busy."""
    stage.to(end)
    with stage.busy(traffic) as conn:
        how(stage, conn)


def cases() -> Iterator[Case]:
    """All of them."""
    for family, version in ((V4, "v4"), (V6, "v6")):
        yield from forged(family, version)
        yield from boxes(family, version)
        yield from honest(family, version)


def forged(family: int, version: str) -> Iterator[Case]:
    """Made by others."""
    made = functools.partial

    def case(name: str, source: str, play: Callable[..., None], **more: Any) -> Case:
        return Case(f"{name} {version}", source, False, play, WayStage, family, **more)

    for end, places in PLACES.items():
        for number, box in enumerate(places):
            for turn, traffic in enumerate(TRAFFIC):
                yield case(
                    f"nft reject at w{box} of {end}, {traffic}",
                    "nft reject",
                    made(reject, end=end, box=box, traffic=traffic),
                    waits=True,
                    fast=turn == number % 3 and end != "near",
                )
            yield case(
                f"iptables reject at w{box} of {end}",
                "iptables REJECT",
                made(iptables_reject, end=end, box=box),
                programs=("iptables",),
                waits=True,
            )
            for known in ("never", "before", "later"):
                yield case(
                    f"REJECT at w{box} of {end} refuses, peer met {known}",
                    "nft reject",
                    made(refused_by_firewall, end=end, box=box, known=known),
                    waits=True,
                    fast=end == "mid",
                )
        for traffic in TRAFFIC:
            for shape in ("gateway_128", "gateway_255"):
                yield case(
                    f"{shape} of {end}, {traffic}",
                    "gateway",
                    made(gateway, end=end, shape=shape, traffic=traffic),
                    waits=True,
                    fast=end == "mid",
                )
            for goes_on in (False, True):
                after = ", the server goes on" if goes_on else ""
                yield case(
                    f"copier at w2 of {end}, {traffic}{after}",
                    "scapy: copier",
                    made(copier, end=end, box=2, traffic=traffic, goes_on=goes_on),
                    waits=True,
                )
        for shape in ("nearer", "farther"):
            for traffic in ("bulk", "requests"):
                yield case(
                    f"one hop {shape} at w2 of {end}, {traffic}",
                    f"scapy: {shape}",
                    made(one_off, end=end, box=2, shape=shape, traffic=traffic),
                    waits=True,
                    fast=end == "mid",
                )
    for end, beside in (
        ("near", 1),
        ("near", 3),
        ("mid", 1),
        ("mid", 3),
        ("mid", 4),
        ("mid", 6),
        ("far", 6),
        ("far", 11),
    ):
        for traffic in TRAFFIC:
            for goes_on in (False, True):
                after = ", the server goes on" if goes_on else ""
                yield case(
                    f"second host beside w{beside} of {end}, {traffic}{after}",
                    "second host",
                    made(second_host, end=end, beside=beside, traffic=traffic, goes_on=goes_on),
                    waits=True,
                    fast=traffic != "idle" and end == "mid",
                )
    for end, beside in (("mid", 1), ("mid", 3), ("far", 4), ("far", 11)):
        yield case(
            f"second client beside w{beside} of {end}",
            "second host",
            made(second_client, end=end, beside=beside, traffic="requests"),
            waits=True,
            fast=end == "mid",
        )


def boxes(family: int, version: str) -> Iterator[Case]:
    """Made by a box that owns the address."""
    made = functools.partial

    def case(name: str, source: str, play: Callable[..., None], **more: Any) -> Case:
        more = {"waits": True, "programs": ("conntrack",), "label": "box", **more}
        return Case(f"{name} {version}", source, False, play, WayStage, family, **more)

    for end, places in (("near", (1, 2)), ("mid", (1, 3, 4)), ("far", (1, 11, 12))):
        for number, box in enumerate(places):
            for turn, traffic in enumerate(TRAFFIC):
                fast = turn == number and end == "mid"
                yield case(
                    f"masquerade at w{box} of {end} lost its state, {traffic}",
                    "NAT state lost",
                    made(masqueraded, end=end, box=box, traffic=traffic),
                    fast=fast,
                )
                yield case(
                    f"port forwarding at w{box} of {end} lost its state, {traffic}",
                    "NAT state lost",
                    made(published, end=end, box=box, traffic=traffic),
                    fast=fast,
                )
    for traffic in TRAFFIC:
        yield case(
            f"another backend, {traffic}",
            "balancer",
            made(other_backend, traffic=traffic),
            fast=traffic == "bulk",
        )


def honest(family: int, version: str) -> Iterator[Case]:
    """Made by the peer's host."""
    made = functools.partial

    def case(name: str, play: Callable[..., None], **more: Any) -> Case:
        more = {"waits": True, **more}
        return Case(f"{name} {version}", "linux", True, play, WayStage, family, **more)

    for end in PLACES:
        for traffic in TRAFFIC:
            for how in (lingers, client_lingers, closed, unread):
                name = how.__name__.replace("_", " ")
                yield case(
                    f"{name}, {end}, {traffic}",
                    made(ends, end=end, traffic=traffic, how=how),
                    fast=end == "far" and traffic != "idle",
                )
            for client in (False, True):
                whose = "client's " if client else ""
                yield case(
                    f"{whose}socket vanished, {end}, {traffic}",
                    made(vanished, end=end, traffic=traffic, client=client),
                    fast=end == "mid",
                )
        for client in (False, True):
            whose = "client's " if client else ""
            if end == "mid":
                yield case(
                    f"{whose}socket vanished, at once",
                    made(vanished, end=end, traffic=None, client=client),
                    fast=True,
                )
        for known in ("never", "before", "later"):
            yield case(
                f"refused by {end}, peer met {known}",
                made(refused_by_host, end=end, known=known),
                fast=end == "mid",
            )
        yield case(f"listener gone before the first request, {end}", made(deferred, end=end))
    for known in ("never", "before"):
        yield case(
            f"the gateway's own address refuses, met {known}",
            made(gateways_own, known=known),
            fast=True,
        )
