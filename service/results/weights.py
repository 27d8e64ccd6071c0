"""Which weights of a job can be downloaded, and why not where they cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from luthier.errors import NotFound
from luthier.store import Connection, artifacts, jobs, trials
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import JobState
from luthier.updates import VirtualTokens
from luthier.worker_protocol import Artifact
from service.results import serializers

Stored = Literal["adapter", "merged"]


def winner(c: Connection, job_id: str) -> tuple[JobRecord, list[TrialRecord], TrialRecord]:
    """Return a job, its trials and the best of them so far. Raises NotFound where none is complete."""
    job, rows = jobs.get(c, job_id), trials.of_job(c, job_id)
    best = serializers.best_trial(job, rows)
    if best is None:
        raise NotFound(f"Job {job_id} has no complete trial: it is {job.state}.", param="job_id")
    return job, rows, best


def of_winner(c: Connection, job_id: str, form: Stored) -> tuple[JobRecord, TrialRecord, Artifact]:
    """Return the weights of a job's best trial. Raises NotFound with the reason where this form is not kept."""
    job, _, best = winner(c, job_id)
    kept = artifacts.of_trial(c, best.id)
    for artifact in kept:
        if artifact.kind == form:
            return job, best, artifact
    raise NotFound(_why_not(job, best, form, [artifact.kind for artifact in kept]), param="format")


def of_trial(c: Connection, trial: TrialRecord, form: Stored) -> Artifact:
    """Return the weights of any trial. Raises NotFound where this form is not kept."""
    kept = artifacts.of_trial(c, trial.id)
    for artifact in kept:
        if artifact.kind == form:
            return artifact
    raise NotFound(_not_kept(trial, form, [artifact.kind for artifact in kept]), param="format")


def _why_not(job: JobRecord, best: TrialRecord, form: Stored, kept: Sequence[str]) -> str:
    if job.state is JobState.SUCCEEDED and job.fine_tuned_model is None:
        return f"The model of job {job.id} was deleted."
    if not best.design.stages:
        return "The best trial is the untuned base model, which has no weights of its own."
    if form == "adapter" and "merged" in kept:
        return (
            f"The best trial ({best.design.summary()}) has no adapter that fits the registered base model. Use "
            "format=merged."
        )
    if form == "merged" and isinstance(best.design.stages[-1].update, VirtualTokens):
        return (
            f"The best trial ({best.design.summary()}) adds virtual tokens, which cannot be merged into the base "
            "model. Use format=adapter."
        )
    return _not_kept(best, form, kept)


def _not_kept(trial: TrialRecord, form: Stored, kept: Sequence[str]) -> str:
    return f"Trial {trial.number} has no weights in the form {form}. Kept: {', '.join(kept) or 'none'}."
