"""Change single values of a design ("what if rank 64", "what if full"), within the limits of a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pydantic import ValidationError

from luthier.design import Design
from luthier.errors import IllegalDesign, UserError
from luthier.task import Pin
from search.space.samplers import V, Value
from search.space.space import Space

# Axes that not every design has. Changing one that the design lacks is refused.
CONDITIONAL: Final = ("rank", "block", "tokens", "top_layers", "depth_rule", "rope_rule", "later_update")
CHANGES: Final = tuple(dict.fromkeys((*Pin.model_fields, *CONDITIONAL)))

_PINNED: Final = "search.pin."


def changed(design: Design, change: Mapping[str, Value], spaces: Callable[[Pin], Space]) -> Design:
    """Return the design with the values in `change`; all others stay the same, or as close as the space allows.

    `spaces` returns the space for a pin. Raises UserError for an unknown name, and IllegalDesign with the possible
    values for an impossible value.
    """
    unknown = [name for name in change if name not in CHANGES]
    if unknown:
        raise UserError(
            f"{unknown[0]!r} cannot be changed; choose from {', '.join(CHANGES)}", param=f"change.{unknown[0]}"
        )
    base = change.get("model", design.architecture.base)
    wishes = {name: value for name, value in change.items() if name in CONDITIONAL}
    found = spaces(_pin(base, change))
    start = design.model_copy(update={"architecture": design.architecture.model_copy(update={"base": base})})
    answers = _Near(found.answers(start) if start.stages else {}, wishes)
    result = found.sample(answers)
    idle = [name for name in wishes if name not in answers.asked]
    if idle:
        raise IllegalDesign(
            f"{idle[0]} does not apply to the design {result.summary()}. Change what it depends on too.",
            param=f"change.{idle[0]}",
        )
    return result


def _pin(base: Value, change: Mapping[str, Value]) -> Pin:
    named = {name: (value,) for name, value in change.items() if name in Pin.model_fields}
    try:
        return Pin.model_validate({**named, "model": (base,)})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise UserError(f"change.{name} is {change[name]!r}: {first['msg']}", param=f"change.{name}") from error


def place(error: UserError) -> str | None:
    """Return the `param` of an error as the request names it: `change.rank` for `search.pin.rank`."""
    return None if error.param is None else error.param.replace(_PINNED, "change.")


class _Near:
    """Answers with the wished value, or the value before, or the possible one nearest to it."""

    def __init__(self, before: Mapping[str, Value], wishes: Mapping[str, Value]) -> None:
        self._before = {**{_axis(name): value for name, value in before.items()}, **before}
        self._wishes = wishes
        self.asked: set[str] = set()

    def categorical(self, name: str, choices: Sequence[V]) -> V:
        axis = _axis(name)
        self.asked.add(axis)
        if axis in self._wishes:
            wish = self._wishes[axis]
            for choice in choices:
                if choice == wish:
                    return choice
            listed = ", ".join(map(str, choices))
            raise IllegalDesign(
                f"{axis} cannot be {wish!r} in this design; choose from {listed}", param=f"change.{axis}"
            )
        before = self._before.get(name, self._before.get(axis))
        for choice in choices:
            if choice == before:
                return choice
        if isinstance(before, int | float) and not any(isinstance(choice, str) for choice in choices):
            return min(choices, key=lambda choice: abs(float(choice) - before))
        return choices[0]

    def log_uniform(self, name: str, low: float, high: float) -> float:
        self.asked.add(name)
        before = self._before.get(name)
        middle = math.sqrt(low * high)
        return min(max(float(before), low), high) if isinstance(before, int | float) else middle


def _axis(name: str) -> str:
    return name.partition("[")[0]
