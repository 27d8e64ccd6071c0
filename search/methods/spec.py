"""The declarations of a learning algorithm, a weight update and an edit of the architecture.

The classes in `luthier.algorithms` and `luthier.updates` say what a member is called, its hyperparameters, its paper
and how it is described to people. A spec adds what the designer needs. Both are looked up by the `kind` of the class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from luthier.algorithms import AlgorithmMember
from luthier.models.base_model import ModelFacts
from luthier.task import DataKind, Family, pin_name
from luthier.updates import UpdateMember
from luthier.values import Frozen
from search.methods.amounts import Examples, Moving, Passes, Shape, Work, Workload


class StageGoal(IntEnum):
    """What a stage is for. The stages of a recipe follow this order, each goal at most once."""

    KNOWLEDGE = 1
    ANSWERS = 2
    PREFERENCES = 3
    SCORES = 4
    REWARDS = 5

    @property
    def words(self) -> str:
        match self:
            case StageGoal.KNOWLEDGE:
                return "know the text"
            case StageGoal.ANSWERS:
                return "answer like the examples"
            case StageGoal.PREFERENCES:
                return "prefer the better answer"
            case StageGoal.SCORES:
                return "learn to score answers"
            case StageGoal.REWARDS:
                return "earn rewards"


class Interval(Frozen):
    """Every number from `low` to `high`, on a logarithmic scale."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)


Values = Interval | tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A searched hyperparameter of one algorithm.

    Each has its own axis, because the same name (e.g. beta) means different things in different algorithms.
    `luthier.task.pin_name` names the axis and its pin.
    """

    member: type[AlgorithmMember]
    field: str
    default: Values

    @property
    def algorithm(self) -> str:
        return self.member.kind_name()

    @property
    def axis(self) -> str:
        return pin_name(self.algorithm, self.field)

    def takes(self, value: float | str) -> bool:
        """Return whether the algorithm's class allows this value."""
        declared = self.member.model_fields[self.field]
        annotated: Any = Annotated[declared.annotation, *declared.metadata]
        try:
            TypeAdapter[Any](annotated).validate_python(value)
        except ValidationError:
            return False
        return True

    @property
    def limits(self) -> str:
        """The allowed values in words: `numbers from 2`."""
        words = {"ge": "from", "gt": "above", "lt": "below", "le": "to"}
        bounds = [
            f"{word} {getattr(limit, name):g}"
            for limit in self.member.model_fields[self.field].metadata
            for name, word in words.items()
            if getattr(limit, name, None) is not None
        ]
        return f"numbers {' and '.join(bounds)}" if bounds else "names"


@dataclass(frozen=True, kw_only=True)
class AlgorithmSpec:
    """A learning algorithm: the data it suits and why not others, its default learning rate, settings and cost.

    Set `needs_teacher` for an algorithm whose hyperparameter `teacher` names another base model.
    """

    member: type[AlgorithmMember]
    goal: StageGoal
    family: Family = "decoder"
    fits: Mapping[DataKind, str]  # what it learns from each kind of data
    refused: Mapping[DataKind, str]  # why it does not suit the other kinds
    rewarded: bool = False  # needs a grader, an environment or a reward model
    needs_teacher: bool = False
    followed_by: tuple[str, ...] = ()  # one of these algorithms must follow directly; empty: it may be the last stage
    otherwise: str = ""  # the reason given if none of them follows
    not_after: Mapping[str, str] = field(default_factory=dict)  # algorithms of earlier stages, and why not

    learning_rate: float  # default peak rate, relative to that of sft
    settings: Mapping[str, Values] = field(default_factory=dict)  # searched hyperparameters, by field

    examples: Callable[
        [Any, Workload], Examples
    ]  # what a stage trains on; the first argument is the algorithm in the design
    reference_passes: Callable[[Any, float], float] = lambda algorithm, epochs: 0.0
    """Forward passes without gradient per example seen, in a stage with so many epochs."""
    keeps_start: Callable[[Any], bool] = lambda algorithm: False
    """Whether a copy of the trainable weights from the start of the stage is kept (as the reference)."""
    rollouts: Callable[[Any], float] = lambda algorithm: 0.0
    """Answers generated per example seen."""

    @property
    def kind(self) -> str:
        return self.member.kind_name()

    @property
    def serves(self) -> Literal["domain", "behaviour"]:
        """The goal of the task that a recipe with this last stage serves: domain knowledge, or behaviour."""
        return "domain" if self.goal is StageGoal.KNOWLEDGE else "behaviour"

    @property
    def searched(self) -> tuple[Setting, ...]:
        return tuple(Setting(member=self.member, field=name, default=values) for name, values in self.settings.items())


RANKS_OF_SEARCH: Final = "ranks"  # the values of this size are those of the rank axis
LAYERS_OF_MODEL: Final = "layers"  # the values of this size depend on the depth of the model


@dataclass(frozen=True, kw_only=True)
class Size:
    """The number that sets the size of an update: its rank, block, virtual tokens or layers.

    `values` lists the choices, or names their source. Choices above `most` are left out. `{model}` in `axis` is
    replaced by the model's name, because Optuna needs the same choices for every axis of one name.
    """

    field: str
    axis: str
    values: tuple[int, ...] | Literal["ranks", "layers"] = RANKS_OF_SEARCH
    most: int | None = None


@dataclass(frozen=True, kw_only=True)
class UpdateCost:
    """The cost of a weight update. The first argument of each function is the update in the design."""

    moving: Callable[[Any, Shape], Moving]
    forward: Callable[[Any, Moving, Passes], Work] = lambda update, moving, done: Work()
    """Work added to forward passes; backward passes take twice as much."""
    calls: float = 6.0  # operations that an adapter adds to a pass
    kept_per_token: Callable[[Any, Moving], float] = lambda update, moving: 0.0
    """Numbers kept for the backward pass, per token."""
    kept_once: Callable[[Any, Moving], float] = lambda update, moving: 0.0
    """Numbers kept for the backward pass, independent of the number of tokens."""
    reaches: Callable[[Any, Shape], float] = lambda update, model: 1.0
    """Share of the layers that the backward pass goes through."""
    weight_gradients: Literal["none", "layers", "all"] = "none"  # which of the model's own matrices need gradients
    trains_norms: bool = False  # also keeps the normalised input of each norm
    optimiser: tuple[float, float] = (1.0, 1.0)  # factors on the work of an optimiser step: per number and per tensor
    applying: Callable[[Any, Moving], float] = lambda update, moving: 0.0
    """FLOPs of adding it to the model and merging it."""


Branch = Literal[
    "full",
    "partial",  # some of the layers
    "scales",  # vectors: norms, biases, rescalings
    "tokens",  # virtual tokens
    "low_rank",  # LoRA and its near-twins, which tie once their learning rates are tuned
    "adapters",  # other adapters: rotations, and scaled random matrices
]


@dataclass(frozen=True, kw_only=True)
class UpdateSpec:
    """A weight update: the models and algorithms it suits, its default learning rate, size and cost."""

    member: type[UpdateMember]
    possible: Callable[[ModelFacts], bool] = lambda facts: True
    otherwise: str = ""  # the reason for refusing other models, with `{model}`
    refused: Mapping[str, str] = field(default_factory=dict)  # algorithms that it does not suit, and why
    four_bit: bool = False  # needs CUDA and bitsandbytes; searched only if all workers have them, or if pinned
    mergeable: bool = True  # otherwise the base model cannot be edited, and all stages need this same update

    learning_rate: float  # default peak rate, relative to the rule for full fine-tuning
    group: Branch  # of similar updates: the search shares its proposals among these groups
    size: Size | None = None
    cost: UpdateCost

    @property
    def kind(self) -> str:
        return self.member.kind_name()


@dataclass(frozen=True, kw_only=True)
class RowLengths:
    """Long rows of the data, in tokens: what a model sees at once, and what all models can read after RoPE scaling."""

    seen: int
    readable: int


@dataclass(frozen=True, kw_only=True)
class EditSpec:
    """An edit of the architecture: the models that allow it, and its values.

    `edit` is the field of `luthier.design.Architecture`. `own` is the value that keeps the base model unchanged.
    """

    edit: str
    does: str
    possible: Callable[[ModelFacts], bool]
    otherwise: str  # the reason for refusing other models, with `{model}` and `{architecture}`
    own: Callable[[ModelFacts], float]
    searched: Callable[[ModelFacts, RowLengths], tuple[float, ...]]  # the default values, in this order
    takes: Callable[[ModelFacts, float], bool]  # whether a value may be pinned
    limits: Callable[[ModelFacts], str]  # these values in words; empty if there are none besides `always`
    always: str = ""  # a value that all models allow, in words
    ascending: bool = False  # order of pinned values
    rule: tuple[str, tuple[str, ...]] | None = None  # a second field that selects the method, and its values
