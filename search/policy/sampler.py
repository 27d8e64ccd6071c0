"""Luthier's sampler for Optuna: `optuna.create_study(sampler=LuthierSampler(space))`.

The objective makes a design of its trial by `space.sample(Sampled(trial))`. Everything that the sampler knows is in the
study's trials, so that a study in a database can be continued by another process. `docs/optuna.md` is the manual.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from luthier.design import Design
from luthier.errors import IllegalDesign
from search.policy.priors import priors
from search.policy.proposals import Seen, proposals
from search.policy.surrogate import NOISE, RUNG_NOISE, normal_scores
from search.space.samplers import Value
from search.space.space import Space

PRIORS_FIRST: Final = 4  # priors tried before the surrogate is used
# System attributes of trials that Luthier adds to a study: the variance of the score's noise; and the design and the
# score of a trial outside the space, which has no parameters. Optuna's samplers must not see such a score.
NOISE_ATTRIBUTE: Final = "luthier:noise"
DESIGN_ATTRIBUTE, SCORE_ATTRIBUTE = "luthier:design", "luthier:score"


class LuthierSampler(BaseSampler):
    """Proposes designs of a space: first priors, then by a surrogate model of the study's trials.

    A trial with `n` trials before it is proposed from these and from a random generator seeded with `seed` and `n`: the
    same study and the same seed give the same proposal. Parameters that are not axes of the space are drawn at random.
    Pruned trials count by their last reported values. Studies of several objectives are not supported.
    """

    def __init__(self, space: Space, seed: int = 0, *, priors_first: int = PRIORS_FIRST) -> None:
        self._space, self._seed, self._priors_first = space, seed, priors_first
        self._proposed: dict[int, Mapping[str, Value]] = {}  # by trial id, between the two calls for one trial

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        others = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        design = self._propose(others, study.direction)
        if design is None:
            return {}
        self._proposed[trial._trial_id], distributions = self._space.parameters(design)
        return distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return dict(self._proposed.pop(trial._trial_id, {}))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        draw = random.Random(f"{self._seed}/{trial.number}/{param_name}")
        return RandomSampler(draw.getrandbits(31)).sample_independent(study, trial, param_name, param_distribution)

    def _propose(self, trials: Sequence[FrozenTrial], direction: StudyDirection) -> Design | None:
        """Return an untried design, or None if none was found."""
        seen = list(_seen(self._space, trials, direction))
        tried = {one.design.digest() for one in seen}
        if len(trials) < self._priors_first:
            for design in priors(self._space)[: self._priors_first]:
                if design.digest() not in tried:
                    return design
        return next(proposals(self._space, seen, random.Random(f"{self._seed}/{len(trials)}")), None)


class _Known(NamedTuple):
    """A trial whose design is known."""

    trial: FrozenTrial
    design: Design
    answers: Mapping[str, Value] | None  # values by axis; None if the design is not in the space


def _seen(space: Space, trials: Sequence[FrozenTrial], direction: StudyDirection) -> Iterator[Seen]:
    """Yield the trials of trained designs, in order; those with a score have their normal scores."""
    known = [found for trial in trials if (found := _known(space, trial)) is not None]
    ranked = _ranked([one.trial for one in known], -1.0 if direction is StudyDirection.MAXIMIZE else 1.0)
    scores = dict(zip((trial.number for trial in ranked), normal_scores(len(ranked)), strict=True))
    for trial, design, answers in known:
        usual = RUNG_NOISE[0] if trial.state is TrialState.PRUNED else NOISE
        yield Seen(
            design=design,
            answers=answers,
            score=scores.get(trial.number),
            noise=trial.system_attrs.get(NOISE_ATTRIBUTE, usual),
            running=trial.state in (TrialState.RUNNING, TrialState.WAITING),
        )


def _known(space: Space, trial: FrozenTrial) -> _Known | None:
    """Return a trial with its design; None if it has no parameters, or those of another space."""
    if (outside := trial.system_attrs.get(DESIGN_ATTRIBUTE)) is not None:
        return _Known(trial, Design.model_validate_json(outside), None)
    try:
        return _Known(trial, space.decode(trial.params), trial.params)
    except IllegalDesign:
        return None


def _ranked(trials: Sequence[FrozenTrial], sign: float) -> list[FrozenTrial]:
    """Return the trials with a score, best first.

    Complete trials rank by their values. Pruned trials are ranked among those that reported a value at the same step,
    and the trials that went on from there keep their order, as in `asha.overall_ranking`.
    """

    def key(trial: FrozenTrial, value: float | None) -> tuple[float, int]:
        return math.inf if value is None or math.isnan(value) else sign * value, trial.number

    done = [trial for trial in trials if _value(trial) is not None]
    ordered = sorted(done, key=lambda trial: key(trial, _value(trial)))
    pruned = [trial for trial in trials if trial.state is TrialState.PRUNED and trial.intermediate_values]
    for step in sorted({max(trial.intermediate_values) for trial in pruned}, reverse=True):
        at_step = [trial for trial in (*done, *pruned) if step in trial.intermediate_values]
        at_step.sort(key=lambda trial: key(trial, trial.intermediate_values[step]))
        reached, numbers = {trial.number for trial in at_step}, {trial.number for trial in ordered}
        further = iter([trial for trial in ordered if trial.number in reached])
        unscored = [trial for trial in ordered if trial.number not in reached]
        ordered = unscored + [next(further) if trial.number in numbers else trial for trial in at_step]
    return ordered


def _value(trial: FrozenTrial) -> float | None:
    score: float | None = trial.system_attrs.get(SCORE_ATTRIBUTE)
    return trial.value if trial.state is TrialState.COMPLETE else score
