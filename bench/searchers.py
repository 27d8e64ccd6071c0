"""The searches that are compared: Luthier's own, and what its users would run by hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, Literal

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from bench.atlas.past import remembered
from bench.atlas.table import Table
from luthier.design import Design
from search.policy import asha, scheduler
from search.policy.history import Past
from search.policy.priors import baselines, priors
from search.policy.scheduler import End, Plan, Promote, Try, next_step
from search.policy.warm_start import SimilarJob
from search.space.samplers import Enumeration, Sampled
from search.space.space import Space

Verdict = Literal["continue", "pause", "stop"]
ASKED: Final = 100  # questions to a sampler that repeats itself, before it has nothing new
TOLD: Final = 10**6  # so far apart are the numbers of trials that Optuna was told of and those that it made itself
RESOURCES: Final = (1, 3, 9)  # of the rungs and the end, for schedulers that count in whole numbers


class Everything:
    """All designs in random order, each trained to its end."""

    def __init__(self, table: Table, seed: int) -> None:
        self._left = list(table.curves)
        random.Random(seed).shuffle(self._left)
        self._table = table

    def next(self, history: Sequence[Past]) -> Try | None:
        return (
            Try(design=self._table.curves[self._left.pop()].design, origin="proposed", goal=None)
            if self._left
            else None
        )

    def verdict(self, history: Sequence[Past], number: int) -> Verdict:
        return "continue"

    def ended(self, past: Past) -> None:
        pass


class Tpe:
    """Optuna as its tutorials use it: TPE with its defaults, and one of its pruners. What it asks for a second time is
    answered from the first time, at no cost."""

    def __init__(self, table: Table, seed: int, pruner: BasePruner) -> None:
        self._space, self._table = table.task.space, table
        sampler = optuna.samplers.TPESampler(seed=seed)
        self._study = optuna.create_study(direction="minimize", sampler=sampler, pruner=pruner)
        self._trials: dict[int, optuna.Trial] = {}
        self._known: dict[str, Past] = {}

    def next(self, history: Sequence[Past]) -> Try | None:
        tried = {past.design.digest(): past for past in history}
        for _ in range(ASKED):
            trial = self._study.ask()
            design = self._space.sample(Sampled(trial))
            digest = design.digest()
            if digest in self._table.curves and digest not in tried:
                self._trials[len(history)] = trial
                return Try(design=design, origin="proposed", goal=None)
            self._tell_again(trial, tried.get(digest))
        return None

    def _tell_again(self, trial: optuna.Trial, past: Past | None) -> None:
        if past is not None and past.value is not None:
            self._study.tell(trial, past.value)
        elif past is not None and past.measured:
            for rung, (value, _) in enumerate(past.measured):
                trial.report(value, RESOURCES[rung])
            self._study.tell(trial, state=OptunaState.PRUNED)
        else:
            self._study.tell(trial, state=OptunaState.FAIL)

    def verdict(self, history: Sequence[Past], number: int) -> Verdict:
        trial, measured = self._trials[number], history[number].measured
        trial.report(measured[-1].value, RESOURCES[len(measured) - 1])
        if not trial.should_prune():
            return "continue"
        self._study.tell(trial, state=OptunaState.PRUNED)
        return "stop"

    def ended(self, past: Past) -> None:
        self._study.tell(self._trials[past.number], past.value)


class RayAsha:
    """Ray Tune's ASHA on random designs: its own scheduler decides at each rung. What it stops stays stopped."""

    def __init__(self, table: Table, seed: int) -> None:
        np.random.seed(seed)  # the scheduler draws from this generator
        self._designs = Everything(table, seed)
        self._scheduler: Any = AsyncHyperBandScheduler(
            time_attr="resource",
            max_t=RESOURCES[-1] + 1,
            grace_period=1,
            reduction_factor=3,
            metric="value",
            mode="min",
        )

    def next(self, history: Sequence[Past]) -> Try | None:
        step = self._designs.next(history)
        if step is not None:
            self._scheduler.on_trial_add(None, _ray(len(history)))
        return step

    def verdict(self, history: Sequence[Past], number: int) -> Verdict:
        measured = history[number].measured
        result = {"resource": RESOURCES[len(measured) - 1], "value": measured[-1].value}
        said = self._scheduler.on_trial_result(None, _ray(number), result)
        return "stop" if said == TrialScheduler.STOP else "continue"

    def ended(self, past: Past) -> None:
        result = {"resource": RESOURCES[-1], "value": past.value}
        self._scheduler.on_trial_result(None, _ray(past.number), result)


class Permanent:
    """The baseline that every sampler has to beat: priors, then random designs, and halving that promotes."""

    def __init__(self, table: Table, seed: int, trials: int) -> None:
        self._table, self._space = table, table.task.space
        self._given = [*baselines(self._space), *priors(self._space)[: (trials - 1) // 2]]
        anything = _shuffled(self._space, random.Random(seed))
        self._coming = [design for design in (*self._given, *anything) if known(table, design)]

    def next(self, history: Sequence[Past]) -> Try | Promote | None:
        if (past := asha.promotable(history)) is not None:
            assert past.goal is not None
            return Promote(number=past.number, goal=asha.above(past.goal))
        tried = {past.design.digest() for past in history}
        while self._coming:
            design = self._coming.pop(0)
            if design.digest() not in tried:
                return Try(
                    design=design,
                    origin="proposed",
                    goal=asha.FIRST if len(history) > 1 else None,
                )
        return None

    def verdict(self, history: Sequence[Past], number: int) -> Verdict:
        return _halved(history, number)

    def ended(self, past: Past) -> None:
        pass


class PermanentTpe(Permanent):
    """The baseline with Optuna's multivariate TPE in the place of chance. All that was scored is told as complete, with
    its place in the order of all: paused trials that are left running, or told pruned, would repel the sampler."""

    def __init__(self, table: Table, seed: int, trials: int) -> None:
        super().__init__(table, seed, trials)
        self._coming = [design for design in self._coming if design in self._given]
        self._told = _Told()
        sampler = optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)
        self._study = optuna.create_study(direction="minimize", sampler=sampler, storage=self._told)
        self._frozen: dict[int, FrozenTrial] = {}  # by the trial's number in the search

    def next(self, history: Sequence[Past]) -> Try | Promote | None:
        step = super().next(history)
        if step is not None:
            return step
        self._tell(history)
        tried = {past.design.digest() for past in history}
        asked: list[optuna.Trial] = []
        try:
            for _ in range(ASKED):
                asked.append(self._study.ask())
                design = self._space.sample(Sampled(asked[-1]))
                if design.digest() not in tried and known(self._table, design):
                    return Try(design=design, origin="proposed", goal=asha.FIRST)
            return None
        finally:
            for trial in asked:  # what comes of it is told by its place
                self._study.tell(trial, state=OptunaState.FAIL)

    def _tell(self, history: Sequence[Past]) -> None:
        scored = [past for past in asha.overall_ranking(history) if past.design.stages]
        waiting = [past for past in history if past.open and not past.measured and past.design.stages]
        self._told.told = []
        for place, past in enumerate([*scored, *waiting]):
            if past.number not in self._frozen:
                self._frozen[past.number] = self._as_told(past)
            frozen, done = self._frozen[past.number], place < len(scored)
            frozen.state = OptunaState.COMPLETE if done else OptunaState.RUNNING
            frozen.values = [float(place)] if done else None
            self._told.told.append(frozen)

    def _as_told(self, past: Past) -> FrozenTrial:
        replayed = self._space.encode(past.design), self._space.distributions(past.design)
        frozen = create_trial(value=0.0, params=replayed[0], distributions=replayed[1])
        frozen.number = TOLD + past.number
        return frozen


class _Told(InMemoryStorage):
    """Optuna's storage in memory, with finished trials beside those that were asked. They are replaced as a whole: the
    places of all change with each score, and to build a study anew for each question takes longer than to answer it."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[FrozenTrial] = []

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        told = [trial for trial in self.told if states is None or trial.state in states]
        return told + super().get_all_trials(study_id, deepcopy, states)


class Luthier:
    """`search.policy.scheduler.next_step`, as the service calls it. It starts cold: no other task has the same kind of
    data and the same objective."""

    def __init__(
        self,
        space: Space,
        seed: int,
        trials: int,
        similar_jobs: Sequence[SimilarJob] = (),
        *,
        early_finish: bool = False,
        budget: float | None = None,
    ) -> None:
        self._space, self._similar_jobs, self._budget = space, similar_jobs, budget
        self.seen: Sequence[Past] = ()
        self._plan = Plan(trials=trials, finalists=3, confirmations=0, seed=seed, early_finish=early_finish)

    def next(self, history: Sequence[Past]) -> Try | Promote | End | None:
        self.seen = list(history)
        step = next_step(
            self._space,
            history,
            self._plan,
            remaining=self._remaining(history),
            why_infeasible=lambda design: None,
            similar_jobs=self._similar_jobs,
        )
        assert step is None or isinstance(step, Try | Promote | End)
        return step

    def verdict(self, history: Sequence[Past], number: int) -> Verdict:
        goes_on = partial(scheduler.goes_on, remaining=self._remaining(history))
        return _halved(history, number, goes_on)

    def _remaining(self, history: Sequence[Past]) -> float | None:
        return None if self._budget is None else self._budget - sum(past.device_seconds for past in history)

    def ended(self, past: Past) -> None:
        pass


def known(table: Table, design: Design) -> bool:
    return not design.stages or design.digest() in table.curves


def _halved(
    history: Sequence[Past], number: int, goes_on: Callable[[Sequence[Past], int], bool] = asha.goes_on
) -> Verdict:
    past = history[number]
    if past.goal is None or len(past.measured) <= past.goal:
        return "continue"
    return "continue" if goes_on(history, number) else "pause"


def _shuffled(space: Space, draw: random.Random) -> list[Design]:
    answers = Enumeration(draw)
    found = [space.sample(answers)]
    while answers.advance():
        found.append(space.sample(answers))
    draw.shuffle(found)
    return found


def _ray(number: int) -> Any:
    """All that Ray's scheduler looks at of a trial."""
    return SimpleNamespace(trial_id=str(number))


Make = Callable[[Table, int], Any]

SEARCHERS: Final[dict[str, Make]] = {
    "Luthier": lambda table, seed: Luthier(table.task.space, seed, len(table.curves)),
    "Luthier, with a past job": lambda table, seed: Luthier(
        table.task.space, seed, len(table.curves), [remembered(table.task, seed)]
    ),
    "promotion + random + priors": lambda table, seed: Permanent(table, seed, len(table.curves)),
    "promotion + TPE + priors": lambda table, seed: PermanentTpe(table, seed, len(table.curves)),
    "random": Everything,
    "TPE + MedianPruner": lambda table, seed: Tpe(table, seed, MedianPruner()),
    "TPE + HyperbandPruner": lambda table, seed: Tpe(
        table, seed, HyperbandPruner(min_resource=1, max_resource=RESOURCES[-1], reduction_factor=3)
    ),
    "Ray Tune's ASHA": RayAsha,
}
