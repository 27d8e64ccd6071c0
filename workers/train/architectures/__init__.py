"""Axis four, the architecture: a base model and the edits of its shape."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from luthier.design import Architecture
from luthier.errors import Infeasible
from workers.train.architectures.block_influence import block_influence
from workers.train.architectures.edits import cut_depth, kept_layers, narrow, share_kv_heads, stretch
from workers.train.forward import is_encoder

__all__ = ["build"]


def build(
    pristine: PreTrainedModel, architecture: Architecture, calibration: Sequence[Sequence[int]] = ()
) -> PreTrainedModel:
    """A new model with the edits made; `pristine` stays as it is. Raises Infeasible for an impossible edit.

    `calibration` holds token ids of training rows, for the edits that are chosen by what the model does with them.
    """
    if not architecture.edited:
        return copy.deepcopy(pristine)
    config, weights = pristine.config, pristine.state_dict()
    if architecture.layers is not None:
        influence = block_influence(pristine, calibration) if architecture.depth_rule == "block_influence" else None
        kept = kept_layers(config.num_hidden_layers, architecture.layers, influence)
        config, weights = cut_depth(config, weights, kept)
    if architecture.kv_heads is not None:
        config, weights = share_kv_heads(config, weights, architecture.kv_heads)
    if architecture.rope_factor is not None:
        config = stretch(config, architecture.rope_factor, architecture.rope_rule)
    if architecture.window is not None:
        config = narrow(config, architecture.window)
    with torch.random.fork_rng(devices=[]):
        family: Any = AutoModelForMaskedLM if is_encoder(pristine) else AutoModelForCausalLM
        model: PreTrainedModel = family.from_config(config, dtype=pristine.dtype)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise Infeasible(f"{type(model).__name__} models cannot be edited so: the weights no longer fit") from error
    if not is_encoder(pristine):
        model.generation_config = copy.deepcopy(pristine.generation_config)
    model.eval()
    return model
