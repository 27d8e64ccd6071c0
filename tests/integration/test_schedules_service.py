"""Schedules against a real service: ticks become jobs, overlap and missed ticks follow the settings."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from luthier.api_types import Schedule
from luthier.errors import Conflict, NotFound
from luthier.schedule import RunState
from luthier.store import jobs
from luthier.trial import JobState
from service.jobs.warm_start import similar_jobs
from service.schedules.run import tick
from tests.integration.service_harness import FakeWorker, Service, serving, sums, wait_until

SMALL = {"trials": 3, "finalists": 1, "confirmations": 0}
YEARLY = "0 0 1 1 *"  # nothing comes of it unless a test says so


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("schedules")) as service:
        service.add_model()
        yield service


@pytest.fixture(scope="module")
def file(service: Service) -> str:
    return service.upload(sums())


@pytest.fixture
def schedule(service: Service, file: str, request: pytest.FixtureRequest) -> Iterator[Schedule]:
    """A schedule for the test alone; what it runs is cancelled in the end."""
    yield make(service, request.node.name, file)
    end_all(service)


def make(service: Service, name: str, file: Any, **options: Any) -> Schedule:
    return service.client.create_schedule(name, YEARLY, {"training_file": file, "search": SMALL}, **options)


def end_all(service: Service) -> None:
    for job in service.client.jobs():
        if not job.status.terminal:
            service.client.cancel(job.id)


def due(service: Service, schedule: Schedule, years: int = 0) -> datetime:
    """The next tick, or one of the years after it."""
    first = datetime.fromtimestamp(service.client.schedule(schedule.id).next_runs[0], UTC)
    return first.replace(year=first.year + years)


def look(service: Service, now: datetime) -> None:
    tick(service.context, now)


def states(service: Service, schedule: Schedule) -> list[RunState]:
    """The earliest tick first."""
    return [run.state for run in reversed(service.client.schedule_runs(schedule.id))]


def test_a_tick_becomes_a_job_that_names_its_schedule(service: Service, schedule: Schedule) -> None:
    moment = due(service, schedule)
    look(service, moment - timedelta(seconds=1))
    assert service.client.schedule_runs(schedule.id) == []
    look(service, moment + timedelta(seconds=1))
    (run,) = service.client.schedule_runs(schedule.id)
    assert (run.state, run.trigger, run.due_at) == (RunState.RUNNING, "cron", int(moment.timestamp()))
    assert run.job is not None
    assert service.client.job(run.job).luthier.schedule_id == schedule.id
    assert any("Created by the schedule" in message for message in service.messages(run.job))
    again = service.client.schedule(schedule.id)
    assert again.last_run == run
    assert again.next_runs[0] == int(due(service, schedule).timestamp()) > run.due_at

    look(service, moment + timedelta(seconds=2))
    assert len(service.client.schedule_runs(schedule.id)) == 1, "one row for each tick"
    service.client.cancel(run.job)
    assert states(service, schedule) == [RunState.CANCELLED]


def test_a_run_ends_as_its_job_does(service: Service, schedule: Schedule) -> None:
    run = service.client.run_schedule(schedule.id)
    assert (run.state, run.trigger) == (RunState.RUNNING, "manual")
    assert run.job is not None
    worker = FakeWorker(service.http)
    worker.register()
    worker.work_until_ended(service.client, run.job)
    (ended,) = service.client.schedule_runs(schedule.id)
    assert ended.state is RunState.SUCCEEDED
    assert ended.ended_at is not None


def test_a_tick_is_skipped_while_the_run_before_it_goes_on(service: Service, schedule: Schedule) -> None:
    first = service.client.run_schedule(schedule.id)
    look(service, due(service, schedule))
    assert states(service, schedule) == [RunState.RUNNING, RunState.SKIPPED]
    latest = service.client.schedule(schedule.id).last_run
    assert latest is not None
    assert latest.reason == f"job {first.job} had not ended"


def test_a_tick_queues_until_the_run_before_it_has_ended(service: Service, file: str) -> None:
    schedule = make(service, "queue", file, overlap="queue")
    first = service.client.run_schedule(schedule.id)
    look(service, due(service, schedule))
    assert states(service, schedule) == [RunState.RUNNING, RunState.WAITING]
    assert first.job is not None
    service.client.cancel(first.job)
    wait_until(lambda: states(service, schedule) == [RunState.CANCELLED, RunState.RUNNING])
    end_all(service)


def test_a_queue_does_not_grow_for_ever(service: Service, file: str) -> None:
    schedule = make(service, "jam", file, overlap="queue", catch_up="all", catch_up_seconds=366 * 86400)
    service.client.change_schedule(schedule.id, cron="0 0 * * *")
    look(service, due(service, schedule) + timedelta(days=20))
    found = states(service, schedule)
    assert found.count(RunState.RUNNING) == 1
    assert found.count(RunState.WAITING) == 9
    assert found.count(RunState.SKIPPED) == 11
    service.client.delete_schedule(schedule.id)
    end_all(service)


def test_a_tick_replaces_the_run_before_it(service: Service, file: str) -> None:
    schedule = make(service, "replace", file, overlap="replace")
    first = service.client.run_schedule(schedule.id)
    look(service, due(service, schedule))
    assert states(service, schedule) == [RunState.CANCELLED, RunState.RUNNING]
    assert first.job is not None
    assert service.client.job(first.job).status is JobState.CANCELLED
    end_all(service)


def test_runs_may_be_allowed_to_overlap(service: Service, file: str) -> None:
    schedule = make(service, "allow", file, overlap="allow")
    service.client.run_schedule(schedule.id)
    look(service, due(service, schedule))
    assert states(service, schedule) == [RunState.RUNNING, RunState.RUNNING]
    end_all(service)


def test_late_ticks_are_missed_or_made_up_for(service: Service, schedule: Schedule) -> None:
    service.client.change_schedule(schedule.id, cron="0 * * * *", catch_up_seconds=3600)
    first = due(service, schedule)
    look(service, first + timedelta(hours=1, minutes=30))
    missed, made_up = reversed(service.client.schedule_runs(schedule.id))
    assert (missed.state, missed.reason) == (RunState.MISSED, "noticed 90 min late")
    assert (made_up.state, made_up.trigger) == (RunState.RUNNING, "catch_up")


def test_while_disabled_ticks_pass_unnoticed_and_are_not_made_up_for(service: Service, schedule: Schedule) -> None:
    stopped = service.client.change_schedule(schedule.id, enabled=False)
    assert (stopped.enabled, stopped.next_runs) == (False, ())
    look(service, datetime.fromtimestamp(schedule.next_runs[0], UTC))
    assert states(service, schedule) == []
    assert service.client.run_schedule(schedule.id).state is RunState.RUNNING, "a manual run is allowed"
    assert service.client.change_schedule(schedule.id, enabled=True).next_runs == schedule.next_runs


def test_each_run_takes_the_newest_file_of_the_name(service: Service) -> None:
    schedule = make(service, "newest", {"newest": "daily.jsonl"})
    nothing = service.client.run_schedule(schedule.id)
    assert nothing.state is RunState.FAILED
    assert nothing.reason is not None
    assert "'daily.jsonl'" in nothing.reason

    uploaded = []
    for count in (40, 50):
        uploaded.append(service.upload(sums(count), "daily.jsonl"))
        run = service.client.run_schedule(schedule.id)
        assert run.job is not None
        assert service.client.job(run.job).training_file == uploaded[-1]
        service.client.cancel(run.job)


def test_failures_in_a_row_are_counted_until_one_succeeds(service: Service) -> None:
    schedule = make(service, "failing", {"newest": "late.jsonl"}, alert_after=2)
    seen = []
    for _ in range(2):
        service.client.run_schedule(schedule.id)
        found = service.client.schedule(schedule.id)
        seen.append((found.failures, found.failing))
    assert seen == [(1, False), (2, True)]
    service.upload(sums(), "late.jsonl")
    run = service.client.run_schedule(schedule.id)
    assert run.job is not None
    worker = FakeWorker(service.http)
    worker.register()
    worker.work_until_ended(service.client, run.job)
    healed = service.client.schedule(schedule.id)
    assert (healed.failures, healed.failing) == (0, False)


def test_a_run_starts_from_what_earlier_runs_of_the_schedule_learnt(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = make(service, "warm", {"newest": "warm.jsonl"})
    worker = FakeWorker(service.http)
    worker.register()
    service.upload(sums(20), "warm.jsonl")
    first = service.client.run_schedule(schedule.id)
    assert first.job is not None
    worker.work_until_ended(service.client, first.job)
    worker.work_until_ended(service.client, service.submit(search=SMALL))  # with as many rows as the second run
    service.upload(sums(), "warm.jsonl")
    second = service.client.run_schedule(schedule.id)
    assert second.job is not None
    monkeypatch.setattr("service.jobs.warm_start.MOST", 1)
    with service.context.database.read() as c:
        job = jobs.get(c, second.job)
        (own,) = similar_jobs(c, job)
        (other,) = similar_jobs(c, job.model_copy(update={"schedule_id": None}))
    assert own.similarity < other.similarity, "its own run comes first, although another job is more like it"
    end_all(service)


def test_many_looks_at_once_notice_a_tick_once(service: Service, file: str) -> None:
    schedule = make(service, "together", file, overlap="allow")
    moment = due(service, schedule)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: look(service, moment), range(4)))
    assert states(service, schedule) == [RunState.RUNNING]
    made = [job for job in service.client.jobs() if job.luthier.schedule_id == schedule.id]
    assert len(made) == 1
    end_all(service)


def test_a_deleted_schedule_leaves_its_jobs(service: Service, file: str) -> None:
    schedule = make(service, "gone", file)
    run = service.client.run_schedule(schedule.id)
    assert service.client.delete_schedule(schedule.id).deleted
    with pytest.raises(NotFound, match="not found"):
        service.client.schedule(schedule.id)
    assert run.job is not None
    assert service.client.cancel(run.job).status is JobState.CANCELLED


def test_names_are_unique(service: Service, schedule: Schedule, file: str) -> None:
    with pytest.raises(Conflict, match="name"):
        make(service, schedule.name, file)
    other = make(service, "other", file)
    with pytest.raises(Conflict, match="name"):
        service.client.change_schedule(other.id, name=schedule.name)


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"cron": "every day"}, "cron", "expected five"),
        ({"time_zone": "Mars/Olympus"}, "time_zone", "not a time zone"),
        ({"overlap": "wait"}, "overlap", "'skip', 'queue', 'replace' or 'allow'"),
        ({"catch_up": "all"}, "catch_up", "overlap 'queue' or 'allow'"),
        ({"alert_after": 0}, "alert_after", "at least 1"),
        ({"alias": "no spaces"}, "alias", "matches"),
        ({"job": {"training_file": "file-no"}}, "job.training_file", "file-no"),
        ({"job": {"training_file": {"latest": "x"}}}, "job.training_file", "newest"),
        ({"job": {"search": {"deadline": "2030-01-01T00:00:00Z"}}}, "job.search.deadline", "device_seconds"),
        ({"colour": "red"}, "colour", "colour"),
    ],
)
def test_what_cannot_work_is_refused_by_its_field(
    service: Service, file: str, change: dict[str, Any], param: str, words: str
) -> None:
    body = {"name": "bad", "cron": YEARLY, "job": {"training_file": file}} | change
    answer = service.http.post("/v1/schedules", json=body)
    assert answer.status_code in (400, 404), answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    assert words in error["message"]
