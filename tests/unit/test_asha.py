"""Which trials pause at a rung, which are promoted, and which can never be promoted any more."""

import pytest

from luthier.design import Design, Optimiser
from luthier.task import DataKind, Pin
from luthier.trial import RUNGS, TrialState, first_rung, rung_name, top_rung
from search.policy.asha import ETA, above, goes_on, not_promotable, overall_ranking, promotable, rung_score, rungs
from search.policy.history import Past, RungScore
from search.policy.priors import baselines
from search.space.space import Space
from tests.unit.search_samples import AtRandom, scored, space_of

SPACE, FIXED = space_of(), space_of(schedule="cosine")
ALIVE = (TrialState.WAITING, TrialState.LEASED)
ENDED = [state for state in TrialState if state.terminal]


def past(number: int, *scores: float, goal: int | None = 0, space: Space = SPACE, **fields: object) -> Past:
    """A trial that scored so at its rungs, and waits."""
    design = space.sample(AtRandom(number))
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


def complete(number: int, *scores: float, space: Space = SPACE) -> Past:
    return past(number, *scores, goal=None, state=TrialState.COMPLETE, value=scores[-1], space=space)


def at_first(*scores: float) -> list[Past]:
    """Trials 2, 3, … that pause at the first rung with these scores."""
    return [past(number, score) for number, score in enumerate(scores, 2)]


def of(kind: DataKind, recipe: str, number: int, *scores: float, **fields: object) -> Past:
    space = space_of(kind, Pin(algorithm=(recipe,)))
    return past(number, *scores, design=space.sample(AtRandom(number)), **fields)


def preferred(recipe: str, number: int, *scores: float, **fields: object) -> Past:
    return of(DataKind.PREFERENCE, recipe, number, *scores, **fields)


def lasting(epochs: float) -> Design:
    """Return a self-ending design of one stage that is limited to so many epochs."""
    design = SPACE.sample(AtRandom(0))
    optimiser = Optimiser(learning_rate=1e-4, epochs=epochs, schedule="constant")
    return design.model_copy(update={"stages": (design.stages[-1].model_copy(update={"optimiser": optimiser}),)})


def numbers(found: list[Past]) -> list[int]:
    return [one.number for one in found]


def test_a_training_of_fixed_length_has_two_rungs_at_shares_of_it_that_people_can_read() -> None:
    fixed = FIXED.sample(AtRandom(0))
    assert [rung_name(fixed, rung) for rung in range(len(RUNGS))] == ["1/9", "1/3"]
    assert [above(fixed, rung) for rung in range(len(RUNGS))] == [1, None]
    assert top_rung(fixed) == 1


def test_a_training_that_ends_at_its_best_moment_has_numbered_rungs_without_a_last_one() -> None:
    design = SPACE.sample(AtRandom(0))
    assert [rung_name(design, rung) for rung in range(4)] == ["rung 1", "rung 2", "rung 3", "rung 4"]
    assert [above(design, rung) for rung in (0, 1, 2, 9)] == [1, 2, 3, 10]
    assert top_rung(design) is None


@pytest.mark.parametrize(
    ("rows", "first"), [(39, 256), (1000, 256), (1024, 256), (4000, 1000), (8192, 2048), (10**6, 2048)]
)
def test_the_first_rung_lies_after_a_quarter_of_the_rows_within_limits(rows: int, first: int) -> None:
    assert first_rung(lasting(60.0), rows) == first


@pytest.mark.parametrize(
    ("rows", "epochs", "first"),
    [(10, 60.0, 66), (60, 1.0, 32), (300, 1.0, 33), (150, 3.0, 50), (1000, 1.0, 111), (1, 0.5, 32)],
)
def test_a_short_training_has_room_for_two_more_rungs(rows: int, epochs: float, first: int) -> None:
    assert first_rung(lasting(epochs), rows) == first


@pytest.mark.parametrize("count", range(3))
def test_of_fewer_than_three_none_is_promoted(count: int) -> None:
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


def test_ranks_count_all_trials_ever_scored_at_the_rung() -> None:
    ended = [past(2, 1.0, goal=None, state=state, value=1.0) for state in ENDED]
    for better in ended:
        assert promotable([better, past(3, 2.0), past(4, 3.0)]) is None, "the only promotion is taken"


def test_a_trial_that_paused_is_promoted_when_worse_ones_have_come() -> None:
    history = at_first(1.0, 2.0)
    assert promotable(history) is None
    history.append(past(4, 3.0))
    assert promotable(history) == history[0]


def test_the_best_third_of_each_objective_sequence_is_promoted_too() -> None:
    early = [preferred("sft", number, float(number)) for number in (2, 3, 4)]
    late = [preferred(recipe, number, 10.0 + number) for number, recipe in ((5, "simpo"), (6, "dpo"), (7, "simpo"))]
    assert promotable([*early, *late[:2]]) == early[0]
    went_on = preferred("sft", 2, 2.0, goal=1)
    rest = [went_on, *early[1:]]
    assert promotable([*rest, *late[:2]]) is None, "there are only two late trials"
    assert promotable([*rest, *late[1:], preferred("sft+dpo", 8, 20.0)]) == early[1], "one more promotion of all trials"
    second = preferred("sft", 3, 3.0, goal=1)
    assert promotable([went_on, second, early[2], *late]) == late[0], "the best of three preference trials"
    assert goes_on([went_on, second, early[2], *late], 5)
    assert not goes_on([went_on, second, early[2], *late], 6)


def test_a_trial_that_may_lead_its_objective_sequence_stays_promotable() -> None:
    early = [preferred("sft", number, float(number)) for number in range(2, 8)]
    late = [preferred("simpo", number, 10.0 + number) for number in (8, 9)]
    assert numbers(not_promotable([*early, *late], 0, finalists=0)) == [4, 5, 6, 7, 8, 9]
    assert 8 not in numbers(not_promotable([*early, *late], 1, finalists=0))
    assert 9 in numbers(not_promotable([*early, *late], 1, finalists=0))


def test_the_higher_rung_comes_first() -> None:
    first = at_first(0.1, 0.2, 0.3)
    second = [past(number, 9.0, float(number), goal=1) for number in range(10, 13)]
    assert promotable([*first, *second]) == second[0]
    assert promotable([*first, *second[1:]]) == first[0], "two at the second rung are too few for a promotion"


def test_only_what_pauses_is_promoted() -> None:
    waiting = [past(2, 1.0, goal=1), past(2, 1.0, goal=None), past(2, 1.0, state=TrialState.LEASED)]
    for one in waiting:
        assert promotable([one, past(3, 2.0), past(4, 3.0)]) is None


def test_repeats_are_not_compared_at_rungs() -> None:
    history = [*at_first(1.0, 2.0), past(4, 3.0, goal=None, confirms=2)]
    assert numbers(rung_score(history, 0)) == [2, 3]
    assert promotable(history) is None


@pytest.mark.parametrize(("score", "wanted"), [(0.5, True), (1.5, False), (9.0, False)])
def test_a_trial_goes_on_without_pausing_when_it_is_among_the_best(score: float, wanted: bool) -> None:
    history = [*at_first(1.0, 2.0), past(9, score, state=TrialState.LEASED)]
    assert goes_on(history, 9) is wanted


def test_the_first_to_arrive_pause_whatever_they_score() -> None:
    assert not goes_on([past(2, 0.0, state=TrialState.LEASED)], 2)


def test_every_trial_stays_promotable_while_enough_may_come() -> None:
    history = at_first(1.0, 2.0, 3.0, 4.0)
    assert not_promotable(history, coming=8, finalists=1) == []


@pytest.mark.parametrize(("coming", "lost"), [(8, []), (5, [5]), (2, [4, 5]), (0, [3, 4, 5])])
def test_a_trial_that_coming_trials_cannot_lift_into_the_best_third_is_not_promotable(
    coming: int, lost: list[int]
) -> None:
    assert numbers(not_promotable(at_first(1.0, 2.0, 3.0, 4.0), coming, finalists=1)) == lost


def test_trials_still_training_towards_a_rung_may_lift_others_there() -> None:
    history = at_first(1.0, 2.0, 3.0)
    assert numbers(not_promotable(history, 0, finalists=1)) == [3, 4]
    climbing = [past(number, state=state) for number, state in enumerate((*ALIVE, TrialState.LEASED), 20)]
    assert numbers(not_promotable([*history, *climbing], 0, finalists=1)) == [4]
    failed = [past(number, state=TrialState.FAILED) for number in range(20, 26)]
    assert numbers(not_promotable([*history, *failed], 0, finalists=1)) == [3, 4]


def test_finalists_are_kept_whatever_their_rank() -> None:
    history = at_first(1.0, 2.0, 3.0, 4.0)
    assert numbers(not_promotable(history, 0, finalists=3)) == [5]
    assert numbers(not_promotable([complete(9, 0.5, 0.5), *history], 0, finalists=3)) == [4, 5], (
        "a complete one is one of them"
    )
    assert numbers(not_promotable([complete(1, 0.5, 0.5), *history], 0, finalists=3)) == [5], "the default is not"
    failed = past(9, 0.5, goal=None, state=TrialState.FAILED)
    assert numbers(not_promotable([failed, *history], 0, finalists=3)) == [5], "nor is one that failed"


def test_only_paused_trials_are_returned_as_not_promotable() -> None:
    history = [*at_first(1.0, 2.0), past(8, 8.0, state=TrialState.LEASED), past(9, 9.0, goal=None)]
    assert numbers(not_promotable(history, 0, finalists=1)) == [3]


def test_each_rung_has_its_own_ranks() -> None:
    second = [past(number, 1.0, float(number), goal=1) for number in range(10, 13)]
    assert numbers(not_promotable(second, 0, finalists=1)) == [11, 12]
    first = at_first(*(float(n) for n in range(2, 8)))
    found = not_promotable([*first, *second], 0, finalists=1)
    assert [n for n in numbers(found) if n >= 10] == [], "six at the first rung may still arrive at the second"


def test_a_trial_that_was_not_promotable_never_becomes_promotable() -> None:
    """Trials arrive one by one in any order."""
    for seed in range(20):
        draw = AtRandom(seed)
        scores = [draw.log_uniform("score", 0.1, 10.0) for _ in range(24)]
        history: list[Past] = []
        dropped: set[int] = set()
        for number, score in enumerate(scores):
            history.append(past(number + 2, score))
            while (one := promotable(history)) is not None:
                assert one.number not in dropped
                history = [past(p.number, p.measured[0].value, goal=1) if p == one else p for p in history]
            dropped |= set(numbers(not_promotable(history, len(scores) - number - 1, finalists=0)))
        promoted = {one.number for one in history if one.goal == 1}
        assert promoted | dropped == {one.number for one in history}, "in the end every trial is one or the other"
        assert len(promoted) >= len(scores) // ETA


def test_baselines_are_scored_at_rungs_too() -> None:
    default = Past(
        number=1,
        design=baselines(SPACE)[1],
        state=TrialState.COMPLETE,
        value=0.5,
        measured=scored(0.5, 0.4),
    )
    assert promotable([default, past(2, 1.0), past(3, 2.0)]) is None, "the default has the only promotion"


def test_promoted_trials_keep_their_positions_as_a_group_and_are_reordered_by_later_scores() -> None:
    stopped = [past(2, 1.0), past(4, 3.0), past(6, 5.0)]
    went_on = [past(3, 2.0, 9.0, goal=1), past(5, 4.0, 8.0, goal=1)]
    assert numbers(overall_ranking([*stopped, *went_on])) == [2, 5, 4, 3, 6]


def test_final_scores_count_before_scores_at_rungs() -> None:
    lucky, good, paused = complete(2, 1.0, 1.0, 7.0), complete(3, 2.0, 2.0, 6.0), past(4, 3.0)
    assert numbers(overall_ranking([lucky, good, paused])) == [3, 2, 4]


def test_the_overall_ranking_leaves_out_unscored_trials_the_untuned_model_and_repeats() -> None:
    untuned = Past(number=0, design=baselines(SPACE)[0], state=TrialState.COMPLETE, value=0.0)
    again = complete(9, 1.0, 1.0, 1.0).model_copy(update={"confirms": 2})
    assert numbers(overall_ranking([untuned, past(7), past(2, 1.0), again])) == [2]


# Trainings without a fixed length


def test_a_training_without_a_fixed_length_is_promoted_rung_after_rung() -> None:
    history = at_first(*(float(number) for number in range(27)))
    while (one := promotable(history)) is not None:
        goal = above(one.design, len(one.measured) - 1)
        assert goal == len(one.measured)
        arrived = past(one.number, *[one.measured[0].value] * (goal + 1), goal=goal)
        history = [arrived if other.number == one.number else other for other in history]
    assert [len(rung_score(history, rung)) for rung in range(rungs(history))] == [27, 9, 3, 1]
    assert numbers([one for one in history if one.goal == 3]) == [2]


@pytest.mark.parametrize(("others", "promoted"), [(1, False), (2, True)])
def test_a_trial_can_pause_at_a_late_rung_and_is_promoted_like_at_the_first(others: int, promoted: bool) -> None:
    late = [past(number, 9.0, 9.0, 9.0, float(number), goal=3) for number in range(2, 3 + others)]
    assert promotable(late) == (late[0] if promoted else None)
    assert numbers(not_promotable(late, 0, finalists=1)) == list(range(3, 3 + others))


def test_a_trial_that_has_ended_at_its_best_moment_ranks_with_its_last_score_at_all_later_rungs() -> None:
    ended, late = complete(2, 3.0, 2.0), past(3, 4.0, 3.0, 2.5, 2.4, goal=3)
    assert [ended.score_at(rung) for rung in range(4)] == [*scored(3.0, 2.0, 2.0, 2.0)]
    assert [numbers(rung_score([late, ended], rung)) for rung in range(4)] == [[2, 3]] * 4
    worse = [complete(number, 9.0) for number in (4, 5)]
    assert promotable([late, *worse]) == late, "three are compared at the fourth rung"
    assert promotable([late, ended, *worse]) is None, "the only promotion is taken"


@pytest.mark.parametrize("state", [state for state in TrialState if state is not TrialState.COMPLETE])
def test_a_trial_that_is_not_complete_ranks_only_where_it_was_scored(state: TrialState) -> None:
    one = past(2, 3.0, 2.0, goal=None, state=state)
    assert [one.score_at(rung) is None for rung in range(4)] == [False, False, True, True]


def test_a_training_of_fixed_length_ranks_only_at_its_own_rungs() -> None:
    one = complete(2, 3.0, 2.0, space=FIXED)
    assert [one.score_at(rung) is None for rung in range(3)] == [False, False, True]


def test_an_unscored_trial_ranks_nowhere() -> None:
    untuned = Past(number=0, design=baselines(SPACE)[0], state=TrialState.COMPLETE, value=0.0)
    unscored = past(2, goal=None, state=TrialState.COMPLETE, value=1.0)
    assert [one.score_at(rung) for one in (untuned, unscored) for rung in (0, 3)] == [None] * 4
    assert rungs([untuned, unscored]) == 0
    assert promotable([untuned, unscored]) is None


def test_a_trial_climbing_to_a_late_rung_may_lift_others_there() -> None:
    late = [past(number, 9.0, 9.0, float(number), goal=2) for number in (2, 3, 4)]
    assert numbers(not_promotable(late, 0, finalists=1)) == [3, 4]
    climbing = [past(number, 9.0, 9.0, goal=2, state=TrialState.LEASED) for number in (5, 6, 7)]
    assert numbers(not_promotable([*late, *climbing], 0, finalists=1)) == [4]


def test_the_overall_ranking_compares_at_the_last_rung_that_both_reached() -> None:
    """Trial 3 was only third at the first rung, and is the better of the two at the third."""
    history = [past(2, 1.0, 1.0, 4.0, goal=2), past(3, 2.0, 2.0, 3.0, goal=2), past(4, 1.5, 3.0, goal=1), past(5, 2.5)]
    assert numbers(overall_ranking(history)) == [3, 2, 4, 5]
