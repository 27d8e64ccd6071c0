"""What the service does by itself: take back lost leases, start jobs, keep them in trials, and end them.

Nothing here remembers anything between two looks: all state is in the store, every change is guarded there, and a
change that somebody else made first is simply skipped. So a restart costs nothing, and several replicas may look after
the same jobs.
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
from search.policy.ranking import best
from search.policy.scheduler import End, MarkInfeasible, Plan, Promote, Repeat, Try, next_step, not_promotable
from search.policy.warm_start import SimilarJob
from search.space.space import Space
from service.context import Context
from service.inference.model_names import result_name
from service.jobs import alias_promotion, budget, costs, events, history, lifecycle
from service.jobs.lifecycle import drop_checkpoints, settle_lost
from service.jobs.space import space_of
from service.jobs.warm_start import similar_jobs

log = logging.getLogger(__name__)

Rows = Sequence[TrialRecord]


def tick(ctx: Context, now: datetime) -> None:
    """One look at everything."""
    _take_back(ctx, now)
    with ctx.database.read() as c:
        active = [job.id for job in jobs.active(c)]
    for job_id in active:
        look_after(ctx, job_id, now)
    ctx.garbage.sweep(ctx.database, ctx.blobs, now)


def look_after(ctx: Context, job_id: str, now: datetime) -> None:
    """Bring one job as far as it can go now. A job that cannot go on fails; what else goes wrong is only logged."""
    try:
        with ctx.turn, logs.about(job_id=job_id):
            _advance_or_fail(ctx, job_id, now)
    except Exception:  # one job must not keep the others, or the request that asks for this, from going on
        log.exception("job %s could not be looked after; the next tick tries again", job_id)


def _take_back(ctx: Context, now: datetime) -> None:
    with ctx.database.begin() as c:
        settle_lost(ctx, c, leases.expire(c, now), now)
        generations.expire(c, now)


def _advance_or_fail(ctx: Context, job_id: str, now: datetime) -> None:
    try:
        _advance(ctx, job_id, now)
    except UserError as error:  # such as a base model that is no longer registered
        _fail(ctx, job_id, error, now)


def _advance(ctx: Context, job_id: str, now: datetime) -> None:
    with ctx.database.read() as c:
        job = jobs.get(c, job_id)
        worker_count = len(workers.live(c, now, ctx.settings.lease_seconds))
    if job.paused:
        return
    match job.state:
        case JobState.QUEUED:
            _start(ctx, job, worker_count, now)
        case JobState.RUNNING:
            _go_on(ctx, job, worker_count, now)
        case JobState.VALIDATING_FILES | JobState.SUCCEEDED | JobState.FAILED | JobState.CANCELLED:
            pass  # nothing to do, or done by somebody else since the list was made


def _start(ctx: Context, job: JobRecord, worker_count: int, now: datetime) -> None:
    with ctx.database.begin() as c:
        if not jobs.move(c, job.id, JobState.RUNNING, now):
            return
        events.started(c, job, worker_count, now)
    _advance(ctx, job.id, now)


def _go_on(ctx: Context, job: JobRecord, worker_count: int, now: datetime) -> None:
    with ctx.database.read() as c:
        rows: Rows = trials.of_job(c, job.id)
    reason = budget.overrun(job, rows, now)
    if reason is not None:
        with ctx.database.begin() as c:
            trials.cancel_waiting(c, job.id, now)
            rows = trials.of_job(c, job.id)
    else:
        rows, reason = fill(ctx, job, rows, max(1, worker_count), now)
    if reason is None:
        _prune(ctx, job, rows, worker_count, now)
    elif not budget.open_trials(rows):
        _conclude(ctx, job, rows, reason, now)


def fill(ctx: Context, job: JobRecord, rows: Rows, worker_count: int, now: datetime) -> tuple[Rows, str | None]:
    """Take the search's steps until there is a trial for each of the `crew`. Answers with the rows then, and why there
    will be no more, if so."""
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
            _plan(job),
            remaining=budget.remaining(job, rows, worker_count, now),
            why_infeasible=costs.refusal(ctx, job, rows, now),
            similar_jobs=past_jobs,
        )
        if step is None:
            return rows, None
        if isinstance(step, End):
            return rows, step.reason
        taken = _take(ctx, job, rows, step, now)
        if taken is None:
            return rows, None
        rows = taken
    return rows, None


def _take(
    ctx: Context, job: JobRecord, rows: Rows, step: Try | MarkInfeasible | Promote | Repeat, now: datetime
) -> Rows | None:
    """Take a step that was chosen for these rows. Answers with the rows then, or None where the job has ended or
    another replica was faster: the next look goes on from there."""
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
                assert paused.goal is not None, "what is paused is so at a rung"
                done = trials.promote(c, paused.id, paused.goal, step.goal)
                if done:
                    events.promoted(c, paused, step.goal, now)
            case Repeat():
                design = rows[step.number].design
                row = trials.insert(c, job.id, number, design, job.seed + step.seed_offset, "confirmation", now)
                done = row is not None
                if done:
                    events.confirming(c, job.id, number, step.number, now)
        return trials.of_job(c, job.id) if done else None


def _prune(ctx: Context, job: JobRecord, rows: Rows, worker_count: int, now: datetime) -> None:
    """Give up what pauses and will not be promoted any more: its checkpoints are dropped."""
    if not any(row.paused for row in rows):
        return
    remaining = budget.remaining(job, rows, worker_count, now)
    lost = [past.number for past in not_promotable(history.past(job, rows), _plan(job), remaining)]
    if not lost:
        return
    with ctx.database.begin() as c:
        if jobs.lock(c, job.id).state is not JobState.RUNNING:
            return
        pruned = trials.prune(c, job.id, lost, now)
        if pruned:
            events.pruned(c, pruned, now)
            ctx.garbage.forsake(drop_checkpoints(c, pruned))


def _plan(job: JobRecord) -> Plan:
    search = job.search
    return Plan(
        trials=search.trials,
        finalists=search.finalists,
        confirmations=search.confirmations,
        seed=job.seed,
        early_finish=search.early_finish,
    )


def _conclude(ctx: Context, job: JobRecord, rows: Rows, reason: str, now: datetime) -> None:
    choice = best(history.past(job, rows))
    winner = None if choice is None else next(row for row in rows if row.number == choice.trial.number)
    if choice is None or winner is None or not winner.design.stages:
        _fail(ctx, job.id, _why_nothing(rows, reason), now)
        return
    if not alias_promotion.scored(ctx, job, now):
        return  # its end brings the next look
    name = result_name(job, winner)
    base = next((row for row in rows if row.number == history.BASELINES[0]), None)
    with ctx.database.begin() as c:
        jobs.lock(c, job.id)
        if _standings(trials.of_job(c, job.id)) != _standings(rows):
            return  # another replica took a step since these rows were read; the next look goes on from there
        if not jobs.move(c, job.id, JobState.SUCCEEDED, now):
            return
        trials.cancel_waiting(c, job.id, now)
        jobs.set_result(c, job.id, winner.id, name, sum(row.trained_tokens for row in rows))
        events.budget_spent(c, job, reason, now)
        won = history.seeds(rows, winner.number)
        events.succeeded(c, jobs.get(c, job.id), won, base, choice, now)
        alias_promotion.decide(c, jobs.get(c, job.id), winner, base, now)
        lifecycle.ended(c, job.id, now)
        ctx.garbage.forsake(drop_checkpoints(c, trials.of_job(c, job.id)))


def _standings(rows: Rows) -> list[tuple[int, TrialState, int | None]]:
    return [(row.number, row.state, row.goal) for row in rows]


def _why_nothing(rows: Rows, reason: str) -> LuthierError:
    broken = (TrialState.FAILED, TrialState.INFEASIBLE)
    first = next((row for row in rows if row.state in broken and row.design.stages), None)
    if first is None:
        return UserError(f"no trial was trained to its end: {reason}", param="search")
    return TrialFailed(f"no trial could be trained; trial {first.number} {first.state}: {first.error}")


def _fail(ctx: Context, job_id: str, error: LuthierError, now: datetime) -> None:
    failure = {"code": error.code, "message": error.message, "param": error.param}
    with ctx.database.begin() as c:
        if not jobs.move(c, job_id, JobState.FAILED, now, error=failure):
            return
        trials.cancel_waiting(c, job_id, now)
        events.failed(c, jobs.get(c, job_id), error, now)
        lifecycle.ended(c, job_id, now)
        ctx.garbage.forsake(drop_checkpoints(c, trials.of_job(c, job_id)))
