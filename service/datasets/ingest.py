"""From a file of rows to its record: checked as a whole, normalised, profiled, kept as blobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luthier import dataset
from luthier.store import models
from luthier.store.rows import FileRecord, new_id
from service import tokens
from service.context import Context, utc_now


def take_in(here: Context, path: Path, filename: str) -> FileRecord:
    """The record of a file, not inserted yet. Raises DatasetError with the first faults of the file."""
    settings = here.settings
    loaded = dataset.load(path, filename, max_row_bytes=settings.max_row_bytes, max_bytes=settings.max_upload_bytes)
    profile = dataset.profile(loaded.rows, loaded.kind, source_format=loaded.format, **_counting(here))
    with path.open("rb") as stream:
        raw, size = here.keep(stream)
    return FileRecord(
        id=new_id("file"),
        filename=filename,
        purpose="fine-tune",
        bytes=size,
        created_at=utc_now(),
        kind=loaded.kind,
        format=loaded.format,
        raw=raw,
        rows=here.keep_bytes(dataset.write_rows(loaded.rows)),
        profile=profile.model_dump(mode="json"),
    )


def _counting(here: Context) -> dict[str, Any]:
    """How the profile counts tokens: by the first base model's tokenizer, else by its own estimate."""
    with here.database.read() as c:
        counter = tokens.counter(models.list_(c))
    return {} if counter is None else {"count_tokens": counter.count, "counted_by": counter.model}
