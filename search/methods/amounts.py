"""Machine-independent amounts of work, used by the declarations in this package and by the cost model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pydantic import Field

from luthier.models.base_model import Anatomy, Linear, ModelFacts
from luthier.task import DataKind, Objective
from luthier.values import Frozen

ANSWER_EXCESS, ANSWER_MARGIN = 1.5, 4.0

Sites = tuple[tuple[Linear, int], ...]  # linear layers, each with its count


class Work(NamedTuple):
    """Amounts of work; on a device each has a price in seconds."""

    flops: float = 0.0  # of matrix products
    elements: float = 0.0  # numbers read and written between matrix products
    logits: float = 0.0  # numbers in logits and their softmax
    calls: float = 0.0  # operations launched, of any size
    weights: float = 0.0  # numbers read by passes that generate one token for a few sequences
    decoded: float = 0.0  # operations launched in such passes
    optimised: float = 0.0  # parameters updated by optimiser steps
    tensors: float = 0.0  # tensors updated by optimiser steps
    copied: float = 0.0  # parameters of models that are built, merged and saved
    modules: float = 0.0  # adapters added and merged
    leases: float = 0.0  # leases started and ended

    def plus(self, *others: Work) -> Work:
        return Work(*map(sum, zip(self, *others, strict=True)))

    def times(self, factor: float) -> Work:
        return Work(*(factor * amount for amount in self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """`passes` forward passes over `tokens` tokens in total, in `sequences` sequences of mean length `length`."""

    passes: float
    sequences: float
    tokens: float
    targets: float
    length: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A base model after a design's edits. `linear` lists each linear layer with its count."""

    facts: ModelFacts
    anatomy: Anatomy
    layers: int
    stored_layers: int
    kv_heads: int
    linear: Sites
    parameters: int

    @property
    def hidden(self) -> int:
        return self.facts.hidden_size

    @property
    def attention_width(self) -> int:
        """Numbers in the queries of one token."""
        return self.facts.hidden_size

    @property
    def kv_width(self) -> int:
        """Numbers in the keys of one token."""
        return self.facts.hidden_size * self.kv_heads // self.facts.heads

    @property
    def inner(self) -> int:
        """Width of the feed-forward layers."""
        return max(each.outputs for each, _ in self.linear if each.layered and not each.attention)

    @property
    def gated(self) -> bool:
        """Whether the feed-forward layers have a gate (SwiGLU and similar)."""
        return sum(each.layered and not each.attention for each, _ in self.linear) > 2

    @property
    def head(self) -> int:
        """Numbers in the output head."""
        return self.facts.vocab_size * self.facts.hidden_size

    @property
    def outside(self) -> int:
        """Parameters outside of the transformer layers."""
        return self.facts.parameters - self.anatomy.layers * self.anatomy.layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """What a weight update trains: `numbers` parameters in `tensors` tensors.

    It adds `added` parameters, trained or frozen, to the layers `sites`.
    """

    numbers: int
    tensors: int
    added: int = 0
    sites: Sites = ()

    @property
    def count(self) -> int:
        """The number of layers with an adapter."""
        return sum(times for _, times in self.sites)

    @property
    def inputs(self) -> int:
        """Input features of all these layers together."""
        return sum(layer.inputs * times for layer, times in self.sites)

    @property
    def outputs(self) -> int:
        """Output features of all these layers together."""
        return sum(layer.outputs * times for layer, times in self.sites)

    @property
    def weights(self) -> int:
        """Numbers in the weight matrices of all these layers together."""
        return sum(layer.numbers * times for layer, times in self.sites)


class Examples(NamedTuple):
    """Training examples of a stage: their number, and the sequences, tokens and target tokens per example."""

    number: float
    sequences: float
    tokens: float
    targets: float


class Workload(Frozen):
    """The workload of a job's trials. Lengths are in tokens, after truncation to the judge's limits."""

    kind: DataKind
    rows: int = Field(ge=1, description="training rows")
    prompt: float = Field(ge=0, description="mean length of a row's prompt")
    target: float = Field(ge=0, description="mean length of one of its answers, or of its text")
    spread: float = Field(default=0.0, ge=0, description="standard deviation of a row's length")
    validation: int = Field(ge=0, description="rows")
    test: int = Field(ge=0, description="rows")
    window: int
    max_tokens: int
    max_new_tokens: int
    max_rows: int
    max_generations: int
    pseudo_positions: int
    pseudo_windows: int
    graded: bool = Field(description="whether the judge generates answers and grades them")
    objective: Objective = "perplexity"
    desirable: float = Field(default=1.0, description="share of unpaired rows with a desirable answer")
    teachers: dict[str, ModelFacts] = Field(default={}, description="base models that designs may distil, by name")

    @property
    def answer(self) -> float:
        """Expected tokens of the longest of a few generated answers: somewhat more than in the rows' own answers."""
        likely = ANSWER_EXCESS * self.target + ANSWER_MARGIN
        return min(float(self.max_new_tokens), likely) if self.target else float(self.max_new_tokens)
