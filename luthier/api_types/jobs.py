"""Fine-tuning jobs, their events and their checkpoints."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from luthier.api_types.base import Page, Resource
from luthier.task import Constraints, DataKind, Objective, Search, Task
from luthier.trial import JobState, Metrics


class Hyperparameters(Resource):
    """The pinned values, or "auto" where the search chooses."""

    n_epochs: int | Literal["auto"] = "auto"
    batch_size: int | Literal["auto"] = "auto"
    learning_rate_multiplier: float | Literal["auto"] = "auto"


class JobFailure(Resource):
    code: str
    message: str
    param: str | None = None


class Standing(Resource):
    """A trial's place in its job, in short."""

    trial: str
    number: int
    summary: str
    metrics: Metrics = Field(description="on the validation rows, means over the design's seeds")
    seeds: int = Field(default=1, ge=1, description="that the design was trained from")


class Progress(Resource):
    """Luthier's own side of a job: what was asked for and how far it is."""

    kind: DataKind
    objective: Objective
    task: Task
    search: Search
    constraints: Constraints
    trials_done: int = Field(description="designs that have ended, or pause at a rung")
    trials_total: int = Field(description="designs to try; what confirms the best from other seeds is not counted")
    trials_running: int
    trials_paused: int = Field(default=0, description="designs that pause at a rung and may still be promoted")
    confirmations_done: int = 0
    confirmations_total: int = Field(default=0, description="trainings from other seeds that there are to be")
    device_seconds: float = Field(description="spent so far, over all workers")
    best: Standing | None = Field(description="best trial so far on the validation rows")
    estimated_finish: int | None
    notes: str = Field(default="", description="what people have written beside the job")
    tags: tuple[str, ...] = ()
    schedule_id: str | None = Field(default=None, description="the schedule that the job was made by")
    paused: bool = Field(default=False, description="nothing is started until it is resumed; `status` has no such word")


class Job(Resource):
    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    status: JobState
    error: JobFailure | None
    model: str = Field(description='the base model; "auto" while several are searched')
    fine_tuned_model: str | None
    training_file: str
    validation_file: str | None
    method: dict[str, Any] | None = Field(description="null where the service designs the method")
    hyperparameters: Hyperparameters
    seed: int
    trained_tokens: int | None
    metadata: dict[str, str]
    organization_id: str = "luthier"
    result_files: tuple[str, ...] = ()
    integrations: tuple[Any, ...] = ()
    luthier: Progress


class Event(Resource):
    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    type: Literal["message", "metrics"]
    message: str
    data: dict[str, Any] | None = None


class CheckpointMetrics(Resource):
    """OpenAI's; null where the judge has no such measure. Losses are nats a target token."""

    step: int
    train_loss: float | None = None
    train_mean_token_accuracy: float | None = None
    valid_loss: float | None = Field(default=None, description="on the few rows that are scored at rungs")
    valid_mean_token_accuracy: float | None = Field(default=None, description="share of pairs in order; preferences")
    full_valid_loss: float | None = Field(default=None, description="on all validation rows that are scored")
    full_valid_mean_token_accuracy: float | None = None


class CheckpointFacts(Resource):
    trial: str
    number: int
    stage: int
    share: float = Field(description="of the trial's whole training; 1: its end")
    usable: bool = Field(description="whether its weights are there, so that it answers under its name")
    metrics: Metrics


class Checkpoint(Resource):
    """Where a trial was scored on held-out rows, in OpenAI's shape."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: CheckpointMetrics
    step_number: int = Field(description="of its stage")
    luthier: CheckpointFacts


class CheckpointPage(Page[Checkpoint]):
    first_id: str | None
    last_id: str | None
