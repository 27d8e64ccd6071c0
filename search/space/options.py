"""The choices on each axis for some data and models: which are legal, which are searched, and why others are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from luthier.api_types import Axis, AxisChoice
from luthier.design import SCHEDULES
from luthier.models.base_model import BaseModelEntry
from luthier.task import DataKind, Family, Pin
from luthier.updates import PLACES
from search.format import about, millions
from search.methods import ALGORITHMS, RECIPES, SETTINGS, UPDATE_OF, Interval, Values
from search.methods.edits import MAX_ROPE_FACTOR, OWN, kv_head_choices
from search.space import axes, validate
from search.space.axes import TEACHER_PINS
from search.space.space import Space
from search.space.validate import TEACHER


def offer(
    kind: DataKind,
    entries: Sequence[BaseModelEntry],
    left_out: Mapping[str, str],
    searched: Space | None,
    pin: Pin,
    family: Family,
    *,
    rewarded: bool,
    four_bit: bool,
) -> tuple[Axis, ...]:
    """Return the axes of a request, in the order of the form.

    `left_out` maps the names of unusable base models to the reason. `searched` is the space that the pins leave, None
    if it is empty. `four_bit`: all workers support four-bit bases.
    """
    usable = [entry for entry in entries if entry.name not in left_out and entry.facts.family == family]
    return (
        Axis(name="model", pinned=pin.model is not None, choices=tuple(_models(entries, left_out, searched, family))),
        Axis(
            name="algorithm",
            pinned=pin.algorithm is not None,
            choices=tuple(_recipes(kind, searched, family, rewarded=rewarded)),
        ),
        Axis(
            name="update",
            pinned=pin.update is not None,
            choices=tuple(_updates(usable, searched, four_bit=four_bit)),
        ),
        Axis(name="placement", pinned=pin.placement is not None, choices=tuple(_placements(usable, searched))),
        Axis(name="schedule", pinned=pin.schedule is not None, choices=tuple(_schedules(searched))),
        *_numbers(usable, searched, pin),
        *_settings(searched, pin),
    )


def _models(
    entries: Sequence[BaseModelEntry], left_out: Mapping[str, str], searched: Space | None, family: Family
) -> Iterator[AxisChoice]:
    names = {model.name for model in searched.models} if searched else set()
    for entry in entries:
        facts, why = entry.facts, left_out.get(entry.name)
        if why is None and facts.family != family:
            why = f"it is {validate.article(facts.family)}, but the data and the pins need {validate.article(family)}"
        said = f"{millions(facts.parameters)} parameters, {facts.layers} layers, context {facts.context}"
        yield _choice(entry.name, said, why, searched=entry.name in names)


def _recipes(kind: DataKind, searched: Space | None, family: Family, *, rewarded: bool) -> Iterator[AxisChoice]:
    alone = [rule.kind for rule in ALGORITHMS if not rule.followed_by]
    ordered = dict.fromkeys((*validate.recipes(kind, family, rewarded=rewarded), *alone, *RECIPES))
    for recipe in ordered:
        why = validate.fault(recipe, kind, rewarded=rewarded)
        rules = validate.rules(recipe)
        if why is None and rules[0].family != family:
            why = f"{recipe} is for {rules[0].family}s"
        said = None if why else "; then ".join(f"{rule.kind} {rule.fits[kind]}" for rule in rules)
        yield _choice(recipe, said, why, searched=searched is not None and recipe in searched.recipes)


def _updates(entries: Sequence[BaseModelEntry], searched: Space | None, *, four_bit: bool) -> Iterator[AxisChoice]:
    tried = {name for model in searched.models for name in model.updates} if searched else set()
    for name, spec in UPDATE_OF.items():
        reasons = [validate.update_refusal(name, entry) for entry in entries]
        why = next(filter(None, reasons), None) if None not in reasons else None
        if why is None and name in axes.FOUR_BIT and not four_bit:
            why = "it quantises the base model to four bits, which requires CUDA and bitsandbytes on every live worker"
        if why is None and searched is not None:
            refused = [validate.recipe_refusal(name, recipe) for recipe in searched.recipes]
            why = refused[0] if refused and all(refused) else None
        yield _choice(name, about(spec.member), why, searched=name in tried)


def _placements(entries: Sequence[BaseModelEntry], searched: Space | None) -> Iterator[AxisChoice]:
    tried = {place for model in searched.models for place in model.placements} if searched else set()
    for place in PLACES:
        reasons = [validate.placement_refusal(place, entry) for entry in entries]
        why = next(filter(None, reasons), None) if None not in reasons else None
        yield _choice(place, f"On {PLACES[place]}.", why, searched=place in tried)


def _schedules(searched: Space | None) -> Iterator[AxisChoice]:
    for schedule, said in SCHEDULES.items():
        yield _choice(schedule, said, None, searched=searched is not None and schedule in searched.schedules)


def _numbers(entries: Sequence[BaseModelEntry], searched: Space | None, pin: Pin) -> Iterator[Axis]:
    """Return the numeric axes: the values that are searched, and the values that may be pinned."""
    models = searched.models if searched else ()
    layers = "; ".join(f"1 to {entry.facts.layers} of {entry.name}" for entry in entries)
    heads = "; ".join(f"{', '.join(map(str, kv_head_choices(entry.facts)))} of {entry.name}" for entry in entries)
    plain: Sequence[tuple[str, Sequence[float], str]] = (
        ("rank", searched.ranks if searched else (), f"1 to {axes.MOST_RANK}"),
        ("epochs", searched.epochs if searched else (), "numbers above 0"),
        ("batch_size", searched.batch_sizes if searched else (), "1 to the number of training rows"),
        ("layers", [kept for model in models for kept in model.choices["layers"]], layers),
        ("kv_heads", [kept for model in models for kept in model.choices["kv_heads"]], heads),
        (
            "window",
            [window for model in models for window in model.choices["window"]],
            "0 (the model's own), or fewer tokens than that",
        ),
        (
            "rope_factor",
            [factor for model in models for factor in model.choices["rope_factor"]],
            f"{OWN:g} (the model's own context) to {MAX_ROPE_FACTOR:g}",
        ),
    )
    for name, values, takes in plain:
        choices = tuple(AxisChoice(value=value, legal=True, searched=True) for value in dict.fromkeys(values))
        yield Axis(name=name, choices=choices, pinned=getattr(pin, name) is not None, takes=takes)
    if searched is None or not searched.rates:
        yield _axis("learning_rate_multiplier", searched.multipliers if searched else axes.MULTIPLIERS, pin)
    yield _axis("learning_rate", searched.rates if searched else (), pin, "numbers above 0, up to 1, e.g. 3e-4")


def _settings(searched: Space | None, pin: Pin) -> Iterator[Axis]:
    """Return the axes of the searched algorithms' hyperparameters."""
    for algorithm, names in (searched.teachers if searched else {}).items():
        choices = tuple(AxisChoice(value=name, legal=True, searched=True) for name in names)
        axis = TEACHER_PINS[algorithm]
        yield Axis(name=axis, choices=choices, pinned=getattr(pin, axis) is not None, takes=TEACHER)
    for name, values in (searched.settings if searched else {}).items():
        yield _axis(name, values, pin, f"{SETTINGS[name].limits}, of {SETTINGS[name].algorithm}")


def _axis(name: str, values: Values, pin: Pin, takes: str | None = None) -> Axis:
    pinned = getattr(pin, name) is not None
    if isinstance(values, Interval):
        return Axis(name=name, low=values.low, high=values.high, pinned=pinned, takes=takes or "numbers above 0")
    choices = tuple(AxisChoice(value=value, legal=True, searched=True) for value in values)
    return Axis(name=name, choices=choices, pinned=pinned, takes=takes or "numbers above 0")


def _choice(value: str, said: str | None, why: str | None, *, searched: bool) -> AxisChoice:
    return AxisChoice(value=value, about=said, legal=why is None, why=why, searched=searched and why is None)
