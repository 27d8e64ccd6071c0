"""What a job starts from where the installation has finished others before."""

import pytest

from luthier.store import jobs
from luthier.store.rows import JobRecord
from search.policy.warm_start import DESIGNS_PER_JOB, SimilarJob
from service.jobs.warm_start import similar_jobs
from tests import data_samples
from tests.integration.service_harness import FakeWorker, Service

pytest_plugins = ("tests.integration.service_fixtures",)

SMALL = {"trials": 4, "finalists": 1, "confirmations": 0}


def remembered(service: Service, job_id: str) -> tuple[SimilarJob, ...]:
    with service.context.database.read() as c:
        return similar_jobs(c, jobs.get(c, job_id))


def record(service: Service, job_id: str) -> JobRecord:
    with service.context.database.read() as c:
        return jobs.get(c, job_id)


@pytest.fixture
def first(service: Service, worker: FakeWorker) -> str:
    """A job that has ended."""
    job_id = service.submit(search=SMALL)
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    return job_id


def test_the_first_job_has_nothing_to_remember(service: Service, first: str) -> None:
    assert remembered(service, first) == ()


def test_a_job_remembers_the_best_designs_of_the_jobs_that_ended_before_it(service: Service, first: str) -> None:
    second = service.submit(search=SMALL)
    (memory,) = remembered(service, second)
    assert 0 < memory.similarity < 1
    best = service.client.best(first)
    assert best.number != 1, "something was better than the plain default"
    assert memory.best[0] == best.design
    assert len(memory.best) <= DESIGNS_PER_JOB
    assert service.client.trials(first)[1].design not in memory.best


def test_a_job_with_another_kind_of_data_remembers_nothing_of_it(service: Service, first: str) -> None:
    same, other = service.submit(search=SMALL), service.submit(data_samples.preference(40), search=SMALL)
    assert remembered(service, same)[0].similarity > 0
    assert remembered(service, other) == ()


def test_a_job_that_ends_later_changes_nothing_for_those_that_are_there(service: Service, worker: FakeWorker) -> None:
    early, late = service.submit(search=SMALL), service.submit(search=SMALL)
    worker.work_until_ended(service.client, early)
    assert remembered(service, late) == ()


def test_a_job_starts_from_general_experience_alone_where_it_asks_to(service: Service, first: str) -> None:
    second = service.submit(search=SMALL | {"memory": False})
    assert remembered(service, second) == ()


def test_a_deleted_dataset_is_not_remembered(service: Service, first: str) -> None:
    service.client.delete_file(record(service, first).training_file)
    assert remembered(service, service.submit(search=SMALL)) == ()


def test_the_search_begins_with_what_a_like_job_found(service: Service, worker: FakeWorker, first: str) -> None:
    fresh, warm = (service.submit(search=SMALL | {"memory": memory}, seed=1) for memory in (False, True))
    for job_id in (fresh, warm):
        assert worker.work_until_ended(service.client, job_id) == "succeeded"
    origins = [[trial.origin for trial in service.client.trials(job_id)] for job_id in (fresh, warm)]
    assert (origins[0][2], origins[1][2]) == ("prior", "memory")
    assert service.client.trials(warm)[2].design == remembered(service, warm)[0].best[0]
