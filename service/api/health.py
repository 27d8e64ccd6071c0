"""Health checks and metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from luthier.store import jobs
from service.background import Liveness
from service.context import Ctx

router = APIRouter(tags=["Health"])


@router.get("/healthz", summary="Check that the process is alive")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get(
    "/readyz", summary="Check that the service is ready", responses={503: {"description": "The service is not ready"}}
)
def readyz(ctx: Ctx, request: Request) -> JSONResponse:
    """200 if the store responds and all background loops of this process make progress. `loops` has, for each, the
    seconds since its last progress. `status` says what is wrong."""
    with ctx.database.read() as c:
        active = len(jobs.active(c))
    loops: list[Liveness] = [loop.liveness for loop in request.app.state.loops]
    problems = [problem for loop in loops if (problem := loop.problem()) is not None]
    content = {
        "status": "; ".join(problems) or "ready",
        "active_jobs": active,
        "loops": {loop.name: round(loop.age, 1) for loop in loops},
    }
    return JSONResponse(content, status_code=503 if problems else 200)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus's text format"}},
)
def metrics(request: Request) -> Response:
    """From the store: jobs and trials by state, the queue length, live workers, device-seconds. From this process: the
    latency of requests."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
