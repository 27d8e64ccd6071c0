"""Reward maximisation from human preferences, the direct methods: a pair of answers, no reward model, no rollouts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import logsigmoid

from luthier.design import Dpo
from luthier.task import DataKind
from workers.train.algorithms.objective import Example, Loss, sequence_logps
from workers.train.data.rendering import Renderer, Row
from workers.train.data.unpadded import UnpaddedRows


class DirectPreferenceOptimisation:
    """Rafailov et al. 2023, equation 7: -log σ(β[(log π/π_ref)(chosen) - (log π/π_ref)(rejected)])."""

    needs_reference = True

    def __init__(self, algorithm: Dpo) -> None:
        self.algorithm = algorithm

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        chosen = renderer.pair(row["prompt"], row["chosen"])
        rejected = renderer.pair(row["prompt"], row["rejected"])
        return [(chosen, rejected)] if chosen.targets and rejected.targets else []

    def weight(self, examples: Sequence[Example]) -> float:
        return float(len(examples))

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, reference_S: torch.Tensor | None) -> Loss:
        if reference_S is None:
            raise ValueError("dpo compares with reference log-probabilities")
        ratio_P2 = (sequence_logps(logp_N, rows) - reference_S).view(-1, 2)  # P pairs of (chosen, rejected)
        margin_P = self.algorithm.beta * (ratio_P2[:, 0] - ratio_P2[:, 1])
        return Loss(
            total=-logsigmoid(margin_P).sum(),
            sums={
                "reward_margin": float(margin_P.detach().sum()),
                "reward_accuracy": float((margin_P.detach() > 0).sum()),
            },
        )
