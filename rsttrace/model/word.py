"""What our enumerations are made with: each of their members is a word of the output."""

from __future__ import annotations

import enum


class Word(enum.Enum):
    """An enumeration whose values are words, as the JSON has them.

    `word` is the value: the property that `enum` has for it costs ten times as much, and every
    entry has a dozen of them. For the same reason a member's hash is that of the object.
    """

    word: str

    def __init__(self, word: str) -> None:
        self.word = word

    __hash__ = object.__hash__
