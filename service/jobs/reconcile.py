"""The loop that advances jobs: it starts them, takes the search's steps and concludes them.

Nothing is remembered between two ticks: all state is in the store. Each step is one transaction that locks the job and
does nothing where another replica has already taken the step.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from luthier import logs
from luthier.errors import LuthierError, TrialFailed, UserError
from luthier.store import generations, jobs, leases, trials, workers
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import JobState, TrialState
from search.policy import asha
from search.policy.ranking import best
from search.policy.scheduler import (
    End,
    EndCode,
    MarkInfeasible,
    Plan,
    Promote,
    Repeat,
    Try,
    next_step,
    not_promotable,
)
from search.policy.warm_start import SimilarJob
from search.space.space import Space
from service.context import Context
from service.inference.model_names import result_name
from service.jobs import alias_promotion, budget, costs, events, history, last_results, lifecycle, outcome
from service.jobs.lifecycle import drop_checkpoints
from service.jobs.space import space_of
from service.jobs.warm_start import similar_jobs

log = logging.getLogger(__name__)

Rows = Sequence[TrialRecord]


def tick(ctx: Context, now: datetime) -> None:
    """Take back expired leases, advance every active job and delete unreferenced blobs."""
    with ctx.database.begin() as c:
        lifecycle.worker_lost(ctx, c, leases.expire(c, now), now)
        generations.expire(c, now)
    with ctx.database.read() as c:
        active = [job.id for job in jobs.active(c)]
    for job_id in active:
        advance(ctx, job_id, now)
    ctx.garbage.sweep(ctx.database, ctx.blobs, now)


def advance(ctx: Context, job_id: str, now: datetime) -> None:
    """Advance one job as far as it can go now. A user error fails the job; any other error is only logged."""
    try:
        with ctx.turn, logs.about(job_id=job_id):
            try:
                _advance(ctx, job_id, now)
            except UserError as error:  # such as a base model that is no longer registered
                _fail(ctx, job_id, error, now)
    except Exception:  # one job must not stop the others, nor the request that called this
        log.exception("job %s could not be advanced; the next tick tries again", job_id)


def _advance(ctx: Context, job_id: str, now: datetime) -> None:
    with ctx.database.read() as c:
        job = jobs.get(c, job_id)
        worker_count = len(workers.live(c, now, ctx.settings.lease_seconds))
    if job.paused:
        return
    match job.state:
        case JobState.QUEUED:
            with ctx.database.begin() as c:
                if not jobs.move(c, job.id, JobState.RUNNING, now):
                    return
                events.started(c, job, worker_count, now)
            _advance(ctx, job.id, now)
        case JobState.RUNNING:
            _search_on(ctx, job, worker_count, now)
        case JobState.VALIDATING_FILES | JobState.SUCCEEDED | JobState.FAILED | JobState.CANCELLED:
            pass  # nothing to do, or another replica has done it since the list was read


def _search_on(ctx: Context, job: JobRecord, worker_count: int, now: datetime) -> None:
    with ctx.database.read() as c:
        rows: Rows = trials.of_job(c, job.id)
    end = budget.overrun(job, rows, now)
    if end is not None:
        with ctx.database.begin() as c:
            if jobs.lock(c, job.id).state is not JobState.RUNNING:
                return
            last_results.end_waiting(c, job, end, now)
            rows = trials.of_job(c, job.id)
    else:
        rows, end = fill(ctx, job, rows, max(1, worker_count), now)
    if end is None:
        _prune(ctx, job, rows, worker_count, now)
    elif not budget.open_trials(rows):
        _conclude(ctx, job, rows, end, now)


def fill(ctx: Context, job: JobRecord, rows: Rows, worker_count: int, now: datetime) -> tuple[Rows, End | None]:
    """Take the search's steps until every worker has a trial. Return the trials, and why the search ended if it did."""
    designs: Space | None = None
    past_jobs: Sequence[SimilarJob] = ()
    while len(budget.open_trials(rows)) < worker_count:
        if designs is None:
            designs = space_of(ctx, job)
            with ctx.database.read() as c:
                past_jobs = similar_jobs(c, job)
        step = next_step(
            designs,
            history.past(job, rows),
            plan_of(job),
            remaining=budget.remaining(job, rows, worker_count, now),
            why_infeasible=costs.refusal(ctx, job, rows, now),
            similar_jobs=past_jobs,
        )
        if step is None:
            return rows, None
        if isinstance(step, End):
            return rows, step
        changed = _take(ctx, job, rows, step, now)
        if changed is None:
            return rows, None
        rows = changed
    return rows, None


def _take(
    ctx: Context, job: JobRecord, rows: Rows, step: Try | MarkInfeasible | Promote | Repeat, now: datetime
) -> Rows | None:
    """Take a step that was chosen for these trials. Return the trials after it.

    Return None where the job has ended or another replica was faster; the next tick goes on from there.
    """
    number = len(rows)
    with ctx.database.begin() as c:
        if jobs.lock(c, job.id).state is not JobState.RUNNING:
            return None
        match step:
            case Try():
                row = trials.insert(c, job.id, number, step.design, job.seed, step.origin, now, goal=step.goal)
                done = row is not None
            case MarkInfeasible():
                row = trials.insert(c, job.id, number, step.design, job.seed, step.origin, now, refused=step.why)
                done = row is not None
                if row is not None:
                    events.refused(c, row, now)
            case Promote():
                paused = rows[step.number]
                assert paused.goal is not None, "a paused trial is at a rung"
                done = trials.promote(c, paused.id, paused.goal, step.goal)
                if done:
                    events.promoted(c, paused, step.goal, now)
            case Repeat():
                design = rows[step.number].design
                row = trials.insert(c, job.id, number, design, job.seed + step.seed_offset, "confirmation", now)
                done = row is not None
                if row is not None:
                    events.repeating(c, job, row, step.number, now)
        return trials.of_job(c, job.id) if done else None


def _prune(ctx: Context, job: JobRecord, rows: Rows, worker_count: int, now: datetime) -> None:
    """Stop the paused trials that cannot be promoted any more, and drop their checkpoints."""
    if not any(row.paused for row in rows):
        return
    remaining = budget.remaining(job, rows, worker_count, now)
    numbers = [past.number for past in not_promotable(history.past(job, rows), plan_of(job), remaining)]
    if not numbers:
        return
    with ctx.database.begin() as c:
        if jobs.lock(c, job.id).state is not JobState.RUNNING:
            return
        pruned = trials.prune(c, job.id, numbers, now)
        events.pruned(c, pruned, now)
        ctx.garbage.release_at_once(drop_checkpoints(c, pruned))


def plan_of(job: JobRecord) -> Plan:
    search = job.search
    return Plan(
        trials=search.trials,
        finalists=search.finalists,
        confirmations=search.confirmations,
        seed=job.seed,
        early_finish=search.early_finish,
        sampler=search.sampler,
        extended_from=job.extended_from,
        resplit=bool(job.resplits),
    )


def _conclude(ctx: Context, job: JobRecord, rows: Rows, end: End, now: datetime) -> None:
    choice = best(history.past(job, rows))
    winner = None if choice is None else next(row for row in rows if row.number == choice.trial.number)
    if choice is None or winner is None or not winner.design.stages:
        _fail(ctx, job.id, _no_winner(rows, end), now, ended_reason=end.code)
        return
    if not alias_promotion.champion_ready(ctx, job, now):
        return  # the job advances again when the champion is scored
    with ctx.database.read() as c:
        # The words must not say "so far", and an extended job may come to stand for another trial than before.
        ended = job.model_copy(update={"state": JobState.SUCCEEDED, "best_trial_id": None})
        named, recommendation = outcome.decide(c, ctx, ended, rows)
    assert named is not None, "a trial is complete"
    name = result_name(job, named)
    base = next((row for row in rows if row.number == history.BASELINES[0]), None)
    with ctx.database.begin() as c:
        jobs.lock(c, job.id)
        if _progress(trials.of_job(c, job.id)) != _progress(rows):
            return  # another replica took a step since these rows were read; the next tick goes on from there
        if not jobs.move(c, job.id, JobState.SUCCEEDED, now, ended_reason=end.code):
            return
        trials.cancel_waiting(c, job.id, now)
        jobs.set_result(c, job.id, named.id, name, sum(row.trained_tokens for row in rows))
        events.search_ended(c, job, end.reason, now)
        seeds = history.seeds(rows, named.number)
        if job.best_trial_id is not None and job.best_trial_id != named.id:
            events.winner_changed(c, job, trials.get(c, job.best_trial_id), named, now)
            alias_promotion.follow(c, jobs.get(c, job.id), now)
        events.succeeded(c, jobs.get(c, job.id), seeds, base, recommendation, choice, now)
        alias_promotion.decide(c, jobs.get(c, job.id), named, base, now)
        lifecycle.announce_end(c, job.id, now)
        ctx.garbage.release_at_once(drop_checkpoints(c, _not_to_resume(job, trials.of_job(c, job.id))))


def _not_to_resume(job: JobRecord, rows: Rows) -> list[TrialRecord]:
    """Return the trials of a job that has succeeded which would not be promoted if it is extended."""
    past = history.past(job, history.reopened(rows))
    hopeless = {one.number for one in asha.not_promotable(past, 0, job.search.finalists)}
    return [row for row in rows if row.state is not TrialState.PRUNED or row.number in hopeless]


def _progress(rows: Rows) -> list[tuple[int, TrialState, int | None]]:
    return [(row.number, row.state, row.goal) for row in rows]


def _no_winner(rows: Rows, end: End) -> LuthierError:
    if end.code is EndCode.BASE_INFEASIBLE:
        return TrialFailed(f"no trial could be trained: {end.reason}")
    broken = (TrialState.FAILED, TrialState.INFEASIBLE)
    first = next((row for row in rows if row.state in broken and row.design.stages), None)
    if first is None:
        return UserError(f"no trial was trained to the end: {end.reason}", param="search")
    return TrialFailed(f"no trial could be trained; trial {first.number} is {first.state}: {first.error}")


def _fail(ctx: Context, job_id: str, error: LuthierError, now: datetime, ended_reason: EndCode | None = None) -> None:
    failure = {"code": error.code, "message": error.message, "param": error.param}
    with ctx.database.begin() as c:
        if not jobs.move(c, job_id, JobState.FAILED, now, error=failure, ended_reason=ended_reason):
            return
        trials.cancel_waiting(c, job_id, now)
        events.failed(c, jobs.get(c, job_id), error, now)
        lifecycle.announce_end(c, job_id, now)
        ctx.garbage.release_at_once(drop_checkpoints(c, trials.of_job(c, job_id)))
