"""The chat template for rows with tools: the base's own if it shows them, or one that is extended to."""

from __future__ import annotations

import copy

from transformers import PreTrainedTokenizerBase

from luthier.models import chat_template


def with_tool_template(own: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer with a chat template that renders tools and tool calls; None if there is none."""
    named = own.chat_template if isinstance(own.chat_template, dict) else {"default": own.chat_template or ""}
    template = chat_template.in_use(named) or ""
    showing = chat_template.with_tools(template)
    if showing is None or showing == template:
        return None if showing is None else own
    extended = copy.deepcopy(own)
    extended.chat_template = showing
    return extended
