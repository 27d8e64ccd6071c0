"""Progress of a trial in training: curves, checkpoints, scores at rungs, and when to stop."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from luthier.design import Stage
from luthier.errors import BlobMissing, Interrupted, Paused
from luthier.metrics import curve_phrases, held_out, phrases
from luthier.task import DataKind, JudgeSpec, rung_rows
from luthier.trial import RUNG_GENERATIONS, RUNG_ROWS, RUNG_WINDOWS, RUNGS, Metrics, rung_name
from luthier.worker_protocol import CheckpointSaved, RungReached
from workers import cache
from workers.evaluate.judge import judge, renderer
from workers.lease import Lease
from workers.service_client import ServiceClient
from workers.train import checkpoint as checkpoints
from workers.train.algorithms import Example
from workers.train.data.tokenize import Row
from workers.train.loop import Progress
from workers.train.reward_model import Scorer, pair_accuracy

log = logging.getLogger(__name__)

Brought = list[
    dict[str, float]
]  # of each stage but the last, in order: how the model did on held-out rows when it ended


NEARLY = 1e-9  # shares of stages are sums of fractions: a rung at the very end of one is crossed there, and once


RESUME, BROUGHT = "resume", "brought.json"  # the folder of a checkpoint to resume from, and a file of a checkpoint


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

    def __init__(self, service: ServiceClient, lease: Lease, checkpoint_seconds: float, scratch: Path) -> None:
        self.service = service
        self.lease = lease
        self.checkpoint_seconds = checkpoint_seconds
        self.folder = scratch / "checkpoint"
        self.folder.mkdir()
        self._saved_at = time.monotonic()
        before = scratch / RESUME / BROUGHT
        self.brought = Brought(json.loads(before.read_text())) if before.is_file() else Brought()

    def examples(self, stage: Stage) -> Sequence[Example]:
        assignment = self.lease.assignment
        train_rows = self.service.get_blob(assignment.train)
        found = cache.examples(assignment.base, assignment.judge, train_rows, stage.algorithm)
        self.lease.meter.stepping()  # what comes before a stage's first step is of that step
        return found

    def after_step(self, progress: Progress) -> None:
        self.lease.meter.stepped(progress.report.tokens)
        self._look(progress)
        self.lease.meter.stepping()

    def _look(self, progress: Progress) -> None:
        position = progress.position
        self.lease.tokens = position.tokens
        self.lease.record(position.stage, position.step, progress.report.values)
        crossed = self._crossed(progress)
        metrics = self._judge(progress) if crossed or (progress.next_stage and progress.scorer is None) else None
        found = {} if metrics is None else self._points(metrics)
        if progress.scorer is not None and progress.next_stage:
            found = self._reward_accuracy(progress.scorer)
        if progress.next_stage:
            self.brought.append(found)
        self.lease.record(position.stage, position.step, found)
        self._tell(progress, found)
        goes_on = [self._ask(rung, progress, metrics) for rung in crossed if metrics is not None]
        try:
            self.lease.check()
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
            design = self.lease.assignment.design.stages[stage]
            self.lease.say(f"Stage {stage + 1} made its first step: {design.algorithm.kind} by {design.update.kind}")
        if progress.next_stage:
            self.lease.say(f"Stage {stage + 1} is done after {step} steps: {curve_phrases(found)}")
        elif progress.share > 1.0 - NEARLY:
            self.lease.say(f"Trained to the end: {step} steps, {progress.position.tokens} tokens")

    def _crossed(self, progress: Progress) -> list[int]:
        """The rungs that the last step has led to. One that leads to the end leads to none: the trial is judged now."""
        if progress.share > 1.0 - NEARLY:
            return []
        return [rung for rung, share in enumerate(RUNGS) if progress.before < share - NEARLY <= progress.share]

    def _ask(self, rung: int, progress: Progress, metrics: Metrics) -> bool:
        """Whether the trial goes on from the rung. Of two rungs at one step the answer to the second holds for both."""
        position = progress.position
        reached = RungReached(
            **self.lease.claim,
            rung=rung,
            share=RUNGS[rung],
            stage=position.stage,
            step=position.step,
            metrics=metrics,
        )
        goes_on = self.service.rung(self.lease.assignment.trial_id, reached).action == "continue"
        verdict = "goes on" if goes_on else "pauses"
        self.lease.say(f"At {rung_name(rung)} of the training: {phrases('log', metrics)}; it {verdict}")
        return goes_on

    def _judge(self, progress: Progress) -> Metrics:
        """How a model in training does, by the judge's own measure of a few rows, whatever trains it."""
        base, spec = self.lease.assignment.base, self.lease.assignment.judge
        fewer = {
            "max_rows": rung_rows(spec.kind),
            "max_generations": min(spec.max_generations, RUNG_GENERATIONS),
            "pseudo_windows": min(spec.pseudo_windows, RUNG_WINDOWS),
        }
        rows = few(cache.rows(self.service.get_blob(spec.validation)), spec)
        with self.lease.meter.judging(len(rows)):
            return judge(progress.model, cache.tokenizer(base, spec), spec.model_copy(update=fewer), rows)

    def _points(self, metrics: Metrics) -> dict[str, float]:
        return held_out(metrics, self.lease.assignment.judge.kind)

    def _reward_accuracy(self, scorer: Scorer) -> dict[str, float]:
        """Of a reward model. It is quick, and of a few rows it says little: all that the judge scores."""
        base, spec = self.lease.assignment.base, self.lease.assignment.judge
        rows = cache.rows(self.service.get_blob(spec.validation))
        render = renderer(cache.tokenizer(base, spec), spec)
        return {"valid_reward_accuracy": pair_accuracy(scorer, render, rows[: spec.max_rows])}

    def _save(self, progress: Progress) -> None:
        brought = self.folder / BROUGHT
        brought.write_text(json.dumps(self.brought))
        files = [*checkpoints.save(progress.checkpoint(), self.folder), brought]
        manifest = {file.name: self.service.put_blob(file) for file in files}
        listing = self.folder / "manifest.json"
        listing.write_text(json.dumps(manifest, sort_keys=True))
        saved = CheckpointSaved(
            **self.lease.claim,
            manifest=self.service.put_blob(listing),
            blobs=tuple(manifest.values()),
            stage=progress.position.stage,
            step=progress.position.step,
        )
        self.lease.beat()  # a trial that goes on from this checkpoint never sends the curve before it again
        try:
            self.service.checkpoint(self.lease.assignment.trial_id, saved)
        except BlobMissing as missing:  # swept away before it was referred to: the checkpoint before stays good
            log.warning("checkpoint of %s not kept: %s", self.lease.assignment.trial_id, missing)
        else:
            self.lease.say(f"Checkpoint kept: {position_text(saved.stage, saved.step)}")
        self._saved_at = time.monotonic()


def position_text(stage: int, step: int) -> str:
    return f"stage {stage + 1}, step {step}"
