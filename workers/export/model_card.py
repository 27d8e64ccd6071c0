"""The model card: what a design is, in the words of the four axes, and how well it did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, assert_never

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from luthier.design import (
    AdaLora,
    Algorithm,
    BitFit,
    Clm,
    DepthRule,
    Design,
    Dora,
    Dpo,
    Frozen,
    Full,
    Grpo,
    Ia3,
    Ipo,
    Kto,
    LayerNorm,
    Lora,
    LoraPlus,
    Mlm,
    Oft,
    Orpo,
    Pissa,
    Placement,
    Prefix,
    Prompt,
    QLora,
    Raft,
    RewardModel,
    Rloo,
    RopeRule,
    RsLora,
    Sft,
    Simpo,
    TopLayers,
    Update,
    Vera,
    VirtualTokens,
)
from luthier.metrics import cell, curve_phrases, shown
from luthier.models.base_model import BaseModelEntry, ModelFacts
from luthier.task import DataKind
from luthier.trial import Metrics
from luthier.worker_protocol import Assignment
from workers.templates import render
from workers.train.updates.adalora import START

_DEPTH_RULES: Final[Mapping[DepthRule, str]] = {
    "late": "the deepest but the last one left out",
    "block_influence": "those left out that change the hidden state least on training rows (ShortGPT)",
}

_ROPE_RULES: Final[Mapping[RopeRule, str]] = {
    "yarn": "YaRN: rotary positions of low frequency are stretched",
    "linear": "position interpolation: all rotary positions are stretched alike",
}


_PLACES: Final[Mapping[Placement, str]] = {
    "all": "all linear layers",
    "attention": "the linear layers of attention",
    "mlp": "the linear layers of the MLP",
    "embeddings": "all linear layers and the input embeddings",
}


def card(
    artifact: Literal["adapter", "merged"],
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    assignment: Assignment,
    metrics: Metrics,
    test_metrics: Metrics,
    rows: int,
    learnt: int,
    brought: Sequence[Mapping[str, float]],
) -> str:
    """The README.md of an artifact: one page of Markdown under the hub's front matter.

    `rows` is the number of training rows, `learnt` how many of them a stage learnt from, `brought` the scores on a few
    held-out rows after each stage but the last.
    """
    design, base = assignment.design, assignment.base
    return render(
        "card.md.jinja",
        artifact=artifact,
        assignment=assignment,
        design=design,
        base_model=_hub_id(base) or base.name,  # a hub id is a link there, a folder of ours is not
        source=base.source,
        tags=list(dict.fromkeys(kind for s in design.stages for kind in (s.algorithm.kind, s.update.kind))),
        data=_data(assignment.judge.kind, rows, learnt),
        algorithms=list(dict.fromkeys(_algorithm(stage.algorithm) for stage in design.stages)),
        updates=list(dict.fromkeys(_update(stage.update) for stage in design.stages)),
        architecture=_architecture(design, model, base.facts),
        settings=_settings,
        brought=brought,
        curve_phrases=curve_phrases,
        scored=[
            (spec.label_of(metrics), cell(spec.value(metrics)), cell(spec.value(test_metrics)), spec.describe(metrics))
            for spec in shown("card", metrics)
        ],
        metrics=metrics,
        test_metrics=test_metrics,
        judge=assignment.judge,
        chat_template=bool(tokenizer.chat_template),
        likelihood=metrics.likelihood,
        encoder=base.facts.family == "encoder",
        auto_model="AutoModelForMaskedLM" if base.facts.family == "encoder" else "AutoModelForCausalLM",
        tied_head=base.facts.head == "tied",
        mergeable=not any(isinstance(stage.update, VirtualTokens) for stage in design.stages),
    )


def _hub_id(base: BaseModelEntry) -> str | None:
    origin, is_revision, _ = (base.facts.origin or "").partition("@")
    if is_revision:
        return origin
    return None if Path(base.source).is_dir() else base.source


def _data(kind: DataKind, rows: int, learnt: int) -> str:
    match kind:
        case DataKind.TEXT:
            what = "running text"
        case DataKind.PAIRS:
            what = "a prompt and its completion"
        case DataKind.CHAT:
            what = "a conversation of several turns"
        case DataKind.PREFERENCE:
            what = "a prompt with a chosen and a rejected answer"
        case DataKind.PROMPTS:
            what = "a prompt without an answer"
        case DataKind.UNPAIRED:
            what = "a prompt and its completion, labelled desirable or not"
    lost = rows - learnt
    dropped = (
        f"; {lost:,} of them {'has' if lost == 1 else 'have'} no target within the length limit that a stage learns"
        if lost
        else ""
    )
    return f"`{kind.value}`, each row {what}; {rows:,} training rows{dropped}."


def _algorithm(algorithm: Algorithm) -> str:
    match algorithm:
        case Clm():
            words = "causal language modelling, self-supervised: every token is a target"
        case Sft():
            words = "supervised fine-tuning: only the answers' tokens are targets"
        case Dpo(beta=beta):
            words = (
                f"direct preference optimisation at β = {beta:g}: the chosen answer is made likelier than the rejected "
                "one, against the weights that the stage starts from"
            )
        case Ipo(beta=beta):
            words = (
                f"identity preference optimisation at τ = {beta:g}: the chosen answer is to gain {1 / (2 * beta):g} "
                "nats per token on the rejected one, against the weights that the stage starts from"
            )
        case Simpo(beta=beta, gamma=gamma):
            words = (
                f"simple preference optimisation at β = {beta:g}, γ = {gamma:g}: the chosen answer is made likelier "
                "per token than the rejected one, without a reference"
            )
        case Orpo(beta=beta):
            words = (
                f"odds-ratio preference optimisation at λ = {beta:g}: the chosen answer is learnt, prompt included, "
                "and its odds are raised over the rejected one's"
            )
        case Kto(beta=beta, desirable_weight=weight):
            words = (
                f"Kahneman-Tversky optimisation at β = {beta:g}, a desirable row weighing {weight:g} times an "
                "undesirable one: desirable answers are made likelier and undesirable ones less likely, against the "
                "weights that the stage starts from"
            )
        case Grpo(group=group, beta=beta):
            lease = f", held to where the stage starts at β = {beta:g}" if beta else ""
            words = (
                f"group relative policy optimisation: of {group} answers drawn for each prompt, those with more reward "
                f"than the others are made likelier, token by token{lease}"
            )
        case Rloo(group=group, beta=beta):
            cost = f", less {beta:g} for each nat away from where the stage starts" if beta else ""
            words = (
                f"REINFORCE, leave one out: each of {group} answers drawn for each prompt is made likelier by what its "
                f"reward{cost} has on the mean of the others"
            )
        case Raft(group=group):
            words = f"reward-ranked fine-tuning: the best of {group} answers drawn for each prompt is learnt"
        case RewardModel():
            words = (
                "a reward model on pairs of answers (Bradley-Terry): a copy of the model learns to score the chosen "
                "answer above the rejected one, and the next stage plays for its scores"
            )
        case Mlm(mask=mask):
            words = (
                f"masked language modelling, self-supervised: {mask:.0%} of the tokens are chosen, others in each "
                "step, and predicted from all those around them"
            )
        case _:
            assert_never(algorithm)
    return f"`{algorithm.kind}`, {words}."


def _update(update: Update) -> str:
    match update:
        case Full():
            words = "every parameter moves"
        case TopLayers(layers=layers):
            words = f"the last {layers} layers and the norm after them, if there is one, move, all else is frozen"
        case Lora(rank=rank, alpha=alpha, placement=where):
            words = f"low-rank adapters of rank {rank} on {_PLACES[where]}, scaled by {alpha}/{rank}"
        case RsLora(rank=rank, alpha=alpha, placement=where):
            words = f"low-rank adapters of rank {rank} on {_PLACES[where]}, scaled by {alpha}/√{rank}"
        case Dora(rank=rank, alpha=alpha, placement=where):
            words = (
                f"low-rank adapters of rank {rank} for the direction of {_PLACES[where]}, scaled by {alpha}/{rank}, "
                "and a learned vector for their magnitude"
            )
        case LayerNorm():
            words = "the parameters of the normalisation layers move, all else is frozen"
        case BitFit():
            words = "the biases move, all else is frozen"
        case Pissa(rank=rank, placement=where):
            words = (
                f"the {rank} principal singular directions of {_PLACES[where]} move as adapters, the rest of each "
                f"weight is frozen; the adapter is kept as plain LoRA of rank {2 * rank} on the base model"
            )
        case LoraPlus(rank=rank, alpha=alpha, ratio=ratio, placement=where):
            words = (
                f"low-rank adapters of rank {rank} on {_PLACES[where]}, scaled by {alpha}/{rank}, whose B matrices "
                f"learn {ratio:g} times faster than the A matrices"
            )
        case Vera(rank=rank):
            words = (
                f"two learned vectors for each linear layer, which scale random matrices of rank {rank} that all "
                "layers share"
            )
        case Ia3():
            words = "learned vectors that rescale the keys, the values and the inside of the feed-forward layers"
        case Oft(block=block):
            words = f"orthogonal rotations of the inputs of all linear layers, in blocks of {block} features"
        case AdaLora(rank=rank, alpha=alpha):
            words = (
                f"low-rank adapters on all linear layers as singular values with their vectors, pruned in training to "
                f"a mean rank of {rank}, scaled by {alpha}/{math.ceil(START * rank)}"
            )
        case Prompt(tokens=tokens):
            words = f"{tokens} learned embeddings stand in front of every sequence, the model itself is frozen"
        case Prefix(tokens=tokens):
            words = (
                f"{tokens} learned keys and values stand in front of every sequence in each layer, the model itself "
                "is frozen"
            )
        case QLora(rank=rank, alpha=alpha):
            words = (
                f"low-rank adapters of rank {rank} on all linear layers, scaled by {alpha}/{rank}, over a base rounded "
                "to four bits (NF4); what is kept are the rounded weights with the adapters added"
            )
        case _:
            assert_never(update)
    return f"`{update.kind}`, {words}."


def _architecture(design: Design, model: PreTrainedModel, facts: ModelFacts) -> str:
    architecture = design.architecture
    edits = []
    if architecture.layers is not None:
        which = ", ".join(map(str, model.config.kept_layers))
        why = _DEPTH_RULES[architecture.depth_rule]
        edits.append(f"{architecture.layers} of {facts.layers} layers kept ({which}, counted from 0), {why}")
    if architecture.kv_heads is not None:
        edits.append(f"{facts.kv_heads} key/value heads mean-pooled to {architecture.kv_heads}")
    if architecture.window is not None:
        edits.append(f"a sliding attention window of {architecture.window} tokens in every layer")
    if architecture.rope_factor is not None:
        context = model.config.max_position_embeddings
        edits.append(
            f"a context of {context:,} instead of {facts.context:,} tokens by {_ROPE_RULES[architecture.rope_rule]}"
        )
    origin = f" The base model comes from `{facts.origin}`." if facts.origin else ""
    if facts.quantised:
        origin += f" Its weights were de-quantised from {facts.quantised}: precision lost there is not in them."
    return (
        f"`{type(model).__name__}`, {model.num_parameters():,} parameters; "
        f"{architecture.base} {'with ' + ' and '.join(edits) if edits else 'as it is'}.{origin}"
    )


def _settings(choice: Frozen) -> str:
    """An algorithm or an update with its own settings: `lora, rank 8, alpha 32`."""
    values = choice.model_dump()
    return ", ".join(
        [
            values.pop("kind"),
            *(f"{name} {value if isinstance(value, str) else f'{value:g}'}" for name, value in values.items()),
        ]
    )
