"""The workers' side of the API: leases, heartbeats, checkpoints, scores. Its messages are `luthier.worker_protocol`."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Path, Response, status

from luthier.api_types import Page, Trial, Worker
from luthier.errors import MissingMetric, UserError
from luthier.store import Connection, generations, jobs, leases, measurements, models, trials, workers
from luthier.store.rows import JobRecord, TrialRecord
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
    Welcome,
)
from search.policy import asha
from search.policy.scheduler import goes_on
from service.context import Context, Ctx, utc_now
from service.jobs import alias_promotion, budget, events, history
from service.jobs.lifecycle import settle, settle_lost
from service.jobs.reconcile import look_after
from service.results import serializers

router = APIRouter(prefix="/v1", tags=["Workers"])

STOPPED: Final = "somebody stopped the trial"

TrialId = Annotated[str, Path(description="id of a leased trial", examples=["trial-03bd77"])]


@router.post("/workers", summary="Introduce a worker")
def register(ctx: Ctx, hello: Hello) -> Welcome:
    """A worker that comes back under its old name gives up the leases that it held before."""
    now, settings = utc_now(), ctx.settings
    with ctx.database.begin() as c:
        worker = workers.register(c, hello, now)
        settle_lost(ctx, c, leases.release(c, worker.id, now), now)
        generations.release(c, worker.id)
    return Welcome(
        worker_id=worker.id,
        lease_seconds=settings.lease_seconds,
        checkpoint_seconds=settings.checkpoint_seconds,
        poll_seconds=settings.poll_seconds,
        generation_idle_seconds=settings.generation_idle_seconds,
    )


@router.get("/workers", summary="List the workers")
def list_workers(ctx: Ctx) -> Page[Worker]:
    """All that ever introduced themselves; `live` tells those heard of within the length of a lease."""
    now = utc_now()
    with ctx.database.read() as c:
        live = {worker.id for worker in workers.live(c, now, ctx.settings.lease_seconds)}
        return Page(data=tuple(serializers.worker(worker, live=worker.id in live) for worker in workers.list_(c)))


@router.post(
    "/workers/{worker_id}/lease",
    summary="Ask for work",
    response_model=Assignment,
    responses={204: {"description": "There is nothing to do"}},
)
def lease(ctx: Ctx, worker_id: str) -> Assignment | Response:
    """A waiting trial of the oldest job whose budget has something left: of the highest rung the lowest number. Those
    that pause wait for nobody until they are promoted."""
    now = utc_now()
    with ctx.database.begin() as c:
        worker = workers.touch(c, worker_id, now)
        found = _next(c, worker_id, now, ctx.settings.lease_seconds)
        if found is None:
            return Response(status_code=status.HTTP_204_NO_CONTENT)
        job, trial = found
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
            train=job.train,
            judge=job.judge,
            checkpoint=trial.checkpoint,
            goal=trial.goal,
            device_seconds=trial.device_seconds,
            weights=None if trial.weights_of is None else alias_promotion.weights(c, trial.weights_of),
        )


@router.post("/trials/{trial_id}/heartbeat", summary="Renew a lease")
def heartbeat(ctx: Ctx, trial_id: TrialId, beat: Heartbeat) -> Directive:
    """Carries the curves home. The answer tells the worker to stop when the job has ended, its budget is spent or
    somebody stopped the trial, and to give the trial back when the job is paused."""
    now = utc_now()
    with ctx.database.begin() as c:
        trial = leases.renew(c, trial_id, beat, now, ctx.settings.lease_seconds, beat.device_seconds)
        workers.touch(c, beat.owner, now)
        measurements.add(c, trial_id, beat.points)
        measurements.add_lines(c, trial_id, beat.fence, beat.lines)
        job = jobs.get(c, trial.job_id)
        reason = _stop_reason(job, trial, trials.of_job(c, job.id), now) or (STOPPED if trial.stopped else None)
    assert trial.expires_at is not None  # it has just been renewed
    if reason is None and job.paused:
        return Directive(action="pause", expires_at=trial.expires_at)
    return Directive(action="stop" if reason else "continue", reason=reason, expires_at=trial.expires_at)


@router.post("/trials/{trial_id}/checkpoint", summary="Save a checkpoint", status_code=status.HTTP_204_NO_CONTENT)
def checkpoint(ctx: Ctx, trial_id: TrialId, saved: CheckpointSaved) -> None:
    """The blobs are uploaded first. The checkpoint before is forgotten."""
    for digest in (saved.manifest, *saved.blobs):
        ctx.blobs.size(digest)
    with ctx.database.begin() as c:
        before = leases.save_checkpoint(c, trial_id, saved)
    if before is not None:
        ctx.garbage.forsake({before, *_manifest(ctx, before)})


@router.post("/trials/{trial_id}/rung", summary="Report a rung")
def rung(ctx: Ctx, trial_id: TrialId, reached: RungReached) -> RungVerdict:
    """The answer says whether to go on, and to which rung, or to pause: at its goal a trial goes on if it is among the
    best third of those that were scored there, or of its own sort, and what is left of the budget will do for it."""
    now = utc_now()
    with ctx.database.begin() as c:
        job = jobs.lock(c, trials.get(c, trial_id).job_id)
        trial = leases.reach_rung(c, trial_id, reached, now)
        while trial.goal is not None and reached.rung >= trial.goal:
            try:
                past = history.past(job, rows := trials.of_job(c, job.id))
            except MissingMetric as error:
                raise UserError(error.message, param=error.param) from error
            worker_count = len(workers.live(c, now, ctx.settings.lease_seconds))
            if not goes_on(past, trial.number, budget.remaining(job, rows, worker_count, now)):
                return RungVerdict(action="pause", goal=trial.goal)
            events.goes_on(c, trial, now)
            trial = leases.raise_goal(c, trial_id, reached, asha.above(trial.goal))
    return RungVerdict(action="continue", goal=trial.goal)


@router.post("/trials/{trial_id}/judged", summary="Report the validation score")
def judged(ctx: Ctx, trial_id: TrialId, report: Judged) -> Keep:
    """The answer says whether the weights are worth keeping, those of the finalists so far and of the baselines, and
    whether the test rows are to be scored: theirs, and those of what is trained from other seeds to confirm them."""
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


@router.post("/trials/{trial_id}/finish", summary="End a lease")
def finish(ctx: Ctx, trial_id: TrialId, report: Finished) -> Trial:
    """Sending it again is harmless. The next trial is proposed before the answer, so that the worker finds work."""
    now = utc_now()
    trial = settle(ctx, trial_id, report, now)
    look_after(ctx, trial.job_id, now)
    with ctx.database.read() as c:
        confirms = history.repeats(trials.of_job(c, trial.job_id)).get(trial.number)
    return serializers.trial(trial, confirms)


def _next(c: Connection, worker_id: str, now: datetime, lease_seconds: float) -> tuple[JobRecord, TrialRecord] | None:
    """Lease a trial; what a spent budget leaves behind, and a champion that cannot be scored, ends on the way."""
    while (trial := leases.acquire(c, worker_id, now, lease_seconds)) is not None:
        job = jobs.get(c, trial.job_id)
        unfit = None if trial.weights_of is None else alias_promotion.unfit(c, job, trial.weights_of)
        if unfit is None and _stop_reason(job, trial, trials.of_job(c, job.id), now) is None:
            return job, trial
        given_up = Finished(
            owner=worker_id,
            fence=trial.fence,
            outcome="cancelled" if unfit is None else "failed",
            device_seconds=trial.device_seconds,
            error=unfit,
        )
        leases.finish(c, trial.id, given_up, now)
        trials.cancel_waiting(c, job.id, now)
    return None


def _stop_reason(job: JobRecord, trial: TrialRecord, rows: list[TrialRecord], now: datetime) -> str | None:
    if job.state.terminal:
        return f"the job is {job.state}"
    return None if trial.origin == "champion" else budget.overrun(job, rows, now)


def _manifest(ctx: Context, digest: str) -> list[str]:
    """Digests of the blobs that a checkpoint's manifest names."""
    with ctx.blobs.open(digest) as stream:
        return list(json.load(stream).values())
