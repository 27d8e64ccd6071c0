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
