"""Results of tools: which call each of them belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from luthier.dataset.errors import describe
from luthier.dataset.rows import COLUMNS, Row
from luthier.dataset.tool_calls import call_id
from luthier.errors import DatasetError
from luthier.task import DataKind

_IDS: Final = ("call_id", "tool_use_id")  # of OpenAI's Responses and of Anthropic


def ordered_results(messages: list[Row], field: str) -> list[Row]:
    """Return the messages with the results after each message's calls in the order of these calls.

    `tool_call_id` tells which call a result belongs to; so does an `id` that a call before it has. Of results without
    an id, the name of the function does; those without a name are in the order of the calls. Raises DatasetError for an
    id or a name that no call before it has, for two results of one call, and where it is unclear which call a result
    belongs to. Calls without results are accepted.
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


def moved(raw: Sequence[Row], normal: Sequence[Row]) -> tuple[str, ...]:
    """Return a note that counts the rows whose results were put in another order; nothing without any."""
    orders = ((_result_order(row), _result_order(read)) for row, read in zip(raw, normal, strict=True))
    count = sum(given != order and sorted(given) == sorted(order) for given, order in orders)
    return (f"In {count:,} rows, tool results were put in the order of their calls.",) if count else ()


def _result_order(row: Row) -> list[tuple[str, str]]:
    """Return the ids and the names of a row's results, in their order."""
    turns = [turn for value in row.values() if isinstance(value, list) for turn in value if isinstance(turn, dict)]
    return [
        (
            str(next((turn[key] for key in ("tool_call_id", *_IDS, "id") if turn.get(key) is not None), "")),
            str(turn.get("name")),
        )
        for turn in turns
        if turn.get("role") in ("tool", "function")
    ]


def notes(rows: Sequence[Row], kind: DataKind) -> Iterator[str]:
    """Yield what is odd about the calls and the results of normalised rows, as sentences with counts."""
    said = [_conversation(row, kind) for row in rows]
    if missing := sum(sum(map(unanswered_calls, _lists(row, kind))) for row in rows):
        yield f"{missing:,} tool calls have no result."
    if alone := sum(map(_without_call, said)):
        yield f"{alone:,} results of tools stand after no message of the assistant, so no call asked for them."
    if other := sum(map(_misnamed, said)):
        yield f"{other:,} results of tools name another function than the call that they belong to."
    undefined = sum(_undefined(turns, row.get("tools") or []) for turns, row in zip(said, rows, strict=True))
    if undefined:
        yield f"{undefined:,} tool calls are of functions that are not among the tools of their row."


def _lists(row: Row, kind: DataKind) -> list[list[Row]]:
    return [row[column] for column in COLUMNS[kind] if isinstance(row[column], list)]


def _conversation(row: Row, kind: DataKind) -> list[Row]:
    """Return the messages of a row, in their order; of a preference, with the chosen answer alone."""
    columns = [column for column in COLUMNS[kind] if column != "rejected"]
    return [message for column in columns if isinstance(row[column], list) for message in row[column]]


def _without_call(said: Sequence[Row]) -> int:
    """Return how many results follow neither a message of the assistant nor another result that does."""
    count, asked = 0, False
    for message in said:
        if message["role"] == "tool":
            count += not asked
        else:
            asked = message["role"] == "assistant"
    return count


def _misnamed(said: Sequence[Row]) -> int:
    """Return how many results have the id of a call of another function than they name."""
    functions = dict[str, str]()
    count = 0
    for message in said:
        functions |= {call["id"]: _called(call) for call in message.get("tool_calls") or () if call.get("id")}
        if message["role"] == "tool" and (name := message.get("name")):
            count += functions.get(message.get("tool_call_id") or "", name) != name
    return count


def _undefined(said: Sequence[Row], tools: Sequence[Row]) -> int:
    known = {tool["function"]["name"] for tool in tools}
    calls = [call for message in said for call in message.get("tool_calls") or ()]
    return sum(_called(call) not in known for call in calls) if known else 0


def _called(call: Row) -> str:
    """Return the name of the function that is called."""
    return str(call["function"]["name"])


def _in_order(calls: list[Row], results: list[tuple[str, Row]]) -> list[Row]:
    """Return the results that follow one message, in the order of its calls."""
    if not results:
        return []
    results = [(place, _with_id(result, calls, place)) for place, result in results]
    named = [(place, result) for place, result in results if result.get("tool_call_id") is not None]
    if not named:
        _check_count(calls, results)
        return _by_name(calls, results)
    if len(calls) == len(results) == 1 and calls[0].get("id") is None:
        return [results[0][1]]
    positions = {call["id"]: position for position, call in enumerate(calls) if call.get("id") is not None}
    if len(positions) < sum(call.get("id") is not None for call in calls):
        raise DatasetError(f"field `{named[0][0]}`: two of the calls before it have the same id, so it fits both")
    placed: dict[int, Row] = {}
    for place, result in named:
        position = positions.get(result["tool_call_id"])
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


def _with_id(result: Row, calls: list[Row], place: str) -> Row:
    """Return a result with the id of its call as `tool_call_id`, which it may call otherwise, as a string."""
    if result.get("tool_call_id") is not None:
        return call_id(result, f"{place}.tool_call_id", "tool_call_id")
    ids = {call.get("id") for call in calls} - {None}
    name = next((name for name in _IDS if result.get(name) is not None), None)
    if name is None and str(result.get("id")) in ids:
        name = "id"  # else it is the id of the message itself
    if name is None:
        return result
    rest = {key: value for key, value in result.items() if key != name}
    return call_id(rest | {"tool_call_id": result[name]}, f"{place}.{name}", "tool_call_id")


def _by_name(calls: list[Row], results: list[tuple[str, Row]]) -> list[Row]:
    """Return results without ids in the order of the calls of the functions that they name."""
    if not calls or len(results) < len(calls) or not any(result.get("name") for _, result in results):
        return [result for _, result in results]
    free = list(range(len(calls)))
    placed: dict[int, Row] = {}
    for place, result in (found for found in results if found[1].get("name")):
        position = next((each for each in free if _called(calls[each]) == result["name"]), None)
        if position is None:
            known = ", ".join(f"`{_called(calls[each])}`" for each in free) or "no call is left"
            raise DatasetError(
                f"field `{place}.name`: expected the name of a function that is called in the message before it "
                f"({known}), found {describe(result['name'])}"
            )
        free.remove(position)
        placed[position] = result
    placed |= zip(free, (result for _, result in results if not result.get("name")), strict=True)
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
