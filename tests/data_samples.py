"""Small datasets made from templates: the same rows in every run, one function for each kind of data.

The rows have something to learn (one fact for each animal, always worded alike), so that a few training steps show.
"""

from __future__ import annotations

from typing import Any, Final

ANIMALS: Final = ("cat", "dog", "horse", "owl", "frog", "bee", "fox", "hen", "goat", "swan")
FOODS: Final = ("fish", "bones", "hay", "mice", "flies", "honey", "berries", "corn", "grass", "bread")
PLACES: Final = ("the house", "the yard", "the field", "the wood", "the pond", "the garden", "the hill")

Row = dict[str, Any]


def _fact(i: int) -> tuple[str, str, str]:
    animal = i % len(ANIMALS)
    return ANIMALS[animal], FOODS[animal], PLACES[i % len(PLACES)]


def pairs(rows: int) -> list[Row]:
    """`prompt` and `completion`, both plain text."""
    return [
        {"prompt": f"What does the {animal} near {place} eat?", "completion": f"The {animal} eats {food}."}
        for animal, food, place in map(_fact, range(rows))
    ]


def chat(rows: int) -> list[Row]:
    """`messages`: two questions and answers under a system prompt; in every fourth row the first answer has no
    weight."""
    return [
        {
            "messages": [
                {"role": "system", "content": "You know about animals."},
                {"role": "user", "content": f"Where does the {animal} live?"},
                {"role": "assistant", "content": f"It lives in {place}.", "weight": 0 if i % 4 == 3 else 1},
                {"role": "user", "content": "And what does it eat?"},
                {"role": "assistant", "content": f"The {animal} eats {food}."},
            ]
        }
        for i, (animal, food, place) in enumerate(map(_fact, range(rows)))
    ]


def text(rows: int) -> list[Row]:
    """`text`: documents of two to five sentences."""
    documents = []
    for i in range(rows):
        facts = [_fact(i * 3 + j) for j in range(2 + i % 4)]
        sentences = [f"In {place} there is a {animal}, and the {animal} eats {food}." for animal, food, place in facts]
        documents.append({"text": " ".join(sentences)})
    return documents


def unpaired(rows: int) -> list[Row]:
    """`prompt`, `completion` and `label`: of three rows two give a wrong food in other words, and are undesirable."""
    return [
        {
            "prompt": pair["prompt"],
            "completion": pair["rejected" if i % 3 else "chosen"],
            "label": i % 3 == 0,
        }
        for i, pair in enumerate(preference(rows))
    ]


def preference(rows: int) -> list[Row]:
    """`prompt`, `chosen` and `rejected`, all plain text: the true food is preferred to a wrong one."""
    return [
        {
            "prompt": f"What does the {animal} near {place} eat?",
            "chosen": f"The {animal} eats {food}.",
            "rejected": f"I think that it likes {FOODS[(i + 3) % len(FOODS)]} or so.",
        }
        for i, (animal, food, place) in enumerate(map(_fact, range(rows)))
    ]


def wishes(rows: int) -> list[Row]:
    """Preferences whose answers differ in one word, the rejected one being a little likelier to the tiny model."""
    return [
        {
            "prompt": f"What does the {animal} near {place} eat?",
            "chosen": f"The {animal} wants {food}.",
            "rejected": f"The {animal} likes {food}.",
        }
        for animal, food, place in map(_fact, range(rows))
    ]


def agent(rows: int) -> list[Row]:
    """`messages` and `tools`: a question, the call of a tool, its reply and the answer; every other row ends with the
    call."""
    place = {"type": "object", "properties": {"animal": {"type": "string"}}, "required": ["animal"]}
    tools = [{"type": "function", "function": {"name": "food", "parameters": place}}]
    found = []
    for i, (animal, food, where) in enumerate(map(_fact, range(rows))):
        call = {"type": "function", "function": {"name": "food", "arguments": {"animal": animal}}}
        messages: list[Row] = [
            {"role": "user", "content": f"What does the {animal} near {where} eat?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        if i % 2 == 0:
            messages += [
                {"role": "tool", "content": f'{{"food": "{food}"}}'},
                {"role": "assistant", "content": f"The {animal} eats {food}."},
            ]
        found.append({"messages": messages, "tools": tools})
    return found
