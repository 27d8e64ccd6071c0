"""Padding-free batches: sequences in one row score as each does alone."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from luthier.design import Architecture
from tests.textbook import largest_difference, logps
from workers.cache import Base
from workers.train.architectures import build
from workers.train.attention import unpadded
from workers.train.data.padding_free import lay_out, within
from workers.train.data.tokenize import Tokens
from workers.train.forward import target_logps
from workers.train.layout_probe import probe, row_layout

CPU = torch.device("cpu")
SEQUENCES = (
    [5, 90, 17],
    list(range(40, 73)),
    [9] * 12,
    list(range(500, 507)),
    [300, 4, 4000, 8, 2, 77, 1234, 55],
    [11, 12],
)
EDITS = {
    "multi-head": Architecture(base="tiny"),
    "grouped": Architecture(base="tiny", kv_heads=2),
    "multi-query": Architecture(base="tiny", kv_heads=1),
    "shallow": Architecture(base="tiny", layers=3),
    "windowed": Architecture(base="tiny", window=4),
    "shallow and grouped": Architecture(base="tiny", layers=2, kv_heads=2),
}
SMALL = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,  # far from uniform predictions, so that a leak shows
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}


def all_targets(ids: list[int]) -> Tokens:
    return Tokens(ids=tuple(ids), target=(False, *[True] * (len(ids) - 1)), target_bytes=0)


def small_model(family: str, **settings: object) -> PreTrainedModel:
    config = AutoConfig.for_model(family, **{**SMALL, **settings})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()


@pytest.fixture(params=EDITS)
def model(request: pytest.FixtureRequest, tiny: Base) -> PreTrainedModel:
    return build(tiny.model, EDITS[request.param])


@torch.no_grad()
def test_each_sequence_scores_as_it_does_alone(model: PreTrainedModel) -> None:
    together = target_logps(model, lay_out([all_targets(ids) for ids in SEQUENCES], CPU))
    alone = torch.cat([logps(model, ids) for ids in SEQUENCES])
    assert largest_difference(together, alone) < 1e-5


@torch.no_grad()
def test_in_double_precision_nothing_but_rounding_is_left(model: PreTrainedModel) -> None:
    model = model.double()
    together = target_logps(model, lay_out([all_targets(ids) for ids in SEQUENCES], CPU))
    alone = torch.cat([logps(model, ids) for ids in SEQUENCES])
    assert together.dtype == torch.float64
    assert largest_difference(together, alone) < 1e-10


def test_gradients_are_the_sum_of_those_of_the_sequences_alone(model: PreTrainedModel) -> None:
    model = model.double()
    names = [name for name, _ in model.named_parameters()]
    together = torch.autograd.grad(
        target_logps(model, lay_out([all_targets(ids) for ids in SEQUENCES], CPU)).sum(), list(model.parameters())
    )
    alone = torch.autograd.grad(sum(logps(model, ids).sum() for ids in SEQUENCES), list(model.parameters()))
    for name, ours, theirs in zip(names, together, alone, strict=True):
        assert largest_difference(ours, theirs) < 1e-9 * float(theirs.abs().max()), name


@torch.no_grad()
@pytest.mark.parametrize("changed", range(len(SEQUENCES)))
def test_changing_one_sequence_leaves_the_others_bit_for_bit(changed: int, tiny: Base) -> None:
    other = [list(ids) for ids in SEQUENCES]
    other[changed] = [id_ + 21 for id_ in other[changed]]
    before, after = (lay_out([all_targets(ids) for ids in sequences], CPU) for sequences in (SEQUENCES, other))
    logp_before, logp_after = target_logps(tiny.model, before), target_logps(tiny.model, after)
    own = before.segment_N == changed
    assert torch.equal(logp_before[~own], logp_after[~own])
    assert not torch.equal(logp_before[own], logp_after[own])


@torch.no_grad()
def test_a_sequence_of_nans_leaves_the_others_bit_for_bit(tiny: Base) -> None:
    model = copy.deepcopy(tiny.model)
    rows = lay_out([all_targets(ids) for ids in SEQUENCES], CPU)
    before = target_logps(model, rows)
    last = len(SEQUENCES[0]) + len(SEQUENCES[1])

    def spoil(_: torch.nn.Module, __: object, embedded_1TH: torch.Tensor) -> torch.Tensor:
        embedded_1TH[:, :last] = torch.nan
        return embedded_1TH

    model.get_input_embeddings().register_forward_hook(spoil)
    after = target_logps(model, rows)
    assert after[rows.segment_N < 2].isnan().all()
    assert torch.equal(before[rows.segment_N >= 2], after[rows.segment_N >= 2])


@torch.no_grad()
def test_only_the_targets_are_scored(tiny: Base) -> None:
    masked = Tokens(ids=(5, 90, 17, 31, 8), target=(False, False, True, False, True), target_bytes=0)
    rows = lay_out([all_targets([7, 8, 9]), masked], CPU)
    assert rows.label_N.tolist() == [8, 9, 17, 8]
    assert rows.segment_N.tolist() == [0, 0, 1, 1]
    scores = target_logps(tiny.model, rows)
    assert largest_difference(scores[2:], logps(tiny.model, masked.ids)[[1, 3]]) < 1e-5


def test_positions_start_again_with_each_sequence() -> None:
    rows = lay_out([all_targets([5, 6, 7]), all_targets([8, 9])], CPU)
    assert rows.ids_1T.tolist() == [[5, 6, 7, 8, 9]]
    assert rows.positions_1T.tolist() == [[0, 1, 2, 0, 1]]
    assert rows.lengths == (3, 2)
    assert rows.predictor_N.tolist() == [0, 1, 3]


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("mistral", {"sliding_window": 6}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),  # every other layer
        ("gemma3_text", {"sliding_window": 6, "sliding_window_pattern": 2, "query_pre_attn_scalar": 8}),
    ],
)
def test_a_sliding_window_is_the_one_of_eager_transformers(family: str, settings: dict[str, object]) -> None:
    model = small_model(family, **settings)
    sequences = [[id_ % 128 for id_ in ids] for ids in SEQUENCES]
    together = target_logps(model, lay_out([all_targets(ids) for ids in sequences], CPU))
    alone = torch.cat([logps(model, ids) for ids in sequences])
    assert largest_difference(together, alone) < 1e-5
    model.config.sliding_window = 4096  # the window matters: with a wide one the scores are others
    wide = AutoModelForCausalLM.from_config(model.config, attn_implementation="eager").eval()
    wide.load_state_dict(model.state_dict())
    assert largest_difference(torch.cat([logps(wide, ids) for ids in sequences]), alone) > 1e-2


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "olmo2", "smollm3"])
def test_common_families_take_rows_end_to_end(family: str) -> None:
    assert row_layout(small_model(family)) == "unpadded"


@pytest.mark.parametrize(
    ("family", "settings", "why"),
    [
        ("gemma2", {}, "softcap"),
        ("gpt_oss", {"num_local_experts": 2, "num_experts_per_tok": 1}, "s_aux"),
        ("bloom", {}, "differently"),
        ("nemotron", {}, "sequence_lengths"),
    ],
)
def test_a_family_that_cannot_keep_rows_apart_pads_them(family: str, settings: dict[str, object], why: str) -> None:
    found = probe(small_model(family, **settings))
    assert found.rows == "padded"
    assert why in found.why


def test_the_model_attends_as_before_once_it_was_called_with_unpadded_rows(tiny: Base) -> None:
    before = tiny.model.config._attn_implementation
    with unpadded(tiny.model):
        assert tiny.model.config._attn_implementation == "unpadded"
    assert tiny.model.config._attn_implementation == before


@given(lengths=st.lists(st.integers(1, 30), max_size=20), cap=st.integers(1, 60))
def test_groups_keep_the_order_and_hold_as_much_as_the_cap_allows(lengths: list[int], cap: int) -> None:
    examples = [(all_targets([i] * length), all_targets([i])) for i, length in enumerate(lengths)]
    groups = list(within(examples, cap))
    sizes = [[sum(map(len, example)) for example in group] for group in groups]
    assert [example for group in groups for example in group] == examples
    assert all(sum(group) <= cap or len(group) == 1 for group in sizes)
    assert all(sum(group) + following[0] > cap for group, following in pairwise(sizes))
