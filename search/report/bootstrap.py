"""Confidence intervals of the difference between two designs: a paired bootstrap over test rows and over seeds.

Both designs are scored on the same rows, so each bootstrap sample uses the same rows for both; a row's difficulty then
cancels out. The score of a design is the mean over its seeds, which are resampled too, separately for each design. With
S seeds, resampling underestimates their variance by (S-1)/S, so the deviations from the mean are rescaled (Davison &
Hinkley 1997, 2.4). The interval lies between the percentiles of the resampled differences. The random seed is fixed, so
the same scores always give the same interval.

Coverage of the nominal 95 % interval in simulations: 92 % with 12 rows, 93 % with 30 rows, and 88 % with three seeds
per design if the seeds vary far more than the rows. With little data the interval is slightly too narrow; with fewer
than LEAST_ROWS rows no difference counts as significant.

    perplexity  difference in bits per byte: total nats of the sampled rows, in bits, over their total bytes
    reward      difference of the means; for unpaired preference rows, of the ROC AUC, sampled within each label
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from luthier.task import Objective
from luthier.trial import RowScores
from luthier.values import Frozen

DRAWS: Final = 4000
# With fewer test rows not even a difference of the same sign on all of them is significant: 2 / 2**5 > 5 %.
LEAST_ROWS: Final = 6
LEVEL: Final = 0.95
SEED: Final = 20260329

Verdict = Literal["better beyond the noise", "not distinguishable", "worse beyond the noise"]
Numbers = NDArray[np.float64]


class Interval(Frozen):
    """A difference, first minus second, with its confidence interval."""

    difference: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


class Comparison(Frozen):
    """The comparison of one design with another on the test rows."""

    objective: Interval = Field(description="in bits per byte (lower is better) or in reward (higher is better)")
    perplexity_ratio: Interval | None = Field(
        default=None, description="first over second; None if the tokenizers differ, or if the objective is the reward"
    )
    verdict: Verdict
    rows: int = Field(ge=1, description="number of test rows compared")
    seeds: tuple[int, int] = Field(description="number of scored seeds of each design")


def comparable(first: Sequence[RowScores], second: Sequence[RowScores], objective: Objective) -> bool:
    """Return whether both designs were scored on the same rows for this objective."""
    every = [*first, *second]
    if not (first and second):
        return False
    if objective == "perplexity":
        return len({len(scores.nll) for scores in every}) == 1 and all(sum(scores.bytes) > 0 for scores in every)
    graded = {(len(scores.reward or ()), scores.labels) for scores in every}
    return len(graded) == 1 and all(scores.reward for scores in every)


def compare(
    first: Sequence[RowScores], second: Sequence[RowScores], objective: Objective, *, draws: int = DRAWS
) -> Comparison:
    """Compare the scores of two designs, one `RowScores` for each seed. They must be `comparable`."""
    assert comparable(first, second, objective), "only scores on the same rows can be compared"
    draw = np.random.default_rng(SEED)
    if objective == "reward":
        return _rewards(first, second, draw, draws)
    rows = len(first[0].nll)
    counts = draw.multinomial(rows, np.full(rows, 1 / rows), size=draws).astype(np.float64)
    drawn = [_Likelihood(scores, counts, draw) for scores in (first, second)]
    bits = _interval(drawn[0].bits - drawn[1].bits, drawn[0].whole_bits - drawn[1].whole_bits)
    same_tokens = all(scores.tokens == first[0].tokens for scores in (*first, *second))
    ratio = None
    if same_tokens:
        ratio = _interval(_exp(drawn[0].nats - drawn[1].nats), float(_exp(drawn[0].whole - drawn[1].whole)))
    return Comparison(
        objective=bits,
        perplexity_ratio=ratio,
        verdict=verdict(bits, lower_is_better=True, rows=rows),
        rows=rows,
        seeds=(len(first), len(second)),
    )


def verdict(interval: Interval, *, lower_is_better: bool, rows: int) -> Verdict:
    """Return what an interval of a difference on so many rows says about the first design."""
    if not interval.certain or rows < LEAST_ROWS:
        return "not distinguishable"
    return "better beyond the noise" if (interval.high < 0) == lower_is_better else "worse beyond the noise"


def score(scores: Sequence[RowScores], objective: Objective) -> float:
    """Return a design's score on the rows, averaged over its seeds: bits per byte, or reward."""
    if objective == "perplexity":
        return float(np.mean([sum(one.nll) / math.log(2) / sum(one.bytes) for one in scores]))
    return float(np.mean([_reward(one) for one in scores]))


class _Likelihood:
    """One design's bits per byte and nats per token: for each bootstrap sample, and for all rows (`whole`)."""

    def __init__(self, scores: Sequence[RowScores], counts: Numbers, draw: np.random.Generator) -> None:
        nll_RS, bytes_RS, tokens_RS = (
            np.array([getattr(one, name) for one in scores], dtype=np.float64).T for name in ("nll", "bytes", "tokens")
        )
        weights = _seed_weights(len(scores), len(counts), draw)
        nll, size, tokens = ((counts @ all_RS) for all_RS in (nll_RS, bytes_RS, tokens_RS))
        self.bits = (nll / math.log(2) / np.maximum(size, 1.0) * weights).sum(axis=1)
        self.nats = (nll / np.maximum(tokens, 1.0) * weights).sum(axis=1)
        self.whole_bits = float((nll_RS.sum(axis=0) / math.log(2) / np.maximum(bytes_RS.sum(axis=0), 1.0)).mean())
        self.whole = float((nll_RS.sum(axis=0) / np.maximum(tokens_RS.sum(axis=0), 1.0)).mean())


def _rewards(
    first: Sequence[RowScores], second: Sequence[RowScores], draw: np.random.Generator, draws: int
) -> Comparison:
    labels = first[0].labels
    rows = len(first[0].reward or ())
    if labels is None:
        counts = draw.multinomial(rows, np.full(rows, 1 / rows), size=draws).astype(np.float64)
    else:  # within each label, because an ROC curve needs rows of both
        counts = np.zeros((draws, rows))
        for wanted in (True, False):
            places = [i for i, label in enumerate(labels) if label is wanted]
            if places:
                counts[:, places] = draw.multinomial(len(places), np.full(len(places), 1 / len(places)), size=draws)
    drawn = []
    for scores in (first, second):
        weights = _seed_weights(len(scores), draws, draw)
        by_seed = np.stack([_drawn_reward(one, counts) for one in scores], axis=1)
        drawn.append((by_seed * weights).sum(axis=1))
    difference = _interval(drawn[0] - drawn[1], score(first, "reward") - score(second, "reward"))
    return Comparison(
        objective=difference,
        verdict=verdict(difference, lower_is_better=False, rows=rows),
        rows=rows,
        seeds=(len(first), len(second)),
    )


def _reward(scores: RowScores) -> float:
    assert scores.reward, "only rows with rewards are scored by reward"
    return float(_drawn_reward(scores, np.ones((1, len(scores.reward))))[0])


def _drawn_reward(scores: RowScores, counts: Numbers) -> Numbers:
    """The reward of each bootstrap sample: the mean, or the ROC AUC. `counts` is how often it contains each row."""
    reward = np.array(scores.reward, dtype=np.float64)
    if scores.labels is None:
        mean: Numbers = counts @ reward / counts.sum(axis=1)
        return mean
    wanted = np.array(scores.labels, dtype=bool)
    lead_DU = reward[wanted][:, None] - reward[~wanted][None]
    wins_DU = (lead_DU > 0) + 0.5 * (lead_DU == 0)
    won = ((counts[:, wanted] @ wins_DU) * counts[:, ~wanted]).sum(axis=1)
    pairs = counts[:, wanted].sum(axis=1) * counts[:, ~wanted].sum(axis=1)
    area: Numbers = won / np.maximum(pairs, 1.0)
    return area


def _seed_weights(seeds: int, draws: int, draw: np.random.Generator) -> Numbers:
    """The weight of each seed in each bootstrap sample; they add up to 1. A single seed has no variance."""
    if seeds == 1:
        return np.ones((draws, 1))
    even = np.full(seeds, 1 / seeds)
    drawn = draw.multinomial(seeds, even, size=draws) / seeds
    rescaled: Numbers = even + (drawn - even) * math.sqrt(seeds / (seeds - 1))
    return rescaled


def _interval(drawn: Numbers, difference: float) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(difference=difference, low=float(low), high=float(high))


def _exp(value: Numbers | float) -> Numbers:
    return np.asarray(np.exp(np.clip(value, -700.0, 700.0)))
