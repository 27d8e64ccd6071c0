"""Webhooks: events are put into the outbox with what they tell of, and sent from there until they are received.

Signed as Standard Webhooks has it (standardwebhooks.com), so that OpenAI's client verifies them with
`client.webhooks.unwrap`. An event may arrive twice; `webhook-id` is the same then.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from http import HTTPStatus
from threading import Lock
from typing import Any, Final

import httpx
from standardwebhooks import Webhook

from luthier.store import webhooks
from luthier.store.rows import DeliveryRecord, EndpointRecord
from service.context import Context

log = logging.getLogger(__name__)

LANES: Final = 8  # endpoints that are sent to at once
TIMEOUT: Final = 10.0  # seconds, for each of connecting, sending and the answer
TURN: Final = 5.0  # seconds after which no further attempt is begun, so that the service stops soon when it is told to
CLAIM: Final = timedelta(minutes=2)  # longer than an attempt takes: a replica that dies meanwhile is made up for
KEPT: Final = timedelta(days=30)  # what was delivered, or given up, is listed for so long
# How long to wait after each attempt that failed; after the last one it is given up, a day and a half later.
WAITS: Final = tuple(timedelta(seconds=s) for s in (5, 60, 300, 1800, 7200, 18000, 36000, 72000))


class Outbox:
    """Sends what is due: to each endpoint one after the other, to different ones at once, so that one that answers
    slowly, or never, holds up nobody else."""

    def __init__(self) -> None:
        self._lanes = ThreadPoolExecutor(LANES, thread_name_prefix="luthier-webhook")
        self._busy: set[str] = set()  # endpoints that are being sent to
        self._turn = Lock()

    def look(self, ctx: Context, now: datetime) -> None:
        """Begin to send what is due, and do not wait for it. What finds no free lane is left to the next look."""
        with ctx.database.read() as c:
            due = webhooks.due(c, now)
        for endpoint_id in due:
            with self._turn:
                if endpoint_id in self._busy or len(self._busy) >= LANES:
                    continue
                self._busy.add(endpoint_id)
            self._lanes.submit(self._send, ctx, endpoint_id, now)
        if due:
            with ctx.database.begin() as c:
                webhooks.forget(c, now - KEPT)

    def close(self) -> None:
        """Returns when what was begun is over."""
        self._lanes.shutdown()

    def _send(self, ctx: Context, endpoint_id: str, now: datetime) -> None:
        try:
            _deliver(ctx, endpoint_id, now)
        except Exception:  # what was claimed is sent again by a later look
            log.exception("what is due to %s could not be sent; a later look tries again", endpoint_id)
        finally:
            with self._turn:
                self._busy.remove(endpoint_id)


def _deliver(ctx: Context, endpoint_id: str, now: datetime) -> None:
    """Send one endpoint what is due to it; what is left after a while is left to a later look."""
    began = time.monotonic()
    with httpx.Client(timeout=TIMEOUT, follow_redirects=False) as http:
        while (passed := time.monotonic() - began) < TURN:
            moment = now + timedelta(seconds=passed)
            with ctx.database.begin() as c:
                due = webhooks.claim(c, endpoint_id, moment, moment + CLAIM)
                endpoint = None if due is None else webhooks.get(c, endpoint_id)
            if due is None or endpoint is None:
                break
            found = _attempt(http, endpoint, due, moment)
            with ctx.database.begin() as c:
                webhooks.settle(c, due, **found)


def _attempt(http: httpx.Client, endpoint: EndpointRecord, due: DeliveryRecord, now: datetime) -> dict[str, Any]:
    """What is to be noted of one attempt."""
    status, error = None, None
    try:
        # Only the status counts: what an endpoint answers is not read, and a redirect is not followed.
        headers, body = _signed(endpoint, due, now), due.payload.encode()
        with http.stream("POST", endpoint.url, content=body, headers=headers) as answer:
            status = answer.status_code
            if not answer.is_success:
                error = f"answered {status}"
    except (httpx.HTTPError, httpx.InvalidURL) as problem:
        error = str(problem) or type(problem).__name__
    if error is None:
        return {"state": "delivered", "status": status, "error": None, "next_at": None, "delivered_at": now}
    log.warning("webhook %s to %s, attempt %d: %s", due.type, endpoint.id, due.attempts, error)
    if due.attempts > len(WAITS) or status == HTTPStatus.GONE:
        return {"state": "failed", "status": status, "error": error, "next_at": None}
    return {"status": status, "error": error, "next_at": now + WAITS[due.attempts - 1]}


def _signed(endpoint: EndpointRecord, due: DeliveryRecord, now: datetime) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "user-agent": "Luthier",
        "webhook-id": due.event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(endpoint.secret).sign(due.event_id, now, due.payload),
    }
