"""The formula of a `multi` grader. It is parsed with Python's `ast` and never evaluated as Python."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from itertools import product
from typing import Any, Final

from luthier.errors import GraderFault

Values = Mapping[str, float]
Run = Callable[[Values], float]


def _power(base: float, exponent: float) -> float:
    raised: Any = base**exponent
    if isinstance(raised, complex):
        raise ValueError("root of a negative number")
    return float(raised)


_OPERATORS: Final[Mapping[type[ast.operator], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: _power,
}
_OF_ONE: Final[Mapping[str, Callable[[float], float]]] = {
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
_OF_MANY: Final[Mapping[str, Callable[[list[float]], float]]] = {"min": min, "max": max}
FUNCTIONS: Final = (*_OF_MANY, *_OF_ONE)


class Formula:
    """A parsed formula: numbers, names, `+ - * / **` (also written `^`), unary minus and FUNCTIONS."""

    def __init__(self, text: str, names: Collection[str]) -> None:
        """Parse the text. Raises GraderFault, with the text and what was expected, if it is not a formula."""
        self.text = text
        self.names = tuple(names)
        try:
            # In Python `^` binds looser than `+`; as a power it must bind tighter.
            tree = ast.parse(text.strip().replace("^", "**"), mode="eval")
            self._run = _build(tree.body, self.names)
        except SyntaxError as error:
            raise _unreadable(text, error.msg) from error
        except OverflowError as error:
            raise _unreadable(text, "a number in it is too large") from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise _unreadable(text, "it cannot be parsed") from error

    def value(self, values: Values) -> float:
        """Return the formula's finite value. Raises GraderFault if it has none."""
        try:
            found = float(self._run(values))
        except ZeroDivisionError:
            found, why = math.nan, "it divides by zero"
        except OverflowError:
            found, why = math.nan, "the result is too large"
        except ValueError:
            found, why = math.nan, "it takes a root or a logarithm of a negative number or of zero"
        else:
            why = "the result is too large"
        if not math.isfinite(found):
            given = ", ".join(f"{name} = {values[name]:g}" for name in self.names)
            raise GraderFault(
                f"calculate_output {self.text!r} has no value for {given}: {why}", param="calculate_output"
            )
        return found

    def check(self) -> None:
        """Raise GraderFault if the formula has no value for some combination of the grades 0 and 1."""
        for corner in product((0.0, 1.0), repeat=len(self.names)):
            self.value(dict(zip(self.names, corner, strict=True)))


def _build(node: ast.expr, names: Collection[str]) -> Run:
    """Return the function that computes a node. Raises SyntaxError for a node that is not arithmetic."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            number = float(value)
            return lambda values: number
        case ast.Name(id=name):
            if name not in names:
                raise SyntaxError(f"there is no grader {name!r}; the graders are {', '.join(names)}")
            return lambda values: values[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            negated = _build(operand, names)
            return lambda values: -negated(values)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            combine, one, other = _OPERATORS[type(op)], _build(left, names), _build(right, names)
            return lambda values: combine(one(values), other(values))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return _call(name, [_build(argument, names) for argument in arguments])
        case _:
            raise SyntaxError(
                f"{ast.unparse(node)!r} is not allowed; expected numbers, grader names, + - * / ** and "
                + ", ".join(FUNCTIONS)
            )


def _call(name: str, arguments: list[Run]) -> Run:
    if name in _OF_MANY:
        if not arguments:
            raise SyntaxError(f"{name} needs at least one value")
        return lambda values: _OF_MANY[name]([argument(values) for argument in arguments])
    if len(arguments) != 1:
        raise SyntaxError(f"{name} takes one value, not {len(arguments)}")
    (argument,) = arguments
    return lambda values: _OF_ONE[name](argument(values))


def _unreadable(text: str, why: str) -> GraderFault:
    return GraderFault(
        f"calculate_output {text!r} is not a formula: {why}", kind="formula_parse_error", param="calculate_output"
    )
