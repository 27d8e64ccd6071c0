"""A job as an Optuna storage file: what Optuna reads and what optuna-dashboard shows is what the job did."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from optuna_dashboard import wsgi

from luthier.errors import NotFound
from tests.integration.service_harness import FakeWorker, Service, serving, sums

pytestmark = pytest.mark.xdist_group("eco-optuna")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """A job with complete, pruned and failed trials."""
    with serving(tmp_path_factory.mktemp("optuna")) as service:
        service.add_model()
        worker = FakeWorker(service.http)
        worker.register()
        job_id = service.submit(
            sums(), search={"trials": 8, "finalists": 1, "confirmations": 1}, metadata={"who": "me"}
        )
        for _ in range(3):
            worker.work(worker.take())
        worker.finish(worker.take(), outcome="failed", error="it burst")
        assert worker.work_until_ended(service.client, job_id) == "succeeded"
        yield service, job_id


@pytest.fixture(scope="module")
def file(job: tuple[Service, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    service, job_id = job
    path = tmp_path_factory.mktemp("file") / "job.db"
    service.client.optuna(job_id, path)
    return path


def test_optuna_reads_the_job_as_it_was(job: tuple[Service, str], file: Path) -> None:
    service, job_id = job
    study = optuna.load_study(study_name=job_id, storage=f"sqlite:///{file}")
    ours = service.client.trials(job_id)
    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    assert [trial.number for trial in study.trials] == [trial.number for trial in ours]
    assert [trial.state for trial in study.trials] == [states[trial.state] for trial in ours]
    assert {trial.state for trial in ours} == set(states)
    winner = service.client.best(job_id)
    complete = study.get_trials(states=[TrialState.COMPLETE])
    assert {trial.number: trial.value for trial in complete} == {
        trial.number: trial.metrics.bits_per_byte for trial in ours if trial.state == "complete" and trial.metrics
    }
    assert study.user_attrs["who"] == "me"
    assert study.user_attrs["best_trial"] == winner.number
    failed = next(trial for trial in study.trials if trial.state is TrialState.FAIL)
    assert failed.user_attrs["error"] == "it burst"
    pruned = next(trial for trial in study.trials if trial.state is TrialState.PRUNED)
    assert set(pruned.intermediate_values) <= {1, 3, 9, 27, 81}
    assert pruned.intermediate_values


def test_axes_are_parameters_and_the_untuned_base_has_none(file: Path) -> None:
    (summary,) = optuna.get_all_study_summaries(f"sqlite:///{file}")
    trials = optuna.load_study(study_name=summary.study_name, storage=f"sqlite:///{file}").trials
    assert trials[0].params == {}
    assert trials[0].user_attrs["origin"] == "baseline"
    assert all({"recipe", "batch_size", "learning_rate_multiplier"} <= set(trial.params) for trial in trials[1:])
    confirming = next(trial for trial in trials if trial.user_attrs["origin"] == "confirmation")
    assert confirming.params == trials[confirming.user_attrs["confirms"]].params


def test_optuna_dashboard_opens_the_file(job: tuple[Service, str], file: Path) -> None:
    service, job_id = job
    dashboard: Any = wsgi(f"sqlite:///{file}")

    def get(path: str) -> Any:
        started: list[str] = []
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "SERVER_NAME": "x",
            "SERVER_PORT": "80",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
        }
        body = b"".join(dashboard(environ, lambda status, headers, info=None: started.append(status)))
        assert started == ["200 OK"], body
        return json.loads(body)

    (study,) = get("/api/studies")["study_summaries"]
    assert study["study_name"] == job_id
    shown = get(f"/api/studies/{study['study_id']}")
    theirs = {"complete": "Complete", "pruned": "Pruned", "failed": "Fail"}
    assert [trial["state"] for trial in shown["trials"]] == [theirs[one.state] for one in service.client.trials(job_id)]
    assert shown["directions"] == ["minimize"]
    assert {"recipe", "batch_size"} <= {axis["name"] for axis in shown["union_search_space"]}


def test_a_running_job_is_written_as_far_as_it_has_come(job: tuple[Service, str], tmp_path: Path) -> None:
    service, _ = job
    worker = FakeWorker(service.http, name="another")
    worker.register()
    running = service.submit(sums(), search={"trials": 9})
    worker.work(worker.take())
    taken = worker.take()
    service.client.optuna(running, tmp_path / "running.db")
    study = optuna.load_study(study_name=running, storage=f"sqlite:///{tmp_path / 'running.db'}")
    assert study.trials[taken.number].state is TrialState.RUNNING
    assert study.trials[0].state is TrialState.COMPLETE
    service.client.cancel(running)


def test_a_job_that_is_not_there_leaves_no_file(job: tuple[Service, str], tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        job[0].client.optuna("ftjob-none", tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
