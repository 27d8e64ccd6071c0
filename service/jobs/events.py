"""The event log of a job, as users read it. Each function writes inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from luthier.api_types import Recommendation
from luthier.errors import LuthierError
from luthier.metrics import deciding, mean_metrics, phrases, seeds_count
from luthier.schedule import Contest
from luthier.store import Connection, events, jobs
from luthier.store.rows import JobRecord, TrialRecord
from luthier.task import DataKind, Extension, Objective
from luthier.trial import Metrics, TrialState, rung_name
from search.policy.ranking import Choice


def created(
    c: Connection, job: JobRecord, file: str, notes: Iterable[str], warnings: Iterable[str], now: datetime
) -> None:
    match job.judge.objective:
        case "perplexity":
            objective = f"{deciding(job.judge.objective).label} on held-out rows"
        case "reward" if job.judge.environment is not None:
            objective = f"the reward of {job.judge.environment.name} on held-out prompts"
        case "reward" if job.judge.grader is not None:
            objective = f"the mean grade of generated answers to held-out prompts ({job.judge.grader.name})"
        case _ if job.judge.kind is DataKind.UNPAIRED:
            objective = "how often a good held-out answer is preferred to a bad one (label_auc)"
        case _:
            objective = "accuracy on held-out preference pairs"
    _info(c, job.id, f"Created: {job.search.trials} trials on {file}. Objective: {objective}.", now)
    for note in notes:
        _info(c, job.id, note, now)
    for warning in warnings:
        _warn(c, job.id, warning, now)


def small_budget(c: Connection, job: JobRecord, warning: str, now: datetime) -> None:
    _warn(c, job.id, warning, now)


def started(c: Connection, job: JobRecord, workers: int, now: datetime) -> None:
    if workers:
        _info(c, job.id, f"Running; {workers} {'worker is' if workers == 1 else 'workers are'} connected.", now)
    else:
        _warn(c, job.id, "Waiting for a worker. Start one with `luthier worker --server URL`.", now)


def trial_started(c: Connection, trial: TrialRecord, worker: str, now: datetime) -> None:
    again = f" again (lease {trial.fence})" if trial.fence > 1 else ""
    what = "is being scored" if trial.origin == "champion" else "started"
    text = f"{_name(trial)} {what}{again} on {worker}: {trial.design.summary()}."
    _info(c, trial.job_id, text, now, {**_lease(trial), "worker": worker})


def trial_ended(c: Connection, trial: TrialRecord, now: datetime) -> None:
    """Log the end of a lease, in any way but the loss of the worker."""
    name, seconds = _name(trial), f"{trial.device_seconds:.1f} device-seconds"
    match trial.state:
        case TrialState.COMPLETE:
            assert trial.metrics is not None  # the store refuses a complete trial without
            what = "was scored" if trial.origin == "champion" else "complete"
            text = f"{name} {what}: {numbers(trial.metrics, _objective(c, trial))}{_cut(trial)}, after {seconds}."
            data = {**_end(trial), "metrics": trial.metrics.model_dump(mode="json")}
            events.add(c, trial.job_id, "info", "metrics", text, now, data)
        case TrialState.FAILED:
            _warn(c, trial.job_id, f"{name} failed: {trial.error or 'its worker gave no reason'}", now, _end(trial))
        case TrialState.INFEASIBLE:
            reason = trial.error or "its worker gave no reason"
            _info(c, trial.job_id, f"{name} is not possible: {reason}", now, _end(trial))
        case TrialState.CANCELLED:
            _info(c, trial.job_id, f"{name} stopped after {seconds}.", now, _end(trial))
        case TrialState.WAITING if trial.paused:
            assert trial.rung is not None
            place = rung_name(trial.design, trial.rung)
            found = numbers(trial.measured[-1], _objective(c, trial))
            text = f"{name} paused at {place}, with {found}; resumes if promoted."
            _info(c, trial.job_id, text, now, {**_end(trial), "state": "paused"})
        case TrialState.WAITING:
            _info(c, trial.job_id, f"{name} was returned by its worker and waits for another.", now, _end(trial))
        case TrialState.PRUNED | TrialState.LEASED:
            raise AssertionError(f"no lease ends as {trial.state}")


def worker_lost(c: Connection, trial: TrialRecord, now: datetime) -> None:
    if trial.state is TrialState.FAILED:
        trial_ended(c, trial, now)
        return
    start = "its last checkpoint" if trial.checkpoint else "the start"
    text = f"{_name(trial)} lost its worker. It waits for another and resumes from {start}."
    _warn(c, trial.job_id, text, now, {**_end(trial), "state": "lost"})


def goes_on(c: Connection, trial: TrialRecord, now: datetime) -> None:
    """Log a trial that was just scored at a rung and continues."""
    assert trial.rung is not None
    place = rung_name(trial.design, trial.rung)
    among = "of all, or of those with the same objectives"
    found = numbers(trial.measured[-1], _objective(c, trial))
    text = f"{_name(trial)} is in the top third at {place} ({among}), with {found}; it continues."
    _info(c, trial.job_id, text, now)


def promoted(c: Connection, paused: TrialRecord, goal: int | None, now: datetime) -> None:
    assert paused.rung is not None
    to = "the end" if goal is None else rung_name(paused.design, goal)
    place = rung_name(paused.design, paused.rung)
    _info(c, paused.job_id, f"Trial {paused.number}, paused at {place}, is promoted to {to}.", now)


def wraps_up(c: Connection, paused: TrialRecord, reason: str, now: datetime) -> None:
    """`reason`: why the search has ended, as a clause."""
    assert paused.rung is not None
    place = rung_name(paused.design, paused.rung)
    text = f"Trial {paused.number}, paused at {place}, is resumed only to be scored at its best moment: {reason}."
    _info(c, paused.job_id, text, now)


def pruned(c: Connection, trials: Sequence[TrialRecord], now: datetime) -> None:
    """Log the paused trials that will not be promoted any more, one event for each rung."""

    def place(trial: TrialRecord) -> str:
        return rung_name(trial.design, trial.rung or 0)

    for at, some in groupby(sorted(trials, key=place), key=place):
        stopped = list(some)
        numbers = ", ".join(str(trial.number) for trial in stopped)
        which = f"{'Trial' if len(stopped) == 1 else 'Trials'} {numbers}"
        _info(c, stopped[0].job_id, f"{which} stopped at {at}: not in the top third.", now)


def refused(c: Connection, trial: TrialRecord, now: datetime) -> None:
    _info(c, trial.job_id, f"Trial {trial.number} ({trial.design.summary()}) was not started: {trial.error}", now)


def repeating(c: Connection, job: JobRecord, trial: TrialRecord, repeated: int, now: datetime) -> None:
    split = job.split_of(trial)
    where = f" on split {split + 1} of the rows" if split else ""
    _info(c, job.id, f"Trial {trial.number} repeats the design of trial {repeated} with another seed{where}.", now)


def stopping(c: Connection, trial: TrialRecord, now: datetime) -> None:
    how = "" if trial.state is TrialState.CANCELLED else " It ends at its next heartbeat."
    _info(c, trial.job_id, f"Trial {trial.number} was stopped by a user.{how}", now)


def added_manually(c: Connection, trial: TrialRecord, now: datetime) -> None:
    _info(c, trial.job_id, f"Trial {trial.number} was added by a user: {trial.design.summary()}.", now)


def new_best(
    c: Connection, job: JobRecord, trial: TrialRecord, base: Metrics | None, *, beats_base: bool, now: datetime
) -> None:
    assert trial.metrics is not None
    found = numbers(trial.metrics, job.judge.objective)
    if base is None:
        text = f"Trial {trial.number} is the best so far: {found}."
    else:
        which = (
            "the best so far" if beats_base else "the best trained design so far, but not better than the untuned base"
        )
        text = f"Trial {trial.number} is {which}: {found}; the untuned base has {numbers(base, job.judge.objective)}."
    _info(c, trial.job_id, text, now)


def search_ended(c: Connection, job: JobRecord, reason: str, now: datetime) -> None:
    _info(c, job.id, f"No more trials: {reason}.", now)


def succeeded(
    c: Connection,
    job: JobRecord,
    named: Sequence[TrialRecord],
    base: TrialRecord | None,
    recommendation: Recommendation,
    choice: Choice,
    now: datetime,
) -> None:
    """`named`: the trials of the design that the job's model stands for, one for each seed, the first trained first."""
    first, over = named[0], f" ({seeds_count(len(named))})" if named[0].design.stages else ""
    mean = mean_metrics([one.metrics for one in named if one.metrics is not None])
    objective = job.judge.objective
    found = f"trial {first.number}, {numbers(mean, objective)}{over} ({first.design.summary()})"
    _info(c, job.id, f"Finished: {found}. The model is called {job.fine_tuned_model}.", now)
    tests = [one.test_metrics for one in named if one.test_metrics is not None]
    if first.design.stages and tests and base is not None and base.test_metrics is not None:
        tested = f"{numbers(mean_metrics(tests), objective)} ({seeds_count(len(tests))})"
        words = f"On test rows, which the search did not see: {tested}; the untuned base has "
        _info(c, job.id, f"{words}{numbers(base.test_metrics, objective)}.", now)
    if recommendation.number is not None:
        log = _info if first.design.stages else _warn
        log(c, job.id, " ".join(recommendation.words), now)
    elif not choice.beats_base:
        text = (
            "No trained design is better than the untuned base model on the validation rows. Use the base model, or "
            "try more data or more trials."
        )
        _warn(c, job.id, text, now)
    else:
        _info(c, job.id, recommendation.words[-1], now)


def extended(c: Connection, job: JobRecord, extension: Extension, now: datetime) -> None:
    """`job`: with its new budget."""
    limits = [f"{job.search.trials} trials"]
    if job.search.device_seconds is not None:
        limits.append(f"{job.search.device_seconds:g} device-seconds")
    if job.search.deadline is not None:
        limits.append(f"until {job.search.deadline:%Y-%m-%d %H:%M:%S %Z}")
    text = f"Extended: the budget is now {', '.join(limits)}. The search continues with trial {extension.first_trial}."
    data = {"extension": extension.model_dump(mode="json")}
    _info(c, job.id, text, now, data)


def winner_changed(c: Connection, job: JobRecord, before: TrialRecord, winner: TrialRecord, now: datetime) -> None:
    """`job`: as it was before the extended search ended."""
    text = f"The best design changed: trial {winner.number} takes the place of trial {before.number}."
    _info(c, job.id, text, now, {"trial": winner.id, "number": winner.number, "before": before.id})


def failed(c: Connection, job: JobRecord, error: LuthierError, now: datetime) -> None:
    events.add(c, job.id, "error", "message", f"Failed: {error.message}", now)


def cancelled(c: Connection, job: JobRecord, now: datetime) -> None:
    _info(c, job.id, "Cancelled; running trials stop at their next heartbeat.", now)


def paused(c: Connection, job: JobRecord, running: int, now: datetime) -> None:
    """`running`: the number of its trials that are leased."""
    several = f"{running} running trials save a checkpoint and stop at their next heartbeat"
    which = "the running trial saves a checkpoint and stops at its next heartbeat" if running == 1 else several
    _info(c, job.id, f"Paused{f': {which}' if running else ''}. No trial starts until the job is resumed.", now)


def resumed(c: Connection, job: JobRecord, now: datetime) -> None:
    _info(c, job.id, "Resumed; each trial resumes from its checkpoint.", now)


def deleted(c: Connection, job: JobRecord, now: datetime) -> None:
    """`job`: as it was before its model was deleted."""
    _info(c, job.id, f"The model {job.fine_tuned_model} and its weights were deleted.", now)


def challenged(c: Connection, job_id: str, champion: str, now: datetime) -> None:
    _info(c, job_id, f"The search is over. The current model {champion} is now scored on the same test rows.", now)


def contested(c: Connection, job_id: str, alias: str, contest: Contest, now: datetime) -> None:
    outcome = "now points to the model of this job" if contest.promoted else "was not moved"
    _info(c, job_id, f"alias/{alias} {outcome}: {contest.why}.", now)


def numbers(metrics: Metrics, objective: Objective) -> str:
    """Return the metrics as a phrase, that of the objective first."""
    return phrases("log", metrics, objective)


def _objective(c: Connection, trial: TrialRecord) -> Objective:
    return jobs.get(c, trial.job_id).judge.objective


def _cut(trial: TrialRecord) -> str:
    """Return that the budget or a user ended the training, as a clause; nothing where it ended by itself."""
    ends = {length.ended for length in trial.lengths or ()}
    if "user" in ends:
        return ", stopped by a user"
    return ", cut by the budget" if "budget" in ends else ""


def _name(trial: TrialRecord) -> str:
    return "The champion" if trial.origin == "champion" else f"Trial {trial.number}"


def _lease(trial: TrialRecord) -> dict[str, Any]:
    """Return the data that every event about a lease has, for programs."""
    return {"trial": trial.id, "number": trial.number, "lease": trial.fence}


def _end(trial: TrialRecord) -> dict[str, Any]:
    return {**_lease(trial), "state": trial.state.value}


def _info(c: Connection, job_id: str, message: str, now: datetime, data: dict[str, Any] | None = None) -> None:
    events.add(c, job_id, "info", "message", message, now, data)


def _warn(c: Connection, job_id: str, message: str, now: datetime, data: dict[str, Any] | None = None) -> None:
    events.add(c, job_id, "warn", "message", message, now, data)
