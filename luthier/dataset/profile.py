"""The profile of a dataset: sizes, lengths, duplicates and leaks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from pydantic import Field

from luthier.dataset.near_duplicates import MOST_PROMPTS
from luthier.dataset.rows import Row, exact_hash, prompt_hash, row_hash
from luthier.dataset.splits import leaks, near_duplicates_of
from luthier.task import DataKind, JudgeSpec
from luthier.values import Frozen

ESTIMATE: Final = "estimate: 4 bytes of UTF-8 per token"
PIECE: Final[int] = JudgeSpec.model_fields["window"].default  # tokens of long text that are one training example
Count = Callable[[Sequence[str]], list[int]]
_COUNTED_AT_ONCE: Final = 1_000_000  # characters
MAX_LENGTH: Final[int] = JudgeSpec.model_fields["max_tokens"].default


class Lengths(Frozen):
    """Quantiles of a length (nearest rank)."""

    p50: int = Field(ge=0)
    p90: int = Field(ge=0)
    max: int = Field(ge=0)


class Histogram(Frozen):
    """Counts of row lengths in tokens; bin i holds lengths from `edges[i]` up to but not including the next edge."""

    edges: tuple[int, ...]
    counts: tuple[int, ...]


class Profile(Frozen):
    """The profile of a dataset. Lengths are in tokens, counted as `counted_by` says, without the chat template."""

    kind: DataKind
    format: str = Field(description="the format of the file's columns")
    rows: int = Field(ge=0)
    bytes: int = Field(ge=0, description="UTF-8 bytes of all prompts and targets")
    tokens: int = Field(ge=0, description="tokens of all prompts and targets")
    target_tokens: int = Field(ge=0, description="tokens that supervised fine-tuning trains on")
    counted_by: str = Field(description="the tokenizer, or how the number was estimated")
    prompt_lengths: Lengths | None = Field(description="None for plain text, which has no prompt")
    target_lengths: Lengths = Field(description="text, completions, all answers of a chat, or both of a preference")
    row_lengths: Histogram
    longer_rows: int | None = Field(
        default=None,
        ge=0,
        description=f"rows of more than {MAX_LENGTH} tokens, the default max_length of a job; None: not counted, as "
        "lengths are estimated or the rows are plain text, which is not truncated",
    )
    turns: Lengths | None = Field(description="messages of a chat; None for the other kinds")
    desirable: float | None = Field(
        default=None, description="share of the rows whose label is true; None for rows without a label"
    )
    duplicates: int = Field(ge=0, description="rows that repeat an earlier one exactly, apart from unused columns")
    near_repeats: int = Field(
        default=0, ge=0, description="rows that differ from an earlier one only by case or white space"
    )
    near_duplicates: int | None = Field(
        default=None,
        ge=0,
        description="rows whose prompts nearly repeat another one (MinHash); None: not searched for",
    )
    unused_columns: tuple[str, ...] = Field(
        default=(), description="columns that no training uses; graders read them as `{{item.…}}`"
    )
    leaks: int | None = Field(
        description="validation rows whose prompts are also in the training file; None: no validation file"
    )
    notes: tuple[str, ...] = Field(description="what the numbers mean for training, as sentences")
    warnings: tuple[str, ...] = Field(
        default=(), description="the notes that say what training does not use; jobs repeat them in their events"
    )

    @property
    def long_rows(self) -> int:
        """The largest edge of the histogram that at least a tenth of the rows reach, in tokens."""
        reached = list(accumulate(reversed(self.row_lengths.counts)))
        edges = reversed(self.row_lengths.edges)
        return next((edge for edge, count in zip(edges, reached, strict=True) if count * 10 >= self.rows), 0)

    def examples(self, rows: int) -> int:
        """Return about how many training examples so many of the rows are: long texts are read in pieces."""
        if self.kind is not DataKind.TEXT or not self.rows:
            return rows
        return max(rows, round(rows * self.tokens / self.rows / PIECE))


def profile(
    rows: Sequence[Row],
    kind: DataKind,
    *,
    source_format: str = "trl",
    count_tokens: Count | None = None,
    counted_by: str = "tokenizer",
    validation_rows: Sequence[Row] | None = None,
    unused_columns: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
) -> Profile:
    """Return the profile of normalised rows. `counted_by` names the tokenizer; without `count_tokens`, estimate.

    `count_tokens` returns the number of tokens of each of the texts that it is given, about a megabyte at a time.
    `unused_columns`, `notes` and `warnings` are those of the file that was read; the profile's own notes follow them.
    """
    prompt_lengths, target_lengths, row_lengths = [], [], []
    for prompt, lengths in _lengths(rows, kind, count_tokens or _estimate):
        prompt_lengths.append(prompt)
        target_lengths += lengths
        row_lengths.append(prompt + max(lengths))
    texts = (text for row in rows for said in _parts(row, kind) for text in said)
    size = sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
    measured = count_tokens is not None and kind is not DataKind.TEXT
    different = len({exact_hash(row, kind) for row in rows})
    duplicates = len(rows) - different
    near_repeats = different - len({row_hash(row, kind) for row in rows})
    groups = near_duplicates_of(rows, kind)
    near = None if groups is None else sum(prompt_hash(row, kind) in groups for row in rows) if groups else 0
    leaked = None if validation_rows is None else leaks(rows, validation_rows, kind)
    return Profile(
        kind=kind,
        format=source_format,
        rows=len(rows),
        bytes=size,
        tokens=sum(prompt_lengths) + sum(target_lengths),
        target_tokens=sum(target_lengths),
        counted_by=counted_by if count_tokens else ESTIMATE,
        prompt_lengths=None if kind is DataKind.TEXT else _quantiles(prompt_lengths),
        target_lengths=_quantiles(target_lengths),
        row_lengths=_histogram(row_lengths),
        longer_rows=sum(length > MAX_LENGTH for length in row_lengths) if measured else None,
        turns=_quantiles([len(row["messages"]) for row in rows]) if kind is DataKind.CHAT else None,
        desirable=sum(row["label"] for row in rows) / len(rows) if kind is DataKind.UNPAIRED else None,
        duplicates=duplicates,
        near_repeats=near_repeats,
        near_duplicates=near,
        unused_columns=unused_columns,
        leaks=leaked,
        notes=(*notes, *_notes(duplicates, near_repeats, near, leaked)),
        warnings=warnings,
    )


def _lengths(rows: Iterable[Row], kind: DataKind, count: Count) -> Iterator[tuple[int, list[int]]]:
    """Yield the tokens of each row's prompt, and of each of its targets. Many texts are counted at once."""
    waiting: list[list[list[str]]] = []  # the prompt and the targets of rows
    size = 0
    for row in rows:
        waiting.append(_parts(row, kind))
        size += sum(len(text) for said in waiting[-1] for text in said)
        if size >= _COUNTED_AT_ONCE:
            yield from _counted(waiting, count)
            waiting, size = [], 0
    yield from _counted(waiting, count)


def _counted(rows: Sequence[list[list[str]]], count: Count) -> Iterator[tuple[int, list[int]]]:
    different = list({text: None for parts in rows for said in parts for text in said})
    tokens = dict(zip(different, count(different), strict=True)) if different else {}
    for parts in rows:
        prompt, *targets = (sum(tokens[text] for text in said) for said in parts)
        yield prompt, targets


def _parts(row: Row, kind: DataKind) -> list[list[str]]:
    """Return a row's prompt, followed by each of its targets."""
    prompt, targets = _texts(row, kind)
    return [prompt, *targets]


def _texts(row: Row, kind: DataKind) -> tuple[list[str], list[list[str]]]:
    """Return a row's prompt and each of its targets, as lists of text."""
    tools = [json.dumps(row["tools"], ensure_ascii=False)] if row.get("tools") else []
    match kind:
        case DataKind.TEXT:
            return [], [[row["text"]]]
        case DataKind.PAIRS | DataKind.UNPAIRED:
            return tools + _content(row["prompt"]), [_content(row["completion"])]
        case DataKind.PREFERENCE:
            return tools + _content(row["prompt"]), [_content(row["chosen"]), _content(row["rejected"])]
        case DataKind.PROMPTS:
            return tools + _content(row["prompt"]), [[]]
        case DataKind.CHAT:
            trained = [turn["role"] == "assistant" and turn.get("weight") != 0 for turn in row["messages"]]
            texts = list(zip(_content(row["messages"]), trained, strict=True))
            return tools + [text for text, target in texts if not target], [[text for text, target in texts if target]]


def _content(content: str | list[Row]) -> list[str]:
    """Return the text of a string, or of each message with its reasoning and its tool calls."""
    return [content] if isinstance(content, str) else [_said(message) for message in content]


def _said(message: Row) -> str:
    calls = message.get("tool_calls")
    written = json.dumps(calls, ensure_ascii=False) if calls else ""
    return f"{message.get('reasoning_content') or ''}{message['content']}{written}"


def _estimate(texts: Sequence[str]) -> list[int]:
    return [math.ceil(len(text.encode()) / 4) for text in texts]


def _quantiles(lengths: Sequence[int]) -> Lengths:
    ranked = sorted(lengths)
    p50, p90 = (ranked[math.ceil(share * len(ranked)) - 1] for share in (0.5, 0.9))
    return Lengths(p50=p50, p90=p90, max=ranked[-1])


def _histogram(lengths: Sequence[int]) -> Histogram:
    """Return a histogram with bins that double: 0, 1, 2–3, 4–7, 8–15, …"""
    bins = [length.bit_length() for length in lengths]
    return Histogram(
        edges=tuple(2**index // 2 for index in range(max(bins) + 1)),
        counts=tuple(bins.count(index) for index in range(max(bins) + 1)),
    )


def _notes(duplicates: int, near_repeats: int, near: int | None, leaked: int | None) -> tuple[str, ...]:
    notes = []
    if duplicates:
        notes.append(f"{duplicates} rows duplicate an earlier one. They are trained on, but scored only once.")
    if near_repeats:
        notes.append(f"{near_repeats} rows differ from an earlier one only by case or white space. All of them count.")
    if near:
        notes.append(
            f"{near} rows have prompts that nearly repeat another one. Small groups of them stay in one split."
        )
    if near is None:
        notes.append(f"Near-duplicates were not searched for, because there are more than {MOST_PROMPTS:,} prompts.")
    if leaked:
        notes.append(
            f"{leaked} validation rows have prompts that are also in the training file. "
            "Training leaves out the training rows with those prompts."
        )
    return tuple(notes)
