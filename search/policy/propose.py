"""The next design to try: a pure function of the space, the job's trials so far and a seed.

Baselines come first, then the best designs of past jobs and a few priors; from then on the candidate that a surrogate
of all trials finds the most promising. Candidates are the priors, neighbours of the best so far, and designs drawn at
random. Nothing outlives a call: all is rebuilt from the rows, so that a restarted
service proposes what the old one would have proposed, whatever the order in which the rows come.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final, Literal

import numpy as np

from luthier.design import Design
from luthier.errors import IllegalDesign
from search.policy.asha import order
from search.policy.features import Features, features
from search.policy.history import Past
from search.policy.priors import baselines, priors
from search.policy.surrogate import NOISE, RUNG_NOISE, Seen, Surrogate, normal_scores
from search.policy.warm_start import SimilarJob, first_designs
from search.space.samplers import Enumeration, Varied
from search.space.space import Space

Source = Literal["baseline", "memory", "prior", "proposed"]

PRIORS_FIRST: Final = 4  # so many priors come before anything is compared
RANDOM, NEIGHBOURS, PARENTS = 160, 96, 6  # candidates drawn anywhere, and next to the best so far
MIDDLING: Final = 0.0  # the mean of normal scores
CAUTION: Final = 0.5  # standard deviations by which a design may be better than it seems


def propose(
    space: Space, history: Sequence[Past], seed: int, budget: int, memory: Sequence[SimilarJob] = ()
) -> Design | None:
    """A design that is not in the history, or None when the space has no other.

    `budget` is the number of trials of the whole job, two baselines included; past designs and priors get half of the
    others at most.
    The seed of the sampler follows from `seed` and the length of the history.
    """
    tried = {past.design.digest() for past in history}
    draw = random.Random(f"{seed}/{len(history)}")
    first = [*first_designs(space, memory), *priors(space)[:PRIORS_FIRST]][: (budget - 1) // 2]
    given = chain(baselines(space), first)
    ordered = sorted(history, key=lambda past: past.number)
    proposals = chain(given, _by_merit(space, ordered, draw, tried), _enumerated(space, draw))
    return next((design for design in proposals if design.digest() not in tried), None)


def _by_merit(space: Space, history: Sequence[Past], draw: random.Random, tried: set[str]) -> Iterator[Design]:
    """Candidates that were not tried, the most promising first: priors, neighbours of the best, and anything."""
    candidates = {design.digest(): design for design in _candidates(space, history, draw)}
    untried = [design for digest, design in candidates.items() if digest not in tried]
    if not untried:
        return
    known = {past.number for past in order(history)}
    # Believed to turn out middling, so that workers at the same time try different things (the constant liar of
    # Ginsbourger et al. 2010).
    pending = [
        Seen(_features(space, past.design), MIDDLING)
        for past in history
        if past.number not in known and past.open and past.design.stages
    ]
    seen = [*_seen(space, history), *pending]
    if not seen:
        yield from untried
        return
    mean_M, deviation_M = Surrogate(seen).predict([_features(space, one) for one in untried])
    for index in np.argsort(mean_M - CAUTION * deviation_M, kind="stable"):
        yield untried[index]


def _candidates(space: Space, history: Sequence[Past], draw: random.Random) -> Iterator[Design]:
    yield from priors(space)
    for _ in range(RANDOM):
        yield space.sample(Varied(draw, {}))
    parents = []
    for past in order(history):
        try:
            parents.append(space.encode(past.design))
        except IllegalDesign:
            continue  # a default that ignores a pin
    for answers in parents[:PARENTS]:
        for _ in range(NEIGHBOURS // PARENTS):
            yield space.sample(Varied(draw, answers))


def _seen(space: Space, history: Sequence[Past]) -> Iterator[Seen]:
    """All scored trials."""
    here = order(history)
    for past, score in zip(here, normal_scores(len(here)), strict=True):
        noise = NOISE if past.value is not None else RUNG_NOISE[min(len(past.measured), len(RUNG_NOISE)) - 1]
        yield Seen(_features(space, past.design), score, noise)


def _features(space: Space, design: Design) -> Features:
    return features(design, space.model(design.architecture.base).hidden_size)


def origin(space: Space, design: Design, memory: Sequence[SimilarJob]) -> Source:
    """Where a proposal comes from."""
    if design in baselines(space):
        return "baseline"
    if design in first_designs(space, memory):
        return "memory"
    return "prior" if design in priors(space) else "proposed"


def _enumerated(space: Space, draw: random.Random) -> Iterator[Design]:
    """Every design of the space, in random order."""
    answers = Enumeration(draw)
    yield space.sample(answers)
    while answers.advance():
        yield space.sample(answers)
