"""Conversations as text: where the assistant's turns are, and what the model reads before each of them.

A chat template may render a turn differently once later turns follow: it leaves out earlier reasoning (Qwen 3), moves
the system prompt (Mistral), or opens a reasoning block only in the generation prompt (DeepSeek R1). If that ends the
block too (Qwen 3.5 without thinking), the model never reasons: reasoning is left out. What counts is what inference
shows: the context of a turn is its generation prompt, and the target is the rest of that turn, up to the token that
ends it. A turn that the full rendering shows unchanged is a target there; any other turn becomes a text of its own.
Templates that mark every turn with `{% generation %}` are followed, as in TRL.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from luthier.dataset.messages import Message
from luthier.errors import TrialFailed
from workers.train.data import template_clock
from workers.train.data.control_tokens import ControlTokens
from workers.train.data.turns import common_start, divided, ended_block, reasoning, without_reasoning

_MARKED: Final = re.compile(r"\{%-?\s*generation\s*-?%\}")
_ANCHOR: Final = "anchor_answer"
_ASKED: Final = ({"role": "user", "content": "?"}, {"role": "assistant", "content": _ANCHOR})


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Target text: its character range in the rendered text, and the bytes of the dataset's text in it."""

    start: int
    end: int
    content_bytes: int


@dataclass(slots=True, kw_only=True)
class Text:
    """A rendered text with its targets, in order."""

    text: str
    spans: list[Span] = field(default_factory=list)

    def take(self, turn: Turn, mark: str) -> bool:
        """Add the turn's answer as a target if the text has it behind the same context; return whether it does.

        A template may add an end-of-sequence token to the last turn alone. So the answer may lack what follows `mark`.
        """
        if not self.text.startswith(turn.context):
            return False
        end = len(common_start(self.text, turn.whole))
        if end < len(turn.whole) and not turn.whole[len(turn.context) : end].rstrip().endswith(mark):
            return False
        self.spans.append(Span(start=len(turn.context), end=end, content_bytes=turn.content_bytes))
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """An assistant turn: the text before it at inference, and the text that the model should generate."""

    context: str
    answer: str
    content_bytes: int

    @property
    def whole(self) -> str:
        return self.context + self.answer


class ChatTemplate:
    """The chat template of a tokenizer. Every method raises TrialFailed if the template cannot render the messages.

    In the texts that it returns, the control tokens that messages spell are hidden (see ControlTokens). Templates that
    show the time show `clock` in all of them; without one, the time at which this object was made.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, clock: datetime | None = None) -> None:
        self._tokenizer = tokenizer
        self.clock: Final = clock or datetime.now().astimezone()

    @cached_property
    def control(self) -> ControlTokens:
        return ControlTokens(self._tokenizer)

    @property
    def shows_time(self) -> bool:
        """Whether the template may show the time."""
        named = self._tokenizer.chat_template or ""
        return any(map(template_clock.shows_time, named.values() if isinstance(named, dict) else [named]))

    def render(self, messages: Sequence[Message], tools: Sequence[Any] | None = None, *, generate: bool) -> str:
        """Return the conversation as text; with `generate` it ends in the generation prompt."""
        return self._rendered(messages, tools, generate=generate)[0]

    def texts(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> list[Text]:
        """Return the texts to train on, the full rendering last. Turns of weight 0 are not targets."""
        whole, marked = self._rendered(messages, tools, generate=False)
        answers = [message for message in messages if message["role"] == "assistant"]
        asked = next((i for i, message in enumerate(messages) if message["role"] == "user"), len(messages))
        if marked and len(marked) == len(answers):
            spans = [
                Span(
                    start=start,
                    end=self._through_end(whole, end),
                    content_bytes=self.content_bytes(message, self.control.show(whole[start:end])),
                )
                for (start, end), message in zip(marked, answers, strict=True)
                if message.get("weight", 1) != 0
            ]
            return [Text(text=whole, spans=spans)]
        full = self.whole(messages, tools)
        turns = [
            self.turn(messages[:i], [message], tools) if i >= asked else self._opening_turn(messages, i, tools)
            for i, message in enumerate(messages)
            if message["role"] == "assistant" and message.get("weight", 1) != 0
        ]
        found = [Text(text=full)]
        for turn in reversed(turns):
            if not any(text.take(turn, self.end_of_turn) for text in found):
                alone = Text(text=turn.whole)
                alone.take(turn, self.end_of_turn)
                found.append(alone)
        for text in found:
            text.spans.sort(key=lambda span: span.start)
        return [text for text in reversed(found) if text.spans]

    def whole(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> str:
        """Return the full rendering. If the template leaves its last turn without an end, it gets one."""
        text = self.render(messages, tools, generate=False)
        if messages[-1]["role"] == "assistant" and not self._ends(text):
            text += self._end_behind(messages[-1])
        return text

    def untrained(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> list[Span]:
        """Return where the turns of weight 0 lie in the full rendering."""
        ignored = [i for i, message in enumerate(messages) if message.get("weight", 1) == 0]
        asked = next((i for i, message in enumerate(messages) if message["role"] == "user"), len(messages))
        found = Text(text=self.whole(messages, tools) if ignored else "")
        for i in ignored:
            if i < asked or not found.take(self.turn(messages[:i], [messages[i]], tools), self.end_of_turn):
                found.spans.append(self._place(messages, i, tools))  # the template renders the turn differently here
        return found.spans

    def learned(
        self, asked: Sequence[Message], answered: Sequence[Message], tools: Sequence[Any] | None, turn: Turn
    ) -> list[Span]:
        """Return the targets of an answer of several messages, which `turn` is: the assistant's, without weight 0."""
        found = Text(text=turn.whole)
        for i, message in enumerate(answered):
            if message["role"] != "assistant" or message.get("weight", 1) == 0:
                continue
            before = [*asked, *answered[:i]]
            if not found.take(self.turn(before, [message], tools), self.end_of_turn):
                place = self._place([*asked, *answered], len(before), tools)
                found.spans.append(replace(place, end=self._through_first_end(turn.whole, place.end)))
        return found.spans

    def turn(self, before: Sequence[Message], said: Sequence[Message], tools: Sequence[Any] | None = None) -> Turn:
        """Return an answer as the model should generate it after the messages before it.

        It is one assistant message, or several with the results of tools between them.
        """
        through = self.render([*before, *said], tools, generate=False)
        closed, head = (self.render(before, tools, generate=generate) for generate in (False, True))
        if len(common_start(head, through)) >= len(common_start(closed, head)):
            context, answer = divided(head, through, self.control.hide(said[0]))
        else:  # the rendering changes the prompt itself
            context, answer = head, through[self._place([*before, *said], len(before), tools).start :]
        if not self._ends(answer):
            answer += self._end_behind(said[-1])
        learned = [message for message in said if message.get("weight", 1) != 0]
        shown = self.control.show(answer)
        size = sum(self.content_bytes(message, shown) for message in learned)
        turn = Turn(context=context, answer=answer, content_bytes=size)
        self._check_shown(turn, [*before, *said], len(before), tools)
        return turn

    def _opening_turn(self, messages: Sequence[Message], i: int, tools: Sequence[Any] | None) -> Turn:
        """Return a turn that no user's turn precedes: inference has no prompt for it, so it is as it is rendered."""
        whole, place = self.whole(messages, tools), self._place(messages, i, tools)
        answer = whole[place.start : self._through_first_end(whole, place.end)]
        turn = Turn(context=whole[: place.start], answer=answer, content_bytes=self.content_bytes(messages[i]))
        self._check_said(messages, i, turn.whole, tools)
        return turn

    def _place(self, messages: Sequence[Message], i: int, tools: Sequence[Any] | None) -> Span:
        """Return where the full rendering has the text of a message, by rendering it with another text in its place.

        Raises TrialFailed if it cannot be located.
        """
        whole = self.render(messages, tools, generate=False)
        if messages[i].get("content"):
            other = [*messages[:i], {**messages[i], "content": _ANCHOR}, *messages[i + 1 :]]
            before, found, behind = self.render(other, tools, generate=False).partition(_ANCHOR)
            if found and whole.startswith(before) and whole.endswith(behind):
                return Span(
                    start=len(before),
                    end=len(whole) - len(behind),
                    content_bytes=self.content_bytes(messages[i]),
                )
        raise TrialFailed("the chat template changes the prompt when an answer follows: the answer cannot be located")

    def _through_first_end(self, whole: str, at: int) -> int:
        """Return the end of the turn whose text ends at `at`: behind its end token, and the line break after that."""
        end = self.control.first(whole[at:])
        stop = whole.index(end, at) + len(end)
        return len(whole) - len(whole[stop:].lstrip()) if self._own_end else stop

    def _check_shown(self, turn: Turn, messages: Sequence[Message], asked: int, tools: Sequence[Any] | None) -> None:
        """Raise TrialFailed if the template leaves out what users, system or assistant say, or a call of a tool.

        `messages` ends with those of the turn; the first `asked` of them are its context.
        """
        for i in range(len(messages)):
            self._check_said(messages, i, turn.context if i < asked else turn.whole, tools)
        answered = self.control.without(turn.answer)
        for call in (call for message in messages[asked:] for call in message.get("tool_calls") or ()):
            if (name := call.get("function", call)["name"]) not in answered:
                raise TrialFailed(f"the base model's chat template leaves out a call of the tool {name}")

    def _check_said(self, messages: Sequence[Message], i: int, shown: str, tools: Sequence[Any] | None) -> None:
        """Raise TrialFailed if what a message says is not in a rendered text, as it is or as the template escapes it.

        What tools return may be changed: templates shorten it or lay it out anew.
        """
        role, said = messages[i]["role"], str(messages[i].get("content") or "")
        said = (said.rpartition("</think>")[2] if role == "assistant" else said).strip()
        text = self.control.hide(said)
        if role == "tool" or text in shown:
            return
        written = self._as_written(messages, i, text, tools)
        if written is None:
            raise TrialFailed(f"the base model's chat template leaves out what the {role} says: {said[:60]!r}")
        if written not in shown:
            raise TrialFailed(
                f"the base model's chat template changes what the {role} says, so it cannot be located: {said[:60]!r}"
            )

    def _as_written(self, messages: Sequence[Message], i: int, text: str, tools: Sequence[Any] | None) -> str | None:
        """Return a text as the template writes it for this message: some escape characters, as JSON strings do.

        To find out, its characters are rendered in its place, each between anchors. None if some of them are left out.
        """
        characters = sorted(set(text))
        apart = {**messages[i], "content": "".join(f"{_ANCHOR}{character}" for character in characters) + _ANCHOR}
        try:
            rendered = self.render([*messages[:i], apart, *messages[i + 1 :]], tools, generate=False)
        except TrialFailed:
            return None
        written = dict(zip(characters, rendered.split(_ANCHOR)[1:-1], strict=False))
        if not all(written.get(character) or character.isspace() for character in characters):
            return None
        return "".join(written.get(character, "") for character in text)

    def continuation(self, messages: Sequence[Message], *, after_end: bool) -> str:
        """Return the text between the model's answer and its next one.

        These are the end of the answer's turn, `messages`, and the generation prompt. `after_end` says that the answer
        ended with an end token. It is taken from a made-up conversation, so that the model's own answer keeps the
        tokens that it generated.
        """
        for made_up in _made_up_answers(messages[0]):
            text = self.render([{"role": "user", "content": "?"}, made_up, *messages], generate=True)
            _, found, behind = text.rpartition(_ANCHOR)
            if found:
                end = self.control.first(behind)
                return behind[behind.index(end) + (len(end) if after_end else 0) :]
        raise TrialFailed("the chat template leaves out an answer when a turn follows: multi-turn rollouts fail")

    def content_bytes(self, message: Message, shown: str | None = None) -> int:
        """Return the UTF-8 bytes of a message: its reasoning, its text, and each tool call as JSON.

        A call is `{"name": …, "arguments": {…}}`, whatever the template writes: so the bytes are the same for all base
        models, and about as many as the text that the model generates, even for a call without arguments. Reasoning
        counts only if it is in the text `shown`, where this is given: some templates leave it out.
        """
        if message["role"] == "assistant" and self._unreasoned:
            message = without_reasoning(message, self._unreasoned)
        thought = reasoning(message)
        thought = "" if shown is not None and thought.strip() not in shown else thought
        functions = [call.get("function", call) for call in message.get("tool_calls") or ()]
        calls = [
            json.dumps({"name": function["name"], "arguments": function["arguments"]}, ensure_ascii=False)
            for function in functions
        ]
        return len("".join([thought, message.get("content") or "", *calls]).encode())

    @cached_property
    def end_of_turn(self) -> str:
        """The token that ends an assistant turn: what the model must learn to generate, and what generation stops at.

        It is the first special token behind an answer; where the template has none there, that with which the next
        turn begins (GLM); where it has none at all, the tokenizer's end-of-sequence token. Empty without any.
        """
        next_turn = self._first_behind([*_ASKED, {"role": "user", "content": "?"}])
        return self._own_end or next_turn or str(self._tokenizer.eos_token or "")

    @cached_property
    def _own_end(self) -> str:
        """The token with which the template itself ends an answer; empty if it leaves it open."""
        return self._first_behind(_ASKED)

    @cached_property
    def end_of_call(self) -> str:
        """The token that ends a turn which calls a tool; most templates end it like any other."""
        reply = {"role": "tool", "name": "tool", "content": "?"}
        asked, called = {"role": "user", "content": "?"}, next(_made_up_answers(reply))
        said, marks = [asked, called], self._marks_of_calls(asked, called)
        return self._first_behind(said, marks) or self._first_behind([*said, reply], marks) or self.end_of_turn

    def _marks_of_calls(self, asked: Message, called: Message) -> frozenset[str]:
        """Return the special tokens around each call in a turn: there are more of them if it calls twice. Empty if the
        template shows one call alone."""
        twice = {**called, "tool_calls": [*called["tool_calls"], *called["tool_calls"]]}
        try:
            shown = [self.render([asked, message], generate=False) for message in (called, twice)]
        except TrialFailed:
            return frozenset()
        once, more = (Counter(self.control.all(text)) for text in shown)
        return frozenset(token for token in once if more[token] > once[token])

    @property
    def ends(self) -> tuple[str, ...]:
        """The tokens at which an assistant turn may end."""
        return tuple(sorted({self.end_of_turn, self.end_of_call} - {""}))

    def _first_behind(self, messages: Sequence[Message], but: frozenset[str] = frozenset()) -> str:
        """Return the first special token behind the anchor, but none of these; empty if there is none, or no such
        conversation."""
        return next((token for token in self._tokens_behind(messages) if token not in but), "")

    def _tokens_behind(self, messages: Sequence[Message]) -> list[str]:
        """Return the special tokens behind the anchor, in order; none if there is no such conversation."""
        try:
            _, found, behind = self.render(messages, generate=False).rpartition(_ANCHOR)
        except TrialFailed:
            return []
        return self.control.all(behind) if found else []

    def _end_behind(self, message: Message) -> str:
        return self.end_of_call if message.get("tool_calls") else self.end_of_turn

    def _ends(self, answer: str) -> bool:
        """Return whether the answer has an end behind its text. A template may have another one than `end_of_turn`
        for calls of tools."""
        if not self.end_of_turn:
            return True
        behind = answer.rstrip()
        return behind.endswith(self.end_of_turn) or any(behind.endswith(token) for token in self.control.tokens)

    def _through_end(self, whole: str, end: int) -> int:
        """Return the end of a marked turn, with the end token that the template leaves outside of it."""
        behind = whole[end:]
        return end + len(self.end_of_turn) if self.end_of_turn and behind.startswith(self.end_of_turn) else end

    def _rendered(
        self, messages: Sequence[Message], tools: Sequence[Any] | None, *, generate: bool
    ) -> tuple[str, list[tuple[int, int]]]:
        """Return the text, and the ranges that the template marks with `{% generation %}`."""
        if not self._tokenizer.chat_template:
            raise TrialFailed("the rows are conversations, but the base model has no chat template")
        said = [self._as_expected(message) for message in messages]
        try:
            return self._filled_in(said, tools, generate=generate)
        except TypeError as error:
            if not any(message.get("tool_calls") for message in said):
                raise _refused(error) from error
        try:  # some templates, e.g. DeepSeek's, want the arguments of a call as text
            return self._filled_in([_with_arguments_as_text(m) for m in said], tools, generate=generate)
        except TypeError as error:
            raise _refused(error) from error

    def _as_expected(self, message: Message) -> dict[str, Any]:
        """Return a message in the shape that the template reads, with control tokens hidden."""
        hidden = {**self.control.hide(message), "role": message["role"]}
        if message["role"] == "developer" and not self._knows_developers:
            hidden["role"] = "system"
        if message["role"] == "assistant" and self._unreasoned:
            hidden = without_reasoning(hidden, self._unreasoned)
        if self.wants_parts and isinstance(hidden.get("content"), str):
            hidden["content"] = [{"type": "text", "text": hidden["content"]}]
        return hidden

    @cached_property
    def _knows_developers(self) -> bool:
        said = [{"role": "developer", "content": _ANCHOR}, {"role": "user", "content": "?"}]
        return self._shows_anchor([{**message} for message in said])

    @cached_property
    def _unreasoned(self) -> str:
        """The tag of the reasoning block that the generation prompt opens and ends; empty if it does not."""
        try:
            _, _, prompt = self.render([{"role": "user", "content": _ANCHOR}], generate=True).rpartition(_ANCHOR)
        except TrialFailed:
            return ""
        return ended_block(prompt)

    @cached_property
    def wants_parts(self) -> bool:
        """Whether the template reads only OpenAI's parts of content, as those of models that see images do."""
        parts = [{"type": "text", "text": _ANCHOR}]
        as_text, as_parts = ([{"role": "user", "content": content}] for content in (_ANCHOR, parts))
        return not self._shows_anchor(as_text) and self._shows_anchor(as_parts)

    def _shows_anchor(self, messages: list[dict[str, Any]]) -> bool:
        try:
            return _ANCHOR in self._filled_in(messages, None, generate=True)[0]
        except (TrialFailed, TypeError):
            return False

    def _filled_in(
        self, messages: list[dict[str, Any]], tools: Sequence[Any] | None, *, generate: bool
    ) -> tuple[str, list[tuple[int, int]]]:
        listed = list(tools) if tools else None
        template = self._tokenizer.get_chat_template(None, listed)
        try:
            if template_clock.shows_time(template):
                template_clock.stop(template, self.clock)
            names: dict[str, Any] = dict(self._tokenizer.special_tokens_map)
            filled_in: Any = render_jinja_template(
                [messages],
                tools=listed,
                chat_template=template,
                return_assistant_tokens_mask=bool(_MARKED.search(template)),
                add_generation_prompt=generate,
                **names,
            )
            texts, marked = filled_in
        except (TemplateError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise _refused(error) from error
        return str(texts[0]), [(int(start), int(end)) for start, end in (marked[0] if marked else ())]


def _made_up_answers(response: Message) -> Iterator[dict[str, Any]]:
    """Yield assistant messages that may precede this one: a tool's result should follow a call of the tool."""
    if response["role"] == "tool":
        function = {"name": response.get("name") or "tool", "arguments": {"_": _ANCHOR}}
        yield {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    yield {"role": "assistant", "content": _ANCHOR}


def _with_arguments_as_text(message: Mapping[str, Any]) -> dict[str, Any]:
    calls = [
        {
            **call,
            "function": {
                **call["function"],
                "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
            },
        }
        for call in message.get("tool_calls") or ()
    ]
    return {**message, "tool_calls": calls} if calls else dict(message)


def _refused(error: Exception) -> TrialFailed:
    return TrialFailed(f"the base model's chat template cannot render a row: {error}")
