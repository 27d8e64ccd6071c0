"""The weight updates, each held to the same conformance suite."""

from __future__ import annotations

import copy
import typing

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from luthier.design import AdapterUpdate, Algorithm, Dora, Full, Lora, RsLora, TopLayers, Update
from luthier.errors import Infeasible
from tests import conformance_updates
from tests.conformance_updates import UpdateConformance
from tests.textbook import largest_difference
from workers.train import updates
from workers.warm import Base


class TestFull(UpdateConformance):
    update = Full()
    learning_rate = 3e-4
    adapter = False

    def moves(self, name: str, layers: int) -> bool:
        return not name.endswith("inv_freq")


class TestTopLayers(UpdateConformance):
    """Two of the six layers; in the edited model, two of the four."""

    update = TopLayers(layers=2)
    learning_rate = 3e-3
    adapter = False

    def moves(self, name: str, layers: int) -> bool:
        return name.startswith((f"model.layers.{layers - 1}.", f"model.layers.{layers - 2}.", "model.norm."))


class _LowRank(UpdateConformance):
    learning_rate = 3e-3
    adapter = True

    def moves(self, name: str, layers: int) -> bool:
        return ".lora_" in name


class TestLora(_LowRank):
    update = Lora(rank=4)


class TestRsLora(_LowRank):
    update = RsLora(rank=4)


class TestDora(_LowRank):
    update = Dora(rank=4)


def members(union: object) -> set[type]:
    """The classes of an `Annotated[A | B | …, …]`."""
    return set(typing.get_args(typing.get_args(union)[0]))


def test_every_update_has_its_case() -> None:
    cases = [TestFull, TestTopLayers, TestLora, TestRsLora, TestDora]
    assert {type(case.update) for case in cases} == members(Update)


def test_every_algorithm_trains_every_update() -> None:
    assert {type(algorithm) for _, algorithm in conformance_updates.RUNS} == members(Algorithm)


ADAPTERS: list[AdapterUpdate] = [Lora(rank=4, alpha=24), RsLora(rank=4, alpha=24), Dora(rank=4, alpha=24)]


@torch.no_grad()
@pytest.mark.parametrize("update", ADAPTERS, ids=lambda update: update.kind)
def test_a_merged_weight_is_the_papers_formula(update: AdapterUpdate, tiny: Base) -> None:
    """LoRA: W + (alpha/r)BA. rsLoRA: W + (alpha/sqrt(r))BA. DoRA: m · (W + (alpha/r)BA) / its norm, row by row."""
    applied = updates.apply(copy.deepcopy(tiny.model), update, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in applied.trainable().values():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    place = "model.layers.2.mlp.up_proj"
    parts = {name: p.clone() for name, p in applied.trainable().items() if name.startswith(place)}
    [a], [b] = ([p for name, p in parts.items() if f".lora_{half}." in name] for half in "AB")
    scale = 24 / 2 if isinstance(update, RsLora) else 24 / 4
    expected = tiny.model.get_submodule(place).weight + scale * b @ a
    if isinstance(update, Dora):
        [magnitude] = (p for name, p in parts.items() if "magnitude" in name)
        expected *= (magnitude / expected.norm(dim=1))[:, None]
    assert largest_difference(applied.merge().get_submodule(place).weight, expected) < 1e-5


@pytest.mark.parametrize("update", ADAPTERS, ids=lambda update: update.kind)
def test_adapters_sit_on_every_linear_layer_but_the_output_head(update: AdapterUpdate, tiny: Base) -> None:
    applied = updates.apply(copy.deepcopy(tiny.model), update, seed=0)
    adapted = {name.split(".lora_")[0] for name in applied.trainable()}
    assert adapted == {
        f"model.layers.{layer}.{module}"
        for layer in range(6)
        for module in (
            *(f"self_attn.{projection}_proj" for projection in "qkvo"),
            *(f"mlp.{projection}_proj" for projection in ("gate", "up", "down")),
        )
    }


def test_top_layers_beyond_the_models_depth_are_infeasible(tiny: Base) -> None:
    with pytest.raises(Infeasible, match="asks for 7 layers, the model has 6"):
        updates.apply(copy.deepcopy(tiny.model), TopLayers(layers=7), seed=0)


def test_top_layers_of_a_family_without_a_list_of_layers_are_infeasible() -> None:
    config = AutoConfig.for_model("gpt2", vocab_size=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=1)
    with pytest.raises(Infeasible, match="GPT2LMHeadModel has no list of layers"):
        updates.apply(AutoModelForCausalLM.from_config(config), TopLayers(layers=1), seed=0)
