"""An empty store at this version's schema, migrated once in a process and copied from then on."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from luthier.store.database import Database


def put(file: Path) -> None:
    """Write an empty, migrated SQLite database to a file, unless it exists already."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_template())


@cache
def _template() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "template.db"
        database = Database(f"sqlite:///{file}")
        database.upgrade()
        database.close()
        return file.read_bytes()
