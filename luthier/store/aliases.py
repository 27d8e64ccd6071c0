"""Aliases: stable names for the best model so far. Every change adds a version; the latest one is in use."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, func, select

from luthier.errors import Conflict, NotFound
from luthier.schedule import AliasOrigin, Contest
from luthier.store import tables
from luthier.store.rows import AliasRecord, JobRecord

_versions = tables.alias_versions

PREFIX: Final = "alias/"


def current(c: Connection, name: str) -> AliasRecord | None:
    """Return the latest version of the alias; None if the alias does not exist."""
    return next(iter(history(c, name)), None)


def get(c: Connection, name: str) -> AliasRecord:
    """Raises NotFound."""
    found = current(c, name)
    if found is None:
        raise NotFound(f"Alias {name!r} was not found.", param="alias")
    return found


def resolve(c: Connection, model: str) -> str:
    """Return the fine-tuned model that `alias/NAME` points to, or any other name unchanged. Raises NotFound."""
    return get(c, model.removeprefix(PREFIX)).model if model.startswith(PREFIX) else model


def list_(c: Connection) -> list[AliasRecord]:
    """Return the latest version of each alias, sorted by name."""
    latest = select(_versions.c.name, func.max(_versions.c.version).label("version")).group_by(_versions.c.name)
    newest = latest.subquery()
    same = (newest.c.name == _versions.c.name, newest.c.version == _versions.c.version)
    query = select(_versions).join(newest, same[0] & same[1]).order_by(_versions.c.name)
    return [AliasRecord(**row) for row in c.execute(query).mappings()]


def history(c: Connection, name: str) -> Sequence[AliasRecord]:
    """Return all versions of the alias, the latest first."""
    query = select(_versions).where(_versions.c.name == name).order_by(_versions.c.version.desc())
    return [AliasRecord(**row) for row in c.execute(query).mappings()]


def point(
    c: Connection, name: str, job: JobRecord, origin: AliasOrigin, now: datetime, contest: Contest | None = None
) -> AliasRecord:
    """Point the alias to the model of a job that has succeeded."""
    assert job.fine_tuned_model is not None, "only jobs that have succeeded have a model"
    assert job.best_trial_id is not None, "and that model is a trial's"
    before = current(c, name)
    version = 0 if before is None else before.version
    record = AliasRecord(
        name=name,
        version=version + 1,
        model=job.fine_tuned_model,
        job_id=job.id,
        trial_id=job.best_trial_id,
        before=None if before is None else version,
        origin=origin,
        contest=contest,
        created_at=now,
    )
    c.execute(_versions.insert().values(dict(record)))
    return record


def roll_back(c: Connection, name: str, now: datetime) -> AliasRecord:
    """Point the alias to its previous model; a second roll-back goes one model further back.

    Raises NotFound, or Conflict if there is no previous model or it has been deleted.
    """
    latest = get(c, name)
    target = next((one for one in history(c, name) if one.version == latest.before), None)
    if target is None:
        raise Conflict(f"alias/{name} cannot be rolled back: {latest.model} is the first model that it points to.")
    made = tables.jobs.c
    if c.scalar(select(made.fine_tuned_model).where(made.id == target.job_id)) != target.model:
        raise Conflict(f"alias/{name} cannot be rolled back: its previous model {target.model} has been deleted.")
    changes = {"version": latest.version + 1, "origin": "rollback", "contest": None, "created_at": now}
    record = target.model_copy(update=changes)
    c.execute(_versions.insert().values(dict(record)))
    return record


def delete(c: Connection, name: str) -> None:
    """Delete the alias and its history; the models stay. Raises NotFound."""
    if c.execute(_versions.delete().where(_versions.c.name == name)).rowcount == 0:
        get(c, name)
