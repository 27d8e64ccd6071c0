"""Describe designs by names and numbers that mean the same in every job, as the surrogate's input."""

from __future__ import annotations

import math
from typing import Final

from pydantic import Field

from luthier.design import Design, Frozen
from search.space import compatibility
from search.space.learning_rate import default_learning_rate

UNCHANGED: Final = 0.0
# Updates that behave similarly, by which parameters they train; all others are low-rank adapters.
GROUPS: Final = {
    "full": "weights",
    "top_layers": "weights",
    "layernorm": "scales",
    "bitfit": "scales",
    "ia3": "scales",
    "prompt": "tokens",
    "prefix": "tokens",
}
OBJECTIVES: Final = {rule.algorithm: rule.phase.name for rule in compatibility.ALGORITHMS}


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
        "last_objective": OBJECTIVES[last.algorithm.kind],
        "update": first.update.kind,
        "update_group": GROUPS.get(first.update.kind, "adapters"),
        "last_update_group": GROUPS.get(last.update.kind, "adapters"),
    }
    default = default_learning_rate(first.algorithm.kind, first.update.kind, hidden_size)
    size = getattr(first.update, "rank", None) or getattr(first.update, "tokens", None)
    numbers = {
        "learning_rate": math.log(first.optimiser.learning_rate / default) / math.log(4),
        "batch_size": math.log(first.optimiser.batch_size, 8),
        "epochs": math.log(first.optimiser.epochs, 3),
        "size": UNCHANGED if size is None else math.log(size, 16),
        "edits": float(architecture.edited),
    }
    settings = {
        f"{stage.algorithm.kind}.{name}": math.log(1e-3 + value, 8)
        for stage in design.stages
        for name, value in stage.algorithm.model_dump().items()
        if isinstance(value, (int, float))
    }
    return Features(names=names, numbers=numbers | settings)


def objective_sequence(design: Design) -> str:
    """Return the phase of each stage, in order, such as `ANSWERS+PREFERENCES` for sft followed by dpo."""
    return "+".join(OBJECTIVES[stage.algorithm.kind] for stage in design.stages)
