"""Conversations as users bring them, and the chat templates that TRL ships to train on them."""

from __future__ import annotations

import copy
import re
from importlib.resources import files
from typing import Any, Final

from transformers import AddedToken, PreTrainedTokenizerBase

Message = dict[str, Any]

PUBLISHED: Final = files("trl") / "chat_templates"
TEMPLATES: Final = sorted(
    file.name.removesuffix(".jinja")
    for file in PUBLISHED.iterdir()
    if file.name.endswith(".jinja") and not file.name.endswith("_training.jinja")
)

TOOLS: Final = [
    {
        "type": "function",
        "function": {
            "name": "paint",
            "description": "Paints a wall.",
            "parameters": {"type": "object", "properties": {"wall": {"type": "string"}}, "required": ["wall"]},
        },
    }
]
_CALL: Final = {"type": "function", "id": "call00001", "function": {"name": "paint", "arguments": {"wall": "north"}}}


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _says(text: str, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


CONVERSATIONS: Final[dict[str, list[Message]]] = {
    "single": [_user("Which wall?"), _says("The north wall.")],
    "system": [{"role": "system", "content": "Be short."}, _user("Which wall?"), _says("The north wall.")],
    "multi-turn": [_user("Which wall?"), _says("The north wall."), _user("And then?"), _says("The south wall.")],
    "reasoning": [
        _user("Which wall?"),
        _says("The north wall.", reasoning_content="North is damp."),
        _user("And then?"),
        _says("The south wall.", reasoning_content="South is left."),
    ],
    "tool calls": [
        _user("Paint a wall."),
        {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        {"role": "tool", "name": "paint", "tool_call_id": "call00001", "content": "wet"},
        _says("It is painted."),
    ],
    "starts with the assistant": [_says("Which wall shall I paint?"), _user("North."), _says("As you like.")],
    "ends with the user": [_user("Which wall?"), _says("The north wall."), _user("Thank you.")],
    "two user turns": [_user("Which wall?"), _user("Be quick."), _says("The north wall.")],
    "empty system": [{"role": "system", "content": ""}, _user("Which wall?"), _says("The north wall.")],
    "developer": [{"role": "developer", "content": "Be short."}, _user("Which wall?"), _says("The north wall.")],
}


def speaking(tokenizer: PreTrainedTokenizerBase, template: str) -> PreTrainedTokenizerBase:
    """Return a copy of a tokenizer that speaks a published template: every `<mark>` of its text is one token."""
    text = (PUBLISHED / f"{template}.jinja").read_text("utf-8")
    own = copy.deepcopy(tokenizer)
    marks = sorted({*re.findall(r"<[|｜/]?[^<>\s'\"{}=+]+[|｜]?>", text), "[INST]", "[/INST]", "[gMASK]"})
    special = [mark for mark in marks if not re.match("</?(think|tool|arg|atem)", mark)]
    own.add_tokens([AddedToken(mark, special=mark in special, normalized=False) for mark in marks])
    own.bos_token, own.eos_token = "<s>", "</s>"
    own.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"})
    own.chat_template = text
    return own
