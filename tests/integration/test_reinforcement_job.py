"""A whole job that maximises a reward: from prompts and a grader to a model that earns more of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.trial import JobState
from tests import data_samples
from tests.live import TINY, Live, eventually

pytestmark = pytest.mark.xdist_group("cli")


def test_the_winner_of_a_reinforcement_job_earns_more_than_the_base(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    rows = [{"prompt": row["prompt"], "wanted": "I"} for row in data_samples.pairs(60)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    service = Live(tmp_path / "home")
    client = service.start()
    try:
        client.add_model("tiny", str(TINY))
        grader = {"type": "string_check", "operation": "like", "reference": "{{item.wanted}}"}
        job = client.create_job(
            client.upload(file).id,
            method={
                "type": "reinforcement",
                "reinforcement": {
                    "grader": grader,
                    "hyperparameters": {"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 15},
                },
            },
            search={"trials": 5, "pin": {"update": ["full"], "layers": [6], "kv_heads": [4]}},
        )
        eventually(lambda: client.job(job.id).status in (JobState.SUCCEEDED, JobState.FAILED), 400)
        trials, best = client.trials(job.id), client.best(job.id)
        assert [trial.state for trial in trials] == ["complete"] * 5, [trial.error for trial in trials]
        programs = {trial.design.program for trial in trials[2:]}
        print([(t.design.summary(), t.metrics and t.metrics.reward) for t in trials])
        assert programs <= {"grpo", "rloo", "raft"}
        assert best.base_metrics is not None
        assert best.metrics.reward > best.base_metrics.reward + 0.2
    finally:
        service.close()
