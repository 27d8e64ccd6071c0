"""Repeats on further splits of the rows: harder splits must not make a design look worse than one without them."""

import itertools
import math

import numpy as np
import pytest

from luthier.trial import TrialState
from search.policy.history import Past
from search.policy.priors import baselines
from search.policy.ranking import (
    best,
    comparable_means,
    finalists,
    means,
    on_same_rows,
    rank,
    split_effects,
)
from search.policy.scheduler import Repeat
from search.report.resolution import SPREAD
from tests.unit.search_samples import AtRandom, complete, space_of
from tests.unit.test_plan import Job, of_kind, plan_of

SPACE = space_of()
BASE, DEFAULT = baselines(SPACE)
HARDER = {0: 0.0, 1: 0.5, 2: -0.2}


def first(number: int, value: float) -> Past:
    return complete(number, DEFAULT if number == 1 else SPACE.sample(AtRandom(number)), value)


def repeat(number: int, of: Past, split: int, value: float) -> Past:
    return complete(number, of.design, value).model_copy(update={"confirms": of.number, "split": split})


def scored(*designs: tuple[int, float, tuple[int, ...]]) -> list[Past]:
    """Each design's number, quality, and the further splits that it is repeated on."""
    history = [first(number, value + HARDER[0]) for number, value, _ in designs]
    numbers = itertools.count(100)
    for past, (_, value, splits) in zip(tuple(history), designs, strict=True):
        history += [repeat(next(numbers), past, split, value + HARDER[split]) for split in splits]
    return history


def test_means_are_those_of_the_trials_and_the_effects_those_of_the_splits() -> None:
    history = scored((1, 1.0, (1, 2)), (2, 0.9, (1, 2)), (3, 0.8, ()))
    assert means(history) == pytest.approx({1: 1.1, 2: 1.0, 3: 0.8})
    assert split_effects(history) == pytest.approx(HARDER)
    assert comparable_means(history) == pytest.approx({1: 1.0, 2: 0.9, 3: 0.8})


def test_without_further_splits_the_means_are_left_as_they_are() -> None:
    history = [first(1, 0.1), first(2, 0.3), repeat(3, first(2, 0.3), 0, 0.7)]
    assert comparable_means(history) == means(history)


def test_a_design_on_a_harder_split_still_beats_the_base_of_the_first_one() -> None:
    history = [complete(0, BASE, 1.1), *scored((1, 1.05, (1,)), (2, 1.0, (1,)))]
    assert means(history)[2] > 1.1
    choice = best(history)
    assert choice is not None
    assert (choice.trial.number, choice.beats_base, choice.beats_default) == (2, True, True)


def test_an_easier_split_does_not_make_a_design_beat_the_base() -> None:
    history = [complete(0, BASE, 1.1), *scored((1, 1.3, (2,)), (2, 1.25, (2,)))]
    assert means(history)[2] == pytest.approx(1.15)
    choice = best([*history, repeat(200, history[2], 2, 0.6)])
    assert choice is not None
    assert not choice.beats_base


def test_finalists_with_different_splits_are_ranked_by_quality() -> None:
    history = scored((1, 1.0, (1, 2)), (2, 0.9, (1,)), (3, 0.95, (2,)), (4, 0.8, (1, 2)))
    assert [past.number for past in rank(history)] == [4, 2, 3, 1]
    by_mean = sorted(means(history), key=means(history).__getitem__)
    assert by_mean != [4, 2, 3, 1], "their plain means are in another order"


def test_equal_means_over_the_same_splits_stay_equal_so_that_the_cheaper_wins() -> None:
    history = scored((2, 0.7, (1, 2)), (3, 0.7, (1, 2)), (4, 0.9, (1, 2)))
    cheap = [past.model_copy(update={"device_seconds": 0.1}) if past.number == 3 else past for past in history]
    assert rank(cheap)[0].number == 3


def test_a_better_design_of_an_extended_search_replaces_finalists_of_a_harder_mean() -> None:
    history = scored((2, 0.9, (1,)), (3, 0.8, (1,)), (4, 0.85, ()), (5, 1.0, ()))
    assert [past.number for past in finalists(history, 2, extended_from=200)] == [3, 4], "5 is worse than 2"


def test_two_designs_compare_on_the_splits_that_both_have() -> None:
    history = scored((1, 1.0, (1, 2)), (2, 0.9, (1,)), (3, 0.7, ()))
    assert on_same_rows(history, 1, 2) == pytest.approx((1.25, 1.15))
    assert on_same_rows(history, 3, 1) == pytest.approx((0.7, 1.0))


def test_a_split_that_only_one_design_has_tells_nothing_about_it() -> None:
    history = scored((1, 1.0, ()), (2, 0.9, (1,)))
    assert comparable_means(history) == pytest.approx({1: 1.0, 2: 0.9})


def test_unfinished_repeats_change_nothing() -> None:
    history = scored((1, 1.0, (1,)), (2, 0.9, (1,)))
    open_ = repeat(300, history[1], 2, 9.0).model_copy(update={"state": TrialState.LEASED, "value": None})
    assert comparable_means([*history, open_]) == comparable_means(history)


def test_all_finalists_are_repeated_on_one_split_before_the_next() -> None:
    job = Job(plan_of(9).model_copy(update={"resplit": True}))
    job.run()
    steps = of_kind(job.steps, Repeat)
    assert [step.seed_offset for step in steps] == [1] * 4 + [2] * 4
    assert {step.number for step in steps[:4]} == {step.number for step in steps[4:]}
    assert 1 in {step.number for step in steps[:4]}


def picked(*, further_splits: bool, draws: int = 1000, rows: int = 13) -> float:
    """How often the best of three finalists, which are 2 % apart, wins after two repeats.

    Two designs differ on a row by a standard deviation of SPREAD; seeds and training rows add one percent each.
    """
    draw, right = np.random.default_rng(3), 0
    row_noise = draw.normal(0, SPREAD["perplexity"] / math.sqrt(2 * rows), (draws, 3, 3))
    seed_noise, fold_noise = draw.normal(0, 0.01, (2, draws, 3, 3))
    harder = draw.normal(0, 0.1, (draws, 3))
    designs = [SPACE.sample(AtRandom(number)) for number in range(3)]
    for n in range(draws):
        history = list[Past]()
        for repeated, (number, one) in itertools.product(range(3), enumerate(designs)):
            split = repeated if further_splits else 0
            value = 1 + 0.02 * number + harder[n, split] + seed_noise[n, number, repeated]
            value += row_noise[n, number, split] + fold_noise[n, number, split]
            past = complete(10 + 3 * repeated + number, one, float(value))
            history.append(past.model_copy(update={"split": split, "confirms": 10 + number if repeated else None}))
        right += rank(history)[0].number == 10
    return right / draws


def test_three_splits_pick_the_best_finalist_more_often_than_three_seeds_on_the_same_rows() -> None:
    same_rows, splits = picked(further_splits=False), picked(further_splits=True)
    assert (same_rows, splits) == (pytest.approx(0.77, abs=0.03), pytest.approx(0.90, abs=0.03))
