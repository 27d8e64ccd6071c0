"""What a learning algorithm is: how rows become examples, and how target log-probabilities become a loss.

The loop does the rest. An objective returns the *sum* over a micro-batch and the loop divides by the weight of the
whole step, so that accumulating gradients changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch.nn import Parameter
from transformers import PreTrainedModel

from luthier.task import DataKind
from workers.train.data.padding_free import UnpaddedRows
from workers.train.data.tokenize import Renderer, Row, Tokens
from workers.train.forward import CausalModel

Example = tuple[Tokens, ...]

Reference = Literal["none", "scores", "weights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one optimiser step learns from. `signals` holds a tensor for each example, of any shape the objective
    likes: those of a micro-batch are concatenated for its loss. `values` are curve points of the step."""

    examples: Sequence[Example]
    signals: Sequence[torch.Tensor] | None = None
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """`total` is summed over the micro-batch and carries the gradient; `sums` are curve values, likewise summed.

    A `total` of several terms, [K], is for losses that are means over different things: tokens and pairs, say.
    """

    total: torch.Tensor
    sums: dict[str, float]


class Policy(Protocol):
    """The model in training, as an objective may use it between two optimiser steps. Nothing here has a gradient."""

    @property
    def model(self) -> CausalModel: ...

    @property
    def step_seed(self) -> int:
        """Decides what is drawn at random in this step: another for each step, the same after a resume."""
        ...

    def logps(self, examples: Sequence[Example]) -> list[torch.Tensor]:
        """Log-probability of each example's targets, its sequences end to end: [targets] each."""
        ...

    def reference_logps(self, examples: Sequence[Example]) -> list[torch.Tensor]:
        """The same under the weights that the stage started from; for objectives whose `reference` is `weights`."""
        ...


class Objective(Protocol):
    """A learning algorithm. Stateless but for its own hyperparameters."""

    reference: Reference
    """What is kept of the weights that the stage starts from: nothing; the `scores` that they give to each sequence of
    the examples, which become the batches' signals; or the `weights` themselves, for sequences not known beforehand."""

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        """The examples of one row; each is a fixed number of sequences that must stay in one micro-batch."""
        ...

    def batch(self, examples: Sequence[Example], policy: Policy) -> Batch:
        """What the step that drew these examples learns from: they themselves, or what is made of them now."""
        ...

    def weight(self, examples: Sequence[Example]) -> float | Sequence[float]:
        """What the summed loss is divided by to give the mean that the papers write down; one for each of its terms."""
        ...

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        """The loss of a micro-batch. `signal`: the batch's signals for its examples, end to end."""
        ...


@runtime_checkable
class Headed(Protocol):
    """An objective with parameters of its own, which move beside those of the update, and whose loss is made of what
    these make of the model's hidden states instead of the targets' log-probabilities."""

    def parameters(self, model: PreTrainedModel, seed: int) -> dict[str, Parameter]:
        """Fresh ones for this model, by name; `seed` decides what is drawn at random."""
        ...

    def read(self, model: PreTrainedModel, own: Mapping[str, Parameter], rows: UnpaddedRows) -> torch.Tensor:
        """What the loss is made of, in place of log-probabilities."""
        ...


class Offline:
    """What objectives share whose steps learn from the rows' own examples as they are."""

    reference: Reference = "none"

    def batch(self, examples: Sequence[Example], policy: Policy) -> Batch:
        return Batch(examples=examples)


def sequence_logps(logp_N: torch.Tensor, rows: UnpaddedRows) -> torch.Tensor:
    """Sum target log-probabilities by sequence: [N] → [S]."""
    return logp_N.new_zeros(len(rows.lengths)).index_add(0, rows.segment_N, logp_N)


def per_token(score_S: torch.Tensor, rows: UnpaddedRows) -> torch.Tensor:
    """Sums over the targets of each sequence as means: [S]; zero where there is no target."""
    return score_S / torch.bincount(rows.segment_N, minlength=len(rows.lengths)).clamp(min=1)
