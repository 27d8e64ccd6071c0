"""What a learning algorithm is: how rows become examples, and how target log-probabilities become a loss.

The loop does the rest. An objective returns the *sum* over a micro-batch and the loop divides by the weight of the
whole step, so that accumulating gradients changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from luthier.task import DataKind
from workers.train.data.rendering import Renderer, Row, Tokens
from workers.train.data.unpadded import UnpaddedRows

Example = tuple[Tokens, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """`total` is summed over the micro-batch and carries the gradient; `sums` are curve values, likewise summed.

    A `total` of several terms, [K], is for losses that are means over different things: tokens and pairs, say.
    """

    total: torch.Tensor
    sums: dict[str, float]


class Objective(Protocol):
    """A learning algorithm. Stateless but for its own hyperparameters."""

    needs_reference: bool
    """Whether the loss compares with the weights that the stage starts from."""

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        """The examples of one row; each is a fixed number of sequences that must stay in one micro-batch."""
        ...

    def weight(self, examples: Sequence[Example]) -> float | Sequence[float]:
        """What the summed loss is divided by to give the mean that the papers write down; one for each of its terms."""
        ...

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, reference_S: torch.Tensor | None) -> Loss:
        """The loss of a micro-batch. `reference_S`: summed log-probability of each sequence under the reference."""
        ...


def sequence_logps(logp_N: torch.Tensor, rows: UnpaddedRows) -> torch.Tensor:
    """Sum target log-probabilities by sequence: [N] → [S]."""
    return logp_N.new_zeros(len(rows.lengths)).index_add(0, rows.segment_N, logp_N)


def per_token(score_S: torch.Tensor, rows: UnpaddedRows) -> torch.Tensor:
    """Sums over the targets of each sequence as means: [S]; zero where there is no target."""
    return score_S / torch.bincount(rows.segment_N, minlength=len(rows.lengths)).clamp(min=1)
