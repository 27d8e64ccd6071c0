"""Edits of a model's shape. Each turns (config, weights) into (config, weights) of an ordinary transformers model."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import torch
from transformers import PretrainedConfig

from luthier.errors import Infeasible

Weights = dict[str, torch.Tensor]

_LAYER = re.compile(r"^(.*\blayers?\.)(\d+)(\..*)$")
_PER_LAYER = ("layer_types", "no_rope_layers")  # lists in a config with one value for each layer


def kept_layers(total: int, keep: int, influence: Sequence[float] | None = None) -> list[int]:
    """Which layers stay: those of the highest `influence` where it is given (of equal ones the deeper), else all but a
    block just before the last one (Gromov et al. 2024: the deep layers matter least, the last one most)."""
    if not 1 <= keep <= total:
        raise Infeasible(f"cannot keep {keep} of {total} layers")
    if influence is None:
        return [*range(keep - 1), total - 1]
    return sorted(sorted(range(total), key=lambda layer: (influence[layer], layer))[total - keep :])


def cut_depth(config: PretrainedConfig, weights: Weights, kept: Sequence[int]) -> tuple[PretrainedConfig, Weights]:
    """Keep these of the transformer's layers. The config says which ones, so that nobody has to find them again."""
    new_index = {old: new for new, old in enumerate(kept)}
    cut: Weights = {}
    for name, tensor in weights.items():
        if match := _LAYER.match(name):
            if int(match[2]) in new_index:
                cut[f"{match[1]}{new_index[int(match[2])]}{match[3]}"] = tensor
        else:
            cut[name] = tensor
    config = copy.deepcopy(config)
    config.num_hidden_layers = len(kept)
    config.kept_layers = list(kept)
    for name in _PER_LAYER:
        if values := getattr(config, name, None):
            setattr(config, name, [values[old] for old in kept])
    return config, cut


def share_kv_heads(config: PretrainedConfig, weights: Weights, kv_heads: int) -> tuple[PretrainedConfig, Weights]:
    """Mean-pool groups of key and value heads (Ainslie et al. 2023): MHA→GQA, and MQA where `kv_heads` is 1."""
    old = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    if old % kv_heads:
        raise Infeasible(f"{old} key/value heads cannot be pooled into {kv_heads}")
    pooled = dict(weights)
    for name, tensor in weights.items():
        if re.search(r"\.(k_proj|v_proj)\.(weight|bias)$", name):
            group = tensor.reshape(kv_heads, old // kv_heads, tensor.shape[0] // old, *tensor.shape[1:])
            pooled[name] = group.mean(1).flatten(0, 1)
    if all(pooled[name] is weights[name] for name in weights):
        raise Infeasible(f"{type(config).__name__} models have no k_proj/v_proj to pool")
    config = copy.deepcopy(config)
    config.num_key_value_heads = kv_heads
    return config, pooled
