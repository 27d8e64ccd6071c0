"""Registered workers, and when they were last heard from."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from luthier.errors import NotFound
from luthier.store import tables
from luthier.store.database import insert_into
from luthier.store.rows import WorkerRecord, new_id
from luthier.worker_protocol import Hello

_workers = tables.workers


def register(c: Connection, hello: Hello, now: datetime) -> WorkerRecord:
    """Register a worker. One that returns under its name keeps its id; the caller releases its old leases."""
    changes = dict(hello) | {"seen_at": now, "generates": None}
    row = insert_into(c, _workers).values(id=new_id("worker"), created_at=now, **changes)
    upsert = row.on_conflict_do_update(index_elements=[_workers.c.name], set_=changes).returning(_workers)
    return WorkerRecord(**c.execute(upsert).mappings().one())


def touch(c: Connection, worker_id: str, now: datetime) -> WorkerRecord:
    """Store that the worker was heard from. Raises NotFound."""
    query = _workers.update().where(_workers.c.id == worker_id).values(seen_at=now).returning(_workers)
    row = c.execute(query).mappings().one_or_none()
    if row is None:
        raise _unknown(worker_id)
    return WorkerRecord(**row)


def get(c: Connection, worker_id: str) -> WorkerRecord:
    """Return a worker. Raises NotFound."""
    row = c.execute(select(_workers).where(_workers.c.id == worker_id)).mappings().one_or_none()
    if row is None:
        raise _unknown(worker_id)
    return WorkerRecord(**row)


def list_(c: Connection) -> list[WorkerRecord]:
    """Return all workers that ever registered, by name."""
    return [WorkerRecord(**row) for row in c.execute(select(_workers).order_by(_workers.c.name)).mappings()]


def live(c: Connection, now: datetime, within_seconds: float) -> list[WorkerRecord]:
    """Return the workers heard from in the last `within_seconds`, by name."""
    since = now - timedelta(seconds=within_seconds)
    query = select(_workers).where(_workers.c.seen_at >= since).order_by(_workers.c.name)
    return [WorkerRecord(**row) for row in c.execute(query).mappings()]


def _unknown(worker_id: str) -> NotFound:
    return NotFound(f"worker {worker_id!r} was not found: it must register first", param="worker_id")
