"""Prompts and answers in one shape: all of a row are strings, or all are messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from luthier.dataset import messages, sharegpt
from luthier.dataset.errors import unexpected
from luthier.dataset.json_rows import parse
from luthier.dataset.rows import Row, blank
from luthier.errors import DatasetError

_PYTHON: Final = re.compile(  # str() of a list of messages, or of one message
    r"\s*\[?\s*\{\s*'(?:role|from|content|value)'\s*:.*\}\s*\]?\s*", re.DOTALL
)
_PYTHON_SPEAKER: Final = re.compile(r"'(?:role|from)'\s*:\s*'(?:system|user|human|assistant|gpt|tool)'")
_SPEAKERS: Final = {"prompt": "user", "completion": "assistant", "chosen": "assistant", "rejected": "assistant"}


def answered(row: Row, asked: str, answers: Mapping[str, str]) -> Row:
    """Return the prompt in the column `asked`, and answers, as strings if all of them are strings, else as messages.

    `answers`: the column of each answer, by its name in TRL.
    """
    columns = {"prompt": asked, **answers}
    if not any(isinstance(row[column], list) for column in columns.values()):
        return {name: string(row, column) for name, column in columns.items()}
    prompt, given = row[asked], dict[str, list[Row]]()
    said = [{"role": "user", "content": string(row, asked)}] if isinstance(prompt, str) else prompt
    given["prompt"] = messages.prompt(sharegpt.as_messages(said, asked), asked)
    for name, column in answers.items():
        value = row[column]
        said = [{"role": "assistant", "content": string(row, column)}] if isinstance(value, str) else value
        given[name] = messages.answer(sharegpt.as_messages(said, column), column)
    return given


def check_json(row: Row, fields: Iterable[str]) -> None:
    """Raise DatasetError for messages as Python prints them, which would be read as plain text."""
    for field in fields:
        value = row.get(field)
        if isinstance(value, str) and _PYTHON.fullmatch(value) and _PYTHON_SPEAKER.search(value):
            raise unexpected(field, "messages as JSON, with double quotes (json.dumps, not str, writes them)", value)


def as_chat(row: Row) -> Row:
    """Return a normalised row with its strings as messages."""
    return row | {
        column: [{"role": speaker, "content": row[column]}]
        for column, speaker in _SPEAKERS.items()
        if isinstance(row.get(column), str)
    }


def with_history(row: Row, history: list[Row]) -> Row:
    """Return a normalised row with messages before its prompt, but after the prompt's system message."""
    if not history:
        return row
    chat = as_chat(row)
    prompt = chat["prompt"]
    start = next((place for place, turn in enumerate(prompt) if turn["role"] not in ("system", "developer")), 0)
    return chat | {"prompt": [*prompt[:start], *history, *prompt[start:]]}


def with_system(row: Row, text: str) -> Row:
    """Return a normalised row with a system message. Raises DatasetError if it starts with another one."""
    if not text:
        return row
    column = "messages" if "messages" in row else "prompt"
    chat = as_chat(row)
    first = chat[column][0]
    if first["role"] not in ("system", "developer"):
        return chat | {column: [{"role": "system", "content": text}, *chat[column]]}
    if first["content"].strip() != text.strip():
        raise DatasetError(
            f"field `system`: expected only one system prompt, but `{column}` starts with a {first['role']} message too"
        )
    return chat


def history(value: Any) -> list[Row]:
    """Return earlier rounds as messages, from `[[question, answer], …]`, from messages, or from JSON text of either.

    Raises DatasetError for anything else, and for messages that do not end with an answer.
    """
    rounds = _in_text(value) or []
    if not isinstance(rounds, list):
        raise unexpected("history", "a list of [question, answer]", rounds)
    if any(isinstance(said, dict) for said in rounds):
        return messages.rounds(sharegpt.as_messages(rounds, "history"), "history")
    found: list[Row] = []
    for index, pair in enumerate(rounds):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(said, str) for said in pair):
            raise unexpected(f"history[{index}]", "[question, answer], both strings", pair)
        found += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return found


def has_rounds(value: Any) -> bool:
    """Return whether a value can be read as earlier rounds."""
    try:
        return bool(history(value))
    except DatasetError:
        return False


def _in_text(value: Any) -> Any:
    """Return the list that a text is the JSON of, as in a cell of CSV; any other value unchanged."""
    if not isinstance(value, str) or not value.strip().startswith("["):
        return value.strip() if isinstance(value, str) else value
    try:
        return parse(value)
    except ValueError:
        return value


def string(row: Row, field: str) -> str:
    value = row[field]
    if not isinstance(value, str) or blank(value):
        raise unexpected(field, "a non-empty string", value)
    return value


def optional_string(row: Row, field: str) -> str:
    value = row.get(field)
    if value is not None and not isinstance(value, str):
        raise unexpected(field, "a string or nothing", value)
    return value or ""


def joined(row: Row, field: str) -> str:
    """Return a string, or a list of strings as its lines; empty for nothing."""
    value = row.get(field)
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if value is not None and not isinstance(value, str):
        raise unexpected(field, "a string, a list of strings, or nothing", value)
    return value or ""
