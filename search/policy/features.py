"""Describe designs by names and numbers that mean the same in every job, as the surrogate's input."""

from __future__ import annotations

import math
from typing import Final

from pydantic import Field

from luthier.design import Design
from luthier.values import Frozen
from search.methods import ALGORITHM_OF, UPDATE_OF
from search.space.learning_rate import default_learning_rate

UNCHANGED: Final = 0.0


class Features(Frozen):
    """`names` are compared for equality, `numbers` by distance; a difference of 1 is a large step."""

    names: dict[str, str] = Field(description="by axis")
    numbers: dict[str, float] = Field(description="by axis")


def features(design: Design, hidden_size: int) -> Features:
    """Return the features of a trained design. `hidden_size` is that of its base model."""
    first, last, architecture = design.stages[0], design.stages[-1], design.architecture
    names = {
        "recipe": design.recipe,
        "objectives": objective_sequence(design),
        "last_objective": ALGORITHM_OF[last.algorithm.kind].goal.name,
        "update": first.update.kind,
        "update_group": UPDATE_OF[first.update.kind].group,
        "last_update_group": UPDATE_OF[last.update.kind].group,
    }
    default = default_learning_rate(first.algorithm.kind, first.update.kind, hidden_size)
    size = getattr(first.update, "rank", None) or getattr(first.update, "tokens", None)
    numbers = {
        "learning_rate": math.log(first.optimiser.learning_rate / default) / math.log(4),
        "batch_size": math.log(first.optimiser.batch_size, 8),
        "size": UNCHANGED if size is None else math.log(size, 16),
        "edits": float(architecture.edited),
    }
    if not design.self_ending:
        numbers["epochs"] = math.log(first.optimiser.epochs, 3)
    settings = {
        f"{stage.algorithm.kind}.{name}": math.log(1e-3 + value, 8)
        for stage in design.stages
        for name, value in stage.algorithm.model_dump().items()
        if isinstance(value, (int, float))
    }
    return Features(names=names, numbers=numbers | settings)


def objective_sequence(design: Design) -> str:
    """Return the goal of each stage, in order, such as `ANSWERS+PREFERENCES` for sft followed by dpo."""
    return "+".join(ALGORITHM_OF[stage.algorithm.kind].goal.name for stage in design.stages)
