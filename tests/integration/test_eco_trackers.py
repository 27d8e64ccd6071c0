"""Trials told to MLflow and TensorBoard: each once, whole, whatever was interrupted."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from luthier.errors import UserError
from luthier.settings import Settings
from service.app import create_app
from service.integrations.mlflow import Mlflow
from service.integrations.publisher import Publisher, trackers
from service.integrations.tensorboard import TensorBoard
from tests.integration.service_harness import FakeWorker, Service, serving, sums, wait_until

# Libraries of other people's, read by theirs: MLflow's SQL store, and the protobuf messages of tensorboardX
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.xdist_group("eco-trackers")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("told")


@pytest.fixture(scope="module")
def job(home: Path) -> Iterator[tuple[Service, str]]:
    """A service that tells TensorBoard, and a job that has ended, a failed trial among its trials."""
    with serving(home / "home", tensorboard_dir=home / "board") as service:
        service.add_model()
        worker = FakeWorker(service.http)
        worker.register()
        job_id = service.submit(sums(), search={"trials": 4, "confirmations": 0}, metadata={"who": "me"})
        for _ in range(2):
            worker.work(worker.take())
        burst = worker.take()
        worker.heartbeat(burst, loss=3.5)
        worker.finish(burst, outcome="failed", error="it burst")
        assert worker.work_until_ended(service.client, job_id) == "succeeded"
        yield service, job_id


def events(folder: Path) -> list[Any]:
    """As TensorBoard reads them."""
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto.event_pb2 import Event

    def proven(content: bytes, given: bytes) -> bytes:
        crc = crc32c(content)
        assert struct.unpack("<I", given)[0] == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        return content

    (path,) = folder.glob("events.out.tfevents.*")
    left, found = path.read_bytes(), []
    while left:
        (length,) = struct.unpack("<Q", proven(left[:8], left[8:12]))
        found.append(Event.FromString(proven(left[12 : 12 + length], left[12 + length : 16 + length])))
        left = left[16 + length :]
    return found


def test_a_job_that_asks_for_another_tracker_learns_which_one_is_told(job: tuple[Service, str]) -> None:
    service, job_id = job
    file = service.client.job(job_id).training_file
    with pytest.raises(UserError, match=r"Weights & Biases.*: TensorBoard"):
        service.client.create_job(file, integrations=[{"type": "wandb", "wandb": {"project": "x"}}])


def test_tensorboard_finds_curves_scores_and_design_of_every_trial(job: tuple[Service, str], home: Path) -> None:
    service, job_id = job
    board = home / "board" / job_id
    ours = service.client.trials(job_id)
    wait_until(lambda: len(list(board.glob("0*"))) == len(ours))
    assert sorted(path.name for path in board.iterdir()) == [f"{t.number:04d}_{t.id}" for t in ours]
    first, *rest = events(board / f"0002_{ours[2].id}")
    assert first.file_version == "brain.Event:2"
    values = {value.tag: (event.step, value) for event in rest for value in event.summary.value}
    assert values["loss"][0] == 1
    assert values["loss"][1].simple_value == 3.5
    assert values["device_seconds"][1].simple_value == 1.0
    design = values["design"][1]
    assert design.metadata.plugin_data.plugin_name == "text"
    assert f"| stages.0.algorithm.kind | {ours[2].design.stages[0].algorithm.kind} |" in str(
        design.tensor.string_val[0].decode()
    )
    best = {v.tag: v.simple_value for e in events(board / f"0001_{ours[1].id}") for v in e.summary.value}
    assert ours[1].metrics is not None
    assert best["validation/bits_per_byte"] == pytest.approx(ours[1].metrics.bits_per_byte)
    assert best["test/bits_per_byte"] > 0


def test_mlflow_gets_a_run_for_each_trial_under_one_for_the_job(job: tuple[Service, str], tmp_path: Path) -> None:
    service, job_id = job
    url = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = Mlflow(url)
    with service.context.database.read() as c:
        from luthier.store import jobs, trials

        record, rows = jobs.get(c, job_id), trials.of_job(c, job_id)
    client = tracker._client
    experiment = client.create_experiment("luthier")
    broken_off = client.create_run(experiment, tags={"luthier.job": job_id, "luthier.trial": rows[0].id})
    tracker.log_trial(record, rows[1], ())  # as before a restart
    for _ in range(2):
        Publisher(service.context, [tracker]).look(everything=True)
    runs = client.search_runs([experiment], max_results=100)
    assert broken_off.info.run_id not in {run.info.run_id for run in runs}
    (whole,) = [run for run in runs if "luthier.trial" not in run.data.tags]
    assert (whole.info.run_name, whole.info.status) == (job_id, "FINISHED")
    assert whole.data.tags["luthier.metadata.who"] == "me"
    told = {run.data.tags["luthier.trial"]: run for run in runs if run is not whole}
    assert len(runs) == len(rows) + 1
    assert set(told) == {row.id for row in rows}
    assert {run.data.tags["mlflow.parentRunId"] for run in told.values()} == {whole.info.run_id}
    failed, default = told[rows[2].id], told[rows[1].id]
    assert (failed.info.status, failed.data.tags["luthier.error"]) == ("FAILED", "it burst")
    assert client.get_metric_history(failed.info.run_id, "loss")[0].value == 3.5
    assert default.data.params["stages.0.update.kind"] == "lora"
    assert rows[1].metrics is not None
    assert default.data.metrics["validation/bits_per_byte"] == pytest.approx(rows[1].metrics.bits_per_byte)


def test_a_trial_whose_files_were_broken_off_is_told_again_and_one_that_is_whole_is_not(
    job: tuple[Service, str], tmp_path: Path
) -> None:
    service, job_id = job
    tracker = TensorBoard(tmp_path)
    Publisher(service.context, [tracker]).look(everything=True)
    first, second, *_ = sorted((tmp_path / job_id).iterdir())
    (kept,) = first.iterdir()
    written = kept.stat().st_mtime_ns
    second.rename(second.with_name(f"part_{second.name.partition('_')[2]}"))
    Publisher(service.context, [tracker]).look(everything=True)
    assert second.exists()
    assert not list((tmp_path / job_id).glob("part*"))
    assert kept.stat().st_mtime_ns == written


def test_a_package_that_is_missing_is_named_before_the_service_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match=r"LUTHIER_MLFLOW_URL needs `pip install 'luthier\[mlflow\]'`"):
        create_app(Settings(home=tmp_path, mlflow_url="http://127.0.0.1:5000"))


def test_nothing_is_told_where_nobody_asked(tmp_path: Path) -> None:
    assert trackers(Settings(home=tmp_path)) == []
