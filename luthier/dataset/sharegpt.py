"""ShareGPT's turns, `{from, value}`, as messages."""

from __future__ import annotations

from typing import Any, Final

from luthier.dataset.errors import unexpected
from luthier.dataset.rows import Row
from luthier.dataset.tool_calls import parsed, tool_call

ROLES: Final = {
    "system": "system",
    "developer": "developer",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "observation": "tool",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
CALLS: Final = ("function_call", "tool_call")


def turns(value: Any, field: str) -> list[Row]:
    """Return the turns as messages; turns that have a `role` already are unchanged."""
    if not isinstance(value, list) or not value:
        raise unexpected(field, "a list of turns, or its JSON text", value)
    return [_turn(turn, f"{field}[{index}]") for index, turn in enumerate(value)]


def as_messages(value: Any, field: str) -> Any:
    """Return a value of a `messages` column with ShareGPT's turns in it as messages; any other value unchanged."""
    if isinstance(value, list) and any(isinstance(turn, dict) and "from" in turn for turn in value):
        return turns(value, field)
    return value


def _turn(turn: Any, field: str) -> Row:
    if not isinstance(turn, dict):
        raise unexpected(field, "an object with `from` and `value`", turn)
    if turn.get("role") is not None:
        return turn
    speaker, value = turn.get("from"), turn.get("value")
    if not isinstance(value, str):
        raise unexpected(f"{field}.value", "a string", value)
    rest = {key: item for key, item in turn.items() if key not in ("from", "value", "role")}
    if speaker in CALLS:
        calls = parsed(value, f"{field}.value", 'a call as JSON, {"name": …, "arguments": {…}}')
        calls = calls if isinstance(calls, list) else [calls]
        tool_calls = [tool_call(call, f"{field}.value") for call in calls]
        return {"role": "assistant", "content": "", "tool_calls": tool_calls} | rest
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise unexpected(f"{field}.from", f"one of {', '.join((*ROLES, *CALLS))}", speaker)
    return {"role": ROLES[speaker], "content": value} | rest
