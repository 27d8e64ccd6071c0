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
    with pytest.raises(DatasetError, match=r"memory|4,194,304 bytes|1,073,741,824 bytes"):
        _load(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY_BYTES / 8
    rows = [{"text": f"Once {n}."} for n in range(12)]
    assert len(_load(_write(tmp_path / "next", pyarrow.Table.from_pylist(rows))).rows) == 12
