"""Reads capture files packet by packet: pcap and pcapng, plain or gzip, from a file or a pipe.

What is not ordinary in them is scapy's business (docs/dependencies.md says why); its log messages
are turned into the reason why a file breaks off.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from rsttrace.capture import pcapng
from rsttrace.capture.extent import Extent
from rsttrace.capture.pcap import ENDS_INSIDE, MAGICS, Pcap, Record
from rsttrace.capture.tape import Broken, Patient, Tape
from rsttrace.errors import CaptureError

OTHER_FORMATS = {
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first (zstd -d)",
    b"\xfd7zX": "compressed with xz; unpack it first (xz -d)",
    b"BZh": "compressed with bzip2; unpack it first (bzip2 -d)",
    b"\x04\x22\x4d\x18": "compressed with lz4; unpack it first (lz4 -d)",
    b"\x1f\x8b": "compressed twice; unpack it first (gzip -d)",
    b"snoop\0\0\0": "in the snoop format; convert it first (editcap -F pcapng)",
}
"""What a file that is no capture may be, by how it begins."""


class JsonLines(CaptureError):
    """It is no capture, but begins like lines of JSON, perhaps our own: `stream` reads them."""

    def __init__(self, name: str, stream: TextIO) -> None:
        super().__init__(
            f"{name!a} is no capture: it begins like lines of JSON",
            hint="`rsttrace read` takes them",
        )
        self.stream = stream


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
        self.can_open_again = False
        """Whether another `Capture` with this name reads the same, and takes nothing from this."""
        if name == "-" and sys.stdin is not None and sys.stdin.isatty():
            raise CaptureError(
                "standard input is a terminal, not a capture",
                hint="pipe one into it: tcpdump -w - | rsttrace read -",
            )
        try:
            descriptor, shared = _stdin() if name == "-" else (os.open(name, os.O_RDONLY), False)
            self._raw = Patient(descriptor, ended)
            mode = os.fstat(descriptor)
        except (OSError, ValueError, AttributeError) as error:  # stdin may be closed, or no file
            why = getattr(error, "strerror", None) or error
            raise CaptureError(f"cannot open the capture {name!a}: {why}") from None
        if stat.S_ISDIR(mode.st_mode):
            self._raw.close()
            raise CaptureError(f"cannot open the capture {name!a}: it is a directory")
        if stat.S_ISREG(mode.st_mode):
            self.size = mode.st_size
            self.can_open_again = not shared
            self._raw.patient = False
        self._said: list[str] = []
        try:
            self._tape = Tape(self._raw)
            with _messages(self._said):
                self._format = self._open()
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
        return self._format.section

    @property
    def extents(self) -> dict[tuple[int, int], Extent]:
        """What a pcapng file has said of its interfaces so far, by section and number. The packets
        are for the reader to count."""
        return self._format.extents

    def interface(self, number: int) -> tuple[int, str | None] | None:
        """Number and name of an interface of the pcapng section just read; None for a pcap file."""
        return self._format.interface(number)

    def end_here(self) -> None:
        """Read a file no farther than to where it ended when it was opened."""
        self._raw.most = self.size

    def __iter__(self) -> Iterator[Record]:
        """The packets, in the order of the file. Ends at the first place that makes no sense."""
        tape = self._tape
        while True:
            for record in self._format.ordinary(self.packets):
                self.packets = record[0]
                yield record
            tape.mark()
            if tape.ends():
                return  # between two packets, or blocks
            odd = self._odd()
            if odd is None:
                return
            self.packets += 1
            yield odd
            if tape.short:  # its beginning is all that there is
                self._say_why(self.packets, ENDS_INSIDE)
                return
            self._said.clear()

    def _odd(self) -> Record | None:
        """The next packet, as scapy reads it; ``None`` where the file ends or breaks off."""
        refusal = pcapng.scapy_error()
        with _messages(self._said):
            try:
                return self._format.odd(self.packets + 1)
            except (EOFError, Broken, refusal) as error:
                self._say_why(self.packets + 1, str(error))
            except struct.error:  # a field that is not whole
                self._say_why(self.packets + 1, "")
        return None

    def _open(self) -> Pcap | pcapng.Pcapng:
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
            if head[:4] == pcapng.MAGIC:
                return pcapng.Pcapng(tape)
            if head[:4] not in MAGICS:
                raise Broken("it begins like neither pcap nor pcapng")
            return Pcap(tape)
        except (Broken, EOFError, struct.error) as error:
            why = tape.trouble or (self._said[-1] if self._said else "") or str(error)
            raise CaptureError(
                f"{self.name!a} is no capture that can be read: {_plain(why)}",
                hint="give a pcap or pcapng file, plain or gzip, as tcpdump and Wireshark write",
            ) from None

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


def _stdin() -> tuple[int, bool]:
    """Standard input; of a file an opening of its own, for it is read twice, and whether it is not.

    What is not has its position in the file in common with standard input (dup(2)).
    """
    descriptor = sys.stdin.fileno()
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        with contextlib.suppress(OSError):  # no /proc, or no right to read it by its name
            own = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
            os.lseek(own, os.lseek(descriptor, 0, os.SEEK_CUR), os.SEEK_SET)
            return own, False
    return os.dup(descriptor), True


def _plain(words: str) -> str:
    """scapy's message without its own prefix."""
    for prefix in ("PcapNg: ", "Pcap: "):
        words = words.replace(prefix, "")
    return words.strip().rstrip("!. ")


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
