"""Reward maximisation from human preferences: the direct methods, which need no rollouts, and the reward model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch.nn import Parameter
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from luthier.design import Dpo, Ipo, Orpo, RewardModel, Simpo
from luthier.task import DataKind
from workers.train.algorithms.base import Example, Loss, Offline, Reference, per_token, sequence_logps
from workers.train.data.padding_free import UnpaddedRows
from workers.train.data.tokenize import Renderer, Row, Tokens
from workers.train.reward_model import HEAD, scores


class _Pairs(Offline):
    """P pairs of (chosen, rejected); the loss is a mean over pairs."""

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        return [*pair(row, renderer)]

    def weight(self, examples: Sequence[Example]) -> float:
        return float(len(examples))


class DirectPreferenceOptimisation(_Pairs):
    """Rafailov et al. 2023, equation 7: -log σ(β[(log π/π_ref)(chosen) - (log π/π_ref)(rejected)])."""

    reference: Reference = "scores"

    def __init__(self, algorithm: Dpo) -> None:
        self.algorithm = algorithm

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        if signal is None:
            raise ValueError("dpo compares with reference log-probabilities")
        margin_P = self.algorithm.beta * _lead(sequence_logps(logp_N, rows) - signal)
        return Loss(total=-logsigmoid(margin_P).sum(), sums=_curves(margin_P))


class IdentityPreferenceOptimisation(_Pairs):
    """Azar et al. 2023, equation 17: ([(log π/π_ref)(chosen) - (log π/π_ref)(rejected)] - 1/(2τ))².

    The log-ratios are means over each answer's tokens, which TRL says its authors confirm: sums would make the loss
    grow with the square of the length.
    """

    reference: Reference = "scores"

    def __init__(self, algorithm: Ipo) -> None:
        self.algorithm = algorithm

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        if signal is None:
            raise ValueError("ipo compares with reference log-probabilities")
        lead_P = _lead(per_token(sequence_logps(logp_N, rows) - signal, rows))
        aim = 1 / (2 * self.algorithm.beta)
        return Loss(total=(lead_P - aim).square().sum(), sums=_curves(self.algorithm.beta * lead_P))


class SimplePreferenceOptimisation(_Pairs):
    """Meng et al. 2024, equation 6: -log σ(β[log π(chosen)/length - log π(rejected)/length] - γ)."""

    def __init__(self, algorithm: Simpo) -> None:
        self.algorithm = algorithm

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        margin_P = self.algorithm.beta * _lead(per_token(sequence_logps(logp_N, rows), rows))
        return Loss(total=-logsigmoid(margin_P - self.algorithm.gamma).sum(), sums=_curves(margin_P))


class RewardModelling(_Pairs):
    """Ouyang et al. 2022, equation 1, the Bradley-Terry model: -log σ(r(chosen) - r(rejected)).

    The score r of a sequence is linear in the last token's hidden state, without a bias, and starts as a linear layer
    of the model does, from a normal distribution of the width that its config names: transformers' sequence
    classification, which TRL trains.
    """

    def __init__(self, algorithm: RewardModel) -> None:
        self.algorithm = algorithm

    def parameters(self, model: PreTrainedModel, seed: int) -> dict[str, Parameter]:
        generator = torch.Generator().manual_seed(seed)
        drawn_1D = torch.randn(1, model.config.hidden_size, generator=generator) * model.config.initializer_range
        return {HEAD: Parameter(drawn_1D.to(model.device, model.dtype))}

    def read(self, model: PreTrainedModel, own: Mapping[str, Parameter], rows: UnpaddedRows) -> torch.Tensor:
        return scores(model, own[HEAD], rows)

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        """Here `logp_N` is what `read` gave: a score for each sequence, [S]."""
        margin_P = _lead(logp_N)
        return Loss(total=-logsigmoid(margin_P).sum(), sums=_curves(margin_P))


class OddsRatioPreferenceOptimisation(Offline):
    """Hong et al. 2024, equations 6 and 7: NLL(chosen) - λ log σ(log odds(chosen) - log odds(rejected)).

    The odds are those of the geometric mean of an answer's token probabilities. The likelihood is that of prompt and
    chosen answer together, as in the authors' code and in TRL: a mean over tokens, while the odds ratio is a mean over
    pairs. The prompt is a sequence of its own, so that the odds are made of the answers' targets alone.
    """

    def __init__(self, algorithm: Orpo) -> None:
        self.algorithm = algorithm

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        return [(_before(chosen), chosen, rejected) for chosen, rejected in pair(row, renderer)]

    def weight(self, examples: Sequence[Example]) -> Sequence[float]:
        tokens = sum(prompt.targets + chosen.targets for prompt, chosen, _ in examples)
        return float(tokens), float(len(examples))

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        logp_S = sequence_logps(logp_N, rows)
        nll = -logp_S.view(-1, 3)[:, :2].sum()
        mean_P2 = per_token(logp_S, rows).view(-1, 3)[:, 1:]
        odds_P2 = mean_P2 - _log1mexp(mean_P2)
        ratio_P = odds_P2[:, 0] - odds_P2[:, 1]
        preference = -self.algorithm.beta * logsigmoid(ratio_P).sum()
        return Loss(
            total=torch.stack([nll, preference]),
            sums={
                "log_odds_ratio": float(ratio_P.detach().sum()),
                "reward_accuracy": float((ratio_P.detach() > 0).sum()),
            },
        )


def pair(row: Row, renderer: Renderer) -> list[tuple[Tokens, Tokens]]:
    """Both answers to the prompt; empty if the length limit leaves nothing of one."""
    chosen = renderer.pair(row["prompt"], row["chosen"], row.get("tools"))
    rejected = renderer.pair(row["prompt"], row["rejected"], row.get("tools"))
    return [(chosen, rejected)] if chosen.targets and rejected.targets else []


def _before(answer: Tokens) -> Tokens:
    """What comes before the first target, with every token but the first as target."""
    ids = answer.ids[: answer.target.index(True)]
    return Tokens(ids=ids, target=(False, *[True] * (len(ids) - 1)), target_bytes=0)


def _lead(score_S: torch.Tensor) -> torch.Tensor:
    """By how much each pair's chosen answer leads: [S] → [P]."""
    score_P2 = score_S.view(-1, 2)
    return score_P2[:, 0] - score_P2[:, 1]


def _log1mexp(logp: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(logp)) without cancellation on either side of probability one half (Mächler 2012)."""
    return torch.where(logp < -math.log(2), torch.log1p(-torch.exp(logp)), torch.log(-torch.expm1(logp)))


def _curves(margin_P: torch.Tensor) -> dict[str, float]:
    margin_P = margin_P.detach()
    return {"reward_margin": float(margin_P.sum()), "reward_accuracy": float((margin_P > 0).sum())}
