"""What a job may still spend, and when it will be done. Pure functions of the job's rows and the clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from luthier.store.records import JobRecord, TrialRecord
from luthier.trial import JobState, TrialState


def device_seconds(trials: Sequence[TrialRecord]) -> float:
    """Spent so far, over all workers and leases."""
    return sum(trial.device_seconds for trial in trials)


def overrun(job: JobRecord, trials: Sequence[TrialRecord], now: datetime) -> str | None:
    """Why nothing of the job may run any longer, in words; None while it may. (The number of trials is no reason.)"""
    search = job.search
    if search.deadline is not None and now >= search.deadline:
        return f"the deadline {search.deadline:%Y-%m-%d %H:%M:%S %Z} has passed"
    if search.device_seconds is not None and device_seconds(trials) >= search.device_seconds:
        return f"the budget of {search.device_seconds:g} device-seconds is spent"
    return None


def open_trials(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those that are waiting or running."""
    return [trial for trial in trials if not trial.state.terminal]


def estimated_finish(job: JobRecord, trials: Sequence[TrialRecord], now: datetime) -> datetime | None:
    """When the budget will be used up at the pace so far; None where there is no pace yet or the job does not run."""
    search = job.search
    if job.state is not JobState.RUNNING or job.started_at is None:
        return None
    shares = [sum(trial.state.terminal for trial in trials) / search.trials]
    if search.device_seconds is not None:
        shares.append(min(1.0, device_seconds(trials) / search.device_seconds))
    if max(shares) == 0:
        return search.deadline
    pace = job.started_at + (now - job.started_at) / max(shares)
    return min(pace, search.deadline) if search.deadline is not None else pace


def running(trials: Sequence[TrialRecord]) -> int:
    return sum(trial.state is TrialState.LEASED for trial in trials)
