"""Maximum likelihood of target tokens: CLM, SFT and MLM, which differ in the choice of targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from luthier.algorithms import Clm, Mlm, Sft
from luthier.task import DataKind
from workers.train.algorithms.base import A, Batch, Example, Loss, Offline, Policy, implements
from workers.train.data.padding_free import UnpaddedRows
from workers.train.data.tokenize import Masked, Renderer, Row

# Shares of the chosen tokens in MLM that the mask token or a random token replaces; the rest stay (Devlin et al. 2019).
MASKED: Final = 0.8
REPLACED: Final = 0.1


class MaximumLikelihood(Offline[A]):
    """Cross-entropy: the mean negative log-likelihood over the target tokens of a step."""

    def weight(self, examples: Sequence[Example]) -> float:
        return float(sum(tokens.targets for example in examples for tokens in example))

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        return Loss(total=-logp_N.sum(), sums={})


@implements(Clm, trainer=("trl", "SFT"))
class CausalLanguageModelling(MaximumLikelihood[Clm]):
    """CLM (continued pre-training): every token is a target."""

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        return [(tokens,) for tokens in renderer.full_text(row, kind)]


@implements(Sft, trainer=("trl", "SFT"))
class SupervisedFineTuning(MaximumLikelihood[Sft]):
    """SFT: only the tokens of the answers are targets."""

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        return [(tokens,) for tokens in renderer.answers(row, kind)]


@implements(Mlm, trainer=("transformers", ""))  # TRL has no trainer for it
class MaskedLanguageModelling(MaximumLikelihood[Mlm]):
    """MLM for encoders, Devlin et al. 2019: random tokens are targets, masked anew in every step."""

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        return [(window,) for window in renderer.bidirectional(row["text"])]

    def batch(self, examples: Sequence[Example], policy: Policy) -> Batch:
        """Mask the windows. If chance chooses no token of the whole batch, the first one is masked."""
        generator = torch.Generator().manual_seed(policy.step_seed)
        vocabulary = policy.model.config.vocab_size
        windows = [window for (window,) in examples if isinstance(window, Masked)]
        masked = [mask_tokens(window, self.algorithm.mask, vocabulary, generator) for window in windows]
        if not any(window.targets for window in masked):
            masked[0] = windows[0].with_targets({windows[0].target.index(True): windows[0].mask})
        return Batch(examples=[(window,) for window in masked])


def mask_tokens(window: Masked, share: float, vocabulary: int, generator: torch.Generator) -> Masked:
    """Choose each token with probability `share`. Of those, 80 % are masked, 10 % become a random token, 10 % stay."""
    chance_T, way_T = torch.rand(2, len(window), generator=generator).tolist()
    random_T = torch.randint(vocabulary, (len(window),), generator=generator).tolist()
    chosen: dict[int, int] = {}
    for t, (is_target, chance, way) in enumerate(zip(window.target, chance_T, way_T, strict=True)):
        if is_target and chance < share:
            unmasked = window.labels[t] if way >= MASKED + REPLACED else random_T[t]
            chosen[t] = window.mask if way < MASKED else unmasked
    return window.with_targets(chosen)
