"""Resets and what provoked them as a pcapng file, each with its verdict as a packet comment.

Wireshark shows the comments, the first line of each in its list of packets where it has a column
for `frame.comment`. The packets are raw IP (link type 101): of a packet rsttrace keeps the
IP and TCP headers, so that is what is written, with the packet's true length.
"""

from __future__ import annotations

import io
import os
import struct
from collections import OrderedDict
from decimal import Decimal
from typing import Any, NamedTuple

from rsttrace import home, model
from rsttrace.render.authors import makers_text
from rsttrace.render.escape import safe
from rsttrace.render.text import entry_lines
from rsttrace.render.words import verdict_text
from rsttrace.tcp import checksum, flag_bits

LINKTYPE_RAW = 101  # https://www.tcpdump.org/linktypes.html
INBOUND, OUTBOUND = 1, 2  # epb_flags, draft-ietf-opsawg-pcapng
SHORTEST_TCP = 20
SENTENCE = 400  # characters
KEPT = 4096
"""Packets that provoked a reset and are remembered, so that each is written once."""
SAME_NS = 200_000_000
"""What both ends of a connection see within this time is one packet: TCP sends nothing again sooner
(Linux: TCP_RTO_MIN, include/net/tcp.h)."""


class _Noted(bytes):
    """A packet with what scapy's writer takes from a packet's attributes."""

    comments: list[bytes]
    direction: int


class Frame(NamedTuple):
    """A packet as the file has it: when it was seen, and its block (with the comments)."""

    time_ns: int
    block: bytes


class Frames:
    """Makes a pcapng file's bytes of entries, one after another.

    It remembers the packets that provoked the last `KEPT` resets: each is written once, though
    this node may see the reset at both ends.
    """

    def __init__(self) -> None:
        # Deferred: scapy takes half a second to load.
        with home.leaving_nothing():
            from scapy.utils import RawPcapNgWriter

        self._into = io.BytesIO()
        self._blocks: Any = RawPcapNgWriter(os.devnull)
        self._blocks.f.close()
        self._blocks.f = self._into  # scapy's own takes names only
        self._blocks.linktype = LINKTYPE_RAW
        self._blocks.write_header(None)
        self.head = self._taken()
        self._known: OrderedDict[bytes, int] = OrderedDict()

    def of(self, entry: model.Entry) -> list[Frame]:
        """An entry's packets: what provoked the reset, if known, and the reset.

        An entry that amends an earlier one repeats the reset with the new comment.
        """
        reset = entry.reset
        found = [] if entry.amends is not None else self._trigger(entry)
        comment = "\n".join([headline(entry), *entry_lines(entry, verbose=True)])
        way = INBOUND if reset.kind.direction == "received" else OUTBOUND
        raw = bytes.fromhex(reset.rst.raw)
        found.append(self._frame(raw, reset.rst.length, reset.time_ns, comment, way))
        return found

    def _trigger(self, entry: model.Entry) -> list[Frame]:
        reset, trigger = entry.reset, entry.reset.trigger
        about = f"rsttrace: what reset #{entry.id} most likely answers"
        way = OUTBOUND if reset.kind.direction == "received" else INBOUND
        data = reset.sent_data
        if data is not None:
            about = f"rsttrace: what was sent last before reset #{entry.id} (options are not kept)"
            packet, length, time_ns = (
                bytes.fromhex(data.packet.raw) + data.payload,
                data.packet.length,
                data.time_ns,
            )
        elif isinstance(trigger, model.Packet):
            # It came just before: that is all that is known of its time.
            packet, length, time_ns = bytes.fromhex(trigger.raw), trigger.length, reset.time_ns
        elif trigger is not None:
            about += " (rebuilt: its options, checksums and data are not kept)"
            packet, length = rebuilt(trigger, reset.rst)
            time_ns = trigger.time_ns
        else:
            return []
        if self._is_known(packet, time_ns):
            return []
        return [self._frame(packet, length, time_ns, about, way)]

    def _is_known(self, packet: bytes, time_ns: int) -> bool:
        """Whether this packet has been written, as the other end knows it: addresses, ports,
        numbers, flags and the time tell. A router changes none of them.
        """
        version = packet[0] >> 4
        l4 = (packet[0] & 15) * 4 if version == 4 else 40
        key = packet[12:20] if version == 4 else packet[8:40]
        key += packet[l4 : l4 + 12] + packet[l4 + 13 : l4 + 14]  # ports, seq, ack, flags
        seen_ns = self._known.get(key)
        self._known[key] = time_ns
        self._known.move_to_end(key)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return seen_ns is not None and abs(time_ns - seen_ns) < SAME_NS

    def _frame(self, packet: bytes, length: int, time_ns: int, comment: str, way: int) -> Frame:
        noted = _Noted(packet)
        noted.comments = [comment.encode("utf-8", "replace")[:0xFFFF]]
        noted.direction = way
        self._blocks.write_packet(
            noted, sec=Decimal(time_ns) / 1_000_000_000, wirelen=max(length, len(packet))
        )
        return Frame(time_ns, self._taken())

    def _taken(self) -> bytes:
        made = self._into.getvalue()
        self._into.seek(0)
        self._into.truncate()
        return made


def headline(entry: model.Entry) -> str:
    """Verdict, who, and why in one line: what a list of packets has room for.

    ``rsttrace #7: FORGED 99% by a firewall's REJECT rule 97 %; ended an established connection``
    """
    reset, verdict = entry.reset, entry.verdict
    forged = verdict.origin is model.Origin.FORGED
    who = makers_text(verdict) if forged and not reset.made_here else None
    said = ["" if forged else verdict.summary, reset.cause.text]
    why = "; ".join(dict.fromkeys(filter(None, said)))
    amends = f", amends #{entry.amends}" if entry.amends is not None else ""
    by = f" by {who}" if who else ""
    return f"rsttrace #{entry.id}{amends}: {verdict_text(verdict)}{by}; {safe(why, SENTENCE)}"


def rebuilt(seen: model.Seen, rst: model.Packet) -> tuple[bytes, int]:
    """A packet's IP and TCP headers from the fields kept of it, and its length in bytes.

    `rst` is the RST that came back: its addresses and ports, the other way round, are the packet's.
    """
    flags = flag_bits(seen.flags)
    tcp = struct.pack(
        ">HHIIBBHHH",
        rst.dst.port,
        rst.src.port,
        seen.seq,
        seen.ack,
        SHORTEST_TCP // 4 << 4,
        flags,
        seen.window or 0,
        0,
        0,
    )
    raw = bytes.fromhex(rst.raw)
    length = len(tcp) + seen.payload_len
    if rst.family == 4:
        total = min(20 + length, 0xFFFF)
        df = 0x4000 if seen.df else 0
        head = struct.pack(">BBHHHBBH", 0x45, 0, total, seen.ip_id or 0, df, seen.ttl, 6, 0)
        head += raw[16:20] + raw[12:16]
        return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + tcp, 20 + length
    head = struct.pack(">IHBB", 6 << 28, min(length, 0xFFFF), 6, seen.ttl)
    return head + raw[24:40] + raw[8:24] + tcp, 40 + length
