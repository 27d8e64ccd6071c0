"""The first designs of a search: the two baselines, and priors, which are designs known to work well.

The baselines follow the pins on model, epochs, batch size and learning rate, but not those on algorithm and weight
update. A pinned learning rate is the default's only if it is meant for updates like LoRA. Each prior
is sampled through the space itself (`Suggest`), so it always lies inside: where pins or the model exclude a value of
the prior, the nearest allowed value is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import Field

from luthier.design import Architecture, Design
from luthier.errors import IllegalDesign
from luthier.task import DataKind
from luthier.updates import Full, Lora, Update
from luthier.values import Frozen
from search.methods import EDIT_OF, SETTINGS, UPDATE_OF, Interval
from search.space import space, validate
from search.space.learning_rate import default_learning_rate
from search.space.samplers import V
from search.space.space import Space, algorithm, stages

LEAST: Final = 1e-6  # added before taking logarithms; far below any nonzero value of any axis


class Prior(Frozen):
    """A design for any base model. Architecture edits are positions in the model's list of options; 0 is no edit."""

    recipe: str
    update: str = "lora"
    later_update: str = "same"
    rank: int = 16
    learning_rate_multiplier: float = 1.0
    batch_size: int = 8
    epochs: float = 1.0
    layers: int = 0
    kv_heads: int = 0
    window: int = 0
    rope_factor: int = 0
    block: int = 32
    placement: str = "all"
    tokens: int = 32
    settings: dict[str, float] = Field(default={}, description="hyperparameters of algorithms, by axis")

    def wish(self, axis: str) -> Any:
        """The wished value on an axis; hyperparameters of an algorithm are at its own defaults unless named."""
        if axis not in SETTINGS:
            return getattr(self, axis)
        setting = SETTINGS[axis]
        return self.settings.get(axis, setting.member.model_fields[setting.field].default)


# A small budget tries only the first few. Their updates, rates and lengths are those of `python -m bench.portfolio`:
# the few designs of the recorded tables whose best gains most on the other tasks. Full fine-tuning and LoRA come at
# several rates each. The designs after them make sure that each algorithm, update and edit is tried at some time.
_FULL: Final[Mapping[str, Any]] = {"update": "full", "batch_size": 4, "epochs": 2}
_FULL_FAST: Final[Mapping[str, Any]] = {"update": "full", "learning_rate_multiplier": 2, "batch_size": 4, "epochs": 3}
_FULL_FASTEST: Final[Mapping[str, Any]] = {
    "update": "full",
    "learning_rate_multiplier": 6,
    "batch_size": 4,
    "epochs": 3,
}
_LORA: Final[Mapping[str, Any]] = {"learning_rate_multiplier": 2, "batch_size": 4, "epochs": 3}
_LORA_FAST: Final[Mapping[str, Any]] = {"learning_rate_multiplier": 4, "batch_size": 4, "epochs": 2}

_BEHAVIOUR: Final = (
    Prior(recipe="sft", **_FULL_FAST),
    Prior(recipe="sft", rope_factor=1),
    Prior(recipe="sft", **_LORA_FAST),
    Prior(recipe="sft", **_FULL),
    Prior(recipe="clm", **_LORA),
    Prior(recipe="sft", **_FULL_FASTEST),
    Prior(recipe="sft", update="rslora", learning_rate_multiplier=2),
    Prior(recipe="sft", update="top_layers", learning_rate_multiplier=2, epochs=2),
    Prior(recipe="sft", layers=1),
    Prior(recipe="sft", update="dora", epochs=2),
    Prior(recipe="sft", kv_heads=1),
    Prior(recipe="sft", update="pissa", epochs=2),
    Prior(recipe="sft", update="lora_plus"),
)
# For tasks with a grader. Reinforcement learning starts after SFT, or from the base if it can already do the task.
_GRADED: Final = (
    Prior(recipe="sft+grpo", **_FULL),
    Prior(recipe="sft", **_LORA),
    Prior(recipe="sft", **_FULL_FAST),
    Prior(recipe="raft", **_LORA_FAST),
    Prior(recipe="grpo", **_LORA_FAST),
    Prior(recipe="sft+rloo", update="rslora", learning_rate_multiplier=2),
    Prior(recipe="sft", layers=1),
    Prior(recipe="sft+raft", update="pissa"),
    Prior(recipe="rloo", update="lora_plus"),
    Prior(recipe="sft+grpo", update="dora", settings={"grpo_beta": 0.04}, epochs=2),
    Prior(recipe="clm", update="top_layers", epochs=2),
    Prior(recipe="sft", kv_heads=1),
)
_PLAYED: Final = (
    Prior(recipe="grpo", **_LORA_FAST),
    Prior(recipe="rloo", **_FULL_FAST),
    Prior(recipe="raft", **_LORA_FAST),
    Prior(recipe="grpo", **_FULL),
    Prior(recipe="rloo", update="rslora", learning_rate_multiplier=2),
    Prior(recipe="grpo", layers=1),
    Prior(recipe="grpo", update="dora", epochs=2),
    Prior(recipe="grpo", update="pissa", settings={"grpo_beta": 0.04}),
    Prior(recipe="grpo", update="top_layers", epochs=2),
    Prior(recipe="raft", update="lora_plus"),
    Prior(recipe="grpo", kv_heads=1),
    Prior(recipe="grpo", rank=4, epochs=3),
)
PRIORS: Final[Mapping[DataKind, Sequence[Prior]]] = {
    DataKind.TEXT: (
        Prior(recipe="clm", **_FULL_FAST),
        Prior(recipe="clm", rope_factor=1),
        Prior(recipe="clm", **_LORA_FAST),
        Prior(recipe="clm", **_FULL),
        Prior(recipe="clm", **_LORA),
        Prior(recipe="clm", **_FULL_FASTEST),
        Prior(recipe="clm", update="rslora", learning_rate_multiplier=2),
        Prior(recipe="clm", update="top_layers", learning_rate_multiplier=2, epochs=2),
        Prior(recipe="clm", layers=1),
        Prior(recipe="clm", update="dora", epochs=2),
        Prior(recipe="clm", kv_heads=1),
        Prior(recipe="clm", update="pissa", epochs=2),
        Prior(recipe="clm", update="lora_plus"),
    ),
    DataKind.PAIRS: _BEHAVIOUR,
    DataKind.CHAT: _BEHAVIOUR,
    DataKind.PROMPTS: _PLAYED,
    DataKind.PREFERENCE: (
        Prior(recipe="sft+dpo", **_LORA_FAST),
        Prior(recipe="dpo", rope_factor=1),
        Prior(recipe="simpo", **_LORA_FAST),
        Prior(recipe="dpo", **_FULL_FAST),
        Prior(recipe="sft", **_LORA),
        Prior(recipe="sft+dpo", **_FULL_FASTEST),
        Prior(recipe="dpo", layers=1),
        Prior(recipe="sft+reward_model+rloo"),
        Prior(recipe="orpo", update="rslora", learning_rate_multiplier=2),
        Prior(recipe="sft+ipo", update="pissa"),
        Prior(recipe="kto", update="dora", settings={"kto_beta": 0.05}, epochs=2),
        Prior(recipe="sft+simpo", update="lora_plus"),
        Prior(recipe="reward_model+grpo", update="top_layers", kv_heads=1, settings={"grpo_beta": 0.04}),
    ),
    DataKind.UNPAIRED: (
        Prior(recipe="sft+kto", **_LORA_FAST),
        Prior(recipe="kto", **_FULL_FAST),
        Prior(recipe="kto", **_LORA_FAST),
        Prior(recipe="sft", **_FULL),
        Prior(recipe="sft+kto", **_FULL_FASTEST),
        Prior(recipe="kto", update="rslora", learning_rate_multiplier=2),
        Prior(recipe="kto", layers=1),
        Prior(recipe="kto", update="dora", settings={"kto_beta": 0.05}, epochs=2),
        Prior(recipe="kto", update="pissa", batch_size=16, epochs=2),
        Prior(recipe="kto", kv_heads=1),
        Prior(recipe="kto", update="lora_plus", settings={"kto_beta": 0.3}),
        Prior(recipe="sft+kto", update="top_layers", epochs=2),
    ),
}


ENCODER_PRIORS: Final = (
    Prior(recipe="mlm", **_FULL_FAST),
    Prior(recipe="mlm", **_LORA_FAST, settings={"mask": 0.3}),
    Prior(recipe="mlm", **_FULL),
    Prior(recipe="mlm", **_LORA),
    Prior(recipe="mlm", **_FULL_FASTEST, settings={"mask": 0.3}),
    Prior(recipe="mlm", update="rslora", learning_rate_multiplier=2),
    Prior(recipe="mlm", layers=1),
    Prior(recipe="mlm", update="bitfit", epochs=2),
    Prior(recipe="mlm", update="dora", epochs=2),
    Prior(recipe="mlm", update="top_layers", epochs=2),
    Prior(recipe="mlm", update="pissa", epochs=2),
    Prior(recipe="mlm", update="lora_plus"),
)


def _priors_for(space: Space) -> Sequence[Prior]:
    """The priors for this model family and kind of data; different ones if the task has a grader."""
    if space.family == "encoder":
        return ENCODER_PRIORS
    plain = set(space.recipes) <= set(validate.recipes(space.kind))
    return PRIORS[space.kind] if plain or space.kind is DataKind.PROMPTS else _GRADED


def baselines(space: Space) -> tuple[Design, Design]:
    """Return the designs of trials 0 and 1: the first base model untuned, and the plain-LoRA default.

    The default is LoRA at its default learning rate with the usual recipe for this kind of data. For a model whose
    architecture does not allow LoRA, it is full fine-tuning.
    """
    model = space.models[0]
    usual = Prior(recipe=validate.usual(space.kind, space.family))
    untuned = Design(architecture=Architecture(base=model.name))
    update = Lora(rank=usual.rank) if model.lora else Full()
    plain = stages(
        model,
        [algorithm(kind) for kind in usual.recipe.split("+")],
        update,
        update,
        multiplier=_multiplier(space, usual, update),
        rate=_rate(space, usual, update),
        batch_size=_nearest(space.batch_sizes, usual.batch_size),
        epochs=_nearest(space.epochs, usual.epochs),
        schedule=space.schedules[0],
    )
    return untuned, untuned.model_copy(update={"stages": plain})


def _pinned_for(space: Space, update: Update) -> bool:
    """Return whether a pinned learning rate is meant for this update: whether the pins allow one with the same default.

    A rate that is pinned with full fine-tuning only would be a poor one for LoRA.
    """
    own = UPDATE_OF[update.kind].learning_rate
    return any(UPDATE_OF[name].learning_rate == own for name in space.models[0].updates)


def _multiplier(space: Space, usual: Prior, update: Update) -> float:
    """Return the multiplier of the default; of pinned ones the nearest."""
    wish = usual.learning_rate_multiplier
    if isinstance(space.multipliers, Interval) or not _pinned_for(space, update):
        return wish
    return _nearest(space.multipliers, wish)


def _rate(space: Space, usual: Prior, update: Update) -> float | None:
    """Return the pinned learning rate that is nearest to the default's own; None where none is pinned for it."""
    if not space.rates or not _pinned_for(space, update):
        return None
    algorithm = usual.recipe.split("+")[0]
    return _nearest(space.rates, default_learning_rate(algorithm, update.kind, space.models[0].hidden_size))


def priors(space: Space) -> list[Design]:
    """Return the priors for this kind of data as designs of the space, in order, rotating through the base models.

    Duplicates, and designs equal to the plain-LoRA default, are left out; pins can make priors equal. Priors with RoPE
    scaling are left out if no model can be scaled. Raises IllegalDesign if a prior lies outside a continuous axis.
    """
    _, plain = baselines(space)
    designs = {plain.digest(): plain}
    longer = any("rope_factor" in model.edits for model in space.models)
    wanted = [prior for prior in _priors_for(space) if longer or not prior.rope_factor]
    for turn, prior in enumerate(wanted, start=1):
        design = space.sample(_Wishes(space, prior, turn))
        designs.setdefault(design.digest(), design)
    return list(designs.values())[1:]


class _Wishes:
    """A `Suggest` that returns the prior's value for each axis, or the nearest choice."""

    def __init__(self, space: Space, prior: Prior, turn: int) -> None:
        self._space = space
        self._prior = prior
        self._turn = turn

    def categorical(self, name: str, choices: Sequence[V]) -> V:
        axis, _, model = name.rstrip("]").partition("[")
        match axis:
            case "model" | "learning_rate":  # of pinned rates, none is more usual than another
                return choices[self._turn % len(choices)]
            case "edited":
                wished = self._edit(space.combined_edits(self._space.model(model)))
                return next(choice for choice in choices if choice == (space.YES if wished else space.NO))
            case "edit":
                return next(choice for choice in choices if choice == self._edit(choices))
            case edit if edit in EDIT_OF:
                steps: int = self._prior.wish(axis)
                return choices[min(max(steps - 1, 0), len(choices) - 1)]
            case "depth_rule" | "rope_rule" | "schedule":
                return choices[0]
            case "teacher":
                return choices[0]
            case "top_layers":
                return choices[-1]
            case "recipe" | "update" | "later_update" | "placement":
                return next((choice for choice in choices if choice == self._prior.wish(axis)), choices[0])
            case _:
                return _nearest(choices, self._prior.wish(axis))

    def _edit(self, possible: Sequence[object]) -> str:
        """The prior's edits that are possible here, joined by "+"; empty if there are none."""
        return "+".join(edit for edit in EDIT_OF if self._prior.wish(edit) and edit in possible)

    def log_uniform(self, name: str, low: float, high: float) -> float:
        wish: float = self._prior.wish(name)
        if not low <= wish <= high:
            raise IllegalDesign(f"a prior has {name} {wish:g}, outside the range {low:g} to {high:g}", param=name)
        return wish


def _nearest(choices: Sequence[V], wish: float) -> V:
    return min(choices, key=lambda choice: abs(math.log((float(choice) + LEAST) / (wish + LEAST))))
