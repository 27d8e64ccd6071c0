"""Generation prompts that end the reasoning block which they open: there is no reasoning to learn."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from luthier.task import DataKind
from tests.conversations import TOOLS, renderer, speaking, target_text, user
from workers.cache import Base

EMPTY = "<think>\n\n</think>\n\n"
CALL = {"type": "function", "function": {"name": "paint", "arguments": {"wall": "north"}}}


THOUGHTS: dict[str, dict[str, Any]] = {
    "reasoning_content": {"content": "Red.", "reasoning_content": "It burns."},
    "thinking": {"content": "Red.", "thinking": "It burns."},
    "content": {"content": "<think>\nIt burns.\n</think>\n\nRed."},
    "content that only ends it": {"content": "It burns.\n</think>\n\nRed."},
    "nothing": {"content": "Red."},
}


@pytest.mark.parametrize("thought", THOUGHTS)
def test_the_answer_follows_the_prompt_of_inference(thought: str, tiny: Base) -> None:
    own = speaking(tiny.tokenizer, "qwen3_5_nothink")
    render = renderer(own)
    asked = render.prompt("Which colour?")
    assert str(own.decode(asked)).endswith(EMPTY)
    answer = {"role": "assistant", **THOUGHTS[thought]}
    pair = render.pair([user("Which colour?")], [answer])
    [chat] = render.answers({"messages": [user("Which colour?"), answer]}, DataKind.CHAT)
    for tokens in (pair, chat):
        assert tokens.ids[: len(asked)] == asked
        assert target_text(own, tokens) == "Red.<|im_end|>\n"
        assert tokens.target_bytes == len("Red.")
    [whole] = render.full_text({"messages": [user("Which colour?"), answer]}, DataKind.CHAT)
    assert "burns" not in own.decode(whole.ids)


def test_earlier_turns_show_no_reasoning_either(tiny: Base) -> None:
    """Turns with calls of tools belong to one question, whose reasoning a template would otherwise still show."""
    own = speaking(tiny.tokenizer, "qwen3_5_nothink")
    said = [
        user("Paint it."),
        {"role": "assistant", "content": "", "tool_calls": [CALL], "reasoning_content": "North is damp."},
        {"role": "tool", "name": "paint", "content": "wet"},
        {"role": "assistant", "content": "Done.", "reasoning_content": "It is wet."},
    ]
    [tokens] = renderer(own).answers({"messages": said, "tools": TOOLS}, DataKind.CHAT)
    learned = target_text(own, tokens)
    assert learned.startswith("<tool_call>")
    assert learned.endswith("Done.<|im_end|>\n")
    assert "damp" not in own.decode(tokens.ids)
    asked = renderer(own).prompt(said[:-1], TOOLS)
    assert tokens.ids[: len(asked)] == asked
    completed = renderer(own).pair(said[:1], said[1:], TOOLS)
    assert completed == tokens


def test_a_template_that_shows_no_block_in_earlier_turns_has_the_prompts_block_before_the_answer(tiny: Base) -> None:
    own = copy.deepcopy(tiny.tokenizer)
    own.chat_template = str(own.chat_template).replace("assistant\n", "assistant\n<think></think>\n")
    render = renderer(own)
    asked = render.prompt("Which colour?")
    assert str(own.decode(asked)).endswith("<think></think>\n")
    tokens = render.pair([user("Which colour?")], [{"role": "assistant", "content": "<b>Red</b>", "reasoning": "Hm."}])
    assert tokens.ids[: len(asked)] == asked
    assert target_text(own, tokens) == "<b>Red</b><|im_end|>\n"


@pytest.mark.parametrize("template", ["qwen3_5_think", "qwen3", "deepseek_r1_distill", "nemotron_3_nano"])
def test_templates_that_let_the_model_reason_keep_its_reasoning(template: str, tiny: Base) -> None:
    own = speaking(tiny.tokenizer, template)
    answer = {"role": "assistant", "content": "Red.", "reasoning_content": "It burns."}
    tokens = renderer(own).pair([user("Which colour?")], [answer])
    assert "It burns." in target_text(own, tokens)
