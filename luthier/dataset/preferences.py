"""Preference pairs in TRL's columns: a prompt, a chosen answer and a rejected one."""

from __future__ import annotations

from typing import Any

from luthier.dataset import messages, sharegpt
from luthier.dataset.answers import answered
from luthier.dataset.errors import shorten, unexpected
from luthier.dataset.rows import Row, blank, fold
from luthier.dataset.tool_calls import tools
from luthier.errors import DatasetError


def preference(row: Row, asked: str, chosen: str = "chosen", rejected: str = "rejected") -> Row:
    """Return a row with its prompt and its answers in these columns. Answers that repeat the prompt as messages lose
    it."""
    if _starts_with_prompt(row[chosen]) or _starts_with_prompt(row[rejected]):
        return _stripped(row | {"chosen": row[chosen], "rejected": row[rejected]}, asked)
    return different(answered(row, asked, {"chosen": chosen, "rejected": rejected}))


def chat_preference(row: Row) -> Row:
    """ms-swift's preference: a chat that ends with the chosen answer, and the rejected one beside it."""
    *prompt, chosen = messages.conversation(sharegpt.as_messages(row["messages"], "messages"), "messages")
    if not prompt:
        raise DatasetError("field `messages`: expected a prompt before the answer, found only an answer")
    given = row["rejected_response"]
    said = [{"role": "assistant", "content": given}] if isinstance(given, str) else given
    rejected = messages.answer(sharegpt.as_messages(said, "rejected_response"), "rejected_response")
    return different({"prompt": messages.prompt(prompt, "messages"), "chosen": [chosen], "rejected": rejected})


def two_chats(row: Row) -> Row:
    """ms-swift's preference of two whole chats, of which `messages` is the chosen one."""
    return implicit_preference(row, "messages", "rejected_messages")


def implicit_preference(row: Row, chosen: str = "chosen", rejected: str = "rejected") -> Row:
    """TRL's preference format without a prompt: the messages that both answers start with are the prompt."""
    for field in (chosen, rejected):
        if not isinstance(row[field], list):
            raise unexpected(field, "a list of messages that starts with the prompt (or a `prompt` column)", row[field])
    good, bad = _conversation(row, chosen), _conversation(row, rejected)
    same = 0
    while same < min(len(good), len(bad)) and good[same] == bad[same]:
        same += 1
    if same == len(good) == len(bad):
        raise DatasetError(
            f"fields `{chosen}` and `{rejected}`: expected two different answers, found the same one twice"
        )
    if same == 0:
        raise DatasetError(
            f"fields `{chosen}` and `{rejected}`: expected the same prompt at the start of both, found none"
        )
    return {
        "prompt": messages.prompt(good[:same], "prompt"),
        "chosen": messages.answer(good[same:], chosen),
        "rejected": messages.answer(bad[same:], rejected),
    }


def openai_preference(row: Row) -> Row:
    given = row["input"]
    if not isinstance(given, dict):
        raise unexpected("input", "an object with `messages`", given)
    prompt = messages.prompt(given.get("messages"), "input.messages")
    answers = {
        "chosen": messages.answer(row["preferred_output"], "preferred_output"),
        "rejected": messages.answer(row["non_preferred_output"], "non_preferred_output"),
    }
    found = tools(given.get("tools"), "input.tools")
    return different({"prompt": prompt, **answers} | ({"tools": found} if found else {}))


def sharegpt_preference(row: Row) -> Row:
    prompt = messages.prompt(sharegpt.turns(row["conversations"], "conversations"), "conversations")
    answers = {
        field: messages.answer(
            sharegpt.turns(row[field] if isinstance(row[field], list) else [row[field]], field), field
        )
        for field in ("chosen", "rejected")
    }
    return different({"prompt": prompt, **answers})


def different(row: Row) -> Row:
    if row["chosen"] == row["rejected"]:
        raise DatasetError("fields `chosen` and `rejected`: expected two different answers, found the same one twice")
    return row


def _stripped(row: Row, asked: str) -> Row:
    """Return a row whose answers are whole conversations. Raises DatasetError if they do not start with its prompt."""
    prompt = row[asked]
    if isinstance(prompt, list):
        question = messages.prompt(prompt, asked)
        answers = {field: _after(question, row, field, asked) for field in ("chosen", "rejected")}
        return different({"prompt": question, **answers})
    if not isinstance(prompt, str) or blank(prompt):
        raise unexpected(asked, "a non-empty string or a list of messages", prompt)
    found = implicit_preference(row)
    if not any(fold(prompt) == fold(turn["content"]) for turn in found["prompt"] if turn["role"] == "user"):
        raise DatasetError(
            f"fields `chosen` and `rejected`: they start with another prompt than `{asked}`, {shorten(prompt)!r}"
        )
    return found


def _after(question: list[Row], row: Row, field: str, asked: str) -> list[Row]:
    """Return the messages of an answer after the prompt that it repeats."""
    found = _conversation(row, field) if isinstance(row[field], list) else row[field]
    if not isinstance(found, list):
        raise unexpected(field, f"a list of messages that starts with `{asked}`, as the other answer has", found)
    if found[0]["role"] != "assistant":
        if found[: len(question)] != question:
            raise DatasetError(f"field `{field}`: expected it to start with the messages of `{asked}`")
        found = found[len(question) :]
    return messages.answer(found, field)


def _conversation(row: Row, field: str) -> list[Row]:
    return messages.messages(sharegpt.as_messages(row[field], field), field)


def _starts_with_prompt(value: Any) -> bool:
    """Return whether an answer is a conversation that starts with another message than the assistant's."""
    first = value[0] if isinstance(value, list) and value else None
    if not isinstance(first, dict):
        return False
    speaker = first.get("role") or sharegpt.ROLES.get(str(first.get("from")))
    return speaker in ("system", "developer", "user")
