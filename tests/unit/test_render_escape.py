from __future__ import annotations

import sys
import unicodedata

import pytest

from rsttrace.render.escape import safe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mysqld", "mysqld"),
        ("kworker/0:1-events [x] ~", "kworker/0:1-events [x] ~"),
        ("Ruijie Networks Co., Ltd.", "Ruijie Networks Co., Ltd."),
        ("café 重置 Ünïx", "café 重置 Ünïx"),
        ("", ""),
        ("a\nb\r\tc\0", "a\\x0ab\\x0d\\x09c\\x00"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("del\x7f c1 \x9b31m", "del\\x7f c1 \\x9b31m"),
        ("\\x1b", "\\\\x1b"),
        ("a\u202egnp.exe", "a\\u{202e}gnp.exe"),  # right-to-left override
        ("a\u2066b\u2069", "a\\u{2066}b\\u{2069}"),  # isolates
        ("zero\u200bwidth\u200d\ufeff", "zero\\u{200b}width\\u{200d}\\u{feff}"),
        ("soft\u00adhyphen", "soft\\xadhyphen"),
        ("line\u2028par\u2029", "line\\u{2028}par\\u{2029}"),
        ("nbsp\u00a0ideographic\u3000", "nbsp\\xa0ideographic\\u{3000}"),
        ("אב", "\\u{05d0}\\u{05d1}"),
        ("١", "\\u{0661}"),  # an Arabic digit
        ("e\u0301", "e\\u{0301}"),
        ("v\ufe0f", "v\\u{fe0f}"),
        ("tag\U000e0041", "tag\\u{e0041}"),
        ("hangul\u3164", "hangul\\u{3164}"),
        ("private\ue000", "private\\u{e000}"),
        ("unassigned\u0378", "unassigned\\u{0378}"),
        ("surrogate\ud83d", "surrogate\\u{d83d}"),
        (b"byte \xff\x9b".decode("utf-8", "surrogateescape"), "byte \\xff\\x9b"),
    ],
)
def test_spells_out_what_deceives(text: str, expected: str) -> None:
    assert safe(text, 100) == expected


def test_every_character_there_is_comes_out_harmless() -> None:
    for code in range(sys.maxunicode + 1):
        made = safe(chr(code))
        made.encode("utf-8")
        for char in made:
            assert char == " " or unicodedata.category(char)[0] not in "CZ", hex(code)
            assert unicodedata.bidirectional(char) not in {"R", "AL", "AN", "RLO", "LRO"}, hex(code)


def test_escapes_cannot_be_imitated() -> None:
    texts = ["\x1b", "\\x1b", "\\\x1b", "\\\\x1b", "\u200b", "\\u{200b}"]
    assert len({safe(text) for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("x" * 64, 64, "x" * 64),
        ("x" * 65, 64, "x" * 61 + "..."),
        ("\n" * 16, 64, "\\x0a" * 16),
        ("\n" * 17, 64, "\\x0a" * 15 + "..."),
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abc..."),
        ("abcdefg", 2, ".."),
    ],
)
def test_is_cut_between_escapes(text: str, limit: int, expected: str) -> None:
    assert safe(text, limit) == expected


def test_limits_to_64_unless_told() -> None:
    assert len(safe("x" * 1_000_000)) == 64
