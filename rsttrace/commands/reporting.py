"""``--report``: keeps what a run shows, and writes the page when the run ends."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import rsttrace
from rsttrace.commands.recording import input_at
from rsttrace.errors import RsttraceError, UsageError
from rsttrace.model import Entry
from rsttrace.render.report import Report, about_lines
from rsttrace.render.times import iso_time


class Reporting:
    """The page of one run.

    Args:
        path: where it goes.
        title: what the run looks at.
        utc: whether times are in UTC.
        now_ns: the time (CLOCK_REALTIME) at which the run began, in nanoseconds.
        inputs: files that are read: never written.

    Raises:
        UsageError: it is one of the inputs.
        RsttraceError: the folder cannot be written to. That is found out at the start, and not
            after an hour of tracing.
    """

    def __init__(
        self, path: str, title: str, *, utc: bool, now_ns: int, inputs: Sequence[str] = ()
    ) -> None:
        self.report = Report(title, utc=utc)
        self._path = Path(os.path.realpath(path))  # a rename would replace a symbolic link
        name = input_at(self._path, inputs)
        if name is not None:
            raise UsageError(
                f"--report would overwrite {name!a}: it is read",
                hint="name another file with --report",
            )
        self._began_ns = now_ns
        descriptor, name = self._open()
        os.close(descriptor)
        os.unlink(name)

    def _open(self) -> tuple[int, str]:
        """A new file beside it: descriptor and path."""
        try:
            if self._path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            return tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> RsttraceError:
        why = error.strerror or str(error)
        return RsttraceError(
            f"cannot write the report {str(self._path)!r}: {why}",
            hint="name a file you may write with --report",
        )

    def add(self, entry: Entry) -> None:
        """Take in an entry."""
        self.report.add(entry)

    def write(
        self, counts: dict[str, int], now_ns: int, say: Callable[[str], None] = print
    ) -> bool:
        """Write the page, whole or not at all; false where it cannot be written, which is said.

        `counts` says what was not shown, by reason. Only its owner may read the page where it holds
        data of connections (``--payload``).
        """
        utc = self.report.utc
        about = about_lines(
            [
                ("made by", f"rsttrace {rsttrace.__version__}"),
                ("command", shlex.join(["rsttrace", *sys.argv[1:]])),
                ("host", platform.node()),
                ("kernel", f"{platform.release()} {platform.machine()}"),
                ("began", iso_time(self._began_ns, utc=utc)),
                ("ended", iso_time(now_ns, utc=utc)),
            ]
        )
        page = self.report.html(about, counts)
        name = None
        try:
            descriptor, name = self._open()
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(page)
            if not self.report.secret:
                os.chmod(name, 0o666 & ~_umask())
            os.replace(name, self._path)
        except (OSError, RsttraceError) as error:
            if name is not None:
                with contextlib.suppress(OSError):
                    os.unlink(name)
            failed = self._failed(error) if isinstance(error, OSError) else error
            say(f"warning: {failed}")
            return False
        return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
