"""What past jobs left behind for the next one: their trials in order of merit, and how like the new job each was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pydantic import Field

from luthier.design import Design, Frozen
from luthier.task import DataKind
from search.features import Features, features
from search.halving import order
from search.history import Past

# How much the trials of another job tell, before sizes are compared: their scores move together by about so much.
ANOTHER_JOB, OTHER_BASE = 0.8, 0.9
DECADE: Final = 0.85  # for each factor of ten between the sizes of the data, or of the models


class Occasion(Frozen):
    """What a job was about, as far as it decides what works: the data's kind and size, the model, the objective."""

    kind: DataKind
    objective: str
    tokens: int = Field(ge=0, description="of the training rows")
    base: str
    parameters: int = Field(ge=1, description="of the base model")


class Memory(Frozen):
    """A past job: its scored designs, the best first, and how like the job at hand it was, 0 to 1."""

    alike: float = Field(ge=0, le=1)
    ranked: tuple[Features, ...]


def remember(history: Sequence[Past], hidden_sizes: dict[str, int], alike: float) -> Memory:
    """Of a past job's trials. `hidden_sizes` are those of base models by name; trials of others are left out."""
    scored = [past.design for past in order(history) if past.design.stages]
    known = [design for design in scored if design.architecture.base in hidden_sizes]
    return Memory(alike=alike, ranked=tuple(features(design, _hidden(design, hidden_sizes)) for design in known))


def alikeness(one: Occasion, other: Occasion) -> float:
    """How much the trials of one tell of the other, 0 to 1; nothing where the kind of data or the objective is another:
    which algorithms and rates are good differs too much between these (docs/benchmarks.md)."""
    if one.kind is not other.kind or one.objective != other.objective:
        return 0.0
    factor = ANOTHER_JOB if one.base == other.base else ANOTHER_JOB * OTHER_BASE
    decades = abs(math.log10((one.tokens + 1) / (other.tokens + 1))) + abs(
        math.log10(one.parameters / other.parameters)
    )
    return factor * math.pow(DECADE, decades)


def _hidden(design: Design, hidden_sizes: dict[str, int]) -> int:
    return hidden_sizes[design.architecture.base]
