"""The config of a tiny model of the same architecture as another one: its twin, on which updates and edits are tried.

The twin has the same class and the same settings, but a few layers, small widths, few heads, experts and tokens, and
short windows. Each kind of layer of a hybrid is kept. The config of a twin is also what identifies an architecture:
models that differ only in size have the same. This module needs transformers, but not torch.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Final

from transformers import PretrainedConfig

LAYERS: Final = 3  # at least: one can be cut, and both ends stay
HEADS, HEAD_WIDTH, WIDTH = 4, 8, 32
VOCABULARY: Final = 128
CONTEXT: Final = 128
SHORT: Final = 16  # windows, chunks and original contexts, in tokens
# Sizes of families by their names in configs; a smaller value of a model stays.
_SIZES: Final[Mapping[str, int]] = {
    "intermediate_size": 64,
    "intermediate_size_mlp": 64,
    "ffn_dim": 64,
    "ffn_hidden_size": 64,
    "shared_expert_intermediate_size": 24,
    "shared_intermediate_size": 24,
    "moe_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 24,
    "expert_dim": 24,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "zero_expert_num": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "n_groups": 1,
    "mamba_n_groups": 1,
    "mamba_ngroups": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "qk_head_dim": 16,
    "v_head_dim": 8,
    "rotary_dim": 4,
    "query_pre_attn_scalar": 8,
    "embedding_size": 16,
    "state_size": 8,
    "mamba_d_state": 8,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_head_dim": 8,
    "linear_num_heads": 4,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
    "lru_width": WIDTH,
    "word_embed_proj_dim": WIDTH,
    "max_window_layers": 1,
    "num_nextn_predict_layers": 0,
    **dict.fromkeys(
        (
            "sliding_window",
            "attention_window_size",
            "window_size",
            "keep_window_size",
            "attention_chunk_size",
            "chunk_size",
            "mamba_chunk_size",
            "original_max_position_embeddings",
        ),
        SHORT,
    ),
    **dict.fromkeys(("max_position_embeddings", "max_seq_len", "seq_length", "context_length"), CONTEXT),
}
# Sizes that must match each other (twice the width), so that smaller ones do not stay.
_EXACT: Final[Mapping[str, int]] = {"mamba_d_head": 16, "mamba_n_heads": 4, "mamba_d_ssm": 2 * WIDTH}
_QUANTISED: Final = "quantization_config"  # of the weights, which a twin does not share
# Lists of places of layers.
_PLACES: Final = ("attn_layer_indices", "hybrid_layer_ids", "mlp_only_layers", "full_attn_idxs")
_SHARED: Final = "num_kv_shared_layers"  # the last layers, which take keys and values from earlier ones of their kind
_BY_LAYER: Final = "per_layer_config"  # settings of some layers, by place
# Numbers of layers after which a pattern of layers repeats: the twin has one whole period.
_PERIODS: Final = ("attn_layer_period", "expert_layer_period", "full_attention_interval", "sliding_window_pattern")
_NO_ARCHITECTURE: Final = ("architectures", "transformers_version", "_name_or_path", "dtype", "id2label", "label2id")
_TOKENS: Final = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "cls_token_id",
    "decoder_start_token_id",
)


def twin(config: PretrainedConfig) -> PretrainedConfig:
    """Return the config of a tiny model of the same architecture. Raises whatever the config class raises."""
    small = copy.deepcopy(config)
    text = small.get_text_config(decoder=True)
    for part in {id(part): part for part in (small, text)}.values():
        _shrink(part)
    for name in getattr(small, "sub_configs", {}):
        other = getattr(small, name, None)
        if isinstance(other, PretrainedConfig) and other is not text:
            _shrink(other)
    values = {name: value for name, value in small.to_dict().items() if name != _QUANTISED}
    return type(small).from_dict(values)


def identity(config: PretrainedConfig, architecture: str) -> str:
    """Return 16 hex digits that models of the same architecture share, whatever their sizes. `config`: a twin's."""
    values = {name: value for name, value in config.to_dict().items() if name not in (*_NO_ARCHITECTURE, *_TOKENS)}
    text = json.dumps([architecture, values], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shrink(config: PretrainedConfig) -> None:
    by_layer = config.to_dict().get(_BY_LAYER)
    if by_layer:
        config.per_layer_config = None  # until the twin has its layers and heads
    values = vars(config)
    layers = _standard(config, "num_hidden_layers")
    kept = _kept_layers(config, layers) if layers else []
    for name, value in list(values.items()):
        if isinstance(value, list) and layers and len(value) == layers:
            values[name] = [value[place] for place in kept]
    for name in _PLACES:
        if isinstance(values.get(name), list):
            values[name] = [new for new, old in enumerate(kept) if old in values[name]]
    if layers:
        config.num_hidden_layers = len(kept)
        if values.get(_SHARED):
            values[_SHARED] = sum(place >= layers - values[_SHARED] for place in kept)
        if values.get("num_blocks") == layers:  # xLSTM's own name, beside the standard one
            values["num_blocks"] = len(kept)
    _shrink_heads(config)
    for name, most in _SIZES.items():
        _at_most(values, name, most)
    for name, size in _EXACT.items():
        if type(values.get(name)) is int:
            values[name] = size
    _at_most(values, config.attribute_map.get("max_position_embeddings", ""), CONTEXT)
    if _standard(config, "vocab_size"):
        config.vocab_size = VOCABULARY
    for name in _TOKENS:
        match values.get(name):
            case int():
                values[name] = _TOKENS.index(name)
            case list():
                values[name] = [_TOKENS.index(name)]
            case _:
                pass  # it has no such token
    for rope in (values.get("rope_parameters"), values.get("rope_scaling")):
        if isinstance(rope, dict):
            _shrink_rope(rope)
    if by_layer:
        config.per_layer_config = _of_kept_layers(by_layer, kept) or None


def _kept_layers(config: PretrainedConfig, layers: int) -> list[int]:
    """Return which layers the twin has: a whole period of a pattern, or the first of each kind, and at least LAYERS.

    Of layers that share the keys and values of earlier ones it has the first of each kind, too.
    """
    periods = [value for name in _PERIODS if isinstance(value := getattr(config, name, None), int)]
    if periods:
        return list(range(min(layers, max(LAYERS, *periods))))
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or []
    own = layers - (_standard(config, _SHARED) or 0)
    first = {(place >= own, kind): place for place, kind in reversed(list(enumerate(kinds[:layers])))}
    kept = set(first.values())
    for place in range(layers):
        if len(kept) >= LAYERS:
            break
        kept.add(place)
    return sorted(kept)


def _of_kept_layers(settings: Mapping[Any, Any], kept: Sequence[int]) -> dict[int | str, dict[str, Any]]:
    """Return the settings of layers that the twin has, by their new places, with heads as narrow as its own."""
    old = {int(place): value for place, value in settings.items()}
    small = {"head_dim": HEAD_WIDTH, "num_key_value_heads": HEADS // 2}
    return {
        new: {name: min(size, small.get(name, size)) for name, size in old[place].items()}
        for new, place in enumerate(kept)
        if place in old
    }


def _shrink_heads(config: PretrainedConfig) -> None:
    """Make width and heads small. Key/value heads stay all, one, or a share of the heads."""
    heads, width = _standard(config, "num_attention_heads"), _standard(config, "hidden_size")
    groups = getattr(config, "num_key_value_heads", None)
    values = vars(config)
    if width:
        config.hidden_size = WIDTH
    if width and isinstance(values.get("attention_hidden_size"), int):  # twice the width in Zamba
        inner = WIDTH * max(1, config.attention_hidden_size // width)
        values["attention_hidden_size"] = inner
        if isinstance(values.get("attention_head_dim"), int):
            values["attention_head_dim"] = inner // HEADS
    if not heads:
        _shrink_state_heads(config)
        return
    config.num_attention_heads = HEADS
    if isinstance(groups, int):
        config.num_key_value_heads = HEADS if groups >= heads else 1 if groups == 1 else HEADS // 2
    if isinstance(getattr(config, "num_kv_heads", None), int):
        config.num_kv_heads = min(config.num_kv_heads, HEADS // 2)
    if isinstance(values.get("head_dim"), int):
        config.head_dim = HEAD_WIDTH


def _shrink_state_heads(config: PretrainedConfig) -> None:
    """Make the heads of a recurrent model small: Mamba 2, xLSTM. They are as wide as all inner dimensions together."""
    values = vars(config)
    if "qk_dim_factor" in values:  # xLSTM, whose states are a multiple of 64 wide
        values |= {"embedding_dim": WIDTH, "num_heads": HEADS, "qk_dim_factor": 2.0, "v_dim_factor": 2.0}
    if isinstance(values.get("num_heads"), int) and isinstance(values.get("head_dim"), int):
        inner = WIDTH * int(values.get("expand") or 1)
        values |= {"num_heads": HEADS, "head_dim": inner // HEADS}


def _shrink_rope(rope: MutableMapping[str, Any]) -> None:
    _at_most(rope, "original_max_position_embeddings", SHORT)
    for name in ("short_factor", "long_factor"):
        if isinstance(rope.get(name), list):
            share = rope.get("partial_rotary_factor") or 1.0
            rope[name] = rope[name][: max(1, round(HEAD_WIDTH * share) // 2)]
    for value in rope.values():
        if isinstance(value, dict):  # settings by kind of layer
            _shrink_rope(value)


def _standard(config: PretrainedConfig, name: str) -> int | None:
    value = getattr(config, name, None)
    return value if isinstance(value, int) and value > 0 else None


def _at_most(values: MutableMapping[str, Any], name: str, most: int) -> None:
    value = values.get(name)
    if type(value) is int and value > most:
        values[name] = most
    elif isinstance(value, list):  # one for each layer
        values[name] = [min(each, most) if type(each) is int else each for each in value]
