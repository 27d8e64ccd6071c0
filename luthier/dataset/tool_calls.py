"""Tools of a chat: definitions, calls and results, in OpenAI's shape.

Accepted are also bare definitions and calls, JSON text of either, and OpenAI's older `functions`, `function_call` and
role `function`. Arguments are objects, because chat templates write them as JSON; nulls in them are data.
"""

from __future__ import annotations

from typing import Any, Final

from luthier.dataset.errors import describe, unexpected
from luthier.dataset.json_rows import parse
from luthier.dataset.rows import Row
from luthier.errors import DatasetError

_VALUES: Final = ("default", "const", "enum", "examples")  # keywords of JSON Schema whose values are data


def row_tools(row: Row, prefix: str = "") -> list[Row]:
    """Return the tools of a row: its `tools`, or the older `functions`. `prefix` names the object around them.

    Raises DatasetError if the row has both and they differ.
    """
    found = tools(row.get("tools"), f"{prefix}tools")
    older = tools(row.get("functions"), f"{prefix}functions")
    if found and older and found != older:
        raise DatasetError(f"fields `{prefix}tools` and `{prefix}functions`: expected only one of them")
    return found or older


def tools(value: Any, field: str) -> list[Row]:
    """Return function definitions in OpenAI's shape, from that shape, bare definitions, or JSON text of either."""
    if isinstance(value, str) and value.strip():
        value = parsed(value, field, "a list of tools, or its JSON text")
    if value is None or value in ("", []):
        return []
    if not isinstance(value, list):
        raise unexpected(field, "a list of tools", value)
    return [_tool(tool, f"{field}[{index}]") for index, tool in enumerate(value)]


def tool_call(value: Any, field: str) -> Row:
    """Return one call in OpenAI's shape, from that shape or a bare `{name, arguments}`."""
    call = _function(value, field)
    function = call["function"]
    arguments = function.get("arguments", {})
    name = f"{field}.function.arguments"
    if isinstance(arguments, str):
        arguments = parsed(arguments, name, "an object, or its JSON text") if arguments.strip() else {}
    if not isinstance(arguments, dict):
        raise unexpected(name, "an object, or its JSON text", arguments)
    return {**call, "function": {**function, "arguments": arguments}}


def parsed(text: str, field: str, expected: str) -> Any:
    """Parse a value that the row contains as JSON text."""
    try:
        return parse(text)
    except ValueError as error:
        raise unexpected(field, expected, text) from error


def modern(message: Row, field: str) -> Row:
    """Return a message with OpenAI's older `function_call` as `tool_calls`, and the role `function` as `tool`."""
    found = dict(message)
    if found.get("role") == "function":
        found["role"] = "tool"
    call = found.pop("function_call", None)
    if call is not None:
        if found.get("tool_calls"):
            raise DatasetError(f"field `{field}`: expected `tool_calls` or the older `function_call`, found both")
        found["tool_calls"] = [tool_call(call, f"{field}.function_call")]
    return found


def ordered_results(messages: list[Row], field: str) -> list[Row]:
    """Return the messages with the results after each message's calls in the order of these calls.

    `tool_call_id` tells which call a result belongs to. Results without an id are in the order of the calls.
    Raises DatasetError for an id that no call before it has, for two results of one call, and where it is unclear which
    call a result belongs to. Calls without results are accepted.
    """
    if all(message["role"] != "tool" for message in messages):
        return messages
    found: list[Row] = []
    calls: list[Row] = []
    results: list[tuple[str, Row]] = []
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            results.append((f"{field}[{index}]", message))
            continue
        found += _in_order(calls, results)
        found.append(message)
        calls, results = message.get("tool_calls") or [], []
    return found + _in_order(calls, results)


def unanswered_calls(messages: list[Row]) -> int:
    """Return how many calls are followed by another message than their result. Calls at the very end do not count.

    One result that names no call may be that of several.
    """
    missing, open_calls, results = 0, 0, list[Row]()
    for message in messages:
        if message["role"] == "tool":
            results.append(message)
            continue
        for_all = len(results) == 1 and results[0].get("tool_call_id") is None
        missing += 0 if for_all else max(open_calls - len(results), 0)
        open_calls, results = len(message.get("tool_calls") or ()), []
    return missing


def _in_order(calls: list[Row], results: list[tuple[str, Row]]) -> list[Row]:
    """Return the results that follow one message, in the order of its calls."""
    if not results:
        return []
    named = [(place, result) for place, result in results if result.get("tool_call_id") is not None]
    if not named:
        _check_count(calls, results)
        return [result for _, result in results]
    if len(calls) == len(results) == 1 and calls[0].get("id") is None:
        return [results[0][1]]
    positions = {call["id"]: position for position, call in enumerate(calls) if isinstance(call.get("id"), str)}
    if len(positions) < sum(call.get("id") is not None for call in calls):
        raise DatasetError(f"field `{named[0][0]}`: two of the calls before it have the same id, so it fits both")
    placed: dict[int, Row] = {}
    for place, result in named:
        position = positions.get(result["tool_call_id"]) if isinstance(result["tool_call_id"], str) else None
        if position is None:
            known = ", ".join(f"`{name}`" for name in positions) or "calls without ids"
            raise DatasetError(
                f"field `{place}.tool_call_id`: expected the id of a call in the message before it ({known}), "
                f"found {describe(result['tool_call_id'])}"
            )
        if position in placed:
            raise DatasetError(f"field `{place}.tool_call_id`: expected one result for each call, found a second one")
        placed[position] = result
    if len(results) > len(named):
        if len(results) != len(calls):
            raise DatasetError(f"field `{results[0][0]}`: some results lack a `tool_call_id`: their calls are unclear")
        free = (position for position in range(len(calls)) if position not in placed)
        placed |= {next(free): result for _, result in results if result.get("tool_call_id") is None}
    return [placed[position] for position in sorted(placed)]


def _check_count(calls: list[Row], results: list[tuple[str, Row]]) -> None:
    """Raise DatasetError unless there is one result for each call, or one for all.

    ShareGPT's files have one `observation` for several calls. Without calls, they are written in the text.
    """
    if calls and len(results) not in (1, len(calls)):
        raise DatasetError(
            f"field `{results[0][0]}`: expected {len(calls)} results without `tool_call_id`, one for each call, "
            f"found {len(results)}"
        )


def _tool(value: Any, field: str) -> Row:
    """Return a definition without the nulls that a table's schema adds: in JSON Schema, only values can be null."""
    tool = _function(value, field)
    return {**tool, "function": _schema(tool["function"])}


def _schema(value: Any) -> Any:
    match value:
        case dict():
            return {
                key: item if key in _VALUES else _schema(item)
                for key, item in value.items()
                if item is not None or key in ("default", "const")
            }
        case list():
            return [_schema(item) for item in value]
        case _:
            return value


def _function(value: Any, field: str) -> Row:
    """Wrap a bare `{name, …}` as `{type: function, function: {name, …}}`; the name is required."""
    if not isinstance(value, dict):
        raise unexpected(field, "an object", value)
    wrapped = _without_nulls(value) if "function" in value else {"type": "function", "function": value}
    function = wrapped.get("function")
    if not isinstance(function, dict):
        raise unexpected(f"{field}.function", "an object", function)
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise unexpected(f"{field}.function.name", "the name of a function", function.get("name"))
    return {"type": "function", **wrapped}


def _without_nulls(value: Row) -> Row:
    return {key: item for key, item in value.items() if item is not None}
