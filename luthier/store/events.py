"""The event log of a job."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select

from luthier.errors import NotFound
from luthier.store import tables
from luthier.store.database import page
from luthier.store.rows import EventRecord, EventType, Level, new_id

_events = tables.events
_COLUMNS: Final = tuple(_events.c[field] for field in EventRecord.model_fields)


def add(
    c: Connection,
    job_id: str,
    level: Level,
    event_type: EventType,
    message: str,
    now: datetime,
    data: dict[str, Any] | None = None,
) -> EventRecord:
    record = EventRecord(
        id=new_id("ftevent"), job_id=job_id, created_at=now, level=level, type=event_type, message=message, data=data
    )
    c.execute(_events.insert().values(dict(record)))
    return record


def get(c: Connection, event_id: str) -> EventRecord:
    """Return an event. Raises NotFound."""
    row = c.execute(select(*_COLUMNS).where(_events.c.id == event_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"event {event_id!r} was not found, so that no event follows it", param="after")
    return EventRecord(**row)


def with_data(c: Connection, job_id: str) -> list[EventRecord]:
    """Return the events with data, oldest first."""
    query = select(*_COLUMNS).where(_events.c.job_id == job_id, _events.c.data.is_not(None))
    return [EventRecord(**row) for row in c.execute(query.order_by(_events.c.position)).mappings()]


def since(c: Connection, job_id: str, after: str | None, limit: int) -> list[EventRecord]:
    """Return the events after `after`, or all, oldest first. Raises NotFound for an unknown `after`."""
    query = select(*_COLUMNS).where(_events.c.job_id == job_id)
    if after is not None:
        seen = get(c, after)
        position = select(_events.c.position).where(_events.c.id == seen.id).scalar_subquery()
        query = query.where(_events.c.position > position)
    return [EventRecord(**row) for row in c.execute(query.order_by(_events.c.position).limit(limit)).mappings()]


def list_(c: Connection, job_id: str, after: str | None, limit: int) -> tuple[list[EventRecord], bool]:
    """Return a page, newest first, and whether more follow. Raises NotFound for an unknown `after`."""
    query = select(*_COLUMNS).where(_events.c.job_id == job_id)
    rows, has_more = page(c, query, _events, ("position",), after, limit)
    return [EventRecord(**row) for row in rows], has_more
