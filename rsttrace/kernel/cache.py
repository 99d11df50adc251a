"""Keeps compiled programs between starts, in a private folder.

A file is used only if it, and its folder, belong to the user who runs us and nobody else may write
to them: what is in it becomes code that runs in the kernel. Nothing here makes a start fail.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

import rsttrace
from rsttrace import files
from rsttrace.kernel import image

VARIABLE = "RSTTRACE_CACHE"
"""Names another folder; empty: nothing is kept."""

FOLDER = "/var/cache/rsttrace"
KEPT = 16
"""So many compiled programs (different filters and options) are kept, the newest ones."""

_NAME = re.compile("[0-9a-f]{64}")
"""What `key` gives: nothing else in the folder is ours to remove."""

NOTES = Path("/sys/kernel/notes")
"""The running kernel's build ID (ELF notes), which its BTF belongs to."""


def folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Where compiled programs are kept; None: nowhere."""
    named = environment.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    return Path(FOLDER) if os.geteuid() == 0 else None


def key(texts: Iterable[str], compiler: Iterable[Path]) -> str:
    """What a compiled program depends on, as a name.

    `texts` are all that the compiler is given, `compiler` the files that it is made of.
    """
    parts = [rsttrace.__version__, platform.machine(), platform.release(), platform.version()]
    for path in compiler:
        with contextlib.suppress(OSError):
            found = path.stat()
            parts.append(f"{path} {found.st_size} {found.st_mtime_ns}")
    digest = hashlib.sha256()
    with contextlib.suppress(OSError):
        digest.update(NOTES.read_bytes())
    for text in [*parts, *texts]:
        digest.update(len(text).to_bytes(8, "big") + text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _is_ours(found: os.stat_result, kind: int) -> bool:
    """Whether nobody else can have written it."""
    return (
        stat.S_IFMT(found.st_mode) == kind
        and found.st_uid == os.geteuid()
        and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _open(where: Path, *, make: bool) -> int | None:
    """The folder, if it is ours; made if there is none."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        above, _ = files.walk(str(where.parent / "any"))
    except OSError:
        return None
    try:
        if make:
            with contextlib.suppress(OSError):
                os.mkdir(where.name, 0o700, dir_fd=above)
        opened = os.open(where.name, flags, dir_fd=above)
    except OSError:
        return None
    finally:
        os.close(above)
    if _is_ours(os.fstat(opened), stat.S_IFDIR):
        return opened
    os.close(opened)
    return None


def read(where: Path, name: str) -> image.Image | None:
    """A kept program; None if there is none that can be trusted."""
    directory = _open(where, make=False)
    if directory is None:
        return None
    try:
        opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        with os.fdopen(opened, encoding="ascii") as file:
            if not _is_ours(os.fstat(file.fileno()), stat.S_IFREG):
                return None
            return image.loads(file.read())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    finally:
        os.close(directory)


def write(where: Path, name: str, made: image.Image) -> None:
    """Keep a program, whole or not at all, and forget the oldest ones. Failing is no error."""
    directory = _open(where, make=True)
    if directory is None:
        return
    try:
        _write(directory, name, made)
        _forget(directory)
    except OSError:
        pass
    finally:
        os.close(directory)


def _forget(directory: int) -> None:
    """Remove the oldest of what is kept there."""

    def age(name: str) -> int:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns

    ours = [name for name in os.listdir(directory) if _NAME.fullmatch(name)]
    for name in sorted(ours, key=age)[:-KEPT]:
        os.unlink(name, dir_fd=directory)


def _write(directory: int, name: str, made: image.Image) -> None:
    """A file without a name until it is whole: of one who is killed meanwhile nothing is left.

    Raises:
        OSError: it cannot be written; or the file system has no such files (O_TMPFILE).
    """
    flags = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
    with open(os.open(".", flags, 0o600, dir_fd=directory), "w", encoding="ascii") as file:
        file.write(made.dumps())
        file.flush()
        # A link replaces no file. Who looks for one between these two compiles once more.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        with contextlib.suppress(FileExistsError):  # another tracer's, as good as ours
            whole = f"/proc/self/fd/{file.fileno()}"
            os.link(whole, name, dst_dir_fd=directory, follow_symlinks=True)
