"""Tokenise dataset rows: the token ids that a model reads, and which of them are targets.

Prompt and answer go through the tokenizer's chat template, or without one become plain text plus the end-of-sequence
token; both as in TRL. The whole text is tokenised once, and targets are found by character offsets. A token that spans
the end of the prompt and the start of the answer is a target.
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
    """One sequence. `target[t]` marks token t as predicted from those before it; the first token never is."""

    ids: tuple[int, ...]
    target: tuple[bool, ...]
    target_bytes: int  # UTF-8 bytes of the dataset's text in the targets, without the chat template's own text
    desirable: bool = True  # the dataset's label, for unpaired preference data

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def targets(self) -> int:
        """The number of target tokens."""
        return sum(self.target)

    def predictions(self) -> list[tuple[int, int]]:
        """Return for each target the position whose output predicts it, and its token id."""
        return [(t - 1, self.ids[t]) for t, is_target in enumerate(self.target) if is_target]


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked(Tokens):
    """A sequence for an encoder, which predicts each target at its own position.

    `labels` is the text and `ids` the model's input, with some tokens masked. The renderer masks none, and its `target`
    marks the tokens that may be masked: all except special tokens.
    """

    labels: tuple[int, ...]
    mask: int  # id of the mask token

    def predictions(self) -> list[tuple[int, int]]:
        return [(t, self.labels[t]) for t, is_target in enumerate(self.target) if is_target]

    def with_targets(self, inputs: Mapping[int, int]) -> Masked:
        """Return the sequence with these positions as its targets, and these token ids as the model's input there."""
        return replace(
            self,
            ids=tuple(inputs.get(t, token) for t, token in enumerate(self.labels)),
            target=tuple(t in inputs for t in range(len(self))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt(Tokens):
    """A prompt without an answer, and so without targets, with its dataset row."""

    row: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Target text: its character range in the rendered text, and the bytes of the dataset's text in it."""

    start: int
    end: int
    content_bytes: int


class Renderer:
    """Renders dataset rows for one tokenizer.

    `window` and `max_tokens` are lengths in tokens. Documents are split into windows that overlap by one token, so that
    every token except a document's first is a target exactly once. Other rows are truncated on the right.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, window: int, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.window = window
        self.max_tokens = max_tokens

    def answers(self, row: Row, kind: DataKind) -> list[Tokens]:
        """Return the row with its answer as target, for the judge and for `sft`. A prompt alone is its own target.

        Empty if truncation leaves no target, and for an undesirable answer.
        """
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
                return _kept(self._prompt_alone(row["prompt"], row.get("tools")))
            case DataKind.UNPAIRED:
                return _kept(self.pair(row["prompt"], row["completion"])) if row["label"] else []

    def full_text(self, row: Row, kind: DataKind) -> list[Tokens]:
        """Return the same text with every token as target, for `clm`."""
        return [
            Tokens(ids=t.ids, target=(False, *[True] * (len(t) - 1)), target_bytes=t.target_bytes)
            for t in self.answers(row, kind)
        ]

    def bidirectional(self, text: str) -> list[Masked]:
        """Return a document for an encoder: windows without overlap, between the tokenizer's special tokens.

        Every token is a target once. Unknown tokens are not targets, and their bytes do not count.
        """
        opening, closing = self._special_tokens()
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

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """Return the special tokens that the tokenizer puts before a text and after it."""
        whole, bare = (self.tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
        before = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        return whole[:before], whole[before + len(bare) :]

    def pair(
        self,
        prompt: str | Sequence[Message],
        completion: str | Sequence[Message],
        tools: Sequence[Any] | None = None,
    ) -> Tokens:
        """Return a prompt and its answer, with the answer as target. Raises TrialFailed if they cannot be rendered."""
        if isinstance(prompt, str) != isinstance(completion, str):
            raise TrialFailed("prompt and completion must both be text or both be messages")
        if isinstance(prompt, str) and not self.tokenizer.chat_template:
            text = str(completion)
            span = Span(start=len(prompt), end=len(prompt) + len(text), content_bytes=len(text.encode()))
            return self._tokens(prompt + text, [span], special_tokens=True, end=True)
        question, answer = as_messages(prompt, "user"), as_messages(completion, "assistant")
        head = self._template(question, tools, generate=True)
        text = self._template([*question, *answer], tools, generate=False)
        if not text.startswith(head):
            raise TrialFailed(
                "the chat template changes the prompt when an answer follows, so the answer cannot be located"
            )
        span = Span(start=len(head), end=len(text), content_bytes=sum(map(_content_bytes, answer)))
        return self._tokens(text, [span], special_tokens=False, end=False)

    def prompt(self, prompt: str | Sequence[Message], tools: Sequence[Any] | None = None) -> tuple[int, ...]:
        """Return the token ids after which the model generates its answer."""
        if isinstance(prompt, str) and not self.tokenizer.chat_template:
            return tuple(self.tokenizer(prompt)["input_ids"])
        text = self._template(as_messages(prompt, "user"), tools, generate=True)
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def as_generated(self, prompt: Sequence[Message], answer: Message, tools: Sequence[Any] | None = None) -> str:
        """Return an assistant's message as a model would generate it: in the template's format, no special tokens."""
        tokens = Renderer(self.tokenizer, window=self.window, max_tokens=sys.maxsize).pair(prompt, [answer], tools)
        ids = [token for token, is_target in zip(tokens.ids, tokens.target, strict=True) if is_target]
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _prompt_alone(self, prompt: str | Sequence[Message], tools: Sequence[Any] | None) -> Tokens:
        if isinstance(prompt, str) and not self.tokenizer.chat_template:
            span = Span(start=0, end=len(prompt), content_bytes=len(prompt.encode()))
            return self._tokens(prompt, [span], special_tokens=True, end=False)
        messages = as_messages(prompt, "user")
        text = self._template(messages, tools, generate=False)
        span = Span(start=0, end=len(text), content_bytes=sum(map(_content_bytes, messages)))
        return self._tokens(text, [span], special_tokens=False, end=False)

    def continuation(self, messages: Sequence[Message], *, after_end: bool) -> tuple[int, ...]:
        """Return the token ids between the model's answer and its next one.

        These are the end of the answer's turn, `messages`, and the start of the next turn. `after_end` says that the
        answer ended with the end token. They are taken from a dummy conversation, so that the model's own answer keeps
        the tokens that it generated. Raises TrialFailed if the chat template changes earlier turns.
        """
        before = [{"role": "user", "content": "?"}, _dummy_answer(messages[0])]
        head = self._template(before, None, generate=False)
        text = self._template([*before, *messages], None, generate=True)
        if not text.startswith(head):
            raise TrialFailed(
                "the chat template changes an answer when a turn follows: multi-turn rollouts are impossible"
            )
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
                    "the chat template changes earlier turns when later ones follow: no turn can be located"
                )
            spans.append(Span(start=len(head), end=len(through), content_bytes=_content_bytes(message)))
        return self._tokens(text, spans, special_tokens=False, end=False)

    def _windows(self, text: str) -> list[Tokens]:
        ids, offsets = self._encode(text, special_tokens=True, end=True)
        spelt = list(accumulate((end for _, end in offsets), max))  # characters covered by the tokens up to each one
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
            raise TrialFailed("the rows are conversations, but the base model has no chat template")
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
        stop = len(text) if end else -1  # the end token after plain text belongs to the answer
        # Some tokenizers trim offsets: a token of spaces only is then empty, and located at the end of the spaces.
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
    """Return an assistant's message that may precede this one: a tool's result must follow a call of the tool."""
    if response["role"] != "tool":
        return {"role": "assistant", "content": "!"}
    call: Message = {"name": response.get("name") or "tool", "arguments": {}}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]}


def _kept(tokens: Tokens) -> list[Tokens]:
    return [tokens] if tokens.targets else []


def _content_bytes(message: Message) -> int:
    """Return the UTF-8 bytes of a message: of its text, and of the name and the arguments of each tool call."""
    functions = [call.get("function", call) for call in message.get("tool_calls") or ()]
    calls = [function["name"] + json.dumps(function["arguments"], ensure_ascii=False) for function in functions]
    return len("".join([message.get("content") or "", *calls]).encode())
