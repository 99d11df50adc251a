"""Writing to standard output without being held up by a reader that does not read."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable
from typing import Any, TextIO

from rsttrace.render.escape import ascii_only
from rsttrace.render.json import object_line

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
        while left:
            if not self._ready.poll(POLL_S * 1000):
                self._wait_for_reader()
                continue
            # A pipe that is ready takes PIPE_BUF bytes without blocking (pipe(7)).
            left = left[os.write(self._descriptor, left[: select.PIPE_BUF]) :]

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


class Writer:
    """Writes lines, each flushed at once; notices a reader that went away.

    `ended`: as for `Sink`. `plain`: the stream takes ASCII only.
    """

    def __init__(self, stream: TextIO, ended: Callable[[], bool] = lambda: False) -> None:
        self._stream = stream
        self.plain = ascii_only(stream)
        self._sink: Sink | None = None
        with contextlib.suppress(OSError, ValueError):
            self._sink = Sink(stream.fileno(), ended)

    def lines(self, lines: list[str]) -> None:
        """Write lines and flush.

        Raises: as `Sink.write`.
        """
        text = "".join(f"{line}\n" for line in lines)
        if self._sink is None:
            self._stream.write(text)
            self._stream.flush()
            return
        self._sink.write(text.encode(self._stream.encoding or "utf-8", "backslashreplace"))

    def object(self, made: dict[str, Any]) -> None:
        """Write one JSON object, as `lines` does."""
        self.lines([object_line(made)])

    def while_waiting(self, tell: Callable[[], None]) -> None:
        """Have this called now and then while the reader does not read."""
        if self._sink is not None:
            self._sink.waiting = tell

    def abandoned(self) -> bool:
        """Whether the reading end of our pipe is closed."""
        return self._sink is not None and self._sink.abandoned()
