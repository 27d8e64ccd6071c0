"""Flags of other programs on messages that are not trained on, and files with parts that are left out silently."""

import json
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
        {"lossMask": 0},
        {"should_train": False},
        {"isTarget": False},
        {"train-on-turn": 0},
        {"skip": True},
        {"dont_train": 1},
        {"exclude_from_loss": True},
    ],
)
def test_a_message_that_another_program_would_not_train_on_has_no_weight(flags: Row, tmp_path: Path) -> None:
    [row, *_] = load_rows(tmp_path, [_chat(flags)] * 12).rows
    assert row["messages"] == [USER, {"role": "assistant", "content": "Bad.", "weight": 0}, USER, GOOD]


@pytest.mark.parametrize(
    "flags",
    [{"training": True}, {"loss": 1.0}, {"masked": False}, {"train": None}, {"no_train": False}, {"step_loss_mask": 1}],
)
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


def test_a_message_of_the_user_may_say_that_it_is_not_left_out(tmp_path: Path) -> None:
    [row, *_] = load_rows(tmp_path, [{"messages": [USER | {"excluded": False}, GOOD | {"excluded": False}]}] * 12).rows
    assert row["messages"] == [USER, GOOD]
    with pytest.raises(DatasetError, match=r"row 1, field `messages\[0\]\.is_target`"):
        load_rows(tmp_path, [{"messages": [USER | {"is_target": True}, GOOD]}] * 12)


@pytest.mark.parametrize("key", ["mask", "is_label", "keep_in_training", "ignore_in_eval"])
@pytest.mark.parametrize("values", [(True, False), (1, None), (False, None)])
def test_a_key_that_may_say_what_is_trained_on_is_refused_by_its_name(
    key: str, values: tuple[object, object], tmp_path: Path
) -> None:
    rows = [_chat({} if n < 3 else {key: values[0]}, **{key: values[1]}) for n in range(12)]
    with pytest.raises(DatasetError, match=rf"1 fault:\n  - row 4, field `messages\[1\]\.{key}`"):
        load_rows(tmp_path, [row if n > 2 else {"messages": [USER, GOOD]} for n, row in enumerate(rows)])


def test_such_a_key_is_named_where_it_stands_in_the_file(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Ely?"}, {"from": "gpt", "value": "A town."}]
    rows = [{"conversations": [turns[0], turns[1] | {"label": n > 4}]} for n in range(12)]
    with pytest.raises(DatasetError, match=r"1 fault:\n  - row 1, field `conversations\[1\]\.label`"):
        load_rows(tmp_path, rows)


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ({"mask": False}, ["mask"]),
        ({"label": "greeting", "trained_by": "Ann"}, ["label", "trained_by"]),
        ({"stars": 4, "refusal": None, "annotations": []}, ["stars"]),
    ],
)
def test_keys_of_messages_that_no_training_uses_are_named_once_with_their_count(
    flags: Row, names: list[str], tmp_path: Path
) -> None:
    loaded = load_rows(tmp_path, [_chat(flags, **flags)] * 12)
    [warning] = loaded.warnings
    assert all(f"`{name}` (24 messages)" in warning for name in names)
    assert warning.count("messages)") == len(names)


def test_keys_that_are_used_or_name_a_message_raise_no_note(tmp_path: Path) -> None:
    row = {"messages": [USER | {"name": "ann", "id": "m1"}, GOOD | {"id": "m2", "reasoning": "Hm.", "weight": 1}]}
    assert load_rows(tmp_path, [row] * 12).notes == ()
    [warning] = load_rows(tmp_path, [{"messages": [USER | {"thinking": "Hm."}, GOOD]}] * 12).warnings
    assert "`thinking` (12 messages)" in warning


@pytest.mark.parametrize(
    "key", ["image", "videos", "audio", "image_url", "input_images", "attachments", "picture_path", "pixel_values"]
)
def test_media_in_a_message_or_in_a_part_of_it_are_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=rf"12 faults:\n  - row 1, field `messages\[0\]\.{key}`: images"):
        load_rows(tmp_path, [{"messages": [USER | {key: ["a.png"]}, GOOD]}] * 12)
    part = {"type": "text", "text": "Ely?", key: {"url": "a.png"}}
    with pytest.raises(DatasetError, match=rf"row 1, field `messages\[0\]\.content\[0\]\.{key}`"):
        load_rows(tmp_path, [{"messages": [USER | {"content": [part]}, GOOD]}] * 12)
    assert load_rows(tmp_path, [{"messages": [USER | {key: []}, GOOD]}] * 12).notes == ()


@pytest.mark.parametrize("key", ["thoughts", "thought", "think"])
def test_thoughts_are_the_reasoning_of_an_answer(key: str, tmp_path: Path) -> None:
    [row, *_] = load_rows(tmp_path, [{"messages": [USER, GOOD | {key: "Hm."}]}] * 12).rows
    assert row["messages"][1] == GOOD | {"reasoning_content": "Hm."}
    same = GOOD | {key: "Hm.", "reasoning": "Hm. "}
    assert load_rows(tmp_path, [{"messages": [USER, same]}] * 12).rows
    with pytest.raises(DatasetError, match=rf"row 1, field `messages\[1\]`: .*`thinking`, `{key}`, which differ"):
        load_rows(tmp_path, [{"messages": [USER, GOOD | {"thinking": "Well.", key: "Hm."}]}] * 12)


TOOL = {"type": "function", "function": {"name": "depth"}}


@pytest.mark.parametrize("key", ["tools", "functions"])
def test_tools_in_a_system_message_are_the_tools_of_the_row(key: str, tmp_path: Path) -> None:
    system = {"role": "developer", "content": "Be brief."}
    said = [system | {key: json.dumps([TOOL])}, USER, GOOD]
    [row, *_] = load_rows(tmp_path, [{"messages": said, "tools": [TOOL]}] * 12).rows
    assert row == {"messages": [system, USER, GOOD], "tools": [TOOL]}
    assert load_rows(tmp_path, [{"messages": said}] * 12).rows[0] == row
    with pytest.raises(DatasetError, match=rf"row 1, field `messages\[0\]\.{key}`"):
        load_rows(tmp_path, [{"messages": said, "tools": [{"name": "width"}]}] * 12)
    with pytest.raises(DatasetError, match=rf"row 1, field `messages\[0\]\.{key}`"):
        load_rows(tmp_path, [{"messages": [USER | {key: [TOOL]}, GOOD]}] * 12)


def test_calls_under_another_name_are_read_or_refused(tmp_path: Path) -> None:
    call = {"name": "depth", "arguments": {}}
    for calls in ([call], json.dumps([call])):
        [row, *_] = load_rows(tmp_path, [{"messages": [USER, GOOD | {"function_calls": calls}]}] * 12).rows
        assert row["messages"][1]["tool_calls"] == [{"type": "function", "function": call}]
    with pytest.raises(DatasetError, match=r"row 1, field `messages\[1\]\.function_calls`"):
        load_rows(tmp_path, [{"messages": [USER, GOOD | {"function_calls": "depth()"}]}] * 12)


def test_chats_of_more_messages_than_a_template_renders_in_time_are_refused(tmp_path: Path) -> None:
    assert load_rows(tmp_path, [{"messages": [USER, GOOD] * 500}] * 10).rows
    with pytest.raises(DatasetError, match=r"field `messages`: .*1,000 messages.*a list of 1002"):
        load_rows(tmp_path, [{"messages": [USER, GOOD] * 501}] * 10)
