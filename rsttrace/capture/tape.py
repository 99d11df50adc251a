"""The bytes of a capture: from a file or a pipe, plain or gzip, as they come."""

from __future__ import annotations

import gzip
import io
import os
import select
import zlib
from collections.abc import Callable
from typing import Any, TextIO

MAX_BLOCK = 16 << 20
"""The longest pcapng block that libpcap accepts (INITIAL_MAX_BLOCKSIZE, sf-pcapng.c)."""

POLL_MS = 200
"""How often a read from a quiet pipe looks whether the run is to end."""

CHUNK = 1 << 18
"""So many bytes are read at once."""


class Broken(OSError):
    """The file ends or makes no sense here. An OSError, because scapy takes that for the end."""


class Patient(io.RawIOBase):
    """A file that counts what was read, and can be told to end while a pipe is quiet.

    `most`: so many bytes are read at most.
    """

    def __init__(self, descriptor: int, ended: Callable[[], bool]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._ended = ended
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self.patient = True
        self.stopped = False
        self.most: int | None = None
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
        if self.most is not None:
            buffer = buffer[: max(0, self.most - self.count)]
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


class Tape:
    """What captures are read from: unpacks gzip, counts bytes, notices where data ends too early.

    `buffer` is what has been read of the (unpacked) file and lies ready, from `at` on.
    """

    name = "capture"

    def __init__(self, raw: Patient) -> None:
        source: Any = io.BufferedReader(raw, CHUNK)
        self.plain = True
        self.trouble: str | None = None
        self.short = False
        self.marked = 0
        self.buffer = b""
        self.at = 0
        self._before = 0  # the buffer's place in the file
        self._damage: str | None = None
        if _peek(source)[:2] == b"\x1f\x8b":
            self.plain = False
            source = io.BufferedReader(_Unpacked(source), CHUNK)
        self._source = source

    def peek(self) -> bytes:
        """The first bytes of the (unpacked) file, before anything is read.

        Raises:
            Broken: the file cannot be read.
        """
        try:
            return _peek(self._source)
        except (EOFError, OSError, zlib.error) as error:
            raise self._broken(_gzip_words(error)) from None

    def text(self) -> TextIO:
        """The (unpacked) file as text, before anything is read; closing it closes the file."""
        return io.TextIOWrapper(self._source, encoding="utf-8", errors="replace")

    def fill(self) -> bool:
        """Have more in `buffer`, as much as comes at once; false if nothing does.

        Damage ends it too: `read` says what it is.
        """
        if self._damage is None:
            try:
                return self._more()
            except Broken:
                self.trouble = None
        return False

    def ends(self) -> bool:
        """Whether nothing comes any more, and nothing is left."""
        return self.at == len(self.buffer) and not self.fill() and self._damage is None

    def mark(self) -> None:
        """A new packet, or another block, begins here."""
        self.marked = self.position
        self.short = False

    @property
    def position(self) -> int:
        """How many bytes were taken."""
        return self._before + self.at

    @property
    def since_mark(self) -> int:
        """Bytes read since the last `mark`."""
        return self.position - self.marked

    def read(self, size: int) -> bytes:
        """As a file's.

        Raises:
            Broken: the file cannot be read further, or nobody would want so much at once.
        """
        if size > MAX_BLOCK:
            raise self._broken(f"a block of {size} bytes, which no capture holds")
        while len(self.buffer) - self.at < size and self._more():
            pass
        data = self.buffer[self.at : self.at + size]
        self.at += len(data)
        if len(data) < size:
            self.short = True
        return data

    def _more(self) -> bool:
        """Read on; false at the end.

        Raises:
            Broken: the data is damaged.
        """
        if self._damage is not None:
            raise self._broken(self._damage)
        try:
            data: bytes = self._source.read1(CHUNK)
        except (EOFError, OSError, zlib.error) as error:
            self._damage = _gzip_words(error)
            raise self._broken(self._damage) from None
        self._before += self.at
        self.buffer, self.at = self.buffer[self.at :] + data, 0
        return bool(data)

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
