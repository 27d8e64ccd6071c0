"""The questions about a model's shape: whether it is edited at all, then which edits, then how far each goes.

Edits rarely pay on a small budget, so `edited` is one question with two answers: however many edits there are, a
random draw leaves the model as it is at least every other time. Where pins demand an edit there is no such question.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Final, get_args

from luthier.design import Architecture, DepthRule, RopeRule
from search.space.axes import ModelSpace
from search.space.samplers import Suggest, Value

NO, YES = "no", "yes"
FIELDS: Final = ("layers", "kv_heads", "window", "rope_factor")
DEPTH_RULES: Final[tuple[str, ...]] = get_args(DepthRule)
ROPE_RULES: Final[tuple[str, ...]] = get_args(RopeRule)


def combined(model: ModelSpace) -> tuple[str, ...]:
    """The edits that are free to be made or not, each alone and then together: `layers`, …, `layers+kv_heads`, …"""
    free = [field for field in FIELDS if field in model.edits and field not in model.required]
    return tuple("+".join(some) for size in range(1, len(free) + 1) for some in combinations(free, size))


def ask(suggest: Suggest, model: ModelSpace) -> Architecture:
    """The architecture that the answers describe."""
    chosen = set(model.required)
    choices = combined(model)
    if choices and suggest.categorical(f"edited[{model.name}]", (NO, YES)) == YES:
        chosen |= set(suggest.categorical(f"edit[{model.name}]", choices).split("+"))
    made: dict[str, Any] = {
        field: suggest.categorical(f"{field}[{model.name}]", model.edits[field]) for field in FIELDS if field in chosen
    }
    if "layers" in made:
        made["depth_rule"] = suggest.categorical("depth_rule", DEPTH_RULES)
    if "rope_factor" in made:
        made["rope_rule"] = suggest.categorical("rope_rule", ROPE_RULES)
    return Architecture(base=model.name, **made)


def answers(architecture: Architecture, model: ModelSpace) -> Mapping[str, Value]:
    """The answers that `ask` makes this architecture of."""
    made: dict[str, Any] = {field: getattr(architecture, field) for field in FIELDS}
    free = [field for field in FIELDS if made[field] is not None and field not in model.required]
    found: dict[str, Value] = {f"edited[{model.name}]": YES if free else NO, f"edit[{model.name}]": "+".join(free)}
    if architecture.layers is not None:
        found["depth_rule"] = architecture.depth_rule
    if architecture.rope_factor is not None:
        found["rope_rule"] = architecture.rope_rule
    return found | {f"{field}[{model.name}]": value for field, value in made.items() if value is not None}
