"""Adapters sit on all linear layers and fused experts, and never on a router, a gate or the output head."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from luthier.errors import Infeasible
from luthier.updates import Dora, Ia3, Lora, Pissa, QLora, Update
from tests.textbook import largest_difference, logps
from workers.train import updates
from workers.train.layout_probe import layout_of
from workers.train.try_out import try_update
from workers.train.updates.targets import fused_experts, places

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SOME = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
ROUTED = {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
FAMILIES: dict[str, dict[str, object]] = {
    "mixtral": LOCAL,
    "qwen2_moe": {**SOME, "shared_expert_intermediate_size": 48},
    "deepseek_v3": {**LATENT, **ROUTED, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8},
    "olmoe": SOME,
    "gpt_oss": {**LOCAL, "head_dim": 8},
    "phimoe": LOCAL,
    "granitemoe": LOCAL,
    "llama4_text": {**LOCAL, "head_dim": 8, "intermediate_size_mlp": 64, "interleave_moe_layer_step": 2},
}
QKVO = {f"self_attn.{name}_proj" for name in "qkvo"}
MLP = {f"{name}_proj" for name in ("gate", "up", "down")}
MLA = {"kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "q_a_proj", "q_b_proj"}
EXPECTED = {
    "mixtral": QKVO,
    "qwen2_moe": QKVO | {f"mlp.shared_expert.{name}" for name in MLP},
    "deepseek_v3": {f"self_attn.{name}" for name in MLA}
    | {f"mlp.{name}" for name in MLP}
    | {f"mlp.shared_experts.{name}" for name in MLP},
    "olmoe": QKVO,
    "gpt_oss": QKVO,
    "phimoe": QKVO,
    "granitemoe": QKVO,
    "llama4_text": QKVO
    | {f"feed_forward.{name}" for name in MLP}
    | {f"feed_forward.shared_expert.{name}" for name in MLP},
}


def small(family: str, **settings: object) -> PreTrainedModel:
    config = AutoConfig.for_model(family, **{**SMALL, **FAMILIES.get(family, {}), **settings})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config).float().eval()
    layout_of(model)
    return model


def adapted(model: PreTrainedModel, update: Update) -> set[str]:
    """Names of what has an adapter, relative to the transformer layer."""
    names = updates.apply(copy.deepcopy(model), update, seed=0).trainable()
    found = {re.split(r"\.(?:lora|ia3)_", name)[0] for name in names}
    return {re.split(r"\.\d+\.", name, maxsplit=1)[-1] for name in found}


def wrapped(names: set[str]) -> set[str]:
    """PEFT's names of the modules that hold fused experts, the wrappers within one another."""
    return {name for name in names if re.search(r"experts(\.base_layer)*$", name)}


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_of_a_mixture_of_experts_are_on_all_layers_but_the_router(family: str) -> None:
    model = small(family)
    names = adapted(model, Lora(rank=2))
    assert names - wrapped(names) == EXPECTED[family]
    assert len(wrapped(names)) == 2  # what leads into the experts, and what leads out of them
    assert fused_experts(model)
    assert adapted(model, Dora(rank=2)) == EXPECTED[family]
    assert adapted(model, Pissa(rank=2)) == EXPECTED[family]


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3", "llama4_text"])
def test_placement_tells_attention_from_the_experts(family: str) -> None:
    model = small(family)
    attention, mlp = adapted(model, Lora(rank=2, placement="attention")), adapted(model, Lora(rank=2, placement="mlp"))
    assert attention == {name for name in EXPECTED[family] if name.startswith("self_attn.")}
    assert mlp - wrapped(mlp) == EXPECTED[family] - attention
    assert wrapped(mlp)


@pytest.mark.parametrize(
    ("family", "settings", "left_out", "kept"),
    [
        ("mamba", {"state_size": 8}, {"mixer.dt_proj", "mixer.out_proj"}, {"mixer.in_proj", "mixer.x_proj"}),
        (
            "jamba",
            {"num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
            {"mamba.dt_proj"},
            {"mamba.out_proj", "mamba.x_proj"},
        ),
    ],
)
def test_a_layer_whose_weight_is_read_without_calling_it_has_no_adapter(
    family: str, settings: dict[str, object], left_out: set[str], kept: set[str]
) -> None:
    model = small(family, use_mamba_kernels=False, **settings)
    found = set(places(model, "all"))
    assert not found & left_out
    assert found >= kept


@pytest.mark.parametrize("family", ["llama", "gpt2", "olmo", "phi", "bloom"])
def test_a_family_without_experts_keeps_the_short_name_for_all(family: str) -> None:
    assert places(small(family), "all") == "all-linear"


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("qwen3_moe", {"self_attn.k_proj", "self_attn.v_proj"}),
        ("phi3", {"self_attn.qkv_proj", "mlp.down_proj"}),
        ("stablelm", {"self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj"}),
        ("deepseek_v3", {"self_attn.kv_b_proj", "mlp.down_proj", "mlp.shared_experts.down_proj"}),
        ("starcoder2", {"self_attn.k_proj", "self_attn.v_proj", "mlp.c_proj"}),
        ("mpt", {"attn.Wqkv", "ffn.down_proj"}),
    ],
)
def test_ia3_finds_keys_values_and_mlp_outputs_of_families_that_peft_does_not_know(
    family: str, expected: set[str]
) -> None:
    assert adapted(small(family, **(SOME if family == "qwen3_moe" else {})), Ia3()) == expected


def test_ia3_needs_keys_and_values() -> None:
    with pytest.raises(Infeasible, match=r"MambaForCausalLM .*ia3"):
        updates.apply(small("mamba", state_size=8), Ia3(), seed=0)


def test_qlora_leaves_gpt2_with_layers_of_its_own_class() -> None:
    model = small("gpt2")
    classes = [type(module) for module in model.modules()]
    applied = updates.apply(copy.deepcopy(model), QLora(rank=2), seed=0)
    ids = list(range(5, 25))
    with torch.no_grad():
        before = logps(applied.model, ids)
        merged = applied.merge()
        assert largest_difference(logps(merged, ids), before) < 1e-4
        assert 1e-4 < largest_difference(before, logps(model, ids)) < 2.0  # rounded to four bits, and no more than that
    assert [type(module) for module in merged.modules()] == classes
    assert merged.state_dict().keys() == model.state_dict().keys()


def test_the_text_part_of_a_model_with_images_is_trained_and_its_tower_is_not() -> None:
    text = {**SMALL, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = small(
        "gemma3",
        text_config=text,
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        mm_tokens_per_image=4,
        image_token_index=100,
        boi_token_index=101,
        eoi_token_index=102,
    )
    for update in (Lora(rank=2), Ia3()):
        names = updates.apply(copy.deepcopy(model), update, seed=0).trainable()
        assert names
        assert not [name for name in names if "vision" in name or "projector" in name]
    assert try_update(model, Lora(rank=2)) is None
    assert try_update(model, Ia3()) is None
