"""Extend a search that has ended: it goes on with more budget, and no trial is repeated.

Pruned trials whose checkpoints are kept are paused again and may be promoted. New designs compete with the finalists of
before. The earlier model stays in use until the job ends again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from luthier.errors import Conflict, NotFound, UserError
from luthier.store import files, jobs, models, trials, workers
from luthier.store.rows import JobRecord, TrialRecord
from luthier.task import MAX_TRIALS, Extension, Search
from luthier.trial import JobState
from search.policy.scheduler import End, EndCode, Step, next_step, seconds_for_another
from service.context import Context
from service.jobs import budget, costs, events, history, reconcile
from service.jobs.space import space_of
from service.jobs.warm_start import similar_jobs
from service.schemas.requests import ExtendJob

# The field that gives an extended search room to continue where it would end at once.
_MISSING: Final = {
    EndCode.TRIALS: "trials",
    EndCode.DEVICE_SECONDS: "device_seconds",
    EndCode.DEADLINE: "deadline",
}


_OPTIONS: Final = {"trials": "trials", "device_seconds": "seconds", "deadline": "deadline"}
SPARE: Final = 1.1  # of suggested device-seconds, over what is needed


def extend(ctx: Context, job_id: str, body: ExtendJob, now: datetime) -> JobRecord:
    """Queue a job that has succeeded again, with a larger budget.

    Raises NotFound; Conflict for a job that did not succeed, or whose data, base model or result was deleted; UserError
    for a budget that is not larger, or too small for a single step.
    """
    with ctx.database.read() as c:
        job = jobs.get(c, job_id)
        rows = trials.of_job(c, job_id)
    _check_state(job)
    _check_inputs(ctx, job)
    extension = Extension(
        at=now,
        first_trial=len(rows),
        trials=body.trials or 0,
        device_seconds=body.device_seconds,
        deadline=body.deadline,
        ran=0.0 if job.started_at is None else ((job.finished_at or now) - job.started_at).total_seconds(),
    )
    search = _larger(job.search, extension, budget.device_seconds(rows), now)
    _check_room(ctx, job.model_copy(update={"search": search, "extensions": (*job.extensions, extension)}), rows, now)
    with ctx.database.begin() as c:
        jobs.lock(c, job_id)
        if not jobs.extend(c, job_id, search, extension):
            _check_state(jobs.get(c, job_id))
        trials.reopen(c, job_id)
        events.extended(c, jobs.get(c, job_id), extension, now)
    reconcile.advance(ctx, job_id, now)
    with ctx.database.read() as c:
        return jobs.get(c, job_id)


def _check_state(job: JobRecord) -> None:
    match job.state:
        case JobState.SUCCEEDED:
            return
        case JobState.FAILED | JobState.CANCELLED:
            raise Conflict(
                f"Job {job.id} is {job.state}. Only the search of a job that succeeded can be extended; create a new "
                "job, which starts from the best designs of earlier ones."
            )
        case JobState.VALIDATING_FILES | JobState.QUEUED | JobState.RUNNING:
            raise Conflict(
                f"Job {job.id} is {job.state}. It runs to the limits that it was created with, search.trials, "
                "search.device_seconds and search.deadline; extend it when it has ended."
            )


def _check_inputs(ctx: Context, job: JobRecord) -> None:
    if job.fine_tuned_model is None:
        raise Conflict(f"The model of job {job.id} was deleted, so its search cannot be extended.")
    with ctx.database.read() as c:
        known = {entry.name for entry in models.list_(c)}
        try:
            files.get(c, job.training_file)
        except NotFound as error:
            raise Conflict(
                f"The training file {job.training_file} of job {job.id} was deleted, so its search cannot be extended."
            ) from error
    gone = [name for name in job.search.pin.model or () if name not in known]
    if gone:
        raise Conflict(
            f"Base model {gone[0]} of job {job.id} is no longer registered, so its search cannot be extended."
        )


def _larger(search: Search, extension: Extension, spent: float, now: datetime) -> Search:
    """Return the search with the larger budget. `spent`: device-seconds so far."""
    if not extension.trials and extension.device_seconds is None and extension.deadline is None:
        raise UserError("Give more `trials`, more `device_seconds` or a later `deadline`.", param="trials")
    if search.trials + extension.trials > MAX_TRIALS:
        raise UserError(f"A search has at most {MAX_TRIALS:,} trials.", param="trials")
    changes: dict[str, object] = {"trials": search.trials + extension.trials}
    if extension.device_seconds is not None:
        before = spent if search.device_seconds is None else search.device_seconds
        changes["device_seconds"] = before + extension.device_seconds
    if extension.deadline is not None:
        changes["deadline"] = extension.deadline
        if extension.deadline <= now or (search.deadline is not None and extension.deadline <= search.deadline):
            raise UserError(
                f"deadline {extension.deadline.isoformat()} is not later than now and the deadline before.",
                param="deadline",
            )
    return search.model_copy(update=changes)


def _check_room(ctx: Context, job: JobRecord, rows: Sequence[TrialRecord], now: datetime) -> None:
    """Raise UserError, with the field that is missing, where the extended search would end at once.

    `job`: as it will be.
    """
    end = budget.overrun(job, rows, now) or _first_step(ctx, job, rows, now)
    if isinstance(end, End):
        param = _MISSING.get(end.code)
        more = "" if param is None else f" Give more: `{param}` (`luthier extend --{_OPTIONS[param]}`)."
        if end.code is EndCode.DEVICE_SECONDS and job.search.device_seconds is not None:
            given = job.extensions[-1].device_seconds or 0.0
            least = math.ceil(given + needed_seconds(job, rows) - job.search.device_seconds)
            more = f" Give at least {least} more: `{param}` (`luthier extend --seconds {least}`)."
        raise UserError(f"The search would end at once: {end.reason}.{more}", param=param)


def needed_seconds(job: JobRecord, rows: Sequence[TrialRecord]) -> float:
    """Return the device-seconds in all, with those spent, from which an extended job starts another design.

    `job`: as it will be.
    """
    past = history.past(job, history.reopened(rows))
    return budget.device_seconds(rows) + seconds_for_another(past, reconcile.plan_of(job))


def suggested_seconds(job: JobRecord, rows: Sequence[TrialRecord], more: int) -> float | None:
    """Return further device-seconds that should suffice for so many further trials; None for a job without a limit.

    That is what as many designs have cost so far, on top of what was overspent, and never less than what is needed.
    """
    limit = job.search.device_seconds
    if limit is None:
        return None
    search = job.search.model_copy(update={"trials": job.search.trials + more})
    extension = Extension(at=job.created_at, first_trial=max(1, len(rows)), trials=more)
    extended = job.model_copy(update={"search": search, "extensions": (*job.extensions, extension)})
    spent, tried = budget.device_seconds(rows), max(1, len(budget.designs(rows)))
    usual = spent + more * spent / tried
    return float(math.ceil(max(usual, needed_seconds(extended, rows) * SPARE) - limit))


def _first_step(ctx: Context, job: JobRecord, rows: Sequence[TrialRecord], now: datetime) -> Step | None:
    with ctx.database.read() as c:
        worker_count = max(1, len(workers.live(c, now, ctx.settings.lease_seconds)))
        past_jobs = similar_jobs(c, job)
    paused = history.reopened(rows)
    return next_step(
        space_of(ctx, job),
        history.past(job, paused),
        reconcile.plan_of(job),
        remaining=budget.remaining(job, rows, worker_count, now),
        why_infeasible=costs.refusal(ctx, job, paused, now),
        similar_jobs=past_jobs,
    )
