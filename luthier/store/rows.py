"""The records of the store: one frozen class for each kind of row."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import AwareDatetime, Field

from luthier.design import Design
from luthier.keys import Scope
from luthier.schedule import AliasOrigin, CatchUp, Contest, Overlap, RunState, Trigger
from luthier.task import Constraints, DataKind, Extension, JudgeSpec, Resplit, Search, Task, TruncatedRows
from luthier.trial import JobState, Metrics, StageLength, TrialState, Usage
from luthier.values import Frozen
from luthier.worker_protocol import Device

Origin = Literal["baseline", "memory", "prior", "proposed", "confirmation", "user", "champion"]
Level = Literal["info", "warn", "error"]
EventType = Literal["message", "metrics"]


def new_id(prefix: str) -> str:
    """Return a new random id in OpenAI's format: `file-…`, `ftjob-…`."""
    return f"{prefix}-{secrets.token_hex(12)}"


class FileRecord(Frozen):
    """An uploaded dataset. `raw` (the upload) and `rows` (normalised to JSONL) are digests of blobs."""

    id: str = Field(description="file-…")
    filename: str
    purpose: str
    bytes: int = Field(ge=0, description="size of the upload")
    created_at: AwareDatetime
    kind: DataKind
    format: str = Field(description="format of the upload, e.g. jsonl/messages")
    raw: str
    rows: str
    profile: dict[str, Any]


class JobRecord(Frozen):
    """A fine-tuning job: its settings, the frozen judge, its state and its result."""

    id: str = Field(description="ftjob-…")
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    state: JobState
    model: str | None = Field(default=None, description="as requested; None: the search chooses")
    method: dict[str, Any] | None = None
    task: Task
    search: Search
    constraints: Constraints
    training_file: str
    validation_file: str | None = None
    train: str = Field(description="digest of the training rows")
    judge: JudgeSpec
    seed: int
    suffix: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    error: dict[str, Any] | None = None
    best_trial_id: str | None = None
    fine_tuned_model: str | None = None
    trained_tokens: int | None = None
    notes: str = ""
    tags: tuple[str, ...] = ()
    schedule_id: str | None = Field(default=None, description="the schedule that created it")
    paused: bool = Field(default=False, description="none of its trials is leased until it is resumed")
    ended_reason: str | None = Field(default=None, description="code of the reason why its search ended")
    truncation: tuple[TruncatedRows, ...] | None = Field(
        default=None, description="what its length limit does to the rows; None: not checked, as of plain text"
    )
    extensions: tuple[Extension, ...] = Field(default=(), description="the earliest first")
    resplits: tuple[Resplit, ...] = Field(
        default=(),
        description="further splits of the training and validation rows: the k-th one is for the k-th repeats; empty: "
        "repeats use the rows of all other trials",
    )

    @property
    def extended_from(self) -> int:
        """The number of the first trial since the job was last extended; 0 if it was not."""
        return self.extensions[-1].first_trial if self.extensions else 0

    def split_of(self, trial: TrialRecord) -> int:
        """Return the split that a trial is trained and validated on: 0 is the job's own, k is `resplits[k - 1]`."""
        repeat = trial.seed - self.seed
        return repeat if trial.origin == "confirmation" and 0 < repeat <= len(self.resplits) else 0

    def rows_of(self, trial: TrialRecord) -> Resplit:
        """Return the rows that a trial is trained and validated on."""
        split = self.split_of(trial)
        own = Resplit(train=self.train, validation=self.judge.validation)
        return self.resplits[split - 1] if split else own

    def judge_of(self, trial: TrialRecord) -> JudgeSpec:
        """Return the judge with the validation rows of a trial. The test rows are the same for all."""
        return self.judge.model_copy(update={"validation": self.rows_of(trial).validation})


class TrialRecord(Frozen):
    """One trial of a design. `owner`, `fence` and `expires_at` are the lease while the state is `leased`."""

    id: str = Field(description="trial-…")
    job_id: str
    number: int = Field(
        ge=-1, description="0 is the untuned base, 1 the plain LoRA default; -1 a champion, which is only scored"
    )
    state: TrialState
    design: Design
    digest: str = Field(description="the design's digest")
    seed: int
    origin: Origin
    rung: int | None = Field(default=None, description="highest rung reached")
    goal: int | None = Field(default=None, description="the rung at which it pauses unless promoted; None: the end")
    measured: tuple[Metrics, ...] = Field(default=(), description="metrics at the rungs reached, in order")
    owner: str | None = None
    fence: int = Field(default=0, ge=0, description="number of leases so far")
    expires_at: AwareDatetime | None = None
    attempts: int = Field(default=0, ge=0, description="leases whose worker did not return the trial")
    created_at: AwareDatetime
    started_at: AwareDatetime | None = Field(default=None, description="when it was leased for the first time")
    finished_at: AwareDatetime | None = None
    device_seconds: float = Field(default=0.0, ge=0, description="total over all leases")
    metrics: Metrics | None = Field(default=None, description="validation split")
    test_metrics: Metrics | None = None
    usage: Usage | None = None
    trained_tokens: int = 0
    lengths: tuple[StageLength, ...] | None = Field(default=None, description="of each stage, once all are trained")
    checkpoint: str | None = Field(default=None, description="digest of the latest checkpoint's manifest")
    error: str | None = None
    stopped: bool = Field(default=False, description="whether a user asked to stop it")
    weights_of: str | None = Field(default=None, description="of a champion: the trial that has its weights")

    @property
    def paused(self) -> bool:
        """Whether it waits at its goal and cannot be leased until it is promoted."""
        reached = self.goal is not None and self.rung is not None and self.rung >= self.goal
        return self.state is TrialState.WAITING and reached


class TrialMark(NamedTuple):
    """The progress of a trial."""

    id: str
    number: int
    state: TrialState
    rung: int | None
    goal: int | None
    fence: int
    created_at: datetime
    finished_at: datetime | None
    device_seconds: float


class MeasuredTrial(Frozen):
    """A trial whose worker has measured its memory and time."""

    job_id: str
    design: Design
    state: TrialState
    usage: Usage
    device_seconds: float = Field(ge=0)
    fence: int = Field(description="number of leases; `usage` is that of the last one")
    device: Device = Field(description="the device of the last lease")


class RungRecord(Frozen):
    """The metrics of a trial at a share of its full token budget."""

    trial_id: str
    rung: int
    share: float
    stage: int
    step: int
    metrics: Metrics
    at: AwareDatetime


class EventRecord(Frozen):
    """One entry of a job's event log."""

    id: str = Field(description="ftevent-…")
    job_id: str
    created_at: AwareDatetime
    level: Level
    type: EventType
    message: str
    data: dict[str, Any] | None = None


class WorkerRecord(Frozen):
    """A registered worker. A name keeps its id, which is the owner of its leases."""

    id: str = Field(description="worker-…")
    name: str
    device: Device
    pid: int
    created_at: AwareDatetime
    seen_at: AwareDatetime
    generates: str | None = Field(default=None, description="the model loaded in its generation process, if any")


class ScheduleRecord(Frozen):
    """Creates a job at each tick of a cron expression."""

    id: str = Field(description="sched-…")
    name: str
    created_at: AwareDatetime
    cron: str
    time_zone: str
    job: dict[str, Any] = Field(
        description="the body of POST /v1/fine_tuning/jobs; `training_file` may be {newest: filename}"
    )
    overlap: Overlap
    misfire_grace_seconds: float
    catch_up: CatchUp
    catch_up_seconds: float
    enabled: bool
    alert_after: int
    alias: str | None = None
    next_at: AwareDatetime | None = Field(default=None, description="the first tick that is not handled yet")
    failures: int = Field(default=0, ge=0, description="failed runs in a row")


class ScheduleRunRecord(Frozen):
    """The result of one tick of a schedule."""

    id: str = Field(description="schedrun-…")
    schedule_id: str
    due_at: AwareDatetime
    trigger: Trigger
    state: RunState
    job_id: str | None = None
    reason: str | None = None
    contest: Contest | None = None
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None


class EndpointRecord(Frozen):
    """The URL of a webhook. The secret is stored as plain text, because signing needs it."""

    id: str = Field(description="whend-…")
    url: str
    events: tuple[str, ...]
    secret: str = Field(repr=False)
    created_at: AwareDatetime


class DeliveryRecord(Frozen):
    """The delivery of one event to one endpoint."""

    id: str = Field(description="whdel-…")
    endpoint_id: str
    event_id: str = Field(description="evt-…; the same for all endpoints and all attempts")
    type: str
    payload: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int = Field(default=0, ge=0)
    next_at: AwareDatetime | None = None
    status: int | None = Field(default=None, description="HTTP status of the latest response")
    error: str | None = None
    created_at: AwareDatetime
    delivered_at: AwareDatetime | None = None


class KeyRecord(Frozen):
    """An API key, without its secret text."""

    id: str = Field(description="key-…")
    name: str
    scope: Scope
    hint: str = Field(description="first characters of the key")
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    used_at: AwareDatetime | None = Field(default=None, description="time of the last request, to the minute")

    def live(self, now: datetime) -> bool:
        """Return whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class AliasRecord(Frozen):
    """One version of an alias: the model that it pointed to from a time on."""

    name: str
    version: int = Field(ge=1)
    model: str
    job_id: str
    trial_id: str = Field(description="the trial that has the model's weights")
    before: int | None = Field(default=None, description="the version that a roll-back goes to")
    origin: AliasOrigin
    contest: Contest | None = None
    created_at: AwareDatetime
