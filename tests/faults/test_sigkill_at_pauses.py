"""SIGKILL to workers just when trials pause and go on: each trial's curve is that of one that never paused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from luthier.api_types import Trial
from luthier.client import Client
from luthier.trial import JobState, TrialState
from tests import data_samples
from tests.live import TINY, Live, eventually

TRIALS = 8


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    service = Live(tmp_path / "home")
    yield service
    service.close()


def submit(client: Client, file: str, **search: Any) -> str:
    pin = {
        "schedule": ["cosine"],
        "epochs": [4],
        "batch_size": [4],
        "algorithm": ["sft"],
        "layers": [6],
        "kv_heads": [4],
    }
    search = {"trials": TRIALS, "confirmations": 0, "memory": False, "pin": pin, **search}
    return client.create_job(training_file=file, search=search, seed=11).id


def ended(client: Client, job_id: str) -> JobState | None:
    status = client.job(job_id).status
    return status if status.terminal else None


def curve(client: Client, job_id: str, trial: Trial) -> dict[tuple[int, int, str], float]:
    return {(point.stage, point.step, point.name): point.value for point in client.points(job_id, trial.id)}


def kill_workers(live: Live) -> None:
    for worker in live.worker_processes():
        worker.kill()


@pytest.mark.slow
def test_trials_that_pause_and_lose_their_workers_are_those_that_never_did(live: Live, tmp_path: Path) -> None:
    client = live.start()
    client.add_model("tiny", str(TINY))
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in data_samples.pairs(80)))
    file = client.upload(data).id
    pausing = submit(client, file, finalists=1)

    def paused() -> list[Trial]:
        return [trial for trial in client.trials(pausing) if trial.paused]

    def going_on() -> list[Trial]:
        """Those that paused and are trained again."""
        running = [trial for trial in client.trials(pausing) if trial.state is TrialState.LEASED and trial.rung == 0]
        return [trial for trial in running if trial.attempts == 1 and trial.goal != 0]

    first = eventually(paused)
    kill_workers(live)  # it holds the next trial by now, or is about to ask for one
    promoted = eventually(going_on, 240)
    kill_workers(live)
    assert eventually(lambda: ended(client, pausing), 400) is JobState.SUCCEEDED

    trials = client.trials(pausing)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert len(first[0].measured) == 1
    again = next(trial for trial in trials if trial.id == promoted[0].id)
    assert again.measured[0] == promoted[0].measured[0], "a rung reached again is found as it was"

    whole = submit(client, file, finalists=TRIALS - 2)  # where all are finalists none pauses
    assert eventually(lambda: ended(client, whole), 400) is JobState.SUCCEEDED
    unbroken = {trial.design.digest(): trial for trial in client.trials(whole)}
    assert not any("pauses" in event.message for event in client.events(whole))
    compared: list[TrialState] = []
    for trial in trials:
        other = unbroken.get(trial.design.digest())
        if other is None:
            continue  # proposed from what was known by then
        mine, theirs = curve(client, pausing, trial), curve(client, whole, other)
        if trial.state is TrialState.COMPLETE:
            assert mine == theirs
            assert (trial.metrics, trial.trained_tokens) == (other.metrics, other.trained_tokens)
        else:
            assert mine.items() < theirs.items(), "the beginning of the same curve"
        compared.append(trial.state)
    assert compared.count(TrialState.COMPLETE) >= 3, "the baselines, and one at least that paused"
    assert TrialState.PRUNED in compared
