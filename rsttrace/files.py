"""Writing files where nobody else can say what is written to.

We may be root, and the folder another user's or everybody's: a symbolic link there would lead us to
any file of the system, and a file that was laid there before would get our data to its owner. So a
link is followed only where nobody else can have made it (as fs.protected_symlinks has it, and in
folders that are not sticky, too), and the folder is held open from the start.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import weakref
from collections.abc import Iterable, Iterator

Identity = tuple[int, int]
"""Device and inode."""

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_LINKS = 40
"""So many symbolic links in one path are followed (MAXSYMLINKS, include/linux/namei.h)."""


def others_may_write(found: os.stat_result) -> bool:
    """Whether somebody else than root and us may write there (a sticky folder: make something)."""
    mine = found.st_uid in (0, os.geteuid())
    group = found.st_mode & stat.S_IWGRP and found.st_gid not in (0, os.getegid())
    return not mine or bool(group) or bool(found.st_mode & stat.S_IWOTH)


class Place:
    """The place of a file that is written beside it and then renamed: there whole or not at all.

    Args:
        path: where; symbolic links are followed, but for those that others may have made.
        inputs: which files are read, and never removed.

    Raises:
        OSError: there is no such folder, or a link that others may have made is on the way.
    """

    def __init__(self, path: str, inputs: Iterable[Identity] = ()) -> None:
        self._inputs = frozenset(inputs)
        self._folder, self._name = walk(path)
        weakref.finalize(self, os.close, self._folder)
        self._unfinished: dict[str, int] = {}  # name -> a descriptor: who may write in the folder
        # may have put something else in the place of a name

    def stat(self) -> os.stat_result | None:
        """What is there; ``None``: nothing."""
        try:
            return os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def identity(self) -> Identity | None:
        """Which file is there; ``None``: none."""
        found = self.stat()
        return None if found is None else (found.st_dev, found.st_ino)

    def is_open_to_us(self) -> bool:
        """Whether a file may be made there."""
        return os.access(".", os.W_OK | os.X_OK, dir_fd=self._folder)

    def stream(self) -> int:
        """A descriptor to write to the pipe or device that is there.

        Raises:
            OSError: it cannot be opened; or another user laid it there, for us to write to.
        """
        found = self.stat()
        if found is not None and self._is_doubtful(found):
            raise PermissionError(errno.EPERM, "it is another user's, in a folder open to others")
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self._name, flags, dir_fd=self._folder)

    def temporary(self) -> tuple[int, str]:
        """A new file beside it, for its owner alone (mode 0600): its descriptor and its name."""
        found = self.stat()
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        name = f".{self._name[:200]}.{secrets.token_hex(6)}"
        descriptor = os.open(name, flags, 0o600, dir_fd=self._folder)
        self._unfinished[name] = os.dup(descriptor)
        return descriptor, name

    def replace(self, name: str, *, private: bool, alike: bool) -> None:
        """Put a finished temporary file in this place.

        Args:
            name: as `temporary` gave it.
            private: only we may read it, whoever's the file that was there is.
            alike: with the owner and mode of the file that was there, unless others laid it there.
        """
        with self._finished(name) as descriptor:
            before = self.stat() if alike else None
            if not private:
                mode = 0o666 & ~_umask()
                if before is not None and not self._is_doubtful(before):
                    mode = stat.S_IMODE(before.st_mode)
                    with contextlib.suppress(OSError):
                        os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, mode)
            self._rename(name, self._name)

    def discard(self, name: str) -> None:
        """Remove a temporary file."""
        with self._finished(name):
            os.unlink(name, dir_fd=self._folder)

    def put_aside(self, keep: int | None) -> None:
        """Rename the file to FILE.N, one more than there are; remove all of these but the newest.

        So many (``None``: all) are kept, and whatever is an input.
        """
        numbers = sorted(
            int(suffix)
            for name in self._names()
            if (suffix := name.removeprefix(f"{self._name}.")).isdecimal() and name != suffix
        )
        newest = numbers[-1] + 1 if numbers else 1
        self._rename(self._name, f"{self._name}.{newest}")
        if keep is None:
            return
        for number in [*numbers, newest][:-keep]:
            name = f"{self._name}.{number}"
            with contextlib.suppress(OSError):
                found = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
                if (found.st_dev, found.st_ino) not in self._inputs:
                    os.unlink(name, dir_fd=self._folder)

    def _is_doubtful(self, found: os.stat_result) -> bool:
        """Whether somebody else laid a file there who is not the folder's owner."""
        folder = os.fstat(self._folder)
        whose = {0, os.geteuid(), *([] if folder.st_mode & stat.S_IWOTH else [folder.st_uid])}
        return others_may_write(folder) and found.st_uid not in whose

    @contextlib.contextmanager
    def _finished(self, name: str) -> Iterator[int]:
        """The descriptor of a temporary file; it is none any more if what is inside succeeds."""
        descriptor = self._unfinished.get(name, -1)
        if descriptor < 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        yield descriptor
        os.close(self._unfinished.pop(name))

    def _names(self) -> list[str]:
        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            return os.listdir(readable)
        finally:
            os.close(readable)

    def _rename(self, name: str, to: str) -> None:
        os.rename(name, to, src_dir_fd=self._folder, dst_dir_fd=self._folder)


def own_folder(path: str) -> None:
    """Have a folder for what may hold secrets: made with mode 0700 if there is none.

    Raises:
        OSError: it cannot be made, or others may write to what is there.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    folder, name = walk(path)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)
        opened = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        if others_may_write(os.fstat(opened)):
            raise PermissionError(errno.EPERM, "others may write to it")
    finally:
        os.close(opened)


def new(path: str) -> int:
    """A descriptor of a new file for its owner alone (mode 0600); never of one that is there.

    Raises:
        OSError: it cannot be made, or there is something of that name.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    folder, name = walk(path)
    try:
        return os.open(name, flags, 0o600, dir_fd=folder)
    finally:
        os.close(folder)


def walk(path: str) -> tuple[int, str]:
    """The folder of a path, open (O_PATH), and the name in it, which is no symbolic link now.

    Raises:
        OSError: see `Place`.
    """
    waiting = path.split("/")[::-1]
    folder = os.open("/" if path.startswith("/") else ".", _FOLDER)
    links = 0
    try:
        while True:
            part = waiting.pop() if waiting else "."
            last = not any(name not in ("", ".") for name in waiting)
            if part in ("", ".") and not last:
                continue
            try:
                found = os.stat(part or ".", dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                if last and part:
                    return folder, part
                raise
            if stat.S_ISLNK(found.st_mode):
                links += 1
                _may_follow(folder, part, links)
                target = os.readlink(part, dir_fd=folder)
                waiting += target.split("/")[::-1]
                step = "/" if target.startswith("/") else "."
            elif last:
                return folder, part or "."
            else:
                step = part
            after = os.open(step, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = after
    except BaseException:
        os.close(folder)
        raise


def _may_follow(folder: int, name: str, links: int) -> None:
    if links > _LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if others_may_write(os.fstat(folder)):
        raise OSError(
            errno.ELOOP,
            f"{name!a} is a symbolic link in a folder that others may write to "
            "(name what it leads to)",
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
