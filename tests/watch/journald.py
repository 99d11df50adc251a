"""A real journald with a runtime directory of its own, in a mount namespace of its own."""

from __future__ import annotations

import json
import subprocess
import uuid
from typing import Any

from tests.lab.harness import poll_until

DAEMON = "/usr/lib/systemd/systemd-journald"

CONFIG = """[Journal]
Storage=volatile
RuntimeMaxUse=64M
RateLimitBurst=0
Audit=no
ReadKMsg=no
ForwardToSyslog=no
ForwardToWall=no
"""

BEFORE = """
set -e
mount -t tmpfs none /run/systemd
mount -t tmpfs none /run/log
printf %s "$1" >/run/log/machine-id
printf %s "$2" >/run/log/journald.conf
mount --bind /run/log/machine-id /etc/machine-id
mount --bind /run/log/journald.conf /etc/systemd/journald.conf
exec sleep infinity
"""


class Journald:
    """A journald that only those see who are run `through` its namespace. A context manager."""

    def __init__(self) -> None:
        self._holder: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Journald:
        given = [BEFORE, "sh", uuid.uuid4().hex, CONFIG]
        self._holder = subprocess.Popen(["unshare", "--mount", "sh", "-c", *given])
        try:
            poll_until(self._is_prepared, "the mount namespace")
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()

    @property
    def through(self) -> list[str]:
        """What runs a command where this journald is."""
        assert self._holder is not None
        return ["nsenter", "--target", str(self._holder.pid), "--mount", "--"]

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The daemon."""
        assert self._daemon is not None
        return self._daemon

    def _is_prepared(self) -> bool:
        assert self._holder is not None
        with open(f"/proc/{self._holder.pid}/mountinfo", encoding="ascii") as file:
            return " /etc/systemd/journald.conf " in file.read()

    def start(self) -> None:
        """Start the daemon: it makes its own sockets where systemd hands it none."""
        self._daemon = subprocess.Popen([*self.through, DAEMON])
        poll_until(self._answers, "journald")

    def stop(self) -> None:
        """End the daemon. What it has written stays."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def _answers(self) -> bool:
        return self._journalctl("--sync").returncode == 0

    def _journalctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.through, "journalctl", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def read(self, *matches: str) -> list[dict[str, Any]]:
        """The journal's entries that match, after all that was sent has been written."""
        assert self._journalctl("--sync").returncode == 0
        done = self._journalctl("-D", "/run/log/journal", "-o", "json", "--all", *matches)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]
