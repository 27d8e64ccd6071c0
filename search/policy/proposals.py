"""Luthier's own proposals: which untried design a search should train next, given the trials so far.

Candidates are the priors, neighbours of the best designs and random designs; `coverage` says which of them may come
next. A Gaussian process predicts their scores. The family of the proposal is drawn by Thompson sampling (Thompson
1933): its share of the proposals is the probability, given the scores so far, that it holds the best design. Within the
family the lowest confidence bound is taken.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from luthier.design import Design
from search.policy.coverage import allowed, family, may_edit
from search.policy.features import Features, features
from search.policy.priors import priors
from search.policy.surrogate import Observation, Surrogate
from search.space.samplers import Suggest, V, Value, Varied
from search.space.space import NO, Space

# Candidates for each proposal: random designs, neighbours in all, and how many of the best designs these surround.
RANDOM, NEIGHBOURS, PARENTS = 160, 96, 6
PARENTS_OF_A_FAMILY: Final = 3
LIAR: Final = 0.0  # assumed score of a running trial: the mean of normal scores
EXPLORATION: Final = 0.5  # candidates are ranked by predicted mean minus this many standard deviations
REPRESENTATIVES: Final = 8  # candidates of each family that Thompson sampling compares: those of the lowest bounds


class Seen(NamedTuple):
    """A trial as a sampler sees it."""

    design: Design
    answers: Mapping[str, Value] | None  # values by axis; None if the design is not in the space
    score: float | None = None  # normal score of its rank, lower is better; None without a score
    noise: float = 0.0  # variance of the score
    running: bool = False


def proposals(space: Space, seen: Sequence[Seen], draw: random.Random) -> Iterator[Design]:
    """Yield designs of the space that are not among those seen, the one to try next first.

    `seen` are the trials of trained designs in order. Candidates are finite, so that the iterator ends.
    """
    tried = {one.design.digest() for one in seen}
    untried = [design for design in _candidates(space, seen, draw) if design.digest() not in tried]
    if not untried:
        return
    untried = allowed(space, [one.design for one in seen], untried)
    observations = [
        Observation(_features(space, one.design), one.score, one.noise) for one in seen if one.score is not None
    ]
    # Running trials are assumed to score the mean, so that parallel workers try different designs (the constant liar
    # of Ginsbourger et al. 2010).
    observations += [Observation(_features(space, one.design), LIAR) for one in seen if one.running]
    for index in _order(untried, [_features(space, one) for one in untried], observations, draw):
        yield untried[index]


def _order(
    designs: Sequence[Design], described: Sequence[Features], observations: Sequence[Observation], draw: random.Random
) -> Iterator[int]:
    """Yield the indices of the designs: those of the drawn family first, by their confidence bounds."""
    surrogate = Surrogate(observations)
    mean_M, deviation_M = surrogate.predict(described)
    families: dict[str, list[int]] = {}
    for index in np.argsort(mean_M - EXPLORATION * deviation_M, kind="stable"):
        families.setdefault(family(designs[index]), []).append(int(index))
    compared = [(name, index) for name, indices in families.items() for index in indices[:REPRESENTATIVES]]
    drawn = surrogate.draw([described[index] for _, index in compared], draw.getrandbits(64))
    best = {name: min(d for (of, _), d in zip(compared, drawn, strict=True) if of == name) for name in families}
    for name in sorted(families, key=lambda name: best[name]):
        yield from families[name]


def _candidates(space: Space, seen: Sequence[Seen], draw: random.Random) -> list[Design]:
    """Return different designs of the space, in a fixed order."""
    edits = space.edits_asked or may_edit([one.design for one in seen])
    parents = _parents(seen)
    found = [
        *priors(space),
        *(space.sample(_Steered(Varied(draw, {}), edits=edits)) for _ in range(RANDOM)),
        *(
            space.sample(_Steered(Varied(draw, answers), edits=edits))
            for answers in parents
            for _ in range(NEIGHBOURS // PARENTS)
        ),
    ]
    return list({design.digest(): design for design in found}.values())


def _parents(seen: Sequence[Seen]) -> list[Mapping[str, Value]]:
    """Return the best designs of the space, at most some of each family."""
    found: list[Mapping[str, Value]] = []
    counts: dict[str, int] = {}
    scored = [one for one in seen if one.score is not None and one.answers is not None]
    for one in sorted(scored, key=lambda one: one.score if one.score is not None else LIAR):
        name = family(one.design)
        counts[name] = counts.get(name, 0) + 1
        if counts[name] <= PARENTS_OF_A_FAMILY and one.answers is not None:
            found.append(one.answers)
    return found[:PARENTS]


class _Steered:
    """Chooses as another `Suggest` does, but leaves the base model unedited unless `edits`."""

    def __init__(self, chooser: Suggest, *, edits: bool) -> None:
        self._chooser, self._edits = chooser, edits

    def categorical(self, name: str, choices: Sequence[V]) -> V:
        if name.startswith("edited[") and not self._edits:
            return next(choice for choice in choices if choice == NO)
        return self._chooser.categorical(name, choices)

    def log_uniform(self, name: str, low: float, high: float) -> float:
        return self._chooser.log_uniform(name, low, high)


def _features(space: Space, design: Design) -> Features:
    return features(design, space.model(design.architecture.base).hidden_size)
