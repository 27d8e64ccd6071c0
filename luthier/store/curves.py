"""Training curves: metric points by stage, name and step."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from luthier.store import tables
from luthier.store.database import insert_into
from luthier.trial import Point

_points = tables.points
_KEY = ("stage", "name", "step")


def add(c: Connection, trial_id: str, points: Iterable[Point]) -> None:
    """Store a batch. Points sent again are harmless; for the same (stage, name, step) the later value wins."""
    latest = {(point.stage, point.name, point.step): point for point in points}
    if not latest:
        return
    row = insert_into(c, _points)
    upsert = row.on_conflict_do_update(
        index_elements=[_points.c.trial_id, *(_points.c[name] for name in _KEY)],
        set_={"value": row.excluded.value, "at": row.excluded.at},
    )
    # In one order, so that two batches for the same rows wait for each other instead of deadlocking.
    c.execute(upsert, [{"trial_id": trial_id, **dict(latest[key])} for key in sorted(latest)])


def of_trial(c: Connection, trial_id: str, name: str | None = None) -> list[Point]:
    """By stage, name and step; only the curve `name` where one is given."""
    query = select(*(_points.c[field] for field in Point.model_fields)).where(_points.c.trial_id == trial_id)
    if name is not None:
        query = query.where(_points.c.name == name)
    return [Point(**row) for row in c.execute(query.order_by(*(_points.c[name] for name in _KEY))).mappings()]
