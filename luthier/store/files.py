"""Uploaded datasets."""

from __future__ import annotations

from sqlalchemy import Connection, exists, or_, select

from luthier.errors import Conflict, NotFound
from luthier.store import tables
from luthier.store.database import page
from luthier.store.rows import FileRecord
from luthier.trial import JobState

_files = tables.files


def insert(c: Connection, record: FileRecord) -> None:
    c.execute(_files.insert().values(dict(record)))


def get(c: Connection, file_id: str) -> FileRecord:
    """Return a file. Raises NotFound."""
    row = c.execute(select(_files).where(_files.c.id == file_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"file {file_id!r} was not found", param="file")
    return FileRecord(**row)


def newest(c: Connection, filename: str) -> FileRecord:
    """Return the file of that name that was uploaded last. Raises NotFound."""
    named = select(_files).where(_files.c.filename == filename)
    row = c.execute(named.order_by(_files.c.created_at.desc(), _files.c.id.desc()).limit(1)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no file is named {filename!r}", param="training_file")
    return FileRecord(**row)


def list_(c: Connection, after: str | None, limit: int) -> tuple[list[FileRecord], bool]:
    """Return a page, newest first, and whether more follow. Raises NotFound for an unknown `after`."""
    rows, has_more = page(c, select(_files), _files, ("created_at", "id"), after, limit)
    return [FileRecord(**row) for row in rows], has_more


def delete(c: Connection, file_id: str) -> None:
    """Delete a file. Raises NotFound, or Conflict while an active job uses it."""
    # A job being created with this file is then either visible below, or waits until the file is gone.
    c.execute(select(_files.c.id).where(_files.c.id == file_id).with_for_update())
    jobs = tables.jobs.c
    used = exists().where(
        or_(jobs.training_file == file_id, jobs.validation_file == file_id),
        jobs.state.in_([state for state in JobState if not state.terminal]),
    )
    if c.execute(_files.delete().where(_files.c.id == file_id, ~used)).rowcount == 0:
        file = get(c, file_id)
        raise Conflict(f"{file.filename} ({file_id}) is used by a job that has not ended. Cancel the job first.")
