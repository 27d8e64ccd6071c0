"""Translate OpenAI's `method` and `hyperparameters` into pins of the search. Each may be set in one place only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from luthier.algorithms import Grpo, Raft, Rloo
from luthier.errors import IllegalDesign, UserError
from luthier.task import DataKind, Family, Pin, Task
from search.methods import ALGORITHMS
from search.space import validate
from service.schemas.requests import CreateJob, Hyperparameters, Method, ReinforcementHyperparameters

PIN_OF: Final = {
    "n_epochs": "epochs",
    "batch_size": "batch_size",
    "learning_rate_multiplier": "learning_rate_multiplier",
    "beta": "beta",
}

_IGNORED: Final = ("eval_interval", "eval_samples", "reasoning_effort")


class Fixed(NamedTuple):
    """A value, or a tuple of allowed values, that the request sets outside of `search.pin`. `place`: the field."""

    axis: str
    value: Any
    place: str


def merge(pin: Pin, fixed: Sequence[Fixed]) -> Pin:
    """Return all pins in one. Raises UserError where two fields set the same axis."""
    given: dict[str, Any] = {}
    for axis, value, place in fixed:
        if axis in given or getattr(pin, axis) is not None:
            other = f"search.pin.{axis}" if getattr(pin, axis) is not None else "method"
            raise UserError(f"{place} and {other} set the same axis. Give one of them.", param=place)
        given[axis] = value if isinstance(value, tuple) else (value,)
    return Pin.model_validate(dict(pin) | given)


def for_goal(pin: Pin, task: Task, kind: DataKind, family: Family, *, taught: bool) -> Pin:
    """Restrict the recipes to those that serve the task's goal. Raises IllegalDesign where none is left."""
    goal = task.goal
    if goal == "auto":
        return pin
    allowed = pin.algorithm or validate.recipes(kind, family, rewarded=task.rewarded, taught=taught)
    serving = tuple(recipe for recipe in allowed if validate.goal(recipe) == goal)
    if not serving:
        last = ", ".join(spec.kind for spec in ALGORITHMS if spec.serves == goal)
        raise IllegalDesign(
            f"The goal {goal!r} needs a recipe that ends with one of {last}. But {kind} data and the pins allow only "
            f"{', '.join(allowed)}. Leave task.goal out.",
            param="task.goal",
        )
    return pin.model_copy(update={"algorithm": serving})


def graded(body: CreateJob) -> CreateJob:
    """Return the request with the grader of `method.reinforcement` moved to `task.grader`. Raises UserError where both
    fields have one, or neither."""
    if body.method is None or body.method.type != "reinforcement":
        return body
    given = body.method.reinforcement
    if given is None:
        if body.task.rewarded:
            return body
        raise UserError(
            "method.type 'reinforcement' needs a reward. Give method.reinforcement.grader, task.grader or "
            "task.environment.",
            param="method.reinforcement",
        )
    if body.task.grader is not None:
        raise UserError(
            "method.reinforcement.grader and task.grader are the same setting. Give one of them.",
            param="method.reinforcement.grader",
        )
    return body.model_copy(update={"task": body.task.model_copy(update={"grader": given.grader})})


def ignored(method: Method) -> list[str]:
    """Return a note on the settings of `reinforcement` that have no effect."""
    given = method.reinforcement.hyperparameters if method.reinforcement else ReinforcementHyperparameters()
    names = [name for name in _IGNORED if getattr(given, name) is not None]
    if not names:
        return []
    return [f"Ignored: {', '.join(names)}. Trials are scored on the held-out rows of the job, at rungs and at the end."]


def for_objective(pin: Pin, objective: str, kind: DataKind, family: Family) -> Pin:
    """Leave out the algorithms that maximise a reward where the objective is perplexity and none is pinned.

    Their rollouts would cost device time for a reward that does not decide.
    """
    others = validate.recipes(kind, family)
    if objective != "perplexity" or pin.algorithm is not None or not others:
        return pin
    return pin.model_copy(update={"algorithm": others})


def fixed_elsewhere(body: CreateJob, kind: DataKind) -> list[Fixed]:
    """Return what `model`, `method` and `hyperparameters` set for rows of this kind. Raises UserError for a method that
    does not fit them."""
    fixed = _method(body.method, kind) if body.method is not None else []
    if body.model is not None and body.model != "auto":
        fixed.append(Fixed("model", body.model, "model"))
    if body.hyperparameters is not None:
        fixed += _values(body.hyperparameters, "hyperparameters")
    return fixed


def _method(method: Method, kind: DataKind) -> list[Fixed]:
    for name in ("supervised", "dpo", "reinforcement"):
        if getattr(method, name) is not None and name != method.type:
            raise UserError(
                f"method.{name} needs method.type {name!r}, but the type is {method.type!r}", param=f"method.{name}"
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
            given = method.reinforcement.hyperparameters if method.reinforcement else ReinforcementHyperparameters()
            place = "method.reinforcement.hyperparameters"
            return [
                Fixed("algorithm", _reward_maximisers(kind), "method"),
                *_groups(given, f"{place}.compute_multiplier"),
                *_values(given, place),
            ]


def _reward_maximisers(kind: DataKind) -> tuple[str, ...]:
    """Return the recipes that maximise a reward. Raises IllegalDesign where answers to such rows cannot be graded."""
    legal = validate.recipes(kind)
    found = tuple(recipe for recipe in validate.recipes(kind, rewarded=True) if recipe not in legal)
    if not found:
        raise IllegalDesign(validate.refusal("grpo", kind, rewarded=True) or "", param="method.type")
    return found


def _groups(given: ReinforcementHyperparameters, place: str) -> list[Fixed]:
    """Translate `compute_multiplier` into the number of answers sampled for each prompt."""
    if given.compute_multiplier is None:
        return []
    return [
        Fixed(f"{kind.kind}_group", max(2, round(kind.group * given.compute_multiplier)), place)
        for kind in (Grpo(), Rloo(), Raft())
    ]


def _values(given: Hyperparameters, place: str) -> list[Fixed]:
    return [
        Fixed(PIN_OF[name], value, f"{place}.{name}") for name, value in given if name in PIN_OF and value is not None
    ]
