"""One stage of a trial: its order of rows, its learning rate, its steps. Trainers do not affect each other."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedModel, get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup

from luthier.algorithms import Algorithm, Clm, Dpo, Ipo, Kto, Orpo, Sft, Simpo
from luthier.design import Optimiser
from luthier.errors import TrialFailed
from luthier.task import DataKind
from luthier.trial import StageLength
from luthier.updates import AdaLora, Full, Lora, LoraPlus, Update
from tests import data_samples
from tests.covering import params
from tests.textbook import first_step, largest_difference, logps
from tests.textbook import target_logps as textbook_logps
from workers.cache import Base
from workers.train import stage_trainer, updates
from workers.train.algorithms import objective
from workers.train.average import EXPONENT
from workers.train.data.tokenize import Renderer, Tokens
from workers.train.stage_trainer import StageTrainer, StepReport, data_order, learning_rate

Example = tuple[Tokens, ...]
DATA = {
    "clm": (DataKind.TEXT, data_samples.text(10)),
    "sft": (DataKind.CHAT, data_samples.chat(10)),
    "kto": (DataKind.UNPAIRED, data_samples.unpaired(10)),
    **{kind: (DataKind.PREFERENCE, data_samples.preference(10)) for kind in ("dpo", "ipo", "simpo", "orpo")},
}
ALGORITHMS = [Clm(), Sft(), Dpo(beta=0.2), Ipo(beta=0.3), Simpo(beta=2.5, gamma=0.4), Orpo(beta=0.7), Kto(beta=0.4)]


def examples(algorithm: Algorithm, tiny: Base) -> list[Example]:
    kind, rows = DATA[algorithm.kind]
    render = Renderer(tiny.tokenizer, window=64, max_tokens=512)
    return [example for row in rows for example in objective(algorithm).examples(row, kind, render)]


def trainer(
    tiny: Base,
    algorithm: Algorithm,
    optimiser: Optimiser,
    *,
    update: Update | None = None,
    seed: int = 0,
    double: bool = False,
    learn_from: Sequence[Example] | None = None,
) -> StageTrainer:
    model = copy.deepcopy(tiny.model)
    made = StageTrainer(
        applied=updates.apply(model.double() if double else model, update or Full(), seed),
        objective=objective(algorithm),
        examples=examples(algorithm, tiny) if learn_from is None else learn_from,
        optimiser=optimiser,
        seed=seed,
    )
    made.keep_reference()
    return made


# The order of rows


@pytest.mark.parametrize(("rows", "epochs"), [(7, 1.0), (7, 3.0), (10, 2.5), (10, 0.3), (3, 0.01), (1, 4.0)])
def test_every_pass_sees_every_row_once_and_the_last_one_is_cut(rows: int, epochs: float) -> None:
    order = data_order(rows, epochs, seed=5)
    assert len(order) == max(1, round(rows * epochs))
    for start in range(0, len(order), rows):
        seen = order[start : start + rows]
        assert len(set(seen)) == len(seen)
        assert set(seen) <= set(range(rows))


def test_the_order_follows_from_the_seed_and_differs_between_passes_and_seeds() -> None:
    order = data_order(50, 2.0, seed=1)
    assert order == data_order(50, 2.0, seed=1)
    assert order[:50] != order[50:]
    assert order != data_order(50, 2.0, seed=2)


def test_a_longer_training_begins_as_the_shorter_one() -> None:
    assert data_order(50, 3.0, seed=1)[:70] == data_order(50, 1.4, seed=1)


# The learning rate


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.1, 0.5])
@pytest.mark.parametrize("total", [1, 7, 40, 100])
def test_the_learning_rate_is_transformers_cosine_schedule_with_warmup(total: int, warmup: float) -> None:
    recipe = Optimiser(learning_rate=3e-4, warmup=warmup)
    adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=recipe.learning_rate)
    schedule = get_cosine_schedule_with_warmup(adamw, int(warmup * total), total)
    for step in range(total):
        rate = learning_rate(recipe, step, total, per_epoch=5)
        assert rate == pytest.approx(schedule.get_last_lr()[0], rel=1e-12, abs=1e-18)
        adamw.step()
        schedule.step()


@pytest.mark.parametrize("per_epoch", [1, 7, 40])
def test_a_constant_rate_is_transformers_schedule_with_a_warmup_within_the_first_epoch(per_epoch: int) -> None:
    recipe = Optimiser(learning_rate=3e-4, warmup=0.3, schedule="constant")
    adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=recipe.learning_rate)
    schedule = get_constant_schedule_with_warmup(adamw, int(0.3 * per_epoch))
    for step in range(60):
        assert learning_rate(recipe, step, 60, per_epoch) == pytest.approx(schedule.get_last_lr()[0], rel=1e-12)
        adamw.step()
        schedule.step()


# Averaged weights


def test_the_average_weighs_the_steps_by_a_power_of_their_number(tiny: Base) -> None:
    """The recursion is the closed form of Karras et al. (2024): weights in proportion to t^(γ+1) - (t-1)^(γ+1)."""
    recipe = Optimiser(learning_rate=1e-3, batch_size=2, epochs=2.0, schedule="constant")
    trained = trainer(tiny, Sft(), recipe, double=True)
    name = next(iter(trained.parameters))
    seen = []
    while not trained.done:
        trained.advance()
        seen.append(trained.parameters[name].detach().clone())
    powers = [step ** (EXPONENT + 1) for step in range(len(seen) + 1)]
    expected = sum((powers[i + 1] - powers[i]) * weights for i, weights in enumerate(seen)) / powers[-1]
    with trained.result():
        assert largest_difference(trained.parameters[name], expected) < 1e-12
    assert torch.equal(trained.parameters[name], seen[-1]), "training goes on from the weights themselves"
    trained.finish()
    assert largest_difference(trained.parameters[name], expected) < 1e-12
    width = math.sqrt((EXPONENT + 1) / (EXPONENT + 3)) / (EXPONENT + 2)
    assert 1 / width == pytest.approx(6, rel=0.02)


@pytest.mark.parametrize("update", [Full(), Lora(rank=4), AdaLora(rank=2)], ids=lambda update: update.kind)
def test_a_constant_rate_has_the_result_of_each_shorter_training_on_its_way(update: Update, tiny: Base) -> None:
    recipe = Optimiser(learning_rate=2e-3, batch_size=2, epochs=1.4, warmup=0.2, schedule="constant")
    short = trainer(tiny, Sft(), recipe, update=update)
    while not short.done:
        short.advance()
    short.finish()
    long = trainer(tiny, Sft(), recipe.model_copy(update={"epochs": 3.0}), update=update)
    while long.step < short.steps:
        long.advance()
    with long.result():
        for name, parameter in long.parameters.items():
            assert torch.equal(parameter, short.parameters[name]), name
    assert not long.done


def test_a_stage_ends_with_the_weights_of_its_best_moment_and_says_how_long_it_was(tiny: Base) -> None:
    recipe = Optimiser(learning_rate=2e-3, batch_size=2, epochs=2.0, schedule="constant")
    trained = trainer(tiny, Sft(), recipe)
    for _ in range(3):
        trained.advance()
    trained.keep_best()
    with trained.result():
        best = {name: parameter.detach().clone() for name, parameter in trained.parameters.items()}
    for _ in range(2):
        trained.advance()
    trained.stop("budget")
    assert trained.done
    assert trained.finish() == StageLength(steps=3, epochs=6 / len(trained.examples), trained=5, ended="budget")
    assert all(torch.equal(parameter, best[name]) for name, parameter in trained.parameters.items())


def test_a_stage_that_is_best_at_its_last_step_has_the_epochs_of_its_design(tiny: Base) -> None:
    for schedule in ("constant", "cosine"):
        trained = trainer(tiny, Sft(), Optimiser(learning_rate=1e-3, batch_size=4, epochs=1.1, schedule=schedule))
        while not trained.done:
            trained.advance()
        if schedule == "constant":
            trained.keep_best()
        assert trained.finish() == StageLength(steps=trained.steps, epochs=1.1, trained=trained.steps, ended="limit")


def test_a_cosine_schedule_ends_with_its_last_weights(tiny: Base) -> None:
    trained = trainer(tiny, Sft(), Optimiser(learning_rate=1e-3, batch_size=4))
    while not trained.done:
        trained.advance()
    last = {name: parameter.detach().clone() for name, parameter in trained.parameters.items()}
    with trained.result():
        assert all(torch.equal(parameter, last[name]) for name, parameter in trained.parameters.items())
    trained.finish()
    assert all(torch.equal(parameter, last[name]) for name, parameter in trained.parameters.items())


# Steps


def textbook_loss(algorithm: Algorithm, trained: StageTrainer, batch: Sequence[Example]) -> torch.Tensor:
    """The papers' formulas over plain forwards, one sequence at a time."""
    model = trained.applied.model
    scores = [[textbook_logps(model, tokens) for tokens in example] for example in batch]
    references = None if trained.reference is None else [trained.reference[trained.examples.index(e)] for e in batch]
    match algorithm:
        case Clm() | Sft():
            return -torch.cat([logp for example in scores for logp in example]).mean()
        case Dpo(beta=beta):
            assert references is not None
            margins = [
                (chosen.sum() - chosen_ref) - (rejected.sum() - rejected_ref)
                for (chosen, rejected), (chosen_ref, rejected_ref) in zip(scores, references, strict=True)
            ]
            return -torch.stack([(beta * margin).sigmoid().log() for margin in margins]).mean()
        case Ipo(beta=tau):
            assert references is not None
            ratios = [
                (chosen.sum() - chosen_ref) / len(chosen) - (rejected.sum() - rejected_ref) / len(rejected)
                for (chosen, rejected), (chosen_ref, rejected_ref) in zip(scores, references, strict=True)
            ]
            return torch.stack([(ratio - 1 / (2 * tau)) ** 2 for ratio in ratios]).mean()
        case Simpo(beta=beta, gamma=gamma):
            rewards = [(beta * chosen.mean(), beta * rejected.mean()) for chosen, rejected in scores]
            return -torch.stack([(winner - loser - gamma).sigmoid().log() for winner, loser in rewards]).mean()
        case Orpo(beta=weight):
            whole = [logps(model, chosen.ids) for _, chosen, _ in batch]  # prompt and answer
            odds = [
                [p / (1 - p) for p in (chosen.mean().exp(), rejected.mean().exp())] for _, chosen, rejected in scores
            ]
            ratios = [(chosen / rejected).log() for chosen, rejected in odds]
            return -torch.cat(whole).mean() - weight * torch.stack([ratio.sigmoid().log() for ratio in ratios]).mean()
        case Kto(beta=beta, desirable_weight=weight):
            before = copy.deepcopy(model)
            before.load_state_dict(trained.first, strict=False)
            divergence = torch.stack([log_ratio(model, before, *pair) for pair in mismatched(batch)]).mean()
            gains = [
                beta
                * (log_ratio(model, before, tokens.ids, tokens.target.index(True)) - divergence.clamp(min=0).detach())
                for (tokens,) in batch
            ]
            losses = [
                weight * (1 - gain.sigmoid()) if tokens.desirable else 1 - (-gain).sigmoid()
                for gain, (tokens,) in zip(gains, batch, strict=True)
            ]
            return torch.stack(losses).mean()


def mismatched(batch: Sequence[Example]) -> list[tuple[tuple[int, ...], int]]:
    """Each prompt with the answer of the row before: the tokens, and where the answer starts."""
    starts = [tokens.target.index(True) for (tokens,) in batch]
    return [(batch[i][0].ids[: starts[i]] + batch[i - 1][0].ids[starts[i - 1] :], starts[i]) for i in range(len(batch))]


def log_ratio(model: PreTrainedModel, before: PreTrainedModel, ids: tuple[int, ...], start: int) -> torch.Tensor:
    return (logps(model, ids) - logps(before, ids).detach())[start - 1 :].sum()


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.kind)
def test_steps_are_those_of_a_textbook_loop_in_double_precision(algorithm: Algorithm, tiny: Base) -> None:
    """Plain forwards, torch's clipping and AdamW, transformers' schedule and choice of what decays: the same curve and
    the same weights."""
    recipe = Optimiser(learning_rate=1e-3, batch_size=4, epochs=1.6, warmup=0.3, weight_decay=0.1)
    ours, theirs = (trainer(tiny, algorithm, recipe, double=True) for _ in range(2))
    parameters = list(theirs.parameters.values())
    norms = [parameter for name, parameter in theirs.parameters.items() if "norm" in name]
    others = [parameter for name, parameter in theirs.parameters.items() if "norm" not in name]
    adamw = torch.optim.AdamW(
        [{"params": others, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}], lr=recipe.learning_rate
    )
    schedule = get_cosine_schedule_with_warmup(adamw, int(0.3 * theirs.steps), theirs.steps)
    while not ours.done:
        chosen = theirs.order[ours.step * 4 : ours.step * 4 + 4]
        loss = textbook_loss(algorithm, theirs, [theirs.examples[i] for i in chosen])
        loss.backward()
        norm = clip_grad_norm_(parameters, 1.0)
        rate = schedule.get_last_lr()[0]
        adamw.step()
        schedule.step()
        adamw.zero_grad()
        values = ours.advance().values
        assert values["train_loss"] == pytest.approx(float(loss.detach()), rel=1e-8)
        assert values["grad_norm"] == pytest.approx(float(norm), rel=1e-6)
        assert values["learning_rate"] == pytest.approx(rate, rel=1e-12)
    assert ours.step == ours.steps == math.ceil(len(ours.order) / 4)
    for name, parameter in ours.parameters.items():
        assert largest_difference(parameter, theirs.parameters[name]) < 1e-5, name


Capped = tuple[Algorithm, int]
CAPPED: list[Capped] = [(algorithm, cap) for algorithm in ALGORITHMS for cap in (1, 60, 200)]


@pytest.mark.parametrize(
    "capped", params(CAPPED, lambda one: {one[0].kind, str(one[1])}, lambda one: f"{one[0].kind}-{one[1]}")
)
def test_accumulating_gradients_under_a_token_cap_changes_nothing(
    capped: Capped, tiny: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm, cap = capped

    def step() -> tuple[StepReport, dict[str, torch.Tensor]]:
        trained = trainer(tiny, algorithm, Optimiser(learning_rate=1e-3, batch_size=10), double=True)
        with torch.no_grad():
            trained.parameters["model.norm.weight"].mul_(1.1)  # away from the reference, where dpo's margin is zero
        return first_step(trained, monkeypatch)

    whole, whole_gradients = step()
    monkeypatch.setattr(stage_trainer, "TOKEN_CAP", {"cpu": cap})
    parts, part_gradients = step()
    assert parts.tokens == whole.tokens
    assert parts.values == pytest.approx(whole.values, rel=1e-8)
    assert part_gradients.keys() == whole_gradients.keys()
    for name, gradient in whole_gradients.items():
        assert largest_difference(part_gradients[name], gradient) < 1e-7 * float(gradient.abs().max()), name


def test_a_gradient_longer_than_one_is_clipped_to_one(tiny: Base) -> None:
    trained = trainer(tiny, Sft(), Optimiser(learning_rate=1e-3))
    lengths: list[float] = []

    def measure(*_: object) -> None:
        lengths.append(float(torch.stack([p.grad.norm() for p in trained.parameters.values()]).norm()))

    trained.adamw.register_step_pre_hook(measure)
    reported = trained.advance().values["grad_norm"]
    assert reported > 1.0
    assert lengths == pytest.approx([1.0], rel=1e-4)


def test_dpo_starts_at_the_logarithm_of_two_with_no_margin(tiny: Base) -> None:
    values = trainer(tiny, Dpo(), Optimiser(learning_rate=1e-3)).advance().values
    assert values["train_loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert values["reward_margin"] == pytest.approx(0.0, abs=1e-5)


def test_kto_starts_at_one_half_with_no_divergence(tiny: Base) -> None:
    values = trainer(tiny, Kto(), Optimiser(learning_rate=1e-3)).advance().values
    assert values["train_loss"] == pytest.approx(0.5, rel=1e-5)
    assert values["kl"] == pytest.approx(0.0, abs=1e-5)


def test_kto_makes_of_a_pair_a_desirable_and_an_undesirable_row(tiny: Base) -> None:
    render = Renderer(tiny.tokenizer, window=64, max_tokens=512)
    [row] = data_samples.preference(1)
    (wanted,), (unwanted,) = objective(Kto()).examples(row, DataKind.PREFERENCE, render)
    rows = [{"prompt": row["prompt"], "completion": row[c], "label": c == "chosen"} for c in ("chosen", "rejected")]
    assert [(wanted,), (unwanted,)] == [
        e for r in rows for e in objective(Kto()).examples(r, DataKind.UNPAIRED, render)
    ]
    assert (wanted.desirable, unwanted.desirable) == (True, False)


def test_kto_never_asks_for_more_positions_than_the_model_has(tiny: Base) -> None:
    trained = trainer(tiny, Kto(), Optimiser(learning_rate=1e-3, batch_size=10))
    longest = max(len(tokens) for (tokens,) in trained.examples)
    scored: list[int] = []
    trained.model.config.max_position_embeddings = longest
    trained.model.register_forward_pre_hook(
        lambda _, args, kwargs: scored.append(int(kwargs["position_ids"].max()) + 1), with_kwargs=True
    )
    trained.advance()
    assert max(scored) == longest


@torch.no_grad()
def test_the_reference_of_dpo_are_the_answers_likelihoods_at_the_start(tiny: Base) -> None:
    trained = trainer(tiny, Dpo(), Optimiser(learning_rate=1e-3))
    assert trained.reference is not None
    expected = [[textbook_logps(tiny.model, tokens).sum() for tokens in example] for example in trained.examples]
    assert largest_difference(trained.reference, torch.tensor(expected)) < 1e-4


@pytest.mark.parametrize("steps_before", [0, 2])
def test_a_loss_that_is_not_finite_fails_the_trial_and_names_the_step(steps_before: int, tiny: Base) -> None:
    trained = trainer(tiny, Sft(), Optimiser(learning_rate=1e-3, batch_size=2))
    for _ in range(steps_before):
        trained.advance()
    with torch.no_grad():
        next(iter(trained.parameters.values()))[:] = torch.nan
    with pytest.raises(TrialFailed, match=f"nan.* step {steps_before + 1}$"):
        trained.advance()
    assert trained.step == steps_before


def test_lora_plus_takes_longer_steps_in_b_than_in_a(tiny: Base) -> None:
    """Adam's first steps are as long as the learning rate; A has no gradient while B is zero."""
    trained = trainer(tiny, Sft(), Optimiser(learning_rate=1e-4, warmup=0), update=LoraPlus(rank=2, ratio=8))
    before = {name: p.detach().clone() for name, p in trained.parameters.items()}

    def longest(half: str) -> float:
        return max(largest_difference(p, before[n]) for n, p in trained.parameters.items() if f".lora_{half}." in n)

    assert trained.advance().values["learning_rate"] == pytest.approx(1e-4)
    assert (longest("A"), longest("B")) == (0.0, pytest.approx(8e-4, rel=1e-2))
    second = trained.advance().values["learning_rate"]
    assert 0.5 * second < longest("A") < 2 * second


def test_a_stage_without_examples_fails_the_trial(tiny: Base) -> None:
    with pytest.raises(TrialFailed, match="max_length"):
        trainer(tiny, Sft(), Optimiser(learning_rate=1e-3), learn_from=[])


def test_tokens_are_those_that_went_through_the_model(tiny: Base) -> None:
    trained = trainer(tiny, Dpo(), Optimiser(learning_rate=1e-3, batch_size=3))
    seen = sum(len(tokens) for i in trained.order[:3] for tokens in trained.examples[i])
    assert trained.advance().tokens == seen


def test_training_leaves_torchs_own_random_numbers_alone(tiny: Base) -> None:
    before = torch.random.get_rng_state()
    trainer(tiny, Sft(), Optimiser(learning_rate=1e-3), update=Lora(rank=2)).advance()
    assert torch.equal(torch.random.get_rng_state(), before)


# Several trainers in one process


def test_trainers_that_take_turns_train_bit_for_bit_as_they_do_alone(tiny: Base) -> None:
    recipes = [(Sft(), Full(), 3e-4, 4), (Dpo(), Lora(rank=2), 1e-3, 5), (Clm(), Full(), 1e-3, 2)]

    def trainers() -> list[StageTrainer]:
        return [
            trainer(tiny, algorithm, Optimiser(learning_rate=rate, batch_size=batch), update=update, seed=i)
            for i, (algorithm, update, rate, batch) in enumerate(recipes)
        ]

    def curves(trainers: Sequence[StageTrainer]) -> list[list[StepReport]]:
        reports: list[list[StepReport]] = [[] for _ in trainers]
        while not all(one.done for one in trainers):
            for one, curve in zip(trainers, reports, strict=True):
                if not one.done:
                    curve.append(one.advance())
        return reports

    together, alone = trainers(), trainers()
    assert curves(together) == [curve for one in alone for curve in curves([one])]
    for ours, theirs in zip(together, alone, strict=True):
        assert all(torch.equal(p, theirs.parameters[name]) for name, p in ours.parameters.items())
