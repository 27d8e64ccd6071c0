"""One leased trial from start to end: build, train, judge, and export what is worth keeping."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import PreTrainedModel

from luthier.errors import BlobMissing, Infeasible
from luthier.metrics import phrases
from luthier.trial import Metrics, RowScores, Sample
from luthier.worker_protocol import Artifact, Assignment, Finished, Judged
from workers import cache
from workers.evaluate.judge import general_bits_per_byte, judge_rows, renderer
from workers.evaluate.samples import spoken_samples
from workers.export import load
from workers.export.artifacts import Exported, export
from workers.lease import Lease
from workers.service_client import ServiceClient
from workers.train import checkpoint as checkpoints
from workers.train.architectures import build
from workers.train.checkpoint import Checkpoint
from workers.train.forward import CausalModel
from workers.train.loop import Trained, train
from workers.train.reward_model import Scorer
from workers.train.rollouts.play import World, world_of
from workers.trial_watch import RESUME, Brought, TrialWatch, position_text


def run(service: ServiceClient, lease: Lease, device: torch.device, checkpoint_seconds: float) -> Finished:
    """Do the work of a lease. Raises LeaseLost, Stopped, Interrupted (Paused at a rung), Infeasible or TrialFailed."""
    assignment = lease.assignment
    lease.meter.begin(device)
    lease.say(f"Lease {assignment.fence} on {device}: {assignment.design.summary()}")
    if assignment.weights is not None:
        return _judge_again(service, lease, assignment.weights, device)
    model = _build(service, assignment)
    torch.nn.Module.to(model, device)
    with tempfile.TemporaryDirectory(prefix="luthier-trial-") as scratch:
        judged: CausalModel = model
        adapter, scorer, tokens, brought = None, None, 0, Brought()
        if assignment.design.stages:
            resume = _fetch_checkpoint(service, assignment, Path(scratch))
            if resume is not None:
                lease.say(f"Goes on from its checkpoint: {position_text(resume.position.stage, resume.position.step)}")
            watch = TrialWatch(service, lease, checkpoint_seconds, Path(scratch))
            trained = train(
                model,
                assignment.design,
                watch.examples,
                seed=assignment.seed,
                watch=watch,
                world=_world(assignment),
                resume=resume,
            )
            brought, scorer, tokens = watch.brought, trained.scorer, trained.tokens
            whole_head = assignment.base.facts.head == "own"
            judged, adapter = _result(trained, Path(scratch) / "adapter", whole_head=whole_head)
        return _conclude(service, lease, judged, adapter, scorer, tokens, brought, Path(scratch))


def _judge_again(service: ServiceClient, lease: Lease, weights: Artifact, device: torch.device) -> Finished:
    """Judge what an earlier job has exported, as it is, on the rows of this one."""
    with tempfile.TemporaryDirectory(prefix="luthier-champion-") as scratch:
        model = load.load(service, lease.assignment.base, weights, Path(scratch))
        torch.nn.Module.to(model, device)
        return _conclude(service, lease, model, None, None, 0, Brought(), Path(scratch))


def _build(service: ServiceClient, assignment: Assignment) -> PreTrainedModel:
    """The edited model, made in host memory: what layers are kept must not depend on the device that trains them."""
    architecture = assignment.design.architecture
    calibration: tuple[tuple[int, ...], ...] = ()
    if architecture.depth_rule == "block_influence":
        calibration = cache.calibration(assignment.base, assignment.judge, service.get_blob(assignment.train))
    return build(cache.base(assignment.base).model, architecture, calibration)


def _world(assignment: Assignment) -> World | None:
    tokenizer = cache.tokenizer(assignment.base, assignment.judge)
    return world_of(assignment.judge, renderer(tokenizer, assignment.judge))


def _result(trained: Trained, folder: Path, *, whole_head: bool) -> tuple[CausalModel, Path | None]:
    """The model that is judged and exported, and its adapter where there is one that fits the registered base: an
    edited base is another, and to one without a head of its own PEFT's users would add a random one.

    Raises Infeasible where there would be nothing to export.
    """
    has_adapter = trained.whole_base and whole_head and trained.applied.save_adapter(folder)
    if not (has_adapter or trained.applied.mergeable):
        raise Infeasible("this update cannot be merged, and its adapter would not fit the base model as registered")
    return trained.judged(), folder if has_adapter else None


def _conclude(
    service: ServiceClient,
    lease: Lease,
    model: CausalModel,
    adapter: Path | None,
    scorer: Scorer | None,
    tokens: int,
    brought: Brought,
    scratch: Path,
) -> Finished:
    """Judge the trained model; score it on the test split and export it where the service wants to keep it."""
    assignment = lease.assignment
    validation = cache.rows(service.get_blob(assignment.judge.validation))
    lease.trained()
    lease.check()
    metrics, _ = _score(service, lease, model, assignment.judge.validation)
    lease.say(f"Judged on {metrics.rows} validation rows: {phrases('log', metrics)}")
    lease.check()
    worth = service.judged(
        assignment.trial_id, Judged(**lease.claim, metrics=metrics, device_seconds=lease.device_seconds)
    )
    test_metrics: Metrics | None = None
    test_scores: RowScores | None = None
    artifacts: list[Artifact] = []
    samples: tuple[Sample, ...] = ()
    if worth.keep:
        samples = spoken_samples(
            model, cache.tokenizer(assignment.base, assignment.judge), assignment.judge, validation
        )
    if worth.test:
        test_metrics, test_scores = _score(service, lease, model, assignment.judge.test)
        general = general_bits_per_byte(model, cache.tokenizer(assignment.base, assignment.judge), assignment.judge)
        test_scores = test_scores.model_copy(update={"general_bits_per_byte": general})
        lease.say(f"Judged on {test_metrics.rows} test rows: {phrases('log', test_metrics)}")
    if worth.keep and test_metrics is not None and assignment.design.stages:
        exported = export(
            scratch / "export",
            model=model,
            tokenizer=cache.tokenizer(assignment.base, assignment.judge),
            adapter=adapter,
            scorer=scorer,
            assignment=assignment,
            metrics=metrics,
            test_metrics=test_metrics,
            train_rows=cache.rows(service.get_blob(assignment.train)),
            validation_rows=validation,
            brought=brought,
        )
        artifacts = [_upload(service, lease, artifact) for artifact in exported]
        lease.say(f"Exported: {', '.join(f'{one.kind} ({one.bytes / 1e6:.1f} MB)' for one in artifacts)}")
    return Finished(
        **lease.claim,
        outcome="complete",
        device_seconds=lease.device_seconds,
        metrics=metrics,
        test_metrics=test_metrics,
        test_scores=test_scores,
        usage=lease.meter.usage(),
        artifacts=tuple(artifacts),
        trained_tokens=tokens,
        points=lease.drain(),
        lines=lease.drain_lines(),
        samples=samples,
    )


def _score(service: ServiceClient, lease: Lease, model: CausalModel, split: str) -> tuple[Metrics, RowScores]:
    assignment = lease.assignment
    tokenizer = cache.tokenizer(assignment.base, assignment.judge)
    rows = cache.rows(service.get_blob(split))
    with lease.meter.judging(min(len(rows), assignment.judge.max_rows)):
        return judge_rows(model, tokenizer, assignment.judge, rows)


def _upload(service: ServiceClient, lease: Lease, exported: Exported) -> Artifact:
    files: dict[str, str] = {}
    size = 0
    for file in sorted(path for path in exported.folder.rglob("*") if path.is_file()):
        lease.check()
        files[file.relative_to(exported.folder).as_posix()] = service.put_blob(file)
        size += file.stat().st_size
    return Artifact(kind=exported.kind, files=files, bytes=size)


def _fetch_checkpoint(service: ServiceClient, assignment: Assignment, scratch: Path) -> Checkpoint | None:
    """The checkpoint to resume from. One that is gone means starting again, which is only slower."""
    if assignment.checkpoint is None:
        return None
    folder = scratch / RESUME
    folder.mkdir()
    try:
        manifest = json.loads(service.get_blob(assignment.checkpoint).read_text())
        for name, digest in manifest.items():
            service.fetch(digest, folder / name)
    except BlobMissing:
        shutil.rmtree(folder)
        return None
    return checkpoints.load(folder)
