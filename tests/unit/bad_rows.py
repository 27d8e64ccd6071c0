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
    fault: str  # the text that must stand in the line of row 3

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


ROWS = [
    BadRow("a row that is a list", PAIR, ["a", "b"], ": expected an object, found a list of 2"),
    BadRow("a row that is a string", PAIR, "hello", ": expected an object, found the string 'hello'"),
    BadRow("a row of another format", PAIR, TEXT, ", columns `text`: expected `prompt`, `completion` too"),
    BadRow("a row without its answer", PAIR, {"prompt": "a"}, ", columns `prompt`: expected `completion` too"),
    BadRow("pictures", CHAT, CHAT | {"images": ["a.png"]}, ", field `images`: pictures, video and sound are not"),
    BadRow("an empty text", TEXT, {"text": ""}, ", field `text`: expected a non-empty string, found an empty string"),
    BadRow(
        "a text that is a list", TEXT, {"text": ["a"]}, ", field `text`: expected a non-empty string, found a list of 1"
    ),
]

PAIRS = [
    BadRow(
        "a null completion",
        PAIR,
        PAIR | {"completion": None},
        ", field `completion`: expected a non-empty string, found null",
    ),
    BadRow("a blank completion", PAIR, PAIR | {"completion": " \n"}, "found a string of white space"),
    BadRow("a number as a completion", PAIR, PAIR | {"completion": 7}, "found the number 7"),
    BadRow("a boolean as a completion", PAIR, PAIR | {"completion": True}, "found true"),
    BadRow("an empty prompt", PAIR, PAIR | {"prompt": ""}, ", field `prompt`: expected a non-empty string"),
    BadRow(
        "messages among strings", PAIR, MESSAGE_PAIR, "expected a string as in the first row, found a list of messages"
    ),
    BadRow(
        "strings among messages", MESSAGE_PAIR, PAIR, "expected a list of messages as in the first row, found a string"
    ),
    BadRow(
        "a prompt that ends with an answer",
        MESSAGE_PAIR,
        {"prompt": [USER, ASSISTANT], "completion": "Fine."},
        "expected a prompt that ends before the assistant's answer, found the role `assistant` last",
    ),
    BadRow(
        "a completion by the user",
        MESSAGE_PAIR,
        {"prompt": [USER], "completion": [USER]},
        ", field `completion[0].role`: expected `assistant`",
    ),
    BadRow(
        "a completion that ends with a tool's result",
        MESSAGE_PAIR,
        {"prompt": [USER], "completion": [ASSISTANT, {"role": "tool", "content": "7"}]},
        ", field `completion`: expected an assistant message at the end, found the role `tool` last",
    ),
    BadRow("an empty instruction", ALPACA, ALPACA | {"instruction": ""}, ", field `instruction`: expected a non-empty"),
    BadRow("an empty output", ALPACA, ALPACA | {"output": ""}, ", field `output`: expected a non-empty string"),
    BadRow("an input that is a number", ALPACA, ALPACA | {"input": 1}, ", field `input`: expected a string or nothing"),
    BadRow(
        "a system that is a list", ALPACA, ALPACA | {"system": [1]}, ", field `system`: expected a string or nothing"
    ),
    BadRow("a history that is a string", ALPACA, ALPACA | {"history": "a"}, ", field `history`: expected a list of"),
    BadRow(
        "half a round of history", ALPACA, ALPACA | {"history": [["a"]]}, ", field `history[0]`: expected [question,"
    ),
]

CHATS = [
    BadRow("messages that are no list", CHAT, {"messages": "a"}, "expected a list of messages, found the string 'a'"),
    BadRow(
        "no messages", CHAT, {"messages": []}, ", field `messages`: expected a list of messages, found an empty list"
    ),
    BadRow("a message that is no object", CHAT, _asked("a"), ", field `messages[0]`: expected an object with `role`"),
    BadRow(
        "an unknown role",
        CHAT,
        _asked({"role": "bot", "content": "a"}),
        ", field `messages[0].role`: expected one of system, developer, user, assistant, tool, found the string 'bot'",
    ),
    BadRow("a role that is a list", CHAT, _asked({"role": [], "content": "a"}), "found an empty list"),
    BadRow("a message without a role", CHAT, _asked({"content": "a"}), ", field `messages[0].role`: expected one of"),
    BadRow(
        "a message without content", CHAT, _asked({"role": "user"}), ", field `messages[0].content`: expected a string"
    ),
    BadRow(
        "a picture in a message",
        CHAT,
        _asked({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}),
        ", field `messages[0].content[0]`: expected a part of type `text`",
    ),
    BadRow(
        "a text part without text",
        CHAT,
        _asked({"role": "user", "content": [{"type": "text"}]}),
        ", field `messages[0].content[0].text`: expected a string, found null",
    ),
    BadRow("a chat without an answer", CHAT, {"messages": [USER]}, ", field `messages`: there is no assistant message"),
    BadRow(
        "a chat that ends with a question",
        CHAT,
        {"messages": [USER, ASSISTANT, USER]},
        ", field `messages`: expected an assistant message at the end, found the role `user` last",
    ),
    BadRow("an empty answer", CHAT, _said(content=""), ", field `messages[1].content`: expected a non-empty answer"),
    BadRow("a null answer", CHAT, _said(content=None), ", field `messages[1].content`: expected a string, found null"),
    BadRow("a weight of a half", CHAT, _said(content="a", weight=0.5), ", field `messages[1].weight`: expected 0 or 1"),
    BadRow("a weight of true", CHAT, _said(content="a", weight=True), "expected 0 or 1, found true"),
    BadRow("a weight on a question", CHAT, _asked(USER | {"weight": 1}), "only an assistant message can have"),
    BadRow("a tool call by the user", CHAT, _asked(USER | {"tool_calls": [{}]}), "only an assistant message can have"),
    BadRow("nothing to learn", CHAT, _said(content="a", weight=0), "every assistant message has weight 0"),
    BadRow("tool calls that are no list", CHAT, _said(tool_calls={"name": "f"}), "expected a list of tool calls"),
    BadRow(
        "a tool call that is a string", CHAT, _said(tool_calls=["f"]), "messages[1].tool_calls[0]`: expected an object"
    ),
    BadRow(
        "a tool call without a name", CHAT, _called(), "function.name`: expected the name of a function, found null"
    ),
    BadRow(
        "a function that is a string", CHAT, _said(tool_calls=[{"function": "f"}]), ".function`: expected an object"
    ),
    BadRow(
        "arguments that are no JSON", CHAT, _called(name="f", arguments="{"), "expected an object, or its JSON text"
    ),
    BadRow(
        "arguments that are a list", CHAT, _called(name="f", arguments="[]"), "expected an object, or its JSON text"
    ),
    BadRow(
        "arguments that hold NaN", CHAT, _called(name="f", arguments='{"x": NaN}'), "expected an object, or its JSON"
    ),
    BadRow(
        "arguments that hold half a character",
        CHAT,
        _called(name="f", arguments=r'{"x": "\ud83d"}'),
        "expected an object, or its JSON text",
    ),
    BadRow(
        "arguments nested too deep", CHAT, _called(name="f", arguments="[" * 70 + "]" * 70), "or its JSON text, found"
    ),
    BadRow(
        "an old function call",
        CHAT,
        _said(content=None, function_call={"name": "f", "arguments": "{}"}),
        ", field `messages[1].function_call`: this old form is not supported; use `tool_calls`",
    ),
    BadRow(
        "tools that are no list", CHAT, CHAT | {"tools": {"name": "f"}}, ", field `tools`: expected a list of tools"
    ),
    BadRow(
        "tools that are no JSON", CHAT, CHAT | {"tools": "f(x)"}, ", field `tools`: expected a list of tools, or its"
    ),
    BadRow("a tool without a name", CHAT, CHAT | {"tools": [{"type": "function"}]}, "expected the name of a function"),
    BadRow(
        "an unknown speaker",
        SHAREGPT,
        {"conversations": [{"from": "bot", "value": "a"}]},
        ", field `conversations[0].from`: expected one of system, human, gpt, observation, function_call, found",
    ),
    BadRow("a turn that is a string", SHAREGPT, {"conversations": ["a"]}, "expected an object with `from` and `value`"),
    BadRow(
        "a turn without a value",
        SHAREGPT,
        {"conversations": [{"from": "human"}]},
        ", field `conversations[0].value`: expected a string, found null",
    ),
    BadRow(
        "a call that is no JSON",
        SHAREGPT,
        {"conversations": [{"from": "function_call", "value": "f(1)"}]},
        ", field `conversations[0].value`: expected a call as JSON",
    ),
    BadRow("no turns", SHAREGPT, {"conversations": []}, "expected a list of turns, found an empty list"),
]

PREFERENCES = [
    BadRow(
        "the same answer twice",
        PREFERENCE,
        PREFERENCE | {"rejected": "2"},
        ", fields `chosen` and `rejected`: expected two different answers, found the same one twice",
    ),
    BadRow(
        "the same chat twice", IMPLICIT, {"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]}, "same one twice"
    ),
    BadRow("the same output twice", OPENAI, OPENAI | {"non_preferred_output": [ASSISTANT]}, "found the same one twice"),
    BadRow(
        "an empty rejected answer", PREFERENCE, PREFERENCE | {"rejected": ""}, ", field `rejected`: expected a non-"
    ),
    BadRow("no chosen answer", PREFERENCE, {"prompt": "a", "rejected": "b"}, "expected `chosen` too"),
    BadRow("strings without a prompt", IMPLICIT, {"chosen": "a", "rejected": "b"}, "or a `prompt` column"),
    BadRow(
        "answers without a common prompt",
        IMPLICIT,
        {"chosen": [ASSISTANT], "rejected": [{"role": "assistant", "content": "Bad."}]},
        "expected the same prompt at the start of both, found none",
    ),
    BadRow(
        "one answer that is part of the other",
        IMPLICIT,
        {"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT, USER, ASSISTANT]},
        ", field `prompt`: expected a prompt that ends before the assistant's answer",
    ),
    BadRow("an input without messages", OPENAI, OPENAI | {"input": {}}, ", field `input.messages`: expected a list"),
    BadRow("an input that is a string", OPENAI, OPENAI | {"input": "a"}, ", field `input`: expected an object"),
    BadRow("a preferred question", OPENAI, OPENAI | {"preferred_output": [USER]}, ", field `preferred_output[0].role`"),
]

UNPAIRED_ROWS = [
    BadRow(
        "a label that is a number",
        UNPAIRED,
        UNPAIRED | {"label": 1},
        ", field `label`: expected true (desirable) or false (undesirable), found the number 1",
    ),
    BadRow("a label that is null", UNPAIRED, UNPAIRED | {"label": None}, ", field `label`: expected true (desirable)"),
    BadRow("no label", UNPAIRED, PAIR, "expected `label` too"),
    BadRow("an empty judged answer", UNPAIRED, UNPAIRED | {"completion": ""}, ", field `completion`: expected a non-"),
    BadRow(
        "a tag in other words", TAGGED, TAGGED | {"kto_tag": "good"}, ", field `kto_tag`: expected true (desirable) or"
    ),
]

BAD_ROWS = [*UNPAIRED_ROWS, *ROWS, *PAIRS, *CHATS, *PREFERENCES]
