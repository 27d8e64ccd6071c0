"""Distance minimisation: maximum likelihood of target tokens. `clm` and `sft` differ only in which tokens those are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from luthier.design import Clm, Sft
from luthier.task import DataKind
from workers.train.algorithms.base import Example, Loss, Offline
from workers.train.data.padding_free import UnpaddedRows
from workers.train.data.tokenize import Renderer, Row


class MaximumLikelihood(Offline):
    """Mean negative log-likelihood over the step's target tokens."""

    def weight(self, examples: Sequence[Example]) -> float:
        return float(sum(tokens.targets for example in examples for tokens in example))

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        return Loss(total=-logp_N.sum(), sums={})


class CausalLanguageModelling(MaximumLikelihood):
    def __init__(self, algorithm: Clm) -> None:
        self.algorithm = algorithm

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        return [(tokens,) for tokens in renderer.everything(row, kind)]


class SupervisedFineTuning(MaximumLikelihood):
    def __init__(self, algorithm: Sft) -> None:
        self.algorithm = algorithm

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        return [(tokens,) for tokens in renderer.answers(row, kind)]
