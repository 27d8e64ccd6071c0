"""Change single values of a design ("what if rank 64", "what if full"), within the limits of a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pydantic import ValidationError

from luthier.algorithms import Algorithm
from luthier.design import Architecture, Design, Stage
from luthier.errors import IllegalDesign, UserError
from luthier.task import Pin, pin_name
from luthier.updates import Placed, Update
from search.methods import EDITS, UPDATE_OF
from search.space.learning_rate import default_learning_rate, significant
from search.space.samplers import V, Value
from search.space.space import Space

# Axes that not every design has. Changing one that the design lacks is refused.
CONDITIONAL: Final = ("rank", "block", "tokens", "top_layers", "depth_rule", "rope_rule", "later_update")
CHANGES: Final = tuple(dict.fromkeys((*Pin.model_fields, *CONDITIONAL)))
RATES: Final = frozenset({"learning_rate", "learning_rate_multiplier"})

_PINNED: Final = "search.pin."


def changed(design: Design, change: Mapping[str, Value], spaces: Callable[[Pin], Space]) -> Design:
    """Return the design with the values in `change`. All others stay exactly as they are.

    What the change makes impossible becomes the nearest possible value: the layers kept of a smaller model, say. Where
    a change of model, algorithm or update changes the default learning rate, the rate keeps its multiplier.

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
    found = _space(design, base, change, spaces)
    start = design.model_copy(update={"architecture": design.architecture.model_copy(update={"base": base})})
    answers = _Near(found.answers(start) if start.stages else {}, wishes)
    result = found.sample(answers)
    idle = [name for name in wishes if name not in answers.asked]
    if idle:
        raise IllegalDesign(
            f"{idle[0]} does not apply to the design {result.summary()}. Change what it depends on too.",
            param=f"change.{idle[0]}",
        )
    after = found.model(result.architecture.base).hidden_size
    return _kept(design, result, change, (_width(design, after, change, spaces), after))


def _width(design: Design, after: int, change: Mapping[str, Value], spaces: Callable[[Pin], Space]) -> int:
    """Return the hidden size of the base model before the change; `after` where that is no longer registered."""
    base = design.architecture.base
    if change.get("model", base) == base:
        return after
    try:
        return spaces(Pin(model=(base,))).model(base).hidden_size
    except UserError:
        return after


def _space(design: Design, base: Value, change: Mapping[str, Value], spaces: Callable[[Pin], Space]) -> Space:
    """Return the space with the changed values, and with the design's own ones that the default ranges may lack.

    Own values that the changed design cannot have are given up.
    """
    own = _own(design, change)
    while True:
        try:
            return spaces(_pin(base, {**own, **change}))
        except UserError as error:
            name = (error.param or "").removeprefix(_PINNED).removeprefix("change.")
            if name not in own:
                raise
            del own[name]


def _pin(base: Value, change: Mapping[str, Value]) -> Pin:
    named = {name: (value,) for name, value in change.items() if name in Pin.model_fields}
    try:
        return Pin.model_validate({**named, "model": (base,)})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise UserError(f"change.{name} is {change[name]!r}: {first['msg']}", param=f"change.{name}") from error


def _own(design: Design, change: Mapping[str, Value]) -> dict[str, Value]:
    """Return the values that stages which the change adds, or another update, take over from the first stage."""
    if not design.stages:
        return {}
    first = design.stages[0]
    found: dict[str, Value] = {"batch_size": first.optimiser.batch_size}
    if not _rescheduled(first, change):
        found["epochs"] = first.optimiser.epochs
    if (rank := getattr(first.update, "rank", None)) is not None:
        found["rank"] = rank
    return {name: value for name, value in found.items() if name not in change}


def _rescheduled(stage: Stage, change: Mapping[str, Value]) -> bool:
    """Return whether the change sets another schedule: epochs are a length under one and a limit under the other."""
    return change.get("schedule", stage.optimiser.schedule) != stage.optimiser.schedule


def _kept(design: Design, result: Design, change: Mapping[str, Value], widths: tuple[int, int]) -> Design:
    """Return the changed design with every other value of the design before, whether the space has an axis for it or
    not. `widths`: the hidden sizes of the base models before and after."""
    stages: list[Stage] = []
    for index, after in enumerate(result.stages):
        before = design.stages[index] if index < len(design.stages) else None
        if before is None:
            shares = after.update == result.stages[0].update  # it trains the parameters of the first stage
            update = stages[0].update if design.stages and shares else after.update
            added = after.model_copy(update={"update": update})
            stages.append(_added(added, stages[0], change, widths[1]) if design.stages else added)
            continue
        given_up = {*change, "learning_rate", *(["epochs"] if _rescheduled(before, change) else [])}
        own = {name: value for name, value in before.optimiser if name not in given_up}
        rate = after.optimiser.learning_rate
        if not change.keys() & RATES:
            rate = _scaled(before.optimiser.learning_rate, _default(before, widths[0]), _default(after, widths[1]))
        later = index > 0 and "later_update" in change
        stages.append(
            Stage(
                algorithm=_algorithm(before.algorithm, after.algorithm, change),
                update=after.update if later else _update(before.update, after.update, change),
                optimiser=after.optimiser.model_copy(update={**own, "learning_rate": rate}),
            )
        )
    return Design(architecture=_architecture(design.architecture, result.architecture, change), stages=tuple(stages))


def _added(stage: Stage, first: Stage, change: Mapping[str, Value], width: int) -> Stage:
    """Return a stage that the change adds, with the multiplier of the first stage's learning rate."""
    if change.keys() & RATES:
        return stage
    rate = _scaled(first.optimiser.learning_rate, _default(first, width), _default(stage, width))
    return stage.model_copy(update={"optimiser": stage.optimiser.model_copy(update={"learning_rate": rate})})


def _default(stage: Stage, width: int) -> float:
    return default_learning_rate(stage.algorithm.kind, stage.update.kind, width)


def _scaled(rate: float, before: float, after: float) -> float:
    """Return the rate with the same multiplier of another default; unchanged if the default is the same."""
    return rate if before == after else significant(rate * after / before)


def _architecture(before: Architecture, after: Architecture, change: Mapping[str, Value]) -> Architecture:
    """Return the architecture with the edits that the change leaves alone; without any if the update allows none."""
    edited = [spec.edit for spec in EDITS if spec.edit in change]
    if before.base != after.base or (before.edited and not (after.edited or edited)):
        return after
    kept = {spec.edit for spec in EDITS if spec.edit not in change}
    for spec in EDITS:
        still = spec.edit in kept or None not in (getattr(before, spec.edit), getattr(after, spec.edit))
        if spec.rule is not None and still and spec.rule[0] not in change:
            kept.add(spec.rule[0])
    return after.model_copy(update={name: getattr(before, name) for name in kept})


def _algorithm(before: Algorithm, after: Algorithm, change: Mapping[str, Value]) -> Algorithm:
    if before.kind != after.kind:
        return after
    names = [name for name in type(before).model_fields if pin_name(before.kind, name) in change]
    return before.model_copy(update={name: getattr(after, name) for name in names})


def _update(before: Update, after: Update, change: Mapping[str, Value]) -> Update:
    if before.kind != after.kind:
        return after
    size = UPDATE_OF[before.kind].size
    names = ["placement"] if "placement" in change and isinstance(before, Placed) else []
    names += [size.field] if size is not None and _axis(size.axis) in change else []
    return before.model_copy(update={name: getattr(after, name) for name in names})


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
