"""Distance minimisation: maximum likelihood of target tokens. `clm` and `sft` differ only in which tokens those are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from luthier.design import Clm, Mlm, Sft
from luthier.task import DataKind
from workers.train.algorithms.base import Batch, Example, Loss, Offline, Policy
from workers.train.data.padding_free import UnpaddedRows
from workers.train.data.tokenize import Masked, Renderer, Row


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


HIDDEN, REPLACED = 0.8, 0.1  # of the chosen tokens; the others stay as they are


class MaskedLanguageModelling(MaximumLikelihood):
    """Mean negative log-likelihood of the chosen tokens, each predicted where it stands."""

    def __init__(self, algorithm: Mlm) -> None:
        self.algorithm = algorithm

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        return [(window,) for window in renderer.both_ways(row["text"])]

    def batch(self, examples: Sequence[Example], policy: Policy) -> Batch:
        """The windows with some of their tokens masked. Where chance chooses none of a whole batch, the first token
        is, since a step has to learn something."""
        generator = torch.Generator().manual_seed(policy.step_seed)
        vocabulary = policy.model.config.vocab_size
        windows = [window for (window,) in examples if isinstance(window, Masked)]
        masked = [draw(window, self.algorithm.mask, vocabulary, generator) for window in windows]
        if not any(window.targets for window in masked):
            masked[0] = windows[0].hiding({windows[0].target.index(True): windows[0].mask})
        return Batch(examples=[(window,) for window in masked])


def draw(window: Masked, share: float, vocabulary: int, generator: torch.Generator) -> Masked:
    """Choose each target with probability `share`; 80 % of those are hidden, 10 % become any token, 10 % stay."""
    chance_T, way_T = torch.rand(2, len(window), generator=generator).tolist()
    any_T = torch.randint(vocabulary, (len(window),), generator=generator).tolist()
    chosen: dict[int, int] = {}
    for t, (is_target, chance, way) in enumerate(zip(window.target, chance_T, way_T, strict=True)):
        if is_target and chance < share:
            kept = window.labels[t] if way >= HIDDEN + REPLACED else any_T[t]
            chosen[t] = window.mask if way < HIDDEN else kept
    return window.hiding(chosen)
