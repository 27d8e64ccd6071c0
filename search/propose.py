"""The next design to try: a pure function of the space, the job's trials so far and a seed.

Baselines come first, then priors, then Optuna's TPE (Bergstra et al. 2011; Watanabe 2023) in its multivariate form,
grouped for the conditional space. No study outlives a call: it is rebuilt from the rows, so that a restarted service
proposes what the old one would have proposed, whatever the order in which the rows come.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState as OptunaState

from luthier.design import Design
from luthier.errors import IllegalDesign
from luthier.trial import TrialState
from search.history import Past
from search.priors import baselines, priors
from search.space import Space
from search.suggest import Enumeration, Sampled

optuna.logging.set_verbosity(optuna.logging.WARNING)  # or it prints a line for each study, to stderr

ASKS: Final = 16  # of the sampler, before the designs left are enumerated instead


def propose(space: Space, history: Sequence[Past], seed: int, budget: int) -> Design | None:
    """A design that is not in the history, or None when the space has no other.

    `budget` is the number of trials of the whole job, two baselines included; priors get half of the others.
    The seed of the sampler follows from `seed` and the length of the history.
    """
    tried = {past.design.digest() for past in history}
    draw = random.Random(f"{seed}/{len(history)}")
    given = chain(baselines(space), priors(space)[: (budget - 1) // 2])
    sampled = _sampled(space, sorted(history, key=lambda past: past.number), draw.getrandbits(32))
    proposals = chain(given, sampled, _enumerated(space, draw))
    return next((design for design in proposals if design.digest() not in tried), None)


def origin(space: Space, design: Design) -> Literal["baseline", "prior", "proposed"]:
    """Where a proposal comes from."""
    if design in baselines(space):
        return "baseline"
    return "prior" if design in priors(space) else "proposed"


def _sampled(space: Space, history: Sequence[Past], seed: int) -> Iterator[Design]:
    """What TPE asks for, up to ASKS times; refused asks are told as failed."""
    study = _study(space, history, seed)
    for _ in range(ASKS):
        trial = study.ask()
        yield space.sample(Sampled(trial))
        study.tell(trial, state=OptunaState.FAIL)


def _enumerated(space: Space, draw: random.Random) -> Iterator[Design]:
    """Every design of the space, in random order."""
    answers = Enumeration(draw)
    yield space.sample(answers)
    while answers.advance():
        yield space.sample(answers)


def _study(space: Space, history: Sequence[Past], seed: int) -> optuna.Study:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # `group` has been experimental since 2.8
        sampler = optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)
    study = optuna.create_study(direction="minimize", sampler=sampler, pruner=optuna.pruners.NopPruner())
    for past in history:
        if (trial := _told(space, past)) is not None:
            study.add_trial(trial)
    return study


def _told(space: Space, past: Past) -> optuna.trial.FrozenTrial | None:
    """The trial as Optuna sees it; None outside the space: the untuned model, or a default that ignores a pin."""
    try:
        params, distributions = space.encode(past.design), space.distributions(past.design)
    except IllegalDesign:
        return None
    state = _optuna_state(past.state)
    value = past.value if state is OptunaState.COMPLETE else None
    return optuna.trial.create_trial(state=state, value=value, params=params, distributions=distributions)


def _optuna_state(state: TrialState) -> OptunaState:
    match state:
        case TrialState.WAITING | TrialState.LEASED:
            return OptunaState.RUNNING  # the constant liar keeps away from them
        case TrialState.COMPLETE:
            return OptunaState.COMPLETE
        case TrialState.PRUNED:
            return OptunaState.PRUNED
        case TrialState.FAILED | TrialState.INFEASIBLE | TrialState.CANCELLED:
            return OptunaState.FAIL  # measured better than a dummy loss
