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
from luthier.schedule import AliasOrigin, CatchUp, Contest, Overlap, RunState, Trigger
from luthier.task import Constraints, DataKind, Grader, Search, Task
from luthier.trial import JobState, Metrics, TrialState
from luthier.wire import Artifact, Device

T = TypeVar("T")

WebhookEvent = Literal[
    "fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled", "luthier.schedule.failing"
]


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
    metrics: Metrics


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
    """The winner of a job (while it runs: the best so far) beside its two baselines."""

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
    artifacts: tuple[Artifact, ...]
    model: str | None = Field(default=None, description="what it is called in /v1/chat/completions; null: not kept")


class Model(Resource):
    """A registered base model, or the result of a job."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "luthier"
    source: str | None = Field(default=None, description="the folder or hub id of a base model")
    facts: ModelFacts | None = None
    job: str | None = Field(default=None, description="the job that made a fine-tuned model")


class CompletionUsage(Resource):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatMessage(Resource):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None


class ChatChoice(Resource):
    index: int = 0
    message: ChatMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class ChatCompletion(Resource):
    """An answer, in OpenAI's shape."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[ChatChoice, ...]
    usage: CompletionUsage


class ChatDelta(Resource):
    role: Literal["assistant"] | None = Field(default=None, exclude_if=lambda role: role is None)
    content: str | None = Field(default=None, exclude_if=lambda content: content is None)


class ChatChunkChoice(Resource):
    index: int = 0
    delta: ChatDelta
    finish_reason: Literal["stop", "length"] | None = None
    logprobs: None = None


class ChatChunk(Resource):
    """A piece of a streamed answer; the last one has no choices where the tokens were to be counted."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChatChunkChoice, ...]
    usage: CompletionUsage | None = None


class CompletionChoice(Resource):
    index: int = 0
    text: str
    finish_reason: Literal["stop", "length"] | None = None
    logprobs: None = None


class Completion(Resource):
    """How a text goes on, whole or, streamed, a piece of it."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: tuple[CompletionChoice, ...]
    usage: CompletionUsage | None = None


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
    generates: str | None = Field(default=None, description="the model that it has in memory to answer with")


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


class AxisChoice(Resource):
    """A member or a value of an axis: whether it can be asked for, and whether this request leaves it to be tried."""

    value: str | int | float
    about: str | None = None
    legal: bool = Field(description="whether it may be pinned for such data and models")
    why: str | None = Field(default=None, description="why not")
    searched: bool = Field(description="whether a job of this request tries it")


class Axis(Resource):
    name: str = Field(description="as in `search.pin`")
    choices: tuple[AxisChoice, ...] = ()
    low: float | None = Field(default=None, description="of a range that is searched whole")
    high: float | None = None
    pinned: bool = False
    takes: str | None = Field(default=None, description="what may be pinned besides, in words")


class DesignSpace(Resource):
    """What a request for a job would search, what else is legal, and why the rest is not. Nothing is queued."""

    object: Literal["design.space"] = "design.space"
    kind: DataKind
    family: Literal["decoder", "encoder"]
    rows: int = Field(description="to train on, about")
    axes: tuple[Axis, ...]
    problem: ErrorDetail | None = Field(description="why a job cannot be made of the request as it is")
    trainings: float = Field(description="whole trainings that the job is, about; most designs are stopped early")
    default: DesignEstimate | None = Field(description="what the plain LoRA default would take")
    device_seconds: float | None = Field(description="what the job would take in all, about")
    workers: int = Field(description="live ones, which share that")


class DatasetRows(Resource):
    """Some rows of a file, as they were normalised."""

    object: Literal["list"] = "list"
    data: tuple[dict[str, Any], ...]
    first: int = Field(description="number of the first of these rows, counted from 1")
    total: int = Field(description="rows of the file, or of those that contain what was looked for")
    numbers: tuple[int, ...] = Field(description="of these rows in the file, counted from 1")
    has_more: bool


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


class ScheduleRun(Resource):
    """What became of one tick of a schedule."""

    id: str
    object: Literal["schedule.run"] = "schedule.run"
    schedule_id: str
    due_at: int = Field(description="the tick; of a manual run when it was asked for")
    trigger: Trigger = Field(description="cron; catch_up: made up for, late; manual: run now")
    state: RunState
    job: str | None = Field(description="the job that it became")
    reason: str | None = Field(description="why it failed, was skipped or was missed")
    contest: Contest | None = Field(default=None, description="how its winner did against the champion of the alias")
    started_at: int | None
    ended_at: int | None


class Schedule(Resource):
    """A job that is created again and again, at the ticks of a cron expression."""

    id: str
    object: Literal["schedule"] = "schedule"
    created_at: int
    name: str
    cron: str
    time_zone: str
    job: dict[str, Any] = Field(description="body of the jobs; `training_file` is an id or {newest: filename}")
    overlap: Overlap
    misfire_grace_seconds: float
    catch_up: CatchUp
    catch_up_seconds: float
    enabled: bool
    alert_after: int = Field(description="runs that fail in a row before `luthier.schedule.failing` is sent")
    alias: str | None = Field(description="taken over by a winner that beats the champion beyond the noise")
    failures: int = Field(description="runs in a row that have failed")
    failing: bool = Field(description="whether those are `alert_after` or more")
    next_runs: tuple[int, ...] = Field(description="the next ticks; none while it is disabled")
    last_run: ScheduleRun | None


class WebhookEndpoint(Resource):
    """Where events are sent, signed with the endpoint's secret."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    url: str
    events: tuple[WebhookEvent, ...]
    created_at: int
    secret: str | None = Field(default=None, description="whsec_…; shown once, when the endpoint is created")


class WebhookDelivery(Resource):
    """One event on its way to one endpoint."""

    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    endpoint_id: str
    event_id: str = Field(description="the header webhook-id: the same whenever the event is sent again")
    type: WebhookEvent
    payload: dict[str, Any]
    state: Literal["pending", "delivered", "failed"] = Field(description="failed: given up after the last attempt")
    attempts: int
    next_attempt_at: int | None
    status: int | None = Field(description="HTTP status of the latest answer")
    error: str | None = Field(description="why the latest attempt failed")
    created_at: int
    delivered_at: int | None


class AliasVersion(Resource):
    """What an alias has stood for since a moment."""

    version: int
    model: str = Field(description="a fine-tuned model")
    job: str = Field(description="the job that made it")
    origin: AliasOrigin = Field(description="schedule: won against the champion; user: set by hand; rollback")
    contest: Contest | None = Field(default=None, description="how it won")
    created_at: int


class Alias(Resource):
    """A name for the best model so far: `alias/NAME` wherever a model is named."""

    id: str = Field(description="alias/NAME")
    object: Literal["alias"] = "alias"
    name: str
    model: str = Field(description="what it stands for now")
    job: str
    versions: tuple[AliasVersion, ...] = Field(description="all that it has stood for, the latest first")
