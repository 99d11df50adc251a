"""Resets that only their shape, numbers or repetition give away: the TTL is the peer's.

Boxes that copy TTLs, boxes that know a live socket's shape but not its timestamps, bridges that
turn packets into resets in place; and two resets of one connection with different makers.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Iterator
from typing import Any

from tests.accuracy.case import Case
from tests.accuracy.forge import COPIES
from tests.accuracy.forged import COUNT, DROP_WORD, by_distance
from tests.accuracy.stage import V4, V6, Conn, Play, abort, both_reset
from tests.accuracy.stages import SwapStage, WayStage
from tests.lab.harness import expect_reset, provoke

STAMPS = ("stamps_foreign", "stamps_val", "stamps_past", "stamps_secr", "unstamped")
"""A live socket's shape with timestamps that are not the peer's."""

PROVEN = ("payload_ttl", "counting")
"""What no stack sends, or not to one victim."""

PROVEN_V4 = ("mirror_ttl", "turned")
"""Those that carry our IP ID."""

BARE_V6 = ("random_id_ttl",)
"""Those that are, where there is no IP ID, of the shape of a host without a socket."""


def tell(play: Play, shape: str, victim: str, traffic: str) -> None:
    """How sure it is who made a shape."""
    whose = "" if victim == "client" else "client "
    if shape in PROVEN or (shape in PROVEN_V4 and play.family == V4):
        play.tell(victim, "proven")
    elif shape == "live":
        play.tell(victim, "undecidable", f"{whose}lingers, {play.end}, {traffic}")
    elif shape in BARE_V6 and play.family == V6:
        whose = "" if victim == "client" else "client's "
        play.tell(victim, "undecidable", f"{whose}socket vanished, {play.end}, {traffic}")
    else:
        play.tell(victim, "decidable")


def shaped(stage: WayStage, end: str, box: int, shape: str, traffic: str) -> None:
    """A box swallows a request and resets both ends."""
    play = stage.to(end)
    for victim in ("client", end):
        tell(play, shape, victim, traffic)
    count = 3 if shape == "counting" else COUNT.get(shape, 1)
    with stage.rules(f"w{box}", DROP_WORD.format(port=play.port)), stage.busy(traffic) as conn:
        conn.client.sendall(f"FORGE w{box} {shape} both drop\n".encode())
        both_reset(conn)
        for victim in ("client", end):
            stage.arrived(victim, count)


def pf(stage: WayStage, end: str, box: int) -> None:
    """A pf firewall, at its own distance."""
    play = stage.to(end)
    play.tell("client", by_distance(play.hops + 1 - box))
    play.tell(end, by_distance(box))
    with stage.rules(f"w{box}", DROP_WORD.format(port=play.port)), stage.busy("requests") as conn:
        conn.client.sendall(f"FORGE w{box} pf both drop\n".encode())
        both_reset(conn)


def two_makers(stage: WayStage, end: str, shape: str, trust: str) -> None:
    """A box resets the client; the server, to which the request goes on, aborts.

    Its RST comes too late now and then: its ACK has drawn one from the client's host before.
    """
    play = stage.to(end)
    play.tell("client", trust)
    with stage.busy("requests") as conn:
        request = f"FORGE w2 {shape} client pass\n".encode()
        provoke(conn.client, request)
        assert conn.server.recv(len(request)) == request
        abort(conn.server)
        stage.arrived("client", COUNT.get(shape, 1))


# ---- swaps in place ----

ALONE = {
    "unstamped": "decidable",  # no socket that has agreed on timestamps leaves them out
    "stamped-r": "decidable",  # nor puts them into a reset without ACK
    "payload-bare": "proven",
}
"""Ways to turn an answer into a reset that are told by one of them."""


def swapped(stage: SwapStage, how: str, victim: str, trust: str) -> None:
    """A packet with data becomes a reset."""
    stage.play.tell(victim, trust)
    with stage.connection() as conn:
        conn.talk()
        sender, receiver = _towards(conn, victim)
        sender.sendall(f"SWAP {how}".encode())
        expect_reset(receiver)


def again(stage: SwapStage, how: str, victim: str, count: int) -> None:
    """The same, and so does each retransmission: no live socket resets twice."""
    stage.play.tell(victim, "late")
    with stage.connection() as conn:
        conn.talk()
        # Acknowledges all, or what is sent again is an earlier packet.
        (conn.ask if victim == "client" else conn.answer)(b"and now?")
        sender, receiver = _towards(conn, victim)
        sender.sendall(f"SWAP {how}".encode())
        expect_reset(receiver)
        stage.arrived(victim, count)


def _towards(conn: Conn, victim: str) -> tuple[socket.socket, socket.socket]:
    return (conn.server, conn.client) if victim == "client" else (conn.client, conn.server)


def swapped_ack(stage: SwapStage, goes_on: bool) -> None:
    """The server's bare ACK becomes a reset, all else kept: as a live socket's."""
    if goes_on:
        stage.play.tell("client", "late")
    else:
        stage.play.tell("client", "undecidable", "lingers, near, requests")
    with stage.connection() as conn:
        conn.talk()
        provoke(conn.client, b"SWAPNEXT perfect")
        if goes_on:
            provoke(conn.server, b"the answer")


def cases() -> Iterator[Case]:
    """All of them."""
    made = functools.partial
    for family, version in ((V4, "v4"), (V6, "v6")):

        def case(
            name: str,
            source: str,
            play: Callable[..., None],
            family: int = family,
            version: str = version,
            **more: Any,
        ) -> Case:
            more = {"stage": WayStage, "waits": True, **more}
            return Case(f"{name} {version}", source, False, play, family=family, **more)

        shapes = (*(f"{name}_ttl" for name in COPIES), "counting", "turned", "live", *STAMPS)
        for number, shape in enumerate(shapes):
            for end, box in (("mid", 2), ("far", 11)):
                for turn, traffic in enumerate(("bulk", "requests", "idle")):
                    yield case(
                        f"{shape} at w{box} of {end}, {traffic}",
                        f"scapy: {shape}",
                        made(shaped, end=end, box=box, shape=shape, traffic=traffic),
                        fast=end == "mid" and turn == number % 3,
                    )
        for end, box in (("near", 2), ("mid", 1), ("mid", 4), ("far", 11)):
            yield case(f"pf at w{box} of {end}", "scapy: pf", made(pf, end=end, box=box))
        for end in ("near", "mid", "far"):
            for shape, trust in (("dpvs", "decidable"), ("snort", "decidable")):
                yield case(
                    f"{shape} at w2 of {end}, then the server aborts",
                    f"scapy: {shape}",
                    made(two_makers, end=end, shape=shape, trust=trust),
                    fast=end == "mid",
                )
        for victim in ("client", "server"):
            for how, trust in ALONE.items():
                yield case(
                    f"swapped in place towards {victim}: {how}",
                    "bridge: swap",
                    made(swapped, how=how, victim=victim, trust=trust),
                    stage=SwapStage,
                    fast=True,
                )
            for how in ("perfect", "payload", "bare"):
                yield case(
                    f"swapped in place towards {victim}, again and again: {how}",
                    "bridge: swap",
                    made(again, how=how, victim=victim, count=4 if how == "perfect" else 3),
                    stage=SwapStage,
                    waits=False,  # in a crowd, what is late is sent again too early
                    fast=how == "perfect",
                )
        for goes_on in (False, True):
            after = ", then it answers" if goes_on else ""
            yield case(
                f"a bare ACK swapped in place{after}",
                "bridge: swap",
                made(swapped_ack, goes_on=goes_on),
                stage=SwapStage,
            )
