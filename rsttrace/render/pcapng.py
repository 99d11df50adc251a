"""Writes resets and what provoked them to a pcapng file, each with its verdict as a packet comment.

Wireshark shows the comments, the first line of each in its list of packets where it has a column
for `frame.comment`. The packets are raw IP (link type 101): of a packet rsttrace keeps the
IP and TCP headers, so that is what is written, with the packet's true length.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from decimal import Decimal
from types import TracebackType
from typing import Any

from rsttrace import model
from rsttrace.errors import RsttraceError
from rsttrace.render.authors import makers_text
from rsttrace.render.escape import safe
from rsttrace.render.text import entry_lines
from rsttrace.render.words import verdict_text
from rsttrace.tcp import checksum, flag_bits

LINKTYPE_RAW = 101  # https://www.tcpdump.org/linktypes.html
INBOUND, OUTBOUND = 1, 2  # epb_flags, draft-ietf-opsawg-pcapng
SHORTEST_TCP = 20
SENTENCE = 400  # characters


class _Noted(bytes):
    """A packet with what scapy's writer takes from a packet's attributes."""

    comments: list[bytes]
    direction: int


class PcapngWriter:
    """A pcapng file. Use as a context manager; each packet is on the disk when `add` returns.

    Raises:
        RsttraceError: the file cannot be written.
    """

    def __init__(self, path: str) -> None:
        # Deferred: scapy takes half a second to load.
        from scapy.utils import RawPcapNgWriter

        self._path = path
        with self._errors():
            self._file: Any = RawPcapNgWriter(path)
            self._file.linktype = LINKTYPE_RAW
            self._file.write_header(None)
            self._file.flush()

    def __enter__(self) -> PcapngWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._errors():
            self._file.close()

    def add(self, entry: model.Entry) -> None:
        """Write an entry's packets: what provoked the reset, if known, and the reset.

        An entry that amends an earlier one repeats the reset with the new comment.

        Raises:
            RsttraceError: the file cannot be written.
        """
        reset = entry.reset
        with self._errors():
            if entry.amends is None:
                self._add_trigger(entry)
            comment = "\n".join([headline(entry), *entry_lines(entry, verbose=True)])
            self._write(
                bytes.fromhex(reset.rst.raw),
                reset.rst.length,
                reset.time_ns,
                comment,
                INBOUND if reset.kind.direction == "received" else OUTBOUND,
            )
            self._file.flush()

    def _add_trigger(self, entry: model.Entry) -> None:
        reset, trigger = entry.reset, entry.reset.trigger
        about = f"rsttrace: what reset #{entry.id} most likely answers"
        way = OUTBOUND if reset.kind.direction == "received" else INBOUND
        data = reset.sent_data
        if data is not None:
            about = f"rsttrace: what was sent last before reset #{entry.id} (options are not kept)"
            packet = bytes.fromhex(data.packet.raw) + data.payload
            self._write(packet, data.packet.length, data.time_ns, about, way)
        elif isinstance(trigger, model.Packet):
            # It came just before: that is all that is known of its time.
            packet = bytes.fromhex(trigger.raw)
            self._write(packet, trigger.length, reset.time_ns, about, way)
        elif trigger is not None:
            about += " (rebuilt: its options, checksums and data are not kept)"
            packet, length = rebuilt(trigger, reset.rst)
            self._write(packet, length, trigger.time_ns, about, way)

    def _write(self, packet: bytes, length: int, time_ns: int, comment: str, way: int) -> None:
        noted = _Noted(packet)
        noted.comments = [comment.encode("utf-8", "replace")[:0xFFFF]]
        noted.direction = way
        self._file.write_packet(
            noted, sec=Decimal(time_ns) / 1_000_000_000, wirelen=max(length, len(packet))
        )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = error.strerror or str(error)
            raise RsttraceError(
                f"cannot write {self._path!r}: {why}", hint="name a file you may write with -w"
            ) from None


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
