"""Pages of a dataset's rows."""

from __future__ import annotations

import json
from typing import Any

from luthier.api_types import DatasetRows
from luthier.store.rows import FileRecord
from service.context import Context


def rows_of(ctx: Context, record: FileRecord, first: int, limit: int, contains: str = "") -> DatasetRows:
    """Return a page of a file's rows, from row `first` (counted from 1) of those that contain the text.

    The whole file is read each time; only the rows of the page are parsed, or all where a text is searched for.
    """
    text, shown, total = contains.casefold(), list[tuple[int, Any]](), 0
    with ctx.blobs.open(record.rows) as stream:
        for number, line in enumerate(stream, start=1):
            row = json.loads(line) if text else None
            if text and text not in json.dumps(row, ensure_ascii=False).casefold():
                continue
            total += 1
            if first <= total < first + limit:
                shown.append((number, json.loads(line) if row is None else row))
    return DatasetRows(
        data=tuple(row for _, row in shown),
        numbers=tuple(number for number, _ in shown),
        first=first,
        total=total,
        has_more=first + limit <= total,
    )
