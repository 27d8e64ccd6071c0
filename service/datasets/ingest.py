"""From a file of rows to its record: checked as a whole, normalised, profiled, kept as blobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from luthier import dataset
from luthier.models.base_model import BaseModelEntry
from luthier.store import models
from luthier.store.rows import FileRecord, new_id
from service.context import Context, utc_now


def take_in(ctx: Context, path: Path, filename: str) -> FileRecord:
    """The record of a file, not inserted yet. Raises DatasetError with the first faults of the file."""
    settings = ctx.settings
    loaded = dataset.load(path, filename, max_row_bytes=settings.max_row_bytes, max_bytes=settings.max_upload_bytes)
    profile = dataset.profile(loaded.rows, loaded.kind, source_format=loaded.format, **_counting(ctx))
    with path.open("rb") as stream:
        raw, size = ctx.keep(stream)
    return FileRecord(
        id=new_id("file"),
        filename=filename,
        purpose="fine-tune",
        bytes=size,
        created_at=utc_now(),
        kind=loaded.kind,
        format=loaded.format,
        raw=raw,
        rows=ctx.keep_bytes(dataset.write_rows(loaded.rows)),
        profile=profile.model_dump(mode="json"),
    )


def _counting(ctx: Context) -> dict[str, Any]:
    """How the profile counts tokens: by the first base model's tokenizer, else by its own estimate."""
    with ctx.database.read() as c:
        counter = token_counter(models.list_(c))
    return {} if counter is None else {"count_tokens": counter.count, "counted_by": counter.model}


class TokenCounter(NamedTuple):
    model: str
    count: Callable[[str], int]


def token_counter(entries: Sequence[BaseModelEntry]) -> TokenCounter | None:
    """Counts tokens as the first of the models that lies in a local folder does; None where none does."""
    for entry in entries:
        file = Path(entry.source) / "tokenizer.json"
        if file.is_file():
            return TokenCounter(entry.name, partial(_count, _load(file, file.stat().st_mtime_ns)))
    return None


def _count(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


@lru_cache(maxsize=4)
def _load(file: Path, changed: int) -> Tokenizer:
    """`changed` is the file's time of change, so that a replaced tokenizer is read anew."""
    return Tokenizer.from_file(str(file))
