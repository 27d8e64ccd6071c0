"""The worker protocol: registration, leases, heartbeats, checkpoints, scores. See `luthier.worker_protocol`."""

from __future__ import annotations

from fastapi import APIRouter, Response, status

from luthier.api_types import Page, Trial, Worker
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
from service.context import Ctx, utc_now
from service.jobs import leases
from service.results import queries
from service.schemas.params import LeasedTrialId

router = APIRouter(prefix="/v1", tags=["Workers"])


@router.post("/workers", summary="Register a worker")
def register(ctx: Ctx, hello: Hello) -> Welcome:
    """A worker that returns under the same name gives up the leases that it held before."""
    worker, settings = leases.register(ctx, hello, utc_now()), ctx.settings
    return Welcome(
        worker_id=worker.id,
        lease_seconds=settings.lease_seconds,
        checkpoint_seconds=settings.checkpoint_seconds,
        poll_seconds=settings.poll_seconds,
        generation_idle_seconds=settings.generation_idle_seconds,
    )


@router.get("/workers", summary="List the workers")
def list_workers(ctx: Ctx) -> Page[Worker]:
    """All workers that ever registered. `live`: the worker was heard from within the length of a lease."""
    with ctx.database.read() as c:
        return Page(data=queries.all_workers(ctx, c, utc_now()))


@router.post(
    "/workers/{worker_id}/lease",
    summary="Lease a trial",
    response_model=Assignment,
    responses={204: {"description": "There is nothing to do"}},
)
def lease(ctx: Ctx, worker_id: str) -> Assignment | Response:
    """Returns a waiting trial of the oldest running job with budget left: the highest rung first, then the lowest
    number. Paused trials are not leased until they are promoted."""
    return leases.acquire(ctx, worker_id, utc_now()) or Response(status_code=status.HTTP_204_NO_CONTENT)


@router.post("/trials/{trial_id}/heartbeat", summary="Renew a lease")
def heartbeat(ctx: Ctx, trial_id: LeasedTrialId, beat: Heartbeat) -> Directive:
    """Delivers new points of curves and log lines. The response tells the worker to stop when the job has ended, the
    budget is spent or a user stopped the trial, and to give the trial back when the job is paused."""
    return leases.heartbeat(ctx, trial_id, beat, utc_now())


@router.post("/trials/{trial_id}/checkpoint", summary="Save a checkpoint", status_code=status.HTTP_204_NO_CONTENT)
def checkpoint(ctx: Ctx, trial_id: LeasedTrialId, saved: CheckpointSaved) -> None:
    """The blobs must be uploaded first. The previous checkpoint is deleted."""
    leases.save_checkpoint(ctx, trial_id, saved)


@router.post("/trials/{trial_id}/rung", summary="Report a rung")
def rung(ctx: Ctx, trial_id: LeasedTrialId, reached: RungReached) -> RungVerdict:
    """Returns whether the trial continues, and to which rung, or pauses. At its goal it continues if it ranks in the
    top third at that rung (of all trials, or of those with the same objective sequence) and the remaining budget
    covers it."""
    return leases.reach_rung(ctx, trial_id, reached, utc_now())


@router.post("/trials/{trial_id}/judged", summary="Report the validation score")
def judged(ctx: Ctx, trial_id: LeasedTrialId, report: Judged) -> Keep:
    """Returns whether to export the weights (the baselines and the best finalists so far) and whether to score the
    test rows (the same trials, and repeats with another seed)."""
    return leases.judge(ctx, trial_id, report)


@router.post("/trials/{trial_id}/finish", summary="End a lease")
def finish(ctx: Ctx, trial_id: LeasedTrialId, report: Finished) -> Trial:
    """Repeating the request is harmless. The next trial is queued before the response, so that the worker finds it."""
    trial = leases.finish(ctx, trial_id, report, utc_now())
    with ctx.database.read() as c:
        return queries.trial(c, trial)
