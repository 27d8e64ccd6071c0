"""Watch a trial in training: record curves, save checkpoints, score rungs, and stop when the service says so."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from luthier.design import Design, Stage
from luthier.errors import BlobMissing, Interrupted, Paused
from luthier.metrics import curve_phrases, held_out, phrases, rank_key
from luthier.task import DataKind, JudgeSpec, Objective, rung_rows
from luthier.trial import (
    FIRST_RUNG_ROWS,
    RUNG_FACTOR,
    RUNG_GENERATIONS,
    RUNG_ROWS,
    RUNG_WINDOWS,
    RUNGS,
    Metrics,
    StageEnd,
    first_rung,
    rung_name,
)
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
REWARD_ACCURACY: Final = "valid_reward_accuracy"
QUICK: Final = 5.0  # seconds: a checkpoint that is saved within them is no burden
PACE: Final = 5  # for others the time between two checkpoints is at least so many times what it took to save one
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
        self._save_seconds = 0.0  # how long the last checkpoint took
        self._pieces: int | None = None  # of long text: training examples in all rows
        saved = scratch / RESUME / STAGE_SCORES
        self.stage_scores: list[StageScores] = json.loads(saved.read_text()) if saved.is_file() else []
        known = scratch / RESUME / MOMENTS
        self.moments = Moments.model_validate_json(known.read_text()) if known.is_file() else Moments()

    def examples(self, stage: Stage) -> Sequence[Example]:
        """Return the training rows, tokenised for the stage's algorithm."""
        assignment = self.lease.assignment
        train_rows = self.service.get_blob(assignment.train)
        found = cache.examples(assignment.base, assignment.judge, train_rows, stage.algorithm)
        if assignment.judge.kind is DataKind.TEXT:
            self._pieces = len(found)
        self.lease.meter.stepping()  # the set-up of a stage counts as part of its first step
        return found

    def after_step(self, progress: Progress) -> None:
        """Record the step. Raises Paused at a rung, and what `lease.check` raises.

        If the trial can resume, a checkpoint is saved first.
        """
        self.lease.meter.stepped(progress.report.tokens)
        self._observe(progress)
        self.lease.meter.stepping()

    def _observe(self, progress: Progress) -> None:
        position = progress.position
        self.lease.tokens = position.tokens
        self.lease.record(position.stage, position.step, progress.report.values)
        rungs = self._crossed(progress)
        due, ends = self._due(progress, at_rung=bool(rungs)), progress.last_step
        at_stage_end = ends and not progress.last_stage
        metrics = self._judge(progress, at_rung=bool(rungs)) if self._scored(progress, rungs, due, ends) else None
        scores = self._scores(progress, metrics, due or at_stage_end)
        if due and (why := self._over(progress, metrics, scores)) is not None:
            progress.stop(why)
            ends, at_stage_end = True, not progress.last_stage
        at_end = due and ends and progress.last_stage
        if at_end:
            rungs = [self._next_rung(progress, rungs)]  # it would have the same best score there
        if at_stage_end:
            self.stage_scores.append(self._result(scores))
        self.lease.record(position.stage, position.step, scores)
        self._say(progress, scores, ends)
        found = self._compared(progress, metrics)
        # Two rungs can fall on one step: the answer to the later one counts.
        goes_on = [self._report_rung(rung, progress, found, at_end=at_end) for rung in rungs if found is not None]
        if at_stage_end:
            read = 0 if progress.scorer is not None else progress.rows
            self.moments = Moments(rows_before=self.moments.rows_before + read)
        try:
            self.lease.check()
            # A training that has ended is judged: that takes less than to resume it later.
            if goes_on and not goes_on[-1] and not (ends and progress.last_stage):
                raise Paused(f"paused at {rung_name(self._design, rungs[-1])}; resumes if promoted")
        except Interrupted:
            self._save(progress)
            raise
        if not (ends and progress.last_stage) and time.monotonic() >= self._next_checkpoint:
            self._save(progress)

    @property
    def _next_checkpoint(self) -> float:
        """When the next checkpoint is due. Large ones are rarer, so that saving takes a sixth of the time at most."""
        least = PACE * self._save_seconds if self._save_seconds > QUICK else 0.0
        return self._saved_at + max(self.checkpoint_seconds, least)

    @property
    def _first_rung(self) -> int:
        """How many rows, or pieces of long text, are read before the first rung."""
        return self.lease.assignment.first_rung if self._pieces is None else first_rung(self._design, self._pieces)

    @property
    def _design(self) -> Design:
        return self.lease.assignment.design

    def _scored(self, progress: Progress, rungs: Sequence[int], due: bool, ends: bool) -> bool:
        """Return whether the judge scores the model after this step. A reward model has its own score."""
        if progress.scorer is not None:
            return False
        return bool(rungs) or due or (ends and not progress.last_stage)

    def _say(self, progress: Progress, scores: StageScores, ends: bool) -> None:
        """Log the start and the end of each stage; the curves show what happens between."""
        stage, step = progress.position.stage, progress.position.step
        if step == 1:
            design = self._design.stages[stage]
            self.lease.say(f"Stage {stage + 1} ({design.algorithm.kind}, {design.update.kind}): first step done")
        if ends and not progress.last_stage:
            found = curve_phrases(self.stage_scores[-1])
            self.lease.say(f"Stage {stage + 1} finished after {step} steps: {found}")
        elif ends:
            self.lease.say(
                f"Training finished: {step} steps in the last stage, {progress.position.tokens} tokens in all"
            )

    def _due(self, progress: Progress, *, at_rung: bool) -> bool:
        """Return whether a stage under `constant` is scored after this step, as its result may be the best one."""
        if progress.keep_best is None:
            return False
        return at_rung or progress.last_step or self.lease.wrap_up or self.moments.due(progress.position.step)

    def _measure(self, progress: Progress) -> Objective:
        """Return what a stage is measured by: the last one by the job's objective, others by what they are for."""
        if progress.last_stage:
            return self.lease.assignment.judge.objective
        return "perplexity" if self._design.stages[progress.position.stage].algorithm.likelihood else "reward"

    def _over(self, progress: Progress, metrics: Metrics | None, scores: StageScores) -> StageEnd | None:
        """Record the score of this step, and keep its weights if it is the best. Return why the stage ends here; None
        where it goes on, or this is its last step."""
        step, measure = progress.position.step, self._measure(progress)
        score = (-scores[REWARD_ACCURACY], 0.0) if metrics is None else rank_key(metrics, measure)
        self.moments = self.moments.after(step, score, metrics)
        if self.moments.best_step == step:
            assert progress.keep_best is not None, "only a stage under `constant` is scored at moments"
            progress.keep_best()
        if progress.last_step:
            return None
        if self.lease.wrap_up:
            why: StageEnd = "user" if self.lease.stopped else "budget"
            reason = "a user stopped the trial" if self.lease.stopped else "the job's budget ends"
            self.lease.say(f"Stopped after step {step}, as {reason}: {self._best_is()}")
            return why
        # The first rows say little: learning may begin with a loss, and rewards may be zero for a while.
        if progress.rows < max(self._first_rung, FIRST_RUNG_ROWS[0]) or not self.moments.over(measure):
            return None
        self.lease.say(f"Stopped after step {step}: {self._best_is()}")
        return "best_long_past"

    def _best_is(self) -> str:
        return f"the score on validation rows was best at step {self.moments.best_step}, whose weights are kept"

    def _compared(self, progress: Progress, metrics: Metrics | None) -> Metrics | None:
        """Return the metrics to report at a rung: those of the best moment so far, or else of this step."""
        best = self.moments.best if progress.last_stage else None
        return best or metrics

    def _result(self, scores: StageScores) -> StageScores:
        """Return the scores of a stage that ends: those of its best moment where it has one."""
        best = self.moments.best
        if best is not None:
            return held_out(best, self.lease.assignment.judge.kind)
        return scores if self.moments.best_score is None else {REWARD_ACCURACY: -self.moments.best_score[0]}

    def _crossed(self, progress: Progress) -> list[int]:
        """Return the rungs that the last step reached. None at the end of training, where the judge scores all rows."""
        if self._design.self_ending:
            if progress.scorer is not None:
                return []
            batch = self._design.stages[progress.position.stage].optimiser.batch_size
            before = self.moments.rows_before + (progress.position.step - 1) * batch
            return list(range(self._rungs_within(before), self._rungs_within(self.moments.rows_before + progress.rows)))
        if progress.share > 1.0 - ROUNDING:
            return []
        return [rung for rung, share in enumerate(RUNGS) if progress.before < share - ROUNDING <= progress.share]

    def _next_rung(self, progress: Progress, crossed: Sequence[int]) -> int:
        """Return the rung to report at the end of a training: the one that it ends at, or else the next one above."""
        return crossed[-1] if crossed else self._rungs_within(self.moments.rows_before + progress.rows)

    def _rungs_within(self, rows: int) -> int:
        """Return how many rungs lie within the first `rows` rows read."""
        count = 0
        while self._first_rung * RUNG_FACTOR**count <= rows:
            count += 1
        return count

    def _report_rung(self, rung: int, progress: Progress, metrics: Metrics, *, at_end: bool) -> bool:
        """Report the scores at a rung. Return whether the trial continues.

        `at_end`: the training has ended; its score counts at the rung, but it is not shown as a rung.
        """
        reached = RungReached(
            **self.lease.claim,
            rung=rung,
            share=min(1.0, progress.share) if self._design.self_ending else RUNGS[rung],
            stage=progress.position.stage,
            step=progress.position.step,
            metrics=metrics,
            at_end=at_end,
        )
        if at_end:
            self.service.rung(self.lease.assignment.trial_id, reached)
            return True
        at = f"{rung_name(self._design, rung)}, {self.moments.rows_before + progress.rows} rows"
        where = at if self._design.self_ending else f"{rung_name(self._design, rung)} of training"
        self.lease.say(f"At {where}: {phrases('log', metrics, self.lease.assignment.judge.objective)}")
        return self.service.rung(self.lease.assignment.trial_id, reached).action == "continue"

    def _judge(self, progress: Progress, *, at_rung: bool) -> Metrics:
        """Score the model in training with the judge, on fewer rows.

        Answers are not graded where only the likelihood is needed: at moments that are no rung nor the end of a stage.
        """
        base, spec = self.lease.assignment.base, self.lease.assignment.judge
        fewer: dict[str, object] = {
            "max_rows": rung_rows(spec.kind),
            "max_generations": min(spec.max_generations, RUNG_GENERATIONS),
            "pseudo_windows": min(spec.pseudo_windows, RUNG_WINDOWS),
        }
        stage_ends = progress.last_step and not progress.last_stage
        if not (at_rung or stage_ends) and self._measure(progress) == "perplexity":
            fewer |= {"grader": None, "environment": None}
        rows = rung_subset(cache.rows(self.service.get_blob(spec.validation)), spec)
        with self.lease.meter.judging(len(rows)), progress.result():
            return judge(progress.model, cache.tokenizer(base, spec), spec.model_copy(update=fewer), rows)

    def _scores(self, progress: Progress, metrics: Metrics | None, of_scorer: bool) -> StageScores:
        """Return the judge's metrics as curve values; of a reward model its accuracy on pairs, if asked for."""
        base, spec = self.lease.assignment.base, self.lease.assignment.judge
        if progress.scorer is not None:
            if not of_scorer:
                return {}
            # Scoring pairs is cheap, and few pairs would say little, so all rows that the judge reads are used.
            rows = cache.rows(self.service.get_blob(spec.validation))[: spec.max_rows]
            render = renderer(cache.tokenizer(base, spec), spec)
            with progress.result():
                return {REWARD_ACCURACY: pair_accuracy(progress.scorer, render, rows)}
        return {} if metrics is None else held_out(metrics, spec.kind)

    def _save(self, progress: Progress) -> None:
        began = time.monotonic()
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
        self._save_seconds = self._saved_at - began
