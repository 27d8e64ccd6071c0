"""Recognise files whose rows are single messages, or trees of replies, instead of whole conversations.

The exports of OpenAssistant, ChatGPT, Slack and Telegram are such files. Read as plain text, they would train on
messages out of their conversation. So they are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from luthier.dataset.errors import columns
from luthier.dataset.rows import Row

_WHOLE: Final = ("messages", "conversations", "completion", "response", "answer", "output", "chosen")  # conversations
_TEXTS: Final = ("text", "content", "body", "message", "value")
_PARENTS: Final = ("parent_id", "parent_message_id", "parent", "reply_to", "reply_to_message_id", "thread_ts")
_REPLIES: Final = ("replies", "children")
_CONVERSATIONS: Final = tuple(
    f"{name}{end}"
    for name in ("conversation", "conv", "dialog", "dialogue", "session", "thread", "chat")
    for end in ("_id", "id", "")
)
_TURNS: Final = (
    *("turn", "turn_id", "turn_index", "turn_number", "turn_no", "turn_idx", "utterance_id", "utterance_idx"),
    *("message_index", "message_no", "msg_id"),
)
_SPEAKERS: Final = ("role", "from", "speaker", "author", "sender")
_ASKING: Final = frozenset({"prompter", "user", "human"})
_ANSWERING: Final = frozenset({"assistant", "gpt", "bot", "chatbot", "model"})
_PEOPLE: Final = ("user", "user_id", "user_name", "username", "name", "bot_id", "from_id", "author_id", *_SPEAKERS)
_STAMPS: Final = re.compile(r"\d{9,}\.\d+")  # Slack's `ts`: seconds, which name the message too
_OTHERS: Final = frozenset({"system", "developer", "tool"})
_CONVERT: Final = (
    'Write each conversation as one row, {"messages": [{"role": "user", "content": …}, {"role": "assistant", '
    '"content": …}]}, that ends with the answer to learn.'
)


def fault(rows: Sequence[Row]) -> str | None:
    """Return what is wrong with the rows if at least half of them are single messages, or trees of them; else None."""
    parts = [row for row in rows if all(row.get(column) is None for column in _WHOLE)]
    if 2 * len(parts) < len(rows):
        return None
    if 2 * sum(map(_is_tree, parts)) >= len(rows):
        return f"columns {columns(rows[0])}: each row is a tree of messages with several replies. {_CONVERT}"
    said = [row for row in parts if _is_message(row)]
    speakers = {speaker for row in said if (speaker := _speaker(row)) is not None}
    replies = any(row.get(column) is not None for row in said for column in _PARENTS)
    posted = [row for row in parts if _is_posted(row)]
    turns = _turns(parts)
    if 2 * len(posted) >= len(rows):
        said = posted
    elif 2 * len(turns) >= len(rows):
        said = turns
    elif 2 * len(said) < len(rows) or not (replies or (speakers & _ASKING and speakers & _ANSWERING)):
        return None
    more = (*_CONVERSATIONS, *_TURNS) if said is turns else ("type", "ts") if posted else ()
    marks = dict.fromkeys((*_PARENTS, *_PEOPLE, *more))
    beside = [column for column in marks if any(column in row for row in said)]
    return (
        f"columns {columns(rows[0])}: each row is one message of a conversation. {_CONVERT} To train on each text "
        f"alone, leave out {columns(beside)}."
    )


def note(unused: Sequence[str]) -> tuple[str, ...]:
    """Return a note on texts that name their parent, and so may be replies to one another; nothing if none does."""
    parents = [column for column in _PARENTS if column in unused]
    if not parents:
        return ()
    return (f"Each text is trained on alone, whatever {columns(parents)} says. If they are replies: {_CONVERT}",)


def rounds(rows: Sequence[Row], unused: Sequence[str]) -> tuple[str, ...]:
    """Return a note on pairs that seem to be rounds of conversations: they name one that several of them have, or their
    parent; nothing on any others."""
    names = {column.strip().lower(): column for column in unused}
    found = [names[name] for name in _PARENTS if name in names and any(row.get(names[name]) for row in rows)]
    if not found:
        found = [names[name] for name in _CONVERSATIONS if name in names and _repeats(rows, names[name])]
    if not found:
        return ()
    return (
        f"Each pair is trained on alone, whatever {columns(found)} says. If they are rounds of a conversation, give "
        "the earlier ones of each in the column `history`, as `[[question, answer], …]`, or write chats.",
    )


def _turns(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that are turns of a conversation: they name it, as others do, and their speaker or place."""
    named = [column for column in _CONVERSATIONS if _repeats(rows, column)]
    return [
        row
        for row in rows
        if any(isinstance(row.get(column), str) for column in _TEXTS)
        and any(row.get(column) is not None for column in named)
        and any(row.get(column) is not None for column in (*_TURNS, *_SPEAKERS))
    ]


def _repeats(rows: Sequence[Row], column: str) -> bool:
    """Return whether a column has names, most of which several rows have."""
    given = [str(row[column]) for row in rows if isinstance(row.get(column), str | int)]
    return len(given) > 1 and 2 * len(set(given)) <= len(given) and len(set(given)) > 1


def _is_tree(row: Row) -> bool:
    """Return whether a row is, or has as its prompt, a message with replies; or ChatGPT's map of messages."""
    if _has_replies(row) or _has_replies(row.get("prompt")):
        return True
    mapped = row.get("mapping")
    return isinstance(mapped, dict) and any(isinstance(node, dict) and "message" in node for node in mapped.values())


def _has_replies(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and any(isinstance(value.get(column), str) for column in _TEXTS)
        and any(isinstance(value.get(column), list) for column in _REPLIES)
    )


def _is_message(row: Row) -> bool:
    if not any(isinstance(row.get(column), str) for column in _TEXTS):
        return False
    return _speaker(row) is not None or ("message_id" in row and any(column in row for column in _PARENTS))


def _is_posted(row: Row) -> bool:
    """Return whether a row is a message that somebody wrote in a chat program, such as Slack or Telegram."""
    if not any(isinstance(row.get(column), str) for column in _TEXTS):
        return False
    if all(row.get(column) in (None, "") for column in _PEOPLE):
        return False
    return row.get("type") == "message" or (
        isinstance(stamp := row.get("ts"), str) and _STAMPS.fullmatch(stamp) is not None
    )


def _speaker(row: Row) -> str | None:
    """Return who says a message, in lower case; None for anything but the usual names."""
    for column in _SPEAKERS:
        value = row.get(column)
        name = value.strip().lower() if isinstance(value, str) else ""
        if name in _ASKING or name in _ANSWERING or name in _OTHERS:
            return name
    return None
