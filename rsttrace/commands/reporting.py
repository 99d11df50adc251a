"""``--report``: keeps what a run shows, and writes the page when the run ends."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Callable, Sequence

import rsttrace
from rsttrace.commands.wholefile import WholeFile
from rsttrace.errors import RsttraceError
from rsttrace.model import Entry
from rsttrace.render.report import Report, about_lines, prepare
from rsttrace.render.times import iso_time


class Reporting:
    """The page of one run.

    Args:
        path: where it goes.
        title: what the run looks at.
        utc: whether times are in UTC.
        now_ns: the time (CLOCK_REALTIME) at which the run began, in nanoseconds.
        inputs: files that are read: never written.

    Raises: see `WholeFile`.
    """

    def __init__(
        self, path: str, title: str, *, utc: bool, now_ns: int, inputs: Sequence[str] = ()
    ) -> None:
        self.report = Report(title, utc=utc)
        self._file = WholeFile(path, inputs)
        self._began_ns = now_ns
        prepare()

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
        try:
            self._file.write(self.report.html(about, counts), private=self.report.secret)
        except RsttraceError as error:
            say(f"warning: {error}")
            return False
        return True
