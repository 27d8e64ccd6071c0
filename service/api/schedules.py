"""Jobs that are created again and again, at the ticks of a cron expression."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Path

from luthier.api_types import Deleted, Page, Schedule, ScheduleRun
from luthier.errors import NotFound, UserError
from luthier.schedule import CatchUp, Overlap, RunState
from luthier.store import Connection, schedules
from luthier.store.rows import ScheduleRecord, ScheduleRunRecord, new_id
from service.api.params import After, Limit
from service.context import Context, Ctx, utc_now
from service.schedules import cron
from service.schedules.run import admitted, go_on
from service.schemas.requests import ChangeSchedule, CreateSchedule, NewestFile, ScheduledJob

router = APIRouter(prefix="/v1/schedules", tags=["Schedules"])

ScheduleId = Annotated[str, Path(description="id of a schedule", examples=["sched-9c01f2"])]

FORESEEN: Final = 5

EXAMPLES: Final = {
    "nightly": {
        "summary": "Every night on the newest data; the best model so far is called alias/support",
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
    """The job is checked as if it were created now, so that what cannot work is refused at once; the newest file of a
    name may still be to come."""
    now = utc_now()
    cron.check(body.cron, body.time_zone, now)
    _check_catch_up(body.overlap, body.catch_up)
    _check_job(ctx, body.job, now)
    given = dict(body) | {"job": _stored(body.job)}
    record = ScheduleRecord(
        id=new_id("sched"), created_at=now, next_at=cron.first_after(body.cron, body.time_zone, now), **given
    )
    with ctx.database.begin() as c:
        schedules.insert(c, record)
        return _view(c, record, now)


@router.get("", summary="List the schedules")
def list_schedules(ctx: Ctx, after: After = None, limit: Limit = 20) -> Page[Schedule]:
    """Newest first."""
    with ctx.database.read() as c:
        records, has_more = schedules.list_(c, after, limit)
        now = utc_now()
        return Page(data=tuple(_view(c, record, now) for record in records), has_more=has_more)


@router.get("/{schedule_id}", summary="Look at one schedule")
def get_schedule(ctx: Ctx, schedule_id: ScheduleId) -> Schedule:
    with ctx.database.read() as c:
        return _view(c, schedules.get(c, schedule_id), utc_now())


@router.patch("/{schedule_id}", summary="Change a schedule")
def change_schedule(ctx: Ctx, schedule_id: ScheduleId, body: ChangeSchedule) -> Schedule:
    """What is left out stays. Ticks that pass while it is disabled, or under other times, are not made up for."""
    now = utc_now()
    changes = _given(body)
    with ctx.database.read() as c:
        before = schedules.get(c, schedule_id)
    after = before.model_copy(update=changes)
    _check_catch_up(after.overlap, after.catch_up)
    if body.job is not None:
        _check_job(ctx, body.job, now)
        changes["job"] = _stored(body.job)
    if {"cron", "time_zone"} & changes.keys() or (after.enabled and not before.enabled):
        cron.check(after.cron, after.time_zone, now)
        changes["next_at"] = cron.first_after(after.cron, after.time_zone, now)
    with ctx.database.begin() as c:
        record = schedules.update(c, schedule_id, **changes) if changes else before
        return _view(c, record, now)


@router.delete("/{schedule_id}", summary="Delete a schedule")
def delete_schedule(ctx: Ctx, schedule_id: ScheduleId) -> Deleted:
    """With its history. Its jobs stay, also the one that runs."""
    with ctx.database.begin() as c:
        schedules.delete(c, schedule_id)
    return Deleted(id=schedule_id, object="schedule")


@router.post("/{schedule_id}/run", summary="Run a schedule now")
def run_now(ctx: Ctx, schedule_id: ScheduleId) -> ScheduleRun:
    """Also where it is disabled. The run has its row of history, and keeps to the overlap policy: the answer says
    whether it runs, waits, was skipped or failed."""
    now = utc_now()
    with ctx.database.begin() as c:
        schedules.get(c, schedule_id)
        run = schedules.add_run(c, schedule_id, now, "manual", RunState.WAITING, now)
    assert run is not None, "no two moments are the same"
    go_on(ctx, schedule_id, now)
    with ctx.database.read() as c:
        return run_view(schedules.get_run(c, run.id))


@router.get("/{schedule_id}/runs", summary="Read a schedule's history")
def list_runs(ctx: Ctx, schedule_id: ScheduleId, after: After = None, limit: Limit = 20) -> Page[ScheduleRun]:
    """What became of each tick, the latest first."""
    with ctx.database.read() as c:
        schedules.get(c, schedule_id)
        records, has_more = schedules.runs(c, schedule_id, after, limit)
    return Page(data=tuple(map(run_view, records)), has_more=has_more)


def run_view(record: ScheduleRunRecord) -> ScheduleRun:
    return ScheduleRun(
        id=record.id,
        schedule_id=record.schedule_id,
        due_at=_seconds(record.due_at),
        trigger=record.trigger,
        state=record.state,
        job=record.job_id,
        reason=record.reason,
        contest=record.contest,
        started_at=None if record.started_at is None else _seconds(record.started_at),
        ended_at=None if record.ended_at is None else _seconds(record.ended_at),
    )


def _view(c: Connection, record: ScheduleRecord, now: datetime) -> Schedule:
    latest, _ = schedules.runs(c, record.id, None, 1)
    times: list[datetime] = []
    if record.enabled and record.next_at is not None:
        times = cron.upcoming(record.cron, record.time_zone, max(record.next_at, now), FORESEEN)
    shared = Schedule.model_fields.keys() & ScheduleRecord.model_fields.keys()
    return Schedule(
        **{name: getattr(record, name) for name in shared - {"created_at"}},
        created_at=_seconds(record.created_at),
        failing=record.failures >= record.alert_after,
        next_runs=tuple(map(_seconds, times)),
        last_run=run_view(latest[0]) if latest else None,
    )


def _given(body: ChangeSchedule) -> dict[str, Any]:
    """The fields of the request. All but the alias can be changed, and not taken away."""
    given = {name: getattr(body, name) for name in body.model_fields_set if name != "job"}
    for name, value in given.items():
        if value is None and name != "alias":
            raise UserError(f"{name} cannot be null; leave it out to keep it as it is", param=name)
    return given


def _check_catch_up(overlap: Overlap, catch_up: CatchUp) -> None:
    if catch_up is CatchUp.ALL and overlap not in (Overlap.QUEUE, Overlap.ALLOW):
        raise UserError(
            f"catch_up 'all' begins several runs at once, of which overlap {overlap.value!r} would leave one: "
            "use overlap 'queue' or 'allow', or catch_up 'latest'",
            param="catch_up",
        )


def _check_job(ctx: Context, job: ScheduledJob, now: datetime) -> None:
    if job.search.deadline is not None:
        raise UserError(
            "search.deadline is one moment, which later runs would have passed; use search.device_seconds",
            param="job.search.deadline",
        )
    try:
        ready = admitted(ctx, job, now)
    except UserError as error:
        newest = isinstance(job.training_file, NewestFile)
        if newest and isinstance(error, NotFound) and error.param == "training_file":
            return  # the file is to come
        error.param = f"job.{error.param}" if error.param else "job"
        raise
    generated = () if ready.generated is None else (ready.generated.raw, ready.generated.rows)
    ctx.garbage.condemn({ready.job.train, ready.job.judge.validation, ready.job.judge.test, *generated})


def _stored(job: ScheduledJob) -> dict[str, Any]:
    return job.model_dump(mode="json", exclude_unset=True)


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
