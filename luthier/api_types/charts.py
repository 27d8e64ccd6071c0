"""Data for the charts of a job, and the messages of its live stream."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.api_types.base import Resource
from luthier.api_types.jobs import Event, Job
from luthier.api_types.trials import Trial


class TrialCurve(Resource):
    number: int = Field(description="number of the trial")
    step: tuple[int, ...] = Field(description="optimiser steps, counted through all stages")
    value: tuple[float, ...]


class RungMark(Resource):
    """The score of a trial at a rung."""

    number: int = Field(description="number of the trial")
    rung: int
    step: int = Field(description="optimiser step, counted as on the curves")
    score: float = Field(description="in the objective's units, on fewer rows than at the end")


class Curves(Resource):
    """One curve of all trials of a job. Long curves are downsampled: each segment keeps its minimum and maximum."""

    object: Literal["fine_tuning.job.curves"] = "fine_tuning.job.curves"
    name: str
    names: tuple[str, ...] = Field(description="names of the available curves")
    trials: tuple[TrialCurve, ...]
    rungs: tuple[RungMark, ...]


class LandscapeAxis(Resource):
    """An axis of the design space of a job, and its importance."""

    axis: str
    group: Literal["learning algorithm", "weight update", "architecture", "hyperparameters"]
    values: tuple[str | int | float | None, ...] = Field(
        description="value of each design; null if the axis does not apply"
    )
    share: float | None = Field(description="share of the variance of the designs' ranks; null with too few trials")
    weak: bool = Field(description="whether there are too few trials for a reliable share")
    default: str | None
    best: str | None
    default_text: str | None = Field(
        default=None, description="the same for people: a learning rate as a number, with its multiplier"
    )
    best_text: str | None = None
    worth: float | None = Field(description="how much worse the best score is with this axis at its default")


class Landscape(Resource):
    """All scored designs of a job by column: their values on each axis, scores and costs.

    Repeats with other seeds count in the score of the design that they repeat.
    """

    object: Literal["fine_tuning.job.landscape"] = "fine_tuning.job.landscape"
    unit: str = Field(description="unit of the scores")
    lower_is_better: bool
    base: float | None = Field(description="the untuned model's score")
    default: float | None = Field(description="the plain LoRA default's score")
    best: int | None = Field(
        description="number of the recommended trial; without a recommendation, of the best on the validation rows"
    )
    number: tuple[int, ...]
    summary: tuple[str, ...]
    state: tuple[str, ...] = Field(description="state as text: complete, running, paused at 1/9, …")
    score: tuple[float | None, ...] = Field(description="mean over the seeds of a complete design")
    seeds: tuple[int, ...] = Field(default=(), description="number of seeds that `score` is the mean of; 0 without one")
    last: tuple[float, ...] = Field(description="the last score, which may be that of a rung, on fewer rows")
    standing: tuple[float, ...] = Field(description="rank: share of the other designs that are better")
    device_seconds: tuple[float, ...]
    parameters: tuple[int | None, ...]
    front: tuple[bool, ...] = Field(description="whether the design is Pareto-optimal in score, size and training cost")
    axes: tuple[LandscapeAxis, ...]


class Span(Resource):
    """One lease: a worker's time with a trial."""

    number: int = Field(description="number of the trial")
    lease: int
    start: float = Field(description="Unix seconds")
    end: float | None = Field(description="Unix seconds; null while the lease is held")
    outcome: str | None = Field(description="how the lease ended; null while it is held")


class WorkerSpans(Resource):
    worker: str
    spans: tuple[Span, ...]


class Timeline(Resource):
    """Which worker trained which trial, and when."""

    object: Literal["fine_tuning.job.timeline"] = "fine_tuning.job.timeline"
    workers: tuple[WorkerSpans, ...]


class CurvePoints(Resource):
    """New points of a trial's curves: [name, stage, step, value]."""

    trial: str
    number: int
    points: tuple[tuple[str, int, int, float], ...]


class Update(Resource):
    """One message of a job's stream. `id` is the id of the last event; pass it as `after` to continue the stream."""

    kind: Literal["job", "trial", "points", "event", "end"]
    id: str | None
    data: Job | Trial | CurvePoints | Event | None = Field(description="null at the end")
