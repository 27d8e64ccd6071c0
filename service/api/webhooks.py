"""Endpoints that events are sent to, and what became of each event."""

from __future__ import annotations

import base64
import json
import secrets
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Path

from luthier.api_types import Deleted, Page, WebhookDelivery, WebhookEndpoint
from luthier.store import webhooks
from luthier.store.rows import DeliveryRecord, EndpointRecord, new_id
from service.api.params import After, Limit
from service.context import Ctx, utc_now
from service.schemas.requests import CreateEndpoint

router = APIRouter(prefix="/v1/webhook_endpoints", tags=["Webhooks"])

EndpointId = Annotated[str, Path(description="id of a webhook endpoint", examples=["whend-20c7aa"])]

SECRET_BYTES: Final = 32


@router.post("", summary="Create a webhook endpoint")
def create_endpoint(ctx: Ctx, body: CreateEndpoint) -> WebhookEndpoint:
    """The answer alone holds the secret with which the receiver verifies what it gets: keep it."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    record = EndpointRecord(id=new_id("whend"), created_at=utc_now(), secret=secret, **dict(body))
    with ctx.database.begin() as c:
        webhooks.insert(c, record)
    return _endpoint(record).model_copy(update={"secret": secret})


@router.get("", summary="List the webhook endpoints")
def list_endpoints(ctx: Ctx, after: After = None, limit: Limit = 20) -> Page[WebhookEndpoint]:
    """Newest first, without their secrets."""
    with ctx.database.read() as c:
        records, has_more = webhooks.list_(c, after, limit)
    return Page(data=tuple(map(_endpoint, records)), has_more=has_more)


@router.get("/{endpoint_id}", summary="Look at one webhook endpoint")
def get_endpoint(ctx: Ctx, endpoint_id: EndpointId) -> WebhookEndpoint:
    """Without its secret."""
    with ctx.database.read() as c:
        return _endpoint(webhooks.get(c, endpoint_id))


@router.delete("/{endpoint_id}", summary="Delete a webhook endpoint")
def delete_endpoint(ctx: Ctx, endpoint_id: EndpointId) -> Deleted:
    """With what is still to be delivered to it."""
    with ctx.database.begin() as c:
        webhooks.delete(c, endpoint_id)
    return Deleted(id=endpoint_id, object="webhook_endpoint")


@router.get("/{endpoint_id}/deliveries", summary="List what was sent")
def list_deliveries(ctx: Ctx, endpoint_id: EndpointId, after: After = None, limit: Limit = 20) -> Page[WebhookDelivery]:
    """And what is still to be, newest first."""
    with ctx.database.read() as c:
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
