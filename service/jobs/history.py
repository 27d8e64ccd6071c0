"""A job's rows as the search sees them."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import Metrics, TrialState
from search.policy import scheduler
from search.policy.history import Past
from search.policy.ranking import finalists, objective_value, rung_score

BASELINES = scheduler.BASELINES


def past(job: JobRecord, trials: Sequence[TrialRecord]) -> list[Past]:
    """Raises MissingMetric for a complete trial, or one at a rung, without the objective: the service stores none."""
    repeated = repeats(trials)
    return [_past(job, trial, repeated.get(trial.number)) for trial in trials]


def repeats(trials: Sequence[TrialRecord]) -> dict[int, int]:
    """By the number of each trial that trains the design of an earlier one from another seed, that earlier one's."""
    first: dict[str, int] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        first.setdefault(trial.digest, trial.number)
    return {trial.number: first[trial.digest] for trial in trials if first[trial.digest] != trial.number}


def seeds(trials: Sequence[TrialRecord], number: int) -> list[TrialRecord]:
    """The complete trials of a trial's design, that one first: its means decide."""
    repeated = repeats(trials)
    found = sorted((t for t in trials if repeated.get(t.number, t.number) == number), key=lambda trial: trial.number)
    return [trial for trial in found if trial.state is TrialState.COMPLETE]


def judged(job: JobRecord, trials: Sequence[TrialRecord], trial_id: str, metrics: Metrics) -> list[Past]:
    """The history as it will be once this trial, still running, is complete with these metrics."""
    complete = {"state": TrialState.COMPLETE, "metrics": metrics}
    return past(job, [t.model_copy(update=complete) if t.id == trial_id else t for t in trials])


def keepers(job: JobRecord, history: Sequence[Past]) -> set[int]:
    """Numbers of the trials whose weights are kept: the finalists so far and the baselines."""
    return {*BASELINES, *(trial.number for trial in finalists(history, job.search.finalists))}


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
    )
