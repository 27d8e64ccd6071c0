"""The report over HTTP: in each form, of jobs that run, that have ended in any way, and through the client."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from luthier.errors import NotFound
from luthier.trial import JobState, Metrics
from luthier.worker_protocol import Assignment
from search.report.pareto import parameters
from tests.integration.service_harness import FakeWorker, Service, metrics, serving, texts


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


def better_and_better(assignment: Assignment) -> Metrics:
    return metrics(3.0 - min(assignment.number, 4) / 4)


@pytest.fixture
def job(service: Service, worker: FakeWorker) -> str:
    """A finished job."""
    worker.score = better_and_better
    job_id = service.submit(search={"trials": 6, "finalists": 2, "confirmations": 0}, suffix="support")
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    return job_id


def get(service: Service, job_id: str, form: str | None = None, accept: str | None = None) -> httpx.Response:
    answer = service.http.get(
        f"/v1/fine_tuning/jobs/{job_id}/report",
        params={} if form is None else {"format": form},
        headers={} if accept is None else {"accept": accept},
    )
    assert answer.status_code == 200, answer.text
    return answer


def test_the_report_is_made_of_the_jobs_rows(service: Service, job: str) -> None:
    report = service.client.report(job)
    best, trials = service.client.best(job), service.client.trials(job)
    assert report.status is JobState.SUCCEEDED
    assert report.winner is not None
    assert (report.winner.trial, report.winner.design, report.winner.metrics) == (best.trial, best.design, best.metrics)
    assert [one.number for one in report.tried] == [trial.number for trial in trials]
    assert report.budget.spent == pytest.approx(sum(trial.device_seconds for trial in trials))
    assert report.comparisons[0].against == "untuned base"
    assert report.comparisons[0].verdict == "better beyond the noise"
    assert report.comparisons[0].rows == 6
    assert report.recommendation.take == "winner"
    assert report.forgetting is not None
    assert report.task.file == "train.jsonl"
    assert report.task.train_rows + report.task.validation_rows + report.task.test_rows == 60
    assert report.budget.ended == "all 6 trials are done"
    facts = service.client.model("tiny-chat").facts
    assert facts is not None
    assert report.winner.parameters == parameters(best.design, facts)
    assert any("one seed" in words for words in report.weaknesses)
    assert any("never tried" in words for words in report.next_steps)


def test_each_form_has_its_media_type(service: Service, job: str) -> None:
    html, markdown, plain = (get(service, job, form) for form in ("html", "markdown", "json"))
    assert html.headers["content-type"] == "text/html; charset=utf-8"
    assert html.headers["content-security-policy"].startswith("default-src 'none'")
    assert html.text.startswith("<!DOCTYPE html>")
    assert markdown.headers["content-type"] == "text/markdown; charset=utf-8"
    assert markdown.text.startswith("# Report of ft:tiny-chat:support")
    assert plain.headers["content-type"] == "application/json"
    assert plain.json()["object"] == "fine_tuning.job.report"
    assert get(service, job).json() == plain.json()
    for words in (service.client.report(job).headline, "All trials", "untuned base"):
        assert words in html.text


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "text/html"),  # a browser
        ("text/markdown", "text/markdown"),
        ("application/json;q=0.5, text/markdown;q=0.9", "text/markdown"),
        ("application/json, text/html;q=0.9", "application/json"),
        ("*/*", "application/json"),
        ("text/html;q=0", "application/json"),
        ("nonsense;;q=x", "application/json"),
    ],
)
def test_the_header_accept_chooses_where_no_form_is_asked_for(service: Service, accept: str, kind: str) -> None:
    job_id = service.submit(search={"trials": 2})
    assert get(service, job_id, accept=accept).headers["content-type"].split(";")[0] == kind
    assert get(service, job_id, "json", accept).headers["content-type"] == "application/json"


def test_a_form_that_is_not_one_is_refused(service: Service) -> None:
    job_id = service.submit(search={"trials": 2})
    answer = service.http.get(f"/v1/fine_tuning/jobs/{job_id}/report", params={"format": "pdf"})
    assert answer.status_code == 400
    assert "'json', 'html' or 'markdown'" in answer.json()["error"]["message"]
    with pytest.raises(NotFound, match="ftjob-nope"):
        service.client.report("ftjob-nope")


def test_a_running_a_cancelled_and_a_failed_job_have_reports(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 4})
    for _ in range(2):
        worker.work(worker.take())
    running = service.client.report(job_id)
    assert running.winner is not None
    assert running.winner.number == 1
    assert "still runs" in running.missing[0]

    service.client.cancel(job_id)
    cancelled = service.client.report(job_id)
    assert "cancelled" in cancelled.missing[0]
    assert cancelled.winner is not None

    broken = service.submit(search={"trials": 2})
    worker.work(worker.take())
    worker.finish(worker.take(), outcome="failed", error="<b>the loss</b> is not a number")
    while not service.client.job(broken).status.terminal:
        pass
    failed = service.client.report(broken)
    assert failed.winner is None
    assert "<b>the loss</b> is not a number" in failed.rejected[0].words
    assert "&lt;b&gt;the loss&lt;/b&gt;" in get(service, broken, "html").text
    assert "<b>" not in get(service, broken, "html").text


def test_a_file_name_is_shown_as_it_is_and_is_no_markup(service: Service, worker: FakeWorker) -> None:
    name = "<img src=x onerror=alert(1)>.jsonl"
    job = service.client.create_job(service.upload(texts(), name), search={"trials": 2, "confirmations": 0})
    worker.work_until_ended(service.client, job.id)
    assert service.client.report(job.id).task.file == name
    page = get(service, job.id, "html").text
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.jsonl" in page
    assert "<img" not in get(service, job.id, "markdown").text.replace(r"\<img", "")


def test_the_report_outlives_its_file_and_its_base_model(service: Service, job: str) -> None:
    before = service.client.report(job)
    service.client.delete_file(service.client.job(job).training_file)
    service.client.remove_model("tiny-chat")
    after = service.client.report(job)
    assert after.task.file is None
    assert after.winner is not None
    assert after.winner.parameters is None
    assert after.comparisons == before.comparisons
    assert not any("never tried" in words for words in after.next_steps)  # nobody knows any more what there was


def test_the_report_is_described_with_its_forms(service: Service) -> None:
    described = service.http.get("/openapi.json").json()
    operation = described["paths"]["/v1/fine_tuning/jobs/{job_id}/report"]["get"]
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/html", "text/markdown"}
    assert re.search(r"how sure", operation["description"])
    assert json.dumps(operation["responses"]["200"]["content"]["application/json"]).endswith('Report"}}')
