"""Watch a trial in training: record curves, save checkpoints, score rungs, and stop when the service says so."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from luthier.design import Stage
from luthier.errors import BlobMissing, Interrupted, Paused
from luthier.metrics import curve_phrases, held_out, phrases
from luthier.task import DataKind, JudgeSpec, rung_rows
from luthier.trial import RUNG_GENERATIONS, RUNG_ROWS, RUNG_WINDOWS, RUNGS, Metrics, rung_name
from luthier.worker_protocol import CheckpointSaved, RungReached
from workers import cache
from workers.best_moment import Moments
from workers.evaluate.judge import judge, renderer
from workers.lease import Lease
from workers.service_client import ServiceClient
from workers.train import checkpoint as checkpoints
from workers.train.algorithms import Example
from workers.train.data.tokenize import Row
from workers.train.loop import Progress
from workers.train.reward_model import pair_accuracy

log = logging.getLogger(__name__)

RESUME: Final = "resume"  # folder of the checkpoint to resume from
STAGE_SCORES: Final = "brought.json"  # file in a checkpoint; the old name stays, so that old checkpoints still resume
MOMENTS: Final = "moments.json"  # file in a checkpoint
ROUNDING: Final = 1e-9  # stage shares are sums of fractions; without it a rung at a stage's end could be crossed twice

StageScores = dict[str, float]  # curve values on held-out rows at the end of a stage, by name


def rung_subset(rows: Sequence[Row], spec: JudgeSpec) -> Sequence[Row]:
    """Return the rows to score at a rung: the first ones.

    Unpaired preference data gets as many rows of each label as there are, up to half each.
    """
    judged = rows[: spec.max_rows]
    if spec.kind is DataKind.UNPAIRED:
        by_label = ([row for row in judged if row["label"]], [row for row in judged if not row["label"]])
        most = max(RUNG_ROWS // 2, RUNG_ROWS - min(map(len, by_label)))
        judged = [row for group in by_label for row in group[:most]]
    return judged[: rung_rows(spec.kind)]


class TrialWatch:
    """The training loop's observer for one lease.

    `stage_scores` holds the scores after each finished stage but the last, also those of earlier leases.
    """

    def __init__(self, service: ServiceClient, lease: Lease, checkpoint_seconds: float, scratch: Path) -> None:
        self.service = service
        self.lease = lease
        self.checkpoint_seconds = checkpoint_seconds
        self.folder = scratch / "checkpoint"
        self.folder.mkdir()
        self._saved_at = time.monotonic()
        saved = scratch / RESUME / STAGE_SCORES
        self.stage_scores: list[StageScores] = json.loads(saved.read_text()) if saved.is_file() else []
        known = scratch / RESUME / MOMENTS
        self.moments = Moments.model_validate_json(known.read_text()) if known.is_file() else Moments()

    def examples(self, stage: Stage) -> Sequence[Example]:
        """Return the training rows, tokenised for the stage's algorithm."""
        assignment = self.lease.assignment
        train_rows = self.service.get_blob(assignment.train)
        found = cache.examples(assignment.base, assignment.judge, train_rows, stage.algorithm)
        self.lease.meter.stepping()  # the set-up of a stage counts as part of its first step
        return found

    def after_step(self, progress: Progress) -> None:
        """Record the step. Raises Paused at a rung, and whatever `lease.check` raises, after a checkpoint if it can
        resume."""
        self.lease.meter.stepped(progress.report.tokens)
        self._observe(progress)
        self.lease.meter.stepping()

    def _observe(self, progress: Progress) -> None:
        position = progress.position
        self.lease.tokens = position.tokens
        self.lease.record(position.stage, position.step, progress.report.values)
        rungs = self._crossed(progress)
        due = self._due(progress, at_rung=bool(rungs))
        scored = bool(rungs) or due or (progress.next_stage and progress.scorer is None)
        metrics = self._judge(progress) if scored else None
        scores = self._scores(progress, metrics)
        if due and metrics is not None and self._long_past_the_best(progress, metrics):
            progress.stop()
            rungs = [rung for rung, share in enumerate(RUNGS) if progress.before < share - ROUNDING]  # they are passed
        if progress.next_stage:
            self.stage_scores.append(scores)
        self.lease.record(position.stage, position.step, scores)
        self._say(progress, scores)
        # Two rungs can fall on one step: the answer to the later one counts.
        best = self.moments.best or metrics  # what stopping here would give
        goes_on = [self._report_rung(rung, progress, best) for rung in rungs if best is not None]
        try:
            self.lease.check()
            if goes_on and not goes_on[-1]:
                raise Paused(f"paused at {rung_name(rungs[-1])}; resumes if promoted")
        except Interrupted:
            self._save(progress)
            raise
        if progress.share < 1.0 and time.monotonic() - self._saved_at >= self.checkpoint_seconds:
            self._save(progress)

    def _say(self, progress: Progress, scores: StageScores) -> None:
        """Log the start and the end of each stage; the curves show what happens between."""
        stage, step = progress.position.stage, progress.position.step
        if step == 1:
            design = self.lease.assignment.design.stages[stage]
            self.lease.say(f"Stage {stage + 1} ({design.algorithm.kind}, {design.update.kind}): first step done")
        if progress.next_stage:
            self.lease.say(f"Stage {stage + 1} finished after {step} steps: {curve_phrases(scores)}")
        elif progress.share > 1.0 - ROUNDING:
            self.lease.say(
                f"Training finished: {step} steps in the last stage, {progress.position.tokens} tokens in all"
            )

    def _due(self, progress: Progress, *, at_rung: bool) -> bool:
        """Return whether the last stage, at a constant rate, is at a moment when its result may be the best."""
        last = progress.position.stage + 1 == len(self.lease.assignment.design.stages)
        at_end = progress.share > 1.0 - ROUNDING
        moment = at_rung or at_end or self.moments.due(progress.position.step)
        return last and progress.keep_best is not None and moment

    def _long_past_the_best(self, progress: Progress, metrics: Metrics) -> bool:
        """Take in the score of a moment. Return whether the training should end before its last step."""
        step, objective = progress.position.step, self.lease.assignment.judge.objective
        self.moments = self.moments.after(step, metrics, objective)
        if self.moments.best_step == step:
            assert progress.keep_best is not None, "only a constant rate has such moments"
            progress.keep_best()
        if progress.share > 1.0 - ROUNDING or not self.moments.over(objective):
            return False
        self.lease.say(
            f"Stopped after step {step}: the score on validation rows was best at step {self.moments.best_step}, whose "
            "weights are kept"
        )
        return True

    def _crossed(self, progress: Progress) -> list[int]:
        """Return the rungs that the last step reached. None at the end of training, where the judge scores all rows."""
        if progress.share > 1.0 - ROUNDING:
            return []
        return [rung for rung, share in enumerate(RUNGS) if progress.before < share - ROUNDING <= progress.share]

    def _report_rung(self, rung: int, progress: Progress, metrics: Metrics) -> bool:
        """Report the scores at a rung. Return whether the trial continues."""
        reached = RungReached(
            **self.lease.claim,
            rung=rung,
            share=RUNGS[rung],
            stage=progress.position.stage,
            step=progress.position.step,
            metrics=metrics,
        )
        self.lease.say(f"At {rung_name(rung)} of training: {phrases('log', metrics)}")
        return self.service.rung(self.lease.assignment.trial_id, reached).action == "continue"

    def _judge(self, progress: Progress) -> Metrics:
        """Score the model in training with the judge, on fewer rows."""
        base, spec = self.lease.assignment.base, self.lease.assignment.judge
        fewer = {
            "max_rows": rung_rows(spec.kind),
            "max_generations": min(spec.max_generations, RUNG_GENERATIONS),
            "pseudo_windows": min(spec.pseudo_windows, RUNG_WINDOWS),
        }
        rows = rung_subset(cache.rows(self.service.get_blob(spec.validation)), spec)
        with self.lease.meter.judging(len(rows)), progress.result():
            return judge(progress.model, cache.tokenizer(base, spec), spec.model_copy(update=fewer), rows)

    def _scores(self, progress: Progress, metrics: Metrics | None) -> StageScores:
        """Return the judge's metrics as curve values; at the end of a reward model's stage its pairwise accuracy."""
        base, spec = self.lease.assignment.base, self.lease.assignment.judge
        if progress.scorer is not None and progress.next_stage:
            # Scoring pairs is cheap, and few pairs would say little, so all rows that the judge reads are used.
            rows = cache.rows(self.service.get_blob(spec.validation))[: spec.max_rows]
            render = renderer(cache.tokenizer(base, spec), spec)
            with progress.result():
                return {"valid_reward_accuracy": pair_accuracy(progress.scorer, render, rows)}
        if metrics is None:
            return {}
        return held_out(metrics, spec.kind)

    def _save(self, progress: Progress) -> None:
        scores = self.folder / STAGE_SCORES
        scores.write_text(json.dumps(self.stage_scores))
        moments = self.folder / MOMENTS
        moments.write_text(self.moments.model_dump_json())
        files = [*checkpoints.save(progress.checkpoint(), self.folder), scores, moments]
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
        self.lease.beat()  # a trial that resumes from this checkpoint does not send the curve before it again
        try:
            self.service.checkpoint(self.lease.assignment.trial_id, saved)
        except BlobMissing as missing:  # garbage-collected before the checkpoint referred to it: the previous one stays
            log.warning("checkpoint of %s not saved: %s", self.lease.assignment.trial_id, missing)
        else:
            self.lease.say(f"Checkpoint saved: stage {saved.stage + 1}, step {saved.step}")
        self._saved_at = time.monotonic()
