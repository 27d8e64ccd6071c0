"""Conversations as users bring them, and the chat templates that TRL ships to train on them."""

from __future__ import annotations

import copy
import re
from importlib.resources import files
from typing import Any, Final

from transformers import AddedToken, PreTrainedTokenizerBase

from workers.train.data.tokenize import Renderer, Tokens

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


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


CONVERSATIONS: Final[dict[str, list[Message]]] = {
    "single": [user("Which wall?"), assistant("The north wall.")],
    "system": [{"role": "system", "content": "Be short."}, user("Which wall?"), assistant("The north wall.")],
    "multi-turn": [user("Which wall?"), assistant("The north wall."), user("And then?"), assistant("The south wall.")],
    "reasoning": [
        user("Which wall?"),
        assistant("The north wall.", reasoning_content="North is damp."),
        user("And then?"),
        assistant("The south wall.", reasoning_content="South is left."),
    ],
    "tool calls": [
        user("Paint a wall."),
        {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        {"role": "tool", "name": "paint", "tool_call_id": "call00001", "content": "wet"},
        assistant("It is painted."),
    ],
    "starts with the assistant": [assistant("Which wall shall I paint?"), user("North."), assistant("As you like.")],
    "ends with the user": [user("Which wall?"), assistant("The north wall."), user("Thank you.")],
    "two user turns": [user("Which wall?"), user("Be quick."), assistant("The north wall.")],
    "empty system": [{"role": "system", "content": ""}, user("Which wall?"), assistant("The north wall.")],
    "developer": [{"role": "developer", "content": "Be short."}, user("Which wall?"), assistant("The north wall.")],
}


def renderer(tokenizer: PreTrainedTokenizerBase) -> Renderer:
    return Renderer(tokenizer, window=1024, max_tokens=1024)


def target_text(tokenizer: PreTrainedTokenizerBase, tokens: Tokens) -> str:
    return str(tokenizer.decode([id_ for id_, is_target in zip(tokens.ids, tokens.target, strict=True) if is_target]))


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
