"""Intervals hold the true difference about as often as they say, and agree with what can be computed by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from luthier.trial import RowScores
from search.report.bootstrap import LEAST_ROWS, comparable, compare, score


def likelihoods(nll: Sequence[float], tokens: int = 10, size: float = 40.0) -> RowScores:
    return RowScores(nll=tuple(nll), tokens=(tokens,) * len(nll), bytes=(size,) * len(nll))


def graded(rewards: Sequence[float], labels: Sequence[bool] | None = None) -> RowScores:
    nothing = (1.0,) * len(rewards)
    return RowScores(
        nll=nothing,
        tokens=(1,) * len(rewards),
        bytes=nothing,
        reward=tuple(rewards),
        labels=None if labels is None else tuple(labels),
    )


DRAW = np.random.default_rng(7)
HARD = DRAW.gamma(4.0, 5.0, 100)  # nats of each row


def test_the_difference_of_likelihoods_is_that_of_all_nats_over_all_bytes() -> None:
    first, second = likelihoods([10.0, 30.0]), likelihoods([20.0, 32.0])
    first = first.model_copy(update={"bytes": (10.0, 90.0)})
    second = second.model_copy(update={"bytes": (10.0, 90.0)})
    found = compare([first], [second], "perplexity")
    assert found.objective.difference == pytest.approx((40 - 52) / math.log(2) / 100)
    assert found.perplexity_ratio is not None
    assert found.perplexity_ratio.difference == pytest.approx(math.exp((40 - 52) / 20))
    assert found.perplexity_ratio.low <= found.perplexity_ratio.difference <= found.perplexity_ratio.high
    assert (found.rows, found.seeds) == (2, (1, 1))


def test_a_constant_difference_is_certain_however_much_the_rows_vary() -> None:
    """What is hard for both does not blur the difference: the rows are drawn in pairs."""
    better = compare([likelihoods(HARD - 1.0)], [likelihoods(HARD)], "perplexity")
    each = 1 / math.log(2) / 40
    assert better.objective.difference == pytest.approx(-each)
    assert (better.objective.low, better.objective.high) == (pytest.approx(-each), pytest.approx(-each))
    assert better.verdict == "better beyond the noise"
    assert compare([likelihoods(HARD)], [likelihoods(HARD - 1.0)], "perplexity").verdict == "worse beyond the noise"


def test_equal_scores_are_not_distinguishable() -> None:
    same = compare([likelihoods(HARD)], [likelihoods(HARD)], "perplexity")
    assert (same.objective.low, same.objective.high, same.verdict) == (0.0, 0.0, "not distinguishable")
    draw = compare([graded([1.0, 0.0])], [graded([0.0, 1.0])], "reward")
    assert (draw.objective.difference, draw.verdict) == (0.0, "not distinguishable")


def test_the_interval_of_a_mean_is_the_normal_one_where_rows_are_many() -> None:
    draw = np.random.default_rng(3)
    first, second = draw.normal(0.6, 0.3, 400), draw.normal(0.5, 0.2, 400)
    found = compare([graded(first)], [graded(second)], "reward").objective
    error = 1.96 * float(np.std(first - second)) / math.sqrt(400)
    assert found.difference == pytest.approx(float(np.mean(first - second)))
    assert found.low == pytest.approx(found.difference - error, abs=0.1 * error)
    assert found.high == pytest.approx(found.difference + error, abs=0.1 * error)


def test_more_reward_is_better() -> None:
    assert compare([graded([1.0] * 9)], [graded([0.0] * 9)], "reward").verdict == "better beyond the noise"
    assert compare([graded([0.0] * 9)], [graded([1.0] * 9)], "reward").verdict == "worse beyond the noise"


@pytest.mark.parametrize("rows", [1, 2, LEAST_ROWS - 1, LEAST_ROWS])
def test_few_rows_call_no_difference_significant(rows: int) -> None:
    assert 2 * 0.5 ** (LEAST_ROWS - 1) > 0.05 > 2 * 0.5**LEAST_ROWS, "a sign test"
    found = compare([likelihoods([10.0] * rows)], [likelihoods([20.0] * rows)], "perplexity")
    assert found.objective.certain
    assert found.verdict == ("better beyond the noise" if rows >= LEAST_ROWS else "not distinguishable")


def test_seeds_are_averaged_and_drawn() -> None:
    """Three seeds whose spread is known: the error of their mean is their spread over the root of three."""
    flat = np.full(50, 20.0)
    seeds = [likelihoods(flat + shift) for shift in (-0.6, 0.0, 0.6)]
    found = compare(seeds, [likelihoods(flat)], "perplexity", draws=20_000)
    assert found.seeds == (3, 1)
    assert found.objective.difference == pytest.approx(0.0, abs=1e-12)
    assert found.verdict == "not distinguishable"
    widest = 0.6 * math.sqrt(3 / 2) / math.log(2) / 40
    assert 0.6 * widest < found.objective.high <= widest + 1e-12
    assert score(seeds, "perplexity") == pytest.approx(20 / math.log(2) / 40)
    lucky = compare(seeds[:1], [likelihoods(flat)], "perplexity")
    assert lucky.verdict == "better beyond the noise"  # which is why one seed is said to be a weakness


def test_an_area_under_the_curve_is_computed_anew_for_each_draw() -> None:
    labels = [True, False] * 40
    noise = np.random.default_rng(5).normal(0.0, 1.0, 80)
    told = [0.8 * label + n for label, n in zip(labels, noise, strict=True)]
    wins = [
        (a > b) + 0.5 * (a == b)
        for a, wanted in zip(told, labels, strict=True)
        if wanted
        for b, other in zip(told, labels, strict=True)
        if not other
    ]
    scores, blind = graded(told, labels), graded([0.0] * 80, labels)
    assert score([scores], "reward") == pytest.approx(float(np.mean(wins)))
    assert score([blind], "reward") == 0.5
    found = compare([scores], [blind], "reward")
    assert found.objective.difference == pytest.approx(float(np.mean(wins)) - 0.5)
    # Hanley & McNeil 1982: the standard error of an area A from 40 rows of each label
    area, q1 = float(np.mean(wins)), float(np.mean(wins)) / (2 - float(np.mean(wins)))
    q2 = 2 * area**2 / (1 + area)
    error = math.sqrt((area * (1 - area) + 39 * (q1 - area**2) + 39 * (q2 - area**2)) / 1600)
    assert (found.objective.high - found.objective.low) / 2 == pytest.approx(1.96 * error, rel=0.25)


def test_it_is_drawn_in_the_same_way_each_time() -> None:
    first, second = [likelihoods(HARD)], [likelihoods(HARD[::-1])]
    assert compare(first, second, "perplexity") == compare(first, second, "perplexity")


def test_perplexities_of_different_tokenizers_have_no_ratio() -> None:
    other = likelihoods(HARD, tokens=12)
    found = compare([likelihoods(HARD)], [other], "perplexity")
    assert found.perplexity_ratio is None
    assert found.objective.difference == pytest.approx(0.0)


def test_only_what_was_scored_on_the_same_rows_is_compared() -> None:
    assert comparable([likelihoods(HARD)], [likelihoods(HARD)], "perplexity")
    assert not comparable([likelihoods(HARD)], [likelihoods(HARD[:9])], "perplexity")
    assert not comparable([likelihoods(HARD)], [], "perplexity")
    assert not comparable([likelihoods(HARD)], [likelihoods(HARD)], "reward")
    assert not comparable([graded([1.0, 0.0])], [graded([1.0])], "reward")
    assert not comparable([graded([1.0, 0.0], [True, False])], [graded([1.0, 0.0], [False, True])], "reward")


@pytest.mark.parametrize(("rows", "seeds", "wander"), [(30, 1, 0.0), (40, 3, 0.4)])
def test_about_95_of_100_intervals_hold_the_true_difference(rows: int, seeds: int, wander: float) -> None:
    """Rows of all lengths; two designs, one better by a tenth of a nat per token, and seeds that shift all rows."""
    draw = np.random.default_rng(11)
    held = 0
    for _ in range(200):
        lengths = draw.integers(10, 60, rows)
        hard = draw.gamma(4.0, 0.3, rows)

        def design(better: float, lengths: np.ndarray = lengths, hard: np.ndarray = hard) -> list[RowScores]:
            found = []
            for _ in range(seeds):
                rate = hard - better + draw.normal(0.0, 0.15, rows) + draw.normal(0.0, 0.15 * wander)
                nll = tuple(np.maximum(0.0, rate * lengths))
                found.append(RowScores(nll=nll, tokens=tuple(lengths.tolist()), bytes=tuple(map(float, lengths))))
            return found

        interval = compare(design(0.1), design(0.0), "perplexity", draws=500).objective
        held += interval.low <= -0.1 / math.log(2) <= interval.high
    assert 0.90 <= held / 200 <= 1.0
    if seeds == 1:
        assert held < 200
