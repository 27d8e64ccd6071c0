"""The trials of a job, except changes under a lease (see leases)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, and_, case, exists, func, literal, or_, select

from luthier.design import Design
from luthier.errors import NotFound
from luthier.store import jobs, tables
from luthier.store.database import insert_into
from luthier.store.rows import MeasuredTrial, Origin, RungRecord, TrialMark, TrialRecord, new_id
from luthier.trial import TRIAL_TRANSITIONS, JobState, RowScores, TrialState

_trials = tables.trials

COLUMNS: Final = tuple(_trials.c[field] for field in TrialRecord.model_fields)

_TELLING: Final = (
    TrialState.COMPLETE,
    TrialState.WAITING,
    TrialState.PRUNED,
)  # states with useful measurements of cost
CHAMPION: Final = -1  # number and seed of a job's champion trial, which is only scored
SEARCHED: Final = _trials.c.number >= 0

# `TrialRecord.paused` of a waiting trial, as SQL; never NULL.
PAUSED: Final = and_(_trials.c.goal.is_not(None), _trials.c.rung.is_not(None), _trials.c.rung >= _trials.c.goal)


def insert(
    c: Connection,
    job_id: str,
    number: int,
    design: Design,
    seed: int,
    origin: Origin,
    now: datetime,
    *,
    goal: int | None = None,
    refused: str | None = None,
) -> TrialRecord | None:
    """Add a waiting trial, or one that is refused with a reason before it runs.

    Returns None if the job already has this number, or this design with this seed.
    """
    record = TrialRecord(
        id=new_id("trial"),
        job_id=job_id,
        number=number,
        state=TrialState.WAITING if refused is None else TrialState.INFEASIBLE,
        design=design,
        digest=design.digest(),
        seed=seed,
        origin=origin,
        goal=goal,
        created_at=now,
        finished_at=None if refused is None else now,
        error=refused,
    )
    row = insert_into(c, _trials).values(dict(record)).on_conflict_do_nothing().returning(_trials.c.id)
    return record if c.execute(row).one_or_none() else None


def get(c: Connection, trial_id: str) -> TrialRecord:
    """Raises NotFound."""
    row = c.execute(select(*COLUMNS).where(_trials.c.id == trial_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"Trial {trial_id!r} was not found.", param="trial_id")
    return TrialRecord(**row)


def named(c: Connection, job_id: str, name: str, *, param: str = "trial_id") -> TrialRecord:
    """Return the trial of a job's search with this id or number. Raises NotFound, also for an unknown job."""
    number = int(name) if name.isascii() and name.isdigit() and len(name) < 10 else -1
    query = select(*COLUMNS).where(_trials.c.job_id == job_id, SEARCHED)
    row = c.execute(query.where(or_(_trials.c.id == name, _trials.c.number == number))).mappings().one_or_none()
    if row is None:
        jobs.get(c, job_id)
        raise NotFound(f"Job {job_id} has no trial {name!r}. Give the id or the number of a trial.", param=param)
    return TrialRecord(**row)


def of_job(c: Connection, job_id: str) -> list[TrialRecord]:
    """Return the job's trials by number, without a champion."""
    query = select(*COLUMNS).where(_trials.c.job_id == job_id, SEARCHED).order_by(_trials.c.number)
    return [TrialRecord(**row) for row in c.execute(query).mappings()]


def marks(c: Connection, job_id: str) -> list[TrialMark]:
    """How far each trial of the job is, by number, without what takes long to read."""
    fields = [_trials.c[field] for field in TrialMark._fields]
    query = select(*fields).where(_trials.c.job_id == job_id, SEARCHED).order_by(_trials.c.number)
    return [TrialMark(*row) for row in c.execute(query)]


def champion(c: Connection, job_id: str) -> TrialRecord | None:
    """Return the trial that scores an earlier job's winner on this job's rows, if there is one."""
    query = select(*COLUMNS).where(_trials.c.job_id == job_id, _trials.c.number == CHAMPION)
    row = c.execute(query).mappings().one_or_none()
    return None if row is None else TrialRecord(**row)


def enter_champion(c: Connection, job_id: str, winner: TrialRecord, now: datetime) -> None:
    """Queue a trial that scores the weights of an earlier job's winner, unless there is one already."""
    record = TrialRecord(
        id=new_id("trial"),
        job_id=job_id,
        number=CHAMPION,
        state=TrialState.WAITING,
        design=winner.design,
        digest=winner.digest,
        seed=CHAMPION,
        origin="champion",
        created_at=now,
        weights_of=winner.id,
    )
    c.execute(insert_into(c, _trials).values(dict(record)).on_conflict_do_nothing())


def rungs(c: Connection, job_id: str) -> list[RungRecord]:
    """Return every rung that a trial of the job has reached, sorted by trial number and rung."""
    query = (
        select(tables.rungs)
        .join(_trials, _trials.c.id == tables.rungs.c.trial_id)
        .where(_trials.c.job_id == job_id)
        .order_by(_trials.c.number, tables.rungs.c.rung)
    )
    return [RungRecord(**row) for row in c.execute(query).mappings()]


def measured(c: Connection, limit: int) -> list[MeasuredTrial]:
    """Return trials of all jobs whose cost was measured, the latest first: complete, paused or pruned ones.

    Champions, which are only scored, are left out.
    """
    workers = tables.workers
    fields = [_trials.c[name] for name in MeasuredTrial.model_fields if name != "device"]
    query = (
        select(*fields, workers.c.device)
        .join(workers, workers.c.id == _trials.c.finished_by)
        .where(_trials.c.state.in_(_TELLING), _trials.c.usage.is_not(None), SEARCHED)
        .order_by(func.coalesce(_trials.c.finished_at, _trials.c.started_at).desc(), _trials.c.id)
        .limit(limit)
    )
    return [MeasuredTrial(**row) for row in c.execute(query).mappings()]


def row_scores(c: Connection, job_id: str) -> dict[str, RowScores]:
    """Return the scores of each test row by trial, for the job's trials that were scored on the test rows."""
    scores = tables.test_scores.c
    query = select(scores.trial_id, scores.scores).join(_trials, _trials.c.id == scores.trial_id)
    return {row.trial_id: row.scores for row in c.execute(query.where(_trials.c.job_id == job_id))}


def promote(c: Connection, trial_id: str, at: int, goal: int | None) -> bool:
    """Promote a trial that is paused at the rung `at` to the next goal; return False if it is not paused there."""
    paused = (_trials.c.state == TrialState.WAITING, _trials.c.goal == at, PAUSED)
    return c.execute(_trials.update().where(_trials.c.id == trial_id, *paused).values(goal=goal)).rowcount == 1


def prune(c: Connection, job_id: str, numbers: Collection[int], now: datetime) -> list[TrialRecord]:
    """Prune those of these trials that are still paused; return them, sorted by number."""
    assert TrialState.PRUNED in TRIAL_TRANSITIONS[TrialState.WAITING]
    paused = (_trials.c.state == TrialState.WAITING, PAUSED)
    query = (
        _trials.update()
        .where(_trials.c.job_id == job_id, _trials.c.number.in_(numbers), *paused)
        .values(state=TrialState.PRUNED, finished_at=now)
        .returning(*COLUMNS)
    )
    return sorted((TrialRecord(**row) for row in c.execute(query).mappings()), key=lambda trial: trial.number)


def cancel_waiting(c: Connection, job_id: str, now: datetime, *, but: Collection[int] = ()) -> None:
    """End the job's trials that are not leased: paused ones are pruned, the others cancelled.

    Leased trials are stopped by the response to their heartbeat. A champion stays until the job has ended, because it
    costs no budget. So do the trials with the numbers `but`.
    """
    assert TRIAL_TRANSITIONS[TrialState.WAITING] >= {TrialState.CANCELLED, TrialState.PRUNED}
    pruned, cancelled = (literal(state, _trials.c.state.type) for state in (TrialState.PRUNED, TrialState.CANCELLED))
    job = tables.jobs.c
    over = exists().where(job.id == job_id, job.state.in_([state for state in JobState if state.terminal]))
    c.execute(
        _trials.update()
        .where(_trials.c.job_id == job_id, _trials.c.state == TrialState.WAITING, or_(SEARCHED, over))
        .where(_trials.c.number.not_in(but))
        .values(state=case((PAUSED, pruned), else_=cancelled), finished_at=now)
    )


def reopen(c: Connection, job_id: str) -> None:
    """Pause the pruned trials of a job again whose checkpoints are kept, so that they can be promoted."""
    assert TrialState.WAITING in TRIAL_TRANSITIONS[TrialState.PRUNED]
    kept = (_trials.c.job_id == job_id, _trials.c.state == TrialState.PRUNED, _trials.c.checkpoint.is_not(None))
    c.execute(_trials.update().where(*kept).values(state=TrialState.WAITING, finished_at=None))


def stop(c: Connection, trial_id: str, now: datetime) -> TrialRecord:
    """Stop one trial: at once if it is not leased, else at its worker's next heartbeat.

    A trial that has ended is unchanged.
    """
    assert TrialState.CANCELLED in TRIAL_TRANSITIONS[TrialState.WAITING]
    open_ = _trials.c.state.in_((TrialState.WAITING, TrialState.LEASED))
    c.execute(_trials.update().where(_trials.c.id == trial_id, open_).values(stopped=True))
    cancel_stopped(c, trial_id, now)
    return get(c, trial_id)


def cancel_stopped(c: Connection, trial_id: str, now: datetime) -> bool:
    """Cancel a trial that was asked to stop, if it is not leased; return whether it was cancelled."""
    waiting = (_trials.c.id == trial_id, _trials.c.state == TrialState.WAITING, _trials.c.stopped)
    changes = {"state": TrialState.CANCELLED, "finished_at": now}
    return c.execute(_trials.update().where(*waiting).values(changes)).rowcount == 1
