"""Counts over the whole store, for monitoring."""

from __future__ import annotations

from sqlalchemy import Connection, case, func, literal, select

from luthier.store import tables
from luthier.store.trials import PAUSED
from luthier.trial import JobState, TrialState
from luthier.values import Frozen

PAUSING = "paused"  # trials that are paused at a rung: waiting, but not to be leased until they are promoted


class Statistics(Frozen):
    jobs: dict[str, int]
    """Number of jobs by state, zeros included."""
    trials: dict[str, int]
    """Number of trials by state, zeros included; `paused` is counted apart from `waiting`."""
    queue: int
    """Number of trials of running jobs that any worker may lease."""
    device_seconds: float
    trained_tokens: int


def statistics(c: Connection) -> Statistics:
    jobs, trials = tables.jobs.c, tables.trials.c
    by_job = {state.value: 0 for state in JobState}
    for row in c.execute(select(jobs.state, func.count()).group_by(jobs.state)):
        by_job[row[0]] = row[1]
    paused = case((PAUSED & (trials.state == TrialState.WAITING), literal(1)), else_=literal(0)).label("paused")
    by_trial = {state.value: 0 for state in TrialState} | {PAUSING: 0}
    seconds, tokens = 0.0, 0
    sums = func.sum(trials.device_seconds), func.sum(trials.trained_tokens)
    for state, pauses, count, used, learnt in c.execute(
        select(trials.state, paused, func.count(), *sums).group_by(trials.state, paused)
    ):
        by_trial[PAUSING if pauses else state] = count
        seconds, tokens = seconds + float(used), tokens + int(learnt)
    waiting = (
        select(func.count())
        .join_from(tables.trials, tables.jobs, trials.job_id == jobs.id)
        .where(jobs.state == JobState.RUNNING, trials.state == TrialState.WAITING, paused == 0)
    )
    return Statistics(
        jobs=by_job,
        trials=by_trial,
        queue=c.execute(waiting).scalar_one(),
        device_seconds=seconds,
        trained_tokens=tokens,
    )
