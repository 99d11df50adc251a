"""A file that is there whole or not at all: written beside its place, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rsttrace.commands.recording import input_at
from rsttrace.errors import RsttraceError, UsageError


class WholeFile:
    """A place where a page will be written.

    Args:
        path: where it goes.
        inputs: files that are read: never written.

    Raises:
        UsageError: it is one of the inputs.
        RsttraceError: the folder cannot be written to. That is found out at the start, and not
            after an hour of tracing.
    """

    def __init__(self, path: str, inputs: Sequence[str] = ()) -> None:
        self._path = Path(os.path.realpath(path))  # a rename would replace a symbolic link
        name = input_at(self._path, inputs)
        if name is not None:
            raise UsageError(
                f"--report would overwrite {name!a}: it is read",
                hint="name another file with --report",
            )
        try:
            descriptor, name = self._open()
        except OSError as error:
            raise self._failed(error) from None
        os.close(descriptor)
        os.unlink(name)

    def write(self, text: str, *, private: bool = False) -> None:
        """Write it. `private`: only its owner may read it.

        Raises:
            RsttraceError: it cannot be written; what was there before is there still.
        """
        name = None
        try:
            descriptor, name = self._open()
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            if not private:
                os.chmod(name, 0o666 & ~_umask())
            os.replace(name, self._path)
        except OSError as error:
            if name is not None:
                with contextlib.suppress(OSError):
                    os.unlink(name)
            raise self._failed(error) from None

    def _open(self) -> tuple[int, str]:
        """A new file beside it: descriptor and path."""
        if self._path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        return tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")

    def _failed(self, error: OSError) -> RsttraceError:
        why = error.strerror or str(error)
        return RsttraceError(
            f"cannot write the report {str(self._path)!r}: {why}",
            hint="name a file you may write with --report",
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
