"""What tcpdump sees on all interfaces of a host or a router while cases are played."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from rsttrace.demo.lab import Lab
from tests.lab.harness import DEADLINE_S

HEADERS = 160
"""Bytes of each packet: Linux's "cooked" header of 20, IPv6's 40, TCP's 60 at most, some data."""


class Dump:
    """``tcpdump -i any`` in a namespace, of packets that `what` matches, until `stop`."""

    def __init__(self, lab: Lab, role: str, path: Path, what: str = "tcp") -> None:
        self.path = path
        # -Z root: the folder is ours; -B: KiB that may wait to be written.
        options = f"--immediate-mode -U -i any -s {HEADERS} -B 16384 -Z root -w {path} {what}"
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", lab.name(role), "tcpdump", *options.split()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        heard = []
        for line in self._process.stderr:
            heard.append(line)
            if "listening on any" in line:
                return
        raise AssertionError(f"tcpdump did not start: {''.join(heard)}")

    def stop(self) -> None:
        """End it; the file is whole."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=DEADLINE_S)
