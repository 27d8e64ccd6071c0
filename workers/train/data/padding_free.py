"""Padding-free batches (packing): several sequences in one row of tokens, kept apart by position ids and attention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from workers.train.data.tokenize import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpaddedRows:
    """S sequences in one row of T tokens, with N target tokens in total.

    predictor_N  positions in the row whose output predicts a target
    label_N      token ids of the targets
    segment_N    index of the sequence that each target belongs to
    """

    ids_1T: torch.Tensor
    positions_1T: torch.Tensor
    lengths: tuple[int, ...]
    predictor_N: torch.Tensor
    label_N: torch.Tensor
    segment_N: torch.Tensor


def lay_out(sequences: Sequence[Tokens], device: torch.device) -> UnpaddedRows:
    """Concatenate sequences into one row on `device`."""
    ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    labels: list[int] = []
    segments: list[int] = []
    for segment, tokens in enumerate(sequences):
        start = len(ids)
        ids.extend(tokens.ids)
        positions.extend(range(len(tokens)))
        for position, label in tokens.predictions():
            predictors.append(start + position)
            labels.append(label)
            segments.append(segment)
    return UnpaddedRows(
        ids_1T=torch.tensor(ids, device=device)[None],
        positions_1T=torch.tensor(positions, device=device)[None],
        lengths=tuple(len(tokens) for tokens in sequences),
        predictor_N=torch.tensor(predictors, dtype=torch.long, device=device),
        label_N=torch.tensor(labels, dtype=torch.long, device=device),
        segment_N=torch.tensor(segments, dtype=torch.long, device=device),
    )


def within(examples: Iterable[tuple[Tokens, ...]], token_cap: int) -> Iterator[list[tuple[Tokens, ...]]]:
    """Yield micro-batches of examples, in order, of at most `token_cap` tokens unless a single example has more."""
    group: list[tuple[Tokens, ...]] = []
    size = 0
    for example in examples:
        length = sum(map(len, example))
        if group and size + length > token_cap:
            yield group
            group, size = [], 0
        group.append(example)
        size += length
    if group:
        yield group
