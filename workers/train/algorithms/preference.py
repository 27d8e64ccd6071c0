"""RLHF from pairs of answers: DPO, IPO, SimPO and ORPO, which need no rollouts, and the reward model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from peft import PeftModelForCausalLM
from torch.nn import Parameter
from torch.nn.functional import logsigmoid

from luthier.algorithms import Dpo, Ipo, Orpo, RewardModel, Simpo
from luthier.errors import Infeasible
from luthier.task import DataKind
from workers.train.algorithms.base import A, Example, Loss, Offline, Reference, implements, per_token, sequence_logps
from workers.train.data.padding_free import UnpaddedRows
from workers.train.data.tokenize import Renderer, Row, Tokens
from workers.train.forward import CausalModel
from workers.train.reward_model import HEAD, scores


class _Pairs(Offline[A]):
    """An example is a pair (chosen, rejected); the loss is a mean over the P pairs."""

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        return [*pair(row, renderer)]

    def weight(self, examples: Sequence[Example]) -> float:
        return float(len(examples))


@implements(Dpo, trainer=("trl", "DPO"))
class DirectPreferenceOptimisation(_Pairs[Dpo]):
    """DPO, Rafailov et al. 2023, equation 7: -log σ(β[(log π/π_ref)(chosen) - (log π/π_ref)(rejected)])."""

    reference: Reference = "scores"

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        if signal is None:
            raise ValueError("dpo needs reference log-probabilities as its signal")
        margin_P = self.algorithm.beta * _margin(sequence_logps(logp_N, rows) - signal)
        return Loss(total=-logsigmoid(margin_P).sum(), sums=_curves(margin_P))


@implements(Ipo, trainer=("trl", "DPO"))
class IdentityPreferenceOptimisation(_Pairs[Ipo]):
    """IPO, Azar et al. 2023, equation 17: ([(log π/π_ref)(chosen) - (log π/π_ref)(rejected)] - 1/(2τ))².

    The log-ratios are means over each answer's tokens, as in TRL, which cites the authors. With sums the loss would
    grow with the square of the length.
    """

    reference: Reference = "scores"

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        if signal is None:
            raise ValueError("ipo needs reference log-probabilities as its signal")
        lead_P = _margin(per_token(sequence_logps(logp_N, rows) - signal, rows))
        aim = 1 / (2 * self.algorithm.beta)
        return Loss(total=(lead_P - aim).square().sum(), sums=_curves(self.algorithm.beta * lead_P))


@implements(Simpo, trainer=("trl.experimental.cpo", "CPO"))
class SimplePreferenceOptimisation(_Pairs[Simpo]):
    """SimPO, Meng et al. 2024, equation 6: -log σ(β[log π(chosen)/length - log π(rejected)/length] - γ)."""

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        margin_P = self.algorithm.beta * _margin(per_token(sequence_logps(logp_N, rows), rows))
        return Loss(total=-logsigmoid(margin_P - self.algorithm.gamma).sum(), sums=_curves(margin_P))


@implements(RewardModel, trainer=("trl", "Reward"))
class RewardModelling(_Pairs[RewardModel]):
    """Reward model, Ouyang et al. 2022, equation 1 (Bradley-Terry): -log σ(r(chosen) - r(rejected)).

    The score r is linear in the last token's hidden state, without bias. The head starts from a normal distribution
    with the config's `initializer_range`. It is transformers' sequence classification, as in TRL's RewardTrainer.
    """

    def parameters(self, model: CausalModel, seed: int) -> dict[str, Parameter]:
        """Raises Infeasible with virtual tokens, which no head supports."""
        if isinstance(model, PeftModelForCausalLM):
            raise Infeasible("a reward model cannot be trained with virtual tokens (prompt or prefix tuning)")
        generator = torch.Generator().manual_seed(seed)
        text = model.config.get_text_config()
        spread: float = getattr(text, "initializer_range", 0.02)  # transformers' default
        drawn_1D = torch.randn(1, text.hidden_size, generator=generator) * spread
        return {HEAD: Parameter(drawn_1D.to(model.device, model.dtype))}

    def read(self, model: CausalModel, head: Mapping[str, Parameter], rows: UnpaddedRows) -> torch.Tensor:
        assert not isinstance(model, PeftModelForCausalLM)  # `parameters` has refused it
        return scores(model, head[HEAD], rows)

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        """`logp_N` is what `read` returned: a score for each sequence, [S]."""
        margin_P = _margin(logp_N)
        return Loss(total=-logsigmoid(margin_P).sum(), sums=_curves(margin_P))


@implements(Orpo, trainer=("trl.experimental.orpo", "ORPO"))
class OddsRatioPreferenceOptimisation(Offline[Orpo]):
    """ORPO, Hong et al. 2024, equations 6 and 7: NLL(chosen) - λ log σ(log odds(chosen) - log odds(rejected)).

    The odds use the geometric mean of an answer's token probabilities. The NLL covers prompt and chosen answer, as in
    the authors' code and in TRL; it is a mean over tokens, and the odds ratio a mean over pairs. The prompt is a
    sequence of its own, so that only the answers' targets enter the odds.
    """

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        return [(_prompt(chosen), chosen, rejected) for chosen, rejected in pair(row, renderer)]

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
    """Return [(chosen, rejected)]; empty if the length limit (max_length) leaves one without targets."""
    chosen = renderer.pair(row["prompt"], row["chosen"], row.get("tools"))
    rejected = renderer.pair(row["prompt"], row["rejected"], row.get("tools"))
    return [(chosen, rejected)] if chosen.targets and rejected.targets else []


def _prompt(answer: Tokens) -> Tokens:
    """Return the tokens before the first target, all of them targets except the first."""
    ids = answer.ids[: answer.target.index(True)]
    return Tokens(ids=ids, target=(False, *[True] * (len(ids) - 1)), target_bytes=0)


def _margin(score_S: torch.Tensor) -> torch.Tensor:
    """Return the chosen minus the rejected score of each pair: [S] → [P]."""
    score_P2 = score_S.view(-1, 2)
    return score_P2[:, 0] - score_P2[:, 1]


def _log1mexp(logp: torch.Tensor) -> torch.Tensor:
    """Return log(1 - exp(logp)) without cancellation (Mächler 2012)."""
    return torch.where(logp < -math.log(2), torch.log1p(-torch.exp(logp)), torch.log(-torch.expm1(logp)))


def _curves(margin_P: torch.Tensor) -> dict[str, float]:
    margin_P = margin_P.detach()
    return {"reward_margin": float(margin_P.sum()), "reward_accuracy": float((margin_P > 0).sum())}
