"""Which folders are refused as base models, and what is said of them."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from luthier.errors import LuthierError, UserError
from luthier.models import confined
from luthier.models.base_model import UNLIMITED_CONTEXT, ModelFacts, read_facts
from luthier.models.safetensors_header import SINGLE as WEIGHTS
from luthier.models.sources import facts_of
from tests import broken_models
from tests.broken_models import BROKEN, EXPLODING
from tests.conftest import TINY, TINY_ENCODER
from workers.import_model import checks, standard_config


@pytest.fixture(autouse=True)
def no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks that run in this process must not end it."""
    monkeypatch.setattr(confined, "limited_step", lambda cpu_seconds: contextlib.nullcontext())


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_refused_with_what_is_wrong(name: str, tmp_path: Path) -> None:
    broken, named = BROKEN[name]
    with pytest.raises(UserError, match=named) as refused:
        checks.facts(broken_models.copy(tmp_path / "model", broken))
    assert refused.value.param == "source"


def test_a_whole_folder_has_the_facts_that_were_read_without_the_checks(tiny_entry: Any, tmp_path: Path) -> None:
    assert checks.facts(TINY) == facts_of(TINY, tmp_path) == tiny_entry.facts


@pytest.mark.parametrize(
    "name", [name if place < 3 else pytest.param(name, marks=pytest.mark.slow) for place, name in enumerate(EXPLODING)]
)
def test_a_template_that_explodes_is_refused_within_limits(name: str, tmp_path: Path) -> None:
    folder = broken_models.copy(tmp_path / "model", broken_models.template(EXPLODING[name]))
    started = time.monotonic()
    with pytest.raises(UserError, match="template") as refused:
        facts_of(folder, tmp_path)
    assert refused.value.param == "source"
    assert time.monotonic() - started < confined.SECONDS


def test_what_a_child_does_not_survive_is_named_by_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # where the child finds these tests
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY  # limits are those of the child
    steps: list[str] = []
    with pytest.raises(UserError, match=r"tokenizer of .*seconds") as refused:
        confined.ask("tests.sleeping_child", "tokenizer of x", param="source", seconds=5, step=steps.append)
    assert refused.value.param == "source"
    assert steps == ["Reading the tokenizer of x"]
    with pytest.raises(UserError, match=r"tokenizer of z .*CPU time"):  # the limit is that of the question
        confined.ask("tests.sleeping_child", "tokenizer of z", param="source", seconds=60)
    with pytest.raises(UserError, match=r"tokenizer of y .*SIGKILL"):
        confined.ask("tests.sleeping_child", "tokenizer of y", param="source")
    with pytest.raises(LuthierError, match="exit code 1"):
        confined.ask("tests.no_such_module", "", param="source")


SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 8},
    "codegen": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 8},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "seq_length": 64},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 32, "max_position_embeddings": 64},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "context_length": 64},
}


@pytest.mark.parametrize("kind", SIZES)
def test_sizes_are_read_by_the_names_of_the_family(kind: str, tmp_path: Path) -> None:
    facts = _of_family(kind, SIZES[kind] | {"vocab_size": 4096}, tmp_path)
    heads = 1 if kind in ("mamba", "rwkv") else 4
    context = UNLIMITED_CONTEXT if kind == "mamba" else 64
    found = (facts.hidden_size, facts.layers, facts.heads, facts.kv_heads, facts.vocab_size, facts.context)
    assert found == (32, 2, heads, heads, 4096, context)
    assert facts.anatomy is not None
    assert (facts.family, facts.anatomy.layers) == ("decoder", 2)


def test_the_sizes_of_a_multimodal_model_are_those_of_its_text_part(tmp_path: Path) -> None:
    text = {
        "vocab_size": 4096,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
    }
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    facts = _of_family("gemma3", {"text_config": text, "vision_config": vision}, tmp_path)
    assert facts.architecture == "Gemma3ForConditionalGeneration"
    assert (facts.layers, facts.heads, facts.kv_heads, facts.context) == (2, 4, 2, 64)
    assert facts.anatomy is not None
    assert facts.anatomy.layers == 2


@pytest.mark.parametrize(
    ("kind", "architecture", "loaded"),
    [
        ("llama4", "Llama4ForConditionalGeneration", "Llama4ForCausalLM"),
        ("qwen3_5_moe", "Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"),
        ("gemma3", "Gemma3ForConditionalGeneration", None),
        ("llama", "LlamaForCausalLM", None),
    ],
)
def test_a_multimodal_model_is_its_text_part_where_transformers_loads_that_alone(
    kind: str, architecture: str, loaded: str | None, tmp_path: Path
) -> None:
    config = AutoConfig.for_model(kind)
    config.architectures = [architecture]
    config.save_pretrained(tmp_path)
    found = standard_config.standard(tmp_path)
    assert (found.family, found.architecture, found.text_part) == (
        "decoder",
        loaded or architecture,
        loaded is not None,
    )
    assert found.values["num_hidden_layers"] == config.get_text_config(decoder=True).num_hidden_layers


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "smolvlm"])
def test_a_multimodal_model_without_such_a_part_is_refused(kind: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(kind)
    config.architectures = ["SomethingForConditionalGeneration"]
    config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="not supported"):
        standard_config.standard(tmp_path)


def test_only_the_text_part_counts_where_only_it_is_loaded(tiny_entry: Any, tmp_path: Path) -> None:
    folder = broken_models.copy(tmp_path / "model", lambda folder: None)
    whole = standard_config.standard(folder)
    weights = {name.replace("model.", "model.language_model.", 1): t for name, t in load_file(folder / WEIGHTS).items()}
    save_file(weights | {"model.visual.blocks.0.mlp.weight": torch.zeros(128, 64)}, folder / WEIGHTS)
    facts = read_facts(folder, replace(whole, text_part=True))
    assert facts.parameters == tiny_entry.facts.parameters
    assert read_facts(folder, whole).parameters == tiny_entry.facts.parameters + 128 * 64


def test_layers_that_are_passed_several_times_are_not_missing(tmp_path: Path) -> None:
    folder = broken_models.copy(tmp_path / "model", broken_models.config(num_hidden_layers=24, num_layers_per_pass=6))
    assert checks.facts(folder).layers == 24


def _of_family(kind: str, sizes: dict[str, Any], folder: Path) -> ModelFacts:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))
    model.save_pretrained(folder)
    shutil.copy(TINY / "tokenizer.json", folder)
    settings = json.loads((TINY / "tokenizer_config.json").read_text())
    del settings["model_max_length"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return checks.facts(folder)


def test_a_folder_without_the_name_of_its_class_is_that_of_its_family(tmp_path: Path) -> None:
    folder = broken_models.copy(tmp_path / "model", broken_models.config(architectures=None))
    assert checks.facts(folder).architecture == "LlamaForCausalLM"


def test_an_encoder_needs_a_mask_token(tmp_path: Path) -> None:
    folder = shutil.copytree(TINY_ENCODER, tmp_path / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**settings, "mask_token": None, "tokenizer_class": "TokenizersBackend"})
    )
    with pytest.raises(UserError, match="mask token"):
        checks.facts(folder)
    assert checks.facts(TINY_ENCODER).family == "encoder"


def test_tokens_of_images_may_lie_beyond_the_embeddings_of_text(tmp_path: Path) -> None:
    folder = shutil.copytree(TINY, tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    token = {"id": 4096, "content": "<image_soft_token>", "special": True, "single_word": False, "lstrip": False}
    tokenizer["added_tokens"].append(token | {"rstrip": False, "normalized": False})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert checks.facts(folder).vocab_size == 4096
