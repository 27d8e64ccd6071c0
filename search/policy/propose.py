"""Propose the next design: a pure function of the search space, the job's trials so far and a seed.

The baselines come first, then the best designs of similar jobs (warm start) and a few priors. After that, a surrogate
model of all trials picks the most promising candidate. Candidates are the priors, neighbours of the best designs so
far, and random designs. No state is kept between calls: everything is rebuilt from the stored trials, so a restarted
service makes the same proposal, whatever the order of the trials.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final, Literal

import numpy as np

from luthier.design import Design
from luthier.errors import IllegalDesign
from search.policy.asha import overall_ranking
from search.policy.features import Features, features
from search.policy.history import Past
from search.policy.priors import baselines, priors
from search.policy.surrogate import NOISE, RUNG_NOISE, Observation, Surrogate, normal_scores
from search.policy.warm_start import SimilarJob, first_designs
from search.space.samplers import Enumeration, Varied
from search.space.space import Space

Source = Literal["baseline", "memory", "prior", "proposed"]

PRIORS_FIRST: Final = 4  # priors tried before the surrogate is used
# Candidates for each proposal: random designs, neighbours in all, and how many of the best designs these surround.
RANDOM, NEIGHBOURS, PARENTS = 160, 96, 6
LIAR: Final = 0.0  # assumed score of a running trial: the mean of normal scores
EXPLORATION: Final = 0.5  # candidates are ranked by predicted mean minus this many standard deviations


def propose(
    space: Space, history: Sequence[Past], seed: int, trials: int, similar_jobs: Sequence[SimilarJob] = ()
) -> Design | None:
    """Return a design that is not in the history, or None if the space has no other.

    `trials` is the number of trials of the whole job, with the two baselines. The warm start and the priors get at most
    half of the others. The random generator is seeded with `seed` and the length of the history.
    """
    tried = {past.design.digest() for past in history}
    draw = random.Random(f"{seed}/{len(history)}")
    first = [*first_designs(space, similar_jobs), *priors(space)[:PRIORS_FIRST]][: (trials - 1) // 2]
    ordered = sorted(history, key=lambda past: past.number)
    proposals = chain(baselines(space), first, _by_surrogate(space, ordered, draw, tried), _enumerated(space, draw))
    return next((design for design in proposals if design.digest() not in tried), None)


def _by_surrogate(space: Space, history: Sequence[Past], draw: random.Random, tried: set[str]) -> Iterator[Design]:
    """Candidates that were not tried, lowest confidence bound first (scores are minimised)."""
    candidates = {design.digest(): design for design in _candidates(space, history, draw)}
    untried = [design for digest, design in candidates.items() if digest not in tried]
    if not untried:
        return
    known = {past.number for past in overall_ranking(history)}
    # Running trials are assumed to score the mean, so that parallel workers try different designs (the constant liar
    # of Ginsbourger et al. 2010).
    pending = [
        Observation(_features(space, past.design), LIAR)
        for past in history
        if past.number not in known and past.open and past.design.stages
    ]
    observations = [*_observations(space, history), *pending]
    if not observations:
        yield from untried
        return
    mean_M, deviation_M = Surrogate(observations).predict([_features(space, one) for one in untried])
    for index in np.argsort(mean_M - EXPLORATION * deviation_M, kind="stable"):
        yield untried[index]


def _candidates(space: Space, history: Sequence[Past], draw: random.Random) -> Iterator[Design]:
    yield from priors(space)
    for _ in range(RANDOM):
        yield space.sample(Varied(draw, {}))
    parents = []
    for past in overall_ranking(history):
        try:
            parents.append(space.encode(past.design))
        except IllegalDesign:
            continue  # the default may ignore a pin, and is then outside the space
    for answers in parents[:PARENTS]:
        for _ in range(NEIGHBOURS // PARENTS):
            yield space.sample(Varied(draw, answers))


def _observations(space: Space, history: Sequence[Past]) -> Iterator[Observation]:
    """All scored trials."""
    ranked = overall_ranking(history)
    for past, score in zip(ranked, normal_scores(len(ranked)), strict=True):
        noise = NOISE if past.value is not None else RUNG_NOISE[min(len(past.measured), len(RUNG_NOISE)) - 1]
        yield Observation(_features(space, past.design), score, noise)


def _features(space: Space, design: Design) -> Features:
    return features(design, space.model(design.architecture.base).hidden_size)


def origin(space: Space, design: Design, similar_jobs: Sequence[SimilarJob]) -> Source:
    """Return where a proposal comes from; `memory` means the warm start."""
    if design in baselines(space):
        return "baseline"
    if design in first_designs(space, similar_jobs):
        return "memory"
    return "prior" if design in priors(space) else "proposed"


def _enumerated(space: Space, draw: random.Random) -> Iterator[Design]:
    """Every design of the space, in random order."""
    answers = Enumeration(draw)
    yield space.sample(answers)
    while answers.advance():
        yield space.sample(answers)
