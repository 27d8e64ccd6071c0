"""A job's progress as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Final

import anyio
from fastapi import APIRouter, Header
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from luthier.api_types import CurvePoints, Event, Job, Trial
from service.context import Ctx
from service.results.live_updates import Follower, News
from service.schemas.params import After, JobId

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["Fine-tuning jobs"])

PING_SECONDS: Final = 15
STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Server-sent events, until the job has ended"}
}


@router.get("/events/stream", summary="Follow a job live", response_class=EventSourceResponse, responses=STREAM)
async def stream(
    ctx: Ctx,
    job_id: JobId,
    after: After = None,
    last_event_id: Annotated[str | None, Header(description="sent by browsers when they reconnect")] = None,
) -> EventSourceResponse:
    """Messages `job`, `trial` and `event` carry those resources; `points` carries new points of a trial's curves:
    `{"trial", "number", "points": [[name, stage, step, value], …]}`. A trial or the job is sent completely whenever it
    changes. The last message is `end`.

    The stream begins at the start of the job, or after the event with the id `after` or `Last-Event-ID`. It misses
    nothing then, but may repeat some messages.
    """
    follower = Follower(ctx, job_id, last_event_id or after)
    first = await run_in_threadpool(follower.look)
    return EventSourceResponse(_messages(follower, first, ctx.settings.tick_seconds), ping=PING_SECONDS)


async def _messages(follower: Follower, news: Sequence[News], pause: float) -> AsyncIterator[ServerSentEvent]:
    while True:
        for each in news:
            yield _message(each)
        if follower.over:
            break
        await anyio.sleep(pause)
        news = await run_in_threadpool(follower.look)
    yield ServerSentEvent(event="end", data="null")


def _message(news: News) -> ServerSentEvent:
    data = news.model_dump_json()
    match news:
        case Job():
            return ServerSentEvent(event="job", data=data)
        case Trial():
            return ServerSentEvent(event="trial", data=data)
        case CurvePoints():
            return ServerSentEvent(event="points", data=data)
        case Event():
            return ServerSentEvent(event="event", data=data, id=news.id)
