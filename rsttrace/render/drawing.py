"""Draws a path from top to bottom: what the pictures of locate, compare and --explain share."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 80
"""Columns of a terminal; no line of a picture is longer."""

_START = {False: "\u25cb", True: "o"}
_LINE = {False: "\u2502", True: "|"}
_MARK = {False: "\u25b6", True: ">"}
_GAP = {False: "\u2506", True: ":"}


class Drawing:
    """A path under construction. `plain`: ASCII only.

    The line of the path is in `column`, behind the numbers of the hops, and what stands beside it
    begins three columns later. Texts are wrapped; they must have been made `safe`.
    """

    def __init__(self, *, plain: bool = False, column: int = 4, width: int = WIDTH) -> None:
        self._plain = plain
        self._column = column
        self._width = width
        self._lines: list[str] = []

    def stop(
        self,
        text: str,
        notes: Sequence[str] = (),
        *,
        number: str | None = None,
        marked: bool = False,
        last: bool = False,
        inset: int = 2,
    ) -> None:
        """One place on the path, and `notes` below it, `inset` columns beside the line.

        `number` is what stands on the line, a circle by default; a place that is `marked` has a
        triangle, before its number. `last`: the line does not go on below.
        """
        mark = _MARK[self._plain] if marked else " "
        if number is None:
            label, mark = (mark if marked else _START[self._plain]), " "
        else:
            label = number
        first = f"{mark}{label:>{self._column}}  "
        self._add(text, first, " " * len(first))
        line = " " if last else _LINE[self._plain]
        start = " " * self._column + line + " " * inset
        for note in notes:
            self._add(note, start, start + "  ")

    def stretch(self, hops: int | None) -> None:
        """So many hops without anything to be said of them; ``None``: nobody knows how many."""
        if hops is None:
            self._lines.append(" " * self._column + f"{_GAP[self._plain]}  some way")
        else:
            count = f"  {hops} hop{'s' if hops > 1 else ''}" if hops > 0 else ""
            self._lines.append(" " * self._column + _LINE[self._plain] + count)

    def blank(self) -> None:
        """An empty line: what follows is not connected with what stands above."""
        self._lines.append("")

    def lines(self) -> list[str]:
        """The picture."""
        return [line.rstrip() for line in self._lines]

    def _add(self, text: str, first: str, more: str) -> None:
        self._lines += textwrap.wrap(
            _ascii(text) if self._plain else text,
            self._width,
            initial_indent=first,
            subsequent_indent=more,
            break_on_hyphens=False,
        )


def wrapped(text: str, width: int = WIDTH, first: str = "", more: str = "  ") -> list[str]:
    """A sentence as lines; `first` begins each of them, and `more` is added from the second on."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=first + more,
        break_on_hyphens=False,
    )


def plain_lines(lines: Sequence[str], plain: bool) -> list[str]:
    """The lines without trailing blanks, and if `plain` in ASCII, the rest spelled out."""
    return [(_ascii(line) if plain else line).rstrip() for line in lines]


def _ascii(line: str) -> str:
    return line.encode("ascii", "backslashreplace").decode("ascii")
