"""The linear layers that IA³ rescales, by their names: one rule for the training and for its cost.

IA³ (Liu et al. 2022) rescales the keys, the values, and what each MLP hands to its last layer. PEFT's defaults for some
families rescale queries in place of keys; they are not used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

KEYS_AND_VALUES: Final = (
    *("k_proj", "v_proj", "key", "value", "key_proj", "value_proj"),
    *("k", "v", "k_lin", "v_lin", "kv_b_proj", "kv_proj"),
)
# Layers that keys, values and queries have together, in families without layers of their own for these.
FUSED: Final = ("query_key_value", "qkv_proj", "c_attn", "Wqkv", "qkv", "in_proj_qkv")
MLP_OUTPUTS: Final = (
    *("down_proj", "fc2", "fc_2", "fc_out", "c_proj", "dense_4h_to_h", "output.dense", "ffn_output"),
    *("w2", "wo", "Wo", "lin2", "output_linear"),
)


def rescaled(attention: Collection[str], others: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the layers whose outputs IA³ rescales, and those whose inputs it rescales.

    `attention` and `others` are the paths of the linear layers inside and outside of the attention.
    """
    outputs = [name for name in attention if ends_with(name, KEYS_AND_VALUES)]
    outputs = outputs or [name for name in attention if ends_with(name, FUSED)]
    return outputs, [name for name in others if ends_with(name, MLP_OUTPUTS)]


def ends_with(path: str, names: Iterable[str]) -> bool:
    """Return whether the path of a layer ends with one of the names, as PEFT matches `target_modules`."""
    return any(path == name or path.endswith(f".{name}") for name in names)
