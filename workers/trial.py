"""One leased trial from start to end: build, train, judge, and export what is worth keeping."""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from luthier.design import Stage
from luthier.errors import BlobMissing, Infeasible, Interrupted, Paused
from luthier.task import DataKind, JudgeSpec, rung_rows
from luthier.trial import RUNG_GENERATIONS, RUNG_ROWS, RUNG_WINDOWS, RUNGS, Metrics, RowScores, Sample, rung_name
from luthier.worker_protocol import Artifact, Assignment, CheckpointSaved, Finished, Judged, RungReached
from workers import cache
from workers.evaluate.judge import general_bits_per_byte, judge, judge_rows, renderer
from workers.evaluate.samples import spoken_samples
from workers.export import load
from workers.export.artifacts import Exported, export
from workers.lease import HeldLease
from workers.service_client import Link
from workers.train import checkpoint as checkpoints
from workers.train.algorithms import Example
from workers.train.architectures import build
from workers.train.checkpoint import Checkpoint
from workers.train.data.tokenize import Row
from workers.train.forward import CausalModel
from workers.train.loop import Progress, Trained, train
from workers.train.reward_model import Scorer, pair_accuracy
from workers.train.rollouts.play import World, world_of

log = logging.getLogger(__name__)

Brought = list[
    dict[str, float]
]  # of each stage but the last, in order: how the model did on held-out rows when it ended

NEARLY = 1e-9  # shares of stages are sums of fractions: a rung at the very end of one is crossed there, and once

RESUME, BROUGHT = "resume", "brought.json"  # the folder of a checkpoint to resume from, and a file of a checkpoint


def run(link: Link, held: HeldLease, device: torch.device, checkpoint_seconds: float) -> Finished:
    """Do the work of a lease. Raises LeaseLost, Stopped, Interrupted (Paused at a rung), Infeasible or TrialFailed."""
    assignment = held.assignment
    held.meter.begin(device)
    held.say(f"Lease {assignment.fence} on {device}: {assignment.design.summary()}")
    if assignment.weights is not None:
        return _judge_again(link, held, assignment.weights, device)
    model = _build(link, assignment)
    torch.nn.Module.to(model, device)
    with tempfile.TemporaryDirectory(prefix="luthier-trial-") as scratch:
        judged: CausalModel = model
        adapter, scorer, tokens, brought = None, None, 0, Brought()
        if assignment.design.stages:
            resume = _fetch_checkpoint(link, assignment, Path(scratch))
            if resume is not None:
                held.say(f"Goes on from its checkpoint: {_place(resume.position.stage, resume.position.step)}")
            watch = TrialWatch(link, held, checkpoint_seconds, Path(scratch))
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
        return _conclude(link, held, judged, adapter, scorer, tokens, brought, Path(scratch))


def _judge_again(link: Link, held: HeldLease, weights: Artifact, device: torch.device) -> Finished:
    """Judge what an earlier job has exported, as it is, on the rows of this one."""
    with tempfile.TemporaryDirectory(prefix="luthier-champion-") as scratch:
        model = load.load(link, held.assignment.base, weights, Path(scratch))
        torch.nn.Module.to(model, device)
        return _conclude(link, held, model, None, None, 0, Brought(), Path(scratch))


def _build(link: Link, assignment: Assignment) -> PreTrainedModel:
    """The edited model, made in host memory: what layers are kept must not depend on the device that trains them."""
    architecture = assignment.design.architecture
    calibration: tuple[tuple[int, ...], ...] = ()
    if architecture.depth_rule == "block_influence":
        calibration = cache.calibration(assignment.base, assignment.judge, link.get_blob(assignment.train))
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
    link: Link,
    held: HeldLease,
    model: CausalModel,
    adapter: Path | None,
    scorer: Scorer | None,
    tokens: int,
    brought: Brought,
    scratch: Path,
) -> Finished:
    """Judge the trained model; score it on the test split and export it where the service wants to keep it."""
    assignment = held.assignment
    validation = cache.rows(link.get_blob(assignment.judge.validation))
    held.trained()
    held.check()
    metrics, _ = _score(link, held, model, assignment.judge.validation)
    held.say(f"Judged on {metrics.rows} validation rows: {_scores(metrics)}")
    held.check()
    worth = link.judged(assignment.trial_id, Judged(**held.claim, metrics=metrics, device_seconds=held.device_seconds))
    test_metrics: Metrics | None = None
    test_scores: RowScores | None = None
    artifacts: list[Artifact] = []
    samples: tuple[Sample, ...] = ()
    if worth.keep:
        samples = spoken_samples(
            model, cache.tokenizer(assignment.base, assignment.judge), assignment.judge, validation
        )
    if worth.test:
        test_metrics, test_scores = _score(link, held, model, assignment.judge.test)
        general = general_bits_per_byte(model, cache.tokenizer(assignment.base, assignment.judge), assignment.judge)
        test_scores = test_scores.model_copy(update={"general_bits_per_byte": general})
        held.say(f"Judged on {test_metrics.rows} test rows: {_scores(test_metrics)}")
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
            train_rows=cache.rows(link.get_blob(assignment.train)),
            validation_rows=validation,
            brought=brought,
        )
        artifacts = [_upload(link, held, artifact) for artifact in exported]
        held.say(f"Exported: {', '.join(f'{one.kind} ({one.bytes / 1e6:.1f} MB)' for one in artifacts)}")
    return Finished(
        **held.claim,
        outcome="complete",
        device_seconds=held.device_seconds,
        metrics=metrics,
        test_metrics=test_metrics,
        test_scores=test_scores,
        usage=held.meter.usage(),
        artifacts=tuple(artifacts),
        trained_tokens=tokens,
        points=held.drain(),
        lines=held.drain_lines(),
        samples=samples,
    )


def _score(link: Link, held: HeldLease, model: CausalModel, split: str) -> tuple[Metrics, RowScores]:
    assignment = held.assignment
    tokenizer = cache.tokenizer(assignment.base, assignment.judge)
    rows = cache.rows(link.get_blob(split))
    with held.meter.judging(min(len(rows), assignment.judge.max_rows)):
        return judge_rows(model, tokenizer, assignment.judge, rows)


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
    folder = scratch / RESUME
    folder.mkdir()
    try:
        manifest = json.loads(link.get_blob(assignment.checkpoint).read_text())
        for name, digest in manifest.items():
            link.fetch(digest, folder / name)
    except BlobMissing:
        shutil.rmtree(folder)
        return None
    return checkpoints.load(folder)


def few(rows: Sequence[Row], spec: JudgeSpec) -> Sequence[Row]:
    """The rows that a trial is scored on at rungs: the first ones; of verdicts as many of each label as there are."""
    judged = rows[: spec.max_rows]
    if spec.kind is DataKind.UNPAIRED:
        by_label = ([row for row in judged if row["label"]], [row for row in judged if not row["label"]])
        most = max(RUNG_ROWS // 2, RUNG_ROWS - min(map(len, by_label)))
        judged = [row for those in by_label for row in those[:most]]
    return judged[: rung_rows(spec.kind)]


class TrialWatch:
    """Sends curves, saves a checkpoint when it is due, has the judge score rungs, and breaks off when the lease says so
    or the trial pauses."""

    def __init__(self, link: Link, held: HeldLease, checkpoint_seconds: float, scratch: Path) -> None:
        self.link = link
        self.held = held
        self.checkpoint_seconds = checkpoint_seconds
        self.folder = scratch / "checkpoint"
        self.folder.mkdir()
        self._saved_at = time.monotonic()
        before = scratch / RESUME / BROUGHT
        self.brought = Brought(json.loads(before.read_text())) if before.is_file() else Brought()

    def examples(self, stage: Stage) -> Sequence[Example]:
        assignment = self.held.assignment
        train_rows = self.link.get_blob(assignment.train)
        found = cache.examples(assignment.base, assignment.judge, train_rows, stage.algorithm)
        self.held.meter.stepping()  # what comes before a stage's first step is of that step
        return found

    def after_step(self, progress: Progress) -> None:
        self.held.meter.stepped(progress.report.tokens)
        self._look(progress)
        self.held.meter.stepping()

    def _look(self, progress: Progress) -> None:
        position = progress.position
        self.held.tokens = position.tokens
        self.held.record(position.stage, position.step, progress.report.values)
        crossed = self._crossed(progress)
        metrics = self._judge(progress) if crossed or (progress.next_stage and progress.scorer is None) else None
        found = {} if metrics is None else self._points(metrics)
        if progress.scorer is not None and progress.next_stage:
            found = self._reward_accuracy(progress.scorer)
        if progress.next_stage:
            self.brought.append(found)
        self.held.record(position.stage, position.step, found)
        self._tell(progress, found)
        goes_on = [self._ask(rung, progress, metrics) for rung in crossed if metrics is not None]
        try:
            self.held.check()
            if goes_on and not goes_on[-1]:
                raise Paused("it pauses at a rung")
        except Interrupted:
            self._save(progress)
            raise
        if progress.share < 1.0 and time.monotonic() - self._saved_at >= self.checkpoint_seconds:
            self._save(progress)

    def _tell(self, progress: Progress, found: dict[str, float]) -> None:
        """The log has where stages begin and end; what is in between is on the curves."""
        stage, step = progress.position.stage, progress.position.step
        if step == 1:
            design = self.held.assignment.design.stages[stage]
            self.held.say(f"Stage {stage + 1} made its first step: {design.algorithm.kind} by {design.update.kind}")
        if progress.next_stage:
            scores = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
            self.held.say(f"Stage {stage + 1} is done after {step} steps: {scores}")
        elif progress.share > 1.0 - NEARLY:
            self.held.say(f"Trained to the end: {step} steps, {progress.position.tokens} tokens")

    def _crossed(self, progress: Progress) -> list[int]:
        """The rungs that the last step has led to. One that leads to the end leads to none: the trial is judged now."""
        if progress.share > 1.0 - NEARLY:
            return []
        return [rung for rung, share in enumerate(RUNGS) if progress.before < share - NEARLY <= progress.share]

    def _ask(self, rung: int, progress: Progress, metrics: Metrics) -> bool:
        """Whether the trial goes on from the rung. Of two rungs at one step the answer to the second holds for both."""
        position = progress.position
        reached = RungReached(
            **self.held.claim,
            rung=rung,
            share=RUNGS[rung],
            stage=position.stage,
            step=position.step,
            metrics=metrics,
        )
        goes_on = self.link.rung(self.held.assignment.trial_id, reached).action == "continue"
        verdict = "goes on" if goes_on else "pauses"
        self.held.say(f"At {rung_name(rung)} of the training: {_scores(metrics)}; it {verdict}")
        return goes_on

    def _judge(self, progress: Progress) -> Metrics:
        """How a model in training does, by the judge's own measure of a few rows, whatever trains it."""
        base, spec = self.held.assignment.base, self.held.assignment.judge
        fewer = {
            "max_rows": rung_rows(spec.kind),
            "max_generations": min(spec.max_generations, RUNG_GENERATIONS),
            "pseudo_windows": min(spec.pseudo_windows, RUNG_WINDOWS),
        }
        rows = few(cache.rows(self.link.get_blob(spec.validation)), spec)
        with self.held.meter.judging(len(rows)):
            return judge(progress.model, cache.tokenizer(base, spec), spec.model_copy(update=fewer), rows)

    def _points(self, metrics: Metrics) -> dict[str, float]:
        found = {"valid_loss": math.log(metrics.likelihood[1])}
        if metrics.reward is not None:
            preference = self.held.assignment.judge.kind is DataKind.PREFERENCE
            found["valid_accuracy" if preference else "valid_reward"] = metrics.reward
        return found

    def _reward_accuracy(self, scorer: Scorer) -> dict[str, float]:
        """Of a reward model. It is quick, and of a few rows it says little: all that the judge scores."""
        base, spec = self.held.assignment.base, self.held.assignment.judge
        rows = cache.rows(self.link.get_blob(spec.validation))
        render = renderer(cache.tokenizer(base, spec), spec)
        return {"valid_reward_accuracy": pair_accuracy(scorer, render, rows[: spec.max_rows])}

    def _save(self, progress: Progress) -> None:
        brought = self.folder / BROUGHT
        brought.write_text(json.dumps(self.brought))
        files = [*checkpoints.save(progress.checkpoint(), self.folder), brought]
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
        else:
            self.held.say(f"Checkpoint kept: {_place(saved.stage, saved.step)}")
        self._saved_at = time.monotonic()


def _place(stage: int, step: int) -> str:
    return f"stage {stage + 1}, step {step}"


def _scores(metrics: Metrics) -> str:
    name, value = metrics.likelihood
    reward = "" if metrics.reward is None else f", {metrics.reward_name or 'reward'} {metrics.reward:.4g}"
    return f"{metrics.bits_per_byte:.4g} bits per byte, {name} {value:.4g}{reward}"
