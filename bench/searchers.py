"""The searches that are compared: Luthier's own, and what its users would run by hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Final, Literal

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner
from optuna.trial import TrialState as OptunaState
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from bench.atlas.table import Table
from luthier.design import Design
from luthier.trial import RUNGS
from search import halving
from search.history import Past
from search.plan import End, Plan, Promote, Try, next_step
from search.priors import baselines, priors
from search.space import Space
from search.suggest import Enumeration, Sampled

Verdict = Literal["continue", "pause", "stop"]
SCORES: Final = len(RUNGS) + 1
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
        for _ in range(100):
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
        trial.report(measured[-1][0], RESOURCES[len(measured) - 1])
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
        result = {"resource": RESOURCES[len(measured) - 1], "value": measured[-1][0]}
        said = self._scheduler.on_trial_result(None, _ray(number), result)
        return "stop" if said == TrialScheduler.STOP else "continue"

    def ended(self, past: Past) -> None:
        result = {"resource": RESOURCES[-1], "value": past.value}
        self._scheduler.on_trial_result(None, _ray(past.number), result)


class Permanent:
    """The baseline that every sampler has to beat: priors, then random designs, and halving that promotes."""

    def __init__(self, table: Table, seed: int, trials: int) -> None:
        self._table = table
        space, draw = table.task.space, random.Random(seed)
        given = [*baselines(space), *priors(space)[: (trials - 1) // 2]]
        self._coming = [design for design in (*given, *_shuffled(space, draw)) if known(table, design)]

    def next(self, history: Sequence[Past]) -> Try | Promote | None:
        if (past := halving.promotable(history)) is not None:
            assert past.goal is not None
            return Promote(number=past.number, goal=halving.above(past.goal))
        tried = {past.design.digest() for past in history}
        while self._coming:
            design = self._coming.pop(0)
            if design.digest() not in tried:
                return Try(design=design, origin="proposed", goal=0 if len(history) > 1 else None)
        return None

    def verdict(self, history: Sequence[Past], number: int) -> Verdict:
        return _halved(history, number)

    def ended(self, past: Past) -> None:
        pass


class Luthier:
    """`search.plan.next_step`, as the service calls it."""

    def __init__(self, table: Table, seed: int, trials: int) -> None:
        self._table, self._space = table, table.task.space
        self._plan = Plan(trials=trials, finalists=3, confirmations=0, seed=seed)

    def next(self, history: Sequence[Past]) -> Try | Promote | End | None:
        step = next_step(self._space, history, self._plan, remaining=None, refusal=lambda design: None)
        assert step is None or isinstance(step, Try | Promote | End)
        return step

    def verdict(self, history: Sequence[Past], number: int) -> Verdict:
        return _halved(history, number)

    def ended(self, past: Past) -> None:
        pass


def known(table: Table, design: Design) -> bool:
    return not design.stages or design.digest() in table.curves


def _halved(history: Sequence[Past], number: int) -> Verdict:
    past = history[number]
    if past.goal is None or len(past.measured) <= past.goal:
        return "continue"
    return "continue" if halving.goes_on(history, number) else "pause"


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
    "Luthier": lambda table, seed: Luthier(table, seed, 60),
    "promotion + random + priors": lambda table, seed: Permanent(table, seed, 60),
    "random": Everything,
    "TPE + MedianPruner": lambda table, seed: Tpe(table, seed, MedianPruner()),
    "TPE + HyperbandPruner": lambda table, seed: Tpe(
        table, seed, HyperbandPruner(min_resource=1, max_resource=RESOURCES[-1], reduction_factor=3)
    ),
    "Ray Tune's ASHA": RayAsha,
}
