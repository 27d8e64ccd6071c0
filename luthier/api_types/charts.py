"""A job as charts show it, and as it goes on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.api_types.base import Resource
from luthier.api_types.jobs import Event, Job
from luthier.api_types.trials import Trial


class TrialCurve(Resource):
    number: int = Field(description="of the trial")
    step: tuple[int, ...] = Field(description="of the optimiser, counted on from stage to stage")
    value: tuple[float, ...]


class RungMark(Resource):
    """Where a trial was scored on the way."""

    number: int = Field(description="of the trial")
    rung: int
    step: int = Field(description="as on the curves")
    score: float = Field(description="in the objective's units, on fewer rows than at the end")


class Curves(Resource):
    """One curve of all trials of a job. Long ones are thinned: each stretch keeps its lowest and its highest point."""

    object: Literal["fine_tuning.job.curves"] = "fine_tuning.job.curves"
    name: str
    names: tuple[str, ...] = Field(description="the curves that the job's trials have")
    trials: tuple[TrialCurve, ...]
    rungs: tuple[RungMark, ...]


class LandscapeAxis(Resource):
    """An axis of the designs of a job, and what it was worth."""

    axis: str
    group: Literal["learning algorithm", "weight update", "architecture", "hyperparameters"]
    values: tuple[str | int | float | None, ...] = Field(description="of each design; null where it has no such axis")
    share: float | None = Field(description="of the variance of the designs' standing; null where it cannot be told")
    weak: bool = Field(description="whether there were too few trials to make much of the share")
    default: str | None
    best: str | None
    worth: float | None = Field(description="how much worse the best would be, had the axis stayed at the default")


class Landscape(Resource):
    """All designs of a job that were scored, by column: what they are, how good they are and what they cost.

    Confirmations are in the score of the design that they confirm.
    """

    object: Literal["fine_tuning.job.landscape"] = "fine_tuning.job.landscape"
    unit: str = Field(description="what scores are in")
    lower_is_better: bool
    base: float | None = Field(description="the untuned model's score")
    default: float | None = Field(description="the plain LoRA default's score")
    best: int | None = Field(description="number of the best trial")
    number: tuple[int, ...]
    summary: tuple[str, ...]
    state: tuple[str, ...] = Field(description="in words: complete, running, paused at 1/9, …")
    score: tuple[float | None, ...] = Field(description="of complete designs, as the mean over their seeds")
    last: tuple[float, ...] = Field(description="the last score, which may be that of a rung, on fewer rows")
    standing: tuple[float, ...] = Field(description="share of the other designs that it is worse than")
    device_seconds: tuple[float, ...]
    parameters: tuple[int | None, ...]
    front: tuple[bool, ...] = Field(description="whether none beats it in score, size and cost of training at once")
    axes: tuple[LandscapeAxis, ...]


class Span(Resource):
    """One lease: a worker's time with a trial."""

    number: int = Field(description="of the trial")
    lease: int
    start: float = Field(description="Unix seconds")
    end: float | None = Field(description="null while it lasts")
    outcome: str | None = Field(description="what the lease ended with; null while it lasts")


class WorkerSpans(Resource):
    worker: str
    spans: tuple[Span, ...]


class Timeline(Resource):
    """Which worker trained what, and when."""

    object: Literal["fine_tuning.job.timeline"] = "fine_tuning.job.timeline"
    workers: tuple[WorkerSpans, ...]


class CurvePoints(Resource):
    """New points of a trial's curves: [name, stage, step, value]."""

    trial: str
    number: int
    points: tuple[tuple[str, int, int, float], ...]


class Update(Resource):
    """One message of a job's stream. `id` is that of the last event before it, from which the stream can go on."""

    kind: Literal["job", "trial", "points", "event", "end"]
    id: str | None
    data: Job | Trial | CurvePoints | Event | None = Field(description="null at the end")
