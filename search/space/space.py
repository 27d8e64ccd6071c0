"""The designs that a job searches: one conditional tree, walked forwards to sample and backwards to encode.

    model → edited, edits → program → update → rank or depth → learning rate → batch, epochs → the algorithms' own
          → the update of later stages

`Space.sample` is the only description of the tree. It asks a `Suggest` one question after another; `Space.encode` has
the same questions answered by a finished design. The stages of a program share one learning-rate multiplier. Those
after the first go on with its update, so that an adapter goes on from `sft` into `dpo`, or have `lora` or `full` of
their own, which start from the merged weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final

from optuna.distributions import BaseDistribution
from pydantic import Field, TypeAdapter

from luthier.algorithms import Algorithm
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.errors import IllegalDesign, UserError
from luthier.models.base_model import BaseModelEntry
from luthier.task import Constraints, DataKind, Family, Pin
from luthier.updates import Full, Lora, Placed, Update
from luthier.values import Frozen
from search.methods import ALGORITHM_OF, EDITS, UPDATE_OF, Interval, Values
from search.methods.spec import Size
from search.space import axes, validate
from search.space.axes import ModelSpace
from search.space.learning_rate import default_learning_rate, significant
from search.space.samplers import Replay, Suggest, Value

_ALGORITHMS: Final[TypeAdapter[Algorithm]] = TypeAdapter(Algorithm)
_UPDATES: Final[TypeAdapter[Update]] = TypeAdapter(Update)
SAME: Final = "same"  # of later stages: the first stage's update, which goes on with its parameters
LATER: Final = ("lora", "full")
LATER_RANK: Final = 16


class Space(Frozen):
    """What remains to be searched; every axis lists what it allows, and never nothing. Made by `Space.for_job`."""

    kind: DataKind
    family: Family = Field(description="of all the models")
    models: tuple[ModelSpace, ...]
    recipes: tuple[str, ...] = Field(description="the usual one first")
    ranks: tuple[int, ...] = Field(description="of low-rank adapters")
    multipliers: Values = Field(description="learning rate, relative to the default of algorithm, update and model")
    batch_sizes: tuple[int, ...]
    epochs: tuple[float, ...]
    settings: dict[str, Values] = Field(description="the hyperparameters of single algorithms, by name of the axis")

    @classmethod
    def for_job(
        cls,
        kind: DataKind,
        rows: int,
        models: Sequence[BaseModelEntry],
        pin: Pin,
        constraints: Constraints | None = None,
        *,
        length: int = 0,
        rewarded: bool = False,
    ) -> Space:
        """Return the designs for `rows` training rows of this kind that the pins and constraints leave.

        `length` is how many tokens the long rows have; context edits depend on it. `rewarded`: the task has a reward,
        so that recipes which maximise one are legal.

        Raises UserError, or IllegalDesign with the values to choose from, where nothing is left.
        """
        if rows < 1:
            raise UserError("there are no training rows", param="training_file")
        family = validate.family(kind, models, pin)
        left = axes.model_spaces(kind, models, pin, constraints or Constraints(), length, family)
        taught = any(model.teachers for model in left)
        recipes = axes.recipe_names(kind, pin, family, rewarded=rewarded, taught=taught)
        recipes = axes.possible_recipes(recipes, left, pin)
        return cls(
            kind=kind,
            family=family,
            models=left,
            recipes=recipes,
            ranks=axes.ranks(pin),
            multipliers=axes.multipliers(pin),
            batch_sizes=axes.batch_sizes(rows, pin),
            epochs=axes.epochs(pin),
            settings=axes.settings(recipes, pin),
        )

    def sample(self, suggest: Suggest) -> Design:
        """Ask about each axis that applies, and put the design together."""
        model = self.model(suggest.categorical("model", [model.name for model in self.models]))
        architecture = ask_architecture(suggest, model)
        recipe = suggest.categorical(_recipe_axis(model, self.recipes), model.recipes_of(self.recipes))
        update = self._update(suggest, model, recipe, edited=architecture.edited)
        multiplier = _number(suggest, "learning_rate_multiplier", self.multipliers)
        batch_size = suggest.categorical("batch_size", self.batch_sizes)
        epochs = suggest.categorical("epochs", self.epochs)
        algorithms = [self._algorithm(suggest, kind, model) for kind in recipe.split("+")]
        later = self._later(suggest, model, update) if len(algorithms) > 1 else update
        return Design(
            architecture=architecture,
            stages=stages(
                model,
                algorithms,
                update,
                later,
                multiplier=multiplier,
                batch_size=batch_size,
                epochs=epochs,
            ),
        )

    def decode(self, values: Mapping[str, Value]) -> Design:
        """The design with these answers. Raises IllegalDesign naming an answer that the space does not allow."""
        return self.sample(Replay(values))

    def encode(self, design: Design) -> dict[str, Value]:
        """The answers that `sample` makes this design of; raises IllegalDesign where none do."""
        return self._replay(design).values

    def answers(self, design: Design) -> dict[str, Value]:
        """What a design says of each axis, whether or not the space allows it."""
        return self._answers(design)

    def distributions(self, design: Design) -> dict[str, BaseDistribution]:
        """Optuna's distribution for each answer of `encode`."""
        return self._replay(design).distributions

    @property
    def teachers(self) -> dict[str, tuple[str, ...]]:
        """By algorithm that needs one, all the base models that it may distil."""
        names = tuple(dict.fromkeys(name for model in self.models for name in model.teachers))
        searched = {kind for recipe in self.recipes for kind in recipe.split("+")}
        return {kind: names for kind in axes.TEACHER_PINS if kind in searched}

    def model(self, name: str) -> ModelSpace:
        """Raises IllegalDesign where no model of the space has this name."""
        for model in self.models:
            if model.name == name:
                return model
        known = ", ".join(model.name for model in self.models)
        raise IllegalDesign(f"base model {name} is not in this search, which has {known}", param="architecture.base")

    def _replay(self, design: Design) -> Replay:
        replay = Replay(self._answers(design))
        if self.sample(replay) != design:
            raise IllegalDesign(
                f"not in this search, which keeps alpha, warm-up and weight decay at their defaults, learning rates at "
                f"three digits and all stages but the first alike: {design.summary()}",
                param="stages",
            )
        return replay

    def _answers(self, design: Design) -> dict[str, Value]:
        if not design.stages:
            raise IllegalDesign("the untuned model is the zero of a search, not a part of it", param="stages")
        model, first = self.model(design.architecture.base), design.stages[0]
        possible = model.updates_on(design.recipe, edited=design.architecture.edited)
        answers: dict[str, Value] = {
            "model": model.name,
            **architecture_answers(design.architecture, model),
            _recipe_axis(model, self.recipes): design.recipe,
            _update_axis(model, possible): first.update.kind,
            "learning_rate_multiplier": _multiplier(self.multipliers, model, first),
            "batch_size": first.optimiser.batch_size,
            "epochs": first.optimiser.epochs,
        }
        if (size := UPDATE_OF[first.update.kind].size) is not None:
            answers[_size_axis(size, model)] = getattr(first.update, size.field)
        if isinstance(first.update, Placed):
            answers[_placement_axis(model, first.update.kind)] = first.update.placement
        if len(design.stages) > 1 and later_updates(model, first.update):
            later = design.stages[1].update
            answers[later_axis(first.update)] = SAME if later == first.update else later.kind
        for stage in design.stages:
            for setting in ALGORITHM_OF[stage.algorithm.kind].searched:
                answers[setting.axis] = getattr(stage.algorithm, setting.field)
        if design.teacher is not None:
            answers[_teacher_axis(model)] = design.teacher
        return answers

    def _update(self, suggest: Suggest, model: ModelSpace, recipe: str, *, edited: bool) -> Update:
        possible = model.updates_on(recipe, edited=edited)
        spec = UPDATE_OF[suggest.categorical(_update_axis(model, possible), possible)]
        values: dict[str, Value] = {"kind": spec.kind}
        if spec.size is not None:
            axis, sizes = _size_axis(spec.size, model), self._sizes(spec.size, model)
            values[spec.size.field] = suggest.categorical(axis, sizes)
        if issubclass(spec.member, Placed):
            values["placement"] = _placement(suggest, model, spec.kind)
        return _UPDATES.validate_python(values)

    def _sizes(self, size: Size, model: ModelSpace) -> tuple[int, ...]:
        """The choices for the size of an update: those at most `size.most`, or that alone where none is."""
        match size.values:
            case "ranks":
                found = self.ranks
            case "layers":
                found = model.top_layers
            case listed:
                found = listed
        if size.most is None:
            return found
        return tuple(value for value in found if value <= size.most) or (size.most,)

    def _later(self, suggest: Suggest, model: ModelSpace, first: Update) -> Update:
        """The update of the stages after the first: its own, or another that starts where it ends."""
        others = later_updates(model, first)
        if not others:
            return first
        match suggest.categorical(later_axis(first), (SAME, *others)):
            case "lora":
                return Lora(rank=LATER_RANK)
            case "full":
                return Full()
            case _:
                return first

    def _algorithm(self, suggest: Suggest, kind: str, model: ModelSpace) -> Algorithm:
        values: dict[str, Value] = {}
        if ALGORITHM_OF[kind].needs_teacher:
            values["teacher"] = suggest.categorical(_teacher_axis(model), model.teachers)
        for setting in ALGORITHM_OF[kind].searched:
            axis = self.settings[setting.axis]
            value = _number(suggest, setting.axis, axis)
            values[setting.field] = significant(value) if isinstance(axis, Interval) else value
        return algorithm(kind, values)


def stages(
    model: ModelSpace,
    algorithms: Sequence[Algorithm],
    update: Update,
    later: Update,
    *,
    multiplier: float,
    batch_size: int,
    epochs: float,
) -> tuple[Stage, ...]:
    """One stage for each algorithm: the first with `update`, the others with `later`. The first one's learning rate is
    rounded and the others follow from it."""
    updates = [update, *[later] * (len(algorithms) - 1)]
    defaults = [
        default_learning_rate(algorithm.kind, used.kind, model.hidden_size)
        for algorithm, used in zip(algorithms, updates, strict=True)
    ]
    first = significant(defaults[0] * multiplier)
    return tuple(
        Stage(
            algorithm=algorithm,
            update=used,
            optimiser=Optimiser(
                learning_rate=significant(first * default / defaults[0]), batch_size=batch_size, epochs=epochs
            ),
        )
        for algorithm, used, default in zip(algorithms, updates, defaults, strict=True)
    )


def algorithm(kind: str, values: Mapping[str, Value] | None = None) -> Algorithm:
    """The algorithm of this kind; `values` of its hyperparameters, where they are not to be its defaults."""
    return _ALGORITHMS.validate_python({"kind": kind, **(values or {})})


def later_updates(model: ModelSpace, first: Update) -> tuple[str, ...]:
    """The updates besides the first one's own that later stages may have. Always the same for one kind of update,
    since pins on updates and places hold for all models."""
    if first.kind in validate.UNMERGEABLE:
        return ()
    return tuple(
        kind
        for kind in LATER
        if kind in model.updates and kind != first.kind
        if kind not in axes.PLACED or "all" in model.placements_of(kind)
    )


def later_axis(first: Update) -> str:
    """What is lora or full already has one choice less, and one question has the same choices always."""
    return f"later_update[{first.kind}]" if first.kind in LATER else "later_update"


def _teacher_axis(model: ModelSpace) -> str:
    return f"teacher[{model.name}]"


def _recipe_axis(model: ModelSpace, recipes: tuple[str, ...]) -> str:
    """A model without a teacher has fewer recipes: one question has the same choices always."""
    return "recipe" if model.recipes_of(recipes) == recipes else "recipe[no teacher]"


def _size_axis(size: Size, model: ModelSpace) -> str:
    return size.axis.format(model=model.name)


def _placement(suggest: Suggest, model: ModelSpace, update: str) -> str:
    return suggest.categorical(_placement_axis(model, update), model.placements_of(update))


def _placement_axis(model: ModelSpace, update: str) -> str:
    """Only some models and updates take adapters on the embeddings; one question has the same choices always."""
    return "placement[embeddings]" if "embeddings" in model.placements_of(update) else "placement"


def _update_axis(model: ModelSpace, possible: tuple[str, ...]) -> str:
    """Models with biases have one choice more, edited ones and some programs fewer: one question has the same choices
    always."""
    special = ["biases"] * ("bitfit" in possible)
    special += [f"not {name}" for name in model.updates if name not in possible]
    return f"update[{','.join(special)}]" if special else "update"


def _number(suggest: Suggest, name: str, axis: Values) -> float:
    match axis:
        case Interval(low=low, high=high):
            return suggest.log_uniform(name, low, high)
        case _:
            return suggest.categorical(name, axis)


def _multiplier(axis: Values, model: ModelSpace, stage: Stage) -> float:
    """The multiplier that gives the stage's rounded learning rate: one that the axis names, where there is one."""
    default = default_learning_rate(stage.algorithm.kind, stage.update.kind, model.hidden_size)
    rate = stage.optimiser.learning_rate
    named = (axis.low, axis.high) if isinstance(axis, Interval) else axis
    return next((value for value in named if significant(default * value) == rate), rate / default)


NO, YES = "no", "yes"


def combined_edits(model: ModelSpace) -> tuple[str, ...]:
    """The edits that are free to be made or not, each alone and then together: `layers`, …, `layers+kv_heads`, …"""
    free = [spec.edit for spec in EDITS if spec.edit in model.edits and spec.edit not in model.required]
    return tuple("+".join(some) for size in range(1, len(free) + 1) for some in combinations(free, size))


def ask_architecture(suggest: Suggest, model: ModelSpace) -> Architecture:
    """The architecture that the answers describe.

    Edits rarely pay on a small budget, so `edited` is one question with two answers: however many edits there are, half
    of what is drawn at random keeps the base model as it is.
    """
    chosen = set(model.required)
    choices = combined_edits(model)
    if choices and suggest.categorical(f"edited[{model.name}]", (NO, YES)) == YES:
        chosen |= set(suggest.categorical(f"edit[{model.name}]", choices).split("+"))
    specs = [spec for spec in EDITS if spec.edit in chosen]
    made: dict[str, Any] = {
        spec.edit: suggest.categorical(f"{spec.edit}[{model.name}]", model.edits[spec.edit]) for spec in specs
    }
    made |= {spec.rule[0]: suggest.categorical(*spec.rule) for spec in specs if spec.rule is not None}
    return Architecture(base=model.name, **made)


def architecture_answers(architecture: Architecture, model: ModelSpace) -> Mapping[str, Value]:
    """The answers that `ask_architecture` makes this architecture of."""
    made: dict[str, Any] = {spec.edit: getattr(architecture, spec.edit) for spec in EDITS}
    free = [edit for edit, value in made.items() if value is not None and edit not in model.required]
    found: dict[str, Value] = {f"edited[{model.name}]": YES if free else NO, f"edit[{model.name}]": "+".join(free)}
    for spec in EDITS:
        if made[spec.edit] is not None:
            found[f"{spec.edit}[{model.name}]"] = made[spec.edit]
            if spec.rule is not None:
                found[spec.rule[0]] = getattr(architecture, spec.rule[0])
    return found
