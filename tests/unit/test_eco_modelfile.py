"""Chat templates in Ollama's terms: the same text, or none."""

import pytest

from luthier.models import chat_template
from service.exports.gguf_tokenizer import Vocabulary
from service.exports.modelfile import find_turns, modelfile

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}" + CHATML
)
LLAMA_3 = (
    "{% for m in messages %}{% set c = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content']"
    " | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set c = bos_token + c %}{% endif %}{{ c }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + eos_token }}"
    "{% elif m['role'] == 'system' %}{{ '<|system|>\n' + m['content'] + eos_token }}"
    "{% else %}{{ '<|assistant|>\n' + m['content'] + eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
FOLDED = (  # Llama 2's: the system message stands inside of the first question
    "{% if messages[0]['role'] == 'system' %}{% set s = '<<SYS>>' + messages[0]['content'] + '<</SYS>>' %}"
    "{% set rest = messages[1:] %}{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (s if loop.first else '') + m['content']"
    " + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
NUMBERED = "{% for m in messages %}{{ loop.index }}: {{ m['content'] }}\n{% endfor %}"


def vocabulary(template: str | None) -> Vocabulary:
    return Vocabulary(
        split="gpt-2",
        tokens=("<s>", "</s>"),
        types=(3, 3),
        merges=(),
        special={"bos_token": 0, "eos_token": 1},
        adds_bos=True,
        adds_eos=False,
        chat_template=template,
    )


@pytest.mark.parametrize("template", [CHATML, WITH_DEFAULT, LLAMA_3, ZEPHYR])
def test_a_regular_template_gives_the_same_text_for_a_conversation_it_was_not_made_of(template: str) -> None:
    turns = find_turns(vocabulary(template))
    assert turns is not None
    messages = [
        {"role": "user", "content": "One {{ two }}."},
        {"role": "assistant", "content": "Three\n\nfour"},
        {"role": "user", "content": "five"},
    ]
    expected = chat_template.render(
        template, messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
    ).removeprefix("<s>")
    assert turns.text(messages) == expected


def test_a_template_with_a_system_message_of_its_own_keeps_it() -> None:
    lines = modelfile(vocabulary(WITH_DEFAULT), "model.gguf")
    assert 'SYSTEM """You help."""\n' in lines
    assert '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n{{ else' in lines


@pytest.mark.parametrize("template", [FOLDED, NUMBERED, "{{ messages.nothing.there }}", CHATML + '"""'])
def test_any_other_template_is_said_to_be_left_out(template: str) -> None:
    assert find_turns(vocabulary(template)) is None
    written = modelfile(vocabulary(template), "model.gguf")
    assert "TEMPLATE manually" in written
    assert "\nTEMPLATE" not in written


def test_braces_of_a_template_are_no_actions_of_ollamas() -> None:
    braces = CHATML.replace("<|im_start|>", "{{").replace("'{{'", "'{' + '{'")
    assert '{{ if eq .Role "system" }}{{ "{{" }}system\n' in modelfile(vocabulary(braces), "model.gguf")


def test_a_model_without_a_chat_template_gets_the_bare_prompt() -> None:
    assert modelfile(vocabulary(None), "model.gguf") == (
        'FROM ./model.gguf\nTEMPLATE """{{ .Prompt }}"""\nPARAMETER stop "</s>"\n'
    )


def test_every_token_that_ends_an_answer_stops_generation() -> None:
    several = vocabulary(None).model_copy(update={"tokens": ("<s>", "</s>", "<|end|>"), "ends": (2,)})
    assert modelfile(several, "model.gguf").splitlines()[-2:] == ['PARAMETER stop "</s>"', 'PARAMETER stop "<|end|>"']
