"""Flags of other programs on messages that are not trained on, and files with parts that are left out silently."""

from pathlib import Path

import pytest

from luthier.errors import DatasetError
from tests.uploads import Row, load_rows

USER = {"role": "user", "content": "Ely?"}
GOOD = {"role": "assistant", "content": "A town."}


def _chat(flags: Row, **more: object) -> Row:
    return {"messages": [USER, {"role": "assistant", "content": "Bad."} | flags, USER, GOOD | more]}


@pytest.mark.parametrize(
    "flags",
    [
        {"training": False},
        {"train": 0},
        {"loss": False},
        {"loss_scale": 0.0},
        {"masked": True},
        {"weight": 0, "loss": 0},
    ],
)
def test_a_message_that_another_program_would_not_train_on_has_no_weight(flags: Row, tmp_path: Path) -> None:
    [row, *_] = load_rows(tmp_path, [_chat(flags)] * 12).rows
    assert row["messages"] == [USER, {"role": "assistant", "content": "Bad.", "weight": 0}, USER, GOOD]


@pytest.mark.parametrize("flags", [{"training": True}, {"loss": 1.0}, {"masked": False}, {"train": None}])
def test_a_message_that_it_would_train_on_is_trained_on(flags: Row, tmp_path: Path) -> None:
    [row, *_] = load_rows(tmp_path, [_chat(flags)] * 12).rows
    assert [turn.get("weight", 1) for turn in row["messages"]] == [1, 1, 1, 1]


def test_sharegpts_turns_have_such_flags_too(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "loss": False}]
    row = {"conversations": [*turns, {"from": "human", "value": "c"}, {"from": "gpt", "value": "d", "loss": True}]}
    [read, *_] = load_rows(tmp_path, [row] * 12).rows
    assert [turn.get("weight") for turn in read["messages"]] == [None, 0, None, None]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (_chat({"train": "no"}), r"messages\[1\]\.train"),
        (_chat({"loss_scale": 0.3}), r"messages\[1\]\.loss_scale"),
        (
            _chat({"training_detail": [{"begin_offset": 0, "end_offset": 2, "train": False}]}),
            r"messages\[1\]\.training_d",
        ),
        (_chat({"weight": 1, "train": False}), r"messages\[1\]`: its `weight` and `train`"),
        ({"messages": [USER | {"train": True}, GOOD]}, r"messages\[0\]\.train"),
        (
            {"messages": [USER, GOOD | {"content": [{"type": "text", "text": "A town.", "train": False}]}]},
            r"messages\[1\]\.content\[0\]",
        ),
        (_chat({"loss": False}, loss=False), r"messages`: every assistant message"),
    ],
)
def test_flags_that_cannot_be_followed_are_refused(row: Row, field: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=rf"12 faults:\n  - row 1, field `{field}"):
        load_rows(tmp_path, [row] * 12)


def test_chats_of_more_messages_than_a_template_renders_in_time_are_refused(tmp_path: Path) -> None:
    assert load_rows(tmp_path, [{"messages": [USER, GOOD] * 500}] * 10).rows
    with pytest.raises(DatasetError, match=r"field `messages`: .*1,000 messages.*a list of 1002"):
        load_rows(tmp_path, [{"messages": [USER, GOOD] * 501}] * 10)
