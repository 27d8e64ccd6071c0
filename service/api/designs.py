"""Designs by themselves: what one would take, with nothing trained."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Body

from luthier.api_types import DesignEstimate, DesignSpace
from service.context import Ctx, utc_now
from service.jobs import estimate, preview
from service.schemas.requests import EstimateDesign, LookAtSpace

router = APIRouter(prefix="/v1/designs", tags=["Designs"])

EXAMPLES: Final = {
    "rank": {
        "summary": "The plain LoRA default on a file, with rank 64",
        "value": {"model": "tiny-chat", "dataset": "file-5f2ab0", "change": {"rank": 64}},
    },
    "full": {
        "summary": "A job's best design so far, with all weights trained, on a card with 24 GB",
        "value": {
            "job": "ftjob-7c91d4",
            "change": {"update": "full"},
            "device": {"kind": "cuda", "memory_bytes": 24_000_000_000},
        },
    },
}


@router.post("/estimate", summary="Estimate memory, time and cost of a design")
def estimate_design(ctx: Ctx, body: Annotated[EstimateDesign, Body(openapi_examples=EXAMPLES)]) -> DesignEstimate:
    """Nothing is trained. Where a change is asked for, the same for the design without it stands beside the answer."""
    with ctx.database.read() as c:
        return estimate.answer(ctx, c, body, utc_now())


@router.post("/space", summary="What a job would search, and why the rest is not legal")
def look_at_space(ctx: Ctx, body: LookAtSpace) -> DesignSpace:
    """Takes the body of POST /v1/fine_tuning/jobs. Every member of each axis is listed: whether it is legal for the
    data and the base models, why not where it is not, and whether the job would try it. What is wrong with the request
    is its `problem`. Beside that stands what the job would take. Nothing is queued.
    """
    return preview.answer(ctx, body, utc_now())
