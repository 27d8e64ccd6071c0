"""What a job does next, played through to its end: a pure function of the trials so far, whatever their order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from luthier.design import Design
from luthier.task import Pin
from luthier.trial import RUNG_FACTOR, RUNGS, TrialState
from search.policy import asha, proposals
from search.policy.history import Past
from search.policy.ranking import best
from search.policy.scheduler import (
    End,
    EndCode,
    MarkInfeasible,
    Plan,
    Promote,
    Repeat,
    Step,
    Try,
    goes_on,
    next_step,
    not_promotable,
    reserve,
    to_repeat,
)
from search.space.space import Space
from tests.unit.search_samples import complete, scored, space_of

SPACE, FIXED = space_of(), space_of(schedule="cosine")
FEW = Pin(
    algorithm=("sft",), update=("full",), layers=(6,), kv_heads=(4,), epochs=(1,), batch_size=(8,),
    learning_rate_multiplier=(1.0, 2.0),
)  # fmt: skip


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare few candidates for each proposal: nothing here depends on which design is tried next."""
    monkeypatch.setattr(proposals, "RANDOM", 12)
    monkeypatch.setattr(proposals, "NEIGHBOURS", proposals.PARENTS)


def fits(design: Design) -> None:
    return None


def plan_of(trials: int, finalists: int = 3, confirmations: int = 2, *, early_finish: bool = False) -> Plan:
    return Plan(trials=trials, finalists=finalists, confirmations=confirmations, seed=5, early_finish=early_finish)


def quality(past: Past) -> float:
    """As if the n-th design were the better the more its number shuffles upwards; every seed the same."""
    number = past.number if past.confirms is None else past.confirms
    return 9.0 if number == 0 else 3.0 + (number * 7 % 23) / 100


def one_second(past: Past) -> float:
    return 1.0


@dataclass
class Job:
    """A job's trials, as the service and its workers would move them.

    The first rung is after 1/9 s. `length` is how many seconds a training takes, where it is not fixed.
    """

    plan: Plan
    space: Space = field(default_factory=lambda: SPACE)
    score: Callable[[Past], float] = quality
    length: Callable[[Past], float] = one_second
    fails: Callable[[Past], bool] = lambda past: False
    why_infeasible: Callable[[Design], str | None] = fits
    budget: float | None = None
    trials: list[Past] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def run(self, worker_count: int = 1) -> End:
        """Take steps for so many workers until there are no more."""
        for _ in range(10_000):
            while len([past for past in self.trials if past.open]) < worker_count:
                step = self.next()
                if step is None:
                    break
                self.steps.append(step)
                if isinstance(step, End):
                    assert not any(past.open for past in self.trials)
                    return step
                self.take(step)
            self.work()
        raise AssertionError("the job does not end")

    def next(self) -> Step | None:
        return next_step(
            self.space, self.trials, self.plan, remaining=self.remaining(), why_infeasible=self.why_infeasible
        )

    def remaining(self) -> float | None:
        return None if self.budget is None else self.budget - sum(past.device_seconds for past in self.trials)

    def take(self, step: Step) -> None:
        number = len(self.trials)
        match step:
            case Try():
                self.trials.append(Past(number=number, design=step.design, state=TrialState.WAITING, goal=step.goal))
            case MarkInfeasible():
                self.trials.append(Past(number=number, design=step.design, state=TrialState.INFEASIBLE, error=step.why))
            case Promote():
                assert self.trials[step.number].paused
                self.change(step.number, goal=step.goal)
            case Repeat():
                design = self.trials[step.number].design
                self.trials.append(Past(number=number, design=design, state=TrialState.WAITING, confirms=step.number))

    def work(self) -> None:
        """The first open trial is trained to its goal."""
        past = next(past for past in self.trials if past.open)
        if self.fails(past):
            self.change(past.number, state=TrialState.FAILED, device_seconds=0.5)
            return
        value = self.score(past)
        whole = self.length(past) if past.design.self_ending else 1.0
        remaining = self.remaining()
        if past.design.self_ending and remaining is not None:  # it wraps up when the budget ends
            whole = min(whole, past.device_seconds + remaining)
        while past.goal is not None and past.design.stages:
            # A training that ends between two rungs is scored at the later one.
            spent = min(whole, RUNGS[0] * RUNG_FACTOR**past.goal)
            past = self.change(past.number, measured=scored(value) * (past.goal + 1), device_seconds=spent)
            if not goes_on(self.trials, past.number, self.remaining()):
                return
            past = self.change(past.number, goal=asha.above(past.design, past.goal))
            if spent == whole:
                break
        if self.fails(past):
            self.change(past.number, state=TrialState.FAILED, device_seconds=0.5)
            return
        measured = scored(value) * rungs_of(past.design, whole)
        self.change(past.number, state=TrialState.COMPLETE, value=value, device_seconds=whole, measured=measured)

    def change(self, number: int, **fields: object) -> Past:
        self.trials[number] = self.trials[number].model_copy(update=fields)
        return self.trials[number]

    def designs(self) -> list[Past]:
        return [past for past in self.trials if past.confirms is None]

    def whole(self) -> set[int]:
        return {past.number for past in self.designs() if past.state is TrialState.COMPLETE}


def rungs_of(design: Design, whole: float) -> int:
    """How many rungs a training of so many seconds is scored at."""
    if not design.self_ending:
        return len(RUNGS) if design.stages else 0
    return 1 + next(rung for rung in range(99) if RUNGS[0] * RUNG_FACTOR**rung >= whole - 1e-9)


def of_kind(steps: Sequence[Step], kind: type) -> list:
    return [step for step in steps if isinstance(step, kind)]


def test_the_baselines_come_first_and_end_up_trained_to_the_end() -> None:
    job = Job(plan_of(12))
    job.run()
    assert [(step.origin, step.goal) for step in of_kind(job.steps, Try)[:2]] == [("baseline", None), ("baseline", 0)]
    assert {0, 1} <= job.whole()


def test_a_default_of_fixed_length_never_pauses() -> None:
    """It would have no result if the budget ended meanwhile."""
    job = Job(plan_of(12), space=FIXED, budget=5.0)
    job.run()
    assert [(step.origin, step.goal) for step in of_kind(job.steps, Try)[:3]] == [
        ("baseline", None),
        ("baseline", None),
        ("prior", 0),
    ]
    assert {0, 1} <= job.whole()


def test_the_default_is_trained_to_the_end_though_it_is_the_worst() -> None:
    job = Job(plan_of(12), score=lambda past: 5.0 if past.number == 1 else quality(past))
    job.run()
    assert 1 in job.whole()
    resumed = [step for step in of_kind(job.steps, Promote) if step.number == 1]
    assert resumed[-1].goal is None
    assert job.steps.index(resumed[-1]) > job.steps.index(of_kind(job.steps, Try)[-1]), "when all designs were tried"


def test_the_default_follows_the_designs_to_each_rung_where_it_can_bring_one_into_the_top_third() -> None:
    job = Job(plan_of(30), score=lambda past: 9.0 if past.number < 2 else quality(past), length=lambda past: 9.0)
    job.run()
    followed = [index for index, step in enumerate(job.steps) if isinstance(step, Promote) and step.number == 1]
    assert [job.steps[index].goal for index in followed][:2] == [1, 2]
    assert job.steps[followed[-1]].goal is None
    for rung, index in enumerate(followed[:-1], 1):
        before = [step for step in of_kind(job.steps[:index], Promote) if step.goal == rung]
        assert len(before) <= asha.ETA - 1, "without it, no design could have gone on from there"
        assert len(asha.rung_score(job.trials, rung)) > asha.ETA


def test_all_designs_first_train_to_the_first_rung() -> None:
    job = Job(plan_of(12))
    job.run()
    assert {step.goal for step in of_kind(job.steps, Try)[2:]} == {0}
    assert {step.origin for step in of_kind(job.steps, Try)[2:]} == {"prior", "proposed"}


@pytest.mark.parametrize("worker_count", [1, 2, 5])
@pytest.mark.parametrize("trials", [6, 9, 14, 30])
@pytest.mark.parametrize("space", [SPACE, FIXED], ids=["constant", "cosine"])
def test_a_job_trains_its_best_designs_to_the_end_and_repeats_them(
    space: Space, trials: int, worker_count: int
) -> None:
    job = Job(plan_of(trials), space=space)
    end = job.run(worker_count)
    assert end.code is EndCode.TRIALS
    assert str(trials) in end.reason
    assert len(job.designs()) == trials
    ranked = sorted(job.designs()[2:], key=lambda past: (quality(past), past.number))
    assert {past.number for past in ranked[:3]} <= job.whole(), "the best three, wherever they first paused"
    repeated = [past.confirms for past in job.trials if past.confirms is not None]
    assert sorted(repeated) == sorted([*(past.number for past in ranked[:3]), 1] * 2)
    won = best(job.trials)
    assert won is not None
    assert quality(won.trial) == min(map(quality, job.designs()))
    spent = sum(past.device_seconds for past in job.designs())
    assert spent < 0.6 * trials or trials < 14, "most designs cost a ninth of a training"


def test_those_promoted_are_those_of_the_top_third() -> None:
    job = Job(plan_of(30))
    job.run()
    first = asha.rung_score(job.trials, 0)
    beyond = {past.number for past in job.trials if len(past.measured) > 1 and past.confirms is None}
    assert {past.number for past in first[: len(first) // 3]} <= beyond
    assert len(beyond) <= len(first) // 2, "and few that were overtaken later"


@pytest.mark.parametrize("worker_count", [1, 4])
@pytest.mark.parametrize(("length", "rungs"), [(1.0, 3), (2.0, 4), (9.0, 5)])
def test_the_best_climb_rung_after_rung_as_far_as_their_trainings_go(
    length: float, rungs: int, worker_count: int
) -> None:
    """The first rung is after 1/9 s, so that a training of 9 s ends at the fifth."""
    job = Job(plan_of(60), length=lambda past: length)
    assert job.run(worker_count).code is EndCode.TRIALS
    reached = [len(asha.rung_score(job.trials, rung)) for rung in range(rungs)]
    assert asha.rungs(job.trials) >= rungs
    assert reached[0] == 59, "all designs and the default"
    assert 59 // 3 <= reached[1] <= 59 // 2
    assert 59 // 9 <= reached[2] <= 59 // 5
    assert reached[-1] >= 2
    assert sorted(reached, reverse=True) == reached
    ranked = sorted(job.designs()[2:], key=lambda past: (quality(past), past.number))
    assert {past.number for past in ranked[:3]} <= job.whole()


def test_a_budget_is_kept_to_however_long_trainings_turn_out() -> None:
    job = Job(plan_of(60), length=lambda past: 1.0 + (past.confirms or past.number) % 4, budget=20.0)
    assert job.run().code is EndCode.DEVICE_SECONDS
    assert len(job.designs()) > 20
    assert len(job.whole()) >= 2 + 3
    remaining = job.remaining()
    assert remaining is not None
    assert remaining >= 0


@pytest.mark.parametrize("finalists", [1, 3])
@pytest.mark.parametrize("trials", [2, 3, 4, 5])
def test_tiny_budgets_end_well(trials: int, finalists: int) -> None:
    job = Job(plan_of(trials, finalists))
    job.run()
    assert len(job.designs()) == trials
    assert len(job.whole()) == 2 + min(trials - 2, finalists)
    assert len([past for past in job.trials if past.confirms is not None]) == 2 * (min(trials - 2, finalists) + 1)


def test_where_all_designs_are_finalists_none_pauses() -> None:
    job = Job(plan_of(5, finalists=3))
    job.run()
    assert {step.goal for step in of_kind(job.steps, Try)} == {None}
    assert of_kind(job.steps, Promote) == []


def test_without_repeats_the_job_ends_with_its_finalists() -> None:
    job = Job(plan_of(9, confirmations=0))
    job.run()
    assert of_kind(job.steps, Repeat) == []
    assert len(job.trials) == 9


def test_seed_offsets_count_from_one_for_each_finalist() -> None:
    job = Job(plan_of(4, finalists=1))
    job.run()
    found = [(step.number, step.seed_offset) for step in of_kind(job.steps, Repeat)]
    winner = to_repeat(job.trials, job.plan)[0].number
    assert found == [(winner, 1), (winner, 2), (1, 1), (1, 2)]


def test_a_repeat_that_fails_is_not_tried_again() -> None:
    job = Job(plan_of(5), fails=lambda past: past.confirms is not None)
    job.run()
    assert len(of_kind(job.steps, Repeat)) == 8


def test_repeats_do_not_change_which_designs_are_repeated() -> None:
    """The best of single runs look worse once repeated; the next in line does not take their place for that."""
    job = Job(plan_of(9), score=lambda past: quality(past) + 0.5 * (past.confirms is not None))
    job.run()
    assert {step.number for step in of_kind(job.steps, Repeat)} == {
        past.number for past in (*sorted(job.designs()[2:], key=quality)[:3], job.trials[1])
    }
    won = best(job.trials)
    assert won is not None
    assert won.trial.number in {step.number for step in of_kind(job.steps, Repeat)}


def test_a_lucky_single_run_does_not_beat_a_mean() -> None:
    design = [SPACE.sample(_Nth(n)) for n in range(4)]
    history = [
        complete(2, design[0], 1.0),
        complete(3, design[1], 1.02),
        complete(4, design[0], 1.3).model_copy(update={"confirms": 2}),
    ]
    won = best(history)
    assert won is not None
    assert won.trial.number == 2


def test_when_all_trials_fail_the_job_ends() -> None:
    job = Job(plan_of(9), fails=lambda past: bool(past.design.stages))
    assert job.run().code is EndCode.TRIALS
    assert job.whole() == {0}
    assert of_kind(job.steps, Repeat) == []


def test_when_promoted_trials_fail_the_next_best_are_trained_to_the_end() -> None:
    def fails(past: Past) -> bool:
        return past.number > 1 and past.confirms is None and (past.goal is None or len(past.measured) > 1)

    job = Job(plan_of(12), fails=fails)
    job.run()
    assert job.whole() == {0, 1}
    assert all(past.state is TrialState.FAILED for past in job.trials[2:] if past.confirms is None)


def test_any_number_may_pause_at_once() -> None:
    job = Job(plan_of(60), score=lambda past: float(past.number))  # each is worse than all before
    job.run()
    assert len([past for past in job.trials if past.paused]) >= 30


def test_an_exhausted_space_ends_the_search_with_its_best() -> None:
    job = Job(plan_of(50), space=space_of(pin=FEW))
    end = job.run()
    assert end.code is EndCode.SPACE_EXHAUSTED
    assert "4 designs" in end.reason
    assert job.whole() == {0, 1, 2, 3}
    assert {step.number for step in of_kind(job.steps, Promote)} == {1, 2, 3}


def test_an_infeasible_design_is_recorded_and_costs_no_trial() -> None:
    def too_deep(design: Design) -> str | None:
        return "it needs 9 GiB" if design.stages and design.stages[0].update.kind == "full" else None

    job = Job(plan_of(12), why_infeasible=too_deep)
    job.run()
    refused = of_kind(job.steps, MarkInfeasible)
    assert refused
    assert {step.why for step in refused} == {"it needs 9 GiB"}
    assert len(job.designs()) == 12 + len(refused)


def test_a_budget_leaves_enough_to_repeat_the_best() -> None:
    job = Job(plan_of(500), budget=30.0)
    assert job.run().code is EndCode.DEVICE_SECONDS
    # A finalist that paused at a rung and is finished late may cost one of the eight repeats.
    assert len([past for past in job.trials if past.confirms is not None]) in (7, 8)
    assert len(job.designs()) > 20
    remaining = job.remaining()
    assert remaining is not None
    assert 0 <= remaining < 6


def test_once_the_best_are_repeated_no_design_is_added() -> None:
    """More time, as when workers have joined, does not reopen what was compared."""
    job = Job(plan_of(500), budget=30.0)
    while not of_kind(job.steps, Repeat):
        step = job.next()
        assert step is not None
        job.steps.append(step)
        job.take(step)
        job.work()
    job.budget = 1000.0
    job.run()
    assert max(past.number for past in job.designs()) < min(past.number for past in job.trials if past.confirms)


def test_the_reserve_is_estimated_from_complete_trials_alone() -> None:
    plan = plan_of(20)
    assert reserve([], plan, 900.0) == 0.0
    tried = [complete(2 + n, SPACE.sample(_Nth(n)), 1.0, device_seconds=4.0) for n in range(3)]
    assert reserve(tried, plan, 900.0) == 4.0 * 4 * 2
    waiting = Past(number=5, design=SPACE.sample(_Nth(4)), state=TrialState.LEASED, device_seconds=50.0)
    assert reserve([*tried, waiting], plan, 900.0) == 4.0 * 4 * 2


def test_repeats_reserve_a_third_of_a_small_budget_and_nothing_before_there_are_finalists() -> None:
    plan = plan_of(20)
    tried = [complete(2 + n, SPACE.sample(_Nth(n)), 1.0, device_seconds=4.0) for n in range(3)]
    assert reserve(tried, plan, 48.0) == pytest.approx((12 + 48) / 3)
    assert reserve(tried[:2], plan, 48.0) == 0.0
    default = complete(1, SPACE.sample(_Nth(5)), 1.0, device_seconds=6.0)
    assert reserve([default], plan, 48.0) == 6.0, "one design is to be finished"


@pytest.mark.parametrize(
    ("budget", "trials", "designs", "finished", "repeats"),
    [
        (9.0, 6, 4, 3, 2),
        (4.5, 6, 4, 2, 0),
        (3.5, 6, 3, 1, 0),
        (2.5, 6, 0, 0, 0),
        (9.0, 24, 16, 3, 1),
        (40.0, 24, 22, 3, 8),
    ],
)
def test_a_small_budget_tries_designs_then_finishes_them_then_repeats_them(
    budget: float, trials: int, designs: int, finished: int, repeats: int
) -> None:
    """A full training takes 1 second."""
    job = Job(plan_of(trials), budget=budget)
    job.run()
    searched = [past for past in job.trials[2:] if past.confirms is None]
    found = len(searched), len([past for past in searched if past.value is not None])
    assert found[0] >= designs
    assert found[1] >= finished
    assert len([past for past in job.trials if past.confirms is not None]) >= repeats
    remaining = job.remaining()
    assert remaining is not None
    assert remaining >= -1e-9


def test_no_dropped_trial_is_promoted() -> None:
    for trials in (6, 12, 30):
        job = Job(plan_of(trials))
        dropped: set[int] = set()
        for _ in range(10_000):
            step = job.next()
            if isinstance(step, End):
                break
            if step is None:
                job.work()
                continue
            assert not (isinstance(step, Promote) and step.number in dropped)
            job.take(step)
            if any(past.open for past in job.trials):
                job.work()
            dropped |= {past.number for past in not_promotable(job.trials, job.plan, None)}
        assert len(dropped) >= trials // 3 - 1


class _Nth:
    """Answers a space's questions so that the n-th design is another than those before."""

    def __init__(self, n: int) -> None:
        self.n = n

    def categorical(self, name: str, choices: Sequence) -> object:
        return choices[self.n % len(choices)]

    def log_uniform(self, name: str, low: float, high: float) -> float:
        return low + (high - low) * (self.n + 1) / 10


def best_at(number: int) -> Callable[[Past], float]:
    """As if one design were better than all others, which are the worse the later they come."""

    def value(past: Past) -> float:
        shown = past.number if past.confirms is None else past.confirms
        return 1.0 if shown == number else 2.0 + shown / 100

    return value


@pytest.mark.parametrize(("trials", "tried"), [(36, 24), (60, 40), (24, 24)])
def test_a_search_that_finds_nothing_better_for_long_ends_early_and_says_why(trials: int, tried: int) -> None:
    job = Job(plan_of(trials, early_finish=True), score=best_at(4))
    end = job.run()
    assert len([past for past in job.designs() if past.design.stages]) == min(tried, trials - 1)
    if tried < trials:
        assert end.code is EndCode.NO_IMPROVEMENT
        assert f"{tried - 4} designs" in end.reason
        assert "trial 4" in end.reason
    assert 4 in job.whole()
    assert any(past.confirms == 4 for past in job.trials), "what was found is confirmed all the same"


def test_a_search_that_still_gets_better_goes_on() -> None:
    job = Job(plan_of(36, early_finish=True), score=lambda past: 9.0 - (past.confirms or past.number) / 100)
    assert job.run().code is EndCode.TRIALS


def test_an_early_finish_can_be_declined() -> None:
    job = Job(plan_of(36, early_finish=False), score=best_at(4))
    assert job.run().code is EndCode.TRIALS
