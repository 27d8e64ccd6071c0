"""The workers' side of completions: requests out, streamed answers back. Messages are in `luthier.worker_protocol`."""

from __future__ import annotations

import time
from typing import Annotated, Final

import anyio
from fastapi import APIRouter, Path, Request, Response, status
from starlette.concurrency import run_in_threadpool

from luthier.store import generations, workers
from luthier.worker_protocol import Generation, Offer, Said, Spoken
from service.context import Context, Ctx, utc_now

router = APIRouter(prefix="/v1", tags=["Workers"])

GenerationId = Annotated[str, Path(description="id of a question that the worker answers", examples=["chatcmpl-5f2a"])]

OFFER_SECONDS: Final = 5.0  # that an offer stands: a service that is stopped waits for its answer
GLANCE_SECONDS: Final = 0.1  # between looks at what has arrived at this replica
LOOK_SECONDS: Final = 1.0  # between looks into the store, for what has arrived at others


@router.post(
    "/workers/{worker_id}/generation",
    summary="Offer to answer",
    response_model=Generation,
    responses={204: {"description": "Nobody asks"}},
)
async def offer(ctx: Ctx, request: Request, worker_id: str, body: Offer) -> Generation | Response:
    """Waits some seconds for a question. A worker whose generation process runs is asked before all others."""
    end = time.monotonic() + OFFER_SECONDS
    await run_in_threadpool(_touch, ctx, worker_id)
    while time.monotonic() < end and not await request.is_disconnected():
        seen, looked = ctx.questions.count, time.monotonic()
        found = await run_in_threadpool(_acquire, ctx, worker_id, body)
        if found is not None:
            return found
        while ctx.questions.count == seen and time.monotonic() < min(end, looked + LOOK_SECONDS):
            await anyio.sleep(GLANCE_SECONDS)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.post("/generations/{generation_id}/pieces", summary="Say more", status_code=status.HTTP_204_NO_CONTENT)
def say(ctx: Ctx, generation_id: GenerationId, said: Said) -> None:
    """409 `lease_lost` where nobody wants the answer any more."""
    now = utc_now()
    with ctx.database.begin() as c:
        generations.say(c, generation_id, said, now, ctx.settings.lease_seconds)


@router.post("/generations/{generation_id}/end", summary="End an answer", status_code=status.HTTP_204_NO_CONTENT)
def end(ctx: Ctx, generation_id: GenerationId, spoken: Spoken) -> None:
    """Says how it ended, or gives the question back. Sending it again is harmless."""
    with ctx.database.begin() as c:
        generations.end(c, generation_id, spoken)
    if spoken.answer is None:
        ctx.questions.arrived()


def _touch(ctx: Context, worker_id: str) -> None:
    with ctx.database.begin() as c:
        workers.touch(c, worker_id, utc_now())


def _acquire(ctx: Context, worker_id: str, body: Offer) -> Generation | None:
    with ctx.database.read() as c:
        if not generations.waiting(c) and workers.get(c, worker_id).generates == body.generates:
            return None
    with ctx.database.begin() as c:
        return generations.acquire(c, worker_id, body.generates, utc_now(), ctx.settings.lease_seconds)
