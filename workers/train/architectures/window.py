"""A sliding attention window: each token sees itself and the `window - 1` tokens before it (Beltagy et al. 2020)."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig

from luthier.errors import Infeasible

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
