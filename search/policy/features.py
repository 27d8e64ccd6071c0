"""A design as names and numbers that mean the same in every job, so that the trials of one can tell of another's."""

from __future__ import annotations

import math
from typing import Final

from pydantic import Field

from luthier.design import Design, Frozen
from search.methods import ALGORITHM_OF, UPDATE_OF
from search.space.learning_rate import default_learning_rate

UNCHANGED: Final = 0.0


class Features(Frozen):
    """`names` are compared for being equal, `numbers` by their distance, in units in which one is a large step."""

    names: dict[str, str] = Field(description="by axis")
    numbers: dict[str, float] = Field(description="by axis")


def features(design: Design, hidden_size: int) -> Features:
    """Of a trained design on a base model of this hidden size."""
    first, last, kept = design.stages[0], design.stages[-1], design.architecture
    names = {
        "recipe": design.recipe,
        "phases": phases(design),
        "ends": ALGORITHM_OF[last.algorithm.kind].goal.name,
        "update": first.update.kind,
        "group": UPDATE_OF[first.update.kind].group,
        "later": UPDATE_OF[last.update.kind].group,
    }
    default = default_learning_rate(first.algorithm.kind, first.update.kind, hidden_size)
    size = getattr(first.update, "rank", None) or getattr(first.update, "tokens", None)
    numbers = {
        "learning_rate": math.log(first.optimiser.learning_rate / default) / math.log(4),
        "batch_size": math.log(first.optimiser.batch_size, 8),
        "epochs": math.log(first.optimiser.epochs, 3),
        "size": UNCHANGED if size is None else math.log(size, 16),
        "edits": float(kept.edited),
    }
    settings = {
        f"{stage.algorithm.kind}.{name}": math.log(1e-3 + value, 8)
        for stage in design.stages
        for name, value in stage.algorithm.model_dump().items()
        if isinstance(value, (int, float))
    }
    return Features(names=names, numbers=numbers | settings)


def phases(design: Design) -> str:
    """What each stage maximises, in order."""
    return "+".join(ALGORITHM_OF[stage.algorithm.kind].goal.name for stage in design.stages)
