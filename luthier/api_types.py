"""The resources of the HTTP API, as the service writes them and the client reads them.

What OpenAI's API has too (`FileObject`, `Job`, `Event`, `Model`, pages) has its fields and meanings; what is
Luthier's own stands in the field `luthier` or in resources of its own. Times are Unix seconds. Fields that a newer
service adds are ignored.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from luthier.dataset import Profile
from luthier.design import Design
from luthier.model import ModelFacts
from luthier.task import Constraints, DataKind, Grader, Search, Task
from luthier.trial import JobState, Metrics, TrialState
from luthier.wire import Artifact, Device

T = TypeVar("T")


class Resource(BaseModel):
    """Base of everything the API answers with."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Page(Resource, Generic[T]):
    """One page of a listing; the next one starts `after` the id of its last member."""

    object: Literal["list"] = "list"
    data: tuple[T, ...]
    has_more: bool = False


class ErrorDetail(Resource):
    message: str = Field(description="what was wrong and what was expected, for a person")
    type: str
    param: str | None = Field(description="the field or option at fault")
    code: str = Field(description="the class of the error, e.g. not_found")


class ErrorBody(Resource):
    error: ErrorDetail


class Deleted(Resource):
    id: str
    object: str
    deleted: Literal[True] = True


class FileFacts(Resource):
    kind: DataKind
    format: str = Field(description="the format that was recognised in the uploaded file")
    rows: int


class FileObject(Resource):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["fine-tune"] = "fine-tune"
    status: Literal["processed"] = "processed"
    expires_at: int | None = None
    luthier: FileFacts


class Dataset(Profile):
    """What is in a file: the profile that designs are proposed from."""

    model_config = ConfigDict(extra="ignore")

    object: Literal["dataset"] = "dataset"
    file_id: str
    filename: str


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
    objective: Literal["perplexity", "reward"]
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
    objective: Literal["perplexity", "reward"]
    metrics: Metrics
    base_metrics: Metrics | None = Field(description="the untuned base model, trial 0")
    default_metrics: Metrics | None = Field(description="the plain LoRA default, trial 1")
    test_metrics: Metrics | None
    base_test_metrics: Metrics | None
    default_test_metrics: Metrics | None
    seeds: int = Field(default=1, ge=1, description="that the winner was trained from")
    default_seeds: int = Field(default=1, ge=1, description="that the plain LoRA default was trained from")
    artifacts: tuple[Artifact, ...]


class Model(Resource):
    """A registered base model, or the result of a job."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "luthier"
    source: str | None = Field(default=None, description="the folder or hub id of a base model")
    facts: ModelFacts | None = None
    job: str | None = Field(default=None, description="the job that made a fine-tuned model")


class Environment(Resource):
    """What a job can name in `task.environment`: it makes the rows and scores the answers."""

    name: str
    object: Literal["environment"] = "environment"
    summary: str = Field(description="what it asks of the model, in a line")
    options: dict[str, Any] = Field(description="the JSON schema of each option, with its default")


class Worker(Resource):
    id: str
    object: Literal["worker"] = "worker"
    name: str
    device: Device
    pid: int
    created_at: int
    last_seen_at: int
    live: bool


class GraderErrors(Resource):
    """OpenAI's list of what can go wrong while grading; the last two never do here."""

    formula_parse_error: bool = Field(default=False, description="`calculate_output` is not a formula")
    invalid_variable_error: bool = Field(default=False, description="a template names what is not there")
    sample_parse_error: bool = Field(default=False, description="the answer is not the JSON that a template reads")
    other_error: bool = Field(default=False, description="this answer, or its reference, cannot be graded")
    model_grader_parse_error: bool = Field(default=False, description="the grading model's answer holds no grade")
    model_grader_refusal_error: bool = Field(default=False, description="the grading model refused")
    model_grader_server_error: bool = Field(default=False, description="the grading model's endpoint gave no answer")
    model_grader_server_error_details: str | None = None
    python_grader_runtime_error: bool = Field(default=False, description="the code raised, or took too much")
    python_grader_runtime_error_details: str | None = None
    python_grader_server_error: bool = Field(default=False, description="the code cannot be isolated here")
    python_grader_server_error_type: str | None = None
    truncated_observation_error: bool = False
    unresponsive_reward_error: bool = False
    details: tuple[str, ...] = Field(default=(), description="Luthier's own: each error in words")


class GraderMetadata(Resource):
    name: str
    type: str
    errors: GraderErrors
    execution_time: float = Field(description="seconds")
    scores: dict[str, float] = Field(description="every grade by the name of its grader")
    sampled_model_name: str | None = None
    token_usage: int | None = None


class GraderRun(Resource):
    """One answer, graded. A grade that could not be given is 0.0, and `metadata.errors` says why."""

    reward: float
    sub_rewards: dict[str, float] = Field(description="the grades that a `multi` grader combined")
    metadata: GraderMetadata
    model_grader_token_usage_per_model: dict[str, int] = Field(default_factory=dict)


class GraderValidation(Resource):
    grader: Grader = Field(description="the grader, with its defaults filled in")


class CostParts(Resource):
    memory: dict[str, int] = Field(description="bytes by what holds them when most is held")
    seconds: dict[str, float] = Field(description="training, rollouts, judging, other")


class DesignEstimate(Resource):
    """What a trial of a design is expected to take, from its lease to its export. Nothing was trained."""

    object: Literal["design.estimate"] = "design.estimate"
    design: Design
    summary: str = Field(description="the design in one line")
    device: str
    memory_bytes: int = Field(description="highest; on a CPU of the whole worker process")
    seconds: float
    tokens_per_second: float = Field(description="trained on, while training")
    flops: float = Field(description="of the training's matrix products")
    parameters: int
    trainable_parameters: int
    tokens: int = Field(description="trained on")
    steps: int = Field(description="of the optimiser")
    inference_flops: float = Field(description="for each token of an answer")
    feasible: bool = Field(description="whether it fits into the device's memory, and keeps to the job's constraints")
    why: str | None = Field(description="why not, with the numbers")
    parts: CostParts
    calibrated_from: int = Field(
        description="finished trials on this kind of device that set the prices; 0: defaults alone, which may be off "
        "by several times"
    )
    unchanged: DesignEstimate | None = Field(default=None, description="where a change was asked: without it")
