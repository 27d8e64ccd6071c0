"""Ask an Optuna sampler for the next design of a job, in a study that is rebuilt from the job's trials at each step."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Final

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from luthier.design import Design
from luthier.errors import IllegalDesign
from search.policy.asha import overall_ranking
from search.policy.history import Past
from search.policy.sampler import DESIGN_ATTRIBUTE, NOISE_ATTRIBUTE, SCORE_ATTRIBUTE
from search.policy.surrogate import NOISE, RUNG_NOISE, normal_scores
from search.space.samplers import Sampled
from search.space.space import Space

ASKS: Final = 16  # how often a sampler may propose known designs at one step before designs are drawn at random
logging.getLogger("optuna.storages._in_memory").setLevel(logging.WARNING)  # one line for each rebuilt study


def asked(space: Space, history: Sequence[Past], sampler: BaseSampler) -> Iterator[Design]:
    """Yield the designs that the sampler proposes after these trials, in the order of its proposals.

    `history` is in the order of trial numbers.
    """
    storage = InMemoryStorage()
    study_id = storage.create_new_study([StudyDirection.MINIMIZE])
    study = optuna.Study(storage.get_study_name_from_id(study_id), storage, sampler=sampler)
    for known in told(space, history):
        storage.create_new_trial(study_id, template_trial=known)
    for _ in range(ASKS):
        trial = study.ask()
        design = space.sample(Sampled(trial))
        study.tell(trial, state=TrialState.FAIL)  # its result comes with the job's trials, if it is tried
        yield design


def told(space: Space, history: Sequence[Past]) -> list[FrozenTrial]:
    """Return the job's trials as Optuna sees them.

    Each scored trial is complete, with the normal score of its overall rank as value. The state PRUNED of trials that
    stopped at a rung, or RUNNING of those that may be promoted, would push samplers away from good designs. Trials
    without a score have failed or are running. The untuned base and repeats have no parameters.
    """
    ranked = overall_ranking(history)
    scores = dict(zip((past.number for past in ranked), normal_scores(len(ranked)), strict=True))
    return [_trial(space, past, scores.get(past.number)) for past in history]


def _trial(space: Space, past: Past, score: float | None) -> FrozenTrial:
    if not past.design.stages or past.confirms is not None:
        return create_trial(state=TrialState.FAIL)
    noise = NOISE if past.value is not None or not past.measured else RUNG_NOISE[min(len(past.measured), 2) - 1]
    try:
        params, distributions = space.parameters(past.design)
    except IllegalDesign:  # the default may ignore a pin
        outside = {DESIGN_ATTRIBUTE: past.design.canonical(), SCORE_ATTRIBUTE: score, NOISE_ATTRIBUTE: noise}
        return create_trial(
            state=TrialState.RUNNING if _pending(past, score) else TrialState.FAIL, system_attrs=outside
        )
    state = TrialState.RUNNING if _pending(past, score) else TrialState.FAIL if score is None else TrialState.COMPLETE
    attributes = {NOISE_ATTRIBUTE: noise}
    return create_trial(state=state, value=score, params=params, distributions=distributions, system_attrs=attributes)


def _pending(past: Past, score: float | None) -> bool:
    return past.open and score is None
