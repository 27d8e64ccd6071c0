"""The same rows as JSON, CSV and Parquet."""

from __future__ import annotations

import json

import pyarrow

from luthier.task import DataKind
from tests.unit.good_file import (
    CALL,
    FIRST_AGENT,
    FIRST_CHAT,
    FIRST_PAIR,
    ROWS,
    TOOL,
    GoodFile,
    csv_file,
    jsonl,
    pair,
    parquet_file,
    parquet_table,
    says,
    user,
)


def _contained(case: str, name: str, data: bytes) -> GoodFile:
    return GoodFile(case=case, name=name, data=data, kind=DataKind.PAIRS, format="prompt_completion", first=FIRST_PAIR)


CONTAINERS = [
    _contained("the ending .ndjson", "train.ndjson", jsonl(pair)),
    _contained("JSON Lines called .json", "train.json", jsonl(pair)),
    _contained("a JSON array", "train.json", json.dumps([pair(i) for i in range(ROWS)]).encode()),
    _contained("an indented JSON array", "train.json", json.dumps([pair(i) for i in range(ROWS)], indent=2).encode()),
    _contained("a JSON array called .jsonl", "train.jsonl", json.dumps([pair(i) for i in range(ROWS)]).encode()),
    _contained("a byte order mark", "train.jsonl", b"\xef\xbb\xbf" + jsonl(pair)),
    _contained(
        "a byte order mark before an array",
        "train.json",
        b"\xef\xbb\xbf" + json.dumps([pair(i) for i in range(ROWS)]).encode(),
    ),
    _contained("Windows line ends and blank lines", "train.jsonl", jsonl(pair).replace(b"\n", b"\r\n\r\n")),
    _contained("no line end at the end", "train.jsonl", jsonl(pair).rstrip()),
    _contained("CSV", "train.csv", csv_file(pair)),
    _contained("CSV with a byte order mark", "train.csv", b"\xef\xbb\xbf" + csv_file(pair)),
    _contained("Parquet", "train.parquet", parquet_file(pair)),
    _contained("tabs", "train.tsv", csv_file(pair).replace(b",", b"\t")),
    _contained("semicolons", "train.csv", csv_file(pair).replace(b",", b";")),
    _contained("bars called .csv", "train.csv", csv_file(pair).replace(b",", b"|")),
    _contained(
        "CSV with spaces before quotes",
        "train.csv",
        b"prompt, completion\n" + b"".join(f'"What is {i} + 1?",  "{i + 1}"\n'.encode() for i in range(ROWS)),
    ),
    GoodFile(
        case="CSV with a quoted answer that starts with a space and a quote",
        name="train.csv",
        data=csv_file(lambda i: {"prompt": f"Say {i}", "completion": ' "so", he said', "note": " spaced"}),
        kind=DataKind.PAIRS,
        format="prompt_completion",
        first={"prompt": "Say 0", "completion": ' "so", he said', "note": " spaced"},
    ),
    GoodFile(
        case="CSV with JSON text of messages",
        name="train.csv",
        data=csv_file(lambda i: {"conversations": json.dumps([user(f"Question {i}"), says("Answer")]), "system": ""}),
        kind=DataKind.CHAT,
        format="sharegpt",
        first={"messages": FIRST_CHAT},
    ),
    GoodFile(
        case="Parquet with columns that JSON cannot hold",
        name="train.parquet",
        data=parquet_table(
            {
                "prompt": [f"What is {i} + 1?" for i in range(ROWS)],
                "completion": [str(i + 1) for i in range(ROWS)],
                "picture": [b"\x89PNG"] * ROWS,
                "score": [float("nan")] * ROWS,
                "when": pyarrow.array([2**62] * ROWS, pyarrow.timestamp("us")),
                "took": pyarrow.array([5] * ROWS, pyarrow.duration("s")),
                "tags": pyarrow.array(
                    [[("a", 1), ("b", None)]] * ROWS, pyarrow.map_(pyarrow.string(), pyarrow.int64())
                ),
                "broken": pyarrow.array([b"\xff"] * ROWS, pyarrow.binary()).view(pyarrow.string()),
            }
        ),
        kind=DataKind.PAIRS,
        format="prompt_completion",
        first={**FIRST_PAIR, "tags": {"a": 1, "b": None}},
    ),
    GoodFile(
        case="CSV with line breaks, quotes and a history left empty",
        name="train.csv",
        data=csv_file(
            lambda i: {"instruction": f'Say "{i}"\nloudly', "output": "a,b\n\nc", "input": "", "history": ""}
        ),
        kind=DataKind.PAIRS,
        format="alpaca",
        first={"prompt": 'Say "0"\nloudly', "completion": "a,b\n\nc"},
    ),
    GoodFile(
        case="Parquet with messages, where structs share their keys",
        name="train.parquet",
        data=parquet_file(
            lambda i: {
                "messages": [
                    user(f"Weather {i}?"),
                    says(None, tool_calls=[CALL]),
                    {"role": "tool", "content": '{"sky": "clear"}'},
                    says("Clear."),
                ],
                "tools": json.dumps([TOOL]),
            }
        ),
        kind=DataKind.CHAT,
        format="messages",
        first=FIRST_AGENT,
    ),
]
