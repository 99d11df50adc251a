"""One capture of a vantage point: what connections it saw, then the packets of some of them.

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

from rsttrace.capture.extent import Extent
from rsttrace.capture.layers import Dissector, Segment
from rsttrace.capture.reader import Capture
from rsttrace.errors import CaptureError
from rsttrace.limits import IDLE_REUSE_NS
from rsttrace.model import NO_TIME, Endpoint
from rsttrace.tcp import (
    ACK,
    FIN,
    RST,
    SYN,
    address,
    advance,
    before,
    sequence_length,
    timestamps_at,
)

SKETCH = 12
"""Sequence numbers kept of each connection, to find it at the other point."""

SYNS = 4
"""SYNs with different numbers kept of each direction: the first ones."""

MARKS = 16
"""Resets of a connection around which packets are kept."""

HEAD, BEFORE, AFTER, MOST = 32, 192, 64, 640
"""Packets kept of a connection: its first, those before and after a reset, and all in all."""

PROGRESS_EVERY = 2_000

Progress = Optional[Callable[[int], None]]


class Sighting(NamedTuple):
    """One packet as one vantage point saw it.

    `way` is 0 in the direction of the connection's first packet at this point, 1 in the other.
    `ip_id` is ``None`` for IPv6, which has none; `window` where the capture cut it off. `digest`
    stands for the TCP options (CRC-32); `mac` is the source MAC, ``None`` without Ethernet.
    Numbers are in host byte order.
    """

    frame: int
    time_ns: int
    way: int
    ttl: int
    ip_id: int | None
    flags: int
    seq: int
    ack: int
    window: int | None
    payload_len: int
    digest: int
    mac: bytes | None

    @property
    def telling_id(self) -> int | None:
        """The IP ID where it tells packets apart: many senders give 0, or 1, to all."""
        return self.ip_id if self.ip_id is not None and self.ip_id > 1 else None

    @property
    def end(self) -> int:
        """The sequence number after its last byte; SYN and FIN count (RFC 9293 §3.4)."""
        return advance(self.seq, sequence_length(self.flags, self.payload_len))


class Mark(NamedTuple):
    """A RST's way and numbers: where in a connection to look closer."""

    way: int
    seq: int
    ack: int


class Syn(NamedTuple):
    """A SYN, by what a box on the path leaves as it is. `tsval` and `ip_id` are ``None`` where they
    tell nothing: there is none, or it is 0 or 1, as many senders have it."""

    seq: int
    tsval: int | None
    ip_id: int | None
    window: int | None

    def is_same(self, other: Syn) -> bool:
        """Whether both are one packet, sequence number apart: the timestamp says so (RFC 7323),
        or, where there is none, IP ID and window."""
        if self.tsval is not None or other.tsval is not None:
            return self.tsval == other.tsval
        same = self.ip_id is not None and self.ip_id == other.ip_id
        return same and self.window == other.window


class _Opening(NamedTuple):
    """A SYN with another number in a connection that lives: a new one begins if it is answered."""

    way: int
    syn: Syn
    key: bytes
    frame: int


class FlowSummary:
    """A connection in a few numbers. `syns`: each way's SYNs with different numbers, where seen.

    Beside its own there may be one that was injected, or that a second host sent. `interfaces` are
    those of the capture that it was seen on, by their place in `Survey.extents`.

    `sketch` is the smallest hashes of (seq, ack) of packets with data: of the same connection two
    points keep mostly the same ones, whichever packets each of them saw.
    """

    __slots__ = (
        "closed",
        "first_frame",
        "interfaces",
        "key",
        "last_frame",
        "last_ns",
        "marks",
        "opener",
        "opening",
        "resets",
        "sketch",
        "syns",
        "version",
    )

    def __init__(self, key: bytes, version: int, frame: int, time_ns: int) -> None:
        self.key = key
        self.version = version
        self.first_frame = self.last_frame = frame
        self.last_ns = time_ns
        self.syns: tuple[list[Syn], list[Syn]] = ([], [])
        self.opening: _Opening | None = None
        self.interfaces: tuple[int, ...] = ()
        self.opener: int | None = None
        self.closed = False
        self.resets = 0
        self.marks: list[Mark] = []
        self.sketch: list[tuple[int, int]] = []

    def begins_anew(self, segment: Segment, way: int) -> bool:
        """Whether this packet begins another connection with the same addresses and ports."""
        if segment.flags & (SYN | ACK | RST) != SYN:
            return False
        if self.syns[way] and self.syns[way][0].seq == segment.seq:
            return False
        return self.closed or bool(self.resets) or segment.time_ns - self.last_ns > IDLE_REUSE_NS

    def began(self, segment: Segment, way: int) -> FlowSummary | None:
        """The connection that a SYN has begun on these addresses and ports, once it is answered;
        that SYN and what follows are then no longer part of this one."""
        opening = self.opening
        if opening is None or segment.flags & (SYN | ACK | RST) != SYN | ACK:
            return None
        if way == opening.way or segment.ack != advance(opening.syn.seq, 1):
            return None
        if self.has_syn(way, segment.seq):
            return None
        made = FlowSummary(opening.key, self.version, opening.frame, segment.time_ns)
        made.syns[0].append(opening.syn)
        made.opener = 0
        made.interfaces = self.interfaces
        if opening.syn in self.syns[opening.way]:
            self.syns[opening.way].remove(opening.syn)
        self.last_frame = opening.frame - 1
        return made

    def has_syn(self, way: int, number: int) -> bool:
        """Whether a SYN with this number was seen."""
        return any(syn.seq == number for syn in self.syns[way])

    def learn(self, segment: Segment, way: int, frame: int, interface: int) -> None:
        """Take a packet in."""
        flags = segment.flags
        self.last_frame, self.last_ns = frame, segment.time_ns
        if interface not in self.interfaces:
            self.interfaces += (interface,)
        if flags & RST:
            self.opening = None
            self.resets += 1
            if len(self.marks) < MARKS:
                self.marks.append(Mark(way, segment.seq, segment.ack))
            return
        if flags & SYN:
            self._open(segment, way, frame)
        if flags & FIN:
            self.closed = True
        if segment.payload_len:
            self._sketch(hash((segment.seq, segment.ack)), way)

    def _open(self, segment: Segment, way: int, frame: int) -> None:
        """Take a SYN in."""
        if self.opener is None:
            self.opener = 1 - way if segment.flags & ACK else way
        if self.has_syn(way, segment.seq):
            return
        syn = _syn_of(segment)
        if not segment.flags & ACK and self.syns[way] and self.syns[1 - way]:
            self.opening = _Opening(way, syn, segment.key, frame)
        if len(self.syns[way]) < SYNS:
            self.syns[way].append(syn)

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
        return _reverse(self.address_key, self.version)

    @property
    def ends(self) -> tuple[Endpoint, Endpoint]:
        """Source and destination of way 0."""
        key = self.key
        size = 4 if self.version == 4 else 16
        ips = [_ip(key[:size]), _ip(key[size : 2 * size])]
        ports = [int.from_bytes(key[2 * size + at : 2 * size + at + 2], "big") for at in (0, 2)]
        return Endpoint(ips[0], ports[0]), Endpoint(ips[1], ports[1])


def _syn_of(segment: Segment) -> Syn:
    end = min(segment.l4 + segment.offset * 4, segment.end)
    options = segment.data[segment.l4 + 20 : end]
    at = timestamps_at(options)
    tsval = int.from_bytes(options[at : at + 4], "big") if at >= 0 else 0
    ip_id = segment.ip_id if segment.version == 4 and segment.ip_id > 1 else None
    return Syn(segment.seq, tsval or None, ip_id, segment.window)


def _reverse(key: bytes, version: int) -> bytes:
    """Addresses and ports the other way round."""
    if version == 4:
        return key[4:8] + key[:4] + key[10:12] + key[8:10]
    return key[16:32] + key[:16] + key[34:36] + key[32:34]


def _ip(raw: bytes) -> str:
    return address(b"\0" * 10 + b"\xff\xff" + raw if len(raw) == 4 else raw)


@dataclass
class Survey:
    """What a capture holds. `forgotten` counts connections that found no room.

    `first_ns` and `last_ns` are the times of its first and last TCP packet, `extents` its
    interfaces, `until_ns` the time until which it went on, as the user says.
    """

    file: str
    flows: list[FlowSummary] = field(default_factory=list)
    packets: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    problem: str | None = None
    forgotten: int = 0
    extents: list[Extent] = field(default_factory=list)
    until_ns: int | None = None

    def span(self, flow: FlowSummary | None = None) -> tuple[int, int] | None:
        """From when until when it was watching, on every interface that showed this connection
        (``None``: on all): what is surely known, by packets of any kind, by what the file says of
        itself, and by the user. ``None``: nothing is known.
        """
        spans = [extent.span for extent in self._watched(flow)]
        known = [span for span in spans if span is not None]
        if not known or len(known) < len(spans):
            return None
        start, end = max(span[0] for span in known), min(span[1] for span in known)
        if self.until_ns is not None:
            end = max(end, self.until_ns)
        return start, end

    def dropped(self, flow: FlowSummary | None = None) -> int | None:
        """Packets that were lost while capturing there; ``None``: the file does not tell."""
        counts = [extent.dropped for extent in self._watched(flow)]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    def _watched(self, flow: FlowSummary | None) -> list[Extent]:
        if flow is None:
            return self.extents
        return [self.extents[number] for number in flow.interfaces]


@dataclass
class FlowPackets:
    """The packets kept of one connection, in the order of the file.

    `spans` are the times between which every packet of it is kept; ``None`` at an end: as far as
    the capture reaches.
    """

    flow: FlowSummary
    sightings: list[Sighting] = field(default_factory=list)
    spans: list[tuple[int | None, int | None]] = field(default_factory=list)

    def covers(self, first_ns: int, last_ns: int) -> bool:
        """Whether all packets between two times are kept, as far as the capture reaches."""
        return any(
            (start is None or start < first_ns) and (end is None or last_ns < end)
            for start, end in self.spans
        )


class _Extents:
    """The interfaces of a capture, as its packets and the file itself tell."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._numbers: dict[tuple[int, int], int] = {}
        self.found: list[Extent] = []

    def add(self, interface: int, time_ns: int) -> int:
        """Count a packet; returns its interface's place in `found`."""
        key = (self._capture.section, interface)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.found)
            self.found.append(self._capture.extents.setdefault(key, Extent()))
        self.found[number].add(time_ns)
        return number


def _segments(
    capture: Capture,
    progress: Progress = None,
    ended: Callable[[], bool] = lambda: False,
    extents: _Extents | None = None,
) -> Iterator[tuple[int, Segment, int]]:
    """Frame number, TCP segment and interface (by `extents`) of each packet that has a time."""
    segment_of = Dissector().segment
    told = place = 0
    for number, time_ns, link, data, wire_length, direction, interface in capture:
        if number % PROGRESS_EVERY == 0:
            if ended():
                return
            if progress is not None:
                position = capture.position
                progress(position - told)
                told = position
        if extents is not None:
            place = extents.add(interface, time_ns)
        segment = segment_of(link, data, wire_length, direction)
        if segment is None or time_ns == NO_TIME:
            continue
        segment.time_ns = time_ns
        yield number, segment, place
    if progress is not None:
        progress(capture.position - told)


def survey(
    file: str,
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
    found = Survey(file)
    flows = _Flows(limit)
    with Capture(file) as capture:
        if capture.size is None:
            raise no_pipe(file)
        extents = _Extents(capture)
        for frame, segment, interface in _segments(capture, progress, ended, extents):
            now = segment.time_ns
            found.packets += 1
            found.first_ns = now if found.first_ns is None else min(found.first_ns, now)
            found.last_ns = now if found.last_ns is None else max(found.last_ns, now)
            flows.add(segment, frame, interface)
        found.problem = capture.problem
    found.extents = extents.found
    found.flows, found.forgotten = flows.remembered(), flows.forgotten
    return found


def no_pipe(file: str) -> CaptureError:
    """The error for a pipe, which cannot be read twice."""
    return CaptureError(
        f"{file!a} is a pipe: compare reads each capture several times",
        hint="write it to a file first",
    )


class _Flows:
    """The connections of a capture, in bounded memory: those with resets (`_reset`), `_plain` ones,
    and those whose addresses and ports began another connection (`_ended`)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._plain: OrderedDict[bytes, FlowSummary] = OrderedDict()
        self._reset: OrderedDict[bytes, FlowSummary] = OrderedDict()
        self._ended: deque[FlowSummary] = deque(maxlen=limit)
        self.forgotten = 0

    def add(self, segment: Segment, frame: int, interface: int) -> None:
        """Take a packet in."""
        flow, way = self._get(segment.key), 0
        if flow is None and (flow := self._get(segment.reverse_key)) is not None:
            way = 1
        if flow is not None and flow.begins_anew(segment, way):
            self._end(flow)
            flow = None
        if flow is not None and (begun := flow.began(segment, way)) is not None:
            self._end(flow)
            flow, way = self._keep(begun), int(begun.key != segment.key)
        if flow is None:
            made = FlowSummary(segment.key, segment.version, frame, segment.time_ns)
            flow, way = self._keep(made), 0
        had = flow.resets
        flow.learn(segment, way, frame, interface)
        if flow.resets and not had:
            self._plain.pop(flow.key, None)
            self._reset[flow.key] = flow
            self._forget_oldest(self._reset)
        elif not had:
            self._plain.move_to_end(flow.key)

    def remembered(self) -> list[FlowSummary]:
        """All that were not forgotten, in the order of their first packets."""
        flows = [*self._ended, *self._reset.values(), *self._plain.values()]
        return sorted(flows, key=lambda flow: flow.first_frame)

    def _get(self, key: bytes) -> FlowSummary | None:
        return self._reset.get(key) or self._plain.get(key)

    def _keep(self, flow: FlowSummary) -> FlowSummary:
        self._plain[flow.key] = flow
        self._forget_oldest(self._plain)
        return flow

    def _end(self, flow: FlowSummary) -> None:
        del (self._reset if flow.resets else self._plain)[flow.key]
        self.forgotten += len(self._ended) == self._limit
        self._ended.append(flow)

    def _forget_oldest(self, flows: OrderedDict[bytes, FlowSummary]) -> None:
        if len(flows) > self._limit:
            flows.popitem(last=False)
            self.forgotten += 1


class _Collector:
    """Keeps the packets of one connection: the first ones, and those around resets.

    `marks` are RSTs that the other point saw, in this point's directions: where the sequence
    numbers pass one, it is taken as a reset here.
    """

    def __init__(self, flow: FlowSummary, marks: Iterable[Mark], most: int) -> None:
        self.flow = flow
        self._marks = list(marks)
        self._most = most
        self._kept: list[tuple[int, Sighting]] = []
        self._ring: deque[tuple[int, Sighting]] = deque(maxlen=BEFORE)
        self._after = HEAD
        self._count = 0

    def add(self, sighting: Sighting) -> None:
        """Take a packet in."""
        item = (self._count, sighting)
        self._count += 1
        if sighting.flags & RST or self._passes(sighting):
            self._flush()
            self._after = AFTER
        if self._after and len(self._kept) < self._most:
            self._after -= 1
            self._kept.append(item)
        else:
            self._ring.append(item)

    def _passes(self, sighting: Sighting) -> bool:
        passed = False
        for mark in list(self._marks):
            number = sighting.end if sighting.way == mark.way else sighting.ack
            if not sighting.flags & SYN and mark.seq and not before(number, mark.seq):
                self._marks.remove(mark)
                passed = True
        return passed

    def _flush(self) -> None:
        room = self._most - len(self._kept)
        ring = list(self._ring)
        self._kept += ring[max(0, len(ring) - room) :] if room > 0 else []
        self._ring.clear()

    def packets(self) -> FlowPackets:
        """What was kept. The newest packets always are."""
        kept = [*self._kept, *self._ring]
        made = FlowPackets(self.flow, [sighting for _, sighting in kept])
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
    file: str,
    chosen: Iterable[tuple[FlowSummary, Iterable[Mark], int]],
    progress: Progress = None,
    ended: Callable[[], bool] = lambda: False,
) -> dict[int, FlowPackets]:
    """Read a capture again for the packets of some connections: by their first frame.

    `chosen`: each connection with marks beside its own resets, and how many packets to keep.

    Raises:
        CaptureError: it cannot be opened any more.
    """
    wanted: dict[bytes, list[_Collector]] = {}
    collectors = [_Collector(*item) for item in chosen]
    for collector in collectors:
        wanted.setdefault(collector.flow.key, []).append(collector)
    with Capture(file) as capture:
        for frame, segment, _ in _segments(capture, progress, ended):
            for way, key in enumerate((segment.key, segment.reverse_key)):
                wants = _collector_at(wanted.get(key, ()), frame)
                if wants is not None:
                    wants.add(_sighting_of(segment, way, frame))
                    break
    return {collector.flow.first_frame: collector.packets() for collector in collectors}


def _collector_at(collectors: Iterable[_Collector], frame: int) -> _Collector | None:
    """The one whose connection was on these addresses and ports then."""
    for collector in collectors:
        if collector.flow.first_frame <= frame <= collector.flow.last_frame:
            return collector
    return None


def _sighting_of(segment: Segment, way: int, frame: int) -> Sighting:
    """What is kept of a packet."""
    data = segment.data
    options = data[segment.l4 + 20 : min(segment.l4 + segment.offset * 4, segment.end)]
    return Sighting(
        frame=frame,
        time_ns=segment.time_ns,
        way=way,
        ttl=segment.ttl,
        ip_id=segment.ip_id if segment.version == 4 else None,
        flags=segment.flags,
        seq=segment.seq,
        ack=segment.ack,
        window=segment.window,
        payload_len=segment.payload_len,
        digest=zlib.crc32(options),
        mac=data[segment.mac : segment.mac + 6] if segment.mac >= 0 else None,
    )
