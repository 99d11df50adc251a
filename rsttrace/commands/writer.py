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


class Writer:
    """Writes lines, each flushed at once; notices a reader that went away.

    `ended` says whether the run is to end: then a reader that does not read is given
    `GRACE_S` more. Raises `Stuck` after that. `plain`: the stream takes ASCII only. `waiting` is
    called now and then while the reader does not read.
    """

    def __init__(self, stream: TextIO, ended: Callable[[], bool] = lambda: False) -> None:
        self._stream = stream
        self._ended = ended
        self._grace: float | None = None
        self.waiting: Callable[[], None] = lambda: None
        self.plain = ascii_only(stream)
        self._poll: select.poll | None = None
        with contextlib.suppress(OSError, ValueError):
            self._descriptor = stream.fileno()
            self._poll = select.poll()
            self._poll.register(self._descriptor, 0)  # POLLERR and POLLHUP are always reported

    def lines(self, lines: list[str]) -> None:
        """Write lines and flush.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        text = "".join(f"{line}\n" for line in lines)
        if self._poll is None:
            self._stream.write(text)
            self._stream.flush()
            return
        data = memoryview(text.encode(self._stream.encoding or "utf-8", "backslashreplace"))
        ready = select.poll()
        ready.register(self._descriptor, select.POLLOUT)
        while data:
            if not ready.poll(POLL_S * 1000):
                self._wait_for_reader()
                continue
            # A pipe that is ready takes PIPE_BUF bytes without blocking (pipe(7)).
            data = data[os.write(self._descriptor, data[: select.PIPE_BUF]) :]

    def object(self, made: dict[str, Any]) -> None:
        """Write one JSON object, as `lines` does."""
        self.lines([object_line(made)])

    def _wait_for_reader(self) -> None:
        self.waiting()
        if not self._ended():
            return
        self._grace = self._grace or time.monotonic() + GRACE_S
        if time.monotonic() > self._grace:
            raise Stuck

    def abandoned(self) -> bool:
        """Whether the reading end of our pipe is closed."""
        if self._poll is None:
            return False
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in self._poll.poll(0))
