"""Propose the next design: a pure function of the search space, the job's trials so far and a seed.

The baselines come first, then the best designs of similar jobs (warm start) and a few priors. A best design on the end
of an axis is tried beyond it (`widen`). After that, an Optuna sampler proposes: Luthier's own (`sampler`), or another.
No state is kept between calls: the sampler's study is rebuilt from the stored trials, so a restarted service makes the
same proposal, whatever the order of the trials.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Literal

from luthier.design import Design
from search.policy.choose_sampler import LUTHIER, make_sampler
from search.policy.history import Past
from search.policy.priors import baselines, priors
from search.policy.sampler import PRIORS_FIRST
from search.policy.study import asked
from search.policy.warm_start import SimilarJob, first_designs
from search.policy.widen import beyond, widened
from search.space.samplers import Enumeration
from search.space.space import Space

Source = Literal["baseline", "memory", "prior", "proposed"]


def propose(
    space: Space,
    history: Sequence[Past],
    seed: int,
    trials: int,
    similar_jobs: Sequence[SimilarJob] = (),
    sampler: str = LUTHIER,
) -> Design | None:
    """Return a design that is not in the history, or None if the space has no other.

    `trials` is the number of trials of the whole job, with the two baselines. The warm start and the priors get at most
    half of the others. `sampler` is a name or an import path of `choose_sampler`. Random generators are seeded with
    `seed` and the length of the history.
    """
    tried = {past.design.digest() for past in history}
    start, space = space, widened(space, history)
    first = [*first_designs(space, similar_jobs), *priors(space)[:PRIORS_FIRST]][: (trials - 1) // 2]
    ordered = sorted(history, key=lambda past: past.number)
    proposals = chain(
        baselines(space),
        first,
        beyond(start, history),
        _sampled(space, ordered, seed, sampler),
        _enumerated(space, seed, len(history)),
    )
    return next((design for design in proposals if design.digest() not in tried), None)


def origin(space: Space, design: Design, similar_jobs: Sequence[SimilarJob]) -> Source:
    """Return where a proposal comes from; `memory` means the warm start."""
    if design in baselines(space):
        return "baseline"
    if design in first_designs(space, similar_jobs):
        return "memory"
    return "prior" if design in priors(space) else "proposed"


def _sampled(space: Space, history: Sequence[Past], seed: int, sampler: str) -> Iterator[Design]:
    """Designs that the sampler proposes; it is made only if the first designs have been tried."""
    yield from asked(space, history, make_sampler(sampler, space, seed, len(history)))


def _enumerated(space: Space, seed: int, step: int) -> Iterator[Design]:
    """Every design of the space, in random order."""
    answers = Enumeration(random.Random(f"{seed}/{step}/all"))
    yield space.sample(answers)
    while answers.advance():
        yield space.sample(answers)
