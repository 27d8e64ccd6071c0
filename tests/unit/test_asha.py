"""Who pauses at a rung, who goes on, and whose checkpoint nobody needs any more."""

import pytest

from luthier.task import DataKind, Pin
from luthier.trial import RUNGS, TrialState, rung_name
from search.policy.asha import ETA, above, goes_on, not_promotable, overall_ranking, promotable, rung_score
from search.policy.history import Past, RungScore
from search.policy.priors import baselines
from tests.unit.search_samples import AtRandom, scored, space_of

SPACE = space_of()
ALIVE = (TrialState.WAITING, TrialState.LEASED)
ENDED = [state for state in TrialState if state.terminal]


def past(number: int, *scores: float, goal: int | None = 0, **fields: object) -> Past:
    """A trial that scored so at its rungs, and waits."""
    design = SPACE.sample(AtRandom(number))
    return Past(
        **{
            "number": number,
            "design": design,
            "state": TrialState.WAITING,
            "goal": goal,
            "measured": scored(*scores),
            **fields,
        }
    )


def complete(number: int, *scores: float) -> Past:
    return past(number, *scores, goal=None, state=TrialState.COMPLETE, value=scores[-1])


def at_first(*scores: float) -> list[Past]:
    """Trials 2, 3, … that pause at the first rung with these scores."""
    return [past(number, score) for number, score in enumerate(scores, 2)]


def of(kind: DataKind, recipe: str, number: int, *scores: float, **fields: object) -> Past:
    space = space_of(kind, Pin(algorithm=(recipe,)))
    return past(number, *scores, design=space.sample(AtRandom(number)), **fields)


def preferred(recipe: str, number: int, *scores: float, **fields: object) -> Past:
    return of(DataKind.PREFERENCE, recipe, number, *scores, **fields)


def numbers(found: list[Past]) -> list[int]:
    return [one.number for one in found]


def test_rungs_are_shares_of_the_training_that_people_can_read() -> None:
    assert [rung_name(rung) for rung in range(len(RUNGS))] == ["1/9", "1/3"]
    assert [above(rung) for rung in range(len(RUNGS))] == [1, None]


@pytest.mark.parametrize("count", range(3))
def test_of_fewer_than_three_nobody_is_promoted(count: int) -> None:
    assert promotable(at_first(*range(count))) is None


@pytest.mark.parametrize(("count", "places"), [(3, 1), (5, 1), (6, 2), (8, 2), (9, 3), (20, 6)])
def test_those_promoted_are_the_best_third(count: int, places: int) -> None:
    history = at_first(*(float((7 * i) % count) for i in range(count)))
    best = sorted(history, key=lambda one: one.measured)[:places]
    promoted = []
    while (one := promotable(history)) is not None:
        promoted.append(one)
        history = [past(p.number, p.measured[0].value, goal=1) if p.number == one.number else p for p in history]
    assert promoted == best, "the best of them first"


def test_equal_objectives_are_told_apart_by_the_second_figure_and_then_by_number() -> None:
    history = [past(n, measured=(RungScore(0.5, (0.5, bits)),)) for n, bits in ((2, 0.9), (3, 0.7), (4, 0.7))]
    assert numbers(rung_score(history, 0)) == [3, 4, 2]
    assert promotable(history) == history[1]


def test_a_place_is_won_among_all_that_were_ever_scored_there() -> None:
    ended = [past(2, 1.0, goal=None, state=state, value=1.0) for state in ENDED]
    for better in ended:
        assert promotable([better, past(3, 2.0), past(4, 3.0)]) is None, "the one place is taken"


def test_a_trial_that_paused_is_promoted_when_worse_ones_have_come() -> None:
    history = at_first(1.0, 2.0)
    assert promotable(history) is None
    history.append(past(4, 3.0))
    assert promotable(history) == history[0]


def test_the_best_third_of_each_sort_goes_on_too() -> None:
    early = [preferred("sft", number, float(number)) for number in (2, 3, 4)]
    late = [preferred(recipe, number, 10.0 + number) for number, recipe in ((5, "simpo"), (6, "dpo"), (7, "simpo"))]
    assert promotable([*early, *late[:2]]) == early[0]
    went_on = preferred("sft", 2, 2.0, goal=1)
    rest = [went_on, *early[1:]]
    assert promotable([*rest, *late[:2]]) is None, "of the late ones there are two only"
    assert promotable([*rest, *late[1:], preferred("sft+dpo", 8, 20.0)]) == early[1], "the one place more of all"
    second = preferred("sft", 3, 3.0, goal=1)
    assert promotable([went_on, second, early[2], *late]) == late[0], "the best of three that prefer"
    assert goes_on([went_on, second, early[2], *late], 5)
    assert not goes_on([went_on, second, early[2], *late], 6)


def test_who_may_yet_lead_its_own_sort_is_not_not_promotable() -> None:
    early = [preferred("sft", number, float(number)) for number in range(2, 8)]
    late = [preferred("simpo", number, 10.0 + number) for number in (8, 9)]
    assert numbers(not_promotable([*early, *late], 0, finalists=0)) == [4, 5, 6, 7, 8, 9]
    assert 8 not in numbers(not_promotable([*early, *late], 1, finalists=0))
    assert 9 in numbers(not_promotable([*early, *late], 1, finalists=0))


def test_the_higher_rung_comes_first() -> None:
    first = at_first(0.1, 0.2, 0.3)
    second = [past(number, 9.0, float(number), goal=1) for number in range(10, 13)]
    assert promotable([*first, *second]) == second[0]
    assert promotable([*first, *second[1:]]) == first[0], "of two at the second rung none has a place yet"


def test_only_what_pauses_is_promoted() -> None:
    waiting = [past(2, 1.0, goal=1), past(2, 1.0, goal=None), past(2, 1.0, state=TrialState.LEASED)]
    for one in waiting:
        assert promotable([one, past(3, 2.0), past(4, 3.0)]) is None


def test_confirmations_are_not_compared_at_rungs() -> None:
    history = [*at_first(1.0, 2.0), past(4, 3.0, goal=None, confirms=2)]
    assert numbers(rung_score(history, 0)) == [2, 3]
    assert promotable(history) is None


@pytest.mark.parametrize(("score", "wanted"), [(0.5, True), (1.5, False), (9.0, False)])
def test_a_trial_goes_on_without_pausing_when_it_is_among_the_best(score: float, wanted: bool) -> None:
    history = [*at_first(1.0, 2.0), past(9, score, state=TrialState.LEASED)]
    assert goes_on(history, 9) is wanted


def test_the_first_to_arrive_pause_whatever_they_score() -> None:
    assert not goes_on([past(2, 0.0, state=TrialState.LEASED)], 2)


def test_nothing_is_hopeless_as_long_as_enough_may_come() -> None:
    history = at_first(1.0, 2.0, 3.0, 4.0)
    assert not_promotable(history, coming=8, finalists=1) == []


@pytest.mark.parametrize(("coming", "lost"), [(8, []), (5, [5]), (2, [4, 5]), (0, [3, 4, 5])])
def test_hopeless_are_those_whom_all_that_come_cannot_lift_into_the_best_third(coming: int, lost: list[int]) -> None:
    assert numbers(not_promotable(at_first(1.0, 2.0, 3.0, 4.0), coming, finalists=1)) == lost


def test_what_is_still_on_its_way_to_a_rung_may_lift_others_there() -> None:
    history = at_first(1.0, 2.0, 3.0)
    assert numbers(not_promotable(history, 0, finalists=1)) == [3, 4]
    climbing = [past(number, state=state) for number, state in enumerate((*ALIVE, TrialState.LEASED), 20)]
    assert numbers(not_promotable([*history, *climbing], 0, finalists=1)) == [4]
    failed = [past(number, state=TrialState.FAILED) for number in range(20, 26)]
    assert numbers(not_promotable([*history, *failed], 0, finalists=1)) == [3, 4]


def test_as_many_are_kept_as_are_trained_to_the_end_whatever_their_place() -> None:
    history = at_first(1.0, 2.0, 3.0, 4.0)
    assert numbers(not_promotable(history, 0, finalists=3)) == [5]
    assert numbers(not_promotable([complete(9, 0.5, 0.5), *history], 0, finalists=3)) == [4, 5], (
        "a complete one is one of them"
    )
    assert numbers(not_promotable([complete(1, 0.5, 0.5), *history], 0, finalists=3)) == [5], "the default is not"
    failed = past(9, 0.5, goal=None, state=TrialState.FAILED)
    assert numbers(not_promotable([failed, *history], 0, finalists=3)) == [5], "nor is one that failed"


def test_hopeless_are_only_those_that_pause() -> None:
    history = [*at_first(1.0, 2.0), past(8, 8.0, state=TrialState.LEASED), past(9, 9.0, goal=None)]
    assert numbers(not_promotable(history, 0, finalists=1)) == [3]


def test_each_rung_has_its_own_places() -> None:
    second = [past(number, 1.0, float(number), goal=1) for number in range(10, 13)]
    assert numbers(not_promotable(second, 0, finalists=1)) == [11, 12]
    first = at_first(*(float(n) for n in range(2, 8)))
    found = not_promotable([*first, *second], 0, finalists=1)
    assert [n for n in numbers(found) if n >= 10] == [], "six at the first rung may still arrive at the second"


def test_a_hopeless_trial_is_never_promoted_afterwards() -> None:
    """Trials arrive one by one in any order; whoever was hopeless at some time is never promotable later."""
    for seed in range(20):
        draw = AtRandom(seed)
        scores = [draw.log_uniform("score", 0.1, 10.0) for _ in range(24)]
        history: list[Past] = []
        given_up: set[int] = set()
        for number, score in enumerate(scores):
            history.append(past(number + 2, score))
            while (one := promotable(history)) is not None:
                assert one.number not in given_up
                history = [past(p.number, p.measured[0].value, goal=1) if p == one else p for p in history]
            given_up |= set(numbers(not_promotable(history, len(scores) - number - 1, finalists=0)))
        promoted = {one.number for one in history if one.goal == 1}
        assert promoted | given_up == {one.number for one in history}, "in the end nobody is left in doubt"
        assert len(promoted) >= len(scores) // ETA


def test_baselines_are_scored_at_rungs_too() -> None:
    default = Past(
        number=1,
        design=baselines(SPACE)[1],
        state=TrialState.COMPLETE,
        value=0.5,
        measured=scored(0.5, 0.4),
    )
    assert promotable([default, past(2, 1.0), past(3, 2.0)]) is None, "the default has the one place"


def test_the_order_of_all_is_that_of_the_rung_where_those_who_went_on_share_out_their_places() -> None:
    stopped = [past(2, 1.0), past(4, 3.0), past(6, 5.0)]
    went_on = [past(3, 2.0, 9.0, goal=1), past(5, 4.0, 8.0, goal=1)]
    assert numbers(overall_ranking([*stopped, *went_on])) == [2, 5, 4, 3, 6]


def test_what_is_known_of_the_end_goes_before_what_rungs_said() -> None:
    lucky, good, paused = complete(2, 1.0, 1.0, 7.0), complete(3, 2.0, 2.0, 6.0), past(4, 3.0)
    assert numbers(overall_ranking([lucky, good, paused])) == [3, 2, 4]


def test_the_order_leaves_out_what_was_never_scored_the_untuned_model_and_confirmations() -> None:
    untuned = Past(number=0, design=baselines(SPACE)[0], state=TrialState.COMPLETE, value=0.0)
    again = complete(9, 1.0, 1.0, 1.0).model_copy(update={"confirms": 2})
    assert numbers(overall_ranking([untuned, past(7), past(2, 1.0), again])) == [2]
