"""Files that must be accepted: every format in every container, each with the first row that comes out of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.parquet

from luthier.task import DataKind

ROWS = 12
Row = dict[str, Any]
Make = Callable[[int], Row]


@dataclass(frozen=True, kw_only=True)
class GoodFile:
    case: str
    name: str
    data: bytes
    kind: DataKind
    format: str
    first: Row


def jsonl(make: Make) -> bytes:
    return b"".join(json.dumps(make(index)).encode() + b"\n" for index in range(ROWS))


def _good(case: str, format_: str, kind: DataKind, make: Make, first: Row) -> GoodFile:
    return GoodFile(case=case, name="train.jsonl", data=jsonl(make), kind=kind, format=format_, first=first)


def _user(content: Any) -> Row:
    return {"role": "user", "content": content}


def _says(content: Any, **more: Any) -> Row:
    return {"role": "assistant", "content": content, **more}


def _pair(index: int) -> Row:
    return {"prompt": f"What is {index} + 1?", "completion": str(index + 1)}


def _csv(make: Make) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(make(0)))
    writer.writeheader()
    writer.writerows(make(index) for index in range(ROWS))
    return stream.getvalue().encode()


def _parquet(make: Make) -> bytes:
    return _written(pyarrow.Table.from_pylist([make(index) for index in range(ROWS)]))


def _table(columns: dict[str, Any]) -> bytes:
    return _written(pyarrow.table(columns))


def _written(table: Any) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


_BARE_TOOL = {"name": "weather", "description": "Tell it.", "parameters": {"type": "object", "properties": {}}}
_TOOL = {"type": "function", "function": _BARE_TOOL}
_CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
_FIRST_PAIR = {"prompt": "What is 0 + 1?", "completion": "1"}
_FIRST_CHAT = [_user("Question 0"), _says("Answer")]
_FIRST_PREFERENCE = {"prompt": [_user("Question 0")], "chosen": [_says("good")], "rejected": [_says("bad")]}
_FIRST_AGENT = {
    "messages": [
        _user("Weather 0?"),
        _says("", tool_calls=[_CALL]),
        {"role": "tool", "content": '{"sky": "clear"}'},
        _says("Clear."),
    ],
    "tools": [_TOOL],
}

TEXTS = [
    _good(
        "text",
        "text",
        DataKind.TEXT,
        lambda i: {"text": f"Story {i}", "source": "x"},
        {"text": "Story 0", "source": "x"},
    ),
    GoodFile(
        case="plain text",
        name="book.TXT",
        data="\n\n".join(f"Chapter {i}. " + "All was well. " * 140 for i in range(ROWS)).encode(),
        kind=DataKind.TEXT,
        format="text",
        first={"text": "Chapter 0. " + "All was well. " * 139 + "All was well."},
    ),
    GoodFile(
        case="Markdown",
        name="book.md",
        data="\n".join(f"# Part {i}\n{'word ' * 300}" for i in range(ROWS)).encode(),
        kind=DataKind.TEXT,
        format="text",
        first={"text": "# Part 0\n" + "word " * 299 + "word"},
    ),
]

PAIRS = [
    _good("prompt and completion", "prompt_completion", DataKind.PAIRS, _pair, _FIRST_PAIR),
    _good(
        "extra columns for graders",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {"id": i, **_pair(i), "label": "positive", "score": None},
        {**_FIRST_PAIR, "id": 0, "label": "positive", "score": None},
    ),
    _good(
        "prompt and completion as messages",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {"prompt": [_user(f"Question {i}")], "completion": [_says("Answer")]},
        {"prompt": [_user("Question 0")], "completion": [_says("Answer")]},
    ),
    _good(
        "messages as the prompt of a string",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {"prompt": [_user(f"Question {i}")], "completion": "Answer"},
        {"prompt": [_user("Question 0")], "completion": [_says("Answer")]},
    ),
    _good(
        "alpaca",
        "alpaca",
        DataKind.PAIRS,
        lambda i: {"instruction": "Add.", "input": f"{i}, 1", "output": str(i + 1), "text": "all of it"},
        {"prompt": "Add.\n\n0, 1", "completion": "1", "text": "all of it"},
    ),
    _good(
        "alpaca without input",
        "alpaca",
        DataKind.PAIRS,
        lambda i: {"instruction": f"Count to {i}.", "input": "", "output": "1", "system": None, "history": []},
        {"prompt": "Count to 0.", "completion": "1"},
    ),
    _good(
        "alpaca with a history in some rows",
        "alpaca",
        DataKind.PAIRS,
        lambda i: {
            "instruction": f"Next {i}",
            "output": "ok",
            **({"history": [["a", "b"]], "system": "c"} if i else {}),
        },
        {"prompt": [_user("Next 0")], "completion": [_says("ok")]},
    ),
]

_SYSTEM = {"role": "system", "content": "Be kind."}
_FIRST_KIND = {"prompt": [_SYSTEM, _user("What is 0 + 1?")], "completion": [_says("1")]}


def _columns(asked: str, answer: str) -> GoodFile:
    return _good(
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
    _good(
        "a context before the question",
        "question_answer",
        DataKind.PAIRS,
        lambda i: {"question": f"Who {i}?", "answer": "Ann.", "context": "Ann came." if i < 9 else None, "id": i},
        {"prompt": "Ann came.\n\nWho 0?", "completion": "Ann.", "answer": "Ann.", "id": 0},
    ),
    _good(
        "Dolly's context after the instruction",
        "instruction_response",
        DataKind.PAIRS,
        lambda i: {"instruction": f"Sum up {i}.", "context": "It rained.", "response": "Rain.", "category": "short"},
        {"prompt": "Sum up 0.\n\nIt rained.", "completion": "Rain.", "response": "Rain.", "category": "short"},
    ),
    _good(
        "a context that the prompt has already",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {"prompt": f"Ann came. Who {i}?", "completion": "Ann.", "context": "Ann came."},
        {"prompt": "Ann came. Who 0?", "completion": "Ann."},
    ),
    _good(
        "a system column beside prompts",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {**_pair(i), "system": "Be kind." if i % 2 == 0 else ""},
        _FIRST_KIND,
    ),
    _good(
        "a system prompt from the second row on",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {**_pair(i), "system_prompt": "Be kind." if i else None},
        {"prompt": [_user("What is 0 + 1?")], "completion": [_says("1")]},
    ),
    _good(
        "a system column beside messages",
        "messages",
        DataKind.CHAT,
        lambda i: {"messages": [_user(f"Question {i}"), _says("Answer")], "system": "Be kind."},
        {"messages": [_SYSTEM, *_FIRST_CHAT]},
    ),
    _good(
        "a system column that repeats the system message",
        "messages",
        DataKind.CHAT,
        lambda i: {"messages": [_SYSTEM, _user(f"Question {i}"), _says("Answer")], "system": "Be kind."},
        {"messages": [_SYSTEM, *_FIRST_CHAT]},
    ),
    _good(
        "a system column beside preferences",
        "question_preference",
        DataKind.PREFERENCE,
        lambda i: {"system": "Be kind.", "question": f"Question {i}", "chosen": "good", "rejected": "bad"},
        {**_FIRST_PREFERENCE, "prompt": [_SYSTEM, _user("Question 0")]},
    ),
    _good(
        "a system column beside labels",
        "unpaired",
        DataKind.UNPAIRED,
        lambda i: {**_pair(i), "system": "Be kind.", "label": i % 2 == 0},
        {**_FIRST_KIND, "label": True},
    ),
    _good(
        "a system column beside prompts for a grader",
        "prompt",
        DataKind.PROMPTS,
        lambda i: {"prompt": f"Question {i}", "system": "Be kind.", "answer": 4},
        {"prompt": [_SYSTEM, _user("Question 0")], "answer": 4},
    ),
    _good(
        "OpenAI's older functions",
        "messages",
        DataKind.CHAT,
        lambda i: {
            "messages": [
                _user(f"Weather {i}?"),
                _says(None, function_call={"name": "weather", "arguments": '{"city": null}'}),
                {"role": "function", "name": "weather", "content": "clear"},
                _says("Clear."),
            ],
            "functions": [_BARE_TOOL],
        },
        {
            "messages": [
                _user("Weather 0?"),
                _says(
                    "", tool_calls=[{"type": "function", "function": {"name": "weather", "arguments": {"city": None}}}]
                ),
                {"role": "tool", "content": "clear", "name": "weather"},
                _says("Clear."),
            ],
            "tools": [_TOOL],
        },
    ),
    _good(
        "results in another order than their calls",
        "messages",
        DataKind.CHAT,
        lambda i: {
            "messages": [
                _user(f"Weather {i}?"),
                _says("", tool_calls=[_CALL | {"id": name} for name in "abc"]),
                *({"role": "tool", "content": f"of {name}", "tool_call_id": name} for name in "cab"),
                _says("Clear."),
            ],
        },
        {
            "messages": [
                _user("Weather 0?"),
                _says("", tool_calls=[_CALL | {"id": name} for name in "abc"]),
                *({"role": "tool", "content": f"of {name}", "tool_call_id": name} for name in "abc"),
                _says("Clear."),
            ],
        },
    ),
    _good(
        "reasoning under three names",
        "messages",
        DataKind.CHAT,
        lambda i: {
            "messages": [
                _user(f"Question {i}"),
                _says("One.", reasoning="Hm.", weight=0),
                _user("Then?"),
                _says("Two.", thinking="Hm, hm."),
                _user("Then?"),
                _says("Three.", reasoning_content="Well."),
            ]
        },
        {
            "messages": [
                _user("Question 0"),
                _says("One.", reasoning="Hm.", reasoning_content="Hm.", weight=0),
                _user("Then?"),
                _says("Two.", thinking="Hm, hm.", reasoning_content="Hm, hm."),
                _user("Then?"),
                _says("Three.", reasoning_content="Well."),
            ]
        },
    ),
    _good(
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
            "tools": [_BARE_TOOL],
        },
        _FIRST_AGENT,
    ),
    _good(
        "ShareGPT with one observation for two calls",
        "sharegpt",
        DataKind.CHAT,
        lambda i: {
            "conversations": [
                {"from": "human", "value": f"Weather {i}?"},
                {"from": "function_call", "value": json.dumps([_CALL["function"], _CALL["function"]])},
                {"from": "observation", "value": '["clear", "clear"]'},
                {"from": "gpt", "value": "Clear."},
            ],
        },
        {
            "messages": [
                _user("Weather 0?"),
                _says("", tool_calls=[_CALL, _CALL]),
                {"role": "tool", "content": '["clear", "clear"]'},
                _says("Clear."),
            ]
        },
    ),
    _good(
        "ShareGPT's turns in a column of messages, as JSON text",
        "messages",
        DataKind.CHAT,
        lambda i: {
            "messages": json.dumps([{"from": "human", "value": f"Question {i}"}, {"from": "gpt", "value": "Answer"}]),
            "tools": json.dumps([_BARE_TOOL]),
        },
        {"messages": _FIRST_CHAT, "tools": [_TOOL]},
    ),
    _good(
        "prompts as JSON text of messages",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {"prompt": json.dumps([_user(f"Question {i}")]), "completion": "[]"},
        {"prompt": [_user("Question 0")], "completion": [_says("[]")]},
    ),
    _good(
        "answers that repeat a prompt of text",
        "preference",
        DataKind.PREFERENCE,
        lambda i: {
            "prompt": f"Question {i}",
            "chosen": [_user(f"Question {i}"), _says("good")],
            "rejected": [_user(f"Question {i}"), _says("bad")],
        },
        _FIRST_PREFERENCE,
    ),
    _good(
        "answers that repeat a prompt of messages with a system prompt",
        "preference",
        DataKind.PREFERENCE,
        lambda i: {
            "prompt": [_SYSTEM, _user(f"Question {i}")],
            "chosen": [_SYSTEM, _user(f"Question {i}"), _says("good"), _user("More?"), _says("Yes.")],
            "rejected": [_SYSTEM, _user(f"Question {i}"), _says("bad")],
        },
        {
            "prompt": [_SYSTEM, _user("Question 0")],
            "chosen": [_says("good"), _user("More?"), _says("Yes.")],
            "rejected": [_says("bad")],
        },
    ),
    _good(
        "Alpaca's preferences",
        "alpaca_preference",
        DataKind.PREFERENCE,
        lambda i: {"instruction": f"Add {i}.", "input": "to 1", "chosen": "good", "rejected": "bad"},
        {"prompt": "Add 0.\n\nto 1", "chosen": "good", "rejected": "bad"},
    ),
    _good(
        "a text with a class",
        "text",
        DataKind.TEXT,
        lambda i: {"text": f"Story {i}", "label": i % 2, "system": "x"},
        {"text": "Story 0", "label": 0, "system": "x"},
    ),
    _good(
        "an answer column that is null in every row",
        "prompt",
        DataKind.PROMPTS,
        lambda i: {"prompt": f"Question {i}", "response": None},
        {"prompt": "Question 0", "response": None},
    ),
    _good(
        "a schema's nulls in tools",
        "messages",
        DataKind.CHAT,
        lambda i: {
            "messages": [_user(f"Question {i}"), _says("Answer", tool_calls=None)],
            "tools": [
                {
                    "type": "function",
                    "id": None,
                    "function": {
                        **_BARE_TOOL,
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
            "messages": _FIRST_CHAT,
            "tools": [
                {
                    "type": "function",
                    "function": {
                        **_BARE_TOOL,
                        "parameters": {"type": "object", "properties": {"city": {"default": None}}},
                    },
                }
            ],
        },
    ),
]

CHATS = [
    _good(
        "chat",
        "messages",
        DataKind.CHAT,
        lambda i: {"messages": [_user(f"Question {i}"), _says("Answer")]},
        {"messages": _FIRST_CHAT},
    ),
    _good(
        "chat with a prompt column beside it",
        "messages",
        DataKind.CHAT,
        lambda i: {"messages": [_user(f"Question {i}"), _says("Answer")], "prompt": None if i else "a"},
        {"messages": _FIRST_CHAT, "prompt": "a"},
    ),
    _good(
        "chat with every role, weights and text parts",
        "messages",
        DataKind.CHAT,
        lambda i: {
            "messages": [
                {"role": "system", "content": ""},
                {"role": "developer", "content": "Be short."},
                _user([{"type": "text", "text": "Question "}, {"type": "text", "text": str(i)}]),
                _says("No.", weight=0),
                _user("Sure?") | {"name": "ann"},
                _says("Yes.", weight=1.0, tool_calls=None),
            ],
            "tools": [],
        },
        {
            "messages": [
                {"role": "system", "content": ""},
                {"role": "developer", "content": "Be short."},
                _user("Question 0"),
                _says("No.", weight=0),
                {"role": "user", "content": "Sure?", "name": "ann"},
                _says("Yes.", weight=1),
            ]
        },
    ),
    _good(
        "OpenAI's tool calls",
        "messages",
        DataKind.CHAT,
        lambda i: {
            "messages": [
                _user(f"Weather {i}?"),
                _says(
                    None,
                    tool_calls=[{"type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}],
                ),
                {"role": "tool", "content": '{"sky": "clear"}'},
                _says("Clear."),
            ],
            "tools": [_TOOL],
        },
        _FIRST_AGENT,
    ),
    _good(
        "ShareGPT",
        "sharegpt",
        DataKind.CHAT,
        lambda i: {
            "system": "Be kind.",
            "conversations": [{"from": "human", "value": f"Question {i}"}, {"from": "gpt", "value": "Answer"}],
        },
        {"messages": [{"role": "system", "content": "Be kind."}, *_FIRST_CHAT]},
    ),
    _good(
        "ShareGPT with roles",
        "sharegpt",
        DataKind.CHAT,
        lambda i: {"conversations": [_user(f"Question {i}"), _says("Answer")]},
        {"messages": _FIRST_CHAT},
    ),
    _good(
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
            "tools": json.dumps([_BARE_TOOL]),
        },
        _FIRST_AGENT,
    ),
]

PROMPTS = [
    _good(
        "prompts for a grader",
        "prompt",
        DataKind.PROMPTS,
        lambda i: {"prompt": f"Question {i}", "solution": 4},
        {"prompt": "Question 0", "solution": 4},
    ),
    _good(
        "prompts as messages",
        "prompt",
        DataKind.PROMPTS,
        lambda i: {"prompt": [_user(f"Question {i}")]},
        {"prompt": [_user("Question 0")]},
    ),
    _good(
        "OpenAI's rows for reinforcement",
        "open_messages",
        DataKind.PROMPTS,
        lambda i: {"messages": [_user(f"Question {i}")], "solution": {"words": ["four"]}},
        {"prompt": [_user("Question 0")], "solution": {"words": ["four"]}},
    ),
]

PREFERENCES = [
    _good(
        "preferences",
        "preference",
        DataKind.PREFERENCE,
        lambda i: {"prompt": f"Question {i}", "chosen": "good", "rejected": "bad"},
        {"prompt": "Question 0", "chosen": "good", "rejected": "bad"},
    ),
    _good(
        "preferences as messages",
        "preference",
        DataKind.PREFERENCE,
        lambda i: {"prompt": f"Question {i}", "chosen": [_says("good")], "rejected": "bad"},
        _FIRST_PREFERENCE,
    ),
    _good(
        "preferences with the prompt in both answers",
        "implicit_preference",
        DataKind.PREFERENCE,
        lambda i: {
            "chosen": [_user(f"Question {i}"), _says("good")],
            "rejected": [_user(f"Question {i}"), _says("bad")],
        },
        _FIRST_PREFERENCE,
    ),
    _good(
        "LLaMA-Factory's preferences",
        "sharegpt_preference",
        DataKind.PREFERENCE,
        lambda i: {
            "conversations": [{"from": "human", "value": f"Question {i}"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        _FIRST_PREFERENCE,
    ),
    _good(
        "OpenAI's preferences",
        "openai_preference",
        DataKind.PREFERENCE,
        lambda i: {
            "input": {"messages": [_user(f"Question {i}")], "tools": [_TOOL], "parallel_tool_calls": True},
            "preferred_output": [_says("good")],
            "non_preferred_output": [_says("bad")],
        },
        {**_FIRST_PREFERENCE, "tools": [_TOOL]},
    ),
]


def _judged(index: int) -> Row:
    return {**_pair(index), "label": index % 3 == 0}


_FIRST_JUDGED = {"prompt": "What is 0 + 1?", "completion": "1", "label": True}
_FIRST_JUDGED_CHAT = {"prompt": [_user("How 0?")], "completion": [_says("So.")], "label": False}

UNPAIRED = [
    _good("TRL's unpaired labels", "unpaired", DataKind.UNPAIRED, _judged, _FIRST_JUDGED),
    GoodFile(
        case="unpaired labels in CSV",
        name="train.csv",
        data=_csv(_judged),
        kind=DataKind.UNPAIRED,
        format="unpaired",
        first=_FIRST_JUDGED,
    ),
    _good(
        "unpaired labels on messages",
        "unpaired",
        DataKind.UNPAIRED,
        lambda i: {"prompt": [_user(f"How {i}?")], "completion": "So.", "label": bool(i % 2), "source": "log"},
        {**_FIRST_JUDGED_CHAT, "source": "log"},
    ),
    _good(
        "LLaMA-Factory's unpaired labels on the last message",
        "unpaired_messages",
        DataKind.UNPAIRED,
        lambda i: {"messages": [_user("A?"), _says("B."), _user(f"How {i}?"), _says("So.")], "kto_tag": bool(i % 2)},
        {"prompt": [_user("A?"), _says("B."), _user("How 0?")], "completion": [_says("So.")], "label": False},
    ),
    _good(
        "messages with a label",
        "unpaired_messages",
        DataKind.UNPAIRED,
        lambda i: {"messages": [_user(f"How {i}?"), _says("So.")], "label": bool(i % 2)},
        _FIRST_JUDGED_CHAT,
    ),
    _good(
        "ShareGPT with a tag",
        "unpaired_sharegpt",
        DataKind.UNPAIRED,
        lambda i: {
            "conversations": [{"from": "human", "value": f"How {i}?"}, {"from": "gpt", "value": "So."}],
            "kto_tag": bool(i % 2),
        },
        _FIRST_JUDGED_CHAT,
    ),
    _good(
        "alpaca with a tag",
        "unpaired_alpaca",
        DataKind.UNPAIRED,
        lambda i: {"instruction": f"How {i}?", "input": "", "output": "So.", "kto_tag": bool(i % 2)},
        {"prompt": "How 0?", "completion": "So.", "label": False},
    ),
    _good(
        "labels of many classes",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {**_pair(i), "label": i},
        {**_FIRST_PAIR, "label": 0},
    ),
    _good(
        "labels of which one is neutral",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {**_pair(i), "label": i % 3 - 1},
        {**_FIRST_PAIR, "label": -1},
    ),
    _good(
        "a label on each question's answer",
        "unpaired_question_answer",
        DataKind.UNPAIRED,
        lambda i: {"question": f"Why {i}?", "answer": "So.", "label": ("thumbs down", "Thumbs-Up")[i % 2]},
        {"prompt": "Why 0?", "completion": "So.", "answer": "So.", "label": False},
    ),
    _good(
        "pairs with a label that is no verdict",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {**_pair(i), "label": "arithmetic"},
        {**_FIRST_PAIR, "label": "arithmetic"},
    ),
]


def _contained(case: str, name: str, data: bytes) -> GoodFile:
    return GoodFile(case=case, name=name, data=data, kind=DataKind.PAIRS, format="prompt_completion", first=_FIRST_PAIR)


CONTAINERS = [
    _contained("the ending .ndjson", "train.ndjson", jsonl(_pair)),
    _contained("JSON Lines called .json", "train.json", jsonl(_pair)),
    _contained("a JSON array", "train.json", json.dumps([_pair(i) for i in range(ROWS)]).encode()),
    _contained("an indented JSON array", "train.json", json.dumps([_pair(i) for i in range(ROWS)], indent=2).encode()),
    _contained("a JSON array called .jsonl", "train.jsonl", json.dumps([_pair(i) for i in range(ROWS)]).encode()),
    _contained("a byte order mark", "train.jsonl", b"\xef\xbb\xbf" + jsonl(_pair)),
    _contained(
        "a byte order mark before an array",
        "train.json",
        b"\xef\xbb\xbf" + json.dumps([_pair(i) for i in range(ROWS)]).encode(),
    ),
    _contained("Windows line ends and blank lines", "train.jsonl", jsonl(_pair).replace(b"\n", b"\r\n\r\n")),
    _contained("no line end at the end", "train.jsonl", jsonl(_pair).rstrip()),
    _contained("CSV", "train.csv", _csv(_pair)),
    _contained("CSV with a byte order mark", "train.csv", b"\xef\xbb\xbf" + _csv(_pair)),
    _contained("Parquet", "train.parquet", _parquet(_pair)),
    _contained("tabs", "train.tsv", _csv(_pair).replace(b",", b"\t")),
    _contained("semicolons", "train.csv", _csv(_pair).replace(b",", b";")),
    _contained("bars called .csv", "train.csv", _csv(_pair).replace(b",", b"|")),
    _contained(
        "CSV with spaces before quotes",
        "train.csv",
        b"prompt, completion\n" + b"".join(f'"What is {i} + 1?",  "{i + 1}"\n'.encode() for i in range(ROWS)),
    ),
    GoodFile(
        case="CSV with a quoted answer that starts with a space and a quote",
        name="train.csv",
        data=_csv(lambda i: {"prompt": f"Say {i}", "completion": ' "so", he said', "note": " spaced"}),
        kind=DataKind.PAIRS,
        format="prompt_completion",
        first={"prompt": "Say 0", "completion": ' "so", he said', "note": " spaced"},
    ),
    GoodFile(
        case="CSV with JSON text of messages",
        name="train.csv",
        data=_csv(lambda i: {"conversations": json.dumps([_user(f"Question {i}"), _says("Answer")]), "system": ""}),
        kind=DataKind.CHAT,
        format="sharegpt",
        first={"messages": _FIRST_CHAT},
    ),
    GoodFile(
        case="Parquet with columns that JSON cannot hold",
        name="train.parquet",
        data=_table(
            {
                "prompt": [f"What is {i} + 1?" for i in range(ROWS)],
                "completion": [str(i + 1) for i in range(ROWS)],
                "picture": [b"\x89PNG"] * ROWS,
                "score": [float("nan")] * ROWS,
                "when": pyarrow.array([2**62] * ROWS, pyarrow.timestamp("us")),
                "took": pyarrow.array([5] * ROWS, pyarrow.duration("s")),
                "tags": pyarrow.array(
                    [[("a", 1), ("b", None)]] * ROWS, pyarrow.map_(pyarrow.string(), pyarrow.int64())
                ),
                "broken": pyarrow.array([b"\xff"] * ROWS, pyarrow.binary()).view(pyarrow.string()),
            }
        ),
        kind=DataKind.PAIRS,
        format="prompt_completion",
        first={**_FIRST_PAIR, "tags": {"a": 1, "b": None}},
    ),
    GoodFile(
        case="CSV with line breaks, quotes and a history left empty",
        name="train.csv",
        data=_csv(lambda i: {"instruction": f'Say "{i}"\nloudly', "output": "a,b\n\nc", "input": "", "history": ""}),
        kind=DataKind.PAIRS,
        format="alpaca",
        first={"prompt": 'Say "0"\nloudly', "completion": "a,b\n\nc"},
    ),
    GoodFile(
        case="Parquet with messages, where structs share their keys",
        name="train.parquet",
        data=_parquet(
            lambda i: {
                "messages": [
                    _user(f"Weather {i}?"),
                    _says(None, tool_calls=[_CALL]),
                    {"role": "tool", "content": '{"sky": "clear"}'},
                    _says("Clear."),
                ],
                "tools": json.dumps([_TOOL]),
            }
        ),
        kind=DataKind.CHAT,
        format="messages",
        first=_FIRST_AGENT,
    ),
]

GOOD_FILES = [*TEXTS, *PAIRS, *LAYOUTS, *CHATS, *PROMPTS, *PREFERENCES, *UNPAIRED, *CONTAINERS]
