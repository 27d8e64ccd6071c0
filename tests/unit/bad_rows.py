"""Rows that must be refused: each stands as row 3 of a JSON Lines file whose other eleven rows are good."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

USER: Row = {"role": "user", "content": "How are you?"}
ASSISTANT: Row = {"role": "assistant", "content": "Fine."}

TEXT: Row = {"text": "Once upon a time."}
PAIR: Row = {"prompt": "What is 1 + 1?", "completion": "2"}
MESSAGE_PAIR: Row = {"prompt": [USER], "completion": [ASSISTANT]}
CHAT: Row = {"messages": [USER, ASSISTANT]}
SHAREGPT: Row = {"conversations": [{"from": "human", "value": "How are you?"}, {"from": "gpt", "value": "Fine."}]}
ALPACA: Row = {"instruction": "Add the numbers.", "input": "1, 1", "output": "2"}
PREFERENCE: Row = {"prompt": "What is 1 + 1?", "chosen": "2", "rejected": "3"}
UNPAIRED: Row = {"prompt": "What is 1 + 1?", "completion": "2", "label": True}
TAGGED: Row = {**CHAT, "kto_tag": False}
IMPLICIT: Row = {"chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "Bad."}]}
OPENAI: Row = {
    "input": {"messages": [USER]},
    "preferred_output": [ASSISTANT],
    "non_preferred_output": [{"role": "assistant", "content": "Bad."}],
}


@dataclass(frozen=True)
class BadRow:
    case: str
    good: Row
    bad: Any
    fault: str  # what the line of row 3 must contain; … stands for any text

    @property
    def data(self) -> bytes:
        rows = [self.good] * 2 + [self.bad] + [self.good] * 9
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _said(**message: Any) -> Row:
    """A chat whose answer is the given message."""
    return {"messages": [USER, {"role": "assistant", **message}]}


def _asked(message: Any) -> Row:
    return {"messages": [message, ASSISTANT]}


def _called(**function: Any) -> Row:
    return _said(tool_calls=[{"type": "function", "function": function}])


def _results(calls: list[str | None], results: list[str | None]) -> Row:
    """A chat of one message with calls of these ids, and results of these ids; None: no id."""
    made = [{"type": "function", "function": {"name": "f"}} | ({"id": name} if name else {}) for name in calls]
    found = [{"role": "tool", "content": "7"} | ({"tool_call_id": name} if name else {}) for name in results]
    return {"messages": [USER, {"role": "assistant", "tool_calls": made}, *found, ASSISTANT]}


ROWS = [
    BadRow("a row that is a list", PAIR, ["a", "b"], ": …found a list of 2"),
    BadRow("a row that is a string", PAIR, "hello", ": …found the string 'hello'"),
    BadRow("a row of another format", PAIR, TEXT, ", columns `text`: …`prompt`, `completion`"),
    BadRow("a row without its answer", PAIR, {"prompt": "a"}, ", columns `prompt`: …`completion`"),
    BadRow("pictures", CHAT, CHAT | {"images": ["a.png"]}, ", field `images`: …"),
    BadRow("a text of nothing to be seen", TEXT, {"text": "\u200b\u2060\ufeff \u2800"}, ", field `text`: …white space"),
    BadRow("an empty text", TEXT, {"text": ""}, ", field `text`: …found an empty string"),
    BadRow("a text that is a list", TEXT, {"text": ["a"]}, ", field `text`: …found a list of 1"),
]

PAIRS = [
    BadRow(
        "a null completion",
        PAIR,
        PAIR | {"completion": None},
        ", field `completion`: …found null",
    ),
    BadRow(
        "a blank completion", PAIR, PAIR | {"completion": " \n"}, ", field `completion`: …found a string of white space"
    ),
    BadRow(
        "messages as Python writes them",
        PAIR,
        PAIR | {"prompt": "[{'role': 'user', 'content': 'Hi'}]"},
        ", field `prompt`: …messages as JSON…",
    ),
    BadRow("a number as a completion", PAIR, PAIR | {"completion": 7}, ", field `completion`: …found the number 7"),
    BadRow("a boolean as a completion", PAIR, PAIR | {"completion": True}, ", field `completion`: …found true"),
    BadRow("an empty prompt", PAIR, PAIR | {"prompt": ""}, ", field `prompt`: …found an empty string"),
    BadRow("messages among strings", PAIR, MESSAGE_PAIR, ", field `prompt`: …found a list of messages"),
    BadRow("strings among messages", MESSAGE_PAIR, PAIR, ", field `prompt`: …found a string"),
    BadRow(
        "a prompt that ends with an answer",
        MESSAGE_PAIR,
        {"prompt": [USER, ASSISTANT], "completion": "Fine."},
        ", field `prompt`: …found the role `assistant` last",
    ),
    BadRow(
        "a completion by the user",
        MESSAGE_PAIR,
        {"prompt": [USER], "completion": [USER]},
        ", field `completion[0].role`: …found the string 'user'",
    ),
    BadRow(
        "a completion that ends with a tool's result",
        MESSAGE_PAIR,
        {"prompt": [USER], "completion": [ASSISTANT, {"role": "tool", "content": "7"}]},
        ", field `completion`: …found the role `tool` last",
    ),
    BadRow(
        "an empty instruction", ALPACA, ALPACA | {"instruction": ""}, ", field `instruction`: …found an empty string"
    ),
    BadRow("an empty output", ALPACA, ALPACA | {"output": ""}, ", field `output`: …found an empty string"),
    BadRow("an input that is a number", ALPACA, ALPACA | {"input": 1}, ", field `input`: …found the number 1"),
    BadRow("a system that is a list", ALPACA, ALPACA | {"system": [1]}, ", field `system`: …found a list of 1"),
    BadRow("a history that is a string", ALPACA, ALPACA | {"history": "a"}, ", field `history`: …found the string 'a'"),
    BadRow(
        "half a round of history", ALPACA, ALPACA | {"history": [["a"]]}, ", field `history[0]`: …found a list of 1"
    ),
]

CHATS = [
    BadRow("messages that are no list", CHAT, {"messages": "a"}, ", field `messages`: …found the string 'a'"),
    BadRow("no messages", CHAT, {"messages": []}, ", field `messages`: …found an empty list"),
    BadRow("a message that is no object", CHAT, _asked("a"), ", field `messages[0]`: …found the string 'a'"),
    BadRow(
        "an unknown role",
        CHAT,
        _asked({"role": "bot", "content": "a"}),
        ", field `messages[0].role`: …found the string 'bot'",
    ),
    BadRow(
        "a role that is a list",
        CHAT,
        _asked({"role": [], "content": "a"}),
        ", field `messages[0].role`: …found an empty list",
    ),
    BadRow("a message without a role", CHAT, _asked({"content": "a"}), ", field `messages[0].role`: …found null"),
    BadRow("a message without content", CHAT, _asked({"role": "user"}), ", field `messages[0].content`: …found null"),
    BadRow(
        "a picture in a message",
        CHAT,
        _asked({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}),
        ", field `messages[0].content[0]`: …found an object",
    ),
    BadRow(
        "a text part without text",
        CHAT,
        _asked({"role": "user", "content": [{"type": "text"}]}),
        ", field `messages[0].content[0].text`: …found null",
    ),
    BadRow("a chat without an answer", CHAT, {"messages": [USER]}, ", field `messages`: …no assistant message"),
    BadRow(
        "a chat that ends with a question",
        CHAT,
        {"messages": [USER, ASSISTANT, USER]},
        ", field `messages`: …found the role `user` last",
    ),
    BadRow("an empty answer", CHAT, _said(content=""), ", field `messages[1].content`: …found an empty string"),
    BadRow("an empty question", CHAT, _asked({"role": "user", "content": ""}), ", field `messages[0].content`: …empty"),
    BadRow(
        "a question of white space with a name",
        CHAT,
        _asked({"role": "user", "content": [{"type": "text", "text": " \n"}], "name": "ann"}),
        ", field `messages[0].content`: …white space",
    ),
    BadRow(
        "an empty turn of a human",
        SHAREGPT,
        {"conversations": [{"from": "human", "value": ""}, {"from": "gpt", "value": "Fine."}]},
        ", field `conversations[0].content`: …empty",
    ),
    BadRow(
        "an empty question before a completion",
        MESSAGE_PAIR,
        {"prompt": [{"role": "user", "content": "\u00ad"}], "completion": [ASSISTANT]},
        ", field `prompt[0].content`: …white space",
    ),
    BadRow("an answer without a width", CHAT, _said(content="\u200d"), ", field `messages[1].content`: …white space"),
    BadRow("a null answer", CHAT, _said(content=None), ", field `messages[1].content`: …found null"),
    BadRow(
        "a weight of a half",
        CHAT,
        _said(content="a", weight=0.5),
        ", field `messages[1].weight`: …found the number 0.5",
    ),
    BadRow("a weight of true", CHAT, _said(content="a", weight=True), ", field `messages[1].weight`: …found true"),
    BadRow("a weight on a question", CHAT, _asked(USER | {"weight": 1}), ", field `messages[0]`: …`weight`"),
    BadRow(
        "a tool call by the user", CHAT, _asked(USER | {"tool_calls": [{}]}), ", field `messages[0]`: …`tool_calls`"
    ),
    BadRow("nothing to learn", CHAT, _said(content="a", weight=0), ", field `messages`: …weight 0"),
    BadRow(
        "tool calls that are no list",
        CHAT,
        _said(tool_calls={"name": "f"}),
        ", field `messages[1].tool_calls`: …found an object",
    ),
    BadRow(
        "a tool call that is a string",
        CHAT,
        _said(tool_calls=["f"]),
        ", field `messages[1].tool_calls[0]`: …found the string 'f'",
    ),
    BadRow(
        "a tool call without a name", CHAT, _called(), ", field `messages[1].tool_calls[0].function.name`: …found null"
    ),
    BadRow(
        "a function that is a string",
        CHAT,
        _said(tool_calls=[{"function": "f"}]),
        ", field `messages[1].tool_calls[0].function`: …found the string 'f'",
    ),
    BadRow(
        "arguments that are no JSON",
        CHAT,
        _called(name="f", arguments="{"),
        ", field `messages[1].tool_calls[0].function.arguments`: …found the string '{'",
    ),
    BadRow(
        "arguments that are a list",
        CHAT,
        _called(name="f", arguments="[]"),
        ", field `messages[1].tool_calls[0].function.arguments`: …found an empty list",
    ),
    BadRow(
        "arguments that hold NaN",
        CHAT,
        _called(name="f", arguments='{"x": NaN}'),
        ", field `messages[1].tool_calls[0].function.arguments`: …NaN",
    ),
    BadRow(
        "arguments that hold half a character",
        CHAT,
        _called(name="f", arguments=r'{"x": "\ud83d"}'),
        ", field `messages[1].tool_calls[0].function.arguments`: …ud83d",
    ),
    BadRow(
        "arguments nested too deep",
        CHAT,
        _called(name="f", arguments="[" * 70 + "]" * 70),
        ", field `messages[1].tool_calls[0].function.arguments`: …[[[[",
    ),
    BadRow(
        "an older function call without a name",
        CHAT,
        _said(content=None, function_call={"arguments": "{}"}),
        ", field `messages[1].function_call.function.name`: …found null",
    ),
    BadRow(
        "calls of both styles",
        CHAT,
        _said(content=None, function_call={"name": "f"}, tool_calls=[{"name": "g"}]),
        ", field `messages[1]`: …`tool_calls`…`function_call`",
    ),
    BadRow(
        "tools of both styles that differ",
        CHAT,
        CHAT | {"tools": [{"name": "f"}], "functions": [{"name": "g"}]},
        ", fields `tools` and `functions`: …only one",
    ),
    BadRow(
        "a result of a call that nobody made",
        CHAT,
        _results(["a", "b"], ["b", "z"]),
        ", field `messages[3].tool_call_id`: …`a`, `b`…found the string 'z'",
    ),
    BadRow(
        "two results of one call",
        CHAT,
        _results(["a", "b"], ["b", "b"]),
        ", field `messages[3].tool_call_id`: …second",
    ),
    BadRow(
        "a result with an id of a call without one",
        CHAT,
        _results([None, None], ["a", "b"]),
        ", field `messages[2].tool_call_id`: …calls without ids…found the string 'a'",
    ),
    BadRow("two calls with one id", CHAT, _results(["a", "a"], ["a", "a"]), ", field `messages[2]`: …same id"),
    BadRow(
        "two results without ids for three calls",
        CHAT,
        _results(["a", "b", "c"], [None, None]),
        ", field `messages[2]`: …3 results",
    ),
    BadRow(
        "fewer results than calls, some without an id",
        CHAT,
        _results(["a", "b", "c"], ["b", None]),
        ", field `messages[2]`: …lack a `tool_call_id`",
    ),
    BadRow(
        "a result with an id after no call",
        CHAT,
        {"messages": [USER, ASSISTANT, {"role": "tool", "content": "1", "tool_call_id": "a"}, ASSISTANT]},
        ", field `messages[2].tool_call_id`: …found the string 'a'",
    ),
    BadRow(
        "reasoning that is a number",
        CHAT,
        _said(content="a", reasoning_content=3),
        ", field `messages[1].reasoning_content`: …found the number 3",
    ),
    BadRow(
        "two system prompts",
        CHAT | {"system": "Be kind."},
        {"messages": [{"role": "system", "content": "Be rude."}, USER, ASSISTANT], "system": "Be kind."},
        ", field `system`: …`messages`",
    ),
    BadRow("tools that are no list", CHAT, CHAT | {"tools": {"name": "f"}}, ", field `tools`: …found an object"),
    BadRow("tools that are no JSON", CHAT, CHAT | {"tools": "f(x)"}, ", field `tools`: …found the string 'f(x)'"),
    BadRow(
        "a tool without a name",
        CHAT,
        CHAT | {"tools": [{"type": "function"}]},
        ", field `tools[0].function.name`: …found null",
    ),
    BadRow(
        "an unknown speaker",
        SHAREGPT,
        {"conversations": [{"from": "bot", "value": "a"}]},
        ", field `conversations[0].from`: …human, user, gpt, assistant, …found the string 'bot'",
    ),
    BadRow(
        "a turn that is a string",
        SHAREGPT,
        {"conversations": ["a"]},
        ", field `conversations[0]`: …found the string 'a'",
    ),
    BadRow(
        "a turn without a value",
        SHAREGPT,
        {"conversations": [{"from": "human"}]},
        ", field `conversations[0].value`: …found null",
    ),
    BadRow(
        "a call that is no JSON",
        SHAREGPT,
        {"conversations": [{"from": "function_call", "value": "f(1)"}]},
        ", field `conversations[0].value`: …found the string 'f(1)'",
    ),
    BadRow("no turns", SHAREGPT, {"conversations": []}, ", field `conversations`: …found an empty list"),
]

PREFERENCES = [
    BadRow(
        "the same answer twice",
        PREFERENCE,
        PREFERENCE | {"rejected": "2"},
        ", fields `chosen` and `rejected`: …same one twice",
    ),
    BadRow(
        "a prompt that the answers do not start with",
        PREFERENCE,
        IMPLICIT | {"prompt": "Who are you?"},
        ", fields `chosen` and `rejected`: …`prompt`, 'Who are you?'",
    ),
    BadRow(
        "messages that the answers do not start with",
        PREFERENCE | {"prompt": [USER]},
        IMPLICIT | {"prompt": [{"role": "user", "content": "Who are you?"}]},
        ", field `chosen`: …start with the messages of `prompt`",
    ),
    BadRow(
        "an answer of weight 0",
        MESSAGE_PAIR,
        {"prompt": [USER], "completion": [ASSISTANT | {"weight": 0}]},
        ", field `completion`: …weight 0",
    ),
    BadRow(
        "the same chat twice",
        IMPLICIT,
        {"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]},
        ", fields `chosen` and `rejected`: …same one twice",
    ),
    BadRow(
        "the same output twice",
        OPENAI,
        OPENAI | {"non_preferred_output": [ASSISTANT]},
        ", fields `chosen` and `rejected`: …same one twice",
    ),
    BadRow(
        "an empty rejected answer",
        PREFERENCE,
        PREFERENCE | {"rejected": ""},
        ", field `rejected`: …found an empty string",
    ),
    BadRow(
        "no chosen answer", PREFERENCE, {"prompt": "a", "rejected": "b"}, ", columns `prompt`, `rejected`: …`chosen`"
    ),
    BadRow(
        "strings without a prompt",
        IMPLICIT,
        {"chosen": "a", "rejected": "b"},
        ", field `chosen`: …`prompt` column…found the string 'a'",
    ),
    BadRow(
        "answers without a common prompt",
        IMPLICIT,
        {"chosen": [ASSISTANT], "rejected": [{"role": "assistant", "content": "Bad."}]},
        ", fields `chosen` and `rejected`: …found none",
    ),
    BadRow(
        "one answer that is part of the other",
        IMPLICIT,
        {"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT, USER, ASSISTANT]},
        ", field `prompt`: …found the role `assistant` last",
    ),
    BadRow("an input without messages", OPENAI, OPENAI | {"input": {}}, ", field `input.messages`: …found null"),
    BadRow("an input that is a string", OPENAI, OPENAI | {"input": "a"}, ", field `input`: …found the string 'a'"),
    BadRow(
        "a preferred question",
        OPENAI,
        OPENAI | {"preferred_output": [USER]},
        ", field `preferred_output[0].role`: …found the string 'user'",
    ),
]

UNPAIRED_ROWS = [
    BadRow(
        "a label that is a number",
        UNPAIRED,
        UNPAIRED | {"label": 0.5},
        ", field `label`: …found the number 0.5",
    ),
    BadRow("a label that is null", UNPAIRED, UNPAIRED | {"label": None}, ", field `label`: …found null"),
    BadRow("no label", UNPAIRED, PAIR, ", columns `prompt`, `completion`: …`label`"),
    BadRow(
        "an empty judged answer",
        UNPAIRED,
        UNPAIRED | {"completion": ""},
        ", field `completion`: …found an empty string",
    ),
    BadRow("an empty label", UNPAIRED, UNPAIRED | {"label": " "}, ", field `label`: …found a string of white space"),
    BadRow("a tag in other words", TAGGED, TAGGED | {"kto_tag": "meh"}, ", field `kto_tag`: …found the string 'meh'"),
    BadRow(
        "a label on a message of weight 0",
        TAGGED,
        {"messages": [USER, ASSISTANT, USER, ASSISTANT | {"weight": 0}], "kto_tag": True},
        ", field `messages[3].weight`: …found the number 0",
    ),
]

BAD_ROWS = [*UNPAIRED_ROWS, *ROWS, *PAIRS, *CHATS, *PREFERENCES]
