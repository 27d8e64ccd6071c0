"""Read Parquet files in a process with limits: `python -P -m luthier.dataset.parquet_process`.

A few kilobytes of Parquet can unpack to gigabytes, and do so inside of a library, before their size is known. So the
service never unpacks them itself. A line of standard input is an order: the file, the limits, and a file for the rows.
The reply is an empty object, or says why the file was not read to its end. The rows, and the faults of rows that are
left out, are written as lines of JSON.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from luthier import child_process
from luthier.dataset.errors import Faults
from luthier.dataset.rows import Row
from luthier.dataset.tables import parquet_rows
from luthier.dataset.unstorable import Unstorable
from luthier.errors import DatasetError
from luthier.graders.subprocess import Child
from luthier.models import confined

MEMORY_BYTES: Final = 2**30
CPU_SECONDS: Final = 300.0  # of one file
WALL_SECONDS: Final = 2 * CPU_SECONDS
_child: Final = Child("parquet", partial(child_process.piped, "luthier.dataset.parquet_process"), WALL_SECONDS)


def confined_rows(path: Path, limit: int, max_bytes: int, faults: Faults) -> Iterator[tuple[int, Row]]:
    """Yield what `parquet_rows` yields, read by the process. Raises DatasetError if it needs more than its limits."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        order = {"path": str(path), "limit": limit, "max_bytes": max_bytes, "rows": file.name}
        try:
            answer = _child.ask(order)
        except TimeoutError as late:
            raise DatasetError(f"the Parquet file was not read: {late}") from late
        for line in file:
            found = json.loads(line)
            if "fault" in found:
                number = found["number"]
                faults.add(found["fault"], number=math.inf if number is None else number)
            else:
                cells = {column: Unstorable(what) for column, what in found["unstorable"].items()}
                row = found["row"]  # of 10,000 columns, whose names would fill the memory if each row had its own
                yield found["number"], {sys.intern(column): cells.get(column, row[column]) for column in row}
    reply = json.loads(answer) if answer else {"failed": _too_large("memory or time")}
    if "failed" in reply:
        raise DatasetError(reply["failed"])


class _SentFaults(Faults):
    """Writes the faults of rows among the rows."""

    def __init__(self, file: IO[str]) -> None:
        super().__init__()
        self._file = file

    def add(self, fault: str, *, number: float = math.inf) -> None:
        _write(self._file, {"fault": fault, "number": None if math.isinf(number) else number})


def _read(path: str, limit: int, max_bytes: int, rows: str) -> None:
    with Path(rows).open("w", encoding="utf-8") as file:
        for number, row in parquet_rows(Path(path), limit, max_bytes, _SentFaults(file)):
            odd = {column: value.what for column, value in row.items() if isinstance(value, Unstorable)}
            plain = {column: None if column in odd else value for column, value in row.items()}
            _write(file, {"number": number, "row": plain, "unstorable": odd})


def _write(file: IO[str], line: dict[str, Any]) -> None:
    file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _too_large(what: str) -> str:
    return f"the Parquet file takes too much {what} to unpack ({MEMORY_BYTES >> 30} GiB are the limit): split its rows"


def main() -> int:
    child_process.limit_memory(MEMORY_BYTES)
    for line in sys.stdin:
        reply: dict[str, str] = {}
        try:
            with confined.limited_step(CPU_SECONDS):
                _read(**json.loads(line))
        except DatasetError as fault:
            reply = {"failed": fault.message}
        except MemoryError:
            reply = {"failed": _too_large("memory")}
        print(json.dumps(reply), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
