"""Who is scored on the test rows, and what is kept of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from luthier.store import artifacts, measurements, trials
from luthier.store.rows import TrialRecord
from luthier.trial import TrialState
from luthier.worker_protocol import Assignment, Judged, Keep
from service.context import utc_now
from tests.integration.service_harness import FakeWorker, Service, metrics, row_scores, serving


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path) as service:
        service.add_model()
        yield service


@pytest.fixture
def worker(service: Service) -> FakeWorker:
    worker = FakeWorker(service.http)
    worker.register()
    return worker


def rows_of(service: Service, job_id: str) -> list[TrialRecord]:
    with service.context.database.read() as c:
        return trials.of_job(c, job_id)


def scored(service: Service, job_id: str) -> set[int]:
    """Numbers of the trials whose test rows were scored."""
    with service.context.database.read() as c:
        found = measurements.scores_of_job(c, job_id)
    return {row.number for row in rows_of(service, job_id) if row.id in found}


def confirm(service: Service, job_id: str, number: int, seed: int) -> None:
    """Queue a trial's design from another seed, as the search does it."""
    rows = rows_of(service, job_id)
    with service.context.database.begin() as c:
        assert trials.insert(c, job_id, len(rows), rows[number].design, seed, "confirmation", utc_now())


def test_baselines_and_finalists_are_scored_row_by_row_on_the_test_rows(service: Service, worker: FakeWorker) -> None:
    worker.score = lambda assignment: metrics(2.0 + assignment.number / 100)  # each is worse than the one before
    job_id = service.submit(search={"trials": 7, "finalists": 2, "confirmations": 0})
    worker.work_until_ended(service.client, job_id)

    assert [row.number for row in rows_of(service, job_id) if row.state is TrialState.COMPLETE] == [0, 1, 2, 3]
    assert scored(service, job_id) == {0, 1, 2, 3}
    with service.context.database.read() as c:
        found = measurements.scores_of_job(c, job_id)
    third = rows_of(service, job_id)[2]
    assert found[third.id] == row_scores(metrics(2.02))


def test_the_default_takes_no_finalists_place(service: Service, worker: FakeWorker) -> None:
    """Its weights are kept anyway, because it is a baseline."""
    order = {1: 1.0, 2: 1.2, 3: 1.1}
    worker.score = lambda assignment: metrics(order.get(assignment.number, 3.0))
    job_id = service.submit(search={"trials": 4, "finalists": 2, "confirmations": 0})
    worker.work_until_ended(service.client, job_id)
    with service.context.database.read() as c:
        kept = {row.number for row in rows_of(service, job_id) if artifacts.of_trial(c, row.id)}
    assert kept == {1, 2, 3}


def test_a_confirmation_is_scored_but_exports_nothing(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 9, "finalists": 1})
    for _ in range(3):
        worker.work(worker.take())
    open_one = worker.take()
    confirm(service, job_id, 2, seed=77)

    other = FakeWorker(service.http, name="other")
    other.register()
    assignment = other.take()
    while assignment.seed != 77:
        other.work(assignment)
        assignment = other.take()
    assert judged(other, assignment, 9.0) == Keep(keep=False, test=True)  # however badly it does
    other.work(assignment)
    assert assignment.number in scored(service, job_id)
    with service.context.database.read() as c:
        assert not artifacts.of_trial(c, assignment.trial_id)
    worker.work(open_one)


def judged(worker: FakeWorker, assignment: Assignment, bits: float) -> Keep:
    report = Judged(**worker.claim(assignment), metrics=metrics(bits), device_seconds=1.0)
    return Keep.model_validate(worker.post(f"/v1/trials/{assignment.trial_id}/judged", report).json())
