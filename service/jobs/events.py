"""A job's events, in words for the person who waits for it. Each function writes inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from luthier.errors import LuthierError
from luthier.metrics import deciding, mean_metrics, phrases
from luthier.schedule import Contest
from luthier.store import Connection, events
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import Metrics, TrialState, rung_name
from search.policy.ranking import Choice


def created(c: Connection, job: JobRecord, file: str, notes: Iterable[str], now: datetime) -> None:
    _say(c, job.id, f"Created: {job.search.trials} trials on {file}, judged by {_judged_by(job)}.", now)
    for note in notes:
        _say(c, job.id, note, now)


def started(c: Connection, job: JobRecord, workers: int, now: datetime) -> None:
    if workers:
        _say(c, job.id, f"Running; {workers} {'worker is' if workers == 1 else 'workers are'} connected.", now)
    else:
        _warn(c, job.id, "Running as soon as a worker connects (elsewhere: `luthier worker --server URL`).", now)


def trial_started(c: Connection, trial: TrialRecord, worker: str, now: datetime) -> None:
    again = f" again (lease {trial.fence})" if trial.fence > 1 else ""
    what = "is being scored" if trial.origin == "champion" else "started"
    text = f"{_name(trial)} {what}{again} on {worker}: {trial.design.summary()}."
    _say(c, trial.job_id, text, now, {**_lease(trial), "worker": worker})


def trial_ended(c: Connection, trial: TrialRecord, now: datetime) -> None:
    """One line for each way in which a lease ends, lost workers aside."""
    name, seconds = _name(trial), f"{trial.device_seconds:.1f} device-seconds"
    match trial.state:
        case TrialState.COMPLETE:
            assert trial.metrics is not None  # the store refuses a complete trial without
            what = "is scored" if trial.origin == "champion" else "complete"
            text = f"{name} {what}: {numbers(trial.metrics)}, after {seconds}."
            data = {**_end(trial), "metrics": trial.metrics.model_dump(mode="json")}
            events.add(c, trial.job_id, "info", "metrics", text, now, data)
        case TrialState.FAILED:
            _warn(c, trial.job_id, f"{name} failed: {trial.error or 'its worker gave no reason'}", now, _end(trial))
        case TrialState.INFEASIBLE:
            reason = trial.error or "its worker gave no reason"
            _say(c, trial.job_id, f"{name} does not fit the device: {reason}", now, _end(trial))
        case TrialState.CANCELLED:
            _say(c, trial.job_id, f"{name} stopped after {seconds}.", now, _end(trial))
        case TrialState.WAITING if trial.paused:
            text = f"{name} pauses at {_rung(trial)}, with {numbers(trial.measured[-1])}."
            _say(c, trial.job_id, text, now, {**_end(trial), "state": "paused"})
        case TrialState.WAITING:
            _say(c, trial.job_id, f"{name} was handed back by its worker and waits for another.", now, _end(trial))
        case TrialState.PRUNED | TrialState.LEASED:
            raise AssertionError(f"no lease ends as {trial.state}")


def goes_on(c: Connection, trial: TrialRecord, now: datetime) -> None:
    """Of a trial that was just scored at a rung and need not pause."""
    best = f"Trial {trial.number} is among the best third at {_rung(trial)}, with {numbers(trial.measured[-1])}"
    _say(c, trial.job_id, f"{best}, and goes on.", now)


def promoted(c: Connection, paused: TrialRecord, goal: int | None, now: datetime) -> None:
    where = "to the end" if goal is None else f"to {rung_name(goal)}"
    _say(c, paused.job_id, f"Trial {paused.number}, which pauses at {_rung(paused)}, goes on {where}.", now)


def pruned(c: Connection, trials: Sequence[TrialRecord], now: datetime) -> None:
    several = f"trials {', '.join(str(trial.number) for trial in trials)}"
    those = f"trial {trials[0].number}" if len(trials) == 1 else several
    _say(c, trials[0].job_id, f"Given up, as too many others did better where they pause: {those}.", now)


def refused(c: Connection, trial: TrialRecord, now: datetime) -> None:
    _say(c, trial.job_id, f"Trial {trial.number} ({trial.design.summary()}) is not launched: {trial.error}", now)


def confirming(c: Connection, job_id: str, number: int, confirmed: int, now: datetime) -> None:
    _say(c, job_id, f"Trial {number} trains the design of trial {confirmed} once more, from another seed.", now)


def stopping(c: Connection, trial: TrialRecord, now: datetime) -> None:
    """Of a trial that somebody has stopped; a running one ends at its next heartbeat."""
    how = "" if trial.state is TrialState.CANCELLED else " It ends at its next heartbeat."
    _say(c, trial.job_id, f"Trial {trial.number} was stopped by hand.{how}", now)


def queued_by_hand(c: Connection, trial: TrialRecord, now: datetime) -> None:
    _say(c, trial.job_id, f"Trial {trial.number} was queued by hand: {trial.design.summary()}.", now)


def new_best(c: Connection, trial: TrialRecord, base: Metrics | None, now: datetime) -> None:
    assert trial.metrics is not None
    against = f"; the untuned base has {numbers(base)}" if base is not None else ""
    _say(c, trial.job_id, f"Trial {trial.number} is the best so far: {numbers(trial.metrics)}{against}.", now)


def worker_lost(c: Connection, trial: TrialRecord, now: datetime) -> None:
    match trial.state:
        case TrialState.FAILED:
            trial_ended(c, trial, now)
        case _:
            progress = "its last checkpoint" if trial.checkpoint else "the start"
            text = f"{_name(trial)} lost its worker; it waits for another and goes on from {progress}."
            _warn(c, trial.job_id, text, now, {**_end(trial), "state": "lost"})


def budget_spent(c: Connection, job: JobRecord, reason: str, now: datetime) -> None:
    _say(c, job.id, f"No more trials: {reason}.", now)


def succeeded(
    c: Connection, job: JobRecord, won: Sequence[TrialRecord], base: TrialRecord | None, choice: Choice, now: datetime
) -> None:
    """`won` are the trials of the winning design, one for each seed, that whose weights are kept first."""
    winner, over = won[0], f" on average over {len(won)} seeds" if len(won) > 1 else ""
    mean = mean_metrics([one.metrics for one in won if one.metrics is not None])
    found = f"trial {winner.number} is the best, {numbers(mean)}{over} ({winner.design.summary()})"
    _say(c, job.id, f"Finished: {found}. It is called {job.fine_tuned_model}.", now)
    tests = [one.test_metrics for one in won if one.test_metrics is not None]
    if tests and base is not None and base.test_metrics is not None:
        tested = f"{numbers(mean_metrics(tests))}{over}, against {numbers(base.test_metrics)} for the untuned base"
        _say(c, job.id, f"On test rows that no proposal has seen: {tested}.", now)
    if not choice.beats_base:
        _warn(
            c,
            job.id,
            "No trained design is better than the untuned base model on the validation rows: prefer the base, or try "
            "more data or more trials.",
            now,
        )


def failed(c: Connection, job: JobRecord, error: LuthierError, now: datetime) -> None:
    events.add(c, job.id, "error", "message", f"Failed: {error.message}", now)


def cancelled(c: Connection, job: JobRecord, now: datetime) -> None:
    _say(c, job.id, "Cancelled; trials that are running stop at their next heartbeat.", now)


def paused(c: Connection, job: JobRecord, running: int, now: datetime) -> None:
    """`running`: how many of its trials are under a lease."""
    several = f"{running} running trials stop at their next heartbeats, each with a checkpoint"
    those = "the running trial stops at its next heartbeat, with a checkpoint" if running == 1 else several
    _say(c, job.id, f"Paused{f': {those}' if running else ''}. Nothing more is started until it is resumed.", now)


def resumed(c: Connection, job: JobRecord, now: datetime) -> None:
    _say(c, job.id, "Resumed; each trial goes on from where it stopped.", now)


def deleted(c: Connection, job: JobRecord, now: datetime) -> None:
    """`job` as it was before."""
    _say(c, job.id, f"The model {job.fine_tuned_model} was deleted, and its weights with it.", now)


def challenged(c: Connection, job_id: str, champion: str, now: datetime) -> None:
    _say(c, job_id, f"The search is over; the champion {champion} is now scored on the same test rows.", now)


def contested(c: Connection, job_id: str, alias: str, contest: Contest, now: datetime) -> None:
    outcome = "now stands for the model of this job" if contest.promoted else "stays as it is"
    _say(c, job_id, f"alias/{alias} {outcome}: {contest.why}.", now)


def numbers(metrics: Metrics) -> str:
    """Metrics in one phrase."""
    return phrases("log", metrics)


def _name(trial: TrialRecord) -> str:
    return "The champion" if trial.origin == "champion" else f"Trial {trial.number}"


def _rung(trial: TrialRecord) -> str:
    """Where the trial stands, for the middle of a sentence."""
    assert trial.rung is not None
    return f"{rung_name(trial.rung)} of its training"


def _judged_by(job: JobRecord) -> str:
    match job.judge.objective:
        case "perplexity":
            return f"{deciding(job.judge.objective).label} on held-out rows"
        case "reward" if job.judge.environment is not None:
            return f"the reward of {job.judge.environment.name} for held-out prompts"
        case "reward" if job.judge.grader is not None:
            return f"the mean grade of its answers to held-out prompts ({job.judge.grader.name})"
        case _:
            return "accuracy on held-out preference pairs"


def _lease(trial: TrialRecord) -> dict[str, Any]:
    """What a program needs to know of an event in the life of a lease."""
    return {"trial": trial.id, "number": trial.number, "lease": trial.fence}


def _end(trial: TrialRecord) -> dict[str, Any]:
    return {**_lease(trial), "state": trial.state.value}


def _say(c: Connection, job_id: str, message: str, now: datetime, data: dict[str, Any] | None = None) -> None:
    events.add(c, job_id, "info", "message", message, now, data)


def _warn(c: Connection, job_id: str, message: str, now: datetime, data: dict[str, Any] | None = None) -> None:
    events.add(c, job_id, "warn", "message", message, now, data)
