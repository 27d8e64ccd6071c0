"""Aliases: names that point to a model. Every change adds a version; the latest one is current."""

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
    """Return the current version of an alias; None for an unknown one."""
    return next(iter(history(c, name)), None)


def get(c: Connection, name: str) -> AliasRecord:
    """Return the current version of an alias. Raises NotFound."""
    found = current(c, name)
    if found is None:
        raise NotFound(f"alias {name!r} was not found", param="alias")
    return found


def resolve(c: Connection, model: str) -> str:
    """Return the model that `alias/NAME` points to; any other name is returned as it is. Raises NotFound."""
    return get(c, model.removeprefix(PREFIX)).model if model.startswith(PREFIX) else model


def list_(c: Connection) -> list[AliasRecord]:
    """Return the current version of each alias, by name."""
    latest = select(_versions.c.name, func.max(_versions.c.version).label("version")).group_by(_versions.c.name)
    newest = latest.subquery()
    same = (newest.c.name == _versions.c.name, newest.c.version == _versions.c.version)
    query = select(_versions).join(newest, same[0] & same[1]).order_by(_versions.c.name)
    return [AliasRecord(**row) for row in c.execute(query).mappings()]


def history(c: Connection, name: str) -> Sequence[AliasRecord]:
    """Return all versions of an alias, the latest first."""
    query = select(_versions).where(_versions.c.name == name).order_by(_versions.c.version.desc())
    return [AliasRecord(**row) for row in c.execute(query).mappings()]


def point(
    c: Connection, name: str, job: JobRecord, origin: AliasOrigin, now: datetime, contest: Contest | None = None
) -> AliasRecord:
    """Point the alias to the model of a job that has succeeded. Return the new version."""
    assert job.fine_tuned_model is not None, "only a job that has succeeded has a model"
    assert job.best_trial_id is not None, "a model is that of a trial"
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
    """Point the alias to the model before the current one. Rolling back again goes one version further back.

    Raises NotFound, or Conflict where there is no earlier version or its model was deleted.
    """
    latest = get(c, name)
    target = next((one for one in history(c, name) if one.version == latest.before), None)
    if target is None:
        raise Conflict(f"alias/{name} has no version before {latest.model} to roll back to")
    made = tables.jobs.c
    if c.scalar(select(made.fine_tuned_model).where(made.id == target.job_id)) != target.model:
        raise Conflict(f"the previous model of alias/{name}, {target.model}, was deleted")
    changes = {"version": latest.version + 1, "origin": "rollback", "contest": None, "created_at": now}
    record = target.model_copy(update=changes)
    c.execute(_versions.insert().values(dict(record)))
    return record


def delete(c: Connection, name: str) -> None:
    """Delete an alias and its versions; the models stay. Raises NotFound."""
    if c.execute(_versions.delete().where(_versions.c.name == name)).rowcount == 0:
        get(c, name)
