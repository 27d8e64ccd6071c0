"""A job's rows as the search sees them."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.store.records import JobRecord, TrialRecord
from luthier.trial import Metrics, TrialState
from search.choose import objective_value, rank
from search.history import Past

BASELINES = (0, 1)


def past(job: JobRecord, trials: Sequence[TrialRecord]) -> list[Past]:
    """Raises MissingMetric for a complete trial without the objective, which the service never stores."""
    return [_past(job, trial) for trial in trials]


def judged(job: JobRecord, trials: Sequence[TrialRecord], trial_id: str, metrics: Metrics) -> list[Past]:
    """The history as it will be once this trial, still running, is complete with these metrics."""
    complete = {"state": TrialState.COMPLETE, "metrics": metrics}
    return past(job, [t.model_copy(update=complete) if t.id == trial_id else t for t in trials])


def keepers(job: JobRecord, history: Sequence[Past]) -> set[int]:
    """Numbers of the trials whose weights are kept: the finalists so far and the baselines."""
    return {*BASELINES, *(trial.number for trial in rank(history)[: job.search.finalists])}


def _past(job: JobRecord, trial: TrialRecord) -> Past:
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
    )
