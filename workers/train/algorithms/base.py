"""The interface of a learning algorithm: rows become examples, and target log-probabilities become a loss.

The trainer does the rest. An objective returns the *sum* over a micro-batch, and the trainer divides by the weight of
the whole batch. So gradient accumulation does not change the result.

Shape suffixes: N target tokens, S sequences, P pairs or prompts, G rollouts per prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch.nn import Parameter
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from luthier.algorithms import AlgorithmMember
from luthier.task import DataKind
from workers.train.data.padding_free import UnpaddedRows
from workers.train.data.tokenize import Renderer, Row, Tokens
from workers.train.forward import CausalModel
from workers.train.rollouts.play import World

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
class ReadsModel(Protocol):
    """An objective that runs the model itself: with a trained head on its hidden states, or for whole distributions."""

    def parameters(self, model: CausalModel, seed: int) -> dict[str, Parameter]:
        """Return the initial parameters of its head, by name; `seed` determines their random values. Empty: no head."""
        ...

    def read(self, model: CausalModel, head: Mapping[str, Parameter], rows: UnpaddedRows) -> torch.Tensor:
        """Return what `loss` receives in place of the target log-probabilities."""
        ...


A = TypeVar("A", bound=AlgorithmMember)


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """The model to distil, frozen and on the device of the model in training.

    tokenizer       the student's, whose vocabulary the teacher shares
    max_new_tokens  limit of the student's own answers
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_new_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What an objective may use besides its hyperparameters.

    world    rewards of rollouts; None if the task has none
    teacher  None if the design has none
    """

    world: World | None = None
    teacher: Teacher | None = None


class Offline(Generic[A]):
    """Base of objectives that train on the dataset's examples as they are."""

    reference: Reference = "none"

    def __init__(self, algorithm: A, context: Context) -> None:
        self.algorithm = algorithm

    def batch(self, examples: Sequence[Example], policy: Policy) -> Batch:
        return Batch(examples=examples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Implementation:
    """The objective of a learning algorithm, and the trainer that the reproduction script uses for it.

    trainer  module and name of TRL's trainer without `Trainer`; None if the script has a loop of its own
    """

    objective: Callable[[Any, Context], Objective]
    trainer: tuple[str, str] | None


IMPLEMENTATIONS: dict[str, Implementation] = {}  # by `kind`; filled when the modules of this folder are imported

Class = TypeVar("Class", bound=Callable[[Any, Context], Any])


def implements(member: type[AlgorithmMember], *, trainer: tuple[str, str] | None) -> Callable[[Class], Class]:
    """Declare that the decorated class is the objective of an algorithm. `trainer` as in `Implementation`."""

    def register(objective: Class) -> Class:
        IMPLEMENTATIONS[member.kind_name()] = Implementation(objective=objective, trainer=trainer)
        return objective

    return register


def sequence_logps(logp_N: torch.Tensor, rows: UnpaddedRows) -> torch.Tensor:
    """Sum the target log-probabilities of each sequence: [N] → [S]."""
    return logp_N.new_zeros(len(rows.lengths)).index_add(0, rows.segment_N, logp_N)


def per_token(score_S: torch.Tensor, rows: UnpaddedRows) -> torch.Tensor:
    """Divide sums over targets by the number of targets: [S] → [S]; zero without targets."""
    return score_S / torch.bincount(rows.segment_N, minlength=len(rows.lengths)).clamp(min=1)
