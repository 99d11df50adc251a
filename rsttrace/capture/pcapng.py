"""Packets of a pcapng file (draft-ietf-opsawg-pcapng): ordinary blocks here, the others by scapy.

Ordinary is what dumpcap, Wireshark and tcpdump write, whole and without contradictions. Whatever
is not is left to scapy's reader, which knows older kinds of blocks, and what is wrong with a broken
one. Both share what is known of the file, so either can go on where the other stopped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from rsttrace import home
from rsttrace.capture.extent import Clock, Extent
from rsttrace.capture.pcap import MAX_PACKET, SECOND, Record
from rsttrace.capture.tape import Broken, Tape
from rsttrace.errors import DependencyError
from rsttrace.model import NO_TIME

MAGIC = b"\n\r\r\n"

MAX_INTERFACES = 65_536
"""More interfaces than this in a pcapng section would only use up memory."""

MAX_OPTIONS = 256
"""Options of a block that are read; no program writes more than some dozens. (Sixteen kilobytes of
gzip hold four million empty ones.)"""

NAME_KEPT = 256
"""Bytes of an interface's name that are kept: Linux's have 15 (IFNAMSIZ), Windows' about 50."""

ORDERS = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
"""§4.1: the Byte-Order Magic."""

SECTION, INTERFACE, OBSOLETE, SIMPLE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 2, 3, 5, 6

FLAGS, PROCESSES = 2, (0x8001, 0x8003)
"""Options of a packet: epb_flags (§4.3), and Apple's, which name a process."""

COMMENT, NAME, RESOLUTION, OFFSET = 1, 2, 9, 14
"""Options of an interface (§4.2): opt_comment, if_name, if_tsresol, if_tsoffset."""

SEVERAL = (COMMENT, 2988, 2989, 19372, 19373)
"""Options that may come several times (§3.5)."""

Interface = tuple[int, int, dict[str, Any]]
"""Link type, snapshot length, options: `tsresol` (ticks a second) and, where it has one, `name`."""


class _OddError(Exception):
    """Not ordinary."""


class Pcapng:
    """A pcapng file, from its first section header on.

    `section` counts them from 0; `interfaces` are those of the newest one, and `offsets` what is to
    be added to their times, in seconds; `newest` is the interface of the newest packet.

    Raises:
        Broken: the first block is no section header that can be read.
    """

    def __init__(self, tape: Tape) -> None:
        self.order = "<"
        self.section = -1
        self.interfaces: list[Interface] = []
        self.offsets: list[int] = []
        self._clocks: list[tuple[int, int, int]] = []  # link type, ticks a second, offset in ns
        self.newest = 0
        self.extents: dict[tuple[int, int], Extent] = {}
        self.tape = tape
        self._reader: Any = None
        while self.section < 0 and len(tape.buffer) < 12 and tape.fill():
            pass
        try:
            if self._block():
                return
        except _OddError:
            pass
        refusal = scapy_error()
        tape.read(4)
        try:
            self._scapy()._read_block_shb()
        except (EOFError, refusal) as error:
            raise Broken(str(error)) from None

    def interface(self, number: int) -> tuple[int, str | None] | None:
        """Number and name of an interface of the section just read."""
        if number >= len(self.interfaces):
            return None
        name = self.interfaces[number][2].get("name")
        return number, name.decode("utf-8", "replace") if name else None

    def ordinary(self, number: int) -> Iterator[Record]:
        """The packets behind the first `number`, up to a block that is not ordinary."""
        tape = self.tape
        while True:
            buffer, at, order = tape.buffer, tape.at, self.order
            size = len(buffer)
            block = struct.Struct(order + "7I").unpack_from
            tail = struct.Struct(order + "I").unpack_from
            clocks, count = self._clocks, len(self.interfaces)
            for each in range(len(clocks), count):
                link, _, told = self.interfaces[each]
                clocks.append((link, told["tsresol"], self.offsets[each] * SECOND))
            while at + 32 <= size:
                kind, length, which, high, low, captured, wire = block(buffer, at)
                end = at + length
                if kind != PACKET or end > size or length & 3 or length < 32:
                    break
                options = at + 28 + captured + (-captured & 3)
                if which >= count or captured > MAX_PACKET or options > end - 4:
                    break
                if tail(buffer, end - 4)[0] != length:
                    break
                direction = 0
                if options < end - 8:
                    try:
                        direction = self._packet_options(buffer[options : end - 4], which)
                    except _OddError:
                        break
                link, ticks, offset_ns = clocks[which]
                number += 1
                row = (
                    number,
                    (high << 32 | low) * SECOND // ticks + offset_ns,
                    link,
                    buffer[at + 28 : at + 28 + captured],
                    wire if wire > captured else captured,
                    direction,
                    which,
                )
                self.newest = which
                tape.at = at = end
                yield tuple.__new__(Record, row)
            try:
                if not self._block() and not tape.fill():
                    return
            except _OddError:
                return

    def odd(self, number: int) -> Record:
        """The next packet, whatever the blocks before it are like.

        Raises:
            EOFError: the file ends here.
            Broken: it makes no sense.
        """
        reader = self._scapy()
        data, meta = reader._read_packet(MAX_PACKET)
        time_ns = NO_TIME
        if meta.tshigh is not None:
            ticks = meta.tshigh << 32 | meta.tslow
            time_ns = ticks * SECOND // meta.tsresol + self.offsets[self.newest] * SECOND
        return Record(
            number,
            time_ns,
            meta.linktype,
            data,
            max(meta.wirelen, len(data)),
            meta.direction or 0,
            self.newest,
        )

    def extent(self, interface: int) -> Extent:
        """What the file says of an interface of this section."""
        return self.extents.setdefault((self.section, interface), Extent())

    def begin_section(self, order: str) -> None:
        """A section header: its interfaces are numbered anew."""
        self.order = order
        self.interfaces.clear()
        self.offsets.clear()
        self._clocks.clear()
        self.section += 1

    def _block(self) -> bool:
        """Take a whole block that is no packet; false if it is not all there (yet).

        Raises:
            _OddError: it is not ordinary, or a packet.
        """
        tape = self.tape
        buffer, at = tape.buffer, tape.at
        if len(buffer) < at + 12:
            return False
        order = self.order
        is_section = buffer[at : at + 4] == MAGIC
        if is_section:
            order = ORDERS.get(buffer[at + 8 : at + 12], "")
            if not order:
                raise _OddError
        kind, length = struct.unpack_from(order + "II", buffer, at)
        if self.section < 0 and not is_section:
            raise _OddError
        if length < 12 or length & 3 or length > MAX_PACKET:
            raise _OddError
        if len(buffer) < at + length:
            return False
        if struct.unpack_from(order + "I", buffer, at + length - 4)[0] != length:
            raise _OddError
        body = buffer[at + 8 : at + length - 4]
        if is_section:
            if len(body) < 16 or struct.unpack_from(order + "H", body, 4)[0] != 1:
                raise _OddError
            self.begin_section(order)
        elif kind == INTERFACE:
            self._interface(body)
        elif kind == STATISTICS:
            self._statistics(body)
        elif kind in (OBSOLETE, SIMPLE, PACKET):
            raise _OddError
        tape.at = at + length
        return True

    def _interface(self, body: bytes) -> None:
        if len(body) < 8 or len(self.interfaces) >= MAX_INTERFACES:
            raise _OddError
        link, snaplen = struct.unpack_from(self.order + "HxxI", body)
        options = self._options(body[8:])
        known: dict[str, Any] = {"tsresol": 1_000_000}
        resolution = options.get(RESOLUTION)
        if resolution is not None:
            if len(resolution) != 1:
                raise _OddError
            base = 2 if resolution[0] & 128 else 10
            known["tsresol"] = base ** (resolution[0] & 127)
        if NAME in options:
            known["name"] = options[NAME][:NAME_KEPT]
        offset = options.get(OFFSET, b"")
        self.interfaces.append((link, snaplen or MAX_PACKET, known))
        self.offsets.append(struct.unpack(self.order + "q", offset)[0] if len(offset) == 8 else 0)

    def _statistics(self, body: bytes) -> None:
        if len(body) < 12:
            return
        interface = struct.unpack_from(self.order + "I", body)[0]
        if interface < len(self.interfaces):
            clock = Clock(self.interfaces[interface][2]["tsresol"], self.offsets[interface])
            self.extent(interface).learn(body, self._options(body[12:]), self.order, clock)

    def _packet_options(self, raw: bytes, interface: int) -> int:
        """The direction that a packet's options tell; those of lost packets are counted."""
        options = self._options(raw)
        flags = options.get(FLAGS)
        if any(code in options for code in PROCESSES) or (flags and len(flags) != 4):
            raise _OddError
        self.extent(interface).lost(options, self.order)
        return struct.unpack(self.order + "I", flags)[0] & 3 if flags else 0

    def _options(self, raw: bytes) -> dict[int, bytes]:
        """Options by their code (§3.5), the last of each; of comments the first.

        Raises:
            _OddError: the end of options has a length.
        """
        found: dict[int, bytes] = {}
        at, header = 0, struct.Struct(self.order + "HH").unpack_from
        for _ in range(MAX_OPTIONS):
            if len(raw) - at < 4:
                break
            code, length = header(raw, at)
            if code == 0:
                if length:
                    raise _OddError
                break
            at += 4
            if at + length <= len(raw) and not (code in SEVERAL and code in found):
                found[code] = raw[at : at + length]
            at += length + (-length & 3)
        return found

    def _scapy(self) -> Any:
        if self._reader is None:
            self._reader = object.__new__(_reader())  # scapy's metaclass would open a file
            self._reader.begin(self)
        return self._reader


def _reader() -> Any:
    """scapy's pcapng reader with what it lacks; made when first needed, so that scapy is too.

    It forgets the interfaces when a new section begins (their numbers start again), keeps each
    interface's timestamp offset (if_tsoffset), takes a snapshot length of 0 for none, reads what
    the file says of its own end and of lost packets (statistics blocks, epb_dropcount), tells a
    file that ends after a block from one that ends inside, and ends where a packet names an
    interface that does not exist, instead of miscounting the packets (draft-ietf-opsawg-pcapng,
    sections 3.1 and 4.1 to 4.6).
    """
    with home.leaving_nothing():
        from scapy.utils import RawPcapNgReader

    class Reader(RawPcapNgReader):  # type: ignore[misc]
        def begin(self, file: Pcapng) -> None:
            self.file, self.f = file, file.tape
            self.interfaces = file.interfaces
            self.default_options = {"tsresol": 1_000_000}
            self.process_information: list[Any] = []
            self._tls_state = None
            # Secrets and process names are no packets: they would only use up memory.
            self.blocktypes = {
                INTERFACE: self._read_block_idb,
                OBSOLETE: self._read_block_pkt,
                SIMPLE: self._read_block_spb,
                STATISTICS: self._read_block_isb,
                PACKET: self._read_block_epb,
            }

        @property
        def endian(self) -> str:
            return self.file.order

        @endian.setter
        def endian(self, order: str) -> None:
            self.file.order = order

        def _read_block_shb(self) -> None:
            super()._read_block_shb()
            self.file.begin_section(self.file.order)

        def _read_block_idb(self, block: bytes, size: int) -> None:
            if len(self.interfaces) >= MAX_INTERFACES:
                raise Broken(f"more than {MAX_INTERFACES} interfaces")
            super()._read_block_idb(block, size)
            link, snaplen, options = self.interfaces[-1]
            if "name" in options:
                options["name"] = options["name"][:NAME_KEPT]
            options.pop("comment", None)
            self.interfaces[-1] = (link, snaplen or MAX_PACKET, options)
            offset = self._read_options(block[8:]).get(OFFSET, b"")
            whole = isinstance(offset, bytes) and len(offset) == 8
            self.file.offsets.append(struct.unpack(self.endian + "q", offset)[0] if whole else 0)

        def _read_options(self, options: bytes) -> Any:
            at, header = 0, struct.Struct(self.endian + "HH").unpack_from
            for _ in range(MAX_OPTIONS):
                if len(options) - at < 4:
                    break
                length = header(options, at)[1]
                at += 4 + length + (-length & 3)
            return super()._read_options(options[:at])

        def _read_block(self, size: int = MAX_PACKET) -> Any:
            self.f.mark()  # a file may end after any block, not only after a packet
            return super()._read_block(size)

        def _check(self, interface: int, captured: int, room: int) -> None:
            if interface >= len(self.interfaces):
                raise Broken(
                    f"a packet of interface {interface}, where the section has "
                    f"{len(self.interfaces)}"
                )
            if captured > room:
                raise Broken(f"a packet of {captured} bytes in a block with room for {room}")
            self.file.newest = interface

        def _read_block_isb(self, block: bytes, size: int) -> None:
            if len(block) < 12:
                return
            interface = struct.unpack_from(self.endian + "I", block)[0]
            if interface < len(self.interfaces):
                ticks = self.interfaces[interface][2]["tsresol"]
                clock = Clock(ticks, self.file.offsets[interface])
                options = self._read_options(block[12:])
                self.file.extent(interface).learn(block, options, self.endian, clock)

        def _read_block_epb(self, block: bytes, size: int) -> Any:
            if len(block) >= 20:
                captured = struct.unpack_from(self.endian + "I", block, 12)[0]
                interface = struct.unpack_from(self.endian + "I", block)[0]
                self._check(interface, captured, len(block) - 20)
                options = block[20 + captured + -captured % 4 :]
                if len(options) > 4:
                    self.file.extent(interface).lost(self._read_options(options), self.endian)
            return super()._read_block_epb(block, size)

        def _read_block_pkt(self, block: bytes, size: int) -> Any:
            if len(block) >= 20:
                captured = struct.unpack_from(self.endian + "I", block, 12)[0]
                interface = struct.unpack_from(self.endian + "H", block)[0]
                self._check(interface, captured, len(block) - 20)
            return super()._read_block_pkt(block, size)

        def _read_block_spb(self, block: bytes, size: int) -> Any:
            self._check(0, 0, 0)
            return super()._read_block_spb(block, size)

    return Reader


def scapy_error() -> Any:
    """What scapy raises.

    Raises:
        DependencyError: it is not there.
    """
    try:
        with home.leaving_nothing():
            from scapy.error import Scapy_Exception
    except ImportError as error:
        raise DependencyError(
            f"reading this capture needs scapy, which cannot be loaded: {error}",
            hint="install it: pip install 'scapy>=2.8,<2.9'",
        ) from None
    return Scapy_Exception
