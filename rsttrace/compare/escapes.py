"""Packets of a connection that passed a NAT box untranslated, and the resets they caused. Pure.

conntrack leaves out of NAT what it calls invalid (nf_nat_inet_fn() in nf_nat_core.c works on
connections only): the packet goes on with the addresses that it had.
"""

from __future__ import annotations

from collections.abc import Sequence

from rsttrace.compare.join import JoinedFlow
from rsttrace.compare.survey import Sighting
from rsttrace.model import Endpoint, Escape, Point
from rsttrace.tcp import RST


def escapes_of(flow: JoinedFlow) -> list[Escape]:
    """What each point saw of a connection with other addresses than the connection's."""
    found = []
    for point in Point:
        seen = _strays(flow, point)
        if not seen:
            continue
        way = flow.toward.get(point, seen[0].way)
        came = [item for item in seen if item.way == way]
        if came:
            found.append(_escape(flow, point, came, [item for item in seen if item.way != way]))
    return found


def escape_words(flow: JoinedFlow, escapes: Sequence[Escape]) -> dict[tuple[Point, int], str]:
    """What is to be said of each RST that such packets drew, or that is one: by point and frame."""
    words: dict[tuple[Point, int], str] = {}
    for escape in escapes:
        for item in _strays(flow, escape.point):
            if item.flags & RST:
                words[escape.point, item.frame] = escape.text
    return words


def _strays(flow: JoinedFlow, point: Point) -> list[Sighting]:
    frames = {frame for at, frame in flow.strays if at is point}
    items = [*flow.seen(point), *flow.resets[point]]
    return sorted((item for item in items if item.frame in frames), key=lambda item: item.frame)


def _escape(
    flow: JoinedFlow, point: Point, came: Sequence[Sighting], went: Sequence[Sighting]
) -> Escape:
    first = came[0]
    seen = flow.source(point, first), flow.destination(point, first)
    wanted = flow.sender(point, first.way), flow.sender(point, 1 - first.way)
    answer = next((item.frame for item in went if item.flags & RST), None)
    elsewhere = (match.at(point.other) for match in flow.matches if match.at(point) == first)
    other = next(elsewhere, None)
    return Escape(
        point=point,
        packets=len(came),
        frame=first.frame,
        other_frame=None if other is None else other.frame,
        src=seen[0],
        dst=seen[1],
        wanted_src=wanted[0],
        wanted_dst=wanted[1],
        reset_frame=answer,
        text=_text(_whose(flow, first), len(came), seen, wanted),
    )


def _whose(flow: JoinedFlow, sighting: Sighting) -> str | None:
    """Whether the client's or the server's packet; ``None`` where nobody was seen to open."""
    known = flow.match.a
    if known is None or known.opener is None:
        return None
    return "client" if known.opener == sighting.way else "server"


def _text(
    whose: str | None,
    packets: int,
    seen: tuple[Endpoint, Endpoint],
    wanted: tuple[Endpoint, Endpoint],
) -> str:
    """``its answer came from 10.244.1.192:8080 instead of 10.96.0.10:80: …``"""
    subject = {"client": "the client's packet", "server": "its answer"}.get(whose or "", "a packet")
    changed = [
        f"{word} {one} instead of {other}"
        for word, one, other in zip(("from", "for"), seen, wanted)
        if one != other
    ]
    back = " back" if whose == "server" else ""
    more = f" ({packets} packets did)" if packets > 1 else ""
    return f"{subject} came {' and '.join(changed)}{more}: it was not translated{back}"
