"""For whatever watches over the service."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from luthier.store import jobs
from service.background import Pulse
from service.context import Ctx

router = APIRouter(tags=["Health"])


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="Can it serve?", responses={503: {"description": "Not yet, or not any more"}})
def readyz(ctx: Ctx, request: Request) -> JSONResponse:
    """200 when the store answers and all loops of this process go round: `loops` has for each how many seconds ago it
    last got something done. What is wrong is in `status`."""
    with ctx.database.read() as c:
        active = len(jobs.active(c))
    pulses: list[Pulse] = [loop.pulse for loop in request.app.state.loops]
    troubles = [trouble for pulse in pulses if (trouble := pulse.trouble()) is not None]
    content = {
        "status": "; ".join(troubles) or "ready",
        "active_jobs": active,
        "loops": {pulse.name: round(pulse.age, 1) for pulse in pulses},
    }
    return JSONResponse(content, status_code=503 if troubles else 200)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "In Prometheus's text format"}},
)
def metrics(request: Request) -> Response:
    """Jobs and trials by state, the queue, live workers and device-seconds from the store; how long this process took
    to answer requests."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
