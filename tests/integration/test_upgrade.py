"""A home that version 0.1 left behind is opened by this version: nothing is lost, and its work goes on."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors import safe_open

from luthier import child_process
from luthier.client import Client
from luthier.errors import Unauthenticated
from luthier.store.database import Database
from luthier.trial import TRAIN_LOSS, TrialState
from tests.integration.service_harness import TINY_CHAT, serving
from tests.live import eventually

ARCHIVE = Path(__file__).parents[1] / "upgrade" / "home-0.1.tar.gz"
JOBS = "/v1/fine_tuning/jobs"
# Sentences that are made anew for each answer, moments that opening the home moves, and the worth of an axis, which is
# now a difference of means over seeds.
CHANGING = {"worth", "words", "headline", "missing", "weaknesses", "next_steps", "summary", "unit", "last_used_at"}

pytestmark = pytest.mark.xdist_group("upgrade")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home as it was, with the base model where it can be read."""
    home = tmp_path_factory.mktemp("upgrade") / "home"
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(home, filter="data")
    with sqlite3.connect(home / "luthier.db") as database:
        database.execute("UPDATE models SET source = ?", (str(TINY_CHAT),))
    database.close()
    return home


@pytest.fixture(scope="module")
def before(home: Path) -> Any:
    """What the API of version 0.1 returned."""
    return json.loads((home / "expected.json").read_text())


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    with serving(home) as service:
        yield service.url


@pytest.fixture(scope="module")
def client(url: str, before: Any) -> Iterator[Client]:
    with Client(url, api_key=before["key"]) as client:
        yield client


@pytest.fixture(scope="module")
def http(url: str, before: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {before['key']}"}, timeout=60) as http:
        yield http


def get(http: httpx.Client, path: str, **params: Any) -> Any:
    answer = http.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def kept(found: Any, before: Any, at: str = "") -> None:
    """Assert that whatever was there before is there still. Fields may have been added since."""
    match before:
        case dict():
            for name in before.keys() - CHANGING:
                assert name in found, f"{at}.{name}"
                kept(found[name], before[name], f"{at}.{name}")
        case list():
            assert len(found) == len(before), at
            for i, (new, old) in enumerate(zip(found, before, strict=True)):
                kept(new, old, f"{at}[{i}]")
        case _:
            assert found == before, at


def job_with(before: Any, status: str, name: str = "") -> str:
    """The id of the job that had this status, and this in the name of its result."""
    [found] = [
        job_id
        for job_id, was in before["jobs"].items()
        if was["job"]["status"] == status and name in (was["job"]["fine_tuned_model"] or "")
    ]
    return str(found)


def test_the_schema_is_brought_to_this_version(home: Path, tmp_path: Path) -> None:
    shutil.copy(home / "luthier.db", tmp_path / "luthier.db")
    database = Database(f"sqlite:///{tmp_path / 'luthier.db'}")
    database.upgrade()
    database.check()
    database.close()


def test_files_models_aliases_and_schedules_are_kept(http: httpx.Client, before: Any) -> None:
    for kind in ("files", "aliases", "schedules"):
        kept(get(http, f"/v1/{kind}")["data"], before[kind], kind)
    [schedule] = before["schedules"]
    kept(get(http, f"/v1/schedules/{schedule['id']}/runs")["data"], before["runs"], "runs")
    assert {run["state"] for run in before["runs"]} == {"succeeded", "skipped"}
    [model] = before["models"]
    kept(get(http, f"/v1/models/{model['id']}") | {"source": model["source"]}, model, "model")
    [file] = before["files"]
    assert http.get(f"/v1/files/{file['id']}/content").text.count("\n") == 240


def test_webhooks_and_their_deliveries_are_kept(http: httpx.Client, before: Any) -> None:
    kept(get(http, "/v1/webhook_endpoints")["data"], before["webhook_endpoints"], "webhooks")
    [endpoint] = before["webhook_endpoints"]
    kept(get(http, f"/v1/webhook_endpoints/{endpoint['id']}/deliveries")["data"], before["deliveries"], "deliveries")
    assert len(before["deliveries"]) == 2


def test_a_key_still_logs_in_and_a_revoked_one_stays_revoked(url: str, http: httpx.Client, before: Any) -> None:
    kept(get(http, "/v1/keys")["data"], before["keys"], "keys")
    assert [key["name"] for key in before["keys"] if key["revoked_at"] is not None] == ["gone"]
    with Client(url) as stranger, pytest.raises(Unauthenticated):
        stranger.jobs()
    answer = httpx.post(f"{url}/login", data={"key": before["key"]}, headers={"Origin": url})
    assert answer.status_code == 303, answer.text
    assert "luthier" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("status", "name"), [("succeeded", "searched"), ("failed", ""), ("cancelled", ""), ("running", "")]
)
def test_a_job_is_what_it_was(http: httpx.Client, before: Any, status: str, name: str) -> None:
    job_id = job_with(before, status, name)
    was, at = before["jobs"][job_id], f"{JOBS}/{job_id}"
    kept(get(http, at), was["job"], "job")
    for kind in ("trials", "checkpoints", "events"):
        kept(get(http, f"{at}/{kind}", limit=100)["data"], was[kind], kind)
    of_trials = [f"{at}/trials/{trial['id']}" for trial in was["trials"]]
    assert [len(get(http, f"{trial}/points")["data"]) for trial in of_trials] == was["points"]
    for kind in ("log", "samples"):
        kept([get(http, f"{trial}/{kind}")["data"] for trial in of_trials], was[kind], kind)
    kept(get(http, f"{at}/report", format="json"), was["report"], "report")
    if was["best"] is not None:
        kept(get(http, f"{at}/best"), was["best"], "best")


def test_the_finished_job_had_rungs_repeats_and_a_reason_for_its_end(client: Client, before: Any) -> None:
    job_id = job_with(before, "succeeded", "searched")
    trials = client.trials(job_id)
    assert any(len(trial.measured) == 2 for trial in trials)
    assert any(trial.state is TrialState.PRUNED for trial in trials)
    assert any(trial.confirms is not None for trial in trials)
    ended = client.report(job_id).budget.ended
    assert ended
    assert ended == before["jobs"][job_id]["report"]["budget"]["ended"]


def test_the_adapter_of_the_finished_job_downloads(client: Client, before: Any, tmp_path: Path) -> None:
    files = client.download(job_with(before, "succeeded", "searched"), tmp_path / "adapter", "adapter")
    [weights] = [file for file in files if file.suffix == ".safetensors"]
    with safe_open(weights, "pt") as tensors:
        assert any("lora_A" in name for name in tensors.keys())  # noqa: SIM118 - not a dict
    assert {"adapter_config.json", "README.md"} <= {file.name for file in files}


@contextmanager
def working(url: str, key: str, cache: Path) -> Iterator[None]:
    """A worker of this version, in a process of its own."""
    arguments = ["--server", url, "--name", "new", "--cache", str(cache)]
    worker = child_process.start("workers.agent", *arguments, environment={**os.environ, "LUTHIER_API_KEY": key})
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(60)


def test_the_paused_job_goes_on_from_its_checkpoint(url: str, client: Client, before: Any, tmp_path: Path) -> None:
    job_id = job_with(before, "running")
    [begun] = [trial for trial in client.trials(job_id) if trial.state is TrialState.WAITING and trial.number]
    trained = {(point.stage, point.step): point for point in client.points(job_id, begun.id, TRAIN_LOSS)}
    assert client.job(job_id).luthier.paused
    client.resume(job_id)
    worker_key = client.create_key("worker", "worker").key
    with working(url, worker_key, tmp_path / "cache"):
        eventually(lambda: client.job(job_id).status.terminal, 240)
    assert client.job(job_id).status.value == "succeeded"
    again = {(point.stage, point.step): point for point in client.points(job_id, begun.id, TRAIN_LOSS)}
    assert len(again) > len(trained)
    assert {at: again[at] for at in trained} == trained, "no step was made twice"
