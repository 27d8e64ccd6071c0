"""The interface of a learning algorithm: rows become examples, and target log-probabilities become a loss.

The trainer does the rest. An objective returns the *sum* over a micro-batch, and the trainer divides by the weight of
the whole batch. So gradient accumulation does not change the result.

Shape suffixes: N target tokens, S sequences, P pairs or prompts, G rollouts per prompt.
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

Example = tuple[Tokens, ...]  # sequences that must stay in one micro-batch, such as a pair

Reference = Literal["none", "scores", "weights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The examples of one optimiser step.

    signals  one tensor per example, of any shape; those of a micro-batch are concatenated for its loss
    values   curve values of the step, by name
    """

    examples: Sequence[Example]
    signals: Sequence[torch.Tensor] | None = None
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The loss of a micro-batch.

    total  summed over the micro-batch, with its gradient; [K] for K terms with different weights (tokens and pairs)
    sums   curve values by name, summed over examples
    """

    total: torch.Tensor
    sums: dict[str, float]


class Policy(Protocol):
    """The model in training, as an objective may use it between optimiser steps. Nothing here has a gradient."""

    @property
    def model(self) -> CausalModel: ...

    @property
    def step_seed(self) -> int:
        """Seed of this step's random numbers: different for each step, the same after a resume."""
        ...

    def logps(self, examples: Sequence[Example]) -> list[torch.Tensor]:
        """Return the log-probabilities of each example's targets, its sequences concatenated: [targets] each."""
        ...

    def reference_logps(self, examples: Sequence[Example]) -> list[torch.Tensor]:
        """Return the same under the stage's initial weights; only if the objective's `reference` is `weights`."""
        ...


class Objective(Protocol):
    """A learning algorithm. It has no state besides its hyperparameters."""

    reference: Reference
    """What to keep of the stage's initial model. `scores`: the log-probability of each sequence, which becomes the
    batch's signal. `weights`: the model itself, for sequences that are not known beforehand."""

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        """Return the examples of one row, each with the same number of sequences."""
        ...

    def batch(self, examples: Sequence[Example], policy: Policy) -> Batch:
        """Return what the step trains on: these examples, or others made from them (rollouts, masked windows)."""
        ...

    def weight(self, examples: Sequence[Example]) -> float | Sequence[float]:
        """Return the divisor that makes the summed loss the mean of the paper; one for each term."""
        ...

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        """Return the loss of a micro-batch. `signal` is the concatenation of its examples' signals."""
        ...


@runtime_checkable
class Headed(Protocol):
    """An objective with a trained head on the model's hidden states. Its loss uses the head's output instead of
    log-probabilities."""

    def parameters(self, model: PreTrainedModel, seed: int) -> dict[str, Parameter]:
        """Return the head's initial parameters for this model, by name. `seed` determines their random values."""
        ...

    def read(self, model: PreTrainedModel, head: Mapping[str, Parameter], rows: UnpaddedRows) -> torch.Tensor:
        """Return the head's output, which `loss` receives in place of log-probabilities."""
        ...


class Offline:
    """Base of objectives that train on the dataset's examples as they are."""

    reference: Reference = "none"

    def batch(self, examples: Sequence[Example], policy: Policy) -> Batch:
        return Batch(examples=examples)


def sequence_logps(logp_N: torch.Tensor, rows: UnpaddedRows) -> torch.Tensor:
    """Sum the target log-probabilities of each sequence: [N] → [S]."""
    return logp_N.new_zeros(len(rows.lengths)).index_add(0, rows.segment_N, logp_N)


def per_token(score_S: torch.Tensor, rows: UnpaddedRows) -> torch.Tensor:
    """Divide sums over targets by the number of targets: [S] → [S]; zero without targets."""
    return score_S / torch.bincount(rows.segment_N, minlength=len(rows.lengths)).clamp(min=1)
