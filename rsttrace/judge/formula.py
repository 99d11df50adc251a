"""Formulas of fingerprints: conditions over named integers, as data.

A formula is an expression in Python's notation of which only integers, names, arithmetic,
comparisons and ``and``/``or``/``not`` are accepted. It is parsed by `ast` and walked here; nothing
of it is ever executed as Python.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Union

MAX_LENGTH = 500
"""Characters of a formula. Bounds the size of every number that it can make."""

MAX_SHIFT = 64
"""Bits that ``<<`` may shift by: longer ones would only make huge numbers."""

MAX_DEPTH = 50
"""How deep a formula may be nested; far below what the interpreter's stack bears."""

_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}
_UNARY: dict[type[ast.unaryop], Callable[[int], int]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: lambda value: ~int(value),
    ast.Not: operator.not_,
}
_COMPARE: dict[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}

Value = Union[int, bool]


class FormulaError(ValueError):
    """A formula that cannot be used; ``str(error)`` says why."""


class _Unknown(Exception):
    """A name without a value, or a division by zero: the formula says nothing."""


@dataclass(frozen=True)
class Formula:
    """A parsed formula. `names` are those that it uses, `equations` how many ``==`` it has."""

    text: str
    names: frozenset[str]
    equations: int
    tree: ast.expr = field(compare=False, repr=False)  # the same text makes the same tree

    def holds(self, values: Mapping[str, int | None]) -> bool:
        """Whether it is true of these values.

        False also where it cannot be told: a name that it needs has no value, a divisor is 0, a
        shift is negative or too long.
        """
        try:
            return bool(_value(self.tree, values))
        except _Unknown:
            return False


def parse(text: str, names: frozenset[str]) -> Formula:
    """A formula over `names`.

    Raises:
        FormulaError: it is too long, no expression, names something unknown, uses anything but
            integers, names and the operators above, or is no condition.
    """
    if len(text) > MAX_LENGTH:
        raise FormulaError(f"it is longer than {MAX_LENGTH} characters")
    try:
        with warnings.catch_warnings():  # of odd spellings, such as "1if"
            warnings.simplefilter("ignore")
            tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise FormulaError(f"it is no expression ({error.msg})") from None
    except (ValueError, RecursionError, MemoryError):  # NUL bytes, thousands of parentheses
        raise FormulaError("it is no expression") from None
    used: set[str] = set()
    _check(tree, names, used, 0)
    if not isinstance(tree, (ast.Compare, ast.BoolOp)) and not (
        isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not)
    ):
        raise FormulaError("it is no condition: it needs a comparison, such as ==")
    if not used:
        raise FormulaError("it uses no field of the packet")
    equations = sum(isinstance(node, ast.Eq) for node in ast.walk(tree))
    return Formula(text.strip(), frozenset(used), equations, tree)


def _check(node: ast.expr, names: frozenset[str], used: set[str], depth: int) -> None:
    """Accept only what `_value` can compute."""
    if depth > MAX_DEPTH:
        raise FormulaError(f"it is nested deeper than {MAX_DEPTH} levels")
    parts: list[ast.expr]
    if isinstance(node, ast.Constant):
        if type(node.value) is not int:
            raise FormulaError(f"{node.value!r:.40} is not an integer")
        return
    if isinstance(node, ast.Name):
        if node.id not in names:
            known = ", ".join(sorted(names))
            raise FormulaError(f"{node.id!r:.40} is not known here; known are: {known}")
        used.add(node.id)
        return
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        parts = [node.left, node.right]
    elif isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        parts = [node.operand]
    elif isinstance(node, ast.BoolOp):
        parts = node.values
    elif isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
        parts = [node.left, *node.comparators]
    else:
        raise FormulaError(
            "only integers, names, + - * // % & | ^ << >> ~, comparisons, and, or, not and "
            "parentheses are allowed"
        )
    for part in parts:
        _check(part, names, used, depth + 1)


def _value(node: ast.expr, values: Mapping[str, int | None]) -> Value:
    """The value of a checked expression; raises `_Unknown`."""
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, int)
        return node.value
    if isinstance(node, ast.Name):
        value = values.get(node.id)
        if value is None:
            raise _Unknown
        return value
    if isinstance(node, ast.UnaryOp):
        return _UNARY[type(node.op)](_value(node.operand, values))
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, values), _value(node.right, values)
        if isinstance(node.op, (ast.FloorDiv, ast.Mod)) and right == 0:
            raise _Unknown
        if isinstance(node.op, (ast.LShift, ast.RShift)) and not 0 <= right <= MAX_SHIFT:
            raise _Unknown
        return _BINARY[type(node.op)](left, right)
    if isinstance(node, ast.BoolOp):
        if isinstance(node.op, ast.And):
            return all(_value(part, values) for part in node.values)
        return any(_value(part, values) for part in node.values)
    assert isinstance(node, ast.Compare)
    left = _value(node.left, values)
    for op, part in zip(node.ops, node.comparators):
        right = _value(part, values)
        if not _COMPARE[type(op)](left, right):
            return False
        left = right
    return True
