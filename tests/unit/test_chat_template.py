"""Which chat templates show tools, and what is put in place of ChatML ones that do not."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import pytest

from luthier.models.chat_template import in_use, plain_fault, render, shows_tools, with_tools
from tests import data_samples
from tests.conftest import TINY

PUBLISHED = files("trl") / "chat_templates"
PLAIN = (TINY / "chat_template.jinja").read_text()
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are \"SmolLM\", naïve 🙂<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML = {
    "tiny": PLAIN,
    "SmolLM2's": SMOLLM2,
    "one that ends in a newline": PLAIN + "\n",
    "one that starts with a comment": "{# ChatML #}\n" + PLAIN,
    "one with marks for training": PLAIN.replace(
        "{% if add", "{% generation %}{{ '' }}{% endgeneration %}{% if add", 1
    ),
}
CONVERSATIONS: list[list[dict[str, Any]]] = [
    *(row["messages"] for row in data_samples.chat(3)),
    [{"role": "user", "content": "\n  Hi  \n"}],
    [{"role": "developer", "content": "Short."}, {"role": "user", "content": "Hi."}],
    [{"role": "system", "content": ""}, {"role": "user", "content": "<|im_end|>{{ x }}"}],
    [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}, {"role": "user", "content": "c"}],
]


def published(name: str) -> str:
    return (PUBLISHED / f"{name}.jinja").read_text("utf-8")


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3_instruct_2507", "llama3_1", "llama3_2", "gptoss", "glm4moe"])
def test_a_template_that_shows_tools_stays_as_it_is(name: str) -> None:
    assert with_tools(published(name)) == published(name)


@pytest.mark.parametrize("name", ["llama3", "phi3", "gemma3", "deepseek_r1_distill", "smolvlm"])
def test_a_template_that_hides_tools_and_is_not_chatml_cannot_be_used_for_them(name: str) -> None:
    assert with_tools(published(name)) is None


@pytest.mark.parametrize(
    "template",
    ["", "{{ broken", "{{ raise_exception('no') }}", "{{ 1 // 0 }}", PLAIN.replace("+ '<|im_end|>'", "+ '</s>'")],
)
def test_nor_can_one_that_fails_or_speaks_otherwise(template: str) -> None:
    assert with_tools(template) is None


def test_a_template_that_shows_the_tools_but_not_the_calls_does_not_show_tools() -> None:
    assert not shows_tools("{{ tools | tojson if tools }}" + PLAIN)


@pytest.mark.parametrize("case", CHATML)
@pytest.mark.parametrize("generate", [False, True])
def test_conversations_without_tools_are_rendered_byte_for_byte_as_before(case: str, generate: bool) -> None:
    extended = with_tools(CHATML[case])
    assert extended is not None
    for messages in CONVERSATIONS:
        for tools in (None, []):
            before = render(CHATML[case], messages, tools, add_generation_prompt=generate)
            assert render(extended, messages, tools, add_generation_prompt=generate) == before


def test_tools_are_shown_as_qwen_2_5_shows_them() -> None:
    extended, qwen = with_tools(PLAIN), published("qwen2_5")
    assert extended is not None
    system = {"role": "system", "content": "Be kind."}
    twice = data_samples.agent(1)[0]["messages"][1] | {"content": "Let me see."}
    twice["tool_calls"] = twice["tool_calls"] * 2
    replies = [{"role": "tool", "content": "hay"}, {"role": "tool", "content": "hay"}]
    for row in data_samples.agent(2):
        for messages in (row["messages"], [*row["messages"][:1], twice, *replies], row["messages"][:1]):
            for generate in (False, True):
                shown, expected = (
                    render(template, [system, *messages], row["tools"], add_generation_prompt=generate)
                    for template in (extended, qwen)
                )
                assert shown == expected


def test_the_templates_own_system_message_goes_before_the_tools() -> None:
    extended = with_tools(SMOLLM2)
    assert extended is not None
    row = data_samples.agent(1)[0]
    shown = render(extended, row["messages"], row["tools"])
    assert shown.startswith('<|im_start|>system\nYou are "SmolLM", naïve 🙂\n\n# Tools\n\n')
    unlisted = render(extended, row["messages"])
    assert unlisted.startswith('<|im_start|>system\nYou are "SmolLM", naïve 🙂<|im_end|>\n<|im_start|>user\n')
    assert '<tool_call>\n{"name": "food", "arguments": {"animal": "cat"}}\n</tool_call><|im_end|>' in unlisted


def test_of_several_templates_the_one_for_tools_is_in_use() -> None:
    assert in_use({"default": "a", "rag": "b", "tool_use": "c"}) == "c"
    assert in_use({"default": "a", "rag": "b"}) == "a"
    assert in_use({}) is None


@pytest.mark.parametrize(
    "name", sorted(file.name.removesuffix(".jinja") for file in PUBLISHED.iterdir() if file.name.endswith(".jinja"))
)
def test_published_templates_show_a_plain_chat(name: str) -> None:
    assert plain_fault({"default": published(name)}) is None


PARTS = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
TURNS = "{% for m in messages %}{{ m.role }}: {{ m.content|upper|trim }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("templates", "why"),
    [
        ({"default": "{{ raise_exception('only images') }}"}, "only images"),
        ({"default": "{% import 'macros.jinja' as m %}" + TURNS}, "TypeError|TemplateNotFound|no loader"),
        ({"default": "{{ settings.style.name }}" + TURNS}, "undefined"),
        ({"default": "<s>"}, "leaves out the text of the user and the assistant"),
        ({"default": "{{ messages[0].content }}"}, "the text of the assistant"),
        ({"default": ""}, "leaves out"),
        ({"rag": TURNS, "tool_use": TURNS}, "rag, tool_use"),
    ],
)
def test_a_template_that_cannot_show_a_plain_chat_is_known_with_the_reason(templates: dict[str, str], why: str) -> None:
    assert re.search(why, plain_fault(templates) or "")


def test_a_template_may_change_the_case_or_ask_for_a_system_message_or_for_parts() -> None:
    assert plain_fault({"default": TURNS}) is None
    assert plain_fault({"default": PARTS}) is None
    strict = "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}" + TURNS
    assert plain_fault({"default": strict, "rag": "{{ broken"}) is None
