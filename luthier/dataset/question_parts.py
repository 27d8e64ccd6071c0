"""What a file has beside a question: the passage that it is about, and the choices for its answer.

A prompt without them could not be answered. So they are put into it where this is sure, and noted where it is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import ascii_uppercase
from typing import Any, Final

from luthier.dataset.choice_columns import choice_columns
from luthier.dataset.errors import columns, unexpected
from luthier.dataset.json_rows import parse
from luthier.dataset.rows import Row

CONTEXT: Final = "context"
PASSAGES: Final = (
    CONTEXT,
    "contexts",
    "passage",
    "passages",
    "article",
    "paragraph",
    "document",
    "documents",
    "story",
    "dialogue",
    "background",
    "table",
    "text",
)
CHOICES: Final = ("choices", "options")
_NOTED: Final = {*PASSAGES, *CHOICES, "input"} - {"text"}  # in any case; `text` may be a whole example
_LETTERS: Final = ("A", "B", "C", "D")
_QUESTIONS: Final = ("question", "query")
INPUTS: Final = ("inputs", "question", "query", "text", "sentence")  # of an instruction, where `input` is empty
_LABELS: Final = ("label", "key", "letter", "id")
_VALUES: Final = ("text", "value", "content", "option")
_LETTERED: Final = re.compile(r"\(?([A-Z])[).:]")

Part = list[tuple[str, str]]  # the lines of a passage or of choices, each with its letter or an empty string


def columns_beside(rows: Sequence[Row], asked: str, answer: str) -> tuple[str, ...]:
    """Return the columns that are put into the prompt: at most one passage, one of choices, and one input.

    `asked` and `answer` are the columns of the question and of its answer. `context` goes with every question; the
    other columns only with `question` and `query`, because a `prompt` or an `instruction` may contain them in other
    words. An instruction without an `input` has what the file calls otherwise. A column is put into the prompt if it
    can be in at least half of the rows that have it, and does not contain the question, as a rendered example does.
    """
    passages = PASSAGES if asked in _QUESTIONS else (CONTEXT,)
    choices = CHOICES if asked in _QUESTIONS else ()
    inputs = INPUTS if asked == "instruction" and all(_empty(row.get("input")) for row in rows) else ()
    every = (*passages, *choices, *inputs)
    given = {column: [row for row in rows if not _empty(row.get(column))] for column in every}

    def readable(column: str) -> bool:
        fit = sum(
            isinstance(row.get(asked), str)
            and bool(part(column, row[column]))
            and not _numbered(row, column, answer)
            and not (column == "text" and row[asked].strip() in str(row[column]))
            for row in given[column]
        )
        return bool(fit) and 2 * fit >= len(given[column])

    found = (next(filter(readable, names), None) for names in (passages, choices, inputs))
    return tuple(column for column in found if column is not None)


def with_parts(row: Row, asked: str, beside: Sequence[str]) -> Row:
    """Return the row with a passage before its question, or after an instruction, and choices after it.

    What the prompt has already is not repeated. Raises DatasetError for a passage or choices of another shape.
    """
    prompt = row.get(asked)
    if not isinstance(prompt, str):
        return row
    for column in beside:
        lines = [] if _empty(row.get(column)) else part(column, row[column])
        if lines is None:
            expected = (
                "choices as strings, with letters or without" if column in CHOICES else "a string or a list of them"
            )
            raise unexpected(column, f"{expected} as in most rows", row[column])
        if not all(text in prompt for _, text in lines):
            text = "\n".join(f"{letter}. {line}" if letter else line for letter, line in lines)
            after = column in CHOICES or asked == "instruction"
            prompt = f"{prompt}\n\n{text}" if after else f"{text}\n\n{prompt}"
    return row | {asked: prompt}


def part(column: str, value: Any) -> Part | None:
    """Return the lines of a passage or of choices; None for a value of another shape.

    Passages are strings, or lists of them. Choices are strings, lists of them, or objects of letters and texts.
    """
    match value:
        case str() if column in CHOICES and value.lstrip()[:1] in ("[", "{") and (parsed := _parsed(value)):
            return part(column, parsed)
        case str():
            return [("", value)]
        case list() if column in PASSAGES:
            return [("", text) for text in value] if all(isinstance(text, str) for text in value) else None
        case list() if all(isinstance(item, dict) for item in value):
            return _lettered(
                [_first(item, _LABELS) for item in value],
                [_first(item, _VALUES) for item in value],
            )
        case list():
            plain = all(isinstance(text, str) and _LETTERED.match(text) for text in value)
            return _lettered([""] * len(value) if plain else list(ascii_uppercase[: len(value)]), value)
        case {"label": list(labels), "text": list(texts)} if column in CHOICES:
            return _lettered(labels, texts)
        case dict() if column in CHOICES:
            return _lettered(list(value), list(value.values()))
        case _:
            return None


def missing(raw: Sequence[Row], normal: Sequence[Row], unused: Sequence[str]) -> tuple[str, ...]:
    """Return a note that names unused columns which may belong to the prompt, and are not in it."""
    choices = choice_columns(raw, normal, unused)
    absent = [
        column
        for column in unused
        if (column in _LETTERS or column in choices or column.strip().lower() in _NOTED)
        and any(
            not all(text in _prompt(read) for text in texts(row.get(column)))
            for row, read in zip(raw, normal, strict=True)
        )
    ]
    if set(choices) & set(absent):
        absent = [column for column in unused if column in absent or column in choices]
    if not absent:
        return ()
    return (
        f"The prompts do not contain what is in {columns(absent)}. If it belongs to the question, put it into the "
        "prompt, or give it as a string in the column `context`.",
    )


def placed(asked: str, beside: Sequence[str]) -> tuple[str, ...]:
    """Return sentences that say which columns were put into the prompt."""
    return tuple(
        f"The column `{column}` is put {'after' if column in CHOICES or asked == 'instruction' else 'before'} the text "
        f"of `{asked}` in the prompt."
        for column in beside
    )


def _lettered(letters: Sequence[Any], texts: Sequence[Any]) -> Part | None:
    """Return choices with their letters; None if there are other things among them, or too many."""
    if len(letters) != len(texts) or not all(isinstance(letter, str) and len(letter) < 4 for letter in letters):
        return None
    if not all(isinstance(text, str | int | float) and not isinstance(text, bool) for text in texts):
        return None
    return [(letter, str(text)) for letter, text in zip(letters, texts, strict=True)]


def _numbered(row: Row, column: str, answer: str) -> bool:
    """Return whether the answer is the number of one of the choices, which letters would not match."""
    value, said = row[column], row.get(answer)
    if column not in CHOICES or not isinstance(value, list) or not isinstance(said, str):
        return False
    if any(isinstance(choice, dict) for choice in value):
        return False  # they have labels of their own
    return said.strip().isdigit() and said.strip() not in map(str, value)


def _parsed(text: str) -> list[Any] | Row | None:
    """Return the list or the object that a text is the JSON of, as in a cell of CSV; None for any other text."""
    try:
        value = parse(text)
    except ValueError:
        return None
    return value if isinstance(value, list | dict) else None


def _first(item: Row, names: Sequence[str]) -> Any:
    return next((item[name] for name in names if name in item), None)


def _empty(value: Any) -> bool:
    return value is None or value in ([], {}) or (isinstance(value, str) and not value.strip())


def texts(value: Any) -> Iterator[str]:
    """Yield the strings that a value contains, at any depth."""
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from texts(item)
        case dict():
            for item in value.values():
                yield from texts(item)
        case int() | float() if not isinstance(value, bool):
            yield str(value)
        case _:
            pass  # null, true and false say nothing of a question


def _prompt(row: Row) -> str:
    prompt = row["prompt"]
    return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
