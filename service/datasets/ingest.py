"""Store a dataset file: all rows are checked, normalised, profiled and stored as blobs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from luthier import dataset
from luthier.dataset.parquet_process import confined_rows
from luthier.models.base_model import BaseModelEntry
from luthier.models.count_tokens import Counters, Uncounted
from luthier.store import files, models
from luthier.store.rows import FileRecord, new_id
from service.context import Context, utc_now

log = logging.getLogger(__name__)

_counters: Final = Counters()


def store(ctx: Context, path: Path, filename: str) -> FileRecord:
    """Check a file and insert its record. Raises DatasetError with the first faults of the file."""
    record = ingest(ctx, path, filename)
    with ctx.database.begin() as c:
        files.insert(c, record)
    return record


def delete(ctx: Context, file_id: str) -> None:
    """Delete a file. Raises NotFound, and Conflict while an active job uses it."""
    with ctx.database.begin() as c:
        record = files.get(c, file_id)
        files.delete(c, file_id)
    ctx.garbage.release({record.raw, record.rows})


def ingest(ctx: Context, path: Path, filename: str) -> FileRecord:
    """Check a file and return its record, which is not inserted yet. Raises DatasetError.

    The profile counts tokens with a base model's tokenizer; without one, it estimates them.
    """
    settings = ctx.settings
    loaded = dataset.load(
        path,
        filename,
        max_row_bytes=settings.max_row_bytes,
        max_bytes=settings.max_upload_bytes,
        parquet=confined_rows,
    )
    profile = _profile(ctx, loaded)
    with path.open("rb") as stream:
        raw, size = ctx.store_blob(stream)
    return FileRecord(
        id=new_id("file"),
        filename=filename,
        purpose="fine-tune",
        bytes=size,
        created_at=utc_now(),
        kind=loaded.kind,
        format=loaded.format,
        raw=raw,
        rows=ctx.store_bytes(dataset.write_rows(loaded.rows)),
        profile=profile.model_dump(mode="json"),
    )


def _profile(ctx: Context, loaded: dataset.Loaded) -> dataset.Profile:
    with ctx.database.read() as c:
        counter = token_counter(models.list_(c))
    profile = partial(
        dataset.profile,
        loaded.rows,
        loaded.kind,
        source_format=loaded.format,
        unused_columns=loaded.unused_columns,
        notes=loaded.notes,
        warnings=loaded.warnings,
    )
    if counter is not None:
        try:
            return profile(count_tokens=counter.count, counted_by=counter.model)
        except Uncounted as error:
            log.warning("tokens are estimated: %s", error)
    return profile()


@dataclass(frozen=True)
class TokenCounter:
    model: str
    count: Callable[[Sequence[str]], list[int]]


def token_counter(entries: Sequence[BaseModelEntry]) -> TokenCounter | None:
    """Return the tokenizer of the first base model that has one in a local folder; None where none has."""
    for entry in entries:
        file = Path(entry.source) / "tokenizer.json"
        if file.is_file():
            return TokenCounter(entry.name, partial(_counters.count, file))
    return None
