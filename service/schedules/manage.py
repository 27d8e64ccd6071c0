"""Create, change and run schedules, and show them as the API and the dashboard do."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from luthier.api_types import Page, Schedule, ScheduleRun
from luthier.errors import NotFound, UserError
from luthier.schedule import CatchUp, Overlap, RunState
from luthier.store import Connection, schedules
from luthier.store.rows import ScheduleRecord, ScheduleRunRecord, new_id
from service.context import Context
from service.schedules import cron
from service.schedules.run import admitted, advance
from service.schemas.requests import ChangeSchedule, CreateSchedule, NewestFile, ScheduledJob

SHOWN_RUNS: Final = 5  # coming runs in a schedule's view


def create(ctx: Context, body: CreateSchedule, now: datetime) -> Schedule:
    """Insert a schedule. Its job is checked as if it were created now. Raises UserError, or Conflict for the name."""
    cron.check(body.cron, body.time_zone, now)
    _check_catch_up(body.overlap, body.catch_up)
    _check_job(ctx, body.job, now)
    given = dict(body) | {"job": body.job.model_dump(mode="json", exclude_unset=True)}
    record = ScheduleRecord(
        id=new_id("sched"), created_at=now, next_at=cron.first_after(body.cron, body.time_zone, now), **given
    )
    with ctx.database.begin() as c:
        schedules.insert(c, record)
        return view(c, record, now)


def change(ctx: Context, schedule_id: str, body: ChangeSchedule, now: datetime) -> Schedule:
    """Change the given fields. Missed ticks of a time when it was disabled are not caught up. Raises as `create`."""
    changes = {name: getattr(body, name) for name in body.model_fields_set if name != "job"}
    for name, value in changes.items():
        if value is None and name != "alias":
            raise UserError(f"{name} cannot be null; leave it out to keep its value", param=name)
    with ctx.database.read() as c:
        before = schedules.get(c, schedule_id)
    after = before.model_copy(update=changes)
    _check_catch_up(after.overlap, after.catch_up)
    if body.job is not None:
        _check_job(ctx, body.job, now)
        changes["job"] = body.job.model_dump(mode="json", exclude_unset=True)
    if {"cron", "time_zone"} & changes.keys() or (after.enabled and not before.enabled):
        cron.check(after.cron, after.time_zone, now)
        changes["next_at"] = cron.first_after(after.cron, after.time_zone, now)
    with ctx.database.begin() as c:
        record = schedules.update(c, schedule_id, **changes) if changes else before
        return view(c, record, now)


def run_now(ctx: Context, schedule_id: str, now: datetime) -> ScheduleRun:
    """Add a manual run and start it, if the overlap policy allows. Raises NotFound."""
    with ctx.database.begin() as c:
        schedules.get(c, schedule_id)
        run = schedules.add_run(c, schedule_id, now, "manual", RunState.WAITING, now)
    assert run is not None, "no two moments are the same"
    advance(ctx, schedule_id, now)
    with ctx.database.read() as c:
        return run_view(schedules.get_run(c, run.id))


def get(c: Connection, schedule_id: str, now: datetime) -> Schedule:
    """Raises NotFound."""
    return view(c, schedules.get(c, schedule_id), now)


def listing(c: Connection, after: str | None, limit: int, now: datetime) -> Page[Schedule]:
    """Return a page of schedules, newest first. Raises NotFound for an unknown `after`."""
    records, has_more = schedules.list_(c, after, limit)
    return Page(data=tuple(view(c, record, now) for record in records), has_more=has_more)


def runs(c: Connection, schedule_id: str, after: str | None, limit: int) -> Page[ScheduleRun]:
    """Return a page of a schedule's runs, the latest first. Raises NotFound."""
    schedules.get(c, schedule_id)
    records, has_more = schedules.runs(c, schedule_id, after, limit)
    return Page(data=tuple(map(run_view, records)), has_more=has_more)


def view(c: Connection, record: ScheduleRecord, now: datetime) -> Schedule:
    latest, _ = schedules.runs(c, record.id, None, 1)
    times: list[datetime] = []
    if record.enabled and record.next_at is not None:
        times = cron.upcoming(record.cron, record.time_zone, max(record.next_at, now), SHOWN_RUNS)
    shared = Schedule.model_fields.keys() & ScheduleRecord.model_fields.keys()
    return Schedule(
        **{name: getattr(record, name) for name in shared - {"created_at"}},
        created_at=_seconds(record.created_at),
        failing=record.failures >= record.alert_after,
        next_runs=tuple(map(_seconds, times)),
        last_run=run_view(latest[0]) if latest else None,
    )


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


def _check_catch_up(overlap: Overlap, catch_up: CatchUp) -> None:
    if catch_up is CatchUp.ALL and overlap not in (Overlap.QUEUE, Overlap.ALLOW):
        raise UserError(
            f"catch_up 'all' starts several runs at once, and overlap {overlap.value!r} would keep only one of them. "
            "Use overlap 'queue' or 'allow', or catch_up 'latest'.",
            param="catch_up",
        )


def _check_job(ctx: Context, job: ScheduledJob, now: datetime) -> None:
    """Raise UserError for a job that could not be created now. The newest file of a name may still be missing."""
    if job.search.deadline is not None:
        raise UserError(
            "search.deadline is a fixed moment, which later runs would miss. Use search.device_seconds.",
            param="job.search.deadline",
        )
    try:
        ready = admitted(ctx, job, now)
    except UserError as error:
        newest = isinstance(job.training_file, NewestFile)
        if newest and isinstance(error, NotFound) and error.param == "training_file":
            return
        error.param = f"job.{error.param}" if error.param else "job"
        raise
    generated = () if ready.generated is None else (ready.generated.raw, ready.generated.rows)
    further = {digest for split in ready.job.resplits for digest in (split.train, split.validation)}
    ctx.garbage.release({ready.job.train, ready.job.judge.validation, ready.job.judge.test, *further, *generated})


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
