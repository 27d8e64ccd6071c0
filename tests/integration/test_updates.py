"""The weight updates, each held to the same conformance suite."""

from __future__ import annotations

import typing

import conformance_updates
import pytest
from conformance_updates import UpdateConformance
from transformers import AutoConfig, AutoModelForCausalLM

from luthier.design import Algorithm, Dora, Full, Lora, RsLora, TopLayers, Update
from luthier.errors import Infeasible
from workers.train import updates
from workers.warm import Base


class TestFull(UpdateConformance):
    update = Full()
    learning_rate = 3e-4
    adapter = False

    def moves(self, name: str) -> bool:
        return not name.endswith("inv_freq")


class TestTopLayers(UpdateConformance):
    """Two of the six layers; in the edited model, two of the four."""

    update = TopLayers(layers=2)
    learning_rate = 1e-3
    adapter = False

    @pytest.fixture(autouse=True)
    def top(self, run: conformance_updates.Run) -> None:
        layers = run.base.config.num_hidden_layers
        self.prefixes = (f"model.layers.{layers - 1}.", f"model.layers.{layers - 2}.", "model.norm.")

    def moves(self, name: str) -> bool:
        return name.startswith(self.prefixes)


class _LowRank(UpdateConformance):
    learning_rate = 3e-3
    adapter = True

    def moves(self, name: str) -> bool:
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


@pytest.mark.parametrize("update", [Lora(rank=4), RsLora(rank=4), Dora(rank=4)], ids=lambda update: update.kind)
def test_adapters_sit_on_every_linear_layer_but_the_output_head(update: Update, tiny: Base) -> None:
    applied = updates.apply(conformance_updates.build(tiny.model, conformance_updates.PLAIN), update, seed=0)
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
        updates.apply(conformance_updates.build(tiny.model, conformance_updates.PLAIN), TopLayers(layers=7), seed=0)


def test_top_layers_of_a_family_without_a_list_of_layers_are_infeasible() -> None:
    config = AutoConfig.for_model("gpt2", vocab_size=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=1)
    with pytest.raises(Infeasible, match="GPT2LMHeadModel has no list of layers"):
        updates.apply(AutoModelForCausalLM.from_config(config), TopLayers(layers=1), seed=0)
