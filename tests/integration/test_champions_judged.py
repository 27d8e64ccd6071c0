"""A champion is judged by the weights that were exported, and scores on the same rows as it did when it was trained."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from luthier.algorithms import Sft
from luthier.errors import BlobMissing
from luthier.updates import Lora, Prefix
from luthier.worker_protocol import Artifact, Finished, Judged, Keep
from tests.integration.test_pausing import Plan, Service, service, stage
from workers.cache import Base
from workers.export import load

PLANS = {
    "a whole model": Plan(stages=(stage(Sft(), Lora(rank=2)),), rows=18),
    "an adapter that cannot be merged": Plan(stages=(stage(Sft(), Prefix(tokens=4)),), rows=18),
}


def champion(trained: Service, weights: Artifact, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """Return the report of a worker of the next job that scores those weights and keeps none."""
    trained.assignment = trained.assignment.model_copy(update={"weights": weights, "number": -1, "seed": -1})
    asked: list[Judged] = []

    def judged(trial_id: str, report: Judged) -> Keep:
        asked.append(report)
        return Keep(keep=False, test=True)

    monkeypatch.setattr(trained, "judged", judged)
    finished = trained.work()
    assert [report.metrics for report in asked] == [finished.metrics]
    return finished


@pytest.mark.parametrize("name", PLANS)
def test_it_scores_as_it_did_when_it_was_trained(
    name: str, tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = service(PLANS[name], tmp_path / "blobs", tiny, goal=None)
    trained = ctx.work()
    assert trained.outcome == "complete", trained.error
    before = {key: value.clone() for key, value in tiny.model.state_dict().items()}
    scored = champion(ctx, trained.artifacts[0], monkeypatch)
    assert scored.outcome == "complete", scored.error
    assert (scored.artifacts, scored.trained_tokens) == ((), 0)
    assert trained.test_scores is not None
    assert scored.test_scores is not None
    assert scored.test_scores.nll == pytest.approx(trained.test_scores.nll, rel=5e-3)
    assert (scored.test_scores.tokens, scored.test_scores.bytes) == (
        trained.test_scores.tokens,
        trained.test_scores.bytes,
    )
    assert scored.metrics is not None
    assert trained.metrics is not None
    assert scored.metrics.bits_per_byte == pytest.approx(trained.metrics.bits_per_byte, rel=5e-3)
    after = tiny.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before), "the base in memory stays as it was"


def test_deleted_weights_fail_the_champion_and_not_the_worker(
    tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = service(PLANS["a whole model"], tmp_path / "blobs", tiny, goal=None)

    def get_blob(digest: str) -> Path:
        if digest == "0" * 64:
            raise BlobMissing("there is no blob 000")
        return Service.get_blob(ctx, digest)

    monkeypatch.setattr(ctx, "get_blob", get_blob)
    weights = Artifact(kind="merged", files={"model.safetensors": "0" * 64}, bytes=1)
    ctx.assignment = ctx.assignment.model_copy(update={"weights": weights})
    finished = ctx.work()
    assert finished.outcome == "failed"
    assert finished.error is not None
    assert "there is no blob 000" in finished.error


def test_an_encoder_comes_back_as_one(encoder: Base, tmp_path: Path) -> None:
    ctx = service(PLANS["a whole model"], tmp_path / "blobs", encoder, goal=None)
    files = {}
    for file in Path(encoder.entry.source).iterdir():
        if file.is_file():
            files[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
            shutil.copy(file, ctx.cache / files[file.name])
    files["reproduce/reproduce.py"] = "not fetched, as it is not the model's"
    (tmp_path / "scratch").mkdir()
    artifact = Artifact(kind="merged", files=files, bytes=1)
    model = load.load(ctx, encoder.entry, artifact, tmp_path / "scratch")
    same, loaded = encoder.model.state_dict(), model.state_dict()
    assert type(model) is type(encoder.model)
    assert all(torch.equal(same[key], loaded[key]) for key in same)
