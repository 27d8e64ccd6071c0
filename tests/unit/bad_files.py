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
from collections.abc import Iterator

from tests.unit.bad_file import BadFile, bad, good_jsonl, good_jsonl_with, good_rows, parquet, row_line
from tests.unit.bad_rows import BAD_ROWS
from tests.unit.bad_tables import COLUMNS, TABLES


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("train.jsonl", good_jsonl())
    return stream.getvalue()


def _long_line() -> Iterator[bytes]:
    """A row of 5 MiB between good ones: longer than the default limit of 4 MiB."""
    yield good_jsonl()
    yield b'{"prompt": "long", "completion": "'
    for _ in range(5):
        yield b"x" * 2**20
    yield b'"}\n'


NAMES_AND_KINDS = [
    bad("an empty file", "train.jsonl", b"", r"train\.jsonl is empty"),
    bad("only blank lines", "train.jsonl", b"\n \n\t\n", r"train\.jsonl is empty"),
    bad("only a byte order mark", "train.jsonl", b"\xef\xbb\xbf", r"train\.jsonl is empty"),
    bad("many blank lines", "train.jsonl", b"\n" * 100_000, r"\b0 rows.*\b10\b"),
    bad("a ZIP archive called .jsonl", "train.jsonl", _zip, r"ZIP archive .*JSON Lines"),
    bad("gzip called .jsonl", "train.jsonl", lambda: gzip.compress(good_jsonl()), r"gzip.*JSON Lines"),
    bad("a sheet called .csv", "train.csv", _zip, r"save .* as CSV"),
    bad("an old sheet", "train.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", r"[Ss]ave .* as CSV"),
    bad("a web page called .csv", "train.csv", b"<!DOCTYPE html>\n<html>,404</html>", r"HTML"),
    bad("compressed CSV", "train.csv", lambda: gzip.compress(b"prompt,completion\n"), r"Unpack"),
    bad("compressed JSON Lines", "train.jsonl.gz", lambda: gzip.compress(good_jsonl()), r"gzip.*\.jsonl, \.ndjson"),
    bad("a pickle called .jsonl", "train.jsonl", lambda: pickle.dumps(good_rows()), r"a Python pickle"),
    bad("a PDF called .txt", "book.txt", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", r"PDF.*plain text"),
    bad("binary data called .csv", "train.csv", bytes(range(256)) * 8, r"looks like binary data"),
    bad("Parquet called .jsonl", "train.jsonl", lambda: parquet({"text": ["a"] * 12}), r"Parquet.*JSON Lines"),
    bad("JSON Lines called .parquet", "train.parquet", good_jsonl(), r"train\.parquet.*PAR1"),
    bad("JSON Lines called .csv", "train.csv", good_jsonl(), r"JSON, .*CSV.*\.jsonl"),
    bad("JSON Lines called .txt", "train.txt", good_jsonl(), r"JSON Lines.*plain text.*\.jsonl"),
    bad(
        "a JSON array called .txt",
        "train.txt",
        b"[\n" + b",\n".join(good_rows()) + b"]",
        r"JSON, .*plain text.*\.json\.",
    ),
    bad("an array in one line called .md", "train.md", b"[" + b",".join(good_rows(5000)) + b"]", r"JSON, .*\.json\."),
    bad(
        "an indented object called .md",
        "train.md",
        lambda: json.dumps({"rows": [{"text": "a"}] * 5000}, indent=1).encode(),
        r"JSON, .*plain text.*\.json\.",
    ),
    bad("indented rows called .txt", "rows.txt", b'{\n "text": "a"\n}\n' * 12, r"JSON, .*plain text.*\.json\."),
    bad("a list of texts called .txt", "train.txt", b'["Once.",\n "Twice."]', r"JSON, .*plain text.*\.json\."),
    bad("a web page called .jsonl", "train.jsonl", b"<!DOCTYPE html><html>404</html>", r"HTML"),
    bad(
        "a Git LFS pointer",
        "train.jsonl",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        r"a Git LFS pointer",
    ),
    bad(
        "an unknown ending",
        "train.xml",
        b"<rows/>",
        r"'train\.xml'.*\.jsonl, \.ndjson",
    ),
    bad("no ending", "train", good_jsonl(), r"'train'.*\.jsonl, \.ndjson"),
]

ENCODING = [
    bad(
        "a truncated character",
        "train.jsonl",
        good_jsonl() + b'{"prompt": "caf\xc3',
        r"line 13 .*character.*truncated",
    ),
    bad("UTF-16 with a mark", "train.jsonl", good_jsonl().decode().encode("utf-16"), r"UTF-16.*Save it as UTF-8"),
    bad("UTF-16 without a mark", "train.csv", "prompt,completion\n".encode("utf-16-le"), r"looks like binary data"),
    bad(
        "Latin-1 in JSON Lines",
        "train.jsonl",
        good_jsonl_with('{"prompt": "café", "completion": "x"}'.encode("latin-1")),
        r"has 1 fault:\n  - line 3 .*UTF-8.* 0xe9",
    ),
    bad(
        "Latin-1 in a JSON array",
        "train.json",
        b'[\n{"text": "a"},\n{"text": "\xe9"}]',
        r"line 3 .*UTF-8.* 0xe9",
    ),
    bad("Latin-1 in CSV", "train.csv", b"text\na\nb\xe9\n" + b"c\n" * 12, r"line 3 .*UTF-8"),
    bad("Latin-1 in plain text", "book.txt", b"one\n\ntwo\n\ncaf\xe9\n" * 9, r"has 9 faults:\n  - line 5 .*UTF-8"),
    bad("zero bytes far into a text", "book.md", b"word " * 20_000 + b"\n\x00\n", r"line 2 .*zero byte"),
    bad(
        "half a surrogate pair",
        "train.jsonl",
        good_jsonl_with(rb'{"prompt": "\ud83d", "completion": "x"}'),
        r"row 3 .*surrogate pair",
    ),
]

JSON = [
    bad(
        "a key twice",
        "train.jsonl",
        good_jsonl_with(b'{"prompt": "a", "completion": "old", "completion": "new"}'),
        r"has 1 fault:\n  - row 3 .*'completion' twice",
    ),
    bad(
        "a key twice in a message",
        "train.json",
        b'[{"messages": [{"role": "user", "content": "a", "role": "system"}]}]',
        r"row 1 .*'role' twice",
    ),
    bad("a line that is no JSON", "train.jsonl", good_jsonl_with(b"hello"), r"line 3 .*JSON.*'hello'"),
    bad(
        "Python instead of JSON",
        "train.jsonl",
        good_jsonl_with(b"{'prompt': 'a', 'completion': 'b'}"),
        r"line 3 .*JSON: .*double quotes",
    ),
    bad("CSV called .jsonl", "train.jsonl", b"prompt,completion\na,b\n", r"has 2 faults:\n  - line 1 .*JSON"),
    bad(
        "two objects on a line",
        "train.jsonl",
        good_jsonl_with(b'{"text": "a"} {"text": "b"}'),
        r"line 3 continues after",
    ),
    bad(
        "a truncated last line",
        "train.jsonl",
        good_jsonl(count=17)[:-9],
        r"line 17 .*truncated",
    ),
    bad(
        "a truncated literal",
        "train.jsonl",
        good_jsonl() + b'{"prompt": tr',
        r"line 13 .*truncated",
    ),
    bad(
        "a row over two lines",
        "train.jsonl",
        good_jsonl_with(b'{"prompt": "a",', b'"completion": "b"}'),
        r"line 3 ends in the middle.*own line",
    ),
    bad(
        "indented objects",
        "train.jsonl",
        b'{\n  "prompt": "a",\n  "completion": "b"\n}',
        r"an object over several lines",
    ),
    bad(
        "NaN",
        "train.jsonl",
        good_jsonl_with(b'{"prompt": "a", "completion": "b", "score": NaN}'),
        r"row 3 .*\bNaN\b.*finite",
    ),
    bad(
        "Infinity",
        "train.jsonl",
        good_jsonl_with(b'{"prompt": "a", "completion": "b", "score": -Infinity}'),
        r"row 3 .*-Infinity\b.*finite",
    ),
    bad(
        "a number too large",
        "train.jsonl",
        good_jsonl_with(b'{"prompt": "a", "completion": "b", "score": 1e999}'),
        r"row 3 .*\b1e999\b.*finite",
    ),
    bad(
        "a number of 5,000 digits",
        "train.jsonl",
        good_jsonl_with(b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}"),
        r"line 3 .*thousands of digits",
    ),
    bad(
        "deep nesting",
        "train.jsonl",
        good_jsonl_with(b'{"prompt": ' + b"[" * 100_000),
        r"line 3 .*nested.*\b64\b",
    ),
    bad(
        "rather deep nesting",
        "train.jsonl",
        good_jsonl_with(b'{"prompt": ' + b"[" * 100 + b"]" * 100 + b"}"),
        r"row 3 .*nested.*\b64\b",
    ),
    BadFile(
        case="a line of 5 MiB",
        name="train.jsonl",
        content=_long_line,
        message=r"line 13 .*4,194,304 bytes",
    ),
    bad("an empty JSON array", "train.json", b"[]", r"JSON array is empty"),
    bad(
        "a truncated JSON array",
        "train.json",
        b"[" + b",".join(good_rows())[:-9],
        r"row 12 .*truncated",
    ),
    bad(
        "a JSON array that is not closed",
        "train.json",
        b'[{"text": "a"}',
        r"after row 1 .*closing bracket",
    ),
    bad(
        "a JSON array without commas",
        "train.json",
        b'[{"text": "a"} {"text": "b"}]',
        r"comma .*after row 1, found '\{'",
    ),
    bad(
        "a broken element of a JSON array",
        "train.json",
        b'[{"text": "a"}, {"text" "b"}' + b" " * 99 + b"]",
        r"row 2 .*JSON: Expecting ':'",
    ),
    bad("something after a JSON array", "train.json", b'[{"text": "a"}] x', r"after the end of the JSON array"),
    bad(
        "an array of strings",
        "train.json",
        b'["a", "b"]',
        r"has 2 faults:\n  - row 1: .*object.*'a'",
    ),
    bad(
        "a list of values in each line",
        "train.jsonl",
        b'["What is 1 + 1?", "2"]\n' * 12,
        r"(?s)has 3 faults:\n  - row 1: .*several JSON arrays.*\"completion\"",
    ),
    bad(
        "pandas' table by columns",
        "train.json",
        row_line(question={str(n): "Why?" for n in range(12)}, answer={str(n): "So." for n in range(12)}),
        r"row 1, columns `question`, `answer`: .*by its columns.*records",
    ),
    bad(
        "a table by columns, as lists",
        "train.jsonl",
        row_line(instruction=["a"] * 12, output=["b"] * 12),
        r"row 1, columns `instruction`, `output`: .*by its columns.*records",
    ),
    bad(
        "pandas' table split",
        "train.json",
        row_line(columns=["text"], index=[0], data=[["a"]]),
        r"row 1, columns `columns`, `index`, `data`: .*by its columns.*records",
    ),
    bad(
        "rows within an object",
        "train.json",
        row_line(version=2, examples=[{"text": "a"}] * 12),
        r"row 1, columns `version`, `examples`: .*list `examples`",
    ),
    bad("a JSON string", "train.json", b'"hello"', r"row 1: .*object.*'hello'"),
    BadFile(
        case="a long element of a JSON array",
        name="train.json",
        content=lambda: iter([b'[{"text": "', b"x" * 2**20 * 5, b'"}]']),
        message=r"row 1 .*4,194,304 bytes",
    ),
]

BAD_FILES = [
    *NAMES_AND_KINDS,
    *ENCODING,
    *JSON,
    *TABLES,
    *COLUMNS,
    *(
        bad(row.case, "train.jsonl", row.data, r"has 1 fault:\n  - row 3.*" + re.escape(row.fault).replace("…", ".*"))
        for row in BAD_ROWS
    ),
]
