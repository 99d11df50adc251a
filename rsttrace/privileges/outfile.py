"""A file that is written beside its place and then renamed, whoever may do that.

Who writes it may have given away the right to make files in its folder: then the helper makes them,
and hands over the descriptor (`rsttrace.privileges.helper`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

Identity = tuple[int, int]
"""Device and inode."""


class OutFile(Protocol):
    """The place of a file. Methods raise OSError as the system calls would."""

    def identity(self) -> Identity | None:
        """Which file is there; ``None``: none."""

    def temporary(self) -> tuple[int, str]:
        """A new file beside it, for its owner alone: its descriptor and its name."""

    def replace(self, name: str, *, private: bool, alike: bool) -> None:
        """Put a finished temporary file in this place.

        Args:
            name: as `temporary` gave it.
            private: only its owner may read it.
            alike: with the owner and mode of the file that was there.
        """

    def discard(self, name: str) -> None:
        """Remove a temporary file."""

    def put_aside(self, keep: int | None) -> None:
        """Rename the file to FILE.N, one more than there are; remove all of these but the newest.

        So many (``None``: all) are kept, and whatever is an input.
        """


class OwnFile:
    """An `OutFile` by this process's own rights.

    Args:
        path: a whole path without symbolic links: a rename would replace one.
        inputs: which files are read, and never removed.
    """

    def __init__(self, path: str, inputs: Iterable[Identity] = ()) -> None:
        self._path = Path(path)
        self._inputs = frozenset(inputs)
        self._unfinished: dict[str, int] = {}  # name -> a descriptor: who may write in the folder
        # may have put something else in the place of a name

    def identity(self) -> Identity | None:
        """As `OutFile.identity`."""
        try:
            return _identity(os.stat(self._path))
        except FileNotFoundError:
            return None

    def temporary(self) -> tuple[int, str]:
        """As `OutFile.temporary`."""
        if self._path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        prefix = f".{self._path.name[:200]}."
        descriptor, name = tempfile.mkstemp(prefix=prefix, dir=self._path.parent)
        self._unfinished[name] = os.dup(descriptor)
        return descriptor, name

    def replace(self, name: str, *, private: bool, alike: bool) -> None:
        """As `OutFile.replace`."""
        with self._finished(name) as descriptor:
            mode = 0o666 & ~_umask()
            before = None
            if alike:
                with contextlib.suppress(OSError):
                    before = os.stat(self._path)
            if before is not None:
                mode = stat.S_IMODE(before.st_mode)
                with contextlib.suppress(OSError):
                    os.fchown(descriptor, before.st_uid, before.st_gid)
            if not private:
                os.fchmod(descriptor, mode)
            os.rename(name, self._path)

    def discard(self, name: str) -> None:
        """As `OutFile.discard`."""
        with self._finished(name):
            os.unlink(name)

    @contextlib.contextmanager
    def _finished(self, name: str) -> Iterator[int]:
        """The descriptor of a temporary file; it is none any more if what is inside succeeds."""
        descriptor = self._unfinished.get(name, -1)
        if descriptor < 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        yield descriptor
        os.close(self._unfinished.pop(name))

    def put_aside(self, keep: int | None) -> None:
        """As `OutFile.put_aside`."""
        numbers = sorted(
            int(suffix)
            for path in self._path.parent.iterdir()
            if (suffix := path.name.removeprefix(f"{self._path.name}.")).isdecimal()
            and path.name != suffix
        )
        newest = numbers[-1] + 1 if numbers else 1
        os.rename(self._path, self._numbered(newest))
        if keep is None:
            return
        for number in [*numbers, newest][:-keep]:
            path = self._numbered(number)
            with contextlib.suppress(OSError):
                if _identity(path.stat()) not in self._inputs:
                    path.unlink()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class Maker(Protocol):
    """Makes files for a process that is about to give its rights away."""

    def out_file(self, path: str, inputs: Iterable[Identity]) -> OutFile:
        """The place at a path; see `OwnFile`."""


class _Process:
    """Of this process as a whole: rights are."""

    maker: Maker | None = None


def rely_on(maker: Maker | None) -> None:
    """From now on these make the files; ``None``: this process does."""
    _Process.maker = maker


def out_file(path: str, inputs: Iterable[Identity] = ()) -> OutFile:
    """The place at a path; see `OwnFile`."""
    maker = _Process.maker
    return OwnFile(path, inputs) if maker is None else maker.out_file(path, inputs)


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
