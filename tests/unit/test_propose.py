"""What is proposed next: baselines, priors, then designs near the good ones; the same for the same rows and seed."""

import math
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from luthier.design import Design
from luthier.errors import IllegalDesign
from luthier.task import DataKind, Pin
from luthier.trial import TrialState
from luthier.updates import Lora
from search.policy.history import Past
from search.policy.priors import baselines, priors
from search.policy.propose import origin, propose
from search.policy.sampler import PRIORS_FIRST
from search.space.learning_rate import default_learning_rate
from search.space.space import Space
from tests.unit.search_samples import SMOL, TINY, AtRandom, complete, space_of

SPACE = space_of()
ONE_METHOD = Pin(algorithm=("sft",), update=("lora",), placement=("all",), layers=(6,), kv_heads=(4,), batch_size=(8,))


def loss(design: Design) -> float:
    """A smooth valley: sft, LoRA and all of the model are best, at 1.5 times the default rate and a batch of 16."""
    if not design.stages:
        return 4.0
    (stage,) = design.stages
    rate = default_learning_rate(stage.algorithm.kind, stage.update.kind, TINY.facts.hidden_size)
    value = 2.0 + 0.15 * math.log(stage.optimiser.learning_rate / rate / 1.5) ** 2
    value += 0.0 if isinstance(stage.update, Lora) else 0.1
    value += 0.0 if design.recipe == "sft" else 0.2
    value += 0.03 * abs(math.log2(stage.optimiser.batch_size / 16))
    return (
        value + 0.1 * (6 - (design.architecture.layers or 6)) + 0.1 * math.log2(4 / (design.architecture.kv_heads or 4))
    )


@cache
def searched(trials: int, seed: int) -> tuple[Past, ...]:
    """A whole search of the usual space with one worker."""
    return tuple(run(SPACE, trials, seed))


def run(space: Space, trials: int, seed: int, value: Callable[[Design], float] = loss) -> list[Past]:
    """A whole search with one worker; shorter where the space is exhausted."""
    history: list[Past] = []
    while len(history) < trials and (design := propose(space, history, seed, trials)) is not None:
        history.append(complete(len(history), design, value(design)))
    return history


@pytest.mark.parametrize("kind", DataKind)
def test_the_baselines_come_first_and_then_a_few_priors(kind: DataKind) -> None:
    space = space_of(kind, models=(TINY, SMOL))
    expected = [*baselines(space), *priors(space)[:PRIORS_FIRST]]
    history = run(space, 24, seed=0, value=lambda design: len(design.canonical()))
    assert [past.design for past in history[: len(expected)]] == expected
    origins = [origin(space, past.design, ()) for past in history]
    assert origins[: len(expected)] == ["baseline"] * 2 + ["prior"] * PRIORS_FIRST
    assert "proposed" in origins


def test_a_missing_baseline_comes_before_all_else() -> None:
    untuned, plain = baselines(SPACE)
    history = [complete(7, priors(SPACE)[0], 1.0), complete(8, untuned, 2.0)]
    assert propose(SPACE, history, seed=0, trials=24) == plain


@pytest.mark.parametrize(("budget", "count"), [(2, 0), (3, 1), (5, 2), (9, 4), (24, 4)])
def test_the_first_priors_take_at_most_half_of_the_budget_after_the_baselines(budget: int, count: int) -> None:
    designs = [past.design for past in run(SPACE, budget, seed=3)][2:]
    first = priors(SPACE)[:count]
    assert designs[:count] == first
    assert designs[count : count + 1] != priors(SPACE)[count : count + 1] or budget == 24


@pytest.mark.parametrize("kind", DataKind)
def test_the_first_ten_trials_cover_programs_updates_and_rates(kind: DataKind) -> None:
    space = space_of(kind)
    first = [past.design for past in run(space, 24, seed=0, value=lambda _: 1.0)][1:10]
    assert len({design.recipe for design in first}) >= min(2, len(space.recipes))
    assert len({stage.update.kind for design in first for stage in design.stages}) >= 3
    assert len({design.stages[0].optimiser.learning_rate for design in first}) >= 5


def test_proposals_gather_where_the_loss_is_low() -> None:
    proposed, at_random = [], []
    for seed in range(5):
        last = run(SPACE, 30, seed)[-10:]
        proposed.append(statistics.mean(past.value for past in last if past.value is not None))
        at_random.append(statistics.mean(loss(SPACE.sample(AtRandom(100 * seed + i))) for i in range(10)))
    assert sum(own < other for own, other in zip(proposed, at_random, strict=True)) == 5
    assert statistics.mean(proposed) - 2 < 0.7 * (statistics.mean(at_random) - 2)


def test_the_same_rows_and_seed_give_the_same_proposal_in_any_order() -> None:
    history = [*searched(16, seed=5)]
    expected = propose(SPACE, history, seed=5, trials=16)
    for shuffle in range(4):
        rows = random.Random(shuffle).sample(history, len(history))
        assert propose(SPACE, rows, seed=5, trials=16) == expected


def test_another_seed_or_another_row_gives_another_proposal() -> None:
    history = [*searched(16, seed=5)]
    by_seed = [propose(SPACE, history, seed=seed, trials=16) for seed in range(6)]
    assert len(set(by_seed)) >= 3
    lost = [Past(number=16, design=baselines(SPACE)[0], state=TrialState.CANCELLED)]  # teaches nothing, but counts
    by_row = [propose(SPACE, [*history, *lost], seed=seed, trials=16) for seed in range(6)]
    assert sum(one != other for one, other in zip(by_seed, by_row, strict=True)) >= 3


@cache
def another_process(hash_seed: str) -> subprocess.CompletedProcess[str]:
    """Run a search of 14 trials elsewhere, where sets have another order, and print the digest of the next design."""
    ctx = Path(__file__).parent
    return subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            "from test_propose import SPACE, propose, run\n"
            "print(propose(SPACE, run(SPACE, 14, seed=5), seed=5, trials=14).digest())",
        ],
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join([str(ctx), str(ctx.parents[1])])},
        capture_output=True,
        text=True,
        check=True,
    )


def test_another_process_proposes_the_same() -> None:
    design = propose(SPACE, run(SPACE, 14, seed=5), seed=5, trials=14)
    assert design is not None
    assert another_process("1").stdout.strip() == another_process("2").stdout.strip() == design.digest()


def test_proposing_prints_no_logs_and_no_warnings() -> None:
    assert another_process("1").stderr == ""


@pytest.mark.parametrize("models", [1, 2])
def test_no_design_is_proposed_twice(models: int) -> None:
    history = run(space_of(models=(TINY, SMOL)[:models]), 40, seed=1, value=lambda design: len(design.summary()))
    assert len({past.design.digest() for past in history}) == 40


def test_a_small_space_is_searched_to_its_end() -> None:
    pin = ONE_METHOD.model_copy(update={"epochs": (1.0, 2.0), "learning_rate_multiplier": (1.0, 2.0)})
    space = space_of(pin=pin)
    history = run(space, 1000, seed=2)
    designs = {past.design for past in history}
    assert len(history) == len(designs) == 1 + 2 * 2 * 5  # the untuned model; two epochs, two rates, five ranks
    assert propose(space, history, seed=99, trials=1000) is None


def test_trials_that_failed_or_still_run_are_not_proposed_again_either() -> None:
    pin = ONE_METHOD.model_copy(update={"epochs": (1.0,), "learning_rate_multiplier": (1.0, 2.0)})
    space = space_of(pin=pin)
    history: list[Past] = []
    while (design := propose(space, history, seed=0, trials=24)) is not None:
        state = list(TrialState)[len(history) % len(TrialState)]
        value = 1.0 if state is TrialState.COMPLETE else None
        history.append(Past(number=len(history), design=design, state=state, value=value))
    assert len(history) == len({past.design for past in history}) == 1 + 2 * 5


def test_pins_are_honoured_by_all_but_the_baselines() -> None:
    pin = Pin(update=("full", "dora"), layers=(4,), epochs=(2.0,), learning_rate_multiplier=(0.5, 1.0))
    space = space_of(pin=pin)
    history = run(space, 24, seed=0)
    for past in history[2:]:
        (stage,) = past.design.stages
        assert stage.update.kind in {"full", "dora"}
        assert past.design.architecture.layers == 4
        assert stage.optimiser.epochs == 2.0
        assert space.decode(space.encode(past.design)) == past.design
    with pytest.raises(IllegalDesign):
        space.encode(history[1].design)  # the default is plain LoRA even so


def test_workers_at_the_same_time_try_different_things() -> None:
    known = [*searched(16, seed=4)]
    together = list(known)
    for number in range(16, 24):
        design = propose(SPACE, together, seed=4, trials=60)
        assert design is not None
        together.append(Past(number=number, design=design, state=TrialState.LEASED))
    assert len({past.design.stages[0].update.kind for past in together[16:]}) >= 3
    assert len({past.design for past in together}) == 24


def test_waiting_trials_keep_others_away_like_running_ones() -> None:
    known = [*searched(16, seed=4)]
    designs = [SPACE.sample(AtRandom(seed)) for seed in range(6)]
    first, second = (
        propose(SPACE, [*known, *(Past(number=16 + i, design=d, state=state) for i, d in enumerate(designs))], 4, 60)
        for state in (TrialState.LEASED, TrialState.WAITING)
    )
    assert first == second


@pytest.mark.parametrize("state", [TrialState.INFEASIBLE, TrialState.CANCELLED])
def test_trials_without_a_score_teach_nothing(state: TrialState) -> None:
    known = [*searched(14, seed=0)]
    lost = SPACE.sample(AtRandom(0))
    failed, other = (
        propose(SPACE, [*known, Past(number=14, design=lost, state=reason)], seed=0, trials=14)
        for reason in (TrialState.FAILED, state)
    )
    assert failed == other


def test_trials_outside_the_space_are_kept_from_the_sampler() -> None:
    space = space_of(pin=Pin(update=("full",)))
    stranger = baselines(space)[1].model_copy(update={"architecture": SPACE.sample(AtRandom(3)).architecture})
    history = [*run(space, 16, seed=0), complete(16, stranger, 0.001)]
    design = propose(space, history, seed=0, trials=16)
    assert design is not None
    assert design.stages[0].update.kind == "full"
