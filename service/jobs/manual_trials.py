"""Designs that people queue by hand, and trials that they stop."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from luthier.dataset import Profile
from luthier.design import Design
from luthier.errors import Conflict, IllegalDesign, Infeasible, NotFound, UserError
from luthier.models.base_model import BaseModelEntry
from luthier.store import Connection, files, jobs, models, trials
from luthier.store.rows import JobRecord, TrialRecord
from luthier.task import Constraints, Pin
from luthier.trial import JobState
from search.policy.ranking import best
from search.space import validate
from search.space.modify import changed, place
from search.space.space import Space, space
from service.context import Context
from service.jobs import budget, costs, events, history, reconcile
from service.jobs.lifecycle import drop_checkpoints
from service.schemas.requests import AddTrial


def named(c: Connection, job_id: str, trial: str) -> TrialRecord:
    """The trial of a job with this id or number. Raises NotFound."""
    jobs.get(c, job_id)
    for row in trials.of_job(c, job_id):
        if trial in (row.id, str(row.number)):
            return row
    raise NotFound(f"job {job_id} has no trial {trial!r}: give its id or its number", param="trial_id")


def stop(ctx: Context, job_id: str, trial: str, now: datetime) -> TrialRecord:
    """End one trial. Raises NotFound, and Conflict for one that has ended."""
    with ctx.database.begin() as c:
        jobs.lock(c, job_id)
        before = named(c, job_id, trial)
        if before.state.terminal:
            raise Conflict(f"trial {before.number} has ended already: it is {before.state}")
        after = trials.stop(c, before.id, now)
        if not before.stopped:
            events.stopping(c, after, now)
        ctx.garbage.forsake(drop_checkpoints(c, [after]))
        return trials.get(c, before.id)


def add(ctx: Context, job_id: str, body: AddTrial, now: datetime) -> TrialRecord:
    """Queue a design; it is trained to its end, whatever the others do.

    Raises NotFound; IllegalDesign naming the field at fault; Infeasible with the numbers where it fits no live worker;
    Conflict where the job has ended, has no trial left, or had the design already.
    """
    reconcile.look_after(ctx, job_id, now)  # a job that is still queued starts, so that its baselines come first
    job, rows = _open(ctx, job_id, now)
    design = _design(ctx, job, rows, body)
    if why := costs.refusal(ctx, job, rows, now)(design):
        raise Infeasible(f"{design.summary()} cannot be run: {why}", param="design")
    with ctx.database.begin() as c:
        job = jobs.lock(c, job_id)
        rows = trials.of_job(c, job_id)
        _check_room(job, rows)
        row = trials.insert(c, job_id, len(rows), design, job.seed, "user", now)
        if row is None:
            same = next(one for one in rows if one.digest == design.digest() and one.seed == job.seed)
            raise Conflict(f"trial {same.number} has this very design: {design.summary()}", param="design")
        events.queued_by_hand(c, row, now)
        return row


def _open(ctx: Context, job_id: str, now: datetime) -> tuple[JobRecord, Sequence[TrialRecord]]:
    """The job with its baselines in place."""
    with ctx.database.read() as c:
        job = jobs.get(c, job_id)
        rows: Sequence[TrialRecord] = trials.of_job(c, job_id)
    _check_room(job, rows)
    if len(rows) < len(history.BASELINES):
        with ctx.turn:
            rows, _ = reconcile.fill(ctx, job, rows, len(budget.open_trials(rows)) + 1, now)
    if len(rows) < len(history.BASELINES):
        raise Conflict(f"job {job_id} has not started with its baselines yet: try again in a moment")
    return job, rows


def _check_room(job: JobRecord, rows: Sequence[TrialRecord]) -> None:
    if job.state is not JobState.RUNNING:
        raise Conflict(f"job {job.id} is {job.state}: only a running job takes designs; make a new job of this one")
    if len(budget.designs(rows)) >= job.search.trials:
        raise Conflict(
            f"all {job.search.trials} trials of job {job.id} are taken: make a new job of this one",
            param="search.trials",
        )


def _design(ctx: Context, job: JobRecord, rows: Sequence[TrialRecord], body: AddTrial) -> Design:
    with ctx.database.read() as c:
        known = job.search.pin.model or ()
        entries = [entry for entry in models.list_(c) if entry.name in known]
        profile = Profile.model_validate(files.get(c, job.training_file).profile)
    if (body.design is None) == (body.change is None):
        raise UserError("give either `design`, a whole one, or `change`, to the design of `trial`", param="design")
    if body.design is None:
        assert body.change is not None
        try:
            design = changed(
                _start(job, rows, body.trial), body.change, lambda pin: _space(ctx, job, entries, profile, pin)
            )
        except UserError as error:
            error.param = place(error)
            raise
    else:
        design = body.design
    if not design.stages:
        raise IllegalDesign(
            "a design without stages is the untuned base model, which is trial 0", param="design.stages"
        )
    entry = next((entry for entry in entries if entry.name == design.architecture.base), None)
    if entry is None:
        raise IllegalDesign(
            f"base model {design.architecture.base!r} is not one of this job's, whose judge was made for "
            f"{', '.join(known)}",
            param="design.architecture.base",
        )
    validate.check(design, job.judge.kind, entry, rewarded=job.task.rewarded)
    return design


def _start(job: JobRecord, rows: Sequence[TrialRecord], trial: str | None) -> Design:
    if trial is not None:
        found = next((row for row in rows if trial in (row.id, str(row.number))), None)
        if found is None:
            raise NotFound(f"job {job.id} has no trial {trial!r}: give its id or its number", param="trial")
        return found.design
    choice = best(history.past(job, rows))
    trained = choice is not None and choice.trial.design.stages
    return choice.trial.design if choice is not None and trained else rows[history.BASELINES[1]].design


def _space(ctx: Context, job: JobRecord, entries: Sequence[BaseModelEntry], profile: Profile, pin: Pin) -> Space:
    """All that is legal for the job's rows, whatever it searches."""
    return space(
        job.judge.kind,
        ctx.count_rows(job.train),
        entries,
        pin,
        Constraints(),
        length=profile.long_rows,
        rewarded=job.task.rewarded,
    )
