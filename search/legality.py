"""What goes with what: which program learns from which kind of data, and which designs a base model allows.

`RULES` is the whole knowledge about programs and data; the space offers what it lists, and refusals are explained from
it. This is not where a design is judged good or bad, or found too big for a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from luthier.design import Architecture, Design, Placed, TopLayers
from luthier.errors import IllegalDesign
from luthier.model import BaseModelEntry
from luthier.task import DataKind


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A program, what it does with each kind of data that it fits, and why it does not fit each of the others."""

    program: str
    family: Literal["decoder", "encoder"]
    fits: Mapping[DataKind, str]
    refused: Mapping[DataKind, str]


VIRTUAL: Final = frozenset({"prompt", "prefix"})  # updates that add virtual tokens and leave the weights alone

_ONE_ANSWER: Final = {
    DataKind.TEXT: "plain text has no answers to choose between",
    DataKind.PAIRS: "each prompt has one completion and no rejected one",
    DataKind.CHAT: "each conversation has one continuation and no rejected one",
}

# From the most particular to the most general: the first row that fits a kind of data is its usual program.
RULES: Final = (
    Rule(
        program="dpo",
        family="decoder",
        fits={DataKind.PREFERENCE: "prefers the chosen answer to the rejected one"},
        refused=_ONE_ANSWER,
    ),
    Rule(
        program="sft+dpo",
        family="decoder",
        fits={DataKind.PREFERENCE: "learns the chosen answer, then prefers it to the rejected one"},
        refused=_ONE_ANSWER,
    ),
    Rule(
        program="sft",
        family="decoder",
        fits={
            DataKind.PAIRS: "learns the completion",
            DataKind.CHAT: "learns the assistant's messages",
            DataKind.PREFERENCE: "learns the chosen answer",
        },
        refused={DataKind.TEXT: "plain text has no prompt to tell apart from an answer"},
    ),
    Rule(
        program="clm",
        family="decoder",
        fits={
            DataKind.TEXT: "learns every token",
            DataKind.PAIRS: "learns prompt and completion alike",
            DataKind.CHAT: "learns every message alike",
        },
        refused={DataKind.PREFERENCE: "two answers to one prompt are not one text, and one of them is to be avoided"},
    ),
    Rule(
        program="ipo",
        family="decoder",
        fits={DataKind.PREFERENCE: "parts the chosen answer from the rejected one by a fixed margin"},
        refused=_ONE_ANSWER,
    ),
    Rule(
        program="sft+ipo",
        family="decoder",
        fits={DataKind.PREFERENCE: "learns the chosen answer, then parts it from the rejected one by a fixed margin"},
        refused=_ONE_ANSWER,
    ),
    Rule(
        program="simpo",
        family="decoder",
        fits={DataKind.PREFERENCE: "makes the chosen answer likelier per token than the rejected one"},
        refused=_ONE_ANSWER,
    ),
    Rule(
        program="sft+simpo",
        family="decoder",
        fits={DataKind.PREFERENCE: "learns the chosen answer, then makes it likelier per token than the rejected one"},
        refused=_ONE_ANSWER,
    ),
    Rule(
        program="orpo",
        family="decoder",
        fits={DataKind.PREFERENCE: "learns the chosen answer and prefers it to the rejected one at once"},
        refused=_ONE_ANSWER,
    ),
    Rule(
        program="sft+orpo",
        family="decoder",
        fits={},
        refused=_ONE_ANSWER | {DataKind.PREFERENCE: "orpo learns the chosen answer itself and takes the place of sft"},
    ),
)


def programs(kind: DataKind) -> tuple[str, ...]:
    """The programs that learn from this kind of data, the usual one first."""
    return tuple(rule.program for rule in RULES if kind in rule.fits)


def refusal(program: str, kind: DataKind) -> str | None:
    """Why this program does not go with this kind of data, and what does; None where it goes."""
    legal = "; ".join(f"{rule.program} {rule.fits[kind]}" for rule in RULES if kind in rule.fits)
    rule = next((rule for rule in RULES if rule.program == program), None)
    if rule is None:
        return f"there is no program {program!r}; for {kind} data: {legal}"
    if kind in rule.fits:
        return None
    return f"{program} does not go with {kind} data: {rule.refused[kind]}; for {kind} data: {legal}"


def update_refusal(update: str, entry: BaseModelEntry) -> str | None:
    """Why the update of this kind does not go with a base model; None where it goes."""
    if update == "bitfit" and not entry.facts.biases:
        return f"bitfit moves biases alone, and {entry.name} has none"
    return None


def placement_refusal(placement: str, entry: BaseModelEntry) -> str | None:
    """Why adapters cannot be placed so in a base model; None where they can."""
    if placement == "embeddings" and entry.facts.tied:
        return (
            f"{entry.name} uses its input embeddings as its output head too, so that an adapter on them cannot be "
            "folded in; place adapters on all, attention or mlp"
        )
    return None


def edit_refusal(update: str, architecture: Architecture) -> str | None:
    """Why the update of this kind does not go with an edited model; None where it goes."""
    if update in VIRTUAL and architecture.edited:
        return (
            f"{update} cannot be folded into weights: its adapter is all there is to export, and it would not fit the "
            "base model as it is registered; leave out layers, kv_heads and window, or choose another update"
        )
    return None


def kv_head_choices(kv_heads: int) -> tuple[int, ...]:
    """Numbers of key/value heads that mean pooling can make of `kv_heads`: its divisors, itself first."""
    return tuple(kept for kept in range(kv_heads, 0, -1) if kv_heads % kept == 0)


def check(design: Design, kind: DataKind, entry: BaseModelEntry) -> None:
    """Raise IllegalDesign, naming the field and the legal values, unless the design can be trained on such data.

    One model has one spelling: an edit that changes nothing (all the layers, all the heads) is refused too.
    """
    base = design.architecture.base
    if base != entry.name:
        raise IllegalDesign(f"the design is for base model {base!r}, not {entry.name!r}", param="architecture.base")
    _check_architecture(design, entry)
    if not design.stages:
        return
    if reason := refusal(design.program, kind):
        raise IllegalDesign(reason, param="stages")
    _check_stages(design, entry)


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
    heads = kv_head_choices(entry.facts.kv_heads)[1:]
    if kv_heads is not None and kv_heads not in heads:
        raise IllegalDesign(
            f"kv_heads is {kv_heads}, but the {entry.facts.kv_heads} key/value heads of {entry.name} can be pooled to "
            f"{', '.join(map(str, heads)) or 'no smaller number'}; leave the field out to keep all of them",
            param="architecture.kv_heads",
        )


def _check_window(window: int | None, entry: BaseModelEntry) -> None:
    if window is None:
        return
    widest = entry.facts.attention_window
    if widest is None:
        raise IllegalDesign(
            f"window is {window}, but the attention window of {entry.name}, a {entry.facts.architecture}, "
            "cannot be set in all layers: leave the field out",
            param="architecture.window",
        )
    if window >= widest:
        raise IllegalDesign(
            f"window is {window}, but each token of {entry.name} sees {widest} at most: "
            "make it smaller, or leave the field out to keep what it sees",
            param="architecture.window",
        )


def _check_stages(design: Design, entry: BaseModelEntry) -> None:
    rule = next(rule for rule in RULES if rule.program == design.program)
    if rule.family != entry.facts.family:
        raise IllegalDesign(
            f"{rule.program} needs a {rule.family} model, but {entry.name} is an {entry.facts.family}",
            param="architecture.base",
        )
    update = design.stages[0].update
    if any(stage.update != update for stage in design.stages):
        raise IllegalDesign(
            "all stages need the same update, so that each goes on with the weights of the one before",
            param="stages",
        )
    if reason := update_refusal(update.kind, entry) or edit_refusal(update.kind, design.architecture):
        raise IllegalDesign(reason, param="stages.update.kind")
    if isinstance(update, Placed) and (reason := placement_refusal(update.placement, entry)):
        raise IllegalDesign(reason, param="stages.update.placement")
    kept = design.architecture.layers or entry.facts.layers
    if isinstance(update, TopLayers) and update.layers > kept:
        raise IllegalDesign(
            f"top_layers trains the last {update.layers} layers, but the model has {kept} after the edit",
            param="stages.update.layers",
        )
