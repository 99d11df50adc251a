"""The baseline of a capture: what each flow's packets looked like, as bpf/flow.h does it live.

A baseline takes in only what a direction's own stack could have sent and the other end would
accept; bpf/flow.h says what that is, and tests/unit/test_baseline.py holds the two against each
other. Bounded: the least recently used flows and peers are forgotten.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from functools import cached_property
from typing import NamedTuple

from rsttrace.capture import places
from rsttrace.capture.layers import USUAL_STAMPS, Segment, tcp_checksum_ok, whole_sum_ok
from rsttrace.limits import (
    COPY_NS,
    HANDSHAKES_TOLD,
    LATE_FOR_NS,
    LATE_TOLD,
    NEAR,
    OTHER_TTL_FITS,
    OVERTAKEN_NS,
    OVERTAKEN_TICKS,
    PEER_TTLS,
    PEERS,
    RECENT,
    TTLS,
)
from rsttrace.model import Baseline, Endpoint, Half, LatePacket, Peer, Scope, Seen, TtlCount
from rsttrace.tcp import (
    ACK,
    FIN,
    SYN,
    address,
    advance,
    before,
    flag_letters,
    handshake_half,
    handshake_packet,
    latest,
    options_text,
    sequence_length,
    timestamps_at,
    within,
)

CHECKED = 4
"""So many whole packets of a direction have their TCP checksum looked at."""

FULL_TTLS = (64, 128, 255)
"""Initial TTLs of stacks in use: a packet that has one has passed no router."""

ORDINARY_PACKET = 1500
ORDINARY_SEGMENT = 1448
"""An IP packet on Ethernet, and what a longer buffer is cut into where the MSS is unknown."""

_STAMP = struct.Struct(">II")

_PLAIN = struct.Struct(">BHHHB15xIIBBH").unpack_from
"""Of a frame that `plain_key` takes, from byte 15 on: TOS, length, ID, fragment bits, TTL; TCP's
numbers, offset, flags and window."""


class _Row(NamedTuple):
    """One packet, as ``struct rst_seen``; `stamp` is TSval and TSecr as they are in the packet."""

    time_ns: int
    ttl: int
    ip_id: int
    df: bool
    flags: int
    seq: int
    ack: int
    window: int | None
    payload_len: int
    segments: int
    stamp: bytes
    tos: int

    def seen(self, version: int, options: str | None = None) -> Seen:
        time_ns, ttl, ip_id, df, flags, seq, ack, window, payload_len, segments, stamp, tos = self
        ipv4 = version == 4
        tsval, tsecr = _STAMP.unpack(stamp) if stamp else (None, None)
        return Seen(
            time_ns,
            ttl,
            ip_id if ipv4 else None,
            df if ipv4 else None,
            flag_letters(flags),
            seq,
            ack,
            window,
            payload_len,
            segments,
            tsval,
            tsecr,
            options,
            tos=tos,
        )


class _Options(NamedTuple):
    """The TCP options of a SYN: what was captured of them, their length, and what they say.

    `stamped`: whether there are timestamps; ``None``: they may have been cut off.
    """

    raw: bytes
    length: int
    stamped: bool | None

    def text(self) -> str:
        return options_text(self.raw, self.length)


class _Handshake(NamedTuple):
    """A SYN or SYN-ACK, and the frame that it came in."""

    syn: _Row
    options: _Options
    version: int
    mac: bytes | None
    interface: int

    def half(self) -> Half:
        return handshake_half(
            self.syn.seen(self.version),
            self.options.text(),
            _mac(self.mac),
            self.interface or None,
        )


class _Ttl:
    """How many packets came with one TTL, as ``struct rst_ttl``."""

    __slots__ = ("first_ns", "last_ns", "packets", "strange", "ttl")

    def __init__(self, ttl: int, now: int) -> None:
        self.ttl = ttl
        self.first_ns = self.last_ns = now
        self.packets = self.strange = 0


class Direction:
    """One direction of a flow. The first block is the baseline, as ``struct rst_half``.

    The second is what tells whether a RST counts: `end`, the sequence number after the highest
    byte sent (SYN and FIN included), `acked`, the highest acknowledgment sent, `fin`, the sequence
    number after its FIN, `scale` its window scale (``None``: its SYN was not seen). `reset` says
    that a RST of this direction ended the flow.

    `usual` says whether its newest packet that fit had timestamps, or, of a SYN-ACK, whether what
    follows has; ``None``: that cannot be told, and what comes next is looked at in full.

    `places` are this direction at each place of the capture where it was seen, if there are several
    (rsttrace/capture/places.py); `judged`: resets are judged at this one. `doubled` counts packets
    that came twice at one place.
    """

    __slots__ = (
        "acked",
        "checked",
        "clock",
        "closed",
        "confirmed",
        "confirmed_ns",
        "df_always",
        "doubled",
        "end",
        "fin",
        "fin_ns",
        "first_ns",
        "interface",
        "judged",
        "known_ttl",
        "last_ns",
        "late",
        "mac",
        "mss",
        "new_options",
        "new_syn",
        "odd",
        "of_capture",
        "other",
        "packets",
        "places",
        "primary",
        "recent",
        "reset",
        "reset_ns",
        "reset_seq",
        "scale",
        "slot",
        "stamps",
        "strange",
        "strange_ns",
        "sums_right",
        "sums_wrong",
        "syn",
        "syn_ack",
        "syn_options",
        "syn_seq",
        "syns",
        "timestamps",
        "ttl",
        "ttl_max",
        "ttl_min",
        "ttls",
        "usual",
        "version",
        "window",
    )

    def __init__(self, version: int = 4, *, of_capture: bool = False) -> None:
        self.other: Direction | None = None
        self.primary = b""
        self.version = version
        self.of_capture = of_capture
        self.places: list[Direction] | None = None
        self.judged = True
        self.clear()

    def clear(self) -> None:
        """Forget everything: a new connection begins."""
        self.packets = 0
        self.ttl = self.ttl_min = self.ttl_max = 0
        self.known_ttl = 0
        self.ttls: list[_Ttl] = []
        self.slot: _Ttl | None = None
        self.syn: _Row | None = None
        self.syn_seq: int | None = None
        self.syn_options: _Options | None = None
        self.syns = 0
        self.new_syn: _Row | None = None
        self.new_options: _Options | None = None
        self.df_always = True
        self.timestamps = False
        self.stamps = False  # also after the handshake
        self.clock: tuple[tuple[bytes, int], ...] = ()
        self.mac: bytes | None = None
        self.interface = 0
        self.first_ns = self.last_ns = 0
        self.closed = False
        self.fin_ns: int | None = None
        self.confirmed = False
        self.confirmed_ns: int | None = None
        self.strange = 0
        self.strange_ns: int | None = None
        self.odd: tuple[int, int] | None = None
        self.checked = self.sums_right = self.sums_wrong = 0
        self.recent: list[_Row] = []
        self.reset_ns: int | None = None
        self.reset_seq = 0
        self.late = 0
        self.doubled = 0

        self.end: int | None = None
        self.acked: int | None = None
        self.fin: int | None = None
        self.window: int | None = None
        self.scale: int | None = None
        self.mss: int | None = None
        self.syn_ack = False
        self.reset = False
        self.usual: bool | None = None

    def watch(self, time_ns: int, seq: int) -> None:
        """A RST of this direction was received: look at what comes after it."""
        if self.reset_ns is None or since(time_ns, self.reset_ns) > LATE_FOR_NS:
            self.reset_ns, self.reset_seq, self.late = time_ns, seq, 0

    def is_late(self, segment: Segment) -> bool:
        """Whether to tell of a packet that came after a RST of this direction.

        As is_late() of bpf/flow.h: the first one, and a few that no honest sender would send.
        """
        if self.reset_ns is None or since(segment.time_ns, self.reset_ns) > LATE_FOR_NS:
            return False
        if segment.flags & SYN:
            beyond = bool(segment.flags & ACK) and self.syn_seq != segment.seq
        else:
            length = segment.payload_len + (segment.flags & FIN)
            beyond = bool(self.reset_seq and length) and before(
                self.reset_seq, advance(segment.seq, length)
            )
        if self.late >= (LATE_TOLD if beyond else 1):
            return False
        self.late += 1
        return True

    def learn(self, segment: Segment, late: bool = False) -> bool:
        """Take one packet in (never a RST: those do not teach what honest packets look like).

        `late`: it came after a RST, so its checksum is worth a look. Says whether it confirms this
        direction's handshake.
        """
        flags, now = segment.flags, segment.time_ns
        other = self.other if self.other is not None else self
        stamped: bool | None = segment.timestamps
        stamp = segment.data[segment.l4 + 24 : segment.l4 + 32] if stamped else b""
        if not stamped and segment.offset >= 8:
            stamped, stamp = _unusual_timestamps(segment)
        passes = self._numbers_fit(segment, other) and (
            flags & SYN
            or stamped is None
            or self.syn_options is None
            or other.syn_options is None
            or self.syn_options.stamped is None
            or other.syn_options.stamped is None
            or stamped == (self.syn_options.stamped and other.syn_options.stamped)
            # What never used them after the handshake has them taken off on the way.
            or not (stamped or self.stamps)
        )
        if passes and (self.checked < CHECKED or late):
            passes = self._checksum_fits(segment)
        fits = self._count_ttl(segment.ttl, now, bool(passes))
        row = self._row(segment, stamp)
        if not fits:
            self.strange += 1
            self.strange_ns = now
            if flags & (SYN | ACK) == SYN and self.syn_seq != segment.seq:
                self.new_syn, self.new_options = row, _syn_options(segment, stamped)
            return False
        if segment.mac >= 0:
            self.mac = segment.data[segment.mac : segment.mac + 6]
        self.interface = segment.interface
        if flags & SYN:
            self.note(row, _syn_options(segment, stamped))
            self.usual, other.usual = self._agreed_stamps(other), None
        else:
            self.usual = stamped
            self.note(row, None)
        if stamped:
            self.timestamps = True
        if other.reset:
            other.reset = False  # it goes on: that RST did not end it
        if self.confirmed or not flags & ACK or not other.acknowledged_by(segment.ack):
            return False
        self.confirmed = True
        self.confirmed_ns = now
        return self.syn is not None

    def _agreed_stamps(self, other: Direction) -> bool | None:
        """Whether both SYNs offered timestamps; ``None``: one was not seen, or not whole."""
        if self.syn_options is None or other.syn_options is None:
            return None
        mine, theirs = self.syn_options.stamped, other.syn_options.stamped
        return None if mine is None or theirs is None else mine and theirs

    def take_usual(self, data: bytes, interface: int, now: int) -> bool:
        """Take in what nearly every packet is; false if this is none, and nothing was learned.

        It acknowledges, perhaps with data, and looks as the one before it did: only its numbers are
        news, and fit. `data` is a frame that `plain_key` takes. What is learned is what `learn`
        learns of it. As is_usual() and note_usual() of bpf/flow.h.
        """
        other, slot, end = self.other, self.slot, self.end
        if other is None or slot is None or end is None or other.end is None:
            return False
        tos, length, ip_id, bits, ttl, seq, ack, offset, flags, window = _PLAIN(data, 15)
        header = offset >> 4
        if (
            self.usual is not (header >= 8)
            or flags & (SYN | FIN | ACK) != ACK
            or ttl != self.ttl
            or ttl != self.known_ttl
            or ttl != slot.ttl
            or interface != self.interface
            or (seq - end + NEAR) & 0xFFFFFFFF > 2 * NEAR
            or (ack - other.end + NEAR) & 0xFFFFFFFF > 2 * NEAR
            or header < 5
            or not self._expects_usual(other)
        ):
            return False
        stamp = b""
        if self.usual:
            stamp = data[58:66]
            if data[54:58] != USUAL_STAMPS or len(stamp) < 8:
                return False
        if self.checked < CHECKED and not self._sum_is_usual(data, length):
            return False
        payload_len = max(0, length - 20 - header * 4)
        row = (
            now,
            ttl,
            ip_id,
            bits & 0x4000 != 0,
            flags,
            seq,
            ack,
            window,
            payload_len,
            1 if length <= ORDINARY_PACKET else self._segments(payload_len, bool(stamp)),
            stamp,
            tos,
        )
        slot.packets += 1
        slot.last_ns = now
        self.mac = data[6:12]
        self._note_usual(tuple.__new__(_Row, row), end)
        return True

    def _note_usual(self, row: _Row, newest: int) -> None:
        """As `note`, of a usual packet. `newest` is `end` before it."""
        now, _, _, df, _, seq, ack, window, payload_len, _, stamp, _ = row
        end = (seq + payload_len) & 0xFFFFFFFF
        if (end - newest) & 0xFFFFFFFF < 0x80000000:  # latest(), in place
            self.end = end
        if self.acked is None or (ack - self.acked) & 0xFFFFFFFF < 0x80000000:
            self.acked = ack
        if not df:
            self.df_always = False
        if stamp:
            self.timestamps = self.stamps = True
            self._note_clock(stamp, now)
        self.last_ns = now
        self.window = window
        self._remember(row)

    def _expects_usual(self, other: Direction) -> bool:
        """Whether nothing is yet to be found out of the next packet, or watched for."""
        return (
            (self.confirmed or other.syn_seq is None)
            and self.reset_ns is None
            and self.places is None
            and not other.reset
        )

    def _sum_is_usual(self, data: bytes, length: int) -> bool:
        """Count a packet's TCP checksum if it is whole; false where it is wrong, and not counted.

        `data` is a frame that `plain_key` takes, `length` its IP packet's.
        """
        if len(data) < 14 + length:
            return True
        right = whole_sum_ok(data[26:34], data[34 : 14 + length])
        if right is False:
            return False
        self.checked += 1
        self.sums_right += right is True
        return True

    def _row(self, segment: Segment, stamp: bytes) -> _Row:
        data, l3 = segment.data, segment.l3
        v4 = segment.version == 4
        row = (
            segment.time_ns,
            segment.ttl,
            segment.ip_id,
            segment.df,
            segment.flags,
            segment.seq,
            segment.ack,
            segment.window,
            segment.payload_len,
            1
            if segment.length <= ORDINARY_PACKET
            else self._segments(segment.payload_len, segment.timestamps),
            stamp if len(stamp) == 8 else b"",
            data[l3 + 1] if v4 else (data[l3] << 4 | data[l3 + 1] >> 4) & 0xFF,
        )
        return tuple.__new__(_Row, row)  # what _Row() does, but three times as fast

    def note(self, row: _Row, options: _Options | None) -> None:
        """Learn from a packet that fits. `options`: those of a SYN or SYN-ACK."""
        flags, ttl, now = row.flags, row.ttl, row.time_ns
        if not self.packets:
            self.first_ns = now
            self.ttl_min = self.ttl_max = self.known_ttl = ttl
        elif ttl < self.ttl_min:
            self.ttl_min = ttl
        elif ttl > self.ttl_max:
            self.ttl_max = ttl
        end = row.seq + row.payload_len
        if flags & (SYN | FIN):
            end += sequence_length(flags, 0)
            if options is not None:
                self._note_syn(row, options)
            if flags & FIN:
                if self.fin_ns is None:
                    self.fin_ns = now
                self.fin = end & 0xFFFFFFFF
                self.closed = True
        end &= 0xFFFFFFFF
        if self.end is None or (end - self.end) & 0xFFFFFFFF < 0x80000000:  # latest(), in place
            self.end = end
        if flags & ACK:
            self.acked = latest(self.acked, row.ack)
        self.ttl = ttl
        if not row.df:
            self.df_always = False
        if row.stamp:
            self.timestamps = True
            self.stamps = self.stamps or not flags & SYN
            self._note_clock(row.stamp, now)
        self.last_ns = now
        self.window = row.window
        self._remember(row)

    def _note_clock(self, stamp: bytes, now: int) -> None:
        """As note_clock() of bpf/flow.h."""
        clock = self.clock
        # as bytes: nearly all are none of these
        if len(clock) == 2 and (stamp < clock[1][0] or stamp[0] > clock[1][0][0]):
            back = _STAMP.unpack(clock[1][0])[0] - _STAMP.unpack(stamp)[0] & 0xFFFFFFFF
            if 0 < back < OVERTAKEN_TICKS and since(now, clock[1][1]) < OVERTAKEN_NS:
                return
        self.clock = (*clock[:1], (stamp, now))

    def _remember(self, row: _Row) -> None:
        """Have it among the last packets."""
        recent = self.recent
        # seq first: it is cheap
        if recent and recent[-1][5] == row[5] and _is_same(recent[-1], row):
            self.doubled += 1
        if len(recent) == RECENT:
            del recent[0]
        recent.append(row)
        self.packets += 1

    def acknowledged_by(self, ack: int) -> bool:
        """Whether an ack number acknowledges something that this direction was seen to send."""
        if self.syn_seq is None or self.end is None:
            return False
        return before(self.syn_seq, ack) and not before(self.end, ack)

    def _numbers_fit(self, segment: Segment, other: Direction) -> bool:
        """As numbers_fit() of bpf/flow.h."""
        seq, ack, flags = segment.seq, segment.ack, segment.flags
        if flags & SYN:
            if self.syn_seq is not None:
                return self.syn_seq == seq
            if flags & ACK and other.syn_seq is not None and not other.acknowledged_by(ack):
                return False
        end, other_end = self.end, other.end
        fits = (  # _near(), its first step in place
            end is not None and (seq - end + NEAR) & 0xFFFFFFFF <= 2 * NEAR
        ) or _near(seq, end, other.acked)
        if fits and flags & ACK and other_end is not None:
            fits = (ack - other_end + NEAR) & 0xFFFFFFFF <= 2 * NEAR or _near(
                ack, other_end, self.acked
            )
        if not fits and flags & (SYN | ACK) == ACK:
            fits = self._both_are_elsewhere(segment, other)
        return fits

    def _both_are_elsewhere(self, segment: Segment, other: Direction) -> bool:
        """As both_are_elsewhere() of bpf/flow.h: part of the connection was not captured."""
        end = advance(segment.seq, sequence_length(segment.flags, segment.payload_len))
        if other.odd is None or other is self:
            self.odd = (end, segment.ack)
            return False
        their_end, their_ack = other.odd
        if not (_near(segment.seq, their_ack, None) and _near(segment.ack, their_end, None)):
            self.odd = (end, segment.ack)
            return False
        other.end, other.acked = their_end, their_ack
        self.end, self.acked = segment.seq, segment.ack
        self.odd = other.odd = None
        return True

    def _count_ttl(self, ttl: int, now: int, passes: bool) -> bool:
        """Count a packet's TTL; whether the packet fits. As count_ttl() of bpf/flow.h."""
        slot = self.slot
        if slot is None or slot.ttl != ttl:
            slot = self.slot = self._slot(ttl, now)
        slot.last_ns = now
        if not passes:
            slot.strange += 1
            return False
        slot.packets += 1
        if not self.packets or ttl == self.known_ttl or slot.packets >= OTHER_TTL_FITS:
            return True
        # Undiminished, unlike the other end's: the host of this capture, whose programs may set any
        # TTL. Live it is known what this host sends, and that always fits.
        other = self.other
        if not self.of_capture or other is None or not other.packets:
            return False
        return self.known_ttl in FULL_TTLS and other.known_ttl not in FULL_TTLS

    def _slot(self, ttl: int, now: int) -> _Ttl:
        for slot in self.ttls:
            if slot.ttl == ttl:
                return slot
        if len(self.ttls) == TTLS:
            known = self.known_ttl if self.packets else None
            others = [slot for slot in self.ttls if slot.ttl != known]
            self.ttls.remove(min(others, key=lambda t: (t.packets + t.strange, t.last_ns)))
        made = _Ttl(ttl, now)
        self.ttls.append(made)
        return made

    def _checksum_fits(self, segment: Segment) -> bool:
        """False where the checksum is wrong, though this direction's were right."""
        if segment.end - segment.l3 != segment.length:
            return True
        self.checked += 1
        right = tcp_checksum_ok(segment)
        if right is None:
            return True
        if right:
            self.sums_right += 1
        elif self.sums_right:
            return False
        else:
            self.sums_wrong += 1
        return True

    def _note_syn(self, row: _Row, options: _Options) -> None:
        if self.syn is not None:
            last = self.recent[-1]
            if not last.flags & SYN or since(row.time_ns, last.time_ns) > COPY_NS:
                self.syns += 1  # of those with another number none fits
            return
        self.syn, self.syn_seq, self.syn_options = row, row.seq, options
        self.syns = 1
        self.known_ttl = row.ttl
        self.syn_ack = row.flags & ACK != 0
        whole = len(options.raw) == options.length
        self.scale = 0 if whole else None
        at, raw = 0, options.raw
        while at + 1 < len(raw) and raw[at]:  # MSS and window scale: RFC 9293 §3.2, RFC 7323 §2.2
            if raw[at] == 1:
                at += 1
                continue
            length = raw[at + 1]
            if length < 2 or at + length > len(raw):
                return
            if raw[at] == 2 and length == 4:
                self.mss = raw[at + 2] << 8 | raw[at + 3]
            elif raw[at] == 3 and length == 3:
                self.scale = min(raw[at + 2], 14)
            at += length

    def _segments(self, payload_len: int, stamped: bool) -> int:
        """How many packets on the wire one offloaded buffer stands for (GSO, GRO)."""
        mss = self.other.mss if self.other is not None else None
        size = mss - 12 if mss and mss > 64 and stamped else mss or ORDINARY_SEGMENT
        return max(1, -(-payload_len // size))

    def handshake(self) -> _Handshake:
        """What its SYN or SYN-ACK alone tells."""
        assert self.syn is not None
        assert self.syn_options is not None
        return _Handshake(self.syn, self.syn_options, self.version, self.mac, self.interface)

    def half(self) -> Half | None:
        """As the judge knows it."""
        if not self.packets:
            return None
        syn, version = self.syn, self.version
        ttls = self.ttls
        if len(ttls) > 1:
            ttls = sorted(ttls, key=lambda t: (-t.packets - t.strange, -t.last_ns, t.ttl))
        new_syn = None
        if self.new_syn is not None:
            options = self.new_options.text() if self.new_options is not None else None
            new_syn = self.new_syn.seen(version, options)
        return Half(
            packets=self.packets,
            ttl=self.ttl,
            ttl_min=self.ttl_min,
            ttl_max=self.ttl_max,
            syn_ttl=syn.ttl if syn is not None else None,
            syn_window=syn.window if syn is not None else None,
            df_always=self.df_always,
            timestamps=self.timestamps,
            mac=_mac(self.mac),
            ifindex=self.interface or None,
            first_ns=self.first_ns,
            last_ns=self.last_ns,
            syn_ns=syn.time_ns if syn is not None else None,
            syn_options=self.syn_options.text() if self.syn_options is not None else None,
            recent=tuple([row.seen(version) for row in reversed(self.recent)]),
            end=self.end,
            ttls=tuple(
                [TtlCount(t.ttl, t.packets, t.first_ns, t.last_ns, t.strange) for t in ttls]
            ),
            fin_ns=self.fin_ns,
            strange=self.strange,
            strange_ns=self.strange_ns,
            syns=self.syns,
            confirmed=self.confirmed,
            new_syn=new_syn,
            clock=tuple([(_STAMP.unpack(stamp)[0], now) for stamp, now in self.clock]),
            checksums_wrong=(not self.sums_right if self.sums_right or self.sums_wrong else None),
            acked=self.acked,
            confirmed_ns=self.confirmed_ns,
        )


def _is_same(one: _Row, other: _Row) -> bool:
    """Whether two rows are one packet that was captured twice: no stack sends it again so soon.

    Of bare acknowledgments only the IP ID tells that, where there is one.
    """
    return (
        one[1:6] == other[1:6]  # TTL, IP ID, DF, flags, seq
        and (one.ack, one.payload_len, one.stamp) == (other.ack, other.payload_len, other.stamp)
        and (other.payload_len > 0 or other.ip_id > 1 or other.flags & (SYN | FIN) != 0)
        and abs(other.time_ns - one.time_ns) <= COPY_NS
    )


class _Known:
    """The newest confirmed handshake of an address, and the TTLs of those before.

    What the judge is given of it is the same for all resets of that address: it is made once.
    """

    def __init__(self, handshake: _Handshake, ttls: tuple[int, ...]) -> None:
        self.handshake = handshake
        self.ttls = ttls

    @cached_property
    def half(self) -> Half:
        return self.handshake.half()

    @cached_property
    def peer(self) -> Peer:
        syn = self.handshake.syn.seen(self.handshake.version)
        return Peer(
            ttls=self.ttls,
            syn_ttl=syn.ttl,
            syn_options=self.handshake.options.text(),
            syn_window=syn.window,
            df=syn.df,
            mac=_mac(self.handshake.mac),
            time_ns=syn.time_ns,
        )


class _Watch:
    """An address in whose name a RST came: its later handshakes are told."""

    __slots__ = ("key", "place", "time_ns", "ttls")

    def __init__(self, key: bytes, time_ns: int, place: int) -> None:
        self.key = key
        self.time_ns = time_ns
        self.place = place
        self.ttls: list[int] = []


class Flows:
    """Every flow of a capture, the `limit` last used ones.

    After `learn`, `late` says that the packet came after "its" RST, and `met` is a later handshake
    of an address in whose name a RST came, where the packet has confirmed one; `direction` is the
    packet's, at its place. `forgotten` counts flows that were forgotten.
    """

    def __init__(self, limit: int, *, of_capture: bool = False) -> None:
        self._of_capture = of_capture
        self.limit = limit
        self._directions: dict[bytes, Direction] = {}
        self._used: OrderedDict[bytes, list[bytes]] = OrderedDict()  # by one key: all of its keys
        self._peers: OrderedDict[bytes, _Known] = OrderedDict()
        self._at_places = False  # whether one of them is for a place
        self._watched: OrderedDict[bytes, _Watch] = OrderedDict()
        self.late = False
        self.met: LatePacket | None = None
        self.direction: Direction | None = None
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._used)

    def find(self, segment: Segment) -> Direction | None:
        """The direction that a packet belongs to, at its place, if its flow is known."""
        direction = self._directions.get(segment.key)
        if direction is None:
            direction = self._in_another_network(segment)
        return None if direction is None else places.best_known(direction, segment)

    def learn(self, segment: Segment) -> bool:
        """Take a packet in that is no RST; true if its flow was not known."""
        direction = self._directions.get(segment.key)
        if direction is None and segment.tag:
            direction = self._join(segment)
        new = direction is None
        if direction is None:
            direction = self.add(segment)
        else:
            self._used.move_to_end(direction.primary)
            if (
                segment.ttl != direction.ttl
                or segment.interface != direction.interface
                or direction.places is not None
            ) and self._of_capture:
                direction = self._place(direction, segment)
        self.late = False
        self.met = None
        self.direction = direction
        other = direction.other
        if segment.flags & SYN and other is not None:
            _begin(direction, other, segment)
        if direction.reset_ns is not None:
            self.late = direction.is_late(segment)
        if direction.learn(segment, self.late):
            self._learn_peer(segment, direction)
        return new

    def take_usual(self, key: bytes, data: bytes, interface: int, now: int) -> bool:
        """As `learn`, of a frame that `plain_key` takes, if it is a usual one of a known flow.

        `key` are its addresses and ports. False: it is none, and nothing was learned.
        """
        direction = self._directions.get(key)
        if direction is None or not direction.take_usual(data, interface, now):
            return False
        self._used.move_to_end(direction.primary)
        self.late, self.met, self.direction = False, None, direction
        return True

    def knows(self, key: bytes) -> bool:
        """Whether there is a flow with these addresses and ports."""
        return key in self._directions

    def add(self, segment: Segment) -> Direction:
        """A new flow, in the direction of this packet."""
        key, reverse = segment.key, segment.reverse_key
        there, back = self._pair(segment.version, key)
        if key == reverse:  # the same address and port at both ends: one direction only
            back.other = back
            there = back
        self._directions[key] = there
        self._directions[reverse] = back
        keys = self._used[key] = [key, reverse]
        if segment.tag and _bare(segment, key) not in self._directions:
            bare = [_bare(segment, key), _bare(segment, reverse)]
            self._directions[bare[0]], self._directions[bare[1]] = there, back
            keys += bare
        if len(self._used) > self.limit:
            self._forget()
        return there

    def drop(self, key: bytes) -> None:
        """Take the flow with this key out, if there is one: nothing of it comes any more.

        Its memory is free at once, though a RST of it may still wait for more sightings.
        """
        direction = self._directions.get(key)
        if direction is None:
            return
        for each in self._used.pop(direction.primary):
            gone = self._directions.pop(each, None)
            for place in () if gone is None else gone.places or (gone,):
                place.other = None
                place.clear()

    def _pair(self, version: int, primary: bytes) -> tuple[Direction, Direction]:
        there, back = (Direction(version, of_capture=self._of_capture) for _ in range(2))
        there.other, back.other = back, there
        there.primary = back.primary = primary
        return there, back

    def _forget(self) -> None:
        """Forget the flow that was not used for longest."""
        self.forgotten += 1
        for key in self._used.popitem(last=False)[1]:
            gone = self._directions.pop(key, None)
            if gone is not None:
                gone.other = gone.places = None

    def _place(self, direction: Direction, segment: Segment) -> Direction:
        """The place at which a packet of a known direction was seen; perhaps a new one."""
        other = direction.other
        if other is None or other is direction or (not direction.packets and not direction.places):
            return direction
        known = direction.places or [direction]
        found = places.of(direction, segment) if len(known) > 1 else None
        if found is not None:
            return found
        if not any(places.is_copy(place, segment) for place in known):
            return known[0]
        empty = next((place for place in known if not place.packets), None)
        if empty is not None or len(known) == places.MOST:
            return empty or known[0]
        if direction.places is None:
            direction.places, other.places = [direction], [other]
        assert direction.places is not None
        assert other.places is not None
        there, back = self._pair(segment.version, direction.primary)
        direction.places.append(there)
        other.places.append(back)
        there.places, back.places = direction.places, other.places
        return there

    def _in_another_network(self, segment: Segment) -> Direction | None:
        """The same connection as it is known in another virtual network, or in none.

        Inside and outside of a tunnel one capture may show it; and each direction may have a
        network of its own (RFC 9135 §4: asymmetric routing between VXLANs). Other connections with
        the same addresses and ports stay apart.
        """
        if not segment.tag:
            return None
        known = self._directions.get(_bare(segment, segment.key))
        if known is None or not self._of_capture:
            return None
        at = known.places or [known]
        if any(place.packets for place in at) and not any(
            places.is_copy(place, segment) for place in at
        ):
            return None
        return known

    def _join(self, segment: Segment) -> Direction | None:
        """As `_in_another_network`, for good."""
        known = self._in_another_network(segment)
        if known is not None and known.other is not None:
            keys = segment.key, segment.reverse_key
            self._directions[keys[0]], self._directions[keys[1]] = known, known.other
            self._used[known.primary] += keys
        return known

    def watch(self, segment: Segment) -> None:
        """A RST was received: look at what its sender goes on to send."""
        direction = self.find(segment)
        if direction is not None:
            direction.watch(segment.time_ns, segment.seq)
        sender = segment.source + segment.tag
        self._watched[sender] = _Watch(segment.key, segment.time_ns, _number(segment, direction))
        self._watched.move_to_end(sender)
        if len(self._watched) > PEERS:
            self._watched.popitem(last=False)

    def baseline(self, segment: Segment) -> Baseline:
        """What was known when this RST came."""
        direction = self.find(segment)
        sender = segment.source + segment.tag
        known = self._peers.get(sender)
        if self._at_places:
            known = self._peers.get(_at(sender, _number(segment, direction))) or known
        ttls, peer = (known.ttls, known.peer) if known is not None else ((), None)
        ours = None
        if direction is not None:
            ours = direction.other.half() if direction.other is not None else None
            theirs = direction.half()
            if theirs is not None:
                return Baseline(Scope.FLOW, theirs, ours, ttls, peer)
        if known is not None:
            return Baseline(Scope.PEER, known.half, ours, ttls, peer)
        return Baseline(Scope.NONE, None, ours, ttls, peer)

    def _learn_peer(self, segment: Segment, direction: Direction) -> None:
        """A direction's handshake has been confirmed by this packet.

        It is kept for the address, and where there are several places also for this one: at each
        of them the same host is at another distance.
        """
        handshake = direction.handshake()
        sender = segment.source + segment.tag
        at, number = direction.places, _number(segment, direction)
        if at is None or at[0] is direction:
            self._keep_peer(sender, handshake)
        if at is not None:
            self._at_places = True
            self._keep_peer(_at(sender, number), handshake)
        watch = self._watched.get(sender)
        if watch is not None and (at is None or watch.place == number):
            self._tell(watch, segment, handshake)

    def _keep_peer(self, key: bytes, handshake: _Handshake) -> None:
        known, ttl = self._peers.get(key), handshake.syn.ttl
        ttls = known.ttls if known is not None else ()
        if ttls[:1] != (ttl,):
            ttls = (ttl, *ttls)[:PEER_TTLS]
        self._peers[key] = _Known(handshake, ttls)
        self._peers.move_to_end(key)
        if len(self._peers) > PEERS:
            self._peers.popitem(last=False)

    def _tell(self, watch: _Watch, segment: Segment, handshake: _Handshake) -> None:
        """Of a handshake after a RST in its sender's name, if it adds something."""
        syn = handshake.syn
        if watch.key == segment.key or syn.time_ns <= watch.time_ns:
            return
        if len(watch.ttls) >= HANDSHAKES_TOLD or syn.ttl in watch.ttls:
            return
        watch.ttls.append(syn.ttl)
        ports = segment.data[segment.l4 : segment.l4 + 4]
        self.met = LatePacket(
            syn.time_ns,
            handshake_packet(
                syn.seen(handshake.version),
                handshake.options.text(),
                handshake.options.length,
                Endpoint(address(segment.source), int.from_bytes(ports[:2], "big")),
                Endpoint(address(segment.destination), int.from_bytes(ports[2:], "big")),
            ),
            mac=_mac(handshake.mac),
            handshake=True,
        )


def _mac(raw: bytes | None) -> str | None:
    return raw.hex(":") if raw is not None else None


def _number(segment: Segment, direction: Direction | None) -> int:
    """Which place this is: its interface, else which one of the connection's."""
    if segment.interface or direction is None or direction.places is None:
        return segment.interface
    return direction.places.index(direction)


def _at(sender: bytes, place: int) -> bytes:
    """An address at a place, where there are several."""
    return sender + b"@" + place.to_bytes(4, "big")


def _bare(segment: Segment, key: bytes) -> bytes:
    """A key without the virtual network's number."""
    return key[: 12 if segment.version == 4 else 36]


def since(now: int, then: int) -> int:
    """How long ago, 0 if packets are not in order of time."""
    return max(0, now - then)


def _begin(direction: Direction, other: Direction, segment: Segment) -> None:
    """A SYN or SYN-ACK may begin a new connection on these ports, as in bpf/flow.h."""
    if not segment.flags & ACK:
        if _begins_anew(direction, other, segment):
            direction.clear()
            other.clear()
        # What follows a SYN says nothing about an earlier RST: see begin() in bpf/flow.h.
        direction.reset_ns = other.reset_ns = None
    elif (
        other.new_syn is not None
        and segment.ack == advance(other.new_syn.seq, 1)
        and direction.syn_seq != segment.seq
    ):  # renews(): the other end has taken the new SYN
        syn, options = other.new_syn, other.new_options
        mac, interface = other.mac, other.interface
        direction.clear()
        other.clear()
        other.mac, other.interface = mac, interface
        other._count_ttl(syn.ttl, syn.time_ns, True)
        other.note(syn, options)


def _begins_anew(direction: Direction, other: Direction, segment: Segment) -> bool:
    """As begins_anew() of bpf/flow.h: not a retransmission, not a SYN into a live flow."""
    if direction.syn_seq == segment.seq or not (direction.packets or other.packets):
        return False
    return direction.closed or other.closed


def _near(number: int, newest: int | None, oldest: int | None) -> bool:
    """As is_near() of bpf/flow.h: near one of the two, or between them; or neither is known."""
    if newest is not None and (number - newest + NEAR) & 0xFFFFFFFF <= 2 * NEAR:
        return True
    if oldest is None:
        return newest is None
    if (number - oldest + NEAR) & 0xFFFFFFFF <= 2 * NEAR:
        return True
    return newest is not None and within(number, oldest, newest)


def _unusual_timestamps(segment: Segment) -> tuple[bool | None, bytes]:
    """Timestamps that are not laid out as NOP NOP TS: of a SYN, or beside an MD5 signature."""
    options = _options(segment)
    at = timestamps_at(options)
    if at >= 0:
        return True, options[at : at + 8]
    return (False if len(options) == segment.offset * 4 - 20 else None), b""


def _options(segment: Segment) -> bytes:
    return segment.data[segment.l4 + 20 : min(segment.l4 + segment.offset * 4, segment.end)]


def _syn_options(segment: Segment, stamped: bool | None) -> _Options:
    return _Options(_options(segment), segment.offset * 4 - 20, stamped)
