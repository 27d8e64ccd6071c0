"""Schedules, aliases and webhooks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from luthier.api_types.base import Resource
from luthier.schedule import AliasOrigin, CatchUp, Contest, Overlap, RunState, Trigger

WebhookEvent = Literal[
    "fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled", "luthier.schedule.failing"
]


class ScheduleRun(Resource):
    """The result of one tick of a schedule."""

    id: str
    object: Literal["schedule.run"] = "schedule.run"
    schedule_id: str
    due_at: int = Field(description="time of the tick; for a manual run the time of the request")
    trigger: Trigger = Field(description="cron; catch_up: a missed tick, run late; manual: `run` was called")
    state: RunState
    job: str | None = Field(description="the job that it created")
    reason: str | None = Field(description="why it failed, was skipped or was missed")
    contest: Contest | None = Field(default=None, description="how its winner compares with the alias's champion")
    started_at: int | None
    ended_at: int | None


class Schedule(Resource):
    """Creates a job at each tick of a cron expression."""

    id: str
    object: Literal["schedule"] = "schedule"
    created_at: int
    name: str
    cron: str
    time_zone: str
    job: dict[str, Any] = Field(description="job request; `training_file` is an id or {newest: filename}")
    overlap: Overlap
    misfire_grace_seconds: float
    catch_up: CatchUp
    catch_up_seconds: float
    enabled: bool
    alert_after: int = Field(description="failed runs in a row after which `luthier.schedule.failing` is sent")
    alias: str | None = Field(description="alias that moves to a winner that is significantly better than the champion")
    failures: int = Field(description="failed runs in a row")
    failing: bool = Field(description="whether `failures` has reached `alert_after`")
    next_runs: tuple[int, ...] = Field(description="the next ticks; empty while the schedule is disabled")
    last_run: ScheduleRun | None


class AliasVersion(Resource):
    """One version of an alias: the model that it pointed to from a time on."""

    version: int
    model: str = Field(description="a fine-tuned model")
    job: str = Field(description="the job that trained it")
    origin: AliasOrigin = Field(description="schedule: better than the champion; user: set manually; rollback")
    contest: Contest | None = Field(default=None, description="how it compares with the previous champion")
    created_at: int


class Alias(Resource):
    """A stable name for the best model so far: use `alias/NAME` wherever a model is expected."""

    id: str = Field(description="alias/NAME")
    object: Literal["alias"] = "alias"
    name: str
    model: str = Field(description="the model that it points to")
    job: str
    versions: tuple[AliasVersion, ...] = Field(description="all its versions, the latest first")


class WebhookEndpoint(Resource):
    """A URL that receives events, signed with the endpoint's secret."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    url: str
    events: tuple[WebhookEvent, ...]
    created_at: int
    secret: str | None = Field(default=None, description="whsec_…; returned only when the endpoint is created")


class WebhookDelivery(Resource):
    """The delivery of one event to one endpoint."""

    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    endpoint_id: str
    event_id: str = Field(description="the header webhook-id: the same for every attempt")
    type: WebhookEvent
    payload: dict[str, Any]
    state: Literal["pending", "delivered", "failed"] = Field(description="failed: the last attempt failed")
    attempts: int
    next_attempt_at: int | None
    status: int | None = Field(description="HTTP status of the latest response")
    error: str | None = Field(description="why the latest attempt failed")
    created_at: int
    delivered_at: int | None
