"""Check whether a chat template shows plain chats and tools, and add tools to ChatML templates that lack them.

Many templates silently leave out tools and tool calls, so a model would learn empty turns. The check renders
conversations and looks for their content. To plain ChatML templates, tools are added in the Hermes format, as in
Qwen 2.5 (hermes.jinja in this folder).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
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

# A chat of one turn, in words that templates keep even if they trim them or change their case.
_CHAT: Final[Sequence[Message]] = (
    {"role": "user", "content": "question 17"},
    {"role": "assistant", "content": "answer 23"},
)
_SETTING: Final = {"role": "system", "content": "setting 5"}
_FAULT_CHARACTERS: Final = 200

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
_MOMENTS: Final = (datetime(2020, 2, 2, 2, 2, tzinfo=UTC), datetime(2031, 12, 31, 23, 59, tzinfo=UTC))  # to compare at
_SHOWN: Final = ("listed_tool", "described thus", "called_tool", "place 41", "reply 73", "answer 89")


def in_use(templates: Mapping[str, str]) -> str | None:
    """Return the template, of a tokenizer's templates by name, that renders conversations with tools."""
    return templates.get("tool_use", templates.get("default"))


def plain_fault(templates: Mapping[str, str]) -> str | None:
    """Return why a tokenizer's templates, by name, cannot show a chat of one turn and its answer; None if they can.

    A template that asks for a system message is given one, and one that reads only OpenAI's parts of content those.
    """
    template = templates.get("default")
    if template is None:
        return f"it has the chat templates {', '.join(sorted(templates))}, and none of the name default"
    faults: list[str] = []
    for chat in (_CHAT, [_SETTING, *_CHAT], _in_parts(_CHAT), _in_parts([_SETTING, *_CHAT])):
        try:
            shown = render(template, chat, now=_MOMENTS[0]).casefold()
        except Exception as error:  # a template is third-party code, and may raise anything
            text = " ".join(str(error).split())[:_FAULT_CHARACTERS]
            faults.append(f"its chat template cannot show a plain chat: {type(error).__name__}: {text}")
            continue
        lost = [str(message["role"]) for message in _CHAT if message["content"].casefold() not in shown]
        if not lost:
            return None
        faults.append(f"its chat template leaves out the text of the {' and the '.join(lost)}")
    return faults[0]


def _in_parts(chat: Sequence[Message]) -> list[Message]:
    return [message | {"content": [{"type": "text", "text": message["content"]}]} for message in chat]


@lru_cache(maxsize=64)
def with_tools(template: str) -> str | None:
    """Return a chat template that renders tools, tool calls and tool replies, and everything else like `template`.

    That is the template itself if it shows tools, and None if it does not and is not ChatML.
    """
    if shows_tools(template):
        return template
    try:
        default = _default_system(template)
        hermes = f"{{%- set default_system = {default} %}}\n{_HERMES}"
        is_chatml = all(_same(template, hermes, messages) for messages in _PLAIN)
        extended = _beside(hermes, template)
        same = all(_same(template, extended, messages) for messages in _PLAIN)
    except Exception:  # a template is third-party code, and may raise anything
        return None
    return extended if is_chatml and same and shows_tools(extended) else None


def shows_tools(template: str) -> bool:
    """Return whether the template renders tools, tool calls and replies, and extends the text turn by turn."""
    try:
        whole = render(template, _AGENT, [_TOOL], now=_MOMENTS[0])
        return all(text in whole for text in _SHOWN) and all(
            _follows(template, turn, whole) for turn, message in enumerate(_AGENT) if message["role"] == "assistant"
        )
    except Exception:  # a template is third-party code, and may raise anything
        return False


def render(
    template: str,
    messages: Sequence[Message],
    tools: Sequence[Any] | None = None,
    *,
    now: datetime | None = None,
    **more: Any,
) -> str:
    """Render a conversation like transformers, as of `now` (the present). Raises whatever the template raises."""
    names = {"messages": list(messages), "tools": tools, "add_generation_prompt": False, **_SPECIAL_TOKENS, **more}
    local = (now or datetime.now().astimezone()).replace(tzinfo=None)
    return _environment().from_string(template).render(names, strftime_now=local.strftime)


def _follows(template: str, turn: int, whole: str) -> bool:
    head = render(template, _AGENT[:turn], [_TOOL], now=_MOMENTS[0], add_generation_prompt=True)
    through = render(template, _AGENT[: turn + 1], [_TOOL], now=_MOMENTS[0])
    return whole.startswith(through) and through.startswith(head)


def _default_system(template: str) -> str:
    """Return the template's default system message as a Jinja literal; `none` if it has none."""
    text = render(template, [{"role": "user", "content": "?"}], now=_MOMENTS[0])
    start, end = "<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\n?"
    if not text.startswith(start):
        return "none"
    return json.dumps(text.removeprefix(start).partition(end)[0], ensure_ascii=False)


def _beside(hermes: str, template: str) -> str:
    """Return a template that uses the Hermes format for conversations with tools, and `template` for others.

    The `+` signs keep Jinja from trimming the template's first and last line.
    """
    return (
        "{%- if tools or messages | selectattr('tool_calls') | list "
        "or messages | selectattr('role', 'equalto', 'tool') | list %}\n"
        f"{hermes}{{%- else +%}}{template.removesuffix(chr(10))}{{%+ endif %}}"
    )


def _same(one: str, other: str, messages: Sequence[Message]) -> bool:
    """Return whether two templates render the messages alike, at any time."""
    return all(
        render(one, messages, now=now, add_generation_prompt=generate)
        == render(other, messages, now=now, add_generation_prompt=generate)
        for generate in (False, True)
        for now in _MOMENTS
    )


class _Generation(Extension):
    """The tag `{% generation %}`, which marks assistant turns for training; it does not change the text."""

    tags = {"generation"}  # noqa: RUF012 (Jinja types it as a plain set)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    """Return the Jinja environment in which transformers renders chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise}
    return environment


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)
