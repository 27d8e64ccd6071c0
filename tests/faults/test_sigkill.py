"""SIGKILL in the middle of a job: the job finishes, nothing is lost, nothing is trained twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from luthier.api_types import Trial
from luthier.client import Client
from luthier.trial import JobState, TrialState
from tests import data_samples
from tests.live import TINY, Live, eventually

TRIALS = 5


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    service = Live(tmp_path / "home")
    yield service
    service.close()


def submit(client: Client, folder: Path) -> str:
    """A job whose trials take some seconds each, so that a kill falls into the middle of one."""
    client.add_model("tiny", str(TINY))
    data = folder / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in data_samples.pairs(80)))
    pin = {"epochs": [6], "batch_size": [4], "algorithm": ["sft"], "layers": [6], "kv_heads": [4]}
    file = client.upload(data)
    return client.create_job(training_file=file.id, search={"trials": TRIALS, "confirmations": 0, "pin": pin}).id


def in_the_middle(client: Client, job_id: str) -> Trial | None:
    """A trained trial that has a checkpoint's worth of steps behind it, while an earlier one is complete."""
    trials = client.trials(job_id)
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.design.stages]
    running = [trial for trial in trials if trial.state is TrialState.LEASED and trial.design.stages]
    steps = [p.step for t in running for p in client.points(job_id, t.id) if p.name == "train_loss"]
    return running[0] if done and steps and max(steps) > 24 else None


def ended(client: Client, job_id: str) -> JobState | None:
    status = client.job(job_id).status
    return status if status.terminal else None


def check_nothing_lost_or_repeated(
    client: Client, job_id: str, before: list[Trial], hit: Trial, killed_at: datetime, attempts: int
) -> None:
    trials = client.trials(job_id)
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len({trial.design.digest() for trial in trials}) == TRIALS
    after = {trial.id: trial for trial in trials}
    for trial in before:
        if trial.state is TrialState.COMPLETE:
            assert after[trial.id] == trial, "a finished trial was touched again"
    assert after[hit.id].attempts == attempts
    assert after[hit.id].device_seconds > hit.device_seconds
    losses = sorted((p for p in client.points(job_id, hit.id) if p.name == "train_loss"), key=lambda p: p.step)
    assert [p.step for p in losses] == list(range(1, len(losses) + 1)), "the curve has every step once"
    kept = [p for p in losses if p.at < killed_at]
    assert len(kept) >= 10, "the trial went on from its checkpoint instead of from the start"
    best = client.best(job_id)
    assert best.base_metrics is not None
    assert best.metrics.perplexity < best.base_metrics.perplexity


def test_a_killed_service_started_again_finishes_its_job(live: Live, tmp_path: Path) -> None:
    client = live.start()
    job_id = submit(client, tmp_path)
    hit = eventually(lambda: in_the_middle(client, job_id))
    before = client.trials(job_id)
    live.kill()
    killed_at = datetime.now(UTC)

    client = live.start()
    assert eventually(lambda: ended(client, job_id), 240) is JobState.SUCCEEDED
    check_nothing_lost_or_repeated(client, job_id, before, hit, killed_at, attempts=2)


def test_a_killed_worker_is_replaced_and_its_trial_goes_on(live: Live, tmp_path: Path) -> None:
    client = live.start()
    job_id = submit(client, tmp_path)
    hit = eventually(lambda: in_the_middle(client, job_id))
    before = client.trials(job_id)
    for worker in live.worker_processes():
        worker.kill()
    killed_at = datetime.now(UTC)

    assert eventually(lambda: ended(client, job_id), 240) is JobState.SUCCEEDED
    check_nothing_lost_or_repeated(client, job_id, before, hit, killed_at, attempts=2)


def test_ctrl_c_gives_running_trials_back_and_a_restart_goes_on(live: Live, tmp_path: Path) -> None:
    client = live.start()
    job_id = submit(client, tmp_path)
    hit = eventually(lambda: in_the_middle(client, job_id))
    before = client.trials(job_id)
    assert live.stop() == 0
    stopped_at = datetime.now(UTC)

    client = live.start()
    assert eventually(lambda: ended(client, job_id), 240) is JobState.SUCCEEDED
    check_nothing_lost_or_repeated(client, job_id, before, hit, stopped_at, attempts=1)  # handed back, not lost
