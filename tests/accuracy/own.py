"""What this very machine makes itself: its own firewall, its own raw sockets.

Also a namespace that is taken for a machine of its own knows that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from tests.accuracy.case import Case
from tests.accuracy.forged import reset_by_hping3
from tests.accuracy.stage import V4, V6
from tests.accuracy.stages import WayStage
from tests.lab.harness import provoke

OUTPUT = """
chain output {{
    type filter hook output priority 0;
    tcp {way} {port} @th,256,40 0x464f524745 reject with tcp reset
}}
"""
OUTPUT_SYN = """
chain output {{
    type filter hook output priority 0;
    tcp dport {port} tcp flags & (syn | ack) == syn reject with tcp reset
}}
"""


def rejects(stage: WayStage, end: str, traffic: str, whose: str) -> None:
    """The output chain of the host that is reset rejects what it says."""
    play = stage.to(end)
    victim, way = ("client", "dport") if whose == "client" else (end, "sport")
    play.tell(victim, "proven")
    with (
        stage.rules(victim, OUTPUT.format(way=way, port=play.port)),
        stage.busy(traffic) as conn,
    ):
        provoke(conn.client if whose == "client" else conn.server, b"FORGE")
        stage.arrived(victim, 1)


def refuses(stage: WayStage, end: str) -> None:
    """First contact: the client's own output chain."""
    play = stage.to(end)
    play.tell("client", "proven")
    with stage.rules("client", OUTPUT_SYN.format(port=play.port)), stage.caller() as sock:
        assert sock.connect_ex((play.server, play.port)) != 0
        stage.arrived("client", 1)


def hping3(stage: WayStage, end: str) -> None:
    """hping3 on the very host that is reset."""
    stage.to(end).tell("client", "proven")
    with stage.busy("requests") as conn:
        reset_by_hping3(stage, "client", conn.client)


def tcpkill(stage: WayStage, end: str) -> None:
    """tcpkill on the client's host: whether that is the peer is a matter of words at the server."""
    play = stage.to(end)
    play.tell("client", "proven")
    play.word(end, "indistinguishable")
    with stage.busy("requests") as conn:
        command = ["tcpkill", "-i", "eth0", "-3", "tcp", "port", str(play.port)]
        with stage.program("client", command, ready="listening"):
            provoke(conn.client, b"a request")
            stage.arrived("client", 1)


def cases() -> Iterator[Case]:
    """All of them."""
    partial = functools.partial
    for family, version in ((V4, "v4"), (V6, "v6")):

        def case(
            name: str,
            source: str,
            play: Callable[..., None],
            family: int = family,
            version: str = version,
            **more: Any,
        ) -> Case:
            name = f"{name} {version}"
            return Case(name, source, False, play, WayStage, family, waits=True, **more)

        for whose in ("client", "server"):
            for traffic in ("bulk", "requests", "idle"):
                yield case(
                    f"{whose}'s own output chain rejects, {traffic}",
                    "own firewall",
                    partial(rejects, end="mid", traffic=traffic, whose=whose),
                    fast=True,
                )
        yield case(
            "own output chain refuses", "own firewall", partial(refuses, end="far"), fast=True
        )
        if family == V4:
            for end in ("near", "far"):
                yield case(
                    f"own hping3, {end}",
                    "own raw socket",
                    partial(hping3, end=end),
                    programs=("hping3",),
                )
                yield case(
                    f"own tcpkill, {end}",
                    "own raw socket",
                    partial(tcpkill, end=end),
                    programs=("tcpkill",),
                )
