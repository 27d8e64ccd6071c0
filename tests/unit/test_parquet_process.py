"""Parquet files are unpacked in a process of their own, which a few bytes cannot make fill the machine."""

import resource
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from luthier.dataset import Loaded, load
from luthier.dataset.parquet_process import MEMORY_BYTES, confined_rows
from luthier.errors import DatasetError


def _load(path: Path, **limits: int) -> Loaded:
    return load(path, "train.parquet", **{"max_row_bytes": 2**22} | limits, parquet=confined_rows)


def _write(path: Path, table: Any, **options: Any) -> Path:
    pyarrow.parquet.write_table(table, path, **options)
    return path


def test_rows_faults_and_cells_that_json_cannot_hold_come_out_as_without_the_process(tmp_path: Path) -> None:
    rows = [{"prompt": f"Ely {n}? é", "completion": "Yes", "score": float("nan"), "raw": b"x"} for n in range(40)]
    path = _write(tmp_path / "good", pyarrow.Table.from_pylist(rows))
    assert _load(path) == load(path, "train.parquet", max_row_bytes=2**22)
    rows[3]["completion"] = rows[30]["completion"] = "x" * 5_000
    path = _write(tmp_path / "long", pyarrow.Table.from_pylist(rows))
    for parquet in ({}, {"parquet": confined_rows}):
        with pytest.raises(DatasetError, match=r"2 faults:\n  - row 4 .*1,000 bytes.*\n  - row 31 "):
            load(path, "train.parquet", max_row_bytes=1_000, **parquet)
    with pytest.raises(DatasetError, match=r"unpacks to more than 2,000 bytes"):
        _load(path, max_bytes=2_000)
    path.write_bytes(b"PAR1" + bytes(400) + b"PAR1")
    with pytest.raises(DatasetError, match="cannot be read"):
        _load(path)


@pytest.mark.parametrize("nested", [False, True])
def test_a_file_that_unpacks_to_gigabytes_is_refused_without_their_memory(nested: bool, tmp_path: Path) -> None:
    text = "z" * 90_000_000
    values = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 48, pyarrow.int32()), pyarrow.array([text]))
    column = (
        pyarrow.ListArray.from_arrays(pyarrow.array(range(0, 49, 4), pyarrow.int32()), values) if nested else values
    )
    path = _write(
        tmp_path / "bomb", pyarrow.table({"text": column}), compression="zstd", dictionary_pagesize_limit=2**30
    )
    assert path.stat().st_size < 100_000
    del text, values, column
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DatasetError, match=r"memory|4,194,304 bytes|100 times its size"):
        _load(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY_BYTES / 8
    rows = [{"text": f"Once {n}."} for n in range(12)]
    assert len(_load(_write(tmp_path / "next", pyarrow.Table.from_pylist(rows))).rows) == 12


def test_what_rows_unpack_to_is_limited_by_the_size_of_the_file(tmp_path: Path) -> None:
    asked, long = [f"Ely {n}?" for n in range(1_000)], "z" * 100_000
    for name, table in {
        "repeated texts": {"prompt": asked, "completion": [long] * 1_000},
        "nested texts": {"text": asked, "notes": [[long[:50_000]] * 2] * 1_000},
        "long names": {"text": asked, "notes": [{long: 1}] * 1_000},
    }.items():
        with pytest.raises(DatasetError, match="100 times its size"):
            _load(_write(tmp_path / name, pyarrow.table(table)))
    words = pyarrow.array([f"{n % 700} {long[:9_000]}" for n in range(1_000)]).dictionary_encode()
    path = _write(tmp_path / "dictionary", pyarrow.table({"prompt": asked, "completion": words}))
    assert _load(path).rows[999]["completion"].startswith("299 zz")


def test_a_name_of_a_csv_column_counts_in_each_row(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text(f"prompt,completion,{'z' * 100_000}\n" + "".join(f"Ely {n}?,Yes,\n" for n in range(1_000)))
    with pytest.raises(DatasetError, match="100 times its size"):
        load(path, path.name, max_row_bytes=2**22)
