"""For whatever watches over the service."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from luthier.store import jobs
from service.context import Here

router = APIRouter(tags=["Health"])


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="Can it serve?", responses={503: {"description": "Not yet, or not any more"}})
def readyz(here: Here, request: Request) -> JSONResponse:
    """200 when the store answers and the loop that looks after jobs is running."""
    with here.database.read() as c:
        active = len(jobs.active(c))
    ticking: bool = request.app.state.ticker.alive()
    content = {"status": "ready" if ticking else "the job loop has stopped", "active_jobs": active}
    return JSONResponse(content, status_code=200 if ticking else 503)


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
