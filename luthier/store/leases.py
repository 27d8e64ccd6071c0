"""Leases: which worker trains which trial. Every change of a trial's state is one SQL statement.

Each report of a worker carries a Claim, the `(owner, fence)` of its lease. The statement changes the row only while
that lease holds. A report under a lost lease changes nothing and raises LeaseLost.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, case, func, literal, not_, null, select

from luthier.errors import LeaseLost, MissingMetric
from luthier.store import artifacts, measurements, tables, trials
from luthier.store.database import insert_into
from luthier.store.rows import TrialRecord
from luthier.store.trials import PAUSED
from luthier.trial import TRIAL_TRANSITIONS, JobState, TrialState
from luthier.worker_protocol import CheckpointSaved, Claim, Finished, Judged, RungReached

MAX_ATTEMPTS: Final = 3

Number = TypeVar("Number", int, float)

_trials = tables.trials
_t = tables.trials.c


def acquire(c: Connection, owner: str, now: datetime, lease_seconds: float) -> TrialRecord | None:
    """Lease a waiting trial, or return None if there is none.

    It is a trial of the oldest running job that has one, at the highest rung, then with the lowest number. Paused jobs
    and paused trials are left out.
    """
    jobs = tables.jobs.c
    free = (
        select(_t.id)
        .join(tables.jobs, jobs.id == _t.job_id)
        .where(_t.state.in_(_before(TrialState.LEASED)), not_(PAUSED))
        .where(jobs.state == JobState.RUNNING, not_(jobs.paused))
        .order_by(jobs.created_at, jobs.id, func.coalesce(_t.rung, -1).desc(), _t.number)
        .limit(1)
        .with_for_update(of=_trials, skip_locked=True)
        .scalar_subquery()
    )
    lease = {
        "state": TrialState.LEASED,
        "owner": owner,
        "fence": _t.fence + 1,
        "attempts": _t.attempts + 1,
        "expires_at": now + timedelta(seconds=lease_seconds),
        "started_at": func.coalesce(_t.started_at, now),
        "finished_by": null(),
    }
    row = c.execute(_trials.update().where(_t.id == free).values(lease).returning(*trials.COLUMNS)).mappings().first()
    return None if row is None else TrialRecord(**row)


def renew(
    c: Connection,
    trial_id: str,
    claim: Claim,
    now: datetime,
    lease_seconds: float,
    device_seconds: float,
    trained_tokens: int = 0,
) -> TrialRecord:
    """Extend the lease to `now + lease_seconds`. Raises LeaseLost, or NotFound for an unknown trial."""
    changes = {
        "expires_at": now + timedelta(seconds=lease_seconds),
        "device_seconds": _at_least(_t.device_seconds, device_seconds),
        "trained_tokens": _at_least(_t.trained_tokens, trained_tokens),
    }
    return _change(c, trial_id, claim, changes)


def finish(c: Connection, trial_id: str, report: Finished, now: datetime) -> TrialRecord:
    """End the lease and store the report: metrics, scores, usage, points, log, samples and artifacts.

    `waiting` returns the trial, paused if it is at its goal; the lease does not count as an attempt. Sending the same
    report twice is harmless and returns the row.

    Raises LeaseLost, NotFound for an unknown trial, and MissingMetric for a complete trial without metrics.
    """
    outcome = TrialState(report.outcome)
    changes: dict[str, Any] = {
        "state": outcome,
        "owner": None,
        "expires_at": None,
        "finished_by": report.owner,
        "device_seconds": _at_least(_t.device_seconds, report.device_seconds),
        "trained_tokens": _at_least(_t.trained_tokens, report.trained_tokens),
    }
    if outcome.terminal:
        changes |= {"finished_at": now, "error": report.error}
    else:
        changes |= {"attempts": _t.attempts - 1}
    kept = ("metrics", "test_metrics", "usage")
    changes |= {name: value for name in kept if (value := getattr(report, name)) is not None}
    if report.lengths:
        changes["lengths"] = report.lengths
    assert outcome in TRIAL_TRANSITIONS[TrialState.LEASED]
    record = _try_to_change(c, trial_id, report, changes)
    if record is None:
        return _finished_already(c, trial_id, report)
    if outcome is TrialState.COMPLETE and record.metrics is None:
        raise MissingMetric(f"Trial {trial_id} was reported as complete, but has no metrics.", param="metrics")
    if report.test_scores is not None:
        measurements.put_scores(c, trial_id, report.test_scores)
    measurements.add(c, trial_id, report.points)
    measurements.add_lines(c, trial_id, report.fence, report.lines)
    if report.samples:
        measurements.put_samples(c, trial_id, report.samples)
    artifacts.replace(c, trial_id, report.artifacts)
    return record


def save_checkpoint(c: Connection, trial_id: str, checkpoint: CheckpointSaved) -> str | None:
    """Store the checkpoint to resume from; return the manifest that it replaces, if any.

    Raises LeaseLost, or NotFound for an unknown trial.
    """
    before = _hold(c, trial_id, checkpoint)
    c.execute(_trials.update().where(_t.id == trial_id).values(checkpoint=checkpoint.manifest))
    blobs = tables.checkpoint_blobs
    c.execute(blobs.delete().where(blobs.c.trial_id == trial_id))
    digests = sorted({checkpoint.manifest, *checkpoint.blobs})
    c.execute(blobs.insert(), [{"trial_id": trial_id, "digest": digest} for digest in digests])
    return None if before.checkpoint == checkpoint.manifest else before.checkpoint


def reach_rung(c: Connection, trial_id: str, report: RungReached, now: datetime) -> TrialRecord:
    """Store the metrics of a trial at a rung. A rung that is reached again, after a lost worker, is overwritten.

    Raises LeaseLost, or NotFound for an unknown trial.
    """
    before = _hold(c, trial_id, report)
    # Older versions did not store lower rungs: assume the same metrics there.
    below = (*before.measured, *(report.metrics,) * report.rung)[: report.rung]
    measured = (*below, report.metrics, *before.measured[report.rung + 1 :])
    highest = report.rung if before.rung is None else max(before.rung, report.rung)
    record = _change(c, trial_id, report, {"rung": highest, "measured": measured})
    rungs = tables.rungs
    found = {name: getattr(report, name) for name in ("share", "stage", "step", "metrics")} | {"at": now}
    row = insert_into(c, rungs).values(trial_id=trial_id, rung=report.rung, **found)
    c.execute(row.on_conflict_do_update(index_elements=[rungs.c.trial_id, rungs.c.rung], set_=found))
    return record


def raise_goal(c: Connection, trial_id: str, claim: Claim, goal: int | None) -> TrialRecord:
    """Let a trial continue past its goal to the next one. Raises LeaseLost, or NotFound."""
    return _change(c, trial_id, claim, {"goal": goal})


def judge(c: Connection, trial_id: str, report: Judged) -> TrialRecord:
    """Store the validation score. Raises LeaseLost, or NotFound for an unknown trial."""
    changes = {"metrics": report.metrics, "device_seconds": _at_least(_t.device_seconds, report.device_seconds)}
    return _change(c, trial_id, report, changes)


def expire(c: Connection, now: datetime, max_attempts: int = MAX_ATTEMPTS) -> list[TrialRecord]:
    """Take back expired leases; a trial that has lost its worker `max_attempts` times fails."""
    return _take_back(c, _t.expires_at < now, now, max_attempts)


def release(c: Connection, owner: str, now: datetime, max_attempts: int = MAX_ATTEMPTS) -> list[TrialRecord]:
    """Take back the leases that a worker held before it restarted, under the same rule as `expire`."""
    return _take_back(c, _t.owner == owner, now, max_attempts)


def _take_back(c: Connection, lost: ColumnElement[bool], now: datetime, max_attempts: int) -> list[TrialRecord]:
    assert TRIAL_TRANSITIONS[TrialState.LEASED] >= {TrialState.WAITING, TrialState.FAILED}
    spent = _t.attempts >= max_attempts
    changes = {
        "state": case(
            (spent, literal(TrialState.FAILED, _t.state.type)), else_=literal(TrialState.WAITING, _t.state.type)
        ),
        "owner": None,
        "expires_at": None,
        "finished_at": case((spent, literal(now, _t.finished_at.type))),
        "error": case((spent, f"its worker was lost {max_attempts} times")),
    }
    query = _trials.update().where(_t.state == TrialState.LEASED, lost).values(changes).returning(*trials.COLUMNS)
    return [TrialRecord(**row) for row in c.execute(query).mappings()]


def _before(state: TrialState) -> list[TrialState]:
    return [before for before, successors in TRIAL_TRANSITIONS.items() if state in successors]


def _held(trial_id: str, claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return _t.id == trial_id, _t.state == TrialState.LEASED, _t.owner == claim.owner, _t.fence == claim.fence


def _at_least(stored: ColumnElement[Number], total: Number) -> ColumnElement[Number]:
    """Totals only grow: a late or repeated report must not reduce them."""
    return case((stored > total, stored), else_=total)


def _hold(c: Connection, trial_id: str, claim: Claim) -> TrialRecord:
    """Return the row, locked until the end of the transaction. Raises LeaseLost, or NotFound."""
    query = select(*trials.COLUMNS).where(*_held(trial_id, claim)).with_for_update()
    row = c.execute(query).mappings().one_or_none()
    if row is None:
        raise _lost(c, trial_id, claim)
    return TrialRecord(**row)


def _try_to_change(c: Connection, trial_id: str, claim: Claim, changes: dict[str, Any]) -> TrialRecord | None:
    query = _trials.update().where(*_held(trial_id, claim)).values(changes).returning(*trials.COLUMNS)
    row = c.execute(query).mappings().one_or_none()
    return None if row is None else TrialRecord(**row)


def _change(c: Connection, trial_id: str, claim: Claim, changes: dict[str, Any]) -> TrialRecord:
    record = _try_to_change(c, trial_id, claim, changes)
    if record is None:
        raise _lost(c, trial_id, claim)
    return record


def _finished_already(c: Connection, trial_id: str, report: Finished) -> TrialRecord:
    same = (_t.id == trial_id, _t.finished_by == report.owner, _t.fence == report.fence)
    row = (
        c.execute(select(*trials.COLUMNS).where(*same, _t.state == TrialState(report.outcome))).mappings().one_or_none()
    )
    if row is None:
        raise _lost(c, trial_id, report)
    return TrialRecord(**row)


def _lost(c: Connection, trial_id: str, claim: Claim) -> LeaseLost:
    trial = trials.get(c, trial_id)
    holder = f"leased by {trial.owner} under fence {trial.fence}" if trial.owner else trial.state.value
    return LeaseLost(f"{claim.owner} no longer holds trial {trial_id} under fence {claim.fence}: it is {holder}.")
