"""The API has OpenAI's shapes: strictly by the `openai` package's types, and in the hands of its unmodified client."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import openai
import pytest
from openai import OpenAI
from openai.pagination import SyncCursorPage
from openai.types import FileDeleted, FileObject, Model, ModelDeleted
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from pydantic import BaseModel

from tests.integration.service_harness import FakeWorker, Service, preferences, sums

pytest_plugins = ("tests.integration.service_fixtures",)

JOBS = "/v1/fine_tuning/jobs"
T = TypeVar("T", bound=BaseModel)


@pytest.fixture
def client(service: Service) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.url}/v1", api_key="none is needed", max_retries=0) as client:
        yield client


def test_openais_client_uploads_creates_watches_and_cancels(client: OpenAI, worker: FakeWorker, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f'{{"prompt": "Say {n}.", "completion": "{n}"}}\n' for n in range(60)))
    file = client.files.create(file=path, purpose="fine-tune")
    assert (file.filename, file.status) == ("train.jsonl", "processed")

    job = client.fine_tuning.jobs.create(
        model="tiny-chat",
        training_file=file.id,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto"}}},
        metadata={"team": "strings"},
        suffix="geige",
        seed=7,
        integrations=None,
        extra_body={"search": {"trials": 4}},
    )
    assert job.method is not None
    assert job.method.type == "supervised"
    assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (2, "auto")
    assert (job.seed, job.metadata) == (7, {"team": "strings"})

    worker.work(worker.take())
    assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
    assert [listed.id for listed in client.fine_tuning.jobs.list(metadata={"team": "strings"})] == [job.id]
    assert list(client.fine_tuning.jobs.list(metadata={"team": "brass"})) == []
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=2)]
    assert messages[-1].startswith("Created: 4 trials on train.jsonl")
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"

    assert client.files.content(file.id).read() == path.read_bytes()
    assert client.files.delete(file.id).deleted
    assert [model.id for model in client.models.list()] == ["tiny-chat"]


def test_openais_client_raises_its_own_errors(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="file-no"):
        client.files.retrieve("file-no")
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.create(model="tiny-chat", training_file="file-x", extra_body={"typo": 1})
    assert (caught.value.param, caught.value.code) == ("typo", "user_error")


def test_the_result_is_listed_as_a_model(client: OpenAI, service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 2, "confirmations": 0})
    worker.work_until_ended(service.client, job_id)
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert job.status == "succeeded"
    assert job.fine_tuned_model == f"ft:tiny-chat:luthier:{job_id[-8:]}"
    assert client.models.retrieve(job.fine_tuned_model).id == job.fine_tuned_model


def test_paging_over_jobs_visits_each_once(client: OpenAI, service: Service) -> None:
    file = service.upload(sums())
    ids = [service.client.create_job(file, search={"trials": 2, "confirmations": 0}).id for _ in range(5)]
    page = client.fine_tuning.jobs.list(limit=2)
    assert isinstance(page, SyncCursorPage)
    assert [job.id for job in page] == ids[::-1]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"method": {"type": "auto"}},
        {"method": {"type": "supervised"}},
        {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 1}}}},
        {"search": {"pin": {"epochs": [0.5]}}},
        {"hyperparameters": {"n_epochs": 3, "learning_rate_multiplier": 2}},
    ],
    ids=str,
)
def test_every_job_fits_openais_type_strictly(service: Service, body: dict[str, Any]) -> None:
    job_id = service.submit(preferences(), **body)
    check(FineTuningJob, service.http.get(f"{JOBS}/{job_id}").json())


def test_a_reinforcement_job_is_openais_in_and_out(client: OpenAI, service: Service) -> None:
    file = service.upload(sums())
    grader = {"type": "string_check", "name": "exact", "operation": "eq"}
    grader |= {"input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
    hyperparameters = {"n_epochs": 2, "compute_multiplier": 0.5, "eval_samples": 3, "reasoning_effort": "low"}
    job = client.fine_tuning.jobs.create(
        model="tiny-chat",
        training_file=file,
        method={"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": hyperparameters}},
    )
    raw = service.http.get(f"{JOBS}/{job.id}").json()
    check(FineTuningJob, raw)
    assert raw["method"]["reinforcement"]["grader"] == grader
    pin = raw["luthier"]["search"]["pin"]
    assert pin["algorithm"] == ["grpo", "rloo", "raft", "sft+grpo", "sft+rloo", "sft+raft"]
    assert (pin["epochs"], pin["grpo_group"], pin["rloo_group"], pin["raft_group"]) == ([2.0], [4], [2], [2])
    said = [event.message for event in client.fine_tuning.jobs.list_events(job.id)]
    assert any("Ignored: eval_samples, reasoning_effort." in message for message in said)


def test_finished_and_failed_jobs_and_their_events_fit_too(service: Service, worker: FakeWorker) -> None:
    done, broken = service.submit(search={"trials": 2, "confirmations": 0}), service.submit(search={"trials": 2})
    worker.work_until_ended(service.client, done)
    for _ in range(2):
        worker.finish(worker.take(), outcome="failed", error="no luck")
    for job_id, status in ((done, "succeeded"), (broken, "failed")):
        job = check(FineTuningJob, service.http.get(f"{JOBS}/{job_id}").json())
        assert job.status == status
        for event in service.http.get(f"{JOBS}/{job_id}/events").json()["data"]:
            check(FineTuningJobEvent, event)


def test_files_and_models_fit_too(service: Service) -> None:
    file_id = service.upload(sums())
    check(FileObject, service.http.get(f"/v1/files/{file_id}").json())
    check(FileDeleted, service.http.delete(f"/v1/files/{file_id}").json())
    check(Model, service.http.get("/v1/models/tiny-chat").json())
    check(ModelDeleted, service.http.delete("/v1/models/tiny-chat").json())


def check(kind: type[T], value: dict[str, Any]) -> T:
    return kind.model_validate(value, strict=True)
