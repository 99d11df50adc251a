"""The helper: a small process that keeps some rights for one that has given its own away.

It opens what the other one may not: sockets and files in other network namespaces, raw sockets for
probes, files beside those that are written; it looks through /proc for who holds a socket, runs the
tools that list rules, looks up in maps and attaches late hooks where that takes CAP_BPF. What it
opens, or a tool writes, the other one reads: no packet and no tool's output is looked at here.

What it will be asked for is settled before the other process gives its rights away (``file``,
``maps``, ``hooks``, ``data``, then ``seal``): from then on whoever has taken that process over can
ask for no other path, program or map. It ends with its parent.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple
from typing import Any

from rsttrace import programs
from rsttrace.enrich import conntrack, generation, reach
from rsttrace.enrich.netns import all_namespaces, is_way, named_namespaces, status_of
from rsttrace.enrich.owner import Owners
from rsttrace.enrich.setns import enter
from rsttrace.errors import RsttraceError
from rsttrace.files import Place
from rsttrace.kernel import kprobe
from rsttrace.kernel.lookup import lookup
from rsttrace.limits import RULES_TOOL_S
from rsttrace.privileges import capabilities as caps
from rsttrace.privileges import outfile, wire

ALWAYS = (caps.SYS_ADMIN, caps.SYS_PTRACE, caps.DAC_READ_SEARCH, caps.NET_ADMIN, caps.NET_RAW)
"""Entering namespaces; other users' processes; listing rules, tracked connections, and what the
legacy iptables lists through a raw socket; probes."""

FOR = {
    "files": (caps.DAC_OVERRIDE, caps.CHOWN, caps.FOWNER),
    "maps": (caps.BPF,),
    "hooks": (caps.BPF, caps.PERFMON),
}
"""What is kept beside these, if it is needed: to make files in others' folders and give them the
owner that they had; to look up in maps; to attach hooks that wait for their module."""

FOR_TOOLS = (caps.NET_ADMIN, caps.NET_RAW, caps.DAC_READ_SEARCH)

TOOLS_MOST, OWNERS_MOST = 4, 8
"""So many tools run at once; so many ask for owners, each at a pace of its own."""

WAIT_S = 0.01
"""So long a tool that has told everything is waited for at once: others ask meanwhile."""

_INET = (socket.AF_INET, socket.AF_INET6)
SOCKETS = frozenset(
    {
        (socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE),
        (socket.AF_NETLINK, socket.SOCK_DGRAM, 4),  # NETLINK_SOCK_DIAG
        *(
            (family, kind, 0)
            for family in _INET
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        ),
    }
)
"""What is opened for whoever asks: family, kind, protocol."""

RAW_SOCKETS = frozenset(
    {
        (socket.AF_PACKET, socket.SOCK_RAW, 0),
        (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
        *(
            (family, socket.SOCK_RAW, protocol)
            for family in _INET
            for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
        ),
    }
)
"""What is opened as well where probes were asked for."""

_SLICE_MS = 200

Answer = tuple[Any, list[int]]
"""What is said, and descriptors, which are closed here once they are sent."""


class Server:
    """Answers one question at a time."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._sealed = False
        self._sockets = SOCKETS
        self._files: list[tuple[Place, int | None]] = []
        self._data: set[str] = set()
        self._maps: list[tuple[int, int]] = []
        self._hooks: dict[str, int] = {}
        self._owners: dict[int, Owners] = {}
        self._tools: dict[int, tuple[reach.OwnTool, float]] = {}
        self._ending: list[reach.OwnTool] = []
        self._started = 0
        self._answers: dict[str, Callable[..., Answer]] = {
            "enter": self._enter,
            "socket": self._socket,
            "file": self._file,
            "start": self._start,
            "wait": self._wait,
            "close": self._close,
            "tracked": self._tracked,
            "generation": self._generation,
            "namespaces": self._namespaces,
            "status": self._status,
            "owners": self._ask_owners,
            "data": self._open_data,
            "lookup": self._lookup,
            "attach": self._attach,
            "out": self._out,
        }
        self._settling: dict[str, Callable[..., Answer]] = {
            "settle-file": self._settle_file,
            "settle-data": self._settle_data,
            "settle-maps": self._settle_maps,
            "settle-hooks": self._settle_hooks,
            "seal": self._seal,
        }

    def serve(self) -> None:
        """Until the other end is gone."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while True:
            if poll.poll(_SLICE_MS if self._tools or self._ending else None):
                question, descriptors = wire.receive(self._channel, wire.QUESTION_MOST)
                try:
                    answer, opened = self._answer(question, descriptors)
                finally:
                    for descriptor in descriptors:
                        os.close(descriptor)
                try:
                    wire.send(self._channel, answer, opened, wire.ANSWER_MOST)
                except wire.TooLong:
                    wire.send(self._channel, {"errno": errno.E2BIG, "text": "too long an answer"})
                finally:
                    for descriptor in opened:
                        os.close(descriptor)
            self._look_after_tools()

    def _answer(self, question: Any, descriptors: list[int]) -> Answer:
        try:
            name, arguments = question["ask"], question["with"]
            settling = self._settling.get(name)
            if settling is not None and not self._sealed:
                made, opened = settling(*arguments, descriptors)
            else:
                made, opened = self._answers[name](*arguments)
        except OSError as error:
            return {"errno": error.errno or errno.EIO, "text": error.strerror or str(error)}, []
        except RsttraceError as error:
            return {"errno": errno.EIO, "text": error.what}, []
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError):
            return {"errno": errno.EINVAL, "text": "no such question"}, []
        except Exception as error:  # whatever it is: others ask, too
            return {"errno": errno.EIO, "text": type(error).__name__}, []
        return {"is": made}, opened

    @contextlib.contextmanager
    def _inside(self, path: str | None, inode: int | None = None) -> Iterator[None]:
        """In the namespace at a path. The process ends if there is no way back."""
        if path is None:
            yield
            return
        if not is_way(path):
            raise OSError(errno.EINVAL, "no way into a namespace")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if inode is not None and os.fstat(descriptor).st_ino != inode:
                raise FileNotFoundError(errno.ENOENT, "the namespace has vanished")
            enter(descriptor)
        finally:
            os.close(descriptor)
        try:
            yield
        finally:
            try:
                enter(self._own)
            except OSError:
                os._exit(1)

    # ---- namespaces ----

    def _enter(self, path: str) -> Answer:
        with self._inside(path):
            return None, []

    def _socket(
        self, path: str | None, family: int, kind: int, protocol: int, inode: int | None
    ) -> Answer:
        if (family, kind, protocol) not in self._sockets:
            raise PermissionError(errno.EPERM, "no such socket")
        with self._inside(path, inode):
            return None, [socket.socket(family, kind, protocol).detach()]

    def _file(self, path: str | None, name: str) -> Answer:
        with self._inside(path):
            return None, [os.open(reach.FILES[name], os.O_RDONLY | os.O_CLOEXEC)]

    def _tracked(self, path: str | None, request: str) -> Answer:
        with self._inside(path):
            return conntrack.ask(bytes.fromhex(request)).hex(), []

    def _generation(self, path: str | None) -> Answer:
        with self._inside(path):
            return generation.ask().hex(), []

    def _namespaces(self, all_of_them: bool) -> Answer:
        return (all_namespaces() if all_of_them else named_namespaces()), []

    def _status(self, path: str) -> Answer:
        if not is_way(path) and not is_way(f"{path}/name"):
            raise PermissionError(errno.EPERM, "no way into a namespace")
        return status_of(path), []

    # ---- tools ----

    def _start(self, path: str | None, command: list[str]) -> Answer:
        program, *arguments = command
        name = os.path.basename(program)
        if tuple(arguments) not in reach.TOOLS[name] or program != programs.find(name):
            raise PermissionError(errno.EPERM, "no such tool")
        if len(self._tools) + len(self._ending) >= TOOLS_MOST:
            raise OSError(errno.EAGAIN, "too many at once")
        parent = os.getpid()

        def before() -> None:
            caps.die_with(parent)
            caps.keep_only(caps.mask(FOR_TOOLS))

        with self._inside(path):
            tool = reach.OwnTool(command, before)
        self._started += 1
        self._tools[self._started] = tool, time.monotonic() + RULES_TOOL_S + 1
        return self._started, [os.dup(tool.output)]

    def _wait(self, number: int, seconds: float) -> Answer:
        tool, _ = self._tools[number]
        if not seconds >= 0:
            raise ValueError
        return tool.wait(min(float(seconds), WAIT_S)), []

    def _close(self, number: int) -> Answer:
        found = self._tools.pop(number, None)
        if found is not None:
            found[0].end()
            self._ending.append(found[0])
        return None, []

    def _look_after_tools(self) -> None:
        self._ending = [tool for tool in self._ending if tool.wait(0) is None]
        now = time.monotonic()
        for number in [number for number, (_, ends) in self._tools.items() if now > ends]:
            self._close(number)

    # ---- processes ----

    def _ask_owners(self, who: int, what: str, *arguments: Any) -> Answer:
        if who not in range(OWNERS_MOST) or not all(map(_is_number, arguments)):
            raise ValueError  # what is no number could lead to other files than a process's
        owners = self._owners.setdefault(who, Owners())
        owners.put_off = False
        if what == "process":
            return (owners.process(*arguments), owners.put_off), []
        if what in ("container", "container_of_process"):
            both = getattr(owners, what)(*arguments)
            return [None if one is None else astuple(one) for one in both], []
        found: dict[str, Callable[..., Any]] = {
            "unit": owners.unit,
            "unit_of_process": owners.unit_of_process,
            "runs": owners.runs,
            "age_s": owners.age_s,
            "ready": owners.ready,
        }
        return found[what](*arguments), []

    # ---- what was settled before ----

    def _open_data(self, path: str) -> Answer:
        return None, [os.open(_one_of(path, self._data), os.O_RDONLY | os.O_CLOEXEC)]

    def _lookup(self, number: int, key: str) -> Answer:
        descriptor, size = self._maps[number]
        return lookup(descriptor, bytes.fromhex(key).ljust(64, b"\0"), size).hex(), []

    def _attach(self, target: str) -> Answer:
        return None, [kprobe.attach(self._hooks[target], target)]

    def _out(self, number: int, what: str, *arguments: Any) -> Answer:
        file, aside = self._files[number]
        if what == "temporary":
            descriptor, name = file.temporary()
            return name, [descriptor]
        if what == "replace":
            name, private, alike = arguments
            file.replace(name, private=bool(private), alike=bool(alike))
        elif what == "discard":
            file.discard(*arguments)
        elif what == "put_aside":
            (keep,) = arguments
            if keep != aside or aside == outfile.NEVER:
                raise PermissionError(errno.EPERM, "not what was settled")
            file.put_aside(keep)
        elif what == "identity":
            return file.identity(), []
        else:
            raise ValueError
        return None, []

    # ---- settling it ----

    def _settle_file(
        self, path: str, inputs: list[tuple[int, int]], aside: int | None, _: list[int]
    ) -> Answer:
        self._files.append((Place(path, [(device, inode) for device, inode in inputs]), aside))
        return len(self._files) - 1, []

    def _settle_data(self, paths: list[str], _: list[int]) -> Answer:
        self._data.update(paths)
        return None, []

    def _settle_maps(self, sizes: list[int], descriptors: list[int]) -> Answer:
        self._maps = [(os.dup(one), size) for one, size in zip(descriptors, sizes)]
        return None, []

    def _settle_hooks(self, targets: list[str], descriptors: list[int]) -> Answer:
        self._hooks = {target: os.dup(one) for target, one in zip(targets, descriptors)}
        return None, []

    def _seal(self, probes: bool, _: list[int]) -> Answer:
        """Nothing else is settled; what is not needed for that is given away. Says what is kept."""
        self._sealed = True
        if probes:
            self._sockets |= RAW_SOCKETS
        needed = {
            "files": bool(self._files),
            "maps": bool(self._maps) and not _anybody_looks_up(self._maps[0]),
            "hooks": bool(self._hooks),
        }
        kept = [number for name, is_needed in needed.items() if is_needed for number in FOR[name]]
        caps.keep_only(caps.mask({*ALWAYS, *kept}))
        return caps.permitted(), []


def _anybody_looks_up(one: tuple[int, int]) -> bool:
    """Whether a process without capabilities may look up in a map, found out by one."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            caps.keep_only(0)
            lookup(one[0], bytes(64), one[1])
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def _is_number(value: Any) -> bool:
    return value is None or (type(value) is int and value >= 0)


def _one_of(name: str, known: Any) -> str:
    if name not in known:
        raise PermissionError(errno.EPERM, "not to be had")
    return name


def main() -> None:
    """Serve on the socket whose number is the first argument, for the parent that is the second."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # it ends with its parent, which has work for it yet
    # That is for the start: from a parent that is nobody root gets no signal. Then the end of the
    # socket says it.
    if not caps.die_with(int(sys.argv[2])):
        return
    caps.no_new_privileges()
    with contextlib.suppress(OSError, wire.Gone):
        Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    os._exit(0)


if __name__ == "__main__":
    main()
