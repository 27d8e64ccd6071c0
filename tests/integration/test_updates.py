"""The weight updates, each held to the same conformance suite."""

from __future__ import annotations

import copy
import re
import typing

import bitsandbytes
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from luthier.algorithms import Sft
from luthier.design import Design, Optimiser, Stage
from luthier.errors import Infeasible
from luthier.updates import (
    AdaLora,
    AdapterUpdate,
    BitFit,
    Dora,
    Full,
    Ia3,
    LayerNorm,
    Lora,
    LoraPlus,
    Oft,
    Pissa,
    Prefix,
    Prompt,
    QLora,
    RandLora,
    RsLora,
    TopLayers,
    Update,
    Vera,
)
from tests import conformance_updates
from tests.biased import biased
from tests.conformance_updates import IDS, Run, UpdateConformance, scores
from tests.conformance_virtual import VirtualConformance
from tests.textbook import largest_difference, logps
from tests.untied import untied
from workers.cache import Base
from workers.train import updates
from workers.train.data.padding_free import lay_out
from workers.train.data.tokenize import Tokens
from workers.train.forward import target_logps
from workers.train.loop import train
from workers.train.updates import Applied
from workers.train.updates.targets import places


class TestFull(UpdateConformance):
    update = Full()
    learning_rate = 3e-4
    adapter = False

    def moves(self, name: str, layers: int) -> bool:
        return not name.endswith("inv_freq")

    def moves_encoder(self, name: str, layers: int) -> bool:
        return not name.endswith("_ids")


class TestTopLayers(UpdateConformance):
    """Two of the six layers; in the edited model, two of the four."""

    update = TopLayers(layers=2)
    learning_rate = 3e-3
    adapter = False

    def moves(self, name: str, layers: int) -> bool:
        return name.startswith((f"model.layers.{layers - 1}.", f"model.layers.{layers - 2}.", "model.norm."))

    def moves_encoder(self, name: str, layers: int) -> bool:
        return name.startswith((f"bert.encoder.layer.{layers - 1}.", f"bert.encoder.layer.{layers - 2}."))


class _LowRank(UpdateConformance):
    learning_rate = 3e-3
    adapter = True
    drawn = True

    def moves(self, name: str, layers: int) -> bool:
        return ".lora_" in name


class TestLora(_LowRank):
    update = Lora(rank=4)


class TestRsLora(_LowRank):
    update = RsLora(rank=4)


class TestDora(_LowRank):
    update = Dora(rank=4)


class TestLayerNorm(UpdateConformance):
    update = LayerNorm()
    learning_rate = 1e-1
    adapter = False

    def moves(self, name: str, layers: int) -> bool:
        return name.endswith("norm.weight")

    def moves_encoder(self, name: str, layers: int) -> bool:
        return ".LayerNorm." in name


class TestBitFit(UpdateConformance):
    update = BitFit()
    learning_rate = 6e-2
    adapter = False

    @classmethod
    def base(cls, tiny: PreTrainedModel) -> PreTrainedModel:
        return biased(tiny)

    def moves(self, name: str, layers: int) -> bool:
        return name.endswith(".bias")


class TestPissa(_LowRank):
    update = Pissa(rank=4)
    learning_rate = 3e-3


class TestLoraPlus(_LowRank):
    update = LoraPlus(rank=4)
    learning_rate = 1e-3
    encoder_pace = 0.3


class TestVera(UpdateConformance):
    update = Vera(rank=64)
    learning_rate = 2e-1
    encoder_pace = 0.3
    adapter = True
    drawn = True

    def moves(self, name: str, layers: int) -> bool:
        return ".vera_lambda_" in name


class TestRandLora(UpdateConformance):
    update = RandLora(rank=32)
    learning_rate = 1e-3
    encoder_pace = 0.3
    adapter = True
    drawn = True

    def moves(self, name: str, layers: int) -> bool:
        return ".randlora_lambda." in name or ".randlora_gamma." in name


class TestIa3(UpdateConformance):
    update = Ia3()
    learning_rate = 2e-1
    encoder_pace = 0.3
    adapter = True

    def moves(self, name: str, layers: int) -> bool:
        return ".ia3_l." in name


class TestOft(UpdateConformance):
    update = Oft(block=16)
    learning_rate = 3e-3
    adapter = True

    def moves(self, name: str, layers: int) -> bool:
        return name.endswith(".oft_R.default.weight")


class TestAttentionOnly(_LowRank):
    update = Lora(rank=4, placement="attention")


class TestMlpOnly(_LowRank):
    update = RsLora(rank=4, placement="mlp")


class TestPissaOnTheMlp(_LowRank):
    update = Pissa(rank=4, placement="mlp")


class _OnEmbeddings(_LowRank):
    @classmethod
    def base(cls, tiny: PreTrainedModel) -> PreTrainedModel:
        return untied(tiny)

    @classmethod
    def encoder_base(cls, encoder: PreTrainedModel) -> PreTrainedModel:
        return untied(encoder)


class TestLoraOnEmbeddings(_OnEmbeddings):
    update = Lora(rank=4, placement="embeddings")


class TestDoraOnEmbeddings(_OnEmbeddings):
    update = Dora(rank=4, placement="embeddings")


class TestLoraPlusOnEmbeddings(_OnEmbeddings):
    update = LoraPlus(rank=4, placement="embeddings")
    learning_rate = 1e-3
    encoder_pace = 0.3


class TestAdaLora(_LowRank):
    update = AdaLora(rank=4)
    learning_rate = 1e-2

    def undone(self, name: str, ending: torch.Tensor) -> bool:
        """Singular values start at zero, and those of a matrix that is pruned altogether end there."""
        return ".lora_E." in name and not ending.any()


class TestPrompt(VirtualConformance):
    update = Prompt(tokens=64)
    learning_rate = 3e-2
    falls_to = 0.92  # embeddings can say little to so small a model: 0.88 after sft, 0.91 after orpo, 0.01 after dpo


class TestPrefix(VirtualConformance):
    update = Prefix(tokens=6)
    learning_rate = 5e-1


@torch.no_grad()
def test_a_prompt_starts_as_embeddings_and_a_prefix_as_what_the_model_makes_of_tokens(tiny: Base) -> None:
    """Then they score exactly as the tokens they were drawn from would in front of the text."""
    drawn = torch.randint(4096, (6,), generator=torch.Generator().manual_seed(5)).tolist()
    rows = lay_out([Tokens(ids=IDS, target=(False, *[True] * (len(IDS) - 1)), target_bytes=0)] * 2, tiny.model.device)
    expected = logps(tiny.model, [*drawn, *IDS])[6:]
    for update in (Prompt(tokens=6), Prefix(tokens=6)):
        applied = updates.apply(copy.deepcopy(tiny.model), update, seed=5)
        assert largest_difference(target_logps(applied.model, rows), expected.repeat(2)) < 1e-4


class TestQLora(_LowRank):
    """On a CPU, where it is right but not offered: bitsandbytes rounds and multiplies there too."""

    update = QLora(rank=4)
    adapter = False

    def test_it_starts_where_the_base_is(self, run: Run) -> None:
        """Where the base is once its weights are the nearest that NF4 has."""
        rounded = copy.deepcopy(run.base)
        for module in rounded.modules():
            if isinstance(module, torch.nn.Linear) and module is not rounded.get_output_embeddings():
                packed = bitsandbytes.functional.quantize_4bit(
                    module.weight.data, quant_type="nf4", compress_statistics=True
                )
                module.weight.data = bitsandbytes.functional.dequantize_4bit(*packed)
        assert largest_difference(scores(self.applied(run.base).model), scores(rounded)) < 1e-4
        assert largest_difference(scores(rounded), scores(run.base)) > 1e-2

    def test_a_merged_model_can_take_an_update_again(self, run: Run) -> None:
        again = self.applied(run.merged).merge()
        assert [type(module) for module in again.modules()] == [type(module) for module in run.merged.modules()]


def members(union: object) -> set[type]:
    """The classes of an `Annotated[A | B | …, …]`."""
    return set(typing.get_args(typing.get_args(union)[0]))


def test_every_update_has_its_case() -> None:
    cases = [TestFull, TestTopLayers, TestLora, TestRsLora, TestDora]
    cases += [
        TestPrompt,
        TestPrefix,
        TestLayerNorm,
        TestBitFit,
        TestPissa,
        TestLoraPlus,
        TestVera,
        TestRandLora,
        TestIa3,
        TestOft,
        TestAdaLora,
        TestQLora,
    ]
    assert {type(case.update) for case in cases} == members(Update)


SUMS: list[AdapterUpdate] = [
    Lora(rank=4, alpha=24),
    RsLora(rank=4, alpha=24),
    Dora(rank=4, alpha=24),
    LoraPlus(rank=4, alpha=24),
]


def disturbed(update: AdapterUpdate, tiny: Base, place: str) -> tuple[Applied, dict[str, torch.Tensor]]:
    """The update with all that it trains moved a little, and what it trains at a place."""
    applied = updates.apply(copy.deepcopy(tiny.model), update, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in applied.trainable().values():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return applied, {name: p.clone() for name, p in applied.trainable().items() if name.startswith(place)}


@torch.no_grad()
@pytest.mark.parametrize("update", SUMS, ids=lambda update: update.kind)
def test_a_merged_weight_is_the_papers_formula(update: AdapterUpdate, tiny: Base) -> None:
    """LoRA: W + (alpha/r)BA. rsLoRA: W + (alpha/sqrt(r))BA. DoRA: m · (W + (alpha/r)BA) / its norm, row by row."""
    place = "model.layers.2.mlp.up_proj"
    applied, parts = disturbed(update, tiny, place)
    [a], [b] = ([p for name, p in parts.items() if f".lora_{half}." in name] for half in "AB")
    scale = 24 / 2 if isinstance(update, RsLora) else 24 / 4
    expected = tiny.model.get_submodule(place).weight + scale * b @ a
    if isinstance(update, Dora):
        [magnitude] = (p for name, p in parts.items() if "magnitude" in name)
        expected *= (magnitude / expected.norm(dim=1))[:, None]
    assert largest_difference(applied.merge().get_submodule(place).weight, expected) < 1e-5


@torch.no_grad()
def test_pissa_splits_a_weight_into_its_principal_part_and_a_frozen_rest(tiny: Base) -> None:
    applied = updates.apply(copy.deepcopy(tiny.model), Pissa(rank=4), seed=0)
    for place in ("model.layers.2.mlp.up_proj", "model.layers.0.self_attn.k_proj"):
        whole = tiny.model.get_submodule(place).weight
        [a], [b] = ([p for name, p in applied.trainable().items() if f"{place}.lora_{half}." in name] for half in "AB")
        assert largest_difference(applied.model.get_submodule(f"{place}.base_layer").weight + b @ a, whole) < 1e-6
        largest = torch.linalg.svdvals(whole)[:4]
        assert torch.linalg.svdvals(b @ a)[:4].tolist() == pytest.approx(largest.tolist(), rel=0.1)
        assert a.square().sum(1).tolist() == pytest.approx(largest.tolist(), rel=0.1)  # half of each in either matrix


@torch.no_grad()
def test_a_rank_that_no_matrix_has_is_infeasible_for_pissa(tiny: Base) -> None:
    with pytest.raises(Infeasible, match=r"pissa .*129.*model\.layers\.0\.self_attn\.q_proj.*128 × 128"):
        updates.apply(copy.deepcopy(tiny.model), Pissa(rank=129), seed=0)


@torch.no_grad()
@pytest.mark.parametrize("place", ["model.layers.2.mlp.up_proj", "model.layers.4.mlp.down_proj"])
def test_vera_scales_the_random_matrices_that_all_layers_share(place: str, tiny: Base) -> None:
    """W + diag(b) B diag(d) A."""
    applied, parts = disturbed(Vera(rank=16), tiny, place)
    [b], [d] = ([p for name, p in parts.items() if f".vera_lambda_{half}." in name] for half in "bd")
    A, B = (applied.model.get_buffer(f"{place}.vera_{half}.default") for half in "AB")
    weight = tiny.model.get_submodule(place).weight
    rows, columns = weight.shape
    expected = weight + torch.diag(b) @ B[:rows] @ torch.diag(d) @ A[:, :columns]
    assert largest_difference(applied.merge().get_submodule(place).weight, expected) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("place", ["model.layers.2.mlp.up_proj", "model.layers.4.mlp.down_proj"])
def test_randlora_adds_a_combination_of_the_random_matrices_that_all_layers_share(place: str, tiny: Base) -> None:
    """W + s B C, where C are scaled copies of A; transposed where a layer has more inputs than outputs."""
    applied, parts = disturbed(RandLora(rank=48), tiny, place)
    [scales_RN] = (p for name, p in parts.items() if ".randlora_lambda." in name)
    [gammas_NM] = (p for name, p in parts.items() if ".randlora_gamma." in name)
    A_R1M, B_LNR = (applied.model.get_buffer(f"{place}.randlora_{half}.default") for half in "AB")
    weight = tiny.model.get_submodule(place).weight
    wide, narrow = max(weight.shape), min(weight.shape)
    copies_RNM = scales_RN[:, :, None] * A_R1M[:, :, :narrow] * gammas_NM[None]
    summed = B_LNR[:wide, : len(gammas_NM)].flatten(1) @ copies_RNM.flatten(0, 1)
    added = RandLora.SCALE * (summed if weight.shape[0] == wide else summed.T)
    assert largest_difference(applied.merge().get_submodule(place).weight, weight + added) < 1e-3
    assert torch.linalg.matrix_rank(added) == narrow, "no low rank: each update fills the matrix"


@torch.no_grad()
def test_ia3_rescales_what_keys_and_values_put_out_and_what_the_last_matrix_takes_in(tiny: Base) -> None:
    applied, parts = disturbed(Ia3(), tiny, "model.layers.3")
    assert len(parts) == 3
    scales = {name.split(".")[4]: p.clone() for name, p in parts.items()}
    assert {name: tuple(p.shape) for name, p in scales.items()} == {
        "k_proj": (128, 1),
        "v_proj": (128, 1),
        "down_proj": (1, 384),
    }
    merged = applied.merge().get_submodule("model.layers.3")
    for name, module in tiny.model.get_submodule("model.layers.3").named_modules():
        if isinstance(module, torch.nn.Linear):
            expected = module.weight * scales.get(name.split(".")[1], 1.0)
            assert largest_difference(merged.get_submodule(name).weight, expected) < 1e-6


@torch.no_grad()
def test_oft_turns_each_weight_and_keeps_the_angles_between_its_rows(tiny: Base) -> None:
    place = "model.layers.2.mlp.down_proj"
    applied, _ = disturbed(Oft(block=8), tiny, place)
    weight, turned = tiny.model.get_submodule(place).weight, applied.merge().get_submodule(place).weight
    assert largest_difference(turned, weight) > 1e-2
    assert largest_difference(turned @ turned.T, weight @ weight.T) < 1e-4
    for start in range(0, 384, 8):  # each block of inputs turns within itself
        block = slice(start, start + 8)
        assert largest_difference(turned[:, block].norm(dim=1), weight[:, block].norm(dim=1)) < 1e-5


def test_inputs_that_do_not_fill_whole_blocks_are_infeasible_for_oft(tiny: Base) -> None:
    with pytest.raises(Infeasible, match=r"oft .*24.*model\.layers\.0\.self_attn\.q_proj.*128"):
        updates.apply(copy.deepcopy(tiny.model), Oft(block=24), seed=0)


def test_biases_of_a_model_without_any_are_infeasible(tiny: Base) -> None:
    with pytest.raises(Infeasible, match=r"LlamaForCausalLM.*bitfit"):
        updates.apply(copy.deepcopy(tiny.model), BitFit(), seed=0)


EVERYWHERE: list[AdapterUpdate] = [*SUMS, Pissa(rank=4), Vera(rank=4), RandLora(rank=32), Oft(block=8)]


@pytest.mark.parametrize("update", EVERYWHERE, ids=lambda update: update.kind)
def test_adapters_sit_on_every_linear_layer_but_the_output_head(update: AdapterUpdate, tiny: Base) -> None:
    applied = updates.apply(copy.deepcopy(tiny.model), update, seed=0)
    adapted = {re.split(r"\.(?:lora|vera|randlora|oft)_", name)[0] for name in applied.trainable()}
    assert adapted == {
        f"model.layers.{layer}.{module}"
        for layer in range(6)
        for module in (
            *(f"self_attn.{projection}_proj" for projection in "qkvo"),
            *(f"mlp.{projection}_proj" for projection in ("gate", "up", "down")),
        )
    }


@pytest.mark.parametrize("placement", ["attention", "mlp"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_placed_adapters_sit_on_attention_or_the_mlp_of_any_family(family: str, placement: str, tiny: Base) -> None:
    config = AutoConfig.for_model("gpt2", vocab_size=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=1)
    model = copy.deepcopy(tiny.model) if family == "llama" else AutoModelForCausalLM.from_config(config)
    found = places(model, placement)
    expected = {
        ("llama", "attention"): [f"self_attn.{name}_proj" for name in "koqv"],
        ("llama", "mlp"): [f"mlp.{name}_proj" for name in ("down", "gate", "up")],
        ("gpt2", "attention"): ["attn.c_attn", "attn.c_proj"],
        ("gpt2", "mlp"): ["mlp.c_fc", "mlp.c_proj"],
    }
    assert found == expected[family, placement]


def test_embeddings_that_are_the_output_head_too_are_infeasible(tiny: Base) -> None:
    with pytest.raises(Infeasible, match="LlamaForCausalLM has tied embeddings"):
        updates.apply(copy.deepcopy(tiny.model), Lora(rank=4, placement="embeddings"), seed=0)


def test_adalora_ends_with_the_mean_rank_it_was_given(tiny: Base) -> None:
    learned = conformance_updates.examples(tiny, Sft())
    recipe = Optimiser(learning_rate=1e-2, batch_size=4, epochs=5.0)
    stage = Stage(algorithm=Sft(), update=AdaLora(rank=4), optimiser=recipe)
    planned = Design(architecture=conformance_updates.PLAIN, stages=(stage,))
    model, curve = copy.deepcopy(tiny.model), conformance_updates.Curve()
    trained = train(model, planned, lambda _: learned, seed=0, watch=curve).applied
    left = [int((p != 0).sum()) for name, p in trained.trainable().items() if ".lora_E." in name]
    assert sum(left) == 4 * len(left)
    assert len(set(left)) > 1


def test_top_layers_beyond_the_models_depth_are_infeasible(tiny: Base) -> None:
    with pytest.raises(Infeasible, match=r"top_layers .*7 .*6"):
        updates.apply(copy.deepcopy(tiny.model), TopLayers(layers=7), seed=0)


def test_top_layers_are_found_by_their_number_whatever_their_name() -> None:
    config = AutoConfig.for_model("gpt2", vocab_size=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=1)
    applied = updates.apply(AutoModelForCausalLM.from_config(config), TopLayers(layers=1), seed=0)
    assert {name.split(".h.1.")[0] for name in applied.trainable()} == {
        "transformer",
        "transformer.ln_f.weight",
        "transformer.ln_f.bias",
    }


def test_top_layers_of_a_family_without_a_list_of_layers_are_infeasible(tiny: Base) -> None:
    model = copy.deepcopy(tiny.model)
    model.config.num_hidden_layers = 7  # of no list
    with pytest.raises(Infeasible, match=r"top_layers .*LlamaForCausalLM"):
        updates.apply(model, TopLayers(layers=1), seed=0)
