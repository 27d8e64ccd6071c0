"""What a finished job gives out: the merged model and the adapter as tar streams, or why there is none."""

import io
import tarfile
from pathlib import Path

import pytest

from luthier.errors import NotFound
from tests.integration.service_harness import FakeWorker, Service, metrics

pytest_plugins = ("tests.integration.service_fixtures",)


def test_the_merged_model_and_the_adapter_come_as_tar_streams(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 3, "confirmations": 0, "pin": {"update": ["lora"]}})
    worker.work_until_ended(service.client, job_id)
    best = service.client.best(job_id)
    assert {artifact.kind for artifact in best.artifacts} == {"merged", "adapter"}

    answer = service.http.get(f"/v1/fine_tuning/jobs/{job_id}/artifact", params={"format": "merged"})
    assert answer.headers["content-type"] == "application/x-tar"
    assert int(answer.headers["content-length"]) == len(answer.content)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        names = archive.getnames()
        weights = archive.extractfile("model.safetensors")
        assert weights is not None
        assert weights.read().decode() == f"weights of {best.trial}"
    assert names == ["model.safetensors", "tokenizer.json"]


def test_a_winner_without_an_adapter_says_why(service: Service, worker: FakeWorker, tmp_path: Path) -> None:
    job_id = service.submit(search={"trials": 3, "confirmations": 0, "pin": {"update": ["full"]}})
    worker.work_until_ended(service.client, job_id)
    with pytest.raises(NotFound, match="format=merged") as refused:
        service.client.download(job_id, tmp_path / "adapter", "adapter")
    assert refused.value.param == "format"


def test_a_winner_that_cannot_be_merged_says_why(service: Service, worker: FakeWorker, tmp_path: Path) -> None:
    job_id = service.submit(search={"trials": 3, "confirmations": 0, "pin": {"update": ["prefix"]}})
    worker.work_until_ended(service.client, job_id)
    assert {artifact.kind for artifact in service.client.best(job_id).artifacts} == {"adapter"}
    with pytest.raises(NotFound, match="format=adapter") as refused:
        service.client.download(job_id, tmp_path / "merged")
    assert refused.value.param == "format"


def test_a_job_without_a_complete_trial_has_no_best(service: Service) -> None:
    job_id = service.submit(search={"trials": 2, "confirmations": 0})
    with pytest.raises(NotFound, match="has no complete trial"):
        service.client.best(job_id)


def test_an_artifact_that_was_not_uploaded_whole_is_refused(service: Service, worker: FakeWorker) -> None:
    service.submit(search={"trials": 2, "confirmations": 0})
    assignment = worker.take()
    report = {
        **worker.claim(assignment),
        "outcome": "complete",
        "device_seconds": 1,
        "metrics": metrics(1.0).model_dump(),
        "artifacts": [{"kind": "merged", "files": {"model.safetensors": "0" * 64}, "bytes": 1}],
    }
    answer = worker.http.post(f"/v1/trials/{assignment.trial_id}/finish", json=report)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "blob_missing")
    assert worker.heartbeat(assignment)["action"] == "continue"
