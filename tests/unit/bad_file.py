"""What a bad file is, and how the samples of bad files are made."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.parquet


@dataclass(frozen=True, kw_only=True)
class BadFile:
    case: str
    name: str
    content: Callable[[], Iterator[bytes]]
    message: str  # a regular expression, searched for

    @property
    def data(self) -> bytes:
        return b"".join(self.content())


def bad(case: str, name: str, content: bytes | Callable[[], bytes], message: str) -> BadFile:
    return BadFile(
        case=case,
        name=name,
        content=lambda: iter([content if isinstance(content, bytes) else content()]),
        message=message,
    )


def good_rows(count: int = 12) -> list[bytes]:
    rows = [{"prompt": f"What is {index} + 1?", "completion": str(index + 1)} for index in range(count)]
    return [json.dumps(row).encode() for row in rows]


def good_jsonl(*, count: int = 12) -> bytes:
    return b"\n".join(good_rows(count)) + b"\n"


def good_jsonl_with(*lines: bytes) -> bytes:
    """Good rows with the given lines put in as lines 3, 4, …"""
    good = good_rows()
    return b"\n".join([*good[:2], *lines, *good[2:]]) + b"\n"


def row_line(**row: Any) -> bytes:
    return json.dumps(row).encode() + b"\n"


def parquet(columns: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()
