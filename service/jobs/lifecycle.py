"""What follows when a lease or a job ends: the result is stored and logged, and unneeded blobs are released."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from luthier.errors import Conflict, MissingMetric
from luthier.metrics import objective_value
from luthier.store import Connection, artifacts, jobs, leases, trials, webhooks
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import JobState, TrialState
from luthier.worker_protocol import Finished
from search.policy.ranking import best
from service.context import Context
from service.jobs import budget, events, history, schedule_failures


def finalise(ctx: Context, trial_id: str, report: Finished, now: datetime) -> TrialRecord:
    """Store the end of a lease and everything that follows from it, in one transaction.

    The same report sent again changes nothing. Raises BlobMissing for an artifact whose blobs are not all uploaded, and
    LeaseLost.
    """
    for artifact in report.artifacts:
        for digest in artifact.files.values():
            ctx.blobs.size(digest)
    with ctx.database.begin() as c:
        before = trials.get(c, trial_id)
        job = jobs.get(c, before.job_id)
        trial = leases.finish(c, trial_id, _fail_without_metric(report, job), now)
        if before.state is not TrialState.LEASED:
            return trial
        events.trial_ended(c, trial, now)
        if trial.state is TrialState.COMPLETE:
            ctx.garbage.release(_rank_again(c, job, trial, now))
        if job.state.terminal:
            trials.cancel_waiting(c, job.id, now)
        trials.cancel_stopped(c, trial_id, now)
        ctx.garbage.release_at_once(drop_checkpoints(c, [trials.get(c, trial_id)]))
    return trial


def worker_lost(ctx: Context, c: Connection, lost: Sequence[TrialRecord], now: datetime) -> None:
    """Log the trials that lost their worker, and end those of ended jobs and those that a user stopped."""
    for trial in lost:
        events.worker_lost(c, trial, now)
        if jobs.get(c, trial.job_id).state.terminal:
            trials.cancel_waiting(c, trial.job_id, now)
        trials.cancel_stopped(c, trial.id, now)
        ctx.garbage.release_at_once(drop_checkpoints(c, [trials.get(c, trial.id)]))


def drop_checkpoints(c: Connection, rows: Sequence[TrialRecord]) -> set[str]:
    """Forget the checkpoints of the trials that have ended. Return the digests of their blobs."""
    ended = [trial for trial in rows if trial.state.terminal and trial.checkpoint is not None]
    return {digest for trial in ended for digest in artifacts.drop_checkpoint(c, trial.id)}


def announce_end(c: Connection, job_id: str, now: datetime) -> None:
    """Queue the webhooks of a job that has ended, and end its schedule's run."""
    job = jobs.get(c, job_id)
    webhooks.announce(c, f"fine_tuning.job.{job.state}", {"id": job.id}, now)
    schedule_failures.job_ended(c, job, now)


def cancel(ctx: Context, c: Connection, job_id: str, now: datetime) -> JobRecord:
    """Cancel a job. Raises Conflict for one that has ended, or NotFound."""
    if not jobs.move(c, job_id, JobState.CANCELLED, now):
        raise _ended_already(jobs.get(c, job_id))
    trials.cancel_waiting(c, job_id, now)
    record = jobs.get(c, job_id)
    events.cancelled(c, record, now)
    ctx.garbage.release_at_once(drop_checkpoints(c, trials.of_job(c, job_id)))
    announce_end(c, job_id, now)
    return record


def pause(c: Connection, job_id: str, now: datetime) -> JobRecord:
    """Pause a job. Pausing it again changes nothing. Raises Conflict for one that has ended, or NotFound."""
    changed = jobs.pause(c, job_id)
    record = jobs.get(c, job_id)
    if record.state.terminal:
        raise _ended_already(record)
    if changed:
        events.paused(c, record, budget.running(trials.of_job(c, job_id)), now)
    return record


def resume(c: Connection, job_id: str, now: datetime) -> JobRecord:
    """Resume a paused job; nothing changes for one that is not. Raises Conflict for one that has ended, or NotFound."""
    changed = jobs.resume(c, job_id)
    record = jobs.get(c, job_id)
    if record.state.terminal:
        raise _ended_already(record)
    if changed:
        events.resumed(c, record, now)
    return record


def _ended_already(job: JobRecord) -> Conflict:
    return Conflict(f"Job {job.id} has already ended: it is {job.state}.")


def _fail_without_metric(report: Finished, job: JobRecord) -> Finished:
    """Return the report; as a failure where it says complete but lacks the objective. No other metric replaces it."""
    if report.outcome != "complete":
        return report
    try:
        if report.metrics is None:
            raise MissingMetric("the worker reported it complete, but sent no metrics")
        objective_value(report.metrics, job.judge.objective)
    except MissingMetric as error:
        return report.model_copy(update={"outcome": "failed", "error": error.message, "artifacts": ()})
    return report


def _rank_again(c: Connection, job: JobRecord, trial: TrialRecord, now: datetime) -> set[str]:
    """Log a new best trial, and drop the weights of trials that are no longer finalists. Return their digests."""
    rows = trials.of_job(c, job.id)
    past = history.past(job, rows)
    choice = best(past)
    if choice is not None and choice.trial.number == trial.number and trial.design.stages:
        base = next((row.metrics for row in rows if row.number == history.BASELINES[0]), None)
        events.new_best(c, job, trial, base, beats_base=choice.beats_base, now=now)
    kept = history.keepers(job, past)
    # While an extended job runs, its earlier model stays in use.
    dropped = [
        row
        for row in rows
        if row.state is TrialState.COMPLETE and row.number not in kept and row.id != job.best_trial_id
    ]
    return {digest for row in dropped for digest in artifacts.drop(c, row.id)}
