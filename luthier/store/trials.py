"""The trials of a job, apart from what happens under a lease (see leases)."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select

from luthier.design import Design
from luthier.errors import NotFound
from luthier.store import tables
from luthier.store.database import insert_into
from luthier.store.records import MeasuredTrial, Origin, RungRecord, TrialRecord, new_id
from luthier.trial import TRIAL_TRANSITIONS, TrialState

_trials = tables.trials

COLUMNS: Final = tuple(_trials.c[field] for field in TrialRecord.model_fields)


def insert(
    c: Connection, job_id: str, number: int, design: Design, seed: int, origin: Origin, now: datetime
) -> TrialRecord | None:
    """A new waiting trial; None where the job already has this number, or this design with this seed."""
    record = TrialRecord(
        id=new_id("trial"),
        job_id=job_id,
        number=number,
        state=TrialState.WAITING,
        design=design,
        digest=design.digest(),
        seed=seed,
        origin=origin,
        created_at=now,
    )
    row = insert_into(c, _trials).values(dict(record)).on_conflict_do_nothing().returning(_trials.c.id)
    return record if c.execute(row).one_or_none() else None


def get(c: Connection, trial_id: str) -> TrialRecord:
    """Raises NotFound."""
    row = c.execute(select(*COLUMNS).where(_trials.c.id == trial_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no trial {trial_id!r}", param="trial_id")
    return TrialRecord(**row)


def of_job(c: Connection, job_id: str) -> list[TrialRecord]:
    """In the order of their numbers."""
    query = select(*COLUMNS).where(_trials.c.job_id == job_id).order_by(_trials.c.number)
    return [TrialRecord(**row) for row in c.execute(query).mappings()]


def rungs(c: Connection, job_id: str) -> list[RungRecord]:
    """Every rung that a trial of the job has reached, by trial number and rung."""
    query = (
        select(tables.rungs)
        .join(_trials, _trials.c.id == tables.rungs.c.trial_id)
        .where(_trials.c.job_id == job_id)
        .order_by(_trials.c.number, tables.rungs.c.rung)
    )
    return [RungRecord(**row) for row in c.execute(query).mappings()]


def measured(c: Connection, limit: int) -> list[MeasuredTrial]:
    """The complete trials that say what they took, of all jobs, the latest first."""
    workers = tables.workers
    fields = [_trials.c[name] for name in MeasuredTrial.model_fields if name != "device"]
    query = (
        select(*fields, workers.c.device)
        .join(workers, workers.c.id == _trials.c.finished_by)
        .where(_trials.c.state == TrialState.COMPLETE, _trials.c.usage.is_not(None))
        .order_by(_trials.c.finished_at.desc(), _trials.c.id)
        .limit(limit)
    )
    return [MeasuredTrial(**row) for row in c.execute(query).mappings()]


def cancel_waiting(c: Connection, job_id: str, now: datetime) -> None:
    """Cancel the job's trials that nobody holds; those under a lease are stopped through their heartbeats."""
    assert TrialState.CANCELLED in TRIAL_TRANSITIONS[TrialState.WAITING]
    c.execute(
        _trials.update()
        .where(_trials.c.job_id == job_id, _trials.c.state == TrialState.WAITING)
        .values(state=TrialState.CANCELLED, finished_at=now)
    )
