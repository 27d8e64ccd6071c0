"""Tables and columns that must be refused, each with what the message must contain."""

from __future__ import annotations

import io

import pyarrow
import pyarrow.parquet

from tests.unit.bad_file import bad, good_jsonl, good_jsonl_with, parquet, row_line


def _parquet_bomb() -> bytes:
    """A few kilobytes that unpack to more than the default limit of 1 GiB."""
    stream, table = io.BytesIO(), pyarrow.table({"text": ["x" * 2**20] * 64})
    with pyarrow.parquet.ParquetWriter(stream, table.schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(17):
            writer.write_table(table)
    return stream.getvalue()


TABLES = [
    bad("CSV with a header alone", "train.csv", b"prompt,completion\n", r"\b0 rows.*\b10\b"),
    bad(
        "CSV without a header",
        "train.csv",
        b"What is 1 + 1?,2\n" * 12,
        r"row 1, columns `What is 1 \+ 1\?`, `2`: .*`prompt` \+ `completion`.* first line .* names its columns",
    ),
    bad(
        "ragged CSV",
        "train.csv",
        b"prompt,completion\n" + b"a,b\n" * 11 + b"a,b,c\n",
        r"row 12 .*\b3\b.*\b2\b",
    ),
    bad("CSV with colons", "train.csv", b"prompt:completion\n" + b"a:b\n" * 12, r"row 1, columns `prompt:completion`"),
    bad("ragged tabs", "train.tsv", b"prompt\tcompletion\n" + b"a\tb\n" * 11 + b"a\n", r"row 12 .*\b1\b.*\b2\b"),
    bad(
        "CSV that repeats a column",
        "train.csv",
        b"text,text\n" + b"a,b\n" * 12,
        r"header.*`text` more than once",
    ),
    bad(
        "CSV with an empty cell",
        "train.csv",
        b"prompt,completion\n" + b"a,b\n" * 11 + b"a,\n",
        r"row 12, field `completion`: .*found an empty string",
    ),
    bad(
        "CSV with an open quote",
        "train.csv",
        b"prompt,completion\n" + b"a,b\n" * 11 + b'a,"b\n',
        r"row 12 .*quoted field.*never closed",
    ),
    bad(
        "CSV with text after a quote",
        "train.csv",
        b"prompt,completion\n" + b'a,"b" c\n' * 12,
        r"row 1 .*CSV: ',' expected after '\"'",
    ),
    bad(
        "a CSV header with an open quote",
        "train.csv",
        b'"prompt,completion\n',
        r"header .*quoted field.*never closed",
    ),
    bad(
        "truncated Parquet",
        "train.parquet",
        lambda: parquet({"text": ["a"] * 12})[:-20],
        r"the Parquet file cannot be read",
    ),
    bad("damaged Parquet", "train.parquet", lambda: b"PAR1" + bytes(500) + b"PAR1", r"the Parquet file cannot be read"),
    bad(
        "Parquet without rows",
        "train.parquet",
        lambda: parquet({"text": pyarrow.array([], pyarrow.string())}),
        r"\b0 rows.*\b10\b",
    ),
    bad(
        "Parquet with nulls",
        "train.parquet",
        lambda: parquet({"text": ["a"] * 11 + [None]}),
        r"row 12, field `text`: .*found null",
    ),
    bad(
        "Parquet with NaN",
        "train.parquet",
        lambda: parquet({"text": [float("nan")] * 12}),
        r"row 1, field `text`: .*a number that is not finite",
    ),
    bad(
        "Parquet with binary data",
        "train.parquet",
        lambda: parquet({"text": [b"a"] * 12}),
        r"field `text`: .*found a value of type bytes",
    ),
    bad(
        "Parquet that is no UTF-8",
        "train.parquet",
        lambda: parquet({"text": pyarrow.array([b"\xff"] * 12, pyarrow.binary()).view(pyarrow.string())}),
        r"text that is not UTF-8",
    ),
    bad(
        "Parquet with a time that no calendar has",
        "train.parquet",
        lambda: parquet({"text": pyarrow.array([2**62] * 12, pyarrow.timestamp("us"))}),
        r"row 1, field `text`: .*a value that cannot be read",
    ),
    bad(
        "a Parquet bomb",
        "train.parquet",
        _parquet_bomb,
        r"unpacks .*67,108,864 bytes",
    ),
]

COLUMNS = [
    bad(
        "unknown columns",
        "train.jsonl",
        row_line(heading="What?", body="This.") * 12,
        r"row 1, columns `heading`, `body`: .*`prompt` \+ `completion`",
    ),
    bad(
        "labels from the second row on",
        "train.jsonl",
        row_line(prompt="a", completion="b") + row_line(prompt="a", completion="b", label=True) * 12,
        r"has 1 fault:\n  - row 1, columns `prompt`, `completion`: .*`label`",
    ),
    bad(
        "labels of which most are known",
        "train.jsonl",
        (row_line(prompt="a", completion="b", label="good") + row_line(prompt="a", completion="b", label="bad")) * 9
        + row_line(prompt="a", completion="b", label="so-so") * 2,
        r"has 2 faults:\n  - row 19, field `label`: .*'so-so'",
    ),
    bad(
        "completions in few of the rows",
        "train.jsonl",
        row_line(prompt="a") * 10 + row_line(prompt="a", completion="b") * 2,
        r"has 10 faults:\n  - row 1, columns `prompt`: .*`completion`",
    ),
    bad("empty rows", "train.jsonl", row_line() * 12, r"columns \(none\): .*`prompt` \+ `completion`"),
    bad("too few rows", "train.jsonl", good_jsonl(count=9), r"train\.jsonl.* 9 rows.*\b10\b"),
    bad(
        "a text too short",
        "book.txt",
        b"One page.\n\nAnother.\n",
        r"\b1 pieces .*2,000 characters.*\b10\b",
    ),
    bad(
        "answers of one label",
        "train.jsonl",
        row_line(prompt="a", completion="b", label=True) * 12,
        r"train\.jsonl .*only desirable",
    ),
    bad(
        "a label without a prompt",
        "train.jsonl",
        row_line(messages=[{"role": "assistant", "content": "a"}], kto_tag=False) * 12,
        r"row 1, field `messages`: .*only an answer",
    ),
    bad(
        "labels of one value in CSV",
        "train.csv",
        b"prompt,completion,label\n" + b"a,b,False\n" * 12,
        r"train\.csv .*only undesirable",
    ),
    bad(
        "more faults than are listed",
        "train.jsonl",
        good_jsonl_with(*[row_line(prompt="a", completion="").strip()] * 1000),
        r"train\.jsonl .*1,000 faults.*\b20\b.*\n  - row 3, field `completion`",
    ),
]
