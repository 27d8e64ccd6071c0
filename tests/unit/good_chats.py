"""Chats, and prompts for a grader."""

from __future__ import annotations

import json

from luthier.task import DataKind
from tests.unit.good_file import BARE_TOOL, FIRST_AGENT, FIRST_CHAT, TOOL, good, says, user

CHATS = [
    good(
        "chat",
        "messages",
        DataKind.CHAT,
        lambda i: {"messages": [user(f"Question {i}"), says("Answer")]},
        {"messages": FIRST_CHAT},
    ),
    good(
        "chat with a prompt column beside it",
        "messages",
        DataKind.CHAT,
        lambda i: {"messages": [user(f"Question {i}"), says("Answer")], "prompt": None if i else "a"},
        {"messages": FIRST_CHAT, "prompt": "a"},
    ),
    good(
        "chat with every role, weights and text parts",
        "messages",
        DataKind.CHAT,
        lambda i: {
            "messages": [
                {"role": "system", "content": ""},
                {"role": "developer", "content": "Be short."},
                user([{"type": "text", "text": "Question "}, {"type": "text", "text": str(i)}]),
                says("No.", weight=0),
                user("Sure?") | {"name": "ann"},
                says("Yes.", weight=1.0, tool_calls=None),
            ],
            "tools": [],
        },
        {
            "messages": [
                {"role": "system", "content": ""},
                {"role": "developer", "content": "Be short."},
                user("Question 0"),
                says("No.", weight=0),
                {"role": "user", "content": "Sure?", "name": "ann"},
                says("Yes.", weight=1),
            ]
        },
    ),
    good(
        "OpenAI's tool calls",
        "messages",
        DataKind.CHAT,
        lambda i: {
            "messages": [
                user(f"Weather {i}?"),
                says(
                    None,
                    tool_calls=[{"type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}],
                ),
                {"role": "tool", "content": '{"sky": "clear"}'},
                says("Clear."),
            ],
            "tools": [TOOL],
        },
        FIRST_AGENT,
    ),
    good(
        "ShareGPT",
        "sharegpt",
        DataKind.CHAT,
        lambda i: {
            "system": "Be kind.",
            "conversations": [{"from": "human", "value": f"Question {i}"}, {"from": "gpt", "value": "Answer"}],
        },
        {"messages": [{"role": "system", "content": "Be kind."}, *FIRST_CHAT]},
    ),
    good(
        "ShareGPT with roles",
        "sharegpt",
        DataKind.CHAT,
        lambda i: {"conversations": [user(f"Question {i}"), says("Answer")]},
        {"messages": FIRST_CHAT},
    ),
    good(
        "ShareGPT with tool calls",
        "sharegpt",
        DataKind.CHAT,
        lambda i: {
            "conversations": [
                {"from": "human", "value": f"Weather {i}?"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Rome"}}'},
                {"from": "observation", "value": '{"sky": "clear"}'},
                {"from": "gpt", "value": "Clear."},
            ],
            "tools": json.dumps([BARE_TOOL]),
        },
        FIRST_AGENT,
    ),
]

PROMPTS = [
    good(
        "prompts for a grader",
        "prompt",
        DataKind.PROMPTS,
        lambda i: {"prompt": f"Question {i}", "solution": 4},
        {"prompt": "Question 0", "solution": 4},
    ),
    good(
        "prompts as messages",
        "prompt",
        DataKind.PROMPTS,
        lambda i: {"prompt": [user(f"Question {i}")]},
        {"prompt": [user("Question 0")]},
    ),
    good(
        "OpenAI's rows for reinforcement",
        "open_messages",
        DataKind.PROMPTS,
        lambda i: {"messages": [user(f"Question {i}")], "solution": {"words": ["four"]}},
        {"prompt": [user("Question 0")], "solution": {"words": ["four"]}},
    ),
]
