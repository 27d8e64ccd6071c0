"""Run schedules: each tick becomes a run in the history, and each waiting run becomes a job when its turn comes.

As with jobs, nothing is remembered between two ticks of the loop. A run becomes a job by one guarded statement, in the
transaction that inserts the job, so that several replicas can work at once.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, Literal

from luthier.errors import Conflict, LuthierError
from luthier.schedule import Overlap, RunState
from luthier.store import files, schedules
from luthier.store.rows import ScheduleRecord, ScheduleRunRecord
from service.context import Context
from service.jobs import create, lifecycle, schedule_failures
from service.schedules import cron
from service.schemas.requests import CreateJob, NewestFile, ScheduledJob

log = logging.getLogger(__name__)

MOST_WAITING: Final = 10  # runs in a queue; a schedule slower than its ticks would pile them up without end


def tick(ctx: Context, now: datetime) -> None:
    """Record the due ticks of all schedules and advance their runs."""
    with ctx.database.read() as c:
        due = schedules.due(c, now)
        waiting = schedules.with_waiting_runs(c)
    for schedule_id in dict.fromkeys([*due, *waiting]):
        try:
            _record_ticks(ctx, schedule_id, now)
            advance(ctx, schedule_id, now)
        except Exception:  # one schedule must not stop the others
            log.exception("schedule %s could not be advanced; the next tick tries again", schedule_id)


def advance(ctx: Context, schedule_id: str, now: datetime) -> None:
    """Start or skip the waiting runs of a schedule, the earliest first, as far as its overlap policy allows."""
    while True:
        with ctx.database.read() as c:
            schedule = schedules.get(c, schedule_id)
            runs = schedules.open_runs(c, schedule_id)
        first = next((run for run in runs if run.state is RunState.WAITING), None)
        running = [run for run in runs if run.state is RunState.RUNNING]
        if first is None:
            return
        match _action(schedule.overlap, running):
            case "wait":
                return
            case "skip":
                with ctx.database.begin() as c:
                    schedules.drop_run(c, first.id, RunState.SKIPPED, f"job {running[0].job_id} had not ended", now)
            case "replace":
                _cancel(ctx, running, now)
            case "start":
                _start(ctx, schedule, first, now)


def admitted(ctx: Context, job: ScheduledJob, now: datetime) -> create.Admitted:
    """Return the job as it would be created now. Raises UserError."""
    given = job.model_dump(mode="json", exclude_unset=True)
    if isinstance(job.training_file, NewestFile):
        with ctx.database.read() as c:
            given["training_file"] = files.newest(c, job.training_file.newest).id
    return create.admit(ctx, CreateJob.model_validate(given), now)


def _record_ticks(ctx: Context, schedule_id: str, now: datetime) -> None:
    """Add a run to the history for each tick since the last look."""
    with ctx.database.begin() as c:
        schedule = schedules.lock(c, schedule_id)
        if not schedule.enabled or schedule.next_at is None or schedule.next_at > now:
            return  # another replica was faster
        waiting = sum(run.state is RunState.WAITING for run in schedules.open_runs(c, schedule_id))
        for found in cron.decide(
            schedule.cron,
            schedule.time_zone,
            schedule.next_at,
            now,
            grace=timedelta(seconds=schedule.misfire_grace_seconds),
            catch_up=schedule.catch_up,
            window=timedelta(seconds=schedule.catch_up_seconds),
        ):
            state, reason = found.state, found.reason
            if state is RunState.WAITING and waiting >= MOST_WAITING:
                state, reason = RunState.SKIPPED, f"{waiting} earlier runs are waiting"
            waiting += state is RunState.WAITING
            schedules.add_run(c, schedule_id, found.at, found.trigger, state, now, reason)
        schedules.update(c, schedule_id, next_at=cron.first_after(schedule.cron, schedule.time_zone, now))


def _action(overlap: Overlap, running: list[ScheduleRunRecord]) -> Literal["start", "skip", "wait", "replace"]:
    if not running:
        return "start"
    match overlap:
        case Overlap.ALLOW:
            return "start"
        case Overlap.SKIP:
            return "skip"
        case Overlap.QUEUE:
            return "wait"
        case Overlap.REPLACE:
            return "replace"


def _cancel(ctx: Context, running: list[ScheduleRunRecord], now: datetime) -> None:
    for run in running:
        assert run.job_id is not None, "a running run has a job"
        try:
            with ctx.database.begin() as c:
                lifecycle.cancel(ctx, c, run.job_id, now)
        except Conflict:  # it has ended in the meantime
            log.info("job %s has ended and need not be replaced", run.job_id)


def _start(ctx: Context, schedule: ScheduleRecord, run: ScheduleRunRecord, now: datetime) -> None:
    try:
        ready = admitted(ctx, ScheduledJob.model_validate(schedule.job), now)
        _create(ctx, schedule, run, ready, now)
    except LuthierError as error:
        _give_up(ctx, run, error.message, now)
    except Exception as bug:  # a retry would fail again, twice a second
        log.exception("run %s of schedule %s could not start", run.id, schedule.id)
        _give_up(ctx, run, f"{type(bug).__name__}: {bug}", now)


def _create(
    ctx: Context, schedule: ScheduleRecord, run: ScheduleRunRecord, ready: create.Admitted, now: datetime
) -> None:
    job = ready.job.model_copy(update={"schedule_id": schedule.id})
    trigger = "manually" if run.trigger == "manual" else f"due at {run.due_at:%Y-%m-%d %H:%M} UTC"
    with ctx.database.begin() as c:
        schedules.lock(c, schedule.id)
        running = [one for one in schedules.open_runs(c, schedule.id) if one.state is RunState.RUNNING]
        if _action(schedule.overlap, running) != "start" or not schedules.begin_run(c, run.id, job.id, now):
            return  # another replica started this run, or an earlier one
        create.queue(c, replace(ready, job=job), now, [f"Created by the schedule {schedule.name}, {trigger}."])


def _give_up(ctx: Context, run: ScheduleRunRecord, reason: str, now: datetime) -> None:
    with ctx.database.begin() as c:
        schedule_failures.not_created(c, run.id, reason, now)
