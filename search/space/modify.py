"""One change to a design: "what if rank 64", "what if full". The same questions and refusals as in a search."""

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

# Questions that not every design is asked: to change the answer where there is no such question is refused.
OWN: Final = ("rank", "block", "tokens", "top_layers", "depth_rule", "rope_rule", "later_update")
CHANGES: Final = tuple(dict.fromkeys((*Pin.model_fields, *OWN)))

_PINNED: Final = "search.pin."


def changed(design: Design, change: Mapping[str, Value], spaces: Callable[[Pin], Space]) -> Design:
    """The design with what the change names as it says, all else as it is or as near to it as may be.

    `spaces` makes the space that pins leave. Raises UserError for a name that there is not, and IllegalDesign with the
    values to choose from.
    """
    unknown = [name for name in change if name not in CHANGES]
    if unknown:
        raise UserError(
            f"there is no {unknown[0]!r} to change; choose from {', '.join(CHANGES)}", param=f"change.{unknown[0]}"
        )
    base = change.get("model", design.architecture.base)
    wishes = {name: value for name, value in change.items() if name in OWN}
    found = spaces(_pin(base, change))
    start = design.model_copy(update={"architecture": design.architecture.model_copy(update={"base": base})})
    answers = _Near(found.answers(start) if start.stages else {}, wishes)
    result = found.sample(answers)
    idle = [name for name in wishes if name not in answers.asked]
    if idle:
        raise IllegalDesign(
            f"{result.summary()} has no {idle[0]}: change what it belongs to as well, or another axis",
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
    """Where in a request the pin at fault stands: in the change."""
    return None if error.param is None else error.param.replace(_PINNED, "change.")


class _Near:
    """Answers as wished; else as before where that is possible, and as near to it as may be where it is not."""

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
            raise IllegalDesign(f"{axis} cannot be {wish!r} here; choose from {listed}", param=f"change.{axis}")
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
