"""Trials of a job and the best of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.api_types.base import Resource
from luthier.design import Design
from luthier.task import Objective
from luthier.trial import Metrics, TrialState
from luthier.worker_protocol import Artifact


class StageScore(Resource):
    """How a trial did on the first validation rows at the end of a stage; while it runs, at its last rung."""

    stage: int = Field(description="counted from 0, as on the curves")
    algorithm: str
    update: str
    valid_loss: float = Field(description="nats per target token")
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
    origin: str = Field(description="baseline, prior, memory, proposed, confirmation or user")
    confirms: int | None = Field(
        default=None, description="of a confirmation: the trial whose design it trains from another seed"
    )
    rung: int | None = Field(description="highest rung reached: 0 is 1/9 of the training, 1 is 1/3")
    goal: int | None = Field(default=None, description="rung at which it pauses unless promoted; null: the end")
    paused: bool = Field(default=False, description="whether it waits at its goal to be promoted")
    measured: tuple[Metrics, ...] = Field(
        default=(), description="at the rungs reached, in their order, on fewer rows than `metrics`"
    )
    worker: str | None
    attempts: int
    created_at: int
    started_at: int | None
    finished_at: int | None
    device_seconds: float
    trained_tokens: int
    metrics: Metrics | None = Field(description="on the validation rows, which choose between trials")
    test_metrics: Metrics | None = Field(description="on rows that no proposal ever saw; finalists and baselines only")
    error: str | None
    stages: tuple[StageScore, ...] = Field(
        default=(), description="what each stage but the last brought, as far as known"
    )


class Best(Resource):
    """The winner of a job (while it runs: the best so far) beside its two baselines. All metrics are means over the
    seeds that a design was trained from; the weights are those of the first."""

    object: Literal["fine_tuning.job.best"] = "fine_tuning.job.best"
    trial: str
    number: int
    summary: str
    design: Design
    objective: Objective
    metrics: Metrics
    base_metrics: Metrics | None = Field(description="the untuned base model, trial 0")
    default_metrics: Metrics | None = Field(description="the plain LoRA default, trial 1")
    test_metrics: Metrics | None
    base_test_metrics: Metrics | None
    default_test_metrics: Metrics | None
    seeds: int = Field(default=1, ge=1, description="that the winner was trained from")
    default_seeds: int = Field(default=1, ge=1, description="that the plain LoRA default was trained from")
    artifacts: tuple[Artifact, ...]
    model: str | None = Field(default=None, description="what it is called in /v1/chat/completions; null: not kept")


class DesignWords(Resource):
    """One axis of a design, in sentences."""

    axis: str
    words: tuple[str, ...]


class TrialDetails(Trial):
    """A trial with what the listing leaves out."""

    stopped: bool = Field(default=False, description="whether somebody asked for its end")
    explained: tuple[DesignWords, ...] = Field(description="its design, axis by axis")
    artifacts: tuple[Artifact, ...] = Field(description="the weights that were kept of it")


class TrialLine(Resource):
    """A line of a trial's log."""

    lease: int = Field(description="counted from 1; a trial that pauses or loses its worker has several")
    at: int
    text: str


class TrialSample(Resource):
    """What a trial's model says to a held-out prompt, beside what the untuned base says."""

    prompt: str
    reference: str | None = Field(description="the row's own answer, where it has one")
    answer: str
    base_answer: str | None = Field(description="null until trial 0, the base, has answered")
