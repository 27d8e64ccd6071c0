"""Tokenise dataset rows: the token ids that a model reads, and which of them are targets.

Prompt and answer go through the tokenizer's chat template, or without one become plain text plus the end-of-sequence
token. The whole text is tokenised, and targets are found by character offsets. Training reads the very tokens that
inference shows. So the text is tokenised in two pieces if a token would span the end of the context and the start of
the answer. Spaces at the end of a plain prompt belong to the answer, as most tokenizers join them with its first word.

Control tokens that are spelt in a message are read as text, not as the end of a turn.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate, pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from luthier.dataset.messages import Message, as_messages
from luthier.errors import TrialFailed
from luthier.task import DataKind
from workers.train.data.control_tokens import Piece
from workers.train.data.conversation import ChatTemplate, Span

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


class Renderer:
    """Renders dataset rows for one tokenizer.

    `window` and `max_tokens` are lengths in tokens. Documents are split into windows that overlap by one token, so that
    every token except a document's first is a target exactly once. Other rows are truncated on the right.
    `clock` is the time that chat templates show, if they do; by default that at which the renderer was made.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, window: int, max_tokens: int, clock: datetime | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.window = window
        self.max_tokens = max_tokens
        self.chat = ChatTemplate(tokenizer, clock)

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
                texts = self.chat.texts(row["messages"], row.get("tools"))
                return [t for text in texts for t in _kept(self._template_tokens(text.text, text.spans))]
            case DataKind.PREFERENCE:
                return _kept(self.pair(row["prompt"], row["chosen"], row.get("tools")))
            case DataKind.PROMPTS:
                return _kept(self._prompt_alone(row["prompt"], row.get("tools")))
            case DataKind.UNPAIRED:
                return _kept(self.pair(row["prompt"], row["completion"])) if row["label"] else []

    def full_text(self, row: Row, kind: DataKind) -> list[Tokens]:
        """Return the same text with every token as target, for `clm`. Turns of weight 0 are none.

        A chat is its full rendering, even if its turns are trained on as texts of their own.
        """
        if kind is not DataKind.CHAT:
            return [replace(t, target=(False, *[True] * (len(t) - 1))) for t in self.answers(row, kind)]
        messages, tools = row["messages"], row.get("tools")
        whole = self.chat.whole(messages, tools)
        size = sum(self.chat.content_bytes(m) for m in messages if m["role"] == "assistant" and m.get("weight", 1) != 0)
        spans = _between(self.chat.untrained(messages, tools), len(whole))
        tokens = self._template_tokens(whole, [replace(spans[0], content_bytes=size), *spans[1:]])
        return _kept(replace(tokens, target=(False, *tokens.target[1:])))

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
        ids = list(self.tokenizer("a")["input_ids"])
        special = {self.tokenizer.convert_tokens_to_ids(token) for token in self.chat.control.tokens}
        plain = [t for t, token in enumerate(ids) if token not in special]
        return ids[: plain[0]], ids[plain[-1] + 1 :]

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
            answer = str(completion)
            start, end = len(_plain_prompt(prompt)), len(prompt) + len(answer)
            span = Span(start=start, end=end, content_bytes=len(answer.encode()))
            return self._tokens(prompt + answer, [span], special_tokens=True, end=True)
        asked, answered = as_messages(prompt, "user"), as_messages(completion, "assistant")
        turn = self.chat.turn(asked, answered, tools)
        if len(answered) > 1:
            return self._template_tokens(turn.whole, self.chat.learned(asked, answered, tools, turn))
        span = Span(start=len(turn.context), end=len(turn.whole), content_bytes=turn.content_bytes)
        return self._template_tokens(turn.whole, [span])

    def prompt(self, prompt: str | Sequence[Message], tools: Sequence[Any] | None = None) -> tuple[int, ...]:
        """Return the token ids after which the model generates its answer."""
        if isinstance(prompt, str) and not self.tokenizer.chat_template:
            return self.opening(prompt)
        text = self.chat.render(as_messages(prompt, "user"), tools, generate=True)
        return tuple(self._encode(text, special_tokens=False, end=False)[0])

    def opening(self, prompt: str) -> tuple[int, ...]:
        """Return the token ids of a plain prompt: without the end that some tokenizers add, as an answer follows."""
        return tuple(self._encode(_plain_prompt(prompt), special_tokens=True, end=False)[0])

    def as_generated(self, prompt: Sequence[Message], answer: Message, tools: Sequence[Any] | None = None) -> str:
        """Return an assistant's message as a model would generate it: in the template's format, no special tokens."""
        whole = Renderer(self.tokenizer, window=self.window, max_tokens=sys.maxsize, clock=self.chat.clock)
        tokens = whole.pair(prompt, [answer], tools)
        ids = [token for token, is_target in zip(tokens.ids, tokens.target, strict=True) if is_target]
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _prompt_alone(self, prompt: str | Sequence[Message], tools: Sequence[Any] | None) -> Tokens:
        if isinstance(prompt, str) and not self.tokenizer.chat_template:
            span = Span(start=0, end=len(prompt), content_bytes=len(prompt.encode()))
            return self._tokens(prompt, [span], special_tokens=True, end=False)
        messages = as_messages(prompt, "user")
        text = self.chat.render(messages, tools, generate=False)
        return self._template_tokens(
            text, [Span(start=0, end=len(text), content_bytes=sum(map(self.chat.content_bytes, messages)))]
        )

    def continuation(self, messages: Sequence[Message], *, after_end: bool) -> tuple[int, ...]:
        """Return the token ids between the model's answer and its next one: see ChatTemplate.continuation."""
        text = self.chat.continuation(messages, after_end=after_end)
        return tuple(self._encode(text, special_tokens=False, end=False)[0])

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

    def _tokens(self, text: str, spans: Sequence[Span], *, special_tokens: bool, end: bool) -> Tokens:
        starts = [span.start for span in spans]
        ids, offsets = self._encode(text, special_tokens=special_tokens, end=end, parts=starts)
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

    def _template_tokens(self, text: str, spans: Sequence[Span]) -> Tokens:
        return self._tokens(text, spans, special_tokens=False, end=False)

    def _encode(
        self, text: str, *, special_tokens: bool, end: bool, parts: Sequence[int] = ()
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Return token ids and their character offsets. No token spans one of the positions in `parts`.

        `special_tokens`: put the tokenizer's opening token before the text, once. `end`: end with its end token.
        """
        ids, offsets = self._tokenised(text, special_tokens=special_tokens)
        if special_tokens:
            opening, closing = self._special_tokens()
            if closing and ids[-len(closing) :] == closing:
                ids, offsets = ids[: -len(closing)], offsets[: -len(closing)]
            if opening and ids[: 2 * len(opening)] == 2 * opening:  # the text spells it already
                ids, offsets = ids[len(opening) :], offsets[len(opening) :]
        if cuts := [at for at in parts if any(start < at < finish for start, finish in offsets)]:
            ids, offsets = self._apart(text, cuts, special_tokens=special_tokens)
        eos = self.tokenizer.eos_token_id
        if end and eos is not None:
            if ids and ids[-1] == eos:
                offsets[-1] = (len(text), len(text))
            else:
                ids.append(eos)
                offsets.append((len(text), len(text)))
        return ids, offsets

    def _tokenised(self, text: str, *, special_tokens: bool) -> tuple[list[int], list[tuple[int, int]]]:
        """Return token ids and offsets of a rendered text, in which the control tokens of messages are still hidden."""
        pieces = self.chat.control.pieces(text)
        if len(pieces) == 1 and not pieces[0].spelt:
            return self._plain(text, special_tokens=special_tokens)
        return self._joined(pieces, special_tokens=special_tokens)

    def _apart(
        self, text: str, cuts: Sequence[int], *, special_tokens: bool
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokenise the stretches between the cuts one by one."""
        edges = [0, *sorted(set(cuts)), len(text)]
        pieces = [
            replace(piece, start=start + piece.start)
            for start, stop in pairwise(edges)
            for piece in self.chat.control.pieces(text[start:stop])
        ]
        return self._joined(pieces, special_tokens=special_tokens)

    def _joined(self, pieces: Sequence[Piece], *, special_tokens: bool) -> tuple[list[int], list[tuple[int, int]]]:
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for i, piece in enumerate(pieces):
            if i == 0:
                new, places = self._plain(piece.text, special_tokens=special_tokens, spelt=piece.spelt)
            else:
                new, places = self._continued(piece.text, spelt=piece.spelt)
            ids += new
            offsets += [(piece.start + start, piece.start + finish) for start, finish in places]
        return ids, offsets

    def _continued(self, text: str, *, spelt: bool) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokenise a text that follows another: behind a line break, as some tokenizers add a space to a first word."""
        ids, offsets = self._plain("\n" + text, spelt=spelt)
        if any(start < 1 < finish for start, finish in offsets):
            return self._plain(text, spelt=spelt)
        first = next((t for t, (_, finish) in enumerate(offsets) if finish > 1), len(ids))
        return ids[first:], [(start - 1, finish - 1) for start, finish in offsets[first:]]

    def _plain(
        self, text: str, *, special_tokens: bool = False, spelt: bool = False
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """`spelt`: read control tokens as text."""
        encoding = self.tokenizer(
            text,
            add_special_tokens=special_tokens,
            return_offsets_mapping=True,
            split_special_tokens=spelt,
            verbose=False,
        )
        return list(encoding["input_ids"]), [(int(a), int(b)) for a, b in encoding["offset_mapping"]]


def _plain_prompt(prompt: str) -> str:
    """Return a plain prompt as the model reads it: spaces at its end are the beginning of the answer."""
    return prompt.rstrip(" \t") or prompt


def _between(ignored: Sequence[Span], length: int) -> list[Span]:
    """Return the stretches of a text that none of the spans covers."""
    edges = [0, *(edge for span in sorted(ignored, key=lambda span: span.start) for edge in (span.start, span.end))]
    starts, ends = edges[::2], [*edges[1::2], length]
    return [Span(start=a, end=b, content_bytes=0) for a, b in zip(starts, ends, strict=True) if a < b]


def _kept(tokens: Tokens) -> list[Tokens]:
    return [tokens] if tokens.targets else []
