"""Columns with other names, and columns beside the prompt and the answer."""

from __future__ import annotations

import json

from luthier.task import DataKind
from tests.unit.good_file import (
    BARE_TOOL,
    CALL,
    FIRST_AGENT,
    FIRST_CHAT,
    FIRST_PREFERENCE,
    SYSTEM,
    TOOL,
    GoodFile,
    good,
    pair,
    says,
    user,
)

_FIRST_KIND = {"prompt": [SYSTEM, user("What is 0 + 1?")], "completion": [says("1")]}


def _columns(asked: str, answer: str) -> GoodFile:
    return good(
        f"{asked} and {answer}",
        f"{asked}_{answer}",
        DataKind.PAIRS,
        lambda i: {asked: f"Why {i}?", answer: "So."},
        {"prompt": "Why 0?", "completion": "So.", answer: "So."},
    )


LAYOUTS = [
    _columns("prompt", "response"),
    _columns("question", "answer"),
    _columns("question", "response"),
    _columns("query", "answer"),
    _columns("query", "response"),
    _columns("instruction", "response"),
    _columns("input", "output"),
    good(
        "a context before the question",
        "question_answer",
        DataKind.PAIRS,
        lambda i: {"question": f"Who {i}?", "answer": "Ann.", "context": "Ann came." if i < 9 else None, "id": i},
        {"prompt": "Ann came.\n\nWho 0?", "completion": "Ann.", "answer": "Ann.", "id": 0},
    ),
    good(
        "Dolly's context after the instruction",
        "instruction_response",
        DataKind.PAIRS,
        lambda i: {"instruction": f"Sum up {i}.", "context": "It rained.", "response": "Rain.", "category": "short"},
        {"prompt": "Sum up 0.\n\nIt rained.", "completion": "Rain.", "response": "Rain.", "category": "short"},
    ),
    good(
        "a context that the prompt has already",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {"prompt": f"Ann came. Who {i}?", "completion": "Ann.", "context": "Ann came."},
        {"prompt": "Ann came. Who 0?", "completion": "Ann."},
    ),
    good(
        "a system column beside prompts",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {**pair(i), "system": "Be kind." if i % 2 == 0 else ""},
        _FIRST_KIND,
    ),
    good(
        "a system prompt from the second row on",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {**pair(i), "system_prompt": "Be kind." if i else None},
        {"prompt": [user("What is 0 + 1?")], "completion": [says("1")]},
    ),
    good(
        "a system column beside messages",
        "messages",
        DataKind.CHAT,
        lambda i: {"messages": [user(f"Question {i}"), says("Answer")], "system": "Be kind."},
        {"messages": [SYSTEM, *FIRST_CHAT]},
    ),
    good(
        "a system column that repeats the system message",
        "messages",
        DataKind.CHAT,
        lambda i: {"messages": [SYSTEM, user(f"Question {i}"), says("Answer")], "system": "Be kind."},
        {"messages": [SYSTEM, *FIRST_CHAT]},
    ),
    good(
        "a system column beside preferences",
        "question_preference",
        DataKind.PREFERENCE,
        lambda i: {"system": "Be kind.", "question": f"Question {i}", "chosen": "good", "rejected": "bad"},
        {**FIRST_PREFERENCE, "prompt": [SYSTEM, user("Question 0")]},
    ),
    good(
        "a system column beside labels",
        "unpaired",
        DataKind.UNPAIRED,
        lambda i: {**pair(i), "system": "Be kind.", "label": i % 2 == 0},
        {**_FIRST_KIND, "label": True},
    ),
    good(
        "a system column beside prompts for a grader",
        "prompt",
        DataKind.PROMPTS,
        lambda i: {"prompt": f"Question {i}", "system": "Be kind.", "answer": 4},
        {"prompt": [SYSTEM, user("Question 0")], "answer": 4},
    ),
    good(
        "OpenAI's older functions",
        "messages",
        DataKind.CHAT,
        lambda i: {
            "messages": [
                user(f"Weather {i}?"),
                says(None, function_call={"name": "weather", "arguments": '{"city": null}'}),
                {"role": "function", "name": "weather", "content": "clear"},
                says("Clear."),
            ],
            "functions": [BARE_TOOL],
        },
        {
            "messages": [
                user("Weather 0?"),
                says(
                    "", tool_calls=[{"type": "function", "function": {"name": "weather", "arguments": {"city": None}}}]
                ),
                {"role": "tool", "content": "clear", "name": "weather"},
                says("Clear."),
            ],
            "tools": [TOOL],
        },
    ),
    good(
        "results in another order than their calls",
        "messages",
        DataKind.CHAT,
        lambda i: {
            "messages": [
                user(f"Weather {i}?"),
                says("", tool_calls=[CALL | {"id": name} for name in "abc"]),
                *({"role": "tool", "content": f"of {name}", "tool_call_id": name} for name in "cab"),
                says("Clear."),
            ],
        },
        {
            "messages": [
                user("Weather 0?"),
                says("", tool_calls=[CALL | {"id": name} for name in "abc"]),
                *({"role": "tool", "content": f"of {name}", "tool_call_id": name} for name in "abc"),
                says("Clear."),
            ],
        },
    ),
    good(
        "reasoning under three names",
        "messages",
        DataKind.CHAT,
        lambda i: {
            "messages": [
                user(f"Question {i}"),
                says("One.", reasoning="Hm.", weight=0),
                user("Then?"),
                says("Two.", thinking="Hm, hm."),
                user("Then?"),
                says("Three.", reasoning_content="Well."),
            ]
        },
        {
            "messages": [
                user("Question 0"),
                says("One.", reasoning="Hm.", reasoning_content="Hm.", weight=0),
                user("Then?"),
                says("Two.", thinking="Hm, hm.", reasoning_content="Hm, hm."),
                user("Then?"),
                says("Three.", reasoning_content="Well."),
            ]
        },
    ),
    good(
        "ShareGPT with the names of roles",
        "sharegpt",
        DataKind.CHAT,
        lambda i: {
            "conversations": [
                {"from": "user", "value": f"Weather {i}?"},
                {"from": "tool_call", "value": '{"name": "weather", "arguments": {"city": "Rome"}}'},
                {"from": "function", "value": '{"sky": "clear"}'},
                {"from": "assistant", "value": "Clear."},
            ],
            "tools": [BARE_TOOL],
        },
        FIRST_AGENT,
    ),
    good(
        "ShareGPT with one observation for two calls",
        "sharegpt",
        DataKind.CHAT,
        lambda i: {
            "conversations": [
                {"from": "human", "value": f"Weather {i}?"},
                {"from": "function_call", "value": json.dumps([CALL["function"], CALL["function"]])},
                {"from": "observation", "value": '["clear", "clear"]'},
                {"from": "gpt", "value": "Clear."},
            ],
        },
        {
            "messages": [
                user("Weather 0?"),
                says("", tool_calls=[CALL, CALL]),
                {"role": "tool", "content": '["clear", "clear"]'},
                says("Clear."),
            ]
        },
    ),
    good(
        "ShareGPT's turns in a column of messages, as JSON text",
        "messages",
        DataKind.CHAT,
        lambda i: {
            "messages": json.dumps([{"from": "human", "value": f"Question {i}"}, {"from": "gpt", "value": "Answer"}]),
            "tools": json.dumps([BARE_TOOL]),
        },
        {"messages": FIRST_CHAT, "tools": [TOOL]},
    ),
    good(
        "prompts as JSON text of messages",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {"prompt": json.dumps([user(f"Question {i}")]), "completion": "[]"},
        {"prompt": [user("Question 0")], "completion": [says("[]")]},
    ),
    good(
        "answers that repeat a prompt of text",
        "preference",
        DataKind.PREFERENCE,
        lambda i: {
            "prompt": f"Question {i}",
            "chosen": [user(f"Question {i}"), says("good")],
            "rejected": [user(f"Question {i}"), says("bad")],
        },
        FIRST_PREFERENCE,
    ),
    good(
        "answers that repeat a prompt of messages with a system prompt",
        "preference",
        DataKind.PREFERENCE,
        lambda i: {
            "prompt": [SYSTEM, user(f"Question {i}")],
            "chosen": [SYSTEM, user(f"Question {i}"), says("good"), user("More?"), says("Yes.")],
            "rejected": [SYSTEM, user(f"Question {i}"), says("bad")],
        },
        {
            "prompt": [SYSTEM, user("Question 0")],
            "chosen": [says("good"), user("More?"), says("Yes.")],
            "rejected": [says("bad")],
        },
    ),
    good(
        "Alpaca's preferences",
        "alpaca_preference",
        DataKind.PREFERENCE,
        lambda i: {"instruction": f"Add {i}.", "input": "to 1", "chosen": "good", "rejected": "bad"},
        {"prompt": "Add 0.\n\nto 1", "chosen": "good", "rejected": "bad"},
    ),
    good(
        "a text with a class",
        "text",
        DataKind.TEXT,
        lambda i: {"text": f"Story {i}", "label": i % 2, "system": "x"},
        {"text": "Story 0", "label": 0, "system": "x"},
    ),
    good(
        "an answer column that is null in every row",
        "prompt",
        DataKind.PROMPTS,
        lambda i: {"prompt": f"Question {i}", "response": None},
        {"prompt": "Question 0", "response": None},
    ),
    good(
        "a schema's nulls in tools",
        "messages",
        DataKind.CHAT,
        lambda i: {
            "messages": [user(f"Question {i}"), says("Answer", tool_calls=None)],
            "tools": [
                {
                    "type": "function",
                    "id": None,
                    "function": {
                        **BARE_TOOL,
                        "strict": None,
                        "parameters": {
                            "type": "object",
                            "properties": {"city": {"default": None, "enum": None}, "day": None},
                        },
                    },
                }
            ],
        },
        {
            "messages": FIRST_CHAT,
            "tools": [
                {
                    "type": "function",
                    "function": {
                        **BARE_TOOL,
                        "parameters": {"type": "object", "properties": {"city": {"default": None}}},
                    },
                }
            ],
        },
    ),
]
