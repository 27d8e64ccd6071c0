"""A job's checkpoints in OpenAI's format: where trials were scored on held-out rows, at rungs and at their ends."""

from __future__ import annotations

from collections.abc import Mapping

from luthier.api_types import Checkpoint, CheckpointFacts, CheckpointMetrics, CheckpointPage
from luthier.errors import NotFound
from luthier.metrics import held_out
from luthier.store import Connection, artifacts, jobs, measurements, trials
from luthier.store.rows import JobRecord, RungRecord, TrialRecord
from luthier.trial import Metrics, TrialState, rungs_reached
from service.inference.model_names import trial_name, usable_name


def page(c: Connection, job_id: str, after: str | None, limit: int) -> CheckpointPage:
    """Return a page of a job's checkpoints, newest first. Raises NotFound for an unknown job or `after`."""
    found = of_job(c, jobs.get(c, job_id))
    ids = [checkpoint.id for checkpoint in found]
    if after is not None and after not in ids:
        raise NotFound(f"Checkpoint {after!r} was not found.", param="after")
    start = 0 if after is None else ids.index(after) + 1
    shown = ids[start : start + limit]
    return CheckpointPage(
        data=tuple(found[start : start + limit]),
        has_more=start + limit < len(ids),
        first_id=shown[0] if shown else None,
        last_id=shown[-1] if shown else None,
    )


def of_job(c: Connection, job: JobRecord) -> list[Checkpoint]:
    """Return all checkpoints, newest first. Only the end of a trial with kept weights can be used as a model."""
    losses = measurements.train_losses(c, job.id)
    rows = {trial.id: trial for trial in trials.of_job(c, job.id)}
    found = [
        _at_rung(job, trial, rung, losses)
        for rung in trials.rungs(c, job.id)
        for trial in [rows[rung.trial_id]]
        if rung.rung < len(rungs_reached(trial.design, trial.state, trial.measured))
    ]
    ended = (row for row in rows.values() if row.state is TrialState.COMPLETE and row.design.stages)
    found += [_at_end(c, job, trial, losses) for trial in ended]
    return sorted(found, key=lambda checkpoint: (checkpoint.created_at, checkpoint.id), reverse=True)


def _at_rung(
    job: JobRecord, trial: TrialRecord, rung: RungRecord, losses: Mapping[tuple[str, int, int], float]
) -> Checkpoint:
    loss, accuracy = _scores(job, rung.metrics)
    return Checkpoint(
        id=_id(trial, str(rung.rung)),
        created_at=int(rung.at.timestamp()),
        fine_tuned_model_checkpoint=trial_name(job, trial, rung.step),
        fine_tuning_job_id=job.id,
        step_number=rung.step,
        metrics=CheckpointMetrics(
            step=rung.step,
            train_loss=losses.get((trial.id, rung.stage, rung.step)),
            valid_loss=loss,
            valid_mean_token_accuracy=accuracy,
        ),
        luthier=CheckpointFacts(
            trial=trial.id, number=trial.number, stage=rung.stage, share=rung.share, usable=False, metrics=rung.metrics
        ),
    )


def _at_end(
    c: Connection, job: JobRecord, trial: TrialRecord, losses: Mapping[tuple[str, int, int], float]
) -> Checkpoint:
    assert trial.metrics is not None, "a complete trial has metrics"
    assert trial.finished_at is not None, "it has ended"
    stage, step = max(((stage, step) for owner, stage, step in losses if owner == trial.id), default=(0, 0))
    loss, accuracy = _scores(job, trial.metrics)
    name = usable_name(job, trial, artifacts.of_trial(c, trial.id))
    return Checkpoint(
        id=_id(trial, "end"),
        created_at=int(trial.finished_at.timestamp()),
        fine_tuned_model_checkpoint=name or trial_name(job, trial),
        fine_tuning_job_id=job.id,
        step_number=step,
        metrics=CheckpointMetrics(
            step=step,
            train_loss=losses.get((trial.id, stage, step)),
            full_valid_loss=loss,
            full_valid_mean_token_accuracy=accuracy,
        ),
        luthier=CheckpointFacts(
            trial=trial.id,
            number=trial.number,
            stage=stage,
            share=1.0,
            usable=name is not None,
            metrics=trial.metrics,
        ),
    )


def _scores(job: JobRecord, metrics: Metrics) -> tuple[float, float | None]:
    """Return the loss in nats per target token, and the accuracy, which only preference data has."""
    found = held_out(metrics, job.judge.kind)
    return found["valid_loss"], found.get("valid_accuracy")


def _id(trial: TrialRecord, where: str) -> str:
    return f"ftckpt-{trial.id.removeprefix('trial-')}-{where}"
