"""What a job may still spend, and when it will be done."""

from datetime import UTC, datetime, timedelta

import pytest

from luthier.design import Architecture, Design
from luthier.store.rows import JobRecord, TrialRecord
from luthier.task import Constraints, DataKind, JudgeSpec, Pin, Search, Task
from luthier.trial import JobState, TrialState
from search.policy.scheduler import EndCode
from service.jobs import budget
from service.results.report import ended_because

START = datetime(2030, 1, 1, tzinfo=UTC)


def job(state: JobState = JobState.RUNNING, **search: object) -> JobRecord:
    return JobRecord(
        id="ftjob-a",
        created_at=START,
        started_at=START,
        state=state,
        task=Task(),
        search=Search.model_validate({"trials": 5, "finalists": 3, "confirmations": 0, **search}),
        constraints=Constraints(),
        training_file="file-a",
        train="0" * 64,
        judge=JudgeSpec(kind=DataKind.PAIRS, validation="1" * 64, test="2" * 64, objective="perplexity"),
        seed=0,
    )


def rows(done: int, running: int = 0, seconds: float = 10.0) -> list[TrialRecord]:
    states = [TrialState.COMPLETE] * done + [TrialState.LEASED] * running
    return [
        TrialRecord(
            id=f"trial-{number}",
            job_id="ftjob-a",
            number=number,
            state=state,
            design=Design(architecture=Architecture(base="tiny")),
            digest="d",
            seed=number,
            origin="proposed",
            created_at=START,
            device_seconds=seconds,
        )
        for number, state in enumerate(states)
    ]


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_without_a_limit_of_time_nothing_overruns() -> None:
    assert budget.overrun(job(), rows(10), after(1e6)) is None


@pytest.mark.parametrize(("seconds", "spent"), [(29.9, False), (30.0, True), (31.0, True)])
def test_device_seconds_are_spent_when_all_trials_together_reach_them(seconds: float, spent: bool) -> None:
    end = budget.overrun(job(device_seconds=30), rows(1, 1, seconds / 2), after(1))
    assert (None if end is None else end.code) == (EndCode.DEVICE_SECONDS if spent else None)


def test_a_deadline_passes_at_its_very_moment() -> None:
    limited = job(deadline=after(60))
    assert budget.overrun(limited, [], after(59.9)) is None
    end = budget.overrun(limited, [], after(60))
    assert end is not None
    assert end.code is EndCode.DEADLINE
    assert "2030-01-01 00:01:00 UTC" in end.reason


def changed(trial: TrialRecord, **changes: object) -> TrialRecord:
    return trial.model_copy(update=changes)


def test_what_pauses_is_not_open() -> None:
    paused = changed(rows(0, 1)[0], state=TrialState.WAITING, goal=0, rung=0)
    assert budget.open_trials([paused]) == []
    for change in ({"goal": 1}, {"rung": None}, {"goal": None}, {"state": TrialState.LEASED}):
        assert budget.open_trials([changed(paused, **change)])


def test_confirmations_and_what_was_refused_are_no_designs() -> None:
    ran, fresh, repeated = rows(3)
    repeated = changed(repeated, origin="confirmation")
    refused = changed(fresh, state=TrialState.INFEASIBLE)
    grew = changed(refused, started_at=START)
    assert budget.designs([ran, fresh, repeated, refused, grew]) == [ran, fresh, grew]
    assert budget.confirmations([ran, repeated]) == [repeated]


@pytest.mark.parametrize(("trials", "finalists", "planned"), [(24, 3, 8), (24, 1, 4), (4, 3, 6), (2, 3, 2)])
def test_the_finalists_there_can_be_and_the_default_are_to_be_confirmed(
    trials: int, finalists: int, planned: int
) -> None:
    assert budget.planned_confirmations(job(trials=trials, finalists=finalists, confirmations=2).search) == planned


def test_what_remains_is_the_least_of_what_is_left_of_the_budget_and_the_time() -> None:
    assert budget.remaining(job(), rows(1), 2, after(0)) is None
    assert budget.remaining(job(device_seconds=40), rows(1), 2, after(0)) == 30
    assert budget.remaining(job(deadline=after(50)), rows(1), 2, after(20)) == 60
    assert budget.remaining(job(deadline=after(50)), rows(1), 0, after(20)) == 30
    assert budget.remaining(job(deadline=after(50), device_seconds=40), rows(1), 2, after(20)) == 30
    assert budget.remaining(job(deadline=after(50), device_seconds=5), rows(1), 2, after(60)) == 0


def test_the_estimate_goes_on_at_the_pace_so_far() -> None:
    assert budget.estimated_finish(job(), rows(2, 1), after(20)) == after(50)


def test_the_estimate_knows_that_most_designs_are_not_trained_to_the_end() -> None:
    """Of 18 designs beside the baselines: all to 1/9, six to 1/3, three to the end."""
    whole = 2 + 18 / 9 + 6 * 2 / 9 + 3 * 2 / 3
    estimate = budget.estimated_finish(job(trials=20), rows(2), after(20))
    assert estimate is not None
    assert (estimate - START).total_seconds() == pytest.approx(20 * whole / 2)
    paused = [changed(row, state=TrialState.WAITING, goal=0, rung=0) for row in rows(9)]
    later = budget.estimated_finish(job(trials=20), [*rows(2), *paused], after(30))
    assert later is not None
    assert (later - START).total_seconds() == pytest.approx(30 * whole / 3)


def test_the_estimate_counts_confirmations() -> None:
    assert budget.estimated_finish(job(confirmations=2), rows(2), after(20)) == after(20 * (5 + 8) / 2)


def test_the_estimate_follows_the_budget_that_runs_out_first() -> None:
    limited = job(device_seconds=25)
    assert budget.estimated_finish(limited, rows(2), after(20)) == after(25)
    assert budget.estimated_finish(job(deadline=after(45)), rows(2), after(20)) == after(45)


def test_there_is_no_estimate_before_the_first_trial_or_after_the_end() -> None:
    assert budget.estimated_finish(job(), rows(0, 1), after(20)) is None
    assert budget.estimated_finish(job(JobState.SUCCEEDED), rows(10), after(20)) is None


def test_the_estimate_follows_what_is_known_of_the_work_left() -> None:
    assert budget.estimated_finish(job(), rows(2), after(20), work_left=300.0, worker_count=2) == after(170)
    assert budget.estimated_finish(job(), rows(0, 1), after(20), work_left=300.0) == after(320)


def test_no_more_work_is_left_than_the_budget_allows() -> None:
    limited = job(device_seconds=40)
    assert budget.estimated_finish(limited, rows(2), after(20), work_left=300.0) == after(40)
    assert budget.estimated_finish(job(deadline=after(50)), rows(2), after(20), work_left=300.0) == after(50)
    assert budget.estimated_finish(job(JobState.SUCCEEDED), rows(10), after(20), work_left=300.0) is None


def test_the_work_left_shrinks_as_trials_are_trained() -> None:
    left = [budget.trainings_left(job(), rows(done)) for done in (0, 1, 2, 5)]
    assert left == sorted(left, reverse=True)
    assert left[0] - left[1] == pytest.approx(1.0)
    assert budget.trainings_left(job(), rows(50)) == 0


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (None, None),
        (EndCode.TRIALS, "5 trials"),
        (EndCode.DEVICE_SECONDS, "30 device-seconds"),
        (EndCode.DEADLINE, "2030-01-01 00:01:00 UTC"),
        (EndCode.NO_IMPROVEMENT, "improve"),
        (EndCode.SPACE_EXHAUSTED, "4 designs"),
        (EndCode.REFUSED, "needs 9 GiB"),
    ],
)
def test_a_code_is_shown_as_a_clause_with_the_figures(code: EndCode | None, found: str | None) -> None:
    ended = job(device_seconds=30, deadline=START + timedelta(seconds=60)).model_copy(update={"ended_reason": code})
    refused = rows(1)[0].model_copy(update={"state": TrialState.INFEASIBLE, "error": "needs 9 GiB", "number": 4})
    words = ended_because(ended, [*rows(4), refused])
    assert words is None if found is None else found in str(words)


@pytest.mark.parametrize(("models", "ends"), [(("tiny",), True), (("tiny", "other"), False)])
def test_a_base_model_that_cannot_run_ends_its_job_unless_there_is_another(models: tuple[str, ...], ends: bool) -> None:
    of = job()
    of = of.model_copy(update={"search": of.search.model_copy(update={"pin": Pin(model=models)})})
    base, *others = rows(3)
    assert budget.overrun(of, [base, *others], after(1)) is None
    base = base.model_copy(update={"state": TrialState.INFEASIBLE, "error": "needs 9 GiB"})
    end = budget.overrun(of, [base, *others], after(1))
    assert (end is not None) is ends
    if end is not None:
        assert end.code is EndCode.BASE_INFEASIBLE
        ended = of.model_copy(update={"ended_reason": end.code})
        assert "needs 9 GiB" in str(ended_because(ended, [base, *others]))


def test_a_reserved_budget_is_not_called_spent() -> None:
    ended = job(device_seconds=1000).model_copy(update={"ended_reason": EndCode.DEVICE_SECONDS})
    assert "1000" not in str(ended_because(ended, rows(4)))


@pytest.mark.parametrize(
    ("limits", "running", "kept", "left"),
    [
        ({}, 2, 5.0, None),
        ({"device_seconds": 100.0}, 1, 0.0, 80.0),
        ({"device_seconds": 100.0}, 2, 10.0, 30.0),
        ({"device_seconds": 100.0}, 3, 0.0, 20.0),
        ({"deadline": after(50.0)}, 1, 0.0, 40.0),
        ({"deadline": after(50.0)}, 2, 10.0, 30.0),
        ({"device_seconds": 100.0, "deadline": after(50.0)}, 1, 0.0, 40.0),
        ({"device_seconds": 40.0, "deadline": after(50.0)}, 2, 20.0, -5.0),
    ],
)
def test_running_trials_share_the_device_seconds_and_each_has_the_time_to_the_deadline(
    limits: dict[str, object], running: int, kept: float, left: float | None
) -> None:
    """After ten seconds, one trial has ended; it and the running ones have used ten seconds each."""
    found = budget.left_for_each(job(**limits), rows(1, running), after(10.0), kept=kept)
    assert found == left
