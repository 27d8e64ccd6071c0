"""Schedules, webhooks, aliases and champions in both databases, with several at work at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from luthier.errors import Conflict
from luthier.schedule import CatchUp, Contest, Overlap, RunState
from luthier.store import Connection, aliases, jobs, leases, schedules, trials, webhooks
from luthier.store.database import Database
from luthier.store.rows import DeliveryRecord, EndpointRecord, ScheduleRecord
from luthier.trial import JobState, TrialState
from service.schedules.run import tick
from tests.integration.service_harness import serving, sums
from tests.integration.store_samples import NOW, add_job, add_trial, after

AT_ONCE = 4


def add_schedule(c: Connection, name: str = "nightly") -> ScheduleRecord:
    record = ScheduleRecord(
        id=f"sched-{name}",
        name=name,
        created_at=NOW,
        cron="0 0 * * *",
        time_zone="UTC",
        job={"training_file": {"newest": "käse.jsonl"}},
        overlap=Overlap.SKIP,
        misfire_grace_seconds=300,
        catch_up=CatchUp.LATEST,
        catch_up_seconds=86400,
        enabled=True,
        alert_after=3,
        next_at=NOW,
    )
    schedules.insert(c, record)
    return record


def test_a_tick_has_one_row_and_becomes_one_job_whoever_looks(database: Database) -> None:
    with database.begin() as c:
        schedule = add_schedule(c)

    def notice(replica: int) -> tuple[bool, bool]:
        with database.begin() as c:
            added = schedules.add_run(c, schedule.id, NOW, "cron", RunState.WAITING, NOW)
        with database.begin() as c:
            schedules.lock(c, schedule.id)
            (run,) = schedules.open_runs(c, schedule.id)
            begun = schedules.begin_run(c, run.id, f"ftjob-{replica}", NOW)
        return added is not None, begun

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(notice, range(AT_ONCE)))
    assert sum(added for added, _ in found) == 1
    assert sum(begun for _, begun in found) == 1
    with database.read() as c:
        assert schedules.get(c, schedule.id) == schedule
        ((run,), more) = schedules.runs(c, schedule.id, None, 10)
        assert (run.due_at, run.state, more) == (NOW, RunState.RUNNING, False)
        assert schedules.due(c, NOW) == [schedule.id]
        assert schedules.due(c, after(-1)) == []


def test_the_end_of_a_job_ends_its_run_once(database: Database) -> None:
    contest = Contest(champion="ft:old", promoted=False, why="not distinguishable", objective="perplexity", low=-0.1)
    with database.begin() as c:
        schedule = add_schedule(c)
        run = schedules.add_run(c, schedule.id, NOW, "manual", RunState.WAITING, NOW)
        assert run is not None
        assert schedules.begin_run(c, run.id, "ftjob-a", NOW)
        schedules.note_contest(c, "ftjob-a", contest)
        ended = schedules.end_run(c, "ftjob-a", RunState.FAILED, "no luck", after(9))
        assert ended is not None
        assert (ended.id, ended.state, ended.reason, ended.contest) == (run.id, RunState.FAILED, "no luck", contest)
        assert schedules.end_run(c, "ftjob-a", RunState.SUCCEEDED, None, after(10)) is None
        assert schedules.count_failure(c, schedule.id).failures == 1
        with pytest.raises(Conflict, match="already exists"):
            add_schedule(c)
        schedules.delete(c, schedule.id)
        assert schedules.list_(c, None, 10) == ([], False)
        assert schedules.with_waiting_runs(c) == []


def test_each_delivery_is_claimed_by_one_until_its_time_is_up(database: Database) -> None:
    endpoint = EndpointRecord(
        id="whend-a", url="http://localhost/a", events=("tested",), secret="whsec_eA==", created_at=NOW
    )
    with database.begin() as c:
        webhooks.insert(c, endpoint)
        for number in range(3):
            webhooks.announce(c, "tested", {"id": number}, NOW)
        webhooks.announce(c, "not asked for", {}, NOW)

    def claim(moment: datetime) -> DeliveryRecord | None:
        with database.begin() as c:
            return webhooks.claim(c, endpoint.id, moment, after(60))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        claimed = [one for one in pool.map(claim, [NOW] * AT_ONCE) if one is not None]
    assert len({one.id for one in claimed}) == len(claimed) == 3
    with database.read() as c:
        assert webhooks.due(c, after(59)) == []
        assert webhooks.due(c, after(61)) == [endpoint.id]
    assert claim(after(59)) is None
    late = claim(after(61))
    assert late is not None
    assert late.attempts == 2
    first = next(one for one in claimed if one.id == late.id)
    with database.begin() as c:
        webhooks.settle(c, first, state="delivered")  # by whoever was given up for lost
        webhooks.settle(c, late, error="answered 500")
        found = {one.id: one for one in webhooks.deliveries(c, endpoint.id, None, 10)[0]}
        assert (found[late.id].state, found[late.id].error) == ("pending", "answered 500")
        webhooks.delete(c, endpoint.id)
        assert webhooks.deliveries(c, endpoint.id, None, 10) == ([], False)


def test_the_endpoint_that_has_waited_longest_is_due_first(database: Database) -> None:
    with database.begin() as c:
        for moment, name in enumerate(("b", "c", "a")):
            url, secret = f"http://localhost/{name}", "whsec_eA=="
            record = EndpointRecord(id=f"whend-{name}", url=url, events=(name,), secret=secret, created_at=NOW)
            webhooks.insert(c, record)
            webhooks.announce(c, name, {}, after(moment))
            webhooks.announce(c, name, {}, after(moment + 9))
        assert webhooks.due(c, after(1)) == ["whend-b", "whend-c"]
        assert webhooks.due(c, after(99)) == ["whend-b", "whend-c", "whend-a"]


def test_an_alias_stands_for_its_latest_version(database: Database) -> None:
    with database.begin() as c:
        job = add_job(c)
        for name in ("b", "a"):
            aliases.point(c, name, job, "user", NOW)
        other = job.model_copy(update={"fine_tuned_model": "ft:new"})
        aliases.point(c, "b", other, "schedule", after(1))
    with database.read() as c:
        assert [(found.name, found.version, found.model) for found in aliases.list_(c)] == [
            ("a", 1, job.fine_tuned_model),
            ("b", 2, "ft:new"),
        ]


def test_a_champion_outlives_the_budget_but_not_the_job(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        winner = add_trial(c, number=0)
        add_job(c, "ftjob-b")
        add_trial(c, "ftjob-b")
        trials.enter_champion(c, "ftjob-b", winner, NOW)
        trials.enter_champion(c, "ftjob-b", winner, NOW)
        trials.cancel_waiting(c, "ftjob-b", NOW)
        assert [trial.state for trial in trials.of_job(c, "ftjob-b")] == [TrialState.CANCELLED]
        waiting = trials.champion(c, "ftjob-b")
        assert waiting is not None
        assert (waiting.state, waiting.number, waiting.weights_of) == (TrialState.WAITING, -1, winner.id)
        jobs.move(c, "ftjob-a", JobState.CANCELLED, NOW)
        leased = leases.acquire(c, "worker-a", NOW, 30)
        assert leased is not None
        assert leased.id == waiting.id
        leases.release(c, "worker-a", NOW)
        jobs.move(c, "ftjob-b", JobState.CANCELLED, NOW)
        trials.cancel_waiting(c, "ftjob-b", NOW)
        ended = trials.champion(c, "ftjob-b")
        assert ended is not None
        assert ended.state is TrialState.CANCELLED


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_replicas_make_one_job_of_a_tick(database: Database, tmp_path: Path) -> None:
    url = database.url.render_as_string(hide_password=False)
    with serving(tmp_path, database_url=url) as left, serving(tmp_path, database_url=url) as right:
        left.add_model()
        job = {"training_file": left.upload(sums()), "search": {"trials": 2}}
        schedule = left.client.create_schedule("both", "0 0 1 1 *", job, overlap="allow")
        due = datetime.fromtimestamp(schedule.next_runs[0], UTC)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda replica: tick(replica.context, due), (left, right)))
        (run,) = right.client.schedule_runs(schedule.id)
        assert run.state is RunState.RUNNING
        assert [found.id for found in right.client.jobs()] == [run.job]
