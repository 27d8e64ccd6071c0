"""The forward pass over rows: target log-probabilities, the input of almost every loss."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

import torch
from peft import PeftModelForCausalLM
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from luthier.errors import Infeasible
from workers.train import layouts
from workers.train.attention import unpadded
from workers.train.data.padding_free import UnpaddedRows
from workers.train.data.virtual_tokens import with_virtual_tokens
from workers.train.layout_probe import layout_of
from workers.train.layouts import TOKEN_CAP, Layout, RowLayout, is_encoder

__all__ = [
    "TOKEN_CAP",
    "CausalModel",
    "is_encoder",
    "last_hidden",
    "layout",
    "mixed_precision",
    "plain_model",
    "require_end_to_end",
    "target_logits",
    "target_logps",
]

CausalModel: TypeAlias = PreTrainedModel | PeftModelForCausalLM  # PEFT's for virtual tokens


def plain_model(model: CausalModel) -> PreTrainedModel:
    """Return transformers' model, without PEFT's wrapper for virtual tokens."""
    return model.get_base_model() if isinstance(model, PeftModelForCausalLM) else model


def layout(model: CausalModel) -> Layout:
    """Return how the model reads rows and prompts, which is probed once per loaded model. Raises as `layout_of`."""
    return layout_of(plain_model(model))


def target_logps(model: CausalModel, rows: UnpaddedRows) -> torch.Tensor:
    """Return the log-probability of each target token: [N], in float32 or higher precision. Raises as `target_logits`.

    A decoder conditions on the tokens before it in its sequence, an encoder on all others.
    """
    return -cross_entropy(target_logits(model, rows), rows.label_N, reduction="none")


def target_logits(model: CausalModel, rows: UnpaddedRows) -> torch.Tensor:
    """Return the logits that predict each target token: [N, V], in float32 or higher precision.

    Only the N predicting positions go through the output head. Raises Infeasible if virtual tokens make a sequence
    exceed the context, or if the model with virtual tokens does not take rows end to end.
    """
    plain, way = plain_model(model), layout(model)
    with mixed_precision(rows.ids_1T.device):
        if isinstance(model, PeftModelForCausalLM):
            require_end_to_end(plain)
            with unpadded(plain):
                logits_NV = plain(**with_virtual_tokens(model, rows), use_cache=False).logits[0]
        else:
            logits_NV = layouts.logits(plain, rows, way)
    return _at_least_float32(logits_NV)


def require_end_to_end(model: PreTrainedModel) -> None:
    """Raise Infeasible unless the model takes any rows end to end, as virtual tokens need."""
    way = layout_of(model)
    if way.rows is not RowLayout.UNPADDED or way.boundary is not None:
        reason = way.why or f"{type(model).__name__} has other positions for rows of over {way.boundary} tokens"
        raise Infeasible(f"virtual tokens need rows end to end, but {reason}")


def last_hidden(model: PreTrainedModel, rows: UnpaddedRows) -> torch.Tensor:
    """Return the final hidden state of each sequence's last token: [S, D], in float32 or higher precision."""
    with mixed_precision(rows.ids_1T.device):
        last_SD = layouts.last_hidden(model, rows, layout_of(model))
    return _at_least_float32(last_SD)


def _at_least_float32(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """Autocast to bfloat16 on CUDA. A CPU stays with float32: bfloat16 is several times slower there."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
