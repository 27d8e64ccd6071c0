"""Trials of a job and the best of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.api_types.base import Resource
from luthier.design import Design
from luthier.task import Objective
from luthier.trial import Metrics, StageLength, TrialState
from luthier.worker_protocol import Artifact


class StageScore(Resource):
    """The score of a trial on the first validation rows at the end of a stage; while it runs, at its last rung."""

    stage: int = Field(description="counted from 0, as on the curves")
    algorithm: str
    update: str
    valid_loss: float = Field(description="validation loss in nats per target token")
    valid_accuracy: float | None = Field(description="share of pairs whose chosen answer is likelier; preferences only")


class Trial(Resource):
    id: str
    object: Literal["fine_tuning.job.trial"] = "fine_tuning.job.trial"
    job_id: str
    number: int = Field(description="0 is the untuned base model, 1 the plain LoRA default")
    state: TrialState
    summary: str = Field(description="the design in one line")
    design: Design
    seed: int
    origin: str = Field(
        description="baseline, prior, memory (warm start), proposed, confirmation (repeat with another seed) or user"
    )
    confirms: int | None = Field(
        default=None, description="for a repeat: number of the trial that it repeats with another seed"
    )
    split: int = Field(
        default=0,
        ge=0,
        description="the split of the rows that it is trained and validated on; 0: that of all designs; a repeat has "
        "another one where the validation rows are few",
    )
    rung: int | None = Field(
        description="highest rung reached, counted from 0. Each lies three times as far as the one before: under "
        "`constant` in rows read; under `cosine` 0 is 1/9 of the training and 1 is 1/3."
    )
    goal: int | None = Field(default=None, description="rung at which it pauses unless promoted; null: the end")
    paused: bool = Field(default=False, description="whether it is paused at its goal and may be promoted")
    measured: tuple[Metrics, ...] = Field(
        default=(), description="metrics at the rungs reached, in order, on fewer rows than `metrics`"
    )
    worker: str | None
    attempts: int
    created_at: int
    started_at: int | None
    finished_at: int | None
    device_seconds: float
    trained_tokens: int
    metrics: Metrics | None = Field(
        description="on the validation rows, with the trial's own seed; designs are ranked by `mean_metrics`"
    )
    test_metrics: Metrics | None = Field(
        description="on the test rows, which the search never sees; finalists and baselines only"
    )
    seeds: int | None = Field(
        default=None,
        description="number of seeds that the trial's design was trained to the end with; null before its first",
    )
    mean_metrics: Metrics | None = Field(
        default=None, description="the design's metrics on the validation rows, as means over its seeds"
    )
    mean_test_metrics: Metrics | None = Field(
        default=None, description="the same on the test rows, over the seeds that were scored there"
    )
    error: str | None
    lengths: tuple[StageLength, ...] | None = Field(
        default=None, description="how long each stage was trained, and to its result; null before the end"
    )
    stages: tuple[StageScore, ...] = Field(default=(), description="scores after each stage except the last")


class Recommendation(Resource):
    """What to use: the winner, or a baseline that the winner is not significantly better than on the test rows."""

    take: Literal["winner", "plain-LoRA default", "untuned base"] | None
    number: int | None = Field(description="number of the recommended trial; null where there is no recommendation")
    words: tuple[str, ...]


class Best(Resource):
    """The recommended trial of a job and its two baselines.

    Without a recommendation it is the best trial on the validation rows. All metrics are means over the seeds of a
    design. The weights are those of the first seed.
    """

    object: Literal["fine_tuning.job.best"] = "fine_tuning.job.best"
    trial: str
    number: int = Field(description="0 where the untuned base model is recommended")
    summary: str
    design: Design
    objective: Objective
    metrics: Metrics
    base_metrics: Metrics | None = Field(description="metrics of the untuned base model, trial 0")
    default_metrics: Metrics | None = Field(
        description="metrics of the plain LoRA default, trial 1; null before it is complete"
    )
    test_metrics: Metrics | None
    base_test_metrics: Metrics | None
    default_test_metrics: Metrics | None
    seeds: int = Field(default=1, ge=1, description="number of seeds of the recommended design")
    default_seeds: int = Field(default=1, ge=1, description="number of seeds of the plain LoRA default")
    artifacts: tuple[Artifact, ...]
    model: str | None = Field(
        default=None, description="model name for /v1/chat/completions; null if the weights are not stored"
    )
    recommendation: Recommendation | None = Field(default=None, description="the same as in the report")
    winner: int | None = Field(
        default=None, description="number of the best trained design on the validation rows; `number` may be a baseline"
    )


class DesignWords(Resource):
    """One axis of a design, explained in sentences."""

    axis: str
    words: tuple[str, ...]


class TrialDetails(Trial):
    """A trial, with details that the listing leaves out."""

    stopped: bool = Field(default=False, description="whether a user asked to stop it")
    explained: tuple[DesignWords, ...] = Field(description="its design, explained axis by axis")
    artifacts: tuple[Artifact, ...] = Field(description="its stored weights")


class TrialLine(Resource):
    """A line of a trial's log."""

    lease: int = Field(description="counted from 1; a trial has several if it is paused or its worker is lost")
    at: int
    text: str


class TrialSample(Resource):
    """The answer of a trial's model to a held-out prompt, and that of the untuned base."""

    prompt: str
    reference: str | None = Field(description="the reference answer, if the row has one")
    answer: str
    base_answer: str | None = Field(description="null until trial 0, the base, has answered")
