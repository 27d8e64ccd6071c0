"""A design is a recipe: one base model, one architecture edit, and up to three training stages.

Designs are frozen values. Each has one canonical JSON text and a digest of it, so the store, the search and the workers
agree on which designs are equal. A design without stages is the untuned base model. The data, the judge and the seed
are not part of a design: they belong to the job and the trial.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """Base of Luthier's value objects: immutable, closed to unknown fields, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


DepthRule = Literal["late", "block_influence"]
RopeRule = Literal["yarn", "linear"]
Placement = Literal["all", "attention", "mlp", "embeddings"]


class Architecture(Frozen):
    """The base model, and edits of its architecture before training; `None` keeps the base's value.

    Fields added after the first release are left out of the JSON at their default.
    """

    base: str = Field(description="name of a registered base model", min_length=1)
    layers: int | None = Field(default=None, ge=1, description="depth: how many transformer layers are kept")
    kv_heads: int | None = Field(default=None, ge=1, description="key/value heads, made by mean pooling (MHA→GQA→MQA)")
    depth_rule: DepthRule = Field(
        default="late",
        exclude_if=lambda rule: rule == "late",  # designs older than the field keep their text and digest
        description="which layers are removed: `late`, a block just before the last one (Gromov et al. 2024), or "
        "`block_influence`, those that change the hidden state least on training rows (ShortGPT, Men et al. 2024)",
    )

    window: int | None = Field(
        default=None,
        ge=1,
        exclude_if=lambda window: window is None,
        description="sliding attention window: tokens that each token attends to, including itself",
    )
    rope_factor: float | None = Field(
        default=None,
        gt=1,
        le=64,
        exclude_if=lambda factor: factor is None,
        description="RoPE scaling: the context length as a multiple of the base's",
    )
    rope_rule: RopeRule = Field(
        default="yarn",
        exclude_if=lambda rule: rule == "yarn",
        description="RoPE scaling rule: `yarn` scales the low frequencies only (Peng et al. 2023), `linear` scales all "
        "positions (Chen et al. 2023). Dynamic rules are not available: they depend on the longest row of a batch, and "
        "batches are padding-free",
    )

    @property
    def edited(self) -> bool:
        return any(edit is not None for edit in (self.layers, self.kv_heads, self.window, self.rope_factor))


class Clm(Frozen):
    """Causal language modelling (continued pre-training): every token of the text is a target."""

    kind: Literal["clm"] = "clm"


class Sft(Frozen):
    """Supervised fine-tuning (Ouyang et al. 2022): only the answer's tokens are targets."""

    kind: Literal["sft"] = "sft"


class Dpo(Frozen):
    """Direct preference optimisation (Rafailov et al. 2023); the reference is the model at the start of the stage."""

    kind: Literal["dpo"] = "dpo"
    beta: float = Field(default=0.1, gt=0, description="strength of the pull towards the reference model")


class Ipo(Frozen):
    """Identity preference optimisation (Azar et al. 2023) on log-ratios per token, as in TRL."""

    kind: Literal["ipo"] = "ipo"
    beta: float = Field(default=0.1, gt=0, description="the paper's τ: the target margin of a pair is 1/(2τ) per token")


class Simpo(Frozen):
    """Simple preference optimisation (Meng et al. 2024): the reward is the likelihood per token; no reference model."""

    kind: Literal["simpo"] = "simpo"
    beta: float = Field(default=2.0, gt=0, description="scale of the reward")
    gamma: float = Field(
        default=1.0, ge=0, description="target margin between the rewards of the chosen and the rejected answer"
    )


class Orpo(Frozen):
    """Odds-ratio preference optimisation (Hong et al. 2024): SFT and preferences in one loss, no reference model."""

    kind: Literal["orpo"] = "orpo"
    beta: float = Field(default=0.1, gt=0, description="the paper's λ: weight of the odds-ratio loss")


class Kto(Frozen):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024): learns from single answers labelled good or bad."""

    kind: Literal["kto"] = "kto"
    beta: float = Field(default=0.1, gt=0, description="strength of the pull towards the reference model")
    desirable_weight: float = Field(
        default=1.0, gt=0, description="the paper's λ_D: weight of a desirable row; an undesirable row weighs 1"
    )


Group = Annotated[int, Field(ge=2, description="answers sampled for each prompt of a step (TRL's num_generations)")]


class Grpo(Frozen):
    """Group relative policy optimisation (Shao et al. 2024), on policy; the loss is averaged over all tokens of a
    step, as in DAPO (Yu et al. 2025)."""

    kind: Literal["grpo"] = "grpo"
    group: Group = 8
    beta: float = Field(
        default=0.0, ge=0, description="weight of the KL divergence from the model at the stage's start"
    )


class Rloo(Frozen):
    """REINFORCE leave-one-out (Ahmadian et al. 2024): the baseline is the mean reward of the other answers."""

    kind: Literal["rloo"] = "rloo"
    group: Group = 4
    beta: float = Field(
        default=0.05, ge=0, description="KL penalty: reward lost per nat of divergence from the stage's start"
    )


class Raft(Frozen):
    """Reward-ranked fine-tuning, or rejection sampling (Dong et al. 2023): SFT on the best of each prompt's answers."""

    kind: Literal["raft"] = "raft"
    group: Group = 4


class RewardModel(Frozen):
    """Reward model (Bradley-Terry; Ouyang et al. 2022): learns to score the chosen answer above the rejected one.

    It trains a copy of the model and leaves the policy unchanged. The next stage maximises its scores (RLHF).
    """

    kind: Literal["reward_model"] = "reward_model"


class Mlm(Frozen):
    """Masked language modelling (Devlin et al. 2019) with new masks in each step, as in RoBERTa (Liu et al. 2019).

    Of the selected tokens, 80 % are masked, 10 % are replaced by a random token, and 10 % stay unchanged.
    """

    kind: Literal["mlm"] = "mlm"
    mask: float = Field(default=0.15, gt=0, lt=1, description="share of the tokens that are selected and predicted")


Algorithm = Annotated[
    Clm | Sft | Dpo | Ipo | Simpo | Orpo | Grpo | Rloo | Raft | Kto | RewardModel | Mlm,
    Field(discriminator="kind"),
]


class Full(Frozen):
    """Full fine-tuning: every parameter is trained."""

    kind: Literal["full"] = "full"


class TopLayers(Frozen):
    """Trains the last `layers` transformer layers and the final norm; everything else is frozen."""

    kind: Literal["top_layers"] = "top_layers"
    layers: int = Field(ge=1, description="transformer layers that are trained")


class Placed(Frozen):
    """Base of the updates that can be limited to some of a model's modules."""

    placement: Placement = Field(
        default="all",
        exclude_if=lambda placement: placement == "all",  # designs older than the field keep their text and digest
        description="target_modules: `all` linear layers except the output head, those of `attention` or of the `mlp` "
        "only, or `embeddings` (all linear layers and the input embeddings)",
    )


class Lora(Placed):
    """Low-rank adapters on linear layers (Hu et al. 2021), scaled by alpha/rank."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(ge=1)
    alpha: int = Field(default=32, ge=1)


class RsLora(Placed):
    """Rank-stabilised LoRA (Kalajdzievski 2023): scaled by alpha/sqrt(rank), which keeps high ranks stable."""

    kind: Literal["rslora"] = "rslora"
    rank: int = Field(ge=1)
    alpha: int = Field(default=16, ge=1)


class Dora(Placed):
    """DoRA (Liu et al. 2024): LoRA on the direction of each weight, and a learned vector for its magnitude."""

    kind: Literal["dora"] = "dora"
    rank: int = Field(ge=1)
    alpha: int = Field(default=32, ge=1)


class LayerNorm(Frozen):
    """LayerNorm tuning (Zhao et al. 2023): only the parameters of the normalisation layers are trained."""

    kind: Literal["layernorm"] = "layernorm"


class BitFit(Frozen):
    """BitFit (Ben Zaken et al. 2021): only the biases are trained."""

    kind: Literal["bitfit"] = "bitfit"


class Pissa(Placed):
    """PiSSA (Meng et al. 2024): LoRA initialised with each weight's principal singular vectors; the rest is frozen."""

    kind: Literal["pissa"] = "pissa"
    rank: int = Field(ge=1)
    placement: Literal["all", "attention", "mlp"] = Field(
        default="all",
        exclude_if=lambda placement: placement == "all",
        description="target_modules as for lora, except the embeddings, which PiSSA does not support",
    )


class LoraPlus(Placed):
    """LoRA+ (Hayou et al. 2024): the learning rate of the B matrices is `ratio` times that of the A matrices."""

    kind: Literal["lora_plus"] = "lora_plus"
    rank: int = Field(ge=1)
    alpha: int = Field(default=32, ge=1)
    ratio: float = Field(default=16.0, ge=1, description="learning rate of B over that of A")


class Vera(Frozen):
    """VeRA (Kopiczko et al. 2024): two learned vectors per linear layer scale random matrices that all layers share."""

    kind: Literal["vera"] = "vera"
    rank: int = Field(ge=1)


class Ia3(Frozen):
    """(IA)³ (Liu et al. 2022): learned vectors rescale the keys, the values and the feed-forward activations."""

    kind: Literal["ia3"] = "ia3"


class Oft(Frozen):
    """OFT (Qiu et al. 2023): learned rotations of the inputs of all linear layers, in blocks of `block` features."""

    kind: Literal["oft"] = "oft"
    block: int = Field(ge=2)


class AdaLora(Frozen):
    """AdaLoRA (Zhang et al. 2023): LoRA in SVD form that moves rank to the layers that need it.

    Training starts with 1.5 times `rank` and prunes to a mean of `rank`, on a schedule that scales with the steps.
    """

    kind: Literal["adalora"] = "adalora"
    rank: int = Field(ge=1, description="mean rank at the end of training")
    alpha: int = Field(default=32, ge=1)
    orthogonality: float = Field(default=0.5, ge=0, description="weight of the orthogonality regulariser in the loss")


class Prompt(Frozen):
    """Prompt tuning (Lester et al. 2021): learned embeddings in front of every sequence; the model is frozen."""

    kind: Literal["prompt"] = "prompt"
    tokens: int = Field(ge=1, description="virtual tokens")


class Prefix(Frozen):
    """Prefix tuning (Li & Liang 2021): learned keys and values in front of every sequence, in each layer."""

    kind: Literal["prefix"] = "prefix"
    tokens: int = Field(ge=1, description="virtual tokens")


class QLora(Frozen):
    """QLoRA (Dettmers et al. 2023): LoRA on all linear layers of a base model quantised to 4 bits (NF4)."""

    kind: Literal["qlora"] = "qlora"
    rank: int = Field(ge=1)
    alpha: int = Field(default=32, ge=1)


Update = Annotated[
    Full
    | TopLayers
    | Lora
    | RsLora
    | Dora
    | LayerNorm
    | BitFit
    | Pissa
    | LoraPlus
    | Vera
    | Ia3
    | Oft
    | AdaLora
    | Prompt
    | Prefix
    | QLora,
    Field(discriminator="kind"),
]
AdapterUpdate = Lora | RsLora | Dora | Pissa | LoraPlus | Vera | Ia3 | Oft | AdaLora | Prompt | Prefix | QLora
VirtualTokens = Prompt | Prefix  # these cannot be merged into the weights of the model


class Optimiser(Frozen):
    """AdamW with linear warm-up and cosine decay to zero over the whole stage."""

    learning_rate: float = Field(gt=0)
    batch_size: int = Field(default=8, ge=1, description="rows in one optimiser step")
    epochs: float = Field(default=1.0, gt=0, description="passes over the training rows")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="learning-rate warm-up, as a share of the steps")
    weight_decay: float = Field(default=0.0, ge=0)


class Stage(Frozen):
    algorithm: Algorithm
    update: Update
    optimiser: Optimiser


class Design(Frozen):
    architecture: Architecture
    stages: tuple[Stage, ...] = Field(default=(), max_length=3)

    def canonical(self) -> str:
        """Return the canonical JSON text of this design: sorted keys, no spaces, defaults written out."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def digest(self) -> str:
        """Return the first 16 hex digits of the SHA-256 of the canonical text."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:16]

    @property
    def recipe(self) -> str:
        """The algorithms of the stages in order, e.g. `sft` or `sft+dpo`; `base` for the untuned model."""
        return "+".join(stage.algorithm.kind for stage in self.stages) or "base"

    def summary(self) -> str:
        """Return the design in one line for tables and logs."""
        architecture = self.architecture
        rule = "" if architecture.depth_rule == "late" else " by influence"
        edits = [f"{architecture.layers} layers{rule}"] if architecture.layers else []
        edits += [f"{architecture.kv_heads} KV heads"] if architecture.kv_heads else []
        edits += [f"window {architecture.window}"] if architecture.window else []
        edits += [f"context ×{architecture.rope_factor:g} {architecture.rope_rule}"] if architecture.rope_factor else []
        model = architecture.base + (f" ({', '.join(edits)})" if edits else "")
        return " → ".join([model, *map(_stage_summary, self.stages)]) if self.stages else f"{model}, untuned"


def _stage_summary(stage: Stage) -> str:
    match stage.update:
        case Full():
            update = "full"
        case TopLayers(layers=layers):
            update = f"top {layers} layers"
        case Lora(kind=kind, rank=rank) | RsLora(kind=kind, rank=rank) | Dora(kind=kind, rank=rank):
            update = f"{kind} r{rank}{_place(stage.update)}"
        case LayerNorm(kind=kind) | BitFit(kind=kind) | Ia3(kind=kind):
            update = kind
        case Pissa(kind=kind, rank=rank) | LoraPlus(kind=kind, rank=rank):
            update = f"{kind} r{rank}{_place(stage.update)}"
        case Vera(kind=kind, rank=rank) | AdaLora(kind=kind, rank=rank) | QLora(kind=kind, rank=rank):
            update = f"{kind} r{rank}"
        case Oft(block=block):
            update = f"oft {block}×{block}"
        case Prompt(kind=kind, tokens=tokens) | Prefix(kind=kind, tokens=tokens):
            update = f"{kind} of {tokens} tokens"
    o = stage.optimiser
    return f"{stage.algorithm.kind} {update} lr {o.learning_rate:.2g} ×{o.epochs:g}ep b{o.batch_size}"


def _place(update: Placed) -> str:
    match update.placement:
        case "all":
            return ""
        case "embeddings":
            return " and embeddings"
        case part:
            return f" on {part}"
