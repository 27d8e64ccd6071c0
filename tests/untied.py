"""The tiny model with an output head of its own, as larger families have it."""

from __future__ import annotations

import copy

import torch
from transformers import PreTrainedModel


def untied(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the same weights that computes the same."""
    config = copy.deepcopy(model.config)
    config.tie_word_embeddings = False
    with torch.random.fork_rng(devices=[]):
        twin = type(model)(config)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    twin.load_state_dict(weights)
    return twin.eval()
