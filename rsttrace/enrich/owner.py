"""Whose socket: process by socket inode, container and pod by cgroup.

A socket's inode number (sockfs) appears as ``socket:[N]`` among the files of the processes that
hold it (proc(5), /proc/PID/fd); a cgroup v2 id is the inode number of the cgroup's directory
(kernfs_id, include/linux/kernfs.h). Both are found by walking trees that can be large, so answers
are kept, misses are remembered, and walks take at most a twentieth of the time.
"""

from __future__ import annotations

import json
import os
import re
import select
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable, NamedTuple

from rsttrace.enrich import reach
from rsttrace.model import Container, Pod

_INTERVAL = 0.05
_DUTY = 20.0
"""A walk that took T seconds is not repeated for ``20 T``: at most 5 % of one CPU."""
_BUDGET = 0.5
_MISS_SECONDS = 5.0
_MAX_SOCKETS = 32768
_MAX_MISSES = 4096
_MAX_CGROUPS = 4096
_MAX_READ = 1 << 20
_MAX_LIVES = 16

_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"
# cgroupfs driver: kubepods/burstable/pod<uid>/<id>; systemd driver, where "-" nests slices and so
# becomes "_": kubepods-burstable-pod<uid>.slice/cri-containerd-<id>.scope. (kubelet,
# pkg/kubelet/cm/cgroup_manager_linux.go). A static pod's uid is 32 digits without hyphens.
_POD = re.compile(rf"(?:^|-)pod({_UID})(?:\.slice)?$")
# docker/<id>, docker-<id>.scope, cri-containerd-<id>.scope, crio-<id>.scope, libpod-<id>.scope,
# nerdctl-<id>.scope, kubepods-burstable-pod<uid>.slice:cri-containerd:<id>
_CONTAINER = re.compile(r"(?:^|[-:])([0-9a-f]{64})(?:\.scope)?$")
_LOG = re.compile(r"_([^_]+)-([0-9a-f]{64})\.log$")
# conmon watches a container from outside it; a podman pod's slice holds containers
_NOT_CONTAINER = ("crio-conmon-", "libpod-conmon-", "machine-libpod_pod_", "user-libpod_pod_")


def parse_cgroup(path: str) -> tuple[str | None, str | None]:
    """The container id (64 hex digits) and the pod uid in a cgroup path; the innermost of each.

    The uid is given with hyphens, whichever driver wrote the path.
    """
    container = pod = None
    kubernetes = "kubepods" in path
    # containerd without its systemd setting names the pod's slice in the container's component
    for part in path.replace(".slice:", ".slice/").split("/"):
        if kubernetes and (match := _POD.search(part)):
            pod = match[1].replace("_", "-")
        elif not part.startswith(_NOT_CONTAINER) and (match := _CONTAINER.search(part)):
            container = match[1]
    return container, pod


# systemd.unit(5): what a unit's name may be; slices are what units stand in
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}\.(?:service|scope|socket|mount|swap)")


def unit_of(path: str) -> str | None:
    """The systemd unit that a cgroup path stands for, as ``systemctl status PID`` names it.

    The first component that is no slice (cg_path_get_unit(), systemd's src/basic/cgroup-util.c): a
    user's own units are below that user's ``user@UID.service``.
    """
    for part in path.split("/"):
        if part and not part.endswith(".slice"):
            name = part.removeprefix("_")  # cg_escape(): a name that might be a file's
            return name if _UNIT.fullmatch(name) else None
    return None


@dataclass
class _Pace:
    """When a walk may be repeated."""

    clock: Callable[[], float]
    ready_at: float = float("-inf")

    def ready(self) -> bool:
        return self.clock() >= self.ready_at

    def done(self, started: float) -> None:
        now = self.clock()
        self.ready_at = now + max(_INTERVAL, _DUTY * (now - started))


class _Holder(NamedTuple):
    """A process that held a socket at a scan (`scan`: its number), and under which descriptor."""

    pid: int
    fd: str
    comm: str
    scan: int


class _Lives:
    """Processes that ran when they were asked about first: a descriptor of each tells when it ends.

    It stands for that very process, whoever has its number later (pidfd_open(2), Linux 5.3). The
    ones that were asked about last are kept.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[int, select.poll, int]] = OrderedDict()
        self._count = 0

    def which(self, pid: int) -> int | None:
        """A number of ours for the process that has this pid now; ``None``: it cannot be told."""
        return self._known[pid][2] if self.runs(pid) else None

    def runs(self, pid: int) -> bool | None:
        """Whether a process runs; ``None``: that cannot be told in this way."""
        known = self._known.get(pid)
        if known is None:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                return False
            except (OSError, AttributeError):  # an older kernel or C library, too many open files
                return None
            self._count += 1
            known = descriptor, select.poll(), self._count
            known[1].register(descriptor, select.POLLIN)
            self._known[pid] = known
            if len(self._known) > _MAX_LIVES:
                os.close(self._known.popitem(last=False)[1][0])
        else:
            self._known.move_to_end(pid)
        if not known[1].poll(0):
            return True
        del self._known[pid]
        os.close(known[0])
        return False

    def close(self) -> None:
        """Forget all of them."""
        while self._known:
            os.close(self._known.popitem()[1][0])


class Owners:
    """Processes, containers and pods that own sockets. No look-up raises.

    Text from the node (comm, names) is raw: whoever prints it escapes it.

    Attributes:
        process_scans: how often all processes were walked through.
        put_off: a process was not looked for, since the last walk was too short ago.
    """

    def __init__(self, *, root: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        """`root` is prepended to every path (``/proc``…); `clock` counts seconds: for tests."""
        self._root = root
        self._proc = root + "/proc"
        self._clock = clock
        self._holders: OrderedDict[int, _Holder] = OrderedDict()
        self._unheld: OrderedDict[int, float] = OrderedDict()
        self._process_pace = _Pace(clock)
        self._last_pid = 0
        self._cgroups: OrderedDict[int, str] = OrderedDict()
        self._no_cgroup: OrderedDict[int, float] = OrderedDict()
        self._cgroup_pace = _Pace(clock)
        self._container_names: dict[str, str] = {}
        self._container_pace = _Pace(clock)
        self._pod_names: dict[str, tuple[str, str]] = {}
        self._pod_pace = _Pace(clock)
        self.process_scans = 0
        self.put_off = False
        self._lives = None if root else _Lives()

    def close(self) -> None:
        """Let go of the processes that were asked about; it can be used again."""
        if self._lives is not None:
            self._lives.close()

    def process(self, inode: int, netns: int | None = None) -> tuple[int, str] | None:
        """The pid and comm of a process that holds the socket with this inode number.

        `netns` is the socket's namespace: its processes are looked through first. A socket that
        was closed since is found if an earlier scan saw it. ``None``: no process was seen with it,
        as for sockets that lived shorter than the time between two scans.
        """
        known = self._holders.get(inode)
        if known is not None:
            self._holders.move_to_end(inode)
            if self._link(f"{known.pid}/fd/{known.fd}") == f"socket:[{inode}]":
                return known.pid, self._comm(known.pid) or known.comm
        missing = self._is_missing(self._unheld, inode)
        ready = self.ready()
        self.put_off |= not ready and not missing
        if ready and not missing:
            started = self._clock()
            found, complete = self._scan_processes(inode, netns, started)
            self._process_pace.done(started)
            if found is None and complete:
                self._miss(self._unheld, inode)
            known = found or known
        return (known.pid, known.comm) if known else None

    def ready(self) -> bool:
        """Whether all processes may be walked through now."""
        return self._process_pace.ready()

    def runs(self, pid: int) -> bool:
        """Whether there is such a process, and it has not ended (proc_pid_stat(5): state)."""
        known = self._lives.runs(pid) if self._lives is not None else None
        if known is not None:
            return known
        return self._read(f"{self._proc}/{pid}/stat").rpartition(")")[2][1:2] not in ("", "Z", "X")

    def container(self, cgroup_id: int) -> tuple[Container | None, Pod | None]:
        """The container and pod that a cgroup v2 id stands for; ``None`` for what it is not."""
        path = self._cgroup_path(cgroup_id)
        return self._owners_of(path) if path else (None, None)

    def container_of_process(self, pid: int) -> tuple[Container | None, Pod | None]:
        """The same from ``/proc/PID/cgroup``: for nodes whose containers are in v1 hierarchies."""
        for line in self._read(f"{self._proc}/{pid}/cgroup").splitlines():
            # hierarchy-ID:controller-list:path, cgroups(7)
            container, pod = self._owners_of(line.split(":", 2)[-1])
            if container or pod:
                return container, pod
        return None, None

    def unit(self, cgroup_id: int) -> str | None:
        """The systemd unit that a cgroup v2 id stands for."""
        path = self._cgroup_path(cgroup_id)
        return unit_of(path) if path else None

    def unit_of_process(self, pid: int) -> str | None:
        """The same of a process, in whichever hierarchy systemd keeps its units (cgroups(7))."""
        for line in self._read(f"{self._proc}/{pid}/cgroup").splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if (controllers == "name=systemd" or number == "0") and (unit := unit_of(path)):
                return unit
        return None

    def age_s(self, pid: int) -> float | None:
        """For how many seconds a process has run; ``None``: it is gone.

        ``starttime``, the 22nd field of proc_pid_stat(5), counts ticks since boot.
        """
        try:
            ticks = int(self._read(f"{self._proc}/{pid}/stat").rpartition(")")[2].split()[19])
        except (ValueError, IndexError):
            return None
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        return round(max(0.0, since_boot - ticks / os.sysconf("SC_CLK_TCK")), 1)

    def _scan_processes(
        self, wanted: int, netns: int | None, started: float
    ) -> tuple[_Holder | None, bool]:
        """Learn the sockets of all processes: who holds `wanted`, and whether all were seen.

        The namespace's own processes come first, and end the scan if one of them holds it. A scan
        that exceeds its time goes on behind its last process next time.
        """
        self.process_scans += 1
        found: _Holder | None = None
        pids = [int(name) for name in _names(self._proc) if name.isdigit()]
        near = {pid for pid in pids if netns is None or self._netns(pid) == netns}
        for pid in sorted(pids, key=lambda pid: (pid not in near, pid <= self._last_pid, pid)):
            if found is not None and pid not in near:
                break
            found = self._learn(pid, wanted) or found
            if self._clock() - started > _BUDGET:
                self._last_pid = pid
                return found, False
        self._last_pid = 0
        if found is not None:
            self._holders[wanted] = found  # it may have been pushed out by a crowd of others
        return found, True

    def _learn(self, pid: int, wanted: int) -> _Holder | None:
        comm: str | None = None
        found = None
        for fd in _names(f"{self._proc}/{pid}/fd"):
            target = self._link(f"{pid}/fd/{fd}")
            if target is None or not target.startswith("socket:["):
                continue
            inode = int(target[8:-1])
            held = self._holders.get(inode)
            # of several holders the first stays: a server's parent comes before its workers
            if held is not None and held.scan == self.process_scans:
                continue
            if comm is None:
                comm = self._comm(pid)
            holder = self._holders[inode] = _Holder(pid, fd, comm, self.process_scans)
            if inode == wanted:
                found = holder
            if len(self._holders) > _MAX_SOCKETS:
                self._holders.popitem(last=False)
        return found

    def _comm(self, pid: int) -> str:
        return self._read(f"{self._proc}/{pid}/comm").removesuffix("\n")

    def _netns(self, pid: int) -> int | None:
        try:
            return os.stat(f"{self._proc}/{pid}/ns/net").st_ino
        except OSError:
            return None

    def _link(self, path: str) -> str | None:
        try:
            return os.readlink(f"{self._proc}/{path}")
        except OSError:
            return None

    def _cgroup_path(self, cgroup_id: int) -> str | None:
        """The path of a cgroup below its hierarchy's root, ``/`` for the root itself."""
        path = self._cgroups.get(cgroup_id)
        if path is not None:
            self._cgroups.move_to_end(cgroup_id)
            return path
        if not self._cgroup_pace.ready() or self._is_missing(self._no_cgroup, cgroup_id):
            return None
        started = self._clock()
        path = self._scan_cgroups(cgroup_id)
        self._cgroup_pace.done(started)
        if path is None:
            self._miss(self._no_cgroup, cgroup_id)
        return path

    def _scan_cgroups(self, wanted: int) -> str | None:
        mount = self._cgroup_mount()
        if mount is None:
            return None
        found = None
        for inode, path in _directories(mount):
            self._cgroups[inode] = path
            if inode == wanted:
                found = path
            if len(self._cgroups) > _MAX_CGROUPS:
                self._cgroups.popitem(last=False)
        if found is not None:
            self._cgroups[wanted] = found
        return found

    def _cgroup_mount(self) -> str | None:
        """Where the v2 hierarchy is mounted: often /sys/fs/cgroup, on hybrid nodes below it."""
        best: tuple[int, str] | None = None
        for line in self._read(f"{self._proc}/self/mountinfo").splitlines():
            # proc(5): ID parent major:minor root mount-point options [tags] - type source options
            mount, _, filesystem = line.partition(" - ")
            fields = mount.split(" ")
            if filesystem.startswith("cgroup2 ") and len(fields) >= 5:
                # a bind mount shows only a part of the hierarchy: the shortest root shows most
                candidate = (len(fields[3]), _unescape(fields[4]))
                best = candidate if best is None else min(best, candidate)
        return self._root + best[1] if best else None

    def _owners_of(self, cgroup_path: str) -> tuple[Container | None, Pod | None]:
        container_id, uid = parse_cgroup(cgroup_path)
        container = pod = None
        if container_id is not None:
            container = Container(container_id, self._container_name(container_id))
        if uid is not None:
            namespace, name = self._pod_name(uid)
            pod = Pod(namespace, name, uid)
        return container, pod

    def _pod_name(self, uid: str) -> tuple[str, str] | tuple[None, None]:
        """Namespace and name from the kubelet's log directories ``<namespace>_<name>_<uid>``."""
        if uid not in self._pod_names and self._pod_pace.ready():
            started = self._clock()
            split = [name.split("_") for name in _names(f"{self._root}/var/log/pods")]
            self._pod_names = {part[2]: (part[0], part[1]) for part in split if len(part) == 3}
            self._pod_pace.done(started)
        return self._pod_names.get(uid, (None, None))

    def _container_name(self, container_id: str) -> str | None:
        """The name in the kubelet's link ``<pod>_<namespace>_<name>-<id>.log``, else Docker's."""
        if container_id not in self._container_names and self._container_pace.ready():
            started = self._clock()
            names: dict[str, str] = {}
            for link in _names(f"{self._root}/var/log/containers"):
                if match := _LOG.search(link):
                    names[match[2]] = match[1]
            for known in _names(f"{self._root}/var/lib/docker/containers"):
                if known not in names and (name := self._docker_name(known)):
                    names[known] = name
            for known, name in self._podman_names():
                names.setdefault(known, name)
            self._container_names = names
            self._container_pace.done(started)
        return self._container_names.get(container_id)

    def _podman_names(self) -> Iterator[tuple[str, str]]:
        """What ``podman ps`` calls them: in the records of containers/storage, by its drivers."""
        storage = f"{self._root}/var/lib/containers/storage"
        for folder in _names(storage):
            if not folder.endswith("-containers"):
                continue
            for file in ("containers.json", "volatile-containers.json"):
                try:
                    records = json.loads(self._read(f"{storage}/{folder}/{file}"))
                    for record in records:
                        known, name = record["id"], record["names"][0]
                        if isinstance(known, str) and isinstance(name, str) and name:
                            yield known, name
                except (ValueError, LookupError, TypeError, RecursionError):
                    continue

    def _docker_name(self, container_id: str) -> str | None:
        """What ``docker ps`` calls it: ``Name`` in Docker's own record, behind a slash."""
        known = self._container_names.get(container_id)
        if known is not None:
            return known
        path = f"{self._root}/var/lib/docker/containers/{container_id}/config.v2.json"
        try:
            name = json.loads(self._read(path))["Name"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return None
        return name.lstrip("/") or None if isinstance(name, str) else None

    def _is_missing(self, missing: OrderedDict[int, float], key: int) -> bool:
        at = missing.get(key)
        return at is not None and self._clock() - at < _MISS_SECONDS

    def _miss(self, missing: OrderedDict[int, float], key: int) -> None:
        missing[key] = self._clock()
        missing.move_to_end(key)
        if len(missing) > _MAX_MISSES:
            missing.popitem(last=False)

    @staticmethod
    def _read(path: str) -> str:
        """A small file's text, undecodable bytes kept as surrogates; empty if it is gone."""
        try:
            with open(path, "rb") as file:
                return file.read(_MAX_READ).decode("utf-8", "surrogateescape")
        except OSError:
            return ""


def owners() -> Owners:
    """Looks for processes; where this process may not, its helper does."""
    helper = reach.helper()
    return Owners() if helper is None else helper.owners()


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _directories(top: str) -> Iterator[tuple[int, str]]:
    """Inode number and path below `top` (``/`` for itself) of every directory of a tree."""
    try:
        yield os.stat(top).st_ino, "/"
    except OSError:
        return
    waiting = [""]
    while waiting:
        path = waiting.pop()
        try:
            with os.scandir(top + path) as entries:
                below = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # a container that just ended
        for entry in below:
            yield entry.inode(), f"{path}/{entry.name}"
            waiting.append(f"{path}/{entry.name}")


def _unescape(field: str) -> str:
    """Undo mountinfo's octal escapes of blanks and backslashes (seq_path, fs/seq_file.c)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
