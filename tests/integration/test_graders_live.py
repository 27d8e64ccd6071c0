"""Graders that run code or ask a model, in real workers: their settings come from the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from luthier.api_types import Job
from luthier.client import Client
from luthier.dataset.rows import write_rows
from luthier.trial import TrialState
from tests import data_samples
from tests.chat_endpoint import Said, chatting
from tests.live import TINY, Live, eventually

MULTI = {
    "type": "multi",
    "graders": {
        "own": {"type": "python", "source": "def grade(sample, item):\n    return 0.5 * (item['reference'] != '')"},
        "polite": {
            "type": "score_model",
            "model": "judge",
            "input": [{"role": "user", "content": "How polite is this? {{sample.output_text}}"}],
        },
    },
    "calculate_output": "own + polite",
}


class Mood:
    """Answers as long as it is in the mood to."""

    willing = True

    def __call__(self, body: dict[str, Any]) -> Said:
        return "0.25" if self.willing else (401, {"error": {"message": "the key has run out"}})


@pytest.fixture
def mood() -> Mood:
    return Mood()


@pytest.fixture
def client(tmp_path: Path, mood: Mood, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    with chatting(mood) as chat:
        monkeypatch.setenv("LUTHIER_PYTHON_GRADERS", "1")
        monkeypatch.setenv("LUTHIER_GRADER_BASE_URL", chat.url)
        live = Live(tmp_path / "home")
        client = live.start()
        client.add_model("tiny", str(TINY))
        yield client
        live.close()


def _submit(client: Client, folder: Path) -> Job:
    data = folder / "pairs.jsonl"
    data.write_bytes(write_rows(data_samples.pairs(60)))
    file = client.upload(data)
    task = {"goal": "behaviour", "grader": MULTI}
    return client.create_job(
        file.id, task=task, search={"trials": 2, "confirmations": 0}, hyperparameters={"n_epochs": 1}
    )


def test_trials_are_graded_by_code_and_a_model_and_fail_when_it_does_not_answer(
    client: Client, mood: Mood, tmp_path: Path
) -> None:
    graded = _submit(client, tmp_path)
    trials = eventually(lambda: [t for t in client.trials(graded.id) if t.metrics is not None])
    assert trials[0].metrics is not None
    assert trials[0].metrics.reward == 0.75
    client.cancel(graded.id)

    mood.willing = False
    failing = _submit(client, tmp_path)
    failed = eventually(lambda: [t for t in client.trials(failing.id) if t.state is TrialState.FAILED])
    assert "the key has run out" in (failed[0].error or "")
    assert "graders.polite" in (failed[0].error or "")
