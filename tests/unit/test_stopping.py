"""Generation stops at every token that ends an answer, wherever a model names it."""

from __future__ import annotations

import copy

import pytest
from transformers import AddedToken

from workers.cache import Base
from workers.train.rollouts.sampling import sample
from workers.train.rollouts.stopping import stop_ids


def test_the_ends_are_those_of_tokenizer_generation_config_and_chat_template(tiny: Base) -> None:
    model, tokenizer = copy.deepcopy(tiny.model), copy.deepcopy(tiny.tokenizer)
    eos = tokenizer.eos_token_id
    assert stop_ids(model, tokenizer) == (eos,)

    assert model.generation_config is not None
    model.generation_config.eos_token_id = [eos, 7, 10**6]  # the last one is no token
    assert stop_ids(model, tokenizer) == tuple(sorted({eos, 7}))

    tokenizer.add_tokens([AddedToken("<|eot|>", special=True, normalized=False)])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|eot|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert stop_ids(model, tokenizer) == tuple(sorted({eos, 7, tokenizer.convert_tokens_to_ids("<|eot|>")}))


def test_a_template_without_ends_uses_what_begins_the_next_turn(tiny: Base) -> None:
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.add_tokens([AddedToken("<|you|>", special=True, normalized=False)])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|you|>' if m.role == 'user' else '<|me|>' }}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|me|>{% endif %}"
    )
    assert tokenizer.convert_tokens_to_ids("<|you|>") in stop_ids(tiny.model, tokenizer)


@pytest.mark.parametrize("end", ["<|fin|>", ""])
def test_the_marks_of_a_call_end_no_turn(end: str, tiny: Base) -> None:
    tokenizer = copy.deepcopy(tiny.tokenizer)
    marks = ["<call>", "</call>", "<|fin|>", "<|who|>"]
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    tokenizer.chat_template = (
        "{% for m in messages %}<|who|>{{ m.role }}: {{ m.content }}{% for c in m.tool_calls or [] %}"
        "<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}" + end + "{% endfor %}"
        "{% if add_generation_prompt %}<|who|>assistant: {% endif %}"
    )
    expected = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(end or "<|who|>")}
    assert set(stop_ids(tiny.model, tokenizer)) == expected


@pytest.mark.parametrize("seed", [None, 3])
def test_an_answer_ends_at_the_first_of_them(seed: int | None, tiny: Base) -> None:
    model = copy.deepcopy(tiny.model)
    prompt = [tuple(tiny.tokenizer("What is red?")["input_ids"])]
    [whole] = sample(model, tiny.tokenizer, prompt, max_new_tokens=12, seed=seed)
    middle = whole[len(whole) // 2]
    assert model.generation_config is not None
    model.generation_config.eos_token_id = [middle]
    [cut] = sample(model, tiny.tokenizer, prompt, max_new_tokens=12, seed=seed)
    assert cut == whole[: whole.index(middle) + 1]
