"""What follows when a lease ends: the report is stored, told, and what need not be kept any more is let go."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from luthier.errors import Conflict, MissingMetric
from luthier.store import Connection, artifacts, jobs, leases, trials, webhooks
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import JobState, TrialState
from luthier.worker_protocol import Finished
from search.policy.ranking import best, objective_value
from service.context import Context
from service.jobs import events, history, schedule_failures


def settle(ctx: Context, trial_id: str, report: Finished, now: datetime) -> TrialRecord:
    """Store a finish and everything that follows from it, in one transaction.

    The same report sent again changes nothing. Raises BlobMissing for an artifact that was not uploaded whole, and
    LeaseLost.
    """
    for artifact in report.artifacts:
        for digest in artifact.files.values():
            ctx.blobs.size(digest)
    with ctx.database.begin() as c:
        before = trials.get(c, trial_id)
        job = jobs.get(c, before.job_id)
        trial = leases.finish(c, trial_id, _honest(report, job), now)
        if before.state is not TrialState.LEASED:
            return trial
        events.trial_ended(c, trial, now)
        rows = trials.of_job(c, job.id)
        if trial.state is TrialState.COMPLETE:
            _tell_if_best(c, job, rows, trial, now)
            ctx.garbage.condemn(_drop_fallen(c, job, rows))
        if job.state.terminal:
            trials.cancel_waiting(c, job.id, now)
        trials.cancel_stopped(c, trial_id, now)
        ctx.garbage.forsake(drop_checkpoints(c, [trials.get(c, trial_id)]))
    return trial


def settle_lost(ctx: Context, c: Connection, lost: Sequence[TrialRecord], now: datetime) -> None:
    """Tell of trials whose worker was lost, and end those that nobody wants to go on with."""
    for trial in lost:
        events.worker_lost(c, trial, now)
        if jobs.get(c, trial.job_id).state.terminal:
            trials.cancel_waiting(c, trial.job_id, now)
        trials.cancel_stopped(c, trial.id, now)
        ctx.garbage.forsake(drop_checkpoints(c, [trials.get(c, trial.id)]))


def drop_checkpoints(c: Connection, rows: Sequence[TrialRecord]) -> set[str]:
    """Forget the checkpoints of those trials that have ended; answers with the digests of their blobs."""
    ended = [trial for trial in rows if trial.state.terminal and trial.checkpoint is not None]
    return {digest for trial in ended for digest in artifacts.drop_checkpoint(c, trial.id)}


def _honest(report: Finished, job: JobRecord) -> Finished:
    """A complete trial without the metric that decides is a failed one: no other metric takes its place."""
    if report.outcome != "complete":
        return report
    try:
        if report.metrics is None:
            raise MissingMetric("it was reported complete, but without metrics")
        objective_value(report.metrics, job.judge.objective)
    except MissingMetric as error:
        nothing = {"outcome": "failed", "error": error.message, "artifacts": ()}
        return report.model_copy(update=nothing)
    return report


def _tell_if_best(
    c: Connection, job: JobRecord, rows: Sequence[TrialRecord], trial: TrialRecord, now: datetime
) -> None:
    choice = best(history.past(job, rows))
    if choice is None or choice.trial.number != trial.number or not trial.design.stages:
        return
    events.new_best(c, trial, next((row.metrics for row in rows if row.number == history.BASELINES[0]), None), now)


def _drop_fallen(c: Connection, job: JobRecord, rows: Sequence[TrialRecord]) -> set[str]:
    """Drop the weights of trials that are no longer among the finalists; answers with the digests."""
    kept = history.keepers(job, history.past(job, rows))
    fallen = [row for row in rows if row.state is TrialState.COMPLETE and row.number not in kept]
    return {digest for row in fallen for digest in artifacts.drop(c, row.id)}


def ended(c: Connection, job_id: str, now: datetime) -> None:
    """Tell everybody who waits for the end of this job."""
    job = jobs.get(c, job_id)
    webhooks.announce(c, f"fine_tuning.job.{job.state}", {"id": job.id}, now)
    schedule_failures.job_ended(c, job, now)


def cancel(ctx: Context, c: Connection, job_id: str, now: datetime) -> JobRecord:
    """Raises Conflict for a job that has ended already, or NotFound."""
    if not jobs.move(c, job_id, JobState.CANCELLED, now):
        raise Conflict(f"job {job_id} has ended already: it is {jobs.get(c, job_id).state}")
    trials.cancel_waiting(c, job_id, now)
    record = jobs.get(c, job_id)
    events.cancelled(c, record, now)
    ctx.garbage.forsake(drop_checkpoints(c, trials.of_job(c, job_id)))
    ended(c, job_id, now)
    return record
