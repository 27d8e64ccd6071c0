"""Edits of a model's shape give ordinary transformers models with the stated weights, or say why they cannot."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, MistralForCausalLM, PreTrainedModel

from luthier.design import Architecture
from luthier.errors import Infeasible
from tests.textbook import largest_difference, logps
from workers.cache import Base
from workers.train.architectures import build
from workers.train.architectures.block_influence import block_influence
from workers.train.architectures.edits import kept_layers
from workers.train.data.padding_free import lay_out
from workers.train.data.tokenize import Tokens
from workers.train.forward import target_logps

IDS = (1, 55, 901, 7, 7, 3000, 12)
EDITS = [
    Architecture(base="tiny"),
    Architecture(base="tiny", layers=1),
    Architecture(base="tiny", layers=4),
    Architecture(base="tiny", layers=6),
    Architecture(base="tiny", kv_heads=4),
    Architecture(base="tiny", kv_heads=2),
    Architecture(base="tiny", kv_heads=1),
    Architecture(base="tiny", layers=3, kv_heads=2),
    Architecture(base="tiny", layers=3, depth_rule="block_influence"),
    Architecture(base="tiny", window=4),
    Architecture(base="tiny", layers=3, kv_heads=2, window=4),
    Architecture(base="tiny", rope_factor=4),
    Architecture(base="tiny", rope_factor=1.5, rope_rule="linear"),
    Architecture(base="tiny", layers=3, kv_heads=2, window=4, rope_factor=2),
]


CALIBRATION = (IDS, tuple(range(100, 140)))


def named(architecture: Architecture) -> str:
    return architecture.model_dump_json(exclude_defaults=True, exclude={"base"})


@pytest.mark.parametrize(
    ("total", "keep", "kept"),
    [(6, 6, [0, 1, 2, 3, 4, 5]), (6, 4, [0, 1, 2, 5]), (6, 2, [0, 5]), (6, 1, [5]), (1, 1, [0])],
)
def test_a_block_just_before_the_last_layer_is_dropped(total: int, keep: int, kept: list[int]) -> None:
    assert kept_layers(total, keep) == kept


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 3, 5])
def test_a_model_cut_in_depth_computes_as_the_base_without_those_layers(layers: int, tiny: Base) -> None:
    by_hand = copy.deepcopy(tiny.model)
    by_hand.model.layers = torch.nn.ModuleList([by_hand.model.layers[i] for i in kept_layers(6, layers)])
    cut = build(tiny.model, Architecture(base="tiny", layers=layers))
    assert cut.config.num_hidden_layers == layers
    assert torch.equal(logps(cut, IDS), logps(by_hand, IDS))


@torch.no_grad()
def test_the_influence_of_a_layer_is_how_far_it_turns_the_hidden_states(tiny: Base) -> None:
    """Recomputed from every layer's input and output as transformers shows them, before the final norm."""
    found = block_influence(tiny.model, CALIBRATION)
    assert len(found) == 6
    unnormed = copy.deepcopy(tiny.model.model)
    unnormed.norm = torch.nn.Identity()
    cosines: list[list[float]] = [[] for _ in range(6)]
    for ids in CALIBRATION:
        states = unnormed(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        for layer, (before, after) in enumerate(pairwise(states)):
            cosines[layer] += torch.cosine_similarity(before[0], after[0], dim=-1).tolist()
    assert found == pytest.approx([1 - sum(values) / len(values) for values in cosines], abs=1e-5)
    assert block_influence(tiny.model, CALIBRATION) == found


@torch.no_grad()
def test_the_layers_that_do_least_are_dropped_and_the_model_says_which_it_kept(tiny: Base, tmp_path: Path) -> None:
    idle = copy.deepcopy(tiny.model)
    for layer in (idle.model.layers[0], idle.model.layers[3]):
        for projection in (layer.self_attn.o_proj, layer.mlp.down_proj):
            projection.weight.zero_()  # what comes in goes out
    cut = build(idle, Architecture(base="tiny", layers=4, depth_rule="block_influence"), CALIBRATION)
    assert cut.config.kept_layers == [1, 2, 4, 5]
    assert torch.equal(logps(cut, IDS), logps(idle, IDS))
    cut.save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.kept_layers == [1, 2, 4, 5]


def test_of_layers_of_equal_influence_the_deeper_ones_stay() -> None:
    assert kept_layers(5, 3, [0.2, 0.1, 0.1, 0.1, 0.3]) == [0, 3, 4]


def test_influence_needs_rows_to_be_measured_on_and_layers_to_measure(tiny: Base) -> None:
    with pytest.raises(Infeasible, match="block_influence needs training rows"):
        build(tiny.model, Architecture(base="tiny", layers=4, depth_rule="block_influence"))
    with pytest.raises(Infeasible, match=r"block_influence .*GPT2LMHeadModel"):
        build(gpt2(), Architecture(base="gpt2", layers=1, depth_rule="block_influence"), CALIBRATION)


def shared(heads_OH: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """What sharing heads means, head by head: each gets the mean of its group."""
    heads = heads_OH.chunk(4)
    size = 4 // kv_heads
    return torch.cat([torch.stack(heads[g * size : (g + 1) * size]).mean(0) for g in range(kv_heads)])


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_key_and_value_heads_are_pooled_to_the_mean_of_their_group(kv_heads: int, tiny: Base) -> None:
    before = tiny.model.state_dict()
    after = build(tiny.model, Architecture(base="tiny", kv_heads=kv_heads)).state_dict()
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        pooled = name.endswith(("k_proj.weight", "v_proj.weight"))
        expected = shared(tensor, kv_heads) if pooled else tensor
        assert largest_difference(after[name], expected) < 1e-7, name


@torch.no_grad()
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_a_pooled_model_computes_as_one_whose_heads_repeat_the_mean(kv_heads: int, tiny: Base) -> None:
    repeated = copy.deepcopy(tiny.model)
    for layer in repeated.model.layers:
        for projection in (layer.self_attn.k_proj, layer.self_attn.v_proj):
            means = shared(projection.weight, kv_heads).chunk(kv_heads)
            projection.weight.copy_(torch.cat([mean for mean in means for _ in range(4 // kv_heads)]))
    pooled = build(tiny.model, Architecture(base="tiny", kv_heads=kv_heads))
    assert largest_difference(logps(pooled, IDS), logps(repeated, IDS)) < 1e-5
    assert largest_difference(logps(pooled, IDS), logps(tiny.model, IDS)) > 1e-2


@torch.no_grad()
def test_pooling_heads_that_are_alike_changes_nothing(tiny: Base) -> None:
    alike = copy.deepcopy(tiny.model)
    for layer in alike.model.layers:
        for projection in (layer.self_attn.k_proj, layer.self_attn.v_proj):
            projection.weight.copy_(projection.weight[:32].repeat(4, 1))
    for kv_heads in (1, 2):
        pooled = build(alike, Architecture(base="tiny", kv_heads=kv_heads))
        assert largest_difference(logps(pooled, IDS), logps(alike, IDS)) < 1e-5


@torch.no_grad()
def test_biases_are_pooled_with_their_heads() -> None:
    config = AutoConfig.for_model(
        "qwen2", vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    biased = AutoModelForCausalLM.from_config(config).eval()
    for layer in biased.model.layers:
        layer.self_attn.k_proj.bias.copy_(torch.arange(32.0))
    pooled = build(biased, Architecture(base="qwen", kv_heads=2))
    assert pooled.model.layers[1].self_attn.k_proj.bias.tolist() == [i + 4.0 for i in range(8)] + [
        i + 20.0 for i in range(8)
    ]


@pytest.mark.parametrize("field", ["layer_types", "no_rope_layers"])
def test_a_layer_that_stays_keeps_its_own_settings(field: str) -> None:
    values: dict[str, list[object]] = {
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "no_rope_layers": [1, 1, 0],
    }
    config = AutoConfig.for_model(
        "smollm3", vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0, bos_token_id=None, eos_token_id=1, **values,
        use_sliding_window=True, sliding_window=8,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    cut = build(model, Architecture(base="smollm", layers=2))
    assert getattr(cut.config, field) == [values[field][0], values[field][2]]


@torch.no_grad()
@pytest.mark.parametrize("architecture", EDITS, ids=named)
def test_an_edited_model_is_an_ordinary_one_to_save_load_and_generate_with(
    architecture: Architecture, tiny: Base, tmp_path: Path
) -> None:
    edited = build(tiny.model, architecture, CALIBRATION)
    edited.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is (MistralForCausalLM if architecture.window else type(tiny.model))
    assert loaded.config.num_hidden_layers == (architecture.layers or 6)
    assert loaded.config.num_key_value_heads == (architecture.kv_heads or 4)
    assert loaded.config.max_position_embeddings == 512 * (architecture.rope_factor or 1)
    assert loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight
    assert torch.equal(logps(loaded, IDS), logps(edited, IDS))
    prompt = torch.tensor([IDS])
    settings = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(loaded.generate(prompt, **settings), edited.generate(prompt, **settings))


def test_the_base_is_not_touched_and_shares_no_memory_with_what_is_built(tiny: Base) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    for architecture in EDITS:
        built = build(tiny.model, architecture, CALIBRATION)
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.model.state_dict().items())
    assert (tiny.model.config.num_hidden_layers, tiny.model.config.num_key_value_heads) == (6, 4)


def test_an_edited_model_keeps_the_generation_settings_of_its_base(tiny: Base) -> None:
    base = copy.deepcopy(tiny.model)
    base.generation_config = GenerationConfig(eos_token_id=[2, 0], repetition_penalty=1.1)
    for architecture in EDITS:
        assert build(base, architecture, CALIBRATION).generation_config.to_dict() == base.generation_config.to_dict()


def test_building_leaves_torchs_own_random_numbers_alone(tiny: Base) -> None:
    before = torch.random.get_rng_state()
    build(tiny.model, Architecture(base="tiny", layers=2))
    assert torch.equal(torch.random.get_rng_state(), before)


def of_family(family: str, **settings: object) -> PreTrainedModel:
    config = AutoConfig.for_model(
        family, vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, initializer_range=0.3, pad_token_id=0, bos_token_id=None, eos_token_id=1,
        **settings,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return AutoModelForCausalLM.from_config(config).eval()


def banded_logps(model: PreTrainedModel, ids: list[int], window: int) -> torch.Tensor:
    """The model under an explicit mask: token i sees those from i - window + 1 to i."""
    position = torch.arange(len(ids))
    distance = position[:, None] - position[None, :]
    mask = torch.zeros(len(ids), len(ids)).masked_fill((distance < 0) | (distance >= window), -torch.inf)
    logits = model(input_ids=torch.tensor([ids]), attention_mask=mask[None, None], use_cache=False).logits[0, :-1]
    return logits.log_softmax(-1).gather(1, torch.tensor(ids)[1:, None]).squeeze(1)


@torch.no_grad()
@pytest.mark.parametrize("window", [1, 5, 12])
@pytest.mark.parametrize(("family", "settings"), [("llama", {}), ("mistral", {"sliding_window": None})])
def test_each_token_sees_as_many_as_the_window_holds(family: str, settings: dict[str, object], window: int) -> None:
    base, ids = of_family(family, **settings), [(7 * i) % 64 for i in range(24)]
    narrowed = build(base, Architecture(base="small", window=window))
    assert largest_difference(logps(narrowed, ids), banded_logps(base, ids, window)) < 1e-5
    assert largest_difference(logps(narrowed, ids), logps(base, ids)) > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_window_as_wide_as_the_row_changes_nothing(family: str, tmp_path: Path) -> None:
    base, ids = of_family(family), [(7 * i) % 64 for i in range(24)]
    wide = build(base, Architecture(base="small", window=24))
    assert torch.equal(logps(wide, ids), logps(base, ids))
    narrowed = build(base, Architecture(base="small", window=5))
    assert torch.equal(logps(narrowed, ids[:5]), logps(base, ids[:5]))
    assert largest_difference(logps(narrowed, ids), logps(base, ids)) > 1e-2
    narrowed.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logps(loaded, ids), logps(narrowed, ids))
    settings = {"max_new_tokens": 12, "do_sample": False}
    prompt = torch.tensor([ids[:8]])
    assert torch.equal(loaded.generate(prompt, **settings), narrowed.generate(prompt, **settings, use_cache=False))


def test_a_family_without_a_window_in_all_layers_is_infeasible() -> None:
    with pytest.raises(Infeasible, match=r"gpt2 .*sliding window"):
        build(gpt2(), Architecture(base="gpt2", window=4))
    with pytest.raises(Infeasible, match=r"llama .*sliding window"):
        build(of_family("llama", attention_bias=True), Architecture(base="small", window=4))


def at_positions(model: PreTrainedModel, ids: list[int], positions: torch.Tensor) -> torch.Tensor:
    """Log-probabilities with each token at a position of ours, which need not be a whole number."""
    causal = torch.full((len(ids), len(ids)), -torch.inf).triu(1)[None, None]
    logits = model(
        input_ids=torch.tensor([ids]), attention_mask=causal, position_ids=positions[None], use_cache=False
    ).logits[0, :-1]
    return logits.log_softmax(-1).gather(1, torch.tensor(ids)[1:, None]).squeeze(1)


FAMILIES = ["llama", "mistral", "qwen2", "qwen3"]


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_linear_rope_scaling_reads_every_token_at_a_fraction_of_its_position(family: str, tmp_path: Path) -> None:
    base, ids = of_family(family, max_position_embeddings=16), [(7 * i) % 64 for i in range(40)]
    stretched = build(base, Architecture(base="small", rope_factor=2.5, rope_rule="linear"))
    assert stretched.config.max_position_embeddings == 40
    expected = at_positions(base, ids, torch.arange(40) / 2.5)
    assert largest_difference(logps(stretched, ids), expected) < 5e-5
    assert largest_difference(logps(stretched, ids), logps(base, ids)) > 1e-2
    stretched.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logps(loaded, ids), logps(stretched, ids))


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("family", FAMILIES)
def test_yarn_scales_slow_frequencies_and_sharpens_attention(family: str, window: int | None) -> None:
    """Peng et al. 2023: a frequency that turns more than 32 times in the old context stays, one that turns less than
    once is divided by the factor, and those between are blended; queries and keys grow by 0.1 ln(factor) + 1."""
    base = of_family(family, max_position_embeddings=4096, rope_parameters={"rope_theta": 1e4, "rope_type": "default"})
    stretched = build(base, Architecture(base="small", rope_factor=4, window=window))
    rotary = stretched.model.rotary_emb
    before, after = base.model.rotary_emb.inv_freq, rotary.inv_freq
    turns = 4096 * before / (2 * torch.pi)
    assert 0 < int((turns > 32).sum()) < len(turns)
    assert torch.equal(after[turns > 32], before[turns > 32])
    assert torch.allclose(after[turns < 1], before[turns < 1] / 4)
    assert all(before / 4 <= after * 1.0001)
    assert all(after <= before)
    assert rotary.attention_scaling == pytest.approx(0.1 * math.log(4) + 1)
    assert stretched.config.max_position_embeddings == 16384
    assert stretched.config.rope_parameters["original_max_position_embeddings"] == 4096


@torch.no_grad()
@pytest.mark.parametrize("rule", ["linear", "yarn"])
def test_rows_longer_than_the_old_context_score_end_to_end_as_alone(rule: str, tiny: Base) -> None:
    """What a dynamic rule would break: a row's score does not depend on the longer one beside it."""
    stretched = build(tiny.model, Architecture(base="tiny", rope_factor=2, rope_rule=rule))
    long, short = ([(13 * i) % 4000 + 3 for i in range(length)] for length in (700, 40))
    rows = [Tokens(ids=tuple(ids), target=(False, *[True] * (len(ids) - 1)), target_bytes=1) for ids in (long, short)]
    together = target_logps(stretched, lay_out(rows, stretched.device))
    assert largest_difference(together, torch.cat([logps(stretched, long), logps(stretched, short)])) < 1e-4


@pytest.mark.parametrize("rule", ["linear", "yarn"])
def test_rope_scaling_needs_plain_rotary_positions(rule: str) -> None:
    with pytest.raises(Infeasible, match=r"RoPE scaling .*gpt2 .*has none"):
        build(gpt2(), Architecture(base="gpt2", rope_factor=2, rope_rule=rule))
    once = build(of_family("llama"), Architecture(base="small", rope_factor=2, rope_rule=rule))
    with pytest.raises(Infeasible, match=f"RoPE scaling .*has {rule} positions"):
        build(once, Architecture(base="small", rope_factor=2))


def gpt2() -> PreTrainedModel:
    config = AutoConfig.for_model("gpt2", vocab_size=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=1)
    return AutoModelForCausalLM.from_config(config)


def qk_normed() -> PreTrainedModel:
    """OLMo 2 normalises all keys together, so their norm does not fit fewer heads."""
    config = AutoConfig.for_model(
        "olmo2", vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("edit", "figures"),
    [
        ({"layers": 7}, "7 of 6 layers"),
        ({"kv_heads": 3}, "4 key/value heads .* 3"),
        ({"kv_heads": 8}, "4 key/value heads .* 8"),
    ],
)
def test_an_edit_that_the_shape_forbids_is_infeasible(edit: dict[str, int], figures: str, tiny: Base) -> None:
    with pytest.raises(Infeasible, match=figures):
        build(tiny.model, Architecture(base="tiny", **edit))


def test_an_edit_that_the_family_forbids_is_infeasible() -> None:
    with pytest.raises(Infeasible, match="GPT2LMHeadModel"):
        build(gpt2(), Architecture(base="gpt2", layers=1))
    with pytest.raises(Infeasible, match="k_proj/v_proj"):
        build(gpt2(), Architecture(base="gpt2", kv_heads=2))
    with pytest.raises(Infeasible, match="Olmo2ForCausalLM"):
        build(qk_normed(), Architecture(base="olmo", kv_heads=2))
