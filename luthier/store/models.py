"""The registry of base models."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from luthier.errors import UserError, unknown_base_model
from luthier.models.base_model import BaseModelEntry
from luthier.store import tables
from luthier.store.database import insert_into

_models = tables.models
_COLUMNS = tuple(_models.c[field] for field in BaseModelEntry.model_fields)


def add(c: Connection, entry: BaseModelEntry, now: datetime) -> None:
    """Register a base model. An entry of the same name is replaced."""
    changes = dict(entry) | {"added_at": now}
    row = insert_into(c, _models).values(changes)
    c.execute(row.on_conflict_do_update(index_elements=[_models.c.name], set_=changes))


def get(c: Connection, name: str) -> BaseModelEntry:
    """Return a base model. Raises NotFound."""
    row = c.execute(select(*_COLUMNS).where(_models.c.name == name)).mappings().one_or_none()
    if row is None:
        raise _unknown(c, name)
    return BaseModelEntry(**row)


def list_(c: Connection) -> list[BaseModelEntry]:
    """Return all base models, by name."""
    return [BaseModelEntry(**row) for row in c.execute(select(*_COLUMNS).order_by(_models.c.name)).mappings()]


def added_at(c: Connection, name: str) -> datetime:
    """Return when the base model was registered or last replaced. Raises NotFound."""
    moment: datetime | None = c.scalar(select(_models.c.added_at).where(_models.c.name == name))
    if moment is None:
        raise _unknown(c, name)
    return moment


def remove(c: Connection, name: str) -> None:
    """Remove a base model from the registry. Raises NotFound."""
    if c.execute(_models.delete().where(_models.c.name == name)).rowcount == 0:
        raise _unknown(c, name)


def _unknown(c: Connection, name: str) -> UserError:
    return unknown_base_model(name, c.scalars(select(_models.c.name).order_by(_models.c.name)))
