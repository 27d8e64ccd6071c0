"""How sure a difference between two designs is: paired bootstrap over the test rows, and over the seeds.

Both designs have answered the same rows, so rows are drawn in pairs: what is hard for both does not blur the
difference. A design that was trained from several seeds stands for the mean over them; its seeds are drawn too, each
design's by itself. Few seeds drawn with replacement vary less than they should, by (S-1)/S: their deviations from the
mean are stretched to make up for it (Davison & Hinkley 1997, 2.4). The interval is the one between the quantiles of the
differences drawn. It is drawn in the same way each time, so that a report that is asked for twice says the same.

How often such an interval holds the true difference, in simulations: 92 % with 12 rows, 93 % with 30, and, where seeds
matter far more than rows, 88 % with three seeds each. So it is a little too narrow when there is little to go by.

    perplexity  difference in bits per byte: all nats of the rows drawn over all their bytes
    reward      difference of the means; of unpaired rows, of the areas under the ROC curve, with rows drawn by label
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from luthier.design import Frozen
from luthier.task import Objective
from luthier.trial import RowScores

DRAWS: Final = 4000
LEVEL: Final = 0.95
SEED: Final = 20260329

Verdict = Literal["better beyond the noise", "not distinguishable", "worse beyond the noise"]
Numbers = NDArray[np.float64]


class Interval(Frozen):
    """A difference, first minus second, and what it may as well be."""

    difference: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        return self.low > 0 or self.high < 0


class Comparison(Frozen):
    """One design against another on the test rows."""

    objective: Interval = Field(description="in bits per byte, where less is better, or in reward, where more is")
    perplexity_ratio: Interval | None = Field(
        default=None, description="first over second; None where the tokenizers differ, or the objective is the reward"
    )
    verdict: Verdict
    rows: int = Field(ge=1, description="test rows that the difference is made of")
    seeds: tuple[int, int] = Field(description="from which each of both was trained and scored")


def comparable(first: Sequence[RowScores], second: Sequence[RowScores], objective: Objective) -> bool:
    """Whether all of them were scored on the same rows for this objective."""
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
    """The scores of one design, a seed each, against those of another. They must be `comparable`."""
    assert comparable(first, second, objective), "what was not scored on the same rows is not compared"
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
        verdict=verdict(bits, lower_is_better=True),
        rows=rows,
        seeds=(len(first), len(second)),
    )


def verdict(interval: Interval, *, lower_is_better: bool) -> Verdict:
    """What an interval says of the first of both."""
    if not interval.certain:
        return "not distinguishable"
    return "better beyond the noise" if (interval.high < 0) == lower_is_better else "worse beyond the noise"


def score(scores: Sequence[RowScores], objective: Objective) -> float:
    """A design's score on the rows, as the mean over its seeds: bits per byte, or reward."""
    if objective == "perplexity":
        return float(np.mean([sum(one.nll) / math.log(2) / sum(one.bytes) for one in scores]))
    return float(np.mean([_reward(one) for one in scores]))


class _Likelihood:
    """Of one design: `bits` per byte and `nats` per token of each draw, and of all rows."""

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
    else:  # by label: a curve needs rows of both
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
        verdict=verdict(difference, lower_is_better=False),
        rows=rows,
        seeds=(len(first), len(second)),
    )


def _reward(scores: RowScores) -> float:
    assert scores.reward, "a reward is asked for only where there is one"
    return float(_drawn_reward(scores, np.ones((1, len(scores.reward))))[0])


def _drawn_reward(scores: RowScores, counts: Numbers) -> Numbers:
    """The reward of each draw, which says how often each row comes: the mean, or the area under the curve."""
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
    """How much each seed counts in each draw, 1 in all. A single seed says nothing of how seeds vary."""
    if seeds == 1:
        return np.ones((draws, 1))
    even = np.full(seeds, 1 / seeds)
    drawn = draw.multinomial(seeds, even, size=draws) / seeds
    stretched: Numbers = even + (drawn - even) * math.sqrt(seeds / (seeds - 1))
    return stretched


def _interval(drawn: Numbers, difference: float) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(difference=difference, low=float(low), high=float(high))


def _exp(value: Numbers | float) -> Numbers:
    return np.asarray(np.exp(np.clip(value, -700.0, 700.0)))
