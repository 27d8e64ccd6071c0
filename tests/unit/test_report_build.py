"""The report says what the rows say: who won, how sure that is, what the rest was worth, and what is not known."""

import math

import pytest

from luthier.algorithms import RewardModel
from luthier.report import Report, Verdict
from luthier.task import DataKind, EnvironmentSpec, JudgeSpec, Pin, Search, Task, TextSimilarity
from luthier.trial import JobState, RowScores, StageLength, TrialState
from luthier.updates import Dora, Full, Lora
from search.format import about
from search.policy.scheduler import full_training_seconds
from search.report.build import explain
from search.report.inputs import Tried
from search.report.recommend import RELATION
from tests.unit.report_samples import (
    DEFAULT,
    broken,
    case,
    complete,
    default,
    design,
    ending_by_themselves,
    row_scores,
    searched,
    stopped,
    untuned,
)
from tests.unit.search_samples import SMOL, scored, space_of


@pytest.fixture(scope="module")
def report() -> Report:
    return explain(case())


def sentences(report: Report) -> str:
    """All that it says in words."""
    parts = [report.headline, *report.missing, *report.recommendation.words, *report.weaknesses, *report.next_steps]
    parts += [*report.task.words, *report.judge.words, *report.budget.words]
    parts += [one.words for one in (*report.comparisons, *report.rejected)]
    parts += [words for axis in (report.winner.axes if report.winner else ()) for words in axis.words]
    return "\n".join(parts)


# A search that went well


def test_the_winner_is_explained_along_the_four_axes_with_figures(report: Report) -> None:
    winner = report.winner
    assert winner is not None
    assert (winner.number, winner.parameters) == (5, SMOL.facts.parameters)
    assert winner.score == pytest.approx((0.70 + 0.704 + 0.708) / 3)
    words = {axis.axis: " ".join(axis.words) for axis in winner.axes}
    assert list(words) == ["task and dataset", "learning algorithm", "weight update", "architecture"]
    assert all(count in words["task and dataset"] for count in ("480 training rows", "60 validation", "60 test"))
    assert "11 of 12 trained designs" in words["learning algorithm"]
    assert "(clm)" in words["learning algorithm"], "the only other recipe, which never ran to the end"
    assert "3 of 12 trained designs" in words["weight update"]
    assert all(part in words["weight update"] for part in ("(trial 6, rslora)", "0.714"))
    assert "0.12 bits per byte" in words["weight update"], "the worth of the axis"
    assert "134.5 M parameters" in words["architecture"]
    assert "10 of 12 trained designs" in words["architecture"]


def test_the_winner_is_compared_with_the_base_the_default_and_the_runner_up_on_the_test_rows(report: Report) -> None:
    base, plain, second = report.comparisons
    assert [(one.against, one.number) for one in report.comparisons] == [
        ("untuned base", 0),
        ("plain-LoRA default", 1),
        ("runner-up", 6),
    ]
    assert (base.verdict, base.seeds, base.rows) == ("better beyond the noise", (3, 1), 60)
    assert (plain.verdict, plain.seeds) == ("better beyond the noise", (3, 3))
    assert second.verdict == "not distinguishable"
    for one in report.comparisons:
        assert one.low <= one.difference <= one.high
        assert one.difference == pytest.approx(one.winner_score - one.other_score, abs=1e-9)
        assert one.perplexity_ratio is not None
        assert one.perplexity_ratio[0] == pytest.approx(2 ** (one.difference * 120 / 30), rel=0.01)


def test_a_winner_that_is_better_than_both_baselines_is_recommended_with_a_word_on_the_runner_up(
    report: Report,
) -> None:
    assert (report.recommendation.take, report.recommendation.number) == ("winner", 5)
    assert "trial 5" in report.recommendation.words[0]
    assert all(part in report.recommendation.words[1] for part in ("trial 6", "cheaper", "2 min 10 s", "4 min 0 s"))
    assert f"{RELATION['better beyond the noise']} the untuned base and the plain-LoRA default" in report.headline
    assert report.missing == ()


def test_the_budget_says_what_was_spent_on_what_and_what_halving_saved(report: Report) -> None:
    budget = report.budget
    assert (budget.trials, budget.designs, budget.complete, budget.stopped, budget.confirmations) == (14, 13, 5, 7, 8)
    assert budget.spent == pytest.approx(sum(one.device_seconds for one in report.tried))
    assert {one.origin: one.trials for one in budget.by_origin} == {
        "baseline": 2,
        "prior": 3,
        "proposed": 9,
        "confirmation": 8,
    }
    # Five stopped after 12 s, a ninth of 108 s; two after 36 s, a third of 108 s
    assert budget.saved == pytest.approx(5 * 96 + 2 * 72)
    designs = sum(one.device_seconds for one in report.tried if one.confirms is None)
    assert budget.saved_share == pytest.approx(budget.saved / (designs + budget.saved))
    assert budget.ended == "all 14 trials are done"


def test_everything_tried_is_listed_with_its_state_and_score(report: Report) -> None:
    assert [one.number for one in report.tried] == list(range(22))
    by_number = {one.number: one for one in report.tried}
    assert (by_number[3].state, by_number[3].share, by_number[3].score) == ("stopped at 1/9", 1 / 9, 0.99)
    assert (by_number[7].state, by_number[7].score, by_number[7].test_score) == ("stopped at 1/3", 0.84, None)
    assert (by_number[9].state, by_number[9].score) == ("failed", None)
    assert (by_number[15].confirms, by_number[15].state) == (5, "complete")


def test_what_was_rejected_says_why_with_its_numbers(report: Report) -> None:
    why = {one.number: one.words for one in report.rejected}
    assert sorted(why) == [3, 4, 7, 8, 9, 10, 11, 12, 13]
    assert all(part in why[4] for part in ("Stopped", "1/9", "1.21 bits per byte", "10 of 11", "3"))
    assert all(part in why[7] for part in ("Stopped", "1/3", "0.84 bits per byte", "5 of 6", "2"))
    assert "the loss of stage 1 is not a number after step 12" in why[9]
    assert "it needs about 9.1 GiB, and the largest device has 8.0 GiB" in why[10]


def test_where_trainings_end_by_themselves_rungs_have_numbers_and_shares_are_not_known() -> None:
    """What early stopping saved is reckoned with the mean of the trainings that ended."""
    ending = ending_by_themselves()
    report = explain(ending)
    by_number = {one.number: one for one in report.tried}
    assert (by_number[3].state, by_number[3].share, by_number[3].score) == ("stopped at rung 1", None, 0.99)
    assert (by_number[7].state, by_number[7].share, by_number[7].score) == ("stopped at rung 2", None, 0.84)
    assert (by_number[5].state, by_number[5].share) == ("complete", 1.0)
    why = {one.number: one.words for one in report.rejected}
    assert all(part in why[4] for part in ("Stopped", "rung 1", "1.21 bits per byte", "10 of 11", "3"))
    whole = full_training_seconds(ending.history)
    assert whole == pytest.approx(sum((90, 120, 240, 130, *[90] * 8)) / 12)
    assert report.budget.saved == pytest.approx(5 * (whole - 12) + 2 * (whole - 36))


def test_the_limit_of_trainings_that_end_by_themselves_is_not_said_to_lie_at_an_edge() -> None:
    assert "number of epochs" not in sentences(explain(ending_by_themselves()))


def test_seeds_are_shown_with_mean_and_spread(report: Report) -> None:
    first = report.seeds[0]
    assert (first.number, [seed.trial for seed in first.seeds]) == (5, [5, 14, 15])
    assert first.validation_mean == pytest.approx(0.704)
    assert first.spread == pytest.approx(0.008)
    assert first.test_mean == pytest.approx(report.comparisons[0].winner_score)
    assert {one.number for one in report.seeds} == {1, 2, 5, 6}


def test_forgetting_is_that_of_the_winners_seeds_against_the_base(report: Report) -> None:
    found = report.forgetting
    assert found is not None
    assert found.base == 1.05
    assert found.winner == pytest.approx((1.32 + 1.1 + 1.1) / 3)
    assert found.change == pytest.approx(found.winner / 1.05 - 1)
    assert "moderate" in found.words


@pytest.mark.parametrize(
    ("general", "meaning"),
    [
        (0.9, "improved"),
        (1.055, "no measurable"),
        (1.09, "slight"),
        (1.2, "moderate"),
        (1.5, "catastrophic"),
    ],
)
def test_forgetting_is_put_into_plain_words(general: float, meaning: str) -> None:
    tried = [untuned(), default(), complete(2, design(Full()), 0.7, test=0.7, general=general)]
    found = explain(case(tried)).forgetting
    assert found is not None
    assert meaning in found.words


def test_the_front_is_of_complete_designs_and_the_base(report: Report) -> None:
    assert [one.number for one in report.front] == [5, 6, 2, 1, 0]


def test_the_next_steps_follow_from_the_rows(report: Report) -> None:
    rate, loss, once, never, close = report.next_steps
    assert all(part in rate for part in ("learning rate", "is 18,", "upper", "0.2 to 20"))
    assert all(part in loss for part in ("training loss", "0.654", "0.549"))
    assert once.endswith("once: clm.")
    assert "never tried: top_layers" in never
    assert all(part in close for part in ("trial 6", "60 test rows"))  # three seeds are enough to be quiet about


@pytest.mark.parametrize(
    ("steps", "epochs", "trained", "said"),
    [
        (120, 12.0, 120, True),  # the best step is the last one that the limit allows
        (50, 5.0, 120, False),  # it is earlier: a falling loss is overfitting
        (50, 5.0, 50, False),  # the budget ended the training
        (120, 12.0, 119, False),
    ],
)
def test_a_training_that_ends_by_itself_was_too_short_only_if_its_limit_ended_it(
    steps: int, epochs: float, trained: int, said: bool
) -> None:
    ended = ending_by_themselves()
    length = StageLength(steps=steps, epochs=epochs, trained=trained)
    tried = [with_limit(one, 12.0, length) if one.number == 5 else one for one in ended.tried]
    words = explain(ended.model_copy(update={"tried": tuple(tried)})).next_steps
    assert any("12 epochs" in one and "search.pin.epochs" in one for one in words) is said
    assert not any("training loss" in one for one in words)


@pytest.mark.parametrize(("steps", "said"), [(51, True), (30, False)])
def test_a_training_that_the_budget_cut_while_it_improved_is_a_next_step(steps: int, said: bool) -> None:
    ended = ending_by_themselves()
    length = StageLength(steps=steps, epochs=steps / 10, trained=51, ended="budget")
    tried = [with_limit(one, 12.0, length) if one.number == 5 else one for one in ended.tried]
    report = explain(ended.model_copy(update={"tried": tuple(tried)}))
    assert any("search.device_seconds" in one and "5.1 epochs" in one for one in report.next_steps) is said
    assert any("1 design" in words and "budget" in words for words in report.budget.words)


def test_while_the_search_runs_the_default_is_recommended_so_far_and_the_best_paused_trial_is_named() -> None:
    paused = [
        stopped(number, design(Full(), batch=number), value, state=TrialState.WAITING)
        for number, value in ((2, 0.95), (3, 0.91))
    ]
    running = case([untuned(), default(), *paused], state=JobState.RUNNING)
    words = " ".join(explain(running).recommendation.words)
    assert "still running" in words
    assert all(part in words for part in ("2 designs paused", "trial 3", "0.91 bits per byte"))
    ended = " ".join(explain(case([untuned(), default(), *searched()[3:5]])).recommendation.words)
    assert "still running" not in ended


def test_the_counts_of_a_cancelled_job_agree() -> None:
    cancelled = [
        broken(number, design(Full(), batch=number), TrialState.CANCELLED, "a user stopped the trial")
        for number in (2, 3)
    ]
    report = explain(case([untuned(), default(), *cancelled], state=JobState.CANCELLED))
    assert "after 4 of 14 trials" in " ".join(report.missing)
    assert "3 of 13 requested designs" in report.budget.words[0], "the untuned base is no design"
    assert "1 trained to the end, 2 failed or cancelled" in report.budget.words[0]


def with_limit(tried: Tried, epochs: float, length: StageLength) -> Tried:
    stages = [
        stage.model_copy(update={"optimiser": stage.optimiser.model_copy(update={"epochs": epochs})})
        for stage in tried.past.design.stages
    ]
    design = tried.past.design.model_copy(update={"stages": tuple(stages)})
    return tried.model_copy(
        update={"past": tried.past.model_copy(update={"design": design}), "lengths": (length,) * len(stages)}
    )


def test_the_same_rows_make_the_same_report(report: Report) -> None:
    assert explain(case()) == report


# When the search was worth nothing, or less


def test_a_winner_no_better_than_the_default_loses_to_the_cheaper_one() -> None:
    dear = complete(2, design(Full(), epochs=3), 0.81, test=0.798, seconds=300)
    found = explain(case([untuned(), default(), dear])).recommendation
    assert (found.take, found.number) == ("plain-LoRA default", 1)
    assert f"{RELATION['not distinguishable']} the plain-LoRA default" in found.words[0]
    assert "1 min 30 s of training" in found.words[1]
    cheap = complete(2, design(Lora(rank=16), layers=20), 0.81, test=0.798, seconds=300)
    smaller = explain(case([untuned(), default(), cheap])).recommendation
    assert (smaller.take, smaller.number) == ("winner", 2)  # it costs less each time that it is used


def test_a_winner_that_is_worse_than_the_default_on_the_test_rows_loses_to_it_at_any_price() -> None:
    lucky = complete(2, design(Lora(rank=16), layers=20), 0.7, test=0.9)
    report = explain(case([untuned(), default(), lucky]))
    assert report.comparisons[1].verdict == "worse beyond the noise"
    assert (report.recommendation.take, report.recommendation.number) == ("plain-LoRA default", 1)
    assert f"{RELATION['worse beyond the noise']} the plain-LoRA default" in report.headline
    assert any("0.12 bits per byte on the validation rows" in words for words in report.weaknesses)


def test_where_nothing_is_better_than_the_base_the_base_is_recommended() -> None:
    verdicts: tuple[tuple[float, Verdict], ...] = ((0.98, "not distinguishable"), (1.4, "worse beyond the noise"))
    for test, verdict in verdicts:
        found = explain(case([untuned(), default(test=1.1), complete(2, design(Full()), 0.7, test=test)]))
        assert (found.recommendation.take, found.recommendation.number) == ("untuned base", 0)
        assert RELATION[verdict] in found.recommendation.words[0]


@pytest.mark.parametrize("others", [0, 1, 3])
def test_the_untuned_base_is_not_counted_as_a_design_that_the_search_tried(others: int) -> None:
    tried = [
        untuned(),
        default(),
        *[complete(2 + n, design(Full(), batch=4 * n + 4), 0.9, test=0.9) for n in range(others)],
    ]
    report = explain(case(tried, search=Search(trials=6)))
    assert f"{others + 1} of 5 " in report.budget.words[0]
    assert f"{others + 1} trained" in report.budget.words[0]
    assert sum(f"only {others + 1} design" in words for words in report.weaknesses) == (others + 1 < 5)
    assert (report.recommendation.take, report.recommendation.number) == ("winner", 1)
    assert ("No other design" in report.recommendation.words[0]) is (others == 0)


def test_the_default_itself_may_win() -> None:
    found = explain(case([untuned(), default(), complete(2, design(Full()), 0.9, test=0.9)]))
    assert found.recommendation.take == "winner"
    assert found.recommendation.number == 1
    assert "plain-LoRA default" in found.recommendation.words[0]
    assert [one.against for one in found.comparisons] == ["untuned base", "runner-up"]


def test_equal_scores_are_said_to_be_equal() -> None:
    scores = row_scores(0.7, 5)
    twins = [complete(n, design(Full(), batch=n), 0.7, test=0.7, seconds=n) for n in (4, 8)]
    twins = [one.model_copy(update={"scores": scores}) for one in twins]
    report = explain(case([untuned(), default(), *twins]))
    assert report.comparisons[2].difference == 0
    assert report.comparisons[2].verdict == "not distinguishable"
    assert any("Trial 8" in words and "cost" in words for words in report.weaknesses)


# Weaknesses


def test_few_rows_one_seed_and_few_designs_are_said_to_be_weaknesses() -> None:
    tried = [untuned(rows=12), default(rows=12), complete(2, design(Full()), 0.7, test=0.7, rows=12)]
    said = "\n".join(explain(case(tried, rows=(100, 12, 12))).weaknesses)
    assert all(part in said for part in ("12 test rows", "one seed", "2 designs"))


def test_test_rows_beyond_the_judges_limit_are_mentioned() -> None:
    tried = [untuned(), default(), complete(2, design(Full()), 0.7, test=0.7)]
    judge = JudgeSpec(kind=DataKind.PAIRS, validation="v", test="t", objective="perplexity", max_rows=60)
    report = explain(case(tried, rows=(4000, 500, 500), judge=judge))
    assert any("60 of 500 test rows" in words for words in report.weaknesses)


# Odd jobs


def test_two_trials_make_a_report() -> None:
    report = explain(case([untuned(), default()], search=Search(trials=2, confirmations=0)))
    assert report.winner is not None
    assert report.winner.number == 1
    assert report.recommendation.take == "winner"
    assert all(axis.share is None for axis in report.axes)
    assert report.missing == ()


def test_without_test_scores_there_are_no_intervals_and_it_says_so() -> None:
    tried = [one.model_copy(update={"scores": None}) for one in searched()]
    report = explain(case(tried))
    assert report.winner is not None
    assert report.comparisons == ()
    assert report.forgetting is None
    assert report.recommendation.take is None
    assert any("significance" in words for words in report.missing)


def test_a_job_whose_trials_all_failed_says_why() -> None:
    tried = [
        untuned(),
        broken(1, DEFAULT, TrialState.FAILED, "out of luck"),
        broken(2, design(Full()), TrialState.FAILED, ""),
    ]
    report = explain(case(tried, state=JobState.FAILED, error="no trial could be trained", fine_tuned_model=None))
    assert report.winner is None
    assert "failed" in report.headline
    assert any("no trial could be trained" in words for words in report.missing)
    assert [one.number for one in report.rejected] == [1, 2]
    assert "out of luck" in report.rejected[0].words
    assert (report.axes, report.comparisons, report.seeds, report.next_steps) == ((), (), (), ())


def test_a_job_that_has_not_started_has_a_report() -> None:
    report = explain(case([], state=JobState.QUEUED, finished_at=None, fine_tuned_model=None, ended=None))
    assert report.winner is None
    assert "not started" in report.missing[0]
    assert report.budget.spent == 0


def test_a_running_job_says_that_all_may_change() -> None:
    waiting = stopped(3, design(Dora(rank=8)), 0.93, state=TrialState.WAITING)
    tried = [untuned(), default(), complete(2, design(Full()), 0.7, test=0.7), waiting]
    report = explain(case(tried, state=JobState.RUNNING, finished_at=None, fine_tuned_model=None, ended=None))
    assert "4 of 14" in report.missing[0]
    assert "so far" in report.headline
    assert report.recommendation.words[0].startswith("So far: ")
    assert {one.number: one.state for one in report.tried}[3] == "paused at 1/9"
    assert report.rejected[0].words.startswith("Paused at 1/9")


def test_a_running_job_says_that_the_best_are_being_repeated() -> None:
    report = explain(case(state=JobState.RUNNING, finished_at=None, fine_tuned_model=None, ended=None))
    assert any("repeated with other seeds" in words for words in report.missing)


def test_a_cancelled_job_keeps_what_it_found() -> None:
    cut = broken(3, design(Dora(rank=8)), TrialState.CANCELLED, "")
    tried = [untuned(), default(), complete(2, design(Full()), 0.7, test=0.7), cut]
    report = explain(case(tried, state=JobState.CANCELLED))
    assert "4 of 14" in report.missing[0], "as many as have ended, like on the page"
    assert report.rejected[-1].number == 3
    assert "Cancelled" in report.rejected[-1].words
    assert any("3 seeds: trial 2" in words for words in report.missing)


def test_missing_baselines_are_mentioned() -> None:
    report = explain(case([complete(2, design(Full()), 0.7, test=0.7)]))
    assert any("untuned base" in words for words in report.missing)
    assert any("plain-LoRA default" in words for words in report.missing)
    assert report.recommendation.take is None


def test_a_base_that_is_no_longer_registered_costs_the_sizes_only() -> None:
    report = explain(case(facts={}, space=None))
    assert report.winner is not None
    assert report.winner.parameters is None
    assert "no longer registered" in sentences(report)
    assert len(report.comparisons) == 3


# Rewards


def rewarded(kind: DataKind = DataKind.PAIRS) -> list:  # type: ignore[type-arg]
    """The same search where more reward is better."""
    found = []
    for one in searched():
        past = one.past
        value = None if past.value is None else -(1 - past.value / 2)
        measured = scored(*(-(1 - at.value / 2) for at in past.measured))
        changes = {"past": past.model_copy(update={"value": value, "measured": measured})}
        if one.metrics is not None and value is not None:
            named = {"reward": -value, "reward_name": "text_similarity"}
            changes["metrics"] = one.metrics.model_copy(update=named)
            if one.scores is not None:
                bits = sum(one.scores.nll) / math.log(2) / sum(one.scores.bytes)
                rewards = tuple(1 - bits / 2 + (i % 5 - 2) / 50 for i in range(32))
                changes["scores"] = one.scores.model_copy(update={"reward": rewards})
                changes["test_metrics"] = one.metrics.model_copy(update={"reward": sum(rewards) / 32})
        found.append(one.model_copy(update=changes))
    return found


def test_rewards_are_shown_as_they_are_where_more_is_better() -> None:
    judge = JudgeSpec(kind=DataKind.PAIRS, validation="v", test="t", objective="reward", grader=TextSimilarity())
    report = explain(case(rewarded(), judge=judge))
    assert (report.judge.unit, report.judge.lower_is_better) == ("text similarity", False)
    assert report.winner is not None
    assert (report.winner.number, report.winner.score) == (5, pytest.approx(1 - 0.704 / 2))
    base = report.comparisons[0]
    assert (base.verdict, base.rows, base.perplexity_ratio) == ("better beyond the noise", 32, None)
    assert base.low > 0
    assert {one.number: one.score for one in report.tried}[4] == pytest.approx(1 - 1.21 / 2)
    assert any("32 test rows" in words for words in report.weaknesses)
    assert "text_similarity" in report.judge.words[0]


def test_an_environment_is_named_in_place_of_a_file() -> None:
    environment = EnvironmentSpec(name="tools/move")
    judge = JudgeSpec(kind=DataKind.PROMPTS, validation="v", test="t", objective="reward", environment=environment)
    report = explain(case(rewarded(), judge=judge, task=Task(environment=environment)))
    assert (report.task.file, report.task.environment) == (None, "tools/move")
    assert "tools/move" in report.task.words[0]


# Pins


def test_what_was_pinned_is_not_said_to_lie_at_an_edge() -> None:
    pinned = space_of(models=(SMOL,), pin=Pin(learning_rate_multiplier=(4.6,), epochs=(2.0,), update=("full",)))
    said = "\n".join(explain(case(space=pinned)).next_steps)
    assert "learning rate" not in said
    assert "number of epochs" not in said
    assert "Weight updates" not in said


def test_scores_of_other_rows_are_left_out_of_the_comparison() -> None:
    tried = [untuned(), default(rows=12), complete(2, design(Full()), 0.7, test=0.7)]
    assert [one.against for one in explain(case(tried)).comparisons] == ["untuned base"]
    assert isinstance(tried[1].scores, RowScores)


def test_what_an_axis_says_of_itself_is_its_first_sentence() -> None:
    assert about(Full) == Full.__doc__
    assert f"{about(RewardModel)}\n\n" in str(RewardModel.__doc__)
