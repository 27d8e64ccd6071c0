"""How leases end: as the worker reports, once, or when it is lost."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from luthier.errors import LeaseLost, MissingMetric
from luthier.store import artifacts, jobs, leases, measurements, trials
from luthier.store.database import Database
from luthier.store.rows import TrialRecord
from luthier.trial import JobState, TrialState
from luthier.worker_protocol import Claim
from tests.integration.store_reports import (
    ADAPTER,
    LOSS,
    OUTCOMES,
    SCORES,
    USAGE,
    everything,
    finished,
    reached,
    saved,
    verdict,
)
from tests.integration.store_samples import (
    METRICS,
    NOW,
    add_job,
    add_trial,
    after,
    claim_of,
    digest,
    lease,
    leased_trial,
)

# Finishing


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_lease_ends_as_the_report_says(database: Database, outcome: str) -> None:
    report: dict[str, Any] = {"test_metrics": METRICS, "trained_tokens": 2**40, "error": "why"}
    with database.begin() as c:
        taken = leased_trial(c)
        ended = leases.finish(c, taken.id, finished(claim_of(taken), outcome, **report), after(5))
        assert trials.get(c, taken.id) == ended
        assert measurements.of_trial(c, taken.id) == [LOSS]
        assert artifacts.of_trial(c, taken.id) == [ADAPTER]
        assert trials.row_scores(c, "ftjob-a") == {taken.id: SCORES}
    changes: dict[str, Any] = {
        "state": TrialState(outcome),
        "owner": None,
        "expires_at": None,
        "device_seconds": 12.5,
        "metrics": METRICS,
        "test_metrics": METRICS,
        "usage": USAGE,
        "trained_tokens": 2**40,
    }
    if outcome == "waiting":
        changes |= {"attempts": 0}
    else:
        changes |= {"finished_at": after(5), "error": "why"}
    assert ended == taken.model_copy(update=changes)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_same_end_reported_again_is_answered_and_changes_nothing(database: Database, outcome: str) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        report = finished(claim_of(taken), outcome)
        ended = leases.finish(c, taken.id, report, after(5))
        artifacts.drop(c, taken.id)  # by now the service may have decided against keeping them
        before = everything(c)
        assert leases.finish(c, taken.id, report, after(6)) == ended
        assert everything(c) == before


@pytest.mark.parametrize("first", OUTCOMES)
def test_another_end_of_the_same_lease_comes_too_late(database: Database, first: str) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        leases.finish(c, taken.id, finished(claim_of(taken), first), after(5))
        before = everything(c)
        for second in set(OUTCOMES) - {first}:
            with pytest.raises(LeaseLost):
                leases.finish(c, taken.id, finished(claim_of(taken), second), after(6))
        assert everything(c) == before


def test_an_end_reported_again_by_somebody_else_is_refused(database: Database) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        leases.finish(c, taken.id, finished(claim_of(taken)), after(5))
        with pytest.raises(LeaseLost, match=r"worker-b no longer holds .* it is complete"):
            leases.finish(c, taken.id, finished(Claim(owner="worker-b", fence=1)), after(6))


def test_having_given_a_trial_back_once_does_not_excuse_losing_it_later(database: Database) -> None:
    with database.begin() as c:
        first = leased_trial(c)
        leases.finish(c, first.id, finished(claim_of(first), "waiting"), after(1))
        second = lease(c, "worker-a", after(2))
        leases.expire(c, after(60))
        with pytest.raises(LeaseLost):
            leases.finish(c, second.id, finished(claim_of(second), "waiting"), after(61))


def test_the_end_of_an_earlier_lease_is_not_taken_for_that_of_the_last(database: Database) -> None:
    with database.begin() as c:
        first = leased_trial(c)
        leases.finish(c, first.id, finished(claim_of(first), "waiting"), after(1))
        second = lease(c, "worker-a", after(2))
        leases.finish(c, second.id, finished(claim_of(second), "waiting"), after(3))
        with pytest.raises(LeaseLost):
            leases.finish(c, first.id, finished(claim_of(first), "waiting"), after(4))


def test_a_trial_given_back_goes_on_where_it_stopped(database: Database) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        leases.save_checkpoint(c, taken.id, saved(claim_of(taken), "first"))
        leases.reach_rung(c, taken.id, reached(claim_of(taken), 1), NOW)
        leases.finish(c, taken.id, finished(claim_of(taken), "waiting", metrics=None), after(5))
        again = lease(c, "worker-b", after(6))
    assert (again.id, again.fence, again.attempts) == (taken.id, 2, 1)
    assert (again.checkpoint, again.rung, again.device_seconds) == (digest("first"), 1, 12.5)
    assert again.started_at == taken.started_at


def test_an_earlier_verdict_stands_where_the_end_brings_none(database: Database) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        leases.judge(c, taken.id, verdict(claim_of(taken)))
        ended = leases.finish(c, taken.id, finished(claim_of(taken), metrics=None), after(5))
        assert ended.metrics == METRICS


def test_a_trial_without_a_verdict_cannot_be_complete(database: Database) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
    with pytest.raises(MissingMetric, match="has no metrics"), database.begin() as c:
        leases.finish(c, taken.id, finished(claim_of(taken), metrics=None), after(5))
    with database.read() as c:
        assert trials.get(c, taken.id) == taken


def test_a_failure_keeps_its_reason_even_with_a_nul_in_it(database: Database) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        report = finished(claim_of(taken), "failed", error="loss is nan\0", metrics=None)
        assert leases.finish(c, taken.id, report, after(5)).error == "loss is nan\N{REPLACEMENT CHARACTER}"


def test_what_an_end_does_not_bring_stays_as_it_was(database: Database) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        leases.finish(c, taken.id, finished(claim_of(taken), "waiting"), after(1))
        again = lease(c, now=after(2))
        ended = leases.finish(c, again.id, finished(claim_of(again), usage=None, test_scores=None), after(3))
        assert (ended.usage, trials.row_scores(c, "ftjob-a")) == (USAGE, {taken.id: SCORES})
        add_job(c, "ftjob-b", after(1))
        assert trials.row_scores(c, "ftjob-b") == {}


# Losing


def test_a_lease_is_taken_back_only_after_it_ran_out(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        add_trial(c, number=0)
        add_trial(c, number=1)
        short, long = lease(c, seconds=30), lease(c, "worker-b", seconds=31)
        assert leases.expire(c, after(30)) == []
        back = short.model_copy(update={"state": TrialState.WAITING, "owner": None, "expires_at": None})
        assert leases.expire(c, after(30.5)) == [back]
        assert trials.of_job(c, "ftjob-a") == [back, long]
        assert lease(c, "worker-c").fence == 2


def test_a_worker_that_starts_anew_gives_up_its_own_leases_only(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        add_trial(c, number=0)
        add_trial(c, number=1)
        old, other = lease(c, "worker-a"), lease(c, "worker-b")
        back = old.model_copy(update={"state": TrialState.WAITING, "owner": None, "expires_at": None})
        assert leases.release(c, "worker-a", after(1)) == [back]
        assert trials.of_job(c, "ftjob-a") == [back, other]


def lose_by_expiry(c: Connection, now: float) -> list[TrialRecord]:
    return leases.expire(c, after(now + 60))


def lose_by_restart(c: Connection, now: float) -> list[TrialRecord]:
    return leases.release(c, "worker-a", after(now + 60))


@pytest.mark.parametrize("lose", [lose_by_expiry, lose_by_restart])
def test_a_trial_that_lost_its_worker_three_times_has_failed(
    database: Database, lose: Callable[[Connection, float], list[TrialRecord]]
) -> None:
    with database.begin() as c:
        add_job(c)
        add_trial(c)
        for attempt in (1, 2):
            lease(c, now=after(attempt * 100))
            assert [trial.state for trial in lose(c, attempt * 100)] == [TrialState.WAITING]
        lease(c, now=after(300))
        (failed,) = lose(c, 300)
        assert trials.get(c, failed.id) == failed
        assert leases.acquire(c, "worker-b", after(400), 30) is None
    assert (failed.state, failed.error) == (TrialState.FAILED, "its worker was lost 3 times")
    assert (failed.finished_at, failed.owner, failed.expires_at) == (after(360), None, None)


def test_giving_a_trial_back_is_not_losing_a_worker(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        add_trial(c)
        for _ in range(5):
            taken = lease(c)
            leases.finish(c, taken.id, finished(claim_of(taken), "waiting"), NOW)
        lease(c)
        assert [trial.state for trial in leases.expire(c, after(60))] == [TrialState.WAITING]


def test_the_lease_of_a_cancelled_job_still_ends_in_good_order(database: Database) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        assert jobs.move(c, "ftjob-a", JobState.CANCELLED, after(1))
        trials.cancel_waiting(c, "ftjob-a", after(1))
        ended = leases.finish(c, taken.id, finished(claim_of(taken), "cancelled", metrics=None), after(2))
    assert ended.state is TrialState.CANCELLED
