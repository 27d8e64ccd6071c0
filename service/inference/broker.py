"""Ask a question and yield a worker's answer piece by piece.

Questions and answers go through the store, as the worker may be connected to another replica. So this replica polls the
store while it waits for an answer.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta
from typing import Final

import anyio
from starlette.concurrency import run_in_threadpool

from luthier.errors import LuthierError, Stopped, Unreachable, tree
from luthier.store import generations, workers
from luthier.worker_protocol import Answered, GenerationState, Question
from service.context import Context, utc_now

POLL_SECONDS: Final = 0.05
WANTED_SECONDS: Final = 60.0  # a question lives so long after its replica is killed
RENEW_SECONDS: Final = 10.0
QUEUE_SECONDS: Final = 600.0

Gone = Callable[[], Awaitable[bool]]
Replies = AsyncGenerator[tuple[str, str | Answered], None]


async def answer(ctx: Context, prefix: str, question: Question, gone: Gone) -> Replies:
    """Yield the answer's id with each piece, and at last with how it ended. `gone`: whether the client disconnected.

    In any case the question is dropped at the end, and the worker stops at its next piece. Raises the error that the
    worker reported, Unreachable where there is no worker, and Stopped where the client disconnected.
    """
    generation_id = await run_in_threadpool(_ask, ctx, prefix, question)
    try:
        known, asked = 0, time.monotonic()
        renewed = asked
        while True:
            heard = await run_in_threadpool(_heard, ctx, generation_id, known)
            for piece in heard.pieces:
                yield generation_id, piece
            known += len(heard.pieces)
            if heard.answer is not None:
                if heard.answer.refusal is not None:
                    refusal = heard.answer.refusal
                    raise tree().get(refusal.code, LuthierError)(refusal.message, param=refusal.param)
                yield generation_id, heard.answer
                return
            if await gone():
                raise Stopped("the client has disconnected")
            now = time.monotonic()
            if now - renewed >= RENEW_SECONDS:
                renewed = now
                waiting = heard.state is GenerationState.WAITING
                await run_in_threadpool(_renew, ctx, generation_id, now - asked if waiting else 0.0)
            await anyio.sleep(POLL_SECONDS)
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(_drop, ctx, generation_id)


def _ask(ctx: Context, prefix: str, question: Question) -> str:
    now = utc_now()
    with ctx.database.begin() as c:
        if not workers.live(c, now, ctx.settings.lease_seconds):
            raise _nobody()
        generation_id = generations.ask(c, prefix, question, now, now + timedelta(seconds=WANTED_SECONDS))
    ctx.questions.arrived()
    return generation_id


def _heard(ctx: Context, generation_id: str, known: int) -> generations.Heard:
    with ctx.database.read() as c:
        heard = generations.heard(c, generation_id, known)
    if heard is None:
        raise Unreachable(f"{generation_id} was dropped: the service was interrupted for too long; ask again")
    return heard


def _renew(ctx: Context, generation_id: str, queued: float) -> None:
    now = utc_now()
    with ctx.database.begin() as c:
        if queued and not workers.live(c, now, ctx.settings.lease_seconds):
            raise _nobody()
        if queued > QUEUE_SECONDS:
            raise Unreachable(f"no worker was free within {QUEUE_SECONDS:g} seconds; ask again later")
        generations.want(c, generation_id, now + timedelta(seconds=WANTED_SECONDS))


def _drop(ctx: Context, generation_id: str) -> None:
    with ctx.database.begin() as c:
        generations.drop(c, generation_id)


def _nobody() -> Unreachable:
    return Unreachable("no worker is connected; start one with `luthier worker --server URL`")
