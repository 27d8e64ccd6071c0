"""Leases: who works on a trial, and what a report from somebody who does not may change, which is nothing."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection

from luthier.errors import LeaseLost, NotFound
from luthier.store import artifacts, leases, trials
from luthier.store.database import Database
from luthier.store.rows import RungRecord, TrialRecord
from luthier.trial import TRIAL_TRANSITIONS, JobState, TrialState
from luthier.worker_protocol import Claim
from tests.integration.store_reports import OUTCOMES, end, everything, finished, force, reached, saved, scored, verdict
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

REPORTS: list[Callable[[Connection, str, Claim], object]] = [
    lambda c, trial_id, claim: leases.renew(c, trial_id, claim, after(1), 60, 99.0),
    lambda c, trial_id, claim: leases.save_checkpoint(c, trial_id, saved(claim, "late")),
    lambda c, trial_id, claim: leases.reach_rung(c, trial_id, reached(claim, 1), after(1)),
    lambda c, trial_id, claim: leases.raise_goal(c, trial_id, claim, 1),
    lambda c, trial_id, claim: leases.judge(c, trial_id, verdict(claim)),
    *map(end, OUTCOMES),
]


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
            with pytest.raises(LeaseLost, match=r"worker-a .* fence 1\b"):
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
