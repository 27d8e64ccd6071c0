"""What past jobs left behind for the next one: their best designs, which are tried first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from pydantic import Field

from luthier.design import Design, Frozen
from luthier.errors import IllegalDesign
from luthier.task import DataKind
from search.policy.history import Past
from search.policy.ranking import DEFAULT, rank
from search.space.learning_rate import default_learning_rate, significant
from search.space.space import Space

# How much the trials of another job tell, before sizes are compared: their scores move together by about so much.
ANOTHER_JOB, OTHER_BASE = 0.8, 0.9
DECADE: Final = 0.85  # for each factor of ten between the sizes of the data, or of the models
HANDED_DOWN: Final = 2  # by each job: on other rows its second may be the better one
RUNNER_UP: Final = 0.7  # what a job's second is worth of its best
MOST: Final = 4  # of all jobs together


class JobContext(Frozen):
    """What a job was about, as far as it decides what works: the data's kind and size, the model, the objective."""

    kind: DataKind
    objective: str
    tokens: int = Field(ge=0, description="of the training rows")
    base: str
    parameters: int = Field(ge=1, description="of the base model")


class SimilarJob(Frozen):
    """A past job: its best designs, the best first, and how like the job at hand it was, 0 to 1."""

    alike: float = Field(ge=0, le=1)
    best: tuple[Design, ...]
    hidden_sizes: dict[str, int] = Field(description="of base models, by name")


def similar_job(history: Sequence[Past], hidden_sizes: dict[str, int], alike: float) -> SimilarJob:
    """Of a past job's trials. `hidden_sizes` are those of base models by name; trials of others are left out."""
    default = next((past.design for past in history if past.number == DEFAULT), None)
    known = [past.design for past in rank(history) if past.design.architecture.base in hidden_sizes]
    return SimilarJob(alike=alike, best=best_designs(known, default), hidden_sizes=hidden_sizes)


def best_designs(ranked: Sequence[Design], default: Design | None) -> tuple[Design, ...]:
    """The best of a past job's designs. What came behind its plain default is worth no trial: there, no search paid."""
    return tuple(takewhile(lambda design: design != default, ranked))[:HANDED_DOWN]


def first_designs(space: Space, memory: Sequence[SimilarJob]) -> list[Design]:
    """What past jobs would try first, as designs of the space: the more alike a job, the earlier its designs."""
    weighed = [
        (job.alike * RUNNER_UP**place, _in_space(space, design, job.hidden_sizes))
        for job in memory
        for place, design in enumerate(job.best)
    ]
    weighed.sort(key=lambda pair: -pair[0])
    return list({design.digest(): design for _, design in weighed if design is not None}.values())[:MOST]


def similarity_of(one: JobContext, other: JobContext) -> float:
    """How much the trials of one tell of the other, 0 to 1; nothing where the kind of data or the objective is another:
    which algorithms and rates are good differs too much between these (docs/benchmarks.md)."""
    if one.kind is not other.kind or one.objective != other.objective:
        return 0.0
    factor = ANOTHER_JOB if one.base == other.base else ANOTHER_JOB * OTHER_BASE
    decades = abs(math.log10((one.tokens + 1) / (other.tokens + 1))) + abs(
        math.log10(one.parameters / other.parameters)
    )
    return factor * math.pow(DECADE, decades)


def _in_space(space: Space, design: Design, hidden_sizes: dict[str, int]) -> Design | None:
    """The design, on the space's first model where its own is not there; None where the space has no such design."""
    base = design.architecture.base
    try:
        if base not in {model.name for model in space.models}:
            design = _on_another(design, hidden_sizes[base], space)
        space.encode(design)
    except IllegalDesign:
        return None
    return design


def _on_another(design: Design, hidden_size: int, space: Space) -> Design:
    """The design on the space's first model, at learning rates that keep their distance from the default.

    Raises IllegalDesign where the architecture is edited: edits count a model's own layers and heads.
    """
    if design.architecture.edited:
        raise IllegalDesign("an edit of one model says nothing of another", param="architecture")
    model = space.models[0]
    stages = []
    for stage in design.stages:
        kinds = stage.algorithm.kind, stage.update.kind
        scale = default_learning_rate(*kinds, model.hidden_size) / default_learning_rate(*kinds, hidden_size)
        rate = significant(stage.optimiser.learning_rate * scale)
        optimiser = stage.optimiser.model_copy(update={"learning_rate": rate})
        stages.append(stage.model_copy(update={"optimiser": optimiser}))
    architecture = design.architecture.model_copy(update={"base": model.name})
    return design.model_copy(update={"architecture": architecture, "stages": tuple(stages)})
