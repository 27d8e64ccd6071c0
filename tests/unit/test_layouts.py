"""Rows end to end, padded, or one by one: the same numbers. Which of them a model takes is found out by trying."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from luthier.algorithms import Algorithm, Dpo, Gkd, Grpo, Kto, Orpo, Raft, RewardModel, Rloo, Sft, Simpo
from luthier.design import Architecture, Optimiser
from luthier.errors import Infeasible
from luthier.task import DataKind
from luthier.updates import Full, Lora, Prefix, Prompt, Update
from tests import data_samples
from tests.playing import prompts, world
from tests.textbook import first_step, largest_difference, logps
from workers.cache import Base
from workers.train import layouts, updates
from workers.train.algorithms import Context, Example, Teacher, objective
from workers.train.architectures import build
from workers.train.data.padding_free import lay_out
from workers.train.data.tokenize import Renderer, Tokens
from workers.train.forward import target_logps
from workers.train.layout_probe import keep_layout, layout_of, probe, row_layout
from workers.train.layouts import Layout, RowLayout
from workers.train.rollouts.sampling import sample
from workers.train.stage_trainer import StageTrainer

CPU = torch.device("cpu")
ALGORITHMS: list[Algorithm] = [Sft(), Dpo(), Simpo(), Orpo(), Kto(), RewardModel()]
ALGORITHMS += [Gkd(teacher="tiny", share=0.0), Grpo(group=2, beta=0.1), Rloo(group=2), Raft(group=2)]
LENGTHS = (3, 33, 12, 7, 2, 20, 41, 12)


def rows(model: PreTrainedModel, lengths: tuple[int, ...] = LENGTHS) -> list[Tokens]:
    drawn = torch.Generator().manual_seed(3)
    every = [torch.randint(3, model.config.vocab_size, (length,), generator=drawn).tolist() for length in lengths]
    return [Tokens(ids=tuple(ids), target=(False, *[True] * (len(ids) - 1)), target_bytes=0) for ids in every]


def read_as(model: PreTrainedModel, layout: RowLayout) -> PreTrainedModel:
    made = copy.deepcopy(model)
    keep_layout(made, Layout(rows=layout))
    return made


def examples(algorithm: Algorithm, tiny: Base) -> list[Example]:
    learn = objective(algorithm)
    if isinstance(algorithm, Grpo | Rloo | Raft):
        return prompts(learn, tiny, 6)
    render = Renderer(tiny.tokenizer, window=64, max_tokens=128)
    return [
        example for row in data_samples.preference(6) for example in learn.examples(row, DataKind.PREFERENCE, render)
    ]


def step(
    tiny: Base, algorithm: Algorithm, layout: RowLayout, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    model, teacher = read_as(tiny.model, layout), read_as(tiny.model, layout)
    context = Context(world=world(tiny), teacher=Teacher(model=teacher, tokenizer=tiny.tokenizer, max_new_tokens=4))
    trainer = StageTrainer(
        applied=updates.apply(model, Full(), 0),
        objective=objective(algorithm, context),
        examples=examples(algorithm, tiny),
        optimiser=Optimiser(learning_rate=1e-3, batch_size=4, epochs=1.0),
        seed=4,
    )
    trainer.keep_reference()
    report, gradients = first_step(trainer, monkeypatch)
    return report.values, gradients


@pytest.mark.parametrize("layout", [RowLayout.PADDED, RowLayout.SINGLE])
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.kind)
def test_a_step_of_every_algorithm_is_the_same_in_every_layout(
    algorithm: Algorithm, layout: RowLayout, tiny: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, gradients = step(tiny, algorithm, RowLayout.UNPADDED, monkeypatch)
    other_values, other_gradients = step(tiny, algorithm, layout, monkeypatch)
    if isinstance(algorithm, Dpo):  # at the first step all margins are zero but for rounding
        values.pop("reward_accuracy"), other_values.pop("reward_accuracy")
    assert values == pytest.approx(other_values, rel=1e-4, abs=1e-6)
    assert gradients.keys() == other_gradients.keys()
    assert gradients
    for name, ours in gradients.items():
        assert largest_difference(ours, other_gradients[name]) < 1e-4 * max(1.0, float(ours.abs().max())), name


@torch.no_grad()
@pytest.mark.parametrize("layout", RowLayout)
def test_the_order_of_rows_and_targets_stays(layout: RowLayout, tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layouts.TOKEN_CAP, "cpu", 50)  # so that padded rows need several passes
    model = read_as(tiny.model, layout)
    found = target_logps(model, lay_out(rows(model), CPU))
    assert largest_difference(found, torch.cat([logps(model, row.ids) for row in rows(model)])) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("layout", RowLayout)
def test_a_row_without_targets_counts_for_nothing(layout: RowLayout, tiny: Base) -> None:
    model = read_as(tiny.model, layout)
    bare = Tokens(ids=(5, 6, 7), target=(False,) * 3, target_bytes=0)
    alone = rows(model, (9,))
    assert target_logps(model, lay_out([bare], CPU)).shape == (0,)
    assert largest_difference(target_logps(model, lay_out([bare, *alone], CPU)), logps(model, alone[0].ids)) < 1e-5


def test_padding_stays_within_the_most_tokens_of_a_pass(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layouts.TOKEN_CAP, "cpu", 50)
    model, shapes = read_as(tiny.model, RowLayout.PADDED), []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    target_logps(model, lay_out(rows(model), CPU))
    assert all(b * t <= 50 for b, t in shapes)
    assert len(shapes) < len(LENGTHS)
    assert sum(b for b, _ in shapes) == len(LENGTHS)


# What the probe sees


Hook = Callable[[torch.nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]


def hooked(tiny: Base, hook: Hook) -> PreTrainedModel:
    model = build(tiny.model, Architecture(base="tiny", layers=2))
    vars(model).pop("_luthier_layout")
    model.get_input_embeddings().register_forward_hook(hook)
    return model


def by_length(_: object, args: tuple[torch.Tensor, ...], embedded: torch.Tensor) -> torch.Tensor:
    return embedded * (1 + args[0].shape[1] / 100)


def by_neighbours(_: object, args: tuple[torch.Tensor, ...], embedded: torch.Tensor) -> torch.Tensor:
    return embedded + 0.01 * torch.cat([torch.zeros_like(embedded[:, :1]), embedded.cumsum(1)[:, :-1]], 1)


def cut_gradient(_: object, args: tuple[torch.Tensor, ...], embedded: torch.Tensor) -> torch.Tensor:
    return embedded if args[0].shape[1] < 30 else embedded.detach()


def from_the_future(_: object, args: tuple[torch.Tensor, ...], embedded: torch.Tensor) -> torch.Tensor:
    return embedded + 0.1 * embedded.mean(1, keepdim=True)


def into_nothing(_: object, args: tuple[torch.Tensor, ...], embedded: torch.Tensor) -> torch.Tensor:
    return embedded * torch.inf


@pytest.mark.parametrize(
    ("hook", "layout"), [(by_length, "single"), (by_neighbours, "padded"), (cut_gradient, "padded")]
)
def test_a_model_that_reads_rows_differently_together_is_seen(hook: Hook, layout: str, tiny: Base) -> None:
    found = probe(hooked(tiny, hook))
    assert (found.rows, bool(found.why)) == (layout, True)


@pytest.mark.parametrize(("hook", "why"), [(from_the_future, "causal"), (into_nothing, "finite")])
def test_a_model_whose_scores_mean_nothing_is_refused(hook: Hook, why: str, tiny: Base) -> None:
    with pytest.raises(Infeasible, match=why):
        probe(hooked(tiny, hook))


def test_the_probe_leaves_no_trace(tiny: Base) -> None:
    model = build(tiny.model, Architecture(base="tiny", layers=2))
    model.requires_grad_(False)
    next(model.parameters()).requires_grad_(True)
    before = {name: (p.requires_grad, p.detach().clone()) for name, p in model.named_parameters()}
    with torch.no_grad():
        assert row_layout(model) == "unpadded"
    for name, parameter in model.named_parameters():
        assert parameter.grad is None
        assert parameter.requires_grad == before[name][0]
        assert torch.equal(parameter, before[name][1])


def test_a_model_is_probed_once_and_its_copies_and_edits_not_again(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    model = hooked(tiny, by_neighbours)
    found = layout_of(model)
    monkeypatch.setattr("workers.train.layout_probe.probe", None)
    assert layout_of(model) is found
    assert layout_of(copy.deepcopy(model)) == found
    assert layout_of(build(model, Architecture(base="tiny", layers=1))) == found


def small(family: str, **settings: object) -> PreTrainedModel:
    shape = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4}
    common = {"vocab_size": 128, "intermediate_size": 64, "head_dim": 8, "initializer_range": 0.3}
    context = {"max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = AutoConfig.for_model(family, **{**shape, **common, **context, **settings})
        return AutoModelForCausalLM.from_config(config).float().eval()


CHUNKED = {"intermediate_size_mlp": 64, "num_local_experts": 2, "num_experts_per_tok": 1}


@pytest.mark.parametrize("chunk", [20, 60])
def test_rows_of_the_probe_are_longer_than_an_attention_chunk(chunk: int) -> None:
    model = small("llama4_text", attention_chunk_size=chunk, **CHUNKED)
    assert row_layout(model) == "padded"
    assert row_layout(model, most_tokens=72) == "padded"  # what cannot be tried is not taken
    assert row_layout(small("llama4_text", attention_chunk_size=chunk, max_position_embeddings=16, **CHUNKED)) == (
        "unpadded"
    )


@pytest.mark.parametrize(("family", "layout"), [("mistral", "unpadded"), ("phimoe", "padded")])
def test_a_window_that_the_probe_cannot_reach_must_be_given_to_the_attention(family: str, layout: str) -> None:
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2} if family == "phimoe" else {}
    for window in (16, 200):
        assert row_layout(small(family, sliding_window=window, **experts), most_tokens=110) == layout
    assert row_layout(small(family, sliding_window=None, **experts), most_tokens=110) == "unpadded"


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 2.0, 4.0, 8.0],
    "original_max_position_embeddings": 20,
}


@torch.no_grad()
@pytest.mark.parametrize("layout", RowLayout)
def test_rows_within_the_original_context_are_not_read_with_longer_ones(layout: RowLayout) -> None:
    model = small("phi3", rope_parameters=LONGROPE, original_max_position_embeddings=20)
    assert layout_of(model) == Layout(rows=RowLayout.UNPADDED, boundary=20)
    keep_layout(model, Layout(rows=layout, boundary=20))
    together = target_logps(model, lay_out(rows(model), CPU))
    alone = torch.cat([logps(model, row.ids) for row in rows(model)])
    assert largest_difference(together, alone) < 1e-4


# Answers


@pytest.mark.parametrize(("family", "settings"), [("gemma2", {"sliding_window": 16}), ("phi3", {})])
@pytest.mark.parametrize("batched", [True, False])
def test_answers_in_a_batch_are_those_of_each_prompt_alone(
    family: str, settings: dict[str, object], batched: bool, tiny: Base
) -> None:
    model = small(family, vocab_size=4096, **settings)
    keep_layout(model, Layout(rows=layout_of(model).rows, batched_prompts=batched))
    asked = [row.ids for row in rows(model, (30, 4, 21))]
    shapes: list[int] = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape[0]))
    together = sample(model, tiny.tokenizer, asked, max_new_tokens=5, seed=None)
    assert max(shapes) == (3 if batched else 1)
    alone = [sample(model, tiny.tokenizer, [ids], max_new_tokens=5, seed=None)[0] for ids in asked]
    assert together == alone


# Virtual tokens


@pytest.mark.parametrize("update", [Prompt(tokens=3), Prefix(tokens=3)], ids=lambda update: update.kind)
def test_virtual_tokens_need_rows_end_to_end(update: Update, tiny: Base) -> None:
    with pytest.raises(Infeasible, match="virtual tokens"):
        updates.apply(read_as(tiny.model, RowLayout.PADDED), update, 0)


def test_adapters_keep_the_layout(tiny: Base) -> None:
    applied = updates.apply(read_as(tiny.model, RowLayout.SINGLE), Lora(rank=2), 0)
    assert layout_of(applied.model).rows is RowLayout.SINGLE
    assert layout_of(applied.merge()).rows is RowLayout.SINGLE
