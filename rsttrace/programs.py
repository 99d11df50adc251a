"""Starting other programs: the system's own by absolute path, and ourselves; nothing else ever is.

The one place in rsttrace that starts a process. What it starts may run as root beside users who own
files, variables and folders of $PATH: so a program is looked for in the system's folders only, and
is used only if nobody but root can have changed it; and it gets an environment of ours.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where programs are looked for, whatever $PATH says."""

ENVIRONMENT: Mapping[str, str] = {"PATH": ":".join(FOLDERS), "LC_ALL": "C"}
"""What a program of the system is given, and no more."""

_OURS = ("LANG", "TZ", "TMPDIR", "TERM", "COLORTERM", "NO_COLOR")
_OURS_BEGIN = ("LC_", "RSTTRACE_")
"""What we read ourselves (docs/rsttrace.8.md), and how words, times and colours are to look. Left
out is what changes what a process does: LD_* (sudo(8) drops it, too), BCC_*, LLVM's, Python's."""

_LINKS = 40
"""So many symbolic links in one path are followed (MAXSYMLINKS, include/linux/namei.h)."""


class Found(NamedTuple):
    """A program of the system and whose it is, or why it is not used: ``is not installed``, …"""

    path: str | None
    problem: str = ""
    owner: int = 0


def look(name: str, *, as_owner: bool = False, folders: Sequence[str] = FOLDERS) -> Found:
    """Where a program is, unless others than root can have written it, or what leads to it.

    With `as_owner` it may be another user's, who then must run it: `run` with that `owner`.
    """
    problem = "is not installed"
    for folder in folders:
        path = os.path.join(folder, name)
        if not os.access(path, os.X_OK):
            continue
        try:
            doubtful, owner = _doubtful(path)
        except OSError as error:
            problem = f"is not used: {path}: {error.strerror}"
            continue
        if doubtful is None and owner and not as_owner:
            doubtful = path
        if doubtful is None:
            return Found(path, owner=owner)
        problem = f"is not used: others than root may write to {doubtful}"
    return Found(None, problem)


def find(name: str) -> str | None:
    """The absolute path of a program; ``None``: `look` says why."""
    return look(name).path


def _doubtful(path: str) -> tuple[str | None, int]:
    """What on the way to a file others than root may write to (``None``: nothing), and its owner.

    The file itself may be its owner's; its group's and everybody's it may not.

    Raises:
        OSError: it cannot be looked at, or is no file.
    """
    waiting = path.split("/")[::-1]
    at, links = "/", 0
    while True:
        found = os.lstat(at)
        if stat.S_ISLNK(found.st_mode):  # its mode says nothing: the folder that it is in does
            links += 1
            if links > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink(at)
            waiting += target.split("/")[::-1]
            at = "/" if target.startswith("/") else os.path.dirname(at)
        else:
            anybody_s = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if anybody_s or (found.st_uid != 0 and not stat.S_ISREG(found.st_mode)):
                return at, found.st_uid
        while waiting and waiting[-1] in ("", "."):
            waiting.pop()
        if not waiting:
            break
        part = waiting.pop()
        at = os.path.dirname(at) if part == ".." else os.path.join(at, part)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EACCES, "it is no file")
    return None, found.st_uid


def own_environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a process of ours is given of our own environment.

    Its Python is isolated in any case (`rsttrace.home.python`). Without HOME it would ask the name
    service for one, which may be far away.
    """
    kept = {
        name: value
        for name, value in given.items()
        if name in _OURS or name.startswith(_OURS_BEGIN)
    }
    return {**kept, "PATH": ENVIRONMENT["PATH"], "HOME": "/nonexistent"}


def start(
    command: Sequence[str], environment: Mapping[str, str] = ENVIRONMENT, **options: Any
) -> subprocess.Popen[Any]:
    """Start a program whose path is absolute: what `find` gives, or `rsttrace.home.python`.

    Args:
        command: the program and its arguments.
        environment: all that it gets; `own_environment` for one of ours.
        options: of `subprocess.Popen`; its three streams lead nowhere unless they are named.

    Raises:
        OSError: it cannot be started.
        ValueError: its path is not absolute.
    """
    if not os.path.isabs(command[0]):
        raise ValueError(f"{command[0]!a} is not an absolute path")
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    return subprocess.Popen(command, env=dict(environment), **{**streams, **options})


def run(
    command: Sequence[str],
    environment: Mapping[str, str] = ENVIRONMENT,
    *,
    timeout: float,
    text: str | None = None,
    owner: int = 0,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as `start` starts it; with what it printed.

    `text` is its input; after `timeout` seconds it is killed. It has no terminal. One that is
    another user's runs with that user's rights and no more: who can write it gains nothing by it.

    Raises:
        OSError: it cannot be started, or we may not become its owner.
        ValueError: its path is not absolute.
        subprocess.TimeoutExpired: it took too long.
    """
    pipe = subprocess.PIPE
    source = subprocess.DEVNULL if text is None else pipe
    as_owner = {"user": owner, "group": _group(owner), "extra_groups": []} if owner else {}
    streams = {"stdin": source, "stdout": pipe, "stderr": pipe, "text": True, "errors": "replace"}
    with start(command, environment, **streams, start_new_session=True, **as_owner) as child:
        try:
            out, err = child.communicate(text, timeout)
        except BaseException:
            child.kill()
            raise
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def _group(user: int) -> int:
    try:
        return pwd.getpwuid(user).pw_gid
    except KeyError:
        return user
