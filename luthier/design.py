"""A design is a short program: one base model, one architecture edit, and up to three training stages.

Designs are values: frozen, with one canonical JSON text and a digest of it, so that "the same design" has one meaning
in the store, the search and the workers. A design without stages is the untuned model, the zero of every comparison.
What is *not* in a design: the data, the judge and the seed, which belong to the job and the trial.
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
    """Which model is trained, and how it is edited before training; `None` keeps what the base has.

    Fields that came after the first release are left out of the JSON at their default.
    """

    base: str = Field(description="name of a registered base model", min_length=1)
    layers: int | None = Field(default=None, ge=1, description="depth: how many transformer layers are kept")
    kv_heads: int | None = Field(default=None, ge=1, description="key/value heads after mean pooling (MHA→GQA→MQA)")
    depth_rule: DepthRule = Field(
        default="late",
        exclude_if=lambda rule: rule == "late",  # designs older than the field keep their text and digest
        description="which layers go: `late`, a block just before the last one (Gromov et al. 2024), or "
        "`block_influence`, those that change the hidden state least on training rows (ShortGPT, Men et al. 2024)",
    )

    window: int | None = Field(
        default=None,
        ge=1,
        exclude_if=lambda window: window is None,
        description="sliding attention window: how many tokens each one sees, itself included",
    )
    rope_factor: float | None = Field(
        default=None,
        gt=1,
        le=64,
        exclude_if=lambda factor: factor is None,
        description="rotary positions are stretched for a context that is so many times as long",
    )
    rope_rule: RopeRule = Field(
        default="yarn",
        exclude_if=lambda rule: rule == "yarn",
        description="how they are stretched: `yarn`, low frequencies only (Peng et al. 2023), or `linear`, all alike "
        "(Chen et al. 2023). No dynamic rule: it looks at the longest row of a call, and rows are read end to end",
    )

    @property
    def edited(self) -> bool:
        return any(edit is not None for edit in (self.layers, self.kv_heads, self.window, self.rope_factor))


class Clm(Frozen):
    """Self-supervised causal language modelling: every token of the text is a target."""

    kind: Literal["clm"] = "clm"


class Sft(Frozen):
    """Supervised fine-tuning: only the answer's tokens are targets."""

    kind: Literal["sft"] = "sft"


class Dpo(Frozen):
    """Direct preference optimisation (Rafailov et al. 2023), against the weights that the stage starts from."""

    kind: Literal["dpo"] = "dpo"
    beta: float = Field(default=0.1, gt=0, description="strength of the pull towards the reference")


class Ipo(Frozen):
    """Identity preference optimisation (Azar et al. 2023), on log-ratios per token, as TRL has it."""

    kind: Literal["ipo"] = "ipo"
    beta: float = Field(default=0.1, gt=0, description="the paper's τ: the pair is to come apart by 1/(2τ) per token")


class Simpo(Frozen):
    """Simple preference optimisation (Meng et al. 2024): likelihood per token as reward, without a reference."""

    kind: Literal["simpo"] = "simpo"
    beta: float = Field(default=2.0, gt=0, description="scale of the reward")
    gamma: float = Field(default=1.0, ge=0, description="margin by which the chosen answer's reward is to lead")


class Orpo(Frozen):
    """Odds-ratio preference optimisation (Hong et al. 2024): likelihood and preference in one loss, no reference."""

    kind: Literal["orpo"] = "orpo"
    beta: float = Field(default=0.1, gt=0, description="the paper's λ: weight of the odds ratio beside the likelihood")


class Kto(Frozen):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024): single answers, each with a verdict, against the weights
    that the stage starts from."""

    kind: Literal["kto"] = "kto"
    beta: float = Field(default=0.1, gt=0, description="how soon a gain or a loss stops to count for more")
    desirable_weight: float = Field(
        default=1.0, gt=0, description="the paper's λ_D, weight of a desirable row; that of an undesirable one is 1"
    )


Group = Annotated[int, Field(ge=2, description="answers drawn for each prompt of a step, to be compared")]


class Grpo(Frozen):
    """Group relative policy optimisation (Shao et al. 2024), on policy, as TRL has it: the loss is a mean over the
    step's tokens (DAPO, Yu et al. 2025)."""

    kind: Literal["grpo"] = "grpo"
    group: Group = 8
    beta: float = Field(default=0.0, ge=0, description="weight of the divergence from where the stage starts; 0: none")


class Rloo(Frozen):
    """REINFORCE with the other answers' mean reward as baseline (Ahmadian et al. 2024)."""

    kind: Literal["rloo"] = "rloo"
    group: Group = 4
    beta: float = Field(default=0.05, ge=0, description="what a nat of divergence from the stage's start costs")


class Raft(Frozen):
    """Reward-ranked fine-tuning (Dong et al. 2023): the best of each prompt's answers is learnt like an example."""

    kind: Literal["raft"] = "raft"
    group: Group = 4


class RewardModel(Frozen):
    """A reward model from pairs of answers (Bradley-Terry; Ouyang et al. 2022): a copy of the weights that the stage
    starts from learns to score the chosen answer above the rejected one. The policy stays as it is; the reward
    maximiser that has to follow plays for the scores."""

    kind: Literal["reward_model"] = "reward_model"


class Mlm(Frozen):
    """Self-supervised masked language modelling (Devlin et al. 2019), with other masks in each step as RoBERTa has it
    (Liu et al. 2019): of the tokens chosen, 80 % are hidden, 10 % replaced by any other, 10 % left as they are."""

    kind: Literal["mlm"] = "mlm"
    mask: float = Field(default=0.15, gt=0, lt=1, description="share of the tokens that are chosen, and predicted")


Algorithm = Annotated[
    Clm | Sft | Dpo | Ipo | Simpo | Orpo | Grpo | Rloo | Raft | Kto | RewardModel | Mlm,
    Field(discriminator="kind"),
]


class Full(Frozen):
    """Every parameter moves."""

    kind: Literal["full"] = "full"


class TopLayers(Frozen):
    """The last `layers` transformer layers and the norm after them, if there is one, move; all else is frozen."""

    kind: Literal["top_layers"] = "top_layers"
    layers: int = Field(ge=1)


class Placed(Frozen):
    """Base of the updates that may sit on some of a model's modules alone."""

    placement: Placement = Field(
        default="all",
        exclude_if=lambda placement: placement == "all",  # designs older than the field keep their text and digest
        description="where the adapters sit: `all` linear layers but the output head, those of `attention` or of the "
        "`mlp` alone, or all of them and the input `embeddings`",
    )


class Lora(Placed):
    """Low-rank adapters on linear layers (Hu et al. 2021), scaled by alpha/rank."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(ge=1)
    alpha: int = Field(default=32, ge=1)


class RsLora(Placed):
    """LoRA scaled by alpha/sqrt(rank), so that high ranks learn too (Kalajdzievski 2023)."""

    kind: Literal["rslora"] = "rslora"
    rank: int = Field(ge=1)
    alpha: int = Field(default=16, ge=1)


class Dora(Placed):
    """LoRA on the direction, a learned vector on the magnitude (Liu et al. 2024)."""

    kind: Literal["dora"] = "dora"
    rank: int = Field(ge=1)
    alpha: int = Field(default=32, ge=1)


class LayerNorm(Frozen):
    """The parameters of the normalisation layers move; all else is frozen (Zhao et al. 2023)."""

    kind: Literal["layernorm"] = "layernorm"


class BitFit(Frozen):
    """The biases move; all else is frozen (Ben Zaken et al. 2021)."""

    kind: Literal["bitfit"] = "bitfit"


class Pissa(Placed):
    """LoRA that starts from the principal singular vectors; the rest of each weight is frozen (Meng et al. 2024)."""

    kind: Literal["pissa"] = "pissa"
    rank: int = Field(ge=1)
    placement: Literal["all", "attention", "mlp"] = Field(
        default="all",
        exclude_if=lambda placement: placement == "all",
        description="as for lora, but never on the embeddings, which have no principal part of this kind",
    )


class LoraPlus(Placed):
    """LoRA whose B matrices learn `ratio` times faster than the A matrices (Hayou et al. 2024)."""

    kind: Literal["lora_plus"] = "lora_plus"
    rank: int = Field(ge=1)
    alpha: int = Field(default=32, ge=1)
    ratio: float = Field(default=16.0, ge=1, description="learning rate of B over that of A, which the optimiser names")


class Vera(Frozen):
    """Two learned vectors for each linear layer, scaling random matrices that all share (Kopiczko et al. 2024)."""

    kind: Literal["vera"] = "vera"
    rank: int = Field(ge=1)


class Ia3(Frozen):
    """Learned vectors that rescale keys, values and the inside of the feed-forward layers (Liu et al. 2022)."""

    kind: Literal["ia3"] = "ia3"


class Oft(Frozen):
    """Orthogonal rotations of the inputs of all linear layers, in blocks of `block` features (Qiu et al. 2023)."""

    kind: Literal["oft"] = "oft"
    block: int = Field(ge=2)


class AdaLora(Frozen):
    """LoRA as singular values with their vectors, whose ranks move to where they matter (Zhang et al. 2023).

    Training starts with half as much rank again and prunes to a mean of `rank`. The schedule is shares of the steps.
    """

    kind: Literal["adalora"] = "adalora"
    rank: int = Field(ge=1, description="mean rank that is left in the end")
    alpha: int = Field(default=32, ge=1)
    orthogonality: float = Field(
        default=0.5, ge=0, description="weight in the loss of the vectors' not being at right angles"
    )


class Prompt(Frozen):
    """Learned embeddings in front of every sequence (prompt tuning, Lester et al. 2021); the model is frozen."""

    kind: Literal["prompt"] = "prompt"
    tokens: int = Field(ge=1, description="virtual tokens")


class Prefix(Frozen):
    """Learned keys and values in front of every sequence, in each layer (prefix tuning, Li & Liang 2021)."""

    kind: Literal["prefix"] = "prefix"
    tokens: int = Field(ge=1, description="virtual tokens")


class QLora(Frozen):
    """LoRA on all linear layers of a base that is rounded to four bits, NF4 (Dettmers et al. 2023)."""

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
VirtualTokens = Prompt | Prefix  # what they learn cannot be folded into the weights of a model


class Optimiser(Frozen):
    """AdamW with linear warm-up and cosine decay to zero over the stage's whole length."""

    learning_rate: float = Field(gt=0)
    batch_size: int = Field(default=8, ge=1, description="rows in one optimiser step")
    epochs: float = Field(default=1.0, gt=0, description="passes over the training rows")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps spent warming up")
    weight_decay: float = Field(default=0.0, ge=0)


class Stage(Frozen):
    algorithm: Algorithm
    update: Update
    optimiser: Optimiser


class Design(Frozen):
    architecture: Architecture
    stages: tuple[Stage, ...] = Field(default=(), max_length=3)

    def canonical(self) -> str:
        """The one JSON text of this design: sorted keys, no spaces, defaults spelled out."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical text."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:16]

    @property
    def recipe(self) -> str:
        """The algorithms in order, as users name them: `sft`, `sft+dpo`; `base` for the untuned model."""
        return "+".join(stage.algorithm.kind for stage in self.stages) or "base"

    def summary(self) -> str:
        """One line for tables and logs."""
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
