"""How many runs of a schedule failed in a row, and the webhook alert when there are too many."""

from __future__ import annotations

from datetime import datetime

from luthier.schedule import RunState
from luthier.store import Connection, schedules, webhooks
from luthier.store.rows import JobRecord, ScheduleRunRecord


def job_ended(c: Connection, job: JobRecord, now: datetime) -> None:
    """End the run of this job, if a schedule created it."""
    reason = None if job.error is None else str(job.error.get("message"))
    run = schedules.end_run(c, job.id, RunState(job.state.value), reason, now)
    if run is not None:
        _count(c, run, now)


def not_created(c: Connection, run_id: str, reason: str, now: datetime) -> None:
    """End a run whose job could not be created."""
    if schedules.drop_run(c, run_id, RunState.FAILED, f"the job could not be created: {reason}", now):
        _count(c, schedules.get_run(c, run_id), now)


def _count(c: Connection, run: ScheduleRunRecord, now: datetime) -> None:
    """Count failures in a row. A cancelled run counts neither as a success nor as a failure."""
    match run.state:
        case RunState.SUCCEEDED:
            schedules.update(c, run.schedule_id, failures=0)
        case RunState.FAILED:
            schedule = schedules.count_failure(c, run.schedule_id)
            if schedule.failures == schedule.alert_after:
                failing = {"id": schedule.id, "name": schedule.name, "failures": schedule.failures}
                latest = {"run": run.id, "job": run.job_id, "reason": run.reason}
                webhooks.announce(c, "luthier.schedule.failing", failing | latest, now)
        case RunState.CANCELLED | RunState.WAITING | RunState.RUNNING | RunState.SKIPPED | RunState.MISSED:
            pass
