"""Whether a chat template shows tools, and a template that does so in place of a ChatML one that does not.

Many templates leave out the tools that a conversation offers, and the calls of them, without a word: a model would
learn empty turns. What a template shows is found out by rendering conversations and looking for what they say. Where
a template is plain ChatML, tools are added in Hermes' format, as Qwen 2.5 has it (hermes.jinja beside this file).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = dict[str, Any]

_HERMES: Final = Path(__file__).with_name("hermes.jinja").read_text(encoding="utf-8")
_SPECIAL_TOKENS: Final = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}

_USER: Final = {"role": "user", "content": " First,\n <b>naïve</b> \"question\" & 'more' 🙂 "}
_ASSISTANT: Final = {"role": "assistant", "content": " An {{ answer }}.\n"}
_SYSTEM: Final = {"role": "system", "content": " Be kind. "}
_PLAIN: Final[Sequence[Sequence[Message]]] = (
    [_USER],
    [_SYSTEM, _USER],
    [_USER, _ASSISTANT],
    [_SYSTEM, _USER, _ASSISTANT, _USER, _ASSISTANT],
    [_USER, _ASSISTANT, _USER],
)

_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "listed_tool",
        "description": "described thus",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
_CALL: Final = {"type": "function", "function": {"name": "called_tool", "arguments": {"place": "place 41"}}}
_AGENT: Final[Sequence[Message]] = (
    {"role": "user", "content": "Go on."},
    {"role": "assistant", "content": "", "tool_calls": [_CALL]},
    {"role": "tool", "content": "reply 73"},
    {"role": "assistant", "content": "answer 89"},
)
_SHOWN: Final = ("listed_tool", "described thus", "called_tool", "place 41", "reply 73", "answer 89")


def in_use(templates: Mapping[str, str]) -> str | None:
    """Of a tokenizer's templates, by name, the one that renders a conversation with tools."""
    return templates.get("tool_use", templates.get("default"))


@lru_cache(maxsize=64)
def with_tools(template: str) -> str | None:
    """A chat template that renders tools, their calls and their replies, and all else as `template` does.

    That is the template itself where it shows them, and None where it does not and is not ChatML either.
    """
    if shows_tools(template):
        return template
    try:
        default = _default_system(template)
        hermes = f"{{%- set default_system = {default} %}}\n{_HERMES}"
        is_chatml = all(_same(template, hermes, messages) for messages in _PLAIN)
        extended = _beside(hermes, template)
        same = all(_same(template, extended, messages) for messages in _PLAIN)
    except Exception:  # a template is somebody's program, and may fail in any way
        return None
    return extended if is_chatml and same and shows_tools(extended) else None


def shows_tools(template: str) -> bool:
    """Whether the template renders the tools on offer, the calls of them and the replies, so that each assistant turn
    follows from what stands before it."""
    try:
        whole = render(template, _AGENT, [_TOOL])
        return all(text in whole for text in _SHOWN) and all(
            _follows(template, turn, whole) for turn, message in enumerate(_AGENT) if message["role"] == "assistant"
        )
    except Exception:  # a template is somebody's program, and may fail in any way
        return False


def render(template: str, messages: Sequence[Message], tools: Sequence[Any] | None = None, **more: Any) -> str:
    """A conversation as transformers renders it. Raises whatever the template raises."""
    names = {"messages": list(messages), "tools": tools, "add_generation_prompt": False, **_SPECIAL_TOKENS, **more}
    return _environment().from_string(template).render(names)


def _follows(template: str, turn: int, whole: str) -> bool:
    head = render(template, _AGENT[:turn], [_TOOL], add_generation_prompt=True)
    through = render(template, _AGENT[: turn + 1], [_TOOL])
    return whole.startswith(through) and through.startswith(head)


def _default_system(template: str) -> str:
    """The system message that a template has of its own, as a literal of Jinja; `none` where it has none."""
    text = render(template, [{"role": "user", "content": "?"}])
    start, end = "<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\n?"
    if not text.startswith(start):
        return "none"
    return json.dumps(text.removeprefix(start).partition(end)[0], ensure_ascii=False)


def _beside(hermes: str, template: str) -> str:
    """Hermes' format where a conversation has to do with tools, the template as it is elsewhere.

    The `+` keep Jinja from trimming the template's first and last line.
    """
    return (
        "{%- if tools or messages | selectattr('tool_calls') | list "
        "or messages | selectattr('role', 'equalto', 'tool') | list %}\n"
        f"{hermes}{{%- else +%}}{template.removesuffix(chr(10))}{{%+ endif %}}"
    )


def _same(one: str, other: str, messages: Sequence[Message]) -> bool:
    return all(
        render(one, messages, add_generation_prompt=generate) == render(other, messages, add_generation_prompt=generate)
        for generate in (False, True)
    )


class _Generation(Extension):
    """`{% generation %}`, by which templates mark assistant turns for training; it changes no text."""

    tags = {"generation"}  # noqa: RUF012 (Jinja types it as a plain set)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    """The environment that transformers renders chat templates in."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
    return environment


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)
