"""The values that each axis of a space may take: the defaults, or what the user pinned of the possible.

Every pinned value must be possible somewhere: one that could never be used is refused, with the possible values named,
rather than ignored. The order is the same however a pin is written, except for models: the first one is tried first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar, get_args

from pydantic import Field

from luthier.design import Frozen, Placement
from luthier.errors import IllegalDesign, UserError
from luthier.models.base_model import BaseModelEntry
from luthier.task import Constraints, DataKind, Family, JudgeSpec, Pin
from search.space import compatibility, validate

T = TypeVar("T", str, int, float)

UPDATES: Final = tuple(rule.update for rule in compatibility.UPDATES)
FOUR_BIT: Final = frozenset(rule.update for rule in compatibility.UPDATES if rule.four_bit)
PLACEMENTS: Final[tuple[str, ...]] = get_args(Placement)
PLACED: Final = ("lora", "rslora", "dora", "lora_plus", "pissa")
WHOLE: Final = 0  # the attention window of a model that keeps its own
WINDOWS: Final = (1024, 512, 256, 128)
OWN: Final = 1.0  # the factor of a model that keeps its own context
ROPE_FACTORS: Final = (4.0, 2.0)
MOST_STRETCHED: Final = 64.0
DEPTH_SHARES: Final = (1, 7 / 8, 3 / 4)
RANKS: Final = (4, 8, 16, 32, 64)
MOST_RANK: Final = 1024
BATCH_SIZES: Final = (4, 8, 16, 32)
EPOCHS: Final = (1.0, 2.0, 3.0)


class Interval(Frozen):
    """Every number from `low` to `high`; the logarithm is the natural scale."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)


Axis = Interval | tuple[float, ...]

MULTIPLIERS: Final = Interval(low=0.2, high=5.0)


class Setting(Frozen):
    """A hyperparameter of one algorithm. The same letter means another thing in another algorithm: an axis for each."""

    algorithm: str
    field: str
    default: Axis
    least: float | None = Field(default=None, description="smallest value that may be pinned; None: any above 0")


SETTINGS: Final[Mapping[str, Setting]] = {  # by the name of the axis and of its pin
    "beta": Setting(algorithm="dpo", field="beta", default=Interval(low=0.02, high=0.5)),
    "ipo_beta": Setting(algorithm="ipo", field="beta", default=Interval(low=0.02, high=1.0)),
    "simpo_beta": Setting(algorithm="simpo", field="beta", default=Interval(low=1.0, high=10.0)),
    "simpo_gamma": Setting(algorithm="simpo", field="gamma", default=Interval(low=0.2, high=3.0)),
    "orpo_beta": Setting(algorithm="orpo", field="beta", default=Interval(low=0.02, high=1.0)),
    "grpo_group": Setting(algorithm="grpo", field="group", default=(4, 8), least=2),
    "grpo_beta": Setting(algorithm="grpo", field="beta", default=(0.0, 0.01, 0.04), least=0),
    "rloo_group": Setting(algorithm="rloo", field="group", default=(4, 8), least=2),
    "rloo_beta": Setting(algorithm="rloo", field="beta", default=(0.0, 0.01, 0.05), least=0),
    "raft_group": Setting(algorithm="raft", field="group", default=(4, 8), least=2),
    "kto_beta": Setting(algorithm="kto", field="beta", default=Interval(low=0.02, high=0.5)),
    "kto_desirable_weight": Setting(algorithm="kto", field="desirable_weight", default=Interval(low=0.5, high=2.0)),
    "mask": Setting(algorithm="mlm", field="mask", default=Interval(low=0.1, high=0.4)),
}


class ModelSpace(Frozen):
    """A base model and the edits of it that are searched."""

    name: str
    hidden_size: int
    base_layers: int
    base_kv_heads: int
    layers: tuple[int, ...] = Field(description="layers kept, descending")
    kv_heads: tuple[int, ...] = Field(description="key/value heads kept, descending")
    windows: tuple[int, ...] = Field(default=(WHOLE,), description="attention windows in tokens; WHOLE: what it has")
    context: int = Field(description="longest row of the base in tokens")
    rope_factors: tuple[float, ...] = Field(default=(OWN,), description="multiples of that context, descending")

    @property
    def reach(self) -> int:
        """The longest row in tokens that the model is offered to be made for."""
        return round(self.context * max(self.rope_factors))

    @property
    def edits(self) -> dict[str, tuple[float, ...]]:
        """By field of the architecture, the values that change something."""
        changes = {
            "layers": tuple(kept for kept in self.layers if kept != self.base_layers),
            "kv_heads": tuple(kept for kept in self.kv_heads if kept != self.base_kv_heads),
            "window": tuple(window for window in self.windows if window != WHOLE),
            "rope_factor": tuple(factor for factor in self.rope_factors if factor != OWN),
        }
        return {field: values for field, values in changes.items() if values}

    @property
    def required(self) -> tuple[str, ...]:
        """The fields that have to be edited, because the pins leave out what the base has."""
        as_it_is = {
            "layers": self.base_layers in self.layers,
            "kv_heads": self.base_kv_heads in self.kv_heads,
            "window": WHOLE in self.windows,
            "rope_factor": OWN in self.rope_factors,
        }
        return tuple(field for field, allowed in as_it_is.items() if not allowed)

    updates: tuple[str, ...] = Field(description="weight updates that go with the model")
    placements: tuple[str, ...] = Field(description="where low-rank adapters may sit")

    def placements_of(self, update: str) -> tuple[str, ...]:
        """Where the adapters of this update may sit; nowhere in particular for one that is not PLACED."""
        return _placements_of(update, self.placements)

    def updates_on(self, recipe: str | None = None, *, edited: bool) -> tuple[str, ...]:
        """Updates of the model, edited or as it is; those that go with a program, where one is named."""
        return tuple(
            name
            for name in self.updates
            if not (edited and validate.edited_refusal(name))
            if recipe is None or validate.recipe_refusal(name, recipe) is None
        )

    @property
    def top_layers(self) -> tuple[int, ...]:
        """How many of the last layers may be trained alone: powers of two up to half of the smallest depth kept."""
        return tuple(2**power for power in range(max(1, (min(self.layers) // 2).bit_length())))


def recipe_names(kind: DataKind, pin: Pin, family: Family, *, rewarded: bool = False) -> tuple[str, ...]:
    legal = validate.recipes(kind, family, rewarded=rewarded)
    if pin.algorithm is None:
        return legal
    refusals = [validate.refusal(recipe, kind, rewarded=rewarded) for recipe in pin.algorithm]
    reasons = [reason for reason in refusals if reason]
    if reasons:
        raise IllegalDesign(reasons[0], param="search.pin.algorithm")
    _check("algorithm", pin.algorithm, lambda _: True, legal)  # nothing pinned allows nothing
    usual_first = (*legal, *pin.algorithm)
    return tuple(dict.fromkeys(name for name in usual_first if name in pin.algorithm))


def possible_recipes(recipes: Sequence[str], models: Sequence[ModelSpace], pin: Pin) -> tuple[str, ...]:
    """Those of the programs that one of the updates at least goes with, however a model may be edited. What is pinned
    has to be of use to something."""

    def fits(recipe: str) -> bool:
        return all(
            model.updates_on(recipe, edited=edited)
            for model in models
            for edited in ([True] if model.required else [False, True] if model.edits else [False])
        )

    possible = tuple(filter(fits, recipes))
    names = [name for name in UPDATES if any(name in model.updates for model in models)]
    idle = [recipe for recipe in recipes if recipe not in possible]
    if idle and (pin.algorithm is not None or not possible):
        reasons = filter(None, (validate.recipe_refusal(name, idle[0]) for name in names))
        raise IllegalDesign(f"pin on update: {'; '.join(reasons)}", param="search.pin.update")
    for name in pin.update or ():
        refusals = [validate.recipe_refusal(name, recipe) for recipe in possible]
        if all(refusals):
            raise IllegalDesign(f"pin on update: {refusals[0]}", param="search.pin.update")
    return possible


def with_devices(pin: Pin, entries: Sequence[BaseModelEntry], *, four_bit: bool) -> Pin:
    """The pin with the updates that need four-bit bases allowed, where the workers can hold them and none is pinned.
    Raises IllegalDesign where they are pinned and the workers cannot."""
    asked = [name for name in pin.update or () if name in FOUR_BIT]
    if asked and not four_bit:
        raise IllegalDesign(
            f"pin on update: {_listed(asked)} holds the base in four bits, which takes CUDA and the package "
            "bitsandbytes on every live worker (`GET /v1/workers` shows them)",
            param="search.pin.update",
        )
    if pin.update is not None or not four_bit:
        return pin
    return pin.model_copy(update={"update": (*update_names(pin, entries), *sorted(FOUR_BIT))})


def update_names(pin: Pin, entries: Sequence[BaseModelEntry]) -> tuple[str, ...]:
    """The updates that go with one of the models at least."""
    refusals = {name: [validate.update_refusal(name, entry) for entry in entries] for name in UPDATES}
    possible = tuple(name for name in UPDATES if None in refusals[name])
    if pin.update is None:
        return tuple(name for name in possible if name not in FOUR_BIT)
    for name in pin.update:
        if reasons := [reason for reason in refusals.get(name, ()) if name not in possible and reason]:
            raise IllegalDesign(
                f"pin on update: {'; '.join(reasons)}; choose from {'; '.join(possible)}", param="search.pin.update"
            )
    _check("update", pin.update, possible.__contains__, possible)
    return tuple(name for name in possible if name in pin.update)


def ranks(pin: Pin) -> tuple[int, ...]:
    if pin.rank is None:
        return RANKS
    _check("rank", pin.rank, lambda rank: 1 <= rank <= MOST_RANK, [f"1 to {MOST_RANK}"])
    return _ascending(pin.rank)


def batch_sizes(rows: int, pin: Pin) -> tuple[int, ...]:
    """Never more than there are rows."""
    if pin.batch_size is None:
        return tuple(size for size in BATCH_SIZES if size <= rows) or (rows,)
    _check("batch_size", pin.batch_size, lambda size: 1 <= size <= rows, [f"1 to the {rows} training rows"])
    return _ascending(pin.batch_size)


def epochs(pin: Pin) -> tuple[float, ...]:
    return EPOCHS if pin.epochs is None else _positive("epochs", pin.epochs)


def multipliers(pin: Pin) -> Axis:
    pinned = pin.learning_rate_multiplier
    return MULTIPLIERS if pinned is None else _positive("learning_rate_multiplier", pinned)


def settings(recipes: Sequence[str], pin: Pin) -> dict[str, Axis]:
    """The axes of the algorithms that the programs are made of."""
    algorithms = {algorithm for recipe in recipes for algorithm in recipe.split("+")}
    axes: dict[str, Axis] = {}
    for name, setting in SETTINGS.items():
        pinned: tuple[float, ...] | None = getattr(pin, name)
        if setting.algorithm in algorithms:
            axes[name] = setting.default if pinned is None else _pinned_setting(name, setting, pinned)
        elif pinned is not None:
            raise IllegalDesign(
                f"{name} is pinned, but it belongs to {setting.algorithm} and this search has only "
                f"{', '.join(recipes)}",
                param=f"search.pin.{name}",
            )
    return axes


def _pinned_setting(name: str, setting: Setting, pinned: tuple[float, ...]) -> tuple[float, ...]:
    if setting.least is None:
        return _positive(name, pinned)
    least = setting.least
    _check(name, pinned, lambda value: value >= least, [f"numbers from {least:g}"])
    return _ascending(pinned)


def model_spaces(
    kind: DataKind,
    entries: Sequence[BaseModelEntry],
    pin: Pin,
    constraints: Constraints,
    length: int,
    family: Family,
) -> tuple[ModelSpace, ...]:
    """The base models that remain, each with the edits that remain of it. `length` is that of long rows in tokens."""
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
    depths = {entry.name: range(entry.facts.layers, 0, -1) for entry in allowed}
    heads = {entry.name: validate.kv_heads_of(entry) for entry in allowed}
    readable = _readable(kind, allowed, length)
    _check_edits("layers", pin.layers, depths)
    _check_edits("kv_heads", pin.kv_heads, heads)
    _check_windows(pin, allowed)
    _check_rope_factors(pin, allowed)
    spaces = tuple(
        ModelSpace(
            name=entry.name,
            hidden_size=entry.facts.hidden_size,
            base_layers=entry.facts.layers,
            base_kv_heads=entry.facts.kv_heads,
            layers=layers,
            kv_heads=kv_heads,
            windows=windows,
            context=entry.facts.context,
            rope_factors=rope_factors,
            updates=updates[entry.name],
            placements=placements[entry.name],
        )
        for entry in allowed
        if updates[entry.name]
        if (layers := _kept(pin.layers, depths[entry.name], _depths(entry.facts.layers)))
        if (kv_heads := _kept(pin.kv_heads, heads[entry.name], heads[entry.name]))
        if (windows := _windows(entry, pin, _seen(kind, length)))
        if (rope_factors := _rope_factors(entry, pin, readable))
    )
    if not spaces:
        raise IllegalDesign(
            f"no base model has both the pinned layers ({_listed(pin.layers or ())}) and the pinned kv_heads "
            f"({_listed(pin.kv_heads or ())})"
            + (f" and the windows ({_listed(pin.window)})" if pin.window else "")
            + (f" and the rope_factors ({_listed(pin.rope_factor)})" if pin.rope_factor else ""),
            param="search.pin",
        )
    fitted = tuple(model for model in map(_fitted, spaces) if model is not None)
    if not fitted:
        raise IllegalDesign(
            f"pin on update: {_listed(spaces[0].updates)} cannot be folded into weights and goes with the base model "
            "as it is, but the pins on layers, kv_heads, window or rope_factor leave edited ones only",
            param="search.pin.update",
        )
    return fitted


def _fitted(model: ModelSpace) -> ModelSpace | None:
    """Without edits where none of the updates goes with an edited model; None where the pins demand an edit."""
    if model.updates_on(edited=True):
        return model
    if model.required:
        return None
    kept = {
        "layers": (model.base_layers,),
        "kv_heads": (model.base_kv_heads,),
        "windows": (WHOLE,),
        "rope_factors": (OWN,),
    }
    return model.model_copy(update=kept)


def _placements(pin: Pin, entries: Sequence[BaseModelEntry]) -> dict[str, tuple[str, ...]]:
    """Where low-rank adapters may sit in each model. Every pinned place must be possible in one of them."""
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
        raise UserError("no base model is registered", param="model")
    by_name = {entry.name: entry for entry in entries}
    if pin.model is None:
        return list(by_name.values())
    _check("model", pin.model, by_name.__contains__, list(by_name))
    return [by_name[name] for name in dict.fromkeys(pin.model)]


def _allowed(
    kind: DataKind, entries: list[BaseModelEntry], constraints: Constraints, family: Family
) -> list[BaseModelEntry]:
    fitting = [entry for entry in entries if entry.facts.family == family]
    if not fitting:
        found = ", ".join(f"{entry.name}, {validate.article(entry.facts.family)}" for entry in entries)
        needed = f"{kind} data and the pins need" if family == "encoder" else f"{kind} data needs"
        raise IllegalDesign(f"{needed} {validate.article(family)} model; there is only {found}", param="model")
    limit = constraints.parameters
    if limit is None:
        return fitting
    small = [entry for entry in fitting if entry.facts.parameters <= limit]
    if not small:
        sizes = ", ".join(f"{entry.name} has {entry.facts.parameters:,}" for entry in fitting)
        raise UserError(f"no base model has at most {limit:,} parameters: {sizes}", param="constraints.parameters")
    return small


def _depths(layers: int) -> tuple[int, ...]:
    """All the layers, about 7/8 of them and about 3/4."""
    return tuple(dict.fromkeys(max(1, round(share * layers)) for share in DEPTH_SHARES))


def _seen(kind: DataKind, length: int) -> int:
    """How many tokens of a row of this length a model is shown at once."""
    limit: int = JudgeSpec.model_fields["window" if kind is DataKind.TEXT else "max_tokens"].default
    return min(length, limit)


def _windows(entry: BaseModelEntry, pin: Pin, length: int) -> tuple[int, ...]:
    """The two widest windows that are narrower than long rows: a wider one would never be felt."""
    widest = entry.facts.attention_window or 0
    if pin.window is not None:
        return tuple(sorted({window for window in pin.window if window == WHOLE or 0 < window < widest}))
    return (WHOLE, *[window for window in WINDOWS if window < min(length, widest)][:2])


def _check_windows(pin: Pin, entries: Sequence[BaseModelEntry]) -> None:
    if pin.window is not None:
        widest = {entry.name: entry.facts.attention_window or 0 for entry in entries}
        described = [f"1 to {limit - 1} of {name}" for name, limit in widest.items() if limit > 1]
        _check(
            "window",
            pin.window,
            lambda window: window == WHOLE or 0 < window < max(widest.values()),
            [f"{WHOLE} (the model's own)", *described],
        )


def _readable(kind: DataKind, entries: Sequence[BaseModelEntry], length: int) -> int:
    """How many tokens of a row of this length all models could be made to read; long text is read in pieces anyway."""
    held = [entry.facts.context for entry in entries if validate.edit_refusal("rope_factor", entry) is not None]
    return 0 if kind is DataKind.TEXT else min([length, *held])


def _rope_factors(entry: BaseModelEntry, pin: Pin, read: int) -> tuple[float, ...]:
    """What is pinned of them; else more than the model's own where it would be felt in rows of so many tokens."""
    if pin.rope_factor is not None:
        fixed = validate.edit_refusal("rope_factor", entry) is not None
        return tuple(sorted({factor for factor in pin.rope_factor if factor == OWN or not fixed}, reverse=True))
    return (*ROPE_FACTORS, OWN) if read > entry.facts.context else (OWN,)


def _check_rope_factors(pin: Pin, entries: Sequence[BaseModelEntry]) -> None:
    if pin.rope_factor is None:
        return
    described = [f"{OWN:g} (the model's own context) to {MOST_STRETCHED:g}"]
    _check("rope_factor", pin.rope_factor, lambda factor: OWN <= factor <= MOST_STRETCHED, described)
    refusals = [validate.edit_refusal("rope_factor", entry) for entry in entries]
    if max(pin.rope_factor) > OWN and all(refusals):
        raise IllegalDesign(
            f"pin on rope_factor: {'; '.join(filter(None, refusals))}; choose from {OWN:g}",
            param="search.pin.rope_factor",
        )


def _kept(pinned: Sequence[T] | None, possible: Sequence[T], default: tuple[T, ...]) -> tuple[T, ...]:
    return default if pinned is None else tuple(value for value in possible if value in pinned)


def _check_edits(field: str, pinned: Sequence[int] | None, possible: Mapping[str, Sequence[int]]) -> None:
    if pinned is not None:
        by_model = [f"{_listed(values)} of {name}" for name, values in possible.items()]
        _check(field, pinned, lambda value: any(value in values for values in possible.values()), by_model)


def _check(field: str, pinned: Sequence[T], possible: Callable[[T], bool], described: Sequence[str]) -> None:
    """Refuse a pin that lists nothing or something impossible."""
    wrong = [value for value in pinned if not possible(value)]
    if wrong or not pinned:
        fault = f"{_listed(wrong)} is not possible" if wrong else "nothing is allowed"
        raise IllegalDesign(f"pin on {field}: {fault}; choose from {'; '.join(described)}", param=f"search.pin.{field}")


def _positive(field: str, pinned: tuple[float, ...]) -> tuple[float, ...]:
    _check(field, pinned, lambda value: value > 0, ["numbers above 0"])
    return _ascending(pinned)


def _ascending(pinned: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(sorted(set(pinned)))


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
