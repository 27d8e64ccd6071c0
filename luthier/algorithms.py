"""The learning algorithms that a stage of a design can have, with their hyperparameters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from luthier.values import Member


class AlgorithmMember(Member):
    """Base of the learning algorithms."""


class Clm(AlgorithmMember):
    """Causal language modelling (continued pre-training): every token of the text is a target."""

    kind: Literal["clm"] = "clm"

    def describe(self) -> str:
        return "causal language modelling, self-supervised: every token is a target"


class Sft(AlgorithmMember):
    """Supervised fine-tuning (Ouyang et al. 2022): only the answer's tokens are targets."""

    kind: Literal["sft"] = "sft"

    def describe(self) -> str:
        return "supervised fine-tuning: only the answers' tokens are targets"


class Dpo(AlgorithmMember):
    """Direct preference optimisation (Rafailov et al. 2023); the reference is the model at the start of the stage."""

    kind: Literal["dpo"] = "dpo"
    beta: float = Field(default=0.1, gt=0, description="strength of the pull towards the reference model")

    def describe(self) -> str:
        return (
            f"direct preference optimisation at β = {self.beta:g}: the chosen answer is made likelier than the "
            "rejected one, against the weights that the stage starts from"
        )


class Ipo(AlgorithmMember):
    """Identity preference optimisation (Azar et al. 2023) on log-ratios per token, as in TRL."""

    kind: Literal["ipo"] = "ipo"
    beta: float = Field(default=0.1, gt=0, description="the paper's τ: the target margin of a pair is 1/(2τ) per token")

    def describe(self) -> str:
        return (
            f"identity preference optimisation at τ = {self.beta:g}: the chosen answer is to gain "
            f"{1 / (2 * self.beta):g} nats per token on the rejected one, against the weights that the stage starts "
            "from"
        )


class Simpo(AlgorithmMember):
    """Simple preference optimisation (Meng et al. 2024): the reward is the likelihood per token; no reference model."""

    kind: Literal["simpo"] = "simpo"
    beta: float = Field(default=2.0, gt=0, description="scale of the reward")
    gamma: float = Field(
        default=1.0, ge=0, description="target margin between the rewards of the chosen and the rejected answer"
    )

    def describe(self) -> str:
        return (
            f"simple preference optimisation at β = {self.beta:g}, γ = {self.gamma:g}: the chosen answer is made "
            "likelier per token than the rejected one, without a reference"
        )


class Orpo(AlgorithmMember):
    """Odds-ratio preference optimisation (Hong et al. 2024): SFT and preferences in one loss, no reference model."""

    kind: Literal["orpo"] = "orpo"
    beta: float = Field(default=0.1, gt=0, description="the paper's λ: weight of the odds-ratio loss")

    def describe(self) -> str:
        return (
            f"odds-ratio preference optimisation at λ = {self.beta:g}: the chosen answer is learnt, prompt included, "
            "and its odds are raised over those of the rejected one"
        )


class Kto(AlgorithmMember):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024): learns from single answers labelled good or bad."""

    kind: Literal["kto"] = "kto"
    beta: float = Field(default=0.1, gt=0, description="strength of the pull towards the reference model")
    desirable_weight: float = Field(
        default=1.0, gt=0, description="the paper's λ_D: weight of a desirable row; an undesirable row weighs 1"
    )

    def describe(self) -> str:
        return (
            f"Kahneman-Tversky optimisation at β = {self.beta:g}: desirable answers are made likelier and undesirable "
            f"ones less likely, against the weights that the stage starts from; a desirable row weighs "
            f"{self.desirable_weight:g} times an undesirable one"
        )


Group = Annotated[int, Field(ge=2, description="answers sampled for each prompt of a step (TRL's num_generations)")]


class Grpo(AlgorithmMember):
    """Group relative policy optimisation (Shao et al. 2024), on policy; the loss is averaged over all tokens of a
    step, as in DAPO (Yu et al. 2025)."""

    kind: Literal["grpo"] = "grpo"
    group: Group = 8
    beta: float = Field(
        default=0.0, ge=0, description="weight of the KL divergence from the model at the stage's start"
    )

    def describe(self) -> str:
        held = f", with a KL penalty of β = {self.beta:g} to the start of the stage" if self.beta else ""
        return (
            f"group relative policy optimisation: of {self.group} answers generated for each prompt, those with more "
            f"reward than the others are made likelier, token by token{held}"
        )


class Rloo(AlgorithmMember):
    """REINFORCE leave-one-out (Ahmadian et al. 2024): the baseline is the mean reward of the other answers."""

    kind: Literal["rloo"] = "rloo"
    group: Group = 4
    beta: float = Field(
        default=0.05, ge=0, description="KL penalty: reward lost per nat of divergence from the stage's start"
    )

    def describe(self) -> str:
        cost = f", less {self.beta:g} for each nat of divergence from the start of the stage" if self.beta else ""
        return (
            f"REINFORCE, leave one out: each of {self.group} answers generated for each prompt is weighted by its "
            f"reward{cost}, minus the mean of the others"
        )


class Raft(AlgorithmMember):
    """Reward-ranked fine-tuning, or rejection sampling (Dong et al. 2023): SFT on the best of each prompt's answers."""

    kind: Literal["raft"] = "raft"
    group: Group = 4

    def describe(self) -> str:
        return f"reward-ranked fine-tuning: the best of {self.group} answers generated for each prompt is learnt"


class RewardModel(AlgorithmMember):
    """Reward model (Bradley-Terry; Ouyang et al. 2022): learns to score the chosen answer above the rejected one.

    It trains a copy of the model and leaves the policy unchanged. The next stage maximises its scores (RLHF).
    """

    kind: Literal["reward_model"] = "reward_model"

    def describe(self) -> str:
        return (
            "a reward model on pairs of answers (Bradley-Terry): a copy of the model learns to score the chosen answer "
            "above the rejected one, and the next stage maximises its scores"
        )


class Mlm(AlgorithmMember):
    """Masked language modelling (Devlin et al. 2019) with new masks in each step, as in RoBERTa (Liu et al. 2019).

    Of the selected tokens, 80 % are masked, 10 % are replaced by a random token, and 10 % stay unchanged.
    """

    kind: Literal["mlm"] = "mlm"
    mask: float = Field(default=0.15, gt=0, lt=1, description="share of the tokens that are selected and predicted")

    def describe(self) -> str:
        return (
            f"masked language modelling, self-supervised: {self.mask:.0%} of the tokens, others in each step, are "
            "predicted from all those around them"
        )


Algorithm = Annotated[
    Clm | Sft | Dpo | Ipo | Simpo | Orpo | Grpo | Rloo | Raft | Kto | RewardModel | Mlm,
    Field(discriminator="kind"),
]
