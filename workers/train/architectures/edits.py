"""Edits of a model's shape. Each turns (config, weights) into (config, weights) of an ordinary transformers model."""

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


@torch.no_grad()
def start_head(model: PreTrainedModel, missing: Iterable[str]) -> None:
    """Give the parameters that are `missing` in the saved model a start that draws nothing at random: the transform's
    matrix is the identity, its norm scales by one, biases are zero; the decoder is tied to the token embeddings.

    What the family computes between the two (BERT's GELU) stays. Raises Infeasible for a head of any other form.
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
            raise Infeasible(f"{type(model).__name__} was saved without {name}, {shape}, which cannot be started")


def stretch(config: PretrainedConfig, factor: float, rule: RopeRule) -> PretrainedConfig:
    """The config with a context of `factor` times as many tokens. The weights are the same.

    Raises Infeasible where the positions are not plain rotary ones, the same in every layer.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "default":
        found = f"{rope['rope_type']} ones" if "rope_type" in rope else "none that all layers share"
        raise Infeasible(
            f"{config.model_type} models need plain rotary positions to be stretched; this one has {found}"
        )
    context = config.max_position_embeddings
    settings = {"rope_type": rule, "factor": factor}
    if rule == "yarn":
        settings["original_max_position_embeddings"] = context
    stretched = copy.deepcopy(config)
    stretched.max_position_embeddings = round(context * factor)
    stretched.rope_parameters = rope | settings
    return stretched


_LLAMA_ONLY = ("attention_bias", "mlp_bias", "pretraining_tp")


def window_settings(config: PretrainedConfig, window: int) -> dict[str, Any]:
    """What a config says differently with this window in every layer. Raises Infeasible where it has no way to.

    Llama has no such setting; without biases it computes what Mistral computes, weight by weight, and becomes one.
    """
    match config.model_type:
        case "llama" if not (config.attention_bias or config.mlp_bias):
            return {"model_type": "mistral", "sliding_window": window}
        case "mistral":
            return {"sliding_window": window}
        case "qwen2" | "qwen3":
            return {
                "use_sliding_window": True,
                "sliding_window": window,
                "max_window_layers": 0,
                "layer_types": ["sliding_attention"] * config.num_hidden_layers,
            }
        case family:
            raise Infeasible(f"{family} models have no sliding window in all layers")


def narrow(config: PretrainedConfig, window: int) -> PretrainedConfig:
    """The config with the window; another class where the family has to change. The weights are the same."""
    values = config.to_dict() | window_settings(config, window)
    if values["model_type"] != config.model_type:
        values = {name: value for name, value in values.items() if name not in _LLAMA_ONLY}
    narrowed: PretrainedConfig = AutoConfig.for_model(**values)
    return narrowed


PLACES: Final = ("layers", "encoder.layer", "transformer.layer")  # Llama and ModernBERT; BERT and RoBERTa; DistilBERT


def place_of_layers(model: PreTrainedModel) -> str | None:
    """The name of the list of layers in the model without its head; None for families that have no such list."""
    for place in PLACES:
        module: Module | None = model.base_model
        for name in place.split("."):
            module = getattr(module, name, None)
        if isinstance(module, ModuleList):
            return place
    return None


def layers_of(model: PreTrainedModel) -> ModuleList | None:
    place = place_of_layers(model)
    layers = None if place is None else model.base_model.get_submodule(place)
    return layers if isinstance(layers, ModuleList) else None
