"""Leases: who works on a trial, and what a report from somebody who does not may change, which is nothing."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from luthier.errors import LeaseLost, MissingMetric, NotFound
from luthier.store import artifacts, curves, jobs, leases, tables, trials
from luthier.store.database import Database
from luthier.store.records import RungRecord, TrialRecord
from luthier.trial import TRIAL_TRANSITIONS, JobState, Metrics, Point, RowScores, TrialState, Usage
from luthier.wire import Artifact, CheckpointSaved, Claim, Finished, Judged, RungReached
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
from tests.integration.together import run_together

OUTCOMES = ["complete", "failed", "infeasible", "cancelled", "waiting"]
TERMINAL = [state for state in TrialState if state.terminal]
ADAPTER = Artifact(kind="adapter", files={"adapter_model.safetensors": digest("weights")}, bytes=9)
USAGE = Usage(
    peak_memory_bytes=2**40, train_seconds=8.5, train_tokens=2**40, steps=9, judge_seconds=0.1, judged_rows=32
)
SCORES = RowScores(nll=(1 / 3, 2.0), tokens=(3, 4), bytes=(9.5, 12.0), reward=(0.0, 1.0), general_bits_per_byte=1.5)
LOSS = Point(stage=0, step=5, name="train_loss", value=2.5, at=NOW)


def finished(claim: Claim, outcome: str = "complete", **fields: Any) -> Finished:
    fields = {"device_seconds": 12.5, "metrics": METRICS, "artifacts": (ADAPTER,), "points": (LOSS,)} | fields
    fields = {"usage": USAGE, "test_scores": SCORES} | fields
    return Finished(owner=claim.owner, fence=claim.fence, outcome=outcome, **fields)


def saved(claim: Claim, name: str) -> CheckpointSaved:
    blobs = (digest(f"{name} weights"), digest(f"{name} optimiser"))
    return CheckpointSaved(**dict(claim), manifest=digest(name), blobs=blobs, stage=0, step=7)


def verdict(claim: Claim) -> Judged:
    return Judged(**dict(claim), metrics=METRICS, device_seconds=8.0)


def scored(bits_per_byte: float) -> Metrics:
    return METRICS.model_copy(update={"bits_per_byte": bits_per_byte})


def reached(claim: Claim, rung: int, bits_per_byte: float = 2.0) -> RungReached:
    return RungReached(**dict(claim), rung=rung, share=0.25, stage=0, step=7, metrics=scored(bits_per_byte))


def end(outcome: str) -> Callable[[Connection, str, Claim], object]:
    return lambda c, trial_id, claim: leases.finish(c, trial_id, finished(claim, outcome), after(1))


REPORTS: list[Callable[[Connection, str, Claim], object]] = [
    lambda c, trial_id, claim: leases.renew(c, trial_id, claim, after(1), 60, 99.0),
    lambda c, trial_id, claim: leases.save_checkpoint(c, trial_id, saved(claim, "late")),
    lambda c, trial_id, claim: leases.reach_rung(c, trial_id, reached(claim, 1), after(1)),
    lambda c, trial_id, claim: leases.raise_goal(c, trial_id, claim, 1),
    lambda c, trial_id, claim: leases.judge(c, trial_id, verdict(claim)),
    *map(end, OUTCOMES),
]


def everything(c: Connection) -> list[tuple[Any, ...]]:
    """All rows that a report could have changed."""
    kept = (
        tables.trials,
        tables.rungs,
        tables.test_scores,
        tables.points,
        tables.artifacts,
        tables.artifact_files,
        tables.checkpoint_blobs,
    )
    return [tuple(row) for table in kept for row in c.execute(select(table).order_by(*table.primary_key))]


def force(c: Connection, trial_id: str, **values: Any) -> None:
    """Put a row into a state by hand, whatever the transitions say."""
    c.execute(update(tables.trials).where(tables.trials.c.id == trial_id).values(values))


# Acquiring


def test_a_lease_says_who_holds_the_trial_and_until_when(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        trial = add_trial(c)
        taken = leases.acquire(c, "worker-a", after(10), 30)
        assert taken == trials.get(c, trial.id)
        assert leases.acquire(c, "worker-b", after(11), 30) is None
    lease_of_a = {
        "state": TrialState.LEASED,
        "owner": "worker-a",
        "fence": 1,
        "attempts": 1,
        "expires_at": after(40),
        "started_at": after(10),
    }
    assert taken == trial.model_copy(update=lease_of_a)


def test_the_oldest_job_comes_first_and_in_it_the_lowest_number(database: Database) -> None:
    with database.begin() as c:
        for name, age in (("ftjob-new", 0), ("ftjob-old", 9)):
            add_job(c, name, after(-age))
            for number in (2, 0, 1):
                add_trial(c, name, number)
        taken = [lease(c) for _ in range(6)]
    wanted = [(name, number) for name in ("ftjob-old", "ftjob-new") for number in range(3)]
    assert [(trial.job_id, trial.number) for trial in taken] == wanted


@pytest.mark.parametrize("state", JobState)
def test_only_a_running_job_gives_out_trials(database: Database, state: JobState) -> None:
    with database.begin() as c:
        add_job(c, state=state)
        add_trial(c)
        taken = leases.acquire(c, "worker-a", NOW, 30)
    assert (taken is not None) is (state is JobState.RUNNING)


@pytest.mark.parametrize("state", TrialState)
def test_only_a_waiting_trial_can_be_leased(database: Database, state: TrialState) -> None:
    with database.begin() as c:
        add_job(c)
        force(c, add_trial(c).id, state=state)
        taken = leases.acquire(c, "worker-a", NOW, 30)
    assert (taken is not None) is (TrialState.LEASED in TRIAL_TRANSITIONS[state])


def test_threads_never_lease_the_same_trial_twice(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        for number in range(40):
            add_trial(c, number=number)

    def work(owner: str) -> list[str]:
        taken = []
        while True:
            with database.begin() as c:
                trial = leases.acquire(c, owner, NOW, 30)
            if trial is None:
                return taken
            assert trial.owner == owner
            assert trial.fence == 1
            taken.append(trial.id)

    with ThreadPoolExecutor(8) as pool:
        taken = [trial_id for ids in pool.map(work, [f"worker-{i}" for i in range(8)]) for trial_id in ids]
    assert len(taken) == len(set(taken)) == 40


ACQUIRE_ALL = """
database = Database(sys.argv[1])
while True:
    with database.begin() as c:
        trial = leases.acquire(c, sys.argv[2], datetime.now(UTC), 30)
    if trial is None:
        break
    print(trial.number)
"""


def test_processes_never_lease_the_same_trial_twice(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        for number in range(120):
            add_trial(c, number=number)
    imports = "from datetime import *; from luthier.store import leases; from luthier.store.database import Database"
    url = database.url.render_as_string(hide_password=False)
    printed = run_together(imports, ACQUIRE_ALL, (url, "worker-a"), (url, "worker-b"))
    assert sorted(int(number) for output in printed for number in output.split()) == list(range(120))


# Renewing and reporting


def test_renewing_extends_the_lease_and_device_time_never_shrinks(database: Database) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        renewed = leases.renew(c, taken.id, claim_of(taken), after(20), 30, 5.5)
        assert renewed == taken.model_copy(update={"expires_at": after(50), "device_seconds": 5.5})
        late = leases.renew(c, taken.id, claim_of(taken), after(21), 30, 4.0)
        assert late.device_seconds == 5.5


def test_a_lease_that_ran_out_but_was_not_taken_back_can_be_renewed(database: Database) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        renewed = leases.renew(c, taken.id, claim_of(taken), after(31), 30, 1.0)
        assert renewed.expires_at == after(61)
        assert leases.expire(c, after(32)) == []


def test_a_checkpoint_replaces_the_one_before_and_names_it(database: Database) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        claim = claim_of(taken)
        first, second = saved(claim, "first"), saved(claim, "second")
        assert leases.save_checkpoint(c, taken.id, first) is None
        assert trials.get(c, taken.id).checkpoint == digest("first")
        assert leases.save_checkpoint(c, taken.id, second) == digest("first")
        assert artifacts.unreferenced(c, first.blobs) == set(first.blobs)
        assert artifacts.unreferenced(c, (second.manifest, *second.blobs)) == set()


def test_a_checkpoint_reported_twice_replaces_nothing_the_second_time(database: Database) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        assert leases.save_checkpoint(c, taken.id, saved(claim_of(taken), "first")) is None
        assert leases.save_checkpoint(c, taken.id, saved(claim_of(taken), "first")) is None
        assert artifacts.unreferenced(c, [digest("first")]) == set()


def test_rungs_are_kept_once_each_and_the_trial_stands_at_the_highest(database: Database) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        claim = claim_of(taken)
        for rung, bits_per_byte in ((0, 9.0), (1, 5.0), (0, 8.0)):
            standing = leases.reach_rung(c, taken.id, reached(claim, rung, bits_per_byte), after(rung))
        assert standing == trials.get(c, taken.id)
        assert standing.rung == 1
        assert standing.measured == (scored(8.0), scored(5.0))
        kept = {"trial_id": taken.id, "share": 0.25, "stage": 0, "step": 7}
        assert trials.rungs(c, "ftjob-a") == [
            RungRecord(**kept, rung=0, metrics=scored(8.0), at=after(0)),
            RungRecord(**kept, rung=1, metrics=scored(5.0), at=after(1)),
        ]


def test_a_verdict_is_kept_and_counts_the_time(database: Database) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        judged = leases.judge(c, taken.id, verdict(claim_of(taken)))
        assert judged == taken.model_copy(update={"metrics": METRICS, "device_seconds": 8.0})
        assert trials.get(c, taken.id) == judged


def test_a_report_about_an_unknown_trial_says_so(database: Database) -> None:
    with database.begin() as c:
        for report in REPORTS:
            with pytest.raises(NotFound, match="trial-unknown"):
                report(c, "trial-unknown", Claim(owner="worker-a", fence=1))


# Fencing


def taken_by_another(c: Connection, trial: TrialRecord) -> None:
    leases.expire(c, after(60))
    lease(c, "worker-b", after(61), seconds=600)


def taken_back(c: Connection, trial: TrialRecord) -> None:
    leases.expire(c, after(60))


def leased_anew_by_the_same(c: Connection, trial: TrialRecord) -> None:
    leases.release(c, "worker-a", after(1))
    lease(c, "worker-a", after(2), seconds=600)


def given_back(c: Connection, trial: TrialRecord) -> None:
    leases.finish(c, trial.id, finished(claim_of(trial), "waiting", points=(), artifacts=()), after(1))
    lease(c, "worker-b", after(2), seconds=600)


@pytest.mark.parametrize("lose", [taken_by_another, taken_back, leased_anew_by_the_same, given_back])
def test_a_late_report_from_a_lost_lease_changes_nothing(
    database: Database, lose: Callable[[Connection, TrialRecord], None]
) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        leases.save_checkpoint(c, taken.id, saved(claim_of(taken), "early"))
        lose(c, taken)
        before = everything(c)
        for report in REPORTS:
            with pytest.raises(LeaseLost, match=r"worker-a no longer holds .* under fence 1"):
                report(c, taken.id, claim_of(taken))
        assert everything(c) == before


@pytest.mark.parametrize("claim", [Claim(owner="worker-b", fence=1), Claim(owner="worker-a", fence=2)], ids=str)
def test_owner_and_fence_must_both_fit(database: Database, claim: Claim) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        before = everything(c)
        for report in REPORTS:
            with pytest.raises(LeaseLost):
                report(c, taken.id, claim)
        assert everything(c) == before


@pytest.mark.parametrize("state", [state for state in TrialState if state is not TrialState.LEASED])
def test_nothing_moves_a_trial_that_is_not_leased_but_acquiring_and_cancelling(
    database: Database, state: TrialState
) -> None:
    with database.begin() as c:
        taken = leased_trial(c)
        force(c, taken.id, state=state)  # owner and fence still fit: the state alone must stop what follows
        before = everything(c)
        for report in REPORTS:
            with pytest.raises(LeaseLost):
                report(c, taken.id, claim_of(taken))
        assert leases.expire(c, after(1000)) == []
        assert leases.release(c, "worker-a", after(1000)) == []
        assert everything(c) == before
        trials.cancel_waiting(c, "ftjob-a", after(1))
        assert (everything(c) != before) is (state is TrialState.WAITING)


# Finishing


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_lease_ends_as_the_report_says(database: Database, outcome: str) -> None:
    report: dict[str, Any] = {"test_metrics": METRICS, "trained_tokens": 2**40, "error": "why"}
    with database.begin() as c:
        taken = leased_trial(c)
        ended = leases.finish(c, taken.id, finished(claim_of(taken), outcome, **report), after(5))
        assert trials.get(c, taken.id) == ended
        assert curves.of_trial(c, taken.id) == [LOSS]
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
    with pytest.raises(MissingMetric, match="never judged"), database.begin() as c:
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
