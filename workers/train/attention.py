"""Attention for padding-free batches: several sequences in one row, none of which attends to another.

Registered with transformers under the name `unpadded`. The model is called with batch size 1, `sequence_lengths`, and
position ids that restart at 0 for each sequence. Each sequence gets its own SDPA call (causal except for encoders), so
no T×T mask is built. Generation does not use it: that runs with padding under plain `sdpa`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from luthier.errors import Infeasible

NAME = "unpadded"
# Arguments with which some families change the result, and which SDPA does not support.
UNSUPPORTED = ("softcap", "s_aux", "position_bias")


def unpadded_attention(
    module: torch.nn.Module,
    query_1HTD: torch.Tensor,
    key_1KTD: torch.Tensor,
    value_1KTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    sequence_lengths: Sequence[int] | None = None,
    prefix: Sequence[tuple[torch.Tensor, torch.Tensor]] | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Block-diagonal attention, causal unless the module is not: [1, heads, T, head_dim] → [1, T, heads, head_dim].

    `prefix` holds for each layer keys and values [1, key heads, P, head_dim] to put before those of each sequence.
    Raises Infeasible for families whose attention needs more than scaling and a sliding window.
    """
    family = type(module).__name__
    if odd := [name for name in UNSUPPORTED if kwargs.get(name) is not None]:
        raise Infeasible(f"{family} needs {odd[0]}, which padding-free training does not support")
    if sequence_lengths is None or attention_mask is not None:
        raise Infeasible(f"{family} does not support padding-free batches: it ignores sequence_lengths")
    grouped = query_1HTD.shape[1] != key_1KTD.shape[1]
    lengths, causal = list(sequence_lengths), bool(getattr(module, "is_causal", True))
    outputs = []
    for query, key, value in zip(
        query_1HTD.split(lengths, 2), key_1KTD.split(lengths, 2), value_1KTD.split(lengths, 2), strict=True
    ):
        if prefix is not None:
            before_key, before_value = prefix[cast("int", module.layer_idx)]
            key, value = torch.cat([before_key, key], dim=2), torch.cat([before_value, value], dim=2)
        mask = _band(query.shape[2], key.shape[2], sliding_window, query.device, causal=causal)
        outputs.append(
            scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=causal and mask is None,
                scale=scaling,
                enable_gqa=grouped,
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None  # some families view it in another shape


def _band(length: int, keys: int, window: int | None, device: torch.device, *, causal: bool) -> torch.Tensor | None:
    """Return the mask [length, keys] of a sliding window for the last `length` of `keys` positions.

    None where SDPA needs no mask: full attention, or the plain causal triangle.
    """
    if length == keys and (window is None or length <= window):
        return None
    position = torch.arange(keys, device=device)
    distance_TK = position[keys - length :, None] - position[None, :]
    reach = keys if window is None else window
    return (distance_TK >= 0) & (distance_TK < reach) if causal else distance_TK.abs() < reach


AttentionInterface.register(NAME, unpadded_attention)


@contextmanager
def recording() -> Iterator[set[int | None]]:
    """Within this context the sliding window of each call of this attention is added to the set; None without one."""
    called: set[int | None] = set()

    def noting(module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
        called.add(kwargs.get("sliding_window"))
        return unpadded_attention(module, *args, **kwargs)

    AttentionInterface.register(NAME, noting)
    try:
        yield called
    finally:
        AttentionInterface.register(NAME, unpadded_attention)


@contextmanager
def unpadded(model: PreTrainedModel) -> Iterator[None]:
    """Within this context the model's forward pass takes padding-free batches."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
