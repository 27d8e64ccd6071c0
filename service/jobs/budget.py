"""What a job may still spend, and when it will be done. Pure functions of the job's rows and the clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from luthier.store.rows import JobRecord, TrialRecord
from luthier.task import Search
from luthier.trial import RUNGS, JobState, TrialState
from search.policy.asha import ETA
from search.policy.ranking import UNTUNED
from search.policy.scheduler import BASELINES, End, EndCode


def device_seconds(trials: Sequence[TrialRecord]) -> float:
    """Return the device-seconds spent so far, over all workers and leases."""
    return sum(trial.device_seconds for trial in trials)


def overrun(job: JobRecord, trials: Sequence[TrialRecord], now: datetime) -> End | None:
    """Return why all of the job's trials have to stop: its deadline, its device-seconds, or a base model that cannot
    run. None while they may run."""
    search = job.search
    if (base := unusable_base(job, trials)) is not None:
        return End(code=EndCode.BASE_INFEASIBLE, reason=base_infeasible(base))
    if search.deadline is not None and now >= search.deadline:
        reason = f"the deadline {search.deadline:%Y-%m-%d %H:%M:%S %Z} has passed"
        return End(code=EndCode.DEADLINE, reason=reason)
    if search.device_seconds is not None and device_seconds(trials) >= search.device_seconds:
        reason = f"the budget of {search.device_seconds:g} device-seconds is spent"
        return End(code=EndCode.DEVICE_SECONDS, reason=reason)
    return None


def unusable_base(job: JobRecord, trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the trial of the untuned base model if it was infeasible and the job has no other base model.

    No design of such a job can be trained, as each would start from that model.
    """
    untuned = next((trial for trial in trials if trial.number == UNTUNED and not trial.design.stages), None)
    if untuned is None or untuned.state is not TrialState.INFEASIBLE or len(job.search.pin.model or ()) > 1:
        return None
    return untuned


def base_infeasible(trial: TrialRecord) -> str:
    """Return why the base model cannot run, as a clause."""
    return f"the untuned base model {trial.design.architecture.base} cannot run: {trial.error or 'no reason is known'}"


def remaining(job: JobRecord, trials: Sequence[TrialRecord], worker_count: int, now: datetime) -> float | None:
    """Return the device-seconds that so many workers may still spend; None where there is no limit."""
    search, limits = job.search, []
    if search.device_seconds is not None:
        limits.append(search.device_seconds - device_seconds(trials))
    if search.deadline is not None:
        limits.append((search.deadline - now).total_seconds() * max(1, worker_count))
    return max(0.0, min(limits)) if limits else None


def left_for_each(job: JobRecord, trials: Sequence[TrialRecord], now: datetime, kept: float) -> float | None:
    """Return the seconds that each running trial may still use, so that `kept` device-seconds are left in the end.

    None where there is no limit; negative where less than `kept` is left. The running trials share the device-seconds.
    Each of them has the time until the deadline.
    """
    search, limits = job.search, []
    if search.device_seconds is not None:
        limits.append((search.device_seconds - device_seconds(trials) - kept) / max(1, running(trials)))
    if search.deadline is not None:
        limits.append((search.deadline - now).total_seconds() - kept)
    return min(limits) if limits else None


def wall_clock(job: JobRecord, now: datetime) -> float | None:
    """Return for how many seconds the job has run, without the time between its end and an extension; None before."""
    if job.started_at is None:
        return None
    latest = ((job.finished_at or now) - job.started_at).total_seconds()
    # An extended job that waits to run again still has the times of its earlier run.
    return sum(one.ran for one in job.extensions) + (0.0 if job.state is JobState.QUEUED else latest)


def open_trials(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that run or wait for a worker. Paused trials are not open."""
    return [trial for trial in trials if not trial.state.terminal and not trial.paused]


def designs(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that count towards `search.trials`: no repeats, and no designs refused before launch."""
    return [trial for trial in _launched(trials) if trial.origin != "confirmation"]


def confirmations(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the repeats: trials that train an earlier design with another seed."""
    return [trial for trial in trials if trial.origin == "confirmation"]


def planned_confirmations(search: Search) -> int:
    """Return how many repeats are planned: those of the finalists and of the LoRA default."""
    return search.confirmations * (min(search.finalists, _searched(search)) + 1)


def running(trials: Sequence[TrialRecord]) -> int:
    return sum(trial.state is TrialState.LEASED for trial in trials)


def estimated_finish(
    job: JobRecord,
    trials: Sequence[TrialRecord],
    now: datetime,
    *,
    work_left: float | None = None,
    worker_count: int = 1,
) -> datetime | None:
    """Return when the job will be done; None while there is no pace yet, or the job does not run or is paused.

    `work_left` in device-seconds is shared by the workers. Without it, the pace so far is extrapolated to the whole
    budget. The budget and the deadline bound both.
    """
    search = job.search
    if job.state is not JobState.RUNNING or job.started_at is None or job.paused:
        return None
    if work_left is not None:
        if search.device_seconds is not None:
            work_left = min(work_left, max(0.0, search.device_seconds - device_seconds(trials)))
        return _before(now + timedelta(seconds=work_left / max(1, worker_count)), search.deadline)
    # Of an extended job, the pace since then: `started_at` is when it was started again.
    earlier = [trial for trial in trials if trial.number < job.extended_from]
    done = [_shares(search, trials), _shares(search, earlier)]
    left, since = min((1 - all_, all_ - before) for all_, before in zip(*done, strict=True))
    if since <= 0:
        return search.deadline
    return _before(now + (now - job.started_at) * (left / since), search.deadline)


def trainings_left(job: JobRecord, trials: Sequence[TrialRecord]) -> float:
    """Return the remaining work of the job in full training runs."""
    return max(0.0, whole_trainings(job.search) - sum(map(_trained, _launched(trials))))


def whole_trainings(search: Search) -> float:
    """Return the work of a job in full training runs, with successive halving: every design is trained to the first
    rung, the best of them to the next one, and so on. Baselines and repeats are full runs."""
    count = _searched(search)
    least = min(search.finalists, count)
    shares = [0.0, *RUNGS, 1.0]
    if count == least:
        whole = float(count)
    else:
        reaching = [max(least, count / ETA**rung) for rung in range(len(RUNGS) + 1)]
        whole = sum(n * (b - a) for n, a, b in zip(reaching, shares, shares[1:], strict=False))
    return len(BASELINES) + whole + planned_confirmations(search)


def _before(moment: datetime, deadline: datetime | None) -> datetime:
    return moment if deadline is None else min(moment, deadline)


def _shares(search: Search, trials: Sequence[TrialRecord]) -> list[float]:
    """Return the shares of the budget that these trials used: of the full training runs, and of the device-seconds."""
    shares = [min(1.0, sum(map(_trained, _launched(trials))) / whole_trainings(search))]
    if search.device_seconds is not None:
        shares.append(min(1.0, device_seconds(trials) / search.device_seconds))
    return shares


def _trained(trial: TrialRecord) -> float:
    """Return the share of a full training that the trial did; of a failed one, what it would have done by then."""
    if trial.state is TrialState.COMPLETE:
        return 1.0
    if trial.rung is not None:
        return RUNGS[min(trial.rung, len(RUNGS) - 1)]
    return RUNGS[0] if trial.state.terminal else 0.0


def _searched(search: Search) -> int:
    return max(0, search.trials - len(BASELINES))


def _launched(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [trial for trial in trials if trial.state is not TrialState.INFEASIBLE or trial.started_at is not None]
