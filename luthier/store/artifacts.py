"""The blobs of trials: saved artifacts and checkpoints; and which blobs are unreferenced."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from sqlalchemy import JSON, Connection, select, type_coerce, union_all

from luthier.errors import Conflict
from luthier.store import tables, trials
from luthier.worker_protocol import Artifact

_artifacts = tables.artifacts
_files = tables.artifact_files

_BATCH: Final = 500  # digests in one statement: both databases limit the number of parameters


def replace(c: Connection, trial_id: str, artifacts: Iterable[Artifact]) -> None:
    """Replace the trial's artifacts."""
    c.execute(_artifacts.delete().where(_artifacts.c.trial_id == trial_id))
    for artifact in artifacts:
        key = {"trial_id": trial_id, "kind": artifact.kind}
        c.execute(_artifacts.insert().values(**key, bytes=artifact.bytes))
        if artifact.files:
            c.execute(_files.insert(), [{**key, "path": p, "digest": d} for p, d in artifact.files.items()])


def of_trial(c: Connection, trial_id: str) -> list[Artifact]:
    """Return the trial's artifacts, by kind."""
    found = c.execute(select(_artifacts).where(_artifacts.c.trial_id == trial_id).order_by(_artifacts.c.kind))
    contents: dict[str, dict[str, str]] = {}
    for file in c.execute(select(_files).where(_files.c.trial_id == trial_id).order_by(_files.c.path)):
        contents.setdefault(file.kind, {})[file.path] = file.digest
    return [Artifact(kind=row.kind, bytes=row.bytes, files=contents.get(row.kind, {})) for row in found]


def drop(c: Connection, trial_id: str) -> set[str]:
    """Delete the trial's artifacts. Return the digests of their files (see `unreferenced`)."""
    digests = {digest for artifact in of_trial(c, trial_id) for digest in artifact.files.values()}
    replace(c, trial_id, ())
    return digests


def drop_checkpoint(c: Connection, trial_id: str) -> set[str]:
    """Delete the checkpoint of a trial that has ended. Return its digests, with the manifest's.

    Raises NotFound, or Conflict for a trial that may still resume.
    """
    trial = trials.get(c, trial_id)
    if not trial.state.terminal:
        raise Conflict(f"trial {trial_id} is {trial.state.value} and may need its checkpoint to resume")
    blobs = tables.checkpoint_blobs
    digests = set(c.scalars(select(blobs.c.digest).where(blobs.c.trial_id == trial_id)))
    c.execute(blobs.delete().where(blobs.c.trial_id == trial_id))
    c.execute(tables.trials.update().where(tables.trials.c.id == trial_id).values(checkpoint=None))
    return digests


def unreferenced(c: Connection, digests: Collection[str]) -> set[str]:
    """Return the `digests` that no file, job, artifact or checkpoint refers to: their blobs may be deleted."""
    judge = type_coerce(tables.jobs.c.judge, JSON)
    references = (
        tables.files.c.raw,
        tables.files.c.rows,
        tables.jobs.c.train,
        judge["validation"].as_string(),
        judge["test"].as_string(),
        _files.c.digest,
        tables.checkpoint_blobs.c.digest,
    )
    left = sorted(set(digests))
    used: set[str] = set()
    for start in range(0, len(left), _BATCH):
        batch = left[start : start + _BATCH]
        used |= set(c.scalars(union_all(*(select(column).where(column.in_(batch)) for column in references))))
    return set(left) - used
