"""A running job whose default is paused: each page, report and command says so, and takes nothing of it for granted."""

from __future__ import annotations

import pytest

from luthier.trial import TrialState
from tests.commands import run
from tests.integration.service_harness import FakeWorker, Service, metrics
from tests.integration.test_service_halving import WIDE, baselines, by_order, pause, take

pytest_plugins = ("tests.integration.service_fixtures",)

SEARCH = {**WIDE, "trials": 5}


@pytest.fixture
def job(service: Service, worker: FakeWorker) -> str:
    """The default and trial 2 are paused; nothing is complete but the untuned base."""
    worker.score = by_order(9.0, 5.0, 4.0, 3.0, 4.5)
    job_id = service.submit(search=SEARCH)
    baselines(worker)
    pause(worker, 2)
    return job_id


def figure(service: Service, job_id: str, name: str) -> str:
    """What the head of the job's page says of a figure."""
    answer = service.http.get(f"/jobs/{job_id}")
    assert answer.status_code == 200
    return answer.text.split(f"<dt>{name}</dt>")[1].split("</div>")[0]


def test_before_any_design_is_complete_the_page_names_the_paused_default_and_the_best_paused_trial(
    service: Service, worker: FakeWorker, job: str
) -> None:
    default = service.client.trials(job)[1]
    assert (default.state, default.paused, default.rung, default.metrics) == (TrialState.WAITING, True, 0, None)
    found = figure(service, job, "vs. LoRA default")
    assert "paused at rung 1" in found
    assert "5 bits per byte" in found
    assert "no design is complete" in figure(service, job, "vs. untuned base")
    page = service.http.get(f"/jobs/{job}").text
    advice = page.split('id="advice">')[1].split("</p>")[0]
    assert "2 designs paused, of which trial 2 is the best: 4 bits per byte at rung 1" in advice
    best = service.client.best(job)
    assert (best.number, best.default_metrics, best.recommendation.number) == (0, None, None)
    report = service.client.report(job)
    assert report.winner is None
    assert any("trial 2 is the best" in words for words in report.recommendation.words)


def test_a_design_that_is_complete_is_not_compared_with_a_paused_default(
    service: Service, worker: FakeWorker, job: str
) -> None:
    early = take(worker, 3)
    assert early.goal == 0
    worker.finish(early, outcome="complete", metrics=metrics(3.0))
    best = service.client.best(job)
    assert (best.number, best.default_metrics) == (3, None)
    found = figure(service, job, "vs. LoRA default")
    assert "paused at rung 1" in found
    report = service.client.report(job)
    assert report.winner is not None
    assert report.winner.number == 3
    assert "plain-LoRA default" not in {one.against for one in report.comparisons}
    assert [("paused at rung 1" in words) for words in report.missing if "plain-LoRA default" in words] == [True]
    paths = (f"/jobs/{job}/trials/1", "/", f"/jobs/compare?jobs={job}", f"/v1/fine_tuning/jobs/{job}/landscape")
    for path in (*paths, *(f"/v1/fine_tuning/jobs/{job}/report?format={form}" for form in ("html", "markdown"))):
        assert service.http.get(path).status_code == 200, path
    assert "paused" in service.http.get(f"/jobs/{job}/trials/1").text
    shown = run("best", job, "--server", service.url)
    assert shown.returncode == 0, shown.stderr
    [line] = [line for line in shown.stdout.splitlines() if "LoRA default" in line]
    assert "not complete" in line
    assert "paused at rung 1" in run("trials", job, "--server", service.url).stdout


def test_once_the_search_has_ended_the_default_is_compared(service: Service, worker: FakeWorker, job: str) -> None:
    assert worker.work_until_ended(service.client, job) == "succeeded"
    assert [one.number for one in worker.done][-1] == 1, "the default is trained to its end last"
    best = service.client.best(job)
    assert best.winner == 3
    assert best.default_metrics is not None
    assert best.default_metrics.bits_per_byte == 5.0
    assert "plain-LoRA default" in {one.against for one in service.client.report(job).comparisons}
    assert "paused" not in figure(service, job, "vs. LoRA default")
