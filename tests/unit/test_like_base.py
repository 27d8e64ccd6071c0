"""What an export keeps from its base model."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from luthier.errors import TrialFailed
from tests.conftest import TINY, TINY_ENCODER
from tests.zoo.build import build
from workers.cache import Base
from workers.export.like_base import GENERATION, check_whole, checkpoint_dtype, own_pad, save_model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_weights_have_the_type_of_the_base(dtype: torch.dtype, tiny: Base, tmp_path: Path) -> None:
    base = shutil.copytree(TINY, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    save_file({name: tensor.to(dtype) for name, tensor in weights.items()}, base / "model.safetensors")
    assert checkpoint_dtype(base) is dtype
    model = copy.deepcopy(tiny.model)
    save_model(model, tmp_path / "export", base)
    saved = load_file(tmp_path / "export" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {dtype}
    assert saved.keys() == weights.keys()
    assert json.loads((tmp_path / "export" / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    assert next(tiny.model.parameters()).dtype == torch.float32


def test_settings_of_generation_that_transformers_would_not_save_are_kept(tiny: Base, tmp_path: Path) -> None:
    base = shutil.copytree(TINY, tmp_path / "base")
    own = b'{"do_sample": false, "temperature": 0.6, "eos_token_id": [2, 7], "own": 1}\n'
    (base / GENERATION).write_bytes(own)
    model = copy.deepcopy(tiny.model)
    assert model.generation_config is not None
    model.generation_config.temperature = 0.6
    save_model(model, tmp_path / "export", base)
    assert (tmp_path / "export" / GENERATION).read_bytes() == own


def test_a_padding_token_that_only_the_worker_needs_is_not_exported(tmp_path: Path) -> None:
    base = shutil.copytree(TINY, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert own_pad(tokenizer, base).pad_token == "<|endoftext|>"
    tokenizer.pad_token = tokenizer.eos_token
    settings = json.loads((base / "tokenizer_config.json").read_text())
    for pad, kept in ((settings["eos_token"], settings["eos_token"]), (None, None)):
        (base / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": pad}))
        assert own_pad(tokenizer, base).pad_token == kept
    assert tokenizer.pad_token == tokenizer.eos_token


def test_an_export_without_all_weights_is_no_export(tiny: Base, tmp_path: Path) -> None:
    """transformers saves the adapter alone of a model that it loaded with one."""
    adapted = copy.deepcopy(tiny.model)
    adapted.add_adapter(LoraConfig(r=2, target_modules=["v_proj"]))
    with pytest.raises(TrialFailed, match="not whole"):
        save_model(adapted, tmp_path / "adapted", TINY)
    assert not (tmp_path / "adapted" / "model.safetensors").exists()

    save_model(copy.deepcopy(tiny.model), tmp_path / "whole", TINY)
    weights = load_file(tmp_path / "whole" / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "whole" / "model.safetensors")
    with pytest.raises(TrialFailed, match="parameters were saved"):
        check_whole(tiny.model, tmp_path / "whole")


@pytest.mark.parametrize("kind", ["gpt2", "mixtral", "deepseek_v3", "mamba", "gpt_oss", "bloom", "qwen3_next"])
def test_families_that_rename_or_tie_weights_are_saved_whole(kind: str, tmp_path: Path) -> None:
    model = build(kind)
    model.save_pretrained(tmp_path)
    check_whole(model, tmp_path)


def test_encoders_are_saved_whole(tmp_path: Path) -> None:
    model = AutoModelForMaskedLM.from_pretrained(TINY_ENCODER)
    model.save_pretrained(tmp_path)
    check_whole(model, tmp_path)
