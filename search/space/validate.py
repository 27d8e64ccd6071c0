"""Whether a recipe suits the data and a design suits a base model, by what `search.methods` declares, and why not.

This is not where a design is judged good or bad, or found too big for a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, get_args

from luthier.design import Architecture, Design
from luthier.errors import IllegalDesign
from luthier.models.base_model import BaseModelEntry
from luthier.task import DataKind, Family, Pin
from luthier.updates import Placed, TopLayers
from search.methods import ALGORITHM_OF, EDIT_OF, EDITS, RECIPES, UPDATE_OF, UPDATES, AlgorithmSpec, StageGoal
from search.methods.edits import kv_head_choices

MAX_STAGES: Final = 3
TEACHER: Final = "a larger base model with the same tokenizer"
FAMILIES: Final[tuple[Family, ...]] = get_args(Family)

UNMERGEABLE: Final = frozenset(spec.kind for spec in UPDATES if not spec.mergeable)


def recipes(
    kind: DataKind, family: Family = "decoder", *, rewarded: bool = False, taught: bool = False
) -> tuple[str, ...]:
    """Return the recipes that are searched by default for this data and family of models, the usual one first.

    `rewarded`: the task has a grader or an environment. `taught`: a model has another one to distil (`teachers_of`).
    """
    fitting = [recipe for recipe in RECIPES if _fault(recipe.split("+"), kind, rewarded, taught) is None]
    return tuple(recipe for recipe in fitting if rules(recipe)[0].family == family)


def usual(kind: DataKind, family: Family = "decoder") -> str:
    """What such data is learnt by before anything else is tried."""
    return recipes(kind, family, rewarded=True)[0]


def family(kind: DataKind, entries: Sequence[BaseModelEntry], pin: Pin) -> Family:
    """The family of all models of a search: their scores can be compared within it only. Where pins leave both,
    decoders are meant. Raises IllegalDesign where models or programs of both are pinned."""
    named = [entry for entry in entries if pin.model is None or entry.name in pin.model]
    available = {entry.facts.family for entry in named}
    known = [recipe for recipe in pin.algorithm or () if refusal(recipe, kind, rewarded=True) is None]
    wanted = {rule.family for recipe in known for rule in rules(recipe)}
    both = "pseudo-perplexity of encoders cannot be compared with the perplexity of decoders: pin one of the two"
    if pin.model is not None and len(available) > 1:
        found = ", ".join(f"{entry.name} is {article(entry.facts.family)}" for entry in named)
        raise IllegalDesign(f"pin on model: {found}, and the {both}", param="search.pin.model")
    if len(wanted) > 1:
        found = ", ".join(f"{recipe} is for {rules(recipe)[0].family}s" for recipe in known)
        raise IllegalDesign(f"pin on algorithm: {found}, and the {both}", param="search.pin.algorithm")
    if pin.model is not None and wanted and available and wanted != available:
        names = ", ".join(f"{entry.name} is {article(entry.facts.family)}" for entry in named)
        possible = ", ".join(recipes(kind, *available)) or "no program"
        raise IllegalDesign(
            f"pin on algorithm: {', '.join(pin.algorithm or ())} needs {article(*wanted)}, but {names}; "
            f"for {kind} data and that model: {possible}",
            param="search.pin.algorithm",
        )
    usable = [one for one in FAMILIES if one in (wanted or available) and recipes(kind, one, rewarded=True)]
    return usable[0] if usable else "decoder"


def article(family: Family) -> str:
    return "an encoder" if family == "encoder" else "a decoder"


def refusal(recipe: str, kind: DataKind, *, rewarded: bool = False, taught: bool = True) -> str | None:
    """Return why a recipe does not suit a task, and which recipes do; None if it suits."""
    fault = _fault(recipe.split("+"), kind, rewarded, taught)
    if fault is None:
        return None
    legal = [name for family in FAMILIES for name in recipes(kind, family, rewarded=rewarded, taught=taught)]
    alone = [f"{name} {ALGORITHM_OF[name].fits[kind]}" for name in legal if name in ALGORITHM_OF]
    staged = ", ".join(name for name in legal if name not in ALGORITHM_OF)
    return f"{fault}; for {kind} data: {'; '.join(alone)}" + (f"; in stages {staged}" if staged else "")


def fault(recipe: str, kind: DataKind, *, rewarded: bool = False, taught: bool = True) -> str | None:
    """Return the first half of `refusal`: why a recipe does not suit a task."""
    return _fault(recipe.split("+"), kind, rewarded, taught)


def rules(recipe: str) -> list[AlgorithmSpec]:
    """The declarations of a legal program's stages."""
    return [ALGORITHM_OF[algorithm] for algorithm in recipe.split("+")]


def needs_teacher(recipe: str) -> bool:
    """Return whether a legal recipe distils another model."""
    return any(spec.needs_teacher for spec in rules(recipe))


def goal(recipe: str) -> str | None:
    """The goal that a program serves, which its last stage decides; None for an algorithm that there is not."""
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
    """Why the update of this kind does not go with a base model; None where it goes."""
    rule = UPDATE_OF[update]
    return None if rule.possible(entry.facts) else rule.otherwise.format(model=entry.name)


def edit_refusal(edit: str, entry: BaseModelEntry) -> str | None:
    """Why the architecture of a base model cannot be edited so; None where it can."""
    spec = EDIT_OF[edit]
    if spec.possible(entry.facts):
        return None
    return spec.otherwise.format(model=entry.name, architecture=entry.facts.architecture)


def _fault(algorithms: Sequence[str], kind: DataKind, rewarded: bool, taught: bool) -> str | None:
    unknown = [name for name in algorithms if name not in ALGORITHM_OF]
    if unknown:
        return f"there is no algorithm {unknown[0]!r}; there are {', '.join(ALGORITHM_OF)}"
    if len(algorithms) > MAX_STAGES:
        return f"{'+'.join(algorithms)} has {len(algorithms)} stages, {MAX_STAGES} are the most"
    for name in algorithms:
        if kind not in ALGORITHM_OF[name].fits:
            return f"{name} does not go with {kind} data: {ALGORITHM_OF[name].refused[kind]}"
    untaught = [name for name in algorithms if ALGORITHM_OF[name].needs_teacher and not taught]
    if untaught:
        return f"{untaught[0]} needs a teacher: {TEACHER}, and none is registered"
    steps = zip((None, *algorithms), (*algorithms, None), strict=True)
    return next((fault for step in steps if (fault := _order_fault(*step, kind, rewarded))), None)


def _order_fault(earlier: str | None, later: str | None, kind: DataKind, rewarded: bool) -> str | None:
    """Why the one may not be followed by the other; None stands for the start and the end of a program."""
    first, second = ALGORITHM_OF.get(earlier or ""), ALGORITHM_OF.get(later or "")
    if first is not None and first.followed_by and later not in first.followed_by:
        return first.otherwise
    scored = first is not None and bool(first.followed_by)
    if second is not None and second.rewarded and not scored and (kind is DataKind.PREFERENCE or not rewarded):
        return _unrewarded(second.kind, kind)
    if first is None or second is None:
        return None
    if reason := second.not_after.get(first.kind):
        return reason
    if first.goal >= second.goal:
        order = ", then ".join(goal.words for goal in StageGoal)
        return f"{later} does not follow {earlier}: stages {order}, each once"
    return None


def _unrewarded(algorithm: str, kind: DataKind) -> str:
    if kind is DataKind.PREFERENCE:
        return (
            f"{algorithm} needs a reward, and nothing grades a new answer until a reward_model has learnt to, in the "
            "stage before"
        )
    return (
        f"{algorithm} needs a reward, and nothing says how good an answer is: give the task a grader (task.grader), "
        "or an environment (task.environment)"
    )


def recipe_refusal(update: str, recipe: str) -> str | None:
    """Why the update of this kind does not go with one of a program's algorithms; None where it goes with all."""
    refused = UPDATE_OF[update].refused
    reasons = [f"{update} does not go with {name}: {refused[name]}" for name in recipe.split("+") if name in refused]
    return reasons[0] if reasons else None


def edited_refusal(update: str) -> str | None:
    """Why the update of this kind does not go with an edited model; None where it goes."""
    if update in UNMERGEABLE:
        return (
            f"{update} cannot be folded into weights: its adapter is all there is to export, and it would not fit the "
            f"base model as it is registered; leave out {', '.join(rule.edit for rule in EDITS)}, or choose another "
            "update"
        )
    return None


def placement_refusal(placement: str, entry: BaseModelEntry) -> str | None:
    """Why adapters cannot be placed so in a base model; None where they can."""
    if placement == "embeddings" and entry.facts.tied:
        return (
            f"{entry.name} uses its input embeddings as its output head too, so that an adapter on them cannot be "
            "folded in; place adapters on all, attention or mlp"
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
    """Raise IllegalDesign, naming the field and the legal values, unless the design can be trained on such data.

    One model has one spelling: an edit that changes nothing (all the layers, all the heads) is refused too.
    """
    base = design.architecture.base
    if base != entry.name:
        raise IllegalDesign(f"the design is for base model {base!r}, not {entry.name!r}", param="architecture.base")
    _check_architecture(design, entry)
    if not design.stages:
        return
    if reason := refusal(design.recipe, kind, rewarded=rewarded):
        raise IllegalDesign(reason, param="stages")
    _check_stages(design, entry)
    if design.teacher is not None and design.teacher not in (known := teachers_of(entry, entries)):
        raise IllegalDesign(
            f"{design.teacher} cannot teach {entry.name}: a teacher is {TEACHER}; choose from "
            f"{', '.join(known) or 'none that is registered'}",
            param="stages.algorithm.teacher",
        )


def _check_architecture(design: Design, entry: BaseModelEntry) -> None:
    layers, kv_heads = design.architecture.layers, design.architecture.kv_heads
    if layers is not None and layers >= entry.facts.layers:
        raise IllegalDesign(
            f"layers is {layers}, but {entry.name} has {entry.facts.layers}: "
            "keep fewer, or leave the field out to keep all of them",
            param="architecture.layers",
        )
    if layers is None and design.architecture.depth_rule != "late":
        raise IllegalDesign(
            f"depth_rule is {design.architecture.depth_rule}, but all layers are kept: "
            "say in layers how many are to stay, or leave the rule out",
            param="architecture.depth_rule",
        )
    _check_window(design.architecture.window, entry)
    _check_rope(design.architecture, entry)
    heads = kv_head_choices(entry.facts)[1:]
    if kv_heads is not None and kv_heads not in heads:
        raise IllegalDesign(
            f"kv_heads is {kv_heads}, but the {entry.facts.kv_heads} key/value heads of {entry.name} can be pooled to "
            f"{', '.join(map(str, heads)) or 'no smaller number'}; leave the field out to keep all of them",
            param="architecture.kv_heads",
        )


def _check_window(window: int | None, entry: BaseModelEntry) -> None:
    if window is None:
        return
    if reason := edit_refusal("window", entry):
        raise IllegalDesign(f"window is {window}, but {reason}: leave the field out", param="architecture.window")
    widest = entry.facts.attention_window
    if widest is not None and window >= widest:
        raise IllegalDesign(
            f"window is {window}, but each token of {entry.name} sees {widest} at most: "
            "make it smaller, or leave the field out to keep what it sees",
            param="architecture.window",
        )


def _check_rope(architecture: Architecture, entry: BaseModelEntry) -> None:
    if architecture.rope_factor is None:
        if architecture.rope_rule != "yarn":
            raise IllegalDesign(
                f"rope_rule is {architecture.rope_rule}, but the context stays as it is: "
                "say in rope_factor how many times as long it is to be, or leave the rule out",
                param="architecture.rope_rule",
            )
    elif reason := edit_refusal("rope_factor", entry):
        raise IllegalDesign(
            f"rope_factor is {architecture.rope_factor:g}, but {reason}: leave the field out",
            param="architecture.rope_factor",
        )


def _check_stages(design: Design, entry: BaseModelEntry) -> None:
    for rule in rules(design.recipe):
        if rule.family != entry.facts.family:
            raise IllegalDesign(
                f"{rule.kind} needs {article(rule.family)} model, but {entry.name} is {article(entry.facts.family)}",
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
                f"top_layers trains the last {update.layers} layers, but the model has {kept} after the edit",
                param="stages.update.layers",
            )
        if update.kind in UNMERGEABLE and any(other.update != update for other in design.stages):
            raise IllegalDesign(
                f"{update.kind} cannot be folded into weights that another update could start from or end in: all "
                "stages need the same update",
                param="stages.update",
            )
