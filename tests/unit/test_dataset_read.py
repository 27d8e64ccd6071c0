"""What is read, and what comes out of it."""

import contextlib
import json
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.dataset import Loaded, load, read_rows, write_rows
from luthier.dataset.formats import FORMATS
from luthier.errors import DatasetError
from luthier.task import DataKind
from tests.unit.good_files import GOOD_FILES, ROWS, GoodFile

LIMIT = 4 * 2**20


def _load(folder: Path, name: str, data: bytes, *, limit: int = LIMIT) -> Loaded:
    path = folder / "upload"
    path.write_bytes(data)
    return load(path, name, max_row_bytes=limit)


@pytest.mark.parametrize("good", GOOD_FILES, ids=lambda good: good.case)
def test_every_accepted_format_comes_out_in_trls_columns(good: GoodFile, tmp_path: Path) -> None:
    loaded = _load(tmp_path, good.name, good.data)
    assert (loaded.kind, loaded.format) == (good.kind, good.format)
    assert loaded.rows[0] == good.first
    assert len(loaded.rows) == ROWS
    assert read_rows(write_rows(loaded.rows)) == loaded.rows


def test_normalised_rows_are_accepted_again_unchanged(tmp_path: Path) -> None:
    for good in GOOD_FILES:
        rows = _load(tmp_path, good.name, good.data).rows
        assert _load(tmp_path, "again.jsonl", write_rows(rows)).rows == rows


def test_the_cases_have_names_of_their_own() -> None:
    assert len({good.case for good in GOOD_FILES}) == len(GOOD_FILES)


@pytest.mark.parametrize(
    ("name", "opening", "size"), [("train.jsonl", b'{"text": "', 2**28), ("train.json", b'[{"text": "', 2**31)]
)
def test_a_row_far_beyond_the_limit_is_refused_without_being_held_in_memory(
    name: str, opening: bytes, size: int, tmp_path: Path
) -> None:
    path = tmp_path / "upload"
    with path.open("wb") as stream:
        stream.write(opening + b"a" * 2**21)
        stream.truncate(size)  # the rest is a hole, which reads as zero bytes without taking up the disk
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=r"1,048,576 bytes.*LUTHIER_MAX_ROW_BYTES"):
            load(path, name, max_row_bytes=2**20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20


@pytest.mark.parametrize(
    "start",
    ['{\n"title": "Of brackets"\n}\n\n', "[a link](https://a.example)\n", "{{ macro }}\n", '["Hm," he said.]\n', "{\n"],
)
def test_prose_may_start_with_a_bracket(start: str, tmp_path: Path) -> None:
    text = start + "\n\n".join("word " * 350 for _ in range(12))
    assert _load(tmp_path, "book.md", text.encode()).rows[0]["text"].startswith(start.strip())


def test_a_row_of_just_the_limit_is_accepted(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "x" * 88}).encode() for _ in range(10)]
    assert {len(line) for line in lines} == {100}
    assert len(_load(tmp_path, "train.jsonl", b"\n".join(lines), limit=100).rows) == 10
    with pytest.raises(DatasetError, match="10 faults"):
        _load(tmp_path, "train.jsonl", b"\n".join(lines), limit=99)


@pytest.mark.parametrize("name", ["train.csv", "train.parquet", "train.json"])
def test_the_limit_of_a_row_holds_for_every_container(name: str, tmp_path: Path) -> None:
    short, long = "word", "x" * 2_000
    with pytest.raises(DatasetError, match=r"(row|line) 1?\d.*1,000 bytes.*LUTHIER_MAX_ROW_BYTES"):
        _load(tmp_path, name, _container(name, [short] * 11 + [long]), limit=1_000)
    assert len(_load(tmp_path, name, _container(name, [short] * 12), limit=1_000).rows) == 12


def test_faults_of_the_whole_file_are_counted_and_the_first_20_listed(tmp_path: Path) -> None:
    good, bad = {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": ""}
    data = write_rows([good] * 5 + [bad] * 25 + [good] * 70 + [bad]) + b"not JSON"
    with pytest.raises(DatasetError, match=r"train\.jsonl .*27 .*\b20\b.*\n  - row 6, field `completion`") as refused:
        _load(tmp_path, "train.jsonl", data)
    assert len(refused.value.faults) == 20


def test_rows_are_numbered_by_their_lines(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"line 4 .*JSON"):
        _load(tmp_path, "train.jsonl", b'\n{"text": "a"}\n\noops\n')


def test_emoji_written_as_surrogate_pairs_are_whole_characters(tmp_path: Path) -> None:
    rows = _load(tmp_path, "train.jsonl", rb'{"text": "\ud83d\ude00"}' + b"\n" + b'{"text": "x"}\n' * 9).rows
    assert rows[0] == {"text": "😀"}


def test_an_array_element_that_spans_many_reads_is_whole(tmp_path: Path) -> None:
    texts = [f"{index}: " + "long " * 60_000 for index in range(10)]
    data = json.dumps([{"text": text, "number": 123456} for text in texts]).encode()
    assert [row["text"] for row in _load(tmp_path, "train.json", data).rows] == texts


def test_parquet_beyond_the_decompressed_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(_container("train.parquet", ["a" * 1_000] * 100))
    with pytest.raises(DatasetError, match=r"10,000 bytes.*LUTHIER_MAX_UPLOAD_BYTES"):
        load(path, "train.parquet", max_row_bytes=LIMIT, max_bytes=10_000)


def test_times_and_decimals_of_parquet_become_json(tmp_path: Path) -> None:
    import datetime
    import decimal

    when = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
    rows = [{"text": f"t{i}", "when": when, "price": decimal.Decimal("1.5"), "day": when.date()} for i in range(10)]
    row = _load(tmp_path, "train.parquet", _parquet(rows)).rows[0]
    assert row == {"text": "t0", "when": "2024-02-29T12:00:00+00:00", "price": 1.5, "day": "2024-02-29"}


WORDS = st.lists(
    st.lists(st.one_of(st.text("ab #é", min_size=1), st.just("word " * 900), st.just("y" * 5_000)), max_size=4),
    max_size=12,
)


@settings(max_examples=60)
@given(paragraphs=WORDS)
def test_plain_text_is_cut_into_pieces_without_losing_any(paragraphs: list[list[str]]) -> None:
    text = "\n\n".join("\n".join(lines) for lines in paragraphs)
    whole = "\n\n".join(f"# {index}\n{text}\n{'z ' * 900}" for index in range(10))
    rows = _load_anywhere("book.md", whole.encode()).rows
    pieces = [row["text"] for row in rows]
    assert "".join("".join(pieces).split()) == "".join(whole.split())
    assert max(map(len, pieces)) <= 2_000


def test_a_heading_starts_a_new_piece_once_the_last_is_half_full(tmp_path: Path) -> None:
    section = "word " * 240
    text = "\n\n".join(f"## Section {index}\n\n{section}" for index in range(10))
    rows = _load(tmp_path, "book.md", text.encode()).rows
    assert [row["text"].split("\n")[0] for row in rows] == [f"## Section {index}" for index in range(10)]


@settings(max_examples=300)
@given(
    data=st.one_of(st.binary(), st.text().map(str.encode)), name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.md"])
)
def test_no_content_brings_anything_but_rows_or_a_dataset_error(data: bytes, name: str) -> None:
    with pytest.raises(DatasetError):
        _load_anywhere(name, data)


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)
COLUMNS = st.sampled_from(
    sorted({column for known in FORMATS for column in known.used} | {"label", "kto_tag", "images", "context"})
)
MESSAGES = st.lists(
    st.dictionaries(
        st.sampled_from(
            ["role", "content", "tool_calls", "tool_call_id", "function_call", "thinking", "weight", "from", "value"]
        ),
        st.one_of(st.sampled_from(["user", "assistant", "tool", "human", "gpt", "function_call"]), JSON_VALUES),
    ),
    max_size=4,
)


@settings(max_examples=300)
@given(row=st.dictionaries(COLUMNS, st.one_of(MESSAGES, JSON_VALUES), min_size=1))
def test_no_row_brings_anything_but_rows_or_a_dataset_error(row: dict[str, object]) -> None:
    data = (json.dumps(row) + "\n").encode() * 10
    with contextlib.suppress(DatasetError):
        loaded = _load_anywhere("train.jsonl", data)
        assert read_rows(write_rows(loaded.rows)) == loaded.rows
        assert loaded.kind in DataKind


def _load_anywhere(name: str, data: bytes) -> Loaded:
    """For tests that hypothesis calls many times, which a folder of their own each would slow down."""
    with tempfile.TemporaryDirectory() as folder:
        return _load(Path(folder), name, data)


def _container(name: str, texts: list[str]) -> bytes:
    rows = [{"text": text} for text in texts]
    match Path(name).suffix:
        case ".csv":
            return "\n".join(["text", *texts]).encode()
        case ".parquet":
            return _parquet(rows)
        case _:
            return json.dumps(rows).encode()


def _parquet(rows: list[dict[str, object]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    stream = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue().to_pybytes()


def _notes(folder: Path, *rows: dict[str, object]) -> tuple[str, ...]:
    return _load(folder, "train.jsonl", write_rows(list(rows))).notes


PAIR = {"prompt": "a", "completion": "b"}


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (1, 0),
        (1.0, 0.0),
        ("1.0", " 0"),
        (1, -1),
        ("Yes", "NO"),
        ("chosen", "rejected"),
        ("thumbs up", "thumbs-down"),
        ("👍", "👎"),
        (True, "bad"),
    ],
)
def test_labels_in_other_words_are_read_and_counted(good: object, bad: object, tmp_path: Path) -> None:
    rows = [PAIR | {"prompt": f"a{n}", "label": value} for n, value in enumerate((good, bad, bad) * 4)]
    loaded = _load(tmp_path, "train.jsonl", write_rows(rows))
    assert [row["label"] for row in loaded.rows] == [True, False, False] * 4
    [note] = loaded.notes
    assert "(4 rows)" in note
    assert "(8 rows)" in note


def test_labels_of_true_and_false_need_no_note(tmp_path: Path) -> None:
    assert _notes(tmp_path, *[PAIR | {"prompt": f"{n}", "label": n % 2 == 0} for n in range(12)]) == ()


def test_columns_that_no_training_uses_are_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [PAIR | {"url": "u", "label": "sport"} for _ in range(11)] + [PAIR | {"author": "x", "system": "y"}]
    loaded = _load(tmp_path, "train.jsonl", write_rows(rows))
    assert loaded.unused_columns == ("url", "label", "author")
    assert [note for note in loaded.notes if "`label`" in note]
    assert [note for note in loaded.notes if "`system`" in note and " 1 rows" in note]
    assert all("url" in row for row in loaded.rows[:11])


def test_columns_beyond_the_first_hundred_are_not_listed(tmp_path: Path) -> None:
    rows = [PAIR | {f"column {index}-{number}": 1 for number in range(30)} for index in range(12)]
    assert len(_load(tmp_path, "train.jsonl", write_rows(rows)).unused_columns) == 100


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"context": "c"}, "context"),
        ({"question": "q", "completion": None, "answer": "4"}, "answer"),
    ],
)
def test_what_becomes_of_a_column_is_noted(extra: dict[str, object], named: str, tmp_path: Path) -> None:
    [note] = _notes(tmp_path, *[PAIR | extra for _ in range(12)])
    assert f"`{named}`" in note


def _called(*results: str) -> dict[str, object]:
    calls = [{"id": name, "function": {"name": "f", "arguments": {}}} for name in "ab"]
    found = [{"role": "tool", "content": "x", "tool_call_id": name} for name in results]
    answer = {"role": "assistant", "content": "Done."}
    return {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": calls}, *found, answer]}


@pytest.mark.parametrize(("results", "counts"), [("ab", []), ("ba", ["12"]), ("b", ["12"]), ("", ["24"])])
def test_reordered_results_and_calls_without_results_are_noted(results: str, counts: list[str], tmp_path: Path) -> None:
    notes = _notes(tmp_path, *[_called(*results) for _ in range(12)])
    assert [next(word for word in note.split() if word.isdigit()) for note in notes] == counts


def test_cells_that_json_cannot_hold_are_left_out_and_counted(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": f"t{i}", "score": float("nan") if i < 4 else 0.5} for i in range(12)]
    loaded = _load(tmp_path, "train.parquet", _parquet(rows))
    assert ["score" in row for row in loaded.rows] == [False] * 4 + [True] * 8
    assert loaded.unused_columns == ("score",)
    [note] = loaded.notes
    assert "`score`, 4 values" in note


def test_the_format_is_told_from_all_rows_and_not_from_the_first(tmp_path: Path) -> None:
    pairs = [PAIR | {"label": None}] + [PAIR | {"label": index % 2} for index in range(20)]
    with pytest.raises(DatasetError, match="has 1 fault:\n  - row 1, field `label`"):
        _load(tmp_path, "train.jsonl", write_rows(pairs))
    chats = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}] * 20
    with pytest.raises(DatasetError, match=r"has 1 fault:\n  - row 1, columns `prompt`, `completion`.*`messages`"):
        _load(tmp_path, "train.jsonl", write_rows([PAIR, *chats]))
    with pytest.raises(DatasetError, match=r"has 1 fault:\n  - row 1, field `messages`.*no assistant message"):
        _load(tmp_path, "train.jsonl", write_rows([{"messages": chats[0]["messages"][:1]}, *chats]))


@pytest.mark.parametrize("header", ["prompt, completion", "Prompt,Completion", "PROMPT , completion "])
def test_names_of_columns_may_have_spaces_and_capitals(header: str, tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(f"{header}\n" + "".join(f"q{n},a{n}\n" for n in range(12)))
    loaded = load(file, file.name, max_row_bytes=2**20)
    assert (loaded.kind, loaded.rows[3]) == (DataKind.PAIRS, {"prompt": "q3", "completion": "a3"})


@pytest.mark.parametrize("answer", ['[{"name": "Al", "role": "dev"}]', '[{"from": "Paris", "to": "Rome"}]'])
def test_an_answer_that_is_json_is_text(answer: str, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"List {n}", "completion": answer}) + "\n" for n in range(12)))
    assert load(file, file.name, max_row_bytes=2**20).rows[0]["completion"] == answer


def test_a_weight_of_zero_on_another_turn_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    turns = [{"from": "human", "value": "q", "weight": 0.0}, {"from": "gpt", "value": "a", "weight": 1.0}]
    file.write_text((json.dumps({"conversations": turns}) + "\n") * 12)
    assert load(file, file.name, max_row_bytes=2**20).rows[0]["messages"] == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "weight": 1},
    ]
