"""Packets that nobody of the two ends sent, around honest resets and forged ones; SYNs of others.

What a stranger injects must neither make a forged reset look honest nor an honest one forged.
"""

from __future__ import annotations

import functools
import random
import socket
from collections.abc import Callable, Iterator
from typing import Any

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from rsttrace.errors import LabError
from tests.accuracy.case import Case
from tests.accuracy.forged import REJECT, by_distance, difference, reset_by_hping3
from tests.accuracy.honest import closed, lingers, longer_way, unread
from tests.accuracy.stage import V4, V6, Conn, Stage, abort, numbers, set_ttl
from tests.lab.harness import expect_reset, provoke, send_ip

OPTIONS = [("MSS", 1460)]


def packet(stage: Stage, port: int, flags: str, data: bytes = b"", **fields: Any) -> Any:
    """A packet to the client in the server's name; `ttl`, `seq`, `ack` … as given."""
    play = stage.play
    network: Any
    ttl = fields.pop("ttl", 64)
    if play.family == V6:
        network = IPv6(src=play.server, dst=play.client, hlim=ttl)
    else:
        network = IP(src=play.server, dst=play.client, ttl=ttl, id=random.randrange(1, 65536))
    made = network / TCP(sport=play.port, dport=port, flags=flags, **fields)
    return made / data if data else made


def number() -> int:
    """Any sequence number."""
    return random.randrange(1 << 32)


def made(stage: Stage, conn: Conn, kind: str) -> list[Any]:
    """What a stranger sends to the client."""
    with stage.lab.inside("client"):
        sent, expected = numbers(conn.client)
    port = conn.client.getsockname()[1]
    stamps = [("NOP", None), ("NOP", None), ("Timestamp", (number(), number()))]
    if kind == "SYN":  # of a scanner, or of somebody who tries to reset connections (RFC 5961 §4)
        return [packet(stage, port, "S", seq=number(), options=OPTIONS)]
    if kind == "SYN-ACK":
        return [packet(stage, port, "SA", seq=number(), ack=number(), options=OPTIONS)]
    if kind == "ACK":  # it fits, but for the timestamps that it has not
        return [packet(stage, port, "A", seq=expected, ack=sent)]
    if kind == "blind data":
        return [
            packet(stage, port, "PA", b"blind", seq=number(), ack=number(), options=stamps)
            for _ in range(4)
        ]
    if kind == "FIN":
        return [packet(stage, port, "FA", seq=number(), ack=number())]
    if kind == "many TTLs":
        return [
            packet(stage, port, "A", seq=number(), ack=number(), ttl=ttl)
            for ttl in (64, 63, 128, 255, 62, 40)
        ]
    assert kind == "page", kind  # a block page, where the server's answer is still to come
    page = b"HTTP/1.1 403 Forbidden\r\n\r\n"
    return [packet(stage, port, "FPA", page, seq=expected, ack=sent)]


POISON = ("SYN", "SYN-ACK", "ACK", "blind data", "FIN", "many TTLs")


def inject(stage: Stage, box: str, packets: list[Any]) -> None:
    """Send packets from a router."""
    for one in packets:
        send_ip(stage.lab, box, one)


# ---- before a reset ----


def before_honest(stage: Stage, kind: str, box: str, end: Callable[[Stage, Conn], None]) -> None:
    """Then the server resets."""
    with stage.connection() as conn:
        conn.talk()
        inject(stage, box, made(stage, conn, kind))
        end(stage, conn)


def before_reject(stage: Stage, kind: str, box: str, firewall: str) -> None:
    """Then a firewall rejects."""
    port = stage.play.port
    stage.play.tell("client", by_distance(difference(firewall, "client")))
    with stage.connection() as conn, stage.rules(firewall, REJECT.format(port=port)):
        conn.talk()
        inject(stage, box, made(stage, conn, kind))
        conn.client.sendall(b"FORGE")  # a page with a FIN is read to its end first
        stage.arrived("client", 1)


def before_hping3(stage: Stage, kind: str, box: str) -> None:
    """Then the same stranger resets the client with hping3."""
    stage.play.tell("client", by_distance(difference(box, "client")))
    with stage.connection() as conn:
        conn.talk()
        inject(stage, box, made(stage, conn, kind))
        reset_by_hping3(stage, box, conn.client)


# ---- after a reset ----


def after_honest(stage: Stage, kind: str, box: str) -> None:
    """The server aborts; then one packet comes in its name, beyond its reset."""
    with stage.connection() as conn:
        conn.talk()
        with stage.lab.inside("client"):
            sent, expected = numbers(conn.client)
        port = conn.client.getsockname()[1]
        lingers(stage, conn)
        if kind == "data":
            late = packet(stage, port, "PA", b"late", seq=expected + 100, ack=sent)
        else:
            late = packet(stage, port, kind, seq=expected + 1, ack=sent, ttl=200)
        inject(stage, box, [late])


# ---- SYNs that somebody else sent, or no kernel ----


def raw_syn(stage: Stage, ttl: int, window: int, options: list[Any]) -> None:
    """A scanner: a SYN of its own making, and its kernel resets our SYN-ACK."""
    play = stage.play
    syn = TCP(
        sport=random.randrange(40_000, 60_000),
        dport=play.port,
        flags="S",
        seq=number(),
        window=window,
        options=options,
    )
    network: Any
    if play.family == V6:
        network = IPv6(src=play.client, dst=play.server, hlim=ttl)
    else:
        network = IP(src=play.client, dst=play.server, ttl=ttl, id=number() & 0xFFFF)
    with stage.listen():
        send_ip(stage.lab, "client", network / syn)
        stage.arrived("server", 1)


def hping3_syn(stage: Stage) -> None:
    """The same by hping3 -S, to ports that are open and that are not."""
    play = stage.play
    command = f"timeout 5 hping3 -q -c 3 -i u1000 -S -p {play.port} -a {play.client} {play.server}"
    with stage.listen():
        try:
            stage.lab.exec("client", command.split())
        except LabError as error:  # it hears no answer: not its own address
            if "3 packets transmitted" not in str(error):
                raise
        stage.arrived("server", 3)


def flood(stage: Stage, ttl: int, box: str) -> None:
    """A spoofed SYN flood: the owners of the addresses reset our SYN-ACKs, and are honest."""
    play = stage.play
    with stage.listen():
        for host in range(1, 31):
            syn = TCP(
                sport=1024 + host * 7, dport=play.port, flags="S", seq=number(), window=512 + host
            )
            network: Any
            if play.family == V6:
                network = IPv6(src=f"fd79::{play.number:x}:{host:x}", dst=play.server, hlim=ttl)
            else:
                source = f"10.79.{128 + play.number % 100}.{host}"
                network = IP(src=source, dst=play.server, ttl=ttl, id=number() & 0xFFFF)
            send_ip(stage.lab, box, network / syn)
        stage.arrived("server", 30)


# ---- round trips that are none ----

LOSE = """
chain forward {{
    type filter hook forward priority 0;
    tcp {way} {port} tcp flags & (syn | ack) == {flags} numgen inc mod 1000 == 0 drop
}}
"""
LOST = {"SYN": ("dport", "syn"), "SYN-ACK": ("sport", "(syn | ack)")}


def retransmitted(stage: Stage, lost: str, end: Callable[[Stage, Conn], None]) -> None:
    """The first SYN or SYN-ACK is lost: what comes a second later is no round trip (Karn)."""
    way, flags = LOST[lost]
    rules = LOSE.format(way=way, port=stage.play.port, flags=flags)
    with stage.rules("r3", rules), stage.connection() as conn:
        conn.talk(1)
        end(stage, conn)


def retransmitted_and_rejected(stage: Stage, lost: str, box: str) -> None:
    """The same, and a firewall resets."""
    way, flags = LOST[lost]
    port = stage.play.port
    for victim in ("client", "server"):
        stage.play.tell(victim, by_distance(difference(box, victim)))
    with (
        stage.rules("r4", LOSE.format(way=way, port=port, flags=flags)),
        stage.rules(box, REJECT.format(port=port)),
        stage.connection() as conn,
    ):
        conn.talk(1)
        provoke(conn.client, b"FORGE")
        provoke(conn.server, b"FORGE")


def half_closed(stage: Stage) -> None:
    """The client has closed its half; the server aborts later. An ACK of a FIN is no round trip."""
    with stage.connection() as conn:
        conn.talk()
        conn.client.shutdown(socket.SHUT_WR)
        assert conn.server.recv(1) == b""
        conn.answer(b"the rest")
        abort(conn.server)
        expect_reset(conn.client)


# ---- 31 and 32 hops ----


def boundary(stage: Stage, ttl: int, longer: bool, end: Callable[[Stage, Conn], None]) -> None:
    """A host so far away that its TTL is near 32 when it comes; the last packet by a longer way."""
    field = "ip6 hoplimit" if stage.play.family == V6 else "ip ttl"
    chain = (
        "chain o { type filter hook output priority 0; "
        f"tcp sport {stage.play.port} {field} set {ttl + stage.hops}; }}"
    )
    with stage.rules("server", chain), stage.connection() as conn:
        conn.talk()
        if longer:
            stage.lab.route("r4", *longer_way(stage))
        end(stage, conn)


def program_hops(stage: Stage, ttl: int, end: Callable[[Stage, Conn], None]) -> None:
    """The server's program sets its hop limit after the handshake; its kernel answers with 64."""
    with stage.connection() as conn:
        set_ttl(conn.server, ttl)
        conn.talk()
        end(stage, conn)


def cases() -> Iterator[Case]:
    """All of them."""
    for family, version in ((V4, "v4"), (V6, "v6")):
        yield from poisoned(family, version)
        yield from strange_syns(family, version)
        yield from round_trips(family, version)


def _case(family: int, version: str, honest: bool) -> Callable[..., Case]:
    def case(name: str, source: str, play: Callable[[Any], None], **more: Any) -> Case:
        more = {"waits": True, **more}
        return Case(f"{name} {version}", source, honest, play, Stage, family, **more)

    return case


def poisoned(family: int, version: str) -> Iterator[Case]:
    """Injected packets."""
    honest, forged = _case(family, version, True), _case(family, version, False)
    partial = functools.partial
    for kind in POISON:
        for box in ("r1", "r4"):
            for end in (lingers, closed, unread):
                yield honest(
                    f"{kind} from {box}, then {end.__name__}",
                    "poison",
                    partial(before_honest, kind=kind, box=box, end=end),
                    fast=box == "r1",
                )
            for firewall in ("r1", "r3", "r5"):
                yield forged(
                    f"{kind} from {box}, then {firewall} rejects",
                    "poison, nft reject",
                    partial(before_reject, kind=kind, box=box, firewall=firewall),
                    fast=box == "r1" and firewall == "r5",
                )
            if family == V4:
                yield forged(
                    f"{kind} from {box}, then hping3",
                    "poison, hping3",
                    partial(before_hping3, kind=kind, box=box),
                    programs=("hping3",),
                )
    for firewall in ("r1", "r3", "r5"):
        yield forged(
            f"page from {firewall}, then it rejects",
            "poison, nft reject",
            partial(before_reject, kind="page", box=firewall, firewall=firewall),
        )
    for kind in ("data", "A", "FA", "SA"):
        for box in ("r1", "r4"):
            yield honest(
                f"lingers, then {kind} from {box}",
                "poison",
                partial(after_honest, kind=kind, box=box),
                fast=box == "r1",
            )


def strange_syns(family: int, version: str) -> Iterator[Case]:
    """SYNs that no kernel sent."""
    case = _case(family, version, True)
    partial = functools.partial
    for name, ttl, window, options in (
        ("nmap", 47, 1024, OPTIONS),
        ("nmap, other TTL", 59, 1024, OPTIONS),
        ("masscan", 255, 1024, []),
        ("zmap", 255, 65535, []),
        ("odd", 37, 512, OPTIONS),
    ):
        yield case(
            f"raw SYN as {name}",
            "scanner",
            partial(raw_syn, ttl=ttl, window=window, options=options),
            fast=True,
        )
    if family == V4:
        yield case("raw SYN by hping3", "scanner", hping3_syn, programs=("hping3",))
    for ttl, box in ((242, "r1"), (244, "r5"), (64, "r3"), (128, "r2")):
        yield case(
            f"SYN flood with TTL {ttl} from {box}",
            "SYN flood",
            partial(flood, ttl=ttl, box=box),
            fast=ttl == 242,
        )


def round_trips(family: int, version: str) -> Iterator[Case]:
    """What looks like a round trip, and distances at a boundary."""
    honest, forged = _case(family, version, True), _case(family, version, False)
    partial = functools.partial
    for lost in LOST:
        for end in (lingers, closed, unread):
            yield honest(
                f"{lost} lost, {end.__name__}",
                "path change",
                partial(retransmitted, lost=lost, end=end),
                fast=True,
            )
        for box in ("r1", "r5"):
            yield forged(
                f"{lost} lost, {box} rejects",
                "nft reject",
                partial(retransmitted_and_rejected, lost=lost, box=box),
            )
    yield honest("half closed, then the server aborts", "linux", half_closed, fast=True)
    for ttl in (31, 32, 33):
        for longer in (False, True):
            for end in (lingers, closed):
                way = ", longer way" if longer else ""
                yield honest(
                    f"TTL {ttl} on arrival{way}, {end.__name__}",
                    "path change",
                    partial(boundary, ttl=ttl, longer=longer, end=end),
                    fast=longer,
                )
    if family == V6:  # v4: tests.accuracy.honest
        for ttl in (30, 128, 255):
            for end in (lingers, closed, unread):
                yield honest(
                    f"program's hop limit {ttl} set later, {end.__name__}",
                    "varied TTL",
                    partial(program_hops, ttl=ttl, end=end),
                    fast=ttl == 30,
                )
