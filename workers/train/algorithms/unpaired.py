"""Reward maximisation from verdicts on single answers: nothing is paired, so any log of thumbs up and down will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from luthier.design import Kto
from luthier.task import DataKind
from workers.train.algorithms.base import Batch, Example, Loss, Policy, Reference, sequence_logps
from workers.train.algorithms.preference import pair
from workers.train.data.padding_free import UnpaddedRows
from workers.train.data.tokenize import Renderer, Row, Tokens


class KahnemanTverskyOptimisation:
    """Ethayarajh et al. 2024, equation 8: λ_D(1 - σ(β(r - z))) for desirable answers, λ_U(1 - σ(β(z - r))) for others.

    r is an answer's log π/π_ref, and z estimates the KL divergence of policy and reference from answers to the wrong
    prompts: each prompt of the step with the answer of the row before, the mean of whose log π/π_ref is clamped at zero
    and has no gradient. As in TRL, but over the whole step however it is cut into micro-batches. A step of one row has
    no wrong prompt, and compares the answer with itself.

    A pair of answers is a desirable and an undesirable one.
    """

    reference: Reference = "weights"

    def __init__(self, algorithm: Kto) -> None:
        self.algorithm = algorithm

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        if kind is DataKind.PREFERENCE:
            return [
                (replace(answer, desirable=desirable),)
                for answers in pair(row, renderer)
                for answer, desirable in zip(answers, (True, False), strict=True)
            ]
        answer = renderer.pair(row["prompt"], row["completion"])
        return [(replace(answer, desirable=bool(row["label"])),)] if answer.targets else []

    def batch(self, examples: Sequence[Example], policy: Policy) -> Batch:
        """The signal of an example is [1, 3]: its log π_ref, the step's z, and 1 if desirable, else -1."""
        longest: int | None = getattr(policy.model.config, "max_position_embeddings", None)
        answers = [answer for (answer,) in examples]
        mismatched = [
            (_answered(prompt, other, longest),) for prompt, other in zip(answers, _rotated(answers), strict=True)
        ]
        now, then = policy.logps(mismatched), policy.reference_logps([*mismatched, *examples])
        drift_S = torch.stack([(p.sum() - r.sum()) for p, r in zip(now, then, strict=False)])
        z = drift_S.mean().clamp(min=0)
        signs = [z.new_tensor(1.0 if answer.desirable else -1.0) for answer in answers]
        signals = [
            torch.stack([logps.sum(), z, sign])[None]
            for logps, sign in zip(then[len(mismatched) :], signs, strict=True)
        ]
        return Batch(examples=examples, signals=signals, values={"kl": float(z)})

    def weight(self, examples: Sequence[Example]) -> float:
        return float(len(examples))

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        if signal is None:
            raise ValueError("kto compares with reference log-probabilities")
        reference_S, z_S, sign_S = signal.unbind(1)
        gain_S = self.algorithm.beta * sign_S * (sequence_logps(logp_N, rows) - reference_S - z_S)
        weight_S = torch.where(sign_S > 0, self.algorithm.desirable_weight, 1.0)
        return Loss(
            total=(weight_S * torch.sigmoid(-gain_S)).sum(),
            sums={"reward_accuracy": float((gain_S.detach() > 0).sum())},
        )


def _rotated(answers: Sequence[Tokens]) -> list[Tokens]:
    return [answers[-1], *answers[:-1]]


def _answered(prompt: Tokens, other: Tokens, longest: int | None) -> Tokens:
    """The prompt of one row with the answer of another, cut where the model's positions end."""
    asked, said = prompt.target.index(True), other.target.index(True)
    return Tokens(
        ids=(*prompt.ids[:asked], *other.ids[said:])[:longest],
        target=(*[False] * asked, *other.target[said:])[:longest],
        target_bytes=0,
    )
