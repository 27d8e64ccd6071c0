"""Designs that users add to a running job, and trials that they stop."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from luthier.design import Design
from luthier.errors import Conflict, IllegalDesign, Infeasible, UserError
from luthier.store import Connection, jobs, models, trials
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import JobState
from search.policy.ranking import best
from search.space import validate
from search.space.modify import changed, place
from service.context import Context
from service.jobs import budget, costs, events, history, reconcile
from service.jobs.lifecycle import drop_checkpoints
from service.jobs.space import legal_space
from service.schemas.requests import AddTrial


def stop(ctx: Context, job_id: str, trial: str, now: datetime) -> TrialRecord:
    """Stop one trial, given by id or number. Raises NotFound, and Conflict for a trial that has ended."""
    with ctx.database.begin() as c:
        jobs.lock(c, job_id)
        before = trials.named(c, job_id, trial)
        if before.state.terminal:
            raise Conflict(f"trial {before.number} has already ended: it is {before.state}")
        after = trials.stop(c, before.id, now)
        if not before.stopped:
            events.stopping(c, after, now)
        ctx.garbage.release_at_once(drop_checkpoints(c, [after]))
        return trials.get(c, before.id)


def add(ctx: Context, job_id: str, body: AddTrial, now: datetime) -> TrialRecord:
    """Queue a design. It is trained to the end, without halving.

    Raises NotFound; IllegalDesign with the field at fault; Infeasible, with the figures, where it fits no live worker;
    Conflict where the job is not running, has no trial left, or already has the design.
    """
    reconcile.advance(ctx, job_id, now)  # a queued job starts, so that its baselines come first
    job, rows = _with_baselines(ctx, job_id, now)
    design = _design(ctx, job, rows, body)
    if why := costs.refusal(ctx, job, rows, now)(design):
        raise Infeasible(f"{design.summary()} cannot run: {why}", param="design")
    with ctx.database.begin() as c:
        job = jobs.lock(c, job_id)
        rows = trials.of_job(c, job_id)
        _check_open(job, rows)
        row = trials.insert(c, job_id, len(rows), design, job.seed, "user", now)
        if row is None:
            same = next(one for one in rows if one.digest == design.digest() and one.seed == job.seed)
            raise Conflict(f"trial {same.number} already has this design: {design.summary()}", param="design")
        events.added_manually(c, row, now)
        return row


def _with_baselines(ctx: Context, job_id: str, now: datetime) -> tuple[JobRecord, Sequence[TrialRecord]]:
    """Return the job and its trials, the baselines queued. Raises Conflict where it takes no designs."""
    with ctx.database.read() as c:
        job = jobs.get(c, job_id)
        rows: Sequence[TrialRecord] = trials.of_job(c, job_id)
    _check_open(job, rows)
    if len(rows) < len(history.BASELINES):
        with ctx.turn:
            rows, _ = reconcile.fill(ctx, job, rows, len(budget.open_trials(rows)) + 1, now)
    if len(rows) < len(history.BASELINES):
        raise Conflict(f"the baselines of job {job_id} are not queued yet: try again in a moment")
    return job, rows


def _check_open(job: JobRecord, rows: Sequence[TrialRecord]) -> None:
    if job.state is not JobState.RUNNING:
        raise Conflict(f"job {job.id} is {job.state}, and only a running job takes designs: create a new job from it")
    if len(budget.designs(rows)) >= job.search.trials:
        raise Conflict(
            f"job {job.id} has no trial left of its {job.search.trials}: create a new job from it",
            param="search.trials",
        )


def _design(ctx: Context, job: JobRecord, rows: Sequence[TrialRecord], body: AddTrial) -> Design:
    if (body.design is None) == (body.change is None):
        raise UserError("give either `design`, a whole one, or `change`, to the design of `trial`", param="design")
    with ctx.database.read() as c:
        known = job.search.pin.model or ()
        entries = {entry.name: entry for entry in models.list_(c) if entry.name in known}
        start = None if body.design is not None else _start(c, job, rows, body.trial)
    if body.design is not None:
        design = body.design
    else:
        assert body.change is not None
        assert start is not None
        try:
            design = changed(start, body.change, lambda pin: legal_space(ctx, job, pin))
        except UserError as error:
            error.param = place(error)
            raise
    if not design.stages:
        raise IllegalDesign(
            "a design without stages is the untuned base model, which is trial 0", param="design.stages"
        )
    base = design.architecture.base
    if base not in entries:
        raise IllegalDesign(
            f"base model {base!r} is not one of this job's base models: {', '.join(known)}",
            param="design.architecture.base",
        )
    validate.check(design, job.judge.kind, entries[base], rewarded=job.task.rewarded, entries=tuple(entries.values()))
    return design


def _start(c: Connection, job: JobRecord, rows: Sequence[TrialRecord], trial: str | None) -> Design:
    """Return the design that a change starts from: the trial's, else the best so far, else the LoRA default."""
    if trial is not None:
        return trials.named(c, job.id, trial, param="trial").design
    choice = best(history.past(job, rows))
    if choice is not None and choice.trial.design.stages:
        return choice.trial.design
    return rows[history.BASELINES[1]].design
