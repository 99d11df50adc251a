"""The baseline of a capture: what each flow's packets looked like, as bpf/flow.h does it live.

Bounded: the least recently used flows and peers are forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Optional

from rsttrace.capture.layers import Segment
from rsttrace.limits import IDLE_REUSE_NS, LATE_FOR_NS, PEER_TTLS, PEERS, RECENT
from rsttrace.model import Baseline, Half, Scope, Seen
from rsttrace.tcp import flag_letters, options_text

ORDINARY_PACKET = 1500
ORDINARY_SEGMENT = 1448
"""An IP packet on Ethernet, and what a longer buffer is cut into where the MSS is unknown."""

FIN, SYN, RST, ACK = 1, 2, 4, 16

_Recent = tuple[int, int, int, bool, int, int, int, Optional[int], int, int]


def before(a: int, b: int) -> bool:
    """Whether sequence number `a` is older than `b` (RFC 9293 §3.4)."""
    return (a - b) & 0xFFFFFFFF > 0x7FFFFFFF


def latest(a: int | None, b: int) -> int:
    """The newer one of two sequence numbers."""
    return b if a is None or before(a, b) else a


class Direction:
    """One direction of a flow. The first block is the baseline, as ``struct rst_half``.

    The second is what tells whether a RST counts: `end`, the sequence number after the highest
    byte sent (SYN and FIN included), `acked`, the highest acknowledgment sent, `fin`, the sequence
    number after its FIN, `scale` its window scale (``None``: its SYN was not seen). `reset` says
    that a RST of this direction ended the flow.
    """

    __slots__ = (
        "acked",
        "closed",
        "df_always",
        "end",
        "fin",
        "fin_ns",
        "first_ns",
        "interface",
        "last_ns",
        "late_told",
        "mac",
        "mss",
        "other",
        "packets",
        "primary",
        "recent",
        "reset",
        "reset_ns",
        "reset_seq",
        "scale",
        "syn_ack",
        "syn_ns",
        "syn_options",
        "syn_seq",
        "syn_ttl",
        "syn_window",
        "timestamps",
        "ttl",
        "ttl_max",
        "ttl_min",
        "window",
    )

    def __init__(self) -> None:
        self.other: Direction | None = None
        self.primary = b""
        self.clear()

    def clear(self) -> None:
        """Forget everything: a new connection begins."""
        self.packets = 0
        self.ttl = self.ttl_min = self.ttl_max = 0
        self.syn_ttl: int | None = None
        self.syn_window: int | None = None
        self.syn_seq: int | None = None
        self.syn_ns: int | None = None
        self.syn_options: tuple[bytes, int] | None = None
        self.df_always = True
        self.timestamps = False
        self.mac: bytes | None = None
        self.interface = 0
        self.first_ns = self.last_ns = 0
        self.closed = False
        self.recent: list[_Recent] = []

        self.end: int | None = None
        self.acked: int | None = None
        self.fin: int | None = None
        self.fin_ns = 0
        self.window: int | None = None
        self.scale: int | None = None
        self.mss: int | None = None
        self.syn_ack = False
        self.reset = False
        self.reset_ns: int | None = None
        self.reset_seq = 0
        self.late_told = False

    def is_late(self, segment: Segment) -> bool:
        """Whether to tell of a packet that came after a RST of this direction.

        As is_late() of bpf/flow.h: the first one, and the first that no honest sender would send.
        """
        if self.reset_ns is None or not 0 <= segment.time_ns - self.reset_ns <= LATE_FOR_NS:
            return False
        if segment.flags & SYN:
            beyond = bool(segment.flags & ACK)
        else:
            length = segment.payload_len + (segment.flags & FIN)
            beyond = bool(self.reset_seq and length) and before(
                self.reset_seq, (segment.seq + length) & 0xFFFFFFFF
            )
        if beyond:
            self.reset_ns = None
        first, self.late_told = not self.late_told, True
        return beyond or first

    def learn(self, segment: Segment) -> None:
        """Take one packet in (never a RST: those do not teach what honest packets look like)."""
        flags, ttl, now = segment.flags, segment.ttl, segment.time_ns
        if not self.packets:
            self.first_ns = now
            self.ttl_min = self.ttl_max = ttl
        elif ttl < self.ttl_min:
            self.ttl_min = ttl
        elif ttl > self.ttl_max:
            self.ttl_max = ttl
        end = segment.seq + segment.payload_len
        if flags & 3:
            end += self._begins_or_ends(segment)
        end &= 0xFFFFFFFF
        if self.end is None or (end - self.end) & 0xFFFFFFFF < 0x80000000:
            self.end = end
        if flags & ACK and (
            self.acked is None or (segment.ack - self.acked) & 0xFFFFFFFF < 0x80000000
        ):
            self.acked = segment.ack
        self.ttl = ttl
        if not segment.df:
            self.df_always = False
        if segment.timestamps:
            self.timestamps = True
        self.last_ns = now
        self.window = segment.window
        if segment.mac >= 0:
            self.mac = segment.data[segment.mac : segment.mac + 6]
        self.interface = segment.interface
        recent = self.recent
        if len(recent) == RECENT:
            del recent[0]
        recent.append(
            (
                now,
                ttl,
                segment.ip_id,
                segment.df,
                flags,
                segment.seq,
                segment.ack,
                segment.window,
                segment.payload_len,
                1 if segment.length <= ORDINARY_PACKET else self._segments(segment),
            )
        )
        self.packets += 1
        other = self.other
        if other is not None and other.reset:
            other.reset = False  # it goes on: that RST did not end it

    def _begins_or_ends(self, segment: Segment) -> int:
        """SYN and FIN; returns how many sequence numbers they take."""
        taken = 0
        if segment.flags & SYN:
            taken = 1
            if self.syn_ttl is None:
                self.syn_ttl = segment.ttl
                self.syn_window = segment.window
                self.syn_seq = segment.seq
                self.syn_ns = segment.time_ns
                self.syn_ack = segment.flags & ACK != 0
                self._options(segment)
        if segment.flags & FIN:
            taken += 1
            if self.fin is None:
                self.fin_ns = segment.time_ns
            self.fin = (segment.seq + segment.payload_len + taken) & 0xFFFFFFFF
            self.closed = True
        return taken

    def _options(self, segment: Segment) -> None:
        """MSS and window scale (RFC 9293 §3.2, RFC 7323 §2.2) of a SYN."""
        options = segment.data[segment.l4 + 20 : min(segment.l4 + segment.offset * 4, segment.end)]
        whole = len(options) == segment.offset * 4 - 20
        self.syn_options = (bytes(options), segment.offset * 4 - 20)
        self.scale = 0 if whole else None
        at = 0
        while at + 1 < len(options) and options[at]:
            if options[at] == 1:
                at += 1
                continue
            length = options[at + 1]
            if length < 2 or at + length > len(options):
                return
            if options[at] == 2 and length == 4:
                self.mss = options[at + 2] << 8 | options[at + 3]
            elif options[at] == 3 and length == 3:
                self.scale = min(options[at + 2], 14)
            at += length

    def _segments(self, segment: Segment) -> int:
        """How many packets on the wire one offloaded buffer stands for (GSO, GRO)."""
        mss = self.other.mss if self.other is not None else None
        size = mss - 12 if mss and mss > 64 and segment.timestamps else mss or ORDINARY_SEGMENT
        return max(1, -(-segment.payload_len // size))

    def half(self) -> Half | None:
        """As the judge knows it."""
        if not self.packets:
            return None
        return Half(
            packets=self.packets,
            ttl=self.ttl,
            ttl_min=self.ttl_min,
            ttl_max=self.ttl_max,
            syn_ttl=self.syn_ttl,
            syn_window=self.syn_window,
            df_always=self.df_always,
            timestamps=self.timestamps,
            mac=self.mac.hex(":") if self.mac is not None else None,
            ifindex=self.interface or None,
            first_ns=self.first_ns,
            last_ns=self.last_ns,
            syn_ns=self.syn_ns,
            syn_options=options_text(*self.syn_options) if self.syn_options else None,
            recent=tuple(
                Seen(
                    time_ns=row[0],
                    ttl=row[1],
                    ip_id=row[2],
                    df=row[3],
                    flags=flag_letters(row[4]),
                    seq=row[5],
                    ack=row[6],
                    window=row[7],
                    payload_len=row[8],
                    segments=row[9],
                )
                for row in reversed(self.recent)
            ),
            end=self.end,
        )


class Flows:
    """Every flow of a capture, the `limit` last used ones."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._directions: dict[bytes, Direction] = {}
        self._used: OrderedDict[bytes, bytes] = OrderedDict()
        self._peers: OrderedDict[bytes, Half] = OrderedDict()
        self._ttls: OrderedDict[bytes, tuple[int, ...]] = OrderedDict()
        self.late = False  # the packet learned last came after "its" RST

    def __len__(self) -> int:
        return len(self._used)

    def find(self, segment: Segment) -> Direction | None:
        """The direction that a packet belongs to, if its flow is known."""
        return self._directions.get(segment.key)

    def learn(self, segment: Segment) -> bool:
        """Take a packet in that is no RST; true if its flow was not known."""
        direction = self._directions.get(segment.key)
        new = direction is None
        if direction is None:
            direction = self.add(segment)
        else:
            self._used.move_to_end(direction.primary)
        if segment.flags & 0x12 == SYN and self._begins_anew(direction, segment):
            direction.clear()
            if direction.other is not None:
                direction.other.clear()
        self.late = direction.reset_ns is not None and direction.is_late(segment)
        direction.learn(segment)
        if segment.flags & SYN:
            self._learn_peer(segment, direction)
        return new

    def add(self, segment: Segment) -> Direction:
        """A new flow, in the direction of this packet."""
        key, reverse = segment.key, segment.reverse_key
        there, back = Direction(), Direction()
        there.other, back.other = back, there
        there.primary = back.primary = key
        self._directions[key] = there
        self._directions[reverse] = back
        if key == reverse:  # the same address and port at both ends: one direction only
            back.other = back
            there = back
        self._used[key] = reverse
        if len(self._used) > self.limit:
            old, old_reverse = self._used.popitem(last=False)
            self._directions.pop(old).other = None
            gone = self._directions.pop(old_reverse, None)
            if gone is not None:
                gone.other = None
        return there

    def baseline(self, segment: Segment) -> Baseline:
        """What was known when this RST came."""
        direction = self._directions.get(segment.key)
        address = segment.source + segment.tag
        ttls = self._ttls.get(address, ())
        ours = None
        if direction is not None:
            ours = direction.other.half() if direction.other is not None else None
            theirs = direction.half()
            if theirs is not None:
                return Baseline(Scope.FLOW, theirs, ours, ttls)
        peer = self._peers.get(address)
        if peer is not None:
            return Baseline(Scope.PEER, peer, ours, ttls)
        return Baseline(Scope.NONE, None, ours, ttls)

    def _learn_peer(self, segment: Segment, direction: Direction) -> None:
        half = direction.half()
        if half is None:
            return
        address = segment.source + segment.tag
        self._peers[address] = half
        self._peers.move_to_end(address)
        known = self._ttls.get(address, ())
        if known[:1] != (segment.ttl,):
            self._ttls[address] = (segment.ttl, *known)[:PEER_TTLS]
        self._ttls.move_to_end(address)
        if len(self._peers) > PEERS:
            self._peers.popitem(last=False)
            self._ttls.popitem(last=False)

    def _begins_anew(self, direction: Direction, segment: Segment) -> bool:
        """As begins_anew() of bpf/flow.h: not a retransmission, not a SYN into a live flow."""
        other = direction.other
        if other is None or direction.syn_seq == segment.seq:
            return False
        if direction.closed or other.closed:
            return True
        now = segment.time_ns
        # A direction without packets has never been used: live, its time is 0.
        quiet = (
            not half.packets or now - half.last_ns > IDLE_REUSE_NS for half in (direction, other)
        )
        return all(quiet)
