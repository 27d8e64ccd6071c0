"""Fine-tuning jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, TableValuedAlias, exists, func, not_, select, true

from luthier.errors import NotFound
from luthier.store import tables
from luthier.store.database import page
from luthier.store.rows import JobRecord
from luthier.task import Extension, Search
from luthier.trial import JOB_TRANSITIONS, JobState

_jobs = tables.jobs


def insert(c: Connection, record: JobRecord) -> None:
    """Add a job. Raises NotFound if one of its files does not exist."""
    for param in ("training_file", "validation_file"):
        file = getattr(record, param)
        # The lock keeps the file from being deleted until this transaction has added the job.
        query = select(tables.files.c.id).where(tables.files.c.id == file).with_for_update(read=True, key_share=True)
        if file is not None and c.execute(query).one_or_none() is None:
            raise NotFound(f"File {file!r} was not found.", param=param)
    c.execute(_jobs.insert().values(dict(record)))


def get(c: Connection, job_id: str) -> JobRecord:
    """Raises NotFound."""
    row = c.execute(select(_jobs).where(_jobs.c.id == job_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"Job {job_id} was not found.", param="fine_tuning_job_id")
    return JobRecord(**row)


def lock(c: Connection, job_id: str) -> JobRecord:
    """Return the job, locked until the end of the transaction. Raises NotFound.

    A step of the search locks the job first, and then its trials.
    """
    c.execute(select(_jobs.c.id).where(_jobs.c.id == job_id).with_for_update(key_share=True))
    return get(c, job_id)


def list_(
    c: Connection,
    after: str | None,
    limit: int,
    metadata: Mapping[str, str],
    *,
    tags: Sequence[str] = (),
    schedule_id: str | None = None,
) -> tuple[list[JobRecord], bool]:
    """Return a page of jobs, newest first, and whether more follow.

    Only jobs with all of `metadata`, all `tags` and, if given, this schedule. Raises NotFound for an unknown `after`.
    """
    query = select(_jobs)
    each = func.json_each if c.dialect.name == "sqlite" else func.json_each_text
    for key, value in metadata.items():
        pair = each(_jobs.c.metadata).table_valued("key", "value")
        query = query.where(exists(select(true()).select_from(pair).where(pair.c.key == key, pair.c.value == value)))
    for tag in tags:
        one = _each_tag(c)
        query = query.where(exists(select(true()).select_from(one).where(one.c.value == tag)))
    if schedule_id is not None:
        query = query.where(_jobs.c.schedule_id == schedule_id)
    rows, has_more = page(c, query, _jobs, ("created_at", "id"), after, limit)
    return [JobRecord(**row) for row in rows], has_more


def tags(c: Connection) -> list[str]:
    """Return all tags of jobs, in alphabetical order."""
    one = _each_tag(c)
    return sorted(c.execute(select(one.c.value).select_from(_jobs).join(one, true()).distinct()).scalars())


def _each_tag(c: Connection) -> TableValuedAlias:
    each = func.json_each if c.dialect.name == "sqlite" else func.json_array_elements_text
    return each(_jobs.c.tags).table_valued("value")


def by_model(c: Connection, name: str) -> JobRecord | None:
    """Return the job whose fine-tuned model has this name, or None."""
    row = c.execute(select(_jobs).where(_jobs.c.fine_tuned_model == name)).mappings().first()
    return None if row is None else JobRecord(**row)


def with_tail(c: Connection, tail: str) -> list[JobRecord]:
    """Return the jobs whose id ends with `tail`."""
    query = select(_jobs).where(_jobs.c.id.endswith(tail, autoescape=True))
    return [JobRecord(**row) for row in c.execute(query).mappings()]


def active(c: Connection) -> list[JobRecord]:
    """Return the queued and running jobs, oldest first."""
    states = (JobState.QUEUED, JobState.RUNNING)
    query = select(_jobs).where(_jobs.c.state.in_(states)).order_by(_jobs.c.created_at, _jobs.c.id)
    return [JobRecord(**row) for row in c.execute(query).mappings()]


def ended_before(c: Connection, moment: datetime, most: int, *, schedule_id: str | None = None) -> list[JobRecord]:
    """Return the latest jobs that had succeeded by `moment`, latest first, of one schedule if given."""
    query = select(_jobs).where(_jobs.c.state == JobState.SUCCEEDED, _jobs.c.finished_at <= moment)
    if schedule_id is not None:
        query = query.where(_jobs.c.schedule_id == schedule_id)
    latest = query.order_by(_jobs.c.finished_at.desc(), _jobs.c.id).limit(most)
    return [JobRecord(**row) for row in c.execute(latest).mappings()]


def move(
    c: Connection,
    job_id: str,
    to: JobState,
    now: datetime,
    error: dict[str, Any] | None = None,
    ended_reason: str | None = None,
) -> bool:
    """Change the job's state; return False, without a change, if the transition is not legal."""
    changes: dict[str, Any] = {"state": to}
    if to is JobState.RUNNING:
        changes["started_at"] = now
    if to.terminal:
        changes["finished_at"] = now
    if error is not None:
        changes["error"] = error
    if ended_reason is not None:
        changes["ended_reason"] = ended_reason
    legal = [state for state, successors in JOB_TRANSITIONS.items() if to in successors]
    return c.execute(_jobs.update().where(_jobs.c.id == job_id, _jobs.c.state.in_(legal)).values(changes)).rowcount == 1


def extend(c: Connection, job_id: str, search: Search, extension: Extension) -> bool:
    """Queue a job that succeeded again, with a larger budget; return False, without a change, if it did not succeed.

    It keeps its result until it ends again.
    """
    assert JobState.QUEUED in JOB_TRANSITIONS[JobState.SUCCEEDED]
    extensions = (*get(c, job_id).extensions, extension)
    changes = {"state": JobState.QUEUED, "search": search, "extensions": extensions, "paused": False}
    changes |= {"finished_at": None, "ended_reason": None}
    ended = (_jobs.c.id == job_id, _jobs.c.state == JobState.SUCCEEDED)
    return c.execute(_jobs.update().where(*ended).values(changes)).rowcount == 1


def pause(c: Connection, job_id: str) -> bool:
    """Pause the job: none of its trials is leased. Return False if it has ended or is already paused."""
    live = _jobs.c.state.in_([state for state in JobState if not state.terminal])
    changed = _jobs.update().where(_jobs.c.id == job_id, live, not_(_jobs.c.paused)).values(paused=True)
    return c.execute(changed).rowcount == 1


def resume(c: Connection, job_id: str) -> bool:
    """Undo `pause`; return False if the job is not paused."""
    changed = _jobs.update().where(_jobs.c.id == job_id, _jobs.c.paused).values(paused=False)
    return c.execute(changed).rowcount == 1


def set_result(
    c: Connection, job_id: str, best_trial_id: str | None, fine_tuned_model: str | None, trained_tokens: int | None
) -> None:
    """Raises NotFound."""
    changed = c.execute(
        _jobs.update()
        .where(_jobs.c.id == job_id)
        .values(best_trial_id=best_trial_id, fine_tuned_model=fine_tuned_model, trained_tokens=trained_tokens)
    )
    if changed.rowcount == 0:
        get(c, job_id)


def describe(c: Connection, job_id: str, notes: str | None, tags: Sequence[str] | None) -> None:
    """Change a job's notes and tags; None leaves them unchanged. Raises NotFound."""
    changes = {"notes": notes, "tags": None if tags is None else tuple(tags)}
    given = {name: value for name, value in changes.items() if value is not None}
    if not given or c.execute(_jobs.update().where(_jobs.c.id == job_id).values(given)).rowcount == 0:
        get(c, job_id)
