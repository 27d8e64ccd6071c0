"""The tokens of rows, for scripts that cannot find them by themselves.

The reproduction script renders a row once and takes the assistant's turns from that text. Some chat templates need more
than that: they render earlier turns differently (Qwen 3), open a reasoning block in the generation prompt alone
(DeepSeek R1), read content only as a list of parts, show the time, or leave an answer without an end. So the script's
own function is run on the rows. Where it finds other tokens or targets than the worker, the rows are exported with
theirs:

encoded: {answers: [sequence, …], rejected: [sequence, …], full_text: [sequence, …]}, and a sequence is
{input_ids, labels}, with the label -100 where nothing is a target
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from transformers import PreTrainedTokenizerBase

from luthier.task import DataKind
from workers.templates import render
from workers.train.data.tokenize import Renderer, Row, Tokens

COLUMN: Final = "encoded"
NO_TARGET: Final = -100
Sequences = list[dict[str, list[int]]]
Encode = Callable[[PreTrainedTokenizerBase, Row], Sequences]


def script_differs(
    rows: Sequence[Row], kind: DataKind, renderer: Renderer, facts: Mapping[str, Any], *, full_text: bool
) -> bool:
    """Return whether the script finds other tokens or targets in a row than the worker. `facts`: the template's.

    `full_text`: whether a stage trains on all tokens.
    """
    encode = _encode(facts)
    return any(_differs(row, kind, renderer, encode, full_text=full_text) for row in rows)


def with_tokens(row: Row, kind: DataKind, renderer: Renderer, *, full_text: bool) -> dict[str, Any]:
    """Return the row with its tokens in a column of their own."""
    encoded = {"answers": _sequences(_answers(row, kind, renderer))}
    if kind is DataKind.PREFERENCE:
        rejected = renderer.pair(row["prompt"], row["rejected"], row.get("tools"))
        encoded["rejected"] = _sequences([rejected])
    if full_text:
        encoded["full_text"] = _sequences(renderer.full_text(row, kind))
    return {**row, COLUMN: encoded}


def _encode(facts: Mapping[str, Any]) -> Encode:
    """Return the script's own function, which uses nothing but the tokenizer."""
    names: dict[str, Any] = {"MAX_LENGTH": facts["max_length"]}
    exec(render("reproduce_encode.jinja", **facts, encoded=False), names)
    encode: Encode = names["encode"]
    return encode


def _differs(row: Row, kind: DataKind, renderer: Renderer, encode: Encode, *, full_text: bool) -> bool:
    tokenizer = renderer.tokenizer
    try:
        found = encode(tokenizer, row)
        if kind is DataKind.PREFERENCE:
            found = [*found, *encode(tokenizer, {**row, "chosen": row["rejected"]})]
    except Exception:  # the template may refuse in any way what the worker renders with care
        return True
    expected = _answers(row, kind, renderer)
    if kind is DataKind.PREFERENCE:
        expected.append(renderer.pair(row["prompt"], row["rejected"], row.get("tools")))
    if _learned(found) != _learned(_sequences(expected)):
        return True
    everything = [{**sequence, "labels": sequence["input_ids"]} for sequence in found]
    return full_text and _learned(everything) != _learned(_sequences(renderer.full_text(row, kind)))


def _answers(row: Row, kind: DataKind, renderer: Renderer) -> list[Tokens]:
    """Return the answer of a row as tokens, an undesirable one too."""
    if kind is DataKind.UNPAIRED:
        return [renderer.pair(row["prompt"], row["completion"])]
    return renderer.answers(row, kind)


def _sequences(texts: Sequence[Tokens]) -> Sequences:
    return [
        {
            "input_ids": list(text.ids),
            "labels": [i if is_target else NO_TARGET for i, is_target in zip(text.ids, text.target, strict=True)],
        }
        for text in texts
        if text.targets
    ]


def _learned(sequences: Sequences) -> list[tuple[list[int], list[int]]]:
    """Return the ids and labels of the sequences that have a target. A first token is never predicted."""
    found = [(sequence["input_ids"], sequence["labels"][1:]) for sequence in sequences]
    return [(ids, labels) for ids, labels in found if any(label != NO_TARGET for label in labels)]
