"""Trials: their designs in words, curves, logs, answers and weights; and designs that users add or stop."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Body, Query
from fastapi.responses import StreamingResponse

from luthier.api_types import Page, Trial, TrialDetails, TrialLine, TrialSample
from luthier.store import measurements, trials
from luthier.trial import Point
from service.api.downloads import TAR, tar_of
from service.context import Ctx, utc_now
from service.jobs import manual_trials
from service.results import card, queries, weights
from service.results import trials as views
from service.schemas.params import After, JobId, TrialId
from service.schemas.requests import AddTrial

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}/trials", tags=["Results"])

EXAMPLES: Final = {
    "change": {"summary": "Trial 4 with another rank", "value": {"trial": "4", "change": {"rank": 64}}},
    "best": {"summary": "The best so far, with full fine-tuning", "value": {"change": {"update": "full"}}},
}


@router.get("", summary="List a job's trials")
def list_trials(
    ctx: Ctx,
    job_id: JobId,
    after: After = None,
    limit: Annotated[int, Query(description="trials on one page", ge=1, le=10_000)] = 1000,
) -> Page[Trial]:
    """In the order in which they were proposed. Trial 0 is the untuned base model, trial 1 the plain LoRA default."""
    with ctx.database.read() as c:
        return views.listing(c, job_id, after, limit)


@router.post("", summary="Add a design")
def add_trial(ctx: Ctx, job_id: JobId, body: Annotated[AddTrial, Body(openapi_examples=EXAMPLES)]) -> Trial:
    """It counts towards the job's trials and is trained to the end, without halving. It must be legal for the data and
    the base models of the job, and fit a live worker.

    409 if the job is not running, has no trial left, or already has this design.
    """
    added = manual_trials.add(ctx, job_id, body, utc_now())
    with ctx.database.read() as c:
        return queries.trial(c, added)


@router.get("/{trial_id}", summary="Get a trial")
def get_trial(ctx: Ctx, job_id: JobId, trial_id: TrialId) -> TrialDetails:
    """Adds to the listing: the design in sentences, and the weights that are kept."""
    with ctx.database.read() as c:
        return views.details(c, trials.named(c, job_id, trial_id))


@router.post("/{trial_id}/cancel", summary="Stop a trial")
def cancel_trial(ctx: Ctx, job_id: JobId, trial_id: TrialId) -> Trial:
    """A running trial stops at its next heartbeat; the job continues with the others. 409 for a trial that has
    ended."""
    stopped = manual_trials.stop(ctx, job_id, trial_id, utc_now())
    with ctx.database.read() as c:
        return queries.trial(c, stopped)


@router.get("/{trial_id}/points", summary="Get a trial's curves")
def list_points(
    ctx: Ctx,
    job_id: JobId,
    trial_id: TrialId,
    name: Annotated[str | None, Query(description="only this curve", examples=["train_loss"])] = None,
) -> Page[Point]:
    """By stage, name and step."""
    with ctx.database.read() as c:
        trial = trials.named(c, job_id, trial_id)
        return Page(data=tuple(measurements.of_trial(c, trial.id, name)))


@router.get("/{trial_id}/log", summary="Get a trial's log")
def get_log(
    ctx: Ctx,
    job_id: JobId,
    trial_id: TrialId,
    limit: Annotated[int, Query(description="the last lines, at most so many", ge=1, le=10_000)] = 1000,
) -> Page[TrialLine]:
    """What its workers logged, oldest first."""
    with ctx.database.read() as c:
        return views.log(c, trials.named(c, job_id, trial_id), limit)


@router.get("/{trial_id}/samples", summary="Get a trial's sample answers")
def get_samples(ctx: Ctx, job_id: JobId, trial_id: TrialId) -> Page[TrialSample]:
    """Short greedy answers to the first validation prompts, beside those of the untuned base. Only trials whose weights
    were kept at their end have any; encoders have none."""
    with ctx.database.read() as c:
        return Page(data=views.samples(c, trials.named(c, job_id, trial_id)))


@router.get(
    "/{trial_id}/artifact", summary="Download a trial's weights", response_class=StreamingResponse, responses=TAR
)
def get_trial_artifact(
    ctx: Ctx,
    job_id: JobId,
    trial_id: TrialId,
    form: Annotated[weights.Stored, Query(alias="format", description="one of the trial's `artifacts`")] = "merged",
) -> StreamingResponse:
    """The weights of the finalists and of the LoRA default are kept, no others."""
    with ctx.database.read() as c:
        trial = trials.named(c, job_id, trial_id)
        artifact = weights.of_trial(c, trial, form)
        added = card.section(c, weights.named(c, ctx, job_id, trial.id))
    return tar_of(ctx, trial, artifact, f"{job_id}-trial-{trial.number}-{form}.tar", card=added)
