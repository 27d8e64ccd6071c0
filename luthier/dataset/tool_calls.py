"""Tools of a chat: definitions and calls, in OpenAI's shape.

Accepted are also bare definitions and calls, JSON text of either, OpenAI's older `functions`, `function_call` and role
`function`, and the names that Anthropic, LangChain and Llama have for the parts. Arguments are objects, because chat
templates write them as JSON; nulls in them are data.
"""

from __future__ import annotations

from typing import Any, Final

from luthier.dataset.errors import columns, unexpected
from luthier.dataset.json_rows import parse
from luthier.dataset.rows import Row
from luthier.errors import DatasetError

_VALUES: Final = ("default", "const", "enum", "examples")  # keywords of JSON Schema whose values are data
_ARGUMENTS: Final = ("arguments", "args", "parameters", "input")  # of OpenAI, LangChain, Llama and Anthropic
_SCHEMAS: Final = ("parameters", "input_schema", "inputSchema")  # of OpenAI, Anthropic and MCP
_OF_CALL: Final = ("id", "call_id", "type", "index")  # stand beside the function, not in it
_IN_FUNCTION: Final = ("name", "description")


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
    """Return one call in OpenAI's shape, from that shape or a bare `{name, arguments}`.

    The arguments may be called `args`, `parameters` or `input` too. Raises DatasetError for two that differ, and for a
    call that has other keys instead of arguments: what they say would be lost.
    """
    call = _function(_outside(value), field)
    function = call["function"]
    name, arguments = _arguments(function, field)
    if isinstance(arguments, str):
        arguments = parsed(arguments, name, "an object, or its JSON text") if arguments.strip() else {}
    if not isinstance(arguments, dict):
        raise unexpected(name, "an object, or its JSON text", arguments)
    rest = {key: item for key, item in function.items() if key not in _ARGUMENTS}
    return {**call_id(call, f"{field}.id"), "function": {**rest, "arguments": arguments}}


def call_id(value: Row, field: str, key: str = "id") -> Row:
    """Return a call or a result with its id as a string: numbers name a call too. Raises DatasetError for others."""
    given = value.get(key)
    if given is None or isinstance(given, str):
        return value
    if isinstance(given, bool) or not isinstance(given, int):
        raise unexpected(field, "the id of a call", given)
    return value | {key: str(given)}


def _outside(value: Any) -> Any:
    """Return a bare call with what is not about its function outside of it; any other value unchanged."""
    if not isinstance(value, dict) or "function" in value or not value.keys() & set(_OF_CALL):
        return value
    beside = {key: value[key] for key in _OF_CALL if value.get(key) is not None} | {"type": "function"}
    if "call_id" in beside:  # OpenAI's Responses have an id of the item, too
        beside["id"] = beside.pop("call_id")
    return beside | {"function": {key: item for key, item in value.items() if key not in _OF_CALL}}


def _arguments(function: Row, field: str) -> tuple[str, Any]:
    """Return the place and the value of a call's arguments, which it may call otherwise."""
    given = {name: function[name] for name in _ARGUMENTS if function.get(name) not in (None, "")}
    if not given and (others := sorted(function.keys() - {*_IN_FUNCTION, *_ARGUMENTS})):
        raise DatasetError(
            f"field `{field}.function`: expected the arguments of the call in `arguments`, found only {columns(others)}"
        )
    if len({repr(value) for value in given.values()}) > 1:
        raise DatasetError(
            f"field `{field}.function`: expected the arguments once, found {columns(given)}, which differ"
        )
    name, value = next(iter(given.items()), ("arguments", {}))
    return f"{field}.function.{name}", value


def parsed(text: str, field: str, expected: str) -> Any:
    """Parse a value that the row contains as JSON text."""
    try:
        return parse(text)
    except ValueError as error:
        raise unexpected(field, expected, text) from error


def calls_of(value: Any, field: str) -> list[Row]:
    """Return the calls of a message, from a list of them or its JSON text."""
    if isinstance(value, str):
        value = parsed(value, field, "a list of tool calls, or its JSON text") if value.strip() else []
    if not isinstance(value, list):
        raise unexpected(field, "a list of tool calls", value)
    return [tool_call(call, f"{field}[{index}]") for index, call in enumerate(value)]


def modern(message: Row, field: str) -> Row:
    """Return a message with OpenAI's older `function_call` as `tool_calls`, and the role `function` as `tool`.

    `function_calls` become `tool_calls` too. Raises DatasetError for calls under two names.
    """
    found = dict(message)
    if found.get("role") == "function":
        found["role"] = "tool"
    for name in ("function_call", "function_calls"):
        if (call := found.pop(name, None)) in (None, "", []):
            continue
        if found.get("tool_calls"):
            raise DatasetError(f"field `{field}`: expected `tool_calls` or the older `{name}`, found both")
        place = f"{field}.{name}"
        found["tool_calls"] = [tool_call(call, place)] if name == "function_call" else calls_of(call, place)
    return found


def hoisted(row: Row) -> Row:
    """Return a normalised row with the tools that stand in a system message beside its messages.

    Raises DatasetError for tools in a message of another role, and for those of two messages that differ.
    """
    found = [
        (f"{column}[{index}].{name}", message, name)
        for column, said in row.items()
        if isinstance(said, list)
        for index, message in enumerate(said)
        if isinstance(message, dict) and "role" in message
        for name in ("tools", "functions")
        if message.get(name)
    ]
    if not found:
        return row
    for place, message, name in found:
        if message["role"] not in ("system", "developer"):
            raise DatasetError(f"field `{place}`: tools belong beside the messages, in the column `tools`")
        given = tools(message.pop(name), place)
        if given and row.setdefault("tools", given) != given:
            raise DatasetError(f"field `{place}`: they differ from other tools of the row")
    return row


def _tool(value: Any, field: str) -> Row:
    """Return a definition without the nulls that a table's schema adds: in JSON Schema, only values can be null."""
    if isinstance(value, dict) and "function" not in value and value.get("type") == "function":
        value = {
            key: item for key, item in value.items() if key != "type"
        }  # OpenAI's Responses have it beside the name
    tool = _function(value, field)
    return {**tool, "function": _schema(_with_parameters(tool["function"], field))}


def _with_parameters(function: Row, field: str) -> Row:
    """Return a definition with the schema of its arguments as `parameters`. Raises DatasetError for two that differ."""
    given = {name: function[name] for name in _SCHEMAS if function.get(name) is not None}
    if len({repr(schema) for schema in given.values()}) > 1:
        raise DatasetError(f"field `{field}.function`: expected one schema, found {columns(given)}, which differ")
    if not given.keys() - {"parameters"}:
        return function
    rest = {key: item for key, item in function.items() if key not in _SCHEMAS}
    return rest | {"parameters": next(iter(given.values()))}


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
