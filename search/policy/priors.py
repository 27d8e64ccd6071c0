"""What is tried before anything is known: the two baselines, and designs that experience says are worth a trial.

The baselines are yardsticks: they keep to the pins on model, epochs and batch size, but not to those on the method.
The priors are inside the space, because a recipe answers the space's own questions: it gets what it wishes where pins
and the model allow it, and the nearest thing where they do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from luthier.design import Architecture, Design, Frozen, Lora
from luthier.errors import IllegalDesign
from luthier.task import DataKind
from search.space import space, validate
from search.space.samplers import V
from search.space.space import Space, algorithm, stages

LEAST: Final = 1e-6  # far below any value of any axis but zero


class Recipe(Frozen):
    """A design relative to whatever model it is for. Edits count steps down the model's own list: 0 keeps all."""

    program: str
    update: str = "lora"
    later_update: str = "same"
    rank: int = 16
    learning_rate_multiplier: float = 1.0
    batch_size: int = 8
    epochs: float = 1.0
    beta: float = 0.1
    ipo_beta: float = 0.1
    simpo_beta: float = 2.0
    simpo_gamma: float = 1.0
    orpo_beta: float = 0.1
    grpo_group: int = 8
    grpo_beta: float = 0.0
    rloo_group: int = 4
    rloo_beta: float = 0.05
    raft_group: int = 4
    kto_beta: float = 0.1
    kto_desirable_weight: float = 1.0
    layers: int = 0
    kv_heads: int = 0
    window: int = 0
    rope_factor: int = 0
    block: int = 32
    mask: float = 0.15
    placement: str = "all"
    tokens: int = 32


# The order matters: a small budget sees only the first few, so these differ in program, update and architecture.
_BEHAVIOUR: Final = (
    Recipe(program="sft", update="full"),
    Recipe(program="sft", rope_factor=1),
    Recipe(program="clm", update="rslora"),
    Recipe(program="sft", layers=1),
    Recipe(program="sft", update="rslora", learning_rate_multiplier=2),
    Recipe(program="sft", update="dora", epochs=2),
    Recipe(program="sft", update="top_layers", epochs=2),
    Recipe(program="sft", kv_heads=1),
    Recipe(program="sft", learning_rate_multiplier=3),
    Recipe(program="sft", rank=64, placement="mlp", epochs=3),
    Recipe(program="sft", update="full", learning_rate_multiplier=0.5, epochs=3),
    Recipe(program="sft", update="pissa", epochs=2),
    Recipe(program="sft", update="lora_plus"),
)
# Where answers are graded. Reward maximisers start where likelihood ends, or from the base where it knows how already.
_GRADED: Final = (
    Recipe(program="sft+grpo"),
    Recipe(program="sft", update="full"),
    Recipe(program="grpo", update="rslora", learning_rate_multiplier=2),
    Recipe(program="sft", layers=1),
    Recipe(program="sft+raft", update="pissa"),
    Recipe(program="sft+rloo", update="full"),
    Recipe(program="raft", epochs=2),
    Recipe(program="rloo", update="lora_plus"),
    Recipe(program="sft+grpo", update="dora", grpo_beta=0.04, epochs=2),
    Recipe(program="sft", update="top_layers", epochs=2),
    Recipe(program="sft", kv_heads=1),
    Recipe(program="clm"),
)
_PLAYED: Final = (
    Recipe(program="grpo", update="full"),
    Recipe(program="rloo", update="rslora", learning_rate_multiplier=2),
    Recipe(program="grpo", layers=1),
    Recipe(program="raft", epochs=2),
    Recipe(program="grpo", update="dora", epochs=2),
    Recipe(program="rloo", update="full", learning_rate_multiplier=2),
    Recipe(program="grpo", update="pissa", grpo_beta=0.04),
    Recipe(program="grpo", update="top_layers", epochs=2),
    Recipe(program="grpo", learning_rate_multiplier=3),
    Recipe(program="raft", update="lora_plus"),
    Recipe(program="grpo", kv_heads=1),
    Recipe(program="grpo", rank=4, epochs=3),
)
RECIPES: Final[Mapping[DataKind, Sequence[Recipe]]] = {
    DataKind.TEXT: (
        Recipe(program="clm", update="full"),
        Recipe(program="clm", rope_factor=1),
        Recipe(program="clm", update="rslora", learning_rate_multiplier=2),
        Recipe(program="clm", layers=1),
        Recipe(program="clm", update="dora", epochs=2),
        Recipe(program="clm", update="full", learning_rate_multiplier=2, epochs=2),
        Recipe(program="clm", update="top_layers", epochs=2),
        Recipe(program="clm", kv_heads=1),
        Recipe(program="clm", learning_rate_multiplier=3),
        Recipe(program="clm", rank=64, placement="mlp", epochs=3),
        Recipe(program="clm", update="full", learning_rate_multiplier=0.5, epochs=3),
        Recipe(program="clm", update="pissa", epochs=2),
        Recipe(program="clm", update="lora_plus"),
    ),
    DataKind.PAIRS: _BEHAVIOUR,
    DataKind.CHAT: _BEHAVIOUR,
    DataKind.PROMPTS: _PLAYED,
    DataKind.PREFERENCE: (
        Recipe(program="dpo", update="full"),
        Recipe(program="dpo", rope_factor=1),
        Recipe(program="sft+dpo", update="rslora", learning_rate_multiplier=2),
        Recipe(program="sft"),
        Recipe(program="dpo", layers=1),
        Recipe(program="simpo"),
        Recipe(program="sft+reward_model+rloo"),
        Recipe(program="orpo", update="full"),
        Recipe(program="sft+ipo", update="pissa"),
        Recipe(program="kto", update="dora", kto_beta=0.05, epochs=2),
        Recipe(program="sft+simpo", update="lora_plus"),
        Recipe(program="reward_model+grpo", kv_heads=1, grpo_beta=0.04),
        Recipe(program="sft+kto", update="top_layers", epochs=2),
    ),
    DataKind.UNPAIRED: (
        Recipe(program="kto", update="full"),
        Recipe(program="sft+kto", update="rslora", learning_rate_multiplier=2),
        Recipe(program="sft"),
        Recipe(program="kto", layers=1),
        Recipe(program="kto", learning_rate_multiplier=3),
        Recipe(program="sft+kto", update="full"),
        Recipe(program="kto", update="dora", kto_beta=0.05, epochs=2),
        Recipe(program="kto", update="pissa", batch_size=16, epochs=2),
        Recipe(program="sft", update="full", epochs=2),
        Recipe(program="kto", kv_heads=1),
        Recipe(program="kto", update="lora_plus", kto_beta=0.3),
        Recipe(program="sft+kto", update="top_layers", epochs=2),
    ),
}


ENCODER_RECIPES: Final = (
    Recipe(program="mlm", update="full"),
    Recipe(program="mlm", update="full", learning_rate_multiplier=3, mask=0.3, epochs=2),
    Recipe(program="mlm", update="rslora", learning_rate_multiplier=2),
    Recipe(program="mlm", update="full", learning_rate_multiplier=2, epochs=3),
    Recipe(program="mlm", layers=1),
    Recipe(program="mlm", update="bitfit", epochs=2),
    Recipe(program="mlm", update="dora", epochs=2),
    Recipe(program="mlm", rank=64, learning_rate_multiplier=3, mask=0.3, epochs=3),
    Recipe(program="mlm", update="top_layers", epochs=2),
    Recipe(program="mlm", update="pissa", epochs=2),
    Recipe(program="mlm", update="lora_plus"),
    Recipe(program="mlm", update="layernorm", epochs=2),
)


def recipes(space: Space) -> Sequence[Recipe]:
    """Those for the models and this kind of data; others where the task has a reward to maximise."""
    if space.family == "encoder":
        return ENCODER_RECIPES
    plain = set(space.programs) <= set(validate.programs(space.kind))
    return RECIPES[space.kind] if plain or space.kind is DataKind.PROMPTS else _GRADED


def baselines(space: Space) -> tuple[Design, Design]:
    """Trials 0 and 1: the first model untuned, and plain LoRA at its default rate with the usual program."""
    model = space.models[0]
    usual = Recipe(program=validate.usual(space.kind, space.family))
    untuned = Design(architecture=Architecture(base=model.name))
    plain = stages(
        model,
        [algorithm(kind) for kind in usual.program.split("+")],
        Lora(rank=usual.rank),
        Lora(rank=usual.rank),
        multiplier=usual.learning_rate_multiplier,
        batch_size=_nearest(space.batch_sizes, usual.batch_size),
        epochs=_nearest(space.epochs, usual.epochs),
    )
    return untuned, untuned.model_copy(update={"stages": plain})


def priors(space: Space) -> list[Design]:
    """The recipes for this kind of data as designs of the space, in order, the models taking turns.

    Recipes that pins make equal to each other or to the plain default appear once or not at all, nor do those for a
    longer context where none is offered. Raises IllegalDesign
    where a recipe is outside a continuous axis: what the space does not allow is never tried.
    """
    _, plain = baselines(space)
    designs = {plain.digest(): plain}
    longer = any("rope_factor" in model.edits for model in space.models)
    wanted = [recipe for recipe in recipes(space) if longer or not recipe.rope_factor]
    for turn, recipe in enumerate(wanted, start=1):
        design = space.sample(_Wishes(space, recipe, turn))
        designs.setdefault(design.digest(), design)
    return list(designs.values())[1:]


class _Wishes:
    """Answers a space's questions (`Suggest`) as a recipe would like them answered."""

    def __init__(self, space: Space, recipe: Recipe, turn: int) -> None:
        self._space = space
        self._recipe = recipe.model_dump()
        self._turn = turn

    def categorical(self, name: str, choices: Sequence[V]) -> V:
        axis, _, model = name.rstrip("]").partition("[")
        match axis:
            case "model":
                return choices[self._turn % len(choices)]
            case "edited":
                wished = self._edit(space.combined_edits(self._space.model(model)))
                return next(choice for choice in choices if choice == (space.YES if wished else space.NO))
            case "edit":
                return next(choice for choice in choices if choice == self._edit(choices))
            case "layers" | "kv_heads" | "window" | "rope_factor":
                steps: int = self._recipe[axis]
                return choices[min(max(steps - 1, 0), len(choices) - 1)]
            case "depth_rule" | "rope_rule":
                return choices[0]
            case "top_layers":
                return choices[-1]
            case "program" | "update" | "later_update" | "placement":
                return next((choice for choice in choices if choice == self._recipe[axis]), choices[0])
            case _:
                return _nearest(choices, self._recipe[axis])

    def _edit(self, possible: Sequence[object]) -> str:
        """Those of the recipe's edits that can be made, as they are named together; nothing where there is none."""
        return "+".join(field for field in space.EDIT_FIELDS if self._recipe[field] and field in possible)

    def log_uniform(self, name: str, low: float, high: float) -> float:
        wish: float = self._recipe[name]
        if not low <= wish <= high:
            raise IllegalDesign(f"a prior has {name} {wish:g}, outside of {low:g} to {high:g}", param=name)
        return wish


def _nearest(choices: Sequence[V], wish: float) -> V:
    return min(choices, key=lambda choice: abs(math.log((float(choice) + LEAST) / (wish + LEAST))))
