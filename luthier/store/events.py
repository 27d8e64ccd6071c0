"""A job's diary."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from luthier.store import tables
from luthier.store.paging import page
from luthier.store.records import EventRecord, EventType, Level, new_id

_events = tables.events


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


def list_(c: Connection, job_id: str, after: str | None, limit: int) -> tuple[list[EventRecord], bool]:
    """Newest first, and whether more follow. Raises NotFound for an unknown `after`."""
    query = select(*(_events.c[field] for field in EventRecord.model_fields)).where(_events.c.job_id == job_id)
    rows, has_more = page(c, query, _events, ("position",), after, limit)
    return [EventRecord(**row) for row in rows], has_more
