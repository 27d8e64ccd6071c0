"""Parse tool calls in a model's text, in the Hermes format: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

OPENING: Final = "<tool_call>"
MOST_CALLS: Final = 16
_DECODER: Final = json.JSONDecoder()


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Malformed:
    """An invalid tool call; the model receives `why`."""

    why: str


def calls(text: str) -> list[Call | Malformed]:
    """Return the first 16 calls of an answer, in order. The closing tag may be missing, as in a truncated answer."""
    return [_read(piece) for piece in text.split(OPENING)[1 : MOST_CALLS + 1]]


def _read(piece: str) -> Call | Malformed:
    try:
        value, _ = _DECODER.raw_decode(piece.lstrip())
    except (ValueError, RecursionError):
        return Malformed(why="a tool call must be a JSON object")
    match value:
        case {"name": str(name), "arguments": dict(arguments)}:
            return Call(name=name, arguments=arguments)
        case _:
            return Malformed(why='a tool call must have a "name" and an object of "arguments"')
