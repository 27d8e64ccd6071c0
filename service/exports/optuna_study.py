"""Export a job as an Optuna storage file."""

from __future__ import annotations

from pathlib import Path

from luthier.store import jobs, trials
from luthier.store.rows import TrialRecord
from search.policy.history import Past
from search.report.optuna_export import Told, write_study
from service.context import Context
from service.jobs import history, space


def write(ctx: Context, job_id: str, path: Path) -> None:
    """Write the job, with the trials so far, to the new file `path`. Raises NotFound."""
    with ctx.database.read() as c:
        job = jobs.get(c, job_id)
        rows = trials.of_job(c, job_id)
    exported = [_trial(row, past) for row, past in zip(rows, history.past(job, rows), strict=True)]
    attributes = {
        "job": job.id,
        "state": job.state.value,
        "objective": job.judge.objective,
        "seed": job.seed,
        "best_trial": next((row.number for row in rows if row.id == job.best_trial_id), None),
        **job.metadata,
    }
    known = {name: value for name, value in attributes.items() if value is not None}
    write_study(path, job.id, job.judge.objective, space.space_if_any(ctx, job), exported, known)


def _trial(row: TrialRecord, past: Past) -> Told:
    attributes = {
        "trial": row.id,
        "design": row.design.summary(),
        "origin": row.origin,
        "seed": row.seed,
        "confirms": past.confirms,
        "split": past.split or None,
        "device_seconds": row.device_seconds,
        "trained_tokens": row.trained_tokens,
        "metrics": None if row.metrics is None else row.metrics.model_dump(mode="json", exclude_none=True),
        "test_metrics": None
        if row.test_metrics is None
        else row.test_metrics.model_dump(mode="json", exclude_none=True),
        "error": row.error,
    }
    return Told(past=past, started_at=row.started_at, finished_at=row.finished_at, attributes=attributes)
