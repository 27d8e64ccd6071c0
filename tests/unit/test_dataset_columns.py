"""What becomes of columns beside a question and an answer: passages and choices."""

from pathlib import Path

import pytest

from luthier.errors import DatasetError
from luthier.task import DataKind
from tests.uploads import Row, load_rows

PAIR = {"prompt": "Name a town.", "completion": "Ely"}
ASKED = {"question": "Who rows?", "answer": "B"}


@pytest.mark.parametrize(
    ("beside", "prompt"),
    [
        ({"context": ["Ann sat.", "Bo rowed."]}, "Ann sat.\nBo rowed.\n\nWho rows?"),
        ({"passages": ["Bo rowed."]}, "Bo rowed.\n\nWho rows?"),
        ({"article": "Bo rowed."}, "Bo rowed.\n\nWho rows?"),
        ({"choices": ["Ann", "Bo"]}, "Who rows?\n\nA. Ann\nB. Bo"),
        ({"options": {"A": "Ann", "B": "Bo"}}, "Who rows?\n\nA. Ann\nB. Bo"),
        ({"choices": {"label": ["1", "2"], "text": ["Ann", "Bo"]}}, "Who rows?\n\n1. Ann\n2. Bo"),
        ({"options": [{"key": "A", "value": "Ann"}, {"key": "B", "value": 7}]}, "Who rows?\n\nA. Ann\nB. 7"),
        ({"options": ["A) Ann", "B) Bo"]}, "Who rows?\n\nA) Ann\nB) Bo"),
        ({"options": "(A) Ann (B) Bo"}, "Who rows?\n\n(A) Ann (B) Bo"),
        ({"options": "[Ann] or [Bo]"}, "Who rows?\n\n[Ann] or [Bo]"),
        ({"choices": '["Ann", "Bo"]'}, "Who rows?\n\nA. Ann\nB. Bo"),
        ({"passage": "Bo rowed.", "options": ["Ann", "Bo"]}, "Bo rowed.\n\nWho rows?\n\nA. Ann\nB. Bo"),
        ({"question": "A. Ann or B. Bo?", "choices": ["Ann", "Bo"]}, "A. Ann or B. Bo?"),
    ],
)
def test_passages_and_choices_are_put_into_the_prompt_of_a_question(beside: Row, prompt: str, tmp_path: Path) -> None:
    loaded = load_rows(tmp_path, [ASKED | beside] * 12)
    assert (loaded.format, loaded.rows[0]["prompt"], loaded.unused_columns) == ("question_answer", prompt, ())
    columns = [column for column in beside if column != "question"]
    assert [f"`{column}`" in note for column, note in zip(columns, loaded.notes, strict=True)] == [True] * len(columns)
    assert all(column in loaded.rows[0] for column in columns if column != "context")
    again = load_rows(tmp_path, loaded.rows)
    assert [row["prompt"] for row in again.rows] == [prompt] * 12


def test_a_list_is_the_input_of_an_instruction_and_its_context(tmp_path: Path) -> None:
    rows = [{"instruction": "Sum.", "input": ["1", "2"], "output": "3"}] * 12
    assert load_rows(tmp_path, rows).rows[0]["prompt"] == "Sum.\n\n1\n2"
    rows = [{"instruction": "Sum.", "context": ["1", "2"], "response": "3"}] * 12
    assert load_rows(tmp_path, rows).rows[0]["prompt"] == "Sum.\n\n1\n2"
    with pytest.raises(DatasetError, match=r"12 faults:\n  - row 1, field `input`"):
        load_rows(tmp_path, [{"instruction": "Sum.", "input": [1, 2], "output": "3"}] * 12)


@pytest.mark.parametrize(
    "row",
    [
        ASKED | {"context": {"title": ["Oars"], "sentences": [["Bo rowed."]]}},
        ASKED | {"context": [["Oars", ["Bo rowed."]]]},
        ASKED | {"choices": ["Ann", "Bo"], "answer": "1"},
        ASKED | {"options": [["Ann"], ["Bo"]]},
        ASKED | {"options": [f"choice {n}" for n in range(27)]},
        ASKED | {"input": "Bo rowed."},
        ASKED | {"A": "Ann", "B": "Bo"},
        PAIR | {"article": "Ely is a town."},
        PAIR | {"Choices": ["Ely", "Rye"]},
        PAIR | {"prompt": [{"role": "user", "content": "Who?"}], "context": "Bo rowed."},
        {"prompt": "Who rows?", "context": "Bo rowed."},
        {"prompt": "Who rows?", "chosen": "Bo", "rejected": "Ann", "document": "Bo rowed."},
    ],
)
def test_what_may_belong_to_a_prompt_and_is_not_in_it_is_noted(row: Row, tmp_path: Path) -> None:
    loaded = load_rows(tmp_path, [row] * 12)
    assert loaded.unused_columns
    [note] = [note for note in loaded.notes if "prompts do not contain" in note]
    assert all(f"`{column}`" in note for column in loaded.unused_columns)


@pytest.mark.parametrize(
    "row",
    [
        PAIR | {"prompt": "Ely or Rye?", "options": ["Ely", "Rye"]},
        PAIR | {"article": None, "choices": []},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "context": "Site 4"},
    ],
)
def test_what_is_in_the_prompt_or_empty_needs_no_note(row: Row, tmp_path: Path) -> None:
    assert load_rows(tmp_path, [row] * 12).notes == ()


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("context", "Bo rowed.", {"text": "Bo rowed."}),
        ("context", ["Bo", "rowed."], [["Bo"]]),
        ("options", {"A": "Ann"}, {"A": None}),
    ],
)
def test_passages_and_choices_of_another_shape_than_most_are_faults(
    column: str, good: object, bad: object, tmp_path: Path
) -> None:
    rows = [ASKED | {column: good if n != 4 else bad} for n in range(12)]
    with pytest.raises(DatasetError, match=rf"1 fault:\n  - row 5, field `{column}`"):
        load_rows(tmp_path, rows)


def test_a_question_beside_a_text_is_asked_about_it_and_one_inside_of_it_is_noted(tmp_path: Path) -> None:
    loaded = load_rows(tmp_path, [ASKED | {"text": "Bo rowed."}] * 12)
    assert (loaded.kind, loaded.rows[0]["prompt"]) == (DataKind.PAIRS, f"Bo rowed.\n\n{ASKED['question']}")
    loaded = load_rows(tmp_path, [ASKED | {"text": f"Q: {ASKED['question']} A: {ASKED['answer']}"}] * 12)
    assert loaded.kind is DataKind.TEXT
    [note] = loaded.notes
    assert "`question`, `answer`" in note
