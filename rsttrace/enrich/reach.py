"""What takes rights that this process may have given away: namespaces, others' processes, tools.

A process that gave its rights away (`rsttrace.privileges`) has a helper that kept some. Whoever
needs a socket in another namespace, a file of it, or a tool's listing there, asks here, in the same
words whoever does it: this thread, which is in that namespace, or the helper, which hands over an
open descriptor. What strangers have written into it is read by this process in any case.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from rsttrace import programs
from rsttrace.limits import RULES_TOOL_MEMORY, RULES_TOOL_S

if TYPE_CHECKING:
    from rsttrace.enrich.owner import Owners

_SAVE = frozenset({("-c",)})
TOOLS = {
    "nft": frozenset({("-t", "-a", "list", "ruleset"), ("-a", "list", "ruleset")}),
    **dict.fromkeys(
        [
            f"{name}{how}-save"
            for name in ("iptables", "ip6tables")
            for how in ("", "-nft", "-legacy")
        ],
        _SAVE,
    ),
}
"""The programs that are run, and the arguments that they are ever given."""

FILES = {
    "if_inet6": "/proc/thread-self/net/if_inet6",
    "dev": "/proc/thread-self/net/dev",
    "snmp": "/proc/thread-self/net/snmp",
    "ip_tables_names": "/proc/thread-self/net/ip_tables_names",
    "ip6_tables_names": "/proc/thread-self/net/ip6_tables_names",
    "nf_conntrack_count": "/proc/sys/net/netfilter/nf_conntrack_count",
    "nf_conntrack_tcp_be_liberal": "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal",
}
"""Files that differ from namespace to namespace."""


class Status(NamedTuple):
    """What is asked of a file."""

    inode: int
    device: int
    modified_ns: int


class Tool(Protocol):
    """A tool that runs. `output` is the descriptor of its standard output."""

    output: int

    def wait(self, seconds: float) -> int | None:
        """Its exit code; ``None``: it has not ended within so long."""

    def close(self) -> None:
        """End it, if it has not ended."""


class Helper(Protocol):
    """Who does what this process may not do. `path` leads to a namespace (``None``: our own).

    Every method raises OSError as the system call would; where the helper is gone, EPERM.
    """

    def enter(self, path: str) -> None:
        """Whether the namespace can be entered."""

    def socket(
        self, path: str | None, family: int, kind: int, protocol: int, inode: int | None = None
    ) -> socket.socket:
        """A socket there; of that namespace only that has this inode number, if one is given."""

    def file(self, path: str | None, name: str) -> int:
        """One of `FILES` there: a descriptor."""

    def start(self, path: str | None, command: Sequence[str]) -> Tool:
        """Start one of `TOOLS` there."""

    def tracked(self, path: str | None, request: bytes) -> bytes:
        """What connection tracking answers."""

    def generation(self, path: str | None) -> bytes:
        """What nftables answers when it is asked for its generation."""

    def namespaces(self, *, all_of_them: bool) -> list[tuple[int, str | None, str]]:
        """Inode number, name and path of namespaces: of all, or of those that have names."""

    def status(self, path: str) -> Status | None:
        """Of a path to a namespace, or of a folder of names."""

    def owners(self) -> Owners:
        """Looks for processes and containers."""

    def data(self, path: str) -> int:
        """A file of vendors' names, open."""


class _Process:
    """Of this process as a whole: rights are."""

    helper: Helper | None = None


_thread = threading.local()


def rely_on(helper: Helper | None) -> None:
    """From now on this process asks the helper; ``None``: it does everything itself."""
    _Process.helper = helper


def helper() -> Helper | None:
    """Whom this process asks."""
    return _Process.helper


@contextlib.contextmanager
def at(path: str) -> Iterator[None]:
    """Inside, what this thread asks the helper for is of the namespace at a path."""
    before = where()
    _thread.path = path
    try:
        yield
    finally:
        _thread.path = before


def where() -> str | None:
    """The namespace that this thread's questions are of; ``None``: the one that it is in."""
    found: str | None = getattr(_thread, "path", None)
    return found


def make_socket(family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket of the namespace that this thread is in, or is about.

    Raises:
        OSError: it cannot be had.
    """
    path = where()
    if path is None:
        try:
            return socket.socket(family, kind, protocol)
        except PermissionError:
            if _Process.helper is None:
                raise
    if _Process.helper is None:  # it has ended meanwhile
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    return _Process.helper.socket(path, family, kind, protocol)


def read_file(name: str) -> str:
    """The text of one of `FILES`, of the namespace that this thread is in, or is about.

    Raises:
        OSError: it cannot be read; there is none.
    """
    path = where()
    if path is not None and _Process.helper is not None:
        descriptor = _Process.helper.file(path, name)
    else:
        descriptor = os.open(FILES[name], os.O_RDONLY | os.O_CLOEXEC)
    with open(descriptor, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def start(command: Sequence[str]) -> Tool:
    """Start one of `TOOLS` in the namespace that this thread is in, or is about.

    Its time and memory are bounded, its environment is ours, and everything else goes first.

    Raises:
        OSError: it does not start.
    """
    return (
        _Process.helper.start(where(), command) if _Process.helper is not None else OwnTool(command)
    )


class OwnTool:
    """A `Tool` that is this process's own child; started in the thread's namespace.

    Raises:
        OSError: it does not start.
    """

    def __init__(self, command: Sequence[str], before: Callable[[], None] | None = None) -> None:
        """`before` is called in the child."""
        self._child = programs.start(
            command,
            stdout=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
            preexec_fn=before,  # only the helper has one, and no threads
        )
        assert self._child.stdout is not None
        self.output = self._child.stdout.fileno()
        seconds = int(RULES_TOOL_S) + 1
        pid = self._child.pid
        with contextlib.suppress(OSError, ValueError):
            resource.prlimit(pid, resource.RLIMIT_AS, (RULES_TOOL_MEMORY, RULES_TOOL_MEMORY))
            resource.prlimit(pid, resource.RLIMIT_CPU, (seconds, seconds))
            os.setpriority(os.PRIO_PROCESS, pid, 10)

    def wait(self, seconds: float) -> int | None:
        """Its exit code; ``None``: it has not ended within so long."""
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Have it end, and do not wait for that: it may be in the middle of a long system call."""
        self._child.kill()
        assert self._child.stdout is not None
        self._child.stdout.close()

    def close(self) -> None:
        """End it, if it has not ended."""
        self.end()
        self._child.wait()
