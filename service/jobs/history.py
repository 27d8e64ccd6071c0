"""A job's trials as the search sees them."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.metrics import objective_value
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import Metrics, TrialState
from search.policy import scheduler
from search.policy.history import Past
from search.policy.ranking import finalists, rung_score

BASELINES = scheduler.BASELINES


def past(job: JobRecord, trials: Sequence[TrialRecord]) -> list[Past]:
    """Return the search's view of the trials.

    Raises MissingMetric for a trial whose metrics lack the job's objective; the service stores no such trial.
    """
    repeated = repeats(trials)
    return [_past(job, trial, repeated.get(trial.number)) for trial in trials]


def repeats(trials: Sequence[TrialRecord]) -> dict[int, int]:
    """Return, for each trial that repeats an earlier design with another seed, the number of that earlier trial."""
    first: dict[str, int] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        first.setdefault(trial.digest, trial.number)
    return {trial.number: first[trial.digest] for trial in trials if first[trial.digest] != trial.number}


def by_design(trials: Sequence[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Return the complete trials of each design by its digest, one for each seed, the first trained first."""
    found: dict[str, list[TrialRecord]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.state is TrialState.COMPLETE:
            found.setdefault(trial.digest, []).append(trial)
    return found


def seeds(trials: Sequence[TrialRecord], number: int) -> list[TrialRecord]:
    """Return the complete trials of one design, the first trained first. Designs are ranked by their means."""
    digest = next((trial.digest for trial in trials if trial.number == number), None)
    return [] if digest is None else by_design(trials).get(digest, [])


def judged(job: JobRecord, trials: Sequence[TrialRecord], trial_id: str, metrics: Metrics) -> list[Past]:
    """Return the history as it will be once this running trial is complete with these metrics."""
    complete = {"state": TrialState.COMPLETE, "metrics": metrics}
    return past(job, [t.model_copy(update=complete) if t.id == trial_id else t for t in trials])


def keepers(job: JobRecord, history: Sequence[Past]) -> set[int]:
    """Return the numbers of the trials whose weights are kept: the baselines and the finalists so far."""
    return {*BASELINES, *(trial.number for trial in finalists(history, job.search.finalists, job.extended_from))}


def reopened(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials as they are once the job is extended: pruned ones are paused where their checkpoint is kept."""
    paused = {"state": TrialState.WAITING, "finished_at": None}
    return [trial.model_copy(update=paused) if _resumable(trial) else trial for trial in trials]


def _resumable(trial: TrialRecord) -> bool:
    return trial.state is TrialState.PRUNED and trial.checkpoint is not None


def _past(job: JobRecord, trial: TrialRecord, confirms: int | None) -> Past:
    value = None
    if trial.state is TrialState.COMPLETE and trial.metrics is not None:
        value = objective_value(trial.metrics, job.judge.objective)
    return Past(
        number=trial.number,
        design=trial.design,
        state=trial.state,
        value=value,
        device_seconds=trial.device_seconds,
        error=trial.error,
        goal=trial.goal,
        measured=tuple(rung_score(metrics, job.judge.objective) for metrics in trial.measured),
        confirms=confirms,
        split=job.split_of(trial),
    )
