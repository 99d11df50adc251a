"""Starts the loading child and takes over its file descriptors."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO

from rsttrace import home, programs
from rsttrace.errors import KernelError, PrivilegeError
from rsttrace.kernel import kprobe
from rsttrace.kernel.protocol import HookStatus, Report, Request, receive_answer, send_request
from rsttrace.kernel.rights import CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, effective, has

DESCRIPTORS = 128
"""So many files must be open at once, while the programs are loaded: some 40 maps, a link for each
hook, what Python and the compiler read."""


LOADING_MB = 160
"""Of a control group, with its maps and without what other programs share (Debian 12's LLVM 14)."""

NO_MEMORY = ("Cannot allocate memory", "failed to map segment", "MemoryError", "std::bad_alloc")
"""What Python, the dynamic linker, bcc and LLVM say where there is no more."""


def check_privileges() -> None:
    """Whether this process may load BPF programs that read kernel memory.

    Raises:
        KernelError: /proc is not mounted.
        PrivilegeError: neither CAP_SYS_ADMIN nor both CAP_BPF and CAP_PERFMON are effective.
    """
    found = effective()
    if not has(found, CAP_SYS_ADMIN) and not (has(found, CAP_BPF) and has(found, CAP_PERFMON)):
        raise PrivilegeError(
            "tracing needs root (CAP_SYS_ADMIN, or CAP_BPF with CAP_PERFMON)",
            hint="run it with sudo; in a container add --privileged or those capabilities",
        )


def make_room() -> None:
    """Have as many files open at once as loading needs, as far as this process may.

    Raises:
        KernelError: the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= DESCRIPTORS:
        return
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        raise KernelError(
            f"no more than {hard} files may be open at once, and loading needs {DESCRIPTORS}",
            hint=f"ulimit -n {DESCRIPTORS}, or LimitNOFILE={DESCRIPTORS} in the systemd unit",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))


class Loaded:
    """The programs in the kernel, held by file descriptors. Closing them removes everything.

    Attributes:
        report: what the child found and did.
        ring: descriptor of the ring buffer map.
        counts: descriptor of the per-CPU counters map.
        flows: descriptors of the map of what was learned of each flow, and of where each one is.
        rooms: descriptor of the map of the ring's rooms.
        buckets: descriptor of the map of buckets.
        log: what the compiler and the verifier printed.
        waiting: what waits for its module: the program to attach to each target.
    """

    def __init__(self, report: Report, descriptors: list[int], log: str) -> None:
        self.report = report
        self.ring, self.counts, flows, shelves, self.rooms, self.buckets, *rest = descriptors
        self.flows = (flows, shelves)
        self.log = log
        self._probes: list[int] = []
        self.waiting: dict[str, int] = {}
        self.attach: Callable[[int, str], int] = kprobe.attach
        for hook in report.hooks:
            if hook.attached:
                self._probes.append(rest.pop(0))
            elif hook.module is not None:
                self.waiting[hook.target] = rest.pop(0)

    def attach_late(self) -> list[HookStatus]:
        """Attach what waited for a module that is there now; returns those hooks."""
        done = []
        for hook in self.report.hooks:
            if hook.target not in self.waiting or not Path(f"/sys/module/{hook.module}").exists():
                continue
            program = self.waiting.pop(hook.target)
            try:
                self._probes.append(self.attach(program, hook.target))
            except OSError as error:
                hook.error = f"the kernel refuses the kprobe: {error.strerror}"
            else:
                hook.attached, hook.error = True, None
                done.append(hook)
            finally:
                os.close(program)
        return done

    def detach(self) -> None:
        """Stop the probes; the ring buffer can still be read."""
        while self._probes:
            os.close(self._probes.pop())
        while self.waiting:
            os.close(self.waiting.popitem()[1])

    def close(self) -> None:
        """Remove everything from the kernel."""
        self.detach()
        for descriptor in (self.ring, self.counts, *self.flows, self.rooms, self.buckets):
            if descriptor >= 0:
                os.close(descriptor)
        self.ring = self.counts = self.rooms = self.buckets = -1
        self.flows = (-1, -1)


class Loading:
    """The loading child at its work: compiles, loads, attaches, and exits then.

    Args:
        request: what to load.

    Raises:
        PrivilegeError: not allowed to.
        KernelError: what it takes is not there.
    """

    def __init__(self, request: Request) -> None:
        check_privileges()
        make_room()
        self.request = request
        with contextlib.ExitStack() as stack:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            self._ours = stack.enter_context(ours)
            with theirs:
                memory = os.memfd_create("rsttrace-log")
                self._log = stack.enter_context(os.fdopen(memory, "r+b"))
                self._child = _start(theirs, self._log)
            self._open = stack.pop_all()
        with contextlib.suppress(ConnectionError):  # it died: there will be no answer
            send_request(self._ours, request)

    def loaded(self, meanwhile: Callable[[], None] | None = None) -> Loaded:
        """What it has loaded. `meanwhile` is called while it works.

        Raises: see `load`.
        """
        with self._open:
            try:
                if meanwhile is not None:
                    meanwhile()
                answer, descriptors = receive_answer(self._ours)
            except BaseException:
                self._child.kill()
                raise
            finally:
                status = self._child.wait()
            self._log.seek(0)
            log = self._log.read().decode(errors="replace")
        if isinstance(answer, Report):
            return Loaded(answer, descriptors, log)
        error = _short_of_memory(status, log) or answer or _died(status, log)
        error.log = log
        raise error

    def give_up(self) -> None:
        """Nobody wants what it loads, unless that was taken already."""
        with self._open:
            if self._child.returncode is None:
                self._child.kill()
                self._child.wait()


def load(request: Request, meanwhile: Callable[[], None] | None = None) -> Loaded:
    """Compile, load and attach, in a child that exits afterwards.

    `meanwhile` is called while the child works.

    Raises:
        PrivilegeError: not allowed to.
        DependencyError: bcc or libbpf is missing or is the wrong one.
        KernelError: the kernel refuses or lacks something, or the compiler died.
    """
    return Loading(request).loaded(meanwhile)


def _short_of_memory(status: int, log: str) -> KernelError | None:
    """The error if that is what the child failed for, by its exit status and its words."""
    words = [line for line in log.splitlines() if any(word in line for word in NO_MEMORY)]
    if not words and status != -signal.SIGKILL:
        return None
    why = words[-1].strip() if words else "the loading child was killed, as the kernel does then"
    return KernelError(
        f"there is not enough memory to load the BPF programs ({why})",
        hint=f"loading takes {LOADING_MB} MB for some seconds: raise the limit "
        "(MemoryMax= of a unit, the container's, ulimit -v), or give memory back",
    )


def _died(status: int, log: str) -> KernelError:
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    *_, last = log.strip().splitlines() or ["no message"]
    return KernelError(
        f"the BPF compiler died ({how}): {last}",
        hint="run `rsttrace doctor -v` and report its output",
    )


def _start(channel: socket.socket, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """The loading child, with its end of the channel."""
    return programs.start(
        home.python("rsttrace.kernel.child", str(channel.fileno())),
        programs.own_environment(),
        pass_fds=[channel.fileno()],
        start_new_session=True,  # what kills our process group lets it clean up
        stdout=log,
        stderr=log,
    )
