"""Fine-tuning jobs, in OpenAI's shape."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import APIRouter, Body, Path, Request

from luthier.api_types import CheckpointPage, Event, Job, Page
from luthier.errors import Conflict, NotFound, UserError
from luthier.store import Connection, events, files, jobs, trials
from luthier.store.rows import JobRecord
from luthier.trial import JobState
from service.api.params import After, Limit, OfSchedule, Tags
from service.context import Context, Ctx, utc_now
from service.jobs import budget, costs, lifecycle
from service.jobs import events as diary
from service.jobs.create import admit
from service.jobs.reconcile import look_after
from service.results import checkpoints, serializers
from service.schemas.requests import CreateJob, DescribeJob

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["Fine-tuning jobs"])

JobId = Annotated[str, Path(description="id of a fine-tuning job", examples=["ftjob-7c91d4"])]

OPTIONS: Final = ("after", "limit", "tag", "schedule_id")  # of the list; and metadata, by key
METADATA: Final = re.compile(r"metadata\[(.*)\]", re.DOTALL)

EXAMPLES: Final = {
    "auto": {
        "summary": "Let the service design everything",
        "value": {"training_file": "file-5f2ab0", "search": {"trials": 12}},
    },
    "openai": {
        "summary": "OpenAI's own body",
        "value": {
            "training_file": "file-5f2ab0",
            "model": "tiny-chat",
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
            "suffix": "support",
        },
    },
    "environment": {
        "summary": "Learn from an environment, which makes the rows and scores the answers",
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
    """Everything is checked before anything is queued; then the rows are split and the judge is frozen.

    `method` left out, or of type `auto`, lets the service search over algorithm, weight update and architecture;
    `supervised` and `dpo` pin the algorithm, `reinforcement` pins it to those that maximise a reward. A hyperparameter
    is "auto" or a pin on the search.
    """
    now = utc_now()
    admitted = admit(ctx, body, now)
    with ctx.database.begin() as c:
        if admitted.generated is not None:
            files.insert(c, admitted.generated)
        jobs.insert(c, admitted.job)
        diary.created(c, admitted.job, admitted.filename, admitted.notes, now)
        return _view(c, admitted.job)


@router.get("", summary="List the jobs")
def list_jobs(
    ctx: Ctx,
    request: Request,
    after: After = None,
    limit: Limit = 20,
    tags: Tags = (),
    schedule_id: OfSchedule = None,
) -> Page[Job]:
    """Newest first; `metadata[key]=value` and `tag`, any number of times, keep the jobs that carry all of these."""
    wanted = _metadata_filter(request)
    with ctx.database.read() as c:
        records, has_more = jobs.list_(c, after, limit, wanted, tags=tags, schedule_id=schedule_id)
        return Page(data=tuple(_view(c, record) for record in records), has_more=has_more)


@router.get("/{job_id}", summary="Look at one job")
def get_job(ctx: Ctx, job_id: JobId) -> Job:
    """`luthier` holds what OpenAI's shape has no place for: progress, the best so far, what was asked for."""
    with ctx.database.read() as c:
        return _view(c, jobs.get(c, job_id), ctx)


@router.patch("/{job_id}", summary="Write notes and tags")
def describe_job(ctx: Ctx, job_id: JobId, body: DescribeJob) -> Job:
    """What people write beside a job, at any time. It changes nothing of the search."""
    with ctx.database.begin() as c:
        jobs.describe(c, job_id, body.notes, body.tags and tuple(dict.fromkeys(body.tags)))
        return _view(c, jobs.get(c, job_id))


@router.post("/{job_id}/cancel", summary="Cancel a job")
def cancel_job(ctx: Ctx, job_id: JobId) -> Job:
    """Waiting trials are dropped at once, running ones stop at their next heartbeat. The best so far stays."""
    now = utc_now()
    with ctx.database.begin() as c:
        return _view(c, lifecycle.cancel(ctx, c, job_id, now))


@router.post("/{job_id}/pause", summary="Pause a job")
def pause_job(ctx: Ctx, job_id: JobId) -> Job:
    """Running trials save a checkpoint at their next heartbeat and are given back; nothing is started until the job is
    resumed. Its status stays as it is, and `luthier.paused` says so. Pausing it again changes nothing."""
    now = utc_now()
    with ctx.database.begin() as c:
        changed = jobs.pause(c, job_id)
        record = jobs.get(c, job_id)
        if record.state.terminal:
            raise Conflict(f"job {job_id} has ended already: it is {record.state}")
        if changed:
            diary.paused(c, record, budget.running(trials.of_job(c, job_id)), now)
        return _view(c, record)


@router.post("/{job_id}/resume", summary="Resume a paused job")
def resume_job(ctx: Ctx, job_id: JobId) -> Job:
    """Each trial goes on from its checkpoint. Resuming a job that is not paused changes nothing."""
    now = utc_now()
    with ctx.database.begin() as c:
        changed = jobs.resume(c, job_id)
        record = jobs.get(c, job_id)
        if record.state.terminal:
            raise Conflict(f"job {job_id} has ended already: it is {record.state}")
        if changed:
            diary.resumed(c, record, now)
    look_after(ctx, job_id, now)
    with ctx.database.read() as c:
        return _view(c, jobs.get(c, job_id))


@router.get("/{job_id}/checkpoints", summary="List a job's checkpoints")
def list_checkpoints(ctx: Ctx, job_id: JobId, after: After = None, limit: Limit = 10) -> CheckpointPage:
    """Where its trials were scored on held-out rows, at rungs and at their ends, newest first. The weights of the best
    trials are kept at their ends, and answer under the name of the checkpoint."""
    with ctx.database.read() as c:
        found = checkpoints.of_job(c, jobs.get(c, job_id))
    ids = [checkpoint.id for checkpoint in found]
    if after is not None and after not in ids:
        raise NotFound(f"there is no {after!r} to continue after", param="after")
    start = 0 if after is None else ids.index(after) + 1
    shown = ids[start : start + limit]
    return CheckpointPage(
        data=tuple(found[start : start + limit]),
        has_more=start + limit < len(ids),
        first_id=shown[0] if shown else None,
        last_id=shown[-1] if shown else None,
    )


@router.get("/{job_id}/events", summary="Read a job's events")
def list_events(ctx: Ctx, job_id: JobId, after: After = None, limit: Limit = 20) -> Page[Event]:
    """Newest first."""
    with ctx.database.read() as c:
        jobs.get(c, job_id)
        records, has_more = events.list_(c, job_id, after, limit)
    return Page(data=tuple(map(serializers.event, records)), has_more=has_more)


def _view(c: Connection, record: JobRecord, ctx: Context | None = None) -> Job:
    """With `here` the finish is estimated from costs, which a listing does without."""
    rows, now = trials.of_job(c, record.id), utc_now()
    expected = None
    if ctx is not None and record.state is JobState.RUNNING:
        expected = costs.work_left(ctx, c, record, rows, now)
    return serializers.job(record, rows, now, expected)


def _metadata_filter(request: Request) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if found := METADATA.fullmatch(name):
            wanted[found[1]] = value
        elif name not in OPTIONS:
            expected = f"{', '.join(OPTIONS)} and metadata[key]"
            raise UserError(f"there is no option {name!r} here; expected {expected}", param=name)
    return wanted
