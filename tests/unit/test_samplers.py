"""What any sampler of a job must do, and how `search.sampler` names one."""

import math
import random
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import pytest

from luthier.design import Design
from luthier.errors import UserError
from luthier.settings import Settings
from luthier.task import DataKind, Pin, Search
from luthier.trial import TrialState
from search.policy.choose_sampler import SAMPLERS, check_sampler
from search.policy.history import Past
from search.policy.priors import baselines, priors
from search.policy.propose import propose
from search.policy.sampler import LuthierSampler
from search.policy.study import told
from search.policy.widen import widened
from search.space.samplers import Sampled
from tests.doc_blocks import blocks
from tests.unit.search_samples import SMOL, TINY, complete, scored, space_of

OTHER = "optuna.samplers:TPESampler"  # by import path
NAMES = [*SAMPLERS, OTHER]
PINNED = space_of(DataKind.PREFERENCE, Pin(update=("full", "dora"), layers=(4, 6), epochs=(2.0,)), models=(TINY, SMOL))
FEW = Pin(
    algorithm=("sft",), update=("lora",), placement=("all",), layers=(6,), kv_heads=(4,), batch_size=(8,),
    rank=(4, 8, 16, 32, 64), epochs=(1.0,), learning_rate_multiplier=(1.0, 2.0),
)  # fmt: skip


@cache
def eventful() -> tuple[Past, ...]:
    """Trials of every fate: complete, stopped at either rung, failed, infeasible, cancelled, waiting and running."""
    designs = [*baselines(PINNED), *priors(PINNED)]
    rows = [complete(0, designs[0], 9.0), complete(1, designs[1], 3.0)]
    for number, design in enumerate(designs[2:], 2):
        state = list(TrialState)[number % len(TrialState)]
        measured = scored(*(2.0 + number / 10, 1.8 + number / 10)[: number % 3])
        value = 1.5 + number / 10 if state is TrialState.COMPLETE else None
        rows.append(Past(number=number, design=design, state=state, value=value, measured=measured))
    rows.append(rows[1].model_copy(update={"number": len(rows), "confirms": 1}))
    return tuple(rows)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_rows_and_seed_give_the_same_proposal_in_any_order(name: str) -> None:
    history = [*eventful()]
    expected = propose(PINNED, history, 3, 24, sampler=name)
    assert expected is not None
    for shuffle in range(2):
        rows = random.Random(shuffle).sample(history, len(history))
        assert propose(PINNED, rows, 3, 24, sampler=name) == expected
    assert any(propose(PINNED, history, seed, 24, sampler=name) != expected for seed in range(4, 9))


@pytest.mark.parametrize("name", NAMES)
def test_proposals_stay_in_the_space_and_are_new(name: str) -> None:
    history = [*eventful()]
    for _ in range(6):
        design = propose(PINNED, history, 1, 24, sampler=name)
        assert design is not None
        assert design.digest() not in {past.design.digest() for past in history}
        wide = widened(PINNED, history)
        assert wide.decode(wide.encode(design)) == design
        assert design.stages[0].update.kind in {"full", "dora"}
        assert design.stages[0].optimiser.epochs == 2.0
        history.append(complete(len(history), design, 2.0 + len(history) / 100))


@pytest.mark.parametrize("name", NAMES)
def test_no_design_is_repeated_while_others_are_left(name: str) -> None:
    space, history = space_of(pin=FEW), []
    while (design := propose(space, history, 0, 24, sampler=name)) is not None:
        history.append(complete(len(history), design, 2.0 - len(history) / 100))
    assert len(history) == len({past.design for past in history}) == 1 + 2 * 5  # the untuned model; rates and ranks


def test_trials_of_a_job_become_trials_of_a_study() -> None:
    history = eventful()
    trials = told(PINNED, history)
    assert len(trials) == len(history)
    for past, trial in zip(history, trials, strict=True):
        scored_once = past.confirms is None and bool(past.design.stages) and (past.measured or past.value is not None)
        inside = past.number > 1  # the plain default ignores the pins
        assert (trial.state is optuna.trial.TrialState.COMPLETE) == (bool(scored_once) and inside)
        assert bool(trial.params) == (inside and past.confirms is None)


def test_a_score_outside_of_the_space_is_shown_to_luthiers_sampler_only() -> None:
    history = eventful()
    outside = told(PINNED, history)[1]
    assert (outside.params, outside.value) == ({}, None)
    better = [past.model_copy(update={"value": 0.1}) if past.number == 1 else past for past in history]
    changed = {
        name: sum(
            propose(PINNED, history, s, 24, sampler=name) != propose(PINNED, better, s, 24, sampler=name)
            for s in range(4)
        )
        for name in ("luthier", "random")
    }
    assert changed["luthier"] > 0
    assert changed["random"] == 0


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("annealing", ()),
        (OTHER, ()),
        ("os:system", ()),
        ("os:system", ("os:system",)),
        ("optuna.samplers:Missing", ("optuna.samplers:Missing",)),
        ("no.such.module:Sampler", ("no.such.module:Sampler",)),
        ("nonsense", ("nonsense",)),
    ],
)
def test_other_samplers_are_refused_unless_the_operator_allows_them(name: str, allowed: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        check_sampler(name, allowed)
    assert caught.value.param == "search.sampler"


def test_samplers_that_are_named_or_allowed_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SAMPLERS:
        check_sampler(name)
    assert Settings().samplers == ()
    monkeypatch.setenv("LUTHIER_SAMPLERS", f"{OTHER}, my.package:Sampler")
    assert Settings().samplers == (OTHER, "my.package:Sampler")
    check_sampler(OTHER, Settings().samplers)


def test_a_search_of_before_keeps_its_text() -> None:
    assert "sampler" not in Search().model_dump()
    assert Search.model_validate({"trials": 5}).sampler == "luthier"
    assert Search(sampler="tpe").model_dump()["sampler"] == "tpe"


class TestPlainOptuna:
    """`LuthierSampler` in a study of its user's own."""

    space = space_of(pin=Pin(algorithm=("sft",)))

    def loss(self, design: Design) -> float:
        stage = design.stages[0]
        return abs(math.log(stage.optimiser.learning_rate / 2e-3)) + (stage.update.kind != "full")

    def study(self, direction: str = "minimize", seed: int = 0, trials: int = 20) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sign = 1 if direction == "minimize" else -1

        def objective(trial: optuna.Trial) -> float:
            design = self.space.sample(Sampled(trial))
            trial.report(sign * (self.loss(design) + 1), 1)
            if trial.number % 5 == 4:
                raise optuna.TrialPruned
            if trial.number % 7 == 6:
                raise ValueError
            return sign * self.loss(design)

        study = optuna.create_study(sampler=LuthierSampler(self.space, seed), direction=direction)
        study.optimize(objective, n_trials=trials, catch=ValueError)
        return study

    def test_it_starts_with_the_priors_and_improves_on_them(self) -> None:
        study = self.study()
        designs = [self.space.decode(trial.params) for trial in study.trials]
        assert designs[:4] == priors(self.space)[:4]
        assert len(set(designs)) == 20
        assert study.best_value < min(map(self.loss, designs[:4])) / 2

    @pytest.mark.parametrize("direction", ["minimize", "maximize"])
    def test_the_same_study_and_seed_give_the_same_designs_in_either_direction(self, direction: str) -> None:
        one, other = self.study(), self.study(direction)
        assert [trial.params for trial in one.trials] == [trial.params for trial in other.trials]
        assert [trial.params for trial in self.study(seed=1).trials] != [trial.params for trial in one.trials]

    def test_a_loaded_study_goes_on_as_one_that_was_not_interrupted(self) -> None:
        whole, begun = self.study(trials=12), self.study(trials=11)
        loaded = optuna.create_study(sampler=LuthierSampler(self.space))
        loaded.add_trials(begun.trials)
        assert self.space.sample(Sampled(loaded.ask())) == self.space.decode(whole.trials[11].params)

    def test_parameters_that_are_not_axes_are_drawn(self) -> None:
        study = optuna.create_study(sampler=LuthierSampler(self.space))
        drawn = {study.ask().suggest_float("dropout", 0.0, 0.5) for _ in range(3)}
        assert len(drawn) == 3


def test_the_example_of_the_manual_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "optuna.md").read_text("utf-8")
    (example,) = [block.text for block in blocks(page) if block.language == "python"]
    names: dict[str, Any] = {}
    exec(compile(example, "optuna.md", "exec"), names)
    best = names["study"].best_trial
    assert best.value < 0.5
    assert names["space"].decode(best.params).stages[0].update.kind == "full"
