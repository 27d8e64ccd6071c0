"""Files whose rows are single messages, or trees of them, are refused."""

import random
from pathlib import Path

import pytest

from luthier.errors import DatasetError
from luthier.task import DataKind
from tests.uploads import Row, load_rows

PAIR = {"prompt": "Name a town.", "completion": "Ely"}


def _thread(number: int) -> list[Row]:
    said = [("prompter", "Hi"), ("assistant", "Hello"), ("assistant", "Good day")]
    return [
        {
            "message_id": f"{number}-{index}",
            "parent_id": None if index == 0 else f"{number}-0",
            "text": f"{text} {number}",
            "role": role,
            "rank": index - 1 if index else None,
        }
        for index, (role, text) in enumerate(said)
    ]


def _without(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}


OPEN_ASSISTANT = [row for number in range(8) for row in _thread(number)]
SAID = {"text": "Hi", "role": "prompter", "replies": [{"text": "Hello", "role": "assistant", "replies": []}]}
CHATGPT = {"mapping": {"a": {"message": {"content": {"parts": ["Hi"]}}, "parent": None, "children": ["b"]}}}


@pytest.mark.parametrize(
    "rows",
    [
        OPEN_ASSISTANT,
        random.Random(3).sample(OPEN_ASSISTANT, len(OPEN_ASSISTANT)),
        [row for row in OPEN_ASSISTANT if row["parent_id"] is not None],
        [_without(row, "role") for row in OPEN_ASSISTANT],
        [_without(row, "parent_id", "message_id") for row in OPEN_ASSISTANT],
        [{"speaker": ("Human", "Bot")[n % 2], "text": f"Line {n}", "chat": n // 4} for n in range(20)],
        [{"role": ("user", "assistant")[n % 2], "content": f"Line {n}"} for n in range(20)],
        [{"message_tree_id": str(n), "prompt": SAID} for n in range(12)],
        [SAID] * 12,
        [{"text": "Hi", "author": "ann", "children": [{"text": "Hello"}]}] * 12,
        [{"title": "A chat"} | CHATGPT] * 12,
        [{"user": f"W{n % 3}", "ts": f"17000000{n:02}.000200", "text": "Hi"} for n in range(12)],
        [{"type": "message", "bot_id": "B1", "text": "Deployed"}] * 12,
        [{"id": n, "type": "message", "from": "Ann", "from_id": "user7", "text": "Hi"} for n in range(12)],
        [{"Role": ("user", "assistant")[n % 2], "Content": f"Line {n}"} for n in range(20)],
    ],
    ids=[
        "messages",
        "in any order",
        "without the first ones",
        "without roles",
        "without parents",
        "speakers",
        "content",
        "trees",
        "trees of rows",
        "children",
        "ChatGPT",
        "Slack",
        "Slack's bots",
        "Telegram",
        "in capitals",
    ],
)
def test_messages_and_trees_are_refused_and_the_layout_to_write_is_named(rows: list[Row], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has 1 fault:\n  - row 1, columns .*\"messages\": \[") as refused:
        load_rows(tmp_path, rows)
    assert "CSV" not in str(refused.value)


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": f"Story {n}", "author": f"writer {n}"} for n in range(12)],
        [{"text": f"Story {n}", "role": "assistant"} for n in range(12)],
        [{"text": f"Story {n}", "parent_id": "book", "id": n} for n in range(12)],
        [{"text": f"Story {n}", "children": 2} for n in range(12)],
        [{"text": f"Story {n}", "user": "ann", "ts": 1700000000 + n, "type": "story"} for n in range(12)],
    ],
)
def test_texts_with_other_columns_are_texts(rows: list[Row], tmp_path: Path) -> None:
    assert load_rows(tmp_path, rows).kind is DataKind.TEXT


def test_texts_that_may_be_replies_are_noted(tmp_path: Path) -> None:
    rows: list[Row] = [{"id": n, "parent_id": n - 1 if n else None, "text": f"Story {n}"} for n in range(12)]
    [note] = load_rows(tmp_path, rows).notes
    assert "`parent_id`" in note
    assert '"messages"' in note


@pytest.mark.parametrize(
    "beside", [{"role": "user", "parent_id": "x"}, {"replies": [], "message_id": "m", "parent_id": "p"}]
)
def test_whole_conversations_may_have_the_columns_of_messages(beside: Row, tmp_path: Path) -> None:
    assert load_rows(tmp_path, [PAIR | beside] * 12).kind is DataKind.PAIRS


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("dialogue_id", {"speaker": "Ann"}),
        ("session", {"turn_index": 3}),
        ("conv_id", {"author": "bo", "lang": "en"}),
        ("Thread_ID", {"Turn": "1"}),
    ],
)
def test_turns_of_a_conversation_that_the_rows_name_are_refused(name: str, beside: Row, tmp_path: Path) -> None:
    rows = [{"text": f"They said {n}.", name: n // 4, **beside} for n in range(12)]
    with pytest.raises(DatasetError, match=r"1 fault:\n  - row 1, columns .*one message of a conversation"):
        load_rows(tmp_path, rows)
    assert load_rows(tmp_path, [row | {name: n} for n, row in enumerate(rows)]).kind is DataKind.TEXT


@pytest.mark.parametrize(
    ("column", "values"),
    [("parent_id", [None, *range(11)]), ("Conversation_ID", [n // 3 for n in range(12)]), ("thread_ts", ["1"] * 12)],
)
@pytest.mark.parametrize("more", [{"response": "By the sea."}, {"chosen": "By the sea.", "rejected": "No."}])
def test_pairs_that_may_be_rounds_of_a_conversation_are_noted(
    column: str, values: list[object], more: Row, tmp_path: Path
) -> None:
    rows = [{"prompt": f"Where is {n}?", column: value, **more} for n, value in enumerate(values)]
    [warning] = load_rows(tmp_path, rows).warnings
    assert f"`{column}`" in warning
    alone = [row | {column: n if column == "Conversation_ID" else None} for n, row in enumerate(rows)]
    assert load_rows(tmp_path, alone).warnings == ()
