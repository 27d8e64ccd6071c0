"""The data of a job's charts, by column and thinned."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from luthier.api_types import Curves, Landscape, Timeline
from luthier.trial import TRAIN_LOSS
from service.context import Ctx
from service.results import charts
from service.schemas.params import JobId

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["Results"])


@router.get("/curves", summary="Get one curve of all trials")
def get_curves(
    ctx: Ctx,
    job_id: JobId,
    name: Annotated[str, Query(description="which curve", max_length=64)] = TRAIN_LOSS,
    points: Annotated[int, Query(description="most points per trial", ge=4, le=100_000)] = 200,
) -> Curves:
    """Includes the rungs at which trials were scored. Longer curves are thinned; `…/trials/{id}/points` has every
    point."""
    with ctx.database.read() as c:
        return charts.curves(c, job_id, name, points)


@router.get("/landscape", summary="Compare all designs")
def get_landscape(ctx: Ctx, job_id: JobId) -> Landscape:
    """Every scored design by column: its value on each axis, its score, size and cost; and the importance of each
    axis."""
    with ctx.database.read() as c:
        return charts.landscape(ctx, c, job_id)


@router.get("/timeline", summary="Get the timeline of the workers")
def get_timeline(ctx: Ctx, job_id: JobId) -> Timeline:
    """Every lease of the job's trials, by worker."""
    with ctx.database.read() as c:
        return charts.timeline(c, job_id)
