"""The facts of a base model are read from its files, without loading it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from luthier.model import BaseModelEntry, read_facts


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
