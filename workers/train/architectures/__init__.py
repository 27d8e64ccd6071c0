"""The architecture: a base model and edits of its shape."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from luthier.design import Architecture
from luthier.errors import Infeasible
from workers.train.architectures.block_influence import block_influence
from workers.train.architectures.edits import cut_depth, kept_layers, scale_rope, set_window, share_kv_heads
from workers.train.forward import is_encoder
from workers.train.layout_probe import keep_layout, layout_of

__all__ = ["build"]


def build(
    pristine: PreTrainedModel, architecture: Architecture, calibration: Sequence[Sequence[int]] = ()
) -> PreTrainedModel:
    """Return a new model with the edits applied; `pristine` is not changed. Raises Infeasible for an impossible edit.

    `calibration` holds token ids of training rows, on which `block_influence` measures the layers.
    """
    if not architecture.edited:
        return copy.deepcopy(pristine)
    config, weights = pristine.config, pristine.state_dict()
    if config.get_text_config(decoder=True) is not config:
        raise Infeasible(
            f"{type(pristine).__name__} also has parts for images or sound; only the shape of text models is edited"
        )
    if architecture.layers is not None:
        influence = block_influence(pristine, calibration) if architecture.depth_rule == "block_influence" else None
        kept = kept_layers(config.num_hidden_layers, architecture.layers, influence)
        config, weights = cut_depth(config, weights, kept)
    if architecture.kv_heads is not None:
        config, weights = share_kv_heads(config, weights, architecture.kv_heads)
    if architecture.rope_factor is not None:
        config = scale_rope(config, architecture.rope_factor, architecture.rope_rule)
    if architecture.window is not None:
        config = set_window(config, architecture.window)
    with torch.random.fork_rng(devices=[]):
        family: Any = AutoModelForMaskedLM if is_encoder(pristine) else AutoModelForCausalLM
        try:
            model: PreTrainedModel = family.from_config(config, dtype=pristine.dtype)
        except Exception as error:  # any family's code may fail in any way on settings that it does not know
            raise Infeasible(f"this edit does not work for {type(pristine).__name__}: {error}") from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise Infeasible(
            f"this edit does not work for {type(model).__name__}: its weights do not fit the new shape"
        ) from error
    if not is_encoder(pristine):
        model.generation_config = copy.deepcopy(pristine.generation_config)
    keep_layout(model.eval(), layout_of(pristine))
    return model
