"""What the store gives back: one frozen value for each kind of row."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import AwareDatetime, Field

from luthier.design import Design, Frozen
from luthier.keys import Scope
from luthier.schedule import AliasOrigin, CatchUp, Contest, Overlap, RunState, Trigger
from luthier.task import Constraints, DataKind, JudgeSpec, Search, Task
from luthier.trial import JobState, Metrics, TrialState, Usage
from luthier.worker_protocol import Device

Origin = Literal["baseline", "memory", "prior", "proposed", "confirmation", "user", "champion"]
Level = Literal["info", "warn", "error"]
EventType = Literal["message", "metrics"]


def new_id(prefix: str) -> str:
    """A fresh random id in the shape that OpenAI's clients know: `file-…`, `ftjob-…`."""
    return f"{prefix}-{secrets.token_hex(12)}"


class FileRecord(Frozen):
    """An uploaded dataset: as it came (`raw`) and normalised to JSONL (`rows`), both digests of blobs."""

    id: str = Field(description="file-…")
    filename: str
    purpose: str
    bytes: int = Field(ge=0, description="size of the upload")
    created_at: AwareDatetime
    kind: DataKind
    format: str = Field(description="what the upload was written in, e.g. jsonl/messages")
    raw: str
    rows: str
    profile: dict[str, Any]


class JobRecord(Frozen):
    """A fine-tuning job: what was asked for, the judge frozen from it, how far it is and what came out."""

    id: str = Field(description="ftjob-…")
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    state: JobState
    model: str | None = Field(default=None, description="as requested; None leaves the choice to the search")
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
    schedule_id: str | None = Field(default=None, description="the schedule that it was made by")
    paused: bool = Field(default=False, description="nothing of it is leased until it is resumed")
    ended_reason: str | None = Field(default=None, description="code of the reason why its search ended")


class TrialRecord(Frozen):
    """One design being tried. `owner`, `fence` and `expires_at` are the lease while the state is `leased`."""

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
    measured: tuple[Metrics, ...] = Field(default=(), description="at the rungs reached, in their order")
    owner: str | None = None
    fence: int = Field(default=0, ge=0, description="how many leases there have been")
    expires_at: AwareDatetime | None = None
    attempts: int = Field(default=0, ge=0, description="leases that were not handed back in good order")
    created_at: AwareDatetime
    started_at: AwareDatetime | None = Field(default=None, description="when it was leased for the first time")
    finished_at: AwareDatetime | None = None
    device_seconds: float = Field(default=0.0, ge=0, description="total over all leases")
    metrics: Metrics | None = Field(default=None, description="validation split")
    test_metrics: Metrics | None = None
    usage: Usage | None = None
    trained_tokens: int = 0
    checkpoint: str | None = Field(default=None, description="digest of the latest checkpoint's manifest")
    error: str | None = None
    stopped: bool = Field(default=False, description="whether somebody asked for its end")
    weights_of: str | None = Field(default=None, description="of a champion: the trial whose weights it is")

    @property
    def paused(self) -> bool:
        """Whether it waits at its goal to be promoted, and is not to be leased until then."""
        reached = self.goal is not None and self.rung is not None and self.rung >= self.goal
        return self.state is TrialState.WAITING and reached


class TrialMark(NamedTuple):
    """How far a trial is."""

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
    """A trial whose worker has said what it took."""

    job_id: str
    design: Design
    state: TrialState
    usage: Usage
    device_seconds: float = Field(ge=0)
    fence: int = Field(description="how many leases there have been; the usage is that of the last one")
    device: Device = Field(description="that it was finished on")


class RungRecord(Frozen):
    """A trial's measurements at a share of its full token budget."""

    trial_id: str
    rung: int
    share: float
    stage: int
    step: int
    metrics: Metrics
    at: AwareDatetime


class EventRecord(Frozen):
    """One line of a job's diary."""

    id: str = Field(description="ftevent-…")
    job_id: str
    created_at: AwareDatetime
    level: Level
    type: EventType
    message: str
    data: dict[str, Any] | None = None


class WorkerRecord(Frozen):
    """A worker that has introduced itself. The id stays the same for a name; it is the owner of the leases."""

    id: str = Field(description="worker-…")
    name: str
    device: Device
    pid: int
    created_at: AwareDatetime
    seen_at: AwareDatetime
    generates: str | None = Field(default=None, description="the model in its generation process, while there is one")


class ScheduleRecord(Frozen):
    """A job that is created again and again, at the ticks of a cron expression."""

    id: str = Field(description="sched-…")
    name: str
    created_at: AwareDatetime
    cron: str
    time_zone: str
    job: dict[str, Any] = Field(description="the body of POST /v1/fine_tuning/jobs; its file may be the newest one")
    overlap: Overlap
    misfire_grace_seconds: float
    catch_up: CatchUp
    catch_up_seconds: float
    enabled: bool
    alert_after: int
    alias: str | None = None
    next_at: AwareDatetime | None = Field(default=None, description="the first tick that nothing is decided about")
    failures: int = Field(default=0, ge=0, description="runs in a row that have failed")


class ScheduleRunRecord(Frozen):
    """What became of one tick."""

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
    """Where webhooks go. The secret signs them; it is kept as it is, since signing needs it."""

    id: str = Field(description="whend-…")
    url: str
    events: tuple[str, ...]
    secret: str = Field(repr=False)
    created_at: AwareDatetime


class DeliveryRecord(Frozen):
    """One event on its way to one endpoint."""

    id: str = Field(description="whdel-…")
    endpoint_id: str
    event_id: str = Field(description="evt-…; the same for all endpoints, and whenever it is sent again")
    type: str
    payload: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int = Field(default=0, ge=0)
    next_at: AwareDatetime | None = None
    status: int | None = Field(default=None, description="HTTP status of the latest answer")
    error: str | None = None
    created_at: AwareDatetime
    delivered_at: AwareDatetime | None = None


class KeyRecord(Frozen):
    """An API key, without the key."""

    id: str = Field(description="key-…")
    name: str
    scope: Scope
    hint: str = Field(description="how the key begins")
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    used_at: AwareDatetime | None = Field(default=None, description="to the minute")

    def live(self, now: datetime) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class AliasRecord(Frozen):
    """What an alias stands for since a moment."""

    name: str
    version: int = Field(ge=1)
    model: str
    job_id: str
    trial_id: str = Field(description="whose weights the model is")
    before: int | None = Field(default=None, description="the version that a roll back leads to")
    origin: AliasOrigin
    contest: Contest | None = None
    created_at: AwareDatetime
