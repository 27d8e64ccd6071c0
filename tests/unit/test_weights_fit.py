"""Weights that do not fit the configuration of their folder are named with both shapes; all others pass."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from luthier.errors import LuthierError, UserError
from luthier.models import confined
from luthier.models.sources import facts_of
from tests import broken_models
from tests.conftest import TINY, TINY_ENCODER
from tests.zoo.build import build, save
from tests.zoo.declarations import DECLARATIONS
from workers.import_model import standard_config, weight_values, weights

pytestmark = pytest.mark.filterwarnings("ignore")

MEMBERS = [
    pytest.param(name, marks=() if declared.covering else pytest.mark.slow) for name, declared in DECLARATIONS.items()
]


def misfit(folder: Path) -> str | None:
    """Return what does not fit, without what the child makes of errors."""
    encoder = standard_config.standard(folder).family == "encoder"
    model = weights.hollow(standard_config.load(folder)[0], encoder=encoder)
    return weights.misfit(folder, model, encoder=encoder)


SMALL = {"vocab_size": 128, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}


def tensors(**changes: Any) -> broken_models.Break:
    """Replace tensors of the weights, or take them away (None)."""

    def change(folder: Path) -> None:
        found = {**load_file(folder / "model.safetensors"), **changes}
        kept = {name: tensor for name, tensor in found.items() if tensor is not None}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

    return change


MISFITS: dict[str, tuple[broken_models.Break, str, list[list[int]]]] = {
    "another inner width": (
        broken_models.config(intermediate_size=100),
        "model.layers.0.mlp.down_proj.weight",
        [[128, 384], [128, 100]],
    ),
    "another width of the heads": (
        broken_models.config(head_dim=16),
        "model.layers.0.self_attn.k_proj.weight",
        [],
    ),
    "other numbers of key heads": (broken_models.config(num_key_value_heads=1), "self_attn.k_proj.weight", []),
    "one tensor of another shape": (
        tensors(**{"model.layers.4.input_layernorm.weight": torch.ones(127)}),
        "model.layers.4.input_layernorm.weight",
        [[127], [128]],
    ),
    "a tensor of more dimensions": (
        tensors(**{"model.norm.weight": torch.ones(1, 128)}),
        "model.norm.weight",
        [[1, 128], [128]],
    ),
    "a tensor that is missing": (
        tensors(**{"model.layers.3.mlp.up_proj.weight": None}),
        "model.layers.3.mlp.up_proj.weight",
        [],
    ),
    "a head that is missing": (broken_models.config(tie_word_embeddings=False), "lm_head.weight", [[4096, 128]]),
    "biases that are missing": (broken_models.config(attention_bias=True), "self_attn.k_proj.bias", []),
}


@pytest.mark.parametrize("name", MISFITS)
def test_the_tensor_and_both_shapes_are_named(name: str, tmp_path: Path) -> None:
    change, tensor, shapes = MISFITS[name]
    found = misfit(broken_models.copy(tmp_path / "model", change))
    assert found is not None
    assert tensor in found
    assert all(str(shape) in found for shape in shapes)


def test_such_a_folder_is_refused(tmp_path: Path) -> None:
    change, tensor, _ = MISFITS["one tensor of another shape"]
    folder = broken_models.copy(tmp_path / "model", change)
    steps: list[str] = []
    with pytest.raises(UserError, match=tensor) as refused:
        facts_of(folder, tmp_path, steps.append)
    assert refused.value.param == "source"
    assert str(folder) in steps[-1]


@pytest.mark.parametrize("name", MEMBERS)
def test_every_type_of_the_zoo_fits_itself_and_no_other_width(name: str, tmp_path: Path) -> None:
    save(build(name), tmp_path)
    assert misfit(tmp_path) is None
    weights = load_file(tmp_path / "model.safetensors")
    last = max(key for key, tensor in weights.items() if tensor.ndim == 2)
    save_file(weights | {last: torch.zeros(3, 5)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert misfit(tmp_path) is not None


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert"])
@pytest.mark.parametrize("headless", [False, True])
def test_encoders_fit_with_and_without_a_head(family: str, headless: bool, tmp_path: Path) -> None:
    sizes = {"dim": 32, "hidden_dim": 64, "n_heads": 4, "n_layers": 2} if family == "distilbert" else SMALL
    config = AutoConfig.for_model(family, **{"vocab_size": 128, "num_attention_heads": 4, "pad_token_id": 1, **sizes})
    (AutoModel if headless else AutoModelForMaskedLM).from_config(config).save_pretrained(tmp_path)
    assert misfit(tmp_path) is None
    weights = load_file(tmp_path / "model.safetensors")
    gone = next(name for name, tensor in weights.items() if tensor.ndim == 2 and "layer" in name)
    save_file({k: v for k, v in weights.items() if k != gone}, tmp_path / "model.safetensors")
    found = misfit(tmp_path)
    assert found is not None
    assert gone.rsplit("layer", 1)[-1] in found


def test_what_cannot_be_compared_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = broken_models.config(intermediate_size=100, quantization_config={"quant_method": "fp8"})
    assert fault(broken_models.copy(tmp_path / "q", change)) is None
    asked = confined.ask

    def slow(module: str, *question: Any, **limits: Any) -> Any:
        if module == "workers.import_model.weights":
            raise LuthierError("it took too long")
        return asked(module, *question, **limits)

    monkeypatch.setattr(confined, "ask", slow)
    folder = shutil.copytree(TINY, tmp_path / "tiny")
    assert facts_of(folder, tmp_path).layers == 6


@pytest.mark.parametrize("folder", [TINY, TINY_ENCODER], ids=lambda folder: folder.name)
def test_the_tests_own_models_fit(folder: Path) -> None:
    assert misfit(folder) is None
    assert fault(folder) is None


def fault(folder: Path) -> str | None:
    return weights.work({"folder": str(folder)}, lambda step: None)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "swoosh"},
        {"rope_parameters": {"rope_type": "spiral", "rope_theta": 1e4}},
        {"pad_token_id": 4096},
        {"model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"], "hidden_act": "swoosh"},
    ],
    ids=str,
)
def test_a_configuration_that_transformers_cannot_build_is_refused_with_its_reason(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    found = fault(broken_models.copy(tmp_path / "model", broken_models.config(**changes)))
    assert found is not None
    assert "cannot be built" in found


def last(matrix: torch.Tensor, number: float) -> torch.Tensor:
    """Return a copy with another last number."""
    copy = matrix.clone()
    copy.view(-1)[-1] = number
    return copy


def numbers(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> broken_models.Break:
    def broken(folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})

    return broken


DOWN, NORM = "model.layers.5.mlp.down_proj.weight", "model.norm.weight"
VALUES: dict[str, tuple[broken_models.Break, str]] = {
    "infinity in the last place of a matrix": (numbers(lambda t: t | {DOWN: last(t[DOWN], float("inf"))}), DOWN),
    "NaN in a norm, in half precision": (
        numbers(lambda t: {k: v.bfloat16() for k, v in t.items()} | {NORM: torch.full((128,), torch.nan)}),
        NORM,
    ),
    "matrices of zeros beside whole norms": (
        numbers(lambda t: {k: v * 0 if v.ndim > 1 else v for k, v in t.items()}),
        "zeros",
    ),
    "one matrix of 16-bit integers": (numbers(lambda t: t | {DOWN: (t[DOWN] * 999).to(torch.int16)}), DOWN),
    "bytes": (numbers(lambda t: {k: v.to(torch.uint8) if v.ndim > 1 else v for k, v in t.items()}), "U8"),
}


@pytest.mark.parametrize("name", VALUES)
def test_numbers_that_no_model_can_have_are_refused_by_tensor(name: str, tmp_path: Path) -> None:
    change, named = VALUES[name]
    found = fault(broken_models.copy(tmp_path / "model", change))
    assert found is not None
    assert named in found


def test_a_large_model_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of the rows is read of each tensor; a matrix that is full of NaN is still found."""
    monkeypatch.setattr(weight_values, "READ", 2**18)
    monkeypatch.setattr(weight_values, "SLICE", 2**14)
    assert fault(TINY) is None
    full = numbers(lambda t: t | {DOWN: torch.full_like(t[DOWN], torch.nan)})
    assert DOWN in str(fault(broken_models.copy(tmp_path / "model", full)))


def test_buffers_may_hold_anything(tmp_path: Path) -> None:
    """Older files keep masks and positions."""
    extra = {
        "model.layers.0.self_attn.mask": torch.full((8, 8), -torch.inf),
        "model.layers.0.self_attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8),
        "model.position_ids": torch.arange(8).expand(1, 8).contiguous(),
    }
    assert fault(broken_models.copy(tmp_path / "model", numbers(lambda t: t | extra))) is None
    scalar = numbers(lambda t: t | {"model.scale.weight": torch.tensor(3.0)})
    assert fault(broken_models.copy(tmp_path / "scalar", scalar)) is None
