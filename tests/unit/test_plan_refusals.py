"""A search in which designs are refused because they would not fit."""

from __future__ import annotations

from luthier.design import Design
from search.policy.scheduler import MAX_INFEASIBLE, End, EndCode, MarkInfeasible
from tests.unit.test_plan import Job, plan_of


def too_large(design: Design) -> str:
    return "it is expected to need 9.00 GiB of memory, and there are 1.00 GiB"


def test_a_search_in_which_nothing_fits_ends_and_says_why() -> None:
    job = Job(plan=plan_of(trials=6), why_infeasible=too_large)
    end = job.run()
    refused = [step for step in job.steps if isinstance(step, MarkInfeasible)]
    assert len(refused) == MAX_INFEASIBLE
    assert end.code is EndCode.REFUSED
    assert str(MAX_INFEASIBLE) in end.reason
    assert "9.00 GiB" in end.reason


def test_patience_grows_with_the_number_of_trials() -> None:
    job = Job(plan=plan_of(trials=30), why_infeasible=too_large)
    job.run()
    assert len([step for step in job.steps if isinstance(step, MarkInfeasible)]) == 30


def test_designs_that_fit_in_between_keep_the_search_going() -> None:
    job = Job(plan=plan_of(trials=5), why_infeasible=lambda design: too_large(design) if _wide(design) else None)
    end = job.run()
    assert isinstance(end, End)
    assert end.code is EndCode.TRIALS
    assert any(isinstance(step, MarkInfeasible) for step in job.steps)


def _wide(design: Design) -> bool:
    return any(stage.update.kind == "full" for stage in design.stages)
