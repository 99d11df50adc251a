"""A folder to compile in that vanishes with the process, also on a node whose disks are full.

What bcc compiles wants to be included from files. They are a few kilobytes, and no disk is needed
for them: a tmpfs that is mounted nowhere lives as long as its descriptor (fsmount(2), 5.2). Where
the kernel does not give one (no CAP_SYS_ADMIN), a folder in memory or on disk has to do; what a
killed process leaves there, the next start removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from rsttrace.errors import KernelError, RsttraceError
from rsttrace.files import others_may_write
from rsttrace.kernel import syscalls

PREFIX = "rsttrace-"

PLACES = ("/dev/shm", "/run")
"""In memory, so that a full disk does not matter; after these come the usual folders."""

FRESH_S = 60.0
"""Somebody may be about to lock a folder that is younger."""


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder of our own, which is gone afterwards.

    Raises:
        RsttraceError: nowhere can a folder be made; the message says what was tried.
    """
    try:
        mounted = syscalls.detached_tmpfs()
    except (OSError, KernelError):
        with _folder(places()) as folder:
            yield folder
        return
    try:
        yield Path(f"/proc/self/fd/{mounted}")
    finally:
        os.close(mounted)


def places() -> list[str]:
    """Where a folder may be made, the best first: TMPDIR if it is set, memory, then disks."""
    named = [os.environ[name] for name in ("TMPDIR",) if os.environ.get(name)]
    return list(dict.fromkeys([*named, *PLACES, "/tmp", "/var/tmp"]))


@contextlib.contextmanager
def _folder(where: Iterable[str]) -> Iterator[Path]:
    """A folder in the first of these places that has room for one."""
    tried = []
    for place in where:
        reap(place)
        try:
            if _is_swapped_easily(os.stat(place)):
                tried.append(f"{place}: others may rename what is in it (it is not sticky)")
                continue
            name = tempfile.mkdtemp(prefix=PREFIX, dir=place)
        except OSError as error:
            tried.append(f"{place}: {error.strerror}")
            continue
        try:
            lock = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                room = _has_room(Path(name))
                if room is None:
                    yield Path(name)
                    return
                tried.append(f"{place}: {room}")
            finally:
                os.close(lock)
        finally:
            shutil.rmtree(name, ignore_errors=True)
    raise RsttraceError(
        f"there is nowhere to compile the BPF programs ({'; '.join(tried)})",
        hint="set TMPDIR to a folder that you may write to, with 1 MB free",
    )


def _is_swapped_easily(place: os.stat_result) -> bool:
    """Whether others could put a folder in the place of ours: what is in it becomes kernel code."""
    open_to_all = others_may_write(place) and not place.st_mode & stat.S_ISVTX
    return stat.S_ISDIR(place.st_mode) and open_to_all


def _has_room(folder: Path) -> str | None:
    """None if a file of 64 kB can be written there, else why not."""
    probe = folder / "probe"
    try:
        probe.write_bytes(bytes(65536))
    except OSError as error:
        return error.strerror
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return None


def reap(place: str) -> None:
    """Remove what killed processes of ours have left in a place: ours, not fresh, not locked."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(place):
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _reap_one(entry.path)


def _reap_one(path: str) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(opened)
        ours = found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o700
        if ours and time.time() - found.st_mtime > FRESH_S:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(opened)
