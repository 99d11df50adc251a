"""Where in a capture a connection's packets were seen: one baseline for each such place.

A capture on all interfaces of a router, or of taps on both sides of it, shows each packet twice:
with another TTL, MAC and interface. Mixed, the two would look like two senders. A new place is
opened only by a copy: the very packet that another place showed just before. So a forger, whatever
his interface, MAC and TTL, cannot open one of his own: what he sends stays in the baseline of the
connection, and does not fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsttrace.capture.layers import Segment
from rsttrace.limits import COPY_NS

if TYPE_CHECKING:
    from rsttrace.capture.flows import Direction

MOST = 8
"""Places of a connection that are told apart: a packet passes bridges and tunnels of a node."""


def is_copy(direction: Direction, segment: Segment) -> bool:
    """Whether a packet is one that this direction's place showed just before, seen elsewhere."""
    for row in direction.recent:
        if (
            (row.seq, row.ack, row.flags, row.ip_id)
            == (segment.seq, segment.ack, segment.flags, segment.ip_id)
            and (row.payload_len, row.window) == (segment.payload_len, segment.window)
            and (row.ttl != segment.ttl or direction.interface != segment.interface)
            and abs(row.time_ns - segment.time_ns) <= COPY_NS
        ):
            return True
    return False


def of(direction: Direction, segment: Segment) -> Direction | None:
    """The place, among a direction's, that a packet fits; ``None`` where it fits none."""
    best, most = None, 0
    for place in direction.places or (direction,):
        points = _points(place, segment)
        if points > most:
            best, most = place, points
    return best


def best_known(direction: Direction, segment: Segment) -> Direction:
    """The place to judge a RST at: its own, if both ends were seen there; else one where they were.

    On an asymmetric way an interface shows one direction only.
    """
    places = direction.places
    if places is None:
        return direction
    own = of(direction, segment)
    if own is not None and own.packets and own.other is not None and own.other.packets:
        return own
    whole = [
        place
        for place in places
        if place.other is not None and place.other.packets and (place.packets or not own)
    ]
    if own is not None and own.other is not None and own.other.packets:
        return own  # nothing from the RST's sender, at any place or at this one
    return whole[0] if whole else own or places[0]


def _points(place: Direction, segment: Segment) -> int:
    """How well a packet fits a place: interface and source MAC, else its destination's MAC."""
    data, at, other = segment.data, segment.mac, place.other
    mac = data[at : at + 6] if at >= 0 else None
    if place.packets:
        if place.interface != segment.interface:
            return 0
        if mac is None or place.mac is None:
            return 3 if place.known_ttl == segment.ttl else 1
        if place.mac == mac:
            return 4
        return 2 if segment.interface else int(place.known_ttl == segment.ttl)
    if other is None or not other.packets:
        return 0
    # In Ethernet the destination comes before the source.
    if at >= 6 and other.mac is not None and data[at - 6 : at] == other.mac:
        return 3
    return 2 if segment.interface and segment.interface == other.interface else 0
