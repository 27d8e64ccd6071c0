"""Webhook endpoints, and the outbox: the pending and finished deliveries to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from luthier.errors import NotFound
from luthier.store import tables
from luthier.store.database import page
from luthier.store.rows import DeliveryRecord, EndpointRecord, new_id

_endpoints = tables.webhook_endpoints
_deliveries = tables.webhook_deliveries


def insert(c: Connection, record: EndpointRecord) -> None:
    c.execute(_endpoints.insert().values(dict(record)))


def get(c: Connection, endpoint_id: str) -> EndpointRecord:
    """Return an endpoint. Raises NotFound."""
    row = c.execute(select(_endpoints).where(_endpoints.c.id == endpoint_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"webhook endpoint {endpoint_id!r} was not found", param="endpoint_id")
    return EndpointRecord(**row)


def list_(c: Connection, after: str | None, limit: int) -> tuple[list[EndpointRecord], bool]:
    """Return a page, newest first, and whether more follow. Raises NotFound for an unknown `after`."""
    rows, has_more = page(c, select(_endpoints), _endpoints, ("created_at", "id"), after, limit)
    return [EndpointRecord(**row) for row in rows], has_more


def delete(c: Connection, endpoint_id: str) -> None:
    """Delete an endpoint with its deliveries. Raises NotFound."""
    if c.execute(_endpoints.delete().where(_endpoints.c.id == endpoint_id)).rowcount == 0:
        get(c, endpoint_id)


def announce(c: Connection, event: str, data: Mapping[str, Any], now: datetime) -> None:
    """Add an event to the outbox of each endpoint that subscribes to it, in the caller's transaction."""
    endpoints = [EndpointRecord(**row) for row in c.execute(select(_endpoints)).mappings()]
    body = {
        "id": new_id("evt"),
        "object": "event",
        "created_at": int(now.timestamp()),
        "type": event,
        "data": dict(data),
    }
    payload = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    for endpoint in endpoints:
        if event in endpoint.events:
            delivery = DeliveryRecord(
                id=new_id("whdel"),
                endpoint_id=endpoint.id,
                event_id=str(body["id"]),
                type=event,
                payload=payload,
                state="pending",
                next_at=now,
                created_at=now,
            )
            c.execute(_deliveries.insert().values(dict(delivery)))


def due(c: Connection, now: datetime) -> list[str]:
    """Return the endpoints with due deliveries, the longest waiting first."""
    first = func.min(_deliveries.c.next_at)
    waiting = select(_deliveries.c.endpoint_id).where(_deliveries.c.state == "pending", _deliveries.c.next_at <= now)
    return list(c.execute(waiting.group_by(_deliveries.c.endpoint_id).order_by(first)).scalars())


def claim(c: Connection, endpoint_id: str, now: datetime, until: datetime) -> DeliveryRecord | None:
    """Claim the endpoint's first due delivery until a moment. Return None where none is due."""
    first = (
        select(_deliveries.c.id)
        .where(_deliveries.c.endpoint_id == endpoint_id)
        .where(_deliveries.c.state == "pending", _deliveries.c.next_at <= now)
        .order_by(_deliveries.c.next_at, _deliveries.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    changes = {"next_at": until, "attempts": _deliveries.c.attempts + 1}
    query = _deliveries.update().where(_deliveries.c.id == first).values(changes).returning(_deliveries)
    row = c.execute(query).mappings().one_or_none()
    return None if row is None else DeliveryRecord(**row)


def settle(c: Connection, claimed: DeliveryRecord, **changes: Any) -> None:
    """Store the outcome of an attempt, unless a later attempt was made or the endpoint was deleted."""
    same = (_deliveries.c.id == claimed.id, _deliveries.c.attempts == claimed.attempts)
    c.execute(_deliveries.update().where(*same).values(changes))


def forget(c: Connection, before: datetime) -> None:
    """Delete finished deliveries that are older."""
    c.execute(_deliveries.delete().where(_deliveries.c.state != "pending", _deliveries.c.created_at < before))


def deliveries(c: Connection, endpoint_id: str, after: str | None, limit: int) -> tuple[list[DeliveryRecord], bool]:
    """Return a page, newest first, and whether more follow. Raises NotFound for an unknown `after`."""
    query = select(_deliveries).where(_deliveries.c.endpoint_id == endpoint_id)
    rows, has_more = page(c, query, _deliveries, ("created_at", "id"), after, limit)
    return [DeliveryRecord(**row) for row in rows], has_more
