"""The workers' side of completions: questions out, streamed answers back. See `luthier.worker_protocol`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response, status

from luthier.worker_protocol import Generation, Offer, Said, Spoken
from service.context import Ctx, utc_now
from service.inference import dispatch
from service.schemas.params import GenerationId

router = APIRouter(prefix="/v1", tags=["Workers"])


@router.post(
    "/workers/{worker_id}/generation",
    summary="Wait for a completion request",
    response_model=Generation,
    responses={204: {"description": "There is no request"}},
)
async def offer(ctx: Ctx, request: Request, worker_id: str, body: Offer) -> Generation | Response:
    """Waits some seconds for a request. Workers whose generation process already runs come first."""
    found = await dispatch.next_question(ctx, worker_id, body, request.is_disconnected)
    return found or Response(status_code=status.HTTP_204_NO_CONTENT)


@router.post("/generations/{generation_id}/pieces", summary="Add to an answer", status_code=status.HTTP_204_NO_CONTENT)
def say(ctx: Ctx, generation_id: GenerationId, said: Said) -> None:
    """409 `lease_lost` if nobody waits for the answer any more."""
    dispatch.add_piece(ctx, generation_id, said, utc_now())


@router.post("/generations/{generation_id}/end", summary="End an answer", status_code=status.HTTP_204_NO_CONTENT)
def end(ctx: Ctx, generation_id: GenerationId, spoken: Spoken) -> None:
    """Reports how the answer ended, or gives the request back. Repeating the request is harmless."""
    dispatch.end_answer(ctx, generation_id, spoken)
