"""The states of jobs and trials, the legal ways between them, and the values that travel with them."""

from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from openai.types.fine_tuning import FineTuningJob
from pydantic import ValidationError

from luthier.trial import JOB_TRANSITIONS, TRIAL_TRANSITIONS, JobState, Lease, Metrics, Point, TrialState
from luthier.worker_protocol import Finished

TRANSITIONS: dict[Any, frozenset[Any]] = {**JOB_TRANSITIONS, **TRIAL_TRANSITIONS}
METRICS = {"perplexity": 8.0, "bits_per_byte": 0.9, "tokens": 10, "rows": 2}


def reachable(start: JobState | TrialState) -> set[JobState | TrialState]:
    found, new = {start}, {start}
    while new:
        new = {after for state in new for after in TRANSITIONS[state]} - found
        found |= new
    return found


def test_every_state_says_where_it_leads_and_no_other_does() -> None:
    assert set(JOB_TRANSITIONS) == set(JobState)
    assert set(TRIAL_TRANSITIONS) == set(TrialState)


def test_every_state_can_be_reached_from_the_first() -> None:
    assert reachable(JobState.VALIDATING_FILES) == set(JobState)
    assert reachable(TrialState.WAITING) == set(TrialState)


def test_every_state_leads_to_an_end() -> None:
    for state in (*JobState, *TrialState):
        assert any(end.terminal for end in reachable(state))


EXTENDED = {JobState.SUCCEEDED, TrialState.PRUNED}  # what goes on again if a user extends a job


def test_ends_are_final_but_for_an_extension() -> None:
    ends = {"succeeded", "failed", "cancelled", "complete", "pruned", "infeasible"}
    for state in (*JobState, *TrialState):
        assert state.terminal is (state.value in ends)
        if state not in EXTENDED:
            assert state.terminal is (reachable(state) == {state})
    assert JOB_TRANSITIONS[JobState.SUCCEEDED] == {JobState.QUEUED}
    assert TRIAL_TRANSITIONS[TrialState.PRUNED] == {TrialState.WAITING}


def test_losing_a_machine_is_not_a_failure_and_failing_is_not_being_pruned() -> None:
    assert TrialState.WAITING in TRIAL_TRANSITIONS[TrialState.LEASED]
    assert {TrialState.FAILED, TrialState.PRUNED} <= TRIAL_TRANSITIONS[TrialState.LEASED]
    assert TrialState.FAILED not in TRIAL_TRANSITIONS[TrialState.WAITING]


def test_only_a_leased_trial_can_be_complete() -> None:
    leading = [state for state in TrialState if TrialState.COMPLETE in TRIAL_TRANSITIONS[state]]
    assert leading == [TrialState.LEASED]


def test_job_states_are_the_words_of_the_openai_client() -> None:
    assert {state.value for state in JobState} == set(get_args(FineTuningJob.model_fields["status"].annotation))


def test_every_end_of_a_lease_that_a_worker_can_report_is_legal() -> None:
    outcomes = {TrialState(outcome) for outcome in get_args(Finished.model_fields["outcome"].annotation)}
    assert outcomes == TRIAL_TRANSITIONS[TrialState.LEASED] - {TrialState.PRUNED}  # pruning is the service's business


@pytest.mark.parametrize("field", ["perplexity", "bits_per_byte", "reward"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_score_is_a_finite_number(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Metrics.model_validate(METRICS | {field: value})


@pytest.mark.parametrize("field", ["perplexity", "bits_per_byte", "tokens", "rows"])
def test_a_score_is_never_left_out(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Metrics.model_validate({name: value for name, value in METRICS.items() if name != field})


def test_a_point_refuses_a_loss_that_is_not_a_number() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert Point(stage=0, step=0, name="train_loss", value=1.5, at=at).value == 1.5
    with pytest.raises(ValidationError, match="finite"):
        Point(stage=0, step=0, name="train_loss", value=float("nan"), at=at)


def test_fences_count_from_one() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert Lease(trial_id="trial-a", owner="worker-a", fence=1, expires_at=at).fence == 1
    with pytest.raises(ValidationError, match="fence"):
        Lease(trial_id="trial-a", owner="worker-a", fence=0, expires_at=at)
