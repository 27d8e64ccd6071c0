"""Trials that pause at a rung: nobody leases them until somebody promotes them, and that once."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, update

from luthier.store import jobs, leases, tables, trials
from luthier.store.database import Database
from luthier.store.rows import TrialRecord
from luthier.trial import JobState, TrialState
from luthier.worker_protocol import Finished, RungReached
from tests.integration.store_samples import METRICS, NOW, add_job, after, claim_of, design, lease
from tests.integration.together import run_together


def add(c: Connection, number: int, goal: int | None = 0, job_id: str = "ftjob-a") -> TrialRecord:
    trial = trials.insert(c, job_id, number, design(number + 1), 0, "proposed", NOW, goal=goal)
    assert trial is not None
    return trial


def reach(c: Connection, held: TrialRecord, rung: int) -> TrialRecord:
    report = RungReached(**dict(claim_of(held)), rung=rung, share=0.1, stage=0, step=9, metrics=METRICS)
    return leases.reach_rung(c, held.id, report, NOW)


def give_back(c: Connection, held: TrialRecord) -> TrialRecord:
    return leases.finish(c, held.id, Finished(**dict(claim_of(held)), outcome="waiting", device_seconds=1), NOW)


def paused(c: Connection, number: int, rung: int = 0, job_id: str = "ftjob-a") -> TrialRecord:
    """A trial that waits at a rung."""
    trial = add(c, number, rung, job_id)
    force(c, trial.id, rung=rung, measured=(METRICS,) * (rung + 1))
    return trials.get(c, trial.id)


def force(c: Connection, trial_id: str, **values: Any) -> None:
    c.execute(update(tables.trials).where(tables.trials.c.id == trial_id).values(values))


def test_a_trial_that_stands_at_its_goal_pauses_and_that_costs_no_attempt(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        add(c, 0)
        held = lease(c)
        assert held.goal == 0
        reach(c, held, 0)
        back = give_back(c, held)
        assert (back.paused, back.state, back.attempts, back.measured) == (True, TrialState.WAITING, 0, (METRICS,))
        assert leases.acquire(c, "worker-b", after(1), 30) is None


@pytest.mark.parametrize(
    ("goal", "rung", "leased"),
    [(None, None, True), (None, 1, True), (0, None, True), (1, 0, True), (0, 0, False), (1, 1, False), (0, 1, False)],
)
def test_only_what_does_not_pause_is_leased(
    database: Database, goal: int | None, rung: int | None, leased: bool
) -> None:
    with database.begin() as c:
        add_job(c)
        trial = add(c, 0, goal)
        force(c, trial.id, rung=rung)
        assert trials.get(c, trial.id).paused is not leased
        assert (leases.acquire(c, "worker-a", NOW, 30) is not None) is leased


def test_of_the_oldest_job_the_highest_rung_comes_first_and_then_the_lowest_number(database: Database) -> None:
    with database.begin() as c:
        add_job(c, "ftjob-old", after(-9))
        add_job(c, "ftjob-new")
        force(c, add(c, 0, None, "ftjob-new").id, rung=1)
        for number, rung in enumerate((None, 0, 1, None, 0, 1)):
            force(c, add(c, number, None, "ftjob-old").id, rung=rung)
        taken = [lease(c) for _ in range(7)]
    wanted = [("ftjob-old", number) for number in (2, 5, 1, 4, 0, 3)]
    assert [(trial.job_id, trial.number) for trial in taken] == [*wanted, ("ftjob-new", 0)]


def test_a_promoted_trial_is_leased_again(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        trial = paused(c, 0)
        assert trials.promote(c, trial.id, 0, 1)
        assert trials.get(c, trial.id) == trial.model_copy(update={"goal": 1})
        assert lease(c).id == trial.id


@pytest.mark.parametrize("at", [0, 1])
def test_the_last_promotion_leads_to_the_end(database: Database, at: int) -> None:
    with database.begin() as c:
        add_job(c)
        trial = paused(c, 0, at)
        assert trials.promote(c, trial.id, at, None)
        assert trials.get(c, trial.id).goal is None


def test_a_trial_is_promoted_once_from_a_rung(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        trial = paused(c, 0)
        assert trials.promote(c, trial.id, 0, 1)
        assert not trials.promote(c, trial.id, 0, None)
        assert not trials.promote(c, trial.id, 1, None), "it has not reached this rung yet"
        assert trials.get(c, trial.id).goal == 1


@pytest.mark.parametrize("state", [state for state in TrialState if state is not TrialState.WAITING])
def test_only_a_waiting_trial_is_promoted_or_pruned(database: Database, state: TrialState) -> None:
    with database.begin() as c:
        add_job(c)
        trial = paused(c, 0)
        force(c, trial.id, state=state)
        assert not trials.promote(c, trial.id, 0, 1)
        assert trials.prune(c, "ftjob-a", [0], NOW) == []
        assert trials.get(c, trial.id) == trial.model_copy(update={"state": state})


def test_pruning_ends_those_that_pause_and_no_others(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        add_job(c, "ftjob-b")
        hopeless = [paused(c, 0), paused(c, 1, 1)]
        spared, promoted = paused(c, 2), paused(c, 3)
        assert trials.promote(c, promoted.id, 0, 1)
        fresh, elsewhere = add(c, 4), paused(c, 0, job_id="ftjob-b")
        gone = trials.prune(c, "ftjob-a", [0, 1, 3, 4, 99], after(5))
        ended = {"state": TrialState.PRUNED, "finished_at": after(5)}
        assert gone == [trial.model_copy(update=ended) for trial in hopeless]
        for trial in (spared, promoted, fresh, elsewhere):
            assert trials.get(c, trial.id).state is TrialState.WAITING


def test_when_a_job_ends_what_pauses_is_pruned_and_what_waits_is_cancelled(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        paused(c, 0)
        paused(c, 1, 1)
        assert trials.promote(c, paused(c, 2).id, 0, 1)
        add(c, 3)
        add(c, 4, None)
        held = lease(c)
        trials.cancel_waiting(c, "ftjob-a", after(5))
        states = {trial.number: (trial.state, trial.finished_at) for trial in trials.of_job(c, "ftjob-a")}
    assert held.number == 2, "the highest rung first"
    assert states == {
        0: (TrialState.PRUNED, after(5)),
        1: (TrialState.PRUNED, after(5)),
        2: (TrialState.LEASED, None),
        3: (TrialState.CANCELLED, after(5)),
        4: (TrialState.CANCELLED, after(5)),
    }


def test_a_design_that_is_refused_never_runs(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        trial = trials.insert(c, "ftjob-a", 0, design(), 0, "prior", NOW, refused="it needs 9 GiB")
        assert trial is not None
        assert (trial.state, trial.error, trial.finished_at) == (TrialState.INFEASIBLE, "it needs 9 GiB", NOW)
        assert trials.get(c, trial.id) == trial
        assert leases.acquire(c, "worker-a", NOW, 30) is None


def test_a_lost_worker_does_not_unpause_what_it_was_about_to_give_back(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        add(c, 0)
        reach(c, lease(c), 0)
        [back] = leases.expire(c, after(60))
        assert back.paused
        assert leases.acquire(c, "worker-b", after(61), 30) is None
        assert trials.promote(c, back.id, 0, 1)
        again = lease(c, "worker-b", after(62))
        replaced = METRICS.model_copy(update={"bits_per_byte": 0.2})
        report = RungReached(**dict(claim_of(again)), rung=0, share=0.1, stage=0, step=9, metrics=replaced)
        assert leases.reach_rung(c, again.id, report, after(63)).measured == (replaced,)


def test_a_rung_below_that_an_older_version_did_not_note_is_taken_as_the_one_above(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        add(c, 0, None)
        standing = reach(c, lease(c), 1)
        assert (standing.rung, standing.measured) == (1, (METRICS, METRICS))


def test_threads_that_promote_and_lease_share_every_trial_out_once(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        waiting = [paused(c, number).id for number in range(24)]
    promoted: Counter[str] = Counter()
    taken: list[str] = []
    guard = threading.Lock()
    left = threading.Semaphore(len(waiting))

    def promote(order: int) -> None:
        for trial_id in waiting[::order]:
            with database.begin() as c:
                done = trials.promote(c, trial_id, 0, 1)
            with guard:
                promoted[trial_id] += done

    def work(owner: str) -> None:
        while left.acquire(blocking=False):
            trial = None
            while trial is None:
                with database.begin() as c:
                    trial = leases.acquire(c, owner, NOW, 30)
            with guard:
                taken.append(trial.id)

    with ThreadPoolExecutor(6) as pool:
        jobs_ = [pool.submit(promote, order) for order in (1, -1, 1)]
        jobs_ += [pool.submit(work, f"worker-{i}") for i in range(3)]
        for job in jobs_:
            job.result(60)
    assert promoted == dict.fromkeys(waiting, 1)
    assert sorted(taken) == sorted(waiting)


PROMOTE_AND_ACQUIRE = """
database = Database(sys.argv[1])
for trial_id in sys.argv[3:]:
    with database.begin() as c:
        if trials.promote(c, trial_id, 0, 1):
            print("promoted", trial_id)
    with database.begin() as c:
        trial = leases.acquire(c, sys.argv[2], datetime.now(UTC), 30)
    if trial is not None:
        print("leased", trial.id)
"""


def test_processes_never_promote_nor_lease_a_trial_twice(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        waiting = [paused(c, number).id for number in range(40)]
    imports = (
        "from datetime import *; from luthier.store import leases, trials; from luthier.store.database import Database"
    )
    url = database.url.render_as_string(hide_password=False)
    printed = run_together(
        imports, PROMOTE_AND_ACQUIRE, (url, "worker-a", *waiting), (url, "worker-b", *reversed(waiting))
    )
    said = Counter(line for output in printed for line in output.splitlines())
    assert set(said.values()) == {1}
    assert sum(line.startswith("promoted") for line in said) == 40
    assert sum(line.startswith("leased") for line in said) == 40


def test_steps_of_one_job_wait_for_each_other(database: Database) -> None:
    """Whoever has locked the job sees all that others did before, and they see what it did."""
    with database.begin() as c:
        add_job(c)

    def step(_: int) -> int:
        with database.begin() as c:
            assert jobs.lock(c, "ftjob-a").state is JobState.RUNNING
            number = len(trials.of_job(c, "ftjob-a"))
            add(c, number)
        return number

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(step, range(16))) == list(range(16))
