"""Webhook endpoints and their deliveries, as the API and the dashboard show them."""

from __future__ import annotations

import base64
import json
import secrets
from datetime import datetime
from typing import Final

from luthier.api_types import Page, WebhookDelivery, WebhookEndpoint
from luthier.store import Connection, webhooks
from luthier.store.rows import DeliveryRecord, EndpointRecord, new_id
from service.schemas.requests import CreateEndpoint

SECRET_BYTES: Final = 32


def create(c: Connection, body: CreateEndpoint, now: datetime) -> WebhookEndpoint:
    """Insert an endpoint and return it with its new secret, which no other response contains."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    record = EndpointRecord(id=new_id("whend"), created_at=now, secret=secret, **dict(body))
    webhooks.insert(c, record)
    return _endpoint(record).model_copy(update={"secret": secret})


def listing(c: Connection, after: str | None, limit: int) -> Page[WebhookEndpoint]:
    """Return a page of endpoints, newest first. Raises NotFound for an unknown `after`."""
    records, has_more = webhooks.list_(c, after, limit)
    return Page(data=tuple(map(_endpoint, records)), has_more=has_more)


def get(c: Connection, endpoint_id: str) -> WebhookEndpoint:
    """Return an endpoint without its secret. Raises NotFound."""
    return _endpoint(webhooks.get(c, endpoint_id))


def deliveries(c: Connection, endpoint_id: str, after: str | None, limit: int) -> Page[WebhookDelivery]:
    """Return a page of an endpoint's deliveries, newest first. Raises NotFound."""
    webhooks.get(c, endpoint_id)
    records, has_more = webhooks.deliveries(c, endpoint_id, after, limit)
    return Page(data=tuple(map(_delivery, records)), has_more=has_more)


def _endpoint(record: EndpointRecord) -> WebhookEndpoint:
    return WebhookEndpoint.model_validate(
        {"id": record.id, "url": record.url, "events": record.events, "created_at": _seconds(record.created_at)}
    )


def _delivery(record: DeliveryRecord) -> WebhookDelivery:
    return WebhookDelivery.model_validate(
        {
            "id": record.id,
            "endpoint_id": record.endpoint_id,
            "event_id": record.event_id,
            "type": record.type,
            "payload": json.loads(record.payload),
            "state": record.state,
            "attempts": record.attempts,
            "next_attempt_at": _seconds(record.next_at),
            "status": record.status,
            "error": record.error,
            "created_at": _seconds(record.created_at),
            "delivered_at": _seconds(record.delivered_at),
        }
    )


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
