"""Chat templates that escape what is said, e.g. as JSON: it is found where they write it."""

from __future__ import annotations

import copy
import json

import pytest
from transformers import PreTrainedTokenizerBase

from luthier.errors import TrialFailed
from luthier.task import DataKind
from tests.conversations import TOOLS, assistant, renderer, speaking, target_text, user
from workers.cache import Base

SAID = 'She said "no",\n\tthen <b>C:\\new</b> & naïve 🙂.'
END = "<|im_end|>\n"


def writing(tiny: Base, content: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer whose ChatML template writes contents as this Jinja expression."""
    own = copy.deepcopy(tiny.tokenizer)
    said = f"{{{{ '<|im_start|>' + m.role + '\n' + ({content}) + '<|im_end|>\n' }}}}"
    own.chat_template = (
        f"{{% for m in messages %}}{said}{{% endfor %}}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    return own


HTML = "m.content | replace('&', '&amp;') | replace('<', '&lt;') | replace('>', '&gt;')"
ESCAPES = {
    "JSON": ("m.content | tojson", json.dumps(SAID, ensure_ascii=False)),
    "JSON in ASCII": ("m.content | tojson(ensure_ascii=True)", json.dumps(SAID)),
    "JSON in JSON": (
        "m.content | tojson | tojson",
        json.dumps(json.dumps(SAID, ensure_ascii=False), ensure_ascii=False),
    ),
    "HTML": (HTML, SAID.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")),
    "quotes": ("m.content | replace('\"', \"''\")", SAID.replace('"', "''")),
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_answers_are_trained_on_as_the_template_writes_them(escape: str, tiny: Base) -> None:
    content, written = ESCAPES[escape]
    own = writing(tiny, content)
    said = [user(SAID), assistant(SAID), user("Really?"), assistant(f"Yes: {SAID}")]
    [tokens] = renderer(own).answers({"messages": said}, DataKind.CHAT)
    first, _, second = target_text(own, tokens).partition(END)
    assert first == written
    assert second.endswith(END)
    assert written.strip('"\\') in second
    pair = renderer(own).pair(SAID, SAID)
    assert target_text(own, pair) == f"{written}{END}"
    asked = renderer(own).prompt(SAID)
    assert pair.ids[: len(asked)] == asked


def test_control_tokens_that_are_said_are_text_within_an_escape_too(tiny: Base) -> None:
    own = writing(tiny, HTML)
    tokens = renderer(own).pair("Say <|im_start|> & go.", "It ends in <|im_end|> & stops.")
    assert target_text(own, tokens) == f"It ends in <|im_end|> &amp; stops.{END}"
    assert tokens.ids.count(own.eos_token_id) == 2


def test_a_greeting_that_is_escaped_is_found(tiny: Base) -> None:
    own = writing(tiny, "m.content | tojson")
    said = [assistant('Say "hi"!'), user("Hi."), assistant("Good.")]
    [tokens] = renderer(own).answers({"messages": said}, DataKind.CHAT)
    assert target_text(own, tokens).count('Say \\"hi\\"!') == 1


@pytest.mark.parametrize("template", ["llama3_1", "llama3_2", "gptoss", "qwen2_5", "lfm2", "glm4moe"])
def test_results_and_arguments_with_quotes_are_shown_as_json(template: str, tiny: Base) -> None:
    own = speaking(tiny.tokenizer, template)
    function = {"name": "paint", "arguments": {"wall": 'the "north" one\n'}}
    said = [
        user('Paint the "north" wall.'),
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "id": "call00001", "function": function}],
        },
        {"role": "tool", "name": "paint", "tool_call_id": "call00001", "content": 'It is "wet".\n'},
        assistant('The "north" wall is painted.'),
    ]
    if template == "lfm2":
        said = [said[0], *said[2:]]  # it shows results, but no calls
    found = renderer(own).answers({"messages": said, "tools": TOOLS}, DataKind.CHAT)
    learned = "".join(target_text(own, tokens) for tokens in found)
    assert 'The "north" wall is painted.' in learned
    assert "wet" not in learned


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("m.content[:5]", "leaves out"),
        ("m.content | replace('e', '')", "leaves out"),
        ("'' if m.role == 'user' else m.content", "leaves out"),
        ("m.content | replace('no', 'yes')", "changes"),
    ],
)
def test_what_is_no_escape_is_refused(content: str, why: str, tiny: Base) -> None:
    with pytest.raises(TrialFailed, match=why):
        renderer(writing(tiny, content)).pair("Is it so? There is no such thing.", "There is no such thing.")
