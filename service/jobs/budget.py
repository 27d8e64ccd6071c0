"""What a job may still spend, and when it will be done. Pure functions of the job's rows and the clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from luthier.store.rows import JobRecord, TrialRecord
from luthier.task import Search
from luthier.trial import RUNGS, JobState, TrialState
from search.policy.asha import ETA
from search.policy.scheduler import BASELINES


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


def remaining(job: JobRecord, trials: Sequence[TrialRecord], worker_count: int, now: datetime) -> float | None:
    """Device-seconds that may still be spent by a crew of so many workers; None where nothing limits them."""
    search, limits = job.search, []
    if search.device_seconds is not None:
        limits.append(search.device_seconds - device_seconds(trials))
    if search.deadline is not None:
        limits.append((search.deadline - now).total_seconds() * max(1, worker_count))
    return max(0.0, min(limits)) if limits else None


def open_trials(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those that are running, or wait for a worker; what pauses at a rung does not."""
    return [trial for trial in trials if not trial.state.terminal and not trial.paused]


def designs(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those that the number of trials counts: not the confirmations, nor what was refused before it was launched."""
    return [trial for trial in _launched(trials) if trial.origin != "confirmation"]


def confirmations(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [trial for trial in trials if trial.origin == "confirmation"]


def planned_confirmations(job: JobRecord) -> int:
    """How many there will be when all goes well: of the finalists and the default."""
    return _confirmations(job.search)


def estimated_finish(
    job: JobRecord,
    trials: Sequence[TrialRecord],
    now: datetime,
    *,
    work_left: float | None = None,
    worker_count: int = 1,
) -> datetime | None:
    """When the job will be done: after the device-seconds of `work_left`, shared by a crew of workers, where they are
    known; else when the budget will be used up at the pace so far. Never later than the budget allows.

    None where there is no pace yet, or the job does not run or is paused.
    """
    search = job.search
    if job.state is not JobState.RUNNING or job.started_at is None or job.paused:
        return None
    if work_left is not None:
        if search.device_seconds is not None:
            work_left = min(work_left, max(0.0, search.device_seconds - device_seconds(trials)))
        return _before(now + timedelta(seconds=work_left / max(1, worker_count)), search.deadline)
    shares = [min(1.0, sum(map(_trained, _launched(trials))) / whole_trainings(job.search))]
    if search.device_seconds is not None:
        shares.append(min(1.0, device_seconds(trials) / search.device_seconds))
    if max(shares) == 0:
        return search.deadline
    return _before(job.started_at + (now - job.started_at) / max(shares), search.deadline)


def trainings_left(job: JobRecord, trials: Sequence[TrialRecord]) -> float:
    """How many whole trainings' work the job still is."""
    return max(0.0, whole_trainings(job.search) - sum(map(_trained, _launched(trials))))


def _before(moment: datetime, deadline: datetime | None) -> datetime:
    return moment if deadline is None else min(moment, deadline)


def whole_trainings(search: Search) -> float:
    """How many whole trainings a job is, as halving spends them: each design to the first rung, the best of them to the
    next one, and so on."""
    count = _searched(search)
    least = min(search.finalists, count)
    shares = [0.0, *RUNGS, 1.0]
    if count == least:
        whole = float(count)
    else:
        reaching = [max(least, count / ETA**rung) for rung in range(len(RUNGS) + 1)]
        whole = sum(n * (b - a) for n, a, b in zip(reaching, shares, shares[1:], strict=False))
    return len(BASELINES) + whole + _confirmations(search)


def _trained(trial: TrialRecord) -> float:
    """What of a whole training the trial was, or would have been had it not failed."""
    if trial.state is TrialState.COMPLETE:
        return 1.0
    if trial.rung is not None:
        return RUNGS[trial.rung]
    return RUNGS[0] if trial.state.terminal else 0.0


def _confirmations(search: Search) -> int:
    return search.confirmations * (min(search.finalists, _searched(search)) + 1)


def _searched(search: Search) -> int:
    return max(0, search.trials - len(BASELINES))


def _launched(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [trial for trial in trials if trial.state is not TrialState.INFEASIBLE or trial.started_at is not None]


def running(trials: Sequence[TrialRecord]) -> int:
    return sum(trial.state is TrialState.LEASED for trial in trials)
