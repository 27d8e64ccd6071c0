"""The report of a job: reads the rows from the store that `search.report.build` needs."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.errors import NotFound
from luthier.report import Report
from luthier.store import Connection, files, jobs, measurements, trials
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import TRAIN_LOSS, TrialState
from search.policy.scheduler import RESERVED, EndCode
from search.policy.widen import widened
from search.report.build import explain
from search.report.inputs import Case
from search.report.recommend import chosen
from service.context import Context
from service.jobs import budget, outcome, space
from service.results import trials as views


def report(ctx: Context, job_id: str) -> Report:
    """Return the report of a job, as far as it has come. Raises NotFound."""
    with ctx.database.read() as c:
        job = jobs.get(c, job_id)
        rows = trials.of_job(c, job_id)
        case = case_of(c, ctx, job, rows)
        shown = {one.number for one in (case.winner, chosen(case)) if one is not None}
        answers = {row.number: views.samples(c, row) for row in rows if row.number in shown}
    searched = space.space_if_any(ctx, job)
    if searched is not None:
        searched = widened(searched, case.history)
    return explain(case.model_copy(update={"space": searched, "answers": answers}))


def case_of(c: Connection, ctx: Context, job: JobRecord, rows: Sequence[TrialRecord]) -> Case:
    """Return what the report and the charts are made of, without the design space, which takes longer to make."""
    case = outcome.case_of(c, ctx, job, rows)
    winner = None if case.winner is None else next(row for row in rows if row.number == case.winner.number)
    shown = {
        "file": _filename(c, job),
        "ended": ended_because(job, rows),
        "curve": () if winner is None else _curve(c, winner),
    }
    return case.model_copy(update=shown)


def _filename(c: Connection, job: JobRecord) -> str | None:
    try:
        return files.get(c, job.training_file).filename
    except NotFound:  # a file may be deleted once the job has ended
        return None


def ended_because(job: JobRecord, rows: Sequence[TrialRecord]) -> str | None:
    """Return why the search started no more trials, as a clause; None while it may, and where no reason is known."""
    if job.ended_reason is None:
        return None
    search = job.search
    match EndCode(job.ended_reason):
        case EndCode.TRIALS:
            return f"all {search.trials} trials are done"
        case EndCode.DEVICE_SECONDS if (
            search.device_seconds is not None and budget.device_seconds(rows) >= search.device_seconds
        ):
            return f"the budget of {search.device_seconds:g} device-seconds is spent"
        case EndCode.DEVICE_SECONDS:
            return RESERVED.reason
        case EndCode.DEADLINE:
            return f"the deadline {search.deadline:%Y-%m-%d %H:%M:%S %Z} has passed"
        case EndCode.NO_IMPROVEMENT:
            return "the latest designs did not improve on the best, and more were not expected to"
        case EndCode.SPACE_EXHAUSTED:
            return f"all {len(budget.designs(rows))} designs that the pins and constraints allow were tried"
        case EndCode.BASE_INFEASIBLE:
            base = budget.unusable_base(job, rows)
            return None if base is None else budget.base_infeasible(base)
        case EndCode.REFUSED:
            last = next((row.error for row in reversed(rows) if row.state is TrialState.INFEASIBLE), None)
            return f"too many proposed designs in a row cannot run: {last or 'no reason is known'}"


def _curve(c: Connection, winner: TrialRecord) -> tuple[float, ...]:
    """Return the training loss of its last stage, step by step."""
    last = len(winner.design.stages) - 1
    return tuple(point.value for point in measurements.of_trial(c, winner.id, TRAIN_LOSS) if point.stage == last)
