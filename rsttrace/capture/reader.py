"""Reads capture files packet by packet: pcap and pcapng, plain or gzip, from a file or a pipe.

The formats are scapy's business (docs/dependencies.md says why); its log messages are turned into
the reason why a file breaks off. What its pcapng reader gets wrong is corrected in `PcapngReader`.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import logging
import os
import select
import stat
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TextIO

from rsttrace.capture.extent import Clock, Extent
from rsttrace.errors import CaptureError, DependencyError
from rsttrace.model import NO_TIME

MAX_PACKET = 262_144
"""The longest packet that libpcap accepts (MAXIMUM_SNAPLEN): more than that is a broken file."""

MAX_BLOCK = 16 << 20
"""The longest pcapng block that libpcap accepts (INITIAL_MAX_BLOCKSIZE, sf-pcapng.c)."""

MAX_INTERFACES = 65_536
"""More interfaces than this in a pcapng section would only use up memory."""

POLL_MS = 200
"""How often a read from a quiet pipe looks whether the run is to end."""

ENDS_INSIDE = "the file ends inside a packet"

SECOND = 1_000_000_000

PCAPNG_MAGIC = b"\n\r\r\n"
PCAP_MAGICS = [
    struct.pack(order + "I", magic) for order in "<>" for magic in (0xA1B2C3D4, 0xA1B23C4D)
]
"""draft-ietf-opsawg-pcapng §4.1, draft-ietf-opsawg-pcap §4: microseconds and nanoseconds."""

OTHER_FORMATS = {
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first (zstd -d)",
    b"\xfd7zX": "compressed with xz; unpack it first (xz -d)",
    b"BZh": "compressed with bzip2; unpack it first (bzip2 -d)",
    b"\x04\x22\x4d\x18": "compressed with lz4; unpack it first (lz4 -d)",
    b"\x1f\x8b": "compressed twice; unpack it first (gzip -d)",
    b"snoop\0\0\0": "in the snoop format; convert it first (editcap -F pcapng)",
}
"""What a file that is no capture may be, by how it begins."""


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


class JsonLines(CaptureError):
    """It is no capture, but begins like lines of JSON, perhaps our own: `stream` reads them."""

    def __init__(self, name: str, stream: TextIO) -> None:
        super().__init__(
            f"{name!a} is no capture: it begins like lines of JSON",
            hint="`rsttrace read` takes them",
        )
        self.stream = stream


class Broken(OSError):
    """The file ends or makes no sense here. An OSError, because scapy takes that for the end."""


class Capture:
    """One capture file, open. Iterate it once; then `problem` says whether and where it broke.

    Args:
        name: a path, or ``-`` for standard input.
        ended: looked at while a pipe is quiet; when it says true, the file ends here.

    Raises:
        CaptureError: it cannot be opened, or is no capture.
    """

    def __init__(self, name: str, ended: Callable[[], bool] = lambda: False) -> None:
        self.name = name
        self.problem: str | None = None
        self.packets = 0
        self.size: int | None = None
        """Bytes of a regular file; ``None`` for a pipe."""
        if name == "-" and sys.stdin is not None and sys.stdin.isatty():
            raise CaptureError(
                "standard input is a terminal, not a capture",
                hint="pipe one into it: tcpdump -w - | rsttrace read -",
            )
        try:
            descriptor = os.dup(sys.stdin.fileno()) if name == "-" else os.open(name, os.O_RDONLY)
            self._raw = _Patient(descriptor, ended)
            mode = os.fstat(descriptor)
        except (OSError, ValueError, AttributeError) as error:  # stdin may be closed, or no file
            why = getattr(error, "strerror", None) or error
            raise CaptureError(f"cannot open the capture {name!a}: {why}") from None
        if stat.S_ISDIR(mode.st_mode):
            self._raw.close()
            raise CaptureError(f"cannot open the capture {name!a}: it is a directory")
        if stat.S_ISREG(mode.st_mode):
            self.size = mode.st_size
            self._raw.patient = False
        self._said: list[str] = []
        try:
            _scapy_error()
        except ImportError as error:
            self._raw.close()
            raise DependencyError(
                f"reading captures needs scapy, which cannot be loaded: {error}",
                hint="install it: pip install 'scapy>=2.8,<2.9'",
            ) from None
        try:
            self._tape = _Tape(self._raw)
            with _messages(self._said):
                self._reader = self._open()
        except JsonLines:
            raise
        except BaseException:
            self._raw.close()
            raise

    def __enter__(self) -> Capture:
        """Opened already."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close it."""
        self._raw.close()

    @property
    def position(self) -> int:
        """How many bytes of the file (as it lies on the disk) were read."""
        return self._raw.count

    @property
    def section(self) -> int:
        """Which section of a pcapng file the newest packet was in, from 0; interface numbers begin
        anew in each."""
        return getattr(self._reader, "section", 0)

    @property
    def extents(self) -> dict[tuple[int, int], Extent]:
        """What a pcapng file has said of its interfaces so far, by section and number. The packets
        are for the reader to count."""
        return getattr(self._reader, "extents", {})

    def interface(self, number: int) -> tuple[int, str | None] | None:
        """Number and name of an interface of the pcapng section just read; None for a pcap file."""
        interfaces = getattr(self._reader, "interfaces", None)
        if interfaces is None or number >= len(interfaces):
            return None
        name = interfaces[number][2].get("name")
        return number, name.decode("utf-8", "replace") if name else None

    def __iter__(self) -> Iterator[Record]:
        """The packets, in the order of the file. Ends at the first place that makes no sense."""
        reader, tape, refusal = self._reader, self._tape, _scapy_error()
        read = self._pcapng if isinstance(reader, PcapngReader.load()) else self._pcap
        with _messages(self._said):
            while True:
                tape.mark()
                try:
                    record = read(reader)
                except (EOFError, Broken, refusal) as error:
                    self._say_why(self.packets + 1, str(error))
                    return
                except struct.error:  # a field that is not whole
                    self._say_why(self.packets + 1, "")
                    return
                self.packets += 1
                yield record
                if tape.short:  # its beginning is all that there is
                    self._say_why(self.packets, ENDS_INSIDE)
                    return
                if self._said:
                    self._said.clear()

    def _open(self) -> Any:
        tape = self._tape
        try:
            head = tape.peek()
            if not head and self.name == "-" and not self._raw.stopped:
                raise CaptureError(
                    "standard input is empty",
                    hint="did tcpdump start? It may not run without root; tcpdump -U -w - "
                    "writes each packet at once",
                )
            if not head and self.size == 0:
                raise CaptureError(f"{self.name!a} is empty: no capture")
            if head.lstrip()[:1] == b"{":
                raise JsonLines(self.name, tape.text())
            for magic, what in OTHER_FORMATS.items():
                if head.startswith(magic):
                    raise CaptureError(f"{self.name!a} is {what}")
            if head[:4] == PCAPNG_MAGIC:
                return PcapngReader.load()(tape)
            if head[:4] not in PCAP_MAGICS:
                raise Broken("it begins like neither pcap nor pcapng")
            from scapy.utils import RawPcapReader

            return RawPcapReader(tape)
        except (Broken, _scapy_error(), EOFError, struct.error) as error:
            why = tape.trouble or (self._said[-1] if self._said else "") or str(error)
            raise CaptureError(
                f"{self.name!a} is no capture that can be read: {_plain(why)}",
                hint="give a pcap or pcapng file, plain or gzip, as tcpdump and Wireshark write",
            ) from None

    def _pcap(self, reader: Any) -> Record:
        data, meta = reader._read_packet(MAX_PACKET)
        if meta.caplen > max(MAX_PACKET, min(reader.snaplen, MAX_BLOCK)):
            raise Broken(f"a packet of {meta.caplen} bytes, which no capture holds")
        if self._tape.short and not data:
            raise Broken(ENDS_INSIDE)
        time_ns = meta.sec * SECOND + meta.usec * (1 if reader.nano else 1000)
        # Above 16 bits the field holds the frame check sequence's length, not the type.
        link = reader.linktype & 0xFFFF
        return Record(self.packets + 1, time_ns, link, data, max(meta.wirelen, len(data)))

    def _pcapng(self, reader: Any) -> Record:
        data, meta = reader._read_packet(MAX_PACKET)
        time_ns = NO_TIME
        if meta.tshigh is not None:
            ticks = meta.tshigh << 32 | meta.tslow
            time_ns = ticks * SECOND // meta.tsresol + reader.offsets[reader.interface] * SECOND
        return Record(
            self.packets + 1,
            time_ns,
            meta.linktype,
            data,
            max(meta.wirelen, len(data)),
            meta.direction or 0,
            reader.interface,
        )

    def _say_why(self, number: int, words: str) -> None:
        """Set `problem`, unless the file simply ends between two packets."""
        tape = self._tape
        if self._raw.stopped or not (tape.since_mark or tape.trouble):
            return
        words = tape.trouble or words or (ENDS_INSIDE if tape.short else "")
        if not words and self._said:
            words = self._said[-1]
        unit = "byte" if tape.plain else "unpacked byte"
        words = _plain(words) or "what follows makes no sense"
        self.problem = f"broken at packet {number}, {unit} {tape.marked}: {words}"


class PcapngReader:
    """scapy's pcapng reader with what it lacks; made when first needed, so that scapy is too.

    It forgets the interfaces when a new section begins (their numbers start again), keeps each
    interface's timestamp offset (if_tsoffset), takes a snapshot length of 0 for none, reads what
    the file says of its own end and of lost packets (statistics blocks, epb_dropcount), tells a
    file that ends after a block from one that ends inside, and ends where a packet names an
    interface that does not exist, instead of miscounting the packets (draft-ietf-opsawg-pcapng,
    sections 3.1 and 4.1 to 4.6).
    """

    _made: Any = None

    @classmethod
    def load(cls) -> Any:
        """The class."""
        if cls._made is None:
            cls._made = cls._make()
        return cls._made

    @staticmethod
    def _make() -> Any:
        from scapy.utils import RawPcapNgReader

        class Reader(RawPcapNgReader):  # type: ignore[misc]
            def __init__(self, *arguments: Any) -> None:
                self.offsets: list[int] = []
                self.interface = 0
                self.section = -1
                self.extents: dict[tuple[int, int], Extent] = {}
                super().__init__(*arguments)
                self.blocktypes[5] = self._read_block_isb
                # Secrets and process names are no packets: they would only use up memory.
                del self.blocktypes[10], self.blocktypes[0x80000001]

            def _read_block_shb(self) -> None:
                super()._read_block_shb()
                self.interfaces.clear()
                self.offsets.clear()
                self.section += 1

            def _read_block_idb(self, block: bytes, size: int) -> None:
                if len(self.interfaces) >= MAX_INTERFACES:
                    raise Broken(f"more than {MAX_INTERFACES} interfaces")
                super()._read_block_idb(block, size)
                link, snaplen, options = self.interfaces[-1]
                self.interfaces[-1] = (link, snaplen or MAX_PACKET, options)
                offset = self._read_options(block[8:]).get(14, b"")
                whole = isinstance(offset, bytes) and len(offset) == 8
                self.offsets.append(struct.unpack(self.endian + "q", offset)[0] if whole else 0)

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
                self.interface = interface

            def _extent(self, interface: int) -> Extent:
                return self.extents.setdefault((self.section, interface), Extent())

            def _read_block_isb(self, block: bytes, size: int) -> None:
                if len(block) < 12:
                    return
                interface = struct.unpack_from(self.endian + "I", block)[0]
                if interface < len(self.interfaces):
                    ticks = self.interfaces[interface][2]["tsresol"]
                    clock = Clock(ticks, self.offsets[interface])
                    options = self._read_options(block[12:])
                    self._extent(interface).learn(block, options, self.endian, clock)

            def _read_block_epb(self, block: bytes, size: int) -> Any:
                if len(block) >= 20:
                    captured = struct.unpack_from(self.endian + "I", block, 12)[0]
                    interface = struct.unpack_from(self.endian + "I", block)[0]
                    self._check(interface, captured, len(block) - 20)
                    options = block[20 + captured + -captured % 4 :]
                    if len(options) > 4:
                        self._extent(interface).lost(self._read_options(options), self.endian)
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


class _Patient(io.RawIOBase):
    """A file that counts what was read, and can be told to end while a pipe is quiet."""

    def __init__(self, descriptor: int, ended: Callable[[], bool]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._ended = ended
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self.patient = True
        self.stopped = False
        self.count = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes; 0 at the end."""
        while self.patient and not self._poll.poll(POLL_MS):
            if self._ended():
                self.stopped = True
                return 0
        try:
            count = os.readv(self._descriptor, [buffer])
        except OSError as error:
            raise Broken(f"it cannot be read further: {error.strerror or error}") from None
        self.count += count
        return count

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


class _Unpacked(io.RawIOBase):
    """gzip that gives what it has before it complains: its own buffer would lose that."""

    def __init__(self, packed: io.BufferedReader) -> None:
        super().__init__()
        self._file = gzip.GzipFile(fileobj=packed)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes; 0 at the end."""
        data = self._file.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Tape:
    """What scapy reads from: unpacks gzip, counts bytes, notices where the data ends too early."""

    name = "capture"

    def __init__(self, raw: _Patient) -> None:
        source: Any = io.BufferedReader(raw, 1 << 18)
        self.plain = True
        self.trouble: str | None = None
        self.short = False
        self.marked = 0
        self._position = 0
        self._read = source.read
        if _peek(source)[:2] == b"\x1f\x8b":
            self.plain = False
            source = io.BufferedReader(_Unpacked(source), 1 << 18)
            self._read = source.read
        self._source = source

    def peek(self) -> bytes:
        """The first bytes of the (unpacked) file."""
        return self._guard(lambda: _peek(self._source))

    def text(self) -> TextIO:
        """The (unpacked) file as text; closing it closes the file."""
        return io.TextIOWrapper(self._source, encoding="utf-8", errors="replace")

    def mark(self) -> None:
        """A new packet, or another block, begins here."""
        self.marked = self._position
        self.short = False

    @property
    def since_mark(self) -> int:
        """Bytes read since the last `mark`."""
        return self._position - self.marked

    def read(self, size: int) -> bytes:
        """As a file's.

        Raises:
            Broken: the file cannot be read further, or nobody would want so much at once.
        """
        if size > MAX_BLOCK:
            raise self._broken(f"a block of {size} bytes, which no capture holds")
        try:
            data: bytes = self._read(size)
        except (EOFError, OSError, zlib.error) as error:
            raise self._broken(_gzip_words(error)) from None
        self._position += len(data)
        if len(data) < size:
            self.short = True
        return data

    def _guard(self, action: Callable[[], bytes]) -> bytes:
        try:
            return action()
        except (EOFError, OSError, zlib.error) as error:
            raise self._broken(_gzip_words(error)) from None

    def _broken(self, words: str) -> Broken:
        self.trouble = words
        return Broken(words)


def _peek(source: Any) -> bytes:
    """Some bytes without reading them; a pipe may give few at first."""
    head: bytes = source.peek(8)
    return head[:8]


def _gzip_words(error: Exception) -> str:
    if isinstance(error, Broken):
        return str(error)
    if isinstance(error, EOFError):
        return "the compressed data ends too early"
    return f"the compressed data is damaged ({error})"


def _plain(words: str) -> str:
    """scapy's message without its own prefix."""
    for prefix in ("PcapNg: ", "Pcap: "):
        words = words.replace(prefix, "")
    return words.strip().rstrip("!. ")


def _scapy_error() -> Any:
    from scapy.error import Scapy_Exception

    return Scapy_Exception


class _Ear(logging.Handler):
    """Keeps the newest log message."""

    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self._said[:] = [record.getMessage()]


@contextlib.contextmanager
def _messages(said: list[str]) -> Iterator[None]:
    """Have scapy's warnings in `said` instead of on standard error."""
    logger = logging.getLogger("scapy.runtime")
    before = logger.handlers[:], logger.filters[:], logger.propagate, logger.level
    logger.handlers, logger.filters = [_Ear(said)], []
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.handlers, logger.filters = before[0], before[1]
        logger.propagate = before[2]
        logger.setLevel(before[3])
