"""The arithmetic of `multi`: a formula over grades. It is parsed by Python's `ast` and never evaluated as Python."""

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
        raise ValueError("a negative number has no such root")
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
    """A formula that has been read: numbers, names, `+ - * / **` (also written `^`), unary minus and FUNCTIONS."""

    def __init__(self, text: str, names: Collection[str]) -> None:
        """Raises GraderFault, with the text and what was expected, where it is no such formula."""
        self.text = text
        self.names = tuple(names)
        try:
            # Nothing else in the language has a `^`; Python binds it looser than `+`, mathematics does not.
            tree = ast.parse(text.strip().replace("^", "**"), mode="eval")
            self._run = _build(tree.body, self.names)
        except SyntaxError as error:
            raise _unreadable(text, error.msg) from error
        except OverflowError as error:
            raise _unreadable(text, "a number in it is too large") from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise _unreadable(text, "it cannot be parsed") from error

    def value(self, values: Values) -> float:
        """The formula's value, finite. Raises GraderFault where it has none."""
        try:
            found = float(self._run(values))
        except ZeroDivisionError:
            found, why = math.nan, "it divides by zero"
        except OverflowError:
            found, why = math.nan, "the result is too large"
        except ValueError:
            found, why = math.nan, "it takes the root or the logarithm of a number that has none"
        else:
            why = "the result is too large"
        if not math.isfinite(found):
            given = ", ".join(f"{name} = {values[name]:g}" for name in self.names)
            raise GraderFault(
                f"calculate_output {self.text!r} has no value where {given}: {why}", param="calculate_output"
            )
        return found

    def check(self) -> None:
        """Raises GraderFault where the formula has no value for answers that are all right, all wrong, or a mix."""
        for corner in product((0.0, 1.0), repeat=len(self.names)):
            self.value(dict(zip(self.names, corner, strict=True)))


def _build(node: ast.expr, names: Collection[str]) -> Run:
    """The function of the values that a node stands for. Raises SyntaxError for a node that is no arithmetic."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            number = float(value)
            return lambda values: number
        case ast.Name(id=name):
            if name not in names:
                raise SyntaxError(f"there is no grader {name!r}; found {', '.join(names)}")
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
                f"{ast.unparse(node)!r} is not allowed; expected numbers, names of graders, + - * / ** and "
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
