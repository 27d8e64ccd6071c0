"""Edits of a model's shape: depth, key/value heads, context, window, and a start for a missing head.

Depth and heads turn (config, weights) into new ones; context and window change only the config. The result is always an
ordinary transformers model.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from torch.nn import Module, ModuleList
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from luthier.design import RopeRule
from luthier.errors import Infeasible

Weights = dict[str, torch.Tensor]

# Where the list of layers is: in Llama and ModernBERT; in BERT and RoBERTa; in DistilBERT.
PLACES: Final = ("layers", "encoder.layer", "transformer.layer")

_LAYER: Final = re.compile(r"^(.*\blayers?\.)(\d+)(\..*)$")
_LLAMA_ONLY: Final = ("attention_bias", "mlp_bias", "pretraining_tp")  # settings that Mistral's config lacks


def place_of_layers(model: PreTrainedModel) -> str | None:
    """Return the name of the list of layers in the model without its head; None for families without such a list."""
    for place in PLACES:
        module: Module | None = model.base_model
        for name in place.split("."):
            module = getattr(module, name, None)
        if isinstance(module, ModuleList):
            return place
    return None


def layers_of(model: PreTrainedModel) -> ModuleList | None:
    """Return the list of layers; None for families without one."""
    place = place_of_layers(model)
    layers = None if place is None else model.base_model.get_submodule(place)
    return layers if isinstance(layers, ModuleList) else None


def kept_layers(total: int, keep: int, influence: Sequence[float] | None = None) -> list[int]:
    """Return the indices of the layers to keep. Raises Infeasible if there are not that many.

    With `influence` these are the layers with the highest scores, and the deeper of two equal ones. Without it a block
    just before the last layer is removed: deep layers matter least, the last one most (Gromov et al. 2024).
    """
    if not 1 <= keep <= total:
        raise Infeasible(f"cannot keep {keep} of {total} layers")
    if influence is None:
        return [*range(keep - 1), total - 1]
    return sorted(sorted(range(total), key=lambda layer: (influence[layer], layer))[total - keep :])


def cut_depth(config: PretrainedConfig, weights: Weights, kept: Sequence[int]) -> tuple[PretrainedConfig, Weights]:
    """Keep these transformer layers. Their indices are stored in the config as `kept_layers`."""
    new_index = {old: new for new, old in enumerate(kept)}
    cut: Weights = {}
    for name, tensor in weights.items():
        if match := _LAYER.match(name):
            if int(match[2]) in new_index:
                cut[f"{match[1]}{new_index[int(match[2])]}{match[3]}"] = tensor
        else:
            cut[name] = tensor
    config = copy.deepcopy(config)
    for name, values in per_layer(config).items():
        setattr(config, name, [values[old] for old in kept])
    config.num_hidden_layers = len(kept)
    config.kept_layers = list(kept)
    return config, cut


def per_layer(config: PretrainedConfig) -> dict[str, list[Any]]:
    """Return the lists in a config with one value per layer, such as `layer_types`, by name."""
    total = config.num_hidden_layers
    return {
        name: values
        for name, values in config.to_dict().items()
        if "layer" in name and isinstance(values, list) and len(values) == total
    }


def share_kv_heads(config: PretrainedConfig, weights: Weights, kv_heads: int) -> tuple[PretrainedConfig, Weights]:
    """Mean-pool groups of key and value heads: MHA → GQA, or MQA if `kv_heads` is 1 (Ainslie et al. 2023).

    Raises Infeasible if `kv_heads` does not divide the present number, or if there are no `k_proj` and `v_proj`.
    """
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


def scale_rope(config: PretrainedConfig, factor: float, rule: RopeRule) -> PretrainedConfig:
    """Return the config with RoPE scaling: a context of `factor` times as many tokens. The weights do not change.

    Raises Infeasible unless the model has plain rotary positions, the same in every layer.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "default":
        found = f"has {rope['rope_type']} positions" if "rope_type" in rope else "has none that all layers share"
        raise Infeasible(f"RoPE scaling needs plain rotary positions; this {config.model_type} model {found}")
    context = config.max_position_embeddings
    settings = {"rope_type": rule, "factor": factor}
    if rule == "yarn":
        settings["original_max_position_embeddings"] = context
    scaled = copy.deepcopy(config)
    scaled.max_position_embeddings = round(context * factor)
    scaled.rope_parameters = rope | settings
    return scaled


def set_window(config: PretrainedConfig, window: int) -> PretrainedConfig:
    """Return the config with a sliding window in every layer. The weights do not change.

    Llama has no such setting. Without biases it computes the same as Mistral, weight by weight, and becomes one. Raises
    Infeasible for families that cannot have a window in every layer.
    """
    changes: dict[str, Any]
    match config.model_type:
        case "llama" if not (config.attention_bias or config.mlp_bias):
            changes = {"model_type": "mistral", "sliding_window": window}
        case "mistral":
            changes = {"sliding_window": window}
        case "qwen2" | "qwen3":
            changes = {
                "use_sliding_window": True,
                "sliding_window": window,
                "max_window_layers": 0,
                "layer_types": ["sliding_attention"] * config.num_hidden_layers,
            }
        case family:
            raise Infeasible(f"{family} models do not support a sliding window in every layer")
    values = config.to_dict() | changes
    if values["model_type"] != config.model_type:
        values = {name: value for name, value in values.items() if name not in _LLAMA_ONLY}
    windowed: PretrainedConfig = AutoConfig.for_model(**values)
    return windowed


@torch.no_grad()
def start_head(model: PreTrainedModel, missing: Iterable[str]) -> None:
    """Initialise the parameters of an encoder's head that are `missing` in the saved model, without random numbers.

    Matrices become the identity, norm scales one, biases zero. The decoder is tied to the token embeddings, and the
    head's activation (BERT's GELU) stays. Raises Infeasible for a head of any other form.
    """
    parameters = dict(model.named_parameters())
    for name in set(missing) & parameters.keys():
        parameter = parameters[name]
        if parameter.ndim == 2 and parameter.shape[0] == parameter.shape[1]:
            torch.nn.init.eye_(parameter)
        elif parameter.ndim == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            shape = " × ".join(map(str, parameter.shape))
            raise Infeasible(f"{type(model).__name__} was saved without {name} ({shape}), which has no neutral start")
