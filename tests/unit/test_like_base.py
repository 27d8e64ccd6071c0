"""What an export keeps from its base model."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.conftest import TINY
from workers.cache import Base
from workers.export.like_base import GENERATION, checkpoint_dtype, own_pad, save_model


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
