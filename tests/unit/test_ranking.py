"""Which trial wins: quality, then cost, then number; the untuned model only where nothing else is complete."""

import pytest
from pydantic import ValidationError

from luthier.design import Design
from luthier.errors import MissingMetric
from luthier.metrics import objective_value
from luthier.trial import Metrics, TrialState
from search.policy.history import Past, RungScore
from search.policy.priors import baselines
from search.policy.ranking import best, finalists, mean_value, rank, rung_score
from tests.unit.search_samples import AtRandom, complete, space_of

SPACE = space_of()
BASE, DEFAULT = baselines(SPACE)


def tuned(seed: int) -> Design:
    return SPACE.sample(AtRandom(seed))


def metrics(reward: float | None) -> Metrics:
    return Metrics(perplexity=8.0, bits_per_byte=0.75, reward=reward, tokens=100, rows=10)


def test_perplexity_is_compared_by_bits_per_byte() -> None:
    assert objective_value(metrics(reward=0.5), "perplexity") == 0.75


def test_a_higher_reward_is_a_lower_value() -> None:
    assert objective_value(metrics(reward=0.5), "reward") == -0.5


def test_a_missing_reward_is_an_error_and_never_replaced() -> None:
    with pytest.raises(MissingMetric) as error:
        objective_value(metrics(reward=None), "reward")
    assert error.value.param == "metrics.reward"


def test_at_rungs_preferences_are_compared_by_the_margin() -> None:
    ahead = metrics(reward=0.5).model_copy(update={"margin": 0.2})
    luckier = metrics(reward=0.6).model_copy(update={"margin": 0.1})
    assert rung_score(ahead, "reward") == RungScore(-0.5, (-0.2, -0.5))
    assert rung_score(ahead, "reward").rank_key < rung_score(luckier, "reward").rank_key
    assert rung_score(ahead, "perplexity") == RungScore(0.75, (0.75, 0.75))


def test_at_rungs_equal_rewards_are_ranked_by_bits_per_byte() -> None:
    assert rung_score(metrics(reward=0.5), "reward") == RungScore(-0.5, (-0.5, 0.75))


def test_a_complete_trial_needs_a_value() -> None:
    with pytest.raises(ValidationError, match="trial 3"):
        Past(number=3, design=BASE, state=TrialState.COMPLETE)


def test_ranking_is_by_value_then_cost_then_number() -> None:
    history = [
        complete(5, tuned(5), 0.9, device_seconds=10),
        complete(4, tuned(4), 0.9, device_seconds=5),
        complete(3, tuned(3), 0.9, device_seconds=10),
        complete(2, tuned(2), 1.1, device_seconds=1),
    ]
    assert [past.number for past in rank(history)] == [4, 3, 5, 2]


def test_only_complete_trials_of_trained_designs_are_ranked() -> None:
    others = [state for state in TrialState if state is not TrialState.COMPLETE]
    unfinished = [Past(number=10 + i, design=tuned(i), state=state) for i, state in enumerate(others)]
    history = [complete(0, BASE, 0.1), *unfinished, complete(1, DEFAULT, 1.0)]
    assert [past.number for past in rank(history)] == [1]


def test_the_winner_says_which_baselines_it_beats() -> None:
    choice = best([complete(0, BASE, 2.0), complete(1, DEFAULT, 1.0), complete(2, tuned(2), 0.9)])
    assert choice is not None
    assert (choice.trial.number, choice.beats_base, choice.beats_default) == (2, True, True)


def test_the_default_may_win_without_beating_itself() -> None:
    choice = best([complete(0, BASE, 2.0), complete(1, DEFAULT, 1.0), complete(2, tuned(2), 1.5)])
    assert choice is not None
    assert (choice.trial.number, choice.beats_base, choice.beats_default) == (1, True, False)


def test_an_equal_score_does_not_beat_a_baseline() -> None:
    history = [complete(0, BASE, 1.0), complete(1, DEFAULT, 1.0, 9.0), complete(2, tuned(2), 1.0, 3.0)]
    choice = best(history)
    assert choice is not None
    assert (choice.trial.number, choice.beats_base, choice.beats_default) == (2, False, False)


def test_the_best_trained_design_wins_even_where_the_untuned_model_is_better() -> None:
    choice = best([complete(0, BASE, 1.0), complete(1, DEFAULT, 1.3), complete(2, tuned(2), 1.2)])
    assert choice is not None
    assert (choice.trial.number, choice.beats_base, choice.beats_default) == (2, False, True)


def test_the_untuned_model_is_the_answer_only_when_nothing_else_is_complete() -> None:
    choice = best([complete(0, BASE, 1.0), Past(number=1, design=DEFAULT, state=TrialState.FAILED)])
    assert choice is not None
    assert (choice.trial.number, choice.beats_base, choice.beats_default) == (0, False, False)


def test_a_baseline_without_a_score_is_not_beaten() -> None:
    history = [
        Past(number=0, design=BASE, state=TrialState.LEASED),
        Past(number=1, design=DEFAULT, state=TrialState.FAILED),
        complete(2, tuned(2), 0.1),
    ]
    choice = best(history)
    assert choice is not None
    assert (choice.beats_base, choice.beats_default) == (False, False)


def test_nothing_complete_means_no_choice() -> None:
    assert best([]) is None
    assert best([Past(number=0, design=BASE, state=TrialState.WAITING)]) is None


def confirmation(number: int, of: int, value: float) -> Past:
    return complete(number, tuned(of), value).model_copy(update={"confirms": of})


def test_the_value_of_a_repeated_design_is_the_mean_over_its_seeds() -> None:
    history = [complete(2, tuned(2), 1.0), complete(3, tuned(3), 1.1)]
    history += [confirmation(4, 2, 1.4), confirmation(5, 2, 1.2), confirmation(6, 3, 1.1)]
    assert mean_value(history[0], history) == pytest.approx(1.2)
    assert [past.number for past in rank(history)] == [3, 2], "a confirmation is no design of its own"


def test_only_complete_repeats_count() -> None:
    failed = confirmation(4, 2, 9.0).model_copy(update={"state": TrialState.FAILED, "value": None})
    history = [complete(2, tuned(2), 1.0), failed]
    assert mean_value(history[0], history) == 1.0


def test_repeated_designs_rank_before_all_others() -> None:
    history = [complete(2, tuned(2), 1.0), complete(3, tuned(3), 1.1), confirmation(4, 2, 1.4)]
    assert [past.number for past in rank(history)] == [2, 3]
    running = history[-1].model_copy(update={"state": TrialState.LEASED, "value": None})
    assert [past.number for past in rank([*history[:2], running])] == [2, 3]


def test_a_default_without_repeats_wins_over_a_repeated_design_that_is_worse() -> None:
    history = [complete(0, BASE, 9.0), complete(1, DEFAULT, 2.0), complete(2, tuned(2), 6.0)]
    history += [complete(3, tuned(3), 7.0), confirmation(4, 2, 5.0)]
    assert [past.number for past in rank(history)] == [1, 2, 3]
    choice = best(history)
    assert choice is not None
    assert (choice.trial.number, choice.beats_base) == (1, True)


def test_finalists_are_the_best_beside_the_default() -> None:
    history = [complete(0, BASE, 0.1), complete(1, DEFAULT, 0.5)]
    history += [complete(number, tuned(number), number / 10) for number in range(7, 1, -1)]
    assert [past.number for past in finalists(history, 3)] == [2, 3, 4]
    unlucky = [*history, confirmation(8, 2, 9.0), confirmation(9, 3, 9.0), confirmation(10, 4, 9.0)]
    assert {past.number for past in finalists(unlucky, 3)} == {2, 3, 4}, "whatever their other seeds bring"
    assert [past.number for past in finalists(history, 99)] == [2, 3, 4, 5, 6, 7]


def test_a_repeated_winner_is_compared_with_the_mean_of_the_default() -> None:
    history = [complete(1, DEFAULT, 1.0), complete(2, tuned(2), 0.9), confirmation(3, 2, 0.9)]
    again = complete(4, DEFAULT, 0.7).model_copy(update={"confirms": 1})
    before, after = best(history), best([*history, again])
    assert before is not None
    assert after is not None
    assert (before.trial.number, before.beats_default) == (2, True)
    assert (after.trial.number, after.beats_default) == (1, False)
