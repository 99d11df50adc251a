"""A file that is there whole or not at all: written beside its place, then renamed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from rsttrace.commands.recording import input_at
from rsttrace.errors import RsttraceError, UsageError
from rsttrace.privileges.outfile import out_file


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
        self._path = path
        name = input_at(Path(path), inputs)
        if name is not None:
            raise UsageError(
                f"--report would overwrite {name!a}: it is read",
                hint="name another file with --report",
            )
        try:
            self._place = out_file(path)
            descriptor, name = self._place.temporary()
            os.close(descriptor)
            self._place.discard(name)
        except OSError as error:
            raise self._failed(error) from None

    def write(self, text: str, *, private: bool = False) -> None:
        """Write it. `private`: only its owner may read it.

        Raises:
            RsttraceError: it cannot be written; what was there before is there still.
        """
        name = None
        try:
            descriptor, name = self._place.temporary()
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            self._place.replace(name, private=private, alike=False)
        except OSError as error:
            if name is not None:
                with contextlib.suppress(OSError):
                    self._place.discard(name)
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> RsttraceError:
        why = error.strerror or str(error)
        return RsttraceError(
            f"cannot write the report {self._path!r}: {why}",
            hint="name a file you may write with --report",
        )
