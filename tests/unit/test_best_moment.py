"""When a stage at a constant rate is scored, which moment counts, and when it ends."""

import itertools
from collections.abc import Sequence

import pytest

from luthier.metrics import rank_key
from luthier.task import Objective
from luthier.trial import FIRST_MOMENT, MOMENT_FACTOR, Metrics
from workers.best_moment import PATIENCE, Moments

RankKey = tuple[float, float]


def metrics(bits_per_byte: float, reward: float = 0.5, margin: float | None = None) -> Metrics:
    return Metrics(
        perplexity=2.0, bits_per_byte=bits_per_byte, reward=reward, margin=margin, tokens=10, rows=4, reward_name="x"
    )


def watched(
    found: Sequence[tuple[RankKey, Metrics | None]], objective: Objective, before: Moments | None = None
) -> tuple[Moments, list[int]]:
    """The moments of a stage with these scores, which ends early if they say so; and their steps."""
    moments, steps, step = before or Moments(), [], 0
    for score, judged in found:
        step += 1
        while not moments.due(step):
            step += 1
        moments = moments.after(step, score, judged)
        steps.append(step)
        if moments.over(objective):
            break
    return moments, steps


def judged(scores: Sequence[Metrics], objective: Objective) -> list[tuple[RankKey, Metrics | None]]:
    return [(rank_key(one, objective), one) for one in scores]


def test_moments_lie_further_and_further_apart() -> None:
    falling = [metrics(1 / (1 + number)) for number in range(8)]
    _, steps = watched(judged(falling, "perplexity"), "perplexity")
    assert steps[0] == FIRST_MOMENT
    pairs = itertools.pairwise(steps)
    assert all(later == pytest.approx(MOMENT_FACTOR * earlier, abs=1) for earlier, later in pairs)
    assert len(steps) == 8


def test_the_next_moment_is_counted_from_the_last_one_whatever_it_was_for() -> None:
    """A rung or the end of the budget makes a moment, too."""
    moments = Moments().after(4, (1.0, 0.0), None).after(5, (0.9, 0.0), None)
    assert next(step for step in range(1, 20) if moments.due(step)) == 8


@pytest.mark.parametrize("objective", ["perplexity", "reward"])
def test_the_stage_ends_at_some_times_the_steps_of_its_best_moment(objective: Objective) -> None:
    rising = [metrics(1.0, 0.1), metrics(0.9, 0.2), metrics(0.7, 0.4), *[metrics(0.8, 0.3)] * 10]
    moments, steps = watched(judged(rising, objective), objective)
    assert moments.best == metrics(0.7, 0.4)
    assert moments.best_score == rank_key(metrics(0.7, 0.4), objective)
    assert moments.best_step == steps[2]
    assert steps[-1] >= PATIENCE[objective] * steps[2] > steps[-2]


def test_rewards_are_watched_for_longer_than_likelihoods() -> None:
    assert (PATIENCE["perplexity"], PATIENCE["reward"]) == (2.25, 3.375)


def test_a_later_moment_must_be_better_and_preferences_are_followed_by_their_margin() -> None:
    moments, steps = watched(judged([metrics(1.0), metrics(1.0)], "perplexity"), "perplexity")
    assert moments.best_step == steps[0]
    pairs = [metrics(1.0, 0.9, margin=0.1), metrics(1.0, 0.9, margin=0.2)]
    moments, steps = watched(judged(pairs, "reward"), "reward")
    assert moments.best_step == steps[1]


def test_equal_rewards_are_told_apart_by_the_likelihood() -> None:
    moments, steps = watched(judged([metrics(1.0, 0.5), metrics(0.9, 0.5), metrics(0.95, 0.5)], "reward"), "reward")
    assert moments.best_step == steps[1]


def test_an_early_stage_may_be_measured_by_something_else_than_the_job_is() -> None:
    """Supervised fine-tuning before preferences: its likelihood was best when the margin was worst."""
    found = [metrics(1.0, 0.5, margin=0.3), metrics(0.8, 0.5, margin=0.1), metrics(0.9, 0.5, margin=0.2)]
    assert watched(judged(found, "perplexity"), "perplexity")[0].best == found[1]
    assert watched(judged(found, "reward"), "reward")[0].best == found[0]


def test_a_reward_model_is_followed_by_its_accuracy_without_metrics() -> None:
    accuracies = [0.5, 0.8, 0.7, 0.7, 0.7, 0.7]
    moments, steps = watched([((-accuracy, 0.0), None) for accuracy in accuracies], "reward")
    assert (moments.best, moments.best_score, moments.best_step) == (None, (-0.8, 0.0), steps[1])
    assert steps[-1] >= PATIENCE["reward"] * steps[1] > steps[-2]


def test_each_stage_has_moments_of_its_own_after_the_rows_of_the_stages_before() -> None:
    second = Moments(rows_before=640)
    assert not second.due(FIRST_MOMENT - 1)
    assert second.due(FIRST_MOMENT)
    moments, _ = watched(judged([metrics(0.9), metrics(0.8)], "perplexity"), "perplexity", second)
    assert moments.rows_before == 640


def test_moments_are_the_same_after_they_were_saved() -> None:
    found = judged([metrics(0.9), metrics(0.8), metrics(0.85)], "perplexity")
    for scores in (found, [(score, None) for score, _ in found]):
        moments, _ = watched(scores, "perplexity", Moments(rows_before=8))
        assert Moments.model_validate_json(moments.model_dump_json()) == moments
