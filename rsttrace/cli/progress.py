"""The bar on a terminal while a long file is read."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

import click

from rsttrace.render.escape import safe

LONG_FILE = 16 << 20
"""Files from this size on, in bytes, take long enough to show progress."""


class Progress:
    """A click progress bar that makes room for entries on the same terminal."""

    def __init__(self, update: Callable[[int], None]) -> None:
        self._update = update

    def __call__(self, count: int) -> None:
        """So many more bytes were read."""
        self._update(count)

    def clear(self) -> None:
        """Erase the bar's line; it comes back with the next update."""
        if sys.stdout.isatty():
            click.echo("\r\x1b[K", nl=False, err=True)


@contextlib.contextmanager
def progress_bar(size: int, name: str) -> Iterator[Progress | None]:
    """A bar on stderr for a long file, if that is a terminal."""
    if size < LONG_FILE or not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=size, label=safe(os.path.basename(name)), file=sys.stderr) as bar:
        yield Progress(bar.update)
