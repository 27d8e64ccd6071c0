"""Schedules and their runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select

from luthier.errors import Conflict, NotFound
from luthier.schedule import Contest, RunState, Trigger
from luthier.store import tables
from luthier.store.database import insert_into, page
from luthier.store.rows import ScheduleRecord, ScheduleRunRecord, new_id

_schedules = tables.schedules
_runs = tables.schedule_runs

OPEN: Final = [state for state in RunState if state.open]


def insert(c: Connection, record: ScheduleRecord) -> None:
    """Insert a schedule. Raises Conflict where the name is taken."""
    row = insert_into(c, _schedules).values(dict(record)).on_conflict_do_nothing(index_elements=["name"])
    if c.execute(row.returning(_schedules.c.id)).one_or_none() is None:
        raise _taken(record.name)


def get(c: Connection, schedule_id: str) -> ScheduleRecord:
    """Return a schedule. Raises NotFound."""
    return _found(c, schedule_id, select(_schedules).where(_schedules.c.id == schedule_id))


def lock(c: Connection, schedule_id: str) -> ScheduleRecord:
    """Return the schedule, locked to the end of the transaction. Raises NotFound."""
    query = select(_schedules).where(_schedules.c.id == schedule_id)
    return _found(c, schedule_id, query.with_for_update(key_share=True))


def list_(c: Connection, after: str | None, limit: int) -> tuple[list[ScheduleRecord], bool]:
    """Return a page, newest first, and whether more follow. Raises NotFound for an unknown `after`."""
    rows, has_more = page(c, select(_schedules), _schedules, ("created_at", "id"), after, limit)
    return [ScheduleRecord(**row) for row in rows], has_more


def update(c: Connection, schedule_id: str, **changes: Any) -> ScheduleRecord:
    """Change a schedule. Raises NotFound, or Conflict where another schedule has the new name."""
    name = changes.get("name")
    if name is not None and c.scalar(
        select(_schedules.c.id).where(_schedules.c.name == name, _schedules.c.id != schedule_id)
    ):
        raise _taken(name)
    query = _schedules.update().where(_schedules.c.id == schedule_id).values(changes).returning(_schedules)
    return _found(c, schedule_id, query)


def delete(c: Connection, schedule_id: str) -> None:
    """Delete the schedule and its runs; its jobs stay. Raises NotFound."""
    if c.execute(_schedules.delete().where(_schedules.c.id == schedule_id)).rowcount == 0:
        get(c, schedule_id)


def due(c: Connection, now: datetime) -> list[str]:
    """Return the enabled schedules with a due tick that has no run yet."""
    query = select(_schedules.c.id).where(_schedules.c.enabled, _schedules.c.next_at <= now)
    return list(c.scalars(query.order_by(_schedules.c.next_at, _schedules.c.id)))


def with_waiting_runs(c: Connection) -> list[str]:
    query = select(_runs.c.schedule_id).where(_runs.c.state == RunState.WAITING).distinct()
    return sorted(c.scalars(query))


def count_failure(c: Connection, schedule_id: str) -> ScheduleRecord:
    """Count one more failed run in a row. Raises NotFound."""
    return update(c, schedule_id, failures=_schedules.c.failures + 1)


def add_run(
    c: Connection,
    schedule_id: str,
    due_at: datetime,
    trigger: Trigger,
    state: RunState,
    now: datetime,
    reason: str | None = None,
) -> ScheduleRunRecord | None:
    """Insert the run of a tick. Return None where it exists already."""
    record = ScheduleRunRecord(
        id=new_id("schedrun"),
        schedule_id=schedule_id,
        due_at=due_at,
        trigger=trigger,
        state=state,
        reason=reason,
        created_at=now,
        ended_at=None if state.open else now,
    )
    row = insert_into(c, _runs).values(dict(record)).on_conflict_do_nothing().returning(_runs.c.id)
    return record if c.execute(row).one_or_none() else None


def get_run(c: Connection, run_id: str) -> ScheduleRunRecord:
    """Return a run. Raises NotFound."""
    row = c.execute(select(_runs).where(_runs.c.id == run_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"run {run_id!r} was not found", param="run_id")
    return ScheduleRunRecord(**row)


def runs(c: Connection, schedule_id: str, after: str | None, limit: int) -> tuple[list[ScheduleRunRecord], bool]:
    """Return a page, the latest tick first, and whether more follow. Raises NotFound for an unknown `after`."""
    query = select(_runs).where(_runs.c.schedule_id == schedule_id)
    rows, has_more = page(c, query, _runs, ("due_at", "id"), after, limit)
    return [ScheduleRunRecord(**row) for row in rows], has_more


def open_runs(c: Connection, schedule_id: str) -> list[ScheduleRunRecord]:
    """Return the runs that wait or run, the earliest tick first."""
    query = select(_runs).where(_runs.c.schedule_id == schedule_id, _runs.c.state.in_(OPEN))
    return [ScheduleRunRecord(**row) for row in c.execute(query.order_by(_runs.c.due_at, _runs.c.id)).mappings()]


def begin_run(c: Connection, run_id: str, job_id: str, now: datetime) -> bool:
    """Start a waiting run. Return False where it no longer waits."""
    return _move(c, run_id, RunState.WAITING, state=RunState.RUNNING, job_id=job_id, started_at=now)


def drop_run(c: Connection, run_id: str, state: RunState, reason: str, now: datetime) -> bool:
    """End a waiting run, which has no job. Return False where it no longer waits."""
    return _move(c, run_id, RunState.WAITING, state=state, reason=reason, ended_at=now)


def end_run(c: Connection, job_id: str, state: RunState, reason: str | None, now: datetime) -> ScheduleRunRecord | None:
    """End the run of a job that has ended. Return None where the job has no running run."""
    changes = {"state": state, "reason": reason, "ended_at": now}
    query = _runs.update().where(_runs.c.job_id == job_id, _runs.c.state == RunState.RUNNING).values(changes)
    row = c.execute(query.returning(_runs)).mappings().one_or_none()
    return None if row is None else ScheduleRunRecord(**row)


def note_contest(c: Connection, job_id: str, contest: Contest) -> None:
    c.execute(_runs.update().where(_runs.c.job_id == job_id).values(contest=contest))


def _move(c: Connection, run_id: str, before: RunState, **changes: Any) -> bool:
    query = _runs.update().where(_runs.c.id == run_id, _runs.c.state == before).values(changes)
    return c.execute(query).rowcount == 1


def _found(c: Connection, schedule_id: str, query: Any) -> ScheduleRecord:
    row = c.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"schedule {schedule_id!r} was not found", param="schedule_id")
    return ScheduleRecord(**row)


def _taken(name: str) -> Conflict:
    return Conflict(f"a schedule named {name!r} already exists: choose another name", param="name")
