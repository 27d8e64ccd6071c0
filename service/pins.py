"""From OpenAI's `method` and `hyperparameters` to pins on the search. Each thing may be fixed in one place only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from luthier.errors import IllegalDesign, UserError
from luthier.task import DataKind, Family, Pin
from search import legality
from service.requests import CreateJob, Hyperparameters, Method

PIN_OF: Final = {
    "n_epochs": "epochs",
    "batch_size": "batch_size",
    "learning_rate_multiplier": "learning_rate_multiplier",
    "beta": "beta",
}

# What each goal is taught by: knowing a text is language modelling, answering is everything that tells answers apart.
GOALS: Final = {
    "domain": frozenset({"clm", "mlm"}),
    "behaviour": frozenset({"sft", "dpo", "sft+dpo", "ipo", "sft+ipo", "simpo", "sft+simpo", "orpo"}),
}


class Fixed(NamedTuple):
    """A value that the request fixes outside of `search.pin`."""

    axis: str
    value: Any
    place: str


def merge(pin: Pin, fixed: Sequence[Fixed]) -> Pin:
    """All pins in one. Raises UserError where two places fix the same thing."""
    given: dict[str, Any] = {}
    for axis, value, place in fixed:
        if axis in given or getattr(pin, axis) is not None:
            other = f"search.pin.{axis}" if getattr(pin, axis) is not None else "method"
            raise UserError(f"{place} and {other} fix the same thing: give one of them", param=place)
        given[axis] = (value,)
    return Pin.model_validate(dict(pin) | given)


def for_goal(pin: Pin, goal: str, kind: DataKind, family: Family) -> Pin:
    """Restrict the algorithms of the family to those that serve the goal. Raises IllegalDesign where none is left."""
    if goal not in GOALS:
        return pin
    legal = legality.programs(kind, family)
    allowed = pin.algorithm or legal
    serving = tuple(program for program in allowed if program in GOALS[goal])
    if not serving:
        raise IllegalDesign(
            f"the goal {goal!r} is served by {', '.join(sorted(GOALS[goal]))}, but {kind} data and the pins leave "
            f"{', '.join(allowed)}: leave task.goal out",
            param="task.goal",
        )
    return pin.model_copy(update={"algorithm": serving})


def fixed_elsewhere(body: CreateJob) -> list[Fixed]:
    """What `model`, `method` and `hyperparameters` fix. Raises UserError for a method that cannot be had."""
    fixed = _method(body.method) if body.method is not None else []
    if body.model is not None and body.model != "auto":
        fixed.append(Fixed("model", body.model, "model"))
    if body.hyperparameters is not None:
        fixed += _values(body.hyperparameters, "hyperparameters")
    return fixed


def _method(method: Method) -> list[Fixed]:
    for name in ("supervised", "dpo", "reinforcement"):
        if getattr(method, name) is not None and name != method.type:
            raise UserError(
                f"method.{name} goes with method.type {name!r}, but the type is {method.type!r}", param=f"method.{name}"
            )
    match method.type:
        case "auto":
            return []
        case "supervised":
            values = method.supervised.hyperparameters if method.supervised else Hyperparameters()
            return [Fixed("algorithm", "sft", "method"), *_values(values, "method.supervised.hyperparameters")]
        case "dpo":
            values = method.dpo.hyperparameters if method.dpo else Hyperparameters()
            return [Fixed("algorithm", "dpo", "method"), *_values(values, "method.dpo.hyperparameters")]
        case "reinforcement":
            raise UserError(
                "no reward-maximising algorithm is offered yet; leave method out, or use 'supervised' or 'dpo'",
                param="method.type",
            )


def _values(given: Hyperparameters, place: str) -> list[Fixed]:
    return [Fixed(PIN_OF[name], value, f"{place}.{name}") for name, value in given if value is not None]
