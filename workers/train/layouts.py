"""How a model reads several rows at once: end to end, padded, or one by one.

A model uses the first layout that gives the same numbers as one row at a time.
Rows arrive end to end (`UnpaddedRows`). Families whose attention, state or positions cannot keep such rows apart read
them under their own attention instead: as padded batches, or one row a pass where padding changes the result too.
`workers.train.layout_probe` decides which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, cast

import torch
from torch.nn import Module
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from luthier.models.base_model import OFFSET_POSITIONS
from workers.train.attention import unpadded
from workers.train.data.padding_free import UnpaddedRows

# Most tokens in one forward pass, by device. Larger batches use gradient accumulation, with the same result.
TOKEN_CAP: Final = {"cpu": 2048, "cuda": 16384, "mps": 4096}


class RowLayout(StrEnum):
    """How several rows enter one forward pass."""

    UNPADDED = "unpadded"  # end to end in one row, kept apart by attention
    PADDED = "padded"  # padded on the right to one length, under the model's own attention
    SINGLE = "single"  # one row a pass, as the model reads it alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a model reads rows and prompts.

    rows              the layout of rows in training and judging
    batched_prompts   whether prompts of different lengths can be answered in one batch, padded on the left
    boundary          length up to which rows have other positions than longer ones (longrope); no pass has both
    why               why the rows are not end to end; empty where they are
    """

    rows: RowLayout
    batched_prompts: bool = True
    boundary: int | None = None
    why: str = ""

    def batches(self, longest: int) -> bool:
        """Return whether prompts can be answered in one batch, if the longest has this length with its answer."""
        return self.batched_prompts and (self.boundary is None or longest <= self.boundary)

    def describe(self) -> str:
        """Return a sentence for the log."""
        rows = {
            RowLayout.UNPADDED: "Rows are read end to end, without padding",
            RowLayout.PADDED: "Rows are read as padded batches",
            RowLayout.SINGLE: "Rows are read one at a time",
        }[self.rows]
        prompts = "" if self.batched_prompts else "; prompts are answered one at a time"
        return rows + prompts + (f": {self.why}" if self.why else "")


def is_encoder(model: PreTrainedModel) -> bool:
    """Return whether the model is an encoder. transformers can generate with every other kind."""
    return not model.can_generate()


def body_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model without its head. Llama 4's class names another part as its base than the one that it has."""
    if model.base_model is not model:
        return cast("PreTrainedModel", model.base_model)
    return next((child for child in model.children() if isinstance(child, PreTrainedModel)), model)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """B of the S rows, as arguments of one forward pass.

    places_n  which of the N targets they hold
    row_n     for each of them, the row of the block's tensors that predicts it, and the column
    column_n
    rows_B    which of the S rows they are
    last_B    for each of them, the column of its last token
    at_B      and the row of the block's tensors that it is in
    """

    inputs: dict[str, Any]
    places_n: torch.Tensor
    row_n: torch.Tensor
    column_n: torch.Tensor
    rows_B: torch.Tensor
    at_B: torch.Tensor
    last_B: torch.Tensor


def logits(model: PreTrainedModel, rows: UnpaddedRows, layout: Layout) -> torch.Tensor:
    """Return the logits that predict each target: [N, V], in the precision of the model.

    Only the N predicting positions go through the output head.
    """
    read = _encoder_logits if is_encoder(model) else _decoder_logits
    parts, places = [], []
    with _attention(model, layout):
        for block in _blocks(model, rows, layout):
            parts.append(read(model, block.inputs, block.row_n, block.column_n))
            places.append(block.places_n)
    return _in_order(parts, places)


def last_hidden(model: PreTrainedModel, rows: UnpaddedRows, layout: Layout) -> torch.Tensor:
    """Return the final hidden state of each row's last token: [S, D], in the precision of the model."""
    body, reading = body_of(model), {} if is_encoder(model) else {"use_cache": False}
    parts, places = [], []
    with _attention(model, layout):
        for block in _blocks(model, rows, layout):
            hidden_BTD = body(**block.inputs, **reading).last_hidden_state
            parts.append(hidden_BTD[block.at_B, block.last_B])
            places.append(block.rows_B)
    return _in_order(parts, places)


def _attention(model: PreTrainedModel, layout: Layout) -> AbstractContextManager[None]:
    return unpadded(model) if layout.rows is RowLayout.UNPADDED else nullcontext()


def _in_order(parts: Sequence[torch.Tensor], places: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate what the blocks gave, each result at its place. One block alone has all of them in order."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))[torch.cat(list(places)).argsort()]


def _blocks(model: PreTrainedModel, rows: UnpaddedRows, layout: Layout) -> Iterator[_Block]:
    """Yield the rows in blocks: all, or one, or some of similar length."""
    make = _end_to_end if layout.rows is RowLayout.UNPADDED else _side_by_side
    for chosen in _groups(rows.lengths, layout, TOKEN_CAP[rows.ids_1T.device.type]):
        yield make(model, *_chosen(rows, chosen), padded=layout.rows is RowLayout.PADDED)


def _groups(lengths: Sequence[int], layout: Layout, token_cap: int) -> Iterator[list[int]]:
    """Yield the rows of each pass, in their order. Padded ones are of similar length, the cap includes padding."""
    indices = list(range(len(lengths)))
    boundary = layout.boundary or max(lengths)
    for side in ([i for i in indices if lengths[i] > boundary], [i for i in indices if lengths[i] <= boundary]):
        match layout.rows:
            case RowLayout.UNPADDED:
                if side:
                    yield side
            case RowLayout.SINGLE:
                yield from ([i] for i in side)
            case RowLayout.PADDED:
                group: list[int] = []
                for i in sorted(side, key=lambda i: -lengths[i]):
                    if group and lengths[group[0]] * (len(group) + 1) > token_cap:
                        yield sorted(group)
                        group = []
                    group.append(i)
                if group:
                    yield sorted(group)


def _chosen(rows: UnpaddedRows, chosen: list[int]) -> tuple[UnpaddedRows, torch.Tensor, torch.Tensor]:
    """Return these rows alone, which of the N targets they hold, and which rows they are."""
    device, lengths = rows.ids_1T.device, tuple(rows.lengths[i] for i in chosen)
    rows_B = torch.tensor(chosen, device=device)
    if chosen == list(range(len(rows.lengths))):
        return rows, torch.arange(len(rows.predictor_N), device=device), rows_B
    start_S, start_B = _starts(rows.lengths, device), _starts(lengths, device)
    row_S = torch.full((len(rows.lengths),), -1, device=device)
    row_S[rows_B] = torch.arange(len(chosen), device=device)
    places_n = (row_S[rows.segment_N] >= 0).nonzero().squeeze(1)
    own_n = rows.segment_N[places_n]
    at_T = torch.cat([torch.arange(length, device=device) for length in lengths])
    from_T = at_T + start_S[rows_B].repeat_interleave(torch.tensor(lengths, device=device))
    part = UnpaddedRows(
        ids_1T=rows.ids_1T[:, from_T],
        positions_1T=rows.positions_1T[:, from_T],
        lengths=lengths,
        predictor_N=rows.predictor_N[places_n] - start_S[own_n] + start_B[row_S[own_n]],
        label_N=rows.label_N[places_n],
        segment_N=row_S[own_n],
    )
    return part, places_n, rows_B


def _starts(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return where each row starts: [S]."""
    return torch.tensor([0, *lengths[:-1]], device=device).cumsum(0)


def _end_to_end(
    model: PreTrainedModel, rows: UnpaddedRows, places_n: torch.Tensor, rows_B: torch.Tensor, *, padded: bool
) -> _Block:
    config = model.config
    first = config.pad_token_id + 1 if is_encoder(model) and config.model_type in OFFSET_POSITIONS else 0
    inputs = {
        "input_ids": rows.ids_1T,
        "position_ids": rows.positions_1T + first,
        "sequence_lengths": rows.lengths,
    }
    return _Block(
        inputs=inputs,
        places_n=places_n,
        row_n=torch.zeros_like(rows.predictor_N),
        column_n=rows.predictor_N,
        rows_B=rows_B,
        at_B=torch.zeros_like(rows_B),
        last_B=torch.tensor(rows.lengths, device=rows_B.device).cumsum(0) - 1,
    )


def _side_by_side(
    model: PreTrainedModel, rows: UnpaddedRows, places_n: torch.Tensor, rows_B: torch.Tensor, *, padded: bool
) -> _Block:
    """Return the rows one below the other, padded on the right. One row alone needs no mask."""
    device = rows.ids_1T.device
    start_B, length_B = _starts(rows.lengths, device), torch.tensor(rows.lengths, device=device)
    at_T = torch.arange(max(rows.lengths), device=device)
    mask_BT = at_T < length_B[:, None]
    from_BT = (start_B[:, None] + at_T).clamp(max=rows.ids_1T.shape[1] - 1)
    inputs = {"input_ids": rows.ids_1T[0, from_BT].masked_fill(~mask_BT, getattr(model.config, "pad_token_id", 0) or 0)}
    if padded:
        inputs["attention_mask"] = mask_BT.long()
    return _Block(
        inputs=inputs,
        places_n=places_n,
        row_n=rows.segment_N,
        column_n=rows.predictor_N - start_B[rows.segment_N],
        rows_B=rows_B,
        at_B=torch.arange(len(rows_B), device=device),
        last_B=length_B - 1,
    )


def _decoder_logits(
    model: PreTrainedModel, inputs: dict[str, Any], row_n: torch.Tensor, column_n: torch.Tensor
) -> torch.Tensor:
    """Return the logits at these positions: [n, V]. The head gets no others, except where it is not a module."""
    head = model.get_output_embeddings()
    with _reading_only(head, row_n, column_n) as selected:
        logits_BTV: torch.Tensor = model(**inputs, use_cache=False).logits
    return logits_BTV[0] if selected() else logits_BTV[row_n, column_n]


@contextmanager
def _reading_only(head: Module | None, row_n: torch.Tensor, column_n: torch.Tensor) -> Iterator[Callable[[], bool]]:
    """Within this context the output head is given these positions only, as one row. Yields whether it was called."""
    called: list[bool] = []

    def select(_: Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        called.append(True)
        return (args[0][row_n, column_n][None], *args[1:])

    hook = None if head is None else head.register_forward_pre_hook(select)
    try:
        yield lambda: bool(called)
    finally:
        if hook is not None:
            hook.remove()


def _encoder_logits(
    model: PreTrainedModel, inputs: dict[str, Any], row_n: torch.Tensor, column_n: torch.Tensor
) -> torch.Tensor:
    """Return the logits at these positions: [n, V]. An encoder's whole head comes after its base model."""

    def select(_: Module, __: object, output: ModelOutput) -> ModelOutput:
        output["last_hidden_state"] = output["last_hidden_state"][row_n, column_n][None]
        return output

    hook = model.base_model.register_forward_hook(select)
    try:
        logits_1nV: torch.Tensor = model(**inputs).logits
    finally:
        hook.remove()
    return logits_1nV[0]
