"""Fine-tuning jobs, in OpenAI's format."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import APIRouter, Body, Request

from luthier.api_types import CheckpointPage, Event, Job, Page
from luthier.errors import UserError
from luthier.store import events as log
from luthier.store import jobs
from service.context import Ctx, utc_now
from service.jobs import create, events, extend, lifecycle, reconcile
from service.jobs.expected import expected
from service.results import checkpoints, queries, serializers
from service.schemas.params import After, JobId, Limit, OfSchedule, Tags
from service.schemas.requests import CreateJob, DescribeJob, ExtendJob

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["Fine-tuning jobs"])

OPTIONS: Final = ("after", "limit", "tag", "schedule_id")  # of the listing, besides metadata[key]
METADATA: Final = re.compile(r"metadata\[(.*)\]", re.DOTALL)

EXAMPLES: Final = {
    "auto": {
        "summary": "Let the service design everything",
        "value": {"training_file": "file-5f2ab0", "search": {"trials": 12}},
    },
    "openai": {
        "summary": "OpenAI's request body",
        "value": {
            "training_file": "file-5f2ab0",
            "model": "tiny-chat",
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
            "suffix": "support",
        },
    },
    "environment": {
        "summary": "Learn from an environment, which generates the rows and scores the answers",
        "value": {
            "task": {"environment": {"name": "reasoning_gym/chain_sum", "options": {"max_digits": 1}, "rows": 256}},
            "search": {"trials": 12},
        },
    },
    "graded": {
        "summary": "Search for the highest grade, within an hour of device time",
        "value": {
            "training_file": "file-5f2ab0",
            "task": {"grader": {"type": "string_check", "operation": "ilike"}},
            "search": {"trials": 24, "device_seconds": 3600, "pin": {"update": ["lora", "full"]}},
        },
    },
}


@router.post("", summary="Create a job")
def create_job(ctx: Ctx, body: Annotated[CreateJob, Body(openapi_examples=EXAMPLES)]) -> Job:
    """The request is checked completely before anything is queued; then the rows are split and the judge is frozen.

    With `method` left out, or of type `auto`, the service searches over algorithm, weight update and architecture.
    `supervised` and `dpo` pin the algorithm; `reinforcement` pins it to the algorithms that maximise a reward. A
    hyperparameter is "auto" or a pin on the search. `luthier.expected` says what the budget is expected to buy, with a
    warning where it is too small.
    """
    now = utc_now()
    admitted = create.admit(ctx, body, now)
    with ctx.database.begin() as c:
        create.queue(c, admitted, now)
        found = expected(ctx, c, admitted.job, admitted.designs, now)
        if found.warning is not None:
            events.small_budget(c, admitted.job, found.warning, now)
        job = queries.job(c, admitted.job)
        return job.model_copy(update={"luthier": job.luthier.model_copy(update={"expected": found})})


@router.get("", summary="List the jobs")
def list_jobs(
    ctx: Ctx,
    request: Request,
    after: After = None,
    limit: Limit = 20,
    tags: Tags = (),
    schedule_id: OfSchedule = None,
) -> Page[Job]:
    """Newest first. `metadata[key]=value` and `tag` may be repeated; only jobs with all of them are listed."""
    metadata = _metadata_filter(request)
    with ctx.database.read() as c:
        records, has_more = jobs.list_(c, after, limit, metadata, tags=tags, schedule_id=schedule_id)
        return Page(data=tuple(queries.job(c, record) for record in records), has_more=has_more)


@router.get("/{job_id}", summary="Get a job")
def get_job(ctx: Ctx, job_id: JobId) -> Job:
    """`luthier` holds what OpenAI's format has no field for: progress, the best so far, the request."""
    with ctx.database.read() as c:
        return queries.job(c, jobs.get(c, job_id), ctx)


@router.patch("/{job_id}", summary="Set notes and tags")
def describe_job(ctx: Ctx, job_id: JobId, body: DescribeJob) -> Job:
    """Possible at any time. It does not affect the search."""
    with ctx.database.begin() as c:
        jobs.describe(c, job_id, body.notes, body.tags and tuple(dict.fromkeys(body.tags)))
        return queries.job(c, jobs.get(c, job_id))


@router.post("/{job_id}/cancel", summary="Cancel a job")
def cancel_job(ctx: Ctx, job_id: JobId) -> Job:
    """Waiting trials are dropped at once, running ones stop at their next heartbeat. The best trial so far is kept."""
    with ctx.database.begin() as c:
        return queries.job(c, lifecycle.cancel(ctx, c, job_id, utc_now()))


@router.post("/{job_id}/pause", summary="Pause a job")
def pause_job(ctx: Ctx, job_id: JobId) -> Job:
    """Running trials save a checkpoint at their next heartbeat and are given back. No trial starts until the job is
    resumed. The status does not change; `luthier.paused` is true. Pausing a paused job changes nothing."""
    with ctx.database.begin() as c:
        return queries.job(c, lifecycle.pause(c, job_id, utc_now()))


@router.post("/{job_id}/resume", summary="Resume a paused job")
def resume_job(ctx: Ctx, job_id: JobId) -> Job:
    """Each trial resumes from its checkpoint. Resuming a job that is not paused changes nothing."""
    now = utc_now()
    with ctx.database.begin() as c:
        lifecycle.resume(c, job_id, now)
    reconcile.advance(ctx, job_id, now)
    with ctx.database.read() as c:
        return queries.job(c, jobs.get(c, job_id))


@router.post("/{job_id}/extend", summary="Extend a job")
def extend_job(ctx: Ctx, job_id: JobId, body: ExtendJob) -> Job:
    """A search that has ended goes on with more `trials`, more `device_seconds` or a later `deadline`. No trial is
    repeated. The model of the job stays in use until it ends again; then the best design, its model and the aliases
    that point to it may change. A job that has not ended, failed or was cancelled cannot be extended."""
    now = utc_now()
    record = extend.extend(ctx, job_id, body, now)
    with ctx.database.read() as c:
        return queries.job(c, record)


@router.get("/{job_id}/checkpoints", summary="List a job's checkpoints")
def list_checkpoints(ctx: Ctx, job_id: JobId, after: After = None, limit: Limit = 10) -> CheckpointPage:
    """Where its trials were scored on held-out rows, at rungs and at their ends, newest first. The final weights of the
    best trials are kept and can be used as a model under the checkpoint's name."""
    with ctx.database.read() as c:
        return checkpoints.page(c, job_id, after, limit)


@router.get("/{job_id}/events", summary="List a job's events")
def list_events(ctx: Ctx, job_id: JobId, after: After = None, limit: Limit = 20) -> Page[Event]:
    """Newest first."""
    with ctx.database.read() as c:
        jobs.get(c, job_id)
        records, has_more = log.list_(c, job_id, after, limit)
    return Page(data=tuple(map(serializers.event, records)), has_more=has_more)


def _metadata_filter(request: Request) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if found := METADATA.fullmatch(name):
            wanted[found[1]] = value
        elif name not in OPTIONS:
            expected = f"{', '.join(OPTIONS)} and metadata[key]"
            raise UserError(f"Unknown query parameter {name!r}; expected {expected}.", param=name)
    return wanted
