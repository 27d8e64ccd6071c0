"""Which weights of a job can be downloaded, and why not where they cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from luthier.api_types import Recommendation
from luthier.errors import NotFound
from luthier.store import Connection, artifacts, jobs, trials
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import JobState
from luthier.updates import VirtualTokens
from luthier.worker_protocol import Artifact
from search.policy.ranking import rank
from service.context import Context
from service.jobs import history, outcome

Stored = Literal["adapter", "merged"]


@dataclass(frozen=True, kw_only=True)
class Named:
    """The trial that a request means: the one that the job's results stand for, or another one that it names."""

    job: JobRecord
    rows: Sequence[TrialRecord]
    trial: TrialRecord
    recommendation: Recommendation
    winner: int | None  # number of the best trained design on the validation rows


def named(c: Connection, ctx: Context, job_id: str, trial: str | None = None) -> Named:
    """Return the trial that the results of a job stand for, or `trial`, given by id or number.

    Raises NotFound where no trial is complete, or this one is not.
    """
    job, rows = jobs.get(c, job_id), trials.of_job(c, job_id)
    found, recommendation = outcome.decide(c, ctx, job, rows)
    if found is None:
        raise NotFound(f"Job {job_id} has no complete trial: it is {job.state}.", param="job_id")
    if trial is not None:
        found = trials.named(c, job_id, trial, param="trial")
        if found.metrics is None:
            raise NotFound(f"Trial {found.number} is not complete: it is {found.state}.", param="trial")
    ranked = rank(history.past(job, rows))
    winner = ranked[0].number if ranked else None
    return Named(job=job, rows=rows, trial=found, recommendation=recommendation, winner=winner)


def of_named(c: Connection, ctx: Context, job_id: str, form: Stored, trial: str | None) -> tuple[Named, Artifact]:
    """Return the weights of the trial that `named` returns. Raises NotFound with the reason where this form is not
    kept."""
    found = named(c, ctx, job_id, trial)
    kept = artifacts.of_trial(c, found.trial.id)
    for artifact in kept:
        if artifact.kind == form:
            return found, artifact
    raise NotFound(_why_not(found, form, [artifact.kind for artifact in kept]), param="format")


def of_trial(c: Connection, trial: TrialRecord, form: Stored) -> Artifact:
    """Return the weights of any trial. Raises NotFound where this form is not kept."""
    kept = artifacts.of_trial(c, trial.id)
    for artifact in kept:
        if artifact.kind == form:
            return artifact
    raise NotFound(_not_kept(trial, form, [artifact.kind for artifact in kept]), param="format")


def _why_not(found: Named, form: Stored, kept: Sequence[str]) -> str:
    job, trial = found.job, found.trial
    if job.state is JobState.SUCCEEDED and job.fine_tuned_model is None and trial.id == job.best_trial_id:
        return f"The model of job {job.id} was deleted."
    which = f"Trial {trial.number} ({trial.design.summary()})"
    if not trial.design.stages:
        other = ""
        if found.winner is not None:
            how = f"name it in `trial` (`luthier export --trial {found.winner}`)"
            other = f" The best trained design is trial {found.winner}: {how}."
        return f"{which} is the untuned base model, which has no weights of its own.{other}"
    if form == "adapter" and "merged" in kept:
        return f"{which} has no adapter that fits the registered base model. Use format=merged."
    if form == "merged" and isinstance(trial.design.stages[-1].update, VirtualTokens):
        return f"{which} adds virtual tokens, which cannot be merged into the base model. Use format=adapter."
    return _not_kept(trial, form, kept)


def _not_kept(trial: TrialRecord, form: Stored, kept: Sequence[str]) -> str:
    return f"Trial {trial.number} has no weights in the form {form}. Kept: {', '.join(kept) or 'none'}."
