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
DESIGNS = samples(SPACE, 12)
PLAN = Plan(trials=12, finalists=1, confirmations=0, seed=0, early_finish=False)


def past(number: int, *rungs: float, seconds: float, state: TrialState = TrialState.WAITING, goal: int = 0) -> Past:
    return Past(
        number=number,
        design=DESIGNS[number],
        state=state,
        goal=goal,
        measured=scored(*rungs),
        device_seconds=seconds,
    )


def start() -> list[Past]:
    """The baselines; a whole training takes 9 seconds."""
    untuned = complete(0, UNTUNED, 9.0, device_seconds=2.0)
    return [untuned, complete(1, DEFAULT, 5.0, device_seconds=9.0)]


def step(history: list[Past], remaining: float | None) -> object:
    return next_step(SPACE, history, PLAN, remaining=remaining, why_infeasible=lambda design: None)


def test_a_whole_training_is_known_from_the_end_and_from_rungs() -> None:
    assert scheduler.full_training_seconds([]) == 0.0
    assert scheduler.full_training_seconds(start()) == 9.0, "judging the untuned model is no training"
    assert scheduler.full_training_seconds([*start(), past(2, 1.0, seconds=3.0)]) == pytest.approx((9 + 27) / 2)
    assert scheduler.full_training_seconds([*start(), past(2, seconds=3.0)]) == 9.0, "of what runs nothing is known yet"


def test_what_runs_has_its_share_of_the_budget() -> None:
    assert scheduler.committed_seconds(start()) == 0.0
    running = past(2, seconds=0.25, state=TrialState.LEASED)
    assert scheduler.committed_seconds([*start(), running]) == pytest.approx(1.0 - 0.25)
    promoted = past(2, 1.0, seconds=1.5, goal=1, state=TrialState.LEASED)
    assert scheduler.committed_seconds([*start(), promoted]) == pytest.approx(3.0 - 1.5)
    again = running.model_copy(update={"confirms": 1, "goal": None})
    assert scheduler.committed_seconds([*start(), again]) == pytest.approx(9.0 - 0.25)
    late = past(2, seconds=4.0, state=TrialState.LEASED)
    assert scheduler.committed_seconds([*start(), late]) == 0.0


def test_going_on_takes_what_the_trial_itself_tells() -> None:
    assert scheduler.continuation_seconds(past(2, 1.0, seconds=2.0), 1) == pytest.approx(4.0)
    assert scheduler.continuation_seconds(past(2, 1.0, seconds=2.0), None) == pytest.approx(16.0)
    assert scheduler.continuation_seconds(past(2, 1.0, 1.0, seconds=2.0, goal=1), None) == pytest.approx(4.0)


@pytest.mark.parametrize(("remaining", "begun"), [(None, True), (10.5, True), (9.5, False), (0.0, False)])
def test_a_design_is_tried_where_one_can_be_finished_besides(remaining: float | None, begun: bool) -> None:
    assert isinstance(step(start(), remaining), Try) is begun


def test_a_design_is_not_tried_on_what_others_are_going_to_use() -> None:
    running = past(2, seconds=0.0, state=TrialState.LEASED)
    assert isinstance(step([*start(), running], 11.5), Try)
    assert step([*start(), running], 10.5) is None


@pytest.mark.parametrize(("remaining", "taken"), [(None, True), (20.0, True), (1.9, False)])
def test_a_trial_is_promoted_where_the_budget_suffices_for_it(remaining: float | None, taken: bool) -> None:
    paused = [past(number, float(number), seconds=1.0) for number in (2, 3, 4)]
    found = step([*start(), *paused], remaining)
    assert found == (Promote(number=2, goal=1) if taken else RESERVED)


def test_the_best_is_not_trained_to_the_end_where_that_would_be_cut_off() -> None:
    second = past(2, 2.0, 2.0, seconds=3.0, goal=1)
    assert step([*start(), second], 6.5) == Promote(number=2, goal=None)
    assert step([*start(), second], 5.5) == RESERVED


@pytest.mark.parametrize(("remaining", "wanted"), [(None, True), (2.5, True), (1.5, False)])
def test_who_is_among_the_best_pauses_all_the_same_where_the_budget_does_not_suffice(
    remaining: float | None, wanted: bool
) -> None:
    history = [*start(), *[past(number, float(number), seconds=1.0) for number in (3, 4)]]
    arrived = past(2, 1.0, seconds=1.0, state=TrialState.LEASED)
    assert goes_on([*history, arrived], 2, remaining) is wanted


def test_no_seed_is_begun_that_the_budget_does_not_suffice_for() -> None:
    confirming = PLAN.model_copy(update={"confirmations": 1, "trials": 3})
    done = [*start(), complete(2, DESIGNS[2], 1.0, device_seconds=3.0)]
    found = [
        next_step(SPACE, done, confirming, remaining=remaining, why_infeasible=lambda design: None)
        for remaining in (4.0, 2.0)
    ]
    assert not isinstance(found[0], End)
    assert isinstance(found[1], End)
