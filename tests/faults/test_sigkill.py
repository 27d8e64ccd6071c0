"""A worker is killed, the service is killed, the service is stopped, each in the middle of a trial of one job.

The job finishes, nothing is lost, nothing is trained twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
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
    pin = {"epochs": [4], "batch_size": [4], "algorithm": ["sft"], "layers": [6], "kv_heads": [4]}
    file = client.upload(data)
    return client.create_job(training_file=file.id, search={"trials": TRIALS, "confirmations": 0, "pin": pin}).id


@dataclass(frozen=True, kw_only=True)
class Hit:
    """What stood when something was killed."""

    trial: Trial
    before: list[Trial]
    at: datetime


def in_the_middle(client: Client, job_id: str, done: int) -> Trial | None:
    """A trained trial that has a checkpoint's worth of steps behind it, while so many earlier ones are complete."""
    trials = client.trials(job_id)
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.design.stages]
    running = [trial for trial in trials if trial.state is TrialState.LEASED and trial.design.stages]
    steps = [p.step for t in running for p in client.points(job_id, t.id) if p.name == "train_loss"]
    return running[0] if len(complete) >= done and steps and max(steps) > 24 else None


def ended(client: Client, job_id: str) -> JobState | None:
    status = client.job(job_id).status
    return status if status.terminal else None


def check_it_went_on(client: Client, job_id: str, hit: Hit, attempts: int) -> None:
    """The trial ended as one that was never touched would have, and those complete by then were left alone."""
    after = {trial.id: trial for trial in client.trials(job_id)}
    for trial in hit.before:
        if trial.state is TrialState.COMPLETE:
            assert after[trial.id] == trial, "a finished trial was touched again"
    assert after[hit.trial.id].attempts == attempts
    assert after[hit.trial.id].device_seconds > hit.trial.device_seconds
    losses = sorted((p for p in client.points(job_id, hit.trial.id) if p.name == "train_loss"), key=lambda p: p.step)
    assert [p.step for p in losses] == list(range(1, len(losses) + 1)), "the curve has every step once"
    kept = [p for p in losses if p.at < hit.at]
    assert len(kept) >= 10, "the trial went on from its checkpoint instead of from the start"


def test_killed_or_stopped_everything_goes_on_where_it_was(live: Live, tmp_path: Path) -> None:
    client = live.start()
    job_id = submit(client, tmp_path)

    def hit(done: int) -> Hit:
        """A trial in the middle, which the next line is to hit."""
        trial = eventually(lambda: in_the_middle(client, job_id, done))
        return Hit(trial=trial, before=client.trials(job_id), at=datetime.now(UTC))

    worker_killed = hit(done=1)
    for worker in live.worker_processes():
        worker.kill()  # another one takes its place

    service_killed = hit(done=2)
    live.kill()
    client = live.start()

    stopped = hit(done=3)
    assert live.stop() == 0  # Ctrl-C
    client = live.start()

    assert eventually(lambda: ended(client, job_id), 240) is JobState.SUCCEEDED
    trials = client.trials(job_id)
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len({trial.design.digest() for trial in trials}) == TRIALS
    assert len({each.trial.id for each in (worker_killed, service_killed, stopped)}) == 3
    check_it_went_on(client, job_id, worker_killed, attempts=2)
    check_it_went_on(client, job_id, service_killed, attempts=2)
    check_it_went_on(client, job_id, stopped, attempts=1)  # handed back, not lost
    best = client.best(job_id)
    assert best.base_metrics is not None
    assert best.metrics.perplexity < best.base_metrics.perplexity
