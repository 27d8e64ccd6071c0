"""The learning algorithms that a stage of a design can have, with their hyperparameters."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from luthier.values import Member


class AlgorithmMember(Member):
    """Base of the learning algorithms."""

    likelihood: ClassVar[bool] = False  # whether it raises the likelihood of the data, and is measured by it


class Clm(AlgorithmMember):
    """Causal language modelling (continued pre-training): every token of the text is a target."""

    kind: Literal["clm"] = "clm"
    likelihood: ClassVar[bool] = True

    def describe(self) -> str:
        return "causal language modelling (continued pre-training): every token is a target"


class Sft(AlgorithmMember):
    """Supervised fine-tuning (Ouyang et al. 2022): only the answer's tokens are targets."""

    kind: Literal["sft"] = "sft"
    likelihood: ClassVar[bool] = True

    def describe(self) -> str:
        return "supervised fine-tuning: only the tokens of the answers are targets"


class Gkd(AlgorithmMember):
    """Generalised knowledge distillation (Agarwal et al. 2024): the next-token distributions of a larger base model.

    The student learns on the dataset's answers and, in a share of the steps, on answers that it generates itself. The
    teacher is a registered base model with the same tokenizer.
    """

    kind: Literal["gkd"] = "gkd"
    likelihood: ClassVar[bool] = True
    teacher: str = Field(min_length=1, description="name of the base model that is distilled")
    share: float = Field(default=0.5, ge=0, le=1, description="share λ of steps on the student's own answers")
    beta: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="divergence: 0 is KL(teacher|student), 1 KL(student|teacher), JSD between",
    )

    def describe(self) -> str:
        return (
            f"generalised knowledge distillation from {self.teacher}, β = {self.beta:g}: matches the teacher's "
            "next-token "
            f"distributions, in {self.share:.0%} of the steps on answers that the model generates itself"
        )


class Dpo(AlgorithmMember):
    """Direct preference optimisation (Rafailov et al. 2023); the reference is the model at the start of the stage."""

    kind: Literal["dpo"] = "dpo"
    beta: float = Field(default=0.1, gt=0, description="strength of the pull towards the reference model")

    def describe(self) -> str:
        return (
            f"direct preference optimisation, β = {self.beta:g}: raises the likelihood of the chosen answer over the "
            "rejected one, relative to the stage's initial model"
        )


class Ipo(AlgorithmMember):
    """Identity preference optimisation (Azar et al. 2023) on log-ratios per token, as in TRL."""

    kind: Literal["ipo"] = "ipo"
    beta: float = Field(default=0.1, gt=0, description="the paper's τ: the target margin of a pair is 1/(2τ) per token")

    def describe(self) -> str:
        return (
            f"identity preference optimisation, τ = {self.beta:g}: drives the margin of the chosen answer to "
            f"{1 / (2 * self.beta):g} nats per token, relative to the stage's initial model"
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
            f"simple preference optimisation, β = {self.beta:g}, γ = {self.gamma:g}: raises the likelihood per token "
            "of the chosen answer over the rejected one, without a reference model"
        )


class Orpo(AlgorithmMember):
    """Odds-ratio preference optimisation (Hong et al. 2024): SFT and preferences in one loss, no reference model."""

    kind: Literal["orpo"] = "orpo"
    beta: float = Field(default=0.1, gt=0, description="the paper's λ: weight of the odds-ratio loss")

    def describe(self) -> str:
        return (
            f"odds-ratio preference optimisation, λ = {self.beta:g}: trains on prompt and chosen answer, and raises "
            "the odds of the chosen answer over the rejected one"
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
            f"Kahneman-Tversky optimisation, β = {self.beta:g}, weight {self.desirable_weight:g} for desirable rows: "
            "raises the "
            "likelihood of desirable answers and lowers that of undesirable ones, relative to the stage's initial "
            "model"
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
        penalty = f", with a KL penalty of β = {self.beta:g} to the stage's initial model" if self.beta else ""
        return (
            f"group relative policy optimisation: of {self.group} answers sampled per prompt, raises the likelihood of "
            f"those whose reward is above the group's mean{penalty}"
        )


class Rloo(AlgorithmMember):
    """REINFORCE leave-one-out (Ahmadian et al. 2024): the baseline is the mean reward of the other answers."""

    kind: Literal["rloo"] = "rloo"
    group: Group = 4
    beta: float = Field(
        default=0.05, ge=0, description="KL penalty: reward lost per nat of divergence from the stage's start"
    )

    def describe(self) -> str:
        penalty = f", with a KL penalty of β = {self.beta:g} to the stage's initial model" if self.beta else ""
        return (
            f"REINFORCE leave-one-out: of {self.group} answers sampled per prompt, raises the likelihood of those "
            f"whose reward is above the mean of the others{penalty}"
        )


class Raft(AlgorithmMember):
    """Reward-ranked fine-tuning, or rejection sampling (Dong et al. 2023): SFT on the best of each prompt's answers."""

    kind: Literal["raft"] = "raft"
    group: Group = 4

    def describe(self) -> str:
        return f"reward-ranked fine-tuning (RAFT): trains on the best of {self.group} answers sampled per prompt"


class RewardModel(AlgorithmMember):
    """Reward model (Bradley-Terry; Ouyang et al. 2022): learns to score the chosen answer above the rejected one.

    It trains a copy of the model and leaves the policy unchanged. The next stage maximises its scores (RLHF).
    """

    kind: Literal["reward_model"] = "reward_model"

    def describe(self) -> str:
        return (
            "a reward model (Bradley-Terry): a copy of the model learns to score the chosen answer above the "
            "rejected one; its scores are the rewards of the next stage"
        )


class Mlm(AlgorithmMember):
    """Masked language modelling (Devlin et al. 2019) with new masks in each step, as in RoBERTa (Liu et al. 2019).

    Of the selected tokens, 80 % are masked, 10 % are replaced by a random token, and 10 % stay unchanged.
    """

    kind: Literal["mlm"] = "mlm"
    likelihood: ClassVar[bool] = True
    mask: float = Field(default=0.15, gt=0, lt=1, description="share of the tokens that are selected and predicted")

    def describe(self) -> str:
        return (
            f"masked language modelling: predicts {self.mask:.0%} of the tokens, chosen anew in each step, from all "
            "tokens around them"
        )


Algorithm = Annotated[
    Clm | Sft | Gkd | Dpo | Ipo | Simpo | Orpo | Grpo | Rloo | Raft | Kto | RewardModel | Mlm,
    Field(discriminator="kind"),
]
