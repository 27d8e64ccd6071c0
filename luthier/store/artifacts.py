"""Artifacts and checkpoints of trials, which are blobs, and the search for blobs that nothing refers to."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from sqlalchemy import JSON, Connection, Select, column, func, select, true, type_coerce, union_all

from luthier.errors import Conflict
from luthier.store import tables, trials
from luthier.worker_protocol import Artifact

_artifacts = tables.artifacts
_files = tables.artifact_files

_BATCH: Final = 500  # digests in one statement: both databases limit the number of parameters


def replace(c: Connection, trial_id: str, artifacts: Iterable[Artifact]) -> None:
    """Replace the trial's artifacts by these."""
    c.execute(_artifacts.delete().where(_artifacts.c.trial_id == trial_id))
    for artifact in artifacts:
        key = {"trial_id": trial_id, "kind": artifact.kind}
        c.execute(_artifacts.insert().values(**key, bytes=artifact.bytes))
        if artifact.files:
            c.execute(_files.insert(), [{**key, "path": p, "digest": d} for p, d in artifact.files.items()])


def of_trial(c: Connection, trial_id: str) -> list[Artifact]:
    """Return the trial's artifacts, sorted by kind."""
    found = c.execute(select(_artifacts).where(_artifacts.c.trial_id == trial_id).order_by(_artifacts.c.kind))
    contents: dict[str, dict[str, str]] = {}
    for file in c.execute(select(_files).where(_files.c.trial_id == trial_id).order_by(_files.c.path)):
        contents.setdefault(file.kind, {})[file.path] = file.digest
    return [Artifact(kind=row.kind, bytes=row.bytes, files=contents.get(row.kind, {})) for row in found]


def drop(c: Connection, trial_id: str) -> set[str]:
    """Remove the trial's artifacts; return their digests, to be checked with `unreferenced`."""
    digests = {digest for artifact in of_trial(c, trial_id) for digest in artifact.files.values()}
    replace(c, trial_id, ())
    return digests


def drop_checkpoint(c: Connection, trial_id: str) -> set[str]:
    """Remove the checkpoint of a trial that has ended; return its digests, including the manifest's.

    Raises NotFound, or Conflict for a trial that may still resume.
    """
    trial = trials.get(c, trial_id)
    if not trial.state.terminal:
        raise Conflict(f"Trial {trial_id} is {trial.state.value} and needs its checkpoint to resume.")
    blobs = tables.checkpoint_blobs
    digests = set(c.scalars(select(blobs.c.digest).where(blobs.c.trial_id == trial_id)))
    c.execute(blobs.delete().where(blobs.c.trial_id == trial_id))
    c.execute(tables.trials.update().where(tables.trials.c.id == trial_id).values(checkpoint=None))
    return digests


def unreferenced(c: Connection, digests: Collection[str]) -> set[str]:
    """Return the digests that no file, job, artifact or checkpoint refers to; their blobs can be deleted."""
    judge = type_coerce(tables.jobs.c.judge, JSON)
    references = [
        select(reference)
        for reference in (
            tables.files.c.raw,
            tables.files.c.rows,
            tables.jobs.c.train,
            judge["validation"].as_string(),
            judge["test"].as_string(),
            _files.c.digest,
            tables.checkpoint_blobs.c.digest,
        )
    ]
    references += [_of_resplits(c, "train"), _of_resplits(c, "validation")]
    left = sorted(set(digests))
    used: set[str] = set()
    for start in range(0, len(left), _BATCH):
        batch = left[start : start + _BATCH]
        used |= set(c.scalars(union_all(*(found.where(found.selected_columns[0].in_(batch)) for found in references))))
    return set(left) - used


def _of_resplits(c: Connection, part: str) -> Select[Any]:
    """Select the digests of the further splits of all jobs."""
    each = func.json_each if c.dialect.name == "sqlite" else func.json_array_elements
    one = each(tables.jobs.c.resplits).table_valued(column("value", JSON))
    return select(one.c.value[part].as_string()).select_from(tables.jobs).join(one, true())
