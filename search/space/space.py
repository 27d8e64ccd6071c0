"""The designs that a job searches: a conditional (define-by-run) space, as in Optuna.

    model → edited, edits → recipe → update → rank or depth → learning rate → batch size, epochs
          → hyperparameters of the algorithms → update of later stages

`Space.sample` alone defines the order and the conditions of the axes: it asks a `Suggest` for one value after another.
`Space.encode` runs `sample` on the values of a given design. All stages of a recipe share one learning-rate multiplier.
Later stages continue the first stage's update, e.g. one adapter through `sft` and `dpo`. Or they train `lora` or
`full` from the merged weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final

from optuna.distributions import BaseDistribution
from pydantic import Field, TypeAdapter

from luthier.algorithms import Algorithm
from luthier.design import Architecture, Design, Optimiser, Schedule, Stage
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
SCHEDULE: Final = "schedule"
SAME: Final = "same"  # later stages continue to train the parameters of the first stage's update
LATER: Final = ("lora", "full")
LATER_RANK: Final = 16


class Space(Frozen):
    """The search space of a job, made by `Space.for_job`. Every axis lists its possible values and is never empty."""

    kind: DataKind
    family: Family = Field(description="family of all the models")
    models: tuple[ModelSpace, ...]
    recipes: tuple[str, ...] = Field(description="the usual one first")
    ranks: tuple[int, ...] = Field(description="of low-rank adapters")
    multipliers: Values = Field(description="learning rate relative to the default for the algorithm, update and model")
    rates: tuple[float, ...] = Field(
        default=(), description="pinned learning rates of the first stage, instead of `multipliers`; empty if none"
    )
    batch_sizes: tuple[int, ...]
    epochs: tuple[float, ...]
    schedules: tuple[Schedule, ...] = Field(description="of the learning rate; an axis where there are several")
    settings: dict[str, Values] = Field(description="the algorithms' hyperparameters, by axis")
    open_axes: tuple[str, ...] = Field(default=(), description="numeric axes that nobody pinned: they may grow")
    rows: int = Field(default=1, ge=1, description="training examples: rows, or pieces of long text")
    edits_asked: bool = Field(
        default=False, description="whether a pin on an edit, or a limit on size or memory, asks for edited models"
    )

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
        """Return the space for `rows` training rows of this kind, within the pins and constraints.

        `length` is the number of tokens of the long rows; context edits depend on it. `rewarded`: the task has a
        reward, so recipes that maximise one (RLHF) are legal.

        Raises UserError, or IllegalDesign with the possible values, if no design is left.
        """
        if rows < 1:
            raise UserError("There are no training rows.", param="training_file")
        family = validate.family(kind, models, pin)
        left = axes.model_spaces(kind, models, pin, constraints or Constraints(), length, family)
        taught = any(model.teachers for model in left)
        recipes = axes.recipe_names(kind, pin, family, rewarded=rewarded, taught=taught)
        recipes = axes.possible_recipes(recipes, left, pin)
        schedules = axes.schedules(pin)
        settings = axes.settings(recipes, pin)
        return cls(
            kind=kind,
            family=family,
            models=left,
            recipes=recipes,
            ranks=axes.ranks(pin),
            multipliers=axes.multipliers(pin),
            rates=axes.rates(pin),
            batch_sizes=axes.batch_sizes(rows, pin),
            epochs=axes.epochs(pin, schedules, rows),
            schedules=schedules,
            settings=settings,
            open_axes=axes.open_axes(pin, settings),
            rows=rows,
            edits_asked=axes.edits_asked(pin, constraints, left),
        )

    def sample(self, suggest: Suggest) -> Design:
        """Return the design made of one value for each axis that applies."""
        model = self.model(suggest.categorical("model", [model.name for model in self.models]))
        architecture = ask_architecture(suggest, model)
        recipe = suggest.categorical(_recipe_axis(model, self.recipes), model.recipes_of(self.recipes))
        update = self._update(suggest, model, recipe, edited=architecture.edited)
        rate = suggest.categorical("learning_rate", self.rates) if self.rates else None
        multiplier = 1.0 if self.rates else _number(suggest, "learning_rate_multiplier", self.multipliers)
        batch_size = suggest.categorical("batch_size", self.batch_sizes)
        epochs = suggest.categorical("epochs", self.epochs)
        schedule = self._schedule(suggest)
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
                rate=rate,
                batch_size=batch_size,
                epochs=epochs,
                schedule=schedule,
            ),
        )

    def decode(self, values: Mapping[str, Value]) -> Design:
        """Return the design with these values by axis. Raises IllegalDesign for a value outside the space."""
        return self.sample(Replay(values))

    def encode(self, design: Design) -> dict[str, Value]:
        """Return the values by axis from which `sample` makes this design. Raises IllegalDesign if there are none."""
        return self._replay(design).values

    def answers(self, design: Design) -> dict[str, Value]:
        """Return the design's value on each axis, whether or not the space allows it."""
        if not design.stages:
            raise IllegalDesign(
                "The untuned base model is the baseline of a search, not a design in it.", param="stages"
            )
        model, first = self.model(design.architecture.base), design.stages[0]
        possible = model.updates_on(design.recipe, edited=design.architecture.edited)
        answers: dict[str, Value] = {
            "model": model.name,
            **architecture_answers(design.architecture, model),
            _recipe_axis(model, self.recipes): design.recipe,
            _update_axis(model, possible): first.update.kind,
            "learning_rate_multiplier": _multiplier(self.multipliers, model, first),
            "learning_rate": first.optimiser.learning_rate,
            "batch_size": first.optimiser.batch_size,
            "epochs": first.optimiser.epochs,
            SCHEDULE: first.optimiser.schedule,
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

    def distributions(self, design: Design) -> dict[str, BaseDistribution]:
        """Return Optuna's distribution for each axis of `encode`."""
        return self._replay(design).distributions

    def parameters(self, design: Design) -> tuple[dict[str, Value], dict[str, BaseDistribution]]:
        """Return the values by axis and their distributions: what `encode` and `distributions` return, at once."""
        replay = self._replay(design)
        return replay.values, replay.distributions

    @property
    def teachers(self) -> dict[str, tuple[str, ...]]:
        """For each searched algorithm that needs a teacher, the base models that it may distil."""
        names = tuple(dict.fromkeys(name for model in self.models for name in model.teachers))
        searched = {kind for recipe in self.recipes for kind in recipe.split("+")}
        return {kind: names for kind in axes.TEACHER_PINS if kind in searched}

    def model(self, name: str) -> ModelSpace:
        """Return the model with this name. Raises IllegalDesign if it is not in the space."""
        for model in self.models:
            if model.name == name:
                return model
        known = ", ".join(model.name for model in self.models)
        raise IllegalDesign(
            f"The base model {name} is not in this search, which has {known}.", param="architecture.base"
        )

    def _replay(self, design: Design) -> Replay:
        replay = Replay(self.answers(design))
        if self.sample(replay) != design:
            raise IllegalDesign(
                f"The design is not in this search: {design.summary()}. Alpha, warm-up and weight decay must have "
                "their defaults, learning rates three significant digits, and the later stages one update.",
                param="stages",
            )
        return replay

    def _update(self, suggest: Suggest, model: ModelSpace, recipe: str, *, edited: bool) -> Update:
        possible = model.updates_on(recipe, edited=edited)
        spec = UPDATE_OF[suggest.categorical(_update_axis(model, possible), possible)]
        values: dict[str, Value] = {"kind": spec.kind}
        if spec.size is not None:
            axis, sizes = _size_axis(spec.size, model), self._sizes(spec.size, model)
            values[spec.size.field] = suggest.categorical(axis, sizes)
        if issubclass(spec.member, Placed):
            axis = _placement_axis(model, spec.kind)
            values["placement"] = suggest.categorical(axis, model.placements_of(spec.kind))
        return _UPDATES.validate_python(values)

    def _sizes(self, size: Size, model: ModelSpace) -> tuple[int, ...]:
        """Return the choices for the size of an update, up to `size.most`; only `size.most` if all are larger."""
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

    def _schedule(self, suggest: Suggest) -> Schedule:
        if len(self.schedules) == 1:
            return self.schedules[0]
        chosen = suggest.categorical(SCHEDULE, self.schedules)
        return next(schedule for schedule in self.schedules if schedule == chosen)

    def _later(self, suggest: Suggest, model: ModelSpace, first: Update) -> Update:
        """Return the update of the stages after the first: the same, or one that starts from the merged weights."""
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
    schedule: Schedule,
    rate: float | None = None,
) -> tuple[Stage, ...]:
    """Return one stage for each algorithm: the first with `update`, the others with `later`.

    The first stage's learning rate is `rate`, or that of the multiplier, rounded. The others are scaled from it by the
    ratio of the defaults.
    """
    updates = [update, *[later] * (len(algorithms) - 1)]
    defaults = [
        default_learning_rate(algorithm.kind, used.kind, model.hidden_size)
        for algorithm, used in zip(algorithms, updates, strict=True)
    ]
    first = significant(defaults[0] * multiplier) if rate is None else rate
    return tuple(
        Stage(
            algorithm=algorithm,
            update=used,
            optimiser=Optimiser(
                learning_rate=first if default == defaults[0] else significant(first * default / defaults[0]),
                batch_size=batch_size,
                epochs=epochs,
                schedule=schedule,
            ),
        )
        for algorithm, used, default in zip(algorithms, updates, defaults, strict=True)
    )


def algorithm(kind: str, values: Mapping[str, Value] | None = None) -> Algorithm:
    """Return the algorithm of this kind with these hyperparameters; those not in `values` have their defaults."""
    return _ALGORITHMS.validate_python({"kind": kind, **(values or {})})


def later_updates(model: ModelSpace, first: Update) -> tuple[str, ...]:
    """Return the updates that later stages may have instead of the first stage's.

    They depend only on the kind of the first update, because pins on updates and placements apply to all models.
    """
    if first.kind in validate.UNMERGEABLE:
        return ()
    return tuple(
        kind
        for kind in LATER
        if kind in model.updates and kind != first.kind
        if kind not in axes.PLACED or "all" in model.placements_of(kind)
    )


def later_axis(first: Update) -> str:
    """Return the name of the axis. After lora or full it has one choice fewer, so it has another name."""
    return f"later_update[{first.kind}]" if first.kind in LATER else "later_update"


def _teacher_axis(model: ModelSpace) -> str:
    return f"teacher[{model.name}]"


def _recipe_axis(model: ModelSpace, recipes: tuple[str, ...]) -> str:
    """Return the name of the axis: Optuna needs the same choices for a name, and without a teacher there are fewer."""
    return "recipe" if model.recipes_of(recipes) == recipes else "recipe[no teacher]"


def _size_axis(size: Size, model: ModelSpace) -> str:
    return size.axis.format(model=model.name)


def _placement_axis(model: ModelSpace, update: str) -> str:
    """Return the name of the axis. Adapters on the embeddings are one choice more, so it has another name then."""
    return "placement[embeddings]" if "embeddings" in model.placements_of(update) else "placement"


def _update_axis(model: ModelSpace, possible: tuple[str, ...]) -> str:
    """Return the name of the axis. Biases, edits and some recipes change the choices, and so the name."""
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
    """Return the multiplier that gives the stage's rounded learning rate; one that the axis names is preferred."""
    default = default_learning_rate(stage.algorithm.kind, stage.update.kind, model.hidden_size)
    rate = stage.optimiser.learning_rate
    named = (axis.low, axis.high) if isinstance(axis, Interval) else axis
    return next((value for value in named if significant(default * value) == rate), rate / default)


NO, YES = "no", "yes"


def combined_edits(model: ModelSpace) -> tuple[str, ...]:
    """Return the optional edits, each alone and then combined: `layers`, …, `layers+kv_heads`, …"""
    free = [spec.edit for spec in EDITS if spec.edit in model.edits and spec.edit not in model.required]
    return tuple("+".join(some) for size in range(1, len(free) + 1) for some in combinations(free, size))


def ask_architecture(suggest: Suggest, model: ModelSpace) -> Architecture:
    """Return the architecture, with one value for each axis that applies.

    Edits rarely pay on a small budget, so `edited` is an axis of its own with two choices. Half of all random designs
    then keep the base model unedited, however many edits there are.
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
    """Return the values by axis from which `ask_architecture` makes this architecture."""
    made: dict[str, Any] = {spec.edit: getattr(architecture, spec.edit) for spec in EDITS}
    free = [edit for edit, value in made.items() if value is not None and edit not in model.required]
    found: dict[str, Value] = {f"edited[{model.name}]": YES if free else NO, f"edit[{model.name}]": "+".join(free)}
    for spec in EDITS:
        if made[spec.edit] is not None:
            found[f"{spec.edit}[{model.name}]"] = made[spec.edit]
            if spec.rule is not None:
                found[spec.rule[0]] = getattr(architecture, spec.rule[0])
    return found
