"""Schedules: jobs that are created again and again, by a cron expression."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Body

from luthier.api_types import Deleted, Page, Schedule, ScheduleRun
from luthier.store import schedules
from service.context import Ctx, utc_now
from service.schedules import manage
from service.schemas.params import After, Limit, ScheduleId
from service.schemas.requests import ChangeSchedule, CreateSchedule

router = APIRouter(prefix="/v1/schedules", tags=["Schedules"])

EXAMPLES: Final = {
    "nightly": {
        "summary": "Every night on the newest data; alias/support points to the best model so far",
        "value": {
            "name": "nightly",
            "cron": "30 3 * * *",
            "time_zone": "Europe/Berlin",
            "job": {"training_file": {"newest": "support.jsonl"}, "search": {"trials": 12}},
            "alias": "support",
        },
    },
    "weekly": {
        "summary": "Fridays on one file, one run after the other",
        "value": {
            "name": "weekly",
            "cron": "0 22 * * FRI",
            "job": {"training_file": "file-5f2ab0", "search": {"device_seconds": 7200}},
            "overlap": "queue",
        },
    },
}


@router.post("", summary="Create a schedule")
def create_schedule(ctx: Ctx, body: Annotated[CreateSchedule, Body(openapi_examples=EXAMPLES)]) -> Schedule:
    """Checks the job as if it were created now, so that an invalid job is refused at once. The
    newest file of a name may still be missing."""
    return manage.create(ctx, body, utc_now())


@router.get("", summary="List the schedules")
def list_schedules(ctx: Ctx, after: After = None, limit: Limit = 20) -> Page[Schedule]:
    """Newest first."""
    with ctx.database.read() as c:
        return manage.listing(c, after, limit, utc_now())


@router.get("/{schedule_id}", summary="Get a schedule")
def get_schedule(ctx: Ctx, schedule_id: ScheduleId) -> Schedule:
    with ctx.database.read() as c:
        return manage.get(c, schedule_id, utc_now())


@router.patch("/{schedule_id}", summary="Change a schedule")
def change_schedule(ctx: Ctx, schedule_id: ScheduleId, body: ChangeSchedule) -> Schedule:
    """Fields that are left out keep their values. Ticks that pass while it is disabled are not caught up."""
    return manage.change(ctx, schedule_id, body, utc_now())


@router.delete("/{schedule_id}", summary="Delete a schedule")
def delete_schedule(ctx: Ctx, schedule_id: ScheduleId) -> Deleted:
    """Deletes the schedule and its history. Its jobs are kept, and a running one continues."""
    with ctx.database.begin() as c:
        schedules.delete(c, schedule_id)
    return Deleted(id=schedule_id, object="schedule")


@router.post("/{schedule_id}/run", summary="Run a schedule now")
def run_now(ctx: Ctx, schedule_id: ScheduleId) -> ScheduleRun:
    """Works for a disabled schedule too. The run appears in the history and follows the overlap policy: the response
    says whether it is running, waiting, skipped or failed."""
    return manage.run_now(ctx, schedule_id, utc_now())


@router.get("/{schedule_id}/runs", summary="List a schedule's runs")
def list_runs(ctx: Ctx, schedule_id: ScheduleId, after: After = None, limit: Limit = 20) -> Page[ScheduleRun]:
    """The outcome of each tick, the latest first."""
    with ctx.database.read() as c:
        return manage.runs(c, schedule_id, after, limit)
