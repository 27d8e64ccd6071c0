"""What the trials so far say of designs that were not tried: a Gaussian process on features.

Kernels are sums over axes and their product (Duvenaud et al. 2011, "Additive Gaussian Processes"): the sum carries what
is known of one axis to designs that differ on the others, the product what is peculiar to a neighbourhood. Scores are
normal scores of the ranks, so that one set of constants suits all objectives. Nothing is fitted: for ten to sixty
trials, length scales that experience gives do better than what a likelihood would choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.policy.features import Features

Vector = NDArray[np.float64]

# How much of an objective's variation each part explains; they add up to 1.
ADDITIVE: Final = 0.6
# Variance of a score: at the end what comes from the seed; at rungs more, since they rank otherwise than the end. On
# recorded curves their rank correlation with it is 0.4 to 0.7 at the first, and 0.85 at the second.
NOISE, RUNG_NOISE = 0.05, (0.4, 0.15)
# Pairs of axes that act together: the best learning rate depends on what moves and on how many steps there are.
NAMES: Final = ("recipe", "phases", "ends", "update", "group", "later")
LEARNING_RATE: Final = "learning_rate"


class Seen(NamedTuple):
    """A trial as the surrogate is told of it."""

    design: Features
    score: float  # lower is better
    noise: float = NOISE  # variance of the score


class Surrogate:
    """The process after some trials."""

    def __init__(self, seen: Sequence[Seen]) -> None:
        self._seen = [one.design for one in seen]
        kernel_NN = _kernel(self._seen, self._seen)
        self._root_NN = np.linalg.cholesky(kernel_NN + np.diag([one.noise for one in seen]))
        scores_N = np.array([one.score for one in seen])
        self._weights_N = np.linalg.solve(self._root_NN.T, np.linalg.solve(self._root_NN, scores_N))

    def predict(self, designs: Sequence[Features]) -> tuple[Vector, Vector]:
        """Mean and standard deviation of each design's score."""
        kernel_MN = _kernel(designs, self._seen)
        half_NM = np.linalg.solve(self._root_NN, kernel_MN.T)
        return kernel_MN @ self._weights_N, np.sqrt(np.maximum(1.0 - (half_NM**2).sum(axis=0), 1e-9))


def normal_scores(count: int) -> list[float]:
    """Scores of so many trials in the order of their ranks, the best first (Blom 1958)."""
    return [NormalDist().inv_cdf((rank + 0.625) / (count + 0.25)) for rank in range(count)]


def _kernel(one: Sequence[Features], other: Sequence[Features]) -> Vector:
    """How alike designs are, 0 to 1."""
    same = {name: _equal([f.names[name] for f in one], [f.names[name] for f in other]) for name in NAMES}
    recipe_MN = (same["recipe"] + same["phases"] + same["ends"]) / 3
    update_MN = (2 * same["update"] + 2 * same["group"] + same["later"]) / 5
    axes = sorted({axis for f in (*one, *other) for axis in f.numbers})
    near = {axis: _near([f.numbers.get(axis) for f in one], [f.numbers.get(axis) for f in other]) for axis in axes}
    rate_MN = near.pop(LEARNING_RATE)
    together = [rate_MN * update_MN, rate_MN * update_MN * recipe_MN]
    parts = [recipe_MN, update_MN, rate_MN, *together, *near.values()]
    product_MN = np.prod([recipe_MN, update_MN, rate_MN, *near.values()], axis=0)
    both_MN: Vector = ADDITIVE * np.mean(parts, axis=0) + (1 - ADDITIVE) * product_MN
    return both_MN


def _equal(one: Sequence[str], other: Sequence[str]) -> Vector:
    equal_MN: Vector = (np.array(one)[:, None] == np.array(other)[None]).astype(np.float64)
    return equal_MN


def _near(one: Sequence[float | None], other: Sequence[float | None]) -> Vector:
    """Squared exponential; a design that has the axis and one that lacks it are half as alike as they would be."""
    known = [value for value in (*one, *other) if value is not None]
    middle = sum(known) / len(known)
    one_M, other_N = (np.array([middle if value is None else value for value in side]) for side in (one, other))
    lacks_M, lacks_N = (np.array([value is None for value in side]) for side in (one, other))
    both_MN = 0.5 + 0.5 * (lacks_M[:, None] == lacks_N[None])
    near_MN: Vector = np.exp(-0.5 * (one_M[:, None] - other_N[None]) ** 2) * both_MN
    return near_MN
