"""How a job ends, and what follows in the same transaction."""

from __future__ import annotations

from datetime import datetime

from luthier.errors import Conflict
from luthier.store import Connection, jobs, trials, webhooks
from luthier.store.rows import JobRecord
from luthier.trial import JobState
from service.context import Context
from service.jobs import events, schedule_failures
from service.jobs.lifecycle import drop_checkpoints


def ended(c: Connection, job_id: str, now: datetime) -> None:
    """Tell everybody who waits for the end of this job."""
    job = jobs.get(c, job_id)
    webhooks.announce(c, f"fine_tuning.job.{job.state}", {"id": job.id}, now)
    schedule_failures.job_ended(c, job, now)


def cancel(here: Context, c: Connection, job_id: str, now: datetime) -> JobRecord:
    """Raises Conflict for a job that has ended already, or NotFound."""
    if not jobs.move(c, job_id, JobState.CANCELLED, now):
        raise Conflict(f"job {job_id} has ended already: it is {jobs.get(c, job_id).state}")
    trials.cancel_waiting(c, job_id, now)
    record = jobs.get(c, job_id)
    events.cancelled(c, record, now)
    here.garbage.forsake(drop_checkpoints(c, trials.of_job(c, job_id)))
    ended(c, job_id, now)
    return record
