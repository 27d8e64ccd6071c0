"""Columns that would be left out: read where their meaning is clear, else named."""

import json
from pathlib import Path

import pytest

from luthier.errors import DatasetError
from luthier.task import DataKind
from tests.uploads import Row, load_rows


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def says(text: str) -> Row:
    return {"role": "assistant", "content": text}


ROUNDS = [["Hi", "Hello"], ["Ely?", "A town."]]
PAST = [user("Hi"), says("Hello"), user("Ely?"), says("A town.")]


@pytest.mark.parametrize("history", [ROUNDS, PAST, json.dumps(ROUNDS)])
@pytest.mark.parametrize(
    ("row", "last"),
    [
        ({"prompt": "Rye?", "completion": "Too."}, [says("Too.")]),
        ({"question": "Rye?", "answer": "Too."}, [says("Too.")]),
        ({"input": "Rye?", "output": "Too."}, [says("Too.")]),
    ],
)
def test_earlier_rounds_stand_before_every_kind_of_question(
    row: Row, last: list[Row], history: object, tmp_path: Path
) -> None:
    rows = [row | {"history": history if n else []} for n in range(12)]
    loaded = load_rows(tmp_path, rows)
    assert (loaded.rows[1]["prompt"], loaded.rows[1]["completion"]) == ([*PAST, user("Rye?")], last)
    assert loaded.rows[0]["prompt"] == [user("Rye?")]
    assert loaded.unused_columns == ()
    assert any("`history`" in note for note in loaded.notes)


def test_earlier_rounds_before_an_instruction_are_noted_too(tmp_path: Path) -> None:
    rows = [{"instruction": "Rye?", "output": "Too.", "history": ROUNDS}] * 12
    [note] = load_rows(tmp_path, rows).notes
    assert "`history`" in note


def test_earlier_rounds_stand_after_the_system_prompt_and_before_preferences(tmp_path: Path) -> None:
    row = {"query": "Rye?", "chosen": "Too.", "rejected": "No.", "history": ROUNDS, "system": "Be kind."}
    [read, *_] = load_rows(tmp_path, [row] * 12).rows
    assert read["prompt"] == [{"role": "system", "content": "Be kind."}, *PAST, user("Rye?")]
    row = {"prompt": [{"role": "system", "content": "Be kind."}, user("Rye?")], "completion": "Too.", "history": ROUNDS}
    assert load_rows(tmp_path, [row] * 12).rows[0]["prompt"] == read["prompt"]


def test_a_history_of_something_else_is_noted_and_a_broken_round_is_a_fault(tmp_path: Path) -> None:
    row = {"question": "What ails her?", "answer": "A cold.", "history": "No allergies."}
    loaded = load_rows(tmp_path, [row] * 12)
    assert loaded.unused_columns == ("history",)
    assert any("`history`" in note for note in loaded.notes)
    rows = [{"prompt": "Rye?", "completion": "Too.", "history": ROUNDS if n != 6 else [["Hi"]]} for n in range(12)]
    with pytest.raises(DatasetError, match=r"1 fault:\n  - row 7, field `history\[0\]`"):
        load_rows(tmp_path, rows)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [user("Rye?"), says("Yes.")], "rejected_response": "No."},
        {"messages": [user("Rye?"), says("Yes.")], "rejected_messages": [user("Rye?"), says("No.")]},
        {"query": "Rye?", "response": "Yes.", "rejected_response": "No."},
        {"prompt": [user("Rye?")], "response": [says("Yes.")], "rejected_response": [says("No.")]},
    ],
)
def test_a_rejected_answer_beside_a_chat_or_a_pair_makes_a_preference(row: Row, tmp_path: Path) -> None:
    loaded = load_rows(tmp_path, [row] * 12)
    assert (loaded.kind, loaded.unused_columns) == (DataKind.PREFERENCE, ())
    plain = {"prompt": "Rye?", "chosen": "Yes.", "rejected": "No."}
    chat = {"prompt": [user("Rye?")], "chosen": [says("Yes.")], "rejected": [says("No.")]}
    assert loaded.rows[0] == (plain if "query" in row else chat)


@pytest.mark.parametrize("column", ["completion", "response", "Output", "target", "summary", "highlights"])
def test_plain_text_without_its_answers_is_refused(column: str, tmp_path: Path) -> None:
    rows = [{"text": f"Bo rowed to Ely on day {n}.", column: "A trip."} for n in range(12)]
    with pytest.raises(DatasetError, match=rf"(?i)1 fault:\n  - row 1, columns `text`, `{column}`: "):
        load_rows(tmp_path, rows)
    whole = [{"text": f"Q {n}: Ely? A: A town.", column: "A town."} for n in range(12)]
    assert load_rows(tmp_path, whole).kind is DataKind.TEXT


def test_labels_are_kto_labels_under_both_names(tmp_path: Path) -> None:
    rows = [{"prompt": f"Rye {n}?", "completion": "Yes.", "labels": n % 2 == 0} for n in range(12)]
    loaded = load_rows(tmp_path, rows)
    assert (loaded.kind, [row["label"] for row in loaded.rows[:2]]) == (DataKind.UNPAIRED, [True, False])


@pytest.mark.parametrize(
    "column", ["rating", "user_feedback", "Score", "thumbs_up", "rejected_reason", "weight", "loss"]
)
def test_a_verdict_or_weight_that_no_training_uses_is_noted(column: str, tmp_path: Path) -> None:
    rows: list[Row] = [{"prompt": f"Rye {n}?", "completion": "Yes.", column: n % 2} for n in range(12)]
    loaded = load_rows(tmp_path, rows)
    assert loaded.kind is DataKind.PAIRS
    [note] = loaded.notes
    assert f"`{column}`" in note
    for row in rows:
        row[column] = None
    assert load_rows(tmp_path, rows).notes == ()


@pytest.mark.parametrize("column", ["is_wrong", "approved", "stars", "Upvotes", "verbosity", "user_preference", "skip"])
def test_a_verdict_that_differs_among_the_rows_is_noted(column: str, tmp_path: Path) -> None:
    rows: list[Row] = [{"prompt": f"Rye {n}?", "completion": "Yes.", column: n % 2} for n in range(12)]
    [warning] = load_rows(tmp_path, rows).warnings
    assert f"`{column}`" in warning
    assert load_rows(tmp_path, [row | {column: 1} for row in rows]).warnings == ()


@pytest.mark.parametrize(
    ("column", "value"), [("chat_template_kwargs", {"thinking": True}), ("enable_thinking", False), ("thinking", True)]
)
def test_settings_for_the_chat_template_are_said_to_be_without_effect(
    column: str, value: object, tmp_path: Path
) -> None:
    [warning] = load_rows(tmp_path, [{"messages": [user("Rye?"), says("Yes.")], column: value}] * 12).warnings
    assert f"`{column}`" in warning


def test_a_column_that_may_be_a_weight_or_a_part_of_the_data_is_noted_once(tmp_path: Path) -> None:
    rows = [{"prompt": f"Rye {n}?", "completion": "Yes.", "train": n % 4 > 0} for n in range(12)]
    [warning] = load_rows(tmp_path, rows).warnings
    assert "split anew" in warning


def test_two_columns_of_chats_are_noted_if_they_differ(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Rye?"}, {"from": "gpt", "value": "Yes."}]
    row = {"messages": [{"role": "system", "content": "Be brief."}, user("Rye?"), says("Yes.")], "conversations": turns}
    assert load_rows(tmp_path, [row] * 12).warnings == ()
    other = row | {"conversations": [*turns[:1], {"from": "gpt", "value": "Yes, by the sea."}]}
    [warning] = load_rows(tmp_path, [other] * 5 + [row] * 7).warnings
    assert "5 of them" in warning
    assert "`conversations`" in warning


@pytest.mark.parametrize("column", ["response_a", "answers", "completions", "Output"])
def test_answers_beside_prompts_are_said_to_be_for_graders(column: str, tmp_path: Path) -> None:
    loaded = load_rows(tmp_path, [{"prompt": "Rye?", column: ["Yes."]}] * 12)
    assert loaded.kind is DataKind.PROMPTS
    assert any(f"`{column.lower() if column == 'Output' else column}`" in note for note in loaded.notes)


def test_chats_that_end_with_a_question_say_whose_message_is_last(tmp_path: Path) -> None:
    loaded = load_rows(tmp_path, [{"messages": [user("Rye?"), says("Yes."), user("Thanks")]}] * 12)
    assert loaded.kind is DataKind.PROMPTS
    [note] = loaded.notes
    assert "`user`" in note


def test_two_columns_of_system_prompts_are_read_row_by_row(tmp_path: Path) -> None:
    rows: list[Row] = [{"prompt": "Rye?", "completion": "Yes."} for _ in range(12)]
    for n, row in enumerate(rows):
        row["system" if n % 2 else "system_prompt"] = f"Be {n}."
    loaded = load_rows(tmp_path, rows)
    assert [row["prompt"][0]["content"] for row in loaded.rows[:3]] == ["Be 0.", "Be 1.", "Be 2."]
    rows[3]["system_prompt"] = "Be 3."
    assert load_rows(tmp_path, rows).rows == loaded.rows
    rows[3]["system_prompt"] = "Be rude."
    with pytest.raises(DatasetError, match=r"1 fault:\n  - row 4, fields `system`, `system_prompt`"):
        load_rows(tmp_path, rows)


def test_a_question_and_an_answer_beside_a_chat_are_noted(tmp_path: Path) -> None:
    row = {"messages": [user("Rye?"), says("Yes.")], "question": "Ely?", "answer": "Too."}
    [note] = load_rows(tmp_path, [row] * 12).notes
    assert "`messages`" in note
    assert "`question`, `answer`" in note
