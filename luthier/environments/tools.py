"""A store room of boxes that the model changes with tool calls; the reward depends on the final state.

Calls are parsed from the model's text in the Hermes format. The reply to an invalid call says what is wrong with it. A
task without a question ends when the boxes have the right contents; one with a question ends when the model answers
without a call.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Any, Final

from pydantic import Field

from luthier.environments.base import Message, Row
from luthier.environments.tool_calls import Call, Malformed, calls

Boxes = dict[str, dict[str, int]]

BOXES: Final = ("A", "B", "C", "D", "E", "F", "G", "H")
ITEMS: Final = ("apples", "pens", "keys", "cups", "books", "coins", "hats", "nails")
MOST: Final = 1000  # things in one box; bounds what the model can add

BoxCount = Annotated[int, Field(ge=2, le=len(BOXES), description="number of boxes")]
ItemCount = Annotated[int, Field(ge=1, le=len(ITEMS), description="number of kinds of things")]
Largest = Annotated[int, Field(ge=1, le=50, description="most things in one step")]
Steps = Annotated[int, Field(ge=1, le=4, description="steps of one task")]


class Move:
    """One tool and one step: move things from one box to another. A start for small models."""

    def __init__(self, *, boxes: BoxCount = 3, items: ItemCount = 3, largest: Largest = 5) -> None:
        self._boxes, self._items, self._largest = BOXES[:boxes], ITEMS[:items], largest

    def rows(self, count: int, seed: int) -> list[Row]:
        random = Random(f"move {seed}")
        return [self._row(random) for _ in range(count)]

    def begin(self, row: Row) -> Errand:
        return Errand(row)

    def _row(self, random: Random) -> Row:
        start = _filled(random, self._boxes, self._items, self._largest)
        step = _move(random, start, self._largest)
        return _errand(start, [step], f"{_words(step)}.", [_TOOLS["move"]])


class Store:
    """Several steps with four tools, then a question about a box whose contents only a tool shows."""

    def __init__(self, *, boxes: BoxCount = 4, items: ItemCount = 4, largest: Largest = 9, steps: Steps = 2) -> None:
        self._boxes, self._items, self._largest, self._steps = BOXES[:boxes], ITEMS[:items], largest, steps

    def rows(self, count: int, seed: int) -> list[Row]:
        random = Random(f"store {seed}")
        return [self._row(random) for _ in range(count)]

    def begin(self, row: Row) -> Errand:
        return Errand(row)

    def _row(self, random: Random) -> Row:
        start = _filled(random, self._boxes, self._items, self._largest)
        state = copy.deepcopy(start)
        steps: list[Call] = []
        while len(steps) < self._steps or state == start:  # the steps must change something
            draw = _move if random.random() < 0.5 else _add
            steps.append(draw(random, state, self._largest))
            _done(state, steps[-1])
            if len(steps) > self._steps:
                steps, state = [], copy.deepcopy(start)
        box, item = random.choice(self._boxes), random.choice(self._items)
        asked = ", then ".join(_words(step) for step in steps)
        text = f"{asked[0].upper()}{asked[1:]}. How many {item} are in box {box} after that?"
        return _errand(start, steps, text, list(_TOOLS.values()), ask=(box, item))


class Errand:
    """One episode: the current boxes, and the model's last answer."""

    def __init__(self, row: Row) -> None:
        self._boxes: Boxes = copy.deepcopy(row["boxes"])
        self._goal: Boxes = row["goal"]
        self._expected: int | None = row.get("expected")
        self._tools = [tool["function"]["name"] for tool in row["tools"]]
        self._said = ""

    def respond(self, answer: str) -> Sequence[Message]:
        made = calls(answer)
        if not made:
            self._said = answer
            return ()
        replies = [self._reply(call) for call in made]
        return () if self._expected is None and self._boxes == self._goal else replies

    def reward(self) -> float:
        answered = self._expected is None or re.findall(r"-?\d+", self._said)[-1:] == [str(self._expected)]
        return float(self._boxes == self._goal and answered)

    def _reply(self, call: Call | Malformed) -> Message:
        if isinstance(call, Malformed):
            return _said_by("error", {"error": call.why})
        if call.name not in self._tools:
            return _said_by("error", {"error": f"there is no such tool; there are {', '.join(self._tools)}"})
        return _said_by(call.name, _done(self._boxes, call))


def _done(boxes: Boxes, call: Call) -> Mapping[str, Any]:
    """Apply a call to the boxes and return its result; an impossible call changes nothing."""
    match call:
        case Call(name="list_boxes"):
            return {"boxes": list(boxes)}
        case Call(name="look_in", arguments={"box": str(box)}) if box in boxes:
            return boxes[box]
        case Call(name="add", arguments={"item": str(item), "count": int(count), "box": str(box)}):
            return _added(boxes, item, count, box)
        case Call(name="move", arguments={"item": str(item), "count": int(count), "from": str(source), "to": str(box)}):
            if source not in boxes or not 0 < count <= boxes[source].get(item, 0):
                return {"error": "there are not so many there"}
            result = _added(boxes, item, count, box)
            if "error" not in result:
                boxes[source][item] -= count
            return result
        case _:
            return {"error": f"{call.name} was called with wrong arguments"}


def _added(boxes: Boxes, item: str, count: int, box: str) -> Mapping[str, Any]:
    if box not in boxes or item not in boxes[box]:
        return {"error": "there is no such box, or no such thing"}
    if not 0 < count <= MOST - boxes[box][item]:
        return {"error": f"a box holds {MOST} of one kind at most, and the count must be at least 1"}
    boxes[box][item] += count
    return {"done": True}


def _filled(random: Random, boxes: Sequence[str], items: Sequence[str], most: int) -> Boxes:
    return {box: {item: random.randint(1, 2 * most) for item in items} for box in boxes}


def _move(random: Random, boxes: Boxes, largest: int) -> Call:
    full = [(box, item) for box, held in boxes.items() for item, count in held.items() if count]
    source, item = random.choice(full)
    target = random.choice([box for box in boxes if box != source])
    count = random.randint(1, min(largest, boxes[source][item]))
    return Call(name="move", arguments={"item": item, "count": count, "from": source, "to": target})


def _add(random: Random, boxes: Boxes, largest: int) -> Call:
    box = random.choice(list(boxes))
    arguments = {"item": random.choice(list(boxes[box])), "count": random.randint(1, largest), "box": box}
    return Call(name="add", arguments=arguments)


def _words(step: Call) -> str:
    given = step.arguments
    if step.name == "add":
        return f"add {given['count']} {given['item']} to box {given['box']}"
    return f"move {given['count']} {given['item']} from box {given['from']} to box {given['to']}"


def _errand(
    start: Boxes, steps: Sequence[Call], text: str, tools: list[Any], ask: tuple[str, str] | None = None
) -> Row:
    """Return the row, with the messages of an assistant that solves the task."""
    prompt = [{"role": "user", "content": text[0].upper() + text[1:]}]
    state = copy.deepcopy(start)
    steps = [*steps, Call(name="look_in", arguments={"box": ask[0]})] if ask else steps
    messages: list[Message] = list(prompt)
    for step in steps:
        messages += [_calling(step), _said_by(step.name, _done(state, step))]
    row: dict[str, Any] = {"tools": tools, "prompt": prompt, "boxes": start, "goal": state}
    if ask is None:
        return {"messages": messages[:-1], **row}  # the task ends with the last call
    box, item = ask
    answer = {"role": "assistant", "content": f"There are {state[box][item]} {item} in box {box}."}
    return {"messages": [*messages, answer], **row, "expected": state[box][item]}


def _calling(call: Call) -> Message:
    function = {"name": call.name, "arguments": dict(call.arguments)}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


def _said_by(tool: str, result: Mapping[str, Any]) -> Message:
    return {"role": "tool", "name": tool, "content": json.dumps(result)}


def _tool(name: str, description: str, **parameters: str) -> dict[str, Any]:
    properties = {field: {"type": kind} for field, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


_ITEM: Final = {"item": "string", "count": "integer"}
_TOOLS: Final = {
    "move": _tool("move", "Move things between boxes.", **_ITEM, **{"from": "string", "to": "string"}),
    "add": _tool("add", "Put new things into a box.", **_ITEM, box="string"),
    "look_in": _tool("look_in", "What a box holds.", box="string"),
    "list_boxes": _tool("list_boxes", "The names of all boxes."),
}
