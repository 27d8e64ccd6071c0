"""One truth about a result: what is recommended, means over seeds, and what the rows can tell."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from bench.atlas.table import tables
from luthier.metrics import mean_metrics
from luthier.report import Report
from luthier.task import DataKind, JudgeSpec, Objective
from luthier.updates import Full, Lora
from search.report import resolution
from search.report.build import explain
from search.report.charts import landscape
from search.report.inputs import Case, Tried
from search.report.next_steps import next_steps
from search.report.recommend import chosen, comparisons, recommend
from service.dashboard.leaderboard import View, rows, table
from tests.unit.report_samples import case, complete, default, design, searched, stopped, untuned

DEAR = complete(2, design(Full(), epochs=3), 0.81, test=0.798, seconds=300)
NO_BETTER = [untuned(), default(test=1.1), complete(2, design(Full()), 0.7, test=0.98)]


@pytest.mark.parametrize(
    ("tried", "number", "take"),
    [
        (searched(), 5, "winner"),
        ([untuned(), default(), DEAR], 1, "plain-LoRA default"),
        (NO_BETTER, 0, "untuned base"),
        ([untuned(test=None), default(test=None), complete(2, design(Full()), 0.7)], 2, None),
        ([untuned()], 0, None),
    ],
)
def test_the_recommended_trial_is_the_one_that_all_name(tried: Sequence[Tried], number: int, take: str | None) -> None:
    found = case(tried)
    named = chosen(found)
    assert named is not None
    assert named.number == number
    assert recommend(found, tuple(comparisons(found))).take == take
    assert landscape(found).best == number
    shown = table(found, View(), named)
    assert [row.number for row in shown.rows if {"winner", "recommended"} & set(row.roles)] == [number]
    report = explain(found)
    if take is not None:
        assert report.recommendation.number == number
        assert (report.scores[0].number, report.scores[0].role) == (number, "recommended")
    else:
        assert "recommended" not in [one.role for one in report.scores]


@pytest.mark.parametrize(("bits", "number"), [(0.5, None), (2.0, 0)])
def test_too_few_test_rows_recommend_nothing_unless_the_validation_rows_say_the_base(
    bits: float, number: int | None
) -> None:
    few = case([untuned(rows=2), complete(2, design(Full()), bits, test=0.4, rows=2)])
    advice = recommend(few, tuple(comparisons(few)))
    assert advice.number == number
    assert chosen(few, advice).number == (2 if number is None else 0)
    assert all("significantly better" not in words for words in advice.words)


def test_what_a_job_named_when_it_ended_stays() -> None:
    found = case([untuned(), default(), DEAR], named=2)
    assert chosen(found).number == 2
    advice = recommend(found, tuple(comparisons(found)))
    assert (advice.number, len(advice.words)) == (1, 3 + 1)
    assert "trial 2" in advice.words[-1]
    assert "trial 1" not in " ".join(
        recommend(case([untuned(), default(), DEAR], named=1), tuple(comparisons(found))).words[3:]
    )


# Means over the seeds, with their number


def mean_bits(found: Case, number: int) -> float:
    measured = [one.metrics for one in found.seeds(number) if one.metrics is not None]
    return mean_metrics(measured).bits_per_byte


@pytest.fixture(scope="module")
def report() -> Report:
    return explain(case())


def test_scores_are_means_over_three_seeds_wherever_they_stand(report: Report) -> None:
    found = case()
    mean = pytest.approx(0.704)
    assert mean_bits(found, 5) == mean
    assert report.winner is not None
    assert (report.winner.score, report.winner.seeds) == (mean, 3)
    assert report.scores[0].metrics.bits_per_byte == mean
    assert "(n=3)" in report.headline
    tried = {one.number: one for one in report.tried}
    assert (tried[5].mean_score, tried[5].score, tried[5].seeds) == (mean, 0.70, 3)
    assert (tried[14].mean_score, tried[14].seeds) == (pytest.approx(0.704), None), "a repeat has its own"
    assert (tried[15].mean_score, tried[0].seeds, tried[3].seeds) == (pytest.approx(0.708), None, None)
    assert tried[5].mean_test_score == pytest.approx(report.comparisons[0].winner_score, abs=1e-3)
    assert {one.number: one.seeds for one in report.front} == {5: 3, 6: 3, 2: 3, 1: 3, 0: 1}
    land = landscape(found)
    at = land.number.index(5)
    assert (land.score[at], land.seeds[at]) == (mean, 3)
    assert land.seeds[land.number.index(3)] == 0
    row = next(row for row in rows(found, None) if row.number == 5)
    assert (row.score, row.seeds) == (mean, 3)
    assert row.test == pytest.approx(tried[5].mean_test_score)
    own = next(row for row in rows(found, None) if row.number == 15)
    assert (own.score, own.seeds) == (pytest.approx(0.708), 1)


def rewarded(tried: Tried, reward: float) -> Tried:
    metrics = tried.metrics
    assert metrics is not None
    graded = {"reward": reward, "reward_name": "text_similarity"}
    return tried.model_copy(update={"metrics": metrics.model_copy(update=graded)})


def test_the_reward_stands_beside_the_likelihood_for_each_design() -> None:
    graded = [rewarded(one, 0.5 + 0.01 * one.number) if one.metrics else one for one in searched()]
    scores = {one.number: one for one in explain(case(graded)).scores}
    assert list(scores) == [5, 1, 0]
    assert [scores[number].role for number in scores] == ["recommended", "plain-LoRA default", "untuned base"]
    assert scores[5].metrics.reward == pytest.approx((0.55 + 0.64 + 0.65) / 3)
    assert scores[5].metrics.bits_per_byte == pytest.approx(0.704)
    assert (scores[5].seeds, scores[1].seeds, scores[0].seeds) == (3, 3, None)
    assert all(one.test_metrics is not None for one in scores.values())


# The smallest difference


def test_the_smallest_difference_is_half_of_the_interval_against_the_runner_up(report: Report) -> None:
    against = report.comparisons[2]
    assert against.against == "runner-up"
    assert report.judge.smallest_difference == pytest.approx((against.high - against.low) / 2)
    few = explain(case([untuned(rows=12), default(rows=12), complete(2, design(Full()), 0.7, test=0.7, rows=12)]))
    assert few.judge.smallest_difference is not None
    assert few.judge.smallest_difference > report.judge.smallest_difference
    assert explain(case([untuned(test=None)])).judge.smallest_difference is None


@pytest.mark.parametrize(
    ("objective", "validation", "test", "few"),
    [
        ("perplexity", 13, 12, True),
        ("perplexity", 100, 100, False),
        ("perplexity", 100, 12, True),
        ("reward", 12, 12, True),
        ("reward", 32, 32, False),
    ],
)
def test_too_few_rows_are_warned_of(objective: Objective, validation: int, test: int, few: bool) -> None:
    assert (resolution.warning(objective, validation, test) is not None) == few
    assert (resolution.expected(objective, min(validation, test)) > resolution.USUAL_GAIN[objective]) == few


def test_the_estimate_is_that_of_a_bootstrap_if_the_spread_over_rows_is_known() -> None:
    found = case([untuned(), default(test=0.7), complete(2, design(Full()), 0.7, test=0.7)])
    against = next(comparison for comparison in comparisons(found) if comparison.against == "plain-LoRA default")
    half = (against.high - against.low) / 2 / against.winner_score
    [won], [plain] = found.scores(2), found.scores(1)
    spread = np.std(np.array(won.nll) - np.array(plain.nll)) / np.mean(won.nll)
    share = float(spread) / resolution.SPREAD["perplexity"]
    assert half == pytest.approx(share * resolution.expected("perplexity", 60), rel=0.05)


def test_what_tuning_usually_brings_is_that_of_the_recorded_tables() -> None:
    gains: dict[Objective, list[float]] = {"perplexity": [], "reward": []}
    for found in tables():
        plain = [
            curve.value
            for curve in found.curves.values()
            if curve.design.stages[0].update == Lora(rank=16)
            and curve.design.recipe == {"domain": "clm", "preference": "sft+dpo"}.get(found.task.name, "sft")
            and (curve.design.stages[0].optimiser.batch_size, curve.design.stages[0].optimiser.epochs) == (8, 1.0)
            and found.task.space.encode(curve.design)["learning_rate_multiplier"] == 1.0
        ]
        objective: Objective = "reward" if found.best.value < 0 else "perplexity"
        scale = 1.0 if objective == "reward" else min(plain)
        gains[objective].append((min(plain) - found.best.value) / scale)
    assert {objective: pytest.approx(min(values), rel=0.05) for objective, values in gains.items()} == dict(
        resolution.USUAL_GAIN
    )


def test_only_graded_rows_count_where_answers_are_graded() -> None:
    judge = JudgeSpec(kind=DataKind.PREFERENCE, validation="v", test="t", objective="reward", max_generations=32)
    assert resolution.scored_rows(judge, 500) == 128, "pairs are ranked by likelihood, not answered"
    assert resolution.scored_rows(judge, 50) == 50


# Advice


def at_epochs(number: int, epochs: float, bits: float) -> Tried:
    return complete(number, design(Lora(rank=16), epochs=epochs, batch=8, rate=1.0 + number / 100), bits, test=bits)


def advice(tried: Sequence[Tried], **changes: object) -> str:
    found = case(tried, curve=(), **changes)
    return "\n".join(words for words in next_steps(found, ()) if "end of the searched range" in words)


def test_no_advice_to_search_where_the_others_are_worse() -> None:
    lucky = at_epochs(2, 1.0, 0.60)
    others = [
        at_epochs(n, epochs, bits)
        for n, epochs, bits in [
            (3, 1.0, 0.80),
            (4, 1.0, 0.82),
            (5, 2.0, 0.70),
            (6, 2.0, 0.71),
            (7, 3.0, 0.62),
            (8, 3.0, 0.63),
        ]
    ]
    assert "number of epochs" not in advice([untuned(), default(), lucky, *others])
    reverse = [
        at_epochs(n, 4.0 - one.past.design.stages[0].optimiser.epochs, one.past.value or 0.0)
        for n, one in enumerate(others, start=3)
    ]
    found = advice([untuned(), lucky, *reverse])
    assert "number of epochs is 1" in found
    assert "smaller" in found


def test_fewer_epochs_are_not_advised_while_the_loss_falls() -> None:
    lucky = at_epochs(2, 1.0, 0.60)
    others = [
        at_epochs(n, epochs, bits)
        for n, epochs, bits in [(3, 1.0, 0.65), (4, 1.0, 0.66), (5, 2.0, 0.75), (6, 3.0, 0.85)]
    ]
    falling = tuple(2.0 / (1 + step / 40) for step in range(120))
    found = next_steps(case([untuned(), lucky, *others], curve=falling), ())
    assert not any("number of epochs" in words for words in found)
    assert any("training loss" in words for words in found)


def test_a_value_beyond_that_was_tried_is_no_edge() -> None:
    won = at_epochs(2, 3.0, 0.60)
    others = [
        at_epochs(n, epochs, bits)
        for n, epochs, bits in [(3, 1.0, 0.90), (4, 1.0, 0.88), (5, 2.0, 0.75), (6, 3.0, 0.65)]
    ]
    assert "number of epochs is 3" in advice([untuned(), won, *others])
    longer = at_epochs(7, 8.0, 0.9)
    assert "number of epochs" not in advice([untuned(), won, *others, longer])


def test_one_tried_value_is_no_evidence() -> None:
    tried = [untuned(), *[at_epochs(n, 1.0, 0.6 + n / 100) for n in range(2, 9)]]
    assert "number of epochs" not in advice(tried)
    assert "batch size" not in advice(tried)


def test_stopped_designs_count_as_evidence() -> None:
    won = complete(2, design(Full(), rate=19.6), 0.6, test=0.6)
    rising = [
        stopped(3 + n, design(Full(), rate=rate), 0.95 - rate / 40) for n, rate in enumerate((1.2, 3.2, 8.0, 16.0))
    ]
    found = advice([untuned(), won, *rising])
    assert "learning rate multiplier" in found
    rate = won.past.design.stages[0].optimiser.learning_rate
    assert f"learning rate {rate:.3g}" in found


def test_expected_falls_with_the_root_of_the_rows() -> None:
    assert resolution.expected("perplexity", 400) == pytest.approx(resolution.expected("perplexity", 100) / 2)
    assert math.isfinite(resolution.expected("reward", 0))
