"""Fine-tuning jobs, their events and their checkpoints."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from luthier.api_types.base import Page, Resource
from luthier.task import Constraints, DataKind, Extension, Objective, Search, Task, TruncatedRows
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
    """The best trial of a job, or the recommended one, in short."""

    trial: str
    number: int
    summary: str
    metrics: Metrics = Field(description="on the validation rows, means over the design's seeds")
    seeds: int = Field(default=1, ge=1, description="number of seeds that the design was trained with")


class Expected(Resource):
    """What the budget of a new job is expected to buy. Costs are those of the plain LoRA default."""

    designs: int = Field(description="designs to try besides the two baselines")
    finished: int = Field(description="of these, how many are trained to the end")
    repeats: int = Field(description="repeats of the best designs and the default with other seeds")
    repeat_seconds: float = Field(default=0.0, description="what the repeats cost, in device-seconds")
    splits: int = Field(
        default=1,
        ge=1,
        description="splits of the training and validation rows that all finalists are expected to be compared on. "
        "With fewer than 100 validation rows each repeat trains on another split; 1: all on the same rows",
    )
    epochs: float = Field(description="length of a full training run of the default")
    first_share: float = Field(description="share of a full training after which designs are first compared")
    device_seconds: float = Field(description="cost of all this, or the budget")
    seconds: float = Field(description="the same in wall-clock time, with the live workers")
    device: str
    workers: int = Field(description="live workers; 0: the estimate is for this machine's CPU")
    calibrated_from: int = Field(
        description="finished trials on such a device that calibrate the estimate; 0: a guess, which may be wrong by "
        "several times"
    )
    warning: str | None = Field(description="what the budget does not suffice for")


class Progress(Resource):
    """Luthier's fields of a job: its settings and its progress."""

    kind: DataKind
    objective: Objective
    task: Task
    search: Search
    constraints: Constraints
    trials_done: int = Field(description="designs that have ended or are paused at a rung")
    trials_total: int = Field(description="designs to try, without repeats of the best ones with other seeds")
    trials_running: int
    trials_paused: int = Field(default=0, description="designs that are paused at a rung and may still be promoted")
    confirmations_done: int = Field(default=0, description="repeats with other seeds that have ended")
    confirmations_total: int = Field(default=0, description="repeats with other seeds to run in total")
    splits: int = Field(
        default=1, ge=1, description="splits of the training and validation rows that finalists are compared on"
    )
    device_seconds: float = Field(description="spent so far, over all workers")
    best: Standing | None = Field(
        description="the recommended trial, so far or finally; where nothing is recommended, the best one on the "
        "validation rows"
    )
    estimated_finish: int | None
    notes: str = Field(default="", description="notes of users about the job")
    tags: tuple[str, ...] = ()
    schedule_id: str | None = Field(default=None, description="the schedule that created the job")
    paused: bool = Field(
        default=False, description="no trial starts until the job is resumed; `status` stays `running`"
    )
    truncation: tuple[TruncatedRows, ...] | None = Field(
        default=None,
        description="for each base model, how many rows are truncated; null if the rows were not checked: plain text, "
        "encoders, and jobs of earlier versions",
    )
    expected: Expected | None = Field(
        default=None, description="what the budget is expected to buy; only in the response to the job's creation"
    )
    extensions: tuple[Extension, ...] = Field(
        default=(), description="what was added to the budget after the search had ended; `search` includes it"
    )


class Job(Resource):
    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    status: JobState
    error: JobFailure | None
    model: str = Field(description='the base model; "auto" while several base models are searched')
    fine_tuned_model: str | None
    training_file: str
    validation_file: str | None
    method: dict[str, Any] | None = Field(description="null if the search chooses the method")
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
    """OpenAI's checkpoint metrics; null if the judge does not measure one. Losses are in nats per target token."""

    step: int
    train_loss: float | None = None
    train_mean_token_accuracy: float | None = None
    valid_loss: float | None = Field(
        default=None, description="validation loss (eval_loss) on the rows scored at rungs"
    )
    valid_mean_token_accuracy: float | None = Field(
        default=None, description="for preferences: share of pairs whose chosen answer is likelier"
    )
    full_valid_loss: float | None = Field(default=None, description="validation loss (eval_loss) on all scored rows")
    full_valid_mean_token_accuracy: float | None = None


class CheckpointFacts(Resource):
    trial: str
    number: int
    stage: int
    share: float = Field(description="share of the longest training that the design allows; 1: the end of the training")
    usable: bool = Field(description="whether its weights are stored, so that completions can use it")
    metrics: Metrics


class Checkpoint(Resource):
    """A point at which a trial was scored on held-out rows, in OpenAI's shape."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: CheckpointMetrics
    step_number: int = Field(description="optimiser step of its stage")
    luthier: CheckpointFacts


class CheckpointPage(Page[Checkpoint]):
    first_id: str | None
    last_id: str | None
