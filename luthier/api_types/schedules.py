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
