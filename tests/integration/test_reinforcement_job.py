"""A whole job that maximises a reward: from rows and a grader to models that earn more of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.trial import JobState
from tests import data_samples
from tests.live import TINY, Live, eventually

pytestmark = pytest.mark.xdist_group("cli")


def test_playing_for_the_reward_beats_the_base(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in data_samples.pairs(60)))
    service = Live(tmp_path / "home")
    client = service.start()
    try:
        client.add_model("tiny", str(TINY))
        pins = {"algorithm": ["grpo", "rloo", "raft"], "update": ["full"], "learning_rate_multiplier": [15]}
        pins |= {"layers": [6], "kv_heads": [4], "epochs": [2], "batch_size": [4]}
        job = client.create_job(
            client.upload(file).id,
            task={"grader": {"type": "text_similarity"}},
            search={"trials": 4, "confirmations": 0, "pin": pins},
        )
        eventually(lambda: client.job(job.id).status in (JobState.SUCCEEDED, JobState.FAILED), 400)
        trials = client.trials(job.id)
        assert [trial.state for trial in trials] == ["complete"] * 4, [trial.error for trial in trials]
        rewards = {trial.design.summary(): trial.metrics and trial.metrics.reward for trial in trials}
        print(rewards)
        base, _, *played = [trial.metrics.reward for trial in trials]
        assert {trial.design.recipe for trial in trials[2:]} <= {"grpo", "rloo", "raft"}
        assert max(played) > base + 0.05
        assert client.best(job.id).metrics.reward > base + 0.05
    finally:
        service.close()
