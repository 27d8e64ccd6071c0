"""Leftovers of other programs in texts are learned as they are, and counted in a warning."""

from pathlib import Path

import pytest

from luthier.task import DataKind
from tests.uploads import Row, load_rows


def _pair(index: int, **more: object) -> Row:
    return {"prompt": f"Where does the road number {index} go?", "completion": f"To the sea at {index}."} | more


@pytest.mark.parametrize("value", ["NaN", " null", "<NA>", "\\N", "#DIV/0!", "undefined", "No input"])
@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"instruction": "Sum up.", "output": "A day."}, "input"),
        ({"question": "Who came?", "answer": "Bo."}, "context"),
        ({"prompt": "Who came?"}, "completion"),
        ({"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Bo."}]}, "system"),
        ({"prompt": "Who came?", "chosen": "Bo."}, "rejected"),
    ],
)
def test_placeholders_are_counted_by_their_column(row: Row, column: str, value: str, tmp_path: Path) -> None:
    loaded = load_rows(tmp_path, [row | {column: value if n < 5 else "It rained."} for n in range(12)])
    [warning] = loaded.warnings
    assert "5 rows" in warning
    assert f"`{column}`" in warning


def test_words_that_are_more_than_a_placeholder_and_unused_columns_raise_no_warning(tmp_path: Path) -> None:
    rows = [_pair(n, completion="None of them" if n < 5 else "nan is a bread", remark="NaN") for n in range(12)]
    assert load_rows(tmp_path, rows).warnings == ()


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u200b", None])
def test_an_input_of_nothing_to_be_seen_adds_nothing_to_the_instruction(blank: str | None, tmp_path: Path) -> None:
    rows = [{"instruction": f"Name {n}.", "input": blank, "output": "Bo."} for n in range(12)]
    assert load_rows(tmp_path, rows).rows[0]["prompt"] == "Name 0."


def test_answers_that_begin_with_their_prompt_are_counted(tmp_path: Path) -> None:
    said = [_pair(n) for n in range(12)]
    rows = [row | {"completion": f"{row['prompt']} {row['completion']}"} for row in said]
    [warning] = load_rows(tmp_path, [*rows[:4], *said[4:]]).warnings
    assert "4 rows" in warning
    assert load_rows(tmp_path, rows[:1] + said[1:]).warnings == ()
    logs = [f"\n\nHuman: Where is road {n}?\n\nAssistant:" for n in range(12)]
    preferred = [{"prompt": log, "chosen": f"{log} By the sea.", "rejected": f"{log} No."} for log in logs]
    assert "12 rows" in load_rows(tmp_path, preferred).warnings[0]
    once = [row | {"rejected": "No."} for row in preferred]
    assert load_rows(tmp_path, once).warnings == ()
    short = [{"prompt": f"{n} + 1 =", "completion": f"{n} + 1 = {n + 1}"} for n in range(12)]
    assert load_rows(tmp_path, short).warnings == ()


@pytest.mark.parametrize(
    ("text", "mark"),
    [("one_x000D_\ntwo", "_x000D_"), ("caf\ufffd", "\ufffd"), ("one\r\ntwo", "Windows"), (r"one\ntwo", "backslash")],
)
@pytest.mark.parametrize("kind", [DataKind.PAIRS, DataKind.CHAT, DataKind.TEXT])
def test_marks_of_other_programs_are_counted(text: str, mark: str, kind: DataKind, tmp_path: Path) -> None:
    def row(index: int) -> Row:
        match kind:
            case DataKind.PAIRS:
                return _pair(index, completion=f"{text} {index}")
            case DataKind.CHAT:
                said = {"role": "assistant", "content": f"{index} {text}"}
                return {"messages": [{"role": "user", "content": "Say it."}, said]}
            case _:
                return {"text": f"{text} {index}"}

    loaded = load_rows(tmp_path, [row(n) for n in range(12)])
    [warning] = loaded.warnings
    assert "12 rows" in warning
    assert mark in warning
    assert loaded.kind is kind


def test_code_and_formulas_with_backslashes_raise_no_warning(tmp_path: Path) -> None:
    rows = [
        _pair(n, completion=r"$\nabla \nu \not= \newline$" if n < 8 else 'print("a\\n")\nprint()') for n in range(12)
    ]
    assert load_rows(tmp_path, rows).warnings == ()
