"""The values that each axis of a space may take: the defaults, or what the user pinned of the possible.

Every pinned value must be possible somewhere: one that could never be used is refused, with the possible values named,
rather than ignored. The order is the same however a pin is written, except for models: the first one is tried first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from pydantic import Field

from luthier.design import Frozen
from luthier.errors import IllegalDesign, UserError
from luthier.model import BaseModelEntry
from luthier.task import Constraints, DataKind, Pin
from search import legality
from search.learning_rate import UPDATE_FACTOR

T = TypeVar("T", str, int, float)

UPDATES: Final = tuple(UPDATE_FACTOR)
DEPTH_SHARES: Final = (1, 7 / 8, 3 / 4)
BATCH_SIZES: Final = (4, 8, 16, 32)
EPOCHS: Final = (1.0, 2.0, 3.0)


class Interval(Frozen):
    """Every number from `low` to `high`; the logarithm is the natural scale."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)


Axis = Interval | tuple[float, ...]

MULTIPLIERS: Final = Interval(low=0.2, high=5.0)
BETAS: Final = Interval(low=0.02, high=0.5)


class ModelSpace(Frozen):
    """A base model and the edits of it that are searched."""

    name: str
    hidden_size: int
    base_layers: int
    base_kv_heads: int
    layers: tuple[int, ...] = Field(description="layers kept, descending")
    kv_heads: tuple[int, ...] = Field(description="key/value heads kept, descending")
    updates: tuple[str, ...] = Field(description="weight updates that go with the model")

    @property
    def top_layers(self) -> tuple[int, ...]:
        """How many of the last layers may be trained alone: powers of two up to half of the smallest depth kept."""
        return tuple(2**power for power in range(max(1, (min(self.layers) // 2).bit_length())))


def program_names(kind: DataKind, pin: Pin) -> tuple[str, ...]:
    legal = legality.programs(kind)
    if pin.algorithm is None:
        return legal
    reasons = [reason for program in pin.algorithm if (reason := legality.refusal(program, kind))]
    if reasons:
        raise IllegalDesign(reasons[0], param="search.pin.algorithm")
    _check("algorithm", pin.algorithm, legal.__contains__, legal)  # nothing pinned allows nothing
    return tuple(name for name in legal if name in pin.algorithm)


def update_names(pin: Pin, entries: Sequence[BaseModelEntry]) -> tuple[str, ...]:
    """The updates that go with one of the models at least."""
    refusals = {name: [legality.update_refusal(name, entry) for entry in entries] for name in UPDATES}
    possible = tuple(name for name in UPDATES if None in refusals[name])
    if pin.update is None:
        return possible
    for name in pin.update:
        if reasons := [reason for reason in refusals.get(name, ()) if name not in possible and reason]:
            raise IllegalDesign(
                f"pin on update: {'; '.join(reasons)}; choose from {'; '.join(possible)}", param="search.pin.update"
            )
    _check("update", pin.update, possible.__contains__, possible)
    return tuple(name for name in possible if name in pin.update)


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


def betas(programs: Sequence[str], pin: Pin) -> Axis:
    if pin.beta is None:
        return BETAS
    if not any("dpo" in program.split("+") for program in programs):
        raise IllegalDesign(
            f"beta is pinned, but it belongs to dpo and this search has only {', '.join(programs)}",
            param="search.pin.beta",
        )
    return _positive("beta", pin.beta)


def model_spaces(
    kind: DataKind, entries: Sequence[BaseModelEntry], pin: Pin, constraints: Constraints
) -> tuple[ModelSpace, ...]:
    """The base models that remain, each with the edits that remain of it."""
    allowed = _allowed(kind, _pinned(entries, pin), constraints)
    names = update_names(pin, allowed)
    updates = {
        entry.name: tuple(name for name in names if legality.update_refusal(name, entry) is None) for entry in allowed
    }
    depths = {entry.name: range(entry.facts.layers, 0, -1) for entry in allowed}
    heads = {entry.name: legality.kv_head_choices(entry.facts.kv_heads) for entry in allowed}
    _check_edits("layers", pin.layers, depths)
    _check_edits("kv_heads", pin.kv_heads, heads)
    spaces = tuple(
        ModelSpace(
            name=entry.name,
            hidden_size=entry.facts.hidden_size,
            base_layers=entry.facts.layers,
            base_kv_heads=entry.facts.kv_heads,
            layers=layers,
            kv_heads=kv_heads,
            updates=updates[entry.name],
        )
        for entry in allowed
        if updates[entry.name]
        if (layers := _kept(pin.layers, depths[entry.name], _depths(entry.facts.layers)))
        if (kv_heads := _kept(pin.kv_heads, heads[entry.name], heads[entry.name]))
    )
    if not spaces:
        raise IllegalDesign(
            f"no base model has both the pinned layers ({_listed(pin.layers or ())}) "
            f"and the pinned kv_heads ({_listed(pin.kv_heads or ())})",
            param="search.pin",
        )
    return spaces


def _pinned(entries: Sequence[BaseModelEntry], pin: Pin) -> list[BaseModelEntry]:
    if not entries:
        raise UserError("no base model is registered", param="model")
    by_name = {entry.name: entry for entry in entries}
    if pin.model is None:
        return list(by_name.values())
    _check("model", pin.model, by_name.__contains__, list(by_name))
    return [by_name[name] for name in dict.fromkeys(pin.model)]


def _allowed(kind: DataKind, entries: list[BaseModelEntry], constraints: Constraints) -> list[BaseModelEntry]:
    families = {rule.family for rule in legality.RULES if kind in rule.fits}
    fitting = [entry for entry in entries if entry.facts.family in families]
    if not fitting:
        found = ", ".join(f"{entry.name}, an {entry.facts.family}" for entry in entries)
        raise IllegalDesign(f"{kind} data needs a {' or '.join(families)} model; there is only {found}", param="model")
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


def _kept(pinned: Sequence[int] | None, possible: Sequence[int], default: tuple[int, ...]) -> tuple[int, ...]:
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
