"""From a dataset row to tokens: the text a model reads, and which of its tokens are targets.

A prompt and its answer go through the tokenizer's chat template where it has one, and stand as plain text followed by
the end-of-sequence token where it has none; both as TRL does it. Targets are found by character offsets, so the text
is tokenised once and whole; a token that spells the end of the prompt and the start of the answer is a target.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from luthier.dataset.messages import Message, as_messages
from luthier.errors import TrialFailed
from luthier.task import DataKind

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """One sequence. `target[t]` says that token t is predicted from those before it; the first never is."""

    ids: tuple[int, ...]
    target: tuple[bool, ...]
    target_bytes: int  # UTF-8 bytes of the dataset's own text that the targets spell, without template marks
    desirable: bool = True  # the dataset's verdict on the targets, where it has one

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def targets(self) -> int:
        return sum(self.target)

    def predictions(self) -> list[tuple[int, int]]:
        """For each target, the position whose output predicts it, and the target."""
        return [(t - 1, self.ids[t]) for t, is_target in enumerate(self.target) if is_target]


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked(Tokens):
    """A sequence that is read in both directions, so that each target is predicted where it stands: `labels` is the
    text, `ids` what the model sees of it. As it comes from the renderer nothing is hidden, and `target` says what may
    be: all but special tokens."""

    labels: tuple[int, ...]
    mask: int  # the mask token

    def predictions(self) -> list[tuple[int, int]]:
        return [(t, self.labels[t]) for t, is_target in enumerate(self.target) if is_target]

    def hiding(self, chosen: Mapping[int, int]) -> Masked:
        """With what the model sees instead at each chosen position; these are the targets."""
        return replace(
            self,
            ids=tuple(chosen.get(t, token) for t, token in enumerate(self.labels)),
            target=tuple(t in chosen for t in range(len(self))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt(Tokens):
    """A prompt that is still to be answered, without targets; it knows the row that it asks."""

    row: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of rendered text, in characters, that is a target, and the bytes of content it stands for."""

    start: int
    end: int
    content_bytes: int


class Renderer:
    """Renders the rows of one dataset kind for one tokenizer.

    `window` and `max_tokens` are lengths in tokens: long text is cut into windows that overlap by one token, so that
    every token but a document's first is a target exactly once; other rows are cut on the right.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, window: int, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.window = window
        self.max_tokens = max_tokens

    def answers(self, row: Row, kind: DataKind) -> list[Tokens]:
        """The row with its answer as target: what is judged, and what `sft` learns; a prompt alone is its own target.
        Empty if nothing is left of it, and for an undesirable answer."""
        match kind:
            case DataKind.TEXT:
                return self._windows(row["text"])
            case DataKind.PAIRS:
                return _kept(self.pair(row["prompt"], row["completion"], row.get("tools")))
            case DataKind.CHAT:
                return _kept(self._chat(row["messages"], row.get("tools")))
            case DataKind.PREFERENCE:
                return _kept(self.pair(row["prompt"], row["chosen"], row.get("tools")))
            case DataKind.PROMPTS:
                return _kept(self._asked(row["prompt"], row.get("tools")))
            case DataKind.UNPAIRED:
                return _kept(self.pair(row["prompt"], row["completion"])) if row["label"] else []

    def everything(self, row: Row, kind: DataKind) -> list[Tokens]:
        """The same text with every token as target: what `clm` learns."""
        return [
            Tokens(ids=t.ids, target=(False, *[True] * (len(t) - 1)), target_bytes=t.target_bytes)
            for t in self.answers(row, kind)
        ]

    def both_ways(self, text: str) -> list[Masked]:
        """Text as an encoder reads it: windows that do not overlap, each between the tokenizer's own marks, so that
        every token is a target once. Tokens that stand for unknown text are none, and their bytes are not counted."""
        opening, closing = self._marks()
        ids, offsets = self._encode(text, special_tokens=False, end=False)
        special = set(self.tokenizer.all_special_ids)
        spelt = [0, *accumulate((end for _, end in offsets), max)]
        stride = self.window - len(opening) - len(closing)
        windows = []
        for start in range(0, len(ids), stride):
            stop = min(start + stride, len(ids))
            known = [token not in special for token in ids[start:stop]]
            size = sum(
                len(text[spelt[start + t] : spelt[start + t + 1]].encode())
                for t, is_known in enumerate(known)
                if is_known
            )
            if any(known):
                row = (*opening, *ids[start:stop], *closing)
                target = (*[False] * len(opening), *known, *[False] * len(closing))
                mask = self.tokenizer.mask_token_id
                windows.append(Masked(ids=row, labels=row, target=target, target_bytes=size, mask=mask))
        return windows

    def _marks(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before a text and after it."""
        whole, bare = (self.tokenizer("a", add_special_tokens=marked)["input_ids"] for marked in (True, False))
        before = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        return whole[:before], whole[before + len(bare) :]

    def pair(
        self,
        prompt: str | Sequence[Message],
        completion: str | Sequence[Message],
        tools: Sequence[Any] | None = None,
    ) -> Tokens:
        """A prompt and the answer to it."""
        if isinstance(prompt, str) != isinstance(completion, str):
            raise TrialFailed("a prompt and its completion are both text or both messages")
        if isinstance(prompt, str) and not self.tokenizer.chat_template:
            text = str(completion)
            span = Span(start=len(prompt), end=len(prompt) + len(text), content_bytes=len(text.encode()))
            return self._tokens(prompt + text, [span], special_tokens=True, end=True)
        question, answer = as_messages(prompt, "user"), as_messages(completion, "assistant")
        head = self._template(question, tools, generate=True)
        text = self._template([*question, *answer], tools, generate=False)
        if not text.startswith(head):
            raise TrialFailed("the chat template rewrites the prompt once the answer is there")
        span = Span(start=len(head), end=len(text), content_bytes=sum(map(_content_bytes, answer)))
        return self._tokens(text, [span], special_tokens=False, end=False)

    def prompt(self, prompt: str | Sequence[Message], tools: Sequence[Any] | None = None) -> tuple[int, ...]:
        """Token ids after which the model is to answer."""
        if isinstance(prompt, str) and not self.tokenizer.chat_template:
            return tuple(self.tokenizer(prompt)["input_ids"])
        text = self._template(as_messages(prompt, "user"), tools, generate=True)
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def spoken(self, prompt: Sequence[Message], answer: Message, tools: Sequence[Any] | None = None) -> str:
        """An assistant's turn as a generation says it: without special tokens, its tool calls as the template writes
        them."""
        tokens = Renderer(self.tokenizer, window=self.window, max_tokens=sys.maxsize).pair(prompt, [answer], tools)
        said = [token for token, is_target in zip(tokens.ids, tokens.target, strict=True) if is_target]
        return str(self.tokenizer.decode(said, skip_special_tokens=True)).strip()

    def _asked(self, prompt: str | Sequence[Message], tools: Sequence[Any] | None) -> Tokens:
        if isinstance(prompt, str) and not self.tokenizer.chat_template:
            span = Span(start=0, end=len(prompt), content_bytes=len(prompt.encode()))
            return self._tokens(prompt, [span], special_tokens=True, end=False)
        asked = as_messages(prompt, "user")
        text = self._template(asked, tools, generate=False)
        span = Span(start=0, end=len(text), content_bytes=sum(map(_content_bytes, asked)))
        return self._tokens(text, [span], special_tokens=False, end=False)

    def continuation(self, messages: Sequence[Message], *, after_end: bool) -> tuple[int, ...]:
        """Token ids of what comes between the model's answer and its next one: the end of the answer's turn, these
        messages, and the start of its next turn. `after_end`: the answer's last token was the end token.

        Found on a made-up conversation, so that what the model said need not be rendered.
        """
        before = [{"role": "user", "content": "?"}, _dummy_answer(messages[0])]
        head = self._template(before, None, generate=False)
        text = self._template([*before, *messages], None, generate=True)
        if not text.startswith(head):
            raise TrialFailed("the chat template rewrites an answer once more is said: no second turn can be played")
        end = self.tokenizer.eos_token
        turn_end = head.rfind(end) if end else -1
        start = len(head) if turn_end < 0 else turn_end + (len(end) if after_end else 0)
        return tuple(self.tokenizer(text[start:], add_special_tokens=False)["input_ids"])

    def _chat(self, messages: Sequence[Message], tools: Sequence[Any] | None) -> Tokens:
        text = self._template(messages, tools, generate=False)
        spans = []
        for i, message in enumerate(messages):
            if message["role"] != "assistant" or message.get("weight", 1) == 0:
                continue
            head = self._template(messages[:i], tools, generate=True)
            through = self._template(messages[: i + 1], tools, generate=False)
            if not (text.startswith(through) and through.startswith(head)):
                raise TrialFailed(
                    "the chat template rewrites earlier turns when later ones follow: assistant turns cannot be found"
                )
            spans.append(Span(start=len(head), end=len(through), content_bytes=_content_bytes(message)))
        return self._tokens(text, spans, special_tokens=False, end=False)

    def _windows(self, text: str) -> list[Tokens]:
        ids, offsets = self._encode(text, special_tokens=True, end=True)
        spelt = list(accumulate((end for _, end in offsets), max))  # characters that the tokens up to here touch
        stride = self.window - 1
        windows = []
        for start in range(0, max(1, len(ids) - 1), stride):
            piece = ids[start : start + self.window]
            if len(piece) > 1:
                content = text[spelt[start] : spelt[start + len(piece) - 1]]
                target = (False, *[True] * (len(piece) - 1))
                windows.append(Tokens(ids=tuple(piece), target=target, target_bytes=len(content.encode())))
        return windows

    def _template(self, messages: Sequence[Message], tools: Sequence[Any] | None, *, generate: bool) -> str:
        if not self.tokenizer.chat_template:
            raise TrialFailed("the rows are conversations but the base model has no chat template")
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(m) for m in messages],
                tools=list(tools) if tools else None,
                tokenize=False,
                add_generation_prompt=generate,
            )
        except (TemplateError, TypeError) as error:
            raise TrialFailed(f"the base model's chat template cannot render a row: {error}") from error
        return str(text)

    def _tokens(self, text: str, spans: Sequence[Span], *, special_tokens: bool, end: bool) -> Tokens:
        ids, offsets = self._encode(text, special_tokens=special_tokens, end=end)
        ids, offsets = ids[: self.max_tokens], offsets[: self.max_tokens]
        stop = len(text) if end else -1  # the end token appended to plain text belongs to the answer
        # Where a tokenizer trims its offsets, a token of nothing but spaces is empty and stands at their end.
        target = [
            i > 0 and (start == stop or any(s.start < finish and (start < s.end or finish == s.end) for s in spans))
            for i, (start, finish) in enumerate(offsets)
        ]
        reached = max((finish for _, finish in offsets), default=0)
        content = sum(
            s.content_bytes if s.end <= reached else min(s.content_bytes, len(text[s.start : reached].encode()))
            for s in spans
            if s.start < reached
        )
        return Tokens(ids=tuple(ids), target=tuple(target), target_bytes=content)

    def _encode(self, text: str, *, special_tokens: bool, end: bool) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = self.tokenizer(text, add_special_tokens=special_tokens, return_offsets_mapping=True, verbose=False)
        ids, offsets = list(encoding["input_ids"]), [(int(a), int(b)) for a, b in encoding["offset_mapping"]]
        eos = self.tokenizer.eos_token_id
        if end and eos is not None:
            if ids and ids[-1] == eos:
                offsets[-1] = (len(text), len(text))
            else:
                ids.append(eos)
                offsets.append((len(text), len(text)))
        return ids, offsets


def _dummy_answer(response: Message) -> Message:
    """An assistant's message that may stand before this one: a tool's result follows a call of the tool."""
    if response["role"] != "tool":
        return {"role": "assistant", "content": "!"}
    call: Message = {"name": response.get("name") or "tool", "arguments": {}}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]}


def _kept(tokens: Tokens) -> list[Tokens]:
    return [tokens] if tokens.targets else []


def _content_bytes(message: Message) -> int:
    """UTF-8 bytes of what the message says: its text, and the name and the arguments of each call."""
    functions = [call.get("function", call) for call in message.get("tool_calls") or ()]
    calls = [function["name"] + json.dumps(function["arguments"], ensure_ascii=False) for function in functions]
    return len("".join([message.get("content") or "", *calls]).encode())
