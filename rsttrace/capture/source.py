"""One capture as a source of resets, in the order of the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from rsttrace.capture import kinds
from rsttrace.capture.flows import Direction, Flows
from rsttrace.capture.layers import Dissector, Segment, ip_checksum_ok, tcp_checksum_ok
from rsttrace.capture.preview import Connection, Preview, bare_key, plain_key
from rsttrace.capture.reader import Capture
from rsttrace.capture.sides import Network, Sides
from rsttrace.capture.sightings import Seen, Sightings, once_more
from rsttrace.errors import CaptureError
from rsttrace.limits import FLOWS
from rsttrace.model import Cause, Frame, Kind, LatePacket, Packet, Reset, Sighting
from rsttrace.tcp import RST, SYN, packet

LOOK_AHEAD = 20_000
"""So many packets of a regular file are looked at first, to find out which side is ours."""

PAYLOAD_KEPT = 120
"""So many bytes of a RST's own payload are kept."""

PROGRESS_EVERY = 2_000
"""How often, in packets, progress is told."""


class CaptureSource:
    """The resets of one capture file.

    Args:
        name: a path, or ``-`` for standard input.
        local: networks that are our side (``--local``); none: inferred.
        flows: how many flows to remember.
        ended: looked at while a pipe is quiet; when it says true, the capture ends.
        ahead: whether a file is looked at as a whole first (rsttrace/capture/preview.py): that pays
            unless only its beginning is wanted.

    Attributes:
        preview: what that look found; ``None`` before, and where a capture is read in one pass.
        segments: TCP segments read so far.
        flags_alone: whether the file is known to have no segment without SYN, FIN or RST.

    Raises:
        CaptureError: it cannot be opened, or is no capture; `JsonLines` if it may be our own.
    """

    def __init__(
        self,
        name: str,
        *,
        local: Sequence[Network] = (),
        flows: int = FLOWS,
        ended: Callable[[], bool] = lambda: False,
        ahead: bool = True,
    ) -> None:
        self._sides = Sides(local)
        self._flows = Flows(flows, of_capture=True)
        self._dissector = Dissector()
        self._unread_ahead = False
        self._ended = ended
        self.wake_ns: int | None = None
        self.segments = 0
        self.flags_alone = False
        self._capture = Capture(name, ended)
        self.preview: Preview | None = None
        self._ahead = ahead and self._capture.can_open_again
        if self._capture.can_open_again:
            try:
                if not local:
                    self._look_ahead(name)
            except BaseException:
                self._capture.__exit__()
                raise

    def __enter__(self) -> CaptureSource:
        """Opened already."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the file."""
        self._capture.__exit__()

    @property
    def size(self) -> int | None:
        """Bytes of the file; ``None`` for a pipe."""
        return self._capture.size

    @property
    def packets(self) -> int:
        """Packets read so far."""
        return self._capture.packets

    @property
    def problem(self) -> str | None:
        """Where and why the file broke off, in a sentence; ``None`` if it did not."""
        return self._capture.problem

    def notes(self) -> list[str]:
        """What is worth knowing about the reading, in sentences: call it at the end."""
        return [*self._sides.told(), *self._dissector.unread.told()]

    def resets(self) -> Iterator[Reset]:
        """The resets alone; as `items`."""
        return (item for item in self.items() if isinstance(item, Reset))

    def items(
        self, progress: Callable[[int], None] | None = None
    ) -> Iterator[Reset | LatePacket | int]:
        """Read on; `progress` is told from time to time how many bytes more were read: of two
        passes, half of each one's.

        Gives resets, what came from the same end after them, and, once a packet is as late as
        `wake_ns` says, that packet's time.

        Raises:
            CaptureError: the file breaks off before its first packet.
        """
        flows, sides, segment_of = self._flows, self._sides, self._dissector.segment
        seen = Sightings(self._capture.size is not None)
        queue = seen.queue
        told, passes = 0, 1
        if self._ahead:
            passes = 2
            self._look_through(progress)
        preview, found = self.preview, None
        for number, time_ns, link, data, wire_length, direction, interface in self._capture:
            if progress is not None and number % PROGRESS_EVERY == 0:
                position = self._capture.position
                position -= position // 2 if passes == 2 else 0
                progress(position - told)
                told = position
            if queue and seen.is_due(time_ns):
                yield from seen.due(time_ns)
            key = plain_key(link, data)
            if key is not None:
                found = preview.find(key) if preview is not None else None
                if found is None:
                    taken = preview is None and flows.take_usual(key, data, interface, time_ns)
                else:
                    taken = not found.cuts and (
                        found.done or self._take_usual(key, data, interface, time_ns, number, found)
                    )
                if taken:
                    self.segments += 1
                    if self.wake_ns is not None and time_ns >= self.wake_ns:
                        self.wake_ns = None
                        yield time_ns
                    continue
            segment = segment_of(link, data, wire_length, direction)
            if segment is None:
                continue
            segment.time_ns = time_ns
            self.segments += 1
            if preview is not None:
                found = preview.find(bare_key(segment))
                if found is not None:
                    if found.cuts and found.cuts[0] <= number:
                        found.cuts.popleft()
                        found.done = False
                        flows.drop(segment.key)
                    if found.done:
                        if self.wake_ns is not None and self._wakes(time_ns):
                            yield time_ns
                        continue
            if segment.flags & RST:
                sighting = self._sighting(segment, number, interface)
                yield from self._see(seen, segment, sighting)
                if found is not None and found.last == number:
                    self._leave(segment.key, bare_key(segment), found)
                continue
            segment.interface = segment.interface or interface
            if flows.learn(segment) or segment.flags & SYN:
                sides.learn(segment)
            if found is not None:
                if not segment.flags & SYN and flows.direction is not None:
                    found.settle(flows.direction)
                if found.last == number or (found.done and not found.cuts):
                    self._leave(segment.key, bare_key(segment), found)
            if flows.late:
                late = LatePacket(
                    time_ns, _headers(segment), file=self._capture.name, mac=segment.source_mac
                )
                yield from seen.after(late, flows.direction)
            if flows.met is not None:
                yield from seen.after(replace(flows.met, file=self._capture.name), None)
            if self.wake_ns is not None and self._wakes(time_ns):
                yield time_ns
        yield from seen.due(None)
        if progress is not None:
            position = self._capture.position
            progress(position - told - (position // 2 if passes == 2 else 0))

    def _wakes(self, time_ns: int) -> bool:
        """Whether it is as late as `wake_ns` says."""
        late = self.wake_ns is not None and time_ns >= self.wake_ns
        if late:
            self.wake_ns = None
        return late

    def _look_ahead(self, name: str) -> None:
        """Find out which side is ours from the file's beginning, which is then read again."""
        dissector, known = Dissector(), Flows(self._flows.limit, of_capture=True)
        with Capture(name) as capture:
            for record in capture:
                if record.number > LOOK_AHEAD or self._ended():
                    break
                key = plain_key(record.link, record.data)
                if key is not None and not record.data[47] & SYN and known.knows(key):
                    continue
                found = dissector.segment(
                    record.link, record.data, record.wire_length, record.direction
                )
                if found is None or found.flags & RST:
                    continue
                found.time_ns = record.time_ns
                if known.find(found) is None:
                    known.add(found)
                elif not found.flags & SYN:
                    continue
                self._sides.learn(found)
        self._unread_ahead = bool(dissector.unread)

    def _look_through(self, progress: Callable[[int], None] | None) -> None:
        """Find out what of the file is to be taken apart; it is then read as far as it went when it
        was opened."""
        try:
            with Capture(self._capture.name) as capture:
                preview = Preview(capture, self._flows.limit, self._ended, progress)
        except CaptureError:  # it is gone: what is open can still be read
            return
        if preview.useful:
            self.preview = preview
            self.flags_alone = preview.flags_alone
            self._capture.end_here()

    def _take_usual(
        self, key: bytes, data: bytes, interface: int, time_ns: int, number: int, found: Connection
    ) -> bool:
        """As `Flows.take_usual`, of a connection that the first look found."""
        flows = self._flows
        if not flows.take_usual(key, data, interface, time_ns):
            return False
        if flows.direction is not None:
            found.settle(flows.direction)
        if found.last == number or found.done:
            self._leave(key, key, found)
        return True

    def _leave(self, key: bytes, bare: bytes, found: Connection) -> None:
        """Nothing more of a connection counts. `bare` is its `key` without the virtual network."""
        self._flows.drop(key)
        if found.last == self._capture.packets and self.preview is not None:
            self.preview.forget(bare)

    def _why_unknown(self) -> Cause:
        """Why nothing is known of a RST's receiver, if that is so."""
        forgets_at = self.preview.forgets_at if self.preview is not None else None
        if self._flows.forgotten or (forgets_at is not None and self._capture.packets > forgets_at):
            return kinds.FORGOTTEN
        missed = self._unread_ahead or self._dissector.unread
        return kinds.NOT_ALL_READ if missed else kinds.NO_FLOW

    def _see(self, seen: Sightings, segment: Segment, sighting: Sighting) -> Iterator[Reset]:
        """A RST: a new one, or one that was seen before."""
        theirs = self._flows.find(segment)
        known = seen.again(segment, theirs)
        reset = self._reset(segment, sighting, theirs, known is not None)
        if known is None:
            yield from seen.add(Seen(reset, segment, theirs), segment)
            return
        if known.direction is theirs:
            reset = once_more(known.reset, reset)
        before = known.reset
        known.add(sighting, segment, reset)
        if known.reset is not before:
            known.direction = theirs

    def _sighting(self, segment: Segment, number: int, interface: int) -> Sighting:
        """Where this RST was seen; `interface`: the pcapng interface, which may be `any`."""
        index, name = segment.interface or None, None
        if index is None:
            segment.interface = interface
            index, name = self._capture.interface(interface) or (None, None)
        return Sighting(number, segment.time_ns, index, name, segment.ttl, segment.source_mac)

    def _reset(
        self, segment: Segment, sighting: Sighting, theirs: Direction | None, again: bool
    ) -> Reset:
        flows = self._flows
        baseline = flows.baseline(segment)
        rst = _headers(segment)
        ours = baseline.ours.recent if baseline.ours is not None else ()
        if self._sides.is_sent(segment, theirs, again):
            trigger = kinds.answered(rst, ours)
            kind, cause = kinds.sent(rst, trigger)
            if kind is not Kind.SENT_PASSIVE:
                trigger = None
            local, remote = rst.src, rst.dst
        else:
            trigger = ours[0] if ours else None
            kind, cause = kinds.received(
                segment, rst, theirs, self._why_unknown(), flags_alone=self.flags_alone
            )
            local, remote = rst.dst, rst.src
        if theirs is not None and kind not in (Kind.RECEIVED_REJECTED, Kind.RECEIVED_UNMATCHED):
            theirs.closed = theirs.reset = True
        if kind.direction != "sent":
            flows.watch(segment)
        return Reset(
            time_ns=segment.time_ns,
            kind=kind,
            cause=cause,
            local=local,
            remote=remote,
            rst=rst,
            netns=None,
            trigger=trigger,
            baseline=baseline,
            frame=Frame(None, segment.interface or None, sighting.mac, segment.ttl),
            file=self._capture.name,
            file_frame=sighting.frame,
            flags_alone=self.flags_alone,
            payload=_payload(segment),
            sightings=(sighting,),
        )


def _headers(segment: Segment) -> Packet:
    data = segment.data
    return packet(
        data[segment.l3 : segment.l4],
        data[segment.l4 : segment.end],
        segment.payload_len,
        length=segment.length,
        ip_checksum_ok=ip_checksum_ok(segment),
        tcp_checksum_ok=tcp_checksum_ok(segment),
    )


def _payload(segment: Segment) -> bytes | None:
    """The first bytes of a segment's payload, as far as they were captured."""
    at = segment.l4 + segment.offset * 4
    return segment.data[at : min(segment.end, at + PAYLOAD_KEPT)] or None
