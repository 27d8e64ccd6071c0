"""The tiny model with a bias in every linear layer, as families like Qwen2 and GPT-2 have them."""

from __future__ import annotations

import copy

import torch
from transformers import PreTrainedModel


def biased(model: PreTrainedModel) -> PreTrainedModel:
    """A Llama of the same weights that computes the same: its biases are zero."""
    config = copy.deepcopy(model.config)
    config.attention_bias = config.mlp_bias = True
    with torch.random.fork_rng(devices=[]):
        twin = type(model)(config)
    twin.load_state_dict(twin.state_dict() | model.state_dict())
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if name.endswith(".bias"):
                parameter.zero_()
    return twin.eval()
