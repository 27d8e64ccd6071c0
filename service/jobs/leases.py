"""What the service decides about leased trials: which one a worker gets, whether it continues, pauses or stops, and
whether its weights are kept. The messages are those of `luthier.worker_protocol`."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Final, Literal

from luthier.errors import MissingMetric, UserError
from luthier.store import Connection, generations, jobs, leases, measurements, models, trials, workers
from luthier.store.rows import JobRecord, TrialRecord, WorkerRecord
from luthier.trial import first_rung
from luthier.worker_protocol import (
    Assignment,
    CheckpointSaved,
    Directive,
    Finished,
    Heartbeat,
    Hello,
    Judged,
    Keep,
    RungReached,
    RungVerdict,
)
from search.policy import asha
from search.policy.ranking import DEFAULT, UNTUNED
from search.policy.scheduler import goes_on
from service.context import Context
from service.jobs import alias_promotion, budget, events, history, last_results, lifecycle, reconcile

STOPPED: Final = "a user stopped the trial"
JUDGEMENTS: Final = 2.0


def register(ctx: Context, hello: Hello, now: datetime) -> WorkerRecord:
    """Register a worker. One that returns under the same name gives up the leases that it held before."""
    with ctx.database.begin() as c:
        worker = workers.register(c, hello, now)
        lifecycle.worker_lost(ctx, c, leases.release(c, worker.id, now), now)
        generations.release(c, worker.id)
    return worker


def acquire(ctx: Context, worker_id: str, now: datetime) -> Assignment | None:
    """Lease a waiting trial to the worker; None where there is nothing to do. Raises NotFound for an unknown worker."""
    with ctx.database.begin() as c:
        worker = workers.touch(c, worker_id, now)
        leased = _lease(c, worker_id, now, ctx.settings.lease_seconds)
        if leased is None:
            return None
        job, trial = leased
        rows = job.rows_of(trial)
        left = _left_to_train(c, job, now) if trial.design.self_ending else None
        events.trial_started(c, trial, worker.name, now)
        return Assignment(
            trial_id=trial.id,
            job_id=job.id,
            number=trial.number,
            owner=worker_id,
            fence=trial.fence,
            seed=trial.seed,
            design=trial.design,
            base=models.get(c, trial.design.architecture.base),
            teacher=None if trial.design.teacher is None else models.get(c, trial.design.teacher),
            train=rows.train,
            judge=job.judge_of(trial),
            checkpoint=trial.checkpoint,
            goal=trial.goal,
            first_rung=first_rung(trial.design, ctx.count_rows(rows.train)),
            device_seconds=trial.device_seconds,
            wrap_up_at=_wrap_up_at(left, trial.device_seconds),
            weights=None if trial.weights_of is None else alias_promotion.weights(c, trial.weights_of),
        )


def heartbeat(ctx: Context, trial_id: str, report: Heartbeat, now: datetime) -> Directive:
    """Renew the lease, store the reported points and log lines, and return what the worker is to do."""
    with ctx.database.begin() as c:
        seconds, tokens = report.device_seconds, report.trained_tokens
        trial = leases.renew(c, trial_id, report, now, ctx.settings.lease_seconds, seconds, tokens)
        workers.touch(c, report.owner, now)
        measurements.add(c, trial_id, report.points)
        measurements.add_lines(c, trial_id, report.fence, report.lines)
        job = jobs.get(c, trial.job_id)
        reason = _stop_reason(c, job, trial, now)
        left = None
        if reason is None and not trial.stopped and trial.design.self_ending:
            left = _left_to_train(c, job, now)
    assert trial.expires_at is not None  # it has just been renewed
    if reason is None and trial.stopped:
        # What has a result at every step ends with it; of any other training nothing is left.
        how: Literal["wrap_up", "stop"] = "wrap_up" if trial.design.self_ending else "stop"
        return Directive(action=how, reason=STOPPED, expires_at=trial.expires_at)
    if reason is None and job.paused:
        return Directive(action="pause", expires_at=trial.expires_at)
    ends = left is not None and left <= 0
    action: Literal["stop", "wrap_up", "continue"] = "stop" if reason else "wrap_up" if ends else "continue"
    wrap_up_at = _wrap_up_at(left, report.device_seconds)
    return Directive(action=action, wrap_up_at=wrap_up_at, reason=reason, expires_at=trial.expires_at)


def save_checkpoint(ctx: Context, trial_id: str, saved: CheckpointSaved) -> None:
    """Make this the trial's checkpoint and release the one before. Raises BlobMissing for a blob that is not stored."""
    for digest in (saved.manifest, *saved.blobs):
        ctx.blobs.size(digest)
    with ctx.database.begin() as c:
        before = leases.save_checkpoint(c, trial_id, saved)
    if before is not None:
        with ctx.blobs.open(before) as stream:
            ctx.garbage.release_at_once({before, *json.load(stream).values()})


def reach_rung(ctx: Context, trial_id: str, reached: RungReached, now: datetime) -> RungVerdict:
    """Store a trial's score at a rung and return whether it continues, and to which rung, or pauses.

    At its goal, it continues if it ranks in the top third of the trials scored at this rung (of all, or of those with
    the same objective sequence) and the remaining budget is expected to cover the way to its next score.
    """
    with ctx.database.begin() as c:
        job = jobs.lock(c, trials.get(c, trial_id).job_id)
        trial = leases.reach_rung(c, trial_id, reached, now)
        if reached.at_end:
            return RungVerdict(action="continue", goal=trial.goal)
        while trial.goal is not None and reached.rung >= trial.goal:
            rows = trials.of_job(c, job.id)
            try:
                past = history.past(job, rows)
            except MissingMetric as error:
                raise UserError(error.message, param=error.param) from error
            worker_count = len(workers.live(c, now, ctx.settings.lease_seconds))
            if not goes_on(past, trial.number, budget.remaining(job, rows, worker_count, now)):
                return RungVerdict(action="pause", goal=trial.goal)
            events.goes_on(c, trial, now)
            trial = leases.raise_goal(c, trial_id, reached, asha.above(trial.design, trial.goal))
    return RungVerdict(action="continue", goal=trial.goal)


def judge(ctx: Context, trial_id: str, report: Judged) -> Keep:
    """Store the validation score and return whether to export the weights and score the test rows.

    The weights of the baselines and the best finalists so far are kept. Test rows are scored for these, for repeats
    with another seed, and for a champion.
    """
    with ctx.database.begin() as c:
        trial = leases.judge(c, trial_id, report)
        if trial.origin == "champion":
            return Keep(keep=False, test=True)
        job = jobs.get(c, trial.job_id)
        try:
            past = history.judged(job, trials.of_job(c, job.id), trial_id, report.metrics)
        except MissingMetric as error:
            raise UserError(error.message, param=error.param) from error
    kept = trial.number in history.keepers(job, past)
    return Keep(keep=kept, test=kept or trial.origin == "confirmation")


def finish(ctx: Context, trial_id: str, report: Finished, now: datetime) -> TrialRecord:
    """End the lease as reported and advance the job, so that the worker finds the next trial queued."""
    trial = lifecycle.finalise(ctx, trial_id, report, now)
    reconcile.advance(ctx, trial.job_id, now)
    return trial


def _lease(c: Connection, worker_id: str, now: datetime, lease_seconds: float) -> tuple[JobRecord, TrialRecord] | None:
    """Lease a trial that may run. Trials past their job's budget and champions that cannot be scored end instead."""
    while (trial := leases.acquire(c, worker_id, now, lease_seconds)) is not None:
        job = jobs.get(c, trial.job_id)
        obstacle = None if trial.weights_of is None else alias_promotion.obstacle(c, job, trial.weights_of)
        if obstacle is None and _stop_reason(c, job, trial, now) is None:
            return job, trial
        ended = Finished(
            owner=worker_id,
            fence=trial.fence,
            outcome="cancelled" if obstacle is None else "failed",
            device_seconds=trial.device_seconds,
            error=obstacle,
        )
        leases.finish(c, trial.id, ended, now)
        end = budget.overrun(job, trials.of_job(c, job.id), now)
        if end is None:
            trials.cancel_waiting(c, job.id, now)
        else:
            last_results.end_waiting(c, job, end, now)
    return None


def _left_to_train(c: Connection, job: JobRecord, now: datetime) -> float | None:
    """Return how long each running trial may still train, so that the budget suffices to judge them; None: no limit.

    Scoring a trial is assumed to take as long as scoring the untuned base model. Time for JUDGEMENTS of these is kept,
    and the same for the default if it is paused, as it has to be resumed for its result.
    """
    rows = trials.of_job(c, job.id)
    judging = JUDGEMENTS * next((trial.device_seconds for trial in rows if trial.number == UNTUNED), 0.0)
    paused = sum(trial.number == DEFAULT and trial.paused for trial in rows)
    left = budget.left_for_each(job, rows, now, kept=paused * judging)
    return None if left is None else left - judging


def _wrap_up_at(left: float | None, device_seconds: float) -> float | None:
    return None if left is None else device_seconds + max(0.0, left)


def _stop_reason(c: Connection, job: JobRecord, trial: TrialRecord, now: datetime) -> str | None:
    """Return why the trial may not run on.

    A champion runs until the job ends: no budget counts for it. A trial that still gets a result past the budget runs
    on, and wraps up.
    """
    if job.state.terminal:
        return f"the job is {job.state}"
    if trial.origin == "champion":
        return None
    rows = trials.of_job(c, job.id)
    end = budget.overrun(job, rows, now)
    if end is None or trial.number in {row.number for row in last_results.past_budget(job, rows, end)}:
        return None
    return end.reason
