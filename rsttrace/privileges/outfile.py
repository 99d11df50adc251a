"""A file that is written beside its place and then renamed, whoever may do that.

Who writes it may have given away the right to make files in its folder: then the helper makes them,
and hands over the descriptor (`rsttrace.privileges.helper`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Protocol

from rsttrace.files import Identity, Place

NEVER = -1
"""Files are not put aside."""


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


class Maker(Protocol):
    """Makes files for a process that is about to give its rights away."""

    def out_file(self, path: str, inputs: Iterable[Identity], aside: int | None = NEVER) -> OutFile:
        """The place at a path; see `rsttrace.files.Place`."""


class _Process:
    """Of this process as a whole: rights are."""

    maker: Maker | None = None


def rely_on(maker: Maker | None) -> None:
    """From now on these make the files; ``None``: this process does."""
    _Process.maker = maker


def out_file(path: str, inputs: Iterable[Identity] = (), aside: int | None = NEVER) -> OutFile:
    """The place at a path; see `rsttrace.files.Place`, which it is where nobody else makes files.

    `aside`: what `OutFile.put_aside` will be called with, if it is.

    Raises:
        OSError: as `rsttrace.files.Place`.
    """
    maker = _Process.maker
    if maker is None:
        return Place(path, inputs)
    return maker.out_file(os.path.abspath(path), inputs, aside)
