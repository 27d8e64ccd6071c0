"""The values that each axis of a search space may take: the defaults, or the values that the user pinned.

Every pinned value must be usable with at least one model and recipe. Otherwise the request is refused, and the error
lists the possible values. The order of pinned values has no effect, except for models: the first one is tried first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar, get_args

from pydantic import Field

from luthier.design import SCHEDULES, Schedule
from luthier.errors import IllegalDesign, UserError, unknown_base_model
from luthier.models.base_model import BaseModelEntry
from luthier.task import Constraints, DataKind, Family, JudgeSpec, Pin, pin_name
from luthier.updates import Placed, Placement
from luthier.values import Frozen
from search.methods import ALGORITHMS, EDITS, SETTINGS, UPDATE_OF, EditSpec, Interval, RowLengths, Values
from search.space import validate

T = TypeVar("T", str, int, float)

FOUR_BIT: Final = frozenset(kind for kind, spec in UPDATE_OF.items() if spec.four_bit)
PLACEMENTS: Final[tuple[str, ...]] = get_args(Placement)
PLACED: Final = tuple(kind for kind, spec in UPDATE_OF.items() if issubclass(spec.member, Placed))
TEACHER_PINS: Final = {spec.kind: pin_name(spec.kind, "teacher") for spec in ALGORITHMS if spec.needs_teacher}
MULTIPLIER, BATCH_SIZE, RANK = "learning_rate_multiplier", "batch_size", "rank"  # axes that are numbers
RANKS: Final = (4, 8, 16, 32, 64)
MOST_RANK: Final = 1024
BATCH_SIZES: Final = (4, 8, 16, 32)
EPOCHS: Final = (1.0, 2.0, 3.0)
SEARCHED_SCHEDULES: Final[tuple[Schedule, ...]] = ("constant",)
# Where each trial ends at its best moment, the epochs only limit it: enough for SEEN rows, within LIMITS.
SEEN, LIMITS = 12000, (3, 60)
MULTIPLIERS: Final = Interval(low=0.2, high=20.0)


class ModelSpace(Frozen):
    """A base model with the edits that are searched and the weight updates that suit it."""

    name: str
    hidden_size: int
    context: int = Field(description="longest row that the base model reads, in tokens")
    own: dict[str, int | float] = Field(description="for each edit, the value that keeps the base model unchanged")
    choices: dict[str, tuple[int | float, ...]] = Field(description="for each edit, the values to search")
    updates: tuple[str, ...] = Field(description="weight updates that suit the model")
    placements: tuple[str, ...] = Field(description="where low-rank adapters may sit")
    teachers: tuple[str, ...] = Field(default=(), description="base models that it can distil")
    lora: bool = Field(default=True, description="whether plain LoRA, the default of a search, suits the model")

    @property
    def reach(self) -> int:
        """The longest row, in tokens, that the model can read with the largest RoPE scaling searched."""
        return round(self.context * max(self.choices["rope_factor"]))

    @property
    def edits(self) -> dict[str, tuple[float, ...]]:
        """For each edit, the searched values that change the base model."""
        changes = {
            edit: tuple(value for value in values if value != self.own[edit]) for edit, values in self.choices.items()
        }
        return {edit: values for edit, values in changes.items() if values}

    @property
    def required(self) -> tuple[str, ...]:
        """The edits that every design makes, because the pins exclude the base model's own value."""
        return tuple(edit for edit, values in self.choices.items() if self.own[edit] not in values)

    def placements_of(self, update: str) -> tuple[str, ...]:
        """Return where the adapters of this update may sit; empty for an update without placement."""
        return _placements_of(update, self.placements)

    def recipes_of(self, recipes: Sequence[str]) -> tuple[str, ...]:
        """Return the recipes that the model can be trained with; distillation needs a teacher."""
        return tuple(name for name in recipes if self.teachers or not validate.needs_teacher(name))

    def updates_on(self, recipe: str | None = None, *, edited: bool) -> tuple[str, ...]:
        """Return the updates that suit the model, edited or not; with a `recipe`, only those that suit it too."""
        return tuple(
            name
            for name in self.updates
            if not (edited and validate.edited_refusal(name))
            if recipe is None or validate.recipe_refusal(name, recipe) is None
        )

    @property
    def top_layers(self) -> tuple[int, ...]:
        """How many of the last layers `top_layers` may train: powers of two up to half of the smallest depth."""
        smallest = int(min(self.choices["layers"]))
        return tuple(2**power for power in range(max(1, (smallest // 2).bit_length())))


def recipe_names(
    kind: DataKind, pin: Pin, family: Family, *, rewarded: bool = False, taught: bool = False
) -> tuple[str, ...]:
    """Return the recipes to search, the usual one first: the default ones for the data, or the pinned ones.

    Raises IllegalDesign if a pinned recipe does not suit the data.
    """
    legal = validate.recipes(kind, family, rewarded=rewarded, taught=taught)
    if pin.algorithm is None:
        return legal
    refusals = [validate.refusal(recipe, kind, rewarded=rewarded, taught=taught) for recipe in pin.algorithm]
    reasons = [reason for reason in refusals if reason]
    if reasons:
        raise IllegalDesign(reasons[0], param="search.pin.algorithm")
    _check("algorithm", pin.algorithm, lambda _: True, legal)  # refuses an empty pin
    usual_first = (*legal, *pin.algorithm)
    return tuple(dict.fromkeys(name for name in usual_first if name in pin.algorithm))


def possible_recipes(recipes: Sequence[str], models: Sequence[ModelSpace], pin: Pin) -> tuple[str, ...]:
    """Return the recipes that a model can be trained with, such that every such model has an update, edited or not.

    Raises IllegalDesign if a pinned recipe or a pinned update can never be used.
    """

    def fits(recipe: str) -> bool:
        return any(model.recipes_of([recipe]) for model in models) and all(
            model.updates_on(recipe, edited=edited)
            for model in models
            if model.recipes_of([recipe])
            for edited in ([True] if model.required else [False, True] if model.edits else [False])
        )

    possible = tuple(filter(fits, recipes))
    names = [name for name in UPDATE_OF if any(name in model.updates for model in models)]
    idle = [recipe for recipe in recipes if recipe not in possible]
    if idle and (pin.algorithm is not None or not possible):
        reasons = filter(None, (validate.recipe_refusal(name, idle[0]) for name in names))
        raise IllegalDesign(f"update: {'; '.join(reasons)}", param="search.pin.update")
    for name in pin.update or ():
        refusals = [validate.recipe_refusal(name, recipe) for recipe in possible]
        if all(refusals):
            raise IllegalDesign(f"update: {refusals[0]}", param="search.pin.update")
    return possible


def with_devices(pin: Pin, entries: Sequence[BaseModelEntry], *, four_bit: bool) -> Pin:
    """Return the pin with four-bit updates (QLoRA) added, if all workers support them and no update is pinned.

    Raises IllegalDesign if a four-bit update is pinned and a worker does not support it.
    """
    asked = [name for name in pin.update or () if name in FOUR_BIT]
    if asked and not four_bit:
        raise IllegalDesign(
            f"update: {_listed(asked)} quantises the base model to four bits. This requires CUDA and the "
            "package bitsandbytes on every live worker (see `GET /v1/workers`).",
            param="search.pin.update",
        )
    if pin.update is not None or not four_bit:
        return pin
    return pin.model_copy(update={"update": (*update_names(pin, entries), *sorted(FOUR_BIT))})


def update_names(pin: Pin, entries: Sequence[BaseModelEntry]) -> tuple[str, ...]:
    """Return the updates that suit at least one model; four-bit ones only if pinned."""
    refusals = {name: [validate.update_refusal(name, entry) for entry in entries] for name in UPDATE_OF}
    possible = tuple(name for name in UPDATE_OF if None in refusals[name])
    if pin.update is None:
        return tuple(name for name in possible if name not in FOUR_BIT)
    for name in pin.update:
        if reasons := [reason for reason in refusals.get(name, ()) if name not in possible and reason]:
            raise IllegalDesign(
                f"update: {'; '.join(reasons)}; choose from {'; '.join(possible)}", param="search.pin.update"
            )
    _check("update", pin.update, possible.__contains__, possible)
    return tuple(name for name in possible if name in pin.update)


def ranks(pin: Pin) -> tuple[int, ...]:
    """Return the ranks of low-rank adapters to search."""
    if pin.rank is None:
        return RANKS
    _check("rank", pin.rank, lambda rank: 1 <= rank <= MOST_RANK, [f"1 to {MOST_RANK}"])
    return _ascending(pin.rank)


def batch_sizes(rows: int, pin: Pin) -> tuple[int, ...]:
    """Return the batch sizes to search; none is larger than the number of training rows."""
    if pin.batch_size is None:
        return tuple(size for size in BATCH_SIZES if size <= rows) or (rows,)
    _check("batch_size", pin.batch_size, lambda size: 1 <= size <= rows, [f"1 to the {rows} training rows"])
    return _ascending(pin.batch_size)


def epochs(pin: Pin, schedules: Sequence[Schedule], rows: int) -> tuple[float, ...]:
    """Return the numbers of epochs to search; under `constant` alone, the limit for `rows` training rows."""
    if pin.epochs is not None:
        return _positive("epochs", pin.epochs)
    if "cosine" not in schedules:
        least, most = LIMITS
        return (float(min(most, max(least, round(SEEN / rows)))),)
    return EPOCHS


def schedules(pin: Pin) -> tuple[Schedule, ...]:
    """Return the learning-rate schedules to search."""
    if pin.schedule is None:
        return SEARCHED_SCHEDULES
    _check("schedule", pin.schedule, SCHEDULES.__contains__, tuple(SCHEDULES))
    return tuple(name for name in SCHEDULES if name in pin.schedule)


def multipliers(pin: Pin) -> Values:
    """Return the learning-rate multipliers to search."""
    pinned = pin.learning_rate_multiplier
    return MULTIPLIERS if pinned is None else _positive("learning_rate_multiplier", pinned)


def open_axes(pin: Pin, settings: Mapping[str, Values]) -> tuple[str, ...]:
    """Return the numeric axes that nobody pinned."""
    fixed = () if pin.learning_rate is None else (MULTIPLIER,)
    found = [name for name in (MULTIPLIER, BATCH_SIZE, RANK) if name not in fixed]
    numeric = [name for name, values in settings.items() if isinstance(values, Interval) or _numbers(values)]
    return tuple(name for name in (*found, *numeric) if getattr(pin, name) is None)


def _numbers(values: Sequence[object]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def edits_asked(pin: Pin, constraints: Constraints | None, models: Sequence[ModelSpace]) -> bool:
    """Return whether the job asks for edited models: by a pin on an edit, or by a limit on size or memory."""
    pinned = [spec.edit for spec in EDITS if getattr(pin, spec.edit) is not None]
    limits = constraints or Constraints()
    limited = limits.parameters is not None or limits.memory_bytes is not None
    return limited or any(edit in model.edits for edit in pinned for model in models)


def rates(pin: Pin) -> tuple[float, ...]:
    """Return the pinned learning rates of the first stage; empty if the search is over multipliers.

    Raises UserError if multipliers are pinned too, and IllegalDesign for a rate above 1.
    """
    if pin.learning_rate is None:
        return ()
    if pin.learning_rate_multiplier is not None:
        raise UserError(
            "learning_rate and learning_rate_multiplier are the same setting. Pin one of them.",
            param="search.pin.learning_rate",
        )
    _check("learning_rate", pin.learning_rate, lambda rate: 0 < rate <= 1, ["numbers above 0, up to 1, e.g. 3e-4"])
    return _ascending(pin.learning_rate)


def settings(recipes: Sequence[str], pin: Pin) -> dict[str, Values]:
    """Return the values to search for each hyperparameter of the recipes' algorithms.

    Raises IllegalDesign if a hyperparameter is pinned whose algorithm is in none of the recipes.
    """
    algorithms = {algorithm for recipe in recipes for algorithm in recipe.split("+")}
    axes: dict[str, Values] = {}
    for name, setting in SETTINGS.items():
        pinned: tuple[float, ...] | None = getattr(pin, name)
        if setting.algorithm not in algorithms:
            if pinned is not None:
                raise IllegalDesign(
                    f"{name} is pinned, but it is a hyperparameter of {setting.algorithm}, and this search has only "
                    f"{', '.join(recipes)}",
                    param=f"search.pin.{name}",
                )
        elif pinned is None:
            axes[name] = setting.default
        else:
            _check(name, pinned, setting.takes, [setting.limits])
            axes[name] = _ascending(pinned)
    for algorithm, name in TEACHER_PINS.items():
        if getattr(pin, name) is not None and algorithm not in algorithms:
            raise IllegalDesign(
                f"{name} is pinned, but {algorithm} is not in this search, which has {', '.join(recipes)}",
                param=f"search.pin.{name}",
            )
    return axes


def model_spaces(
    kind: DataKind,
    entries: Sequence[BaseModelEntry],
    pin: Pin,
    constraints: Constraints,
    length: int,
    family: Family,
) -> tuple[ModelSpace, ...]:
    """Return the base models that the pins and constraints allow, each with its edits, updates and placements.

    `length` is the length of long rows in tokens. Raises UserError or IllegalDesign if no model is left.
    """
    allowed = _allowed(kind, _pinned(entries, pin), constraints, family)
    names = update_names(pin, allowed)
    placements = _placements(pin, allowed)
    updates = {
        entry.name: tuple(
            name
            for name in names
            if validate.update_refusal(name, entry) is None
            if name not in PLACED or _placements_of(name, placements[entry.name])
        )
        for entry in allowed
    }
    _check_teachers(pin, allowed, entries)
    rows = _row_lengths(kind, allowed, length)
    for spec in EDITS:
        _check_edit(spec, pin, allowed)
    spaces = tuple(
        ModelSpace(
            name=entry.name,
            hidden_size=entry.facts.hidden_size,
            context=entry.facts.context,
            own={spec.edit: spec.own(entry.facts) for spec in EDITS},
            choices=choices,
            updates=updates[entry.name],
            placements=placements[entry.name],
            teachers=_teachers(pin, entry, entries),
            lora=validate.update_refusal("lora", entry) is None,
        )
        for entry in allowed
        if updates[entry.name]
        if all((choices := {spec.edit: _values(spec, pin, entry, rows) for spec in EDITS}).values())
    )
    if not spaces:
        pinned = {spec.edit: values for spec in EDITS if (values := getattr(pin, spec.edit))}
        listed = " and ".join(f"the pinned {edit} ({_listed(values)})" for edit, values in pinned.items())
        raise IllegalDesign(f"No base model can have {listed}.", param="search.pin")
    fitted = tuple(model for model in map(_fitted, spaces) if model is not None)
    if not fitted:
        raise IllegalDesign(
            f"update: {_listed(spaces[0].updates)} cannot be merged into the weights, so it needs an unedited "
            "base model, but the pins on layers, kv_heads, window or rope_factor require an edit",
            param="search.pin.update",
        )
    return fitted


def _teachers(pin: Pin, entry: BaseModelEntry, entries: Sequence[BaseModelEntry]) -> tuple[str, ...]:
    """Return the models that a base model can distil; only the pinned ones if teachers are pinned."""
    possible = validate.teachers_of(entry, entries)
    pins = [pinned for name in TEACHER_PINS.values() if (pinned := getattr(pin, name)) is not None]
    return tuple(name for name in possible if all(name in pinned for pinned in pins))


def _check_teachers(pin: Pin, students: Sequence[BaseModelEntry], entries: Sequence[BaseModelEntry]) -> None:
    """Refuse a pinned teacher that no base model can distil."""
    possible = {entry.name: validate.teachers_of(entry, entries) for entry in students}
    described = [f"{_listed(names)} for {name}" for name, names in possible.items() if names]
    for axis in TEACHER_PINS.values():
        if (pinned := getattr(pin, axis)) is not None:
            _check(
                axis,
                pinned,
                lambda teacher: any(teacher in names for names in possible.values()),
                described or [f"none: a teacher is {validate.TEACHER}"],
            )


def _fitted(model: ModelSpace) -> ModelSpace | None:
    """Return the model without edits if its updates allow none; None if the pins require an edit."""
    if model.updates_on(edited=True):
        return model
    if model.required:
        return None
    kept = {edit: (value,) for edit, value in model.own.items()}
    return model.model_copy(update={"choices": kept})


def _placements(pin: Pin, entries: Sequence[BaseModelEntry]) -> dict[str, tuple[str, ...]]:
    """Return where low-rank adapters may sit in each model. Each pinned placement must be possible in one model."""
    possible = {
        entry.name: tuple(place for place in PLACEMENTS if validate.placement_refusal(place, entry) is None)
        for entry in entries
    }
    if pin.placement is None:
        return possible
    described = [f"{_listed(places)} in {name}" for name, places in possible.items()]
    _check("placement", pin.placement, lambda place: any(place in places for places in possible.values()), described)
    return {name: _kept(pin.placement, places, places) for name, places in possible.items()}


def _placements_of(update: str, placements: tuple[str, ...]) -> tuple[str, ...]:
    if update not in PLACED:
        return ()
    return tuple(place for place in placements if update != "pissa" or place != "embeddings")


def _pinned(entries: Sequence[BaseModelEntry], pin: Pin) -> list[BaseModelEntry]:
    if not entries:
        raise UserError("No base model is registered.", param="model")
    by_name = {entry.name: entry for entry in entries}
    if pin.model is None:
        return list(by_name.values())
    _check("model", pin.model, lambda _: True, list(by_name))  # refuses an empty pin
    for name in pin.model:
        if name not in by_name:
            raise unknown_base_model(name, by_name, param="search.pin.model", error=IllegalDesign)
    return [by_name[name] for name in dict.fromkeys(pin.model)]


def _allowed(
    kind: DataKind, entries: list[BaseModelEntry], constraints: Constraints, family: Family
) -> list[BaseModelEntry]:
    fitting = [entry for entry in entries if entry.facts.family == family]
    if not fitting:
        found = ", ".join(f"{entry.name}, {validate.article(entry.facts.family)}" for entry in entries)
        needed = f"{kind} data and the pins need" if family == "encoder" else f"{kind} data needs"
        raise IllegalDesign(f"{needed} {validate.article(family)} model, but there is only {found}", param="model")
    limit = constraints.parameters
    if limit is None:
        return fitting
    small = [entry for entry in fitting if entry.facts.parameters <= limit]
    if not small:
        sizes = ", ".join(f"{entry.name} has {entry.facts.parameters:,}" for entry in fitting)
        raise UserError(f"No base model has at most {limit:,} parameters: {sizes}.", param="constraints.parameters")
    return small


def _row_lengths(kind: DataKind, entries: Sequence[BaseModelEntry], length: int) -> RowLengths:
    """Return how much of a row of `length` tokens a model sees at once, and how much all models can be made to read.

    Models without RoPE scaling cannot read past their context. Plain text is split into windows, whatever its length.
    """
    limit: int = JudgeSpec.model_fields["window" if kind is DataKind.TEXT else "max_tokens"].default
    fixed = [entry.facts.context for entry in entries if validate.edit_refusal("rope_factor", entry) is not None]
    return RowLengths(seen=min(length, limit), readable=0 if kind is DataKind.TEXT else min([length, *fixed]))


def _values(spec: EditSpec, pin: Pin, entry: BaseModelEntry, rows: RowLengths) -> tuple[float, ...]:
    """Return the values of an edit to search for a model: the pinned ones that it allows, or the defaults."""
    pinned: tuple[float, ...] | None = getattr(pin, spec.edit)
    if pinned is None:
        refused = validate.edit_refusal(spec.edit, entry) is not None
        return (spec.own(entry.facts),) if refused else spec.searched(entry.facts, rows)
    possible = {value for value in pinned if validate.takes(spec, entry, value)}
    return tuple(sorted(possible, reverse=not spec.ascending))


def _check_edit(spec: EditSpec, pin: Pin, entries: Sequence[BaseModelEntry]) -> None:
    """Refuse a pin on an edit if it lists a value that no model allows."""
    pinned: tuple[float, ...] | None = getattr(pin, spec.edit)
    if pinned is None:
        return
    reasons = [validate.edit_refusal(spec.edit, entry) for entry in entries]
    changing = any(value != spec.own(entry.facts) for value in pinned for entry in entries)
    limits = {entry.name: _limits(spec, entry) for entry in entries}
    described = [spec.always] * bool(spec.always) + [f"{said} of {name}" for name, said in limits.items() if said]
    if changing and all(reasons):
        why = "; ".join(dict.fromkeys(filter(None, reasons)))
        choices = spec.always or "; ".join(described)
        raise IllegalDesign(f"{spec.edit}: {why}; choose from {choices}", param=f"search.pin.{spec.edit}")
    _check(spec.edit, pinned, lambda value: any(validate.takes(spec, entry, value) for entry in entries), described)


def _limits(spec: EditSpec, entry: BaseModelEntry) -> str:
    """Return the values that may be pinned for a model in words."""
    if validate.edit_refusal(spec.edit, entry) is None or spec.always:
        return spec.limits(entry.facts)
    return f"{spec.own(entry.facts):g}"


def _kept(pinned: Sequence[T] | None, possible: Sequence[T], default: tuple[T, ...]) -> tuple[T, ...]:
    return default if pinned is None else tuple(value for value in possible if value in pinned)


def _check(field: str, pinned: Sequence[T], possible: Callable[[T], bool], described: Sequence[str]) -> None:
    """Refuse a pin that is empty or lists an impossible value; `described` lists the possible ones."""
    wrong = [value for value in pinned if not possible(value)]
    if wrong or not pinned:
        fault = f"{_listed(wrong)} is not possible" if wrong else "the list is empty"
        raise IllegalDesign(f"{field}: {fault}; choose from {'; '.join(described)}", param=f"search.pin.{field}")


def _positive(field: str, pinned: tuple[float, ...]) -> tuple[float, ...]:
    _check(field, pinned, lambda value: value > 0, ["numbers above 0"])
    return _ascending(pinned)


def _ascending(pinned: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(sorted(set(pinned)))


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
