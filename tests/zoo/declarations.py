"""The zoo: for each model type the settings of a tiny model that has every kind of layer of its family.

Windows, chunks and original contexts are about 16 tokens, so that the rows of the tests are longer. `layout` is how the
engine reads the type's rows; `unbatched` says that its prompts are answered one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

VOCABULARY: Final = 4096  # of the tiny chat model's tokenizer

COMMON: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,  # far from uniform predictions
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A member of the zoo.

    settings   of its config, besides those of COMMON that its config has
    layout     how its rows are read
    unbatched  whether its prompts are answered one at a time
    covering   whether `make test` tries it; `make zoo` tries all
    without    weight updates that it does not go with, besides bitfit without biases and virtual tokens if padded
    """

    settings: dict[str, Any] = field(default_factory=dict)
    layout: str = "unpadded"
    unbatched: bool = False
    covering: bool = False
    without: tuple[str, ...] = ()


def _unpadded(*, covering: bool = False, without: tuple[str, ...] = (), **settings: Any) -> Declaration:
    return Declaration(settings=settings, covering=covering, without=without)


def _padded(
    *, covering: bool = False, unbatched: bool = False, without: tuple[str, ...] = (), **settings: Any
) -> Declaration:
    return Declaration(settings=settings, layout="padded", covering=covering, unbatched=unbatched, without=without)


_EXPERTS: Final = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_LOCAL_EXPERTS: Final = {"num_local_experts": 4, "num_experts_per_tok": 2}
_LATENT: Final = {  # DeepSeek's attention
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
_ROUTED: Final = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
_DELTA: Final = {  # gated delta nets between layers of attention
    "head_dim": 8,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
_SLIDING: Final = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
_MAMBA2: Final = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 16}
_LONGROPE: Final = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 2.0, 4.0, 8.0],
    "original_max_position_embeddings": 16,
}

DECLARATIONS: Final[dict[str, Declaration]] = {
    "afmoe": _unpadded(head_dim=8, sliding_window=16, **_EXPERTS),
    "apertus": _unpadded(),
    "arcee": _unpadded(),
    "bamba": _padded(attn_layer_indices=[1], **_MAMBA2),
    "biogpt": _unpadded(),
    "bitnet": _unpadded(),
    "bloom": _padded(covering=True),
    "codegen": _padded(rotary_dim=4, n_ctx=128),
    "cohere": _unpadded(logit_scale=1.0),
    "cohere2": _unpadded(logit_scale=1.0, **_SLIDING),
    "ctrl": _unpadded(without=("ia3",)),
    "cwm": _unpadded(head_dim=8, **_SLIDING),
    "deepseek_v2": _unpadded(without=("oft", "prefix"), **_LATENT, **_ROUTED, topk_method="greedy"),
    "deepseek_v3": _unpadded(without=("oft", "prefix"), covering=True, **_LATENT, **_ROUTED, head_dim=8),
    "diffllama": _unpadded(without=("prefix",)),
    "doge": Declaration(settings={"keep_window_size": 16}, layout="single", unbatched=True, covering=True),
    "dots1": _unpadded(**_ROUTED, **_SLIDING),
    "ernie4_5": _unpadded(head_dim=8),
    "ernie4_5_moe": _unpadded(
        head_dim=8, moe_num_experts=4, moe_k=2, moe_intermediate_size=24, moe_layer_start_index=1
    ),
    "exaone4": _unpadded(**_SLIDING),
    "falcon": _padded(covering=True, alibi=True, num_kv_heads=2),
    "falcon_h1": _padded(mamba_d_ssm=64, head_dim=8, **_MAMBA2),
    "falcon_mamba": _padded(without=("ia3",), state_size=8),
    "flex_olmo": _unpadded(num_experts=4, num_experts_per_tok=2),
    "gemma": _unpadded(head_dim=8),
    "gemma2": _padded(covering=True, head_dim=8, query_pre_attn_scalar=8, attn_logit_softcapping=2.0, **_SLIDING),
    "gemma3_text": _unpadded(covering=True, head_dim=8, query_pre_attn_scalar=8, **_SLIDING),
    "glm": _unpadded(head_dim=8),
    "glm4": _unpadded(head_dim=8),
    "glm4_moe": _unpadded(head_dim=8, **_ROUTED),
    "gpt2": _unpadded(without=("oft",), covering=True),
    "gpt_bigcode": _unpadded(without=("prefix",)),
    "gpt_neo": _padded(attention_types=[[["global", "local"], 1]], window_size=16),
    "gpt_neox": _unpadded(),
    "gpt_neox_japanese": _padded(),
    "gpt_oss": _padded(covering=True, head_dim=8, **_LOCAL_EXPERTS, **_SLIDING),
    "gptj": _padded(rotary_dim=4),
    "granite": _unpadded(),
    "granitemoe": _unpadded(**_LOCAL_EXPERTS),
    "granitemoehybrid": _padded(
        layer_types=["linear_attention", "full_attention"], shared_intermediate_size=24, **_LOCAL_EXPERTS, **_MAMBA2
    ),
    "granitemoeshared": _unpadded(shared_intermediate_size=24, **_LOCAL_EXPERTS),
    "helium": _unpadded(head_dim=8),
    "hunyuan_v1_dense": _unpadded(head_dim=8),
    "jamba": _padded(attn_layer_period=2, attn_layer_offset=1, num_experts=4, mamba_d_state=8, use_mamba_kernels=False),
    "jetmoe": _unpadded(without=("prefix",), kv_channels=8, num_key_value_heads=2, **_LOCAL_EXPERTS),
    "lfm2": _padded(covering=True, layer_types=["conv", "full_attention"]),
    "lfm2_moe": _padded(layer_types=["conv", "full_attention"], num_dense_layers=1, **_EXPERTS),
    "llama": _unpadded(),
    "llama4_text": _padded(
        covering=True,
        head_dim=8,
        num_hidden_layers=4,
        intermediate_size_mlp=64,
        attention_chunk_size=16,
        interleave_moe_layer_step=2,
        no_rope_layers=[1, 1, 1, 0],
        **_LOCAL_EXPERTS,
    ),
    "mamba": _padded(without=("ia3",), state_size=8),
    "mamba2": _padded(without=("ia3",), num_heads=4, head_dim=16, state_size=8, n_groups=1, chunk_size=16),
    "minimax": _padded(
        unbatched=True, layer_types=["linear_attention", "full_attention"], block_size=16, **_LOCAL_EXPERTS
    ),
    "ministral": _unpadded(head_dim=8, **_SLIDING),
    "mistral": _unpadded(sliding_window=16),
    "mixtral": _unpadded(covering=True, sliding_window=16, **_LOCAL_EXPERTS),
    "modernbert-decoder": _unpadded(local_attention=16, global_attn_every_n_layers=2),
    "mpt": _padded(max_seq_len=128),
    "nanochat": _unpadded(without=("layernorm",)),
    "nemotron": _padded(),
    "nemotron_h": _padded(
        layers_block_type=["mamba", "attention", "moe", "mlp"],
        num_hidden_layers=4,
        head_dim=8,
        mamba_num_heads=4,
        mamba_head_dim=16,
        ssm_state_size=8,
        n_groups=1,
        chunk_size=16,
        moe_shared_expert_intermediate_size=24,
        **{**_ROUTED, "n_group": 1},
    ),
    "olmo": _unpadded(without=("layernorm",)),
    "olmo2": _unpadded(),
    "olmo3": _unpadded(**_SLIDING),
    "olmo_hybrid": _padded(**_DELTA),
    "olmoe": _unpadded(num_experts=4, num_experts_per_tok=2),
    "openai-gpt": _padded(without=("oft", "top_layers")),
    "opt": _unpadded(ffn_dim=64, word_embed_proj_dim=32),
    "persimmon": _unpadded(),
    "phi": _unpadded(),
    "phi3": _unpadded(covering=True, rope_parameters=_LONGROPE, original_max_position_embeddings=16),
    "phimoe": _padded(sliding_window=16, **_LOCAL_EXPERTS),
    "qwen2": _unpadded(),
    "qwen2_moe": _unpadded(shared_expert_intermediate_size=48, **_EXPERTS),
    "qwen3": _unpadded(head_dim=8),
    "qwen3_5_text": _padded(**_DELTA),
    "qwen3_moe": _unpadded(head_dim=8, **_EXPERTS),
    "qwen3_next": _padded(covering=True, shared_expert_intermediate_size=24, **_DELTA, **_EXPERTS),
    "recurrent_gemma": _padded(block_types=["recurrent", "attention"], attention_window_size=16, lru_width=32),
    "rwkv": _padded(unbatched=True, attention_hidden_size=32, context_length=128, num_hidden_layers=8, rescale_every=0),
    "seed_oss": _unpadded(head_dim=8),
    "smollm3": _unpadded(no_rope_layers=[1, 0]),
    "stablelm": _padded(),
    "starcoder2": _unpadded(sliding_window=16),
    "vaultgemma": _padded(head_dim=8, query_pre_attn_scalar=8, attn_logit_softcapping=2.0, **_SLIDING),
    "xglm": _padded(covering=True, d_model=32, ffn_dim=64, attention_heads=4, num_layers=2),
    "xlstm": _padded(
        without=("ia3",),
        unbatched=True,
        num_heads=4,
        qk_dim_factor=2.0,
        v_dim_factor=2.0,
        chunk_size=16,
        autocast_kernel_dtype="float32",
    ),
    "zamba": _padded(
        without=("ia3",),
        n_mamba_heads=2,
        mamba_d_state=8,
        layers_block_type=["mamba", "hybrid", "hybrid"],
        num_hidden_layers=3,
        use_mamba_kernels=False,
    ),
    "zamba2": _padded(
        without=("ia3",),
        layers_block_type=["mamba", "hybrid", "hybrid"],
        num_hidden_layers=3,
        mamba_d_state=8,
        n_mamba_heads=4,
        chunk_size=16,
    ),
}
