"""Sends entries to journald by its native protocol (``--journal``)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from rsttrace.errors import ConfigError

SOCKET = "/run/systemd/journal/socket"

PATIENCE_S = 0.2
"""How long a journald that does not read may hold us up; after that not at all, until it reads."""


class Journal:
    """A connection to journald. A context manager.

    What journald does not take is counted and left out: it never holds up the trace.

    Raises (on entering):
        ConfigError: there is no journald.

    Attributes:
        lost: how many entries it did not take.
        reason: why it did not take the last of these.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.reason = ""
        self._transport: Any = None
        self._patient = True

    def __enter__(self) -> Journal:
        try:
            self._open()
        except OSError as error:
            raise ConfigError(
                f"the journal cannot be reached at {SOCKET}: {os.strerror(error.errno or 0)}",
                hint="is systemd-journald running (systemctl status systemd-journald)? Without it, "
                "leave --journal out and keep what -o json prints",
            ) from error
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    def send(self, fields: Iterable[tuple[str, str]]) -> None:
        """Send one entry; a field may be there several times."""
        # As bytes each value has its length before it: no newline in it can begin a field.
        pairs = [(name, value.encode("utf-8", "backslashreplace")) for name, value in fields]
        for attempt in (1, 2):  # a journald that was started anew has another socket
            try:
                if self._transport is None:
                    self._open()
                self._transport.socket.settimeout(PATIENCE_S if self._patient else 0)
                self._transport.send(pairs)
            except OSError as error:
                self._close()
                self.reason = error.strerror or str(error)
                slow = isinstance(error, (TimeoutError, BlockingIOError))
                if slow or attempt == 2:
                    self.lost += 1
                    self._patient = False
                    return
            else:
                self._patient = True
                return

    def _open(self) -> None:
        from logging_journald import JournaldTransport

        self._transport = JournaldTransport()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.socket.close()
            self._transport = None
