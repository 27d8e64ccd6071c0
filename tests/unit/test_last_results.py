"""Which trials get a result when the budget is spent: the default and one design, if they can end at any step."""

import pytest

from luthier.trial import TrialState
from search.policy.history import Past
from search.policy.last_results import to_wrap_up
from tests.unit.search_samples import complete
from tests.unit.test_scheduler_budget import DESIGNS, past

LEASED = TrialState.LEASED


def numbers(*history: Past) -> list[int]:
    return [past.number for past in to_wrap_up(history)]


def test_the_default_and_the_best_design_are_those_that_get_a_result() -> None:
    paused = [past(1, 5.0, seconds=1.0), past(2, 4.0, seconds=1.0), past(3, 3.0, seconds=1.0)]
    assert numbers(*paused) == [3, 1]
    assert numbers(paused[0], complete(2, DESIGNS[2], 9.0), paused[2]) == [1], "a design is complete"
    assert numbers(complete(1, DESIGNS[1], 9.0), *paused[1:]) == [3], "the default alone is not enough"
    assert numbers(complete(1, DESIGNS[1], 9.0), complete(2, DESIGNS[2], 9.0), paused[2]) == []


def test_a_design_further_on_comes_before_one_that_is_better_at_the_rung_below() -> None:
    further = past(2, 4.0, 3.5, seconds=3.0, goal=1)
    assert numbers(past(1, 5.0, seconds=1.0), further, past(3, 4.5, seconds=1.0)) == [2, 1]


@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.PRUNED, TrialState.CANCELLED])
def test_a_trial_that_has_ended_is_not_resumed(state: TrialState) -> None:
    ended = past(3, 3.0, seconds=1.0, state=state)
    assert numbers(past(1, 5.0, seconds=1.0), past(2, 4.0, seconds=1.0), ended) == [2, 1]


def test_a_trial_of_fixed_length_or_without_a_score_is_not_among_them() -> None:
    fixed = [past(number, 1.0, seconds=1.0, fixed=True) for number in (1, 2)]
    unscored = past(3, seconds=1.0, state=LEASED)
    assert numbers(*fixed, unscored) == []
    assert numbers(*fixed, unscored, past(4, 6.0, seconds=1.0)) == [4]


def test_a_trial_stays_chosen_while_others_that_still_run_become_better() -> None:
    """Otherwise it would be stopped when they are scored, and these have been stopped before."""
    resumed = past(2, 4.0, seconds=1.0, goal=None)
    assert numbers(resumed, past(3, 3.0, seconds=1.0, state=LEASED)) == [2]
    assert numbers(past(2, 4.0, seconds=1.0), past(3, 3.0, seconds=1.0, state=LEASED)) == [3]
