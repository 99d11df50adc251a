"""Asking the helper (`rsttrace.privileges.helper`): this process's side of it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rsttrace import home, programs
from rsttrace.enrich.netns import Namespaces, status_of
from rsttrace.enrich.owner import Owners
from rsttrace.enrich.reach import Status
from rsttrace.files import Identity
from rsttrace.kernel.lookup import lookup
from rsttrace.model import Container, Pod
from rsttrace.privileges import outfile, wire

PATIENCE_S, START_S = 10.0, 60.0
"""How long one answer may take (a walk through all processes takes half a second at most), and the
first one, for which the helper has to start: on a machine in trouble that takes its time."""

END_S = 1.0

_AGAIN_S = 0.02

BELIEVED_S = 0.05
"""How long the helper's word on a path or a process is believed without another question."""

CGROUP_BELIEVED_S = 1.0
"""The same of a cgroup's number, which no other has later (kernfs_id, include/linux/kernfs.h), and
of the cgroup of a process that runs."""

REMEMBERED = 1024


class Helper:
    """The helper of this process. Close it in the end.

    For several threads at once: one asks after the other. Where the helper is gone, every question
    fails as for a process that has the rights of this one and no helper.

    Attributes:
        kept: the capabilities that it has kept, a set of bits; 0 before `seal`.
    """

    def __init__(self) -> None:
        """Start it. Raises OSError: it does not start."""
        self._lock = threading.Lock()
        self._askers = 0
        self._believed = _Believed()
        self._maps: dict[int, int] = {}
        self.kept = 0
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._channel.settimeout(START_S)
        self._gone = False
        with theirs:
            command = home.python(
                "rsttrace.privileges.helper", str(theirs.fileno()), str(os.getpid())
            )
            self._process = programs.start(
                # it needs nothing but ourselves, and less memory without the rest
                [command[0], "-S", *command[1:]],
                programs.own_environment(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                cwd="/",
            )

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def is_gone(self) -> bool:
        """Whether it has ended, or does not answer."""
        return self._gone or self._process.poll() is not None

    def close(self) -> None:
        """Let it end."""
        with self._lock:
            self._give_up()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(PermissionError):  # then it is killed when we end
                self._process.kill()

    def _give_up(self) -> None:
        self._gone = True
        self._channel.close()

    def _ask(
        self, name: str, *arguments: Any, descriptors: list[int] | None = None
    ) -> tuple[Any, list[int]]:
        """An answer, and the descriptors that came with it.

        Raises:
            OSError: what the helper met; EPERM: it is gone.
        """
        with self._lock:
            if self._gone:
                raise PermissionError(errno.EPERM, "the helper is gone")
            try:
                wire.send(self._channel, {"ask": name, "with": arguments}, descriptors)
                answer, opened = wire.receive(self._channel, wire.ANSWER_MOST)
                self._channel.settimeout(PATIENCE_S)
            except (OSError, wire.Gone):
                self._give_up()
                raise PermissionError(errno.EPERM, "the helper is gone") from None
        if "errno" in answer:
            raise OSError(answer["errno"], answer["text"])
        return answer["is"], opened

    # ---- before the rights are given away ----

    def out_file(
        self, path: str, inputs: Iterable[Identity], aside: int | None = outfile.NEVER
    ) -> HelpedFile:
        """See `rsttrace.privileges.outfile.Maker`."""
        number, _ = self._ask("settle-file", path, list(inputs), aside)
        return HelpedFile(lambda *question: self._ask("out", number, *question))

    def settle(
        self, maps: Sequence[tuple[int, int]], hooks: dict[str, int], data: Sequence[str]
    ) -> None:
        """Give it what it will be asked for.

        Args:
            maps: descriptor, and size of a value, of each map to look up in.
            hooks: of each function that is hooked later, the program's descriptor.
            data: files that may be opened.
        """
        given = [descriptor for descriptor, _ in maps]
        self._maps = {descriptor: number for number, descriptor in enumerate(given)}
        self._ask("settle-maps", [size for _, size in maps], descriptors=given)
        self._ask("settle-hooks", [*hooks], descriptors=[*hooks.values()])
        self._ask("settle-data", list(data))

    def seal(self, *, probes: bool) -> None:
        """Have it give away what it does not need. `probes`: raw sockets are needed."""
        self.kept, _ = self._ask("seal", probes)

    # ---- rsttrace.enrich.reach.Helper ----

    def enter(self, path: str) -> None:
        """See `rsttrace.enrich.reach.Helper`."""
        self._ask("enter", path)

    def socket(
        self, path: str | None, family: int, kind: int, protocol: int, inode: int | None = None
    ) -> socket.socket:
        """See `rsttrace.enrich.reach.Helper`."""
        _, (descriptor,) = self._ask("socket", path, int(family), int(kind), protocol, inode)
        return socket.socket(fileno=descriptor)

    def file(self, path: str | None, name: str) -> int:
        """See `rsttrace.enrich.reach.Helper`."""
        return self._ask("file", path, name)[1][0]

    def start(self, path: str | None, command: Sequence[str]) -> HelpedTool:
        """See `rsttrace.enrich.reach.Helper`."""
        number, (output,) = self._ask("start", path, list(command))
        return HelpedTool(lambda name, *question: self._ask(name, number, *question), output)

    def tracked(self, path: str | None, request: bytes) -> bytes:
        """See `rsttrace.enrich.reach.Helper`."""
        return bytes.fromhex(self._ask("tracked", path, request.hex())[0])

    def generation(self, path: str | None) -> bytes:
        """See `rsttrace.enrich.reach.Helper`."""
        return bytes.fromhex(self._ask("generation", path)[0])

    def namespaces(self, *, all_of_them: bool) -> Namespaces:
        """See `rsttrace.enrich.reach.Helper`."""
        found, _ = self._ask("namespaces", all_of_them)
        return [(inode, name, path) for inode, name, path in found]

    def status(self, path: str) -> Status | None:
        """See `rsttrace.enrich.reach.Helper`."""
        return status_of(path) or self._believed.found(path, lambda: self._status(path))

    def _status(self, path: str) -> Status | None:
        try:
            found, _ = self._ask("status", path)
        except OSError:
            return None
        return None if found is None else Status(*found)

    def owners(self) -> Owners:
        """See `rsttrace.enrich.reach.Helper`."""
        self._askers += 1
        who = self._askers - 1
        return HelpedOwners(lambda *question: self._ask("owners", who, *question)[0])

    def data(self, path: str) -> int:
        """See `rsttrace.enrich.reach.Helper`."""
        return self._ask("data", path)[1][0]

    # ---- rsttrace.kernel ----

    def lookup(self, descriptor: int, key: bytes, size: int) -> bytes:
        """See `rsttrace.kernel.lookup.lookup`."""
        try:
            return lookup(descriptor, key, size)
        except PermissionError:
            number = self._maps.get(descriptor)
            if number is None:
                raise
            return bytes.fromhex(self._ask("lookup", number, key.hex())[0])

    def attach(self, program: int, target: str) -> int:
        """See `rsttrace.kernel.kprobe.attach`; the helper has the program."""
        del program
        return self._ask("attach", target)[1][0]


class _Believed:
    """Answers that are believed for a while, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[Any, tuple[float, Any]] = OrderedDict()

    def found(
        self,
        key: Any,
        ask: Callable[[], Any],
        seconds: float = BELIEVED_S,
        wanted: Callable[[Any], bool] = lambda answer: True,
    ) -> Any:
        """What is believed, else what is asked for; that is believed if it is `wanted`."""
        known = self._known.get(key)
        if known is None or self._clock() >= known[0]:
            known = self._clock() + seconds, ask()
            if not wanted(known[1]):
                self._known.pop(key, None)
                return known[1]
            self._known[key] = known
            if len(self._known) > REMEMBERED:
                with contextlib.suppress(KeyError):  # another thread was quicker
                    self._known.popitem(last=False)
        return known[1]


class HelpedFile:
    """An `rsttrace.privileges.outfile.OutFile` that the helper makes."""

    def __init__(self, ask: Callable[..., tuple[Any, list[int]]]) -> None:
        self._ask = ask

    def identity(self) -> Identity | None:
        """As `OutFile.identity`."""
        found, _ = self._ask("identity")
        return None if found is None else (found[0], found[1])

    def temporary(self) -> tuple[int, str]:
        """As `OutFile.temporary`."""
        name, (descriptor,) = self._ask("temporary")
        return descriptor, name

    def replace(self, name: str, *, private: bool, alike: bool) -> None:
        """As `OutFile.replace`."""
        self._ask("replace", name, private, alike)

    def discard(self, name: str) -> None:
        """As `OutFile.discard`."""
        self._ask("discard", name)

    def put_aside(self, keep: int | None) -> None:
        """As `OutFile.put_aside`."""
        self._ask("put_aside", keep)


class HelpedTool:
    """An `rsttrace.enrich.reach.Tool` that is the helper's child."""

    def __init__(self, ask: Callable[..., tuple[Any, list[int]]], output: int) -> None:
        self._ask = ask
        self.output = output

    def wait(self, seconds: float) -> int | None:
        """As `Tool.wait`."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            with contextlib.suppress(OSError):
                code: int | None = self._ask("wait", left)[0]
                if code is not None:
                    return code
                time.sleep(min(left, _AGAIN_S))
                continue
            return None
        return None

    def close(self) -> None:
        """As `Tool.close`."""
        os.close(self.output)
        with contextlib.suppress(OSError):
            self._ask("close")


class HelpedOwners(Owners):
    """Looks through /proc by the helper's eyes. No look-up raises."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        super().__init__()
        self._ask = ask
        self._believed = _Believed()

    def process(self, inode: int, netns: int | None = None) -> tuple[int, str] | None:
        """As `Owners.process`."""
        question = "process", inode, netns
        try:
            found, put_off = self._believed.found(
                question, lambda: self._ask(*question), wanted=lambda answer: answer[0] is not None
            )
        except OSError:
            return super().process(inode, netns)
        self.put_off |= put_off
        return None if found is None else (found[0], found[1])

    def ready(self) -> bool:
        """As `Owners.ready`."""
        try:
            return bool(self._ask("ready"))
        except OSError:
            return super().ready()

    def runs(self, pid: int) -> bool:
        """As `Owners.runs`."""
        return super().runs(pid) or bool(self._either(lambda: False, "runs", pid))

    def age_s(self, pid: int) -> float | None:
        """As `Owners.age_s`."""
        own = super().age_s
        found: float | None = self._either(lambda: own(pid), "age_s", pid)
        return found

    def container(self, cgroup_id: int) -> tuple[Container | None, Pod | None]:
        """As `Owners.container`."""
        own = super().container
        return _container(*self._either(lambda: own(cgroup_id), "container", cgroup_id))

    def container_of_process(self, pid: int) -> tuple[Container | None, Pod | None]:
        """As `Owners.container_of_process`."""
        own = super().container_of_process
        return _container(*self._of_process(lambda: own(pid), "container_of_process", pid))

    def unit(self, cgroup_id: int) -> str | None:
        """As `Owners.unit`."""
        own = super().unit
        found: str | None = self._either(lambda: own(cgroup_id), "unit", cgroup_id)
        return found

    def unit_of_process(self, pid: int) -> str | None:
        """As `Owners.unit_of_process`."""
        own = super().unit_of_process
        found: str | None = self._of_process(lambda: own(pid), "unit_of_process", pid)
        return found

    def _of_process(self, own: Callable[[], Any], what: str, pid: int) -> Any:
        """What is said of a process's cgroup is believed longer if it is that process still."""
        which = None if self._lives is None else self._lives.which(pid)
        if which is None:
            return self._either(own, what, pid)
        try:
            return self._believed.found(
                (what, pid, which), lambda: self._ask(what, pid), CGROUP_BELIEVED_S
            )
        except OSError:
            return own()

    def _either(self, own: Callable[[], Any], *question: Any) -> Any:
        """The helper's word, believed for a moment; ours where it has none."""
        try:
            seconds = CGROUP_BELIEVED_S if question[0] in ("container", "unit") else BELIEVED_S
            return self._believed.found(question, lambda: self._ask(*question), seconds)
        except OSError:
            return own()


def _container(
    container: list[Any] | Container | None, pod: list[Any] | Pod | None
) -> tuple[Container | None, Pod | None]:
    return (
        Container(*container) if isinstance(container, list) else container,
        Pod(*pod) if isinstance(pod, list) else pod,
    )
