"""What a job may still spend, and when it will be done. Pure functions of the job's rows and the clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from luthier.store.records import JobRecord, TrialRecord
from luthier.trial import RUNGS, JobState, TrialState
from search.halving import ETA

# Of a whole training: up to the first rung for all, and on from each rung for one in ETA of those that got there.
EXPECTED_SHARE: Final[float] = sum(
    (end - start) / float(ETA**rung) for rung, (start, end) in enumerate(zip((0.0, *RUNGS), (*RUNGS, 1.0), strict=True))
)


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


def seconds_left(job: JobRecord, trials: Sequence[TrialRecord], now: datetime) -> float | None:
    """How long one more trial may take; None where nothing limits it."""
    search = job.search
    limits = []
    if search.device_seconds is not None:
        limits.append(search.device_seconds - device_seconds(trials))
    if search.deadline is not None:
        limits.append((search.deadline - now).total_seconds())
    return max(0.0, min(limits)) if limits else None


def estimated_finish(
    job: JobRecord,
    trials: Sequence[TrialRecord],
    now: datetime,
    *,
    work_left: float | None = None,
    crew: int = 1,
) -> datetime | None:
    """When the job will be done: after the device-seconds of `work_left`, shared by a crew of workers, where they are
    known; else when the budget will be used up at the pace so far. Never later than the budget allows.

    None where there is no pace yet, or the job does not run.
    """
    search = job.search
    if job.state is not JobState.RUNNING or job.started_at is None:
        return None
    if work_left is not None:
        if search.device_seconds is not None:
            work_left = min(work_left, max(0.0, search.device_seconds - device_seconds(trials)))
        return _before(now + timedelta(seconds=work_left / max(1, crew)), search.deadline)
    shares = [sum(trial.state.terminal for trial in trials) / search.trials]
    if search.device_seconds is not None:
        shares.append(min(1.0, device_seconds(trials) / search.device_seconds))
    if max(shares) == 0:
        return search.deadline
    return _before(job.started_at + (now - job.started_at) / max(shares), search.deadline)


def work_left(job: JobRecord, trials: Sequence[TrialRecord], seconds: Mapping[int, float], usual: float) -> float:
    """Device-seconds that the job is still going to take. `seconds` is what each trial takes from its start to its
    end, by number, and `usual` what one does that is not proposed yet.

    Of those to come a share is trained beyond each rung; the best are finished, and confirmed from other seeds.
    """
    search = job.search
    designs = [trial for trial in trials if trial.origin != "confirmation"]
    confirmations = [trial for trial in trials if trial.origin == "confirmation"]
    open_now = [trial for trial in trials if trial.state in (TrialState.WAITING, TrialState.LEASED)]
    going = sum(max(0.0, _aim(trial) * seconds[trial.number] - trial.device_seconds) for trial in open_now)
    to_come = max(0, search.trials - len(designs)) * usual * EXPECTED_SHARE
    finishing = search.finalists * usual * (1 - EXPECTED_SHARE) if to_come else 0.0
    repeats = search.confirmations * (min(search.finalists, max(0, search.trials - 2)) + 1)
    return going + to_come + finishing + max(0, repeats - len(confirmations)) * usual


def _aim(trial: TrialRecord) -> float:
    """The share of its training up to which a trial goes before it may pause."""
    return 1.0 if trial.goal is None else RUNGS[trial.goal]


def _before(moment: datetime, deadline: datetime | None) -> datetime:
    return moment if deadline is None else min(moment, deadline)


def running(trials: Sequence[TrialRecord]) -> int:
    return sum(trial.state is TrialState.LEASED for trial in trials)
