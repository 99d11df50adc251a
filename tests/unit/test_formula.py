from __future__ import annotations

import warnings

import pytest

from rsttrace.judge.formula import MAX_LENGTH, FormulaError, parse

NAMES = frozenset(["ip_id", "window", "seq", "seq1"])
VALUES = {"ip_id": 47371, "window": 1503, "seq": 5, "seq1": 0xFFFFFFFE}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ip_id == 47371", True),
        ("ip_id == 47370", False),
        ("ip_id != window", True),
        ("(seq - seq1) % 0x1_0000_0000 == 7", True),
        ("window // 2 == 751 and window % 2 == 1", True),
        ("window < 1000 or window > 1500", True),
        ("1000 < window <= 1503", True),
        ("1503 < window <= 2000", False),
        ("not window == 1503", False),
        ("not (window == 1503 and seq == 6)", True),
        ("(ip_id & 0xff) << 8 | ip_id >> 8 == 0x0bb9", True),
        ("ip_id ^ ip_id == 0", True),
        ("-seq + 5 == 0", True),
        ("+seq == 5", True),
        ("~seq == -6", True),
        ("~(seq == 5) == -2", True),
        ("  seq == 5  ", True),
    ],
)
def test_values(text: str, expected: bool) -> None:
    assert parse(text, NAMES).holds(VALUES) is expected


@pytest.mark.parametrize(
    "text",
    [
        "ip_id == ip_id",  # with ip_id unknown
        "window % (seq - 5) == 0",
        "window // (seq - 5) == 0",
        "window << (seq * 100) > 0",
        "window >> -seq == 0",
    ],
)
def test_what_cannot_be_told_does_not_hold(text: str) -> None:
    values = {**VALUES, "ip_id": None}
    assert parse(text, NAMES).holds(values) is False
    assert parse(f"not ({text})", NAMES).holds(values) is False


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no expression"),
        ("seq ==", "no expression"),
        ("seq = 5", "no expression"),
        ("seq == 5; seq == 6", "no expression"),
        ("seq == 0\0", "no expression"),
        ("(" * 400 + "seq" + ")" * 90 + " == 5", "no expression"),
        ("(" * 240 + "seq == 5" + ")" * 240, "no expression"),
        ("-" * 200 + "seq == 5", "nested deeper"),
        ("seq", "no condition"),
        ("seq + 5", "no condition"),
        ("-(seq == 5)", "no condition"),
        ("1 == 1", "no field"),
        ("sequence == 5", "'sequence' is not known here; known are: ip_id, seq, seq1, window"),
        ("__import__ == 5", "'__import__' is not known"),
        ("__import__('os') == 5", "only integers"),
        ("seq.real == 5", "only integers"),
        ("seq[0] == 5", "only integers"),
        ("[seq for seq in (1,)] == 5", "only integers"),
        ("(lambda: 5)() == seq", "only integers"),
        ("(seq := 5) == 5", "only integers"),
        ("seq if 1 else 2 == 5", "only integers"),
        ("seq in (1, 2)", "only integers"),
        ("seq is 5", "only integers"),
        ("f'{seq}' == 5", "only integers"),
        ("seq ** 9 ** 9 == 5", "only integers"),
        ("seq / 2 == 5", "only integers"),
        ("seq @ 2 == 5", "only integers"),
        ("seq == 5.0", "5.0 is not an integer"),
        ("seq == 5j", "5j is not an integer"),
        ("seq == 'R'", "'R' is not an integer"),
        ("seq == True", "True is not an integer"),
        ("seq == None", "None is not an integer"),
        ("seq == ...", "Ellipsis is not an integer"),
        ("seq == " + "9" * MAX_LENGTH, "longer than"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FormulaError) as raised:
            parse(text, NAMES)
    assert problem in str(raised.value)


def test_no_formula_makes_a_huge_number() -> None:
    """64 bits for each level of nesting: some thousand bits at most."""
    assert parse("seq" + "<<64" * 49 + ">0", NAMES).holds({"seq": 1})
    with pytest.raises(FormulaError, match="nested deeper"):
        parse("seq" + "<<64" * 60 + ">0", NAMES)


def test_a_formula_is_its_text() -> None:
    first, again = parse("seq == 5", NAMES), parse(" seq == 5", NAMES)
    assert first == again
    assert first.names == {"seq"}
    assert (first.equations, parse("seq < 5", NAMES).equations) == (1, 0)
