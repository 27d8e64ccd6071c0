"""What somebody sees who watches over the service: metrics, and log lines that say what they are about."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from luthier.blobs import Blobs
from luthier.settings import Settings
from luthier.store import artifacts, jobs
from luthier.store.database import Database
from tests.integration.service_harness import FakeWorker, Service, serving, sums

pytestmark = pytest.mark.xdist_group("eco-watching")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("watched")) as service:
        service.add_model()
        yield service


def scrape(service: Service) -> dict[tuple[str, ...], float]:
    """By name and label values."""
    answer = service.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_follow_a_job_from_the_queue_to_its_end(watched: Service) -> None:
    assert scrape(watched)["luthier_queue_length",] == 0
    worker = FakeWorker(watched.http, seconds=2.5)
    worker.register()
    job = watched.submit(sums(), search={"trials": 3, "confirmations": 0})
    assignment = worker.take()
    running = scrape(watched)
    assert running["luthier_jobs", "running"] == running["luthier_trials", "leased"] == 1
    assert running["luthier_workers", "cpu"] == 1
    assert running["luthier_workers", "cuda"] == 0
    worker.work(assignment)
    assert scrape(watched)["luthier_queue_length",] == 1
    assert worker.work_until_ended(watched.client, job) == "succeeded"
    ended = scrape(watched)
    assert ended["luthier_jobs", "succeeded"] == 1
    assert ended["luthier_trials", "complete"] == 3
    assert ended["luthier_queue_length",] == ended["luthier_trials", "waiting"] == ended["luthier_jobs", "running"] == 0
    assert ended["luthier_device_seconds_total",] == 7.5
    assert ended["luthier_trained_tokens_total",] == 3000


def test_a_trial_that_pauses_is_not_in_the_queue(watched: Service) -> None:
    worker = FakeWorker(watched.http, name="pausing")
    worker.register()
    job = watched.submit(sums(), search={"trials": 9, "confirmations": 0})
    while not scrape(watched)["luthier_trials", "paused"]:
        worker.work(worker.take())
    found = scrape(watched)
    assert found["luthier_queue_length",] == found["luthier_trials", "waiting"]
    watched.client.cancel(job)


def test_requests_are_timed_by_route_and_not_by_path(watched: Service) -> None:
    for number in range(3):
        watched.http.get(f"/v1/fine_tuning/jobs/ftjob-{number}")
    watched.http.get("/no/such/route")
    found = scrape(watched)
    name = "luthier_http_request_seconds_count"
    assert found[name, "GET", "/v1/fine_tuning/jobs/{job_id}", "404"] == 3
    assert found[name, "GET", "none", "404"] >= 1
    assert not any("ftjob" in label for key in found for label in key)


def test_a_request_keeps_the_id_it_came_with_and_gets_one_otherwise(watched: Service) -> None:
    assert watched.http.get("/healthz", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for odd in ("", "two words", "x" * 65):
        given = watched.http.get("/healthz", headers={"X-Request-Id": odd}).headers["x-request-id"]
        assert given.startswith("req_")
    assert watched.http.get("/no/such/route").headers["x-request-id"].startswith("req_")


def test_what_is_logged_in_a_request_or_about_a_job_says_so(watched: Service, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "luthier.access"):
        watched.http.get("/healthz")
        watched.http.get("/v1/fine_tuning/jobs/ftjob-none", headers={"X-Request-Id": "mine-2"})
    (line,) = (record for record in caplog.records if record.name == "luthier.access")
    assert line.getMessage() == "GET /v1/fine_tuning/jobs/ftjob-none 404"
    assert (line.__dict__["job_id"], line.__dict__["route"]) == ("ftjob-none", "/v1/fine_tuning/jobs/{job_id}")


def test_the_page_on_operations_says_how_to_look_and_to_back_up(watched: Service, tmp_path: Path) -> None:
    """What the page's commands leave is a home with every job and every file that a job names."""
    worker = FakeWorker(watched.http, name="backed up")
    worker.register()
    job_id = watched.submit(sums(), search={"trials": 2, "confirmations": 0})
    assert worker.work_until_ended(watched.client, job_id) == "succeeded"
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    commands = re.findall(r"(?<!-->\n)^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    script = "\n".join(commands).replace("http://127.0.0.1:8420", watched.url)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"LUTHIER_HOME": str(watched.context.settings.home_dir), "PATH": path}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 'luthier_jobs{state="succeeded"}' in done.stdout
    backup = Settings(home=tmp_path / "backup")
    blobs = Blobs(backup.blobs)
    with closing(Database(backup.database)) as copied, copied.read() as c:
        found, _ = jobs.list_(c, None, 10, {})
        assert {job.id for job in found} == {job.id for job in watched.client.jobs()}
        ended = jobs.get(c, job_id)
        kept = artifacts.of_trial(c, ended.best_trial_id or "")
    digests = [digest for artifact in kept for digest in artifact.files.values()]
    assert digests
    assert all(blobs.exists(digest) for digest in [*digests, ended.train, ended.judge.test])


LOGGING = """
import logging
from luthier import logs
from luthier.settings import LogSettings

logs.configure(LogSettings().log_format)
log = logging.getLogger("service.jobs.reconcile")
with logs.about(request_id="req_1"), logs.about(job_id="ftjob-1"):
    try:
        raise ValueError("a line\\nand another")
    except ValueError:
        log.exception("it failed")
log.info("trial %d", 3, extra={"trial_id": "trial-3"})
logs.ACCESS.info("GET / 200")
"""


@pytest.mark.parametrize("form", ["json", "text"])
def test_log_lines_are_for_programs_or_for_people(form: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOGGING], env={"LUTHIER_LOG_FORMAT": form}, capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    if form == "text":
        assert "service.jobs.reconcile ERROR it failed" in lines[0]
        assert lines[-1].endswith(
            "service.jobs.reconcile INFO trial 3"
        )  # requests that went well are not told to people
        return
    failed, trial, access = map(json.loads, lines)
    assert {name: failed[name] for name in ("level", "logger", "message", "request_id", "job_id")} == {
        "level": "ERROR",
        "logger": "service.jobs.reconcile",
        "message": "it failed",
        "request_id": "req_1",
        "job_id": "ftjob-1",
    }
    assert "ValueError: a line\nand another" in failed["exception"]
    assert failed["time"].startswith("20")
    assert (trial["message"], trial["trial_id"], access["logger"]) == ("trial 3", "trial-3", "luthier.access")
    assert "job_id" not in trial
