"""Packets of a pcap file (draft-ietf-opsawg-pcap): the ordinary ones here, the others by scapy."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from rsttrace import home
from rsttrace.capture.extent import Extent
from rsttrace.capture.tape import MAX_BLOCK, Broken, Tape

MAX_PACKET = 262_144
"""The longest packet that libpcap accepts (MAXIMUM_SNAPLEN): more than that is a broken file."""

ORDINARY = 262_140
"""No packet longer than this is taken in one piece (scapy's reader: 4 times its MTU)."""

ENDS_INSIDE = "the file ends inside a packet"

SECOND = 1_000_000_000

MAGICS: dict[bytes, tuple[str, int]] = {
    struct.pack(order + "I", magic): (order, unit)
    for order in "<>"
    for magic, unit in ((0xA1B2C3D4, 1000), (0xA1B23C4D, 1))
}
"""§4: how the file begins; its byte order, and how many nanoseconds its unit of time has."""

HEADER = 24


class Record(NamedTuple):
    """One packet of a file.

    `number` counts from 1, as Wireshark does; `time_ns` is nanoseconds since the epoch or
    `NO_TIME`; `link` is the LINKTYPE_ number; `wire_length` the length before any cut, in bytes;
    `direction` is pcapng's epb_flags: 1 inbound, 2 outbound, 0 unknown; `interface` the number of
    the pcapng interface in its section, 0 in a pcap file.
    """

    number: int
    time_ns: int
    link: int
    data: bytes
    wire_length: int
    direction: int = 0
    interface: int = 0


class Pcap:
    """A pcap file, from its header on.

    Raises:
        Broken: the header is not all there.
    """

    section = 0

    def __init__(self, tape: Tape) -> None:
        self.extents: dict[tuple[int, int], Extent] = {}
        self._tape = tape
        header = tape.read(HEADER)
        if len(header) < HEADER:
            raise Broken("Invalid pcap file (too short)")
        self._order, self._unit = MAGICS[header[:4]]
        self._snaplen, link = struct.unpack_from(self._order + "II", header, 16)
        # Above 16 bits the field holds the frame check sequence's length, not the type.
        self._link: int = link & 0xFFFF
        self._reader: Any = None

    def interface(self, number: int) -> tuple[int, str | None] | None:
        """None: a pcap file names no interfaces."""
        return None

    def ordinary(self, number: int) -> Iterator[Record]:
        """The packets behind the first `number`, up to one that is cut off or too long."""
        tape, unit, link = self._tape, self._unit, self._link
        header = struct.Struct(self._order + "IIII").unpack_from
        while True:
            buffer, at = tape.buffer, tape.at
            size = len(buffer)
            captured = 0
            while at + 16 <= size:
                seconds, fraction, captured, length = header(buffer, at)
                end = at + 16 + captured
                if end > size or captured > ORDINARY:
                    break
                number += 1
                row = (
                    number,
                    seconds * SECOND + fraction * unit,
                    link,
                    buffer[at + 16 : end],
                    length if length > captured else captured,
                    0,
                    0,
                )
                tape.at = at = end
                yield tuple.__new__(Record, row)  # what Record() does, but twice as fast
            if captured > ORDINARY or not tape.fill():
                return

    def odd(self, number: int) -> Record:
        """The next packet, whatever it is like.

        Raises:
            EOFError: the file ends here.
            Broken: it makes no sense.
        """
        if self._reader is None:
            with home.leaving_nothing():
                from scapy.utils import RawPcapReader

            self._reader = object.__new__(RawPcapReader)  # the header has been read
            self._reader.f, self._reader.endian = self._tape, self._order
        data, meta = self._reader._read_packet(MAX_PACKET)
        if meta.caplen > max(MAX_PACKET, min(self._snaplen, MAX_BLOCK)):
            raise Broken(f"a packet of {meta.caplen} bytes, which no capture holds")
        if self._tape.short and not data:
            raise Broken(ENDS_INSIDE)
        time_ns = meta.sec * SECOND + meta.usec * self._unit
        return Record(number, time_ns, self._link, data, max(meta.wirelen, len(data)))
