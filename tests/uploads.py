"""Rows as an uploaded file, read as the service reads it."""

from pathlib import Path
from typing import Any

from luthier.dataset import Loaded, load, write_rows

Row = dict[str, Any]


def load_rows(folder: Path, rows: list[Row]) -> Loaded:
    """Write the rows as JSONL and load them. Raises DatasetError."""
    path = folder / "upload"
    path.write_bytes(write_rows(rows))
    return load(path, "train.jsonl", max_row_bytes=2**22)
