"""Writing to standard output without being held up by a reader that does not read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
import struct
import termios
import time
from collections.abc import Callable
from typing import Any, Optional, TextIO

from rsttrace.render.escape import ascii_only
from rsttrace.render.json import About, object_line

Form = Callable[[dict[str, Any], Optional[About]], str]
"""How an object is written on a line: as JSON, as logfmt."""

POLL_S = 0.2
"""How often a run looks at the clock and at the signals when nothing else happens."""

GRACE_S = 2.0
"""How long the end of a run may take: a reader that does not read, a storm's backlog."""


class Stuck(Exception):
    """The reader of our output does not read, and we are to end."""


class Sink:
    """A descriptor that is written to without being held up by a reader that does not read.

    `ended` says whether the run is to end: then such a reader is given `GRACE_S` more. `waiting` is
    called now and then while it does not read.
    """

    def __init__(self, descriptor: int, ended: Callable[[], bool] = lambda: False) -> None:
        self._descriptor = descriptor
        self._ended = ended
        self._grace: float | None = None
        self._never_full = _never_full(descriptor)
        self._hung = select.poll()
        self._hung.register(descriptor, 0)  # POLLERR and POLLHUP are always reported
        self._ready = select.poll()
        self._ready.register(descriptor, select.POLLOUT)
        self.waiting: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            BrokenPipeError: nobody reads any more.
            Stuck: nobody reads, and the run is to end.
            OSError: a full disk, for one.
        """
        left = memoryview(data)
        while left and self._never_full:
            left = left[os.write(self._descriptor, left) :]
        while left:
            if not self._ready.poll(POLL_S * 1000):
                self._wait_for_reader()
                continue
            left = left[os.write(self._descriptor, left[: self._room()]) :]

    def _room(self) -> int:
        """How many bytes it takes now without blocking."""
        capacity = _capacity(self._descriptor)  # its reader may change that (F_SETPIPE_SZ)
        if capacity and not _unread(self._descriptor):
            return capacity
        return select.PIPE_BUF  # so many, if it is ready (pipe(7))

    def _wait_for_reader(self) -> None:
        self.waiting()
        if not self._ended():
            return
        self._grace = self._grace or time.monotonic() + GRACE_S
        if time.monotonic() > self._grace:
            raise Stuck

    def abandoned(self) -> bool:
        """Whether the reading end of our pipe is closed."""
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in self._hung.poll(0))


def _never_full(descriptor: int) -> bool:
    """Whether a write to it waits for nobody: to a regular file, to /dev/null (mem(4))."""
    found = os.fstat(descriptor)
    is_null = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)
    return is_null or stat.S_ISREG(found.st_mode)


def _capacity(descriptor: int) -> int:
    """How many bytes an empty pipe takes (fcntl(2): F_GETPIPE_SZ, 1032); 0: it is no pipe."""
    try:
        return fcntl.fcntl(descriptor, 1032)
    except OSError:
        return 0


def _unread(descriptor: int) -> int:
    """How many bytes lie in a pipe (ioctl(2): FIONREAD)."""
    (count,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))
    return int(count)


TOGETHER_BYTES, TOGETHER_S = 1 << 15, 0.004
"""Lines that are written together are written once there are so many bytes of them, or once the
first of them has waited for so long (in seconds)."""


class _Together:
    """As `Writer.together`; a class, for each reset passes here, and generators cost much more."""

    __slots__ = ("_began", "_failed", "_writer")

    def __init__(self, writer: Writer, failed: Callable[[OSError], None] | None) -> None:
        self._writer = writer
        self._failed = failed
        self._began = False

    def __enter__(self) -> None:
        self._began = self._writer.begin_together()

    def __exit__(self, *exc_info: object) -> None:
        if not self._began:
            return
        try:
            self._writer.end_together()
        except OSError as error:
            if self._failed is None:
                raise
            self._failed(error)


class Writer:
    """Writes lines, flushed at once; notices a reader that went away.

    `ended`: as for `Sink`. `about` is the run that every object tells. `plain`: the stream
    takes ASCII only. `gone`: it was a terminal, which was closed; what is written is lost, and that
    is no error: the run is to end as by SIGHUP.
    """

    def __init__(
        self,
        stream: TextIO,
        ended: Callable[[], bool] = lambda: False,
        about: About | None = None,
        form: Form = object_line,
    ) -> None:
        self._stream = stream
        self._form = form
        self.about = about
        self.plain = ascii_only(stream)
        self.gone = False
        self._is_terminal = stream.isatty()
        self._together = False
        self._held: list[str] = []
        self._held_size = 0
        self._held_since = 0.0
        self._sink: Sink | None = None
        with contextlib.suppress(OSError, ValueError):
            self._sink = Sink(stream.fileno(), ended)

    def lines(self, lines: list[str]) -> None:
        """Write lines and flush.

        Raises: as `Sink.write`.
        """
        text = "".join([f"{line}\n" for line in lines])
        if not self._together:
            self._write(text)
            return
        if not self._held:
            self._held_since = time.monotonic()
        self._held.append(text)
        self._held_size += len(text)
        waited = time.monotonic() - self._held_since
        if self._held_size >= TOGETHER_BYTES or waited >= TOGETHER_S:
            self._flush()

    def together(
        self, failed: Callable[[OSError], None] | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """What is written inside goes out a few lines at a time, and all of it at the end.

        `failed` is told if that fails at the end; it may raise the error.

        Raises: as `lines`.
        """
        return _Together(self, failed)

    def begin_together(self) -> bool:
        """Hold lines back from here on; false if that is so already."""
        began = not self._together
        self._together = True
        return began

    def end_together(self) -> None:
        """Write what was held back.

        Raises: as `lines`.
        """
        self._together = False
        self._flush()

    def _flush(self) -> None:
        held, self._held, self._held_size = self._held, [], 0
        if held:
            self._write("".join(held))

    def _write(self, text: str) -> None:
        if self.gone:
            return
        try:
            if self._sink is None:
                self._stream.write(text)
                self._stream.flush()
                return
            self._sink.write(text.encode(self._stream.encoding or "utf-8", "backslashreplace"))
        except OSError:  # EIO: tty(4), the other end hung up
            self.gone = self._is_terminal
            if not self.gone:
                raise

    def object(self, made: dict[str, Any]) -> None:
        """Write one object, as `lines` does."""
        self.lines([self._form(made, self.about)])

    def while_waiting(self, tell: Callable[[], None]) -> None:
        """Have this called now and then while the reader does not read."""
        if self._sink is not None:
            self._sink.waiting = tell

    def abandoned(self) -> bool:
        """Whether the reading end of our pipe is closed. A terminal's sets `gone` instead."""
        if self._sink is None or self.gone or not self._sink.abandoned():
            return False
        self.gone = self._is_terminal
        return not self.gone
