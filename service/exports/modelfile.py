"""Write an Ollama Modelfile for a GGUF file, with the settings that Ollama does not read from the file.

Ollama's chat templates are Go templates, not Jinja. Most Jinja chat templates only add a prefix and a suffix to each
message, by its role. These are found by rendering conversations. A Go template is made of them if it renders other
conversations identically; for any other chat template, the Modelfile says that it has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from luthier.models import chat_template
from luthier.models.chat_template import Message
from luthier.values import Frozen
from service.exports.gguf_tokenizer import Vocabulary

WEIGHTS: Final = "model.gguf"  # beside the Modelfile
_SYSTEM, _USER, _ASSISTANT, _OTHER = "Xsystem", "Xuser", "Xassistant", "Xother"
_PROOF: Final[Sequence[Sequence[Message]]] = (
    [{"role": "user", "content": "Who?\nWhy?"}],
    [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}],
    [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Me."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Because."},
        {"role": "user", "content": "So?"},
    ],
)


class Turns(Frozen):
    """The prefixes and suffixes that a chat template adds to messages."""

    around: dict[str, tuple[str, str]]
    opening: str
    default_system: str | None

    def text(self, messages: Sequence[Message]) -> str:
        """Render a conversation with the generation prompt."""
        if self.default_system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.default_system}, *messages]
        turns = (self.around[message["role"]] for message in messages)
        bodies = (before + message["content"] + after for (before, after), message in zip(turns, messages, strict=True))
        return "".join(bodies) + self.opening


def modelfile(vocabulary: Vocabulary, weights: str) -> str:
    """Return the Modelfile for the file `weights` in the same folder."""
    lines = [f"FROM ./{weights}"]
    if vocabulary.chat_template is None:
        lines.append('TEMPLATE """{{ .Prompt }}"""')
    elif (turns := find_turns(vocabulary)) is None:
        lines.append(
            "# The chat template cannot be translated for Ollama: write TEMPLATE manually, or use llama.cpp, which"
        )
        lines.append("# reads it from the file.")
    else:
        lines.append(f'TEMPLATE """{_as_go(turns)}"""')
        if turns.default_system:
            lines.append(f'SYSTEM """{turns.default_system}"""')
    lines += [f'PARAMETER stop "{end}"' for end in vocabulary.stops]
    return "\n".join(lines) + "\n"


def find_turns(vocabulary: Vocabulary) -> Turns | None:
    """Return the prefixes and suffixes; None for a chat template that does more than add them."""
    try:
        turns = _turns(vocabulary)
        regular = all(turns.text(messages) == _render(vocabulary, messages) for messages in _PROOF)
    except Exception:  # a template is a user's program and may fail in any way
        return None
    pieces = [turns.opening, turns.default_system or "", *(part for pair in turns.around.values() for part in pair)]
    return turns if regular and not any('"""' in piece for piece in pieces) else None


def _turns(vocabulary: Vocabulary) -> Turns:
    def shown(*contents: str, answered: bool = False) -> str:
        roles = {_SYSTEM: "system", _USER: "user", _ASSISTANT: "assistant", _OTHER: "user"}
        messages = [{"role": roles[content], "content": content} for content in contents]
        return _render(vocabulary, messages, answered=answered)

    opening = shown(_USER).removeprefix(shown(_USER, answered=True))
    after_answer = shown(_USER, _ASSISTANT, answered=True).rpartition(_ASSISTANT)[2]
    after_user = shown(_USER, answered=True).rpartition(_USER)[2]
    whole = shown(_SYSTEM, _USER, _ASSISTANT, _OTHER)
    before_system, whole = whole.split(_SYSTEM)
    between, whole = whole.split(_USER)
    before_answer, whole = whole.split(_ASSISTANT)
    before_user = whole.split(_OTHER)[0].removeprefix(after_answer)
    after_system = between.removesuffix(before_user)
    before_answer = before_answer.removeprefix(after_user)
    default = shown(_USER).split(_USER)[0].removesuffix(before_user)
    return Turns(
        around={
            "system": (before_system, after_system),
            "user": (before_user, after_user),
            "assistant": (before_answer, after_answer),
        },
        opening=opening,
        default_system=default.removeprefix(before_system).removesuffix(after_system) if default else None,
    )


def _render(vocabulary: Vocabulary, messages: Sequence[Message], *, answered: bool = False) -> str:
    """Render like transformers, without the BOS token if the tokenizer adds it."""
    assert vocabulary.chat_template is not None
    tokens: dict[str, Any] = {
        name: vocabulary.token(name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")
    }
    text = chat_template.render(vocabulary.chat_template, messages, add_generation_prompt=not answered, **tokens)
    return text.removeprefix(tokens["bos_token"]) if vocabulary.adds_bos else text


def _as_go(turns: Turns) -> str:
    clauses = [
        f'{{{{ {"else " * (place > 0)}if eq .Role "{role}" }}}}{_escaped(before)}{{{{ .Content }}}}{_escaped(after)}'
        for place, (role, (before, after)) in enumerate(turns.around.items())
    ]
    body = "".join(clauses)
    return f"{{{{ range .Messages }}}}{body}{{{{ end }}}}{{{{ end }}}}{_escaped(turns.opening)}"


def _escaped(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')
