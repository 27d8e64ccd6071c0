"""Chat messages: validated, and normalised to the shape that chat templates expect.

A message has a `role` and a string `content`. An assistant message may have `tool_calls` in OpenAI's shape, with the
arguments as an object (templates write them as JSON), a `weight` of 0 or 1, and its reasoning. Templates read the
reasoning as `reasoning_content`, so this key is set too where the message calls it `reasoning` or `thinking`, or
instead of `thoughts`. What other programs call a message that is not trained on becomes a weight of 0. Unknown keys are
kept, because a template may use them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from luthier.dataset import media
from luthier.dataset.errors import columns, unexpected
from luthier.dataset.message_flags import flagged, weighted
from luthier.dataset.rows import Row, blank
from luthier.dataset.tool_calls import calls_of, modern
from luthier.dataset.tool_results import ordered_results
from luthier.errors import DatasetError

Message = Mapping[str, Any]

MOST: Final = 1_000  # messages of a chat: templates render all of them for each turn, so longer ones would take hours
ROLES: Final = ("system", "developer", "user", "assistant", "tool")
_SPEAKING: Final = {"user": "question", "assistant": "answer"}  # roles whose messages are not empty
_REASONING: Final = ("reasoning_content", "reasoning", "thinking")
_THOUGHTS: Final = ("thoughts", "thought", "think")  # which no template reads


def as_messages(content: str | Sequence[Message], role: str) -> list[Message]:
    """Return a prompt or an answer as messages; a string becomes one message with this role."""
    return [{"role": role, "content": content}] if isinstance(content, str) else list(content)


def conversation(value: Any, field: str) -> list[Row]:
    """Validate a whole chat: it ends with an assistant message, and at least one of them is trained on."""
    found = messages(value, field)
    answers = [message for message in found if message["role"] == "assistant"]
    if not answers:
        raise DatasetError(f"field `{field}`: the chat has no assistant message to learn from")
    if found[-1]["role"] != "assistant":
        raise _wrong_end(field, "an assistant message at the end", found)
    _check_weights(found, field)
    return found


def prompt(value: Any, field: str) -> list[Row]:
    """Validate the messages before an answer."""
    found = messages(value, field)
    if found[-1]["role"] == "assistant":
        raise _wrong_end(field, "a prompt that ends before the assistant's answer", found)
    return found


def answer(value: Any, field: str) -> list[Row]:
    """Validate an answer: assistant messages, with tool results in between."""
    found = messages(value, field)
    if found[0]["role"] != "assistant":
        raise unexpected(f"{field}[0].role", "`assistant`, because the prompt is in another field", found[0]["role"])
    if found[-1]["role"] != "assistant":
        raise _wrong_end(field, "an assistant message at the end", found)
    _check_weights(found, field)
    return found


def rounds(value: Any, field: str) -> list[Row]:
    """Validate earlier messages of a chat: they end with an assistant message."""
    found = messages(value, field)
    if found[-1]["role"] != "assistant":
        raise _wrong_end(field, "an assistant message at the end", found)
    return found


def messages(value: Any, field: str) -> list[Row]:
    """Validate messages one by one, and put the results of tools in the order of their calls."""
    if not isinstance(value, list) or not value:
        raise unexpected(field, "a list of messages, or its JSON text", value)
    if len(value) > MOST:
        raise unexpected(field, f"at most {MOST:,} messages (divide longer chats)", value)
    found = [item if _is_plain(item) else _message(item, f"{field}[{index}]") for index, item in enumerate(value)]
    return ordered_results(found, field)


def _is_plain(value: Any) -> bool:
    """Return whether a value is a message as it should be, and has nothing but a role and a text: most are so."""
    if not isinstance(value, dict) or list(value) != ["role", "content"]:
        return False
    role, content = value["role"], value["content"]
    return role in ROLES and isinstance(content, str) and (role not in _SPEAKING or not blank(content))


def _message(value: Any, field: str) -> Row:
    if not isinstance(value, dict):
        raise unexpected(field, "an object with `role` and `content`", value)
    rest = modern({key: item for key, item in value.items() if item is not None}, field)
    media.check(rest, field)
    role = rest.pop("role", None)
    if role not in ROLES:
        raise unexpected(f"{field}.role", f"one of {', '.join(ROLES)}", role)
    on = [] if role == "assistant" else flagged(rest, field, trained=True)
    on = [name for name in on if rest[name] or name == "masked"]  # `skip: false` is rather said of all messages
    if on:
        raise DatasetError(f"field `{field}.{on[0]}`: only the messages of an assistant are trained on")
    rest = weighted(rest, field)
    if role != "assistant" and rest.get("weight") in (0, False):
        del rest["weight"]  # it is never trained on anyway
    if (rest.get("tool_calls") or "weight" in rest) and role != "assistant":
        raise DatasetError(f"field `{field}`: only an assistant message can have `tool_calls` or a `weight`")
    calls = calls_of(rest.pop("tool_calls", []), f"{field}.tool_calls")
    content = _content(rest.pop("content", "" if calls else None), f"{field}.content")
    if role in _SPEAKING and not calls and blank(content):
        raise unexpected(f"{field}.content", f"a non-empty {_SPEAKING[role]}", content)
    if "weight" in rest:
        if isinstance(rest["weight"], bool) or rest["weight"] not in (0, 1):
            raise unexpected(f"{field}.weight", "0 or 1", rest["weight"])
        rest["weight"] = int(rest["weight"])
    if role == "assistant":
        rest |= _reasoning(rest, field)
        rest = {name: item for name, item in rest.items() if name not in _THOUGHTS or not isinstance(item, str)}
    return {"role": role, "content": content, **({"tool_calls": calls} if calls else {}), **rest}


def _reasoning(message: Row, field: str) -> Row:
    """Return the reasoning of an assistant message under the name that most templates read; nothing without any.

    Raises DatasetError for one that is no text, and for two that differ.
    """
    given = {name: message[name] for name in (*_REASONING, *_THOUGHTS) if name in message}
    for name in ("reasoning_content", "reasoning"):
        if name in given and not isinstance(given[name], str):
            raise unexpected(f"{field}.{name}", "a string", given[name])
    texts = {name: text for name, text in given.items() if isinstance(text, str)}
    if len({text.strip() for text in texts.values()}) > 1:
        raise DatasetError(f"field `{field}`: expected one reasoning, found {columns(texts)}, which differ")
    return {"reasoning_content": next(iter(texts.values()))} if texts else {}


def _check_weights(found: list[Row], field: str) -> None:
    if all(message.get("weight") == 0 for message in found if message["role"] == "assistant"):
        raise DatasetError(f"field `{field}`: every assistant message has weight 0, so there is nothing to learn")


def _content(value: Any, field: str) -> str:
    """Return a string, or OpenAI's list of text parts joined to one."""
    if isinstance(value, list) and value:
        return "".join(_text_part(part, f"{field}[{index}]") for index, part in enumerate(value))
    if not isinstance(value, str):
        raise unexpected(field, "a string", value)
    return value


def _text_part(part: Any, field: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise unexpected(field, "a part of type `text` (images and audio are not supported)", part)
    media.check(part, field)
    text = part.get("text")
    if not isinstance(text, str):
        raise unexpected(f"{field}.text", "a string", text)
    if weighted(part, field).get("weight", 1) != 1:
        raise DatasetError(f"field `{field}`: only a whole message can be left out of training, not a part of it")
    return text


def _wrong_end(field: str, expected: str, found: list[Row]) -> DatasetError:
    return DatasetError(f"field `{field}`: expected {expected}, found the role `{found[-1]['role']}` last")
