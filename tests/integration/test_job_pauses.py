"""A paused job loses nothing, and its checkpoints are listed in OpenAI's shape."""

import math
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from luthier.errors import Conflict, NotFound
from luthier.trial import JobState, TrialState
from tests.integration.service_harness import FakeWorker, Service, metrics, preferences, sums

pytest_plugins = ("tests.integration.service_fixtures",)


@pytest.fixture
def client(service: Service) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.url}/v1", api_key="none is needed", max_retries=0) as client:
        yield client


def test_a_paused_job_gives_its_trials_back_and_starts_nothing_until_it_is_resumed(
    client: OpenAI, service: Service, worker: FakeWorker
) -> None:
    job_id = service.submit(search={"trials": 3, "confirmations": 0})
    running = worker.take()
    assert worker.heartbeat(running)["action"] == "continue"

    paused = client.fine_tuning.jobs.pause(job_id)
    FineTuningJob.model_validate(paused.model_dump(), strict=True)
    assert paused.status == "running", "OpenAI has no word for it"
    job = service.client.job(job_id)
    assert job.luthier.paused
    assert job.estimated_finish is None
    assert worker.heartbeat(running)["action"] == "pause"
    worker.finish(running, outcome="waiting")
    assert worker.lease() is None
    [given_back] = [trial for trial in service.client.trials(job_id) if trial.id == running.trial_id]
    assert (given_back.state, given_back.attempts) == (TrialState.WAITING, 0)

    client.fine_tuning.jobs.resume(job_id)
    assert not service.client.job(job_id).luthier.paused
    assert worker.take().trial_id == running.trial_id
    said = service.messages(job_id)
    assert any(line.startswith("Paused: the running trial saves a checkpoint") for line in said)
    assert any(line.startswith("Resumed") for line in said)


def test_other_jobs_go_on_while_one_is_paused(service: Service, worker: FakeWorker) -> None:
    first, second = (service.submit(search={"trials": 2, "confirmations": 0}) for _ in range(2))
    service.client.pause(first)
    assert worker.work_until_ended(service.client, second) == "succeeded"
    assert all(trial.started_at is None for trial in service.client.trials(first))
    service.client.resume(first)
    assert worker.work_until_ended(service.client, first) == "succeeded"


def test_pausing_twice_and_resuming_what_runs_change_nothing(service: Service) -> None:
    job_id = service.submit(search={"trials": 2})
    service.client.resume(job_id)
    for _ in range(2):
        service.client.pause(job_id)
    said = service.messages(job_id)
    assert sum(line.startswith("Paused") for line in said) == 1
    assert not any(line.startswith("Resumed") for line in said)


def test_a_paused_job_can_be_cancelled_and_an_ended_one_not_paused(service: Service) -> None:
    job_id = service.submit(search={"trials": 2})
    service.client.pause(job_id)
    job = service.client.cancel(job_id)
    assert (job.status, job.luthier.paused) == (JobState.CANCELLED, False)
    for change in (service.client.pause, service.client.resume):
        with pytest.raises(Conflict, match=f"{job_id} .*cancelled"):
            change(job_id)
        with pytest.raises(NotFound, match="ftjob-no"):
            change("ftjob-no")


def test_checkpoints_are_where_trials_were_scored(client: OpenAI, service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 6, "confirmations": 0, "finalists": 1, "memory": False})
    assert list(client.fine_tuning.jobs.checkpoints.list(job_id)) == []
    worker.work_until_ended(service.client, job_id)

    page = client.fine_tuning.jobs.checkpoints.list(job_id, limit=3)
    assert page.has_more
    found = list(page)
    raw = service.http.get(f"/v1/fine_tuning/jobs/{job_id}/checkpoints", params={"limit": 1000}).json()
    assert (raw["first_id"], raw["last_id"], raw["has_more"]) == (found[0].id, found[-1].id, False)
    assert [each["id"] for each in raw["data"]] == [each.id for each in found]
    for each in raw["data"]:
        FineTuningJobCheckpoint.model_validate(each, strict=True)

    trials = service.client.trials(job_id)
    # A complete trial has reported its end as a rung, too; that one is the other checkpoint.
    rungs = sum(max(0, len(trial.measured) - (trial.state is TrialState.COMPLETE)) for trial in trials)
    ends = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.design.stages]
    assert len(found) == rungs + len(ends)
    assert rungs > 0
    winner = service.client.best(job_id)
    [best] = [
        each
        for each in service.client.checkpoints(job_id)
        if each.luthier.trial == winner.trial and each.luthier.usable
    ]
    assert best.fine_tuned_model_checkpoint == service.client.job(job_id).fine_tuned_model == winner.model
    assert best.metrics.full_valid_loss == pytest.approx(math.log(winner.metrics.perplexity or 0))
    assert best.metrics.valid_loss is None
    at_rung = next(each for each in service.client.checkpoints(job_id) if each.luthier.share < 1)
    assert at_rung.metrics.valid_loss is not None
    assert at_rung.fine_tuned_model_checkpoint.endswith(f":trial-{at_rung.luthier.number}-step-{at_rung.step_number}")
    assert not at_rung.luthier.usable


def test_preferences_have_an_accuracy_and_curves_a_training_loss(service: Service, worker: FakeWorker) -> None:
    worker.score = lambda assignment: metrics(3.0 - assignment.number / 100, reward=0.75)
    job_id = service.submit(preferences(), search={"trials": 2, "confirmations": 0})
    for _ in range(2):
        worker.work(worker.take())
    [end] = service.client.checkpoints(job_id)
    assert end.metrics.full_valid_mean_token_accuracy == 0.75
    assert (end.step_number, end.metrics.train_loss) == (1, 1.0)  # as the harness's worker says


def test_an_unknown_place_to_go_on_from_is_refused(client: OpenAI, service: Service) -> None:
    job_id = service.submit(sums(), search={"trials": 2})
    with pytest.raises(openai.NotFoundError, match="ftckpt-no"):
        client.fine_tuning.jobs.checkpoints.list(job_id, after="ftckpt-no")
