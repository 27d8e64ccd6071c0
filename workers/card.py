"""The model card: what a design is, in the words of the four axes, and how well it did."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    Ia3,
    Ipo,
    LayerNorm,
    Lora,
    LoraPlus,
    Oft,
    Orpo,
    Pissa,
    Placement,
    Prefix,
    Prompt,
    RsLora,
    Sft,
    Simpo,
    TopLayers,
    Update,
    Vera,
    VirtualTokens,
)
from luthier.task import DataKind
from luthier.trial import Metrics
from luthier.wire import Assignment
from workers.judge import renderer
from workers.templates import render
from workers.train.updates.adaptive import START

_DEPTH_RULES: Final[Mapping[DepthRule, str]] = {
    "late": "the deepest but the last one left out",
    "block_influence": "those left out that change the hidden state least on training rows (ShortGPT)",
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
) -> str:
    """The README.md of an artifact: one page of Markdown under the hub's front matter.

    `rows` is the number of training rows, `learnt` how many of them had a target within the length limit.
    """
    design, base = assignment.design, assignment.base
    local = Path(base.source).is_dir()
    return render(
        "card.md.jinja",
        artifact=artifact,
        assignment=assignment,
        design=design,
        base_model=base.name if local else base.source,  # a hub id is a link there, a folder of ours is not
        source=base.source,
        tags=list(dict.fromkeys(kind for s in design.stages for kind in (s.algorithm.kind, s.update.kind))),
        data=_data(assignment.judge.kind, rows, learnt),
        algorithms=list(dict.fromkeys(_algorithm(stage.algorithm) for stage in design.stages)),
        updates=list(dict.fromkeys(_update(stage.update) for stage in design.stages)),
        architecture=_architecture(design, model, base.facts.layers, base.facts.kv_heads),
        settings=_settings,
        metrics=metrics,
        test_metrics=test_metrics,
        judge=assignment.judge,
        limits=renderer(tokenizer, assignment.judge, base.facts.context),
        chat_template=bool(tokenizer.chat_template),
        mergeable=not any(isinstance(stage.update, VirtualTokens) for stage in design.stages),
    )


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
    lost = rows - learnt
    dropped = f"; {lost:,} of them {'has' if lost == 1 else 'have'} no target within the length limit" if lost else ""
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
        case _:
            assert_never(algorithm)
    return f"`{algorithm.kind}`, {words}."


def _update(update: Update) -> str:
    match update:
        case Full():
            words = "every parameter moves"
        case TopLayers(layers=layers):
            words = f"the last {layers} layers and the final norm move, all else is frozen"
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
        case _:
            assert_never(update)
    return f"`{update.kind}`, {words}."


def _architecture(design: Design, model: PreTrainedModel, layers: int, kv_heads: int) -> str:
    architecture = design.architecture
    edits = []
    if architecture.layers is not None:
        which = ", ".join(map(str, model.config.kept_layers))
        why = _DEPTH_RULES[architecture.depth_rule]
        edits.append(f"{architecture.layers} of {layers} layers kept ({which}, counted from 0), {why}")
    if architecture.kv_heads is not None:
        edits.append(f"{kv_heads} key/value heads mean-pooled to {architecture.kv_heads}")
    if architecture.window is not None:
        edits.append(f"a sliding attention window of {architecture.window} tokens in every layer")
    return (
        f"`{type(model).__name__}`, {model.num_parameters():,} parameters; "
        f"{architecture.base} {'with ' + ' and '.join(edits) if edits else 'as it is'}."
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
