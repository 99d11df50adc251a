"""What watches while it is measured: nothing, rsttrace, and what else a user would take."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rsttrace.demo.lab import Lab

HERE = Path(__file__).resolve().parent.parent.parent
RESETS = "tcp[tcpflags] & tcp-rst != 0"
TRACEFS = "/sys/kernel/tracing"
ONE_LINER = (
    "tracepoint:tcp:tcp_send_reset, tracepoint:tcp:tcp_receive_reset "
    '{ printf("%s %d %s\\n", probe, pid, comm); }'
)


@dataclass(frozen=True)
class Way:
    """A command that watches, and what it says on stderr or stdout once it does.

    `netns`: the role of the lab in whose namespace it runs; ``None``: it sees all of them. `cwd`:
    the checkout that it runs in.
    """

    name: str
    command: Sequence[str]
    ready: str
    netns: str | None = None
    cwd: Path = HERE

    @property
    def is_ours(self) -> bool:
        """Whether it is rsttrace, whose programs can be looked at."""
        return "rsttrace" in self.command

    def watching(self, lab: Lab) -> AbstractContextManager[int]:
        """It, as a process: its number."""
        return _watching(self, lab)


def ours(name: str, *options: str, checkout: Path = HERE) -> Way:
    """A checkout's tracer."""
    command = [str(checkout / ".venv/bin/python"), "-m", "rsttrace", "-o", "json", *options]
    return Way(name, command, "tracing resets", cwd=checkout)


def others() -> list[Way]:
    """What else finds resets, as far as it is installed."""
    found = []
    if shutil.which("tcpdump"):
        command = ["tcpdump", "-n", "-l", "-i", "eth0", RESETS]
        found.append(Way("tcpdump with a RST filter", command, "listening on", "server"))
    if shutil.which("bpftrace"):
        # It asks tracefs for a tracepoint's number; where that is not mounted, it is for it alone.
        mounted = f"[ -e {TRACEFS}/events ] || mount -t tracefs nodev {TRACEFS}"
        command = ["unshare", "-m", "sh", "-c", f'{mounted}; exec bpftrace -e "$0"', ONE_LINER]
        found.append(Way("bpftrace's one-liner", command, "Attaching"))
    return found


@contextmanager
def _watching(way: Way, lab: Lab) -> Iterator[int]:
    inside = [] if way.netns is None else ["ip", "netns", "exec", lab.name(way.netns)]
    with subprocess.Popen(
        [*inside, *way.command],
        cwd=way.cwd,
        stdout=subprocess.DEVNULL if way.ready != "Attaching" else subprocess.PIPE,
        stderr=subprocess.PIPE if way.ready != "Attaching" else subprocess.STDOUT,
        text=True,
    ) as process:
        stream = process.stderr or process.stdout
        assert stream is not None
        try:
            said: list[str] = []
            while not said or way.ready not in said[-1]:
                line = stream.readline()
                assert line, f"{way.name}: {''.join(said)}"
                said.append(line)
            yield process.pid
        finally:
            process.terminate()
            stream.read()


def version(program: str) -> str:
    """What a program says of its version; empty if it is not there."""
    if not shutil.which(program):
        return ""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[\w.-]*", done.stdout + done.stderr)
    return f"{program} {found[0]}" if found else program
