"""One capture as a vantage point: what connections it saw, then the packets of some of them.

Two passes, so that memory does not grow with the file: `survey` keeps a few numbers of each
connection, `gather` a bounded number of packets of the chosen ones, around their resets.
"""

from __future__ import annotations

import bisect
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

from rsttrace.capture.flows import ACK, FIN, RST, SYN, before
from rsttrace.capture.layers import OUTBOUND, Dissector, Segment
from rsttrace.capture.reader import NO_TIME, Capture
from rsttrace.errors import CaptureError
from rsttrace.limits import IDLE_REUSE_NS
from rsttrace.model import Endpoint
from rsttrace.tcp import address

SKETCH = 12
"""Sequence numbers kept of each connection, to find it at the other point."""

MARKS = 16
"""Resets of a connection around which packets are kept."""

HEAD, BEFORE, AFTER, MOST = 32, 192, 64, 640
"""Packets kept of a connection: its first, those before and after a reset, and all in all."""

PROGRESS_EVERY = 2_000

Progress = Optional[Callable[[int], None]]


class Sight(NamedTuple):
    """A packet as one vantage point saw it.

    `way` is 0 in the direction of the connection's first packet at this point, 1 in the other.
    `ip_id` is -1 for IPv6, which has none; `digest` stands for the TCP options (CRC-32); `mac` is
    the source MAC; `length` the IP packet's. Numbers are in host byte order.
    """

    frame: int
    time_ns: int
    way: int
    ttl: int
    ip_id: int
    flags: int
    seq: int
    ack: int
    window: int
    payload_len: int
    digest: int
    mac: bytes
    outbound: bool

    @property
    def end(self) -> int:
        """The sequence number after its last byte; SYN and FIN count (RFC 9293 §3.4)."""
        taken = self.payload_len + bool(self.flags & SYN) + bool(self.flags & FIN)
        return (self.seq + taken) & 0xFFFFFFFF


class Mark(NamedTuple):
    """A RST's direction and numbers: where in a connection to look closer."""

    way: int
    seq: int
    ack: int


class Brief:
    """A connection in a few numbers. `isn`: each way's initial sequence number, where seen.

    `sketch` is the smallest hashes of (seq, ack) of packets with data: of the same connection two
    points keep mostly the same ones, whichever packets each of them saw.
    """

    __slots__ = (
        "closed",
        "first_frame",
        "first_ns",
        "isn",
        "key",
        "last_frame",
        "last_ns",
        "marks",
        "opener",
        "packets",
        "resets",
        "sketch",
        "version",
    )

    def __init__(self, segment: Segment, frame: int) -> None:
        self.key = segment.key
        self.version = segment.version
        self.first_frame = self.last_frame = frame
        self.first_ns = self.last_ns = segment.time_ns
        self.isn: list[int | None] = [None, None]
        self.opener: int | None = None
        self.packets = [0, 0]
        self.closed = False
        self.resets = 0
        self.marks: list[Mark] = []
        self.sketch: list[tuple[int, int]] = []

    def begins_anew(self, segment: Segment, way: int) -> bool:
        """Whether this packet begins another connection with the same addresses and ports."""
        if segment.flags & (SYN | ACK | RST) != SYN:
            return False
        if self.isn[way] == segment.seq:
            return False
        return self.closed or bool(self.resets) or segment.time_ns - self.last_ns > IDLE_REUSE_NS

    def learn(self, segment: Segment, way: int, frame: int) -> None:
        """Take a packet in."""
        flags = segment.flags
        self.last_frame, self.last_ns = frame, segment.time_ns
        self.packets[way] += 1
        if flags & RST:
            self.resets += 1
            if len(self.marks) < MARKS:
                self.marks.append(Mark(way, segment.seq, segment.ack))
            return
        if flags & SYN:
            if self.isn[way] is None:
                self.isn[way] = segment.seq
            if self.opener is None:
                self.opener = 1 - way if flags & ACK else way
        if flags & FIN:
            self.closed = True
        if segment.payload_len:
            self._sketch(hash((segment.seq, segment.ack)), way)

    def _sketch(self, value: int, way: int) -> None:
        sketch = self.sketch
        if len(sketch) == SKETCH and value >= sketch[-1][0]:
            return
        item = (value, way)
        at = bisect.bisect_left(sketch, item)
        if at < len(sketch) and sketch[at] == item:
            return
        sketch.insert(at, item)
        del sketch[SKETCH:]

    @property
    def address_key(self) -> bytes:
        """Addresses and ports without what the capturing point adds to `key` (VXLAN network)."""
        return self.key[: 12 if self.version == 4 else 36]

    @property
    def reverse_key(self) -> bytes:
        """The other direction's `address_key`."""
        return reverse(self.address_key, self.version)

    @property
    def ends(self) -> tuple[Endpoint, Endpoint]:
        """Source and destination of way 0."""
        key = self.key
        size = 4 if self.version == 4 else 16
        ips = [_ip(key[:size]), _ip(key[size : 2 * size])]
        ports = [int.from_bytes(key[2 * size + at : 2 * size + at + 2], "big") for at in (0, 2)]
        return Endpoint(ips[0], ports[0]), Endpoint(ips[1], ports[1])


def reverse(key: bytes, version: int) -> bytes:
    """Addresses and ports the other way round."""
    if version == 4:
        return key[4:8] + key[:4] + key[10:12] + key[8:10]
    return key[16:32] + key[:16] + key[34:36] + key[32:34]


def _ip(raw: bytes) -> str:
    return address(b"\0" * 10 + b"\xff\xff" + raw if len(raw) == 4 else raw)


@dataclass
class Survey:
    """What a capture holds. `forgotten` counts connections that found no room."""

    name: str
    briefs: list[Brief] = field(default_factory=list)
    packets: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    problem: str | None = None
    forgotten: int = 0


@dataclass
class Record:
    """The packets kept of one connection, in the order of the file.

    `spans` are the times between which every packet of it is kept; ``None`` at an end: as far as
    the capture reaches.
    """

    brief: Brief
    sights: list[Sight] = field(default_factory=list)
    spans: list[tuple[int | None, int | None]] = field(default_factory=list)

    def covers(self, first_ns: int, last_ns: int) -> bool:
        """Whether all packets between two times are kept, as far as the capture reaches."""
        return any(
            (start is None or start < first_ns) and (end is None or last_ns < end)
            for start, end in self.spans
        )


def segments(
    capture: Capture, progress: Progress = None, ended: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, Segment]]:
    """Frame number and TCP segment of each packet that has a time."""
    segment_of = Dissector().segment
    told = 0
    for number, time_ns, link, data, wire_length, direction, _ in capture:
        if number % PROGRESS_EVERY == 0:
            if ended():
                return
            if progress is not None:
                position = capture.position
                progress(position - told)
                told = position
        segment = segment_of(link, data, wire_length, direction)
        if segment is None or time_ns == NO_TIME:
            continue
        segment.time_ns = time_ns
        yield number, segment
    if progress is not None:
        progress(capture.position - told)


def survey(
    name: str,
    limit: int,
    progress: Progress = None,
    ended: Callable[[], bool] = lambda: False,
) -> Survey:
    """Look through a capture once.

    At most `limit` connections with resets and as many without are remembered; of the latter the
    least recently used are forgotten first.

    Raises:
        CaptureError: it cannot be opened, is no capture, or is a pipe, which cannot be read twice.
    """
    found = Survey(name)
    plain: OrderedDict[bytes, Brief] = OrderedDict()
    marked: OrderedDict[bytes, Brief] = OrderedDict()
    done: deque[Brief] = deque(maxlen=limit)
    with Capture(name) as capture:
        if capture.size is None:
            raise CaptureError(
                f"{name!a} is a pipe: compare reads each capture several times",
                hint="write it to a file first",
            )
        for frame, segment in segments(capture, progress, ended):
            now = segment.time_ns
            found.packets += 1
            found.first_ns = now if found.first_ns is None else min(found.first_ns, now)
            found.last_ns = now if found.last_ns is None else max(found.last_ns, now)
            key, other = segment.key, segment.reverse_key
            way, brief = 0, marked.get(key) or plain.get(key)
            if brief is None and (brief := marked.get(other) or plain.get(other)) is not None:
                way, key = 1, other
            if brief is not None and brief.begins_anew(segment, way):
                if (marked if brief.resets else plain).pop(key, None) is not None:
                    found.forgotten += len(done) == limit
                    done.append(brief)
                brief = None
            if brief is None:
                way, key = 0, segment.key
                brief = plain[key] = Brief(segment, frame)
                if len(plain) > limit:
                    plain.popitem(last=False)
                    found.forgotten += 1
            had = brief.resets
            brief.learn(segment, way, frame)
            if brief.resets and not had:
                plain.pop(key, None)
                marked[key] = brief
                if len(marked) > limit:
                    marked.popitem(last=False)
                    found.forgotten += 1
            elif not had:
                plain.move_to_end(key)
        found.problem = capture.problem
    found.briefs = sorted([*done, *marked.values(), *plain.values()], key=_first_frame)
    return found


def _first_frame(brief: Brief) -> int:
    return brief.first_frame


class _Collector:
    """Keeps the packets of one connection: the first ones, and those around resets.

    `marks` are RSTs that the other point saw, in this point's directions: where the sequence
    numbers pass one, it is taken as a reset here.
    """

    def __init__(self, brief: Brief, marks: Iterable[Mark], most: int) -> None:
        self.brief = brief
        self._marks = list(marks)
        self._most = most
        self._kept: list[tuple[int, Sight]] = []
        self._ring: deque[tuple[int, Sight]] = deque(maxlen=BEFORE)
        self._after = HEAD
        self._count = 0

    def add(self, sight: Sight) -> None:
        """Take a packet in."""
        item = (self._count, sight)
        self._count += 1
        if sight.flags & RST or self._passes(sight):
            self._flush()
            self._after = AFTER
        if self._after and len(self._kept) < self._most:
            self._after -= 1
            self._kept.append(item)
        else:
            self._ring.append(item)

    def _passes(self, sight: Sight) -> bool:
        passed = False
        for mark in list(self._marks):
            number = sight.end if sight.way == mark.way else sight.ack
            if not sight.flags & SYN and mark.seq and not before(number, mark.seq):
                self._marks.remove(mark)
                passed = True
        return passed

    def _flush(self) -> None:
        room = self._most - len(self._kept)
        ring = list(self._ring)
        self._kept += ring[max(0, len(ring) - room) :] if room > 0 else []
        self._ring.clear()

    def record(self) -> Record:
        """What was kept. The newest packets always are."""
        kept = [*self._kept, *self._ring]
        made = Record(self.brief, [sight for _, sight in kept])
        start = 0
        for at in range(1, len(kept) + 1):
            if at < len(kept) and kept[at][0] == kept[at - 1][0] + 1:
                continue
            first, last = kept[start], kept[at - 1]
            made.spans.append(
                (
                    None if first[0] == 0 else first[1].time_ns,
                    None if last[0] == self._count - 1 else last[1].time_ns,
                )
            )
            start = at
        return made


def gather(
    name: str,
    chosen: Iterable[tuple[Brief, Iterable[Mark], int]],
    progress: Progress = None,
    ended: Callable[[], bool] = lambda: False,
) -> dict[int, Record]:
    """Read a capture again for the packets of some connections: by their first frame.

    `chosen`: each connection with marks beside its own resets, and how many packets to keep.

    Raises:
        CaptureError: it cannot be opened any more.
    """
    wanted: dict[bytes, list[_Collector]] = {}
    collectors = [_Collector(*item) for item in chosen]
    for collector in collectors:
        wanted.setdefault(collector.brief.key, []).append(collector)
    with Capture(name) as capture:
        for frame, segment in segments(capture, progress, ended):
            way, found = 0, wanted.get(segment.key)
            if found is None:
                way, found = 1, wanted.get(segment.reverse_key)
                if found is None:
                    continue
            for collector in found:
                brief = collector.brief
                if brief.first_frame <= frame <= brief.last_frame:
                    collector.add(sight_of(segment, way, frame))
                    break
    return {collector.brief.first_frame: collector.record() for collector in collectors}


def sight_of(segment: Segment, way: int, frame: int) -> Sight:
    """What is kept of a packet."""
    data = segment.data
    options = data[segment.l4 + 20 : min(segment.l4 + segment.offset * 4, segment.end)]
    return Sight(
        frame=frame,
        time_ns=segment.time_ns,
        way=way,
        ttl=segment.ttl,
        ip_id=segment.ip_id if segment.version == 4 else -1,
        flags=segment.flags,
        seq=segment.seq,
        ack=segment.ack,
        window=-1 if segment.window is None else segment.window,
        payload_len=segment.payload_len,
        digest=zlib.crc32(options),
        mac=data[segment.mac : segment.mac + 6] if segment.mac >= 0 else b"",
        outbound=segment.direction == OUTBOUND,
    )
