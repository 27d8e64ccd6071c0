"""The model card: a design in words, its settings and its scores."""

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
from luthier.models.base_model import BaseModelEntry, ModelFacts
from luthier.task import DataKind
from luthier.trial import Metrics
from luthier.worker_protocol import Assignment
from workers.templates import render
from workers.train.updates.adalora import START

_DEPTH_RULES: Final[Mapping[DepthRule, str]] = {
    "late": "without the deepest ones before the last",
    "block_influence": "without those that change the hidden states least on training rows (ShortGPT)",
}

_ROPE_RULES: Final[Mapping[RopeRule, str]] = {
    "yarn": "YaRN RoPE scaling",
    "linear": "linear RoPE scaling (position interpolation)",
}

_PLACES: Final[Mapping[Placement, str]] = {
    "all": "all linear layers",
    "attention": "the attention layers",
    "mlp": "the MLP layers",
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
    trained: int,
    stage_scores: Sequence[Mapping[str, float]],
) -> str:
    """Return the README.md of an artifact: Markdown with the hub's front matter.

    `rows` is the number of training rows; `trained` of them have a target that some stage trains on. `stage_scores` are
    scores on the first held-out rows after each stage but the last.
    """
    design, base = assignment.design, assignment.base
    return render(
        "card.md.jinja",
        artifact=artifact,
        assignment=assignment,
        design=design,
        base_model=_hub_id(base) or base.name,  # the hub links an id; a local path would mean nothing there
        source=base.source,
        tags=list(dict.fromkeys(kind for s in design.stages for kind in (s.algorithm.kind, s.update.kind))),
        data=_data(assignment.judge.kind, rows, trained),
        algorithms=list(dict.fromkeys(_algorithm(stage.algorithm) for stage in design.stages)),
        updates=list(dict.fromkeys(_update(stage.update) for stage in design.stages)),
        architecture=_architecture(design, model, base.facts),
        settings=_settings,
        stage_scores=stage_scores,
        metrics=metrics,
        test_metrics=test_metrics,
        judge=assignment.judge,
        chat_template=bool(tokenizer.chat_template),
        likelihood=metrics.likelihood,
        test_likelihood=test_metrics.likelihood,
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


def _data(kind: DataKind, rows: int, trained: int) -> str:
    match kind:
        case DataKind.TEXT:
            what = "a document"
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
    unused = rows - trained
    note = f", {unused:,} of them unused: no target token within the length limit" if unused else ""
    return f"`{kind.value}`, each row {what}; {rows:,} training rows{note}."


def _algorithm(algorithm: Algorithm) -> str:
    match algorithm:
        case Clm():
            words = "causal language modelling (continued pre-training): every token is a target"
        case Sft():
            words = "supervised fine-tuning: only the tokens of the answers are targets"
        case Dpo(beta=beta):
            words = (
                f"direct preference optimisation, β = {beta:g}: raises the likelihood of the chosen answer over the "
                "rejected one, relative to the stage's initial model"
            )
        case Ipo(beta=beta):
            words = (
                f"identity preference optimisation, τ = {beta:g}: drives the margin of the chosen answer to "
                f"{1 / (2 * beta):g} nats per token, relative to the stage's initial model"
            )
        case Simpo(beta=beta, gamma=gamma):
            words = (
                f"simple preference optimisation, β = {beta:g}, γ = {gamma:g}: raises the likelihood per token of the "
                "chosen answer over the rejected one, without a reference model"
            )
        case Orpo(beta=beta):
            words = (
                f"odds-ratio preference optimisation, λ = {beta:g}: trains on prompt and chosen answer, and raises the "
                "odds of the chosen answer over the rejected one"
            )
        case Kto(beta=beta, desirable_weight=weight):
            words = (
                f"Kahneman-Tversky optimisation, β = {beta:g}, weight {weight:g} for desirable rows: raises the "
                "likelihood of desirable answers and lowers that of undesirable ones, relative to the stage's initial "
                "model"
            )
        case Grpo(group=group, beta=beta):
            penalty = f", with a KL penalty of β = {beta:g} to the stage's initial model" if beta else ""
            words = (
                f"group relative policy optimisation: of {group} answers sampled per prompt, raises the likelihood of "
                f"those whose reward is above the group's mean{penalty}"
            )
        case Rloo(group=group, beta=beta):
            penalty = f", with a KL penalty of β = {beta:g} to the stage's initial model" if beta else ""
            words = (
                f"REINFORCE leave-one-out: of {group} answers sampled per prompt, raises the likelihood of those whose "
                f"reward is above the mean of the others{penalty}"
            )
        case Raft(group=group):
            words = f"reward-ranked fine-tuning (RAFT): trains on the best of {group} answers sampled per prompt"
        case RewardModel():
            words = (
                "a reward model (Bradley-Terry): a copy of the model learns to score the chosen answer above the "
                "rejected one; its scores are the rewards of the next stage"
            )
        case Mlm(mask=mask):
            words = (
                f"masked language modelling: predicts {mask:.0%} of the tokens, chosen anew in each step, from all "
                "tokens around them"
            )
        case _:
            assert_never(algorithm)
    return f"`{algorithm.kind}`, {words}."


def _update(update: Update) -> str:
    match update:
        case Full():
            words = "all parameters are trained"
        case TopLayers(layers=layers):
            words = f"the last {layers} layers and the final norm, if there is one, are trained; the rest is frozen"
        case Lora(rank=rank, alpha=alpha, placement=where):
            words = f"low-rank adapters of rank {rank} on {_PLACES[where]}, scaled by {alpha}/{rank}"
        case RsLora(rank=rank, alpha=alpha, placement=where):
            words = f"low-rank adapters of rank {rank} on {_PLACES[where]}, scaled by {alpha}/√{rank}"
        case Dora(rank=rank, alpha=alpha, placement=where):
            words = (
                f"low-rank adapters of rank {rank} on {_PLACES[where]}, scaled by {alpha}/{rank}, for the direction of "
                "each weight, and a learned vector for its magnitude"
            )
        case LayerNorm():
            words = "the normalisation layers are trained; the rest is frozen"
        case BitFit():
            words = "the biases are trained; the rest is frozen"
        case Pissa(rank=rank, placement=where):
            words = (
                f"adapters of rank {rank} on {_PLACES[where]}, which start as the principal components of each weight "
                f"over a frozen residual; saved as plain LoRA of rank {2 * rank} on the base model"
            )
        case LoraPlus(rank=rank, alpha=alpha, ratio=ratio, placement=where):
            words = (
                f"low-rank adapters of rank {rank} on {_PLACES[where]}, scaled by {alpha}/{rank}, whose B matrices "
                f"learn {ratio:g} times faster than the A matrices"
            )
        case Vera(rank=rank):
            words = (
                f"two learned vectors per linear layer, which scale random matrices of rank {rank} shared by all layers"
            )
        case Ia3():
            words = "learned vectors that rescale keys, values and the inner activations of the feed-forward layers"
        case Oft(block=block):
            words = f"orthogonal rotations of the inputs of all linear layers, in blocks of {block} features"
        case AdaLora(rank=rank, alpha=alpha):
            words = (
                f"low-rank adapters in SVD form on all linear layers, pruned during training to a mean rank of {rank}, "
                f"scaled by {alpha}/{math.ceil(START * rank)}"
            )
        case Prompt(tokens=tokens):
            words = f"{tokens} learned embeddings before every sequence; the model is frozen"
        case Prefix(tokens=tokens):
            words = f"{tokens} learned keys and values before every sequence, in each layer; the model is frozen"
        case QLora(rank=rank, alpha=alpha):
            words = (
                f"low-rank adapters of rank {rank} on all linear layers, scaled by {alpha}/{rank}, over a 4-bit base "
                "(NF4); the exported weights are the de-quantised base with the adapters merged in"
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
        origin += f" Its weights were de-quantised from {facts.quantised}, whose lost precision they lack."
    return (
        f"`{type(model).__name__}`, {model.num_parameters():,} parameters; "
        f"{architecture.base} {'with ' + ' and '.join(edits) if edits else 'without edits'}.{origin}"
    )


def _settings(choice: Frozen) -> str:
    """Return an algorithm or an update with its settings: `lora, rank 8, alpha 32`."""
    values = choice.model_dump()
    return ", ".join(
        [
            values.pop("kind"),
            *(f"{name} {value if isinstance(value, str) else f'{value:g}'}" for name, value in values.items()),
        ]
    )
