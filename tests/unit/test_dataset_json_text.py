"""Messages that stand in a row as text."""

import json
from pathlib import Path

import pytest

from luthier.errors import DatasetError
from tests.uploads import Row, load_rows

PAIR = {"prompt": "Name a town.", "completion": "Ely"}


@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_messages_in_a_text_are_named_where_they_are_wrong(column: str, tmp_path: Path) -> None:
    said = json.dumps([{"role": "robot", "content": "a"}, {"role": "assistant", "content": "b"}])
    with pytest.raises(DatasetError, match=rf"row 1, field `{column}\[0\]\.role`.*'robot'"):
        load_rows(tmp_path, [{column: said}] * 12)


CHAT = [{"role": "user", "content": "It's late?"}, {"role": "assistant", "content": "No."}]
TURNS = [{"value": "Is it late?", "from": "human"}, {"value": "No.", "from": "gpt"}]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"messages": str(CHAT)}, "messages"),
        ({"conversations": str(TURNS)}, "conversations"),
        ({"prompt": "Is it late?", "completion": str(CHAT[1:])}, "completion"),
        ({"prompt": "Is it late?", "chosen": str(CHAT[1:]), "rejected": "Yes."}, "chosen"),
        ({"prompt": str(CHAT[:1]), "answer": "No"}, "prompt"),
        ({"question": str(CHAT[:1]), "answer": "No"}, "question"),
    ],
)
def test_messages_as_python_prints_them_are_refused_in_every_column(row: Row, column: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=rf"12 faults:\n  - row 1, field `{column}`: .*JSON"):
        load_rows(tmp_path, [row] * 12)


def test_python_code_is_no_message(tmp_path: Path) -> None:
    code = "[{'role': 'admin', 'name': 'Al'}]"
    assert load_rows(tmp_path, [PAIR | {"completion": code}] * 12).rows[0]["completion"] == code


SAID = {"role": "assistant", "content": "No."}


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"prompt": "Is it late?", "response": json.dumps([SAID])}, "response"),
        ({"question": json.dumps(CHAT[:1]), "answer": "No."}, "question"),
        ({"prompt": "Is it late?", "chosen": json.dumps(SAID), "rejected": "Yes."}, "chosen"),
        ({"prompt": "Is it late?", "completion": json.dumps({"from": "gpt", "value": "No."})}, "completion"),
    ],
)
def test_messages_in_a_text_are_read_in_every_column_and_noted(row: Row, column: str, tmp_path: Path) -> None:
    loaded = load_rows(tmp_path, [row] * 12)
    answer = "chosen" if "chosen" in row else "completion"
    assert [turn["content"] for turn in loaded.rows[0][answer]] == ["No."]
    [note] = loaded.notes
    assert f"`{column}`" in note


def test_one_message_as_an_object_is_a_list_of_one(tmp_path: Path) -> None:
    row = {"prompt": CHAT[0], "chosen": SAID, "rejected": SAID | {"content": "Yes."}}
    loaded = load_rows(tmp_path, [row] * 12)
    assert loaded.rows[0] == {"prompt": CHAT[:1], "chosen": [SAID], "rejected": [SAID | {"content": "Yes."}]}
    assert loaded.notes == ()


@pytest.mark.parametrize("said", [str(SAID), str({"from": "gpt", "value": "No."}), f" {CHAT[1:]} "])
def test_one_message_as_python_prints_it_is_refused(said: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"12 faults:\n  - row 1, field `rejected`: .*JSON"):
        load_rows(tmp_path, [{"prompt": "Is it late?", "chosen": "Yes.", "rejected": said}] * 12)


def test_a_few_answers_that_are_json_of_messages_are_texts_and_counted(tmp_path: Path) -> None:
    written = json.dumps([SAID])
    rows = [PAIR | {"completion": written if n < 3 else "Ely"} for n in range(12)]
    loaded = load_rows(tmp_path, rows)
    assert [row["completion"] for row in loaded.rows[:4]] == [written] * 3 + ["Ely"]
    [note] = loaded.notes
    assert "3 rows" in note
    assert "`completion`" in note


def test_a_text_in_a_column_of_messages_is_a_fault(tmp_path: Path) -> None:
    rows = [PAIR | {"completion": json.dumps([SAID]) if n != 5 else "Ely"} for n in range(12)]
    with pytest.raises(DatasetError, match=r"1 fault:\n  - row 6, field `completion`: .*'Ely'"):
        load_rows(tmp_path, rows)


def test_a_fault_in_messages_that_stood_there_as_text_says_so(tmp_path: Path) -> None:
    written = json.dumps({"role": "user", "content": "Ely"})
    with pytest.raises(DatasetError, match=r"row 1, field `completion\[0\]\.role`: .*`completion` was read as JSON"):
        load_rows(tmp_path, [PAIR | {"completion": written}] * 12)
    with pytest.raises(DatasetError) as refused:
        load_rows(tmp_path, [{"prompt": [SAID], "completion": "Ely"}] * 12)
    assert "JSON" not in refused.value.message
