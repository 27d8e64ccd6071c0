"""The scores after each stage of a trial: measured at its end, kept over an interruption, and shown."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

import workers.trial_watch
from luthier.algorithms import Dpo, Sft
from luthier.api_types import StageScore, Trial
from luthier.cli.show import trials_table
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.errors import Interrupted
from luthier.task import DataKind, JudgeSpec
from luthier.trial import RUNG_ROWS, TrialState
from luthier.updates import Full, Lora
from luthier.worker_protocol import Assignment, CheckpointSaved, Directive, Heartbeat, RungReached, RungVerdict
from tests import data_samples
from workers.cache import Base
from workers.evaluate.judge import judge
from workers.lease import Lease
from workers.service_client import ServiceClient
from workers.train import checkpoint as checkpoints
from workers.train.architectures import build
from workers.train.loop import Progress, Trained, train
from workers.trial_watch import RESUME, STAGE_SCORES, TrialWatch

ROWS = data_samples.preference(40)
SPEC = JudgeSpec(kind=DataKind.PREFERENCE, validation="held-out", test="t", objective="reward", max_rows=RUNG_ROWS)
RECIPE = Optimiser(learning_rate=1e-3, batch_size=8)
SFT = Stage(algorithm=Sft(), update=Lora(rank=4), optimiser=RECIPE)
DPO = Stage(algorithm=Dpo(), update=Full(), optimiser=RECIPE)


class Service(ServiceClient):
    """A service that accepts everything and has two blobs."""

    def __init__(self, folder: Path) -> None:
        super().__init__("http://localhost", folder)
        for name, rows in (("train", ROWS[:24]), ("held-out", ROWS[24:])):
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def get_blob(self, digest: str) -> Path:
        return self.cache / digest

    def put_blob(self, file: Path) -> str:
        (self.cache / file.name).write_bytes(file.read_bytes())
        return file.name

    def rung(self, trial_id: str, reached: RungReached) -> RungVerdict:
        return RungVerdict(action="continue")

    def checkpoint(self, trial_id: str, saved: CheckpointSaved) -> None:
        pass

    def heartbeat(self, trial_id: str, heartbeat: Heartbeat) -> Directive:
        return Directive.model_validate({"action": "continue", "reason": None, "expires_at": "2030-01-01T00:00:00Z"})


class Run:
    """A trial under a watch, without the service."""

    def __init__(self, tiny: Base, folder: Path, *stages: Stage) -> None:
        self.design = Design(architecture=Architecture(base=tiny.entry.name), stages=stages)
        assignment = Assignment(
            trial_id="trial-abc",
            job_id="ftjob-abc",
            number=2,
            owner="worker",
            fence=1,
            seed=3,
            design=self.design,
            base=tiny.entry,
            train="train",
            judge=SPEC,
            checkpoint=None,
            device_seconds=0,
        )
        (folder / "blobs").mkdir(exist_ok=True)
        self.tiny, self.lease = tiny, Lease(Service(folder / "blobs"), assignment, 60)
        self.watch = TrialWatch(self.lease.service, self.lease, 1e9, folder)

    def train(self, resume: checkpoints.Checkpoint | None = None) -> Trained:
        model = build(self.tiny.model, self.design.architecture, ())
        return train(model, self.design, self.watch.examples, seed=3, watch=self.watch, resume=resume)

    def points(self, name: str) -> dict[tuple[int, int], float]:
        return {(p.stage, p.step): p.value for p in self.lease.drain() if p.name == name}


def scratch(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def test_the_end_of_a_stage_is_on_the_curves_as_the_model_stands_there(tiny: Base, tmp_path: Path) -> None:
    alone = Run(tiny, scratch(tmp_path, "alone"), SFT)
    after_sft = judge(alone.train().applied.merge(), tiny.tokenizer, SPEC, ROWS[24:])
    assert alone.watch.stage_scores == []

    both = Run(tiny, scratch(tmp_path, "both"), SFT, DPO)
    both.train()
    [scores] = both.watch.stage_scores
    assert torch.tensor(scores["valid_loss"]).exp() == pytest.approx(after_sft.perplexity, rel=1e-4)
    assert scores["valid_accuracy"] == after_sft.reward
    assert both.points("valid_loss")[0, 3] == scores["valid_loss"]


def test_scores_of_earlier_stages_survive_an_interruption(tiny: Base, tmp_path: Path) -> None:
    first = Run(tiny, scratch(tmp_path, "first"), SFT, DPO)
    after_step, seen = first.watch.after_step, []

    def stop_in_the_second_stage(progress: object) -> None:
        seen.append(progress)
        if len(seen) == 4:
            first.lease.interrupt()
        after_step(progress)

    first.watch.after_step = stop_in_the_second_stage
    with pytest.raises(Interrupted):
        first.train()
    folder = scratch(tmp_path, "second")
    first.watch.folder.rename(folder / RESUME)
    assert json.loads((folder / RESUME / STAGE_SCORES).read_text()) == first.watch.stage_scores
    second = Run(tiny, folder, SFT, DPO)
    second.train(checkpoints.load(folder / RESUME))
    assert second.watch.stage_scores == first.watch.stage_scores
    assert len(second.watch.stage_scores) == 1


@pytest.mark.parametrize(("upload_seconds", "count"), [(0, 20), (4, 1)])
def test_checkpoints_that_take_long_are_further_apart(
    upload_seconds: int, count: int, tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps take two seconds here, and checkpoints of several files are due after one."""
    now, saved = [0.0], list[CheckpointSaved]()
    recipe = RECIPE.model_copy(update={"epochs": 7})
    run = Run(tiny, scratch(tmp_path, "run"), SFT.model_copy(update={"optimiser": recipe}))
    service = run.lease.service

    def upload(file: Path) -> str:
        now[0] += upload_seconds
        return file.name

    def step(progress: Progress) -> None:
        now[0] += 2
        after_step(progress)

    monkeypatch.setattr(workers.trial_watch, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(service, "put_blob", upload)
    monkeypatch.setattr(service, "checkpoint", lambda trial_id, made: saved.append(made))
    run.watch = TrialWatch(service, run.lease, 1.0, scratch(tmp_path, "again"))
    after_step = run.watch.after_step
    run.watch.after_step = step
    run.train()
    assert len(saved) == count, "of 20 steps before the last one"


def test_the_table_of_trials_shows_the_scores_of_each_stage() -> None:
    design = Design(architecture=Architecture(base="tiny"), stages=(SFT, DPO))
    score = StageScore(stage=0, algorithm="sft", update="lora", valid_loss=1.2345, valid_accuracy=0.75)
    empty = dict.fromkeys(("rung", "worker", "started_at", "finished_at", "metrics", "test_metrics", "error"))
    counts = dict.fromkeys(("seed", "attempts", "created_at", "device_seconds", "trained_tokens"), 0)
    trial = Trial(
        id="trial-abc",
        job_id="ftjob-abc",
        number=2,
        state=TrialState.COMPLETE,
        summary=design.summary(),
        design=design,
        origin="prior",
        stages=(score,),
        **empty,
        **counts,
    )
    printed = StringIO()
    Console(file=printed, width=160).print(trials_table([trial], None))
    assert "after stage 1, sft lora: validation loss 1.234, preference accuracy 0.75" in printed.getvalue()
