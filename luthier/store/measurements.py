"""Measurements of trials: curves, samples, test scores and log lines."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

from sqlalchemy import Connection, Select, and_, func, select, union

from luthier.metrics import CURVES
from luthier.store import tables
from luthier.store.database import insert_into
from luthier.trial import TRAIN_LOSS, LogLine, Point, RowScores, Sample

_points = tables.points
HELD_OUT: Final = tuple(curve.name for curve in CURVES if curve.split == "validation")
_KEY = ("stage", "name", "step")


def add(c: Connection, trial_id: str, points: Iterable[Point]) -> None:
    """Store a batch of points. Sending one twice is harmless; for one (stage, name, step) the later value wins."""
    latest = {(point.stage, point.name, point.step): point for point in points}
    if not latest:
        return
    row = insert_into(c, _points)
    upsert = row.on_conflict_do_update(
        index_elements=[_points.c.trial_id, *(_points.c[name] for name in _KEY)],
        set_={"value": row.excluded.value, "at": row.excluded.at},
    )
    # Sorted, so that two batches for the same rows wait for each other instead of deadlocking.
    c.execute(upsert, [{"trial_id": trial_id, **dict(latest[key])} for key in sorted(latest)])


def stage_scores(c: Connection, job_id: str) -> dict[str, dict[int, dict[str, float]]]:
    """Return the latest held-out scores of a job's trials, by trial, stage and name."""
    query = select(_points).where(_points.c.trial_id.in_(_of_job(job_id)), _points.c.name.in_(HELD_OUT))
    found: dict[str, dict[int, dict[str, float]]] = {}
    for row in c.execute(query.order_by(_points.c.step)).mappings():
        found.setdefault(row["trial_id"], {}).setdefault(row["stage"], {})[row["name"]] = row["value"]
    return found


def train_losses(c: Connection, job_id: str) -> dict[tuple[str, int, int], float]:
    """Return the training loss at the rungs and at the last step of each stage, by trial, stage and step."""
    of_job = select(tables.trials.c.id).where(tables.trials.c.job_id == job_id)
    where = (_points.c.trial_id.in_(of_job), _points.c.name == TRAIN_LOSS)
    rungs = tables.rungs.c
    at_rungs = select(rungs.trial_id, rungs.stage, rungs.step).where(rungs.trial_id.in_(of_job))
    key = (_points.c.trial_id, _points.c.stage)
    last = select(*key, func.max(_points.c.step)).where(*where).group_by(*key)
    moments = union(at_rungs, last).subquery()
    same = [column == moment for column, moment in zip((*key, _points.c.step), moments.c, strict=True)]
    query = select(*key, _points.c.step, _points.c.value).join(moments, and_(*same)).where(*where)
    return {(trial, stage, step): value for trial, stage, step, value in c.execute(query)}


def of_trial(c: Connection, trial_id: str, name: str | None = None) -> list[Point]:
    """Return a trial's points, or those of the curve `name`, sorted by stage, name and step."""
    query = select(*(_points.c[field] for field in Point.model_fields)).where(_points.c.trial_id == trial_id)
    if name is not None:
        query = query.where(_points.c.name == name)
    return [Point(**row) for row in c.execute(query.order_by(*(_points.c[name] for name in _KEY))).mappings()]


def names(c: Connection, job_id: str) -> list[str]:
    """Return the names of the curves of a job's trials, in alphabetical order."""
    query = select(_points.c.name).where(_points.c.trial_id.in_(_of_job(job_id))).distinct()
    return sorted(c.execute(query).scalars())


def of_job(c: Connection, job_id: str, name: str) -> dict[str, list[tuple[int, int, float]]]:
    """Return one curve of a job's trials, by trial: (stage, step, value), sorted by stage and step."""
    columns = _points.c.trial_id, _points.c.stage, _points.c.step, _points.c.value
    query = select(*columns).where(_points.c.trial_id.in_(_of_job(job_id)), _points.c.name == name)
    result = c.execute(query.order_by(*columns[:3]))
    assert result.cursor is not None  # a select has one
    rows = result.cursor.fetchall()  # faster for many rows, and their types need no conversion
    result.close()
    return {trial_id: [row[1:] for row in points] for trial_id, points in groupby(rows, itemgetter(0))}


def _of_job(job_id: str) -> Select[tuple[str]]:
    return select(tables.trials.c.id).where(tables.trials.c.job_id == job_id)


def counts(c: Connection, trial_ids: Collection[str]) -> dict[str, int]:
    """Return the number of points of each trial, without trials that have none."""
    query = select(_points.c.trial_id, func.count()).where(_points.c.trial_id.in_(trial_ids))
    return {row[0]: row[1] for row in c.execute(query.group_by(_points.c.trial_id))}


_samples = tables.samples


def put_samples(c: Connection, trial_id: str, found: Sequence[Sample]) -> None:
    """Replace a trial's samples."""
    row = insert_into(c, _samples).values(trial_id=trial_id, samples=tuple(found))
    c.execute(row.on_conflict_do_update(index_elements=[_samples.c.trial_id], set_={"samples": row.excluded.samples}))


def samples_of(c: Connection, trial_id: str) -> tuple[Sample, ...]:
    """Return a trial's samples, empty if it has none."""
    found: tuple[Sample, ...] | None = c.scalar(select(_samples.c.samples).where(_samples.c.trial_id == trial_id))
    return found or ()


_scores = tables.test_scores


def put_scores(c: Connection, trial_id: str, scores: RowScores) -> None:
    """Replace a trial's scores on the test rows."""
    row = insert_into(c, _scores).values(trial_id=trial_id, scores=scores)
    c.execute(row.on_conflict_do_update(index_elements=[_scores.c.trial_id], set_={"scores": row.excluded.scores}))


def scores_of_job(c: Connection, job_id: str) -> dict[str, RowScores]:
    """Return the test scores of a job's trials, by trial."""
    query = (
        select(_scores)
        .join(tables.trials, tables.trials.c.id == _scores.c.trial_id)
        .where(tables.trials.c.job_id == job_id)
    )
    return {row["trial_id"]: row["scores"] for row in c.execute(query).mappings()}


_lines = tables.log_lines


class LeasedLine(NamedTuple):
    lease: int
    line: LogLine


def add_lines(c: Connection, trial_id: str, lease: int, lines: Sequence[LogLine]) -> None:
    """Store a batch of log lines of a lease. Sending one twice is harmless."""
    if lines:
        values = [{"trial_id": trial_id, "lease": lease, **dict(line)} for line in lines]
        c.execute(insert_into(c, _lines).on_conflict_do_nothing(), values)


def lines_of(c: Connection, trial_id: str, most: int) -> list[LeasedLine]:
    """Return the last `most` log lines of a trial, oldest first."""
    query = select(_lines).where(_lines.c.trial_id == trial_id)
    latest = c.execute(query.order_by(_lines.c.lease.desc(), _lines.c.number.desc()).limit(most)).mappings().all()
    return [
        LeasedLine(row["lease"], LogLine(number=row["number"], at=row["at"], text=row["text"]))
        for row in reversed(latest)
    ]
