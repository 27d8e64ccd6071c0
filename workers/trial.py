"""One leased trial from start to end: build, train, judge, and export what is worth keeping."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from luthier.design import Stage
from luthier.errors import BlobMissing, Infeasible, Interrupted
from luthier.trial import Metrics
from luthier.wire import Artifact, Assignment, CheckpointSaved, Finished, Judged, RungReached
from workers import warm
from workers.export import Exported, export
from workers.held import HeldLease
from workers.judge import judge, likelihood, renderer
from workers.link import Link
from workers.train import checkpoint as checkpoints
from workers.train.algorithms import Example
from workers.train.architectures import build
from workers.train.checkpoint import Checkpoint
from workers.train.loop import Progress, Trained, train
from workers.train.updates.applied import CausalModel

log = logging.getLogger(__name__)

# Shares of the whole training at which a trial is scored on a few held-out rows, to be compared with its peers.
RUNGS = (1 / 9, 1 / 3)
RUNG_ROWS = 16


def run(link: Link, held: HeldLease, device: torch.device, checkpoint_seconds: float) -> Finished:
    """Do the work of a lease. Raises LeaseLost, Stopped, Interrupted, Infeasible or TrialFailed."""
    assignment = held.assignment
    model = _build(link, assignment)
    torch.nn.Module.to(model, device)
    with tempfile.TemporaryDirectory(prefix="luthier-trial-") as scratch:
        judged: CausalModel = model
        adapter, tokens = None, 0
        if assignment.design.stages:
            watch = TrialWatch(link, held, checkpoint_seconds, Path(scratch))
            trained = train(
                model,
                assignment.design,
                watch.examples,
                seed=assignment.seed,
                watch=watch,
                resume=_fetch_checkpoint(link, assignment, Path(scratch)),
            )
            judged, adapter, tokens = *_result(trained, Path(scratch) / "adapter"), trained.tokens
        return _conclude(link, held, judged, adapter, tokens, Path(scratch))


def _build(link: Link, assignment: Assignment) -> PreTrainedModel:
    """The edited model, made in host memory: what layers are kept must not depend on the device that trains them."""
    architecture = assignment.design.architecture
    calibration: tuple[tuple[int, ...], ...] = ()
    if architecture.depth_rule == "block_influence":
        calibration = warm.calibration(assignment.base, assignment.judge, link.get_blob(assignment.train))
    return build(warm.base(assignment.base).model, architecture, calibration)


def _result(trained: Trained, folder: Path) -> tuple[CausalModel, Path | None]:
    """The model that is judged and exported, and its adapter where there is one that fits the registered base.

    Raises Infeasible where there would be nothing to export.
    """
    has_adapter = trained.whole_base and trained.applied.save_adapter(folder)
    if not (has_adapter or trained.applied.mergeable):
        raise Infeasible("this update cannot be merged, and its adapter would not fit the base model as registered")
    return trained.judged(), folder if has_adapter else None


def _conclude(
    link: Link, held: HeldLease, model: CausalModel, adapter: Path | None, tokens: int, scratch: Path
) -> Finished:
    """Judge the trained model; score it on the test split and export it where the service wants to keep it."""
    assignment = held.assignment
    base = warm.base(assignment.base)
    held.check()
    metrics = _score(link, assignment, model, assignment.judge.validation)
    held.check()
    keep = link.judged(
        assignment.trial_id, Judged(**held.claim, metrics=metrics, device_seconds=held.device_seconds)
    ).keep
    test_metrics: Metrics | None = None
    artifacts: list[Artifact] = []
    if keep:
        test_metrics = _score(link, assignment, model, assignment.judge.test)
        if assignment.design.stages:
            exported = export(
                scratch / "export",
                model=model,
                tokenizer=base.tokenizer,
                adapter=adapter,
                assignment=assignment,
                metrics=metrics,
                test_metrics=test_metrics,
                train_rows=warm.rows(link.get_blob(assignment.train)),
                validation_rows=warm.rows(link.get_blob(assignment.judge.validation)),
            )
            artifacts = [_upload(link, held, artifact) for artifact in exported]
    return Finished(
        **held.claim,
        outcome="complete",
        device_seconds=held.device_seconds,
        metrics=metrics,
        test_metrics=test_metrics,
        artifacts=tuple(artifacts),
        trained_tokens=tokens,
        points=held.drain(),
    )


def _score(link: Link, assignment: Assignment, model: CausalModel, split: str) -> Metrics:
    base = warm.base(assignment.base)
    rows = warm.rows(link.get_blob(split))
    return judge(model, base.tokenizer, assignment.judge, rows, base.entry.facts.context)


def _upload(link: Link, held: HeldLease, exported: Exported) -> Artifact:
    files: dict[str, str] = {}
    size = 0
    for file in sorted(path for path in exported.folder.rglob("*") if path.is_file()):
        held.check()
        files[file.relative_to(exported.folder).as_posix()] = link.put_blob(file)
        size += file.stat().st_size
    return Artifact(kind=exported.kind, files=files, bytes=size)


def _fetch_checkpoint(link: Link, assignment: Assignment, scratch: Path) -> Checkpoint | None:
    """The checkpoint to resume from. One that is gone means starting again, which is only slower."""
    if assignment.checkpoint is None:
        return None
    folder = scratch / "resume"
    folder.mkdir()
    try:
        manifest = json.loads(link.get_blob(assignment.checkpoint).read_text())
        for name, digest in manifest.items():
            link.get_blob(digest).rename(folder / name)
    except BlobMissing:
        return None
    return checkpoints.load(folder)


class TrialWatch:
    """Sends curves, saves a checkpoint when it is due, scores rungs, and breaks off when the lease says so."""

    def __init__(self, link: Link, held: HeldLease, checkpoint_seconds: float, scratch: Path) -> None:
        self.link = link
        self.held = held
        self.checkpoint_seconds = checkpoint_seconds
        self.folder = scratch / "checkpoint"
        self.folder.mkdir()
        self._saved_at = time.monotonic()

    def examples(self, stage: Stage) -> Sequence[Example]:
        assignment = self.held.assignment
        train_rows = self.link.get_blob(assignment.train)
        return warm.examples(assignment.base, assignment.judge, train_rows, stage.algorithm)

    def after_step(self, progress: Progress) -> None:
        position = progress.position
        self.held.record(position.stage, position.step, progress.report.values)
        for rung, share in enumerate(RUNGS):
            if progress.before < share <= progress.share:
                self._rung(rung, share, progress)
        try:
            self.held.check()
        except Interrupted:
            self._save(progress)
            raise
        if progress.share < 1.0 and time.monotonic() - self._saved_at >= self.checkpoint_seconds:
            self._save(progress)

    def _rung(self, rung: int, share: float, progress: Progress) -> None:
        assignment = self.held.assignment
        base = warm.base(assignment.base)
        held_out = warm.rows(self.link.get_blob(assignment.judge.validation))[:RUNG_ROWS]
        render = renderer(base.tokenizer, assignment.judge, base.entry.facts.context)
        nll, tokens, _ = likelihood(progress.model, render, assignment.judge.kind, held_out)
        loss = {"valid_loss": nll / tokens}
        position = progress.position
        self.held.record(position.stage, position.step, loss)
        self.link.rung(
            assignment.trial_id,
            RungReached(
                **self.held.claim, rung=rung, share=share, stage=position.stage, step=position.step, metrics=loss
            ),
        )

    def _save(self, progress: Progress) -> None:
        files = checkpoints.save(progress.checkpoint(), self.folder)
        manifest = {file.name: self.link.put_blob(file) for file in files}
        listing = self.folder / "manifest.json"
        listing.write_text(json.dumps(manifest, sort_keys=True))
        saved = CheckpointSaved(
            **self.held.claim,
            manifest=self.link.put_blob(listing),
            blobs=tuple(manifest.values()),
            stage=progress.position.stage,
            step=progress.position.step,
        )
        self.held.beat()  # a trial that goes on from this checkpoint never sends the curve before it again
        try:
            self.link.checkpoint(self.held.assignment.trial_id, saved)
        except BlobMissing as missing:  # swept away before it was referred to: the checkpoint before stays good
            log.warning("checkpoint of %s not kept: %s", self.held.assignment.trial_id, missing)
        self._saved_at = time.monotonic()
