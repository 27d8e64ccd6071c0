"""A file that must be accepted, and what such files are made of."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.parquet

from luthier.task import DataKind

ROWS = 12
Row = dict[str, Any]
Make = Callable[[int], Row]


@dataclass(frozen=True, kw_only=True)
class GoodFile:
    case: str
    name: str
    data: bytes
    kind: DataKind
    format: str
    first: Row


def jsonl(make: Make) -> bytes:
    return b"".join(json.dumps(make(index)).encode() + b"\n" for index in range(ROWS))


def good(case: str, format_: str, kind: DataKind, make: Make, first: Row) -> GoodFile:
    return GoodFile(case=case, name="train.jsonl", data=jsonl(make), kind=kind, format=format_, first=first)


def user(content: Any) -> Row:
    return {"role": "user", "content": content}


def says(content: Any, **more: Any) -> Row:
    return {"role": "assistant", "content": content, **more}


def pair(index: int) -> Row:
    return {"prompt": f"What is {index} + 1?", "completion": str(index + 1)}


def csv_file(make: Make) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(make(0)))
    writer.writeheader()
    writer.writerows(make(index) for index in range(ROWS))
    return stream.getvalue().encode()


def parquet_file(make: Make) -> bytes:
    return _written(pyarrow.Table.from_pylist([make(index) for index in range(ROWS)]))


def parquet_table(columns: dict[str, Any]) -> bytes:
    return _written(pyarrow.table(columns))


def _written(table: Any) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


BARE_TOOL = {"name": "weather", "description": "Tell it.", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": BARE_TOOL}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
FIRST_PAIR = {"prompt": "What is 0 + 1?", "completion": "1"}
FIRST_CHAT = [user("Question 0"), says("Answer")]
FIRST_PREFERENCE = {"prompt": [user("Question 0")], "chosen": [says("good")], "rejected": [says("bad")]}
FIRST_AGENT = {
    "messages": [
        user("Weather 0?"),
        says("", tool_calls=[CALL]),
        {"role": "tool", "content": '{"sky": "clear"}'},
        says("Clear."),
    ],
    "tools": [TOOL],
}
SYSTEM = {"role": "system", "content": "Be kind."}
