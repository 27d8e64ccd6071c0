"""The workers' side of completions: hand questions to workers and store their answers piece by piece."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import anyio
from starlette.concurrency import run_in_threadpool

from luthier.store import generations, workers
from luthier.worker_protocol import Generation, Offer, Said, Spoken
from service.context import Context, utc_now

OFFER_SECONDS: Final = 5.0  # how long a worker's request waits; a stopping service waits for it to end
ARRIVAL_SECONDS: Final = 0.1  # between looks at what has arrived at this replica
STORE_SECONDS: Final = 1.0  # between looks into the store, for what has arrived at other replicas


async def next_question(
    ctx: Context, worker_id: str, offer: Offer, disconnected: Callable[[], Awaitable[bool]]
) -> Generation | None:
    """Wait some seconds for a question and lease it to the worker. Return None where there is none."""
    end = time.monotonic() + OFFER_SECONDS
    await run_in_threadpool(_touch, ctx, worker_id)
    while time.monotonic() < end and not await disconnected():
        seen, looked = ctx.questions.count, time.monotonic()
        found = await run_in_threadpool(_acquire, ctx, worker_id, offer)
        if found is not None:
            return found
        while ctx.questions.count == seen and time.monotonic() < min(end, looked + STORE_SECONDS):
            await anyio.sleep(ARRIVAL_SECONDS)
    return None


def add_piece(ctx: Context, generation_id: str, piece: Said, now: datetime) -> None:
    """Store a piece of an answer and renew the lease. Raises LeaseLost where nobody waits for the answer any more."""
    with ctx.database.begin() as c:
        generations.say(c, generation_id, piece, now, ctx.settings.lease_seconds)


def end_answer(ctx: Context, generation_id: str, end: Spoken) -> None:
    """Store how an answer ended, or put the question back for another worker. Raises LeaseLost."""
    with ctx.database.begin() as c:
        generations.end(c, generation_id, end)
    if end.answer is None:
        ctx.questions.arrived()


def _touch(ctx: Context, worker_id: str) -> None:
    with ctx.database.begin() as c:
        workers.touch(c, worker_id, utc_now())


def _acquire(ctx: Context, worker_id: str, offer: Offer) -> Generation | None:
    with ctx.database.read() as c:
        if not generations.waiting(c) and workers.get(c, worker_id).generates == offer.generates:
            return None
    with ctx.database.begin() as c:
        return generations.acquire(c, worker_id, offer.generates, utc_now(), ctx.settings.lease_seconds)
