"""Network namespaces of this node: inode number to name and to a path that can be opened.

The kernel knows a namespace by its inode number in nsfs (``net.ns.inum``, fs/nsfs.c), the user by
the name under which `ip netns`_ or Docker bind-mounted it. Nothing is held open here: an open file
would keep a deleted namespace, and its interfaces, alive.

.. _ip netns: ip-netns(8)
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from dataclasses import dataclass
from typing import Callable, Optional

from rsttrace.enrich import reach
from rsttrace.enrich.reach import Status
from rsttrace.errors import RsttraceError, UsageError

NAME_DIRS = ("/run/netns", "/var/run/docker/netns")
"""Where namespaces get names: ip-netns(8) and CNI plugins; Docker's sandboxes."""

_NS_GET_NSTYPE = 0xB703  # include/uapi/linux/nsfs.h: _IO(0xb7, 0x3)
_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
_MAX_MISSED = 1024
_NAMES_MAX_AGE = 2.0

BURST = 8
"""How many scans new namespaces may cost at once; one takes some milliseconds."""


@dataclass(frozen=True)
class _Entry:
    name: str | None
    path: str


class NetnsDirectory:
    """Names and paths of network namespaces, found in the file system and in ``/proc``.

    A miss scans at most once per `interval` (seconds) and inode. All misses together may scan
    `BURST` times at once (a node that starts several pods), and once per ``interval / 5`` in the
    long run. Names are raw: whoever prints them escapes them.
    """

    def __init__(
        self,
        *,
        name_dirs: tuple[str, ...] = NAME_DIRS,
        proc: str = "/proc",
        interval: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name_dirs`, `proc` and `clock` are for tests."""
        self._name_dirs = name_dirs
        self._proc = proc
        self._interval = interval
        self._clock = clock
        self._entries: dict[int, _Entry] = {}
        self._missed: dict[int, float] = {}
        self._identities: dict[int, int] = {}
        self._scanned = float("-inf")
        self._scans_left = float(BURST)
        self._stamp: tuple[int, ...] = ()
        self._named = float("-inf")
        self._sure: dict[int, _Entry] | None = None

    def turn(self) -> None:
        """What is found from here on to the next turn need not be looked at twice."""
        self._sure = {}

    def met(self, inode: int, identity: int) -> bool:
        """Take note of which namespace has this inode number now; true if it is another one.

        `identity` is anything that is never used again, such as the kernel's cookie. Inode
        numbers are: what was known, or known to be missing, of the earlier one is forgotten.
        """
        known = self._identities.get(inode)
        if known == identity:
            return False
        if len(self._identities) >= _MAX_MISSED:
            self._identities.clear()
        self._identities[inode] = identity
        self._missed.pop(inode, None)
        if self._sure is not None:
            self._sure.pop(inode, None)
        if known is not None:
            self._entries.pop(inode, None)
            self._stamp = ()  # the names may have been looked at when it was the other one's
        return known is not None

    def identity(self, inode: int) -> int | None:
        """What `met` was told of this inode number last; ``None``: nothing."""
        return self._identities.get(inode)

    def name(self, inode: int) -> str | None:
        """The name of the namespace with this inode number; ``None``: it has none, or is gone."""
        entry = self._find(inode)
        return entry.name if entry else None

    def way_into(self, inode: int) -> str | None:
        """The path to enter a namespace by; ``None``: it is our own.

        Raises:
            RsttraceError: it is gone.
        """
        if inode == os.stat("/proc/self/ns/net").st_ino:
            return None
        path = self.path(inode)
        if path is None:
            raise RsttraceError(f"the network namespace {inode} is gone")
        return path

    def all(self) -> list[int]:
        """The inode numbers of all namespaces that a name or a process leads to, named ones first.

        Looks for new ones once per ``interval``.
        """
        if self._clock() - self._scanned >= self._interval:
            self._scan(self._clock())
        found = self._entries
        return sorted(found, key=lambda inode: (found[inode].name is None, inode))

    def path(self, inode: int) -> str | None:
        """A path that opened just now to this namespace; ``None``: no name or process leads there.

        It may vanish before it is opened: compare ``fstat().st_ino`` after opening.
        """
        entry = self._find(inode)
        return entry.path if entry else None

    def resolve(self, spec: str) -> int:
        """The inode number that a user's ``--netns`` argument means.

        `spec` is a name under /run/netns (or Docker's), a path, ``pid:N``, ``self`` or ``.``, or
        an inode number as ``lsns`` and ``readlink /proc/PID/ns/net`` show it. Raises `UsageError`.
        """
        if spec in ("self", "."):
            return self._checked(f"{self._proc}/self/ns/net", "this process's network namespace")
        if spec.startswith("pid:"):
            pid = spec[4:]
            if not _is_number(pid):
                raise UsageError(f"{spec!r}: pid: wants a process number, as in pid:1234")
            return self._checked(f"{self._proc}/{int(pid)}/ns/net", f"process {int(pid)}")
        if "/" in spec:
            return self._checked(spec, f"the file {spec!r}")
        if spec and spec != ".." and "\0" not in spec:
            for directory in self._name_dirs:
                path = os.path.join(directory, spec)
                if os.path.lexists(path):
                    return self._checked(path, f"the namespace name {spec!r}")
        if _is_number(spec):
            inode = int(spec)
            if self._find(inode) is None:
                self._scan(self._clock())  # a user's question is worth one, whatever the rate
            if inode not in self._entries:
                raise UsageError(
                    f"no process and no name leads to a network namespace with inode {inode}",
                    hint="`lsns -t net` lists the inode numbers",
                )
            return inode
        raise UsageError(
            f"there is no network namespace named {spec!r}",
            hint="give a name from `ip netns list`, a path, pid:N, an inode number or self",
        )

    def _checked(self, path: str, what: str) -> int:
        """The inode behind `path` if it is a network namespace (ioctl_ns(2), NS_GET_NSTYPE)."""
        try:
            # O_NONBLOCK: opening a FIFO given by mistake must not wait for a writer
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UsageError(f"{what} does not exist") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"cannot open {what}: {reason}") from None
        try:
            if fcntl.ioctl(fd, _NS_GET_NSTYPE) != _CLONE_NEWNET:
                raise UsageError(f"{what} is a namespace, but not a network namespace")
            return os.fstat(fd).st_ino
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL, errno.ENODEV):
                raise UsageError(f"cannot use {what}: {error.strerror}") from None
            raise UsageError(f"{what} is not a network namespace") from None
        finally:
            os.close(fd)

    def _find(self, inode: int) -> _Entry | None:
        if self._sure is None:
            return self._looked_for(inode)
        entry = self._sure.get(inode)
        if entry is None and (entry := self._looked_for(inode)) is not None:
            self._sure[inode] = entry
        return entry

    def _looked_for(self, inode: int) -> _Entry | None:
        now = self._clock()
        entry = self._entries.get(inode)
        if entry is not None and self._inode(entry.path) == inode:
            if entry.name is None and now - self._named >= _NAMES_MAX_AGE:
                # it may have been given a name since: container runtimes do so after creating it
                self._entries.update(self._scan_names(now))
            return self._entries[inode]
        self._entries.pop(inode, None)
        if self._changed() != self._stamp:  # a namespace got a name: that is cheap to find
            self._entries.update(self._scan_names(now))
            if inode in self._entries:
                self._missed.pop(inode, None)
                return self._entries[inode]
        missed = self._missed.get(inode)
        if missed is not None and now - missed < self._interval:
            return None
        earned = (now - self._scanned) / (self._interval / 5)
        self._scans_left = min(float(BURST), self._scans_left + earned)
        if self._scans_left < 1:
            return None
        self._scans_left -= 1
        self._scan(now)
        entry = self._entries.get(inode)
        if entry is None:
            if len(self._missed) >= _MAX_MISSED:
                self._missed.clear()
            self._missed[inode] = now
        else:
            self._missed.pop(inode, None)
        return entry

    def _scan(self, now: float) -> None:
        """Start over: vanished namespaces must not stay, their inode numbers are used again."""
        self._scanned = now
        helper = reach.helper()
        told = all_namespaces(self._proc) if helper is None else _asked(helper, all_of_them=True)
        found = {inode: _Entry(name, path) for inode, name, path in told}
        found.update(self._scan_names(now))
        self._entries = found

    def _changed(self) -> tuple[int, ...]:
        """When names came or went last, for each directory of names (0: there is none)."""
        found = map(self._status, self._name_dirs)
        return tuple(0 if status is None else status.modified_ns for status in found)

    def _scan_names(self, now: float) -> dict[int, _Entry]:
        self._named = now
        self._stamp = self._changed()
        helper = reach.helper()
        if helper is None:
            told = named_namespaces(self._name_dirs, self._proc)
        else:
            told = _asked(helper, all_of_them=False)
        found: dict[int, _Entry] = {}
        for inode, name, path in told:
            found.setdefault(inode, _Entry(name, path))
        return found

    def _inode(self, path: str) -> int | None:
        status = self._status(path)
        return None if status is None else status.inode

    @staticmethod
    def _status(path: str) -> Status | None:
        helper = reach.helper()
        return status_of(path) if helper is None else helper.status(path)


Namespaces = list[tuple[int, Optional[str], str]]
"""Inode number, name (``None``: a process leads there) and path of each."""


def all_namespaces(proc: str = "/proc") -> Namespaces:
    """The namespaces that a process leads to."""
    found: dict[int, str] = {}
    # the first path wins: these two outlive any other process
    for pid in ("self", "1", *_pids(proc)):
        path = f"{proc}/{pid}/ns/net"
        status = status_of(path)
        if status is not None:
            found.setdefault(status.inode, path)
    return [(inode, None, path) for inode, path in found.items()]


def named_namespaces(name_dirs: tuple[str, ...] = NAME_DIRS, proc: str = "/proc") -> Namespaces:
    """The namespaces that have a name."""
    found: Namespaces = []
    own = status_of(f"{proc}/self/ns/net")
    for directory in name_dirs:
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for name in names:
            path = os.path.join(directory, name)
            status = status_of(path)
            # a name whose namespace is not mounted (yet) is an empty file elsewhere
            if status is not None and (own is None or status.device == own.device):
                found.append((status.inode, name, path))
    return found


def status_of(path: str) -> Status | None:
    """What stat(2) says of a path; ``None``: it is not there, or not for us to see."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return Status(found.st_ino, found.st_dev, found.st_mtime_ns)


def is_way(path: str) -> bool:
    """Whether a path is of those that lead to namespaces here: a process's, or a name's."""
    folder, _, name = path.rpartition("/")
    if folder in NAME_DIRS:
        return name not in ("", ".", "..") and "\0" not in name
    return re.fullmatch(r"/proc/(?:self|[1-9][0-9]{0,9})/ns/net", path) is not None


def _asked(helper: reach.Helper, *, all_of_them: bool) -> Namespaces:
    try:
        return helper.namespaces(all_of_them=all_of_them)
    except OSError:
        return []


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _pids(proc: str) -> list[str]:
    try:
        return [name for name in os.listdir(proc) if _is_number(name)]
    except OSError:
        return []
