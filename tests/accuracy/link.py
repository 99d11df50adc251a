"""What happens on our own link: NAT boxes, second hosts, asymmetric ways, a link that jitters."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Callable, Iterator
from typing import Any

from scapy.layers.l2 import ARP, Ether

from tests.accuracy.case import Case
from tests.accuracy.forged import DROP_WORD, REJECT, by_distance, difference, reset_by_hping3
from tests.accuracy.forged import tell as tell_shape
from tests.accuracy.honest import End, client_lingers, closed, lingers, longer_way, unread
from tests.accuracy.stage import V4, V6, Conn, both_reset
from tests.accuracy.stages import JitterStage, LanStage
from tests.lab.harness import DEADLINE_S, mac_of, poll_until, provoke, send_frame

# ---- a NAT box on our link, and a host behind it ----


@contextlib.contextmanager
def behind_nat(stage: LanStage, caller: str) -> Iterator[Conn]:
    """A connection between the client and the inner host, which has the NAT box's address.

    `caller`: who opens it. Conn.server is the inner host's socket in any case.
    """
    play = stage.play
    play.hops, play.end = 1, "inner"
    address = f"10.82.0.{stage.NATBOX}"
    chains = (
        "chain p { type nat hook postrouting priority 100; "
        f'oifname "eth0" tcp dport {play.port} masquerade; }}\n'
        "chain d { type nat hook prerouting priority -100; "
        f'iifname "eth0" tcp dport {play.port} dnat to {stage.INNER}:{play.port}; }}'
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(stage.rules("natbox", chains, family="ip"))
        if caller == "inner":
            listener = stack.enter_context(stage.listen_at("client", play.client))
            with stage.lab.inside("inner"):
                inner = stack.enter_context(socket.socket())
            inner.settimeout(DEADLINE_S)
            inner.connect((play.client, play.port))
            ours = stack.enter_context(listener.accept()[0])
        else:
            listener = stack.enter_context(stage.listen_at("inner", stage.INNER))
            ours = stack.enter_context(stage.caller())
            ours.connect((address, play.port))
            inner = stack.enter_context(listener.accept()[0])
        for sock in (ours, inner):
            sock.settimeout(DEADLINE_S)
        conn = Conn(ours, inner)
        yield conn
        conn.leave()


def nat_ends(stage: LanStage, caller: str, end: End) -> None:
    """The host behind the NAT box on our link resets: one hop away, from an address of our link."""
    with behind_nat(stage, caller) as conn:
        conn.talk()
        end(stage, conn)


def nat_forgets(stage: LanStage) -> None:
    """The NAT box loses its state and answers for itself: no hop away."""
    stage.play.tell("client", "decidable")
    with behind_nat(stage, "inner") as conn:
        conn.talk()
        stage.lab.exec("natbox", ["conntrack", "-F"])
        provoke(conn.client, b"an answer")
        stage.arrived("client", 1)


def nat_spoofed(stage: LanStage) -> None:
    """Another host of our link resets the client in the NAT box's name."""
    with behind_nat(stage, "client") as conn:
        conn.talk()
        reset_by_hping3(stage, "attacker", conn.client)


# ---- asymmetric: our way to the peer leads through a gateway, the peer's to us does not ----


@contextlib.contextmanager
def one_way(stage: LanStage) -> Iterator[Conn]:
    """The server's address is the neighbour's, who answers directly; we send to our gateway."""
    play = stage.play
    play.hops, play.end = 0, "neighbour"
    stage.lab.ip("neighbour", f"route add local {play.server}/32 dev lo")
    stage.lab.route("gwa", f"{play.server}/32 via 10.82.0.{stage.NEIGHBOUR}")
    # Or it tells the client that there is a shorter way (ICMP redirect).
    stage.lab.sysctl("gwa", net__ipv4__conf__all__send_redirects=0)
    stage.lab.sysctl("gwa", net__ipv4__conf__eth0__send_redirects=0)
    with stage.connection() as conn:
        yield conn


def one_way_ends(stage: LanStage, end: End) -> None:
    """The peer resets."""
    with one_way(stage) as conn:
        conn.talk()
        end(stage, conn)


def one_way_rejected(stage: LanStage, rounds: int) -> None:
    """The gateway rejects: the same TTL as the peer's packets have, another MAC."""
    stage.play.tell("client", "decidable")
    rules = REJECT.format(port=stage.play.port)
    with one_way(stage) as conn, stage.rules("gwa", rules):
        conn.talk(rounds)
        provoke(conn.client, b"FORGE")


def gateway_refuses(stage: LanStage, ttl: int) -> None:
    """First contact: our gateway, whose stack begins with `ttl`, rejects the SYN for a peer."""
    stage.play.tell("client", "decidable")
    stage.lab.sysctl("gwa", net__ipv4__ip_default_ttl=ttl)
    rules = (
        "chain forward { type filter hook forward priority 0; "
        f"tcp dport {stage.play.port} reject with tcp reset; }}"
    )
    with stage.rules("gwa", rules), stage.caller() as sock:
        assert sock.connect_ex((stage.play.server, stage.play.port)) != 0
    stage.lab.sysctl("gwa", net__ipv4__ip_default_ttl=64)


# ---- the same address twice on the link ----


@contextlib.contextmanager
def next_door(stage: LanStage) -> Iterator[Conn]:
    """A connection with a neighbour, at an address of this case's own."""
    play = stage.play
    play.hops, play.end = 0, "neighbour"
    address = f"10.82.1.{play.number % 250 + 1}"
    stage.lab.addresses("neighbour", "eth0", f"{address}/16")
    stage.lab.ip("client", f"route replace {address}/32 dev eth0")
    with stage.listen_at("neighbour", address) as listener, stage.caller() as client:
        client.connect((address, play.port))
        server, _ = listener.accept()
        server.settimeout(DEADLINE_S)
        conn = Conn(client, server)
        conn.talk()
        yield conn
        conn.leave()


def announce(stage: LanStage, role: str, address: str, mac: str, interface: str = "eth0") -> None:
    """A host says that it has an address (gratuitous ARP, RFC 5227 §3), and the client hears it."""
    send_frame(
        stage.lab,
        role,
        interface,
        Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=mac, psrc=address, pdst=address),
    )

    def known() -> bool:
        return mac in stage.lab.exec("client", ["ip", "neigh", "show", address])

    poll_until(known, "the announcement to be heard")


def address_twice(stage: LanStage, goes_on: bool) -> None:
    """Another host of our link takes the neighbour's address; it has no such connection."""
    stage.play.tell("client", "decidable")
    with next_door(stage) as conn:
        address = conn.client.getpeername()[0]
        stage.lab.addresses("attacker", "eth0", f"{address}/16")
        announce(stage, "attacker", address, mac_of(stage.lab, "attacker", "eth0"))
        provoke(conn.client, b"still there?")
        if goes_on:  # what the client's host says to that goes to the other one
            conn.server.sendall(b"the answer")
            stage.left("client", 1)


def card_changed(stage: LanStage, end: End) -> None:
    """The neighbour's other network card takes over (bonding, a VM that moved): another MAC."""
    with next_door(stage) as conn:
        address = conn.client.getpeername()[0]
        stage.lab.ip(
            "neighbour",
            f"address add {address}/32 dev eth1",
            f"address del {address}/16 dev eth0",
            f"route add {stage.play.client}/32 via 10.82.0.1 dev eth1 onlink",
        )
        announce(stage, "neighbour", address, mac_of(stage.lab, "neighbour", "eth1"), "eth1")
        end(stage, conn)


# ---- a way that jitters ----


def jitters(stage: JitterStage, end: End, longer: bool) -> None:
    """The way takes 40 to 64 ms, now more and now less; the reset perhaps by a longer one."""
    with stage.connection() as conn:
        conn.talk(5)
        if longer:
            stage.lab.route("r4", *longer_way(stage))
        end(stage, conn)


def jitters_forged(stage: JitterStage, shape: str, box: str) -> None:
    """A box nearer than the server resets both ends, sooner than the server could."""
    play = stage.play
    for victim in ("client", "server"):
        tell_shape(play, shape, box, victim, short=False)
    if shape == "copier":  # sooner than any of five round trips, by far
        play.tell("client", "decidable")
    with stage.rules(box, DROP_WORD.format(port=play.port)), stage.connection() as conn:
        conn.talk(5)
        conn.client.sendall(f"FORGE {box} {shape} both drop\n".encode())
        both_reset(conn)


def jitters_rejected(stage: JitterStage, box: str) -> None:
    """A firewall rejects."""
    for victim in ("client", "server"):
        stage.play.tell(victim, by_distance(difference(box, victim)))
    with stage.rules(box, REJECT.format(port=stage.play.port)), stage.connection() as conn:
        conn.talk(5)
        provoke(conn.client, b"FORGE")
        provoke(conn.server, b"FORGE")


def cases() -> Iterator[Case]:
    """All of them."""
    partial = functools.partial
    for end in (lingers, closed, unread, client_lingers):
        name = end.__name__.replace("_", " ")
        for caller in ("inner", "client"):
            yield _lan(
                f"NAT box on our link, {caller} calls, {name}",
                "NAT on the link",
                partial(nat_ends, caller=caller, end=end),
                fast=True,
            )
        yield _lan(
            f"one-way gateway, {name}", "path change", partial(one_way_ends, end=end), fast=True
        )
        if end is not client_lingers:
            yield _lan(
                f"neighbour's card changed, {name}", "path change", partial(card_changed, end=end)
            )
    yield _lan(
        "NAT box on our link lost its state",
        "NAT state lost",
        nat_forgets,
        honest=False,
        label="box",
        programs=("conntrack",),
    )
    yield _lan(
        "NAT box on our link, hping3 in its name",
        "hping3",
        nat_spoofed,
        honest=False,
        programs=("hping3",),
    )
    for rounds in (0, 3):
        data = "" if rounds else ", no data before"
        yield _lan(
            f"one-way gateway rejects{data}",
            "nft reject",
            partial(one_way_rejected, rounds=rounds),
            honest=False,
            fast=True,
        )
    for ttl in (64, 128, 255):
        yield _lan(
            f"gateway of the LAN refuses, TTL {ttl}",
            "gateway",
            partial(gateway_refuses, ttl=ttl),
            honest=False,
            fast=True,
        )
    for goes_on in (False, True):
        after = ", the neighbour goes on" if goes_on else ""
        yield _lan(
            f"address twice on our link{after}",
            "second host",
            partial(address_twice, goes_on=goes_on),
            honest=False,
            fast=True,
        )
    for family, version in ((V4, "v4"), (V6, "v6")):
        yield from _jittery(family, version)


def _lan(name: str, source: str, play: Callable[[Any], None], **more: Any) -> Case:
    return Case(name, source, more.pop("honest", True), play, LanStage, **more)


def _jittery(family: int, version: str) -> Iterator[Case]:
    partial = functools.partial

    def case(name: str, source: str, honest: bool, play: Callable[[Any], None]) -> Case:
        name = f"{name} {version}"
        return Case(name, source, honest, play, JitterStage, family, waits=True)

    for end in (lingers, closed, unread, client_lingers):
        for longer in (False, True):
            way = ", longer way" if longer else ""
            name = end.__name__.replace("_", " ")
            yield case(
                f"jittery link{way}, {name}",
                "path change",
                True,
                partial(jitters, end=end, longer=longer),
            )
    for box in ("r1", "r4"):
        for shape in ("copier", "snort", "dpvs", "random_id"):
            yield case(
                f"jittery link, {shape} at {box}",
                f"scapy: {shape}",
                False,
                partial(jitters_forged, shape=shape, box=box),
            )
        yield case(
            f"jittery link, {box} rejects", "nft reject", False, partial(jitters_rejected, box=box)
        )
