"""What a budget is expected to buy, against what the scheduler makes of it."""

import pytest

from search.policy.forecast import forecast
from search.policy.scheduler import Plan
from search.space.space import Space
from tests.unit.test_plan import FIXED, SPACE, Job, plan_of


@pytest.mark.parametrize(("budget", "trials"), [(9.0, 6), (4.5, 6), (2.5, 6), (9.0, 24), (20.0, 24), (60.0, 24)])
@pytest.mark.parametrize("space", [SPACE, FIXED], ids=["constant", "cosine"])
def test_a_forecast_is_close_to_what_the_search_does(space: Space, budget: float, trials: int) -> None:
    """In the simulated job the untuned base and every full training take 1 second."""
    plan = plan_of(trials)
    job = Job(plan, space=space, budget=budget)
    job.run()
    searched = [past for past in job.trials[2:] if past.confirms is None]
    repeats = sum(past.confirms is not None for past in job.trials)
    found = forecast(plan, untuned=1.0, full=1.0, budget=budget, default_pauses=space is SPACE)
    assert found.designs == pytest.approx(len(searched), abs=max(1, trials // 6))
    assert found.finished == pytest.approx(sum(past.value is not None for past in searched), abs=2)
    assert found.repeats == pytest.approx(repeats, abs=2)
    assert found.device_seconds <= budget


@pytest.mark.parametrize("budget", [30.0, 60.0, 120.0])
def test_a_forecast_is_close_where_trainings_have_more_rungs(budget: float) -> None:
    """Each full training takes 9 seconds, and is compared at 1/81, 1/27, 1/9 and 1/3 of it."""
    job = Job(plan_of(24), length=lambda past: 9.0, budget=budget)
    job.run()
    searched = [past for past in job.trials[2:] if past.confirms is None]
    rungs = [1 / 3**n for n in (4, 3, 2, 1)]
    found = forecast(plan_of(24), untuned=1.0, full=9.0, budget=budget, rungs=rungs)
    assert found.designs == pytest.approx(len(searched), abs=4)
    assert found.finished == pytest.approx(sum(past.value is not None for past in searched), abs=1)
    assert found.repeats == pytest.approx(sum(past.confirms is not None for past in job.trials), abs=1)
    assert found.device_seconds <= budget


def test_the_rungs_decide_how_many_designs_a_budget_buys() -> None:
    plan = plan_of(24)
    whole, early, late = (
        forecast(plan, untuned=1.0, full=9.0, budget=40.0, rungs=rungs).designs for rungs in ((), (1 / 81,), (1 / 3,))
    )
    assert 0 < whole < late < early


def test_without_a_limit_all_is_bought() -> None:
    found = forecast(Plan(trials=24, finalists=3, confirmations=2, seed=0), untuned=1.0, full=9.0, budget=None)
    assert (found.designs, found.finished, found.repeats) == (22, 3, 8)
    assert found.device_seconds == pytest.approx(1 + 9 + 22 + 7 * 2 + 3 * 6 + 8 * 9, abs=9)


def test_a_budget_that_ends_at_the_first_rung_buys_no_design() -> None:
    for budget in (0.5, 1.0, 1.2):
        found = forecast(plan_of(24), untuned=1.0, full=1.0, budget=budget)
        assert (found.designs, found.finished) == (0, 0)


def test_90_device_seconds_for_6_trials_try_all_designs_before_any_repeat() -> None:
    """A full training takes 11 seconds, as on the job that once tried no design."""
    job = Job(plan_of(6), budget=90.0 / 11)
    job.run()
    origins = [past.confirms is not None for past in job.trials]
    assert origins[:6] == [False] * 6
    assert sum(past.value is not None for past in job.trials[2:6]) >= 3
    assert 0 < sum(origins) < 8


def test_rounds_are_the_repeats_that_every_finalist_gets() -> None:
    plan = Plan(trials=5, finalists=3, confirmations=2, seed=0)
    found = [forecast(plan, untuned=1.0, full=1.0, budget=5.0 + spare) for spare in (20.0, 7.5, 4.5, 3.5)]
    assert [(one.repeats, one.rounds) for one in found] == [(8, 2), (7, 1), (4, 1), (3, 0)]
