"""The tiny model of an architecture: what it keeps of the large one, and what identifies an architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, PretrainedConfig

from luthier.errors import UserError
from luthier.models.base_model import ModelFacts
from tests.conftest import TINY
from tests.unit.search_samples import entry
from workers import capabilities
from workers.import_model import standard_config
from workers.import_model.twin import CONTEXT, LAYERS, SHORT, VOCABULARY, WIDTH, identity, twin
from workers.train.layout_probe import row_layout
from workers.train.layouts import RowLayout


def config(model_type: str, **settings: Any) -> PretrainedConfig:
    loaded: PretrainedConfig = AutoConfig.for_model(model_type, **settings)
    return loaded


@pytest.mark.parametrize(
    "kind",
    [
        "llama", "gpt2", "gemma2", "falcon", "mamba", "mamba2", "gpt_oss", "deepseek_v3", "mpt", "xlstm",
        "gemma3n_text", "gemma4_text", "kimi_linear",
    ],
)  # fmt: skip
def test_a_twin_is_tiny_and_of_the_same_class(kind: str) -> None:
    small = twin(config(kind))
    assert type(small) is type(config(kind))
    assert (small.vocab_size, small.hidden_size) == (VOCABULARY, WIDTH)
    model = capabilities.build(small.to_dict(), entry().facts)
    assert model.num_parameters() < 200_000


def test_each_kind_of_layer_of_a_hybrid_is_kept() -> None:
    small = twin(config("gemma3_text", num_hidden_layers=26))
    assert set(small.layer_types) == {"sliding_attention", "full_attention"}
    assert len(small.layer_types) == small.num_hidden_layers >= LAYERS
    hybrid = twin(config("jamba"))
    assert set(hybrid.layers_block_type) == {"mamba", "attention"}


@pytest.mark.parametrize(("kind", "layers", "shared"), [("gemma3n_text", 20, 8), ("gemma4_text", 35, 20)])
def test_layers_that_share_keys_and_values_have_one_to_share_with(kind: str, layers: int, shared: int) -> None:
    small = twin(config(kind, num_hidden_layers=layers, num_kv_shared_layers=shared))
    own = small.num_hidden_layers - small.num_kv_shared_layers
    assert 0 < small.num_kv_shared_layers < small.num_hidden_layers
    assert set(small.layer_types[:own]) == set(small.layer_types[own:]) == {"sliding_attention", "full_attention"}
    widths = {layer.head_dim for layer in getattr(small, "per_layer_config", ())}
    assert widths <= {8}


def test_a_twin_of_quantised_weights_has_plain_ones() -> None:
    small = twin(config("llama", quantization_config={"quant_method": "gptq", "bits": 4}))
    assert "quantization_config" not in small.to_dict()


def test_windows_and_original_contexts_are_short() -> None:
    assert twin(config("mistral", sliding_window=4096)).sliding_window == SHORT
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 4096}
    small = twin(config("llama", rope_parameters=rope))
    assert (small.rope_parameters["original_max_position_embeddings"], small.max_position_embeddings) == (
        SHORT,
        CONTEXT,
    )
    assert small.rope_parameters["rope_type"] == "yarn"


@pytest.mark.parametrize(("groups", "kept"), [(64, 4), (8, 2), (1, 1)])
def test_heads_share_keys_and_values_as_before(groups: int, kept: int) -> None:
    small = twin(config("llama", hidden_size=4096, num_attention_heads=64, num_key_value_heads=groups))
    assert (small.num_attention_heads, small.num_key_value_heads) == (4, kept)


def test_only_settings_that_are_no_sizes_tell_architectures_apart() -> None:
    def known(**settings: Any) -> str:
        return identity(twin(config("llama", **settings)), "LlamaForCausalLM")

    small = known(hidden_size=512, num_hidden_layers=8, vocab_size=1000, num_attention_heads=8, intermediate_size=999)
    assert known(hidden_size=4096, num_hidden_layers=32, eos_token_id=[7, 9]) == small
    assert known(attention_bias=True) != small
    assert known(num_attention_heads=8, num_key_value_heads=1) != small
    assert identity(twin(config("llama")), "OtherForCausalLM") != small


def test_what_fails_on_the_twin_is_named_with_the_reason() -> None:
    """GPT-2 keeps queries, keys and values in one matrix."""
    facts = entry(biases=True, attention_window=None, rope=None).facts
    steps: list[str] = []
    found = capabilities.work(question(config("gpt2"), facts), steps.append)["unsupported"]
    assert "k_proj" in found["kv_heads"]
    assert {"full", "lora", "bitfit", "window", "rope_factor"}.isdisjoint(found)
    assert any("lora" in step for step in steps)


def question(whole: PretrainedConfig, facts: ModelFacts, folder: Path = TINY) -> dict[str, Any]:
    return {"facts": facts.model_dump(), "config": twin(whole).to_dict(), "folder": str(folder)}


@pytest.mark.parametrize(
    ("kind", "settings", "why"),
    [
        ("granite", {"logits_scaling": 0.0}, "not finite"),
        ("llama", {"rms_norm_eps": -4.0}, "not finite"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 0.0}}, "not finite"),
        ("xlnet", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}, "tokens that follow"),
    ],
)
def test_settings_with_which_no_model_can_be_trained_are_found(kind: str, settings: dict[str, Any], why: str) -> None:
    found = capabilities.work(question(config(kind, **settings), entry().facts), lambda step: None)
    assert why in str(found["untrainable"])
    assert found["unsupported"] == {}


def test_a_twin_that_fails_alone_is_no_reason_to_refuse_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that do not fit each other may be those of the twin alone, or those of the model too."""
    asked = question(config("llama"), entry().facts)
    asked["config"]["num_key_value_heads"] = 3
    with pytest.raises(UserError, match="tiny model is at fault"):
        capabilities.work(asked, lambda step: None)
    wrong = config("llama", hidden_size=128, num_attention_heads=16, num_key_value_heads=7, num_hidden_layers=1)
    monkeypatch.setattr(standard_config, "load", lambda folder: (wrong, "LlamaForCausalLM"))
    assert "RuntimeError" in str(capabilities.work(asked, lambda step: None)["untrainable"])


def test_a_model_that_fails_where_its_twin_does_is_refused_whatever_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory for the tensors torch words a product of unequal shapes in another way."""
    wrong = config("axk1", hidden_size=64, num_hidden_layers=2, num_attention_heads=4, qk_rope_head_dim=12)
    monkeypatch.setattr(capabilities, "_words", id)
    monkeypatch.setattr(standard_config, "load", lambda folder: (wrong, "AXK1ForCausalLM"))
    asked = question(wrong, entry().facts)
    asked["config"]["qk_rope_head_dim"] = 6
    asked["config"]["head_dim"] = 4
    wrong.head_dim = 8
    assert "RuntimeError" in str(capabilities.work(asked, lambda step: None)["untrainable"])


def test_a_window_shorter_than_the_rows_of_the_probe_is_seen() -> None:
    model = capabilities.build(twin(config("mistral", sliding_window=4096)).to_dict(), entry().facts)
    assert row_layout(model) is RowLayout.UNPADDED
