"""What two vantage points of the same connections say together."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsttrace.model.reset import Endpoint


class Point(enum.Enum):
    """One of the two vantage points: a place in the network where packets were recorded."""

    A = "A"
    B = "B"

    def __str__(self) -> str:
        return self.value

    @property
    def other(self) -> Point:
        """The other one."""
        return Point.B if self is Point.A else Point.A


class Fate(enum.Enum):
    """What another vantage point of the same connection says of a RST.

    ``left``: it was seen there too, on its way here. ``never-sent``: it should have passed there
    and did not. ``arrived`` and ``never-arrived`` are for RSTs on their way there.
    """

    LEFT = "left"
    NEVER_SENT = "never-sent"
    ARRIVED = "arrived"
    NEVER_ARRIVED = "never-arrived"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class OtherEnd:
    """A RST as seen from the other vantage point (`point`), whose data is `file`.

    `frame` is its frame there. `at_sender`: the other point is the sending host itself, as far as
    TTL and MAC tell. `logged`: the other point is a log of rsttrace, not a capture: it cannot prove
    that a RST was not sent. `why` is the reason for ``unknown``, else what the statement rests on.
    `trigger_arrived` says whether the packet that most likely provoked it reached the other point,
    `swapped_frame` is the frame there of the packet that left in its place, `swapped_sure` whether
    the IP ID says so too. `where` is the position between the points, in words. `escaped` says, in
    one sentence, which packet escaped NAT, where this RST is the answer to one. `firewall`: the
    other point says that its firewall made it; with `at_sender`, as far away as the peer.
    """

    fate: Fate
    point: Point
    file: str
    frame: int | None = None
    at_sender: bool = False
    logged: bool = False
    why: str = ""
    trigger_arrived: bool | None = None
    swapped_frame: int | None = None
    swapped_sure: bool = False
    where: str = ""
    escaped: str = ""
    firewall: bool = False


@dataclass(frozen=True)
class Position:
    """Where between the vantage points A and B a device sits that forges.

    `from_a` and `from_b` are routers between it and the points, `total` those between the points,
    each ``None`` where it cannot be told. `sure` is ``likely``, ``possible`` or ``unknown``.
    `within` is the share of the way from the point `within_of` (0) to the other one (1) up to
    which timing allows it to be. `text` is one sentence, `notes` are what it rests on.
    """

    from_a: int | None
    from_b: int | None
    total: int | None
    sure: str
    text: str
    notes: tuple[str, ...] = ()
    within: float | None = None
    within_of: Point | None = None
    kind: str = "router"


@dataclass(frozen=True)
class ComparedReset:
    """What a comparison says of one RST. `point` is where it was seen."""

    point: Point
    frame: int | None
    received: bool | None
    src: Endpoint
    dst: Endpoint
    other: OtherEnd
    position: Position | None = None


@dataclass(frozen=True)
class Escape:
    """Packets of a connection that `point` saw with addresses that are not the connection's there:
    NAT left them as they were.

    `frame` is the first of `packets`, `other_frame` the same packet at the other point. `src` and
    `dst` are its addresses, `wanted_src` and `wanted_dst` what they ought to be. `reset_frame` is
    the first RST that answered. `text` is one sentence.
    """

    point: Point
    packets: int
    frame: int
    other_frame: int | None
    src: Endpoint
    dst: Endpoint
    wanted_src: Endpoint
    wanted_dst: Endpoint
    reset_frame: int | None
    text: str


@dataclass(frozen=True)
class ComparedFlow:
    """One connection at both points; `a` and `b` are its ends as each point sees them.

    The first end is the one that opened it, where the handshake was seen. `how` is ``addresses``,
    ``initial-sequence-numbers``, ``shifted-numbers``, ``sequence-numbers``, or why it was not
    compared: ``ambiguous``, ``renumbered``, ``one-sided``. `sure`: ``sure``, ``likely``,
    ``possible`` or ``unknown``.
    """

    a: tuple[Endpoint, Endpoint] | None
    b: tuple[Endpoint, Endpoint] | None
    how: str
    sure: str
    text: str
    resets: tuple[ComparedReset, ...] = ()
    escapes: tuple[Escape, ...] = ()


@dataclass(frozen=True)
class Clocks:
    """How far B's clock is ahead of A's, in nanoseconds.

    `lower` and `upper` bound it: no packet arrives before it left. `offset` is their middle
    (RFC 5905 §8: half the round trip is the largest error) at the middle of the comparison;
    ``None`` where packets were seen one way only. `drift_ppm` is how much B's clock gains.
    `steady` is false where packets contradict each other: a clock was set in between.
    `from_a` and `from_b` count the packets it rests on.
    """

    offset: int | None
    lower: int | None
    upper: int | None
    drift_ppm: float
    steady: bool
    from_a: int
    from_b: int

    @property
    def error(self) -> int | None:
        """How wrong `offset` can be: half of the least round trip between the points."""
        if self.lower is None or self.upper is None:
            return None
        return abs(self.upper - self.lower) // 2


@dataclass(frozen=True)
class Traffic:
    """Packets of the compared connections from one point to the other, resets apart.

    `left` passed the first point while the second was watching; `lost` of them did not arrive.
    `injected` arrived and had never left. `swapped` of the lost arrived as another packet.
    `hops` is how many routers decremented their TTL in between.
    """

    left: int
    arrived: int
    lost: int
    injected: int
    swapped: int
    hops: int | None


@dataclass(frozen=True)
class PointFile:
    """What a vantage point recorded: a capture, or (`logged`) JSON lines of rsttrace.

    `first_ns` and `last_ns` are the times of its first and last packet (entry), by its own clock;
    `packets` counts TCP packets, ``None`` for a log. `address` is the one address behind it, if it
    is one. It was watching at least from `from_ns` until `until_ns`, and lost `dropped` packets
    (log: resets); ``None`` where nothing tells.
    """

    point: Point
    file: str
    logged: bool
    packets: int | None
    flows: int | None
    resets: int
    first_ns: int | None
    last_ns: int | None
    problem: str | None = None
    address: str | None = None
    from_ns: int | None = None
    until_ns: int | None = None
    dropped: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Two vantage points of the same connections, compared.

    `matched` counts connections seen at both, by how they were matched; `flows` are those with
    resets, or with packets that escaped NAT. `ab` and `ba` are the packets on their way from A to B
    and back. `positions` puts each forging device on the path, with how many resets say so. `notes`
    say what could not be known.
    """

    a: PointFile
    b: PointFile
    matched: dict[str, int]
    clocks: Clocks | None
    ab: Traffic | None
    ba: Traffic | None
    flows: tuple[ComparedFlow, ...] = ()
    positions: tuple[tuple[Position, int], ...] = ()
    notes: tuple[str, ...] = ()
