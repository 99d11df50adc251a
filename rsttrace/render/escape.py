"""Makes text fit for a terminal: what comes from outside is harmless, and what it can draw."""

from __future__ import annotations

import locale
import unicodedata
from typing import TextIO

_ELLIPSIS = "..."

# Letters and symbols that are drawn as nothing at all: Hangul fillers and the Braille blank.
_INVISIBLE = frozenset("\u115f\u1160\u3164\uffa0\u2800")

# Control, format (zero-width and bidi marks among them), surrogate, private, unassigned; line and
# paragraph separators; spaces that are not the space; marks that draw over the character before.
_HIDDEN_CATEGORIES = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs", "Mn", "Me"])

# Letters and digits that make a terminal draw the rest of the line from right to left.
_REORDERING = frozenset(["R", "AL", "AN"])


def safe(text: str, limit: int = 64) -> str:
    r"""The text with everything that could deceive a terminal or its reader spelled out.

    Control characters, format and bidirectional marks, right-to-left letters, combining marks,
    spaces other than U+0020 and lone surrogates become ``\xNN`` or ``\u{NNNN}``, and a backslash
    becomes ``\\``, so that nothing can pass for an escape. A byte that was no UTF-8 (Python's
    ``surrogateescape``) is shown as that byte. The result is one line of at most `limit`
    characters; ``...`` at its end says that it was cut, which never splits an escape.
    """
    pieces = [_spell(char) for char in text[: limit + 1]]
    if sum(map(len, pieces)) <= limit:
        return "".join(pieces)
    room = limit - len(_ELLIPSIS)
    kept = []
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            break
        kept.append(piece)
    return ("".join(kept) + _ELLIPSIS)[:limit]


def ascii_only(stream: TextIO) -> bool:
    """Whether the locale, or the stream's encoding, asks for plain ASCII.

    Python takes UTF-8 in the C locale (PEP 540), so its own word is not enough.
    """
    codeset = locale.nl_langinfo(locale.CODESET).lower().replace("-", "")
    encoding = (stream.encoding or "ascii").lower().replace("-", "")
    return "utf8" not in codeset or "utf8" not in encoding


def _spell(char: str) -> str:
    if " " <= char <= "~":
        return "\\\\" if char == "\\" else char
    if (
        unicodedata.category(char) not in _HIDDEN_CATEGORIES
        and unicodedata.bidirectional(char) not in _REORDERING
        and char not in _INVISIBLE
    ):
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: the undecodable byte is code - 0xDC00
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{{{code:04x}}}"
