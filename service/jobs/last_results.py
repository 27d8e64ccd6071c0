"""The trials that run on past the budget of their job, only to be scored, so that the job ends with a result."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from luthier.store import Connection, trials
from luthier.store.rows import JobRecord, TrialRecord
from search.policy.last_results import to_wrap_up
from search.policy.scheduler import End, EndCode
from service.jobs import events, history


def past_budget(job: JobRecord, rows: Sequence[TrialRecord], end: End) -> list[TrialRecord]:
    """Return the trials that still get a result although the budget is spent or the deadline has passed."""
    if end.code not in (EndCode.DEVICE_SECONDS, EndCode.DEADLINE):
        return []
    numbers = {past.number for past in to_wrap_up(history.past(job, rows))}
    return [row for row in rows if row.number in numbers]


def end_waiting(c: Connection, job: JobRecord, end: End, now: datetime) -> None:
    """End the trials of a job past its budget that wait, and resume those that still get a result."""
    last = past_budget(job, trials.of_job(c, job.id), end)
    for row in last:
        if row.paused:
            assert row.goal is not None, "a paused trial is at a rung"
            if trials.promote(c, row.id, row.goal, None):
                events.wraps_up(c, row, end.reason, now)
    trials.cancel_waiting(c, job.id, now, but={row.number for row in last})
