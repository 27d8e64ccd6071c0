"""What steps are expected to take, and that nothing is begun that the budget is not expected to suffice for."""

import pytest

from luthier.trial import TrialState
from search.policy import scheduler
from search.policy.history import Past
from search.policy.priors import baselines
from search.policy.scheduler import RESERVED, End, Plan, Promote, Try, goes_on, next_step
from tests.unit.search_samples import complete, samples, scored, space_of

SPACE = space_of()
UNTUNED, DEFAULT = baselines(SPACE)
DESIGNS, FIXED_DESIGNS = samples(SPACE, 12), samples(space_of(schedule="cosine"), 12)
PLAN = Plan(trials=12, finalists=1, confirmations=0, seed=0, early_finish=False)


def past(
    number: int,
    *rungs: float,
    seconds: float,
    state: TrialState = TrialState.WAITING,
    goal: int | None = 0,
    fixed: bool = False,
) -> Past:
    """A trial that scored so at its rungs; `fixed`: the length of its training is."""
    design = (FIXED_DESIGNS if fixed else DESIGNS)[number]
    return Past(number=number, design=design, state=state, goal=goal, measured=scored(*rungs), device_seconds=seconds)


FIRST = 9.0 / 3**1.5  # seconds to the first rung, if a training of 9 seconds ends between the second and the third one


def start() -> list[Past]:
    """The baselines; a whole training takes 9 seconds, and ends before the third rung."""
    untuned = complete(0, UNTUNED, 9.0, device_seconds=2.0)
    default = complete(1, DEFAULT, 5.0, device_seconds=9.0)
    return [untuned, default.model_copy(update={"measured": scored(7.0, 6.0, 5.0)})]


def step(history: list[Past], remaining: float | None, plan: Plan = PLAN) -> object:
    return next_step(SPACE, history, plan, remaining=remaining, why_infeasible=lambda design: None)


def test_the_time_of_a_full_training_is_the_mean_of_complete_trials() -> None:
    assert scheduler.full_training_seconds([]) == 0.0
    assert scheduler.full_training_seconds(start()) == 9.0, "judging the untuned model is no training"
    done = complete(2, DESIGNS[2], 4.0, device_seconds=3.0)
    assert scheduler.full_training_seconds([*start(), done]) == 6.0
    assert scheduler.full_training_seconds([*start(), past(2, seconds=3.0)]) == 9.0, "of what runs nothing is known yet"


def test_a_paused_trial_counts_as_a_full_training_only_as_far_as_its_length_is_known() -> None:
    first, second = (past(2, *[1.0] * (goal + 1), seconds=3.0, goal=goal) for goal in (0, 1))
    assert scheduler.full_training_seconds([*start(), first]) == 9.0
    assert scheduler.full_training_seconds([first]) == 27.0, "without any other, as if it ended at the third rung"
    assert scheduler.full_training_seconds([second]) == 9.0
    late = past(2, *[1.0] * 4, seconds=27.0, goal=3)
    assert scheduler.full_training_seconds([late]) == 81.0, "or at the next one"
    fixed = [past(2, *[1.0] * (goal + 1), seconds=3.0, goal=goal, fixed=True) for goal in (0, 1)]
    assert scheduler.full_training_seconds([*start(), fixed[0]]) == pytest.approx((9 + 27) / 2)
    assert scheduler.full_training_seconds([*start(), fixed[1]]) == pytest.approx((9 + 9) / 2)


def test_the_time_to_the_first_rung_is_estimated_from_how_many_rungs_trials_have_passed() -> None:
    assert scheduler.first_rung_seconds([]) == 0.0
    assert scheduler.first_rung_seconds(start()) == pytest.approx(FIRST)
    assert scheduler.first_rung_seconds([*start(), past(2, 1.0, seconds=3.0)]) == pytest.approx((FIRST + 3) / 2)
    second = past(2, 1.0, 1.0, seconds=6.0, goal=1)
    assert scheduler.first_rung_seconds([*start(), second]) == pytest.approx((FIRST + 2) / 2)
    running = past(2, seconds=50.0, state=TrialState.LEASED)
    assert scheduler.first_rung_seconds([*start(), running]) == pytest.approx(FIRST)
    fixed = [complete(2, FIXED_DESIGNS[2], 1.0, device_seconds=9.0), past(3, 1.0, 1.0, seconds=3.0, goal=1, fixed=True)]
    assert scheduler.first_rung_seconds(fixed) == pytest.approx(1.0)


def test_running_trials_have_their_share_of_the_budget() -> None:
    assert scheduler.committed_seconds(start()) == 0.0
    running = past(2, seconds=0.25, state=TrialState.LEASED)
    assert scheduler.committed_seconds([*start(), running]) == pytest.approx(FIRST - 0.25)
    promoted = past(2, 1.0, seconds=1.5, goal=1, state=TrialState.LEASED)
    assert scheduler.committed_seconds([*start(), promoted]) == pytest.approx(3 * FIRST - 1.5)
    far = past(2, 1.0, 1.0, 1.0, seconds=12.0, goal=3, state=TrialState.LEASED)
    assert scheduler.committed_seconds([*start(), far]) == pytest.approx(27 * FIRST - 12.0)
    finalist = past(2, 1.0, seconds=1.5, goal=None, state=TrialState.LEASED)
    assert scheduler.committed_seconds([*start(), finalist]) == pytest.approx(9.0 - 1.5)
    again = running.model_copy(update={"confirms": 1, "goal": None})
    assert scheduler.committed_seconds([*start(), again]) == pytest.approx(9.0 - 0.25)
    late = past(2, seconds=4.0, state=TrialState.LEASED)
    assert scheduler.committed_seconds([*start(), late]) == 0.0


@pytest.mark.parametrize(("at", "goal", "times"), [(0, 1, 3), (0, 2, 9), (1, 2, 3), (3, 4, 3)])
def test_the_time_to_reach_a_later_rung_is_estimated_from_the_trial_itself(at: int, goal: int, times: int) -> None:
    one = past(2, *[1.0] * (at + 1), seconds=2.0, goal=at)
    assert scheduler.continuation_seconds([*start(), one], one, goal) == pytest.approx(2.0 * times - 2.0)


@pytest.mark.parametrize(("seconds", "left"), [(2.0, 7.0), (5.0, 4.0), (6.0, 3.0), (8.0, 4.0), (30.0, 15.0)])
def test_a_training_without_a_fixed_length_is_expected_to_be_as_long_as_others_and_never_just_at_its_end(
    seconds: float, left: float
) -> None:
    one = past(2, 1.0, seconds=seconds)
    assert scheduler.continuation_seconds([*start(), one], one, None) == pytest.approx(left)


def test_the_time_to_the_end_of_a_training_of_fixed_length_is_known() -> None:
    first, second = past(2, 1.0, seconds=2.0, fixed=True), past(2, 1.0, 1.0, seconds=2.0, goal=1, fixed=True)
    assert scheduler.continuation_seconds(start(), first, 1) == pytest.approx(4.0)
    assert scheduler.continuation_seconds(start(), first, None) == pytest.approx(16.0)
    assert scheduler.continuation_seconds(start(), second, None) == pytest.approx(4.0)


@pytest.mark.parametrize(("remaining", "begun"), [(None, True), (10.8, True), (10.7, False), (0.0, False)])
def test_a_design_is_tried_if_the_budget_also_covers_finishing_one(remaining: float | None, begun: bool) -> None:
    assert isinstance(step(start(), remaining), Try) is begun


def test_a_design_is_not_tried_on_budget_that_running_trials_need() -> None:
    running = past(2, seconds=0.0, state=TrialState.LEASED)
    assert isinstance(step([*start(), running], 12.5), Try)
    assert step([*start(), running], 12.4) is None


@pytest.mark.parametrize(("remaining", "taken"), [(None, True), (20.0, True), (1.9, False)])
def test_a_trial_is_promoted_if_the_budget_covers_it(remaining: float | None, taken: bool) -> None:
    paused = [past(number, float(number), seconds=1.0) for number in (2, 3, 4)]
    done = complete(5, DESIGNS[5], 9.0, device_seconds=9.0)
    found = step([*start(), *paused, done], remaining)
    assert found == (Promote(number=2, goal=1) if taken else RESERVED)


def test_the_best_is_not_trained_to_the_end_if_the_budget_would_stop_it_and_there_is_another() -> None:
    second = past(2, 2.0, 2.0, seconds=3.0, goal=1)
    done = complete(3, DESIGNS[3], 9.0, device_seconds=9.0)
    four = PLAN.model_copy(update={"trials": 4, "confirmations": 0})
    assert step([*start(), second, done], 6.5, four) == Promote(number=2, goal=None)
    assert isinstance(step([*start(), second, done], 5.5, four), End)


@pytest.mark.parametrize("fixed", [False, True])
def test_one_design_and_the_default_end_whatever_is_left_if_they_can_end_at_any_step(fixed: bool) -> None:
    """Each of them alone: what is left is just enough to score it."""
    base, ended = start()
    waiting = past(1, 3.0, seconds=3.0, fixed=fixed).model_copy(update={"number": 1})
    design = past(2, 2.0, seconds=3.0, fixed=fixed)
    rest = 0.1
    assert step([base, ended, design], rest) == (RESERVED if fixed else Promote(number=2, goal=None))
    running = design.model_copy(update={"state": TrialState.LEASED, "goal": None})
    assert step([base, waiting, running], rest) is None, "the budget is that of the design"
    done = complete(2, DESIGNS[2], 1.0, device_seconds=3.0)
    assert step([base, waiting, done], rest) == (RESERVED if fixed else Promote(number=1, goal=None))
    assert step([base, waiting, done], 0.0) == RESERVED


@pytest.mark.parametrize(("remaining", "wanted"), [(None, True), (2.5, True), (1.5, False)])
def test_a_trial_among_the_best_pauses_if_the_budget_does_not_cover_it(remaining: float | None, wanted: bool) -> None:
    history = [*start(), *[past(number, float(number), seconds=1.0) for number in (3, 4)]]
    arrived = past(2, 1.0, seconds=1.0, state=TrialState.LEASED)
    assert goes_on([*history, arrived], 2, remaining) is wanted


def test_a_trial_at_a_late_rung_goes_on_if_the_budget_covers_twice_what_it_took() -> None:
    late = [past(number, *[float(number)] * 4, seconds=27.0, goal=3) for number in (2, 3, 4)]
    assert step([*start(), *late], 55.0) == Promote(number=2, goal=4)
    assert step([*start(), *late], 53.0) == Promote(number=2, goal=None), (
        "the best one ends, if that is expected to fit"
    )
    done = complete(5, DESIGNS[5], 9.0, device_seconds=9.0)
    assert step([*start(), *late, done], 13.0) == RESERVED


def test_no_repeat_is_started_that_the_budget_does_not_cover() -> None:
    confirming = PLAN.model_copy(update={"confirmations": 1, "trials": 3})
    done = [*start(), complete(2, DESIGNS[2], 1.0, device_seconds=3.0)]
    found = [
        next_step(SPACE, done, confirming, remaining=remaining, why_infeasible=lambda design: None)
        for remaining in (4.0, 2.0)
    ]
    assert not isinstance(found[0], End)
    assert isinstance(found[1], End)
