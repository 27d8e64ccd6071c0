"""Rows that begin alike stay in one split: the shorter one stands word by word in the longer one."""

import json
from collections.abc import Callable

import pytest

from luthier.dataset import Row, split
from luthier.dataset.same_beginning import same_beginning
from luthier.task import DataKind

WORDS = ["oak", "elm", "ash", "fir", "yew", "box", "bay", "fig", "nut", "rye", "oat", "tea"]


def _said(*texts: str) -> list[Row]:
    return [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts)]


def _talk(number: int, rounds: int) -> list[str]:
    """Return questions and answers of one conversation, unlike those of others."""
    names = [WORDS[number // 12**digit % 12] for digit in range(3)]
    return [f"{' '.join(names[n % 3 :] + names[: n % 3])} {WORDS[n]} {number}" for n in range(2 * rounds)]


def _as_chat(texts: list[str]) -> Row:
    return {"messages": _said(*texts)}


def _as_pair(texts: list[str]) -> Row:
    *prompt, answer = _said(*texts)
    return {"prompt": prompt, "completion": [answer]}


def _as_preference(texts: list[str]) -> Row:
    *prompt, answer = _said(*texts)
    return {"prompt": prompt, "chosen": [answer], "rejected": [{"role": "assistant", "content": "No."}]}


def _split_of(row: Row) -> str:
    said = [*(row.get("messages") or row["prompt"])]
    return json.dumps(said[0])


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        (DataKind.CHAT, _as_chat),
        (DataKind.PAIRS, _as_pair),
        (DataKind.PREFERENCE, _as_preference),
    ],
)
def test_a_conversation_logged_after_each_turn_is_in_one_split(kind: DataKind, row: Callable[[list[str]], Row]) -> None:
    rows = [row(_talk(number, rounds)) for number in range(40) for rounds in (1, 2, 3, 4)]
    parts = split(rows, kind)
    train, validation, test = (
        {_split_of(each) for each in part} for part in (parts.train, parts.validation, parts.test)
    )
    assert not train & validation
    assert not (train | validation) & test
    assert len(test) >= 8
    assert any(note.startswith("160 rows begin like") for note in parts.notes)
    own = [each for each in rows if _split_of(each) in {_split_of(rows[0]), _split_of(rows[50])}]
    assert not {_split_of(each) for each in split(rows, kind, validation_rows=own[:2]).train} & {_split_of(own[0])}


def test_chats_that_only_share_a_greeting_are_apart_and_those_that_go_on_alike_together() -> None:
    rows = [_as_chat(["Hi", "Hello!", *_talk(number // 2, 1), *_talk(500 + number, 1)]) for number in range(100)]
    parts = split(rows, DataKind.CHAT)
    second = [{row["messages"][2]["content"] for row in part} for part in (parts.train, parts.validation, parts.test)]
    assert not second[0] & second[1]
    assert not (second[0] | second[1]) & second[2]
    rows = [_as_chat(["Hi", "Hello!", *_talk(number, 2)]) for number in range(100)]
    assert same_beginning(rows, DataKind.CHAT) == {}


def test_chats_with_another_answer_or_another_question_do_not_begin_alike() -> None:
    rows = [_as_chat(["Tell me a joke.", f"{WORDS[n % 12]} {n}", f"Another {n}?", "No."]) for n in range(60)]
    rows += [_as_chat([f"Where is {n}?", "I do not know.", "And now?", "Still not."]) for n in range(60)]
    assert same_beginning(rows, DataKind.CHAT) == {}
    assert same_beginning([{"prompt": f"Hi {n}", "completion": "a"} for n in range(9)], DataKind.PAIRS) == {}


def test_texts_of_which_one_continues_the_other_are_in_one_split() -> None:
    tales = [" ".join(" ".join(_talk(number, 4)) for _ in range(6)) for number in range(40)]
    rows = [{"text": tale[: len(tale) * part // 4]} for tale in tales for part in (1, 2, 4)]
    parts = split(rows, DataKind.TEXT)
    starts = [{row["text"][:60] for row in part} for part in (parts.train, parts.validation, parts.test)]
    assert not starts[0] & starts[1]
    assert not (starts[0] | starts[1]) & starts[2]
    short = [{"text": f"It is {n}"} for n in (1, 12, 123)]
    assert same_beginning(short, DataKind.TEXT) == {}
