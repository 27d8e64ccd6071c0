"""Surrogate model: a Gaussian process that predicts the scores of untried designs from their features.

The kernel is a weighted sum of an additive part and a product over the axes (Duvenaud et al. 2011, "Additive Gaussian
Processes"). The additive part transfers what is known about one axis to designs that differ on the others; the product
models interactions between all axes. The scores are normal scores of the ranks, so one set of constants works for all
objectives. No hyperparameters are fitted: with ten to sixty trials, fixed length scales predict better than those of
maximum likelihood. The prior mean is what recorded jobs say of such designs (`expectation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.policy.expectation import expected
from search.policy.features import Features

Vector = NDArray[np.float64]

# Weights of the parts of the kernel: the additive part, and the level of each group of updates, which is known after a
# few scores of the group. The product has the rest.
ADDITIVE, LEVEL = 0.45, 0.2
# Noise variance of a score. At the end of training it comes from the seed. At a rung it is larger, because the ranking
# there differs from the final one: on recorded curves the rank correlation is 0.4 to 0.7 at the first rung and 0.85 at
# the second.
NOISE, RUNG_NOISE = 0.05, (0.4, 0.15)
NAMES: Final = ("recipe", "objectives", "last_objective", "update", "update_group", "last_update_group")
LEARNING_RATE: Final = "learning_rate"
LEAST_VARIANCE: Final = 1e-9


class Observation(NamedTuple):
    """A scored trial."""

    design: Features
    score: float  # lower is better
    noise: float = NOISE  # variance of the score


class Surrogate:
    """The posterior of the Gaussian process, given N observations; without any it is the prior."""

    def __init__(self, observations: Sequence[Observation]) -> None:
        self._observed = [observation.design for observation in observations]
        expected_N = np.array([expected(design) for design in self._observed])
        # Normal scores have mean zero over the trials so far. So the expected scores are shifted to the same mean.
        self._offset = float(expected_N.mean()) if observations else 0.0
        scores_N = np.array([observation.score for observation in observations])
        noise_NN = np.diag([observation.noise for observation in observations])
        kernel_NN = _kernel(self._observed, self._observed) + noise_NN if observations else noise_NN
        self._root_NN = np.linalg.cholesky(kernel_NN)
        surprise_N = scores_N - (expected_N - self._offset)
        self._weights_N = np.linalg.solve(self._root_NN.T, np.linalg.solve(self._root_NN, surprise_N))

    def predict(self, designs: Sequence[Features]) -> tuple[Vector, Vector]:
        """Return the mean and the standard deviation of the score of each of M designs."""
        mean_M, half_NM = self._posterior(designs)
        return mean_M, np.sqrt(np.maximum(1.0 - (half_NM**2).sum(axis=0), LEAST_VARIANCE))

    def draw(self, designs: Sequence[Features], seed: int) -> Vector:
        """Return one joint draw of the scores of M designs from the posterior."""
        mean_M, half_NM = self._posterior(designs)
        covariance_MM = _kernel(designs, designs) - half_NM.T @ half_NM
        variance_M, axes_MM = np.linalg.eigh(covariance_MM)
        # An axis that a design lacks counts as at its mean, which differs between sets of designs: some variances may
        # come out below zero.
        root_M = np.sqrt(np.maximum(variance_M, 0.0))
        drawn_M: Vector = mean_M + axes_MM @ (root_M * np.random.default_rng(seed).standard_normal(len(designs)))
        return drawn_M

    def _posterior(self, designs: Sequence[Features]) -> tuple[Vector, Vector]:
        """Return the means of M designs, and the factor whose square is what the N observations tell of them."""
        prior_M = np.array([expected(design) for design in designs]) - self._offset
        if not self._observed:
            return prior_M, np.zeros((0, len(designs)))
        kernel_MN = _kernel(designs, self._observed)
        return prior_M + kernel_MN @ self._weights_N, np.linalg.solve(self._root_NN, kernel_MN.T)


def normal_scores(count: int) -> list[float]:
    """Return the expected normal order statistics of `count` ranks, best (lowest) first (Blom 1958)."""
    return [NormalDist().inv_cdf((rank + 0.625) / (count + 0.25)) for rank in range(count)]


def _kernel(one: Sequence[Features], other: Sequence[Features]) -> Vector:
    """Similarity of each pair of designs, 0 to 1."""
    same = {}
    for name in NAMES:
        ones_M, others_N = (np.array([f.names[name] for f in side]) for side in (one, other))
        same[name] = (ones_M[:, None] == others_N[None]).astype(np.float64)
    recipe_MN = (same["recipe"] + same["objectives"] + same["last_objective"]) / 3
    update_MN = (2 * same["update"] + 2 * same["update_group"] + same["last_update_group"]) / 5
    axes = sorted({axis for f in (*one, *other) for axis in f.numbers})
    near = {axis: _near([f.numbers.get(axis) for f in one], [f.numbers.get(axis) for f in other]) for axis in axes}
    rate_MN = near.pop(LEARNING_RATE)
    # Axes that interact: the best learning rate depends on the weight update and on the recipe.
    together = [rate_MN * update_MN, rate_MN * update_MN * recipe_MN]
    parts = [recipe_MN, update_MN, rate_MN, *together, *near.values()]
    product_MN = np.prod([recipe_MN, update_MN, rate_MN, *near.values()], axis=0)
    level_MN = LEVEL * same["update_group"]
    all_MN: Vector = level_MN + ADDITIVE * np.mean(parts, axis=0) + (1 - ADDITIVE - LEVEL) * product_MN
    return all_MN


def _near(one: Sequence[float | None], other: Sequence[float | None]) -> Vector:
    """Squared-exponential kernel of one axis; halved if only one of the two designs has the axis."""
    known = [value for value in (*one, *other) if value is not None]
    middle = sum(known) / len(known)
    one_M, other_N = (np.array([middle if value is None else value for value in side]) for side in (one, other))
    lacks_M, lacks_N = (np.array([value is None for value in side]) for side in (one, other))
    both_MN = 0.5 + 0.5 * (lacks_M[:, None] == lacks_N[None])
    near_MN: Vector = np.exp(-0.5 * (one_M[:, None] - other_N[None]) ** 2) * both_MN
    return near_MN
