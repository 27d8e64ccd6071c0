"""Webhooks: events are put into the outbox with what they tell of, and sent from there until they are received.

Signed as Standard Webhooks has it (standardwebhooks.com), so that OpenAI's client verifies them with
`client.webhooks.unwrap`. An event may arrive twice; `webhook-id` is the same then.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

import httpx
from standardwebhooks import Webhook

from luthier.store import webhooks
from luthier.store.records import DeliveryRecord, EndpointRecord
from service.context import Context

log = logging.getLogger(__name__)

TIMEOUT: Final = 10.0  # seconds, for each of connecting, sending and the answer
TURN: Final = 5.0  # seconds after which no further attempt is begun, so that the service stops soon when it is told to
CLAIM: Final = timedelta(minutes=2)  # longer than an attempt takes: a replica that dies meanwhile is made up for
KEPT: Final = timedelta(days=30)  # what was delivered, or given up, is listed for so long
# How long to wait after each attempt that failed; after the last one it is given up, a day and a half later.
WAITS: Final = tuple(timedelta(seconds=s) for s in (5, 60, 300, 1800, 7200, 18000, 36000, 72000))


def deliver(here: Context, now: datetime) -> None:
    """Send what is due, one after the other; what is left after a while is left to the next look."""
    began = time.monotonic()
    with here.database.read() as c:
        if not webhooks.any_due(c, now):
            return
    with httpx.Client(timeout=TIMEOUT, follow_redirects=False) as http:
        while (passed := time.monotonic() - began) < TURN:
            moment = now + timedelta(seconds=passed)
            with here.database.begin() as c:
                due = webhooks.claim(c, moment, moment + CLAIM)
                endpoint = None if due is None else webhooks.get(c, due.endpoint_id)
            if due is None or endpoint is None:
                break
            found = _attempt(http, endpoint, due, moment)
            with here.database.begin() as c:
                webhooks.settle(c, due, **found)
    with here.database.begin() as c:
        webhooks.forget(c, now - KEPT)


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
