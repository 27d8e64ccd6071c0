"""When a training at a constant rate is scored, which moment counts, and when it ends."""

import itertools

import pytest

from luthier.task import Objective
from luthier.trial import Metrics
from workers.best_moment import FACTOR, FIRST, PATIENCE, Moments


def metrics(bits_per_byte: float, reward: float = 0.5, margin: float | None = None) -> Metrics:
    return Metrics(
        perplexity=2.0, bits_per_byte=bits_per_byte, reward=reward, margin=margin, tokens=10, rows=4, reward_name="x"
    )


def watched(scores: list[Metrics], objective: Objective) -> tuple[Moments, list[int]]:
    """The moments of a training with these scores, which ends early if they say so; and their steps."""
    moments, steps, step = Moments(), [], 0
    for score in scores:
        step += 1
        while not moments.due(step):
            step += 1
        moments = moments.after(step, score, objective)
        steps.append(step)
        if moments.over(objective):
            break
    return moments, steps


def test_moments_lie_further_and_further_apart() -> None:
    _, steps = watched([metrics(1 / (1 + number)) for number in range(8)], "perplexity")
    assert steps[0] == FIRST
    assert all(later == pytest.approx(FACTOR * earlier, abs=1) for earlier, later in itertools.pairwise(steps))
    assert len(steps) == 8


@pytest.mark.parametrize("objective", ["perplexity", "reward"])
def test_the_training_ends_at_some_times_the_steps_of_its_best_moment(objective: Objective) -> None:
    rising = [metrics(1.0, 0.1), metrics(0.9, 0.2), metrics(0.7, 0.4), *[metrics(0.8, 0.3)] * 10]
    moments, steps = watched(rising, objective)
    assert moments.best == metrics(0.7, 0.4)
    assert moments.best_step == steps[2]
    assert steps[-1] >= PATIENCE[objective] * steps[2] > steps[-2]
    assert PATIENCE["reward"] > PATIENCE["perplexity"]


def test_a_later_moment_must_be_better_and_preferences_are_followed_by_their_margin() -> None:
    moments, steps = watched([metrics(1.0), metrics(1.0)], "perplexity")
    assert moments.best_step == steps[0]
    moments, steps = watched([metrics(1.0, 0.9, margin=0.1), metrics(1.0, 0.9, margin=0.2)], "reward")
    assert moments.best_step == steps[1]


def test_moments_are_the_same_after_they_were_saved() -> None:
    moments, _ = watched([metrics(0.9), metrics(0.8), metrics(0.85)], "perplexity")
    assert Moments.model_validate_json(moments.model_dump_json()) == moments
