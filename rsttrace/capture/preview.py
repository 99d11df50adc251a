"""A first, quick look at a whole file: which connections have resets, and how long each goes on.

With that, the second look takes apart only what tells something about a reset: the packets of
connections that have one, and of the others their handshakes, which show how far away a peer is.
What comes out is the same as without it (tests/unit/test_capture_preview.py).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from rsttrace.capture.flows import Direction
from rsttrace.capture.layers import Dissector, Segment
from rsttrace.capture.links import ETHERNET_LINK
from rsttrace.capture.reader import Capture
from rsttrace.tcp import FIN, RST, SYN

ASK_EVERY = 8192
"""How often, in packets, it is asked whether to end; a power of two."""

REMEMBERED = 8
"""So many times more connections than flows are looked at; with still more, a file is read in one
pass, which needs less memory."""

PLAIN_IPV4 = b"\x08\x00\x45"
"""In an Ethernet frame from byte 12 on: IPv4 without options."""


class Connection:
    """A connection as the first look found it, in whatever virtual networks it was seen.

    `last` is the number of its last packet, `shaken` says that a SYN was seen, `whole` that each of
    its packets counts: it has a RST, or a SYN after other packets, which may begin a new one, or is
    (perhaps also) in a virtual network.
    `cuts` are the packets before which `Flows` has forgotten it. `done`: nothing of it counts any
    more.
    """

    __slots__ = ("cuts", "done", "last", "plain", "shaken", "whole")

    def __init__(self) -> None:
        self.last = 0
        self.plain = self.shaken = self.whole = self.done = False
        self.cuts: deque[int] | None = None

    def settle(self, direction: Direction) -> None:
        """After a packet of `direction`, no SYN, was taken in: whether what comes still counts.

        Not once both ends have confirmed the handshake, at the one place where it was seen, or if
        there is none: then it adds nothing to what is known of the peers.
        """
        other = direction.other
        if self.whole or other is None:
            return
        confirmed = direction.confirmed and other.confirmed
        if confirmed or not self.shaken:
            self.done = direction.places is None


def plain_key(link: int, data: bytes) -> bytes | None:
    """Addresses and ports of a frame that is surely a TCP segment without RST; ``None``: perhaps.

    Nearly all are: Ethernet, IPv4 without options, not cut up. As `Dissector` would give them.
    """
    if (
        link == ETHERNET_LINK
        and len(data) >= 54
        and data[12:15] == PLAIN_IPV4
        and data[23] == 6
        and not data[21]
        and not data[20] & 0x3F  # a fragment
        and (data[16] or data[17] >= 40)
        and not data[47] & RST
    ):
        return data[26:38]
    return None


class Preview:
    """Looks at all packets of a file, up to where it breaks off.

    `limit`: how many flows `Flows` is going to remember. `forgets_at` is the packet with which it
    begins to forget them; ``None``: it does not. `useful` says whether anything came out,
    `flags_alone` that every segment has SYN, FIN or RST.
    `find` gives the connection of a segment, by its addresses and ports (`bare_key`); ``None``:
    there is none. `progress` is told half of the bytes that are read.
    """

    def __init__(
        self,
        capture: Capture,
        limit: int,
        ended: Callable[[], bool],
        progress: Callable[[int], None] | None,
    ) -> None:
        self._known: dict[bytes, Connection] = {}
        self.find = self._known.get
        self._used: OrderedDict[Connection, None] = OrderedDict()
        self._limit = limit
        self._tagged: set[bytes] = set()
        self.forgets_at: int | None = None
        self.flags_alone = True
        self._progress = progress
        self._told = 0
        self.useful = self._look(capture, ended)
        self._tell(capture.size or 0)
        self._used.clear()
        self._tagged.clear()
        if not self.useful:
            self._known.clear()

    def forget(self, key: bytes) -> None:
        """It is over."""
        self._known.pop(key, None)
        self._known.pop(_reverse(key), None)

    def _tell(self, position: int) -> None:
        """This is one half of the reading."""
        if self._progress is not None:
            self._progress(position // 2 - self._told)
            self._told = position // 2

    def _look(self, capture: Capture, ended: Callable[[], bool]) -> bool:
        known, used, limit = self._known, self._used, self._limit
        newest: Connection | None = None
        segment_of = Dissector().segment
        for number, _, link, data, wire_length, direction, _ in capture:
            if not number % ASK_EVERY:
                self._tell(capture.position)
                if ended():
                    return False
            key = plain_key(link, data)
            if key is not None:
                segment, flags = None, data[47]
            else:
                segment = segment_of(link, data, wire_length, direction)
                if segment is None:
                    continue
                key, flags = bare_key(segment), segment.flags
                if segment.tag:
                    self._tagged.add(segment.key)
                    if len(self._tagged) > limit:
                        return False
            found = known.get(key)
            if found is None:
                found = known[key] = known[_reverse(key)] = Connection()
                if len(known) > 2 * REMEMBERED * limit:
                    return False
            elif found not in used and (found.plain or found.shaken):  # it was forgotten
                found.cuts = found.cuts or deque()
                found.cuts.append(number)
                if flags & RST:
                    found.plain = found.shaken = False  # until it is remembered again
            found.last = number
            if flags & RST or (self._tagged and segment is not None and segment.tag):
                found.whole = True
            if flags & RST:
                continue
            if not flags & SYN:
                found.plain = True
                if not flags & FIN:
                    self.flags_alone = False
            elif found.plain:
                found.whole = True
            else:
                found.shaken = True
            if found is newest:
                continue
            newest = found
            used[found] = None
            used.move_to_end(found)
            if len(used) > limit:
                used.popitem(last=False)
                if self.forgets_at is None:
                    self.forgets_at = number
        # In which networks a flow is remembered, and which one is used when, is not followed here.
        return not self._tagged or (
            self.forgets_at is None and len(used) + len(self._tagged) <= limit
        )


def bare_key(segment: Segment) -> bytes:
    """A segment's addresses and ports, without the virtual network."""
    return segment.key[: 12 if segment.version == 4 else 36]


def _reverse(key: bytes) -> bytes:
    """The other direction's."""
    if len(key) == 12:
        return key[4:8] + key[:4] + key[10:] + key[8:10]
    return key[16:32] + key[:16] + key[34:] + key[32:34]
