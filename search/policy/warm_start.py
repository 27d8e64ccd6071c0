"""Warm start: a job first tries the best designs of similar past jobs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Final

from pydantic import Field

from luthier.design import Design
from luthier.errors import IllegalDesign
from luthier.task import DataKind
from luthier.values import Frozen
from search.policy.history import Past
from search.policy.ranking import DEFAULT, rank
from search.space.learning_rate import default_learning_rate, significant
from search.space.space import Space

# Similarity of two jobs before sizes are compared: roughly how much the scores of the same designs correlate.
ANOTHER_JOB, OTHER_BASE = 0.8, 0.9
DECADE: Final = 0.85  # factor for each factor of ten between the sizes of the data, or of the models
DESIGNS_PER_JOB: Final = 2  # on other rows a job's second-best design may be the better one
RUNNER_UP: Final = 0.7  # weight of a job's second-best design, relative to its best
MAX_DESIGNS: Final = 4  # from all similar jobs together


class JobContext(Frozen):
    """The properties of a job that decide which designs work: kind and size of the data, base model, objective."""

    kind: DataKind
    objective: str
    tokens: int = Field(ge=0, description="in the training rows")
    base: str
    parameters: int = Field(ge=1, description="in the base model")


class SimilarJob(Frozen):
    """A past job: its best designs, best first, and how similar it is to the new job."""

    similarity: float = Field(ge=0, le=1)
    best: tuple[Design, ...]
    hidden_sizes: dict[str, int] = Field(description="of the base models, by name")
    any_length: bool = Field(
        default=False, description="whether designs keep their epochs where the new job's space has other numbers"
    )


def similar_job(
    history: Sequence[Past], hidden_sizes: dict[str, int], similarity: float, *, any_length: bool = False
) -> SimilarJob:
    """Return the warm start from a past job's trials.

    `hidden_sizes` maps registered base models to their hidden sizes; trials of other models are left out.
    `any_length`: whether the new job leaves the number of epochs open, so that a past job's is handed down as it is.
    """
    default = next((past.design for past in history if past.number == DEFAULT), None)
    known = [past.design for past in rank(history) if past.design.architecture.base in hidden_sizes]
    return SimilarJob(
        similarity=similarity, best=best_designs(known, default), hidden_sizes=hidden_sizes, any_length=any_length
    )


def best_designs(ranked: Sequence[Design], default: Design | None) -> tuple[Design, ...]:
    """Return the best of a past job's designs. Designs that ranked below its plain-LoRA default are left out."""
    return tuple(takewhile(lambda design: design != default, ranked))[:DESIGNS_PER_JOB]


def first_designs(space: Space, similar_jobs: Sequence[SimilarJob]) -> list[Design]:
    """Return the best designs of similar jobs that the space contains, those of the most similar jobs first."""
    weighted = [
        (job.similarity * RUNNER_UP**rank, _in_space(space, design, job))
        for job in similar_jobs
        for rank, design in enumerate(job.best)
    ]
    weighted.sort(key=lambda pair: -pair[0])
    return list({design.digest(): design for _, design in weighted if design is not None}.values())[:MAX_DESIGNS]


def similarity_of(one: JobContext, other: JobContext) -> float:
    """Return how far the results of one job carry over to the other, 0 to 1.

    It is 0 if the kind of data or the objective differs: the best algorithms and learning rates then differ too much
    (docs/benchmarks.md).
    """
    if one.kind is not other.kind or one.objective != other.objective:
        return 0.0
    factor = ANOTHER_JOB if one.base == other.base else ANOTHER_JOB * OTHER_BASE
    decades = abs(math.log10((one.tokens + 1) / (other.tokens + 1))) + abs(
        math.log10(one.parameters / other.parameters)
    )
    return factor * math.pow(DECADE, decades)


def _in_space(space: Space, design: Design, job: SimilarJob) -> Design | None:
    """The design, moved to the space's first model if it has another one; None if the space does not contain it.

    If the new job does not pin the epochs, the design keeps its own number; only its other values must be in the space.
    Under `constant` the epochs are replaced by the limit of the space.
    """
    base = design.architecture.base
    if "cosine" not in space.schedules:
        design = _with(design, epochs=max(space.epochs), schedule="constant")
    try:
        if base not in {model.name for model in space.models}:
            design = _on_first_model(design, job.hidden_sizes[base], space)
        space.encode(_with(design, epochs=space.epochs[0]) if job.any_length else design)
    except IllegalDesign:
        return None
    return design


def _with(design: Design, **settings: Any) -> Design:
    """The design, with these settings of the optimiser in all stages that have the length of the first one."""
    length = design.stages[0].optimiser.epochs
    stages = [
        stage.model_copy(update={"optimiser": stage.optimiser.model_copy(update=settings)})
        if stage.optimiser.epochs == length
        else stage
        for stage in design.stages
    ]
    return design.model_copy(update={"stages": tuple(stages)})


def _on_first_model(design: Design, hidden_size: int, space: Space) -> Design:
    """The design on the space's first model, with learning rates scaled by the ratio of the two models' defaults.

    Raises IllegalDesign if the architecture is edited: edits refer to the layers and heads of one model.
    """
    if design.architecture.edited:
        raise IllegalDesign("an edited architecture cannot be moved to another base model", param="architecture")
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
