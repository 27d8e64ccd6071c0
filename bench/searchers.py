"""The search algorithms of the comparison: Luthier's own, and the alternatives that users would run themselves."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from bench.atlas.past import past_job
from bench.atlas.table import Table
from bench.replay import Decision
from luthier.design import Design
from search.policy import asha, scheduler
from search.policy.choose_sampler import LUTHIER
from search.policy.history import Past
from search.policy.priors import baselines, priors
from search.policy.scheduler import End, MarkInfeasible, Plan, Promote, Try, next_step
from search.policy.warm_start import SimilarJob
from search.space.samplers import Enumeration, Sampled
from search.space.space import Space

MAX_ASKS: Final = 100  # how often a sampler may repeat known designs before it counts as exhausted
ADDED: Final = 10**6  # offset of the numbers of added trials, so that they differ from those of asked trials
RESOURCES: Final = (1, 3, 9)  # integer resource at each rung and at the end, for pruners and schedulers


class RandomSearch:
    """All designs in random order, each trained to the end."""

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

    def at_rung(self, history: Sequence[Past], number: int) -> Decision:
        return "continue"

    def completed(self, past: Past) -> None:
        pass


class Tpe:
    """Optuna as in its tutorials: TPE with its defaults and a pruner. Repeated designs cost nothing."""

    def __init__(self, table: Table, seed: int, pruner: BasePruner) -> None:
        self._space, self._table = table.task.space, table
        sampler = optuna.samplers.TPESampler(seed=seed)
        self._study = optuna.create_study(direction="minimize", sampler=sampler, pruner=pruner)
        self._trials: dict[int, optuna.Trial] = {}

    def next(self, history: Sequence[Past]) -> Try | None:
        tried = {past.design.digest(): past for past in history}
        for _ in range(MAX_ASKS):
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

    def at_rung(self, history: Sequence[Past], number: int) -> Decision:
        trial, measured = self._trials[number], history[number].measured
        trial.report(measured[-1].value, RESOURCES[len(measured) - 1])
        if not trial.should_prune():
            return "continue"
        self._study.tell(trial, state=OptunaState.PRUNED)
        return "stop"

    def completed(self, past: Past) -> None:
        self._study.tell(self._trials[past.number], past.value)


class RayAsha:
    """Ray Tune's ASHA on random designs. Its scheduler decides at each rung; stopped trials never resume."""

    def __init__(self, table: Table, seed: int) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler  # in the extra `bench`

        np.random.seed(seed)  # the scheduler draws from this generator
        self._stop = TrialScheduler.STOP
        self._designs = RandomSearch(table, seed)
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

    def at_rung(self, history: Sequence[Past], number: int) -> Decision:
        measured = history[number].measured
        result = {"resource": RESOURCES[len(measured) - 1], "value": measured[-1].value}
        decision = self._scheduler.on_trial_result(None, _ray(number), result)
        return "stop" if decision == self._stop else "continue"

    def completed(self, past: Past) -> None:
        result = {"resource": RESOURCES[-1], "value": past.value}
        self._scheduler.on_trial_result(None, _ray(past.number), result)


class AshaRandom:
    """The baseline for samplers: priors, then random designs, with Luthier's ASHA (promotion)."""

    def __init__(self, table: Table, seed: int, trials: int) -> None:
        self._table, self._space = table, table.task.space
        self._given = [*baselines(self._space), *priors(self._space)[: (trials - 1) // 2]]
        anything = _shuffled(self._space, random.Random(seed))
        self._coming = [design for design in (*self._given, *anything) if known(table, design)]

    def next(self, history: Sequence[Past]) -> Try | Promote | None:
        if (past := asha.promotable(history)) is not None:
            assert past.goal is not None
            return Promote(number=past.number, goal=asha.above(past.design, past.goal))
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

    def at_rung(self, history: Sequence[Past], number: int) -> Decision:
        return _asha_decision(history, number)

    def completed(self, past: Past) -> None:
        pass


class AshaTpe(AshaRandom):
    """The baseline with Optuna's multivariate TPE in place of random designs.

    Optuna gets every scored trial as complete, with its overall rank as value. The state RUNNING or PRUNED for paused
    trials would push the sampler away from their region.
    """

    def __init__(self, table: Table, seed: int, trials: int) -> None:
        super().__init__(table, seed, trials)
        self._coming = [design for design in self._coming if design in self._given]
        self._storage = _Storage()
        sampler = optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)
        self._study = optuna.create_study(direction="minimize", sampler=sampler, storage=self._storage)
        self._frozen: dict[int, FrozenTrial] = {}  # by the number of the trial in the search

    def next(self, history: Sequence[Past]) -> Try | Promote | None:
        step = super().next(history)
        if step is not None:
            return step
        self._tell(history)
        tried = {past.design.digest() for past in history}
        asked: list[optuna.Trial] = []
        try:
            for _ in range(MAX_ASKS):
                asked.append(self._study.ask())
                design = self._space.sample(Sampled(asked[-1]))
                if design.digest() not in tried and known(self._table, design):
                    return Try(design=design, origin="proposed", goal=asha.FIRST)
            return None
        finally:
            for trial in asked:  # `_tell` adds its result later, as a trial of its own
                self._study.tell(trial, state=OptunaState.FAIL)

    def _tell(self, history: Sequence[Past]) -> None:
        scored = [past for past in asha.overall_ranking(history) if past.design.stages]
        waiting = [past for past in history if past.open and not past.measured and past.design.stages]
        self._storage.added = []
        for rank, past in enumerate([*scored, *waiting]):
            if past.number not in self._frozen:
                self._frozen[past.number] = self._added_trial(past)
            frozen, done = self._frozen[past.number], rank < len(scored)
            frozen.state = OptunaState.COMPLETE if done else OptunaState.RUNNING
            frozen.values = [float(rank)] if done else None
            self._storage.added.append(frozen)

    def _added_trial(self, past: Past) -> FrozenTrial:
        replayed = self._space.encode(past.design), self._space.distributions(past.design)
        frozen = create_trial(value=0.0, params=replayed[0], distributions=replayed[1])
        frozen.number = ADDED + past.number
        return frozen


class _Storage(InMemoryStorage):
    """Optuna's in-memory storage with a list of added trials besides the asked ones.

    The list is replaced as a whole, because all ranks change with each score. Building a new study for each proposal
    would take longer than the proposal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.added: list[FrozenTrial] = []

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        added = [trial for trial in self.added if states is None or trial.state in states]
        return added + super().get_all_trials(study_id, deepcopy, states)


class Luthier:
    """`search.policy.scheduler.next_step`, as the service calls it. Without `similar_jobs` there is no warm start.

    Designs that are not `recorded` are refused before they start, and cost nothing.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        trials: int,
        similar_jobs: Sequence[SimilarJob] = (),
        *,
        early_finish: bool = False,
        budget: float | None = None,
        recorded: Callable[[Design], bool] = lambda design: True,
        sampler: str = LUTHIER,
    ) -> None:
        self._space, self._similar_jobs, self._budget, self._recorded = space, similar_jobs, budget, recorded
        self.seen: Sequence[Past] = ()
        self._plan = Plan(
            trials=trials, finalists=3, confirmations=0, seed=seed, early_finish=early_finish, sampler=sampler
        )

    def next(self, history: Sequence[Past]) -> Try | MarkInfeasible | Promote | End | None:
        self.seen = list(history)
        step = next_step(
            self._space,
            history,
            self._plan,
            remaining=self._remaining(history),
            why_infeasible=lambda design: None if self._recorded(design) else "it is not recorded",
            similar_jobs=self._similar_jobs,
        )
        assert step is None or isinstance(step, Try | MarkInfeasible | Promote | End)
        return step

    def at_rung(self, history: Sequence[Past], number: int) -> Decision:
        goes_on = partial(scheduler.goes_on, remaining=self._remaining(history))
        return _asha_decision(history, number, goes_on)

    def _remaining(self, history: Sequence[Past]) -> float | None:
        return None if self._budget is None else self._budget - sum(past.device_seconds for past in history)

    def completed(self, past: Past) -> None:
        pass


def of_table(table: Table, seed: int, similar_jobs: Sequence[SimilarJob] = (), sampler: str = LUTHIER) -> Luthier:
    """Return Luthier's search of a whole table."""
    recorded = partial(known, table)
    return Luthier(table.task.space, seed, len(table.curves), similar_jobs, recorded=recorded, sampler=sampler)


def known(table: Table, design: Design) -> bool:
    return not design.stages or design.digest() in table.curves


def _asha_decision(
    history: Sequence[Past], number: int, goes_on: Callable[[Sequence[Past], int], bool] = asha.goes_on
) -> Decision:
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
    """A stand-in for a Ray trial: its id is all that the scheduler reads."""
    return SimpleNamespace(trial_id=str(number))


Make = Callable[[Table, int], Any]

SEARCHERS: Final[dict[str, Make]] = {
    "Luthier": lambda table, seed: of_table(table, seed),
    "Luthier, with a past job": lambda table, seed: of_table(table, seed, [past_job(table.task, seed)]),
    "the same, with sampler tpe": lambda table, seed: of_table(table, seed, sampler="tpe"),
    "the same, with sampler random": lambda table, seed: of_table(table, seed, sampler="random"),
    "promotion + random + priors": lambda table, seed: AshaRandom(table, seed, len(table.curves)),
    "promotion + TPE + priors": lambda table, seed: AshaTpe(table, seed, len(table.curves)),
    "random": RandomSearch,
    "TPE + MedianPruner": lambda table, seed: Tpe(table, seed, MedianPruner()),
    "TPE + HyperbandPruner": lambda table, seed: Tpe(
        table, seed, HyperbandPruner(min_resource=1, max_resource=RESOURCES[-1], reduction_factor=3)
    ),
    "Ray Tune's ASHA": RayAsha,
}
