"""Files that must be refused, each with what the message must contain: the row, the field and the value at fault.

The contents are made lazily, piece by piece; `data` puts them together for a request.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.parquet

from tests.unit.bad_rows import BAD_ROWS


@dataclass(frozen=True, kw_only=True)
class BadFile:
    case: str
    name: str
    content: Callable[[], Iterator[bytes]]
    message: str  # a regular expression, searched for

    @property
    def data(self) -> bytes:
        return b"".join(self.content())


def _file(case: str, name: str, content: bytes | Callable[[], bytes], message: str) -> BadFile:
    return BadFile(
        case=case,
        name=name,
        content=lambda: iter([content if isinstance(content, bytes) else content()]),
        message=message,
    )


def _pairs(count: int = 12) -> list[bytes]:
    rows = [{"prompt": f"What is {index} + 1?", "completion": str(index + 1)} for index in range(count)]
    return [json.dumps(row).encode() for row in rows]


def _jsonl(*, count: int = 12) -> bytes:
    return b"\n".join(_pairs(count)) + b"\n"


def _with(*lines: bytes) -> bytes:
    """Good rows with the given lines put in as lines 3, 4, …"""
    good = _pairs()
    return b"\n".join([*good[:2], *lines, *good[2:]]) + b"\n"


def _all(**row: Any) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _parquet(columns: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def _parquet_bomb() -> bytes:
    """A few kilobytes that unpack to more than the default limit of 1 GiB."""
    stream, table = io.BytesIO(), pyarrow.table({"text": ["x" * 2**20] * 64})
    with pyarrow.parquet.ParquetWriter(stream, table.schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(17):
            writer.write_table(table)
    return stream.getvalue()


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("train.jsonl", _jsonl())
    return stream.getvalue()


def _long_line() -> Iterator[bytes]:
    """A row of 5 MiB between good ones: longer than the default limit of 4 MiB."""
    yield _jsonl()
    yield b'{"prompt": "long", "completion": "'
    for _ in range(5):
        yield b"x" * 2**20
    yield b'"}\n'


NAMES_AND_KINDS = [
    _file("an empty file", "train.jsonl", b"", r"train\.jsonl is empty"),
    _file("only blank lines", "train.jsonl", b"\n \n\t\n", r"train\.jsonl is empty"),
    _file("only a byte order mark", "train.jsonl", b"\xef\xbb\xbf", r"train\.jsonl is empty"),
    _file("many blank lines", "train.jsonl", b"\n" * 100_000, r"\b0 rows.*\b10\b"),
    _file("a ZIP archive called .jsonl", "train.jsonl", _zip, r"ZIP archive .*JSON Lines"),
    _file("gzip called .jsonl", "train.jsonl", lambda: gzip.compress(_jsonl()), r"gzip.*JSON Lines"),
    _file("compressed JSON Lines", "train.jsonl.gz", lambda: gzip.compress(_jsonl()), r"gzip.*\.jsonl, \.ndjson"),
    _file("a pickle called .jsonl", "train.jsonl", lambda: pickle.dumps(_pairs()), r"a Python pickle"),
    _file("a PDF called .txt", "book.txt", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", r"PDF.*plain text"),
    _file("binary data called .csv", "train.csv", bytes(range(256)) * 8, r"looks like binary data"),
    _file("Parquet called .jsonl", "train.jsonl", lambda: _parquet({"text": ["a"] * 12}), r"Parquet.*JSON Lines"),
    _file("JSON Lines called .parquet", "train.parquet", _jsonl(), r"train\.parquet.*PAR1"),
    _file("JSON Lines called .csv", "train.csv", _jsonl(), r"JSON, .*CSV.*\.jsonl"),
    _file("JSON Lines called .txt", "train.txt", _jsonl(), r"JSON Lines.*plain text.*\.jsonl"),
    _file(
        "a JSON array called .txt", "train.txt", b"[\n" + b",\n".join(_pairs()) + b"]", r"JSON, .*plain text.*\.json\."
    ),
    _file("an array in one line called .md", "train.md", b"[" + b",".join(_pairs(5000)) + b"]", r"JSON, .*\.json\."),
    _file(
        "an indented object called .md",
        "train.md",
        lambda: json.dumps({"rows": [{"text": "a"}] * 5000}, indent=1).encode(),
        r"JSON, .*plain text.*\.json\.",
    ),
    _file("indented rows called .txt", "rows.txt", b'{\n "text": "a"\n}\n' * 12, r"JSON, .*plain text.*\.json\."),
    _file("a list of texts called .txt", "train.txt", b'["Once.",\n "Twice."]', r"JSON, .*plain text.*\.json\."),
    _file("a web page called .jsonl", "train.jsonl", b"<!DOCTYPE html><html>404</html>", r"HTML"),
    _file(
        "a Git LFS pointer",
        "train.jsonl",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        r"a Git LFS pointer",
    ),
    _file(
        "an unknown ending",
        "train.xml",
        b"<rows/>",
        r"'train\.xml'.*\.jsonl, \.ndjson",
    ),
    _file("no ending", "train", _jsonl(), r"'train'.*\.jsonl, \.ndjson"),
]

ENCODING = [
    _file(
        "a truncated character",
        "train.jsonl",
        _jsonl() + b'{"prompt": "caf\xc3',
        r"line 13 .*character.*truncated",
    ),
    _file("UTF-16 with a mark", "train.jsonl", _jsonl().decode().encode("utf-16"), r"UTF-16"),
    _file("UTF-16 without a mark", "train.csv", "prompt,completion\n".encode("utf-16-le"), r"looks like binary data"),
    _file(
        "Latin-1 in JSON Lines",
        "train.jsonl",
        _with('{"prompt": "café", "completion": "x"}'.encode("latin-1")),
        r"has 1 fault:\n  - line 3 .*UTF-8.* 0xe9",
    ),
    _file(
        "Latin-1 in a JSON array",
        "train.json",
        b'[\n{"text": "a"},\n{"text": "\xe9"}]',
        r"line 3 .*UTF-8.* 0xe9",
    ),
    _file("Latin-1 in CSV", "train.csv", b"text\na\nb\xe9\n" + b"c\n" * 12, r"line 3 .*UTF-8"),
    _file("Latin-1 in plain text", "book.txt", b"one\n\ntwo\n\ncaf\xe9\n" * 9, r"has 9 faults:\n  - line 5 .*UTF-8"),
    _file("zero bytes far into a text", "book.md", b"word " * 20_000 + b"\n\x00\n", r"line 2 .*zero byte"),
    _file(
        "half a surrogate pair",
        "train.jsonl",
        _with(rb'{"prompt": "\ud83d", "completion": "x"}'),
        r"row 3 .*surrogate pair",
    ),
]

JSON = [
    _file(
        "a key twice",
        "train.jsonl",
        _with(b'{"prompt": "a", "completion": "old", "completion": "new"}'),
        r"has 1 fault:\n  - row 3 .*'completion' twice",
    ),
    _file(
        "a key twice in a message",
        "train.json",
        b'[{"messages": [{"role": "user", "content": "a", "role": "system"}]}]',
        r"row 1 .*'role' twice",
    ),
    _file("a line that is no JSON", "train.jsonl", _with(b"hello"), r"line 3 .*JSON.*'hello'"),
    _file(
        "Python instead of JSON",
        "train.jsonl",
        _with(b"{'prompt': 'a', 'completion': 'b'}"),
        r"line 3 .*JSON: .*double quotes",
    ),
    _file("CSV called .jsonl", "train.jsonl", b"prompt,completion\na,b\n", r"has 2 faults:\n  - line 1 .*JSON"),
    _file(
        "two objects on a line",
        "train.jsonl",
        _with(b'{"text": "a"} {"text": "b"}'),
        r"line 3 continues after",
    ),
    _file(
        "a truncated last line",
        "train.jsonl",
        _jsonl(count=17)[:-9],
        r"line 17 .*truncated",
    ),
    _file(
        "a truncated literal",
        "train.jsonl",
        _jsonl() + b'{"prompt": tr',
        r"line 13 .*truncated",
    ),
    _file(
        "a row over two lines",
        "train.jsonl",
        _with(b'{"prompt": "a",', b'"completion": "b"}'),
        r"line 3 ends in the middle.*own line",
    ),
    _file(
        "indented objects",
        "train.jsonl",
        b'{\n  "prompt": "a",\n  "completion": "b"\n}',
        r"an object over several lines",
    ),
    _file(
        "NaN",
        "train.jsonl",
        _with(b'{"prompt": "a", "completion": "b", "score": NaN}'),
        r"row 3 .*\bNaN\b.*finite",
    ),
    _file(
        "Infinity",
        "train.jsonl",
        _with(b'{"prompt": "a", "completion": "b", "score": -Infinity}'),
        r"row 3 .*-Infinity\b.*finite",
    ),
    _file(
        "a number too large",
        "train.jsonl",
        _with(b'{"prompt": "a", "completion": "b", "score": 1e999}'),
        r"row 3 .*\b1e999\b.*finite",
    ),
    _file(
        "a number of 5,000 digits",
        "train.jsonl",
        _with(b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}"),
        r"line 3 .*thousands of digits",
    ),
    _file(
        "deep nesting",
        "train.jsonl",
        _with(b'{"prompt": ' + b"[" * 100_000),
        r"line 3 .*nested.*\b64\b",
    ),
    _file(
        "rather deep nesting",
        "train.jsonl",
        _with(b'{"prompt": ' + b"[" * 100 + b"]" * 100 + b"}"),
        r"row 3 .*nested.*\b64\b",
    ),
    BadFile(
        case="a line of 5 MiB",
        name="train.jsonl",
        content=_long_line,
        message=r"line 13 .*4,194,304 bytes",
    ),
    _file("an empty JSON array", "train.json", b"[]", r"JSON array is empty"),
    _file(
        "a truncated JSON array",
        "train.json",
        b"[" + b",".join(_pairs())[:-9],
        r"row 12 .*truncated",
    ),
    _file(
        "a JSON array that is not closed",
        "train.json",
        b'[{"text": "a"}',
        r"after row 1 .*closing bracket",
    ),
    _file(
        "a JSON array without commas",
        "train.json",
        b'[{"text": "a"} {"text": "b"}]',
        r"comma .*after row 1, found '\{'",
    ),
    _file(
        "a broken element of a JSON array",
        "train.json",
        b'[{"text": "a"}, {"text" "b"}' + b" " * 99 + b"]",
        r"row 2 .*JSON: Expecting ':'",
    ),
    _file("something after a JSON array", "train.json", b'[{"text": "a"}] x', r"after the end of the JSON array"),
    _file(
        "an array of strings",
        "train.json",
        b'["a", "b"]',
        r"has 2 faults:\n  - row 1: .*object.*'a'",
    ),
    _file(
        "a list of values in each line",
        "train.jsonl",
        b'["What is 1 + 1?", "2"]\n' * 12,
        r"(?s)has 3 faults:\n  - row 1: .*several JSON arrays.*\"completion\"",
    ),
    _file(
        "pandas' table by columns",
        "train.json",
        _all(question={str(n): "Why?" for n in range(12)}, answer={str(n): "So." for n in range(12)}),
        r"row 1, columns `question`, `answer`: .*by its columns.*records",
    ),
    _file(
        "a table by columns, as lists",
        "train.jsonl",
        _all(instruction=["a"] * 12, output=["b"] * 12),
        r"row 1, columns `instruction`, `output`: .*by its columns.*records",
    ),
    _file(
        "pandas' table split",
        "train.json",
        _all(columns=["text"], index=[0], data=[["a"]]),
        r"row 1, columns `columns`, `index`, `data`: .*by its columns.*records",
    ),
    _file(
        "rows within an object",
        "train.json",
        _all(version=2, examples=[{"text": "a"}] * 12),
        r"row 1, columns `version`, `examples`: .*list `examples`",
    ),
    _file("a JSON string", "train.json", b'"hello"', r"row 1: .*object.*'hello'"),
    BadFile(
        case="a long element of a JSON array",
        name="train.json",
        content=lambda: iter([b'[{"text": "', b"x" * 2**20 * 5, b'"}]']),
        message=r"row 1 .*4,194,304 bytes",
    ),
]

TABLES = [
    _file("CSV with a header alone", "train.csv", b"prompt,completion\n", r"\b0 rows.*\b10\b"),
    _file(
        "CSV without a header",
        "train.csv",
        b"What is 1 + 1?,2\n" * 12,
        r"row 1, columns `What is 1 \+ 1\?`, `2`: .*`prompt` \+ `completion`.* first line .* names its columns",
    ),
    _file(
        "ragged CSV",
        "train.csv",
        b"prompt,completion\n" + b"a,b\n" * 11 + b"a,b,c\n",
        r"row 12 .*\b3\b.*\b2\b",
    ),
    _file(
        "CSV with colons", "train.csv", b"prompt:completion\n" + b"a:b\n" * 12, r"row 1, columns `prompt:completion`"
    ),
    _file("ragged tabs", "train.tsv", b"prompt\tcompletion\n" + b"a\tb\n" * 11 + b"a\n", r"row 12 .*\b1\b.*\b2\b"),
    _file(
        "CSV that repeats a column",
        "train.csv",
        b"text,text\n" + b"a,b\n" * 12,
        r"header.*`text` more than once",
    ),
    _file(
        "CSV with an empty cell",
        "train.csv",
        b"prompt,completion\n" + b"a,b\n" * 11 + b"a,\n",
        r"row 12, field `completion`: .*found an empty string",
    ),
    _file(
        "CSV with an open quote",
        "train.csv",
        b"prompt,completion\n" + b"a,b\n" * 11 + b'a,"b\n',
        r"row 12 .*quoted field.*never closed",
    ),
    _file(
        "CSV with text after a quote",
        "train.csv",
        b"prompt,completion\n" + b'a,"b" c\n' * 12,
        r"row 1 .*CSV: ',' expected after '\"'",
    ),
    _file(
        "a CSV header with an open quote",
        "train.csv",
        b'"prompt,completion\n',
        r"header .*quoted field.*never closed",
    ),
    _file(
        "truncated Parquet",
        "train.parquet",
        lambda: _parquet({"text": ["a"] * 12})[:-20],
        r"the Parquet file cannot be read",
    ),
    _file(
        "damaged Parquet", "train.parquet", lambda: b"PAR1" + bytes(500) + b"PAR1", r"the Parquet file cannot be read"
    ),
    _file(
        "Parquet without rows",
        "train.parquet",
        lambda: _parquet({"text": pyarrow.array([], pyarrow.string())}),
        r"\b0 rows.*\b10\b",
    ),
    _file(
        "Parquet with nulls",
        "train.parquet",
        lambda: _parquet({"text": ["a"] * 11 + [None]}),
        r"row 12, field `text`: .*found null",
    ),
    _file(
        "Parquet with NaN",
        "train.parquet",
        lambda: _parquet({"text": [float("nan")] * 12}),
        r"row 1, field `text`: .*a number that is not finite",
    ),
    _file(
        "Parquet with binary data",
        "train.parquet",
        lambda: _parquet({"text": [b"a"] * 12}),
        r"field `text`: .*found a value of type bytes",
    ),
    _file(
        "Parquet that is no UTF-8",
        "train.parquet",
        lambda: _parquet({"text": pyarrow.array([b"\xff"] * 12, pyarrow.binary()).view(pyarrow.string())}),
        r"text that is not UTF-8",
    ),
    _file(
        "Parquet with a time that no calendar has",
        "train.parquet",
        lambda: _parquet({"text": pyarrow.array([2**62] * 12, pyarrow.timestamp("us"))}),
        r"row 1, field `text`: .*a value that cannot be read",
    ),
    _file(
        "a Parquet bomb",
        "train.parquet",
        _parquet_bomb,
        r"unpacks .*1,073,741,824 bytes",
    ),
]

COLUMNS = [
    _file(
        "unknown columns",
        "train.jsonl",
        _all(heading="What?", body="This.") * 12,
        r"row 1, columns `heading`, `body`: .*`prompt` \+ `completion`",
    ),
    _file(
        "labels from the second row on",
        "train.jsonl",
        _all(prompt="a", completion="b") + _all(prompt="a", completion="b", label=True) * 12,
        r"has 1 fault:\n  - row 1, columns `prompt`, `completion`: .*`label`",
    ),
    _file(
        "labels of which most are known",
        "train.jsonl",
        (_all(prompt="a", completion="b", label="good") + _all(prompt="a", completion="b", label="bad")) * 9
        + _all(prompt="a", completion="b", label="so-so") * 2,
        r"has 2 faults:\n  - row 19, field `label`: .*'so-so'",
    ),
    _file(
        "completions in few of the rows",
        "train.jsonl",
        _all(prompt="a") * 10 + _all(prompt="a", completion="b") * 2,
        r"has 10 faults:\n  - row 1, columns `prompt`: .*`completion`",
    ),
    _file("empty rows", "train.jsonl", _all() * 12, r"columns \(none\): .*`prompt` \+ `completion`"),
    _file("too few rows", "train.jsonl", _jsonl(count=9), r"train\.jsonl.* 9 rows.*\b10\b"),
    _file(
        "a text too short",
        "book.txt",
        b"One page.\n\nAnother.\n",
        r"\b1 pieces .*2,000 characters.*\b10\b",
    ),
    _file(
        "answers of one label",
        "train.jsonl",
        _all(prompt="a", completion="b", label=True) * 12,
        r"train\.jsonl .*only desirable",
    ),
    _file(
        "a label without a prompt",
        "train.jsonl",
        _all(messages=[{"role": "assistant", "content": "a"}], kto_tag=False) * 12,
        r"row 1, field `messages`: .*only an answer",
    ),
    _file(
        "labels of one value in CSV",
        "train.csv",
        b"prompt,completion,label\n" + b"a,b,False\n" * 12,
        r"train\.csv .*only undesirable",
    ),
    _file(
        "more faults than are listed",
        "train.jsonl",
        _with(*[_all(prompt="a", completion="").strip()] * 1000),
        r"train\.jsonl .*1,000 faults.*\b20\b.*\n  - row 3, field `completion`",
    ),
]

BAD_FILES = [
    *NAMES_AND_KINDS,
    *ENCODING,
    *JSON,
    *TABLES,
    *COLUMNS,
    *(
        _file(row.case, "train.jsonl", row.data, r"has 1 fault:\n  - row 3.*" + re.escape(row.fault).replace("…", ".*"))
        for row in BAD_ROWS
    ),
]
