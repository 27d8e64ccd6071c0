"""Assistant turns as rendered text: the generation prompt before them, their reasoning, and what is said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from luthier.dataset.messages import Message

REASONING: Final = ("reasoning_content", "reasoning", "thinking")  # transformers shows each under all three names
_OPENED: Final = re.compile(r"\s*<(?P<tag>[\w|]+)>\s*")  # a reasoning block that the generation prompt opens
_ENDED: Final = re.compile(r"<(?P<tag>[\w|]+)>\s*</(?P=tag)>\s*")  # one that it opens and ends, so that it is empty


def divided(head: str, through: str, message: Message) -> tuple[str, str]:
    """Return context and answer of a turn, from its generation prompt and its rendering.

    They part where the rendering leaves the generation prompt. If that opens a reasoning block which the rendering
    leaves out, the answer begins with the message's reasoning and the end of the block, as the model has to.
    """
    if through.startswith(head):
        return head, through[len(head) :]
    shared = common_start(head, through)
    if not head[len(shared) :].strip():  # they differ by white space
        return head, through[len(shared) :].lstrip()
    opened, answer = _OPENED.fullmatch(head[len(shared) :]), through[len(shared) :]
    if _ENDED.fullmatch(head[len(shared) :]):  # the rendering has no block where the generation prompt has an empty one
        return head, answer
    if opened is None:
        return shared, answer
    end = f"</{opened['tag']}>"
    inside, _, said = answer.rpartition(end)
    inside = reasoning(message) or inside or str(message.get("content") or "").rpartition(end)[0]
    inside = inside.partition(f"<{opened['tag']}>")[2] or inside
    return head, f"{inside.strip()}\n{end}\n\n{said.lstrip()}"


def common_start(one: str, other: str) -> str:
    """Return the text with which both begin, up to the last whole tag."""
    same, differs = 0, min(len(one), len(other)) + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        same, differs = (middle, differs) if other.startswith(one[:middle]) else (same, middle)
    shared = one[:same]
    inside = shared.rfind("<") > shared.rfind(">") and same < max(len(one), len(other))
    return shared[: shared.rfind("<")] if inside else shared


def ended_block(prompt: str) -> str:
    """Return the tag of the reasoning block that a generation prompt opens and ends at its end; empty without any."""
    found = list(_ENDED.finditer(prompt))
    return found[-1]["tag"] if found and found[-1].end() == len(prompt) else ""


def reasoning(message: Message) -> str:
    """Return the reasoning of an assistant message, under any of its names; empty without any."""
    found = (message.get(name) for name in REASONING)
    return next((text for text in found if isinstance(text, str) and text), "")


def without_reasoning(message: Mapping[str, Any], tag: str) -> dict[str, Any]:
    """Return an assistant message without its reasoning, which may also be a block before its content."""
    rest = {key: value for key, value in message.items() if key not in REASONING}
    content = rest.get("content")
    if isinstance(content, str) and (end := f"</{tag}>") in content:
        rest["content"] = content.rpartition(end)[2].lstrip()
    return rest
