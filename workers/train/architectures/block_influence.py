"""Block influence: how much each layer changes the hidden states, measured on a few sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from luthier.errors import Infeasible
from workers.train.architectures.edits import layers_of
from workers.train.forward import is_encoder


@torch.no_grad()
def block_influence(model: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """Return ShortGPT's BI score of each layer (Men et al. 2024).

    It is 1 minus the mean cosine similarity of a token's hidden states before and after the layer. `sequences` are
    token ids; each has its own forward pass, so that the scores do not depend on batching.

    Raises Infeasible for a family without a plain list of layers, or without any token to measure on.
    """
    layers = layers_of(model)
    if layers is None:
        raise Infeasible(f"block_influence needs a list of layers; {type(model).__name__} has none")
    tokens = sum(map(len, sequences))
    if not tokens:
        raise Infeasible("block_influence needs training rows to measure the layers on; there are none")
    alike = [0.0] * len(layers)

    def watch(index: int) -> Callable[..., None]:
        def note(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before_1TH = args[0] if args else kwargs["hidden_states"]
            after_1TH = output[0] if isinstance(output, tuple) else output
            alike[index] += float(cosine_similarity(before_1TH, after_1TH, dim=-1).sum(dtype=torch.float64))

        return note

    reading = {} if is_encoder(model) else {"use_cache": False}
    hooks = [layer.register_forward_hook(watch(i), with_kwargs=True) for i, layer in enumerate(layers)]
    try:
        for ids in sequences:
            model.base_model(input_ids=torch.tensor([list(ids)], device=model.device), **reading)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(1.0 - total / tokens for total in alike)
