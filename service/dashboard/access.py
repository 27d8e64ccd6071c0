"""The page of API keys and webhooks."""

from __future__ import annotations

from typing import Final, get_args

from fastapi import APIRouter, Request, Response

from luthier.api_types import ApiKey, WebhookDelivery, WebhookEndpoint
from luthier.api_types.schedules import WebhookEvent
from luthier.keys import Scope
from luthier.store import Connection, keys
from service.auth import api_keys
from service.auth.sessions import Asking, keys_needed
from service.context import Ctx, utc_now
from service.dashboard.exports import Line, table_file
from service.dashboard.layout import page
from service.integrations import endpoints as webhook_endpoints
from service.schemas.params import After, EndpointId

router = APIRouter(prefix="/access", include_in_schema=False)

ON_A_PAGE: Final = 50
MOST: Final = 1000
ALLOWS: Final = {
    Scope.READ: "view everything",
    Scope.SUBMIT: "view, and submit jobs",
    Scope.ADMIN: "full access",
    Scope.WORKER: "run workers only",
}


@router.get("")
def show_access(request: Request, ctx: Ctx, asking: Asking) -> Response:
    now = utc_now()
    with ctx.database.read() as c:
        live = {record.id for record in keys.list_(c) if record.live(now)}
        found = api_keys.listed(c)
        endpoints = [(each, _latest(c, each.id)) for each in webhook_endpoints.listing(c, None, MOST).data]
    return page(
        request,
        "access.html.jinja",
        title="Access",
        live=[key for key in found if key.id in live],
        over=[key for key in found if key.id not in live],
        mine=asking.id,
        needed=keys_needed(ctx),
        first=not found,
        scopes=ALLOWS,
        endpoints=endpoints,
        events=get_args(WebhookEvent),
    )


@router.get("/keys.{form}")
def export_keys(ctx: Ctx, form: str) -> Response:
    with ctx.database.read() as c:
        found = api_keys.listed(c)
    return table_file([_line(key) for key in found], "keys", form)


@router.get("/webhooks.{form}")
def export_webhooks(ctx: Ctx, form: str) -> Response:
    with ctx.database.read() as c:
        found = webhook_endpoints.listing(c, None, MOST).data
    return table_file([_line(endpoint) | {"events": " ".join(endpoint.events)} for endpoint in found], "webhooks", form)


@router.get("/webhooks/{endpoint_id}")
def show_webhook(request: Request, ctx: Ctx, endpoint_id: EndpointId, after: After = None) -> Response:
    with ctx.database.read() as c:
        endpoint = webhook_endpoints.get(c, endpoint_id)
        sent = webhook_endpoints.deliveries(c, endpoint_id, after, ON_A_PAGE)
    return page(
        request,
        "webhook.html.jinja",
        title="Webhook",
        endpoint=endpoint,
        deliveries=sent.data,
        more=sent.has_more,
        after=after,
    )


@router.get("/webhooks/{endpoint_id}/deliveries.{form}")
def export_deliveries(ctx: Ctx, endpoint_id: EndpointId, form: str) -> Response:
    with ctx.database.read() as c:
        sent = webhook_endpoints.deliveries(c, endpoint_id, None, MOST).data
    return table_file([_line(delivery) for delivery in sent], f"{endpoint_id}-deliveries", form)


def _latest(c: Connection, endpoint_id: str) -> WebhookDelivery | None:
    return next(iter(webhook_endpoints.deliveries(c, endpoint_id, None, 1).data), None)


def _line(found: ApiKey | WebhookEndpoint | WebhookDelivery) -> Line:
    line: Line = found.model_dump(mode="json", exclude={"object", "secret", "payload"})
    return line
