"""Legality: whether a recipe suits the data and a design suits a base model, and why not.

The rules are declared in `search.methods`. Memory limits are checked by `search.cost`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, get_args

from luthier.design import Architecture, Design
from luthier.errors import IllegalDesign
from luthier.models.base_model import BaseModelEntry
from luthier.task import DataKind, Family, Pin
from luthier.updates import Placed, TopLayers
from search.methods import (
    ALGORITHM_OF,
    EDIT_OF,
    EDITS,
    RECIPES,
    UPDATE_OF,
    UPDATES,
    AlgorithmSpec,
    EditSpec,
    StageGoal,
)
from search.methods.edits import kv_head_choices

MAX_STAGES: Final = 3
TEACHER: Final = "a larger base model with the same tokenizer"
FAMILIES: Final[tuple[Family, ...]] = get_args(Family)

UNMERGEABLE: Final = frozenset(spec.kind for spec in UPDATES if not spec.mergeable)


def recipes(
    kind: DataKind, family: Family = "decoder", *, rewarded: bool = False, taught: bool = False
) -> tuple[str, ...]:
    """Return the recipes that are searched by default for this data and family of models, the usual one first.

    `rewarded`: the task has a grader or an environment. `taught`: a model has a teacher (`teachers_of`).
    """
    fitting = [recipe for recipe in RECIPES if fault(recipe, kind, rewarded=rewarded, taught=taught) is None]
    return tuple(recipe for recipe in fitting if rules(recipe)[0].family == family)


def usual(kind: DataKind, family: Family = "decoder") -> str:
    """Return the first recipe to try for this kind of data."""
    return recipes(kind, family, rewarded=True)[0]


def family(kind: DataKind, entries: Sequence[BaseModelEntry], pin: Pin) -> Family:
    """Return the one family of a search's models: scores can be compared only within a family.

    It is decoders if the pins allow both. Raises IllegalDesign if models or recipes of both families are pinned.
    """
    named = [entry for entry in entries if pin.model is None or entry.name in pin.model]
    available = {entry.facts.family for entry in named}
    known = [recipe for recipe in pin.algorithm or () if refusal(recipe, kind, rewarded=True) is None]
    wanted = {rule.family for recipe in known for rule in rules(recipe)}
    both = "pseudo-perplexity of encoders cannot be compared with the perplexity of decoders; pin models of one family"
    if pin.model is not None and len(available) > 1:
        found = ", ".join(f"{entry.name} is {article(entry.facts.family)}" for entry in named)
        raise IllegalDesign(f"model: {found}, and the {both}", param="search.pin.model")
    if len(wanted) > 1:
        found = ", ".join(f"{recipe} is for {rules(recipe)[0].family}s" for recipe in known)
        raise IllegalDesign(f"algorithm: {found}, and the {both}", param="search.pin.algorithm")
    if pin.model is not None and wanted and available and wanted != available:
        names = ", ".join(f"{entry.name} is {article(entry.facts.family)}" for entry in named)
        possible = ", ".join(recipes(kind, *available)) or "no recipe"
        raise IllegalDesign(
            f"algorithm: {', '.join(pin.algorithm or ())} needs {article(*wanted)}, but {names}; "
            f"for {kind} data and that model choose from {possible}",
            param="search.pin.algorithm",
        )
    usable = [one for one in FAMILIES if one in (wanted or available) and recipes(kind, one, rewarded=True)]
    return usable[0] if usable else "decoder"


def article(family: Family) -> str:
    """Return the family's name with its article."""
    return "an encoder" if family == "encoder" else "a decoder"


def refusal(recipe: str, kind: DataKind, *, rewarded: bool = False, taught: bool = True) -> str | None:
    """Return why a recipe does not suit a task, and which recipes do; None if it suits."""
    reason = fault(recipe, kind, rewarded=rewarded, taught=taught)
    if reason is None:
        return None
    legal = [name for family in FAMILIES for name in recipes(kind, family, rewarded=rewarded, taught=taught)]
    alone = [f"{name} {ALGORITHM_OF[name].fits[kind]}" for name in legal if name in ALGORITHM_OF]
    staged = ", ".join(name for name in legal if name not in ALGORITHM_OF)
    return f"{reason}; possible for {kind} data: {'; '.join(alone)}" + (f"; in stages: {staged}" if staged else "")


def fault(recipe: str, kind: DataKind, *, rewarded: bool = False, taught: bool = True) -> str | None:
    """Return why a recipe does not suit a task, without the recipes that do; None if it suits."""
    algorithms = recipe.split("+")
    unknown = [name for name in algorithms if name not in ALGORITHM_OF]
    if unknown:
        return f"there is no algorithm {unknown[0]!r}; choose from {', '.join(ALGORITHM_OF)}"
    if len(algorithms) > MAX_STAGES:
        return f"{recipe} has {len(algorithms)} stages, but at most {MAX_STAGES} are allowed"
    for name in algorithms:
        if kind not in ALGORITHM_OF[name].fits:
            return f"{name} does not go with {kind} data: {ALGORITHM_OF[name].refused[kind]}"
    untaught = [name for name in algorithms if ALGORITHM_OF[name].needs_teacher and not taught]
    if untaught:
        return f"{untaught[0]} needs a teacher ({TEACHER}), and none is registered"
    steps = zip((None, *algorithms), (*algorithms, None), strict=True)
    return next((reason for step in steps if (reason := _order_fault(*step, kind, rewarded))), None)


def rules(recipe: str) -> list[AlgorithmSpec]:
    """Return the algorithm declarations of a legal recipe's stages."""
    return [ALGORITHM_OF[algorithm] for algorithm in recipe.split("+")]


def needs_teacher(recipe: str) -> bool:
    """Return whether a legal recipe distils another model."""
    return any(spec.needs_teacher for spec in rules(recipe))


def goal(recipe: str) -> str | None:
    """Return the task goal that a recipe serves, by its last stage; None if that algorithm is unknown."""
    last = ALGORITHM_OF.get(recipe.split("+")[-1])
    return None if last is None else last.serves


def teachers_of(entry: BaseModelEntry, entries: Sequence[BaseModelEntry]) -> tuple[str, ...]:
    """Return the names of the models that a base model can distil: larger ones with the same tokenizer."""
    return tuple(
        other.name
        for other in entries
        if other.facts.family == entry.facts.family == "decoder"
        and other.facts.parameters > entry.facts.parameters
        and other.facts.tokenizer is not None
        and other.facts.tokenizer == entry.facts.tokenizer
    )


def update_refusal(update: str, entry: BaseModelEntry) -> str | None:
    """Return why an update of this kind does not suit a base model; None if it does."""
    rule = UPDATE_OF[update]
    if not rule.possible(entry.facts):
        return rule.otherwise.format(model=entry.name)
    return _failed(update, entry)


def edit_refusal(edit: str, entry: BaseModelEntry) -> str | None:
    """Return why this edit cannot be made to a base model; None if it can."""
    spec = EDIT_OF[edit]
    if not spec.possible(entry.facts):
        return spec.otherwise.format(model=entry.name, architecture=entry.facts.architecture)
    return _failed(edit, entry)


def takes(spec: EditSpec, entry: BaseModelEntry, value: float) -> bool:
    """Return whether a base model allows this value of an edit. The one that changes nothing is always allowed."""
    if edit_refusal(spec.edit, entry) is None:
        return spec.takes(entry.facts, value)
    return value == spec.own(entry.facts)


def _failed(kind: str, entry: BaseModelEntry) -> str | None:
    """Return why an update or edit failed on a tiny model of the base model's architecture; None if it did not."""
    reason = (entry.facts.unsupported or {}).get(kind)
    return None if reason is None else f"{kind} does not work for {entry.name} ({entry.facts.architecture}): {reason}"


def _order_fault(earlier: str | None, later: str | None, kind: DataKind, rewarded: bool) -> str | None:
    """Return why `later` may not follow `earlier`; None as an argument is the start or the end of the recipe."""
    first, second = ALGORITHM_OF.get(earlier or ""), ALGORITHM_OF.get(later or "")
    if first is not None and first.followed_by and later not in first.followed_by:
        return first.otherwise
    after_reward_model = first is not None and bool(first.followed_by)
    if second is not None and second.rewarded and not after_reward_model:
        if kind is DataKind.PREFERENCE:
            return (
                f"{second.kind} needs a reward, and preference data cannot grade new answers: put a reward_model "
                "stage directly before it"
            )
        if not rewarded:
            return (
                f"{second.kind} needs a reward: give the task a grader (task.grader) or environment (task.environment)"
            )
    if first is None or second is None:
        return None
    if reason := second.not_after.get(first.kind):
        return reason
    if first.goal >= second.goal:
        order = ", then ".join(goal.words for goal in StageGoal)
        return f"{later} cannot follow {earlier}: the goals of stages have this order, each at most once: {order}"
    return None


def recipe_refusal(update: str, recipe: str) -> str | None:
    """Return why an update of this kind does not suit an algorithm of the recipe; None if it suits all."""
    refused = UPDATE_OF[update].refused
    reasons = [f"{update} does not go with {name}: {refused[name]}" for name in recipe.split("+") if name in refused]
    return reasons[0] if reasons else None


def edited_refusal(update: str) -> str | None:
    """Return why an update of this kind does not suit an edited model; None if it does."""
    if update in UNMERGEABLE:
        return (
            f"{update} cannot be merged into the weights: only its adapter is exported, and it would not fit the "
            f"unedited base model; leave out {', '.join(rule.edit for rule in EDITS)}, or choose another update"
        )
    return None


def placement_refusal(placement: str, entry: BaseModelEntry) -> str | None:
    """Return why adapters cannot have this placement in a base model; None if they can."""
    if placement == "embeddings" and entry.facts.tied:
        return (
            f"{entry.name} ties its input embeddings to its output head, so an adapter on them cannot be merged; "
            "choose from all, attention, mlp"
        )
    return None


def check(
    design: Design,
    kind: DataKind,
    entry: BaseModelEntry,
    *,
    rewarded: bool = False,
    entries: Sequence[BaseModelEntry] = (),
) -> None:
    """Raise IllegalDesign, with the field and its legal values, unless the design can be trained on such data.

    An edit that changes nothing (all layers, all heads) is refused too, so that equal models have equal designs.
    """
    base = design.architecture.base
    if base != entry.name:
        raise IllegalDesign(
            f"The design is for the base model {base!r}, not {entry.name!r}.", param="architecture.base"
        )
    _check_architecture(design, entry)
    if not design.stages:
        return
    if reason := refusal(design.recipe, kind, rewarded=rewarded):
        raise IllegalDesign(reason, param="stages")
    _check_stages(design, entry)
    if design.teacher is not None and design.teacher not in (known := teachers_of(entry, entries)):
        raise IllegalDesign(
            f"{design.teacher} cannot teach {entry.name}: a teacher is {TEACHER}; "
            + (f"choose from {', '.join(known)}" if known else "none is registered"),
            param="stages.algorithm.teacher",
        )


def _check_architecture(design: Design, entry: BaseModelEntry) -> None:
    layers, kv_heads = design.architecture.layers, design.architecture.kv_heads
    if layers is not None and layers >= entry.facts.layers:
        raise IllegalDesign(
            f"layers is {layers}, but {entry.name} has {entry.facts.layers}. Keep fewer, or omit the field.",
            param="architecture.layers",
        )
    if layers is None and design.architecture.depth_rule != "late":
        raise IllegalDesign(
            f"depth_rule is {design.architecture.depth_rule}, but all layers are kept. "
            "Set layers to the number to keep, or omit the rule.",
            param="architecture.depth_rule",
        )
    for edit, value in (("layers", layers), ("kv_heads", kv_heads)):
        if value is not None and (reason := _failed(edit, entry)):
            raise IllegalDesign(f"{edit} is {value}, but {reason}. Omit the field.", param=f"architecture.{edit}")
    _check_window(design.architecture.window, entry)
    _check_rope(design.architecture, entry)
    heads = kv_head_choices(entry.facts)[1:]
    if kv_heads is not None and kv_heads not in heads:
        raise IllegalDesign(
            f"kv_heads is {kv_heads}, but the {entry.facts.kv_heads} key/value heads of {entry.name} can be pooled to "
            f"{', '.join(map(str, heads)) or 'no smaller number'}. Omit the field to keep all.",
            param="architecture.kv_heads",
        )


def _check_window(window: int | None, entry: BaseModelEntry) -> None:
    if window is None:
        return
    if reason := edit_refusal("window", entry):
        raise IllegalDesign(f"window is {window}, but {reason}. Omit the field.", param="architecture.window")
    widest = entry.facts.attention_window
    if widest is not None and window >= widest:
        raise IllegalDesign(
            f"window is {window}, but each token of {entry.name} sees at most {widest}. "
            "Choose a smaller window, or omit the field to keep the model's own.",
            param="architecture.window",
        )


def _check_rope(architecture: Architecture, entry: BaseModelEntry) -> None:
    if architecture.rope_factor is None:
        if architecture.rope_rule != "yarn":
            raise IllegalDesign(
                f"rope_rule is {architecture.rope_rule}, but the context is not scaled. "
                "Set rope_factor to the scaling factor, or omit the rule.",
                param="architecture.rope_rule",
            )
    elif reason := edit_refusal("rope_factor", entry):
        raise IllegalDesign(
            f"rope_factor is {architecture.rope_factor:g}, but {reason}. Omit the field.",
            param="architecture.rope_factor",
        )


def _check_stages(design: Design, entry: BaseModelEntry) -> None:
    for rule in rules(design.recipe):
        if rule.family != entry.facts.family:
            raise IllegalDesign(
                f"{rule.kind} needs {article(rule.family)} model, but {entry.name} is {article(entry.facts.family)}.",
                param="architecture.base",
            )
    kept = design.architecture.layers or entry.facts.layers
    for stage in design.stages:
        update = stage.update
        if reason := (
            update_refusal(update.kind, entry)
            or recipe_refusal(update.kind, stage.algorithm.kind)
            or (edited_refusal(update.kind) if design.architecture.edited else None)
        ):
            raise IllegalDesign(reason, param="stages.update.kind")
        if isinstance(update, Placed) and (reason := placement_refusal(update.placement, entry)):
            raise IllegalDesign(reason, param="stages.update.placement")
        if isinstance(update, TopLayers) and update.layers > kept:
            raise IllegalDesign(
                f"top_layers trains the last {update.layers} layers, but the model has {kept} after the edit.",
                param="stages.update.layers",
            )
        if update.kind in UNMERGEABLE and any(other.update != update for other in design.stages):
            raise IllegalDesign(
                f"{update.kind} cannot be merged into the weights, so no other update can precede or follow it. "
                "All stages need the same update.",
                param="stages.update",
            )
