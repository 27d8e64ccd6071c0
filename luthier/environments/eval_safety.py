"""Filter answers that a scorer of reasoning-gym would evaluate as Python.

Four of its scorers call `eval` on the model's text, and five call sympy's `parse_expr`, which evaluates it too. A
model under RL must not be able to run code, or to write a number that takes forever to compute.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Final

LONGEST: Final = 10_000
_PLAIN: Final = re.compile(r"[\w\s-]*")
_FUNCTIONS: Final = frozenset(
    {"sqrt", "exp", "log", "ln", "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "sinh", "cosh"}
)
_CONSTANTS: Final = frozenset({"pi", "E"})
_LARGEST_EXPONENT: Final = 64


def harmless(task: str, answer: str) -> bool:
    """Return whether the task's scorer may evaluate the answer."""
    return len(answer) <= LONGEST and _CHECKS.get(task, _unrun)(answer)


def _unrun(answer: str) -> bool:
    return True


def _plain(answer: str) -> bool:
    """Allow words and numbers only. A list in Python's notation would be evaluated, and never gets the full score."""
    return _PLAIN.fullmatch(answer) is not None


def _arithmetic(answer: str) -> bool:
    tree = _parsed(answer)
    return tree is not None and _within(tree, names=False, powers=0)


def _algebra(answer: str) -> bool:
    tree = _parsed(answer)
    return tree is not None and _within(tree, names=True, powers=2)


def _parsed(answer: str) -> ast.expr | None:
    try:
        return ast.parse(answer.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _within(node: ast.expr, *, names: bool, powers: int) -> bool:
    """Allow numbers, the four operations, `powers` nested powers and, with `names`, single letters and functions."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return abs(value) < 10**30
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _within(operand, names=names, powers=powers)
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), left=left, right=right):
            return _within(left, names=names, powers=powers) and _within(right, names=names, powers=powers)
        case ast.BinOp(op=ast.Pow(), left=left, right=right):
            return powers > 0 and _within(left, names=names, powers=powers - 1) and _exponent(right)
        case ast.Name(id=name):
            return names and (len(name) == 1 or name in _CONSTANTS)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            return names and name in _FUNCTIONS and _within(argument, names=names, powers=powers)
        case _:
            return False


def _exponent(node: ast.expr) -> bool:
    """Allow a small number, or a fraction of two."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return abs(value) <= _LARGEST_EXPONENT
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _exponent(operand)
        case ast.BinOp(op=ast.Div(), left=left, right=right):
            return _exponent(left) and _exponent(right)
        case _:
            return False


_CHECKS: Final[Mapping[str, Callable[[str], bool]]] = {
    "binary_matrix": _plain,
    "n_queens": _plain,
    "spiral_matrix": _plain,
    "string_insertion": _plain,
    "countdown": _arithmetic,
    "puzzle24": _arithmetic,
    "intermediate_integration": _algebra,
    "polynomial_multiplication": _algebra,
    "simple_integration": _algebra,
}
