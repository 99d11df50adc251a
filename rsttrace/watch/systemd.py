"""Tells systemd how we are, where it asks for it (sd_notify(3)): ready, status, alive, stopping."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping

STATUS_S = 1.0
"""How often the status may change, in seconds."""


class Notifier:
    """Sends states to the socket that ``NOTIFY_SOCKET`` names; does nothing where it names none.

    A message that systemd does not take is left out: nothing of a trace depends on it.

    Args:
        environment: where the variables of sd_notify(3) and sd_watchdog_enabled(3) stand.
        clock: seconds that go on.
    """

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # an abstract name (unix(7))
            self._address = "\0" + self._address[1:]
        self._every_s = _watchdog_s(environment)
        self._due = clock()
        self._status_due = clock()
        self._status = ""

    def ready(self) -> None:
        """Everything is armed."""
        self._send("READY=1")

    def alive(self, status: str) -> None:
        """The loop goes round: call it at each turn; what is sent is a message now and then."""
        if not self._address:
            return
        if self._every_s is not None and self._clock() >= self._due:
            self._due = self._clock() + self._every_s
            self._send("WATCHDOG=1")
        if status != self._status and self._clock() >= self._status_due:
            self._status_due = self._clock() + STATUS_S
            self._status = status
            self._send(f"STATUS={status}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1", "STATUS=showing what is left")

    def _send(self, *states: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(states).encode(), self._address)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """How often systemd is to hear of us: twice as often as it insists on. None: it does not."""
    given, whose = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not given.isdigit() or whose not in ("", str(os.getpid())):
        return None
    return int(given) / 2e6
