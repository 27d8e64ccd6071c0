"""Axis four, the architecture: a base model and the edits of its shape."""

from __future__ import annotations

import copy

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from luthier.design import Architecture
from luthier.errors import Infeasible
from workers.train.architectures.edits import cut_depth, share_kv_heads

__all__ = ["build"]


def build(pristine: PreTrainedModel, architecture: Architecture) -> PreTrainedModel:
    """A new model with the edits made; `pristine` stays as it is. Raises Infeasible for an impossible edit."""
    if not architecture.edited:
        return copy.deepcopy(pristine)
    config, weights = pristine.config, pristine.state_dict()
    if architecture.layers is not None:
        config, weights = cut_depth(config, weights, architecture.layers)
    if architecture.kv_heads is not None:
        config, weights = share_kv_heads(config, weights, architecture.kv_heads)
    with torch.random.fork_rng(devices=[]):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=pristine.dtype)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise Infeasible(f"{type(model).__name__} models cannot be edited so: the weights no longer fit") from error
    model.generation_config = copy.deepcopy(pristine.generation_config)
    model.eval()
    return model
