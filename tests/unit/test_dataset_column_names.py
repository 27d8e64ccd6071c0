"""The case of column names: it does not matter, and no column is lost to another one."""

import io
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from luthier.dataset import Loaded, load
from luthier.errors import DatasetError
from luthier.task import DataKind
from tests.uploads import Row, load_rows

CHAT = [{"role": "user", "content": "Ely?"}, {"role": "assistant", "content": "A town."}]


def _file(folder: Path, name: str, data: bytes) -> Loaded:
    path = folder / "upload"
    path.write_bytes(data)
    return load(path, name, max_row_bytes=2**20)


def _varied(row: Row) -> list[Row]:
    """Rows with two values of each label."""
    return [
        {column: n % 2 == 0 if column.lower() == "label" else value for column, value in row.items()} for n in range(12)
    ]


@pytest.mark.parametrize(
    ("row", "kind", "first"),
    [
        ({"QUESTION": "Ely?", "ANSWER": "Yes", "LABEL": True}, DataKind.UNPAIRED, {"label": True}),
        (
            {"Question": "Ely?", "Answer": "Yes", "SYSTEM_PROMPT": "Be kind."},
            DataKind.PAIRS,
            {"prompt": [{"role": "system", "content": "Be kind."}, CHAT[0]]},
        ),
        ({"Question": "Ely?", "Answer": "Yes", "Passage": "A town."}, DataKind.PAIRS, {"prompt": "A town.\n\nEly?"}),
        (
            {"Conversations": CHAT, " Functions ": [{"name": "f"}]},
            DataKind.CHAT,
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
        ),
        ({"Instruction": "Sum.", "INPUT": "1, 2", "Output": "3"}, DataKind.PAIRS, {"prompt": "Sum.\n\n1, 2"}),
        ({"Query": "Ely?", "Chosen": "Yes", "Rejected": "No"}, DataKind.PREFERENCE, {"chosen": "Yes"}),
    ],
)
def test_columns_are_known_whatever_their_case(row: Row, kind: DataKind, first: Row, tmp_path: Path) -> None:
    loaded = load_rows(tmp_path, _varied(row))
    assert (loaded.kind, {column: loaded.rows[0][column] for column in first}) == (kind, first)
    [note] = [note for note in loaded.notes if "case of column names" in note]
    assert all(f"`{column}` as `{column.strip().lower()}`" in note for column in row)


def test_pictures_are_refused_whatever_the_case_and_number_of_their_column(tmp_path: Path) -> None:
    for column in ("Images", "image", "VIDEO", "audio"):
        row = {"question": "What is it?", "answer": "A cat.", column: "cat.jpg"}
        with pytest.raises(DatasetError, match=f"row 1, field `{column.lower()}`: images"):
            load_rows(tmp_path, [row] * 12)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("train.jsonl", b'{"answer": "a", "Answer": "b", "question": "q"}\n' * 12),
        ("train.csv", b"question,answer,Answer\n" + b"q,a,b\n" * 12),
        ("train.json", b"[" + b",".join([b'{"question": "q", "answer ": "a", "Answer": "b"}'] * 12) + b"]"),
    ],
)
def test_two_columns_of_one_name_are_refused_with_both(name: str, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"12 faults:\n  - row 1, columns `answer ?`, `Answer`: "):
        _file(tmp_path, name, data)


def test_a_row_with_two_columns_of_one_name_is_a_fault_among_others(tmp_path: Path) -> None:
    rows: list[Row] = [{"prompt": "q", "completion": "a"} for _ in range(12)]
    rows[4] = {"prompt": "q", "completion": "a", "COMPLETION": "b"}
    with pytest.raises(DatasetError, match=r"1 fault:\n  - row 5, columns `completion`, `COMPLETION`"):
        load_rows(tmp_path, rows)


def test_columns_that_training_does_not_know_keep_their_names(tmp_path: Path) -> None:
    loaded = load_rows(tmp_path, [{"prompt": "q", "completion": "a", "ID": 1, "id": 2}] * 12)
    assert (loaded.unused_columns, loaded.rows[0]["ID"], loaded.rows[0]["id"], loaded.notes) == (("ID", "id"), 1, 2, ())


def _parquet(names: list[str], value: Any = "x") -> bytes:
    stream = io.BytesIO()
    table = pyarrow.Table.from_arrays([pyarrow.array([value] * 12)] * len(names), names=names)
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


def test_a_repeated_column_of_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"`answer` more than once"):
        _file(tmp_path, "train.parquet", _parquet(["question", "answer", "answer"]))
    with pytest.raises(DatasetError, match=r"row 1, columns `answer`, `ANSWER`"):
        _file(tmp_path, "train.parquet", _parquet(["question", "answer", "ANSWER"]))


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl", "train.parquet"])
def test_more_columns_than_a_table_has_are_refused(name: str, tmp_path: Path) -> None:
    columns = [f"c{n}" for n in range(10_001)]
    data = {
        "train.csv": ",".join(columns).encode() + b"\na\n",
        "train.jsonl": b"{" + b",".join(b'"%s": 1' % column.encode() for column in columns) + b"}",
        "train.parquet": _parquet(columns) if name == "train.parquet" else b"",
    }[name]
    with pytest.raises(DatasetError, match=r"10,001 columns.*10,000"):
        _file(tmp_path, name, data)
