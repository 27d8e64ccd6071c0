"""What is read of a model from its files, without loading it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from luthier.model import BaseModelEntry, read_facts


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({}, 512),
        ({"attention_bias": True}, None),
        ({"mlp_bias": True}, None),
        ({"model_type": "mistral", "sliding_window": None}, 512),
        ({"model_type": "mistral", "sliding_window": 64}, 64),
        ({"model_type": "mistral", "max_position_embeddings": 8192}, 4096),
        ({"model_type": "qwen3"}, 512),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 64}, None),
        ({"model_type": "gpt2"}, None),
    ],
    ids=str,
)
def test_how_many_tokens_each_one_sees_where_a_family_can_say_so(
    changes: dict[str, Any], window: int | None, tiny_entry: BaseModelEntry, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_entry.source, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    assert read_facts(folder).attention_window == window


def test_an_output_head_of_its_own_is_one_more_table_of_all_tokens(tiny_entry: BaseModelEntry, tmp_path: Path) -> None:
    assert tiny_entry.facts.tied
    folder = shutil.copytree(tiny_entry.source, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    assert read_facts(folder).tied  # there is no tensor for a head
    save_file({"lm_head.weight": torch.zeros(4096, 128)}, folder / "head.safetensors", metadata={"format": "pt"})
    assert not read_facts(folder).tied


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.bias", "transformer.h.0.ln_1.bias"])
def test_a_tensor_named_bias_in_any_of_the_files_means_biases(
    name: str, tiny_entry: BaseModelEntry, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_entry.source, tmp_path / "model")
    save_file({name: torch.zeros(128)}, folder / "model-00002.safetensors", metadata={"format": "pt"})
    facts = read_facts(folder)
    assert facts.biases
    assert facts.parameters == tiny_entry.facts.parameters + 128


def test_a_model_without_a_tensor_named_bias_has_none(tiny_entry: BaseModelEntry) -> None:
    weights = load_file(Path(tiny_entry.source) / "model.safetensors")
    assert tiny_entry.facts.parameters == sum(tensor.numel() for tensor in weights.values())
    assert not tiny_entry.facts.biases
