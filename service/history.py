"""A job's rows as the search sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from luthier.store.records import JobRecord, TrialRecord
from luthier.trial import Metrics, TrialState
from search.choose import objective_value, rank, standing
from search.history import Past

BASELINES = (0, 1)


def past(job: JobRecord, trials: Sequence[TrialRecord]) -> list[Past]:
    """Raises MissingMetric for a complete trial without the objective, which the service never stores."""
    firsts = {trial.digest: trial.number for trial in trials if trial.origin != "confirmation"}
    return [_past(job, trial, firsts) for trial in trials]


def judged(job: JobRecord, trials: Sequence[TrialRecord], trial_id: str, metrics: Metrics) -> list[Past]:
    """The history as it will be once this trial, still running, is complete with these metrics."""
    complete = {"state": TrialState.COMPLETE, "metrics": metrics}
    return past(job, [t.model_copy(update=complete) if t.id == trial_id else t for t in trials])


def keepers(job: JobRecord, history: Sequence[Past]) -> set[int]:
    """Numbers of the trials whose weights are kept: the finalists so far and the baselines."""
    searched = [trial.number for trial in rank(history) if trial.number not in BASELINES]
    return {*BASELINES, *searched[: job.search.finalists]}


def _past(job: JobRecord, trial: TrialRecord, firsts: Mapping[str, int]) -> Past:
    """`firsts` are the trials that were queued for their design and not to confirm it, by the design's digest."""
    value = None
    if trial.state is TrialState.COMPLETE and trial.metrics is not None:
        value = objective_value(trial.metrics, job.judge.objective)
    return Past(
        number=trial.number,
        design=trial.design,
        state=trial.state,
        value=value,
        device_seconds=trial.device_seconds,
        goal=trial.goal,
        measured=tuple(standing(metrics, job.judge.objective) for metrics in trial.measured),
        confirms=firsts.get(trial.digest) if trial.origin == "confirmation" else None,
    )
