"""Chat messages: validated, and normalised to the shape that chat templates expect.

A message has a `role` and a string `content`. An assistant message may have `tool_calls` in OpenAI's shape, with the
arguments as an object (templates write them as JSON), and a `weight` of 0 or 1. Unknown keys are kept, because a
template may use them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from luthier.dataset.errors import unexpected
from luthier.dataset.json_rows import parse
from luthier.dataset.rows import Row
from luthier.errors import DatasetError

Message = Mapping[str, Any]

ROLES: Final = ("system", "developer", "user", "assistant", "tool")


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
    if all(message.get("weight") == 0 for message in answers):
        raise DatasetError(f"field `{field}`: every assistant message has weight 0, so there is nothing to learn")
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
    return found


def messages(value: Any, field: str) -> list[Row]:
    if not isinstance(value, list) or not value:
        raise unexpected(field, "a list of messages", value)
    return [_message(item, f"{field}[{index}]") for index, item in enumerate(value)]


def tools(value: Any, field: str) -> list[Row]:
    """Return function definitions in OpenAI's shape, from that shape, bare definitions, or JSON text of either."""
    if isinstance(value, str) and value.strip():
        value = parsed(value, field, "a list of tools, or its JSON text")
    if value is None or value in ("", []):
        return []
    if not isinstance(value, list):
        raise unexpected(field, "a list of tools", value)
    return [_function(tool, f"{field}[{index}]") for index, tool in enumerate(value)]


def tool_call(value: Any, field: str) -> Row:
    """Return one call in OpenAI's shape, from that shape or a bare `{name, arguments}`."""
    call = _function(value, field)
    function = call["function"]
    arguments = function.get("arguments", {})
    name = f"{field}.function.arguments"
    if isinstance(arguments, str):
        arguments = parsed(arguments, name, "an object, or its JSON text")
    if not isinstance(arguments, dict):
        raise unexpected(name, "an object, or its JSON text", arguments)
    return {**call, "function": {**function, "arguments": arguments}}


def parsed(text: str, field: str, expected: str) -> Any:
    """Parse a value that the row contains as JSON text."""
    try:
        return parse(text)
    except ValueError as error:
        raise unexpected(field, expected, text) from error


def _message(value: Any, field: str) -> Row:
    if not isinstance(value, dict):
        raise unexpected(field, "an object with `role` and `content`", value)
    rest = {key: item for key, item in value.items() if item is not None}
    role = rest.pop("role", None)
    if role not in ROLES:
        raise unexpected(f"{field}.role", f"one of {', '.join(ROLES)}", role)
    if "function_call" in rest:
        raise DatasetError(f"field `{field}.function_call`: this old format is not supported; use `tool_calls`")
    if (rest.get("tool_calls") or "weight" in rest) and role != "assistant":
        raise DatasetError(f"field `{field}`: only an assistant message can have `tool_calls` or a `weight`")
    calls = _tool_calls(rest.pop("tool_calls", []), f"{field}.tool_calls")
    content = _content(rest.pop("content", "" if calls else None), f"{field}.content")
    if role == "assistant" and not calls and not content.strip():
        raise unexpected(f"{field}.content", "a non-empty answer", content)
    if "weight" in rest:
        rest["weight"] = _weight(rest["weight"], f"{field}.weight")
    return {"role": role, "content": content, **({"tool_calls": calls} if calls else {}), **rest}


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
    text = part.get("text")
    if not isinstance(text, str):
        raise unexpected(f"{field}.text", "a string", text)
    return text


def _weight(value: Any, field: str) -> int:
    if isinstance(value, bool) or value not in (0, 1):
        raise unexpected(field, "0 or 1", value)
    return int(value)


def _tool_calls(value: Any, field: str) -> list[Row]:
    if not isinstance(value, list):
        raise unexpected(field, "a list of tool calls", value)
    return [tool_call(call, f"{field}[{index}]") for index, call in enumerate(value)]


def _function(value: Any, field: str) -> Row:
    """Wrap a bare `{name, …}` as `{type: function, function: {name, …}}`; the name is required."""
    if not isinstance(value, dict):
        raise unexpected(field, "an object", value)
    wrapped = value if "function" in value else {"type": "function", "function": value}
    function = wrapped["function"]
    if not isinstance(function, dict):
        raise unexpected(f"{field}.function", "an object", function)
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise unexpected(f"{field}.function.name", "the name of a function", function.get("name"))
    return {"type": "function", **wrapped}


def _wrong_end(field: str, expected: str, found: list[Row]) -> DatasetError:
    return DatasetError(f"field `{field}`: expected {expected}, found the role `{found[-1]['role']}` last")
