"""Send webhooks. Events are stored in an outbox, in the transaction they belong to, and sent until they are received.

They are signed by the Standard Webhooks specification (standardwebhooks.com), so that OpenAI's client verifies them
with `client.webhooks.unwrap`. An event may arrive twice, with the same `webhook-id`.
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

LANES: Final = 8  # endpoints served at once
TIMEOUT: Final = 10.0  # seconds, each for connecting, sending and the response
TURN: Final = 5.0  # seconds after which no further attempt starts, so that the service can stop soon
CLAIM: Final = timedelta(minutes=2)  # longer than an attempt; then another replica may try
KEPT: Final = timedelta(days=30)  # how long finished deliveries are listed
# Waits after failed attempts. After the last one, a day and a half later, the delivery has failed.
WAITS: Final = tuple(timedelta(seconds=s) for s in (5, 60, 300, 1800, 7200, 18000, 36000, 72000))


class Outbox:
    """Sends due deliveries: in sequence to each endpoint, in parallel to several. A slow endpoint does not delay the
    others."""

    def __init__(self) -> None:
        self._lanes = ThreadPoolExecutor(LANES, thread_name_prefix="luthier-webhook")
        self._busy: set[str] = set()  # endpoints being served
        self._turn = Lock()

    def look(self, ctx: Context, now: datetime) -> None:
        """Start to send due deliveries, without waiting. Endpoints beyond the free lanes are left to the next call."""
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
        """Wait for the attempts in progress."""
        self._lanes.shutdown()

    def _send(self, ctx: Context, endpoint_id: str, now: datetime) -> None:
        try:
            _deliver(ctx, endpoint_id, now)
        except Exception:  # the claimed delivery is sent again later
            log.exception("deliveries to %s failed; they are tried again later", endpoint_id)
        finally:
            with self._turn:
                self._busy.remove(endpoint_id)


def _deliver(ctx: Context, endpoint_id: str, now: datetime) -> None:
    """Send an endpoint its due deliveries; after some seconds the rest is left to a later call."""
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
    """Send one delivery and return the changes to its row."""
    status, error = None, None
    try:
        # Only the status counts: the response's body is not read, and redirects are not followed.
        headers, body = _signed(endpoint, due, now), due.payload.encode()
        with http.stream("POST", endpoint.url, content=body, headers=headers) as answer:
            status = answer.status_code
            if not answer.is_success:
                error = f"status {status}"
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
