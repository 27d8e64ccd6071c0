"""Estimates of designs, and the design space of a job before it is created."""

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
        "summary": "A job's best design so far, with full fine-tuning, on a GPU with 24 GB",
        "value": {
            "job": "ftjob-7c91d4",
            "change": {"update": "full"},
            "device": {"kind": "cuda", "memory_bytes": 24_000_000_000},
        },
    },
}


@router.post("/estimate", summary="Estimate memory, time and cost of a design")
def estimate_design(ctx: Ctx, body: Annotated[EstimateDesign, Body(openapi_examples=EXAMPLES)]) -> DesignEstimate:
    """Nothing is trained. With a `change`, the response also has the estimate of the unchanged design."""
    with ctx.database.read() as c:
        return estimate.answer(ctx, c, body, utc_now())


@router.post("/space", summary="Get the design space of a job")
def look_at_space(ctx: Ctx, body: LookAtSpace) -> DesignSpace:
    """Takes the body of POST /v1/fine_tuning/jobs. Lists every member of each axis: whether it is legal for the data
    and the base models, the reason if it is not, and whether the job would search it. `problem` says what is wrong with
    the request. The expected cost of the job is included. Nothing is queued.
    """
    return preview.answer(ctx, body, utc_now())
