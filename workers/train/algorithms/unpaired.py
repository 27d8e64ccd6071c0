"""KTO: preference optimisation from unpaired labels, such as a log of thumbs up and down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from luthier.algorithms import Kto
from luthier.task import DataKind
from workers.train.algorithms.base import Batch, Context, Example, Loss, Policy, Reference, implements, sequence_logps
from workers.train.algorithms.preference import pair
from workers.train.data.padding_free import UnpaddedRows
from workers.train.data.tokenize import Renderer, Row, Tokens


@implements(Kto, trainer=("trl", "KTO"))
class KahnemanTverskyOptimisation:
    """KTO, Ethayarajh et al. 2024, equation 8: λ_D(1 - σ(β(r - z))) for desirable answers, λ_U(1 - σ(β(z - r))) else.

    r is an answer's log π/π_ref. z estimates the KL divergence of policy and reference, without a gradient: the mean
    log π/π_ref of mismatched answers (each prompt with the answer of the row before), clamped at zero. As in TRL, but
    over the whole batch instead of a micro-batch. A batch of one row has no mismatch and uses its own answer.

    Preference pairs count as one desirable and one undesirable answer.
    """

    reference: Reference = "weights"

    def __init__(self, algorithm: Kto, context: Context) -> None:
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
        """Compute z for the step. The signal of an example is [1, 3]: its log π_ref, z, and 1 if desirable, else -1."""
        longest: int | None = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
        answers = [answer for (answer,) in examples]
        rotated = [answers[-1], *answers[:-1]]
        mismatched = [(_mismatch(prompt, other, longest),) for prompt, other in zip(answers, rotated, strict=True)]
        now, then = policy.logps(mismatched), policy.reference_logps([*mismatched, *examples])
        ratio_S = torch.stack([(p.sum() - r.sum()) for p, r in zip(now, then, strict=False)])
        z = ratio_S.mean().clamp(min=0)
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
            raise ValueError("kto needs reference log-probabilities as its signal")
        reference_S, z_S, sign_S = signal.unbind(1)
        gain_S = self.algorithm.beta * sign_S * (sequence_logps(logp_N, rows) - reference_S - z_S)
        weight_S = torch.where(sign_S > 0, self.algorithm.desirable_weight, 1.0)
        return Loss(
            total=(weight_S * torch.sigmoid(-gain_S)).sum(),
            sums={"reward_accuracy": float((gain_S.detach() > 0).sum())},
        )


def _mismatch(prompt: Tokens, other: Tokens, longest: int | None) -> Tokens:
    """Return the prompt of one row with the answer of another, truncated to the model's context."""
    head, start = prompt.target.index(True), other.target.index(True)
    return Tokens(
        ids=(*prompt.ids[:head], *other.ids[start:])[:longest],
        target=(*[False] * head, *other.target[start:])[:longest],
        target_bytes=0,
    )
