"""The model card: a design in words, its settings and its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from luthier.design import DepthRule, Design, RopeRule
from luthier.metrics import cell, curve_phrases, shown
from luthier.models.base_model import BaseModelEntry, ModelFacts
from luthier.task import DataKind
from luthier.trial import Metrics
from luthier.updates import VirtualTokens
from luthier.values import Frozen, Member
from luthier.worker_protocol import Assignment
from workers.export.like_base import checkpoint_dtype
from workers.templates import render
from workers.train.data.conversation import ChatTemplate

_ROUNDED: Final = {torch.bfloat16: "bfloat16", torch.float16: "float16"}

_DEPTH_RULES: Final[Mapping[DepthRule, str]] = {
    "late": "without the deepest ones before the last",
    "block_influence": "without those that change the hidden states least on training rows (ShortGPT)",
}

_ROPE_RULES: Final[Mapping[RopeRule, str]] = {
    "yarn": "YaRN RoPE scaling",
    "linear": "linear RoPE scaling (position interpolation)",
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
        algorithms=list(dict.fromkeys(_described(stage.algorithm) for stage in design.stages)),
        updates=list(dict.fromkeys(_described(stage.update) for stage in design.stages)),
        architecture=_architecture(design, model, base.facts),
        settings=_settings,
        stage_scores=stage_scores,
        curve_phrases=curve_phrases,
        scored=[
            (spec.label_of(metrics), cell(spec.value(metrics)), cell(spec.value(test_metrics)), spec.describe(metrics))
            for spec in shown("card", metrics)
        ],
        metrics=metrics,
        test_metrics=test_metrics,
        judge=assignment.judge,
        chat_template=bool(tokenizer.chat_template),
        parts=bool(tokenizer.chat_template) and ChatTemplate(tokenizer).wants_parts,
        likelihood=metrics.likelihood,
        encoder=base.facts.family == "encoder",
        auto_model="AutoModelForMaskedLM" if base.facts.family == "encoder" else "AutoModelForCausalLM",
        tied_head=base.facts.head == "tied",
        rounded=_ROUNDED.get(checkpoint_dtype(Path(base.source))) if artifact == "merged" else None,
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


def _described(member: Member) -> str:
    return f"`{member.kind_name()}`, {member.describe()}."


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
