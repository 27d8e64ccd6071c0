"""A job as charts show it: by column, thinned, in one answer each."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from luthier.api_types import Curves, Landscape, Timeline
from luthier.store import events, jobs, measurements, trials
from luthier.trial import TRAIN_LOSS
from search.report.charts import landscape
from service.api.jobs import JobId
from service.context import Ctx
from service.results import charts, report

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["Results"])


@router.get("/curves", summary="Read one curve of all trials")
def get_curves(
    ctx: Ctx,
    job_id: JobId,
    name: Annotated[str, Query(description="which curve", max_length=64)] = TRAIN_LOSS,
    points: Annotated[int, Query(description="most points of one trial", ge=4, le=100_000)] = 200,
) -> Curves:
    """With the rungs at which trials were scored. Curves with more points are thinned; `…/trials/{id}/points` has them
    all."""
    with ctx.database.read() as c:
        job, rows = jobs.get(c, job_id), trials.marks(c, job_id)
        found, names, rungs = (
            measurements.of_job(c, job_id, name),
            measurements.names(c, job_id),
            trials.rungs(c, job_id),
        )
    return charts.curves(job, rows, name, names, found, rungs, points)


@router.get("/landscape", summary="Compare all designs")
def get_landscape(ctx: Ctx, job_id: JobId) -> Landscape:
    """Every scored design by column: its value on each axis, its score, size and cost, and what each axis was worth."""
    with ctx.database.read() as c:
        job = jobs.get(c, job_id)
        case = report.case_of(c, ctx, job, trials.of_job(c, job_id))
    return landscape(case)


@router.get("/timeline", summary="See what the workers did when")
def get_timeline(ctx: Ctx, job_id: JobId) -> Timeline:
    """Every lease of the job's trials, by worker."""
    with ctx.database.read() as c:
        jobs.get(c, job_id)
        return charts.timeline(events.telling(c, job_id))
