"""Looking into network namespaces of the node, a bounded number of them. None is held open."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from rsttrace.enrich import reach
from rsttrace.enrich.netns import NetnsDirectory
from rsttrace.enrich.setns import inside
from rsttrace.errors import RsttraceError
from rsttrace.limits import NODE_LOOK_S, NODE_NAMESPACES

T = TypeVar("T")

_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, Linux 5.14


class Spaces:
    """The namespaces that `directory` finds; with `whole_node` false, each is a machine alone."""

    def __init__(self, directory: NetnsDirectory, whole_node: bool = True) -> None:
        self._directory = directory
        self._whole_node = whole_node

    def enter(self, netns: int, identity: int | None, function: Callable[[], T]) -> T:
        """Call a function in a namespace, if it is still the one with this identity.

        Raises:
            RsttraceError: it is gone, or cannot be entered.
            BaseException: whatever the function raises.
        """

        def checked() -> T:
            found = cookie() if identity not in (None, netns) else None
            if found is not None and found != identity:
                raise RsttraceError(f"the network namespace {netns} is gone")
            return function()

        return inside(self._directory.way_into(netns), checked)

    def label(self, netns: int) -> str:
        """``netns web-0``, or by its inode; our own is ``this host``."""
        if netns == _own():
            return "this host"
        name = self._directory.name(netns)
        return f"netns {name}" if name else f"netns:{netns}"

    def name(self, netns: int) -> str | None:
        """Its name, if it has one."""
        return self._directory.name(netns)

    def others(self, netns: int) -> Iterator[int]:
        """Other namespaces than this one: our own, named ones, the rest; as far as there is time.

        A caller that finds enough stops. Namespaces that cannot be entered are the caller's to
        pass over.
        """
        if not self._whole_node:
            return
        ends = time.monotonic() + NODE_LOOK_S
        own = _own()
        rest = [inode for inode in self._directory.all() if inode not in (netns, own)]
        for inode in [*([own] if own != netns else []), *rest][:NODE_NAMESPACES]:
            if time.monotonic() >= ends:
                return
            yield inode


def _own() -> int:
    """The inode number of this process's namespace."""
    return os.stat("/proc/self/ns/net").st_ino


def cookie() -> int | None:
    """The cookie of the thread's namespace, which is never used again; ``None`` before 5.14."""
    with reach.make_socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            raw = sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError:
            return None
    return int(struct.unpack("=Q", raw)[0])
