"""Webhook endpoints and the deliveries to them."""

from __future__ import annotations

from fastapi import APIRouter

from luthier.api_types import Deleted, Page, WebhookDelivery, WebhookEndpoint
from luthier.store import webhooks
from service.context import Ctx, utc_now
from service.integrations import endpoints
from service.schemas.params import After, EndpointId, Limit
from service.schemas.requests import CreateEndpoint

router = APIRouter(prefix="/v1/webhook_endpoints", tags=["Webhooks"])


@router.post("", summary="Create a webhook endpoint")
def create_endpoint(ctx: Ctx, body: CreateEndpoint) -> WebhookEndpoint:
    """Only this response contains the secret, with which the receiver verifies the signatures: store it."""
    with ctx.database.begin() as c:
        return endpoints.create(c, body, utc_now())


@router.get("", summary="List the webhook endpoints")
def list_endpoints(ctx: Ctx, after: After = None, limit: Limit = 20) -> Page[WebhookEndpoint]:
    """Newest first, without their secrets."""
    with ctx.database.read() as c:
        return endpoints.listing(c, after, limit)


@router.get("/{endpoint_id}", summary="Get a webhook endpoint")
def get_endpoint(ctx: Ctx, endpoint_id: EndpointId) -> WebhookEndpoint:
    """Without its secret."""
    with ctx.database.read() as c:
        return endpoints.get(c, endpoint_id)


@router.delete("/{endpoint_id}", summary="Delete a webhook endpoint")
def delete_endpoint(ctx: Ctx, endpoint_id: EndpointId) -> Deleted:
    """Pending deliveries to it are deleted too."""
    with ctx.database.begin() as c:
        webhooks.delete(c, endpoint_id)
    return Deleted(id=endpoint_id, object="webhook_endpoint")


@router.get("/{endpoint_id}/deliveries", summary="List the deliveries to an endpoint")
def list_deliveries(ctx: Ctx, endpoint_id: EndpointId, after: After = None, limit: Limit = 20) -> Page[WebhookDelivery]:
    """Pending ones too, newest first."""
    with ctx.database.read() as c:
        return endpoints.deliveries(c, endpoint_id, after, limit)
